//! One bit of a file becomes another one.

use std::path::Path;

use rand::Rng as _;
use rand::rngs::StdRng;

use super::damage::Wound;
use super::files::FileKind;

/// Flips a bit where something is written.
pub(super) fn wound(
    rng: &mut StdRng,
    path: &Path,
    kind: FileKind,
    _aside: &Path,
) -> anyhow::Result<Option<Wound>> {
    let bytes = std::fs::read(path)?;
    // What a log has not reached yet is zeros, and read by nothing.
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
