//! Pushes of one commit each, made without git: 51,200 of them add little to the server's own work.

use std::io::Write as _;

use anyhow::Context as _;
use flate2::Compression;
use flate2::write::ZlibEncoder;
use sha1::{Digest as _, Sha1};

/// Object types of a pack entry, gitformat-pack.
const COMMIT: u8 = 1;
const TREE: u8 = 2;

/// A chain of commits of the empty tree, one per push.
#[derive(Debug)]
pub(crate) struct Chain {
    name: String,
    /// The last commit.
    tip: Option<String>,
    count: usize,
}

impl Chain {
    /// An empty chain. Chains with different names have different commits.
    pub(crate) fn new(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            tip: None,
            count: 0,
        }
    }

    /// The body of the request that pushes the next commit to `refs/heads/main`, in the format of
    /// `git-receive-pack`.
    pub(crate) fn next_push(&mut self) -> anyhow::Result<Vec<u8>> {
        let tree = id("tree", b"");
        let parent = self.tip.as_ref();
        let parent = parent.map_or_else(String::new, |tip| format!("parent {tip}\n"));
        let time = 1_700_000_000 + self.count;
        let who = format!("Bench <bench@localhost> {time} +0000");
        let commit = format!(
            "tree {tree}\n{parent}author {who}\ncommitter {who}\n\ncommit {} of {}\n",
            self.count, self.name
        );
        let new = id("commit", commit.as_bytes());
        let old = self.tip.replace(new.clone());
        let mut objects = vec![(COMMIT, commit.as_bytes())];
        if old.is_none() {
            objects.push((TREE, b""));
        }
        self.count += 1;
        let old = old.unwrap_or_else(|| "0".repeat(new.len()));
        let line = format!("{old} {new} refs/heads/main\0report-status object-format=sha1");
        let mut body = format!("{:04x}{line}0000", line.len() + 4).into_bytes();
        body.extend(pack(&objects)?);
        Ok(body)
    }
}

fn id(kind: &str, body: &[u8]) -> String {
    let mut hash = Sha1::new();
    hash.update(format!("{kind} {}\0", body.len()));
    hash.update(body);
    hex(&hash.finalize())
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// A pack of undeltified objects (gitformat-pack, version 2).
fn pack(objects: &[(u8, &[u8])]) -> anyhow::Result<Vec<u8>> {
    let mut pack = b"PACK\0\0\0\x02".to_vec();
    let count = u32::try_from(objects.len()).context("too many objects")?;
    pack.extend(count.to_be_bytes());
    for (kind, body) in objects {
        let mut size = body.len();
        let mut byte = (kind << 4) | u8::try_from(size & 15)?;
        size >>= 4;
        while size > 0 {
            pack.push(byte | 0x80);
            byte = u8::try_from(size & 0x7f)?;
            size >>= 7;
        }
        pack.push(byte);
        let mut deflated = ZlibEncoder::new(pack, Compression::fast());
        deflated.write_all(body)?;
        pack = deflated.finish()?;
    }
    let checksum = Sha1::digest(&pack);
    pack.extend(checksum);
    Ok(pack)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn objects_have_the_ids_that_git_gives_them() {
        assert_eq!(id("tree", b""), "4b825dc642cb6eb9a060e54bf8d69288fbee4904");
        assert_eq!(
            id("blob", b"a\n"),
            "78981922613b2afb6025042ff6bd878ac1994e85"
        );
    }

    #[test]
    fn a_push_names_the_commit_before() {
        let mut chain = Chain::new("test");
        let first = chain.next_push().expect("made");
        let text = String::from_utf8_lossy(&first).into_owned();
        assert!(text[4..].starts_with(&"0".repeat(40)), "{text}");
        let tip = chain.tip.clone().expect("a commit");
        let second = chain.next_push().expect("made");
        assert!(second[4..].starts_with(tip.as_bytes()));
        let packed = second.windows(4).position(|bytes| bytes == b"PACK");
        let pack = &second[packed.expect("a pack")..];
        let (body, checksum) = pack.split_at(pack.len() - 20);
        assert_eq!(Sha1::digest(body).as_slice(), checksum);
    }
}
