//! Failpoints: a test ends the process between two steps whose order matters.
//!
//! The same files switch on states that last, such as a cut network.
//!
//! Failpoints work only in a node that was started with them enabled. A hit removes the file of the
//! failpoint and ends the process as `kill -9` would: no destructor, no flush.

use std::path::{Path, PathBuf};
use std::sync::OnceLock;

static ARMED: OnceLock<PathBuf> = OnceLock::new();

/// Enables failpoints from this directory: a file arms the failpoint of its name. A hit removes the
/// file, so that the next start runs through.
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

/// Whether the failpoint is armed; for states that last. A state ends when its file is removed.
pub fn is_armed(name: &'static str) -> bool {
    ARMED.get().is_some_and(|dir| dir.join(name).is_file())
}

fn end_if_armed(dir: &Path, name: &'static str) {
    if std::fs::remove_file(dir.join(name)).is_ok() {
        tracing::warn!(name, "failpoint hit: the process ends here");
        std::process::abort();
    }
}
