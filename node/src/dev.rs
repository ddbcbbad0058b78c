//! `henge dev`: a real cluster of node processes on this machine, in one command.
//!
//! - `layout`: its files, and the creation of a cluster as a whole or not at all.
//! - `ports`: the listeners of each node.
//! - `supervisor`: its processes, from the start to the last one's end.

mod layout;
mod ports;
mod supervisor;

use std::io::{self, Write as _};
use std::process::ExitCode;

use anyhow::Context as _;
use tokio::runtime::Builder;

use crate::args::Dev;
use layout::Layout;
use supervisor::Supervisor;

/// Runs a local cluster until a signal ends it.
pub(crate) fn run(args: &Dev) -> ExitCode {
    match start(args) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => crate::complain(&error, ExitCode::FAILURE),
    }
}

fn start(args: &Dev) -> anyhow::Result<()> {
    let layout = Layout::prepare(args)?;
    ports::check(&layout.settings)?;
    let program = std::env::current_exe().context("cannot find this program's own file")?;
    let runtime = Builder::new_current_thread()
        .enable_all()
        .build()
        .context("cannot start")?;
    runtime.block_on(Supervisor::new(layout, program).run())
}

/// Writes to standard error. If that is closed, the cluster runs on.
fn warn(text: &str) {
    drop(writeln!(io::stderr(), "henge: {text}"));
}
