//! `henge serve-bare`: the git protocol over plain bare repositories, without a cluster and without
//! accounts.

use std::net::SocketAddr;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use henge_git::bare::Pushes;
use henge_git::{BareRoot, http};
use henge_runtime::{Scope, SystemClock};
use henge_types::limits;
use tokio::runtime::Builder;

use crate::args::ServeBare;
use crate::config::LogFormat;
use crate::http_server::HttpServer;
use crate::run::in_the_clear;
use crate::signals::StopSignals;
use crate::{environment, logging};

/// The time for requests that have begun.
const STOP_DEADLINE: Duration = Duration::from_secs(10);

/// Serves until a signal ends it.
pub(crate) fn run(args: &ServeBare) -> ExitCode {
    match serve(args) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => crate::complain(&error, ExitCode::FAILURE),
    }
}

fn serve(args: &ServeBare) -> anyhow::Result<()> {
    let pushes = if args.allow_push {
        // There are no accounts here: every client that reaches the port could write.
        ensure!(
            args.listen.ip().is_loopback(),
            "--allow-push listens on a loopback address only: {} is none",
            args.listen.ip()
        );
        Pushes::Allowed
    } else {
        Pushes::Refused
    };
    let filter = environment::text("HENGE_LOG_FILTER");
    logging::install(filter.as_deref().unwrap_or("warn"), LogFormat::Text)?;
    let runtime = Builder::new_multi_thread()
        .thread_name("serve")
        .enable_all()
        .build()
        .context("cannot start")?;
    let spool = tempfile::tempdir().context("cannot make a folder for pushes under way")?;
    let scope = Scope::root(
        "serve-bare",
        runtime.handle().clone(),
        limits::BLOCKING_JOBS_MAX,
    );
    let clock = SystemClock::shared();
    let root = BareRoot::open(&args.root, spool.path(), pushes, scope.clone(), clock)
        .with_context(|| format!("cannot serve {}", args.root.display()))?;
    runtime.block_on(async {
        let mut signals = StopSignals::install().context("cannot take signals")?;
        let server = HttpServer::start(args.listen, http::router(root), &scope)
            .await
            .with_context(|| format!("cannot listen on {}", args.listen))?;
        if let Some(warning) = in_the_clear(args.listen) {
            tracing::warn!(listen = %args.listen, "{warning}");
        }
        tell(args, server.address());
        signals.next().await;
        let stopped = tokio::select! {
            biased;
            _ = signals.next() => false,
            stopped = server.stop(STOP_DEADLINE) => stopped,
        };
        scope.cancel();
        ensure!(stopped, "requests were cut off");
        Ok(())
    })
}

fn tell(args: &ServeBare, address: SocketAddr) {
    crate::say(&format!(
        "serving the bare repositories below {}\n  git clone http://{address}/PATH\nready",
        args.root.display()
    ));
}
