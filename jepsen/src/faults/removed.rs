//! Removes a file or a folder.

use std::path::Path;

use rand::rngs::StdRng;

use super::damage::Wound;
use super::files::FileKind;

/// Moves it out of the data directory, so that it can be restored unchanged.
pub(super) fn wound(
    _rng: &mut StdRng,
    path: &Path,
    _kind: FileKind,
    aside: &Path,
) -> anyhow::Result<Option<Wound>> {
    Wound::remove(path, aside).map(Some)
}
