//! The clean-stop marker. It lists every file of the store with its length and checksum. It is
//! written after all of them were synced, and removed (durably) before the store is opened again.
//!
//! Format: `b"HENGEKV2"`, CRC32C (little-endian) of the rest, postcard of a list of (name, length,
//! CRC32C). `b"HENGEKV1"` of earlier releases has no checksums of the files.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use crate::disk::{Disk, OsDisk};

const MAGIC: &[u8; 8] = b"HENGEKV2";
const MAGIC_1: &[u8; 8] = b"HENGEKV1";
const READ_BYTES: usize = 128 * 1024;
const NAME: &str = "clean-stop";

/// The files of the store: path below its directory, length, CRC32C.
pub(super) type Listing = Vec<(String, u64, u32)>;

/// The result of reading the marker.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Found {
    Nothing,
    Damaged,
    Marker(Marker),
}

/// The contents of a marker.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Marker {
    /// Of an earlier release: names and lengths.
    Lengths(Vec<(String, u64)>),
    Files(Listing),
}

impl Marker {
    /// Whether the files below `store` are exactly the listed ones. An unreadable file counts as a
    /// mismatch.
    pub(super) fn names(&self, store: &Path) -> bool {
        let found = match list(store) {
            Ok(found) => found,
            Err(error) => {
                tracing::warn!(?store, %error, "the state store's files cannot be read");
                return false;
            }
        };
        match self {
            Self::Files(files) => found == *files,
            Self::Lengths(files) => {
                let found = found.iter().map(|(name, bytes, _)| (name, bytes));
                found.eq(files.iter().map(|(name, bytes)| (name, bytes)))
            }
        }
    }
}

/// Reads the marker of the store in `dir` and removes it durably.
pub(super) fn take(dir: &Path) -> io::Result<Found> {
    let path = dir.join(NAME);
    let bytes = match fs::read(&path) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Found::Nothing),
        Err(error) => return Err(error),
    };
    fs::remove_file(&path)?;
    OsDisk.sync_dir(dir)?;
    Ok(decode(&bytes).map_or(Found::Damaged, Found::Marker))
}

fn decode(bytes: &[u8]) -> Option<Marker> {
    let (magic, rest) = bytes.split_first_chunk::<8>()?;
    let (crc, body) = rest.split_first_chunk::<4>()?;
    if crc32c::crc32c(body) != u32::from_le_bytes(*crc) {
        return None;
    }
    match magic {
        MAGIC => postcard::from_bytes(body).ok().map(Marker::Files),
        MAGIC_1 => postcard::from_bytes(body).ok().map(Marker::Lengths),
        _ => None,
    }
}

/// Writes the marker durably.
pub(super) fn put(dir: &Path, listing: &Listing) -> io::Result<()> {
    let body = postcard::to_stdvec(listing).map_err(io::Error::other)?;
    let unfinished = dir.join("clean-stop.new");
    let mut file = File::create(&unfinished)?;
    file.write_all(MAGIC)?;
    file.write_all(&crc32c::crc32c(&body).to_le_bytes())?;
    file.write_all(&body)?;
    file.sync_all()?;
    fs::rename(&unfinished, dir.join(NAME))?;
    OsDisk.sync_dir(dir)
}

/// The files below `store`, in the order of their names.
pub(super) fn list(store: &Path) -> io::Result<Listing> {
    let mut listing = Listing::new();
    walk(store, &mut |path, is_dir| {
        if !is_dir {
            let name = path.strip_prefix(store).unwrap_or(path);
            let (bytes, sum) = sum(path)?;
            listing.push((name.to_string_lossy().into_owned(), bytes, sum));
        }
        Ok(())
    })?;
    listing.sort_unstable();
    Ok(listing)
}

/// Length and CRC32C of a file.
fn sum(path: &Path) -> io::Result<(u64, u32)> {
    let mut file = File::open(path)?;
    let mut buffer = vec![0; READ_BYTES];
    let (mut bytes, mut sum) = (0, 0);
    loop {
        match file.read(&mut buffer) {
            Ok(0) => return Ok((bytes, sum)),
            Ok(read) => {
                bytes += read as u64;
                sum = crc32c::crc32c_append(sum, buffer.get(..read).unwrap_or_default());
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

/// Syncs every file below `store`, then every directory.
pub(super) fn sync(store: &Path) -> io::Result<()> {
    let mut directories: Vec<PathBuf> = vec![store.to_owned()];
    walk(store, &mut |path, is_dir| {
        if is_dir {
            directories.push(path.to_owned());
            return Ok(());
        }
        File::open(path)?.sync_all()
    })?;
    for directory in directories {
        OsDisk.sync_dir(&directory)?;
    }
    Ok(())
}

fn walk(dir: &Path, visit: &mut dyn FnMut(&Path, bool) -> io::Result<()>) -> io::Result<()> {
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        let is_dir = entry.file_type()?.is_dir();
        visit(&entry.path(), is_dir)?;
        if is_dir {
            walk(&entry.path(), visit)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_marker_of_an_earlier_release_names_lengths() {
        let dir = tempfile::tempdir().unwrap();
        let store = dir.path().join("sled");
        fs::create_dir(&store).unwrap();
        fs::write(store.join("db"), b"contents").unwrap();
        let body = postcard::to_stdvec(&vec![("db".to_owned(), 8_u64)]).unwrap();
        let sum = crc32c::crc32c(&body).to_le_bytes();
        let bytes = [MAGIC_1.as_slice(), &sum, &body].concat();
        fs::write(dir.path().join(NAME), bytes).unwrap();
        let Found::Marker(marker) = take(dir.path()).unwrap() else {
            panic!("no marker");
        };
        assert!(marker.names(&store));
        fs::write(store.join("db"), b"longer contents").unwrap();
        assert!(!marker.names(&store));
    }
}
