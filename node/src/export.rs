//! `henge node export --offline`: every repository of a stopped node as a plain bare repository,
//! from that node's disk alone.
//!
//! - `bare`: one repository: its packs, refs and HEAD.
//! - `copy`: copies from a disk that may be failing.

mod bare;
mod copy;

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context as _, bail, ensure};
use henge_cluster::offline::{self, LogExtent, Offline, OfflineDirs};
use henge_runtime::SystemClock;
use henge_state::{MetaView, ShardView};
use henge_storage::disk::OsDisk;
use henge_storage::objects::ObjectStore;
use henge_types::{
    GroupId, PackRef, RepoId, RepoPath, RepoRecord, RepoState, ShardRepo, ShardRepoState,
};

use crate::args::Export;
use crate::data_dir;

/// Repositories per read of the catalogue.
const PAGE: usize = 1000;
/// The folder of repositories without a known name: no name in a catalogue begins so.
const UNNAMED: &str = "_unnamed";

pub(crate) fn run(args: &Export) -> ExitCode {
    match export(args) {
        Ok(Outcome::Whole) => ExitCode::SUCCESS,
        Ok(Outcome::Incomplete) => ExitCode::FAILURE,
        Err(error) => crate::complain(&error, ExitCode::FAILURE),
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Outcome {
    Whole,
    Incomplete,
}

fn export(args: &Export) -> anyhow::Result<Outcome> {
    let dir = &args.data_dir;
    ensure!(
        dir.join("wal").is_dir() || dir.join("snapshots").is_dir(),
        "{} is no data directory: it has neither wal nor snapshots",
        dir.display()
    );
    // Held to the end: no node starts meanwhile.
    let _lock = data_dir::hold(dir).context("stop the node first")?;
    copy::check_outside(dir, &args.dest)?;
    make_empty(&args.dest)?;
    copy::check_outside(dir, &args.dest)?;
    let scratch = tempfile::Builder::new()
        .prefix(".henge-export-")
        .tempdir_in(&args.dest)
        .with_context(|| format!("cannot write to {}", args.dest.display()))?;
    let copies = Copies::make(dir, scratch.path())?;
    let mut offline = copies.read()?;
    if copies.log == LogExtent::Beginning {
        offline.log = LogExtent::Beginning;
    }
    offline.missing.splice(0..0, copies.unreadable);
    let work = bare::Work {
        sources: vec![
            bare::Source::Networks(dir.join("networks")),
            bare::Source::Flat(copies.inline),
            bare::Source::Flat(dir.join("staged")),
        ],
        // Only its verification of files is used; its own directory is the scratch one.
        store: ObjectStore::open(&scratch.path().join("store")).context("cannot verify packs")?,
    };
    let outcome = write_all(&offline, &work, &args.dest)?;
    scratch
        .close()
        .context("cannot remove the scratch copies")?;
    Ok(outcome)
}

fn make_empty(dest: &Path) -> anyhow::Result<()> {
    let context = || format!("cannot write to {}", dest.display());
    fs::create_dir_all(dest).with_context(context)?;
    if fs::read_dir(dest).with_context(context)?.next().is_some() {
        bail!("{} is not empty", dest.display());
    }
    Ok(())
}

/// Copies of files whose readers write beside them.
struct Copies {
    wal: PathBuf,
    kv: PathBuf,
    snapshots: PathBuf,
    /// Small packs from the log.
    inline: PathBuf,
    /// The files that could not be read in whole, one sentence each.
    unreadable: Vec<String>,
    /// How much of the log was copied.
    log: LogExtent,
}

impl Copies {
    fn make(dir: &Path, scratch: &Path) -> anyhow::Result<Self> {
        let mut copies = Self {
            wal: scratch.join("wal"),
            kv: scratch.join("kv"),
            snapshots: scratch.join("snapshots"),
            inline: scratch.join("inline"),
            unreadable: Vec::new(),
            log: LogExtent::Whole,
        };
        // Records have checksums: a log with a hole is read up to the hole. A kv or a snapshot with
        // a hole is of no use.
        let holes = copy::Holes::Zeros;
        copy::tree(&dir.join("wal"), &copies.wal, holes, &mut copies.unreadable)?;
        if !copies.unreadable.is_empty() {
            copies.log = LogExtent::Beginning;
        }
        for (name, to) in [("kv", &copies.kv), ("snapshots", &copies.snapshots)] {
            let holes = copy::Holes::LeftOut;
            copy::tree(&dir.join(name), to, holes, &mut copies.unreadable)?;
        }
        fs::create_dir_all(&copies.inline).context("cannot make a scratch directory")?;
        Ok(copies)
    }

    fn read(&self) -> anyhow::Result<Offline> {
        let disk = OsDisk::shared();
        let dirs = OfflineDirs {
            disk: &disk,
            wal: &self.wal,
            kv: &self.kv,
            snapshots: &self.snapshots,
        };
        let mut inline = |pack: &PackRef| self.keep(pack);
        offline::read(dirs, &SystemClock::shared(), &mut inline).context("cannot read the state")
    }

    fn keep(&self, pack: &PackRef) -> io::Result<()> {
        let Some(inline) = &pack.inline else {
            return Ok(());
        };
        let name = pack.pack;
        fs::write(self.inline.join(format!("pack-{name}.pack")), &inline.pack)?;
        fs::write(self.inline.join(format!("pack-{name}.idx")), &inline.idx)
    }
}

/// A repository and its destination.
struct Wanted {
    name: String,
    path: PathBuf,
    repo: RepoId,
    group: Option<GroupId>,
}

fn write_all(offline: &Offline, work: &bare::Work, dest: &Path) -> anyhow::Result<Outcome> {
    let mut missing = 0_usize;
    for reason in &offline.missing {
        crate::say(&format!("MISSING {reason}"));
        missing += 1;
    }
    let uncommitted: u64 = offline.groups.values().map(|g| g.uncommitted).sum();
    if uncommitted > 0 {
        crate::say(&format!(
            "{uncommitted} entries of the log are not known to be committed and were applied: what was pushed last may not \
             have been acknowledged"
        ));
    }
    let live = live(offline);
    let wanted = wanted(offline, &live, dest);
    for repository in &wanted {
        let found = live.get(&repository.repo);
        let report = match found {
            Some((group, repo)) => {
                let state = &offline
                    .groups
                    .get(group)
                    .context("a group that was read")?
                    .state;
                let written = work.write(&repository.path, ShardView::new(state), repo);
                written.with_context(|| format!("cannot write {}", repository.path.display()))?
            }
            None => bare::Report::absent(repository.group.map_or_else(
                || "its shard is not known".to_owned(),
                |group| format!("this node holds nothing of it in group {group}"),
            )),
        };
        missing += usize::from(!report.missing.is_empty());
        crate::say(&report.line(&repository.name, offline.log));
        for reason in &report.missing {
            crate::say(&format!("  MISSING {reason}"));
        }
    }
    let found = match missing {
        0 => "nothing is missing".to_owned(),
        count => format!("{count} repositories or groups are incomplete"),
    };
    let (count, dest) = (wanted.len(), dest.display());
    crate::say(&format!("{count} repositories in {dest}: {found}"));
    Ok(if missing == 0 {
        Outcome::Whole
    } else {
        Outcome::Incomplete
    })
}

/// The live repositories of every shard that was read.
fn live(offline: &Offline) -> BTreeMap<RepoId, (GroupId, ShardRepo)> {
    let shards = offline.groups.iter().filter(|(group, _)| !group.is_meta());
    let repos = shards.flat_map(|(group, read)| {
        let repos = ShardView::new(&read.state).repos();
        repos.map(move |repo| (*group, repo))
    });
    repos
        .filter(|(_, repo)| repo.state == ShardRepoState::Live)
        .map(|(group, repo)| (repo.repo, (group, repo)))
        .collect()
}

/// Every repository that the catalogue names, and the repositories of shards that are not in it.
fn wanted(
    offline: &Offline,
    live: &BTreeMap<RepoId, (GroupId, ShardRepo)>,
    dest: &Path,
) -> Vec<Wanted> {
    let meta = offline.groups.get(&GroupId::META);
    let records = meta.map_or_else(Vec::new, |meta| named(MetaView::new(&meta.state)));
    let shards = meta.and_then(|meta| MetaView::new(&meta.state).cluster());
    let mut wanted: Vec<Wanted> = records
        .into_iter()
        // A reservation without a repository in its shard was never acknowledged.
        .filter(|record| record.state == RepoState::Ready || live.contains_key(&record.repo))
        .map(|record| Wanted {
            name: record.path.to_string(),
            path: place(dest, &record.path),
            repo: record.repo,
            group: shards
                .as_ref()
                .map(|cluster| record.network.shard(cluster.shards)),
        })
        .collect();
    let known: std::collections::BTreeSet<RepoId> = wanted.iter().map(|w| w.repo).collect();
    let is_catalogued =
        |repo: &RepoId| meta.is_some_and(|meta| MetaView::new(&meta.state).repo(repo).is_some());
    for (repo, (group, _)) in live {
        // A repository that the catalogue has and does not name was deleted; its shard has not
        // applied the deletion yet.
        if !known.contains(repo) && !is_catalogued(repo) {
            wanted.push(Wanted {
                name: format!("{UNNAMED}/{repo}"),
                path: dest.join(UNNAMED).join(format!("{repo}.git")),
                repo: *repo,
                group: Some(*group),
            });
        }
    }
    wanted
}

fn place(dest: &Path, path: &RepoPath) -> PathBuf {
    dest.join(path.owner.as_str())
        .join(format!("{}.git", path.name.as_str()))
}

fn named(meta: MetaView<'_, henge_state::State>) -> Vec<RepoRecord> {
    let mut all: Vec<RepoRecord> = Vec::new();
    loop {
        let after = all.last().map(|record| record.path.key());
        let page = meta.repos(None, after.as_deref(), PAGE);
        if page.is_empty() {
            return all;
        }
        all.extend(page);
    }
}
