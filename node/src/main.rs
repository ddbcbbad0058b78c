//! The `henge` binary: a node, a local cluster for trying it out, and the commands that talk to a
//! cluster.
//!
//! - `args`: the command line. `environment`: the one place that reads variables.
//! - `config`, `identity`, `data_dir`: a node before its start.
//! - `tokens`: the files of the tokens. `run`: a node's process. `compose`: the wiring of its
//!   parts; no other module names all of them.
//! - `http_server`: the listener. `start_gate`: its responses while the node starts. `serve_bare`:
//!   git over plain repositories, behind that listener. `stdio`: the same for one conversation on
//!   standard input and output.
//! - `export`: the repositories of a stopped node as plain ones.
//! - `dev`: a local cluster: its layout on disk, its certificates (`certificates`), its processes.
//!
//! No crate depends on this one.

mod args;
mod backend;
mod certificates;
mod compose;
mod config;
mod data_dir;
mod dev;
mod environment;
mod export;
mod http_server;
mod identity;
mod logging;
mod reserve;
mod run;
mod serve_bare;
mod signals;
mod start_gate;
mod stdio;
mod tokens;

use std::io::{self, IsTerminal as _, Write as _};
use std::process::ExitCode;

use anyhow::Context as _;
use args::{Command, Henge, NodeVerb};
use clap::Parser as _;
use henge_cli::console::Input;
use henge_cli::{Console, Exit};
use tikv_jemallocator::Jemalloc;
use tokio::runtime::Builder;

/// The reasons against the C library's allocator: docs/adr/0012.
#[global_allocator]
static ALLOCATOR: Jemalloc = Jemalloc;

fn main() -> ExitCode {
    match Henge::parse().command {
        Command::Dev(args) => dev::run(&args),
        Command::Node(node) => match node.verb {
            NodeVerb::Run(args) => run::run(args),
            NodeVerb::Export(args) => export::run(&args),
        },
        Command::ServeBare(args) => serve_bare::run(&args),
        Command::UploadPack(args) => stdio::upload_pack(&args),
        Command::ReceivePack(args) => stdio::receive_pack(&args),
        Command::Remote(command) => remote(command),
    }
}

fn remote(command: henge_cli::Command) -> ExitCode {
    let runtime = Builder::new_current_thread()
        .enable_all()
        .build()
        .context("cannot start");
    let runtime = match runtime {
        Ok(runtime) => runtime,
        Err(error) => return complain(&error, ExitCode::from(Exit::Failure.code())),
    };
    let stdin = io::stdin();
    let person = |is_terminal| match is_terminal {
        true => Input::Terminal,
        false => Input::Other,
    };
    let (input, watcher) = (
        person(stdin.is_terminal()),
        person(io::stderr().is_terminal()),
    );
    let mut console = Console {
        out: &mut io::stdout(),
        err: &mut io::stderr(),
        answers: &mut io::BufReader::new(stdin),
        input,
        watcher,
    };
    let environment = environment::remote();
    let exit = runtime.block_on(henge_cli::run(command, &environment, &mut console));
    ExitCode::from(exit.code())
}

/// Writes to standard output. If that is closed, the process runs on.
fn say(text: &str) {
    let mut out = io::stdout();
    drop(writeln!(out, "{text}").and_then(|()| out.flush()));
}

/// Prints the error on standard error and returns the exit code.
fn complain(error: &anyhow::Error, code: ExitCode) -> ExitCode {
    // If standard error is closed too, only the exit code reports the error.
    drop(writeln!(io::stderr(), "henge: {}", words(error)));
    code
}

/// An error with its causes, each once: some messages contain their cause's.
fn words(error: &anyhow::Error) -> String {
    let mut words = String::new();
    for cause in error.chain() {
        let cause = cause.to_string();
        if words.is_empty() {
            words = cause;
        } else if !words.ends_with(&cause) {
            words = format!("{words}: {cause}");
        }
    }
    words
}

#[cfg(test)]
mod tests {
    use anyhow::Context as _;

    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("the log: {0}")]
    struct Holds(#[from] io::Error);

    /// Regression: half a page of text appeared twice in the line about a failed start.
    #[test]
    fn a_cause_is_said_once() {
        let error: Result<(), _> = Err(Holds(io::Error::other("it is a copy")));
        let error = error.context("cannot start").expect_err("failed");
        assert_eq!(words(&error), "cannot start: the log: it is a copy");
    }
}
