//! The findings of the last check of a store, kept beside the store: they survive a restart, and
//! are removed with the store.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::Path;

use henge_types::status::CheckOutcome;
use henge_types::stored::StoredRecord as _;

/// Beside `objects/`, where git ignores a file of this name.
const NAME: &str = "henge-last-check";
/// An outcome has a bounded number of problems, one line each.
const BYTES_MAX: u64 = 1024 * 1024;

/// Stores the outcome in the directory of the network, replacing the previous one; durable on
/// return. Blocking.
///
/// # Errors
/// When the disk fails, or the network is gone.
pub(super) fn write(network_dir: &Path, outcome: &CheckOutcome) -> io::Result<()> {
    let path = network_dir.join(NAME);
    let unfinished = path.with_extension("new");
    let mut file = File::create(&unfinished)?;
    file.write_all(&outcome.encode())?;
    file.sync_all()?;
    fs::rename(&unfinished, &path)?;
    File::open(network_dir)?.sync_all()
}

/// The stored outcome, if any. Blocking.
///
/// # Errors
/// When it cannot be read, or is damaged or of a newer release.
pub(super) fn read(network_dir: &Path) -> io::Result<Option<CheckOutcome>> {
    let file = match File::open(network_dir.join(NAME)) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    let mut bytes = Vec::new();
    file.take(BYTES_MAX).read_to_end(&mut bytes)?;
    let outcome = CheckOutcome::decode(&bytes).map_err(io::Error::other)?;
    Ok(Some(outcome))
}

#[cfg(test)]
mod tests {
    use super::*;
    use henge_types::status::CheckProblem;

    fn outcome() -> CheckOutcome {
        CheckOutcome {
            run: 300,
            ended_at_ms: 1_767_225_600_000,
            took_ms: 7,
            packs: 2,
            objects: 300,
            reachable: Some(200),
            unreachable: None,
            problems: vec![CheckProblem {
                pack: Some("ab".to_owned()),
                object: None,
                text: "the pack is not here".to_owned(),
            }],
            more_problems: 1,
            repaired: vec!["cd".to_owned()],
            failed: Some("no".to_owned()),
        }
    }

    #[test]
    fn it_is_read_as_it_was_written_and_the_last_one_stays() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(read(dir.path()).unwrap(), None);
        write(dir.path(), &CheckOutcome::default()).unwrap();
        write(dir.path(), &outcome()).unwrap();
        assert_eq!(read(dir.path()).unwrap(), Some(outcome()));
        // An unfinished file is ignored, and a damaged one is an error.
        fs::write(dir.path().join(NAME).with_extension("new"), "x").unwrap();
        assert_eq!(read(dir.path()).unwrap(), Some(outcome()));
        fs::write(dir.path().join(NAME), "x").unwrap();
        assert!(read(dir.path()).is_err());
        assert!(write(&dir.path().join("gone"), &outcome()).is_err());
    }
}
