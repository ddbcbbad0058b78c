//! Places where a test may end the process: between two steps whose order matters.
//!
//! The same files switch states on that a test wants to last, such as a cut network.
//!
//! Nothing is armed unless the node was told so at its start, and then only until it was hit once.
//! A hit ends the process as `kill -9` would: no destructor, no flush.

use std::path::{Path, PathBuf};
use std::sync::OnceLock;

static ARMED: OnceLock<PathBuf> = OnceLock::new();

/// From now on [`hit`] looks into this directory: a file named like the failpoint arms it, and is
/// removed when it is hit, so that the next start runs through.
pub fn arm_from(dir: PathBuf) {
    // The second call of a process changes nothing: tests of one process share the directory.
    ARMED.set(dir).ok();
}

/// Ends the process here if the failpoint is armed.
pub fn hit(name: &'static str) {
    if let Some(dir) = ARMED.get() {
        end_if_armed(dir, name);
    }
}

/// Whether the failpoint is armed: for states rather than moments. It stays so until the file is removed.
pub fn is_armed(name: &'static str) -> bool {
    ARMED.get().is_some_and(|dir| dir.join(name).is_file())
}

fn end_if_armed(dir: &Path, name: &'static str) {
    if std::fs::remove_file(dir.join(name)).is_ok() {
        tracing::warn!(name, "failpoint hit: the process ends here");
        std::process::abort();
    }
}
