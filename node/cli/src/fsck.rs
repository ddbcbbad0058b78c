//! `henge repo fsck`

use std::io::{self, Write};
use std::str::FromStr;
use std::time::Duration;

use clap::Args;
use henge_client::Client;
use henge_types::status::{CheckOutcome, CompactionState, ReplicaCheck, RepoCheck};
use henge_types::{NodeId, RepoPath};

use crate::cluster::write_json;
use crate::console::Console;
use crate::error::{CliError, failed};
use crate::table::printable;

/// The time between two polls of the checks.
const LOOK_EVERY: Duration = Duration::from_millis(500);

/// `henge repo fsck`
#[derive(Debug, Args)]
pub struct Fsck {
    /// The repository
    #[arg(value_name = "OWNER/NAME")]
    pub path: RepoPath,
    /// Only the replicas on these nodes, comma separated, or all of them
    #[arg(long, default_value = "all", value_name = "NODE")]
    pub node: Nodes,
    /// Fetch damaged packs again from another replica
    #[arg(long)]
    pub repair: bool,
    /// How long to wait; 0 only asks for it
    #[arg(long, default_value_t = 3600, value_name = "SECONDS")]
    pub wait: u64,
}

/// Nodes by number, or all of them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Nodes(pub Vec<NodeId>);

impl FromStr for Nodes {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text == "all" {
            return Ok(Self(Vec::new()));
        }
        let number = |text: &str| {
            let number = text.trim().parse().map(NodeId::new);
            number.map_err(|_| format!("{text:?} is not the number of a node, nor all"))
        };
        text.split(',')
            .map(number)
            .collect::<Result<_, _>>()
            .map(Self)
    }
}

/// Requests checks, waits until they have ended and prints their findings.
pub(crate) async fn run(
    client: &Client,
    asked: &Fsck,
    json: bool,
    console: &mut Console<'_>,
) -> Result<(), CliError> {
    let (path, wait) = (&asked.path, Duration::from_secs(asked.wait));
    let started = client.start_fsck(path, &asked.node.0, asked.repair).await;
    let started = started.map_err(failed("check", path))?;
    if wait.is_zero() {
        return show(path, &started, json, console.out);
    }
    let ended = tokio::time::timeout(wait, ended(client, path, &started, console)).await;
    let checks = ended.map_err(|_| CliError::StillChecking {
        repo: path.to_string(),
        waited_s: wait.as_secs(),
    })??;
    show(path, &checks, json, console.out)?;
    let (mut problems, mut unchecked) = (0_u64, 0);
    for check in &checks.replicas {
        match outcome(check) {
            Ok(outcome) => {
                let named = u64::try_from(outcome.problems.len()).unwrap_or(u64::MAX);
                problems = problems.saturating_add(named.saturating_add(outcome.more_problems));
                unchecked += usize::from(outcome.failed.is_some());
            }
            Err(_) => unchecked += 1,
        }
    }
    if problems == 0 && unchecked == 0 {
        return Ok(());
    }
    Err(CliError::NotWhole {
        repo: path.to_string(),
        problems,
        unchecked,
    })
}

/// The outcome of a check that is over; else the reason why it is not known.
fn outcome(check: &ReplicaCheck) -> Result<&CheckOutcome, &str> {
    if let Some(failed) = &check.failed {
        return Err(failed);
    }
    let last = check.last.as_ref();
    last.filter(|last| last.run >= check.run)
        .ok_or("the node restarted meanwhile and has forgotten it")
}

/// Waits for the replicas that accepted the request. The others are shown with their first answer.
async fn ended(
    client: &Client,
    path: &RepoPath,
    started: &RepoCheck,
    console: &mut Console<'_>,
) -> Result<RepoCheck, CliError> {
    let mut told = String::new();
    loop {
        let now = client.fsck(path).await;
        let now = now.map_err(failed("check", path))?;
        let mut replicas = Vec::with_capacity(started.replicas.len());
        let mut under_way = Vec::new();
        for begun in &started.replicas {
            let looked = now.replicas.iter().find(|now| now.node == begun.node);
            let Some(looked) = looked.filter(|_| begun.failed.is_none()) else {
                replicas.push(begun.clone());
                continue;
            };
            let mut looked = looked.clone();
            let is_over = looked
                .last
                .as_ref()
                .is_some_and(|last| last.run >= begun.run);
            let waits = looked.state != CompactionState::Idle || looked.failed.is_some();
            if !is_over && waits {
                under_way.push(progress(&looked));
            }
            looked.run = begun.run;
            replicas.push(looked);
        }
        if under_way.is_empty() {
            return Ok(RepoCheck { replicas });
        }
        let line = under_way.join(", ");
        if line != told {
            // A failure to write the progress does not end the wait: the outcome follows.
            drop(writeln!(console.err, "{line}"));
            told = line;
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

fn progress(check: &ReplicaCheck) -> String {
    let node = check.node;
    match (&check.failed, &check.progress) {
        (Some(_), _) => format!("node {node}: no answer"),
        (None, None) => format!("node {node}: waits"),
        (None, Some(progress)) => {
            let total = progress.total.map(|total| format!("/{total}"));
            format!(
                "node {node}: {} {}{}",
                printable(&progress.stage),
                progress.done,
                total.unwrap_or_default()
            )
        }
    }
}

fn show(
    path: &RepoPath,
    checks: &RepoCheck,
    json: bool,
    out: &mut (dyn Write + Send),
) -> Result<(), CliError> {
    match json {
        true => write_json(checks, out)?,
        false => write_checks(path, checks, out)?,
    }
    Ok(())
}

fn write_checks(path: &RepoPath, checks: &RepoCheck, out: &mut dyn Write) -> io::Result<()> {
    writeln!(out, "repository  {path}")?;
    for check in &checks.replicas {
        let node = check.node;
        match outcome(check) {
            Err(_) if check.failed.is_none() && check.state != CompactionState::Idle => {
                writeln!(out, "node {node}: check under way")?;
            }
            Err(why) => writeln!(out, "node {node}: not checked: {}", printable(why))?,
            Ok(outcome) => write_outcome(node, outcome, out)?,
        }
    }
    Ok(())
}

fn write_outcome(node: NodeId, outcome: &CheckOutcome, out: &mut dyn Write) -> io::Result<()> {
    let verdict = match (&outcome.failed, outcome.is_clean()) {
        (Some(why), _) => format!("not finished: {}", printable(why)),
        (None, true) => "whole".to_owned(),
        (None, false) => "damaged".to_owned(),
    };
    let count =
        |count: Option<u64>| count.map_or_else(|| "?".to_owned(), |count| count.to_string());
    writeln!(
        out,
        "node {node}: {verdict}; {} objects in {} packs, {} reachable, {} unreachable, {} ms",
        outcome.objects,
        outcome.packs,
        count(outcome.reachable),
        count(outcome.unreachable),
        outcome.took_ms
    )?;
    for pack in &outcome.repaired {
        writeln!(out, "  pack {} was fetched again", printable(pack))?;
    }
    for problem in &outcome.problems {
        let pack = problem.pack.as_deref().map(printable);
        let pack = pack.map_or_else(String::new, |pack| format!("pack {pack}: "));
        writeln!(out, "  {pack}{}", printable(&problem.text))?;
    }
    if outcome.more_problems > 0 {
        writeln!(out, "  and {} more problems", outcome.more_problems)?;
    }
    Ok(())
}
