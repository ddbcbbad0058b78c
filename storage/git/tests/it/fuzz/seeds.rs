//! The seeds of every target: valid input, and input that damaged other implementations.

use super::certificates;
use crate::inputs::{
    Entry, Kind, Place, Shelf, commit_text, deflate, hex, line, object_id, pack_body, push_head,
    tag_text,
};

type Seeds = Vec<(&'static str, Vec<u8>)>;

pub(super) const ZERO: &str = "0000000000000000000000000000000000000000";
pub(super) const ONE: &str = "1111111111111111111111111111111111111111";

/// The seeds of every target.
pub(super) fn all(place: &Place) -> Vec<(&'static str, Seeds)> {
    vec![
        ("pkt_line", pkt_line()),
        ("push_commands", push_commands()),
        ("push_pack", push_pack(place)),
        ("delta", delta(place)),
        ("object", object(place)),
        ("ref_name", ref_name()),
        ("fetch", fetch(place)),
        ("repository_file", Shelf::new().inputs()),
    ]
}

fn texts(texts: &[(&'static str, &str)]) -> Seeds {
    let bytes = |(name, text): &(&'static str, &str)| (*name, text.as_bytes().to_vec());
    texts.iter().map(bytes).collect()
}

fn pkt_line() -> Seeds {
    let mut seeds = texts(&[
        ("lines", "0009hello000bworld!\n0000"),
        ("special", "000000010002"),
        ("three", "0003"),
        ("empty_data", "0004"),
        ("upper_case", "000Ahello\n"),
        ("no_hex", "00g0"),
        ("signed", "+00a-001"),
        ("cut_head", "000"),
        ("cut_data", "0010hi"),
    ]);
    let longest = [&b"fff0"[..], &[b'x'; 65_516]].concat();
    seeds.push(("too_long", [&b"fff1"[..], &longest[4..], b"x"].concat()));
    seeds.push(("longest", longest));
    seeds
}

fn push_commands() -> Seeds {
    let mut seeds = plain_commands();
    let signed = certificates::cases().into_iter();
    seeds.extend(signed.map(|(name, bytes, _)| (name, bytes)));
    seeds
}

fn plain_commands() -> Seeds {
    let body = |lines: &[&str]| {
        let mut bytes: Vec<u8> = lines
            .iter()
            .flat_map(|text| line(text.as_bytes()))
            .collect();
        bytes.extend(b"0000");
        bytes
    };
    let create = format!("{ZERO} {ONE} refs/heads/a\0report-status atomic object-format=sha1");
    let update = format!("{ONE} {ONE} refs/heads/b");
    let delete = format!("{ONE} {ZERO} refs/heads/c");
    let options = create.replace("atomic", "push-options");
    vec![
        ("several", body(&[&create, &update, &delete])),
        ("shallow", body(&[&format!("shallow {ONE}"), &create])),
        ("shallow_bad", body(&["shallow 12", &create])),
        ("twice", body(&[&create, &create])),
        ("nothing", body(&[&format!("{ZERO} {ZERO} refs/heads/a")])),
        (
            "options",
            [body(&[&options]), body(&["ci.skip", "x=y"])].concat(),
        ),
        (
            "options_cut",
            [body(&[&options]), line(b"ci.skip")].concat(),
        ),
        ("certificate", body(&["push-cert\0atomic", &create])),
        ("sha256", body(&[&create.replace("sha1", "sha256")])),
        ("name_without_refs", body(&[&format!("{ZERO} {ONE} main")])),
        (
            "name_long",
            body(&[&format!("{ZERO} {ONE} refs/heads/{}", "a".repeat(1100))]),
        ),
        ("no_name", body(&[&format!("{ZERO} {ONE} ")])),
        ("no_flush", line(create.as_bytes())),
        ("probe", b"0000".to_vec()),
        ("delimiter", b"0001".to_vec()),
        (
            "name_latin1",
            [
                line(format!("{ZERO} {ONE} refs/heads/\u{e9}").as_bytes()),
                b"0000".to_vec(),
            ]
            .concat(),
        ),
    ]
}

/// A pack with `count` in its header, of raw entries.
fn raw_pack(version: u8, count: u32, entries: &[&[u8]]) -> Vec<u8> {
    let head = [&b"PACK\0\0\0"[..], &[version], &count.to_be_bytes()].concat();
    [&head[..], &entries.concat()].concat()
}

/// An entry with `number` and `size` in its header, followed by any bytes.
fn raw_entry(number: u8, size: usize, behind: &[u8]) -> Vec<u8> {
    let mut entry = Vec::new();
    push_head(&mut entry, number, size);
    entry.extend(behind);
    entry
}

fn push_pack(place: &Place) -> Seeds {
    let mut seeds = whole_packs(place);
    seeds.extend(delta_packs(place));
    seeds.extend(broken_packs());
    seeds
}

fn whole_packs(place: &Place) -> Seeds {
    let blob = b"a blob of its own\n";
    let tree = [&b"100644 a\0"[..], &object_id(Kind::Blob, blob)].concat();
    let commit = commit_text(&object_id(Kind::Tree, &tree), &[place.commit_id]);
    let tag = tag_text(&object_id(Kind::Commit, &commit), "commit");
    let (commit, tree, blob) = (
        Entry::Whole(Kind::Commit, &commit),
        Entry::Whole(Kind::Tree, &tree),
        Entry::Whole(Kind::Blob, blob),
    );
    vec![
        (
            "tag",
            pack_body(&[Entry::Whole(Kind::Tag, &tag), commit, tree, blob]),
        ),
        ("blob", pack_body(&[Entry::Whole(Kind::Blob, b"x")])),
        ("known", pack_body(&[Entry::Whole(Kind::Blob, &place.blob)])),
        (
            "twice",
            pack_body(&[
                Entry::Whole(Kind::Blob, b"x"),
                Entry::Whole(Kind::Blob, b"x"),
            ]),
        ),
        ("empty", pack_body(&[])),
        ("empty_blob", pack_body(&[Entry::Whole(Kind::Blob, b"")])),
    ]
}

#[allow(clippy::too_many_lines, reason = "a table")]
fn delta_packs(place: &Place) -> Seeds {
    let base = Entry::Whole(Kind::Blob, b"0123456789abcdef");
    let id = object_id(Kind::Blob, b"0123456789abcdef");
    let swap = b"\x10\x10\x90\x08\x08\x91\x08\x08";
    let behind = pack_body(&[base]).len() - 12;
    let base = || Entry::Whole(Kind::Blob, b"0123456789abcdef");
    let thin = [&[0xfc, 0x02, 4][..], b"\x90\x04"].concat();
    let own = object_id(Kind::Blob, b"89abcdef01234567");
    // 64 kB copied a hundred times, and the result copied again.
    let zeros = vec![0; 0x1_0000];
    let mut bomb = vec![0x80, 0x80, 0x04, 0x80, 0x80, 0x90, 0x03];
    bomb.extend([0x80; 100]);
    vec![
        (
            "ofs_delta",
            pack_body(&[base(), Entry::OfsDelta(behind, swap)]),
        ),
        ("ofs_itself", pack_body(&[base(), Entry::OfsDelta(0, swap)])),
        (
            "ofs_before",
            pack_body(&[base(), Entry::OfsDelta(9999, swap)]),
        ),
        (
            "ofs_header",
            pack_body(&[base(), Entry::OfsDelta(behind + 5, swap)]),
        ),
        (
            "ofs_inside",
            pack_body(&[base(), Entry::OfsDelta(behind - 3, swap)]),
        ),
        (
            "ref_behind",
            pack_body(&[Entry::RefDelta(id, swap), base()]),
        ),
        (
            "ref_itself",
            pack_body(&[base(), Entry::RefDelta(own, swap)]),
        ),
        (
            "ref_on_itself",
            pack_body(&[base(), Entry::RefDelta(id, b"\x10\x10\x90\x10")]),
        ),
        (
            "ref_circle",
            pack_body(&[Entry::RefDelta(own, swap), Entry::RefDelta(id, swap)]),
        ),
        (
            "ref_null",
            pack_body(&[base(), Entry::RefDelta([0; 20], swap)]),
        ),
        (
            "ref_null_thin",
            pack_body(&[
                Entry::RefDelta(place.blob_id, &thin),
                Entry::RefDelta([0; 20], &thin),
                Entry::RefDelta(place.blob_id, &thin),
            ]),
        ),
        (
            "thin_tree",
            pack_body(&[Entry::RefDelta(place.tree_id, &thin)]),
        ),
        (
            "short",
            pack_body(&[base(), Entry::OfsDelta(behind, b"\x10\0")]),
        ),
        (
            "bomb",
            pack_body(&[
                Entry::Whole(Kind::Blob, &zeros),
                Entry::RefDelta(object_id(Kind::Blob, &zeros), &bomb),
            ]),
        ),
    ]
}

fn broken_packs() -> Seeds {
    let blob = raw_entry(3, 1, &deflate(b"x"));
    let overlong = [&[0xb1][..], &[0x80; 12], &[0], &deflate(b"x")].concat();
    let huge_size = [&[0xbf][..], &[0xff; 8], &[0x7f], &deflate(b"x")].concat();
    vec![
        ("version_3", raw_pack(3, 1, &[&blob])),
        ("version_4", raw_pack(4, 1, &[&blob])),
        ("count_low", raw_pack(2, 1, &[&blob, &blob])),
        ("count_high", raw_pack(2, 3, &[&blob, &blob])),
        ("count_huge", raw_pack(2, 19_999_999, &[&blob])),
        ("count_too_huge", raw_pack(2, u32::MAX, &[&blob])),
        (
            "type_0",
            raw_pack(2, 1, &[&raw_entry(0, 1, &deflate(b"x"))]),
        ),
        (
            "type_5",
            raw_pack(2, 1, &[&raw_entry(5, 1, &deflate(b"x"))]),
        ),
        (
            "size_low",
            raw_pack(2, 1, &[&raw_entry(3, 1, &deflate(b"xx"))]),
        ),
        (
            "size_high",
            raw_pack(2, 1, &[&raw_entry(3, 3, &deflate(b"xx"))]),
        ),
        (
            "size_giant",
            raw_pack(2, 1, &[&raw_entry(3, 1 << 40, &deflate(b"x"))]),
        ),
        ("size_overlong", raw_pack(2, 1, &[&overlong])),
        ("size_overflow", raw_pack(2, 1, &[&huge_size])),
        ("no_zlib", raw_pack(2, 1, &[&raw_entry(3, 4, b"abcd")])),
        (
            "distance_overflow",
            raw_pack(2, 1, &[&raw_entry(6, 4, &[0xff; 12])]),
        ),
        ("ends_in_id", raw_pack(2, 1, &[&raw_entry(7, 4, &[1; 9])])),
    ]
}

fn delta(place: &Place) -> Seeds {
    let sizes = |result: u8| {
        let bytes = place.blob.len();
        vec![
            u8::try_from(bytes & 0x7f).unwrap() | 0x80,
            u8::try_from(bytes >> 7).unwrap(),
            result,
        ]
    };
    let with = |result: u8, behind: &[u8]| [sizes(result), behind.to_vec()].concat();
    vec![
        ("copy", with(4, b"\x91\x02\x04")),
        ("insert", with(4, b"\x04abcd")),
        ("both", with(8, b"\x91\x02\x04\x04abcd")),
        ("nothing", Vec::new()),
        ("no_result", with(0, b"")),
        ("no_result_padded", [sizes(0x80), vec![0]].concat()),
        ("reserved", with(1, b"\0")),
        ("beyond_base", with(4, b"\x93\xff\xff\x04")),
        ("beyond_result", with(2, b"\x04abcd")),
        ("below_result", with(9, b"\x04abcd")),
        ("insert_cut", with(4, b"\x04ab")),
        ("copy_cut", with(4, b"\xff\x01")),
        ("copy_all", with(4, b"\x80")),
        ("other_base", b"\x05\x04\x04abcd".to_vec()),
        (
            "size_overlong",
            [sizes(0x84), vec![0x80, 0x80, 0], b"\x04abcd".to_vec()].concat(),
        ),
        (
            "size_overflow",
            [sizes(0x84), vec![0xff; 10], b"\x04abcd".to_vec()].concat(),
        ),
        ("size_without_end", vec![0xff; 8]),
    ]
}

#[allow(clippy::too_many_lines, reason = "a table")]
fn object(place: &Place) -> Seeds {
    let (tree, commit) = (hex(&place.tree_id), hex(&place.commit_id));
    let who = "A <a@example.org> 1700000000 +0000";
    let kinds = |number: u8, text: String| [vec![number], text.into_bytes()].concat();
    let entry =
        |mode: &str, name: &str| [format!("{mode} {name}\0").as_bytes(), &place.blob_id].concat();
    let trees = |entries: &[(&str, &str)]| {
        let entries = entries.iter().flat_map(|(mode, name)| entry(mode, name));
        [vec![1], entries.collect()].concat()
    };
    vec![
        (
            "commit",
            [vec![0], commit_text(&place.tree_id, &[place.commit_id])].concat(),
        ),
        (
            "commit_no_author",
            kinds(0, format!("tree {tree}\ncommitter {who}\n\nx\n")),
        ),
        (
            "commit_no_committer",
            kinds(0, format!("tree {tree}\nauthor {who}\n\nx\n")),
        ),
        (
            "commit_no_message",
            kinds(0, format!("tree {tree}\nauthor {who}\ncommitter {who}\n")),
        ),
        ("commit_cut", kinds(0, format!("tree {tree}\nauthor {who}"))),
        (
            "commit_encoding",
            kinds(
                0,
                format!("tree {tree}\nauthor {who}\ncommitter {who}\nencoding x\n\n\0\n"),
            ),
        ),
        (
            "commit_dates",
            kinds(
                0,
                format!(
                    "tree {tree}\nauthor A <a> 99999999999999999999 +9999\ncommitter A a -1\n\n"
                ),
            ),
        ),
        (
            "commit_of_blob",
            [vec![0], commit_text(&place.blob_id, &[])].concat(),
        ),
        (
            "commit_of_nothing",
            [vec![0], commit_text(&[0; 20], &[])].concat(),
        ),
        (
            "commit_parent_tree",
            [vec![0], commit_text(&place.tree_id, &[place.tree_id])].concat(),
        ),
        (
            "tree",
            trees(&[("100644", "a"), ("100755", "b"), ("120000", "c")]),
        ),
        ("tree_empty", vec![1]),
        ("tree_unsorted", trees(&[("100644", "b"), ("100644", "a")])),
        ("tree_twice", trees(&[("100644", "a"), ("100644", "a")])),
        ("tree_dot_git", trees(&[("100644", ".GIT")])),
        ("tree_dots", trees(&[("100644", "..")])),
        ("tree_slash", trees(&[("100644", "a/b")])),
        ("tree_no_name", trees(&[("100644", "")])),
        ("tree_git_1", trees(&[("100644", "git~1")])),
        ("tree_hfs", trees(&[("100644", ".g\u{200c}it")])),
        ("tree_padded", trees(&[("0100644", "a")])),
        ("tree_mode_odd", trees(&[("100640", "a")])),
        ("tree_mode_zero", trees(&[("0", "a")])),
        ("tree_mode_long", trees(&[("777777777777", "a")])),
        ("tree_as_tree", trees(&[("40000", "a")])),
        ("tree_submodule", trees(&[("160000", "a")])),
        ("tree_cut", trees(&[("100644", "a")])[..20].to_vec()),
        (
            "tag",
            [vec![3], tag_text(&place.commit_id, "commit")].concat(),
        ),
        (
            "tag_wrong_kind",
            [vec![3], tag_text(&place.commit_id, "tree")].concat(),
        ),
        (
            "tag_unknown_kind",
            [vec![3], tag_text(&place.commit_id, "thing")].concat(),
        ),
        (
            "tag_of_nothing",
            [vec![3], tag_text(&[7; 20], "commit")].concat(),
        ),
        (
            "tag_of_tag",
            [vec![3], tag_text(&place.tag_id, "tag")].concat(),
        ),
        (
            "tag_no_tagger",
            kinds(3, format!("object {commit}\ntype commit\ntag x\n\nm\n")),
        ),
        (
            "tag_no_name",
            kinds(3, format!("object {commit}\ntype commit\ntag \n")),
        ),
        (
            "tag_cut",
            kinds(3, format!("object {commit}\ntype commit\ntag x")),
        ),
        ("blob", b"\x02text".to_vec()),
        ("blob_empty", b"\x02".to_vec()),
    ]
}

fn ref_name() -> Seeds {
    texts(&[
        ("plain", "refs/heads/main"),
        ("deep", "refs/heads/a/b.c/d-e"),
        ("utf8", "refs/heads/\u{fc}\u{200b}"),
        ("dot", "refs/heads/.a"),
        ("dots", "refs/heads/a..b"),
        ("lock", "refs/heads/a.lock/b"),
        ("at", "refs/heads/@"),
        ("at_brace", "refs/heads/a@{b"),
        ("delete", "refs/heads/\u{7f}"),
        ("nul", "refs/heads/a\0b"),
        ("ends_in_slash", "refs/heads/"),
        ("ends_in_dot", "refs/heads/a."),
        ("two_slashes", "refs//heads/a"),
        ("one_level", "refs/a"),
        ("star", "refs/heads/*"),
        ("back_slash", "refs/heads/a\\b"),
    ])
}

#[allow(clippy::too_many_lines, reason = "a table")]
fn fetch(place: &Place) -> Seeds {
    let want = hex(&place.commit_id);
    let v2 = |lines: &str| format!("2\ncommand=fetch\n0001\n{lines}0000").into_bytes();
    let v0 = |lines: &str| format!("0\n{lines}").into_bytes();
    vec![
        ("v2_clone", v2(&format!("ofs-delta\nwant {want}\ndone\n"))),
        (
            "v2_have",
            v2(&format!("thin-pack\nwant {want}\nhave {want}\n")),
        ),
        (
            "v2_filter",
            v2(&format!(
                "filter combine:blob:none+tree:1\nwant {want}\ndone\n"
            )),
        ),
        (
            "v2_filter_bad",
            v2(&format!("filter combine:%zz+tree:x\nwant {want}\ndone\n")),
        ),
        (
            "v2_sparse",
            v2(&format!(
                "filter sparse:oid=main:base.txt\nwant {want}\ndone\n"
            )),
        ),
        (
            "v2_deepen",
            v2(&format!("deepen 1\nshallow {want}\nwant {want}\ndone\n")),
        ),
        (
            "v2_deepen_big",
            v2(&format!(
                "deepen 4294967295\ndeepen-relative\nwant {want}\ndone\n"
            )),
        ),
        (
            "v2_since",
            v2(&format!(
                "deepen-since 18446744073709551615\nwant {want}\ndone\n"
            )),
        ),
        (
            "v2_not",
            v2(&format!("deepen-not refs/tags/v1\nwant {want}\ndone\n")),
        ),
        (
            "v2_want_ref",
            v2("want-ref refs/heads/main\nsideband-all\ndone\n"),
        ),
        ("v2_want_bad", v2("want 1234\n")),
        ("v2_no_such", v2(&format!("want {ONE}\ndone\n"))),
        ("v2_no_command", b"2\nagent=x\n0001\n0000".to_vec()),
        (
            "v2_two_commands",
            b"2\ncommand=fetch\ncommand=ls-refs\n0000".to_vec(),
        ),
        (
            "v2_ls_refs",
            b"2\ncommand=ls-refs\n0001\npeel\nsymrefs\nunborn\nref-prefix refs/\n0000".to_vec(),
        ),
        (
            "v2_object_info",
            format!("2\ncommand=object-info\n0001\nsize\noid {want}\n0000").into_bytes(),
        ),
        (
            "v2_sha256",
            b"2\ncommand=fetch\nobject-format=sha256\n0001\n0000".to_vec(),
        ),
        (
            "v2_cut",
            format!("2\ncommand=fetch\n0001\nwant {want}").into_bytes(),
        ),
        (
            "v0_clone",
            v0(&format!("want {want} side-band-64k ofs-delta\n0000\ndone")),
        ),
        (
            "v0_have",
            v0(&format!(
                "want {want} multi_ack_detailed no-done\n0000\nhave {want}\n0000\ndone"
            )),
        ),
        (
            "v0_deepen",
            v0(&format!("want {want} shallow\ndeepen 1\n0000\ndone")),
        ),
        (
            "v0_filter",
            v0(&format!("want {want} filter\nfilter tree:0\n0000\ndone")),
        ),
        (
            "v0_filter_unasked",
            v0(&format!("want {want}\nfilter tree:0\n0000\ndone")),
        ),
        ("v0_no_flush", v0(&format!("want {want}"))),
        (
            "v0_bad_have",
            v0(&format!("want {want}\n0000\nhave xyz\ndone")),
        ),
        (
            "v0_raw",
            format!("0\n=0031want {want}\n=0000\n=0008done\n=\n").into_bytes(),
        ),
    ]
}
