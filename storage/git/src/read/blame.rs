//! The commit that each line of a file comes from, as git's blame finds it.
//!
//! Runs of lines wait at commits, each with the path and the blob that they are in. A commit gives
//! the lines that a parent has as well to that parent, and keeps the others: those come from it.
//! gix-blame is not used: hostile trees make it panic, lines get lost where history has several
//! roots, and neither blobs nor commits have a bound.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};
use std::ops::Range;
use std::sync::Arc;

use henge_types::ObjectId;

use crate::object::Commit;
use crate::oid::{Oid, from_gix};
use crate::read::changes::differences;
use crate::read::lines::{LineHunk, hunks, lines};
use crate::read::source::{Found, Source};
use crate::read::{ChangeKind, Entry, ReadError, entry, renames};

/// The origins of the lines of a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Blame {
    /// The file.
    pub entry: Entry,
    /// Its content.
    pub data: Arc<Vec<u8>>,
    /// The number of its lines.
    pub lines: u32,
    /// Runs of lines in their order, without gaps in the lines that were asked for.
    pub entries: Vec<BlameEntry>,
}

/// A run of lines that come from one commit. Lines are counted from 0.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BlameEntry {
    /// Its lines in the file.
    pub lines: Range<u32>,
    /// The commit that they come from.
    pub commit: ObjectId,
    /// The path of the file in that commit.
    pub path: Arc<[u8]>,
    /// The first of the lines in the file of that commit.
    pub first: u32,
    /// Whether the lines may be older: a bound ended the search at this commit.
    pub is_boundary: bool,
}

/// A path, and what is found there.
type Renamed = (Arc<[u8]>, Found);

/// A run of lines on the way to its origin.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Span {
    /// The first line in the file that is blamed.
    line: u32,
    /// The same line where the run waits.
    at: u32,
    lines: u32,
}

/// A file of a commit, with the lines that wait there.
struct Origin {
    path: Arc<[u8]>,
    found: Found,
    spans: Vec<Span>,
}

/// A parent's file.
struct Former {
    commit: Oid,
    time: i64,
    path: Arc<[u8]>,
    found: Found,
}

/// See [`Reader::blame`](super::Reader::blame).
pub(super) fn blame(
    source: &Source<'_>,
    commit: ObjectId,
    path: &[u8],
    range: Range<u32>,
) -> Result<Option<Blame>, ReadError> {
    let Some(entry) = entry::entry(source, commit, path)? else {
        return Ok(None);
    };
    entry.expect_blob()?;
    let data = source.blob(entry.oid(), source.limits().blame_blob_bytes_max)?;
    let lines_max = source.limits().diff_lines_max;
    let lines = lines(&data).len();
    if lines > lines_max {
        return Err(ReadError::TooManyLines {
            id: entry.id(),
            lines,
            lines_max,
        });
    }
    let count = u32::try_from(lines).unwrap_or(u32::MAX);
    let range = range.start.min(count)..range.end.min(count);
    let mut walk = BlameWalk::new(source);
    if !range.is_empty() {
        let (id, commit) = source.start(commit)?;
        let former = Former {
            commit: id,
            time: commit.time,
            path: path.into(),
            found: Found {
                kind: entry.kind(),
                id: *entry.oid(),
            },
        };
        let span = Span {
            line: range.start,
            at: range.start,
            lines: range.end - range.start,
        };
        walk.give(&former, vec![span]);
        walk.run()?;
    }
    Ok(Some(Blame {
        entry,
        data,
        lines: count,
        entries: joined(walk.done),
    }))
}

/// A walk from commit to commit, the newest first.
struct BlameWalk<'a, 's> {
    source: &'a Source<'s>,
    queue: BinaryHeap<(i64, Reverse<u64>, Oid)>,
    waiting: BTreeMap<Oid, Vec<Origin>>,
    queued: u64,
    done: Vec<BlameEntry>,
}

impl<'a, 's> BlameWalk<'a, 's> {
    const fn new(source: &'a Source<'s>) -> Self {
        Self {
            source,
            queue: BinaryHeap::new(),
            waiting: BTreeMap::new(),
            queued: 0,
            done: Vec::new(),
        }
    }

    fn run(&mut self) -> Result<(), ReadError> {
        let mut commits = 0;
        while let Some((_, _, id)) = self.queue.pop() {
            commits += 1;
            let origins = self.waiting.remove(&id).unwrap_or_default();
            if commits > self.source.limits().blame_commits_max {
                for origin in &origins {
                    self.finish(&id, &origin.path, &origin.spans, true);
                }
                continue;
            }
            let commit = self.source.commit(&id)?;
            for origin in origins {
                self.pass(&id, &commit, origin)?;
            }
        }
        Ok(())
    }

    /// Lines that wait at a commit from now on.
    fn give(&mut self, to: &Former, mut spans: Vec<Span>) {
        if spans.is_empty() {
            return;
        }
        let origins = self.waiting.entry(to.commit).or_default();
        if origins.is_empty() {
            self.queue.push((to.time, Reverse(self.queued), to.commit));
            self.queued += 1;
        }
        match origins.iter_mut().find(|origin| origin.path == to.path) {
            Some(origin) => origin.spans.append(&mut spans),
            None => origins.push(Origin {
                path: Arc::clone(&to.path),
                found: to.found,
                spans,
            }),
        }
    }

    /// Lines that come from a commit.
    fn finish(&mut self, commit: &Oid, path: &Arc<[u8]>, spans: &[Span], is_boundary: bool) {
        self.done.extend(spans.iter().map(|span| BlameEntry {
            lines: span.line..span.line + span.lines,
            commit: from_gix(commit),
            path: Arc::clone(path),
            first: span.at,
            is_boundary,
        }));
    }

    /// Gives the lines of an origin to the parents that have them; the others come from the commit.
    fn pass(&mut self, id: &Oid, commit: &Commit, origin: Origin) -> Result<(), ReadError> {
        let formers = match self.formers(commit, &origin)? {
            Formers::Same(former) => {
                self.give(&former, origin.spans);
                return Ok(());
            }
            Formers::Changed(formers) => formers,
        };
        let Origin {
            path,
            found,
            mut spans,
        } = origin;
        let mut is_boundary = false;
        if !formers.is_empty() {
            let limits = self.source.limits();
            let bytes_max = limits.blame_blob_bytes_max;
            let after = self.source.blob(&found.id, bytes_max)?;
            for former in formers {
                let hunks = match self.source.blob(&former.found.id, bytes_max) {
                    Ok(before) => hunks(&before, &after, limits.diff_lines_max),
                    Err(ReadError::TooLarge { .. }) => None,
                    Err(error) => return Err(error),
                };
                if let Some(hunks) = hunks {
                    let (kept, given) = split(&spans, &hunks);
                    self.give(&former, given);
                    spans = kept;
                } else {
                    is_boundary = true;
                }
            }
        }
        self.finish(id, &path, &spans, is_boundary);
        Ok(())
    }

    /// The files of the parents that an origin may come from: the same path, else a renamed one.
    fn formers(&self, commit: &Commit, origin: &Origin) -> Result<Formers, ReadError> {
        let mut formers: Vec<Option<Former>> = Vec::new();
        formers.resize_with(commit.parents.len(), || None);
        // A renamed file may have had a path that cannot be looked up.
        let Ok(names) = self.source.names(&origin.path) else {
            return Ok(Formers::Changed(Vec::new()));
        };
        for renamed in [false, true] {
            for (number, parent) in commit.parents.iter().enumerate() {
                if formers[number].is_some() {
                    continue;
                }
                let id = *parent;
                let parent = self.source.commit(&id)?;
                let found = if renamed {
                    self.renamed(&parent, commit, origin)?
                } else {
                    let found = self.source.lookup(parent.tree, &names)?;
                    let found = found.filter(|found| found.kind.is_type_of(origin.found.kind));
                    found.map(|found| (Arc::clone(&origin.path), found))
                };
                let Some((path, found)) = found else {
                    continue;
                };
                let former = Former {
                    commit: id,
                    time: parent.time,
                    path,
                    found,
                };
                if former.found.id == origin.found.id {
                    return Ok(Formers::Same(former));
                }
                let mut others = formers.iter().flatten();
                if !others.any(|other| other.found.id == former.found.id) {
                    formers[number] = Some(former);
                }
            }
        }
        Ok(Formers::Changed(formers.into_iter().flatten().collect()))
    }

    /// The file of a parent that was renamed to the path of an origin, if the path is new.
    fn renamed(
        &self,
        parent: &Commit,
        commit: &Commit,
        origin: &Origin,
    ) -> Result<Option<Renamed>, ReadError> {
        let (changes, is_truncated) = differences(self.source, Some(parent.tree), commit.tree)?;
        if is_truncated {
            return Ok(None);
        }
        let mut deleted: Vec<&Entry> = Vec::new();
        let mut added: Vec<&Entry> = Vec::new();
        for change in &changes {
            match change.kind() {
                ChangeKind::Deleted => deleted.extend(change.before()),
                ChangeKind::Added if *change.path() == *origin.path => {
                    added.extend(change.after());
                }
                ChangeKind::Added
                | ChangeKind::Modified
                | ChangeKind::TypeChanged
                | ChangeKind::Renamed => {}
            }
        }
        if added.is_empty() {
            return Ok(None);
        }
        deleted.sort_by(|left, right| left.path().cmp(right.path()));
        let found = renames::find(self.source, &deleted, &added)?;
        Ok(found.pairs.first().map(|pair| {
            let old = deleted[pair.source];
            let found = Found {
                kind: old.kind(),
                id: *old.oid(),
            };
            (Arc::from(old.path()), found)
        }))
    }
}

/// The files of parents that an origin may come from.
enum Formers {
    /// A parent has the file as it is.
    Same(Former),
    /// Parents have other versions of it, or there is none.
    Changed(Vec<Former>),
}

/// Splits runs of lines into those that a commit changed and those that its parent has, the latter
/// with their lines in the parent.
fn split(spans: &[Span], hunks: &[LineHunk]) -> (Vec<Span>, Vec<Span>) {
    let (mut kept, mut given) = (Vec::new(), Vec::new());
    for span in spans {
        let mut rest = *span;
        while rest.lines > 0 {
            let passed = hunks.partition_point(|hunk| hunk.after.end <= rest.at);
            let end = rest.at + rest.lines;
            let next = hunks.get(passed);
            let changed = next.filter(|hunk| hunk.after.start <= rest.at);
            let lines = match (changed, next) {
                (Some(hunk), _) => hunk.after.end.min(end) - rest.at,
                (None, Some(hunk)) => hunk.after.start.min(end) - rest.at,
                (None, None) => rest.lines,
            };
            let mut part = Span { lines, ..rest };
            if changed.is_some() {
                kept.push(part);
            } else {
                if let Some(hunk) = passed.checked_sub(1).and_then(|last| hunks.get(last)) {
                    part.at = rest.at - hunk.after.end + hunk.before.end;
                }
                given.push(part);
            }
            rest = Span {
                line: rest.line + lines,
                at: rest.at + lines,
                lines: rest.lines - lines,
            };
        }
    }
    (kept, given)
}

/// Runs in the order of their lines; those that continue the one before them are joined with it.
fn joined(mut entries: Vec<BlameEntry>) -> Vec<BlameEntry> {
    entries.sort_by_key(|entry| entry.lines.start);
    let mut joined: Vec<BlameEntry> = Vec::with_capacity(entries.len());
    for entry in entries {
        match joined.last_mut() {
            Some(last) if continues(last, &entry) => last.lines.end = entry.lines.end,
            Some(_) | None => joined.push(entry),
        }
    }
    joined
}

fn continues(last: &BlameEntry, entry: &BlameEntry) -> bool {
    last.lines.end == entry.lines.start
        && last.first + (last.lines.end - last.lines.start) == entry.first
        && (last.commit, &last.path) == (entry.commit, &entry.path)
        && last.is_boundary == entry.is_boundary
}

#[cfg(test)]
mod tests {
    use super::*;

    fn span(line: u32, at: u32, lines: u32) -> Span {
        Span { line, at, lines }
    }

    #[test]
    fn lines_outside_hunks_go_to_the_parent() {
        let hunk = |before: Range<u32>, after: Range<u32>| LineHunk { before, after };
        // Two new lines in front, one replaced, two deleted behind.
        let hunks = [hunk(0..0, 0..2), hunk(3..4, 5..6), hunk(6..8, 8..8)];
        let (kept, given) = split(&[span(10, 0, 12)], &hunks);
        assert_eq!(kept, [span(10, 0, 2), span(15, 5, 1)]);
        assert_eq!(given, [span(12, 0, 3), span(16, 4, 2), span(18, 8, 4)]);
        // Spans may lie in any order, and over each other.
        let (kept, given) = split(&[span(0, 7, 2), span(5, 1, 1), span(6, 7, 1)], &hunks);
        assert_eq!(kept, [span(5, 1, 1)]);
        assert_eq!(given, [span(0, 5, 1), span(1, 8, 1), span(6, 5, 1)]);
    }

    #[test]
    fn runs_that_continue_each_other_are_joined() {
        let run = |lines: Range<u32>, first: u32| BlameEntry {
            lines,
            commit: ObjectId::Sha1([1; 20]),
            path: Arc::from(&b"a"[..]),
            first,
            is_boundary: false,
        };
        let runs = joined(vec![run(5..6, 9), run(0..3, 0), run(3..5, 3)]);
        assert_eq!(runs, [run(0..5, 0), run(5..6, 9)]);
    }
}
