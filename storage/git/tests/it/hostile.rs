//! Pushes and fetches that must be refused without leaving anything behind.

mod kinds;
mod limits;
mod siblings;

use std::io::Write;
use std::path::Path;
use std::process::Stdio;

use crate::packs::digest;
use crate::raw::{ZERO, fetch, line, post, push_head};
use crate::{Git, Server, for_each_git, for_each_git_and_format};

/// The pack that `pack-objects` makes of the objects in `input`.
fn pack(git: &Git, dir: &Path, arguments: &[&str], input: &str) -> Vec<u8> {
    let mut all = vec!["pack-objects", "-q", "--stdout"];
    all.extend(arguments);
    let mut child = git
        .command(&all, dir)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    child
        .stdin
        .take()
        .unwrap()
        .write_all(input.as_bytes())
        .unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success());
    output.stdout
}

fn hash_object(git: &Git, dir: &Path, kind: &str, data: &[u8]) -> String {
    let mut child = git
        .command(
            &["hash-object", "-w", "--literally", "-t", kind, "--stdin"],
            dir,
        )
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(data).unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success());
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

/// Checks that the pushed ref was refused for `reason`, and that the repository is as empty as
/// before.
#[track_caller]
fn assert_refused(server: &Server, git: &Git, bare: &Path, report: &str, reason: &str) {
    assert!(report.contains("ng refs/heads/"), "{report}");
    assert!(report.contains(reason), "{report}");
    assert!(!git.ok(&["for-each-ref"], bare).contains("refs/heads/evil"));
    server.assert_clean(bare);
}

fn packs(bare: &Path) -> usize {
    std::fs::read_dir(bare.join("objects/pack"))
        .unwrap()
        .count()
}

struct Prepared {
    bare: std::path::PathBuf,
    url: String,
    work: std::path::PathBuf,
    head: String,
}

fn prepare(server: &Server, git: &Git) -> Prepared {
    let (bare, url) = server.repo(git, "target.git");
    let work = server.path("work");
    git.work_tree(&work, 3);
    let head = git.ok(&["rev-parse", "HEAD"], &work);
    Prepared {
        bare,
        url,
        work,
        head,
    }
}

#[test]
fn truncated_and_flipped_packs_leave_nothing() {
    for_each_git_and_format(|server, git| {
        let Prepared {
            bare,
            url,
            work,
            head,
        } = prepare(server, git);
        let whole = pack(git, &work, &["--revs"], "HEAD\n");
        let push = |pack: &[u8]| {
            let mut body = push_head(ZERO, &head, "refs/heads/evil");
            body.extend_from_slice(pack);
            let answer = post(&url, "receive-pack", "", &body);
            assert_eq!(answer.status, 200, "{}", answer.text());
            answer.text()
        };
        for cut in [
            0,
            4,
            11,
            12,
            13,
            40,
            whole.len() / 2,
            whole.len() - 20,
            whole.len() - 1,
        ] {
            let report = push(&whole[..cut]);
            assert!(!report.contains("unpack ok"), "cut at {cut}: {report}");
            assert_refused(server, git, &bare, &report, "unpacker error");
        }
        // One bit in every part of the pack.
        for step in 0..40 {
            let mut flipped = whole.clone();
            let at = step * (whole.len() - 1) / 39;
            flipped[at] ^= 1 << (step % 8);
            let report = push(&flipped);
            assert!(!report.contains("unpack ok"), "flipped at {at}: {report}");
            assert_refused(server, git, &bare, &report, "unpacker error");
        }
        assert_eq!(packs(&bare), 0);
        // A valid checksum over wrong content: the object differs from the one that the commit
        // needs.
        assert!(push(&whole).contains("ok refs/heads/evil"));
    });
}

#[test]
fn a_closure_with_a_hole_is_refused() {
    for_each_git_and_format(|server, git| {
        let Prepared {
            bare,
            url,
            work,
            head,
        } = prepare(server, git);
        let all = git.objects(&work);
        for missing in &all {
            if *missing == head {
                continue;
            }
            let names: String = all
                .iter()
                .filter(|name| *name != missing)
                .map(|name| format!("{name}\n"))
                .collect();
            let mut body = push_head(ZERO, &head, "refs/heads/evil");
            body.extend(pack(git, &work, &[], &names));
            let report = post(&url, "receive-pack", "", &body).text();
            assert!(report.contains("unpack ok"), "{report}");
            assert_refused(server, git, &bare, &report, "missing necessary objects");
        }
        assert_eq!(packs(&bare), 0);
    });
}

/// Adds a pack to a repository without a ref to it.
fn keep_pack(git: &Git, bare: &Path, pack: &[u8]) {
    let mut index = git
        .command(&["index-pack", "--stdin", "--fix-thin"], bare)
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    index.stdin.take().unwrap().write_all(pack).unwrap();
    assert!(index.wait().unwrap().success());
}

#[test]
fn what_only_lies_in_the_store_fills_no_hole() {
    for_each_git_and_format(|server, git| {
        let Prepared {
            bare, url, work, ..
        } = prepare(server, git);
        git.ok(&["push", "-q", &url, "main"], &work);
        // Another repository's objects in the same store: present, but unreachable from any ref of
        // this repository.
        let secret = "a secret that is long enough to be worth a delta\n".repeat(50);
        std::fs::write(work.join("secret.txt"), &secret).unwrap();
        git.change(&work, 10);
        let stranger = git.ok(&["rev-parse", "HEAD"], &work);
        let foreign = pack(git, &work, &["--revs"], "HEAD\n^HEAD~1\n");
        keep_pack(git, &bare, &foreign);
        let blob = git.ok(&["rev-parse", "HEAD:secret.txt"], &work);
        git.ok(&["cat-file", "-e", &blob], &bare);
        let before = packs(&bare);
        let push = |new: &str, pack: &[u8]| {
            let mut body = push_head(ZERO, new, "refs/heads/evil");
            body.extend_from_slice(pack);
            post(&url, "receive-pack", "", &body).text()
        };
        // A ref to the foreign commit, with an empty pack.
        let empty = pack(git, &work, &[], "");
        let report = push(&stranger, &empty);
        assert_refused(server, git, &bare, &report, "missing necessary objects");
        // A new commit whose tree names the secret blob, which the pack lacks.
        let tree = git.ok(&["rev-parse", "HEAD^{tree}"], &work);
        let evil = git.ok(&["commit-tree", &tree, "-p", "HEAD~1", "-m", "evil"], &work);
        let report = push(&evil, &pack(git, &work, &[], &format!("{evil}\n{tree}\n")));
        assert_refused(server, git, &bare, &report, "missing necessary objects");
        // Deltas on the secret must not reveal it: neither one that adds a byte nor one whose
        // result is the secret.
        for suffix in ["x", ""] {
            let near = hash_object(git, &work, "blob", format!("{secret}{suffix}").as_bytes());
            let tree = mktree(git, &work, &format!("100644 blob {near}\tx\n"));
            let evil = git.ok(&["commit-tree", &tree, "-p", "HEAD~1", "-m", "thin"], &work);
            let full = pack(git, &work, &[], &format!("{evil}\n{tree}\n"));
            let delta = delta_entry(&blob, secret.len(), suffix.as_bytes());
            let report = push(&evil, &with_entry(git, &full, &delta));
            assert!(report.contains("unpack ok"), "{report}");
            assert_refused(server, git, &bare, &report, "missing necessary objects");
        }
        // A pushed parent that names the secret does not make it available, not even when a delta
        // had to be completed.
        let known = git.ok(&["rev-parse", "HEAD~1:grown.txt"], &work);
        let length = git.ok(&["cat-file", "-s", &known], &work).parse().unwrap();
        let delta = delta_entry(&known, length, b"x");
        let one = mktree(git, &work, &format!("100644 blob {blob}\tx\n"));
        let two = mktree(
            git,
            &work,
            &format!("100644 blob {blob}\tx\n100644 blob {blob}\ty\n"),
        );
        let parent = git.ok(
            &["commit-tree", &one, "-p", "HEAD~1", "-m", "parent"],
            &work,
        );
        let child = git.ok(&["commit-tree", &two, "-p", &parent, "-m", "child"], &work);
        let full = pack(
            git,
            &work,
            &[],
            &format!("{child}\n{two}\n{parent}\n{one}\n"),
        );
        let report = push(&child, &with_entry(git, &full, &delta));
        assert!(report.contains("unpack ok"), "{report}");
        assert_refused(server, git, &bare, &report, "missing necessary objects");
        assert_eq!(packs(&bare), before);
        // A client that sends the objects may push them.
        let names = git.objects(&work);
        let all: String = names.iter().map(|name| format!("{name}\n")).collect();
        assert!(push(&stranger, &pack(git, &work, &[], &all)).contains("ok refs/heads/evil"));
    });
}

fn deflate(data: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::ZlibEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(data).unwrap();
    encoder.finish().unwrap()
}

fn varint(mut value: usize) -> Vec<u8> {
    let mut bytes = Vec::new();
    while value >= 0x80 {
        bytes.push(u8::try_from(value & 0x7f).unwrap() | 0x80);
        value >>= 7;
    }
    bytes.push(u8::try_from(value).unwrap());
    bytes
}

/// A pack entry: the object `base` (of `length` bytes) with `suffix` appended, as a ref-delta.
fn delta_entry(base: &str, length: usize, suffix: &[u8]) -> Vec<u8> {
    let mut delta = varint(length);
    delta.extend(varint(length + suffix.len()));
    // Copy `length` bytes from offset 0.
    let size = u16::try_from(length).unwrap().to_le_bytes();
    delta.extend([0x80 | 0x10 | 0x20, size[0], size[1]]);
    if !suffix.is_empty() {
        delta.push(u8::try_from(suffix.len()).unwrap());
        delta.extend(suffix);
    }
    assert!(delta.len() < 16, "the entry's header below has one byte");
    let mut entry = vec![(7 << 4) | u8::try_from(delta.len()).unwrap()];
    entry.extend(hex::decode(base).unwrap());
    entry.extend(deflate(&delta));
    entry
}

/// The pack with one more entry and a matching checksum.
fn with_entry(git: &Git, pack: &[u8], entry: &[u8]) -> Vec<u8> {
    let mut longer = pack[..pack.len() - git.format.id_bytes()].to_vec();
    let count = u32::from_be_bytes(longer[8..12].try_into().unwrap()) + 1;
    longer[8..12].copy_from_slice(&count.to_be_bytes());
    longer.extend_from_slice(entry);
    let checksum = digest(&longer, git.format);
    longer.extend(checksum);
    longer
}

fn mktree(git: &Git, dir: &Path, listing: &str) -> String {
    let mut child = git
        .command(&["mktree"], dir)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    child
        .stdin
        .take()
        .unwrap()
        .write_all(listing.as_bytes())
        .unwrap();
    let output = child.wait_with_output().unwrap();
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

#[test]
fn deltas_named_by_id_on_bases_that_are_sent_as_well_are_taken() {
    for_each_git_and_format(|server, git| {
        let Prepared {
            bare, url, work, ..
        } = prepare(server, git);
        git.ok(&["push", "-q", &url, "main", "main:gone"], &work);
        git.change(&work, 4);
        git.ok(&["push", "-q", &url, "HEAD:gone"], &work);
        // The objects stay in the store, unreachable.
        git.ok(&["push", "-q", "--delete", &url, "gone"], &work);
        let head = git.ok(&["rev-parse", "HEAD"], &work);
        let all: String = git
            .objects(&work)
            .iter()
            .map(|name| format!("{name}\n"))
            .collect();
        // Without --delta-base-offset every delta is a ref-delta.
        let mut body = push_head(ZERO, &head, "refs/heads/back");
        body.extend(pack(git, &work, &["--no-reuse-delta", "--window=50"], &all));
        let report = post(&url, "receive-pack", "", &body).text();
        assert!(report.contains("ok refs/heads/back"), "{report}");
        git.fsck(&bare);
    });
}

#[test]
fn malformed_objects_are_refused() {
    for_each_git_and_format(|server, git| {
        let Prepared {
            bare,
            url,
            work,
            head,
        } = prepare(server, git);
        let push = |tip: &str, names: &[&str]| {
            let mut body = push_head(ZERO, tip, "refs/heads/evil");
            body.extend(pack(git, &work, &[], &(names.join("\n") + "\n")));
            post(&url, "receive-pack", "", &body).text()
        };
        let blob = hash_object(git, &work, "blob", b"x");
        let raw = hex::decode(&blob).unwrap();
        let commit_of = |tree: &str| {
            let text = format!("tree {tree}\nauthor A <a> 1 +0000\ncommitter A <a> 1 +0000\n\nx\n");
            hash_object(git, &work, "commit", text.as_bytes())
        };
        for name in [".git", "..", ".", "a/b", ".GIT"] {
            let mut data = format!("100644 {name}\0").into_bytes();
            data.extend_from_slice(&raw);
            let tree = hash_object(git, &work, "tree", &data);
            let commit = commit_of(&tree);
            let report = push(&commit, &[&commit, &tree, &blob]);
            assert_refused(server, git, &bare, &report, "forbidden path name");
        }
        // A blob in the place of a tree, a malformed commit, a branch on a blob.
        let commit = commit_of(&blob);
        let report = push(&commit, &[&commit, &blob]);
        assert_refused(server, git, &bare, &report, "malformed object");
        let broken = hash_object(git, &work, "commit", b"tree nonsense\n");
        assert_refused(
            server,
            git,
            &bare,
            &push(&broken, &[&broken]),
            "malformed object",
        );
        assert_refused(
            server,
            git,
            &bare,
            &push(&blob, &[&blob]),
            "must point at a commit",
        );
        assert_eq!(packs(&bare), 0);
        assert!(!head.is_empty());
    });
}

#[test]
fn bad_names_are_refused_one_by_one() {
    for_each_git(|server, git| {
        let Prepared {
            bare,
            url,
            work,
            head,
        } = prepare(server, git);
        let whole = pack(git, &work, &["--revs"], "HEAD\n");
        for name in [
            "refs/heads/../../../x",
            "refs/heads/a..b",
            "HEAD",
            "refs/heads/x.lock",
            "refs/heads/a b",
        ] {
            let mut body = push_head(ZERO, &head, name);
            body.extend_from_slice(&whole);
            let report = post(&url, "receive-pack", "", &body).text();
            assert!(
                report.contains(&format!("ng {name} funny refname")),
                "{report}"
            );
        }
        assert_eq!(git.ok(&["for-each-ref"], &bare), "");
        let garbage = post(&url, "receive-pack", "", b"this is not a push");
        assert_eq!(garbage.status, 400, "{}", garbage.text());
    });
}

#[test]
fn unreachable_objects_are_not_given() {
    for_each_git_and_format(|server, git| {
        let Prepared {
            url, work, head, ..
        } = prepare(server, git);
        git.ok(&["push", "-q", &url, "main", "main:gone"], &work);
        git.change(&work, 5);
        git.ok(&["push", "-q", &url, "HEAD:gone"], &work);
        let gone = git.ok(&["rev-parse", "HEAD"], &work);
        let blob = git.ok(&["rev-parse", "HEAD:new-5.txt"], &work);
        git.ok(&["push", "-q", "--delete", &url, "gone"], &work);
        for want in [gone, blob, git.absent()] {
            let answer = post(&url, "upload-pack", "version=2", &fetch(&want)).text();
            assert!(
                answer.contains(&format!("ERR upload-pack: not our ref {want}")),
                "{answer}"
            );
        }
        // A reachable object may be wanted without a ref to it.
        let older = git.ok(&["rev-parse", &format!("{head}~1")], &work);
        let inside = git.ok(&["rev-parse", &format!("{head}:new-0.txt")], &work);
        for want in [older, inside] {
            let answer = post(&url, "upload-pack", "version=2", &fetch(&want)).text();
            assert!(answer.contains("packfile"), "{answer}");
        }
    });
}

#[test]
fn deepening_from_a_commit_that_no_ref_reaches_gives_nothing_of_it() {
    for_each_git_and_format(|server, git| {
        let Prepared {
            bare, url, work, ..
        } = prepare(server, git);
        git.ok(&["push", "-q", &url, "main", "main:gone"], &work);
        let head = git.ok(&["rev-parse", "main"], &work);
        git.ok(&["checkout", "-q", "--orphan", "secret"], &work);
        for number in 20..24 {
            git.change(&work, number);
        }
        git.ok(&["push", "-q", "-f", &url, "HEAD:gone"], &work);
        let private = git.ok(&["rev-parse", "HEAD"], &work);
        git.ok(&["push", "-q", "--delete", &url, "gone"], &work);
        git.ok(&["cat-file", "-e", &private], &bare);
        for deepen in [
            vec!["deepen 2147483647\n"],
            vec!["deepen 2\n", "deepen-relative\n"],
            vec!["deepen 3\n"],
            vec!["deepen-since 1\n"],
        ] {
            let mut body = line("command=fetch\n");
            body.extend(line(&format!("object-format={}\n", git.format)));
            body.extend_from_slice(b"0001");
            body.extend(line(&format!("want {head}\n")));
            body.extend(line(&format!("shallow {private}\n")));
            body.extend(deepen.iter().flat_map(|text| line(text)));
            body.extend(line("no-progress\n"));
            body.extend(line("done\n"));
            body.extend_from_slice(b"0000");
            let answer = post(&url, "upload-pack", "version=2", &body).text();
            assert!(answer.contains("shallow-info"), "{deepen:?}: {answer}");
            assert!(!answer.contains("unshallow"), "{deepen:?}: {answer}");
        }
    });
}
