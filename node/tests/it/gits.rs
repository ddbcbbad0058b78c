//! The gits of this machine.

use std::path::{Path, PathBuf};

/// The one people build and the one their distribution brings; a missing second one is said loudly.
pub(crate) fn gits() -> Vec<PathBuf> {
    let mut gits: Vec<PathBuf> = Vec::new();
    for candidate in ["/usr/local/bin/git", "/usr/bin/git"] {
        if Path::new(candidate).is_file() {
            gits.push(candidate.into());
        }
    }
    assert!(!gits.is_empty(), "no git on this machine");
    if gits.len() < 2 {
        eprintln!("NOT CHECKED: a second git (only {gits:?} here)");
    }
    gits
}
