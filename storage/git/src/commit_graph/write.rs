//! Writes the commit-graph of an object store.

use std::collections::BTreeSet;
use std::io;
use std::path::PathBuf;

use gix_hashtable::HashSet;
use gix_object::Kind;
use henge_types::{ObjectFormat, ObjectId};

use crate::ancestry::parents_first;
use crate::commit_graph::FILE;
use crate::object::Commit;
use crate::oid::{Checksum, Oid, format_number, to_gix};
use crate::protocol::Stop;
use crate::store::{Objects, StoreError, install};

/// Signature, version 1.
const HEAD: [u8; 5] = *b"CGPH\x01";
const NO_PARENT: u32 = 0x7000_0000;
/// In place of the second parent: the other bits are the position in the list of edges of the
/// second and further parents. In that list: the last parent. In place of an offset of a corrected
/// date: the other bits are the position in the chunk of large offsets.
const HIGH_BIT: u32 = 1 << 31;
/// Maximum number of commits that the format can number.
const COMMITS_MAX: usize = NO_PARENT as usize - 1;
/// Maximum level; higher levels are stored as this one.
const LEVEL_MAX: u32 = (1 << 30) - 1;
/// The first date that does not fit 34 bits.
const TIME_END: i64 = 1 << 34;
/// Offsets of corrected dates from this one on are in a chunk of their own.
const OFFSET_END: i64 = 1 << 31;
/// Interval of deadline checks, in commits.
const STOP_EVERY: usize = 256;

/// The reason for not writing a commit-graph. Nothing was changed.
#[derive(Debug, thiserror::Error)]
pub enum CommitGraphError {
    /// The objects cannot be read.
    #[error("the repository cannot be read: {0}")]
    Store(#[from] StoreError),
    /// The deadline passed.
    #[error("the commit-graph took too long")]
    Stopped,
    /// The repository holds something that the format cannot.
    #[error("a commit-graph cannot hold this repository: {what}")]
    Unfit {
        /// The problem.
        what: &'static str,
    },
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

/// The outcome of writing a commit-graph.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct CommitGraphSummary {
    /// Commits in the file. If there are none, no file is written.
    pub commits: u64,
    /// Bytes of the file.
    pub bytes: u64,
}

/// Writes `info/commit-graph`, durably and atomically: all commits that `tips`, the refs' values,
/// reach.
///
/// # Errors
/// When a commit is missing or cannot be read, the format cannot hold its date or the number of
/// commits, the deadline passes or the disk fails.
pub fn write_commit_graph(
    objects: &Objects,
    tips: &[ObjectId],
    stop: &Stop,
) -> Result<CommitGraphSummary, CommitGraphError> {
    let commits = read(objects, tips, stop)?;
    if commits.is_empty() {
        return Ok(CommitGraphSummary::default());
    }
    let bytes = encode(&commits, objects.format())?;
    let path = objects.path().join(FILE);
    let write = || {
        if let Some(directory) = path.parent() {
            std::fs::create_dir_all(directory)?;
        }
        install(&path, &bytes)
    };
    write().map_err(|source| CommitGraphError::Io {
        path: path.clone(),
        source,
    })?;
    Ok(CommitGraphSummary {
        commits: commits.len() as u64,
        bytes: bytes.len() as u64,
    })
}

/// All commits that the tips reach, sorted by id.
fn read(
    objects: &Objects,
    tips: &[ObjectId],
    stop: &Stop,
) -> Result<Vec<(Oid, Commit)>, CommitGraphError> {
    let store = objects.open()?;
    let mut buffer = Vec::new();
    let mut pending = Vec::new();
    let tips: BTreeSet<Oid> = {
        let tips = tips.iter();
        tips.filter_map(|tip| to_gix(*tip, store.format()))
            .collect()
    };
    for tip in tips {
        let target = store.peel(&tip, &mut buffer)?;
        let target = target.ok_or(StoreError::Missing { id: tip })?;
        if store.kind(&target)? == Some(Kind::Commit) {
            pending.push(target);
        }
    }
    let mut seen: HashSet<Oid> = pending.iter().copied().collect();
    let mut commits = Vec::new();
    let mut queued: BTreeSet<Oid> = pending.into_iter().collect();
    while let Some(id) = queued.pop_first() {
        if commits.len().is_multiple_of(STOP_EVERY) && stop.is_set() {
            return Err(CommitGraphError::Stopped);
        }
        let commit = store.commit(&id, &mut buffer)?;
        if commit.time >= TIME_END {
            return Err(CommitGraphError::Unfit {
                what: "a commit's date is too far in the future",
            });
        }
        queued.extend(commit.parents.iter().filter(|parent| seen.insert(**parent)));
        commits.push((id, commit));
    }
    if commits.len() > COMMITS_MAX {
        return Err(CommitGraphError::Unfit {
            what: "there are too many commits",
        });
    }
    commits.sort_unstable_by_key(|(id, _)| *id);
    Ok(commits)
}

/// Both generation numbers: the topological level, one more than the highest of the parents, and
/// the corrected commit date, later than those of the parents.
#[derive(Debug, Clone, Copy, Default)]
struct Generation {
    level: u32,
    corrected_time: i64,
}

fn generations(commits: &[(Oid, Commit)], parents: &[Vec<u32>]) -> Vec<Generation> {
    let links: Vec<(&[u32], i64)> = parents
        .iter()
        .zip(commits)
        .map(|(parents, (_, commit))| (&parents[..], commit.time))
        .collect();
    let mut generations = vec![Generation::default(); commits.len()];
    for number in parents_first(&links) {
        let (parents, time) = links[number as usize];
        let parents = parents.iter().map(|parent| generations[*parent as usize]);
        let highest = parents.fold(Generation::default(), |highest, parent| Generation {
            level: highest.level.max(parent.level),
            corrected_time: highest.corrected_time.max(parent.corrected_time),
        });
        generations[number as usize] = Generation {
            level: (highest.level + 1).min(LEVEL_MAX),
            // Never 0, even without parents: 0 means that the date was not computed.
            corrected_time: time.max(highest.corrected_time + 1),
        };
    }
    generations
}

/// The chunks of the file.
#[derive(Default)]
struct Chunks {
    fanout: Vec<u8>,
    ids: Vec<u8>,
    data: Vec<u8>,
    generations: Vec<u8>,
    overflows: Vec<u8>,
    edges: Vec<u8>,
}

fn number(value: impl TryInto<u32>) -> Result<u32, CommitGraphError> {
    value.try_into().map_err(|_| CommitGraphError::Unfit {
        what: "a number is too large",
    })
}

fn encode(commits: &[(Oid, Commit)], format: ObjectFormat) -> Result<Vec<u8>, CommitGraphError> {
    let mut parents = Vec::with_capacity(commits.len());
    for (_, commit) in commits {
        let of_commit: Result<Vec<u32>, _> = commit
            .parents
            .iter()
            .map(|parent| {
                let place = commits.binary_search_by_key(parent, |(id, _)| *id);
                number(place.expect("invariant: the parents were read too"))
            })
            .collect();
        parents.push(of_commit?);
    }
    let generations = generations(commits, &parents);
    let mut chunks = Chunks::default();
    for byte in 0..=u8::MAX {
        let count = commits.partition_point(|(id, _)| id.as_bytes()[0] <= byte);
        chunks
            .fanout
            .extend_from_slice(&number(count)?.to_be_bytes());
    }
    for (((id, commit), parents), generation) in commits.iter().zip(&parents).zip(generations) {
        chunks.ids.extend_from_slice(id.as_bytes());
        chunks.data.extend_from_slice(commit.tree.as_bytes());
        chunks.add_parents(parents)?;
        chunks.add_dates(commit.time, generation)?;
    }
    Ok(chunks.join(format))
}

impl Chunks {
    fn add_parents(&mut self, parents: &[u32]) -> Result<(), CommitGraphError> {
        let first = parents.first().copied().unwrap_or(NO_PARENT);
        let second = match parents {
            [] | [_] => NO_PARENT,
            [_, second] => *second,
            [_, others @ .., last] => {
                let place = number(self.edges.len() / 4)?;
                for other in others {
                    self.edges.extend_from_slice(&other.to_be_bytes());
                }
                self.edges
                    .extend_from_slice(&(last | HIGH_BIT).to_be_bytes());
                place | HIGH_BIT
            }
        };
        self.data.extend_from_slice(&first.to_be_bytes());
        self.data.extend_from_slice(&second.to_be_bytes());
        Ok(())
    }

    fn add_dates(&mut self, time: i64, generation: Generation) -> Result<(), CommitGraphError> {
        let negative = |_| CommitGraphError::Unfit {
            what: "a commit's date is negative",
        };
        let bits = u64::try_from(time).map_err(negative)?;
        let both = (u64::from(generation.level) << 34) | bits;
        self.data.extend_from_slice(&both.to_be_bytes());
        let offset = generation.corrected_time - time;
        let stored = if offset < OFFSET_END {
            number(offset)?
        } else {
            let place = number(self.overflows.len() / 8)?;
            self.overflows.extend_from_slice(&offset.to_be_bytes());
            place | HIGH_BIT
        };
        self.generations.extend_from_slice(&stored.to_be_bytes());
        Ok(())
    }

    fn join(&self, format: ObjectFormat) -> Vec<u8> {
        let all = [
            (b"OIDF", &self.fanout),
            (b"OIDL", &self.ids),
            (b"CDAT", &self.data),
            (b"GDA2", &self.generations),
            (b"GDO2", &self.overflows),
            (b"EDGE", &self.edges),
        ];
        let chunks: Vec<_> = all.iter().filter(|(_, data)| !data.is_empty()).collect();
        let mut out = HEAD.to_vec();
        out.push(format_number(format));
        out.push(u8::try_from(chunks.len()).unwrap_or(u8::MAX));
        out.push(0);
        let mut at = out.len() + (chunks.len() + 1) * 12;
        for (name, data) in &chunks {
            out.extend_from_slice(*name);
            out.extend_from_slice(&(at as u64).to_be_bytes());
            at += data.len();
        }
        out.extend_from_slice(&[0; 4]);
        out.extend_from_slice(&(at as u64).to_be_bytes());
        out.reserve(at - out.len() + format.id_bytes());
        for (_, data) in chunks {
            out.extend_from_slice(data);
        }
        let checksum = Checksum::of(format, &out);
        out.extend_from_slice(checksum.as_bytes());
        out
    }
}
