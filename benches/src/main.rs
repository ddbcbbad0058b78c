//! Runs Henge and its peers side by side on one machine and prints both figures, with their ratio.
//!
//! On a shared machine a figure means little without its peer's from the same run. So each bench
//! measures both in turn:
//!
//! - `push`: a push of one commit, beside git's http-backend (`http_backend`).
//! - `writes`: small durable writes, beside etcd (`etcd`); `load` is the closed loop of both.
//! - `gap`: the time without writes after a leader is killed, beside etcd.
//! - `fetch`: clones and fetches, beside git's http-backend with bitmaps.
//! - `refs`: listing 1,000 and 100,000 refs, pushing 1,000 at once, beside git's http-backend.
//! - `storm`: many small pushes while clones run, and the effect of compaction.
//! - `idle`: start, memory and processor time, beside etcd.
//! - `state`: the size of one group's state during small writes, beside the previous release level.
//! - `replay`: the time until nodes that were killed after many small pushes serve again, beside
//!   etcd.
//!
//! `alternation` runs any of them with two binaries of Henge in turn, to measure the cost of a
//! change.
//!
//! `henge` is a local cluster of node processes; `process` starts and ends every program; `usage`
//! reads the resources used by a process; `commits` and `chain` make the pushes, `repository` the
//! fetched repository; `samples`, `report` and `machine` make the output.
//!
//! It deliberately has no targets: readers judge the figures.

mod alternation;
mod args;
mod bench;
mod chain;
mod commits;
mod etcd;
mod fetch;
mod gap;
mod henge;
mod http_backend;
mod idle;
mod load;
mod machine;
mod process;
mod push;
mod refs;
mod replay;
mod report;
mod repository;
mod requests;
mod samples;
mod state;
mod storm;
mod usage;
mod writes;

use std::io::{self, Write as _};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context as _, bail};
use clap::Parser as _;
use henge_runtime::Scope;
use tokio::runtime::{Builder, Handle};
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::timeout;

use alternation::Alternation;
use args::{Arguments, Which};
use bench::Bench;
use report::Section;

/// Deadline of one bench. All benches take about ten minutes on two cores; with a large given
/// repository they take half an hour.
const BENCH_DEADLINE: Duration = Duration::from_secs(3600);

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    match start(&arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            drop(writeln!(io::stderr(), "henge-benches: {error:#}"));
            ExitCode::FAILURE
        }
    }
}

fn start(arguments: &Arguments) -> anyhow::Result<()> {
    let runtime = Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(async {
        let mut interrupt = signal(SignalKind::interrupt())?;
        let mut terminate = signal(SignalKind::terminate())?;
        // The futures that lose are dropped, and their processes with them.
        tokio::select! {
            biased;
            _ = interrupt.recv() => bail!("interrupted"),
            _ = terminate.recv() => bail!("terminated"),
            outcome = run(arguments) => outcome,
        }
    })
}

async fn run(arguments: &Arguments) -> anyhow::Result<()> {
    let scope = Scope::root("benches", Handle::current(), 1);
    let options = &arguments.options;
    let new = |henge| Bench::new(options, henge, scope.clone());
    let bench = new(options.henge()?)?;
    print(&machine::head(bench.dir(), &command()))?;
    let which = match arguments.which {
        Which::All => vec![
            Which::Push,
            Which::Fetch,
            Which::Refs,
            Which::Storm,
            Which::Writes,
            Which::Gap,
            Which::Idle,
            Which::State,
            Which::Replay,
        ],
        one @ (Which::Push
        | Which::Fetch
        | Which::Refs
        | Which::Storm
        | Which::Writes
        | Which::Gap
        | Which::Idle
        | Which::State
        | Which::Replay) => vec![one],
    };
    let before = options.before()?;
    let mut failed = Vec::new();
    for one in which {
        let measured = match &before {
            None => Box::pin(measure(&bench, one)).await,
            Some(before) => {
                let pair = || anyhow::Ok([new(before.clone())?, new(options.henge()?)?]);
                Box::pin(alternate(one, options.rounds, pair)).await
            }
        };
        match measured {
            Ok(section) => print(&section.to_string())?,
            Err(error) => failed.push(format!("{one:?}: {error:#}")),
        }
    }
    if !failed.is_empty() {
        bail!("{}", failed.join("; "));
    }
    Ok(())
}

/// Runs one bench with two binaries in turn, with the order reversed each time.
async fn alternate(
    which: Which,
    rounds: u32,
    pair: impl Fn() -> anyhow::Result<[Bench; 2]>,
) -> anyhow::Result<Section> {
    let mut alternation = Alternation::default();
    for round in 0..rounds {
        let [before, after] = pair()?;
        before.progress(&format!("{which:?}: round {} of {rounds}", round + 1));
        let (before, after) = if round.is_multiple_of(2) {
            let before = Box::pin(measure(&before, which)).await?;
            (before, Box::pin(measure(&after, which)).await?)
        } else {
            let after = Box::pin(measure(&after, which)).await?;
            (Box::pin(measure(&before, which)).await?, after)
        };
        alternation.add(&before, &after)?;
    }
    Ok(alternation.section(&format!("{which:?}")))
}

async fn measure(bench: &Bench, which: Which) -> anyhow::Result<Section> {
    let measured = timeout(BENCH_DEADLINE, Box::pin(measure_one(bench, which))).await;
    measured.context("not done in time")?
}

async fn measure_one(bench: &Bench, which: Which) -> anyhow::Result<Section> {
    match which {
        Which::Push => push::run(bench).await,
        Which::Fetch => fetch::run(bench).await,
        Which::Refs => refs::run(bench).await,
        Which::Storm => storm::run(bench).await,
        Which::Writes => writes::run(bench).await,
        Which::Gap => gap::run(bench).await,
        Which::Idle => idle::run(bench).await,
        Which::State => state::run(bench).await,
        Which::Replay => replay::run(bench).await,
        Which::All => bail!("it is taken apart before"),
    }
}

/// The command line, with the program's name only.
fn command() -> String {
    let arguments = std::env::args().skip(1);
    let words = std::iter::once("henge-benches".to_owned()).chain(arguments);
    words.collect::<Vec<_>>().join(" ")
}

fn print(text: &str) -> anyhow::Result<()> {
    let mut out = io::stdout();
    writeln!(out, "{text}")
        .and_then(|()| out.flush())
        .context("cannot write the figures")
}
