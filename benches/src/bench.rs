//! The environment of every bench.

use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context as _;
use henge_runtime::Scope;
use tempfile::TempDir;

use crate::args::Options;
use crate::henge::DevCluster;

/// Shards of the clusters: the default of `henge dev`.
pub(crate) const SHARDS: u32 = 8;

/// Options, a folder and a task scope.
#[derive(Debug)]
pub(crate) struct Bench {
    henge: PathBuf,
    quick: bool,
    repository: Option<PathBuf>,
    /// Commits of the generated repository.
    pub(crate) commits: usize,
    base_port: u16,
    /// Deadline of one attempted write after a leader was killed.
    pub(crate) try_deadline: Duration,
    dir: TempDir,
    pub(crate) scope: Scope,
}

impl Bench {
    /// Creates the folder for all data of this binary's benches.
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

    /// `quick` for a try of the tool, `full` for figures.
    pub(crate) fn pick<T>(&self, quick: T, full: T) -> T {
        if self.quick { quick } else { full }
    }

    /// The given repository, if any.
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

    /// Prints progress to standard error: standard output is for the figures.
    pub(crate) fn progress(&self, text: &str) {
        drop(writeln!(io::stderr(), "{text}"));
    }
}
