//! A chain of commits, and pushes of it by stock git.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, ensure};
use henge_runtime::{Clock as _, SystemClock};

use crate::process::Program;
use crate::repository::Repository;

/// Files of the first commit, in folders of twenty.
const FILES: usize = 200;
/// Lines of a file.
const LINES: usize = 12;

/// A bare repository. Every commit changes one small file of its parent.
#[derive(Debug)]
pub(crate) struct Commits {
    dir: PathBuf,
    ids: Vec<String>,
}

impl Commits {
    /// Creates `count` commits in `dir`.
    pub(crate) async fn make(dir: &Path, count: usize) -> anyhow::Result<Self> {
        init(dir).await?;
        Self::import(dir, count, None).await
    }

    /// Creates `count` commits in `dir`, on top of HEAD of another repository, whose objects are
    /// not copied.
    pub(crate) async fn on(dir: &Path, below: &Repository, count: usize) -> anyhow::Result<Self> {
        init(dir).await?;
        let objects = below.objects()?;
        std::fs::write(
            dir.join("objects/info/alternates"),
            format!("{}\n", objects.display()),
        )
        .context("cannot name the objects of the repository")?;
        Self::import(dir, count, Some(&below.head().await?)).await
    }

    async fn import(dir: &Path, count: usize, below: Option<&str>) -> anyhow::Result<Self> {
        Program::git()
            .arg("-C")
            .arg(dir)
            .args(["fast-import", "--quiet"])
            .output(stream(count, below).as_bytes())
            .await?;
        let listed = Program::git()
            .arg("-C")
            .arg(dir)
            .args(["rev-list", "--reverse", "refs/heads/chain"])
            .args(below.map(|id| format!("^{id}")))
            .output(b"")
            .await?;
        let ids: Vec<String> = listed.lines().map(str::to_owned).collect();
        ensure!(
            ids.len() == count,
            "git made {} commits of {count}",
            ids.len()
        );
        Ok(Self {
            dir: dir.to_owned(),
            ids,
        })
    }

    /// The id of commit `index`, from 0.
    pub(crate) fn id(&self, index: usize) -> anyhow::Result<&str> {
        let id = self.ids.get(index).context("the chain is too short")?;
        Ok(id)
    }

    /// Pushes commit `index` with its ancestors to `name` at `url`. Returns the run time of git.
    pub(crate) async fn push(
        &self,
        url: &str,
        index: usize,
        name: &str,
    ) -> anyhow::Result<Duration> {
        let spec = format!("{}:{name}", self.id(index)?);
        let git = Program::git()
            .arg("-C")
            .arg(&self.dir)
            .args(["push", "-q", url, &spec]);
        let started = SystemClock.instant();
        let pushed = git.output(b"").await;
        let took = SystemClock.instant().duration_since(started);
        match pushed {
            Ok(_) => Ok(took),
            Err(error) => {
                // The URL contains a token, and git's messages contain the URL.
                let text = format!("{error:#}").replace(url, "the repository");
                Err(anyhow::anyhow!(text).context("a push failed"))
            }
        }
    }

    /// Pushes `count` more tags of commit `index` to `url`.
    pub(crate) async fn push_tags(
        &self,
        url: &str,
        index: usize,
        count: usize,
    ) -> anyhow::Result<()> {
        let id = self.id(index)?;
        let specs = (0..count).map(|tag| format!("{id}:refs/tags/v{tag}"));
        let git = Program::git()
            .arg("-C")
            .arg(&self.dir)
            .args(["push", "-q", url])
            .args(specs);
        let pushed = git.output(b"").await;
        if let Err(error) = pushed {
            let text = format!("{error:#}").replace(url, "the repository");
            return Err(anyhow::anyhow!(text).context("a push of tags failed"));
        }
        Ok(())
    }
}

async fn init(dir: &Path) -> anyhow::Result<()> {
    let git = Program::git().args(["init", "-q", "--bare"]).arg(dir);
    git.output(b"").await?;
    Ok(())
}

/// The commits in the format of `git fast-import`; the first one on top of `below`.
fn stream(count: usize, below: Option<&str>) -> String {
    let mut text = String::new();
    for commit in 0..count {
        let message = format!("commit {commit}\n");
        let time = 1_700_000_000 + commit;
        text.push_str(&format!(
            "commit refs/heads/chain\ncommitter Bench <bench@localhost> {time} +0000\ndata {}\n{message}",
            message.len()
        ));
        if let Some(below) = below.filter(|_| commit == 0) {
            text.push_str(&format!("from {below}\n"));
        }
        let files = if commit == 0 {
            0..FILES
        } else {
            let file = commit % FILES;
            file..file + 1
        };
        for file in files {
            let body = content(commit, file);
            text.push_str(&format!(
                "M 100644 inline folder{}/file{file}\ndata {}\n{body}\n",
                file / 20,
                body.len()
            ));
        }
        text.push('\n');
    }
    text
}

/// A few lines that compress about as well as source code.
fn content(commit: usize, file: usize) -> String {
    let mut text = String::new();
    for line in 0..LINES {
        let changed = if line == commit % LINES { commit } else { 0 };
        let number = (file * 31 + line * 7 + changed * 1_009) % 99_991;
        text.push_str(&format!(
            "let value_{line} = compute({number}, \"file {file}\");\n"
        ));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_commit_after_the_first_changes_one_file() {
        let text = stream(3, None);
        assert_eq!(text.matches("commit refs/heads/chain").count(), 3);
        assert_eq!(text.matches("M 100644").count(), FILES + 2);
        assert_ne!(content(0, 1), content(1, 1));
    }
}
