//! The command line of `henge-jepsen`.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};

use crate::plan::Kind;
use crate::soak::Settings;

/// Injects faults into a real cluster under pushes, and checks what it promised
#[derive(Debug, Parser)]
#[command(name = "henge-jepsen", version, after_help = HELP)]
pub struct Arguments {
    /// What to do.
    #[command(subcommand)]
    pub verb: Verb,
}

const HELP: &str = "\
Needs git and, for faults of disks and clocks, root, loop devices, chattr and libfaketime. What a machine lacks
is said and counted as not checked. A file called `stop` in DIR ends a run after the step that is under way.

Exit codes: 0 the verdict is clean, 1 it is not, 2 wrong usage, 3 the harness failed";

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Verb {
    /// Runs a random schedule of faults
    Soak {
        /// Draws the schedule [default: another one each time]
        #[arg(long)]
        seed: Option<u64>,
        /// How, and on what.
        #[command(flatten)]
        options: Options,
    },
    /// Runs the schedule of a seed again
    Replay {
        /// The seed that the run printed
        seed: u64,
        /// How, and on what.
        #[command(flatten)]
        options: Options,
    },
}

/// How a run is done.
#[derive(Debug, Args)]
pub struct Options {
    /// Henge's binary
    #[arg(long, value_name = "FILE")]
    henge: PathBuf,
    /// Faults at most
    #[arg(long, value_name = "N", default_value_t = 100)]
    faults: u32,
    /// Minutes at most
    #[arg(long, value_name = "M", default_value_t = 30)]
    minutes: u64,
    /// Where everything lies; must not be there, or be empty
    #[arg(long, value_name = "DIR")]
    dir: PathBuf,
    /// Ports are counted from here
    #[arg(long, value_name = "PORT", default_value_t = 28_000)]
    base_port: u16,
    /// Only these kinds of faults
    #[arg(long, value_name = "FAULT", value_delimiter = ',')]
    only: Vec<Kind>,
    /// Appends the run to this file, as one line of JSON
    #[arg(long, value_name = "FILE")]
    ledger: Option<PathBuf>,
    /// Leaves the directory where it is; it stays anyway when the verdict is not clean
    #[arg(long)]
    keep: bool,
    /// Plain folders instead of a file system for each node: needs no root, and leaves out the
    /// faults of disks
    #[arg(long)]
    rootless: bool,
}

impl Arguments {
    /// The settings of the run. `other` is the seed if none was given.
    pub fn settings(self, other: u64) -> Settings {
        let (seed, options) = match self.verb {
            Verb::Soak { seed, options } => (seed.unwrap_or(other), options),
            Verb::Replay { seed, options } => (seed, options),
        };
        Settings {
            henge: options.henge,
            dir: options.dir,
            base_port: options.base_port,
            seed,
            faults: options.faults,
            minutes: options.minutes,
            only: options.only,
            ledger: options.ledger,
            keep: options.keep,
            rootless: options.rootless,
        }
    }
}
