//! Objects that are named as another kind than their own, or as two kinds at once.

use super::{
    Prepared, assert_refused, delta_entry, hash_object, keep_pack, pack, prepare, with_entry,
};
use crate::for_each_git_and_format;
use crate::raw::{ZERO, post, push_head};

/// One entry of a tree in its stored form.
fn entry(mode: &str, name: &str, id: &str) -> Vec<u8> {
    let mut data = format!("{mode} {name}\0").into_bytes();
    data.extend(hex::decode(id).unwrap());
    data
}

/// A parent's submodule counted as proof that the child may have a file with the same id. A client
/// with the id of a sibling fork's object received its bytes, and a repository could be pushed with
/// a missing object.
#[test]
fn a_submodule_vouches_for_no_file() {
    for_each_git_and_format(|server, git| {
        let Prepared {
            bare,
            url,
            work,
            head,
        } = prepare(server, git);
        git.ok(&["push", "-q", &url, "main"], &work);
        let text = "a secret that is long enough to be worth a delta\n".repeat(50);
        let secret = hash_object(git, &work, "blob", text.as_bytes());
        keep_pack(git, &bare, &pack(git, &work, &[], &format!("{secret}\n")));
        let push = |name: &str, tip: &str, pack: &[u8]| {
            let mut body = push_head(ZERO, tip, &format!("refs/heads/{name}"));
            body.extend_from_slice(pack);
            post(&url, "receive-pack", "", &body).text()
        };
        let absent = git.absent();
        for (name, id) in [("present", secret.as_str()), ("absent", absent.as_str())] {
            let module = hash_object(git, &work, "tree", &entry("160000", "a", id));
            let file = hash_object(git, &work, "tree", &entry("100644", "a", id));
            let parent = git.ok(
                &["commit-tree", &module, "-p", &head, "-m", "module"],
                &work,
            );
            let child = git.ok(&["commit-tree", &file, "-p", &parent, "-m", "file"], &work);
            let names = format!("{child}\n{file}\n{parent}\n{module}\n");
            let report = push("evil", &child, &pack(git, &work, &[], &names));
            assert_refused(server, git, &bare, &report, "missing necessary objects");
            let names = format!("{parent}\n{module}\n");
            let report = push(name, &parent, &pack(git, &work, &[], &names));
            assert!(
                report.contains(&format!("ok refs/heads/{name}")),
                "{report}"
            );
            let names = format!("{child}\n{file}\n");
            let report = push("evil", &child, &pack(git, &work, &[], &names));
            assert_refused(server, git, &bare, &report, "missing necessary objects");
            if id == absent {
                continue;
            }
            // A delta on it would reveal whether the client has guessed its bytes.
            let near = hash_object(git, &work, "blob", format!("{text}x").as_bytes());
            let tree = hash_object(git, &work, "tree", &entry("100644", "a", &near));
            let thin = git.ok(&["commit-tree", &tree, "-p", &parent, "-m", "thin"], &work);
            let full = pack(git, &work, &[], &format!("{thin}\n{tree}\n"));
            let delta = delta_entry(&secret, text.len(), b"x");
            let report = push("evil", &thin, &with_entry(git, &full, &delta));
            assert_refused(server, git, &bare, &report, "missing necessary objects");
        }
    });
}

/// An object that the walk had seen was not checked again when another object named it as another
/// kind. An object that cannot be read as the named kind broke the bitmaps of all forks.
#[test]
fn an_object_is_of_one_kind() {
    for_each_git_and_format(|server, git| {
        let Prepared {
            bare,
            url,
            work,
            head,
        } = prepare(server, git);
        git.ok(&["push", "-q", &url, "main"], &work);
        let commit_of = |tree: &str, parent: &str| {
            let who = "A <a> 1 +0000";
            let text =
                format!("tree {tree}\nparent {parent}\nauthor {who}\ncommitter {who}\n\nx\n");
            hash_object(git, &work, "commit", text.as_bytes())
        };
        let blob = hash_object(git, &work, "blob", b"new");
        let tree = hash_object(git, &work, "tree", &entry("100644", "f", &blob));
        let first = commit_of(&tree, &head);
        let tree_is_a_commit = commit_of(&first, &first);
        let of_tree = |entries: &[Vec<u8>]| {
            let tree = hash_object(git, &work, "tree", &entries.concat());
            let tip = commit_of(&tree, &first);
            (tip, tree)
        };
        let folder_is_a_file = of_tree(&[entry("40000", "d", &blob), entry("100644", "f", &blob)]);
        let file_is_a_commit = of_tree(&[entry("100644", "f", &first)]);
        let file_is_a_tree = of_tree(&[entry("40000", "d", &tree), entry("100644", "f", &tree)]);
        for (tip, more) in [
            (tree_is_a_commit, None),
            (folder_is_a_file.0, Some(folder_is_a_file.1)),
            (file_is_a_commit.0, Some(file_is_a_commit.1)),
            (file_is_a_tree.0, Some(file_is_a_tree.1)),
        ] {
            let more = more.unwrap_or_default();
            let names = format!("{tip}\n{first}\n{tree}\n{blob}\n{more}\n");
            let mut body = push_head(ZERO, &tip, "refs/heads/evil");
            body.extend(pack(git, &work, &[], names.trim_end()));
            let report = post(&url, "receive-pack", "", &body).text();
            assert_refused(server, git, &bare, &report, "malformed object");
        }
    });
}
