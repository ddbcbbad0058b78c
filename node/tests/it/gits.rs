//! The git programs of this machine.

use std::path::{Path, PathBuf};

/// The git built from source and the distribution's; a missing second one is printed.
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
