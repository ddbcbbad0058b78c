//! The workload: continuous pushes by stock git, with one writer per branch.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::Context as _;
use rand::rngs::StdRng;
use rand::{Rng as _, RngCore as _, SeedableRng as _};

use crate::clock;
use crate::process::{Ended, Program};
use crate::truth::{Book, BranchName, Judgement, Outcome, Value};

/// A push or a listing that takes longer has an unknown outcome.
const PUSH_LIMIT: Duration = Duration::from_secs(30);
/// Longest pause between two pushes of one writer: the machine has other work.
const REST_MS_MAX: u64 = 150;
/// Pause after a failure.
const REST_AFTER_FAILURE: Duration = Duration::from_millis(250);
/// Commits on one branch before it is reset: limits the size of a clone.
const CHAIN_MAX: u32 = 25;
/// A pack that still fits into a log entry.
const INLINE_BYTES: usize = 110 * 1024;
/// The largest blob of a push whose pack goes to the replicas as a file.
const LARGE_BYTES_MAX: usize = 600 * 1024;

/// Acknowledged pushes, by repository and receiving node.
pub type Progress = BTreeMap<(String, u64), u64>;

/// State shared by the writers and the driver.
#[derive(Debug, Default)]
pub struct Shared {
    book: Mutex<Book>,
    progress: Mutex<Progress>,
    wrong: Mutex<Vec<String>>,
    stop: AtomicBool,
    burst: AtomicBool,
}

impl Shared {
    /// The record of all attempts.
    pub fn book(&self) -> MutexGuard<'_, Book> {
        self.book.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Acknowledged pushes so far.
    pub fn progress(&self) -> Progress {
        let progress = self.progress.lock();
        progress.unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Removes and returns the wrong values that the writers read.
    pub fn take_wrong(&self) -> Vec<String> {
        let mut wrong = self.wrong.lock().unwrap_or_else(PoisonError::into_inner);
        std::mem::take(&mut *wrong)
    }

    /// Stops the writers.
    pub fn stop(&self) {
        self.stop.store(true, Ordering::SeqCst);
    }

    /// Switches burst mode: every push is as large as a log entry allows, without pauses.
    pub fn set_burst(&self, burst: bool) {
        self.burst.store(burst, Ordering::SeqCst);
    }

    fn acknowledged(&self, repo: &str, node: u64) {
        let mut progress = self.progress.lock().unwrap_or_else(PoisonError::into_inner);
        *progress.entry((repo.to_owned(), node)).or_default() += 1;
    }

    fn saw_wrong(&self, text: String) {
        let mut wrong = self.wrong.lock().unwrap_or_else(PoisonError::into_inner);
        wrong.push(text);
    }
}

/// A writer's knowledge of one of its branches.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Known {
    /// Its value.
    Is(Value),
    /// Its value must be read.
    Unsure,
}

#[derive(Debug)]
struct Own {
    branch: BranchName,
    known: Known,
    chain: u32,
}

/// One writer.
#[derive(Debug)]
pub struct Pusher {
    dir: PathBuf,
    nodes: Vec<(u64, String)>,
    own: Vec<Own>,
    rng: StdRng,
    made: u64,
}

/// The URL of a repository on a node.
pub fn url(http: &str, token: &str, repo: &str) -> String {
    format!("http://admin:{token}@{http}/{repo}.git")
}

impl Pusher {
    /// A writer with a repository of its own below `dir`.
    ///
    /// # Errors
    /// When git cannot make it.
    pub fn new(
        dir: &Path,
        number: u64,
        seed: u64,
        nodes: Vec<(u64, String)>,
        repos: &[String],
        shared: &Shared,
    ) -> anyhow::Result<Self> {
        let dir = dir.join(format!("writer{number}"));
        fs::create_dir_all(&dir).context("cannot make a writer's folder")?;
        Program::git()
            .dir(&dir)
            .args(["init", "-q", "--bare"])
            .output()?;
        let own = repos.iter().map(|repo| Own {
            branch: BranchName {
                repo: repo.clone(),
                name: format!("refs/heads/w{number}"),
            },
            known: Known::Is(None),
            chain: 0,
        });
        let own: Vec<Own> = own.collect();
        for own in &own {
            shared.book().open(&own.branch);
        }
        Ok(Self {
            dir,
            nodes,
            own,
            rng: StdRng::seed_from_u64(seed ^ number),
            made: number << 40,
        })
    }

    /// Pushes until it is stopped. `token` is the administrator's token.
    pub fn run(&mut self, shared: &Shared, token: &str) {
        while !shared.stop.load(Ordering::SeqCst) {
            let burst = shared.burst.load(Ordering::SeqCst);
            let at = self.rng.random_range(0..self.own.len());
            let node = self.rng.random_range(0..self.nodes.len());
            match self.turn(at, node, burst, token, shared) {
                Ok(true) if burst => {}
                Ok(true) => clock::pause(Duration::from_millis(
                    self.rng.random_range(20..REST_MS_MAX),
                )),
                Ok(false) => clock::pause(REST_AFTER_FAILURE),
                Err(error) => {
                    shared.saw_wrong(format!("a writer failed: {error:#}"));
                    clock::pause(REST_AFTER_FAILURE);
                }
            }
        }
    }

    /// One push, or one read where the branch's value is not known; returns whether it succeeded.
    fn turn(
        &mut self,
        at: usize,
        node: usize,
        burst: bool,
        token: &str,
        shared: &Shared,
    ) -> anyhow::Result<bool> {
        let (id, http) = self.nodes.get(node).cloned().context("a node")?;
        let own = self.own.get(at).context("a branch")?;
        let branch = own.branch.clone();
        let url = url(&http, token, &branch.repo);
        let Known::Is(old) = own.known.clone() else {
            return self.resolve(at, id, &url, &branch, shared);
        };
        let new = self.next_value(at, old.as_deref(), burst)?;
        let number = shared.book().begin(&branch, new.clone());
        let outcome = self.push(&url, &branch.name, old.as_deref(), new.as_deref())?;
        shared.book().end(&branch, number, outcome);
        let own = self.own.get_mut(at).context("a branch")?;
        if outcome == Outcome::Acknowledged {
            own.known = Known::Is(new);
            shared.acknowledged(&branch.repo, id);
        } else {
            own.known = Known::Unsure;
        }
        Ok(outcome == Outcome::Acknowledged)
    }

    /// Reads the branch and judges the value.
    fn resolve(
        &mut self,
        at: usize,
        node: u64,
        url: &str,
        branch: &BranchName,
        shared: &Shared,
    ) -> anyhow::Result<bool> {
        let listed = Program::git()
            .dir(&self.dir)
            .args(["ls-remote", url, &branch.name])
            .deadline(PUSH_LIMIT)
            .run()?;
        if !listed.success() {
            return Ok(false);
        }
        let value = listed.stdout.split_whitespace().next().map(str::to_owned);
        let judgement = shared.book().observe(branch, &value);
        if !matches!(judgement, Judgement::Right(_)) {
            let tail = shared.book().tail(branch, 6);
            shared.saw_wrong(format!(
                "node {node} lists {branch} as {value:?}: {judgement:?}; attempts: {tail}"
            ));
        }
        let own = self.own.get_mut(at).context("a branch")?;
        own.known = Known::Is(value);
        Ok(true)
    }

    /// The next value of the branch.
    fn next_value(&mut self, at: usize, old: Option<&str>, burst: bool) -> anyhow::Result<Value> {
        let dice = self.rng.random_range(0..100);
        let own = self.own.get_mut(at).context("a branch")?;
        let full = own.chain >= CHAIN_MAX;
        own.chain += 1;
        if old.is_some() && dice < 4 && !burst {
            own.chain = 0;
            return Ok(None);
        }
        // Not a descendant: a forced push of an unrelated history.
        let anew = full || dice < 9;
        if anew {
            own.chain = 0;
        }
        let bytes = match dice {
            _ if burst => INLINE_BYTES,
            10..20 => self.rng.random_range(8 * 1024..INLINE_BYTES),
            20..27 => self.rng.random_range(INLINE_BYTES * 2..LARGE_BYTES_MAX),
            _ => self.rng.random_range(20..400),
        };
        self.commit(if anew { None } else { old }, bytes).map(Some)
    }

    /// A new commit with one file of `bytes` incompressible bytes.
    fn commit(&mut self, parent: Option<&str>, bytes: usize) -> anyhow::Result<String> {
        self.made += 1;
        let made = self.made;
        let mut noise = vec![0; bytes];
        self.rng.fill_bytes(&mut noise);
        let message = format!("change {made}");
        let from = parent.map_or_else(String::new, |parent| format!("from {parent}\n"));
        let mut script = format!(
            "commit refs/heads/last\nmark :1\ncommitter A <a@example.invalid> {} +0000\ndata {}\n{message}\n{from}M 100644 inline f{}\ndata {}\n",
            1_700_000_000 + (made & 0xffff),
            message.len(),
            made % 8,
            noise.len()
        )
        .into_bytes();
        script.extend_from_slice(&noise);
        script.extend_from_slice(b"\nget-mark :1\n");
        let id = Program::git()
            .dir(&self.dir)
            .args(["fast-import", "--quiet", "--force"])
            .input(script)
            .output()?;
        Ok(id.trim().to_owned())
    }

    fn push(
        &self,
        url: &str,
        branch: &str,
        old: Option<&str>,
        new: Option<&str>,
    ) -> anyhow::Result<Outcome> {
        let lease = format!("--force-with-lease={branch}:{}", old.unwrap_or_default());
        let change = format!("{}:{branch}", new.unwrap_or_default());
        let ended = Program::git()
            .dir(&self.dir)
            .args(["push", "--porcelain", &lease, url, &change])
            .deadline(PUSH_LIMIT)
            .run()?;
        Ok(outcome(&ended))
    }
}

/// The outcome of a push. Without a clear success or refusal it is unknown.
fn outcome(ended: &Ended) -> Outcome {
    let line = ended.stdout.lines().find(|line| {
        let flag = line.chars().next();
        line.get(1..2) == Some("\t") && flag.is_some_and(|flag| " +-*=!".contains(flag))
    });
    match line {
        Some(line) if line.starts_with('!') => {
            let reason = line.to_lowercase();
            let told = reason.contains("[remote rejected]") || reason.contains("[rejected]");
            let vague = ["unknown", "time", "unavailable", "try again", "may have"];
            match told && !vague.iter().any(|word| reason.contains(word)) {
                true => Outcome::Refused,
                false => Outcome::Unknown,
            }
        }
        Some(_) if ended.success() => Outcome::Acknowledged,
        Some(_) => Outcome::Unknown,
        // The request for the refs failed: no change was sent.
        None if ended.stderr.contains("unable to access") => Outcome::Refused,
        None => Outcome::Unknown,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ended(code: i32, stdout: &str, stderr: &str) -> Ended {
        Ended {
            code: Some(code),
            timed_out: false,
            stdout: stdout.to_owned(),
            stderr: stderr.to_owned(),
        }
    }

    #[test]
    fn only_a_clear_answer_counts() {
        let ok = ended(0, "To http://x\n \tabc:refs/heads/b\ta..b\nDone\n", "");
        assert_eq!(outcome(&ok), Outcome::Acknowledged);
        // A broken connection: git reports that everything is up to date, and nothing about the
        // branch.
        let broken = ended(1, "", "error: RPC failed\nEverything up-to-date\n");
        assert_eq!(outcome(&broken), Outcome::Unknown);
        assert_eq!(
            outcome(&ended(0, "", "Everything up-to-date\n")),
            Outcome::Unknown
        );
        let mut killed = ok;
        killed.timed_out = true;
        assert_eq!(outcome(&killed), Outcome::Unknown);
    }

    #[test]
    fn a_refusal_is_not_an_unknown_outcome() {
        let stale = "!\ta:refs/heads/b\t[remote rejected] (stale)\n";
        assert_eq!(outcome(&ended(1, stale, "")), Outcome::Refused);
        let lease = "!\ta:refs/heads/b\t[rejected] (stale info)\n";
        assert_eq!(outcome(&ended(1, lease, "")), Outcome::Refused);
        let vague = "!\ta:refs/heads/b\t[remote rejected] (unknown outcome)\n";
        assert_eq!(outcome(&ended(1, vague, "")), Outcome::Unknown);
        let gone = "!\ta:refs/heads/b\t[remote failure] (remote failed to report status)\n";
        assert_eq!(outcome(&ended(1, gone, "")), Outcome::Unknown);
        let down = ended(128, "", "fatal: unable to access 'http://x/': Failed");
        assert_eq!(outcome(&down), Outcome::Refused);
    }
}
