//! Objects and packs above the size limits.

use super::{assert_refused, packs, varint};
use crate::for_each_git;
use crate::packs::{Entry, object_id, pack_by_hand};
use crate::raw::{ZERO, post, push_head};

/// A commit of `tree`.
fn commit_of(tree: &str) -> Vec<u8> {
    let person = "A <a@example.org> 1700000000 +0000";
    format!("tree {tree}\nauthor {person}\ncommitter {person}\n\nmessage\n").into_bytes()
}

/// The report on a push of `commit`, which is in `pack`.
fn push_commit(url: &str, commit: &[u8], pack: &[u8]) -> String {
    let mut body = push_head(ZERO, &object_id("commit", commit), "refs/heads/evil");
    body.extend_from_slice(pack);
    post(url, "receive-pack", "", &body).text()
}

#[test]
fn a_chain_of_more_deltas_than_git_makes_is_refused() {
    for_each_git(|server, git| {
        let (bare, url) = server.repo(git, "target.git");
        let commit = commit_of(&object_id("tree", b""));
        let text = |number: usize| format!("{number:08}").into_bytes();
        let base = text(0);
        // Every delta inserts all eight bytes of its result and copies none.
        let deltas: Vec<Vec<u8>> = (1..=4096)
            .map(|number| [&[8, 8, 8], &text(number)[..]].concat())
            .collect();
        let push = |length: usize| {
            let mut entries = vec![
                Entry::Whole(1, &commit[..]),
                Entry::Whole(2, b""),
                Entry::Blob(&base),
            ];
            let chain = deltas[..length].iter();
            entries.extend(chain.map(|delta| Entry::DeltaOnPrevious(delta)));
            push_commit(&url, &commit, &pack_by_hand(&entries, git.format))
        };
        let report = push(4096);
        let last = object_id("blob", &text(4096));
        let reason = format!("object {last} is more than 4095 deltas away from a whole one");
        assert_refused(server, git, &bare, &report, &reason);
        assert_eq!(packs(&bare), 0);
        let report = push(4095);
        assert!(report.contains("ok refs/heads/evil"), "{report}");
        git.fsck(&bare);
    });
}

#[test]
fn a_tree_that_is_deeper_than_git_reads_is_refused() {
    for_each_git(|server, git| {
        let (bare, url) = server.repo(git, "target.git");
        let push = |depth: usize| {
            let mut trees = vec![Vec::new()];
            for level in 0..depth {
                let below = hex::decode(object_id("tree", &trees[level])).unwrap();
                trees.push([&b"40000 d\0"[..], &below].concat());
            }
            let commit = commit_of(&object_id("tree", &trees[depth]));
            let mut entries = vec![Entry::Whole(1, &commit[..])];
            entries.extend(trees.iter().map(|tree| Entry::Whole(2, tree)));
            push_commit(&url, &commit, &pack_by_hand(&entries, git.format))
        };
        let report = push(2049);
        let reason = "lies deeper than 2048 directories";
        assert_refused(server, git, &bare, &report, reason);
        assert_eq!(packs(&bare), 0);
        let report = push(2048);
        assert!(report.contains("ok refs/heads/evil"), "{report}");
    });
}

#[test]
fn a_tree_with_too_many_entries_is_refused() {
    for_each_git(|server, git| {
        let (bare, url) = server.repo(git, "target.git");
        let empty = object_id("blob", b"");
        let id = hex::decode(&empty).unwrap();
        let name = "n".repeat(4000);
        let entries = 0..64 * 1024 * 1024 / 4000;
        let entry = |number| [format!("100644 {number:06}{name}\0").as_bytes(), &id].concat();
        let tree = entries.map(entry).collect::<Vec<_>>().concat();
        let commit = commit_of(&object_id("tree", &tree));
        let pack = pack_by_hand(
            &[
                Entry::Whole(1, &commit),
                Entry::Whole(2, &tree),
                Entry::Blob(b""),
            ],
            git.format,
        );
        let report = push_commit(&url, &commit, &pack);
        let reason = format!("has {} bytes, 67108864 are allowed", tree.len());
        assert_refused(server, git, &bare, &report, &reason);
        assert_eq!(packs(&bare), 0);
    });
}

#[test]
fn a_few_bytes_that_inflate_to_more_than_an_object_may_have_are_refused() {
    for_each_git(|server, git| {
        let (bare, url) = server.repo(git, "target.git");
        let commit = commit_of(&object_id("tree", b""));
        let zeros = vec![0; 0x1_0000];
        // Nine thousand copies of the whole base: 590 MB from a pack of a few hundred bytes.
        let copies = 9000;
        let mut delta = varint(zeros.len());
        delta.extend(varint(copies * zeros.len()));
        delta.extend(std::iter::repeat_n(0x80, copies));
        let pack = pack_by_hand(
            &[
                Entry::Whole(1, &commit),
                Entry::Whole(2, b""),
                Entry::Blob(&zeros),
                Entry::DeltaOnPrevious(&delta),
            ],
            git.format,
        );
        assert!(pack.len() < 1000, "{}", pack.len());
        let report = push_commit(&url, &commit, &pack);
        assert_refused(server, git, &bare, &report, "unpacker error");
        assert!(report.contains("would take more than"), "{report}");
        assert_eq!(packs(&bare), 0);
    });
}
