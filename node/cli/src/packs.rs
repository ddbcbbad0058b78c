//! `henge repo stats` and `henge repo gc`.

use std::io::{self, Write};
use std::time::Duration;

use clap::Args;
use henge_client::Client;
use henge_client::model::{self, LastFsck, ReplicaFsck, RepoStats};
use henge_types::RepoPath;
use henge_types::status::CompactionState;

use crate::cluster::write_json;
use crate::error::{CliError, failed};
use crate::table::printable;

/// The time between two polls of a compaction.
const LOOK_EVERY: Duration = Duration::from_millis(300);

/// `henge repo stats`
#[derive(Debug, Args)]
pub struct Stats {
    /// The repository
    #[arg(value_name = "OWNER/NAME")]
    pub path: RepoPath,
}

/// `henge repo gc`
#[derive(Debug, Args)]
pub struct Gc {
    /// The repository
    #[arg(value_name = "OWNER/NAME")]
    pub path: RepoPath,
    /// All packs into one, not only those out of proportion
    #[arg(long)]
    pub aggressive: bool,
    /// Drop what no branch or tag has reached for so many seconds (two weeks unless said): the
    /// first time this only begins to watch, so ask again when they have passed
    #[arg(
        long,
        num_args = 0..=1,
        require_equals = true,
        default_missing_value = "1209600",
        value_name = "SECONDS"
    )]
    pub prune: Option<u64>,
    /// How long to wait; 0 only asks for it
    #[arg(long, default_value_t = 600, value_name = "SECONDS")]
    pub wait: u64,
}

/// Shows the figures.
pub(crate) async fn stats(
    client: &Client,
    asked: &Stats,
    json: bool,
    out: &mut (dyn Write + Send),
) -> Result<(), CliError> {
    let path = &asked.path;
    let stats = client.repo_stats(path).await;
    let stats = stats.map_err(failed("count the packs of", path))?;
    show(path, &stats, json, out)
}

/// Requests a compaction and waits until it has ended.
pub(crate) async fn gc(
    client: &Client,
    asked: &Gc,
    json: bool,
    out: &mut (dyn Write + Send),
) -> Result<(), CliError> {
    let (path, wait) = (&asked.path, Duration::from_secs(asked.wait));
    let body = model::Gc {
        aggressive: asked.aggressive,
        prune: asked.prune,
    };
    let before = client.compact(path, body.depth()).await;
    let before = before.map_err(failed("compact", path))?;
    if wait.is_zero() {
        return show(path, &before, json, out);
    }
    let ended = tokio::time::timeout(wait, ended(client, path, &before)).await;
    let stats = ended.map_err(|_| CliError::StillCompacting {
        repo: path.to_string(),
        waited_s: wait.as_secs(),
    })??;
    show(path, &stats, json, out)?;
    let why = stats.last_compaction.and_then(|last| last.failed);
    match why {
        Some(why) => Err(CliError::NotCompacted {
            repo: path.to_string(),
            why: printable(&why),
        }),
        None => Ok(()),
    }
}

async fn ended(
    client: &Client,
    path: &RepoPath,
    before: &RepoStats,
) -> Result<RepoStats, CliError> {
    loop {
        let now = client.repo_stats(path).await;
        let now = now.map_err(failed("count the packs of", path))?;
        if now.leader != before.leader {
            return Err(CliError::LeaderChanged {
                repo: path.to_string(),
            });
        }
        let another = now.last_compaction != before.last_compaction;
        if now.compaction == CompactionState::Idle && another {
            return Ok(now);
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

fn show(
    path: &RepoPath,
    stats: &RepoStats,
    json: bool,
    out: &mut (dyn Write + Send),
) -> Result<(), CliError> {
    match json {
        true => write_json(stats, out)?,
        false => write_stats(path, stats, out)?,
    }
    Ok(())
}

fn write_stats(path: &RepoPath, stats: &RepoStats, out: &mut dyn Write) -> io::Result<()> {
    let compaction = match stats.compaction {
        CompactionState::Idle => "idle",
        CompactionState::Queued => "queued",
        CompactionState::Running => "running",
    };
    writeln!(out, "repository       {path}")?;
    writeln!(out, "packs            {}", stats.packs)?;
    writeln!(out, "objects          {}", stats.objects)?;
    writeln!(out, "pack bytes       {}", stats.pack_bytes)?;
    writeln!(out, "index bytes      {}", stats.idx_bytes)?;
    let bitmap = if stats.bitmap { "yes" } else { "no" };
    writeln!(out, "bitmap           {bitmap}")?;
    writeln!(
        out,
        "compaction       {compaction}, on node {}",
        stats.leader
    )?;
    if let Some(mark) = &stats.prune_mark {
        writeln!(out, "pruning          counts from {}", printable(mark))?;
    }
    write_last_compaction(stats, out)?;
    let of_replicas = stats.last_fsck.iter().flatten().flatten();
    of_replicas
        .zip(std::iter::once("last fsck").chain(std::iter::repeat("")))
        .try_for_each(|(replica, label)| writeln!(out, "{label:<17}{}", fsck_of(replica)))
}

/// The result of a replica's last check.
fn fsck_of(replica: &ReplicaFsck) -> String {
    let node = replica.node;
    match (&replica.failed, &replica.last) {
        (Some(why), _) => format!("node {node}: not known: {}", printable(why)),
        (None, None) => format!("node {node}: never"),
        (None, Some(last)) => format!("node {node}: {}", found(last)),
    }
}

fn found(last: &LastFsck) -> String {
    let at = printable(&last.at);
    if let Some(why) = &last.failed {
        return format!("{at}, not finished: {}", printable(why));
    }
    let findings = match last.findings {
        0 => "no findings".to_owned(),
        1 => "1 finding".to_owned(),
        findings => format!("{findings} findings"),
    };
    let repaired = match last.repaired {
        0 => String::new(),
        1 => ", 1 pack fetched again".to_owned(),
        packs => format!(", {packs} packs fetched again"),
    };
    format!("{at}, {} objects, {findings}{repaired}", last.objects)
}

fn write_last_compaction(stats: &RepoStats, out: &mut dyn Write) -> io::Result<()> {
    let Some(last) = &stats.last_compaction else {
        return writeln!(out, "last compaction  none since this leader leads");
    };
    let at = printable(&last.at);
    if let (None, Some(dropped)) = (&last.failed, last.dropped) {
        return writeln!(
            out,
            "last compaction  {at}, {dropped} objects dropped that nothing reaches, {} packs into one of {} bytes in {} ms",
            last.replaced, last.bytes, last.took_ms
        );
    }
    match (&last.failed, last.replaced) {
        (Some(why), _) => writeln!(out, "last compaction  {at}, failed: {}", printable(why)),
        (None, 0) => writeln!(out, "last compaction  {at}, nothing to do"),
        (None, replaced) => writeln!(
            out,
            "last compaction  {at}, {replaced} packs into one of {} bytes in {} ms",
            last.bytes, last.took_ms
        ),
    }
}
