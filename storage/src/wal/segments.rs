//! The log's files: the segments in use with their groups, and the zero-filled spares.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use henge_types::{GroupId, limits};

use super::fill::{SpareError, fill};
use crate::disk::{Disk, DiskFile, FileId};
use crate::metrics;

/// The interval at which a writer without a segment checks again, and the minimum time between two
/// attempts to make one.
const RETRY: Duration = Duration::from_secs(1);
/// The backoff doubles at most this often: then there is one attempt in 32 seconds.
const RETRY_DOUBLINGS_MAX: u32 = 5;

/// A file of the log.
#[derive(Debug, Clone)]
pub(super) struct SegmentFile {
    pub(super) path: PathBuf,
    pub(super) file: Arc<dyn DiskFile>,
    id: FileId,
}

impl SegmentFile {
    /// The open `file` under the name `path`.
    pub(super) fn new(path: PathBuf, file: Arc<dyn DiskFile>) -> io::Result<Self> {
        let id = file.id()?;
        Ok(Self { path, file, id })
    }
}

/// A segment in use.
#[derive(Debug)]
pub(super) struct Segment {
    pub(super) file: SegmentFile,
    salt: u32,
    live: BTreeMap<GroupId, u64>,
    live_total: u64,
}

/// The segments in use, by generation.
#[derive(Debug, Default)]
pub(super) struct Table {
    segments: BTreeMap<u32, Segment>,
    /// Live bytes by group, and their sum.
    live: BTreeMap<GroupId, u64>,
    live_total: u64,
}

impl Table {
    pub(super) fn insert(&mut self, generation: u32, file: SegmentFile, salt: u32) {
        let segment = Segment {
            file,
            salt,
            live: BTreeMap::new(),
            live_total: 0,
        };
        self.segments.insert(generation, segment);
    }

    /// The segment that is written to.
    pub(super) fn newest(&self) -> Option<(u32, SegmentFile)> {
        let (generation, segment) = self.segments.last_key_value()?;
        Some((*generation, segment.file.clone()))
    }

    /// A segment's file, and the salt of its records.
    pub(super) fn file(&self, generation: u32) -> Option<(Arc<dyn DiskFile>, u32)> {
        let segment = self.segments.get(&generation)?;
        Some((Arc::clone(&segment.file.file), segment.salt))
    }

    pub(super) fn len(&self) -> usize {
        self.segments.len()
    }

    pub(super) fn add(&mut self, generation: u32, group: GroupId, bytes: u64) {
        if let Some(segment) = self.segments.get_mut(&generation) {
            *segment.live.entry(group).or_default() += bytes;
            segment.live_total += bytes;
            *self.live.entry(group).or_default() += bytes;
            self.live_total += bytes;
        }
    }

    pub(super) fn subtract(&mut self, generation: u32, group: GroupId, bytes: u64) {
        let Some(segment) = self.segments.get_mut(&generation) else {
            return;
        };
        let freed = take(&mut segment.live, group, bytes);
        segment.live_total -= freed;
        take(&mut self.live, group, freed);
        self.live_total -= freed;
    }

    /// Live bytes of all groups.
    pub(super) fn live_bytes(&self) -> u64 {
        self.live_total
    }

    /// Live bytes of a group.
    pub(super) fn live_bytes_of(&self, group: GroupId) -> u64 {
        self.live.get(&group).copied().unwrap_or(0)
    }

    /// The oldest segment with its live bytes, unless it is also the newest.
    pub(super) fn oldest(&self) -> Option<(u32, u64)> {
        if self.segments.len() < 2 {
            return None;
        }
        let (generation, segment) = self.segments.first_key_value()?;
        Some((*generation, segment.live_total))
    }

    /// The groups with live entries in a segment, and their bytes.
    pub(super) fn groups_in(&self, generation: u32) -> Vec<(GroupId, u64)> {
        let segment = self.segments.get(&generation);
        let live = segment.map(|segment| segment.live.iter());
        live.into_iter()
            .flatten()
            .map(|(group, bytes)| (*group, *bytes))
            .collect()
    }

    /// The first needed generation: live, or being written.
    pub(super) fn needed_from(&self) -> Option<u32> {
        let active = self.segments.last_key_value().map(|(last, _)| *last);
        let live = self.segments.iter().find(|(_, s)| s.live_total > 0);
        live.map(|(generation, _)| *generation).or(active)
    }

    /// Removes the segments below `generation`.
    pub(super) fn free_below(&mut self, generation: u32) -> Vec<SegmentFile> {
        let kept = self.segments.split_off(&generation);
        let freed = std::mem::replace(&mut self.segments, kept);
        let mut files = Vec::with_capacity(freed.len());
        for segment in freed.into_values() {
            for (group, bytes) in segment.live {
                self.live_total -= take(&mut self.live, group, bytes);
            }
            files.push(segment.file);
        }
        files
    }

    pub(super) fn pinned(&self) -> BTreeMap<GroupId, u64> {
        self.live.clone()
    }
}

/// Subtracts up to `bytes` from a group; returns the subtracted number.
fn take(live: &mut BTreeMap<GroupId, u64>, group: GroupId, bytes: u64) -> u64 {
    let Some(of_group) = live.get_mut(&group) else {
        return 0;
    };
    let taken = bytes.min(*of_group);
    *of_group -= taken;
    if *of_group == 0 {
        live.remove(&group);
    }
    taken
}

/// Zero-filled spare segments, and the filling of more.
#[derive(Debug)]
pub(super) struct Spares {
    disk: Arc<dyn Disk>,
    dir: PathBuf,
    /// The identity of `dir` when the log was opened.
    dir_id: FileId,
    segment_bytes: u64,
    state: Mutex<SpareState>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct SpareState {
    ready: Vec<SegmentFile>,
    retired: Vec<SegmentFile>,
    next_number: u64,
    /// The writer waits for a segment.
    urgent: bool,
    /// The error of the last attempt to make or remove a spare, and the number of failures in a
    /// row.
    refused: Option<(String, u32)>,
    stopped: bool,
}

/// The next task of the filling thread.
pub(super) enum Chore {
    Fill,
    Unlink(SegmentFile),
    Stop,
}

impl Spares {
    pub(super) fn new(
        disk: Arc<dyn Disk>,
        dir: PathBuf,
        segment_bytes: u64,
        next_number: u64,
    ) -> io::Result<Self> {
        let dir_id = disk.id_of(&dir)?.ok_or(io::ErrorKind::NotFound)?;
        Ok(Self {
            disk,
            dir,
            dir_id,
            segment_bytes,
            state: Mutex::new(SpareState {
                next_number,
                ..SpareState::default()
            }),
            changed: Condvar::new(),
        })
    }

    /// Whether a file still has its name, in the directory that the log was opened in. `false` only
    /// when the name is gone or belongs to another file; a failed lookup is no evidence.
    pub(super) fn is_in_place(&self, file: &SegmentFile) -> bool {
        match self.disk.id_of(&file.path) {
            Ok(id) => id == Some(file.id),
            Err(error) => {
                tracing::debug!(%error, path = ?file.path, "a log segment's name cannot be looked up");
                true
            }
        }
    }

    /// Checks that the directory was not replaced: a name is durable only in the directory where it
    /// was created. A failed lookup is no evidence.
    fn check_dir(&self) -> io::Result<()> {
        match self.disk.id_of(&self.dir) {
            Ok(id) if id != Some(self.dir_id) => Err(removed(&self.dir)),
            Ok(_) => Ok(()),
            Err(error) => {
                tracing::debug!(%error, path = ?self.dir, "the log's directory cannot be looked up");
                Ok(())
            }
        }
    }

    /// Takes files that are no longer in use: kept as spares, or removed when there are enough.
    /// Once there are enough, an earlier failure is cleared.
    pub(super) fn give_back(&self, files: Vec<SegmentFile>) {
        let mut state = self.lock();
        for file in files {
            if state.ready.len() < limits::WAL_SPARES {
                state.ready.push(file);
            } else {
                state.retired.push(file);
            }
        }
        if state.ready.len() >= limits::WAL_SPARES {
            state.refused = None;
        }
        self.changed.notify_all();
    }

    pub(super) fn take_ready(&self) -> Option<SegmentFile> {
        let mut state = self.lock();
        let file = if state.ready.is_empty() {
            None
        } else {
            Some(state.ready.remove(0))
        };
        self.changed.notify_all();
        file
    }

    /// Takes a segment and waits for the filling thread while the disk is full. `None` when the log
    /// has ended, or when it is closing and `give_up` ends the attempts.
    pub(super) fn take_waiting(&self, give_up: impl Fn(u32) -> bool) -> Option<SegmentFile> {
        let mut attempts = 0;
        loop {
            if let Some(file) = self.take_ready() {
                return Some(file);
            }
            if give_up(attempts) {
                return None;
            }
            attempts += 1;
            let mut state = self.lock();
            state.urgent = true;
            self.changed.notify_all();
            if state.ready.is_empty() {
                let waited = self.changed.wait_timeout(state, RETRY);
                drop(waited.unwrap_or_else(PoisonError::into_inner));
            }
        }
    }

    /// Waits for a task. `room` returns whether the limit allows another file.
    pub(super) fn next_chore(&self, room: impl Fn(usize) -> bool) -> Chore {
        let mut state = self.lock();
        loop {
            if state.stopped {
                return Chore::Stop;
            }
            // Urgent filling goes first: a file that cannot be removed must not delay it.
            let urgent = state.urgent && state.ready.is_empty();
            if !urgent && let Some(file) = state.retired.pop() {
                return Chore::Unlink(file);
            }
            let short = state.ready.len() < limits::WAL_SPARES && room(state.ready.len());
            if short || urgent {
                return Chore::Fill;
            }
            // No spare is needed any more: the earlier failure is cleared.
            state.refused = None;
            state = self
                .changed
                .wait(state)
                .unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Waits after a failed attempt, longer after each failure in a row; one second while the
    /// writer waits.
    pub(super) fn back_off(&self) {
        let mut state = self.lock();
        let tries = state.refused.as_ref().map_or(0, |(_, tries)| *tries);
        for _ in 0..1_u32 << tries.saturating_sub(1).min(RETRY_DOUBLINGS_MAX) {
            let waited = self
                .changed
                .wait_timeout_while(state, RETRY, |state| !state.stopped);
            (state, _) = waited.unwrap_or_else(PoisonError::into_inner);
            if state.stopped || (state.urgent && state.ready.is_empty()) {
                return;
            }
        }
    }

    /// Records that a spare could not be made or removed.
    pub(super) fn note_refusal(&self, error: &io::Error) {
        let mut state = self.lock();
        let tries = state.refused.as_ref().map_or(0, |(_, tries)| *tries) + 1;
        if tries.is_power_of_two() {
            tracing::error!(%error, tries, ready = state.ready.len(), "no spare log segment can be made: writes wait once those that are ready are used");
        }
        state.refused = Some((error.to_string(), tries));
        metrics::wal_spare_refused();
    }

    /// Records that a spare was made or removed.
    pub(super) fn note_success(&self) {
        self.lock().refused = None;
    }

    /// The reason why spares cannot be made; `None` while there is no failure.
    pub(super) fn refusal(&self) -> Option<String> {
        let state = self.lock();
        let (reason, _) = state.refused.as_ref()?;
        Some(format!("{reason}; {} are ready", state.ready.len()))
    }

    /// The next file to remove, without waiting.
    pub(super) fn chore_now(&self) -> Option<SegmentFile> {
        self.lock().retired.pop()
    }

    /// Fills one more segment with zeros and adds it to the spares.
    pub(super) fn fill_one(&self) -> Result<(), SpareError> {
        let number = {
            let mut state = self.lock();
            state.next_number += 1;
            state.next_number - 1
        };
        let filled = fill(self.disk.as_ref(), &self.dir, number, self.segment_bytes);
        self.check_dir().map_err(SpareError::Fatal)?;
        let file = filled?;
        let mut state = self.lock();
        state.ready.push(file);
        state.urgent = false;
        self.changed.notify_all();
        Ok(())
    }

    /// Removes a file that is not in use; after a failure it is retried later.
    pub(super) fn unlink(&self, file: SegmentFile) -> Result<(), SpareError> {
        match self.disk.unlink(&file.path) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => {
                self.lock().retired.insert(0, file);
                return Err(SpareError::Refused(error));
            }
        }
        self.disk
            .sync_dir(&self.dir)
            .map_err(SpareError::of_sync_dir)
    }

    pub(super) fn ready(&self) -> usize {
        self.lock().ready.len()
    }

    pub(super) fn stop(&self) {
        self.lock().stopped = true;
        self.changed.notify_all();
    }

    fn lock(&self) -> MutexGuard<'_, SpareState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The error of a log whose files were removed or replaced while it was open.
pub(super) fn removed(path: &Path) -> io::Error {
    io::Error::other(format!(
        "{path:?} was removed or replaced while this process writes there: what it acknowledged from here \
         on would be lost. Start it again on its own data directory; if that is gone, leave this node \
         stopped: the other nodes have everything that was acknowledged"
    ))
}
