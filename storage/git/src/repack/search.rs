//! Searches new deltas between objects that are whole in every pack, with a sliding window over
//! similar objects.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::Path;

use crate::delta::{DeltaIndex, encode};
use crate::repack::forms::{Form, Forms};
use crate::repack::order::Candidate;
use crate::repack::output::Deflater;
use crate::repack::sources::{Reader, STOP_EVERY, Sources, number};
use crate::repack::{RepackError, RepackOptions};

/// The minimum size of an object for a delta.
pub(super) const DELTA_BYTES_MIN: u64 = 50;
/// The cost of a delta besides its bytes: its base has to be named, and read first.
const DELTA_OVERHEAD_BYTES: usize = 20;
/// The maximum ratio of the size of a base to that of its target: above it the target deflates
/// better alone.
const SIZE_RATIO_MAX: usize = 32;

/// A new delta.
#[derive(Debug, Clone, Copy)]
pub(super) struct NewDelta {
    /// The base of the delta.
    pub(super) base: u32,
    /// Inflated size in bytes.
    pub(super) size: u32,
    /// Offset and size of its deflated bytes in the spool.
    at: u64,
    bytes: u32,
}

/// The new deltas. Their bytes are spooled to a file without a name.
pub(super) struct NewDeltas {
    deltas: Vec<NewDelta>,
    spool: File,
    spooled: u64,
}

impl NewDeltas {
    pub(super) fn len(&self) -> usize {
        self.deltas.len()
    }

    pub(super) fn get(&self, delta: u32) -> NewDelta {
        self.deltas[delta as usize]
    }

    /// Reads the deflated bytes of a delta into `buffer`.
    pub(super) fn read(&mut self, delta: u32, buffer: &mut Vec<u8>) -> io::Result<()> {
        let delta = self.get(delta);
        self.spool.seek(SeekFrom::Start(delta.at))?;
        buffer.resize(delta.bytes as usize, 0);
        self.spool.read_exact(buffer)
    }

    fn push(&mut self, base: u32, size: u32, deflated: &[u8]) -> Result<u32, RepackError> {
        let number = number(self.deltas.len())?;
        self.spool.write_all(deflated)?;
        self.deltas.push(NewDelta {
            base,
            size,
            at: self.spooled,
            bytes: size_of_delta(deflated)?,
        });
        self.spooled += deflated.len() as u64;
        Ok(number)
    }
}

/// Deltas are shorter than their targets, which are far below 4 GiB.
fn size_of_delta(bytes: &[u8]) -> Result<u32, RepackError> {
    u32::try_from(bytes.len()).map_err(|_| RepackError::TooManyObjects)
}

/// Searches a delta for each of `candidates`, which are sorted by similarity.
///
/// Results are recorded in `forms`. A base is always an earlier candidate, so there are no cycles.
pub(super) fn search(
    sources: &Sources,
    forms: &mut Forms,
    candidates: &[Candidate],
    spool_in: &Path,
    options: &RepackOptions,
) -> Result<NewDeltas, RepackError> {
    let mut search = Search {
        found: NewDeltas {
            deltas: Vec::new(),
            spool: tempfile::tempfile_in(spool_in)?,
            spooled: 0,
        },
        window: VecDeque::with_capacity(options.window + 1),
        window_bytes: 0,
        deflater: Deflater::default(),
        reader: Reader::new(sources),
        sources,
        options,
    };
    let mut kind = None;
    for (position, candidate) in candidates.iter().enumerate() {
        if position.is_multiple_of(STOP_EVERY / 16) {
            if options.stop.is_set() {
                return Err(RepackError::Stopped);
            }
            if options.search_until.is_set() {
                break;
            }
        }
        if kind.replace(forms.kinds[candidate.object as usize])
            != Some(forms.kinds[candidate.object as usize])
        {
            search.window.clear();
            search.window_bytes = 0;
        }
        search.try_candidate(candidate.object, forms)?;
    }
    Ok(search.found)
}

/// An object of the window: a possible base.
struct Slot {
    object: u32,
    depth: u16,
    index: DeltaIndex<Vec<u8>>,
}

impl Slot {
    fn bytes(&self) -> usize {
        self.index.base().len() + self.index.memory_bytes()
    }
}

/// The best delta of an object so far.
struct Best {
    /// The position of its base in the window.
    slot: usize,
    delta: Vec<u8>,
    /// The depth of its target.
    depth: u16,
}

struct Search<'a> {
    found: NewDeltas,
    /// The newest object is last.
    window: VecDeque<Slot>,
    window_bytes: usize,
    deflater: Deflater,
    reader: Reader<'a>,
    sources: &'a Sources,
    options: &'a RepackOptions,
}

impl Search<'_> {
    fn try_candidate(&mut self, object: u32, forms: &mut Forms) -> Result<(), RepackError> {
        let at = object as usize;
        let mut data = Vec::new();
        self.reader.read_checked(forms.copies[at], &mut data)?;
        if let Some(best) = self.best(&data, forms.heights[at]) {
            self.keep(object, &best, forms)?;
        }
        if self.options.window > 0 && forms.depths[at] < self.options.depth_max {
            let slot = Slot {
                object,
                depth: forms.depths[at],
                index: DeltaIndex::new(data),
            };
            self.window_bytes += slot.bytes();
            self.window.push_back(slot);
        }
        while self.window.len() > self.options.window
            || self.window_bytes > self.options.window_bytes_max
        {
            let Some(oldest) = self.window.pop_front() else {
                break;
            };
            self.window_bytes -= oldest.bytes();
        }
        Ok(())
    }

    /// The best delta for `data`, an object below a chain of `height` reused deltas.
    fn best(&self, data: &[u8], height: u16) -> Option<Best> {
        let depth_max = self.options.depth_max;
        let mut best: Option<Best> = None;
        for (position, slot) in self.window.iter().enumerate().rev() {
            if slot.depth + 1 + height > depth_max {
                continue;
            }
            let (length, depth) = match &best {
                Some(best) => (best.delta.len().saturating_sub(1), best.depth),
                None => ((data.len() / 2).saturating_sub(DELTA_OVERHEAD_BYTES), 1),
            };
            // A deeper base needs a shorter delta.
            let allowed =
                length * usize::from(depth_max - slot.depth) / usize::from(depth_max - depth + 1);
            let base_bytes = slot.index.base().len();
            if data.len().saturating_sub(base_bytes) >= allowed
                || data.len() < base_bytes / SIZE_RATIO_MAX
            {
                continue;
            }
            if let Some(delta) = encode(&slot.index, data, allowed) {
                best = Some(Best {
                    slot: position,
                    delta,
                    depth: slot.depth + 1,
                });
            }
        }
        best
    }

    /// Keeps a delta if its compressed bytes are fewer than those of the copy, or if no pack holds
    /// the object whole.
    fn keep(&mut self, object: u32, best: &Best, forms: &mut Forms) -> Result<(), RepackError> {
        let at = object as usize;
        let deflated = self.deflater.deflate(&best.delta)?;
        if forms.forms[at] == Form::Copied {
            let (_, body) = self.sources.entry(forms.copies[at])?;
            if deflated.len() + DELTA_OVERHEAD_BYTES / 4 > body.len() {
                return Ok(());
            }
        }
        let base = self.window[best.slot].object;
        let delta = self
            .found
            .push(base, size_of_delta(&best.delta)?, deflated)?;
        forms.forms[at] = Form::New { delta };
        forms.depths[at] = best.depth;
        // A good base is likely a good base again: it stays longer.
        if let Some(slot) = self.window.remove(best.slot) {
            self.window.push_back(slot);
        }
        Ok(())
    }
}
