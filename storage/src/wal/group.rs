//! One group's part of the log in memory: hard state, positions of its entries, the cached tail.

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::ops::RangeInclusive;
use std::sync::{Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use henge_types::GroupId;
use serde::{Deserialize, Serialize};

use super::frame::FRAME_BYTES;
use super::{GroupLog, Purged, Record};

/// The position of a live entry. `segment` 0: not written yet, so its payload is cached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Position {
    pub(super) segment: u32,
    pub(super) offset: u32,
    /// Log bytes of the group up to and including this entry, counted from an arbitrary start.
    pub(super) end: u64,
}

/// Bytes per segment freed by a change of the log.
pub(super) type Freed = BTreeMap<u32, u64>;

/// Accounted bytes of an entry: frame and payload.
pub(super) fn entry_bytes(payload: usize) -> u64 {
    (FRAME_BYTES + payload) as u64
}

/// A group's hard state: the sum of its log records.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Hard {
    pub(super) vote: Option<Bytes>,
    pub(super) committed: Option<Bytes>,
    pub(super) purged: Option<Purged>,
    /// First and last live entry.
    pub(super) live: Option<(u64, u64)>,
}

impl Hard {
    /// `false` when the entry does not follow the last one.
    #[must_use]
    pub(super) fn append(&mut self, index: u64) -> bool {
        match &mut self.live {
            None => self.live = Some((index, index)),
            Some((_, last)) if *last + 1 == index => *last = index,
            Some(_) => return false,
        }
        true
    }

    pub(super) fn truncate_after(&mut self, keep: u64) {
        self.live = self
            .live
            .filter(|(first, _)| *first <= keep)
            .map(|(first, last)| (first, last.min(keep)));
    }

    pub(super) fn purge(&mut self, upto: Purged) {
        self.live = self
            .live
            .filter(|(_, last)| *last > upto.index)
            .map(|(first, last)| (first.max(upto.index + 1), last));
        self.purged = Some(upto);
    }
}

/// A group of the log, shared by its handles and the writer.
#[derive(Debug)]
pub(super) struct Cell {
    pub(super) id: GroupId,
    state: Mutex<GroupState>,
}

impl Cell {
    pub(super) fn new(id: GroupId, state: GroupState) -> Self {
        Self {
            id,
            state: Mutex::new(state),
        }
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, GroupState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[derive(Debug, Default)]
pub(super) struct GroupState {
    pub(super) vote: Option<Bytes>,
    pub(super) committed: Option<Bytes>,
    pub(super) purged: Option<Purged>,
    first: u64,
    entries: VecDeque<Position>,
    /// `end` of the entry before the first.
    base: u64,
    /// Payloads of the last entries.
    cached: VecDeque<Bytes>,
    pub(super) durable: u64,
    /// Kept indexes of truncations that are not written yet, oldest first.
    truncations: VecDeque<u64>,
    dropped: bool,
}

/// The source of one entry for a reader.
#[derive(Debug)]
pub(super) enum Source {
    Cached(Record),
    File {
        index: u64,
        segment: u32,
        offset: u32,
        payload_bytes: usize,
    },
}

impl GroupState {
    /// The state after recovery. `entries`: segment, offset and payload length of every live entry.
    pub(super) fn recovered(hard: &Hard, entries: &BTreeMap<u64, (u32, u32, u32)>) -> Self {
        let mut state = Self {
            vote: hard.vote.clone(),
            committed: hard.committed.clone(),
            purged: hard.purged.clone(),
            first: hard.live.map_or(0, |(first, _)| first),
            ..Self::default()
        };
        let mut end = 0;
        for (segment, offset, payload) in entries.values().copied() {
            end += FRAME_BYTES as u64 + u64::from(payload);
            state.entries.push_back(Position {
                segment,
                offset,
                end,
            });
        }
        state.durable = state.last().unwrap_or(0);
        state
    }

    pub(super) fn view(&self) -> GroupLog {
        GroupLog {
            vote: self.vote.clone(),
            committed: self.committed.clone(),
            purged: self.purged.clone(),
            first_index: (!self.entries.is_empty()).then_some(self.first),
            last_index: self.last(),
        }
    }

    pub(super) fn last(&self) -> Option<u64> {
        match self.entries.len() as u64 {
            0 => self.purged.as_ref().map(|purged| purged.index),
            entries => Some(self.first + entries - 1),
        }
    }

    /// A dropped group accepts no more changes; its next use creates a new group.
    pub(super) fn check_kept(&self) -> io::Result<()> {
        if self.dropped {
            return Err(invalid("the group is just being dropped".to_owned()));
        }
        Ok(())
    }

    /// Whether `records` may be appended.
    pub(super) fn check_append(&self, records: &[Record]) -> io::Result<()> {
        let mut last = self.last();
        for record in records {
            let fits = match last {
                None => record.index > 0,
                // An empty log may continue anywhere after the purged position.
                Some(last) if self.entries.is_empty() && last < record.index => true,
                Some(last) => last + 1 == record.index,
            };
            if !fits {
                return Err(invalid(format!(
                    "entry {} cannot follow entry {last:?}: truncate first",
                    record.index
                )));
            }
            last = Some(record.index);
        }
        let contiguous = records
            .windows(2)
            .all(|pair| matches!(pair, [one, two] if one.index + 1 == two.index));
        if contiguous {
            Ok(())
        } else {
            Err(invalid("entries with a hole between them".to_owned()))
        }
    }

    /// Adds checked records; returns the payload bytes put into the cache.
    pub(super) fn append(&mut self, records: &[Record]) -> usize {
        let mut added = 0;
        for record in records {
            if self.entries.is_empty() {
                self.first = record.index;
            }
            let before = self.entries.back().map_or(self.base, |entry| entry.end);
            self.entries.push_back(Position {
                segment: 0,
                offset: 0,
                end: before + entry_bytes(record.payload.len()),
            });
            added += record.payload.len();
            self.cached.push_back(record.payload.clone());
        }
        added
    }

    pub(super) fn check_truncate(&self, keep: u64) -> io::Result<()> {
        match &self.purged {
            Some(purged) if keep < purged.index => Err(invalid(format!(
                "cannot truncate after entry {keep}: entry {} is purged",
                purged.index
            ))),
            Some(_) | None => Ok(()),
        }
    }

    /// Removes entries after `keep`; returns the freed bytes in segments and in the cache.
    pub(super) fn truncate_after(&mut self, keep: u64) -> (Freed, usize) {
        let (mut freed, mut cached) = (Freed::new(), 0);
        while !self.entries.is_empty() && self.last().is_some_and(|last| last > keep) {
            let gone = self.entries.pop_back();
            let before = self.entries.back().map_or(self.base, |entry| entry.end);
            if let Some(gone) = gone.filter(|gone| gone.segment != 0) {
                *freed.entry(gone.segment).or_default() += gone.end - before;
            }
            cached += self.cached.pop_back().map_or(0, |payload| payload.len());
        }
        self.durable = self.durable.min(keep);
        self.truncations.push_back(keep);
        (freed, cached)
    }

    /// Removes entries up to `upto`; returns the freed bytes in segments and in the cache.
    pub(super) fn purge(&mut self, upto: Purged) -> (Freed, usize) {
        let (mut freed, mut cached) = (Freed::new(), 0);
        while !self.entries.is_empty() && self.first <= upto.index {
            cached += self.forget_first(&mut freed);
        }
        if self.entries.is_empty() {
            self.first = upto.index + 1;
        }
        self.purged = Some(upto);
        (freed, cached)
    }

    /// Removes everything and marks the group as dropped.
    pub(super) fn drop_all(&mut self) -> (Freed, usize) {
        let (mut freed, mut cached) = (Freed::new(), 0);
        while !self.entries.is_empty() {
            cached += self.forget_first(&mut freed);
        }
        *self = Self {
            dropped: true,
            ..Self::default()
        };
        (freed, cached)
    }

    fn forget_first(&mut self, freed: &mut Freed) -> usize {
        let cached = if self.cached.len() == self.entries.len() {
            self.cached.pop_front().map_or(0, |payload| payload.len())
        } else {
            0
        };
        if let Some(gone) = self.entries.pop_front() {
            if gone.segment != 0 {
                *freed.entry(gone.segment).or_default() += gone.end - self.base;
            }
            self.base = gone.end;
            self.first += 1;
        }
        cached
    }

    /// Records that entry `index` is durable at this position. Returns its bytes when it is live:
    /// not truncated or purged by an operation that is still queued for the writer.
    pub(super) fn settle(&mut self, index: u64, segment: u32, offset: u32) -> Option<u64> {
        if self.dropped || self.truncations.iter().any(|keep| index > *keep) {
            return None;
        }
        let at = self.slot(index)?;
        self.durable = self.durable.max(index);
        let bytes = self.bytes_of(at)?;
        let entry = self.entries.get_mut(at)?;
        entry.segment = segment;
        entry.offset = offset;
        Some(bytes)
    }

    /// Records a rewritten entry: its position becomes `to` if it still was `from`.
    pub(super) fn settle_moved(
        &mut self,
        index: u64,
        from: (u32, u32),
        to: (u32, u32),
    ) -> Option<u64> {
        let at = self.slot(index)?;
        let bytes = self.bytes_of(at)?;
        let entry = self.entries.get_mut(at)?;
        if (entry.segment, entry.offset) != from {
            return None;
        }
        (entry.segment, entry.offset) = to;
        Some(bytes)
    }

    pub(super) fn settle_truncation(&mut self) {
        self.truncations.pop_front();
    }

    pub(super) fn settle_purge(&mut self, upto: u64) {
        if !self.dropped {
            self.durable = self.durable.max(upto);
        }
    }

    /// Removes written payloads up to `index` from the cache; returns their bytes.
    pub(super) fn evict(&mut self, index: u64) -> usize {
        let mut bytes = 0;
        loop {
            let at = self.entries.len() - self.cached.len();
            let written = self.entries.get(at).is_some_and(|entry| entry.segment != 0);
            if self.cached.is_empty() || self.first + at as u64 > index || !written {
                return bytes;
            }
            bytes += self.cached.pop_front().map_or(0, |payload| payload.len());
        }
    }

    /// The sources of the entries of `range`, up to `bytes_max` of payload but at least the first.
    pub(super) fn sources(&self, range: RangeInclusive<u64>, bytes_max: usize) -> Vec<Source> {
        let mut sources = Vec::new();
        let mut bytes = 0;
        for index in range {
            let Some(at) = self.slot(index) else { break };
            let payload_bytes = self.payload_bytes(at);
            bytes += payload_bytes;
            if bytes > bytes_max && !sources.is_empty() {
                break;
            }
            sources.push(self.source(index, at, payload_bytes));
        }
        sources
    }

    fn source(&self, index: u64, at: usize, payload_bytes: usize) -> Source {
        let uncached = self.entries.len() - self.cached.len();
        let cached = at.checked_sub(uncached).and_then(|at| self.cached.get(at));
        let entry = self.entries.get(at).copied();
        match (cached, entry) {
            (Some(payload), _) => Source::Cached(Record {
                index,
                payload: payload.clone(),
            }),
            (None, entry) => {
                let (segment, offset) = entry.map_or((0, 0), |e| (e.segment, e.offset));
                Source::File {
                    index,
                    segment,
                    offset,
                    payload_bytes,
                }
            }
        }
    }

    /// Live entries in `segment`: index, offset and payload length, in index order.
    pub(super) fn entries_in(&self, segment: u32) -> Vec<(u64, u32, usize)> {
        let here = self.entries.iter().enumerate();
        here.filter(|(_, entry)| entry.segment == segment)
            .map(|(at, entry)| {
                let index = self.first + at as u64;
                (index, entry.offset, self.payload_bytes(at))
            })
            .collect()
    }

    /// Log bytes of entries after `index`.
    pub(super) fn bytes_since(&self, index: u64) -> u64 {
        let end = self.entries.back().map_or(self.base, |entry| entry.end);
        if index < self.first {
            return end - self.base;
        }
        match self.slot(index).and_then(|at| self.entries.get(at)) {
            Some(entry) => end - entry.end,
            None => 0,
        }
    }

    /// The last index before the last `bytes` of the entries up to `upto`; 0 when there are no
    /// earlier entries.
    pub(super) fn index_before(&self, upto: u64, bytes: u64) -> u64 {
        let Some(end) = self.slot(upto).and_then(|at| self.entries.get(at)) else {
            return 0;
        };
        let kept_from = end.end.saturating_sub(bytes);
        let before = self.entries.partition_point(|entry| entry.end < kept_from);
        if before == 0 {
            0
        } else {
            self.first + before as u64 - 1
        }
    }

    fn slot(&self, index: u64) -> Option<usize> {
        let at = usize::try_from(index.checked_sub(self.first)?).ok()?;
        (at < self.entries.len()).then_some(at)
    }

    fn bytes_of(&self, at: usize) -> Option<u64> {
        let before = match at.checked_sub(1) {
            Some(before) => self.entries.get(before)?.end,
            None => self.base,
        };
        Some(self.entries.get(at)?.end - before)
    }

    fn payload_bytes(&self, at: usize) -> usize {
        let bytes = self.bytes_of(at).unwrap_or(FRAME_BYTES as u64);
        usize::try_from(bytes).unwrap_or(usize::MAX) - FRAME_BYTES
    }
}

pub(super) fn invalid(what: String) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, what)
}
