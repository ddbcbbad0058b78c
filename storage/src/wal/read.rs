//! Reading entries: from the cached tail, otherwise from the segments.

use std::io;
use std::ops::RangeInclusive;

use bytes::Bytes;
use henge_types::GroupId;

use super::frame::{FRAME_BYTES, Frame, Kind, stride};
use super::group::{Cell, Source};
use super::{Record, Shared};
use crate::disk::{DiskFile, read_exact_at};

/// The longest span of adjacent entries that is read at once.
const SPAN_BYTES_MAX: usize = 1024 * 1024;

/// One entry in a segment.
#[derive(Debug, Clone, Copy)]
struct Wanted {
    index: u64,
    segment: u32,
    offset: u32,
    payload_bytes: usize,
}

impl Wanted {
    fn end(&self) -> u64 {
        u64::from(self.offset) + (FRAME_BYTES + self.payload_bytes) as u64
    }
}

impl Shared {
    pub(super) fn read(
        &self,
        cell: &Cell,
        range: &RangeInclusive<u64>,
        bytes_max: usize,
    ) -> io::Result<Vec<Record>> {
        let mut attempt = 0;
        loop {
            let sources = cell.lock().sources(range.clone(), bytes_max);
            match self.gather(cell.id, sources) {
                Ok(records) => return Ok(records),
                // An entry may have been moved or purged between the lookup and the read: look it
                // up again.
                Err(error) if attempt == 3 => return Err(error),
                Err(_) => attempt += 1,
            }
        }
    }

    fn gather(&self, group: GroupId, sources: Vec<Source>) -> io::Result<Vec<Record>> {
        let mut records = Vec::with_capacity(sources.len());
        let mut run: Vec<Wanted> = Vec::new();
        for source in sources {
            match source {
                Source::Cached(record) => {
                    self.read_run(group, &mut run, &mut records)?;
                    records.push(record);
                }
                Source::File {
                    index,
                    segment,
                    offset,
                    payload_bytes,
                } => {
                    let wanted = Wanted {
                        index,
                        segment,
                        offset,
                        payload_bytes,
                    };
                    if !continues(&run, &wanted) {
                        self.read_run(group, &mut run, &mut records)?;
                    }
                    run.push(wanted);
                }
            }
        }
        self.read_run(group, &mut run, &mut records)?;
        Ok(records)
    }

    /// Reads the entries of `run` with one read, and empties it.
    fn read_run(
        &self,
        group: GroupId,
        run: &mut Vec<Wanted>,
        records: &mut Vec<Record>,
    ) -> io::Result<()> {
        let (Some(first), Some(last)) = (run.first().copied(), run.last().copied()) else {
            return Ok(());
        };
        let file = self.table().file(first.segment);
        let (file, salt) = file.ok_or_else(|| damaged(group, &first))?;
        let start = u64::from(first.offset);
        let span = usize::try_from(last.end() - start).map_err(io::Error::other)?;
        let mut bytes = vec![0; span];
        read_exact_at(file.as_ref(), &mut bytes, start)?;
        let bytes = Bytes::from(bytes);
        for wanted in run.drain(..) {
            let at = usize::try_from(u64::from(wanted.offset) - start).map_err(io::Error::other)?;
            let payload = entry(salt, &bytes, at, group, &wanted)?;
            records.push(Record {
                index: wanted.index,
                payload,
            });
        }
        Ok(())
    }

    /// Reads one live entry that is to be rewritten.
    pub(super) fn read_one(
        (file, salt): (&dyn DiskFile, u32),
        group: GroupId,
        segment: u32,
        (index, offset, payload_bytes): (u64, u32, usize),
    ) -> io::Result<Bytes> {
        let wanted = Wanted {
            index,
            segment,
            offset,
            payload_bytes,
        };
        let mut bytes = vec![0; FRAME_BYTES + payload_bytes];
        read_exact_at(file, &mut bytes, u64::from(offset))?;
        entry(salt, &Bytes::from(bytes), 0, group, &wanted)
    }
}

/// Whether `wanted` follows the run closely enough for one read of both.
fn continues(run: &[Wanted], wanted: &Wanted) -> bool {
    let (Some(first), Some(last)) = (run.first(), run.last()) else {
        return true;
    };
    wanted.segment == last.segment
        && wanted.offset > last.offset
        && wanted.end() - u64::from(first.offset) <= SPAN_BYTES_MAX as u64
        && u64::from(wanted.offset) - last.end()
            <= 16 * stride(0) as u64 + SPAN_BYTES_MAX as u64 / 8
}

fn entry(
    salt: u32,
    bytes: &Bytes,
    at: usize,
    group: GroupId,
    wanted: &Wanted,
) -> io::Result<Bytes> {
    let rest = bytes.get(at..).unwrap_or_default();
    let frame = Frame::parse(salt, rest).filter(|frame| {
        matches!(frame.kind, Kind::Entry | Kind::Moved)
            && frame.group == group
            && frame.index == wanted.index
            && frame.generation == u64::from(wanted.segment)
    });
    let frame = frame.ok_or_else(|| damaged(group, wanted))?;
    Ok(bytes.slice_ref(frame.payload))
}

fn damaged(group: GroupId, wanted: &Wanted) -> io::Error {
    io::Error::new(
        io::ErrorKind::InvalidData,
        format!(
            "entry {} of group {group} is damaged at offset {} of log segment {}",
            wanted.index, wanted.offset, wanted.segment
        ),
    )
}
