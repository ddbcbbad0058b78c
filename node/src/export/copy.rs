//! Copying off a disk that may be failing: what cannot be read is told from what cannot be written.

use std::fs::{self, File};
use std::io::{self, ErrorKind, Read, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, ensure};

/// Read at once.
const PIECE_BYTES: usize = 1024 * 1024;

/// Copies a file durably. The inner error says why it cannot be read; nothing is left of it at `to` then.
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

/// Copies a directory with everything in it, nothing where there is nothing. What cannot be read is left out, and named in
/// `unreadable`.
///
/// # Errors
/// When `to` cannot be written.
pub(super) fn tree(from: &Path, to: &Path, unreadable: &mut Vec<String>) -> anyhow::Result<()> {
    fs::create_dir_all(to).with_context(|| format!("cannot write {}", to.display()))?;
    let mut left_out = |path: &Path, error: &io::Error| {
        unreadable.push(format!("{} cannot be read: {error}", path.display()));
    };
    let entries = match fs::read_dir(from) {
        Ok(entries) => entries,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
        Err(error) => {
            left_out(from, &error);
            return Ok(());
        }
    };
    let mut folders = Vec::new();
    for entry in entries {
        let found = entry.and_then(|entry| Ok((entry.file_type()?, entry.file_name())));
        let (kind, name) = match found {
            Ok(found) => found,
            Err(error) => {
                left_out(from, &error);
                continue;
            }
        };
        let (source, target) = (from.join(&name), to.join(&name));
        if kind.is_dir() {
            folders.push((source, target));
        } else if kind.is_file()
            && let Err(error) = file(&source, &target)?
        {
            left_out(&source, &error);
        }
    }
    for (source, target) in folders {
        tree(&source, &target, unreadable)?;
    }
    Ok(())
}

/// Refuses a destination that lies in the data directory: nothing in that is changed.
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

/// The path without links, as far as it exists.
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

    /// Gives some bytes and then fails, as a disk with a bad block does.
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

    /// Takes so many bytes, as a full disk does.
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

    /// One file that could not be read ended the export of everything.
    #[test]
    fn what_cannot_be_read_is_told_from_what_cannot_be_written() {
        let read = pour(&mut Failing(3_000_000), &mut io::sink()).expect("is written");
        assert!(read.is_err());
        pour(&mut &[0; 100][..], &mut Full(50)).expect_err("is full");
        let copied = pour(&mut &[0; 100][..], &mut io::sink()).expect("is written");
        assert_eq!(copied.expect("is read"), 100);
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
