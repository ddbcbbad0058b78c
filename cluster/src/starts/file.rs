//! `starts.json`: the data directory's record of the starts of its node. It is written durably
//! before a start is sent to another node.

use std::io;
use std::path::{Path, PathBuf};

use henge_storage::disk::{Disk, OpenMode};
use henge_storage::wal;
use henge_types::limits::STARTS_DRAWN_MAX;
use henge_types::{RegisteredStart, StartClaim, StartId};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

/// The file's name in the data directory.
const FILE: &str = "starts.json";
/// The longest file that is read: it has a bounded number of ids.
const BYTES_MAX: usize = 64 * 1024;

/// Whether the directory was moved and is not confirmed by all members.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Place {
    /// It was not moved, or every member has confirmed it.
    #[default]
    Known,
    /// It was started with `--moved`, and a member has not confirmed it.
    Moved,
}

/// The data directory's record of the starts of its node.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct StartsFile {
    /// The last start that is known to be registered.
    #[serde(default)]
    pub(super) registered: Option<RegisteredStart>,
    /// Starts drawn since then; the last one is the newest.
    #[serde(default)]
    pub(super) drawn: Vec<StartId>,
    /// Whether the directory was moved.
    #[serde(default)]
    pub(super) place: Place,
    /// On disk: SHA-256 of the file without this field. A flipped bit in an id would make the node
    /// an old copy of itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    sum: Option<String>,
}

/// The remedy when the file is missing.
const fn way_out() -> &'static str {
    "It holds the starts of this node, by which the other nodes tell its data directory from an old copy. Put it back as \
     the node wrote it, and never one from a backup; where it cannot be, leave the node stopped: the other nodes have \
     everything that was acknowledged, and `henge node export --offline` writes what this disk has"
}

impl StartsFile {
    /// Reads the file; a new directory and one of an older release have none.
    ///
    /// # Errors
    /// When it is damaged, cannot be read, or is missing beside a log of a release that writes it.
    pub(super) fn read(disk: &dyn Disk, data_dir: &Path) -> io::Result<Self> {
        let path = data_dir.join(FILE);
        if disk.file_len(&path)?.is_none() {
            if wal::is_marked(disk, &data_dir.join("wal"))? {
                return Err(io::Error::other(format!(
                    "{} is gone. {}",
                    path.display(),
                    way_out()
                )));
            }
            return Ok(Self::default());
        }
        let mut bytes = vec![0; BYTES_MAX];
        let opened = disk.open(&path, OpenMode::Read);
        let read = opened.and_then(|file| file.read_at(&mut bytes, 0));
        let unreadable = |error: io::Error| {
            let path = path.display();
            io::Error::new(error.kind(), format!("{path} cannot be read: {error}"))
        };
        bytes.truncate(read.map_err(unreadable)?);
        let damaged = |why: String| {
            let path = path.display();
            io::Error::other(format!("{path} is damaged: {why}. {}", way_out()))
        };
        if bytes.is_empty() {
            return Err(damaged("it is empty".to_owned()));
        }
        let parsed = serde_json::from_slice(&bytes);
        let mut file: Self =
            parsed.map_err(|error| damaged(format!("a node did not write it so ({error})")))?;
        if let Some(sum) = file.sum.take()
            && sum != file.digest()
        {
            return Err(damaged("its checksum does not match".to_owned()));
        }
        Ok(file)
    }

    /// Checks that the log of a registered start exists: an empty one in its place would vote.
    ///
    /// # Errors
    /// When it is missing, or cannot be read.
    pub(super) fn check_log(&self, disk: &dyn Disk, data_dir: &Path) -> io::Result<()> {
        let log = data_dir.join("wal");
        if self.registered.is_none() || !wal::is_empty(disk, &log)? {
            return Ok(());
        }
        Err(io::Error::other(format!(
            "{} holds no log, and this node has written one: its votes and pushes were acknowledged. Put the files back as they \
             were; where they cannot be, leave the node stopped: the other nodes have everything that was acknowledged",
            log.display()
        )))
    }

    /// SHA-256 of the file without its checksum.
    fn digest(&self) -> String {
        let bare = Self {
            sum: None,
            ..self.clone()
        };
        let bytes = serde_json::to_vec(&bare).expect("invariant: plain fields are representable");
        hex::encode(Sha256::digest(bytes))
    }

    /// Replaces the file, durably.
    pub(super) fn write(&self, disk: &dyn Disk, data_dir: &Path) -> io::Result<()> {
        let path: PathBuf = data_dir.join(FILE);
        let unfinished = data_dir.join("starts.json.new");
        let stored = Self {
            sum: Some(self.digest()),
            ..self.clone()
        };
        let bytes = serde_json::to_vec(&stored).map_err(io::Error::other)?;
        let file = disk.open(&unfinished, OpenMode::Create)?;
        file.write_at(&bytes, 0)?;
        file.sync_all()?;
        disk.rename(&unfinished, &path)?;
        disk.sync_dir(data_dir)
    }

    /// Draws one more start. Returns the process's claim from then on.
    pub(super) fn draw(&mut self, start: StartId) -> StartClaim {
        if self.drawn.len() < STARTS_DRAWN_MAX {
            self.drawn.push(start);
        }
        self.claim()
    }

    /// The process's claim: its start is the newest one.
    pub(super) fn claim(&self) -> StartClaim {
        let (newest, before) = match (self.drawn.split_last(), self.registered) {
            (Some((newest, before)), _) => (*newest, before.to_vec()),
            (None, Some(registered)) => (registered.start, Vec::new()),
            (None, None) => (StartId::from_bytes([0; 16]), Vec::new()),
        };
        StartClaim {
            start: newest,
            last: self.registered,
            drawn: before,
        }
    }

    /// Records that a start was registered: starts drawn up to it are removed.
    pub(super) fn register(&mut self, registered: RegisteredStart) {
        let at = self
            .drawn
            .iter()
            .position(|start| *start == registered.start);
        if let Some(at) = at {
            self.drawn.drain(..=at);
        }
        self.registered = Some(registered);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use henge_storage::disk::OsDisk;
    use henge_types::LogIndex;

    fn start(number: u8) -> StartId {
        StartId::from_bytes([number; 16])
    }

    #[test]
    fn the_file_comes_back_and_a_directory_without_one_is_empty() {
        let dir = tempfile::tempdir().expect("a folder");
        let mut file = StartsFile::read(&OsDisk, dir.path()).expect("reads");
        assert_eq!(file, StartsFile::default());
        let claim = file.draw(start(1));
        assert_eq!((claim.start, claim.last), (start(1), None));
        file.place = Place::Moved;
        file.write(&OsDisk, dir.path()).expect("written");
        assert_eq!(StartsFile::read(&OsDisk, dir.path()).expect("reads"), file);
    }

    /// The error of a damaged file was the parser's message with a line and a column.
    #[test]
    fn a_damaged_file_is_explained() {
        let dir = tempfile::tempdir().expect("a folder");
        for (bytes, why) in [
            ("", "is empty"),
            ("{", "did not write it so"),
            ("\0\0\0\0", "did not write it so"),
            (r#"{"sum":"00"}"#, "checksum does not match"),
        ] {
            std::fs::write(dir.path().join(FILE), bytes).expect("written");
            let error = StartsFile::read(&OsDisk, dir.path()).expect_err(why);
            let words = error.to_string();
            for part in [
                "starts.json is damaged",
                why,
                "the starts of this node",
                "Put it back",
            ] {
                assert!(words.contains(part), "{part}: {words}");
            }
        }
    }

    /// The file was removed under a running node. Its next start wrote a new one, and the node was
    /// refused as an old copy from then on, also when the old file had been put back.
    #[test]
    fn one_that_is_gone_is_not_made_anew() {
        let dir = tempfile::tempdir().expect("a folder");
        let config = wal::WalConfig {
            segment_bytes: 64 * 1024,
            bytes_max: 1024 * 1024,
            ..wal::WalConfig::new(dir.path().join("wal"))
        };
        std::fs::create_dir(dir.path().join("wal")).expect("made");
        StartsFile::read(&OsDisk, dir.path()).expect("a directory without a log");
        let clock = henge_runtime::SystemClock::shared();
        let log = wal::Wal::open(std::sync::Arc::new(OsDisk), clock, config).expect("opens");
        log.close().expect("closes");
        let error = StartsFile::read(&OsDisk, dir.path()).expect_err("it is gone");
        let words = error.to_string();
        assert!(words.contains("starts.json is gone"), "{words}");
        assert!(words.contains("Put it back"), "{words}");
    }

    /// A node whose log was missing started with an empty one, and voted with it until a peer
    /// refused it.
    #[test]
    fn a_log_that_is_gone_is_not_made_anew() {
        let dir = tempfile::tempdir().expect("a folder");
        let mut file = StartsFile::default();
        file.draw(start(1));
        file.check_log(&OsDisk, dir.path())
            .expect("a new directory has none");
        file.register(RegisteredStart {
            start: start(1),
            index: LogIndex::new(1),
        });
        let error = file.check_log(&OsDisk, dir.path()).expect_err("it is gone");
        assert!(error.to_string().contains("holds no log"), "{error}");
        // The log itself reports the damage of an existing file.
        std::fs::create_dir(dir.path().join("wal")).expect("made");
        let segment = dir.path().join("wal/0000000000000000.seg");
        for (bytes, is_log) in [
            (vec![0; 65536], false),
            (vec![1; 65536], true),
            (Vec::new(), true),
        ] {
            std::fs::write(&segment, bytes).expect("written");
            assert_eq!(file.check_log(&OsDisk, dir.path()).is_ok(), is_log);
        }
    }

    /// A flipped bit in the id of the registered start made the node refused as an old copy of
    /// itself.
    #[test]
    fn a_flipped_bit_is_found() {
        let dir = tempfile::tempdir().expect("a folder");
        let mut file = StartsFile::default();
        file.draw(start(1));
        file.write(&OsDisk, dir.path()).expect("written");
        let path = dir.path().join(FILE);
        let bytes = std::fs::read(&path).expect("read");
        for at in 0..bytes.len() {
            let mut damaged = bytes.clone();
            damaged[at] ^= 1;
            std::fs::write(&path, &damaged).expect("written");
            assert!(StartsFile::read(&OsDisk, dir.path()).is_err(), "byte {at}");
        }
    }

    #[test]
    fn a_registration_forgets_the_starts_up_to_it() {
        let mut file = StartsFile::default();
        for number in 1..=3 {
            file.draw(start(number));
        }
        let registered = RegisteredStart {
            start: start(2),
            index: LogIndex::new(7),
        };
        file.register(registered);
        assert_eq!(file.drawn, [start(3)]);
        let claim = file.draw(start(4));
        assert_eq!(claim.start, start(4));
        assert_eq!(claim.drawn, [start(3)]);
        assert_eq!(claim.last, Some(registered));
    }

    /// A node that finds no quorum for days and is restarted again and again must still start.
    #[test]
    fn drawn_starts_are_bounded() {
        let mut file = StartsFile::default();
        for number in 0..=255 {
            file.draw(start(number));
        }
        assert_eq!(file.drawn.len(), STARTS_DRAWN_MAX);
        let claim = file.claim();
        assert_eq!(Some(&claim.start), file.drawn.last());
    }
}
