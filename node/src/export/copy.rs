//! Copies from a disk that may be failing: read errors and write errors are separate.

use std::fs::{self, File};
use std::io::{self, ErrorKind, Read, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, ensure};

/// Bytes of one read.
const PIECE_BYTES: usize = 1024 * 1024;

/// Copies a file durably. The inner error is the source's; then no file is left at `to`.
///
/// # Errors
/// When `to` cannot be written.
pub(super) fn file(from: &Path, to: &Path) -> anyhow::Result<io::Result<u64>> {
    let context = || format!("cannot write {}", to.display());
    let mut source = match File::open(from) {
        Ok(source) => source,
        Err(error) => return Ok(Err(error)),
    };
    let mut target = File::create(to).with_context(context)?;
    let copied = pour(&mut source, &mut target).with_context(context)?;
    match copied {
        Ok(_) => target.sync_all().with_context(context)?,
        Err(_) => fs::remove_file(to).with_context(context)?,
    }
    Ok(copied)
}

/// The inner error is the source's.
fn pour(source: &mut impl Read, target: &mut impl Write) -> io::Result<io::Result<u64>> {
    let mut piece = vec![0; PIECE_BYTES];
    let mut bytes = 0;
    loop {
        let read = match source.read(&mut piece) {
            Ok(0) => return Ok(Ok(bytes)),
            Ok(read) => read,
            Err(error) if error.kind() == ErrorKind::Interrupted => continue,
            Err(error) => return Ok(Err(error)),
        };
        target.write_all(piece.get(..read).unwrap_or_default())?;
        bytes += read as u64;
    }
}

/// The unit of unreadable bytes: a page, as file systems read.
const BLOCK_BYTES: usize = 4096;
/// Unreadable blocks of one file that are named.
const HOLES_NAMED: usize = 5;

/// The treatment of a file that cannot be read in whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Holes {
    /// The file is left out.
    LeftOut,
    /// The file is copied, with zeros for unreadable blocks.
    Zeros,
}

/// Reads at an offset.
trait ReadAt {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize>;
}

impl ReadAt for File {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        FileExt::read_at(self, buffer, offset)
    }
}

/// The blocks of a file that could not be read.
#[derive(Debug)]
struct Unread {
    /// Their offsets, ascending.
    offsets: Vec<u64>,
    /// The error of the first one.
    error: io::Error,
}

impl Unread {
    fn sentence(&self, path: &Path) -> String {
        let shown = self.offsets.iter().take(HOLES_NAMED);
        let shown: Vec<_> = shown.map(u64::to_string).collect();
        let more = match self.offsets.len().saturating_sub(HOLES_NAMED) {
            0 => String::new(),
            more => format!(" and {more} more"),
        };
        format!(
            "{} cannot be read in blocks of {BLOCK_BYTES} bytes at {}{more}, taken for zeros: {}",
            path.display(),
            shown.join(", "),
            self.error
        )
    }
}

/// Fills the buffer; partly only at the end of the file.
fn fill(source: &impl ReadAt, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
    let mut filled = 0;
    while let Some(left) = buffer.get_mut(filled..).filter(|left| !left.is_empty()) {
        match source.read_at(left, offset + filled as u64) {
            Ok(0) => break,
            Ok(read) => filled += read,
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(filled)
}

/// Copies `bytes` bytes, with zeros for unreadable blocks.
///
/// # Errors
/// The target's.
fn patch(source: &impl ReadAt, bytes: u64, target: &mut impl Write) -> io::Result<Option<Unread>> {
    let mut unread: Option<Unread> = None;
    let mut piece = vec![0; PIECE_BYTES];
    let mut at = 0;
    while at < bytes {
        let left = usize::try_from(bytes - at).unwrap_or(PIECE_BYTES);
        let wanted = piece.get_mut(..left.min(PIECE_BYTES)).unwrap_or_default();
        let filled = match fill(source, wanted, at) {
            Ok(filled) => filled,
            Err(_) => {
                for (number, block) in wanted.chunks_mut(BLOCK_BYTES).enumerate() {
                    let offset = at + (number * BLOCK_BYTES) as u64;
                    if let Err(error) = fill(source, block, offset) {
                        block.fill(0);
                        let unread = unread.get_or_insert_with(|| Unread {
                            offsets: Vec::new(),
                            error,
                        });
                        unread.offsets.push(offset);
                    }
                }
                wanted.len()
            }
        };
        target.write_all(wanted.get(..filled).unwrap_or_default())?;
        if filled < wanted.len() {
            break;
        }
        at += filled as u64;
    }
    Ok(unread)
}

/// Copies a file durably, with zeros for unreadable blocks. The inner error says why it cannot be
/// opened.
fn patched(from: &Path, to: &Path) -> anyhow::Result<io::Result<Option<Unread>>> {
    let context = || format!("cannot write {}", to.display());
    let opened = File::open(from).and_then(|file| Ok((file.metadata()?.len(), file)));
    let (bytes, source) = match opened {
        Ok(opened) => opened,
        Err(error) => return Ok(Err(error)),
    };
    let mut target = File::create(to).with_context(context)?;
    let unread = patch(&source, bytes, &mut target).with_context(context)?;
    target.sync_all().with_context(context)?;
    Ok(Ok(unread))
}

/// Copies a directory recursively; a missing one becomes an empty one. Each unreadable file adds a
/// sentence to `unreadable`.
///
/// # Errors
/// When `to` cannot be written.
pub(super) fn tree(
    from: &Path,
    to: &Path,
    holes: Holes,
    unreadable: &mut Vec<String>,
) -> anyhow::Result<()> {
    fs::create_dir_all(to).with_context(|| format!("cannot write {}", to.display()))?;
    let left_out = |unreadable: &mut Vec<String>, path: &Path, error: &io::Error| {
        unreadable.push(format!("{} cannot be read: {error}", path.display()));
    };
    let entries = match fs::read_dir(from) {
        Ok(entries) => entries,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
        Err(error) => {
            left_out(unreadable, from, &error);
            return Ok(());
        }
    };
    let mut folders = Vec::new();
    for entry in entries {
        let found = entry.and_then(|entry| Ok((entry.file_type()?, entry.file_name())));
        let (kind, name) = match found {
            Ok(found) => found,
            Err(error) => {
                left_out(unreadable, from, &error);
                continue;
            }
        };
        let (source, target) = (from.join(&name), to.join(&name));
        if kind.is_dir() {
            folders.push((source, target));
        } else if kind.is_file() {
            let copied = match holes {
                Holes::LeftOut => file(&source, &target)?.map(|_| None),
                Holes::Zeros => patched(&source, &target)?,
            };
            match copied {
                Ok(None) => {}
                Ok(Some(unread)) => unreadable.push(unread.sentence(&source)),
                Err(error) => left_out(unreadable, &source, &error),
            }
        }
    }
    for (source, target) in folders {
        tree(&source, &target, holes, unreadable)?;
    }
    Ok(())
}

/// Refuses a destination in the data directory: nothing in that is changed.
pub(super) fn check_outside(dir: &Path, dest: &Path) -> anyhow::Result<()> {
    let inside = resolved(dest)?.starts_with(resolved(dir)?);
    ensure!(
        !inside,
        "{} lies in the data directory {}: write somewhere else, nothing in a data directory is changed",
        dest.display(),
        dir.display()
    );
    Ok(())
}

/// The path with its links resolved, as far as it exists.
fn resolved(path: &Path) -> anyhow::Result<PathBuf> {
    let context = || format!("cannot look up {}", path.display());
    let path = std::path::absolute(path).with_context(context)?;
    let mut behind = Vec::new();
    let mut at = path.as_path();
    loop {
        match fs::canonicalize(at) {
            Ok(found) => {
                return Ok(behind
                    .iter()
                    .rev()
                    .fold(found, |path, name| path.join(name)));
            }
            Err(error) if error.kind() == ErrorKind::NotFound => {
                let (Some(above), Some(name)) = (at.parent(), at.file_name()) else {
                    return Err(error).with_context(context);
                };
                behind.push(name.to_owned());
                at = above;
            }
            Err(error) => return Err(error).with_context(context),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Returns some bytes and then fails, like a disk with a bad block.
    struct Failing(usize);

    impl Read for Failing {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            if self.0 == 0 {
                return Err(io::Error::other("bad block"));
            }
            let read = buffer.len().min(self.0);
            self.0 -= read;
            Ok(read)
        }
    }

    /// Accepts some bytes, like a full disk.
    struct Full(usize);

    impl Write for Full {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let taken = bytes.len().min(self.0);
            self.0 -= taken;
            Ok(taken)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    /// Regression: one file that could not be read ended the export of everything.
    #[test]
    fn what_cannot_be_read_is_told_from_what_cannot_be_written() {
        let read = pour(&mut Failing(3_000_000), &mut io::sink()).expect("is written");
        assert!(read.is_err());
        pour(&mut &[0; 100][..], &mut Full(50)).expect_err("is full");
        let copied = pour(&mut &[0; 100][..], &mut io::sink()).expect("is written");
        assert_eq!(copied.expect("is read"), 100);
    }

    /// A file of ones with unreadable offsets.
    struct Scratched {
        bytes: usize,
        bad: &'static [usize],
    }

    impl ReadAt for Scratched {
        fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
            let offset = usize::try_from(offset).expect("small");
            let end = self.bytes.min(offset + buffer.len());
            if self.bad.iter().any(|at| (offset..end).contains(at)) {
                return Err(io::Error::other("bad block"));
            }
            let read = end.saturating_sub(offset);
            buffer.iter_mut().take(read).for_each(|byte| *byte = 1);
            Ok(read)
        }
    }

    /// Regression: one bad block lost a segment of the log, and with it every push in it.
    #[test]
    fn a_bad_block_costs_a_block() {
        let block = BLOCK_BYTES as u64;
        let bytes = 2 * PIECE_BYTES + 100;
        for (bad, offsets) in [
            (&[][..], &[][..]),
            (&[5000], &[block]),
            (&[5000, 5001, PIECE_BYTES], &[block, PIECE_BYTES as u64]),
            (&[2 * PIECE_BYTES + 99], &[2 * PIECE_BYTES as u64]),
        ] {
            let mut copy = Vec::new();
            let source = Scratched { bytes, bad };
            let unread = patch(&source, bytes as u64, &mut copy).expect("is written");
            let found = unread.as_ref().map_or(&[][..], |unread| &unread.offsets);
            assert_eq!(found, offsets);
            assert_eq!(copy.len(), bytes);
            for (number, copied) in copy.chunks(BLOCK_BYTES).enumerate() {
                let is_bad = offsets.contains(&(number as u64 * block));
                assert!(copied.iter().all(|byte| *byte == u8::from(!is_bad)));
            }
            if let Some(unread) = unread {
                let said = unread.sentence(Path::new("wal/1.seg"));
                assert!(
                    said.contains(&format!(
                        "wal/1.seg cannot be read in blocks of 4096 bytes at {}",
                        offsets[0]
                    )),
                    "{said}"
                );
                assert!(said.ends_with("bad block"), "{said}");
            }
        }
        patch(&Scratched { bytes, bad: &[] }, bytes as u64, &mut Full(50)).expect_err("is full");
    }

    #[test]
    fn a_destination_within_the_data_directory_is_refused() {
        let root = tempfile::tempdir().expect("a directory");
        let dir = root.path().join("data");
        fs::create_dir_all(dir.join("wal")).expect("makes");
        std::os::unix::fs::symlink(&dir, root.path().join("link")).expect("links");
        for inside in ["data", "data/out", "data/wal/deep/out", "link/out"] {
            let error = check_outside(&dir, &root.path().join(inside)).expect_err(inside);
            assert!(error.to_string().contains("lies in the data directory"));
        }
        for outside in ["out", "database", "data.out/data"] {
            check_outside(&dir, &root.path().join(outside)).expect(outside);
        }
    }
}
