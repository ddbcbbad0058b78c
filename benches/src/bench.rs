//! What every bench is given.

use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context as _;
use henge_runtime::Scope;
use tempfile::TempDir;

use crate::args::Options;
use crate::henge::DevCluster;

/// Shards of the clusters, as `henge dev` has without flags.
pub(crate) const SHARDS: u32 = 8;

/// Options, a folder and a place for tasks.
#[derive(Debug)]
pub(crate) struct Bench {
    henge: PathBuf,
    quick: bool,
    repository: Option<PathBuf>,
    /// Of a repository that is generated to be fetched from.
    pub(crate) commits: usize,
    base_port: u16,
    /// For one try of a write after a leader was killed.
    pub(crate) try_deadline: Duration,
    dir: TempDir,
    pub(crate) scope: Scope,
}

impl Bench {
    /// Makes the folder for everything that the benches of this binary write.
    pub(crate) fn new(options: &Options, henge: PathBuf, scope: Scope) -> anyhow::Result<Self> {
        let dir = tempfile::Builder::new()
            .prefix(".henge-bench-")
            .tempdir_in(&options.dir)
            .with_context(|| format!("cannot make a folder in {}", options.dir.display()))?;
        Ok(Self {
            henge,
            quick: options.quick,
            repository: options.repository.clone(),
            commits: options.commits as usize,
            base_port: options.base_port,
            try_deadline: Duration::from_millis(options.try_ms),
            dir,
            scope,
        })
    }

    /// A new folder below the one of this run.
    pub(crate) fn folder(&self, name: &str) -> anyhow::Result<PathBuf> {
        let path = self.dir.path().join(name);
        std::fs::create_dir(&path).with_context(|| format!("cannot make {}", path.display()))?;
        Ok(path)
    }

    /// One of two counts: for a look at the tool, or for figures.
    pub(crate) fn pick<T>(&self, quick: T, full: T) -> T {
        if self.quick { quick } else { full }
    }

    /// The repository to fetch from, if one was given.
    pub(crate) fn repository(&self) -> Option<&Path> {
        self.repository.as_deref()
    }

    /// A port above the base port. Henge's nodes take the first 59.
    pub(crate) fn port(&self, offset: u16) -> anyhow::Result<u16> {
        let port = self.base_port.checked_add(offset);
        port.context("the base port is too high")
    }

    /// Starts a Henge cluster in `dir`.
    pub(crate) async fn cluster(&self, dir: &Path) -> anyhow::Result<DevCluster> {
        DevCluster::start(&self.henge, dir, self.base_port, SHARDS).await
    }

    /// The folder of this run.
    pub(crate) fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// Tells whoever watches how far it is. Standard output is for the figures.
    pub(crate) fn progress(&self, text: &str) {
        drop(writeln!(io::stderr(), "{text}"));
    }
}
