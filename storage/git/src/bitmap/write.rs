//! Writes the bitmaps of a pack.

use std::collections::{BTreeMap, BTreeSet, BinaryHeap};
use std::io;
use std::path::{Path, PathBuf};

use gix_object::Kind;
use gix_pack::data::entry::Header;
use henge_types::{ObjectFormat, ObjectId, PackId};

use crate::bitmap::Bits;
use crate::bitmap::choose::choose;
use crate::bitmap::encode::Body;
use crate::bitmap::file::KINDS;
use crate::bitmap::history::History;
use crate::oid::{Oid, from_gix, to_gix};
use crate::protocol::Stop;
use crate::reach::ReachError;
use crate::store::{ObjectStore, Objects, Pack, StoreError, install};

/// Interval of deadline checks, in objects.
const STOP_EVERY: u32 = 4096;

/// The reason for not writing bitmaps. At most the `.rev` file was written.
#[derive(Debug, thiserror::Error)]
pub enum BitmapError {
    /// The store has no such pack.
    #[error("there is no pack {pack}")]
    NoSuchPack {
        /// The pack.
        pack: PackId,
    },
    /// The objects cannot be read.
    #[error("the repository cannot be read: {0}")]
    Store(#[from] StoreError),
    /// The deadline passed.
    #[error("the bitmaps took too long")]
    Stopped,
    /// The file could not be written.
    #[error("cannot write {path}: {source}")]
    Io {
        /// The file.
        path: PathBuf,
        /// The system's error.
        #[source]
        source: io::Error,
    },
}

impl From<ReachError> for BitmapError {
    fn from(error: ReachError) -> Self {
        match error {
            ReachError::Store(error) => Self::Store(error),
            ReachError::Stopped => Self::Stopped,
        }
    }
}

/// The outcome of writing bitmaps.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct BitmapSummary {
    /// Commits with a bitmap. If there are none, no `.bitmap` file is written.
    pub commits: u64,
    /// Bytes of the file.
    pub bytes: u64,
    /// Tips without a bitmap, because an object that they need is not in the pack.
    pub incomplete: Vec<ObjectId>,
}

/// Writes the `.bitmap` file of a pack, durably and atomically, and its `.rev` file if it has none.
///
/// `tips` are the refs' values, of any kind. Everything that they reach should be in the pack: a
/// commit that needs other objects gets no bitmap. The cost is about that of counting a clone by
/// walking.
///
/// # Errors
/// When there is no such pack, it cannot be read, the deadline passes or the disk fails.
pub fn write_bitmap(
    objects: &Objects,
    pack: PackId,
    tips: &[ObjectId],
    stop: &Stop,
) -> Result<BitmapSummary, BitmapError> {
    let store = objects.open()?;
    let found = store
        .packs()
        .iter()
        .find(|candidate| PackId::new(from_gix(&candidate.data.checksum())) == pack)
        .ok_or(BitmapError::NoSuchPack { pack })?;
    let tips: BTreeSet<Oid> = {
        let tips = tips.iter();
        tips.filter_map(|tip| to_gix(*tip, store.format()))
            .collect()
    };
    let (file, summary) = make(&store, found, &tips, stop)?;
    write_reverse(found)?;
    if let Some(file) = file {
        write_file(found.index.path().with_extension("bitmap"), &file)?;
    }
    Ok(summary)
}

/// Writes the `.rev` file (gitformat-pack(5)) of a pack of objects of this format, unless it has
/// one.
///
/// # Errors
/// When the pack cannot be opened or the disk fails.
pub fn write_reverse_index(idx: &Path, format: ObjectFormat) -> Result<(), BitmapError> {
    let pack = Pack::open_compared(idx, format)?;
    write_reverse(&pack)
}

fn write_reverse(pack: &Pack) -> Result<(), BitmapError> {
    let path = pack.index.path().with_extension("rev");
    let is_there = path.try_exists().map_err(|source| BitmapError::Io {
        path: path.clone(),
        source,
    })?;
    if is_there {
        return Ok(());
    }
    write_file(path, &pack.order().encode(pack))
}

fn write_file(path: PathBuf, bytes: &[u8]) -> Result<(), BitmapError> {
    install(&path, bytes).map_err(|source| BitmapError::Io { path, source })
}

fn make(
    store: &ObjectStore,
    pack: &Pack,
    tips: &BTreeSet<Oid>,
    stop: &Stop,
) -> Result<(Option<Vec<u8>>, BitmapSummary), BitmapError> {
    let mut summary = BitmapSummary::default();
    let mut commits = BTreeMap::new();
    let mut buffer = Vec::new();
    for tip in tips {
        let target = store.peel(tip, &mut buffer)?;
        match target {
            None => summary.incomplete.push(from_gix(tip)),
            // Trees and blobs never have a bitmap.
            Some(target) if store.kind(&target)? == Some(Kind::Commit) => {
                commits.insert(*tip, target);
            }
            Some(_) => {}
        }
    }
    let starts: BTreeSet<Oid> = commits.values().copied().collect();
    let starts: Vec<Oid> = starts.into_iter().collect();
    let history = History::read(store, pack, &starts, stop)?;
    for (tip, commit) in &commits {
        let number = history.numbers.get(commit);
        let is_complete = number.is_some_and(|number| {
            let commit = &history.commits[*number as usize];
            commit.is_complete
        });
        if !is_complete {
            summary.incomplete.push(from_gix(tip));
        }
    }
    summary.incomplete.sort_unstable();
    let starts: Vec<u32> = starts
        .iter()
        .filter_map(|id| history.numbers.get(id).copied())
        .collect();
    let chosen = choose(&history, &starts);
    if chosen.is_empty() {
        return Ok((None, summary));
    }
    let body = bitmaps(&history, &chosen, pack.index.num_objects(), stop)?;
    let kinds = kinds(store, pack, stop)?;
    let file = body.finish(&pack.data.checksum(), &kinds);
    summary.commits = chosen.len() as u64;
    summary.bytes = file.len() as u64;
    Ok((Some(file), summary))
}

/// The bitmap of each selected commit: the bitmaps of earlier selected commits, and the objects
/// introduced in between.
fn bitmaps(
    history: &History,
    chosen: &BTreeSet<u32>,
    objects: u32,
    stop: &Stop,
) -> Result<Body, BitmapError> {
    let mut body = Body::new(objects);
    let mut stored: BTreeMap<u32, u32> = BTreeMap::new();
    for number in chosen {
        if stop.is_set() {
            return Err(BitmapError::Stopped);
        }
        let mut bits = Bits::new(objects);
        // Newest first: the nearest selected ancestor covers most of the commits queued behind it.
        let mut queue = BinaryHeap::from([*number]);
        while let Some(number) = queue.pop() {
            let commit = &history.commits[number as usize];
            if bits.contains(commit.at.position) {
                continue;
            }
            if let Some(known) = stored.get(&number) {
                body.add_to(*known, &mut bits)
                    .expect("invariant: what was encoded here can be decoded");
                continue;
            }
            bits.insert(commit.at.position);
            for position in history.introduced(commit) {
                bits.insert(*position);
            }
            let parents = history.parents(commit).iter().copied();
            queue.extend(parents.filter(|parent| {
                let parent = &history.commits[*parent as usize];
                !bits.contains(parent.at.position)
            }));
        }
        let entry = history.commits[*number as usize].at.entry;
        stored.insert(*number, body.push(entry, bits));
    }
    Ok(body)
}

/// The objects of each kind, in the order of [`KINDS`].
fn kinds(store: &ObjectStore, pack: &Pack, stop: &Stop) -> Result<[Bits; 4], BitmapError> {
    let objects = pack.index.num_objects();
    let mut bits = [(); 4].map(|()| Bits::new(objects));
    for (position, offset) in (0..objects).zip(pack.boundaries()) {
        if position.is_multiple_of(STOP_EVERY) && stop.is_set() {
            return Err(BitmapError::Stopped);
        }
        let id = || pack.index.oid_at_index(pack.order().entry(position));
        let broken = |source| StoreError::Object {
            id: id().to_owned(),
            source,
        };
        let header = pack.data.entry(*offset).map_err(broken)?;
        let kind = match header.header {
            // The base precedes the delta in the file, so its kind is known.
            Header::OfsDelta { .. } => {
                let base = pack.files().base_offset(&header);
                let base = base.and_then(|base| pack.position(base));
                base.and_then(|base| bits.iter().position(|of_kind| of_kind.contains(base)))
            }
            Header::RefDelta { .. } => {
                let kind = store.kind(id())?;
                KINDS.iter().position(|other| Some(*other) == kind)
            }
            other @ (Header::Commit | Header::Tree | Header::Blob | Header::Tag) => {
                KINDS.iter().position(|kind| other.as_kind() == Some(*kind))
            }
        };
        let kind = kind.ok_or_else(|| StoreError::Malformed {
            id: id().to_owned(),
        })?;
        bits[kind].insert(position);
    }
    Ok(bits)
}
