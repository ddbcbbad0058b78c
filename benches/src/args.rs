//! The command line of `henge-benches`.

use std::path::PathBuf;

use anyhow::Context as _;
use clap::{Args, Parser, Subcommand};

/// Runs Henge and its peers side by side on this machine and prints both figures as Markdown
#[derive(Debug, Parser)]
#[command(name = "henge-benches", version, after_help = HELP)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    pub(crate) which: Which,
    #[command(flatten)]
    pub(crate) options: Options,
}

const HELP: &str = "\
Everything runs on 127.0.0.1 and ends with this program. Peers are found in PATH: git, lighttpd (with
mod_cgi and mod_auth) and etcd. Progress goes to standard error.

Exit codes: 0 all figures printed, 1 a bench failed, 2 wrong usage";

/// Which benches to run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Subcommand)]
pub(crate) enum Which {
    /// Push of one commit, beside git http-backend behind lighttpd
    Push,
    /// Small durable writes of 1, 64 and 256 clients, beside etcd
    Writes,
    /// Time without writes after the leader is killed, beside etcd
    Gap,
    /// Clones and fetches, beside git http-backend with bitmaps
    Fetch,
    /// Listing 1,000 and 100,000 refs and pushing 1,000 at once, beside git http-backend
    Refs,
    /// Many small pushes while clones run, and what compaction makes of them
    Storm,
    /// Start, memory and processor time of an idle cluster, beside etcd
    Idle,
    /// What one group's state takes while a million small writes go on, beside the release level
    /// before
    State,
    /// How soon killed nodes serve after 51,200 small pushes, beside etcd
    Replay,
    /// All of them
    All,
}

/// Options of every bench.
#[derive(Debug, Args)]
pub(crate) struct Options {
    /// Henge's binary [default: `henge` beside this program]
    #[arg(long, global = true, value_name = "FILE")]
    henge: Option<PathBuf>,
    /// Another binary of Henge: each bench runs with it and with --henge in alternation, and only
    /// ratios are printed
    #[arg(long, global = true, value_name = "FILE")]
    before: Option<PathBuf>,
    /// With --before: how often
    #[arg(long, global = true, value_name = "N", default_value_t = 15, requires = "before",
        value_parser = clap::value_parser!(u32).range(1..=1_000))]
    pub(crate) rounds: u32,
    /// For `fetch` and `push`: a bare repository to fetch from, or to push on top of
    /// [default: one is generated]
    #[arg(long = "repo", global = true, value_name = "DIR")]
    pub(crate) repository: Option<PathBuf>,
    /// For `fetch`: commits of the generated repository, of about four objects each
    #[arg(long, global = true, value_name = "N", default_value_t = 5_000,
        value_parser = clap::value_parser!(u32).range(100..=2_000_000))]
    pub(crate) commits: u32,
    /// Few repetitions: a look at the tool, not figures to keep
    #[arg(long, global = true)]
    pub(crate) quick: bool,
    /// Where to make a folder for all data; it is removed at the end. A real disk: a sync must cost
    /// something
    #[arg(long, global = true, value_name = "DIR", default_value = ".")]
    pub(crate) dir: PathBuf,
    /// Ports are counted from here, up to 310 of them
    #[arg(long, global = true, value_name = "PORT", default_value_t = 27_400,
        value_parser = clap::value_parser!(u16).range(1_024..=65_000))]
    pub(crate) base_port: u16,
    /// For `gap`: when a try is given up, in milliseconds. Raise it to see whether tries are cut
    /// short
    #[arg(long, global = true, value_name = "MS", default_value_t = 100,
        value_parser = clap::value_parser!(u64).range(10..=10_000))]
    pub(crate) try_ms: u64,
}

impl Options {
    /// The binary to run, absolute.
    pub(crate) fn henge(&self) -> anyhow::Result<PathBuf> {
        let path = match &self.henge {
            Some(path) => path.clone(),
            None => std::env::current_exe()
                .context("cannot find this program's own file")?
                .with_file_name("henge"),
        };
        path.canonicalize().with_context(|| {
            format!(
                "no henge at {}: build it or pass --henge FILE",
                path.display()
            )
        })
    }

    /// The binary to compare with, absolute.
    pub(crate) fn before(&self) -> anyhow::Result<Option<PathBuf>> {
        let path = self.before.as_ref().map(|path| {
            let found = path.canonicalize();
            found.with_context(|| format!("no henge at {}", path.display()))
        });
        path.transpose()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory as _;

    #[test]
    fn the_arguments_are_consistent() {
        Arguments::command().debug_assert();
    }

    #[test]
    fn options_may_stand_behind_the_bench() {
        let parsed = Arguments::try_parse_from(["henge-benches", "gap", "--quick"]).expect("valid");
        assert!(parsed.options.quick);
        assert_eq!(parsed.which, Which::Gap);
    }
}
