//! `henge cluster …`: requests the cluster's status and prints it.

use std::io::{self, Write};

use clap::{Args, Subcommand};
use henge_types::GroupId;
use henge_types::health::{self, Agreement, GroupView, Problem, Verdict};
use henge_types::status::{ClusterStatus, NodeStatus, ReplicaStatus, Role};
use serde::Serialize;

use crate::console::Console;
use crate::context::{self, Environment, Output, Remote, long_help};
use crate::error::CliError;
use crate::exit::{EXIT_CODES_HELP, Exit};
use crate::table::Table;

/// `henge cluster …`
#[derive(Debug, Args)]
pub struct Cluster {
    /// Which cluster.
    #[command(flatten)]
    pub remote: Remote,
    /// What to do with it.
    #[command(subcommand)]
    pub verb: ClusterVerb,
}

/// What can be asked of a cluster.
#[derive(Debug, Subcommand)]
pub enum ClusterVerb {
    /// Nodes, leaders, lag and problems; answers without a quorum too
    #[command(after_help = EXIT_CODES_HELP, after_long_help = long_help())]
    Status {
        /// End with code 6 unless all is well
        #[arg(long)]
        check: bool,
    },
    /// Every group: leader, term, replicas, and whether their states are equal
    #[command(after_help = EXIT_CODES_HELP, after_long_help = long_help())]
    Shards,
}

const fn verdict(verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::Ok => "ok",
        Verdict::Degraded => "degraded: every group is served",
        Verdict::Failing => "failing",
    }
}

pub(crate) async fn run(
    command: Cluster,
    environment: &Environment,
    console: &mut Console<'_>,
) -> Result<Exit, CliError> {
    let client = context::client(&command.remote, environment)?;
    let status = client.cluster().await.map_err(|source| CliError::Call {
        what: "cannot get the cluster's status".to_owned(),
        source,
    })?;
    let json = command.remote.output == Output::Json;
    match command.verb {
        ClusterVerb::Status { check } => {
            let health = write_status(&status, json, console.out)?;
            Ok(match (check, health) {
                (false, _) | (true, Verdict::Ok) => Exit::Ok,
                (true, Verdict::Degraded) => Exit::Degraded,
                (true, Verdict::Failing) => Exit::Unavailable,
            })
        }
        ClusterVerb::Shards => {
            write_shards(&health::groups(&status), json, console.out)?;
            Ok(Exit::Ok)
        }
    }
}

#[derive(Serialize)]
struct StatusAnswer<'a> {
    health: Verdict,
    /// A sentence per problem.
    problems: Vec<String>,
    /// The problems, field by field.
    findings: &'a [Problem],
    #[serde(flatten)]
    status: &'a ClusterStatus,
}

fn write_status(status: &ClusterStatus, json: bool, out: &mut dyn Write) -> io::Result<Verdict> {
    let health::Health {
        verdict: health,
        groups,
        problems,
    } = health::judge(status);
    if json {
        write_json(
            &StatusAnswer {
                health,
                problems: problems.iter().map(Problem::sentence).collect(),
                findings: &problems,
                status,
            },
            out,
        )?;
        return Ok(health);
    }
    writeln!(out, "cluster  {}", status.cluster_id)?;
    writeln!(out, "asked    node {}", status.asked)?;
    writeln!(out, "shards   {}", status.shards)?;
    writeln!(out, "health   {}", verdict(health))?;
    writeln!(out)?;
    let mut table = Table::new(&[
        "NODE", "HTTP", "VERSION", "UPTIME", "ROLES", "TERM", "LAST", "APPLIED", "LAG", "HEALTH",
    ]);
    for node in &status.nodes {
        table.row(node_row(node, &groups));
    }
    table.write(out)?;
    if !problems.is_empty() {
        writeln!(out)?;
    }
    for problem in &problems {
        writeln!(out, "problem: {}", problem.sentence())?;
        match problem.for_ms {
            Some(ms) => writeln!(out, "         for {}; {}", span(ms), problem.advice)?,
            None => writeln!(out, "         {}", problem.advice)?,
        }
    }
    Ok(health)
}

fn node_row(node: &NodeStatus, groups: &[GroupView]) -> [String; 10] {
    let id = node.node;
    let none = String::new;
    let Some(report) = &node.report else {
        return [
            id.to_string(),
            node.http.clone(),
            none(),
            none(),
            none(),
            none(),
            none(),
            none(),
            none(),
            "no answer".to_owned(),
        ];
    };
    let meta = report.replicas.iter().find(|r| r.group.is_meta());
    let of_meta =
        |index: fn(&ReplicaStatus) -> u64| meta.map_or_else(none, |m| index(m).to_string());
    let lag = groups
        .iter()
        .flat_map(|group| &group.replicas)
        .filter(|replica| replica.node == id)
        .filter_map(|replica| replica.lag)
        .max();
    let led = groups.iter().filter(|g| g.leader == Some(id)).count();
    let parked = report.replicas.iter().any(|replica| replica.parked > 0);
    let stopped = report.replicas.iter().any(|r| r.role == Role::Stopped);
    let health = [
        (report.starting, "starting"),
        (report.not_ready.is_some() && !report.starting, "not ready"),
        (stopped, "stopped groups"),
        (report.low_space, "low space"),
        (parked, "fetching packs"),
    ];
    let health: Vec<&str> = health.iter().filter(|h| h.0).map(|h| h.1).collect();
    [
        id.to_string(),
        node.http.clone(),
        report.version.clone(),
        span(report.uptime_ms),
        roles(meta, led),
        of_meta(|replica| replica.term),
        of_meta(|replica| replica.last_index),
        of_meta(|replica| replica.applied_index),
        lag.map_or_else(none, |lag| lag.to_string()),
        if health.is_empty() {
            "ok".to_owned()
        } else {
            health.join(", ")
        },
    ]
}

fn roles(meta: Option<&ReplicaStatus>, led: usize) -> String {
    let groups = if led == 1 { "group" } else { "groups" };
    match meta {
        Some(replica) => format!("meta {}, leads {led} {groups}", role(replica.role)),
        None => format!("leads {led} {groups}"),
    }
}

const fn role(role: Role) -> &'static str {
    match role {
        Role::Leader => "leader",
        Role::Follower => "follower",
        Role::Candidate => "candidate",
        Role::Learner => "learner",
        Role::Stopped => "stopped",
    }
}

/// A duration in its two largest units.
pub(crate) fn span(ms: u64) -> String {
    let seconds = ms / 1000;
    let (minutes, hours, days) = (seconds / 60, seconds / 3600, seconds / 86_400);
    if days > 0 {
        format!("{days}d{}h", hours % 24)
    } else if hours > 0 {
        format!("{hours}h{}m", minutes % 60)
    } else if minutes > 0 {
        format!("{minutes}m{}s", seconds % 60)
    } else {
        format!("{seconds}s")
    }
}

fn write_shards(groups: &[GroupView], json: bool, out: &mut dyn Write) -> io::Result<()> {
    if json {
        return write_json(&groups, out);
    }
    let mut table = Table::new(&[
        "GROUP", "LEADER", "TERM", "VOTERS", "LAST", "APPLIED", "LAG", "STATE",
    ]);
    for group in groups {
        let voters: Vec<String> = group.voters.iter().map(ToString::to_string).collect();
        let applied = group.replicas.iter().map(|replica| {
            let index = replica
                .applied_index
                .map_or_else(|| "?".to_owned(), |index| index.to_string());
            let learner = if replica.role == Some(Role::Learner) {
                "(learner)"
            } else {
                ""
            };
            format!("{}:{index}{learner}", replica.node)
        });
        table.row([
            group_label(group.group),
            group
                .leader
                .map_or_else(|| "none".to_owned(), |n| n.to_string()),
            group.term.to_string(),
            voters.join(","),
            group.last_index.to_string(),
            applied.collect::<Vec<_>>().join(" "),
            group.lag().map_or_else(String::new, |lag| lag.to_string()),
            agreement(group.state).to_owned(),
        ]);
    }
    table.write(out)
}

/// The number of a group; the meta group has a name.
pub(crate) fn group_label(group: GroupId) -> String {
    if group.is_meta() {
        format!("{group} meta")
    } else {
        group.to_string()
    }
}

const fn agreement(state: Agreement) -> &'static str {
    match state {
        Agreement::Equal => "equal",
        Agreement::Behind => "equal where comparable",
        Agreement::Differ => "DIFFER",
        Agreement::Unknown => "?",
    }
}

pub(crate) fn write_json(value: &impl Serialize, out: &mut dyn Write) -> io::Result<()> {
    serde_json::to_writer_pretty(&mut *out, value)?;
    writeln!(out)
}
