//! The state of one group during small writes: the size of its pairs in a snapshot and in memory,
//! at this release's level beside the previous level, which recorded every request completely for a
//! day.
//!
//! Only `apply` runs here: 10 writes per second by the times in the entries, as fast as they can be
//! applied.

use anyhow::{Context as _, ensure};
use henge_runtime::random_bytes;
use henge_state::{Header, State, apply, request_generation};
use henge_types::command::{VERSION_KNOWN, VERSION_REPOS};
use henge_types::{
    Command, Generation, GroupId, Incarnation, LogIndex, ObjectFormat, RefName, Reply, RepoId,
    RequestBinding, RequestId, ShardCommand,
};

use crate::bench::Bench;
use crate::report::Section;
use crate::usage::resident_kib;

/// Numbers of writes after which a row is measured.
const ROWS: [u64; 8] = [
    1_000, 10_000, 100_000, 200_000, 400_000, 600_000, 800_000, 1_000_000,
];
const QUICK_ROWS: [u64; 2] = [1_000, 20_000];
const REPOS: u8 = 100;
const MS_PER_WRITE: u64 = 100;
/// 2026-01-01, milliseconds.
const START_MS: u64 = 1_767_225_600_000;

/// The size of a state.
struct Size {
    pairs: usize,
    bytes: usize,
    resident_kib: u64,
}

pub(crate) async fn run(bench: &Bench) -> anyhow::Result<Section> {
    let rows: &'static [u64] = bench.pick(&QUICK_ROWS, &ROWS);
    let both = bench.scope.blocking("state", move || {
        // The smaller one first: the memory of the other one is not returned to the system.
        let now = grow(VERSION_KNOWN, rows)?;
        let before = grow(VERSION_REPOS, rows)?;
        anyhow::Ok(now.into_iter().zip(before).collect::<Vec<_>>())
    });
    let both = both.await.context("the states were not measured")??;
    let mut section = Section::new(
        "state: one group while small writes go on",
        &[
            "writes",
            "pairs",
            "MB of keys and values",
            "RSS grown, MB",
            "level before: pairs",
            "MB",
            "RSS grown, MB",
        ],
    );
    for (writes, (now, before)) in rows.iter().zip(both) {
        let mut cells = vec![writes.to_string()];
        for size in [now, before] {
            cells.extend([
                size.pairs.to_string(),
                megabytes(size.bytes / 1000),
                megabytes(usize::try_from(size.resident_kib)? * 1024 / 1000),
            ]);
        }
        section.row(cells);
    }
    section.note(format!(
        "HEAD of {REPOS} repositories is set, 10 times a second by the clocks in the entries, each time under a request id of its own. \
         Keys and values are what a snapshot holds. RSS is this program's, of one replica in memory only."
    ));
    Ok(section)
}

fn megabytes(kilobytes: usize) -> String {
    format!("{}.{}", kilobytes / 1000, kilobytes % 1000 / 100)
}

/// Applies writes at a release level; returns the size at every row.
fn grow(level: u32, rows: &[u64]) -> anyhow::Result<Vec<Size>> {
    let (resident_before, _) = resident_kib(std::process::id())?;
    let mut group = Group {
        state: State::empty(),
        index: 0,
        incarnation: Incarnation::from_bytes(random_bytes()),
    };
    group.apply(None, &Command::VersionBarrier { version: level })?;
    for number in 0..REPOS {
        let repo = RepoId::from_bytes([number; 16]);
        let create = ShardCommand::CreateRepo {
            repo,
            network: repo.root_network(),
            generation: Generation::new(1),
            head: branch(0)?,
            object_format: ObjectFormat::Sha1,
        };
        group.apply(None, &Command::Shard(create))?;
    }
    let mut sizes = Vec::new();
    let mut written = 0;
    for row in rows {
        while written < *row {
            written += 1;
            group.write(written)?;
        }
        let bytes = group
            .state
            .iter()
            .map(|(key, value)| key.len() + value.len());
        let (resident, _) = resident_kib(std::process::id())?;
        sizes.push(Size {
            pairs: group.state.len(),
            bytes: bytes.sum(),
            resident_kib: resident.saturating_sub(resident_before),
        });
    }
    Ok(sizes)
}

fn branch(number: u64) -> anyhow::Result<RefName> {
    Ok(format!("refs/heads/{number}").parse()?)
}

struct Group {
    state: State,
    index: u64,
    incarnation: Incarnation,
}

impl Group {
    fn now_ms(&self) -> u64 {
        START_MS + self.index * MS_PER_WRITE
    }

    fn write(&mut self, count: u64) -> anyhow::Result<()> {
        let id = RequestId {
            made_at_ms: self.now_ms(),
            incarnation: self.incarnation,
            counter: count,
        };
        let id = match request_generation(&self.state) {
            Some(generation) => id.in_generation(generation),
            None => id,
        };
        let number = u8::try_from(count % u64::from(REPOS))?;
        let repo = RepoId::from_bytes([number; 16]);
        let request = RequestBinding {
            id,
            principal: "admin".to_owned(),
            repo: Some(repo),
            digest: [number; 32],
        };
        let command = ShardCommand::SetHead {
            repo,
            generation: Generation::new(1),
            head: branch(count)?,
        };
        self.apply(Some(request), &Command::Shard(command))
    }

    fn apply(&mut self, request: Option<RequestBinding>, command: &Command) -> anyhow::Result<()> {
        self.index += 1;
        let header = Header {
            group: GroupId::new(1),
            index: LogIndex::new(self.index),
            term: 1,
            proposed_at_ms: self.now_ms(),
            seed: 0,
            request,
        };
        let outcome = apply(&self.state, &header, command);
        ensure!(outcome.reply == Reply::Done, "answered {:?}", outcome.reply);
        self.state.commit(&outcome.writes);
        Ok(())
    }
}
