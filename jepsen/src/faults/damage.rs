//! Damage to one file of one node, at rest or under the running process, and its removal.

use std::fs::{self, File};
use std::os::unix::fs::{FileExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, ensure};
use rand::Rng as _;
use rand::rngs::StdRng;
use rand::seq::SliceRandom as _;

use super::files::FileKind;
use super::{Bite, Ends, Fault, Field, Injected};
use crate::plan::Kind;
use crate::ring::Ending;

/// Length of a log segment's header up to its generation, which shows whether the file was reused
/// since.
const SEGMENT_IDENTITY_BYTES: usize = 24;

/// The damage to a file, with the data needed to undo it. The open file is the damaged one, even
/// when another file has its name by now.
#[derive(Debug)]
pub(super) enum Wound {
    /// One flipped bit.
    Flip {
        path: PathBuf,
        file: File,
        at: u64,
        bit: u8,
        was: u8,
        head: Vec<u8>,
    },
    /// A missing end.
    Cut {
        path: PathBuf,
        file: File,
        left: u64,
        tail: Vec<u8>,
    },
    /// A file or folder moved away.
    Gone { path: PathBuf, aside: PathBuf },
}

fn open(path: &Path) -> anyhow::Result<File> {
    let file = File::options().read(true).write(true).open(path);
    file.with_context(|| format!("cannot open {}", path.display()))
}

impl Wound {
    pub(super) fn flip(path: &Path, at: usize, bit: u8, bytes: &[u8]) -> anyhow::Result<Self> {
        let file = open(path)?;
        let was = *bytes.get(at).context("an offset behind the end")?;
        let at = u64::try_from(at)?;
        file.write_all_at(&[was ^ bit], at)?;
        let mut now = [0];
        file.read_exact_at(&mut now, at)?;
        ensure!(now[0] == was ^ bit, "the flipped bit does not read back");
        let head = bytes.get(..SEGMENT_IDENTITY_BYTES.min(bytes.len()));
        Ok(Self::Flip {
            path: path.to_owned(),
            file,
            at,
            bit,
            was,
            head: head.unwrap_or_default().to_vec(),
        })
    }

    pub(super) fn cut(path: &Path, left: u64) -> anyhow::Result<Self> {
        let file = open(path)?;
        let length = file.metadata()?.len();
        let mut tail = vec![0; usize::try_from(length.saturating_sub(left))?];
        file.read_exact_at(&mut tail, left)?;
        file.set_len(left)?;
        ensure!(
            fs::metadata(path)?.len() == left,
            "the file is as long as before"
        );
        Ok(Self::Cut {
            path: path.to_owned(),
            file,
            left,
            tail,
        })
    }

    pub(super) fn remove(path: &Path, aside: &Path) -> anyhow::Result<Self> {
        fs::create_dir_all(aside)?;
        let aside = aside.join("removed");
        if aside.is_dir() {
            fs::remove_dir_all(&aside)?;
        }
        fs::rename(path, &aside)?;
        ensure!(!path.is_file() && !path.is_dir(), "it is still there");
        Ok(Self::Gone {
            path: path.to_owned(),
            aside,
        })
    }

    fn say(&self, data: &Path) -> String {
        let shown = |path: &Path| {
            path.strip_prefix(data)
                .unwrap_or(path)
                .display()
                .to_string()
        };
        match self {
            Self::Flip { path, at, bit, .. } => {
                format!(
                    "bit {bit:#04x} of byte {at} of {} reads back flipped",
                    shown(path)
                )
            }
            Self::Cut {
                path, left, tail, ..
            } => format!(
                "{} has {left} of {} bytes",
                shown(path),
                left.saturating_add(u64::try_from(tail.len()).unwrap_or(0))
            ),
            Self::Gone { path, .. } => format!("{} is gone", shown(path)),
        }
    }

    /// Whether the file under the name is still the damaged one.
    fn has_its_name(path: &Path, file: &File) -> bool {
        match (fs::metadata(path), file.metadata()) {
            (Ok(named), Ok(open)) => named.ino() == open.ino() && named.dev() == open.dev(),
            _ => false,
        }
    }

    /// Undoes the damage if it is still present; returns whether it did.
    fn undo(&self) -> anyhow::Result<bool> {
        match self {
            Self::Flip {
                path,
                file,
                at,
                bit,
                was,
                head,
            } => {
                let mut now = [0];
                let read = file.read_exact_at(&mut now, *at);
                let mut same_use = vec![0; head.len()];
                file.read_exact_at(&mut same_use, 0).ok();
                if let Some(byte) = usize::try_from(*at)
                    .ok()
                    .and_then(|at| same_use.get_mut(at))
                {
                    *byte ^= bit;
                }
                let still = read.is_ok()
                    && now[0] == was ^ bit
                    && same_use == *head
                    && Self::has_its_name(path, file);
                if still {
                    file.write_all_at(&[*was], *at)?;
                    file.sync_all()?;
                }
                Ok(still)
            }
            Self::Cut {
                path,
                file,
                left,
                tail,
            } => {
                let still = file.metadata()?.len() == *left && Self::has_its_name(path, file);
                if still {
                    file.write_all_at(tail, *left)?;
                    file.sync_all()?;
                }
                Ok(still)
            }
            Self::Gone { path, aside } => {
                let back = path.is_file() || path.is_dir();
                if !back && let Some(folder) = path.parent() {
                    fs::create_dir_all(folder)?;
                    fs::rename(aside, path)?;
                }
                Ok(!back)
            }
        }
    }
}

type Make = fn(&mut StdRng, &Path, FileKind, &Path) -> anyhow::Result<Option<Wound>>;

/// One damaged file.
#[derive(Debug)]
pub(super) struct Damage {
    make: Make,
    kind: Kind,
    done: Option<(Wound, FileKind)>,
    restart: Option<Ending>,
}

impl Damage {
    pub(super) fn new(kind: Kind, make: Make) -> Self {
        Self {
            make,
            kind,
            done: None,
            restart: None,
        }
    }

    /// The kinds of files to try, in order.
    fn kinds(&self, rng: &mut StdRng) -> Vec<FileKind> {
        let mut kinds = FileKind::FILES.to_vec();
        if self.kind == Kind::Removed {
            kinds.push(FileKind::Network);
        }
        kinds.shuffle(rng);
        kinds
    }

    fn wound(
        &self,
        rng: &mut StdRng,
        data: &Path,
        kinds: &[FileKind],
    ) -> anyhow::Result<Option<(Wound, FileKind)>> {
        for kind in kinds {
            let files = kind.list(data);
            if files.is_empty() {
                continue;
            }
            let path = files.get(rng.random_range(0..files.len()));
            let path = path.context("a file of the list")?;
            match (self.make)(rng, path, *kind, &data.with_file_name("aside")) {
                Ok(Some(wound)) => return Ok(Some((wound, *kind))),
                // Empty, or gone since the listing.
                Ok(None) => {}
                Err(error) if path.is_file() => return Err(error),
                Err(_) => {}
            }
        }
        Ok(None)
    }
}

impl Fault for Damage {
    fn inject(&mut self, field: &mut Field<'_>) -> anyhow::Result<Injected> {
        let kinds = self.kinds(&mut field.rng);
        let rest = match field.rng.random_range(0..4) {
            0 => Some(Ending::Stop),
            1 => Some(Ending::Kill),
            _ => None,
        };
        let again = field.rng.random_range(0..2) == 0;
        let ending = match field.rng.random_range(0..2) {
            0 => Ending::Stop,
            _ => Ending::Kill,
        };
        let data = field.ring.node(field.node)?.data.clone();
        // A log that is cut or removed under its writer grows again, and its old bytes could not be
        // restored: such damage needs a stopped node.
        let first = kinds.first().copied();
        let rest = match (rest, first, self.kind) {
            (None, Some(FileKind::Wal), Kind::Torn | Kind::Removed) => Some(ending),
            (rest, _, _) => rest,
        };
        let kinds: Vec<FileKind> = kinds
            .into_iter()
            .filter(|kind| rest.is_some() || *kind != FileKind::Wal || self.kind == Kind::BitFlip)
            .collect();
        if let Some(ending) = rest {
            field.ring.end(field.node, ending)?;
        }
        let done = self.wound(&mut field.rng, &data, &kinds)?;
        if rest.is_some() {
            field.ring.start(field.node)?;
        }
        let Some((wound, kind)) = done else {
            return Ok(Injected::NotPossible("no file to damage".to_owned()));
        };
        if rest.is_none() && (kind.read_at_start() || again) {
            self.restart = Some(ending);
        }
        let when = match (rest, self.restart) {
            (Some(ending), _) => format!("at rest after {ending:?}"),
            (None, Some(ending)) => format!("running, {ending:?} and start later"),
            (None, None) => "running".to_owned(),
        };
        let mut bite = Bite::new(
            format!("{kind:?} {when}: {}", wound.say(&data)),
            [field.node],
        );
        bite.ends = match (kind.refusal(), kind) {
            (Some(words), _) => Ends::MayRefuse(words),
            (None, FileKind::Kv) => Ends::MayRestart,
            (None, _) => Ends::Never,
        };
        bite.hold = Duration::from_millis(field.rng.random_range(2_000..4_000));
        self.done = Some((wound, kind));
        Ok(Injected::Bit(bite))
    }

    fn heal(&mut self, field: &mut Field<'_>) -> anyhow::Result<()> {
        if let Some(ending) = self.restart
            && field.ring.runs(field.node)
        {
            field.ring.end(field.node, ending)?;
            field.ring.start(field.node)?;
        }
        Ok(())
    }

    fn undo(&mut self, field: &mut Field<'_>) -> anyhow::Result<Option<String>> {
        let Some((wound, kind)) = self.done.take() else {
            return Ok(None);
        };
        // A log that its node accepted has new records since: the old part no longer fits.
        let taken = kind == FileKind::Wal && field.ring.runs(field.node);
        if taken && !matches!(wound, Wound::Flip { .. }) {
            return Ok(None);
        }
        if !kind.immutable() || !wound.undo()? {
            return Ok(None);
        }
        Ok(Some("put back by the harness".to_owned()))
    }
}
