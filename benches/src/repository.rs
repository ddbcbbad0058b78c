//! A repository on disk: given by path, or generated.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, ensure};

use crate::process::Program;

/// A bare repository on disk.
#[derive(Debug)]
pub(crate) struct Repository {
    path: PathBuf,
}

impl Repository {
    pub(crate) fn at(path: &Path) -> Self {
        Self {
            path: path.to_owned(),
        }
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Its object directory, absolute.
    pub(crate) fn objects(&self) -> anyhow::Result<PathBuf> {
        let path = self.path.join("objects");
        let absolute = path.canonicalize();
        absolute.with_context(|| format!("no bare repository at {}", self.path.display()))
    }

    async fn git(&self, arguments: &[&str]) -> anyhow::Result<String> {
        let git = Program::git().patiently();
        let git = git.arg("-C").arg(&self.path).args(arguments);
        git.output(b"").await
    }

    /// A copy in one pack with git's bitmaps, a commit-graph and packed refs: git's fastest
    /// configuration.
    pub(crate) async fn copy_maintained(&self, to: &Path) -> anyhow::Result<Self> {
        Program::git()
            .patiently()
            .args(["clone", "-q", "--mirror", "--no-local"])
            .arg(&self.path)
            .arg(to)
            .output(b"")
            .await?;
        let copy = Self::at(to);
        copy.git(&["repack", "-adbq"]).await?;
        copy.git(&["commit-graph", "write", "--reachable"]).await?;
        copy.git(&["pack-refs", "--all"]).await?;
        copy.git(&["config", "uploadpack.allowFilter", "true"])
            .await?;
        Ok(copy)
    }

    /// The values of the refs, each once.
    pub(crate) async fn tips(&self) -> anyhow::Result<BTreeSet<String>> {
        let listed = self
            .git(&["for-each-ref", "--format=%(objectname)"])
            .await?;
        let tips: BTreeSet<_> = listed.lines().map(str::to_owned).collect();
        ensure!(!tips.is_empty(), "the repository has no refs");
        Ok(tips)
    }

    pub(crate) async fn head(&self) -> anyhow::Result<String> {
        let id = self.git(&["rev-parse", "HEAD"]).await?;
        Ok(id.trim().to_owned())
    }

    /// The commit `count` first parents before HEAD.
    pub(crate) async fn behind_head(&self, count: usize) -> anyhow::Result<String> {
        let name = format!("HEAD~{count}");
        let id = self.git(&["rev-parse", "--verify", &name]).await?;
        Ok(id.trim().to_owned())
    }

    /// Number of commits reachable from HEAD and not from `base`.
    pub(crate) async fn commits_since(&self, base: &str) -> anyhow::Result<String> {
        let range = format!("{base}..HEAD");
        let count = self.git(&["rev-list", "--count", &range]).await?;
        Ok(count.trim().to_owned())
    }

    /// Commits, refs, objects and MB, as a sentence.
    pub(crate) async fn describe(&self) -> anyhow::Result<String> {
        let commits = self.git(&["rev-list", "--count", "--all"]).await?;
        let refs = self.git(&["for-each-ref"]).await?.lines().count();
        let counted = self.git(&["count-objects", "-v"]).await?;
        let field = |name: &str| -> Option<u64> {
            let line = counted.lines().find_map(|line| line.strip_prefix(name))?;
            line.trim().parse().ok()
        };
        let objects = field("in-pack:").context("git counted nothing")?;
        let kib = field("size-pack:").context("git counted nothing")?;
        Ok(format!(
            "{} commits, {refs} refs, {objects} objects, {} MB packed by git",
            commits.trim(),
            kib / 1000
        ))
    }
}
