//! Flips one bit of a file.

use std::path::Path;

use rand::Rng as _;
use rand::rngs::StdRng;

use super::damage::Wound;
use super::files::FileKind;

/// Flips a bit in the used part of a file.
pub(super) fn wound(
    rng: &mut StdRng,
    path: &Path,
    kind: FileKind,
    _aside: &Path,
) -> anyhow::Result<Option<Wound>> {
    let bytes = std::fs::read(path)?;
    // The unused part of a log is zeros and is never read.
    let written = match kind {
        FileKind::Wal => bytes
            .iter()
            .rposition(|byte| *byte != 0)
            .map_or(0, |at| at + 1),
        FileKind::Snapshot
        | FileKind::Kv
        | FileKind::Pack
        | FileKind::Index
        | FileKind::Sidecar
        | FileKind::Identity
        | FileKind::Staged
        | FileKind::Network => bytes.len(),
    };
    if written == 0 {
        return Ok(None);
    }
    let at = rng.random_range(0..written);
    let bit = 1_u8 << rng.random_range(0..8_u32);
    Wound::flip(path, at, bit, &bytes).map(Some)
}
