//! The clean-stop marker: names every file of the store with its length, written after all of them were
//! synced, removed (durably) before the store is opened again.
//!
//! `b"HENGEKV1"`, CRC32C (little-endian) of the rest, postcard of a list of (name, length).

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use crate::disk::{Disk, OsDisk};

const MAGIC: &[u8; 8] = b"HENGEKV1";
const NAME: &str = "clean-stop";

/// The files of the store: path below its directory, length.
pub(super) type Listing = Vec<(String, u64)>;

/// What was found where the marker should be.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Found {
    Nothing,
    Damaged,
    Marker(Listing),
}

/// Reads the marker of the store in `dir` and removes it, durably.
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

fn decode(bytes: &[u8]) -> Option<Listing> {
    let (crc, body) = bytes.strip_prefix(MAGIC)?.split_first_chunk::<4>()?;
    if crc32c::crc32c(body) != u32::from_le_bytes(*crc) {
        return None;
    }
    postcard::from_bytes(body).ok()
}

/// Writes the marker, durably.
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
            let len = fs::metadata(path)?.len();
            listing.push((name.to_string_lossy().into_owned(), len));
        }
        Ok(())
    })?;
    listing.sort_unstable();
    Ok(listing)
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
