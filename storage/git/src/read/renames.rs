//! Pairs deleted files with added ones, as git does (diffcore-rename and diffcore-delta).
//!
//! First equal files, then files whose name is the only one of its kind on both sides, then all
//! others with each other. The similarity of two files is the share of their chunks that are equal;
//! a chunk is a line, or 64 bytes of a longer one. gix's detection is not used: it compares every
//! pair line by line, and neither a deadline nor a bound in bytes stops it.

use std::collections::BTreeMap;
use std::rc::Rc;

use crate::oid::Oid;
use crate::read::entry::is_binary;
use crate::read::source::Source;
use crate::read::{Entry, ReadError, RenameSearch};

/// The similarity of equal files.
const SCORE_MAX: u64 = 60_000;
/// The least similarity of a rename: 50%, as git's default.
const SCORE_MIN: u64 = SCORE_MAX / 2;
/// The same for files that are compared because of their names only.
const NAMESAKE_SCORE_MIN: u64 = SCORE_MIN + (SCORE_MAX - SCORE_MIN) / 2;
/// The sources that a destination may still get when others have taken the better ones.
const BEST_MAX: usize = 4;
/// Equal files that are looked at for one of the same name.
const EQUAL_MAX: usize = 100;
/// Hashes of chunks are below this prime.
const HASH_BASE: u32 = 107_927;
/// The bytes of the longest chunk.
const CHUNK_BYTES_MAX: u32 = 64;

/// Two entries that are one file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Pair {
    /// The number of the deleted entry.
    pub(super) source: usize,
    /// The number of the added entry.
    pub(super) destination: usize,
    score: u64,
}

impl Pair {
    /// The similarity in percent.
    pub(super) fn percent(&self) -> u8 {
        u8::try_from(self.score * 100 / SCORE_MAX).unwrap_or(100)
    }
}

/// The renames among some changes.
#[derive(Debug)]
pub(super) struct Renames {
    pub(super) pairs: Vec<Pair>,
    pub(super) search: RenameSearch,
}

/// Finds the destinations that are renamed sources. Both are sorted by path; pairs have their
/// numbers.
pub(super) fn find(
    source: &Source<'_>,
    sources: &[&Entry],
    destinations: &[&Entry],
) -> Result<Renames, ReadError> {
    let mut search = Search {
        source,
        sources: sources.iter().copied().map(File::new).collect(),
        destinations: destinations.iter().copied().map(File::new).collect(),
        pairs: Vec::new(),
        bytes_left: source.limits().rename_bytes_max,
        chunks_left: source.limits().rename_chunks_max,
        is_complete: true,
    };
    search.equal();
    let found = search.namesakes()? && search.similar()?;
    search.is_complete &= found;
    Ok(Renames {
        pairs: search.pairs,
        search: if search.is_complete {
            RenameSearch::Complete
        } else {
            RenameSearch::Partial
        },
    })
}

/// A deleted or an added entry.
struct File<'e> {
    entry: &'e Entry,
    is_paired: bool,
    bytes: Option<u64>,
    chunks: Option<Rc<[Chunk]>>,
}

impl<'e> File<'e> {
    const fn new(entry: &'e Entry) -> Self {
        Self {
            entry,
            is_paired: false,
            bytes: None,
            chunks: None,
        }
    }

    fn bytes(&mut self, source: &Source<'_>) -> Result<u64, ReadError> {
        if let Some(bytes) = self.bytes {
            return Ok(bytes);
        }
        let bytes = source.blob_bytes(self.entry.oid())?;
        self.bytes = Some(bytes);
        Ok(bytes)
    }
}

/// Chunks of a file with the same hash.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Chunk {
    hash: u32,
    /// Their bytes, together.
    bytes: u32,
}

/// A possible source of a destination.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Candidate {
    source: usize,
    destination: usize,
    score: u64,
    has_name: bool,
}

impl Candidate {
    /// The better one of two is the greater one.
    const fn rank(&self) -> (u64, bool) {
        (self.score, self.has_name)
    }
}

/// What a comparison of two files says.
enum Similarity {
    Score(u64),
    /// One is larger than what is compared.
    TooLarge,
    /// The bounds of the whole search are reached.
    Exhausted,
}

struct Search<'a, 's, 'e> {
    source: &'a Source<'s>,
    sources: Vec<File<'e>>,
    destinations: Vec<File<'e>>,
    pairs: Vec<Pair>,
    bytes_left: u64,
    chunks_left: u64,
    /// Whether no pair was passed over for its size.
    is_complete: bool,
}

impl Search<'_, '_, '_> {
    fn pair(&mut self, source: usize, destination: usize, score: u64) {
        self.sources[source].is_paired = true;
        self.destinations[destination].is_paired = true;
        self.pairs.push(Pair {
            source,
            destination,
            score,
        });
    }

    /// Pairs equal entries, those of the same name first.
    fn equal(&mut self) {
        let mut by_id: BTreeMap<Oid, Vec<usize>> = BTreeMap::new();
        for (number, file) in self.sources.iter().enumerate() {
            by_id.entry(*file.entry.oid()).or_default().push(number);
        }
        for destination in 0..self.destinations.len() {
            let entry = self.destinations[destination].entry;
            let Some(sources) = by_id.get_mut(entry.oid()) else {
                continue;
            };
            let mut best: Option<(bool, usize)> = None;
            for source in sources.iter().take(EQUAL_MAX) {
                let other = self.sources[*source].entry;
                if !other.kind().is_type_of(entry.kind()) {
                    continue;
                }
                let has_name = other.name() == entry.name();
                if best.is_none_or(|(best_has_name, _)| has_name && !best_has_name) {
                    best = Some((has_name, *source));
                }
                if has_name {
                    break;
                }
            }
            if let Some((_, source)) = best {
                sources.retain(|other| *other != source);
                self.pair(source, destination, SCORE_MAX);
            }
        }
    }

    /// Pairs files whose name no other file on their side has. Whether the search may go on.
    fn namesakes(&mut self) -> Result<bool, ReadError> {
        let sources = by_name(&self.sources);
        let destinations = by_name(&self.destinations);
        for source in 0..self.sources.len() {
            let name = self.sources[source].entry.name();
            if sources.get(name) != Some(&Some(source)) {
                continue;
            }
            let Some(Some(destination)) = destinations.get(name).copied() else {
                continue;
            };
            match self.similarity(source, destination)? {
                Similarity::Score(score) if score >= NAMESAKE_SCORE_MIN => {
                    self.pair(source, destination, score);
                }
                Similarity::Score(_) => {}
                Similarity::TooLarge => self.is_complete = false,
                Similarity::Exhausted => return Ok(false),
            }
        }
        Ok(true)
    }

    /// Pairs the most similar files. Whether all of them were compared; if not, none is paired.
    fn similar(&mut self) -> Result<bool, ReadError> {
        let unpaired = |files: &[File<'_>]| {
            let files = files.iter().enumerate();
            let files = files.filter(|(_, file)| !file.is_paired);
            files.map(|(number, _)| number).collect::<Vec<_>>()
        };
        let (sources, destinations) = (unpaired(&self.sources), unpaired(&self.destinations));
        let files_max = self.source.limits().rename_candidates_max;
        if sources.len().saturating_mul(destinations.len()) > files_max.saturating_mul(files_max) {
            return Ok(false);
        }
        let mut candidates = Vec::new();
        for destination in destinations {
            let mut best: [Option<Candidate>; BEST_MAX] = [None; BEST_MAX];
            for source in &sources {
                let score = match self.similarity(*source, destination)? {
                    Similarity::Score(score) => score,
                    Similarity::TooLarge => {
                        self.is_complete = false;
                        continue;
                    }
                    Similarity::Exhausted => return Ok(false),
                };
                let (from, to) = (&self.sources[*source], &self.destinations[destination]);
                let candidate = Candidate {
                    source: *source,
                    destination,
                    score,
                    has_name: from.entry.name() == to.entry.name(),
                };
                // Also where it is too bad: of equal candidates the one in the first slot wins in
                // git, and bad ones decide which slot that is.
                keep_if_better(&mut best, candidate);
            }
            let best = best.into_iter().flatten();
            candidates.extend(best.filter(|candidate| candidate.score >= SCORE_MIN));
        }
        candidates.sort_by_key(|candidate| std::cmp::Reverse(candidate.rank()));
        for Candidate {
            source,
            destination,
            score,
            ..
        } in candidates
        {
            if !self.sources[source].is_paired && !self.destinations[destination].is_paired {
                self.pair(source, destination, score);
            }
        }
        Ok(true)
    }

    /// The share of the chunks of two files that are equal, out of [`SCORE_MAX`].
    fn similarity(&mut self, source: usize, destination: usize) -> Result<Similarity, ReadError> {
        self.source.check()?;
        let (from, to) = (
            &mut self.sources[source],
            &mut self.destinations[destination],
        );
        // Links and submodules are renamed only as they are.
        if !from.entry.kind().is_file() || !to.entry.kind().is_file() {
            return Ok(Similarity::Score(0));
        }
        let (from_bytes, to_bytes) = (from.bytes(self.source)?, to.bytes(self.source)?);
        let (small, large) = (from_bytes.min(to_bytes), from_bytes.max(to_bytes));
        let is_hopeless = u128::from(large) * u128::from(SCORE_MAX - SCORE_MIN)
            < u128::from(large - small) * u128::from(SCORE_MAX);
        if is_hopeless || small == 0 {
            return Ok(Similarity::Score(0));
        }
        if large > self.source.limits().diff_blob_bytes_max {
            return Ok(Similarity::TooLarge);
        }
        let mut sides = [None, None];
        for (side, file) in sides.iter_mut().zip([from, to]) {
            let Some(chunks) = chunks_of(self.source, file, &mut self.bytes_left)? else {
                return Ok(Similarity::Exhausted);
            };
            *side = Some(chunks);
        }
        let [Some(from), Some(to)] = sides else {
            return Ok(Similarity::Exhausted);
        };
        let chunks = (from.len() + to.len()) as u64;
        let Some(left) = self.chunks_left.checked_sub(chunks) else {
            return Ok(Similarity::Exhausted);
        };
        self.chunks_left = left;
        Ok(Similarity::Score(
            copied_bytes(&from, &to) * SCORE_MAX / large,
        ))
    }
}

/// The number of the only unpaired file with a name; within, `None` where there are several.
fn by_name<'e>(files: &[File<'e>]) -> BTreeMap<&'e [u8], Option<usize>> {
    let mut by_name = BTreeMap::new();
    for (number, file) in files.iter().enumerate() {
        if !file.is_paired {
            let known = by_name.entry(file.entry.name());
            known
                .and_modify(|only| *only = None)
                .or_insert(Some(number));
        }
    }
    by_name
}

/// Keeps a candidate where it is better than the worst one of those that are kept.
fn keep_if_better(best: &mut [Option<Candidate>; BEST_MAX], candidate: Candidate) {
    let rank = |kept: Option<Candidate>| kept.map(|kept| kept.rank());
    let worst = best.iter_mut().min_by_key(|kept| rank(**kept));
    if let Some(worst) = worst
        && rank(*worst) < Some(candidate.rank())
    {
        *worst = Some(candidate);
    }
}

/// The chunks of a file; `None` when no more bytes may be read.
fn chunks_of(
    source: &Source<'_>,
    file: &mut File<'_>,
    bytes_left: &mut u64,
) -> Result<Option<Rc<[Chunk]>>, ReadError> {
    if let Some(chunks) = &file.chunks {
        return Ok(Some(Rc::clone(chunks)));
    }
    let bytes = file.bytes(source)?;
    let Some(left) = bytes_left.checked_sub(bytes) else {
        return Ok(None);
    };
    *bytes_left = left;
    let data = source.blob(file.entry.oid(), bytes)?;
    let chunks: Rc<[Chunk]> = chunks(&data).into();
    file.chunks = Some(Rc::clone(&chunks));
    Ok(Some(chunks))
}

/// The chunks of a blob by their hashes, ascending: git's `hash_chars`.
fn chunks(data: &[u8]) -> Vec<Chunk> {
    let is_text = !is_binary(data);
    let mut chunks: Vec<Chunk> = Vec::new();
    let (mut low, mut high, mut bytes) = (0_u32, 0_u32, 0_u32);
    let mut end_chunk = |low: u32, high: u32, bytes: u32| {
        chunks.push(Chunk {
            hash: low.wrapping_add(high.wrapping_mul(0x61)) % HASH_BASE,
            bytes,
        });
    };
    for (at, byte) in data.iter().enumerate() {
        if is_text && *byte == b'\r' && data.get(at + 1) == Some(&b'\n') {
            continue;
        }
        let former = low;
        low = (low << 7) ^ (high >> 25);
        high = (high << 7) ^ (former >> 25);
        low = low.wrapping_add(u32::from(*byte));
        bytes += 1;
        if bytes < CHUNK_BYTES_MAX && *byte != b'\n' {
            continue;
        }
        end_chunk(low, high, bytes);
        (low, high, bytes) = (0, 0, 0);
    }
    if bytes > 0 {
        end_chunk(low, high, bytes);
    }
    chunks.sort_unstable_by_key(|chunk| chunk.hash);
    chunks.dedup_by(|next, kept| {
        let is_same = next.hash == kept.hash;
        if is_same {
            kept.bytes += next.bytes;
        }
        is_same
    });
    chunks
}

/// The bytes of `from` that are in `to` as well: git's `diffcore_count_changes`.
fn copied_bytes(from: &[Chunk], to: &[Chunk]) -> u64 {
    let mut to = to.iter().peekable();
    let mut copied = 0;
    for chunk in from {
        while to.next_if(|other| other.hash < chunk.hash).is_some() {}
        if let Some(other) = to.next_if(|other| other.hash == chunk.hash) {
            copied += u64::from(chunk.bytes.min(other.bytes));
        }
    }
    copied
}

#[cfg(test)]
mod tests {
    use super::*;

    fn similarity(from: &[u8], to: &[u8]) -> u64 {
        let large = from.len().max(to.len()) as u64;
        copied_bytes(&chunks(from), &chunks(to)) * 100 / large
    }

    #[test]
    fn similarity_counts_equal_chunks() {
        assert_eq!(similarity(b"a\nb\nc\nd\n", b"d\nc\nb\na\n"), 100);
        assert_eq!(similarity(b"a\nb\nc\nd\n", b"a\nb\nx\ny\n"), 50);
        assert_eq!(similarity(b"a\na\na\na\n", b"a\nx\nx\nx\n"), 25);
        assert_eq!(similarity(b"a\r\nb\r\n", b"a\nb\n"), 66);
        let long = vec![b'x'; 200];
        assert_eq!(similarity(&long, &long), 100);
    }

    #[test]
    fn the_best_candidates_are_kept() {
        let candidate = |source: usize, score: u64| Candidate {
            source,
            destination: 0,
            score,
            has_name: source == 5,
        };
        let mut best = [None; BEST_MAX];
        for (source, score) in [(0, 3), (1, 5), (2, 4), (3, 1), (4, 1), (5, 1), (6, 9)] {
            keep_if_better(&mut best, candidate(source, score));
        }
        let mut kept: Vec<_> = best.iter().flatten().map(|kept| kept.source).collect();
        kept.sort_unstable();
        assert_eq!(kept, [0, 1, 2, 6]);
    }
}
