//! Objects of other repositories in a shared store: the answers must be the same as for absent
//! objects.

use std::path::Path;

use henge_git::{
    BareRepository, CommitError, FetchLimits, Protocol, PushLimits, RefStore, VerifiedPush,
    receive_pack, upload_pack,
};
use henge_types::{ObjectFormat, ObjectId, RefName, RefVerdict};

use super::{Prepared, hash_object, prepare, varint};
use crate::packs::{Entry, object_id, pack_by_hand};
use crate::raw::{EMPTY_PACK, ZERO, line, push_head};
use crate::{for_each_git, objects_of};

const COMMIT: u8 = 1;
const TREE: u8 = 2;
const BLOB: u8 = 3;
const TAG: u8 = 4;
const SECRET: &[u8] = b"a secret that is long enough to be worth a delta\n";

/// A repository whose store contains objects of other repositories.
struct Sharing<'a>(&'a BareRepository);

impl RefStore for Sharing<'_> {
    fn head(&self) -> RefName {
        self.0.head()
    }

    fn get(&self, name: &RefName) -> Option<ObjectId> {
        self.0.get(name)
    }

    fn for_each(&self, prefix: &str, visit: &mut dyn FnMut(&RefName, ObjectId)) {
        self.0.for_each(prefix, visit);
    }

    fn was_tip_recently(&self, id: ObjectId) -> bool {
        self.0.was_tip_recently(id)
    }

    fn shares_objects(&self) -> bool {
        true
    }

    fn commit(&self, push: VerifiedPush<'_>) -> Result<Vec<RefVerdict>, CommitError> {
        self.0.commit(push)
    }
}

fn name_of(kind: u8) -> &'static str {
    match kind {
        COMMIT => "commit",
        TREE => "tree",
        BLOB => "blob",
        _ => "tag",
    }
}

fn entry(mode: &str, name: &str, id: &str) -> Vec<u8> {
    let head = format!("{mode} {name}\0");
    [head.as_bytes(), &hex::decode(id).unwrap()].concat()
}

fn commit(tree: &str, parent: Option<&str>) -> Vec<u8> {
    let parent = parent.map(|id| format!("parent {id}\n"));
    let (parent, who) = (parent.unwrap_or_default(), "A <a@example.org> 1 +0000");
    format!("tree {tree}\n{parent}author {who}\ncommitter {who}\n\nwords\n").into_bytes()
}

/// A delta that appends a letter to a base of `bytes` bytes.
fn delta(bytes: usize) -> Vec<u8> {
    let size = u16::try_from(bytes).unwrap().to_le_bytes();
    let copy = [0x80 | 0x10 | 0x20, size[0], size[1]];
    [&varint(bytes)[..], &varint(bytes + 1), &copy, &[1, b'x']].concat()
}

/// A tree that no push may contain.
fn forbidden() -> Vec<u8> {
    entry("100644", ".git", &object_id("blob", SECRET))
}

/// Objects that exist in another repository, or nowhere.
struct Suspects(Vec<(u8, Vec<u8>)>);

impl Suspects {
    /// Suspects with different marks have different ids.
    fn new(mark: &str) -> Self {
        let below = object_id("tree", &forbidden());
        let secret = [SECRET, mark.as_bytes()].concat();
        let tree = [
            entry("40000", "d", &below),
            entry("100644", &format!("x{mark}"), &object_id("blob", SECRET)),
        ];
        let tree = tree.concat();
        let commit = commit(&object_id("tree", &tree), None);
        Self(vec![(BLOB, secret), (TREE, tree), (COMMIT, commit)])
    }

    fn id(&self, kind: u8) -> String {
        let (_, data) = self.0.iter().find(|(its, _)| *its == kind).unwrap();
        object_id(name_of(kind), data)
    }

    /// Pushes of a client that has only their ids, or also their contents.
    fn attempts(&self, head: &str) -> Vec<Attempt> {
        let [blob, tree, commit_id] = [BLOB, TREE, COMMIT].map(|kind| self.id(kind));
        let mut attempts = thin(&blob, head);
        let (bad, fine) = (forbidden(), entry("100644", "f", &object_id("blob", b"f")));
        for (what, top) in [("a parent", &fine), ("a parent of a bad tree", &bad)] {
            let tip = commit(&object_id("tree", top), Some(&commit_id));
            let objects = [(COMMIT, &tip[..]), (TREE, &top[..]), (BLOB, &b"f"[..])];
            attempts.push(Attempt::new(what, &commit_id, &objects));
        }
        for (what, mode, id) in [
            ("a file", "100644", &blob),
            ("a blob as a folder", "40000", &blob),
            ("a folder", "40000", &tree),
            ("a tree as a file", "100644", &tree),
            ("a commit as a file", "100644", &commit_id),
        ] {
            let top = entry(mode, "f", id);
            let tip = commit(&object_id("tree", &top), Some(head));
            let objects = [(COMMIT, &tip[..]), (TREE, &top[..])];
            attempts.push(Attempt::new(what, id, &objects));
        }
        for (what, kind, id) in [
            ("a tag", "blob", &blob),
            ("a tag of another kind", "tree", &blob),
            ("a tag of a commit", "commit", &commit_id),
            ("a commit tagged as a file", "blob", &commit_id),
        ] {
            let who = "A <a@example.org> 1 +0000";
            let tag = format!("object {id}\ntype {kind}\ntag t\ntagger {who}\n\nwords\n");
            attempts.push(Attempt::new(what, id, &[(TAG, tag.as_bytes())]));
        }
        for id in [&blob, &tree, &commit_id] {
            for name in ["refs/heads/evil", "refs/tags/evil"] {
                attempts.push(Attempt {
                    what: "the object itself",
                    about: id.clone(),
                    name,
                    tip: id.clone(),
                    pack: EMPTY_PACK.to_vec(),
                });
            }
        }
        attempts.push(beside_a_known_tree(&tree, head));
        attempts
    }
}

/// A push, and the id that it tries to probe.
struct Attempt {
    what: &'static str,
    about: String,
    name: &'static str,
    tip: String,
    pack: Vec<u8>,
}

impl Attempt {
    /// A push of these objects, with the first as the tip.
    fn new(what: &'static str, about: &str, objects: &[(u8, &[u8])]) -> Self {
        let entries = objects.iter().map(|(kind, data)| Entry::Whole(*kind, data));
        let entries: Vec<_> = entries.collect();
        let (kind, data) = objects[0];
        Self {
            what,
            about: about.to_owned(),
            name: match kind {
                COMMIT => "refs/heads/evil",
                _ => "refs/tags/evil",
            },
            tip: object_id(name_of(kind), data),
            pack: pack_by_hand(&entries, ObjectFormat::Sha1),
        }
    }

    /// The report on the push.
    fn push(&self, bare: &Path) -> String {
        let repository = BareRepository::open(bare).unwrap();
        let quarantine = repository.quarantine().unwrap();
        let mut request = push_head(ZERO, &self.tip, self.name);
        request.extend_from_slice(&self.pack);
        let mut report = Vec::new();
        let pushed = receive_pack(
            &Sharing(&repository),
            &objects_of(bare),
            &quarantine.path(),
            &mut &request[..],
            &mut report,
            &PushLimits::default(),
        );
        assert!(pushed.is_ok(), "{}: {pushed:?}", self.what);
        String::from_utf8_lossy(&report).into_owned()
    }
}

/// Deltas on a blob.
fn thin(blob: &str, head: &str) -> Vec<Attempt> {
    let near = object_id("blob", &[SECRET, b"x"].concat());
    let top = entry("100644", "f", &near);
    let tip = commit(&object_id("tree", &top), Some(head));
    let tip_id = object_id("commit", &tip);
    let attempts = [
        ("a delta", &tip_id, SECRET.len()),
        ("a delta on another length", &tip_id, SECRET.len() + 1),
        ("a delta, for nothing", &"f".repeat(40), SECRET.len()),
    ];
    let attempts = attempts.map(|(what, tip_id, bytes)| {
        let delta = delta(bytes);
        let entries = [
            Entry::Whole(COMMIT, &tip),
            Entry::Whole(TREE, &top),
            Entry::RefDelta(blob, &delta),
        ];
        Attempt {
            what,
            about: blob.to_owned(),
            name: "refs/heads/evil",
            tip: tip_id.clone(),
            pack: pack_by_hand(&entries, ObjectFormat::Sha1),
        }
    });
    attempts.into()
}

/// The tree named by a pushed parent must not cause the entry at the same path of the child to be
/// skipped.
fn beside_a_known_tree(tree: &str, head: &str) -> Attempt {
    let bad = forbidden();
    let top = [
        entry("100644", "a", &object_id("blob", b"a")),
        entry("40000", "d", &object_id("tree", &bad)),
    ];
    let top = top.concat();
    let parent = commit(tree, Some(head));
    let parent_id = object_id("commit", &parent);
    let tip = commit(&object_id("tree", &top), Some(&parent_id));
    let objects = [
        (COMMIT, &tip[..]),
        (COMMIT, &parent[..]),
        (TREE, &top[..]),
        (TREE, &bad[..]),
        (BLOB, &b"a"[..]),
    ];
    Attempt::new("a tree whose content is known", tree, &objects)
}

/// A thin push on an object of a sibling fork was refused for missing objects, and one on a
/// nonexistent object for a broken pack. A client with an id could learn whether another repository
/// has the object.
#[test]
fn no_push_tells_what_others_have() {
    for_each_git(|server, git| {
        let Prepared {
            bare,
            url,
            work,
            head,
        } = prepare(server, git);
        git.ok(&["push", "-q", &url, "main"], &work);
        let (theirs, nobodys) = (Suspects::new(""), Suspects::new("absent"));
        for (kind, data) in &theirs.0 {
            let id = hash_object(git, &bare, name_of(*kind), data);
            assert_eq!(id, theirs.id(*kind));
        }
        let pairs = theirs.attempts(&head).into_iter();
        for (there, absent) in pairs.zip(nobodys.attempts(&head)) {
            let [there, absent] = [there, absent].map(|attempt| {
                let said = attempt.push(&bare);
                assert!(said.contains("ng refs/"), "{}: {said}", attempt.what);
                format!("{}: {}", attempt.what, said.replace(&attempt.about, "ID"))
            });
            assert_eq!(there, absent);
        }
        server.assert_clean(&bare);
    });
}

/// Deltas on the client's own objects, and on objects in the same pack.
#[test]
fn thin_pushes_to_shared_stores_are_taken() {
    for_each_git(|server, git| {
        let Prepared {
            bare,
            url,
            work,
            head,
        } = prepare(server, git);
        git.ok(&["push", "-q", &url, "main"], &work);
        let secret = hash_object(git, &bare, "blob", SECRET);
        let own: &[u8] = b"what is ours is long enough to be worth a delta\n";
        let own_id = object_id("blob", own);
        let top = entry("100644", "f", &own_id);
        let tip = commit(&object_id("tree", &top), Some(&head));
        let objects = [(COMMIT, &tip[..]), (TREE, &top[..]), (BLOB, own)];
        let said = Attempt::new("what is one's own", "", &objects).push(&bare);
        assert!(said.contains("ok refs/heads/evil"), "{said}");
        for (name, base, text, is_sent) in [
            ("refs/heads/own", &own_id, own, false),
            ("refs/heads/sent", &secret, SECRET, true),
        ] {
            let near = [text, &b"x"[..]].concat();
            let top = entry("100644", "f", &object_id("blob", &near));
            let tip = commit(&object_id("tree", &top), Some(&head));
            let delta = delta(text.len());
            let mut entries = vec![
                Entry::Whole(COMMIT, &tip),
                Entry::Whole(TREE, &top),
                Entry::RefDelta(base, &delta),
            ];
            if is_sent {
                entries.push(Entry::Blob(text));
            }
            let thin = Attempt {
                what: name,
                about: base.clone(),
                name,
                tip: object_id("commit", &tip),
                pack: pack_by_hand(&entries, ObjectFormat::Sha1),
            };
            let said = thin.push(&bare);
            assert!(said.contains(&format!("ok {name}")), "{said}");
        }
        git.fsck(&bare);
    });
}

/// Of two refused wants the absent one was named, in either order: this revealed that the other one
/// exists.
#[test]
fn no_refused_want_tells_what_others_have() {
    for_each_git(|server, git| {
        let Prepared {
            bare, url, work, ..
        } = prepare(server, git);
        git.ok(&["push", "-q", &url, "main"], &work);
        let there = hash_object(git, &bare, "blob", SECRET);
        let absent = object_id("blob", b"nobody has this");
        let repository = BareRepository::open(&bare).unwrap();
        let objects = objects_of(&bare);
        for (other, is_last) in [("f".repeat(40), true), (format!("{:040x}", 1), false)] {
            let told = [&there, &absent].map(|id| {
                let mut request = line("command=fetch\n");
                request.extend_from_slice(b"0001");
                for want in [id, &other] {
                    request.extend(line(&format!("want {want}\n")));
                }
                request.extend(line("done\n"));
                request.extend_from_slice(b"0000");
                let mut answer = Vec::new();
                let refused = upload_pack(
                    &Sharing(&repository),
                    &objects,
                    Protocol::V2,
                    &mut &request[..],
                    &mut answer,
                    &FetchLimits::default(),
                );
                assert!(refused.is_err());
                String::from_utf8_lossy(&answer).replace(id.as_str(), "ID")
            });
            assert_eq!(told[0], told[1]);
            let named = if is_last { "ID" } else { &other };
            let words = format!("not our ref {named}\n");
            assert!(told[0].contains(&words), "{}", told[0]);
        }
    });
}
