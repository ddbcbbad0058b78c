//! The command line of the harness.

use std::io::{self, Write as _};
use std::process::ExitCode;

use clap::Parser as _;
use henge_jepsen::args::Arguments;
use henge_jepsen::{clock, soak};

fn main() -> ExitCode {
    let settings = Arguments::parse().settings(clock::unix_ms() % 1_000_000);
    match soak::run(&settings) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(1),
        Err(error) => {
            drop(writeln!(io::stderr(), "henge-jepsen: {error:#}"));
            ExitCode::from(3)
        }
    }
}
