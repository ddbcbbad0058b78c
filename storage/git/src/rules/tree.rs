//! Trees: `fsck_tree` of git's `fsck.c`.

use henge_types::ObjectFormat;

use crate::oid::oid;

use super::check::{NamedBlobs, Report, Unsound};
use super::levels::Message;
use super::names::{self, ATTRIBUTES, IGNORE, MAILMAP, MODULES};

const KIND: u16 = 0o170_000;
const FOLDER: u16 = 0o040_000;
const LINK: u16 = 0o120_000;
const SUBMODULE: u16 = 0o160_000;

const UNPARSABLE: &str = "cannot be parsed as a tree";

/// An entry, with its mode as written.
#[derive(Clone, Copy)]
struct Entry<'a> {
    mode: u16,
    name: &'a [u8],
    id: &'a oid,
}

impl Entry<'_> {
    const fn is(&self, kind: u16) -> bool {
        self.mode & KIND == kind
    }
}

/// Decodes the entry at the beginning of a tree. Returns it with the bytes after it; `None` where
/// git reports a malformed tree.
fn decode(tree: &[u8], id_bytes: usize) -> Option<(Entry<'_>, &[u8])> {
    let last_name_end = tree.len().checked_sub(id_bytes + 1)?;
    if last_name_end < 2 || tree[last_name_end] != 0 || tree[0] == b' ' {
        return None;
    }
    let mut mode = 0_u32;
    let mut at = 0;
    loop {
        match *tree.get(at)? {
            b' ' => break,
            digit @ b'0'..=b'7' => mode = (mode << 3) | u32::from(digit - b'0'),
            _ => return None,
        }
        at += 1;
    }
    let rest = &tree[at + 1..];
    let name_end = memchr::memchr(0, rest).filter(|end| *end > 0)?;
    let (entry, behind) = rest.split_at_checked(name_end + 1 + id_bytes)?;
    let entry = Entry {
        // Git keeps sixteen bits of the mode.
        mode: (mode & 0xffff).try_into().ok()?,
        name: &entry[..name_end],
        id: oid::from_bytes_unchecked(&entry[name_end + 1..]),
    };
    Some((entry, behind))
}

/// Faults of a tree, each reported once for any number of entries.
#[derive(Default)]
struct Faults {
    null_id: bool,
    slash: bool,
    dot: bool,
    dotdot: bool,
    dotgit: bool,
    zero_padded: bool,
    odd_mode: bool,
    duplicate: bool,
    unsorted: bool,
    long_name: bool,
}

/// Checks a tree. Blobs with the name `.gitmodules` or `.gitattributes` are added to `named`.
pub(super) fn check(
    report: &mut Report<'_>,
    data: &[u8],
    format: ObjectFormat,
    named: &mut NamedBlobs,
) -> Result<(), Unsound> {
    let name_bytes_max = report.rules().name_bytes_max();
    let mut faults = Faults::default();
    let mut before: Option<Entry<'_>> = None;
    let mut candidates = Vec::new();
    let mut rest = data;
    while !rest.is_empty() {
        let Some((entry, behind)) = decode(rest, format.id_bytes()) else {
            report.add(Message::BadTree, UNPARSABLE)?;
            break;
        };
        faults.zero_padded |= rest[0] == b'0';
        faults.null_id |= entry.id.as_bytes().iter().all(|byte| *byte == 0);
        faults.long_name |= entry.name.len() > name_bytes_max;
        faults.odd_mode |= !matches!(
            entry.mode,
            0o100_644 | 0o100_755 | LINK | FOLDER | SUBMODULE
        );
        if names::may_mean_something(entry.name) {
            check_meaning(report, &entry, &mut faults, named)?;
        }
        if memchr::memchr2(b'/', b'\\', entry.name).is_some() {
            check_separators(report, &entry, &mut faults, named)?;
        }
        if let Some(before) = &before {
            match order(before, &entry, &mut candidates) {
                Order::Sorted => {}
                Order::Unsorted => faults.unsorted = true,
                Order::Duplicate => faults.duplicate = true,
            }
        }
        before = Some(entry);
        rest = behind;
    }
    faults.tell(report)
}

impl Faults {
    /// Adds the faults in git's order: the first one that refuses the push ends the check.
    fn tell(&self, report: &mut Report<'_>) -> Result<(), Unsound> {
        for (is_there, message, text) in [
            (
                self.null_id,
                Message::NullSha1,
                "contains entries pointing to null sha1",
            ),
            (self.slash, Message::FullPathname, "contains full pathnames"),
            (self.dot, Message::HasDot, "contains '.'"),
            (self.dotdot, Message::HasDotdot, "contains '..'"),
            (self.dotgit, Message::HasDotgit, "contains '.git'"),
            (
                self.zero_padded,
                Message::ZeroPaddedFilemode,
                "contains zero-padded file modes",
            ),
            (
                self.odd_mode,
                Message::BadFilemode,
                "contains bad file modes",
            ),
            (
                self.duplicate,
                Message::DuplicateEntries,
                "contains duplicate file entries",
            ),
            (self.unsorted, Message::TreeNotSorted, "not properly sorted"),
            (
                self.long_name,
                Message::LargePathname,
                "contains excessively large pathname",
            ),
        ] {
            if is_there {
                report.add(message, text)?;
            }
        }
        Ok(())
    }
}

/// Checks a name that begins like one with a special meaning.
fn check_meaning(
    report: &mut Report<'_>,
    entry: &Entry<'_>,
    faults: &mut Faults,
    named: &mut NamedBlobs,
) -> Result<(), Unsound> {
    let name = entry.name;
    faults.dot |= name == b".";
    faults.dotdot |= name == b"..";
    faults.dotgit |= names::is_dotgit(name);
    if MODULES.is_meant_by(name) {
        note_modules(report, entry, named)?;
    }
    if ATTRIBUTES.is_meant_by(name) {
        note_attributes(report, entry, named)?;
    }
    if !entry.is(LINK) {
        return Ok(());
    }
    if IGNORE.is_meant_by(name) {
        report.add(Message::GitignoreSymlink, ".gitignore is a symlink")?;
    }
    if MAILMAP.is_meant_by(name) {
        report.add(Message::MailmapSymlink, ".mailmap is a symlink")?;
    }
    Ok(())
}

/// Checks slashes, and the part after each backslash, which is a path on NTFS.
fn check_separators(
    report: &mut Report<'_>,
    entry: &Entry<'_>,
    faults: &mut Faults,
    named: &mut NamedBlobs,
) -> Result<(), Unsound> {
    faults.slash |= entry.name.contains(&b'/');
    for at in memchr::memchr_iter(b'\\', entry.name) {
        let below = &entry.name[at + 1..];
        faults.dotgit |= names::is_ntfs_dotgit(below);
        if MODULES.is_meant_by_ntfs(below) {
            note_modules(report, entry, named)?;
        }
    }
    Ok(())
}

fn note_modules(
    report: &mut Report<'_>,
    entry: &Entry<'_>,
    named: &mut NamedBlobs,
) -> Result<(), Unsound> {
    let id = entry.id;
    match entry.mode & KIND {
        LINK => report.add(Message::GitmodulesSymlink, ".gitmodules is a symbolic link"),
        FOLDER => report.add_of(id, Message::GitmodulesBlob, "non-blob found at .gitmodules"),
        SUBMODULE => report.add_of(
            id,
            Message::GitmodulesMissing,
            "unable to read .gitmodules blob",
        ),
        _ => {
            named.modules.insert(id.to_owned());
            Ok(())
        }
    }
}

fn note_attributes(
    report: &mut Report<'_>,
    entry: &Entry<'_>,
    named: &mut NamedBlobs,
) -> Result<(), Unsound> {
    let id = entry.id;
    match entry.mode & KIND {
        LINK => report.add(Message::GitattributesSymlink, ".gitattributes is a symlink"),
        FOLDER => report.add_of(
            id,
            Message::GitattributesBlob,
            "non-blob found at .gitattributes",
        ),
        SUBMODULE => report.add_of(
            id,
            Message::GitattributesMissing,
            "unable to read .gitattributes blob",
        ),
        _ => {
            named.attributes.insert(id.to_owned());
            Ok(())
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Order {
    Sorted,
    Unsorted,
    Duplicate,
}

/// The order of two entries in sequence. Folders sort as if their names ended in a slash, so a file
/// and a folder of one name need not be neighbours: `candidates` holds the files that such a folder
/// may still follow.
fn order<'a>(left: &Entry<'a>, right: &Entry<'a>, candidates: &mut Vec<&'a [u8]>) -> Order {
    let common = left.name.len().min(right.name.len());
    match left.name[..common].cmp(&right.name[..common]) {
        std::cmp::Ordering::Less => return Order::Sorted,
        std::cmp::Ordering::Greater => return Order::Unsorted,
        std::cmp::Ordering::Equal => {}
    }
    if left.name.len() == right.name.len() {
        return Order::Duplicate;
    }
    let next = |entry: &Entry<'_>| match entry.name.get(common) {
        Some(byte) => *byte,
        None if entry.is(FOLDER) => b'/',
        None => 0,
    };
    let (of_left, of_right) = (next(left), next(right));
    if of_left == 0 && is_below_slash(of_right) {
        candidates.push(left.name);
    } else if of_right == b'/' && is_below_slash(of_left) {
        while let Some(file) = candidates.pop() {
            let Some(rest) = right.name.strip_prefix(file) else {
                continue;
            };
            match rest.first() {
                None => return Order::Duplicate,
                Some(byte) if is_below_slash(*byte) => {
                    candidates.push(file);
                    break;
                }
                Some(_) => {}
            }
        }
    }
    match of_left < of_right {
        true => Order::Sorted,
        false => Order::Unsorted,
    }
}

const fn is_below_slash(byte: u8) -> bool {
    0 < byte && byte < b'/'
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rules::{ObjectCheck, ObjectRules, Pass};
    use ObjectFormat::{Sha1, Sha256};
    use gix_object::Kind;
    use proptest::prelude::*;

    fn tree(entries: &[(&str, &str, u8)], format: ObjectFormat) -> Vec<u8> {
        let mut data = Vec::new();
        for (mode, name, id) in entries {
            data.extend_from_slice(format!("{mode} {name}\0").as_bytes());
            data.resize(data.len() + format.id_bytes(), *id);
        }
        data
    }

    /// The refusal of a tree, the warnings, and the named blobs.
    fn said(data: &[u8], format: ObjectFormat) -> (Result<(), String>, String, NamedBlobs) {
        let rules = ObjectRules::strict();
        let mut check = ObjectCheck::new(&rules, format);
        let mut named = NamedBlobs::default();
        let id = crate::oid::Oid::null(crate::oid::hash_kind(format));
        let outcome = check.object(&id, Kind::Tree, data, &mut named, Pass::First);
        let outcome = outcome.map_err(|unsound| {
            let said = unsound.to_string();
            said.split_once(": ").unwrap().1.to_owned()
        });
        (outcome, check.warnings.text(), named)
    }

    #[track_caller]
    fn assert_said(entries: &[(&str, &str, u8)], expected: &str) {
        for format in [Sha1, Sha256] {
            let (outcome, warnings, _) = said(&tree(entries, format), format);
            let refused = outcome.err().unwrap_or_default();
            assert_eq!(refused, expected, "{entries:?}: {warnings}");
        }
    }

    #[test]
    fn a_tree_as_git_writes_it_is_sound() {
        let entries = [
            ("100644", ".gitattributes", 1),
            ("100755", "a", 2),
            ("100644", "a.b", 3),
            ("40000", "a-dir", 4),
            ("120000", "link", 5),
            ("160000", "module", 6),
        ];
        // `a-dir/` is before `a.b`.
        let mut sorted = entries;
        sorted.swap(2, 3);
        assert_said(&sorted, "");
        assert_said(&entries, "treeNotSorted: not properly sorted");
        assert_said(&[], "");
        let (outcome, warnings, named) = said(&tree(&sorted, Sha1), Sha1);
        assert_eq!((outcome, warnings.as_str()), (Ok(()), ""));
        assert_eq!((named.modules.len(), named.attributes.len()), (0, 1));
    }

    #[test]
    fn the_first_fault_in_gits_order_is_told() {
        assert_said(
            &[("040000", "..", 1), ("100644", "a", 0)],
            "nullSha1: contains entries pointing to null sha1",
        );
        assert_said(&[("040000", "..", 1)], "hasDotdot: contains '..'");
        assert_said(
            &[("040000", "a", 1)],
            "zeroPaddedFilemode: contains zero-padded file modes",
        );
    }

    #[test]
    fn a_file_and_a_folder_of_one_name_are_found_apart() {
        let entries = [
            ("100644", "foo", 1),
            ("100644", "foo.bar", 2),
            ("100644", "foo.bar.baz", 3),
            ("40000", "foo.bar", 4),
            ("40000", "foo", 5),
        ];
        let duplicate = "duplicateEntries: contains duplicate file entries";
        assert_said(&entries, duplicate);
        assert_said(&entries[..4], duplicate);
        assert_said(&entries[..3], "");
        assert_said(&[entries[0], entries[1], entries[4]], duplicate);
        assert_said(&[("100644", "a", 1), ("100644", "a", 2)], duplicate);
    }

    #[test]
    fn a_mode_that_git_does_not_write_is_only_told() {
        let (outcome, warnings, _) = said(&tree(&[("100664", "a", 1)], Sha1), Sha1);
        assert_eq!(outcome, Ok(()));
        assert!(warnings.starts_with("warning: object 0000"), "{warnings}");
        assert!(warnings.ends_with(": badFilemode: contains bad file modes\n"));
    }

    #[test]
    fn a_broken_tree_is_refused_at_every_cut() {
        let whole = tree(&[("100644", "a", 1), ("40000", "b", 2)], Sha1);
        let first = b"100644 a\0".len() + 20;
        for cut in 1..whole.len() {
            let (outcome, ..) = said(&whole[..cut], Sha1);
            let expected = match cut == first {
                true => Ok(()),
                false => Err("badTree: cannot be parsed as a tree".to_owned()),
            };
            assert_eq!(outcome, expected, "cut at {cut}");
        }
        assert_said(&[("100644", "", 1)], "badTree: cannot be parsed as a tree");
        assert_said(&[("1006x4", "a", 1)], "badTree: cannot be parsed as a tree");
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            for format in [Sha1, Sha256] {
                let (outcome, ..) = said(&bytes, format);
                prop_assert!(outcome.is_err() || bytes.is_empty());
            }
        }
    }
}
