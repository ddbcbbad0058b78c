//! The body of a group's snapshot: its pairs in key order, big-endian. Each pair is `u32 key
//! length, key, u32 value length, value`. The store around it adds the head, the position and the
//! checksum.

use std::io::{self, Read, Write};

use bytes::Bytes;
use henge_state::State;
use henge_storage::snapshots::{SnapshotFile, SnapshotStore};
use henge_types::GroupId;

use crate::raft::Position;

/// The longest key or value: a longer one means a damaged file, and must not cause an allocation.
const PART_BYTES_MAX: u32 = 16 * 1024 * 1024;

/// Writes the snapshot; blocking. Returns the group's latest snapshot after that: one that covers
/// more may have been installed meanwhile, and the written one is deleted then.
///
/// # Errors
/// When the disk fails; no snapshot is named then.
pub(crate) fn write(
    store: &SnapshotStore,
    group: GroupId,
    position: &Position,
    state: &State,
) -> io::Result<SnapshotFile> {
    let mut writer =
        io::BufWriter::with_capacity(1 << 20, store.writer(group).map_err(io::Error::other)?);
    for (key, value) in state.iter() {
        write_part(&mut writer, key)?;
        write_part(&mut writer, value)?;
    }
    let writer = writer
        .into_inner()
        .map_err(io::IntoInnerError::into_error)?;
    let file = writer.finish(position.encode()).map_err(io::Error::other)?;
    store.name(group, &file).map_err(io::Error::other)
}

/// The index up to which a snapshot covers the log, from its meta.
pub(crate) fn index_of(meta: &[u8]) -> Option<u64> {
    Position::decode(meta).ok().map(|position| position.index())
}

fn write_part(writer: &mut impl Write, part: &[u8]) -> io::Result<()> {
    let len = u32::try_from(part.len())
        .ok()
        .filter(|len| *len <= PART_BYTES_MAX);
    let len = len.ok_or_else(|| {
        io::Error::other(format!("a state value of {} bytes is too long", part.len()))
    })?;
    writer.write_all(&len.to_be_bytes())?;
    writer.write_all(part)
}

/// Reads a snapshot back; blocking.
///
/// # Errors
/// When the file is unreadable or is not a snapshot.
pub(crate) fn load(store: &SnapshotStore, file: &SnapshotFile) -> io::Result<State> {
    let mut reader =
        io::BufReader::with_capacity(1 << 20, store.reader(file).map_err(io::Error::other)?);
    let mut pairs = Vec::new();
    while let Some(key) = read_part(&mut reader)? {
        let value = read_part(&mut reader)?
            .ok_or_else(|| io::Error::other("a snapshot ends behind a key"))?;
        pairs.push((key, value));
    }
    Ok(State::from_pairs(pairs))
}

fn read_part(reader: &mut impl Read) -> io::Result<Option<Bytes>> {
    let mut len = [0; 4];
    let first = reader.read(&mut len[..1])?;
    if first == 0 {
        return Ok(None);
    }
    reader.read_exact(&mut len[1..])?;
    let len = u32::from_be_bytes(len);
    if len > PART_BYTES_MAX {
        return Err(io::Error::other(format!(
            "a snapshot names a part of {len} bytes"
        )));
    }
    let mut part = vec![0; usize::try_from(len).map_err(io::Error::other)?];
    reader.read_exact(&mut part)?;
    Ok(Some(part.into()))
}
