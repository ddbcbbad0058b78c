//! One plain bare repository from a shard's state and the packs on the disk.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use henge_cluster::offline::LogExtent;
use henge_state::{ShardView, State};
use henge_storage::objects::{ObjectError, ObjectStore};
use henge_types::{NetworkId, ObjectFormat, ObjectId, PackId, ShardRepo};

use super::copy;

/// Refs without an object that a report names; further ones are only counted.
const REFS_NAMED_MAX: usize = 20;
/// A version 2 index: signature and version, then 256 counts of four bytes, then the object ids.
const IDX_SIGNATURE: [u8; 8] = [0xff, b't', b'O', b'c', 0, 0, 0, 2];
const IDX_NAMES_AT: usize = 8 + 256 * 4;

/// A source of packs.
#[derive(Debug)]
pub(super) enum Source {
    /// The object stores of the fork networks.
    Networks(PathBuf),
    /// A directory of packs.
    Flat(PathBuf),
}

impl Source {
    fn dir(&self, network: &NetworkId) -> PathBuf {
        match self {
            Self::Flat(dir) => dir.clone(),
            Self::Networks(root) => {
                let name = network.to_string();
                let (fan, _) = name.split_at(2);
                root.join(fan).join(&name).join("objects").join("pack")
            }
        }
    }
}

/// The input for all repositories.
#[derive(Debug)]
pub(super) struct Work {
    /// In the order of the attempts.
    pub(super) sources: Vec<Source>,
    /// Verifies packs.
    pub(super) store: ObjectStore,
}

/// The result of one repository.
#[derive(Debug, Default)]
pub(super) struct Report {
    refs: usize,
    packs: usize,
    bytes: u64,
    /// The missing parts, one sentence each; empty for a whole repository.
    pub(super) missing: Vec<String>,
}

impl Report {
    /// A repository without any data.
    pub(super) fn absent(reason: String) -> Self {
        Self {
            missing: vec![reason],
            ..Self::default()
        }
    }

    /// The repository's line. If the log was not read in whole, the last pushes are unknown.
    pub(super) fn line(&self, name: &str, log: LogExtent) -> String {
        let state = match (self.missing.is_empty(), log) {
            (true, LogExtent::Whole) => "whole",
            (true, LogExtent::Beginning) => {
                "whole up to where the log was read, its last pushes may be missing"
            }
            (false, _) => "INCOMPLETE",
        };
        format!(
            "{name}: {state}, {} refs, {} packs, {} bytes",
            self.refs, self.packs, self.bytes
        )
    }
}

impl Work {
    /// Writes the repository; the report has the missing parts.
    ///
    /// # Errors
    /// When `path` cannot be written.
    pub(super) fn write(
        &self,
        path: &Path,
        shard: ShardView<'_, State>,
        repo: &ShardRepo,
    ) -> anyhow::Result<Report> {
        let packs_dir = path.join("objects").join("pack");
        for name in ["objects/pack", "objects/info", "refs/heads", "refs/tags"] {
            fs::create_dir_all(path.join(name)).context("cannot make its directories")?;
        }
        let mut report = Report::default();
        for record in shard.packs(&repo.network) {
            match self.copy_pack(&repo.network, &record.pack, &packs_dir)? {
                Ok(bytes) => {
                    report.packs += 1;
                    report.bytes += bytes;
                }
                Err(reason) => report
                    .missing
                    .push(format!("pack {}: {reason}", record.pack)),
            }
        }
        let refs: BTreeMap<&str, ObjectId> = shard.ref_texts(&repo.repo, "").collect();
        report.refs = refs.len();
        without_object(&packs_dir, &refs, &mut report)?;
        write_refs(path, &refs, repo).context("cannot write its refs")?;
        Ok(report)
    }

    /// Copies a pack and verifies the copy. The inner error says why no source has it whole.
    fn copy_pack(
        &self,
        network: &NetworkId,
        pack: &PackId,
        to: &Path,
    ) -> anyhow::Result<Result<u64, String>> {
        let name = |extension: &str| format!("pack-{pack}.{extension}");
        let mut reason = String::new();
        let mut files = |extension: &str| {
            let mut found = Vec::new();
            for source in &self.sources {
                let path = source.dir(network).join(name(extension));
                match fs::metadata(&path) {
                    Ok(file) if file.is_file() => found.push(path),
                    Ok(_) => {}
                    Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                    Err(error) => reason = unreadable(&path, &error),
                }
            }
            found
        };
        let (packs, indexes) = (files("pack"), files("idx"));
        if packs.is_empty() || indexes.is_empty() {
            if reason.is_empty() {
                "it is not on this disk".clone_into(&mut reason);
            }
            return Ok(Err(reason));
        }
        let (pack_to, idx_to) = (to.join(name("pack")), to.join(name("idx")));
        // A crash in a promotion leaves a pack in one place and its index in another.
        for (pack_from, idx_from) in packs
            .iter()
            .flat_map(|pack| indexes.iter().map(move |idx| (pack, idx)))
        {
            let mut bytes = 0;
            let mut read = true;
            for (from, to) in [(pack_from, &pack_to), (idx_from, &idx_to)] {
                match copy::file(from, to)? {
                    Ok(copied) => bytes += copied,
                    Err(error) => {
                        reason = unreadable(from, &error);
                        read = false;
                    }
                }
            }
            if !read {
                continue;
            }
            match self.store.verify_files(pack, &pack_to, &idx_to) {
                Ok(()) => return Ok(Ok(bytes)),
                Err(error @ (ObjectError::BrokenPack { .. } | ObjectError::MissingPack(_))) => {
                    reason = error.to_string();
                }
                Err(error @ (ObjectError::Io { .. } | ObjectError::InvalidName(_))) => {
                    return Err(error.into());
                }
            }
        }
        for left in [&pack_to, &idx_to] {
            match fs::remove_file(left) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    return Err(error).context("cannot remove a damaged copy");
                }
                Ok(()) | Err(_) => {}
            }
        }
        Ok(Err(reason))
    }
}

fn unreadable(path: &Path, error: &io::Error) -> String {
    format!("{} cannot be read: {error}", path.display())
}

/// Reports the refs whose object is in none of the packs.
fn without_object(
    packs: &Path,
    refs: &BTreeMap<&str, ObjectId>,
    report: &mut Report,
) -> anyhow::Result<()> {
    let mut left = refs.clone();
    for entry in fs::read_dir(packs).context("cannot list its packs")? {
        let path = entry.context("cannot list its packs")?.path();
        if path.extension().is_some_and(|extension| extension == "idx") {
            let idx = fs::read(&path).with_context(|| format!("cannot read {}", path.display()))?;
            left.retain(|_, object| !has_object(&idx, object));
        }
    }
    for (name, object) in left.iter().take(REFS_NAMED_MAX) {
        let text = format!("{name} is at {object}, which is in none of its packs");
        report.missing.push(text);
    }
    if left.len() > REFS_NAMED_MAX {
        let more = left.len() - REFS_NAMED_MAX;
        report.missing.push(format!("{more} more such refs"));
    }
    Ok(())
}

/// Whether an index of version 2 has the object.
fn has_object(idx: &[u8], object: &ObjectId) -> bool {
    let id = object.as_bytes();
    let count_at = |place: usize| {
        let at = 8 + place * 4;
        let bytes = idx.get(at..at + 4)?.try_into().ok()?;
        usize::try_from(u32::from_be_bytes(bytes)).ok()
    };
    if !idx.starts_with(&IDX_SIGNATURE) {
        return false;
    }
    let first = usize::from(id.first().copied().unwrap_or(0));
    let mut low = match first {
        0 => 0,
        _ => count_at(first - 1).unwrap_or(0),
    };
    let mut high = count_at(first).unwrap_or(0);
    while low < high {
        let middle = low + (high - low) / 2;
        let at = IDX_NAMES_AT + middle * id.len();
        let Some(name) = idx.get(at..at + id.len()) else {
            return false;
        };
        match name.cmp(id) {
            std::cmp::Ordering::Less => low = middle + 1,
            std::cmp::Ordering::Greater => high = middle,
            std::cmp::Ordering::Equal => return true,
        }
    }
    false
}

fn write_refs(path: &Path, refs: &BTreeMap<&str, ObjectId>, repo: &ShardRepo) -> io::Result<()> {
    let mut packed = String::from("# pack-refs with: sorted \n");
    for (name, object) in refs {
        packed.push_str(&format!("{object} {name}\n"));
    }
    let head = format!("ref: {}\n", repo.head.as_str());
    let config = match repo.object_format {
        ObjectFormat::Sha1 => {
            "[core]\n\trepositoryformatversion = 0\n\tfilemode = true\n\tbare = true\n"
        }
        ObjectFormat::Sha256 => {
            "[core]\n\trepositoryformatversion = 1\n\tfilemode = true\n\tbare = true\n[extensions]\n\tobjectformat = sha256\n"
        }
    };
    for (name, text) in [
        ("packed-refs", packed.as_str()),
        ("config", config),
        // HEAD comes last: it makes the directory a repository.
        ("HEAD", head.as_str()),
    ] {
        let mut file = File::create(path.join(name))?;
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
    }
    for name in ["objects/pack", "objects", "refs", ""] {
        File::open(path.join(name))?.sync_all()?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Regression: a log ended before a segment that could not be read, and every repository was
    /// reported as whole.
    #[test]
    fn nothing_is_whole_without_the_log() {
        let whole = Report::default();
        assert!(
            whole
                .line("a/b", LogExtent::Whole)
                .starts_with("a/b: whole, ")
        );
        let line = whole.line("a/b", LogExtent::Beginning);
        assert!(line.contains("its last pushes may be missing"), "{line}");
        let lacking = Report::absent("it is gone".to_owned());
        for log in [LogExtent::Whole, LogExtent::Beginning] {
            assert!(lacking.line("a/b", log).contains("INCOMPLETE"));
        }
    }

    #[test]
    fn an_index_is_searched() {
        let ids: Vec<[u8; 20]> = [3_u8, 3, 7, 200].map(|first| [first; 20]).to_vec();
        let mut idx = IDX_SIGNATURE.to_vec();
        for byte in 0..=255_u8 {
            let count = ids.iter().filter(|id| id.first() <= Some(&byte)).count();
            idx.extend(u32::try_from(count).expect("small").to_be_bytes());
        }
        idx.extend(ids.iter().flatten());
        let object = |byte| ObjectId::from_bytes(&[byte; 20]).expect("an id");
        for (byte, found) in [
            (3, true),
            (7, true),
            (200, true),
            (0, false),
            (8, false),
            (255, false),
        ] {
            assert_eq!(has_object(&idx, &object(byte)), found, "{byte}");
        }
        assert!(!has_object(b"short", &object(3)));
        assert!(!has_object(&idx[..IDX_NAMES_AT + 5], &object(3)));
    }
}
