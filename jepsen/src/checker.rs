//! Checks that every acknowledged push is in a listing and in a clone from a node, and that the
//! clone is complete.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::thread;
use std::time::Duration;

use crate::clock;
use crate::process::Program;
use crate::pushers::{self, Shared};
use crate::ring::Ring;
use crate::truth::{Book, BranchName, Floors, Judgement, Value};

/// Time limit for one clone or one check of it.
const CLONE_LIMIT: Duration = Duration::from_secs(90);
/// Interval between two attempts at a node that does not serve yet.
const AGAIN_EVERY: Duration = Duration::from_millis(400);

/// A node's answer for a repository.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Served {
    /// All required content, and nothing else.
    Right,
    /// An error that the client can recognise.
    Refused(String),
    /// Success with wrong content.
    Wrong(Vec<String>),
}

/// The input of a check.
#[derive(Debug, Clone, Copy)]
pub struct Checker<'a> {
    /// The ring of nodes.
    pub ring: &'a Ring,
    /// The expected state.
    pub shared: &'a Shared,
    /// The repositories.
    pub repos: &'a [String],
}

impl Checker<'_> {
    /// Lists and clones one repository from one node.
    pub fn look(&self, node: u64, repo: &str) -> Served {
        self.listed_and_cloned(node, repo)
            .unwrap_or_else(|error| Served::Refused(format!("the check itself failed: {error:#}")))
    }

    fn listed_and_cloned(&self, node: u64, repo: &str) -> anyhow::Result<Served> {
        let url = pushers::url(&self.ring.node(node)?.http, &self.ring.token, repo);
        let floors = self.shared.book().floors();
        let listing = Program::git()
            .args(["ls-remote", "--heads", &url])
            .deadline(CLONE_LIMIT)
            .run()?;
        if !listing.success() {
            return Ok(refused(&listing.stderr, listing.timed_out));
        }
        let listed = refs(&listing.stdout);
        let mut wrong = self.wrong_refs("listing", node, repo, &floors, &listed);

        let floors = self.shared.book().floors();
        let clone = self.ring.dir.join(format!("clones/n{node}"));
        remove(&clone)?;
        let cloned = Program::git()
            .args(["clone", "-q", "--mirror", &url])
            .arg(&clone)
            .deadline(CLONE_LIMIT)
            .run()?;
        if !cloned.success() {
            return Ok(match wrong.is_empty() {
                true => refused(&cloned.stderr, cloned.timed_out),
                false => Served::Wrong(wrong),
            });
        }
        let heads = [
            "for-each-ref",
            "--format=%(objectname) %(refname)",
            "refs/heads",
        ];
        let heads = Program::git().dir(&clone).args(heads).output()?;
        wrong.extend(self.wrong_refs("clone", node, repo, &floors, &refs(&heads)));
        let fsck = Program::git()
            .dir(&clone)
            .args(["fsck", "--full", "--no-progress"])
            .deadline(CLONE_LIMIT)
            .run()?;
        if !fsck.success() {
            let said = format!("{}{}", fsck.stdout, fsck.stderr);
            wrong.push(format!(
                "a clone of {repo} from node {node} is not whole: {said}"
            ));
        }
        Ok(match wrong.is_empty() {
            true => Served::Right,
            false => Served::Wrong(wrong),
        })
    }

    fn wrong_refs(
        &self,
        what: &str,
        node: u64,
        repo: &str,
        floors: &Floors,
        seen: &BTreeMap<String, String>,
    ) -> Vec<String> {
        let book = self.shared.book();
        let wrong = book.judge(floors, repo, seen).into_iter();
        wrong
            .map(|(branch, value, judgement)| {
                let said = sentence(&book, &branch, &value, &judgement);
                format!("a {what} from node {node}: {said}")
            })
            .collect()
    }

    /// Checks every repository on each of these nodes, and repeats until it is served correctly;
    /// returns the failures at the deadline, by node. Wrong content is never requested again.
    pub fn everything(&self, nodes: &[u64], limit: Duration) -> BTreeMap<u64, Vec<Served>> {
        let end = clock::now() + limit;
        thread::scope(|scope| {
            let looks: Vec<_> = nodes
                .iter()
                .map(|node| (*node, scope.spawn(move || self.all_of(*node, end))))
                .collect();
            let joined = looks.into_iter().map(|(node, look)| {
                let failed = || vec![Served::Refused("the check panicked".to_owned())];
                (node, look.join().unwrap_or_else(|_| failed()))
            });
            joined.filter(|(_, left)| !left.is_empty()).collect()
        })
    }

    fn all_of(&self, node: u64, end: std::time::Instant) -> Vec<Served> {
        let mut left = Vec::new();
        for repo in self.repos {
            let found = loop {
                match self.look(node, repo) {
                    Served::Refused(_) if clock::now() < end => clock::pause(AGAIN_EVERY),
                    Served::Refused(why) => break Served::Refused(format!("{repo}: {why}")),
                    found @ (Served::Right | Served::Wrong(_)) => break found,
                }
            };
            if found != Served::Right {
                left.push(found);
            }
        }
        left
    }
}

/// A sentence about a branch with a wrong value.
fn sentence(book: &Book, branch: &BranchName, value: &Value, judgement: &Judgement) -> String {
    let shown = value.as_deref().unwrap_or("nothing");
    let said = match judgement {
        Judgement::Right(_) => "is right".to_owned(),
        Judgement::Lost { acknowledged } => {
            let last = acknowledged.as_deref().unwrap_or("a deletion");
            format!("lost {last}, which was acknowledged")
        }
        Judgement::RefusedButThere => "was refused".to_owned(),
        Judgement::NeverAttempted => "was never pushed".to_owned(),
    };
    let tail = book.tail(branch, 6);
    format!("{branch} shows {shown}: {said}; attempts: {tail}")
}

fn refused(stderr: &str, timed_out: bool) -> Served {
    let lines: Vec<&str> = stderr.lines().filter(|line| !line.is_empty()).collect();
    let from = lines.len().saturating_sub(3);
    let mut text = lines.get(from..).unwrap_or_default().join(" | ");
    if timed_out {
        text.push_str(" (no end in time)");
    }
    Served::Refused(text)
}

/// `ID REF` lines, separated by a space or a tab.
fn refs(text: &str) -> BTreeMap<String, String> {
    let pairs = text.lines().filter_map(|line| line.split_once([' ', '\t']));
    pairs
        .map(|(id, name)| (name.to_owned(), id.to_owned()))
        .collect()
}

fn remove(dir: &Path) -> anyhow::Result<()> {
    match fs::remove_dir_all(dir) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error.into()),
        _ => Ok(()),
    }
}
