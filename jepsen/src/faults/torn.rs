//! Truncates a file.

use std::path::Path;

use rand::Rng as _;
use rand::rngs::StdRng;

use super::damage::Wound;
use super::files::FileKind;

/// Truncates a file at a random length, or to nothing.
pub(super) fn wound(
    rng: &mut StdRng,
    path: &Path,
    _kind: FileKind,
    _aside: &Path,
) -> anyhow::Result<Option<Wound>> {
    let length = std::fs::metadata(path)?.len();
    if length == 0 {
        return Ok(None);
    }
    let left = match rng.random_range(0..3) {
        0 => 0,
        _ => rng.random_range(0..length),
    };
    Wound::cut(path, left).map(Some)
}
