//! Recovery of the log at start.
//!
//! The segments from the oldest needed one to the newest form a chain: every header names the
//! preceding generation and its end. Every segment but the newest must be intact up to that end. In
//! the newest, damage within the last batch is a torn tail and is cut. Damage followed by a valid
//! record of a later batch is lost acknowledged data.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicUsize;
use std::sync::{Arc, Mutex, OnceLock, RwLock};

use henge_runtime::Clock;
use henge_types::GroupId;
use tokio::sync::watch;

use super::frame::{ALIGN, FRAME_BYTES, Frame, HEADER_BYTES, Header, HeaderFault, Kind};
use super::group::{Cell, GroupState, Hard, entry_bytes};
use super::origin;
use super::queue::Queue;
use super::segments::{SegmentFile, Spares, Table};
use super::writer::{Active, Writer};
use super::{OnFatal, Purged, Shared, WalConfig, WalError};
use crate::disk::{Disk, DiskFile, OpenMode, read_exact_at};

/// A segment's file with a valid header.
struct Found {
    file: SegmentFile,
    header: Header,
    /// Whether it has an origin mark.
    marked: bool,
}

/// The files of the log's directory.
#[derive(Default)]
struct Files {
    /// By generation.
    segments: BTreeMap<u64, Found>,
    /// Without a valid header: empty, or torn before its first use.
    blank: Vec<SegmentFile>,
    next_number: u64,
}

/// The sum of a group's records.
#[derive(Default)]
struct Replayed {
    hard: Hard,
    /// Segment, offset and payload length of entries.
    entries: BTreeMap<u64, (u32, u32, u32)>,
}

/// The end of the log.
#[derive(Clone, Copy)]
struct End {
    generation: u64,
    offset: u64,
    /// Sequence and batch of the next record.
    sequence: u64,
    batch: u64,
    /// The last record closes the log, and nothing follows it.
    clean: bool,
}

/// The log after reading.
struct Log {
    groups: BTreeMap<GroupId, Replayed>,
    end: Option<End>,
    oldest: u64,
}

pub(super) fn open(
    disk: Arc<dyn Disk>,
    clock: Arc<dyn Clock>,
    config: WalConfig,
    on_fatal: OnFatal,
) -> Result<Writer, WalError> {
    check(&config)?;
    disk.create_dir_all(&config.dir)
        .map_err(io("make its directory"))?;
    let mut files = look(disk.as_ref(), &config)?;
    let log = read(&files)?;
    check_blank(&files, &log)?;
    mark(files.segments.values())?;
    let needed = files.segments.split_off(&log.oldest);
    let free = files.segments.into_values().map(|found| found.file);
    let spare: Vec<SegmentFile> = files.blank.into_iter().chain(free).collect();
    let shared = share(disk, clock, config, on_fatal, files.next_number)?;
    shared.spares.give_back(sized(&shared, spare)?);
    let hard = install(&shared, &needed, log.groups)?;
    let writer = start(&shared, &needed, log.end, hard, log.oldest)?;
    shared.report();
    Ok(writer)
}

/// The minimum segment length; every configuration has longer ones.
const SEGMENT_BYTES_LEAST: u64 = 4 * HEADER_BYTES as u64;

fn check(config: &WalConfig) -> Result<(), WalError> {
    if config.segment_bytes < SEGMENT_BYTES_LEAST || config.segment_bytes > 1 << 30 {
        return Err(WalError::Config("segments have 16 KiB to 1 GiB"));
    }
    if !config.segment_bytes.is_multiple_of(HEADER_BYTES as u64) {
        return Err(WalError::Config("segments are multiples of 4 KiB"));
    }
    if config.bytes_max / config.segment_bytes < 4 {
        return Err(WalError::Config("the cap must allow four segments"));
    }
    Ok(())
}

fn io(doing: &'static str) -> impl Fn(std::io::Error) -> WalError {
    move |source| WalError::Io { doing, source }
}

/// Opens every file and reads its header; removes unfinished files.
fn look(disk: &dyn Disk, config: &WalConfig) -> Result<Files, WalError> {
    let mut files = Files::default();
    for path in disk.list(&config.dir).map_err(io("list its directory"))? {
        let number = path.file_stem().and_then(|stem| stem.to_str());
        let number: Option<u64> = number.and_then(|stem| stem.parse().ok());
        let extension = path.extension().and_then(|extension| extension.to_str());
        let (Some(number), Some(extension)) = (number, extension) else {
            continue;
        };
        files.next_number = files.next_number.max(number + 1);
        match extension {
            "new" => {
                disk.unlink(&path)
                    .map_err(io("remove an unfinished segment"))?;
            }
            "seg" => look_at(disk, path, &mut files)?,
            _ => {}
        }
    }
    // A killed process may have left names that are not durable yet and are used from here on.
    disk.sync_dir(&config.dir)
        .map_err(io("sync its directory"))?;
    Ok(files)
}

fn look_at(disk: &dyn Disk, path: PathBuf, files: &mut Files) -> Result<(), WalError> {
    let file = disk
        .open(&path, OpenMode::Write)
        .map_err(io("open a segment"))?;
    let mut head = vec![0; HEADER_BYTES];
    let read = file
        .read_at(&mut head, 0)
        .map_err(io("read a segment's header"))?;
    head.truncate(read);
    let header = Header::decode(&head);
    check_len(&path, file.as_ref(), header.as_ref().ok())?;
    let file = SegmentFile::new(path, file).map_err(io("look at a segment"))?;
    match header {
        Ok(header) => {
            let generation = header.generation;
            let found = Found {
                marked: check_origin(&file, &head)?,
                file,
                header,
            };
            if files.segments.insert(generation, found).is_some() {
                return Err(lost(generation, 0));
            }
        }
        Err(HeaderFault::Invalid) => files.blank.push(file),
        Err(HeaderFault::Version(version)) => {
            return Err(WalError::Version {
                path: file.path,
                version,
            });
        }
    }
    Ok(())
}

/// Whether a segment is complete. A segment is named after all of it is written and durable. An
/// unused segment does not record its length, which depends on the configuration; only the minimum
/// is checked.
fn check_len(path: &Path, file: &dyn DiskFile, header: Option<&Header>) -> Result<(), WalError> {
    let bytes = file.file_len().map_err(io("look at a segment"))?;
    let whole = header.map_or(SEGMENT_BYTES_LEAST, |header| header.segment_bytes);
    if bytes >= whole && (header.is_some() || bytes.is_multiple_of(HEADER_BYTES as u64)) {
        return Ok(());
    }
    Err(WalError::Cut {
        path: path.to_owned(),
        bytes,
        whole,
    })
}

/// Whether the segment has an origin mark.
///
/// # Errors
/// When the mark differs from the file's origin.
fn check_origin(file: &SegmentFile, head: &[u8]) -> Result<bool, WalError> {
    let Some(written) = origin::read(head) else {
        return Ok(false);
    };
    let found = file.file.origin().map_err(io("look at a segment"))?;
    if written.is_same_file(&found) {
        return Ok(true);
    }
    Err(WalError::Copied {
        path: file.path.clone(),
        written,
        found,
    })
}

/// Marks the segments of older releases, and logs which properties the file system lacks.
fn mark<'a>(segments: impl Iterator<Item = &'a Found>) -> Result<(), WalError> {
    let mut marked = 0_usize;
    let mut last = None;
    for found in segments {
        if !found.marked {
            origin::write(found.file.file.as_ref()).map_err(io("mark a segment"))?;
            marked += 1;
        }
        last = Some(found);
    }
    if marked > 0 {
        tracing::info!(segments = marked, "log segments marked with their files");
    }
    let origin = last.map(|found| found.file.file.origin());
    let origin = origin.transpose().map_err(io("look at a segment"))?;
    if origin.is_some_and(|origin| origin.created_ns.is_none()) {
        tracing::info!(
            "the file system keeps no creation times: a copied data directory is told by inode numbers alone"
        );
    }
    Ok(())
}

const fn lost(segment: u64, offset: u64) -> WalError {
    WalError::LostAcknowledged { segment, offset }
}

/// Reads the chain of segments.
fn read(files: &Files) -> Result<Log, WalError> {
    let mut log = Log {
        groups: BTreeMap::new(),
        end: None,
        oldest: 0,
    };
    let Some((_, newest)) = files.segments.last_key_value() else {
        return Ok(log);
    };
    let newest_bytes = load(newest)?;
    let (_, oldest) = scan(newest, &newest_bytes, None, &mut BTreeMap::new())?;
    log.oldest = oldest.max(newest.header.oldest);
    let chain = chain(files, newest, log.oldest)?;
    let mut ends = chain.iter().skip(1).map(|found| found.header.previous_end);
    for found in &chain {
        let (end, _) = match ends.next() {
            Some(end) => scan(found, &load(found)?, Some(end), &mut log.groups)?,
            None => scan(found, &newest_bytes, None, &mut log.groups)?,
        };
        log.end = Some(end);
    }
    for replayed in log.groups.values() {
        replayed.check(newest.header.generation)?;
    }
    Ok(log)
}

/// The segments that are needed, oldest first.
fn chain<'a>(files: &'a Files, newest: &'a Found, oldest: u64) -> Result<Vec<&'a Found>, WalError> {
    let mut chain = vec![newest];
    let mut at = newest;
    while at.header.generation > oldest && at.header.previous != 0 {
        let previous = at.header.previous;
        if previous < oldest {
            break;
        }
        at = files
            .segments
            .get(&previous)
            .ok_or_else(|| lost(previous, 0))?;
        chain.push(at);
    }
    chain.reverse();
    Ok(chain)
}

fn load(found: &Found) -> Result<Vec<u8>, WalError> {
    let bytes = usize::try_from(found.header.segment_bytes)
        .map_err(|_| lost(found.header.generation, 0))?;
    let mut buffer = vec![0; bytes];
    match read_exact_at(found.file.file.as_ref(), &mut buffer, 0) {
        Ok(()) => Ok(buffer),
        Err(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => {
            Err(lost(found.header.generation, 0))
        }
        Err(source) => Err(io("read a segment")(source)),
    }
}

/// Replays a segment's records into `groups`, up to `end` if the next header names it, otherwise up
/// to the last intact record. Returns the end and the newest record of free segments.
fn scan(
    found: &Found,
    bytes: &[u8],
    end: Option<u64>,
    groups: &mut BTreeMap<GroupId, Replayed>,
) -> Result<(End, u64), WalError> {
    let generation = found.header.generation;
    let mut at = HEADER_BYTES;
    let mut next = End {
        generation,
        offset: at as u64,
        sequence: found.header.first_sequence,
        batch: found.header.first_batch,
        clean: false,
    };
    let mut oldest = 0;
    let salt = found.header.salt;
    while end.is_none_or(|end| (at as u64) < end) {
        let rest = bytes.get(at..).unwrap_or_default();
        let expected = |frame: &Frame<'_>| {
            frame.generation == generation
                && frame.sequence == next.sequence
                && frame.batch == next.batch
        };
        let Some(frame) = Frame::parse(salt, rest).filter(expected) else {
            break;
        };
        if frame.kind == Kind::Oldest {
            oldest = oldest.max(frame.index);
        }
        let place = (generation, at);
        replay(groups, &frame, place).ok_or_else(|| lost(generation, at as u64))?;
        next.clean = frame.kind == Kind::Close && frame.ends_batch;
        next.sequence += 1;
        next.batch += u64::from(frame.ends_batch);
        at += frame.stride();
        next.offset = at as u64;
    }
    match end {
        Some(end) if at as u64 == end => {}
        Some(_) => return Err(lost(generation, at as u64)),
        None => {
            next.clean &= inspect_tail(bytes, at, next, salt)?;
            if !next.clean {
                // The torn batch used this number.
                next.batch += 1;
            }
        }
    }
    Ok((next, oldest))
}

/// Examines the bytes after the last intact record. `Ok(true)`: none of them belong to the
/// segment's current generation.
fn inspect_tail(bytes: &[u8], from: usize, end: End, salt: u32) -> Result<bool, WalError> {
    let generation = end.generation;
    let mut untouched = true;
    let mut at = from;
    while at + FRAME_BYTES <= bytes.len() {
        let rest = bytes.get(at..).unwrap_or_default();
        if Frame::generation_at(rest) == Some(generation) {
            untouched = false;
            let later = Frame::parse(salt, rest).is_some_and(|frame| frame.batch > end.batch);
            if later {
                return Err(lost(generation, from as u64));
            }
        }
        at += ALIGN;
    }
    Ok(untouched)
}

/// Adds a record to its group; `None` when it cannot follow the records before.
fn replay(
    groups: &mut BTreeMap<GroupId, Replayed>,
    frame: &Frame<'_>,
    (generation, at): (u64, usize),
) -> Option<()> {
    match frame.kind {
        Kind::Oldest | Kind::Close => return Some(()),
        Kind::Drop => {
            groups.remove(&frame.group);
            return Some(());
        }
        Kind::Entry
        | Kind::Moved
        | Kind::Vote
        | Kind::Committed
        | Kind::Truncate
        | Kind::Purge
        | Kind::State => {}
    }
    let group = groups.entry(frame.group).or_default();
    let payload = || bytes::Bytes::copy_from_slice(frame.payload);
    let position = (
        u32::try_from(generation).ok()?,
        u32::try_from(at).ok()?,
        u32::try_from(frame.payload.len()).ok()?,
    );
    match frame.kind {
        Kind::Entry => {
            if !group.hard.append(frame.index) {
                return None;
            }
            group.entries.insert(frame.index, position);
        }
        Kind::Moved => {
            group.entries.insert(frame.index, position);
        }
        Kind::Vote => group.hard.vote = Some(payload()),
        Kind::Committed => group.hard.committed = Some(payload()),
        Kind::Truncate => {
            group.hard.truncate_after(frame.index);
        }
        Kind::Purge => group.hard.purge(Purged {
            index: frame.index,
            id: payload(),
        }),
        Kind::State => group.hard = postcard::from_bytes(frame.payload).ok()?,
        Kind::Drop | Kind::Oldest | Kind::Close => {}
    }
    group.forget_dead();
    Some(())
}

impl Replayed {
    /// Removes entries outside the live range.
    fn forget_dead(&mut self) {
        let Some((first, last)) = self.hard.live else {
            self.entries.clear();
            return;
        };
        while self
            .entries
            .last_key_value()
            .is_some_and(|(i, _)| *i > last)
        {
            self.entries.pop_last();
        }
        while self
            .entries
            .first_key_value()
            .is_some_and(|(i, _)| *i < first)
        {
            self.entries.pop_first();
        }
    }

    /// Checks that every live entry was found.
    fn check(&self, generation: u64) -> Result<(), WalError> {
        let live = self.hard.live.map_or(0, |(first, last)| last - first + 1);
        if self.entries.len() as u64 == live {
            Ok(())
        } else {
            Err(lost(generation, 0))
        }
    }
}

/// Checks that a file without a valid header holds no records newer than the log. Otherwise its
/// header was valid once, and its records were acknowledged.
fn check_blank(files: &Files, log: &Log) -> Result<(), WalError> {
    let newest = log.end.map_or(0, |end| end.generation);
    for file in &files.blank {
        let mut head = vec![0; FRAME_BYTES];
        let read = file
            .file
            .read_at(&mut head, HEADER_BYTES as u64)
            .map_err(io("read a spare segment"))?;
        head.truncate(read);
        // The first record of an earlier use, or zeros.
        let generation = Frame::generation_at(&head);
        if let Some(generation) = generation.filter(|generation| *generation > newest) {
            return Err(lost(generation, HEADER_BYTES as u64));
        }
    }
    Ok(())
}

fn share(
    disk: Arc<dyn Disk>,
    clock: Arc<dyn Clock>,
    config: WalConfig,
    on_fatal: OnFatal,
    next_number: u64,
) -> Result<Arc<Shared>, WalError> {
    let dir = config.dir.clone();
    let spares = Spares::new(disk, dir, config.segment_bytes, next_number);
    Ok(Arc::new(Shared {
        spares: spares.map_err(io("look at its directory"))?,
        clock,
        groups: RwLock::new(BTreeMap::new()),
        queue: Queue::new(config.tail_bytes_max),
        table: Mutex::new(Table::default()),
        tail_bytes: AtomicUsize::new(0),
        pressure: watch::Sender::new(None),
        on_fatal,
        dead: OnceLock::new(),
        config,
    }))
}

/// The files of the configured length; the others are removed.
fn sized(shared: &Shared, files: Vec<SegmentFile>) -> Result<Vec<SegmentFile>, WalError> {
    let mut kept = Vec::new();
    for file in files {
        let len = file.file.file_len().map_err(io("look at a segment"))?;
        if len == shared.config.segment_bytes {
            kept.push(file);
        } else {
            let removed = shared.spares.unlink(file).map_err(Into::into);
            removed.map_err(io("remove a segment of another length"))?;
        }
    }
    Ok(kept)
}

/// Fills the state in memory from the replayed log; returns the groups' hard state.
fn install(
    shared: &Shared,
    needed: &BTreeMap<u64, Found>,
    groups: BTreeMap<GroupId, Replayed>,
) -> Result<BTreeMap<GroupId, Hard>, WalError> {
    let mut table = shared.table();
    for (generation, found) in needed {
        let number = u32::try_from(*generation).map_err(|_| lost(*generation, 0))?;
        table.insert(number, found.file.clone(), found.header.salt);
    }
    let mut hard = BTreeMap::new();
    let mut cells = shared.groups_mut();
    for (group, replayed) in groups {
        for (segment, _, payload) in replayed.entries.values() {
            let payload = usize::try_from(*payload).unwrap_or_default();
            table.add(*segment, group, entry_bytes(payload));
        }
        let state = GroupState::recovered(&replayed.hard, &replayed.entries);
        cells.insert(group, Arc::new(Cell::new(group, state)));
        hard.insert(group, replayed.hard);
    }
    Ok(hard)
}

/// The writer, continuing after a clean end or in a new segment.
fn start(
    shared: &Arc<Shared>,
    needed: &BTreeMap<u64, Found>,
    end: Option<End>,
    hard: BTreeMap<GroupId, Hard>,
    oldest: u64,
) -> Result<Writer, WalError> {
    let newest = needed.last_key_value().map(|(_, found)| found);
    let oldest = u32::try_from(oldest).map_err(|_| lost(oldest, 0))?;
    let (Some(newest), Some(end)) = (newest, end) else {
        return fresh(shared, hard);
    };
    let active = Active {
        file: newest.file.clone(),
        salt: newest.header.salt,
        generation: u32::try_from(end.generation).map_err(|_| lost(end.generation, 0))?,
        offset: end.offset,
        sequence: end.sequence,
        batch: end.batch,
    };
    let mut writer = Writer::new(Arc::clone(shared), active, hard, oldest);
    let same_length = newest.header.segment_bytes == shared.config.segment_bytes;
    if !(end.clean && same_length) {
        // The bytes just read may be in the page cache only.
        let file = &newest.file.file;
        file.sync_data().map_err(io("sync what it read"))?;
        writer
            .next_segment()
            .and_then(|()| writer.flush())
            .map_err(io("start a fresh segment"))?;
    }
    Ok(writer)
}

/// The writer of an empty log.
fn fresh(shared: &Arc<Shared>, hard: BTreeMap<GroupId, Hard>) -> Result<Writer, WalError> {
    let start = io("start the first segment");
    if shared.spares.ready() == 0 {
        let filled = shared.spares.fill_one().map_err(Into::into);
        filled.map_err(&start)?;
    }
    let file = shared.spares.take_ready();
    let file = file.ok_or_else(|| start(std::io::ErrorKind::StorageFull.into()))?;
    let active = Active {
        file,
        salt: 0,
        generation: 0,
        offset: 0,
        sequence: 1,
        batch: 1,
    };
    let back = active.file.clone();
    let mut writer = Writer::new(Arc::clone(shared), active, hard, 1);
    shared.spares.give_back(vec![back]);
    writer
        .next_segment()
        .and_then(|()| writer.flush())
        .map_err(&start)?;
    Ok(writer)
}
