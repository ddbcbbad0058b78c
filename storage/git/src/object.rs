//! Minimal parsers of commits, trees and tags: they read ids and dates, without an allocation per
//! field.

use gix_object::Kind;
use henge_types::ObjectFormat;

use crate::oid::{Oid, oid, parse_hex};

/// The fields of a commit that history walks use.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Commit {
    pub(crate) tree: Oid,
    pub(crate) parents: Vec<Oid>,
    /// The committer's date in seconds since the Unix epoch; 0 where it is unreadable, as in git.
    pub(crate) time: i64,
}

/// Parses a commit; `None` when it is malformed.
pub(crate) fn parse_commit(data: &[u8], format: ObjectFormat) -> Option<Commit> {
    let (tree, mut rest) = id_line(data, b"tree ", format)?;
    let mut parents = Vec::with_capacity(1);
    while let Some((parent, behind)) = id_line(rest, b"parent ", format) {
        parents.push(parent);
        rest = behind;
    }
    let mut rest = skip_line(rest, b"author ")?;
    let mut has_one_author = true;
    while let Some(behind) = skip_line(rest, b"author ") {
        has_one_author = false;
        rest = behind;
    }
    let end = memchr::memchr(b'\n', rest).unwrap_or(rest.len());
    let line = rest[..end].strip_prefix(b"committer ")?;
    Some(Commit {
        tree,
        parents,
        // Git reads the date only where the committer follows a single author.
        time: if has_one_author { date(line) } else { 0 },
    })
}

/// The target of a tag and its kind; `None` when the tag is malformed.
pub(crate) fn parse_tag(data: &[u8], format: ObjectFormat) -> Option<(Oid, Kind)> {
    let (target, rest) = id_line(data, b"object ", format)?;
    let end = memchr::memchr(b'\n', rest)?;
    let kind = Kind::from_bytes(rest[..end].strip_prefix(b"type ")?).ok()?;
    skip_line(&rest[end + 1..], b"tag ")?;
    Some((target, kind))
}

fn id_line<'a>(data: &'a [u8], name: &[u8], format: ObjectFormat) -> Option<(Oid, &'a [u8])> {
    let rest = data.strip_prefix(name)?;
    let (digits, rest) = rest.split_at_checked(format.hex_bytes())?;
    Some((parse_hex(digits, format)?, rest.strip_prefix(b"\n")?))
}

fn skip_line<'a>(data: &'a [u8], name: &[u8]) -> Option<&'a [u8]> {
    let rest = data.strip_prefix(name)?;
    let end = memchr::memchr(b'\n', rest)?;
    Some(&rest[end + 1..])
}

/// The seconds in `NAME <MAIL> SECONDS ZONE`.
fn date(line: &[u8]) -> i64 {
    let Some(mail_end) = memchr::memrchr(b'>', line) else {
        return 0;
    };
    let text = line[mail_end + 1..].trim_ascii_start();
    let end = text
        .iter()
        .position(|byte| !byte.is_ascii_digit())
        .unwrap_or(text.len());
    std::str::from_utf8(&text[..end])
        .ok()
        .and_then(|digits| digits.parse().ok())
        .unwrap_or(0)
}

/// The type of a tree entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum EntryKind {
    Tree,
    /// A file or a symbolic link.
    Blob,
    /// A submodule: its commit is in another repository.
    Submodule,
}

/// One entry of a tree.
#[derive(Debug, Clone, Copy)]
pub(crate) struct TreeEntry<'a> {
    pub(crate) kind: EntryKind,
    pub(crate) name: &'a [u8],
    pub(crate) id: &'a oid,
}

/// Marks a tree that cannot be parsed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct MalformedTree;

/// The entries of a tree, in the order of the tree.
#[derive(Debug, Clone)]
pub(crate) struct TreeEntries<'a> {
    rest: &'a [u8],
    id_bytes: usize,
}

impl<'a> TreeEntries<'a> {
    pub(crate) const fn new(data: &'a [u8], format: ObjectFormat) -> Self {
        Self {
            rest: data,
            id_bytes: format.id_bytes(),
        }
    }

    fn parse(rest: &'a [u8], id_bytes: usize) -> Option<(TreeEntry<'a>, &'a [u8])> {
        let space = memchr::memchr(b' ', rest.get(..rest.len().min(8))?)?;
        let mut mode = 0_u32;
        for digit in &rest[..space] {
            if !(b'0'..=b'7').contains(digit) {
                return None;
            }
            mode = (mode << 3) | u32::from(digit - b'0');
        }
        let behind = &rest[space + 1..];
        let end = memchr::memchr(0, behind)?;
        let id = behind.get(end + 1..end + 1 + id_bytes)?;
        let kind = match mode & 0o170_000 {
            0o040_000 => EntryKind::Tree,
            0o100_000 | 0o120_000 => EntryKind::Blob,
            0o160_000 => EntryKind::Submodule,
            _ => return None,
        };
        let entry = TreeEntry {
            kind,
            name: &behind[..end],
            id: oid::from_bytes_unchecked(id),
        };
        Some((entry, &behind[end + 1 + id_bytes..]))
    }
}

impl<'a> Iterator for TreeEntries<'a> {
    type Item = Result<TreeEntry<'a>, MalformedTree>;

    #[inline]
    fn next(&mut self) -> Option<Self::Item> {
        if self.rest.is_empty() {
            return None;
        }
        if let Some((entry, rest)) = Self::parse(self.rest, self.id_bytes) {
            self.rest = rest;
            return Some(Ok(entry));
        }
        self.rest = &[];
        Some(Err(MalformedTree))
    }
}

/// Finds entries of a tree by name. Lookups must come in tree order: one pass serves all of them.
pub(crate) struct SamePath<'a> {
    entries: TreeEntries<'a>,
}

impl<'a> SamePath<'a> {
    pub(crate) const fn new(data: &'a [u8], format: ObjectFormat) -> Self {
        Self {
            entries: TreeEntries::new(data, format),
        }
    }

    /// The entry of the same name and kind. In an unsorted tree an entry may be missed; the effect
    /// is a slower proof.
    pub(crate) fn find(&mut self, wanted: &TreeEntry<'_>) -> Option<TreeEntry<'a>> {
        loop {
            let mut ahead = self.entries.clone();
            let next = ahead.next()?.ok()?;
            match sort_order(&next, wanted) {
                std::cmp::Ordering::Less => self.entries = ahead,
                std::cmp::Ordering::Equal => {
                    self.entries = ahead;
                    // The id of a submodule proves nothing about a file with the same id, and both
                    // sort at the same position.
                    return (next.kind == wanted.kind).then_some(next);
                }
                std::cmp::Ordering::Greater => return None,
            }
        }
    }

    /// Skips the entries that both trees have next, byte for byte: nearly all of a big tree.
    pub(crate) fn skip_common(&mut self, other: &mut TreeEntries<'_>) {
        let common = common_prefix(self.entries.rest, other.rest);
        let mut end = 0;
        while let Some(name_end) = memchr::memchr(0, &self.entries.rest[end..common]) {
            let next = end + name_end + 1 + self.entries.id_bytes;
            if next > common {
                break;
            }
            end = next;
        }
        self.entries.rest = &self.entries.rest[end..];
        other.rest = &other.rest[end..];
    }
}

/// The length of the common prefix of two slices, in bytes.
pub(crate) fn common_prefix(left: &[u8], right: &[u8]) -> usize {
    const STEP: usize = 64;
    let length = left.len().min(right.len());
    let (left, right) = (&left[..length], &right[..length]);
    let steps = left
        .chunks_exact(STEP)
        .zip(right.chunks_exact(STEP))
        .take_while(|(left, right)| left == right)
        .count();
    let mut start = steps * STEP;
    while let (Some(left), Some(right)) =
        (left[start..].first_chunk(), right[start..].first_chunk())
    {
        let difference = u64::from_le_bytes(*left) ^ u64::from_le_bytes(*right);
        if difference != 0 {
            return start + difference.trailing_zeros() as usize / 8;
        }
        start += size_of::<u64>();
    }
    let rest = left[start..]
        .iter()
        .zip(&right[start..])
        .take_while(|(left, right)| left == right)
        .count();
    start + rest
}

/// Names of trees sort as if they ended in a slash.
fn sort_order(left: &TreeEntry<'_>, right: &TreeEntry<'_>) -> std::cmp::Ordering {
    let key = |entry: &TreeEntry<'_>, at: usize| match entry.name.get(at) {
        Some(byte) => *byte,
        None if entry.kind == EntryKind::Tree => b'/',
        None => 0,
    };
    let common = left.name.len().min(right.name.len());
    left.name[..common]
        .cmp(&right.name[..common])
        .then_with(|| key(left, common).cmp(&key(right, common)))
        .then_with(|| left.name.len().cmp(&right.name.len()))
}

/// Whether an entry of this name would be checked out inside the work tree and outside `.git`.
pub(crate) fn is_safe_name(name: &[u8]) -> bool {
    !(name.is_empty()
        || name == b"."
        || name == b".."
        || name.eq_ignore_ascii_case(b".git")
        || name.contains(&b'/'))
}

#[cfg(test)]
mod tests {
    use super::*;
    use ObjectFormat::{Sha1, Sha256};
    use proptest::prelude::*;

    const COMMIT: &[u8] = b"tree 4b825dc642cb6eb9a060e54bf8d69288fbee4904\n\
        parent 1111111111111111111111111111111111111111\n\
        parent 2222222222222222222222222222222222222222\n\
        author A <a@example.org> 1 +0000\n\
        committer B > C <c@example.org> 1700000000 -0330\n\nmessage\n";

    #[test]
    fn a_commit_is_read() {
        let commit = parse_commit(COMMIT, Sha1).unwrap();
        assert_eq!(commit.parents.len(), 2);
        assert_eq!(commit.time, 1_700_000_000);
        assert_eq!(
            commit.tree.to_string(),
            "4b825dc642cb6eb9a060e54bf8d69288fbee4904"
        );
    }

    /// Old importers wrote such commits. Git reads them, and takes their date as 0.
    #[test]
    fn a_commit_of_several_authors_has_no_date() {
        let author = "author A <a@example.org> 1 +0000\n";
        let twice = String::from_utf8(COMMIT.to_vec()).unwrap();
        let twice = twice.replace(author, &author.repeat(2));
        let commit = parse_commit(twice.as_bytes(), Sha1).unwrap();
        assert_eq!((commit.parents.len(), commit.time), (2, 0));
    }

    #[test]
    fn a_cut_commit_is_refused() {
        let head = COMMIT.len() - b"B > C <c@example.org> 1700000000 -0330\n\nmessage\n".len();
        for cut in 0..head {
            assert_eq!(parse_commit(&COMMIT[..cut], Sha1), None, "cut at {cut}");
        }
    }

    #[test]
    fn ids_are_as_long_as_the_format_has_them() {
        let sha256 = String::from_utf8(COMMIT.to_vec()).unwrap();
        let mut sha256 = sha256.replace(&"1".repeat(40), &"1".repeat(64));
        sha256 = sha256.replace(&"2".repeat(40), &"2".repeat(64));
        sha256 = sha256.replace("4b825dc642cb6eb9a060e54bf8d69288fbee4904", &"4b".repeat(32));
        let commit = parse_commit(sha256.as_bytes(), Sha256).unwrap();
        assert_eq!(commit.tree.to_string(), "4b".repeat(32));
        assert_eq!((commit.parents.len(), commit.time), (2, 1_700_000_000));
        assert_eq!(parse_commit(sha256.as_bytes(), Sha1), None);
        assert_eq!(parse_commit(COMMIT, Sha256), None);
        let tag = |id: &str| format!("object {id}\ntype commit\ntag v1\n");
        for (format, other) in [(Sha1, Sha256), (Sha256, Sha1)] {
            let tag = tag(&"3".repeat(format.hex_bytes()));
            let (target, kind) = parse_tag(tag.as_bytes(), format).unwrap();
            assert_eq!(
                (target.to_string().len(), kind),
                (format.hex_bytes(), Kind::Commit)
            );
            assert_eq!(parse_tag(tag.as_bytes(), other), None);
        }
    }

    #[test]
    fn a_tree_is_read_and_a_broken_one_is_an_error() {
        for format in [Sha1, Sha256] {
            let tree = tree(
                &[("100644", "a", 1), ("40000", "b", 2), ("160000", "c", 3)],
                format,
            );
            let found: Vec<_> = TreeEntries::new(&tree, format)
                .map(|entry| entry.unwrap())
                .map(|entry| (entry.kind, entry.id.as_bytes().to_vec()))
                .collect();
            let kinds = [EntryKind::Blob, EntryKind::Tree, EntryKind::Submodule];
            for ((kind, id), (expected, byte)) in found.iter().zip(kinds.iter().zip(1_u8..)) {
                assert_eq!((kind, id), (expected, &vec![byte; format.id_bytes()]));
            }
            assert_eq!(found.len(), 3);
            let cut = &tree[..tree.len() - 1];
            assert!(TreeEntries::new(cut, format).any(|entry| entry.is_err()));
        }
        let bad = b"999 x\0aaaaaaaaaaaaaaaaaaaa";
        assert!(TreeEntries::new(bad, Sha1).any(|entry| entry.is_err()));
    }

    #[test]
    fn names_that_leave_the_work_tree_are_not_safe() {
        for name in ["", ".", "..", ".git", ".GIT", "a/b"] {
            assert!(!is_safe_name(name.as_bytes()), "{name:?}");
        }
        assert!(is_safe_name(b".gitignore"));
    }

    fn tree(entries: &[(&str, &str, u8)], format: ObjectFormat) -> Vec<u8> {
        let mut data = Vec::new();
        for (mode, name, id) in entries {
            data.extend_from_slice(format!("{mode} {name}\0").as_bytes());
            data.resize(data.len() + format.id_bytes(), *id);
        }
        data
    }

    #[test]
    fn entries_are_found_by_name_and_kind_in_one_pass() {
        let base = [
            ("100644", "a", 1),
            ("100644", "a.b", 2),
            ("40000", "a-dir", 3),
            ("40000", "b", 4),
            ("100644", "c", 5),
        ];
        let asked = [
            ("100644", "a", 1),
            ("100644", "a.a", 9),
            ("40000", "a-dir", 9),
            ("100644", "b", 9),
            ("100644", "c", 9),
        ];
        let (base, asked) = (tree(&base, Sha1), tree(&asked, Sha1));
        // "a-dir" sorts before "a.b": an unsorted base causes misses only.
        let mut beside = SamePath::new(&base, Sha1);
        let found: Vec<_> = TreeEntries::new(&asked, Sha1)
            .map(|entry| {
                beside
                    .find(&entry.unwrap())
                    .map(|entry| entry.id.as_bytes()[0])
            })
            .collect();
        assert_eq!(found, [Some(1), None, None, None, Some(5)]);
    }

    proptest! {
        #[test]
        fn what_is_skipped_is_what_is_common(
            common in 0_u8..20, left in 0_u8..4, right in 0_u8..4, cut in 0_usize..30,
            format in prop_oneof![Just(Sha1), Just(Sha256)],
        ) {
            let name = |number: u8| format!("name-{number}-{}", "x".repeat(usize::from(number % 7)));
            let make = |extra: u8, id: u8| {
                let mut data = Vec::new();
                for number in 0..common + extra {
                    let id = if number < common { number } else { id };
                    data.extend_from_slice(format!("100644 {}\0", name(number)).as_bytes());
                    data.resize(data.len() + format.id_bytes(), id);
                }
                data
            };
            let (left, right) = (make(left, 100), make(right, 101));
            let mut entries = TreeEntries::new(&left, format);
            let mut beside = SamePath::new(&right, format);
            beside.skip_common(&mut entries);
            let skipped = TreeEntries::new(&left, format).count() - entries.count();
            prop_assert_eq!(skipped, usize::from(common));
            // A truncated tree is not skipped past its end.
            let cut = left.len().saturating_sub(cut);
            let mut entries = TreeEntries::new(&left[..cut], format);
            SamePath::new(&left, format).skip_common(&mut entries);
            prop_assert!(entries.rest.len() < 64);
        }

        #[test]
        fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            for format in [Sha1, Sha256] {
                let entries = TreeEntries::new(&bytes, format).count();
                prop_assert!(entries <= bytes.len());
                prop_assert!(parse_commit(&bytes, format).is_none());
                prop_assert!(parse_tag(&bytes, format).is_none());
            }
        }
    }
}
