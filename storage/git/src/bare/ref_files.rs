//! The refs of a repository, read from its files: all of them, or an error
//! (gitrepository-layout(5), git-pack-refs(1)).
//!
//! A listing that lacks an existing ref is worse than none: a mirror that prunes deletes its copy
//! of the ref. Stock git skips an unreadable loose ref with a warning that only the server sees.
//! Here only two kinds of names are skipped: names that git itself never accepts as refs (`*.lock`,
//! names with a leading dot, invalid names), and names without a folder below `refs/`
//! (`refs/stash`), which belong to one clone. A ref name that [`RefName`] cannot hold (not UTF-8,
//! or too many bytes) fails the listing with an error that shows the name.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, BufRead, BufReader, Read};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use gix_ref::FullName;
use gix_ref::bstr::ByteSlice;
use henge_types::{ObjectFormat, ObjectId, RefName, limits};

use crate::oid::{from_gix, parse_hex};

/// Maximum length of a chain of symbolic refs.
const SYMREFS_MAX: usize = 5;
/// Maximum number of listings repeated because a file became a directory meanwhile, or a directory
/// a file.
const RACES_MAX: u32 = 10;
/// Maximum bytes of a name in an error.
const NAME_BYTES_SHOWN: usize = 200;
/// Maximum bytes of a loose ref: an id or a name, and a line end.
const LOOSE_BYTES_MAX: u64 = 16 * 1024;
/// Maximum bytes of a line of packed-refs.
const PACKED_LINE_BYTES_MAX: u64 = 16 * 1024;

/// A file of a repository with an unreadable ref.
#[derive(Debug, thiserror::Error)]
#[error("{} {problem}: {}, no ref is listed until then", file.display(), problem.way_out())]
pub struct UnreadableRef {
    /// The file, below the repository.
    pub file: PathBuf,
    /// The problem with it.
    #[source]
    pub problem: RefProblem,
}

/// The reason why a ref cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum RefProblem {
    /// The system reports an error.
    #[error("cannot be read ({0})")]
    Io(#[source] io::Error),
    /// An empty file, as a crash leaves it.
    #[error("is empty")]
    Empty,
    /// A `packed-refs` without a line, as a crash leaves it.
    #[error("is empty")]
    EmptyPacked,
    /// A name that git accepts and [`RefName`] cannot hold.
    #[error(
        "holds the ref {name}, whose name is not UTF-8 of at most {} bytes",
        limits::REF_NAME_BYTES_MAX
    )]
    Name {
        /// The beginning of the name, escaped.
        name: String,
    },
    /// Neither an object id nor the name of another ref.
    #[error("holds neither an object id nor the name of a ref")]
    Malformed,
    /// The null object id.
    #[error("holds the null object id")]
    Null,
    /// A circle of symbolic refs, or a chain of more than `SYMREFS_MAX`.
    #[error("leads in a circle, or through more than {SYMREFS_MAX} names")]
    Circle,
    /// A line that git did not write.
    #[error("is damaged in line {line} ({what})")]
    Line {
        /// Counted from 1.
        line: u64,
        /// The problem with it.
        what: &'static str,
    },
}

impl RefProblem {
    /// The remedy.
    const fn way_out(&self) -> &'static str {
        match self {
            Self::Io(_)
            | Self::Empty
            | Self::Malformed
            | Self::Null
            | Self::Circle
            | Self::Line { .. } => "repair or remove it",
            Self::EmptyPacked => "restore it, or remove it if all refs in it were deleted",
            Self::Name { .. } => "rename or delete the ref",
        }
    }

    /// Whether the cause may be a file that became a directory meanwhile, or a directory a file.
    fn may_be_a_race(&self) -> bool {
        let Self::Io(error) = self else {
            return false;
        };
        matches!(
            error.kind(),
            io::ErrorKind::NotADirectory | io::ErrorKind::IsADirectory | io::ErrorKind::NotFound
        )
    }
}

/// The value of one ref in its file.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Value {
    Id(ObjectId),
    /// The name of another ref.
    Symbolic(String),
}

/// The refs of a repository at one time.
#[derive(Debug, Clone, Default)]
pub(super) struct RefTable {
    /// The target of HEAD; `None` where HEAD is detached or its target is no [`RefName`].
    pub(super) head: Option<RefName>,
    pub(super) refs: BTreeMap<RefName, ObjectId>,
    /// Number of entries that are skipped because they are no refs here.
    pub(super) unnameable: u64,
}

impl RefTable {
    /// Reads HEAD, the loose refs and packed-refs of the repository at `root`.
    ///
    /// # Errors
    /// When one of them is there and cannot be read.
    pub(super) fn read(root: &Path, format: ObjectFormat) -> Result<Self, UnreadableRef> {
        let mut races = 0;
        loop {
            match Self::read_once(root, format) {
                // A deletion of `a` makes room for `a/b`, or vice versa: git, too, reads such a ref
                // again.
                Err(error) if error.problem.may_be_a_race() && races < RACES_MAX => races += 1,
                read => return read,
            }
        }
    }

    fn read_once(root: &Path, format: ObjectFormat) -> Result<Self, UnreadableRef> {
        let mut files = RefFiles {
            root,
            format,
            values: BTreeMap::new(),
            unnameable: 0,
        };
        let head = files.value_of("HEAD")?;
        // Loose refs first: a ref packed meanwhile is in packed-refs before its own file is
        // removed.
        let loose = files.read_loose()?;
        files.read_packed()?;
        files.values.extend(loose);
        let mut table = Self {
            head: match head {
                Some(Value::Symbolic(target)) => target.parse().ok(),
                Some(Value::Id(_)) | None => None,
            },
            refs: BTreeMap::new(),
            unnameable: files.unnameable,
        };
        for (name, value) in &files.values {
            let id = match value {
                Value::Id(id) => Some(*id),
                Value::Symbolic(target) => files.follow(name, target)?,
            };
            match name.parse() {
                Ok(name) => table.refs.extend(id.map(|id| (name, id))),
                // The name has no folder below `refs/`.
                Err(_) => table.unnameable += 1,
            }
        }
        Ok(table)
    }
}

fn unreadable(file: impl Into<PathBuf>) -> impl FnOnce(RefProblem) -> UnreadableRef {
    let file = file.into();
    move |problem| UnreadableRef { file, problem }
}

fn is_ref_name(name: &str) -> bool {
    is_ref_name_bytes(name.as_bytes())
}

fn is_ref_name_bytes(name: &[u8]) -> bool {
    FullName::try_from(name.as_bstr()).is_ok()
}

/// A ref name that git accepts, as text; `None` if it is not UTF-8 and has no folder below `refs/`.
///
/// # Errors
/// When the name has a folder below `refs/` and [`RefName`] cannot hold it.
fn holdable(name: &[u8]) -> Result<Option<&str>, RefProblem> {
    let text = std::str::from_utf8(name).ok();
    let has_folder = name.iter().filter(|byte| **byte == b'/').count() > 1;
    if has_folder && text.is_none_or(|text| text.parse::<RefName>().is_err()) {
        let shown = &name[..name.len().min(NAME_BYTES_SHOWN)];
        let name = shown.escape_ascii().to_string();
        return Err(RefProblem::Name { name });
    }
    Ok(text)
}

struct RefFiles<'a> {
    root: &'a Path,
    format: ObjectFormat,
    values: BTreeMap<String, Value>,
    unnameable: u64,
}

impl RefFiles<'_> {
    /// The value in the file of a ref; `None` if there is no file.
    fn value_of(&self, name: &str) -> Result<Option<Value>, UnreadableRef> {
        let path = self.root.join(name);
        // Symbolic refs were once symbolic links to a name. Other links are followed.
        if let Ok(target) = fs::read_link(&path)
            && let Some(target) = target.to_str()
            && target.starts_with("refs/")
            && is_ref_name(target)
        {
            return Ok(Some(Value::Symbolic(target.to_owned())));
        }
        let read = || -> io::Result<Vec<u8>> {
            let mut content = Vec::new();
            File::open(&path)?
                .take(LOOSE_BYTES_MAX)
                .read_to_end(&mut content)?;
            Ok(content)
        };
        match read() {
            Ok(content) => self.parse(&content).map(Some).map_err(unreadable(name)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                // A dangling link exists and is an error. A file that was removed meanwhile does
                // not exist.
                match fs::symlink_metadata(&path) {
                    Err(gone) if gone.kind() == io::ErrorKind::NotFound => Ok(None),
                    Ok(found) if !found.is_symlink() => self.value_of(name),
                    Ok(_) | Err(_) => Err(unreadable(name)(RefProblem::Io(error))),
                }
            }
            Err(error) => Err(unreadable(name)(RefProblem::Io(error))),
        }
    }

    fn parse(&self, content: &[u8]) -> Result<Value, RefProblem> {
        if content.is_empty() {
            return Err(RefProblem::Empty);
        }
        if let Some(target) = content.strip_prefix(b"ref:") {
            let target = std::str::from_utf8(target.trim_ascii());
            let target = target.map_err(|_| RefProblem::Malformed)?;
            if !is_ref_name(target) {
                return Err(RefProblem::Malformed);
            }
            return Ok(Value::Symbolic(target.to_owned()));
        }
        let (digits, rest) = content
            .split_at_checked(self.format.hex_bytes())
            .ok_or(RefProblem::Malformed)?;
        // git ignores everything behind the first blank or NUL byte after the id.
        let is_end = |byte: &u8| byte.is_ascii_whitespace() || *byte == 0;
        let ends = rest.first().is_none_or(is_end);
        let id = parse_hex(digits, self.format).filter(|_| ends);
        let id = id.ok_or(RefProblem::Malformed)?;
        if id.is_null() {
            return Err(RefProblem::Null);
        }
        Ok(Value::Id(from_gix(&id)))
    }

    /// Reads the refs that have files of their own.
    fn read_loose(&mut self) -> Result<BTreeMap<String, Value>, UnreadableRef> {
        let mut found = BTreeMap::new();
        let mut directories = vec![PathBuf::from("refs")];
        while let Some(directory) = directories.pop() {
            let failed = |error| unreadable(&directory)(RefProblem::Io(error));
            let entries = match fs::read_dir(self.root.join(&directory)) {
                Ok(entries) => entries,
                // The directory was removed with its last ref.
                Err(error)
                    if error.kind() == io::ErrorKind::NotFound
                        && directory != Path::new("refs") =>
                {
                    continue;
                }
                Err(error) => return Err(failed(error)),
            };
            for entry in entries {
                let entry = entry.map_err(failed)?;
                let name = entry.file_name();
                if name.as_bytes().starts_with(b".") || name.as_bytes().ends_with(b".lock") {
                    continue;
                }
                let full = directory.join(&name);
                if self.is_directory(&full)? {
                    directories.push(full);
                } else if is_ref_name_bytes(full.as_os_str().as_bytes()) {
                    let name = holdable(full.as_os_str().as_bytes()).map_err(unreadable(&full))?;
                    let Some(name) = name else {
                        self.unnameable += 1;
                        continue;
                    };
                    let value = self.value_of(name)?;
                    found.extend(value.map(|value| (name.to_owned(), value)));
                } else {
                    // An editor or a file system left the file there: its name is no ref for git
                    // either.
                    self.unnameable += 1;
                }
            }
        }
        Ok(found)
    }

    fn is_directory(&self, name: &Path) -> Result<bool, UnreadableRef> {
        let path = self.root.join(name);
        let found = fs::symlink_metadata(&path).map(|found| {
            if found.is_symlink() {
                // A dangling link is reported when its value is read.
                return fs::metadata(&path).is_ok_and(|found| found.is_dir());
            }
            found.is_dir()
        });
        match found {
            Ok(is_directory) => Ok(is_directory),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(error) => Err(unreadable(name)(RefProblem::Io(error))),
        }
    }

    fn read_packed(&mut self) -> Result<(), UnreadableRef> {
        let name = "packed-refs";
        let failed = |error| unreadable(name)(RefProblem::Io(error));
        let file = match File::open(self.root.join(name)) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return match fs::symlink_metadata(self.root.join(name)) {
                    Ok(found) if found.is_symlink() => Err(failed(error)),
                    Ok(_) | Err(_) => Ok(()),
                };
            }
            Err(error) => return Err(failed(error)),
        };
        let mut input = BufReader::with_capacity(64 * 1024, file);
        let mut packed = PackedRefs::default();
        let mut line = Vec::new();
        loop {
            line.clear();
            let read = (&mut input)
                .take(PACKED_LINE_BYTES_MAX)
                .read_until(b'\n', &mut line);
            if read.map_err(failed)? == 0 {
                break;
            }
            packed.line += 1;
            let entry = packed.take(&line, self.format).map_err(|what| {
                let line = packed.line;
                unreadable(name)(RefProblem::Line { line, what })
            })?;
            let Some((full, id)) = entry else {
                continue;
            };
            match holdable(full).map_err(unreadable(name))? {
                Some(full) => drop(self.values.insert(full.to_owned(), Value::Id(id))),
                None => self.unnameable += 1,
            }
        }
        // git writes a header even when no ref is left. Older versions of JGit write a header only
        // if a ref leads to an annotated tag, and leave an empty file after the last ref is
        // deleted. Such a file looks like the remains of a crash.
        if packed.line == 0 {
            return Err(unreadable(name)(RefProblem::EmptyPacked));
        }
        Ok(())
    }

    /// The value of the ref that the symbolic ref `name` leads to; `None` if that ref does not
    /// exist.
    fn follow(&self, name: &str, target: &str) -> Result<Option<ObjectId>, UnreadableRef> {
        let mut target = target.to_owned();
        for _ in 0..SYMREFS_MAX {
            let value = match self.values.get(&target) {
                Some(value) => Some(value.clone()),
                None if target.starts_with("refs/") => None,
                None => self.value_of(&target)?,
            };
            match value {
                None => return Ok(None),
                Some(Value::Id(id)) => return Ok(Some(id)),
                Some(Value::Symbolic(next)) => target = next,
            }
        }
        Err(unreadable(name)(RefProblem::Circle))
    }
}

/// A line-by-line parser of packed-refs.
#[derive(Debug, Default)]
struct PackedRefs {
    /// Lines so far.
    line: u64,
    /// Whether the header declares the refs sorted by name.
    is_sorted: bool,
    last: Option<Vec<u8>>,
    /// Whether the previous line was a ref, so that its peeled value may follow.
    takes_peeled: bool,
}

impl PackedRefs {
    /// The ref of a line, if it has one, or the problem with the line.
    fn take<'a>(
        &mut self,
        line: &'a [u8],
        format: ObjectFormat,
    ) -> Result<Option<(&'a [u8], ObjectId)>, &'static str> {
        let line = line.strip_suffix(b"\n").ok_or("it has no end")?;
        if self.line == 1
            && let Some(traits) = line.strip_prefix(b"# pack-refs with:")
        {
            let mut words = traits.split(u8::is_ascii_whitespace);
            self.is_sorted = words.any(|word| word == b"sorted");
            return Ok(None);
        }
        if let Some(peeled) = line.strip_prefix(b"^") {
            if !std::mem::take(&mut self.takes_peeled) || parse_hex(peeled, format).is_none() {
                return Err("it is no value of a tag");
            }
            return Ok(None);
        }
        let (digits, name) = line
            .split_at_checked(format.hex_bytes())
            .ok_or("it is too short for a ref")?;
        let id = parse_hex(digits, format).filter(|id| !id.is_null());
        let id = id.ok_or("it does not start with an object id")?;
        let name = name.strip_prefix(b" ").ok_or("a blank is missing")?;
        // Only programs write this file: an invalid name is damage.
        if !is_ref_name_bytes(name) {
            return Err("it has no name of a ref");
        }
        if self.is_sorted && self.last.as_deref().is_some_and(|last| last >= name) {
            return Err("its name is out of order");
        }
        self.takes_peeled = true;
        self.last = Some(name.to_owned());
        Ok(Some((name, from_gix(&id))))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicBool, Ordering};

    const ID: &str = "1111111111111111111111111111111111111111\n";

    fn repository() -> tempfile::TempDir {
        let directory = tempfile::tempdir().unwrap();
        fs::create_dir_all(directory.path().join("refs/heads")).unwrap();
        fs::write(directory.path().join("HEAD"), "ref: refs/heads/main\n").unwrap();
        fs::write(directory.path().join("refs/heads/main"), ID).unwrap();
        directory
    }

    fn read(directory: &tempfile::TempDir) -> Result<RefTable, UnreadableRef> {
        RefTable::read(directory.path(), ObjectFormat::Sha1)
    }

    /// A branch that made room for one below its name, or vice versa, once failed whole listings:
    /// the reader opened a file that had become a directory.
    #[test]
    fn a_ref_that_makes_room_for_one_below_fails_no_listing() {
        let directory = repository();
        let ends = AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                let above = directory.path().join("refs/heads/a");
                let aside = directory.path().join("aside");
                let make = |path: &Path| {
                    fs::write(&aside, ID).unwrap();
                    fs::rename(&aside, path).unwrap();
                };
                while !ends.load(Ordering::Relaxed) {
                    make(&above);
                    fs::remove_file(&above).unwrap();
                    fs::create_dir(&above).unwrap();
                    make(&above.join("b"));
                    fs::remove_file(above.join("b")).unwrap();
                    fs::remove_dir(&above).unwrap();
                }
            });
            let outcomes: Vec<_> = (0..5000).map(|_| read(&directory)).collect();
            ends.store(true, Ordering::Relaxed);
            for outcome in outcomes {
                let listed = outcome.unwrap();
                assert!(listed.refs.contains_key("refs/heads/main"));
            }
        });
    }

    /// A loose ref with a Latin-1 name was once silently omitted, and one in packed-refs was
    /// reported as damage.
    #[test]
    fn a_name_that_cannot_be_held_is_named() {
        use std::ffi::OsStr;
        let names = [
            b"caf\xe9".to_vec(),
            b"caf\xe9/below".to_vec(),
            [b"n".repeat(250), b"/".to_vec()].concat().repeat(5),
        ];
        for name in names {
            let name = name.strip_suffix(b"/").unwrap_or(&name);
            let full = [b"refs/heads/", name].concat();
            let shown = full[..200.min(full.len())].escape_ascii().to_string();
            let packed = [&ID.as_bytes()[..40], b" ", &full, b"\n"].concat();
            for is_loose in [true, false] {
                let directory = repository();
                if is_loose {
                    let path = directory.path().join(OsStr::from_bytes(&full));
                    fs::create_dir_all(path.parent().unwrap()).unwrap();
                    fs::write(path, ID).unwrap();
                } else {
                    fs::write(directory.path().join("packed-refs"), &packed).unwrap();
                }
                let said = read(&directory).unwrap_err().to_string();
                let wanted = format!("holds the ref {shown}, whose name is not UTF-8");
                assert!(said.contains(&wanted), "{said}");
                assert!(
                    said.contains("rename or delete the ref, no ref is"),
                    "{said}"
                );
            }
        }
        // Names that belong to one clone do not fail the listing.
        let directory = repository();
        fs::write(directory.path().join("refs/stash"), ID).unwrap();
        let path = OsStr::from_bytes(b"refs/caf\xe9");
        fs::write(directory.path().join(path), ID).unwrap();
        let table = read(&directory).unwrap();
        assert_eq!((table.refs.len(), table.unnameable), (1, 2));
    }
}
