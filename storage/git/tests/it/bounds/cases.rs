//! Inputs that are small to send and large to handle.

mod fetches;

use henge_git::{Protocol, PushLimits};

use super::Hostile;
use crate::inputs::{
    Entry, Id, Kind, Place, commit_text, hex, line, object_id, pack_body, with_trailer,
};

type Case = (&'static str, fn() -> Hostile);

/// Every case by its name.
pub(super) const ALL: &[Case] = &[
    ("large_blob", large_blob),
    ("large_delta", large_delta),
    ("deep_chain", deep_chain),
    ("branching_chains", branching_chains),
    ("wide_tree_of_trees", wide_tree_of_trees),
    ("wide_tree_of_blobs", wide_tree_of_blobs),
    ("large_trees_of_many_parents", large_trees_of_many_parents),
    ("commits_of_many_parents", commits_of_many_parents),
    ("many_commands", many_commands),
    ("many_options", many_options),
    (
        "wants_that_are_not_there",
        fetches::wants_that_are_not_there,
    ),
    ("haves", fetches::haves),
    (
        "haves_of_the_first_protocol",
        fetches::haves_of_the_first_protocol,
    ),
    (
        "rounds_of_the_first_protocol",
        fetches::rounds_of_the_first_protocol,
    ),
    (
        "wants_at_the_end_of_a_chain",
        fetches::wants_at_the_end_of_a_chain,
    ),
    ("shallow_lines", fetches::shallow_lines),
    ("deepen_not", fetches::deepen_not),
    ("want_refs", fetches::want_refs),
    ("ref_prefixes", fetches::ref_prefixes),
    ("listings", fetches::listings),
    ("object_info", fetches::object_info),
    ("tags_of_tags", fetches::tags_of_tags),
    (
        "sparse_paths_without_number",
        fetches::sparse_paths_without_number,
    ),
    ("sparse_patterns", fetches::sparse_patterns),
    ("tree_depth", fetches::tree_depth),
    (
        "comparisons_without_number",
        fetches::comparisons_without_number,
    ),
    ("fetch_of_a_wide_tree", fetches::fetch_of_a_wide_tree),
    ("fetch_of_large_trees", fetches::fetch_of_large_trees),
    ("fetch_of_a_large_delta", fetch_of_a_large_delta),
    ("trees_of_absent_objects", trees_of_absent_objects),
];

const BRANCH: &str = "refs/heads/x";
const TAG: &str = "refs/tags/large";
/// Clock reads before the first stops.
const EARLY: &[u64] = &[1, 3];
/// Size of a fetch request, slightly below the limit.
const REQUEST_BYTES: usize = 15 * 1024 * 1024;

// --- inputs ---

/// Pushes `pack` as the value of `name`.
fn push(name: &'static str, tip: Id, pack: Vec<u8>) -> Hostile {
    let place = Place::new();
    Hostile {
        run: Box::new(move |stop| {
            let limits = PushLimits {
                stop,
                ..PushLimits::default()
            };
            // After an accepted push the next run finds the objects in the store, which is as
            // hostile.
            drop(place.push(&[(tip, name)], &pack, &limits));
        }),
        stops: EARLY,
        ends: true,
    }
}

/// Sends a fetch request.
fn fetch(place: Place, protocol: Protocol, request: Vec<u8>) -> Hostile {
    Hostile {
        run: Box::new(move |stop| {
            drop(place.fetch(protocol, &request, &mut std::io::sink(), stop));
        }),
        stops: EARLY,
        ends: true,
    }
}

/// The lines of a `fetch` command.
fn command(name: &str, lines: impl IntoIterator<Item = String>) -> Vec<u8> {
    let mut request = line(format!("command={name}\n").as_bytes());
    request.extend(b"0001");
    for text in lines {
        request.extend(line(text.as_bytes()));
    }
    request.extend(b"0000");
    request
}

/// The maximum number of lines in a request.
fn lines(line: impl Fn(usize) -> String) -> impl Iterator<Item = String> {
    let bytes = line(0).len() + 4;
    (0..(REQUEST_BYTES / bytes).min(390_000)).map(line)
}

/// A place with the objects of a pack, at `name`.
fn place_with(name: &str, tip: Id, pack: &[u8]) -> Place {
    let place = Place::new();
    let taken = place.push(&[(tip, name)], pack, &PushLimits::default());
    assert!(taken.is_accepted(), "{taken:?}");
    place
}

/// Collected objects for a pack.
#[derive(Default)]
struct Objects(Vec<(Kind, Vec<u8>)>);

impl Objects {
    fn add(&mut self, kind: Kind, data: Vec<u8>) -> Id {
        let id = object_id(kind, &data);
        self.0.push((kind, data));
        id
    }

    fn tree(&mut self, entries: &[(&str, &str, Id)]) -> Id {
        let mut data = Vec::new();
        for (mode, name, id) in entries {
            data.extend(format!("{mode} {name}\0").bytes());
            data.extend(id);
        }
        self.add(Kind::Tree, data)
    }

    fn commit(&mut self, tree: &Id, parents: &[Id]) -> Id {
        self.add(Kind::Commit, commit_text(tree, parents))
    }

    fn pack(&self) -> Vec<u8> {
        let mut seen = std::collections::BTreeSet::new();
        let entries: Vec<_> = self
            .0
            .iter()
            .filter(|(kind, data)| seen.insert(object_id(*kind, data)))
            .map(|(kind, data)| Entry::Whole(*kind, data))
            .collect();
        with_trailer(&pack_body(&entries))
    }
}

fn varint(mut value: usize) -> Vec<u8> {
    let mut bytes = Vec::new();
    while value > 0x7f {
        bytes.push(u8::try_from(value & 0x7f).unwrap() | 0x80);
        value >>= 7;
    }
    bytes.push(u8::try_from(value).unwrap());
    bytes
}

/// A delta on `base` bytes, made of `parts`.
fn delta(base: usize, result: usize, parts: &[Part<'_>]) -> Vec<u8> {
    let mut delta = [varint(base), varint(result)].concat();
    for part in parts {
        match part {
            Part::Copy(offset, length) => copy(&mut delta, *offset, *length),
            Part::Insert(data) => {
                for piece in data.chunks(127) {
                    delta.push(u8::try_from(piece.len()).unwrap());
                    delta.extend_from_slice(piece);
                }
            }
        }
    }
    delta
}

enum Part<'a> {
    Copy(usize, usize),
    Insert(&'a [u8]),
}

fn copy(delta: &mut Vec<u8>, mut offset: usize, mut length: usize) {
    const STEP: usize = 0xff_ffff;
    while length > 0 {
        let step = length.min(STEP);
        let offset_bytes = u32::try_from(offset).unwrap().to_le_bytes();
        let step_bytes = u32::try_from(step).unwrap().to_le_bytes();
        delta.push(0xff);
        delta.extend(offset_bytes);
        delta.extend(&step_bytes[..3]);
        offset += step;
        length -= step;
    }
}

/// A tree of about `bytes` bytes. All of its entries are `id`.
fn wide_tree(mode: &str, id: &Id, bytes: usize) -> Vec<u8> {
    let mut tree = Vec::with_capacity(bytes);
    let mut number = 0;
    while tree.len() < bytes - 64 {
        // Sorted, with the shortest possible names.
        tree.extend(format!("{mode} {number:05x}\0").bytes());
        tree.extend(id);
        number += 1;
    }
    tree
}

// --- pushes ---

fn large_blob() -> Hostile {
    let blob = vec![0; 480 * 1024 * 1024];
    let id = object_id(Kind::Blob, &blob);
    push(
        TAG,
        id,
        with_trailer(&pack_body(&[Entry::Whole(Kind::Blob, &blob)])),
    )
}

/// A blob and a delta on it, both of the maximum size.
fn large_deltas() -> (Vec<Id>, Vec<u8>) {
    let base = vec![0; 223 * 1024 * 1024];
    let mut other = base.clone();
    other[0] = 1;
    let parts = [Part::Insert(&[1]), Part::Copy(1, base.len() - 1)];
    let delta = delta(base.len(), base.len(), &parts);
    let ids = vec![object_id(Kind::Blob, &base), object_id(Kind::Blob, &other)];
    let entries = [
        Entry::Whole(Kind::Blob, &base),
        Entry::RefDelta(ids[0], &delta),
    ];
    (ids, with_trailer(&pack_body(&entries)))
}

fn large_delta() -> Hostile {
    let (ids, pack) = large_deltas();
    push(TAG, ids[0], pack)
}

/// An object stored as a delta on another one that the client does not receive.
fn fetch_of_a_large_delta() -> Hostile {
    let (ids, pack) = large_deltas();
    let place = place_with(TAG, ids[1], &pack);
    let want = format!("want {}\n", hex(&ids[1]));
    let request = command("fetch", [want, "done\n".to_owned()]);
    fetch(place, Protocol::V2, request)
}

/// A blob and a chain of deltas: each replaces the first bytes by its number.
fn chain(length: usize, bytes: usize) -> (Vec<u8>, Vec<Vec<u8>>, Vec<Id>) {
    let mut blob = vec![b'x'; bytes];
    let base = blob.clone();
    let mut ids = vec![object_id(Kind::Blob, &blob)];
    let mut deltas = Vec::new();
    for number in 1..=length {
        let text = format!("{number:08}");
        blob[..8].copy_from_slice(text.as_bytes());
        let parts = [Part::Insert(text.as_bytes()), Part::Copy(8, bytes - 8)];
        deltas.push(delta(bytes, bytes, &parts));
        ids.push(object_id(Kind::Blob, &blob));
    }
    (base, deltas, ids)
}

fn chain_pack(length: usize, bytes: usize) -> (Vec<u8>, Vec<Id>) {
    let (base, deltas, ids) = chain(length, bytes);
    let mut entries = vec![Entry::Whole(Kind::Blob, &base)];
    let on = deltas.iter().zip(&ids);
    entries.extend(on.map(|(delta, base)| Entry::RefDelta(*base, delta)));
    (with_trailer(&pack_body(&entries)), ids)
}

fn deep_chain() -> Hostile {
    let (pack, ids) = chain_pack(4095, 40_000);
    push(TAG, ids[0], pack)
}

/// Every object of a chain is the base of one more delta, so that all of them are kept.
fn branching_chains() -> Hostile {
    const BYTES: usize = 4_000_000;
    let (base, deltas, ids) = chain(200, BYTES);
    let mut entries = vec![Entry::Whole(Kind::Blob, &base)];
    let other = delta(BYTES, BYTES - 1, &[Part::Copy(1, BYTES - 1)]);
    for (delta, base) in deltas.iter().zip(&ids) {
        // The later one of two deltas on one base is resolved first.
        entries.push(Entry::RefDelta(*base, &other));
        entries.push(Entry::RefDelta(*base, delta));
    }
    push(TAG, ids[0], with_trailer(&pack_body(&entries)))
}

/// A commit of a tree of 64 MB, and the object of all its entries.
fn wide(mode: &str, kind: Kind) -> (Id, Vec<u8>) {
    let below = object_id(kind, b"");
    let tree = wide_tree(mode, &below, 64 * 1024 * 1024);
    let commit = commit_text(&object_id(Kind::Tree, &tree), &[]);
    let pack = with_trailer(&pack_body(&[
        Entry::Whole(Kind::Commit, &commit),
        Entry::Whole(Kind::Tree, &tree),
        Entry::Whole(kind, b""),
    ]));
    (object_id(Kind::Commit, &commit), pack)
}

fn wide_tree_of_trees() -> Hostile {
    let (commit, pack) = wide("40000", Kind::Tree);
    push(BRANCH, commit, pack)
}

fn wide_tree_of_blobs() -> Hostile {
    let (commit, pack) = wide("100644", Kind::Blob);
    push(BRANCH, commit, pack)
}

/// Commits with a tree of 30 MB each, which differ in one name, and one merge of all of them.
/// Returns the tip, its parents and the pack.
fn large_trees() -> (Id, Vec<Id>, Vec<u8>) {
    const PARENTS: usize = 18;
    let blob = object_id(Kind::Blob, b"");
    let mut tree = Vec::new();
    for number in 0..30 * 1024 * 1024 / 230 {
        tree.extend(format!("100644 {number:05}{}\0", "n".repeat(200)).bytes());
        tree.extend(blob);
    }
    let base = object_id(Kind::Tree, &tree);
    let mut deltas = Vec::new();
    let mut commits = Vec::new();
    let mut parents = Vec::new();
    for number in 0..=PARENTS {
        let last = [format!("100644 z{number:04}\0").as_bytes(), &blob].concat();
        let whole = [&tree[..], &last].concat();
        let parts = [Part::Copy(0, tree.len()), Part::Insert(&last)];
        deltas.push(delta(tree.len(), whole.len(), &parts));
        let id = object_id(Kind::Tree, &whole);
        let above = if number == PARENTS { &parents[..] } else { &[] };
        let commit = commit_text(&id, above);
        parents.push(object_id(Kind::Commit, &commit));
        commits.push(commit);
    }
    let tip = parents.pop().unwrap();
    let mut entries = vec![
        Entry::Whole(Kind::Blob, b""),
        Entry::Whole(Kind::Tree, &tree),
    ];
    entries.extend(deltas.iter().map(|delta| Entry::RefDelta(base, delta)));
    entries.extend(
        commits
            .iter()
            .map(|commit| Entry::Whole(Kind::Commit, commit)),
    );
    (tip, parents, with_trailer(&pack_body(&entries)))
}

/// A tree of ids with the same first bytes, which some hash tables use as the whole key.
fn trees_of_absent_objects() -> Hostile {
    let mut tree = Vec::new();
    for number in 0..200_000_u32 {
        tree.extend(format!("100644 {number:06}\0").bytes());
        tree.extend([0; 16]);
        tree.extend(number.to_be_bytes());
    }
    let commit = commit_text(&object_id(Kind::Tree, &tree), &[]);
    let entries = [
        Entry::Whole(Kind::Commit, &commit),
        Entry::Whole(Kind::Tree, &tree),
    ];
    let id = object_id(Kind::Commit, &commit);
    push(BRANCH, id, with_trailer(&pack_body(&entries)))
}

fn large_trees_of_many_parents() -> Hostile {
    let (tip, _, pack) = large_trees();
    push(BRANCH, tip, pack)
}

/// Commits of a hundred thousand parents each, as deltas of a few bytes on one commit.
fn commits_of_many_parents() -> Hostile {
    const PARENTS: usize = 100_000;
    let tree = object_id(Kind::Tree, b"");
    let root = commit_text(&tree, &[]);
    let root_id = object_id(Kind::Commit, &root);
    let mut commit = commit_text(&tree, &vec![root_id; PARENTS]);
    let (base, base_id) = (commit.clone(), object_id(Kind::Commit, &commit));
    let first = "tree ".len() + 40 + "\nparent ".len();
    let mut deltas = Vec::new();
    let mut before = base_id;
    for _ in 0..300 {
        let hex = hex(&before);
        commit[first..first + 40].copy_from_slice(hex.as_bytes());
        let rest = commit.len() - first - 40;
        let parts = [
            Part::Copy(0, first),
            Part::Insert(hex.as_bytes()),
            Part::Copy(first + 40, rest),
        ];
        deltas.push(delta(base.len(), commit.len(), &parts));
        before = object_id(Kind::Commit, &commit);
    }
    let mut entries = vec![
        Entry::Whole(Kind::Tree, b""),
        Entry::Whole(Kind::Commit, &root),
        Entry::Whole(Kind::Commit, &base),
    ];
    entries.extend(deltas.iter().map(|delta| Entry::RefDelta(base_id, delta)));
    push(BRANCH, before, with_trailer(&pack_body(&entries)))
}

/// The maximum number of commands of a push, with the longest names, twice.
fn many_commands() -> Hostile {
    let place = Place::new();
    let id = place.commit_id;
    let names: Vec<String> = (0..10_000)
        .map(|number| format!("refs/heads/{}{number:05}", "n".repeat(1000)))
        .collect();
    Hostile {
        run: Box::new(move |stop| {
            let limits = PushLimits {
                stop,
                ..PushLimits::default()
            };
            let commands: Vec<_> = names.iter().map(|name| (id, name.as_str())).collect();
            let pack = with_trailer(&pack_body(&[]));
            drop(place.push(&commands, &pack, &limits));
        }),
        // Without a stop it would create ten thousand ref files.
        stops: EARLY,
        ends: false,
    }
}

/// A push whose options have the maximum line length.
fn many_options() -> Hostile {
    let zero = "0".repeat(40);
    let command = format!("{zero} {zero} refs/heads/a\0push-options report-status");
    let mut request = line(command.as_bytes());
    request.extend(b"0000");
    for _ in 0..1000 {
        // Not UTF-8: in text each byte becomes three.
        request.extend(line(&[0xff; 65_000]));
    }
    request.extend(b"0000");
    Hostile {
        run: Box::new(move |_| drop(crate::inputs::push_commands(&request))),
        stops: &[],
        ends: true,
    }
}
