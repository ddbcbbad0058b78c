//! Changed lines between two blobs.

use std::ops::Range;
use std::sync::Arc;

use gix_imara_diff::sources::byte_lines;
use gix_imara_diff::{Algorithm, Diff, InternedInput};

use crate::read::entry::is_binary;
use crate::read::source::Source;
use crate::read::{Change, Entry, PathKind, ReadError};

/// The difference between the two sides of a change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum BlobDiff {
    /// Both sides are text, or not there.
    Lines(LineDiff),
    /// A side is binary.
    Binary {
        /// Bytes before the change; 0 where there is no content.
        bytes_before: u64,
        /// Bytes after the change; 0 where there is no content.
        bytes_after: u64,
    },
    /// A side is larger than [`ReadLimits::diff_blob_bytes_max`](super::ReadLimits), or has more
    /// lines than `diff_lines_max` there.
    TooLarge {
        /// Bytes before the change; 0 where there is no content.
        bytes_before: u64,
        /// Bytes after the change; 0 where there is no content.
        bytes_after: u64,
    },
    /// A side is a submodule: its content is in another repository.
    Submodule,
}

/// Lines that differ.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LineDiff {
    before: Arc<Vec<u8>>,
    after: Arc<Vec<u8>>,
    hunks: Vec<LineHunk>,
}

impl LineDiff {
    /// The content before the change; empty where there is none.
    pub fn before(&self) -> &[u8] {
        &self.before
    }

    /// The content after the change; empty where there is none.
    pub fn after(&self) -> &[u8] {
        &self.after
    }

    /// The lines before the change, each with its line feed; the last one may have none.
    pub fn lines_before(&self) -> Vec<&[u8]> {
        lines(&self.before)
    }

    /// The lines after the change, in the same form.
    pub fn lines_after(&self) -> Vec<&[u8]> {
        lines(&self.after)
    }

    /// The runs of lines that differ, ascending. There is a line that does not differ between any
    /// two of them.
    pub fn hunks(&self) -> &[LineHunk] {
        &self.hunks
    }
}

/// A run of lines that was replaced by another. Lines are counted from 0; either run may be empty.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LineHunk {
    /// Lines before the change.
    pub before: Range<u32>,
    /// Lines after the change.
    pub after: Range<u32>,
}

/// See [`Reader::diff`](super::Reader::diff).
pub(super) fn diff(source: &Source<'_>, change: &Change) -> Result<BlobDiff, ReadError> {
    let sides = [change.before(), change.after()];
    let is_submodule = |side: &Entry| side.kind() == PathKind::Submodule;
    if sides.into_iter().flatten().any(is_submodule) {
        return Ok(BlobDiff::Submodule);
    }
    let bytes = |side: Option<&Entry>| match side {
        Some(side) => source.blob_bytes(side.oid()),
        None => Ok(0),
    };
    let (bytes_before, bytes_after) = (bytes(change.before())?, bytes(change.after())?);
    let too_large = BlobDiff::TooLarge {
        bytes_before,
        bytes_after,
    };
    let bytes_max = source.limits().diff_blob_bytes_max;
    if bytes_before.max(bytes_after) > bytes_max {
        return Ok(too_large);
    }
    let data = |side: Option<&Entry>| match side {
        Some(side) => source.blob(side.oid(), bytes_max),
        None => Ok(Arc::default()),
    };
    let (before, after) = (data(change.before())?, data(change.after())?);
    if is_binary(&before) || is_binary(&after) {
        return Ok(BlobDiff::Binary {
            bytes_before,
            bytes_after,
        });
    }
    let hunks = hunks(&before, &after, source.limits().diff_lines_max);
    Ok(hunks.map_or(too_large, |hunks| {
        BlobDiff::Lines(LineDiff {
            before,
            after,
            hunks,
        })
    }))
}

/// The runs of lines that differ, as `git diff` finds them: Myers' algorithm, and hunks moved to
/// where the indentation changes. `None` when a side has more than `lines_max` lines: lines that
/// repeat make the time grow with the square of their number.
pub(super) fn hunks(before: &[u8], after: &[u8], lines_max: usize) -> Option<Vec<LineHunk>> {
    if before == after {
        return Some(Vec::new());
    }
    let input = InternedInput::new(byte_lines(before), byte_lines(after));
    if input.before.len().max(input.after.len()) > lines_max {
        return None;
    }
    let mut diff = Diff::compute(Algorithm::Myers, &input);
    diff.postprocess_lines(&input);
    let hunks = diff.hunks();
    let hunks = hunks.map(|hunk| LineHunk {
        before: hunk.before,
        after: hunk.after,
    });
    Some(hunks.collect())
}

/// The lines of a blob, each with its line feed; the last one may have none.
pub(super) fn lines(data: &[u8]) -> Vec<&[u8]> {
    byte_lines(data).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        /// What stands between the hunks is the same on both sides.
        #[test]
        fn hunks_lead_from_one_side_to_the_other(
            before in "[ab\n]{0,40}", after in "[ab\n]{0,40}", times in 1_usize..20,
        ) {
            let (before, after) = (before.repeat(times), after.repeat(times));
            let (before, after) = (before.as_bytes(), after.as_bytes());
            let (old, new) = (lines(before), lines(after));
            let place = |line: u32| usize::try_from(line).unwrap();
            let mut made: Vec<&[u8]> = Vec::new();
            let mut at = 0;
            for hunk in hunks(before, after, usize::MAX).unwrap() {
                made.extend(&old[at..place(hunk.before.start)]);
                prop_assert_eq!(made.len(), place(hunk.after.start));
                made.extend(&new[place(hunk.after.start)..place(hunk.after.end)]);
                at = place(hunk.before.end);
            }
            made.extend(&old[at..]);
            prop_assert_eq!(made, new);
        }
    }
}
