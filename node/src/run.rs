//! `henge node run`: a node's process from its configuration to its exit code.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context as _, bail, ensure};
use henge_api::Tokens;
use henge_runtime::Scope;
use henge_storage::disk::OsDisk;
use henge_types::limits;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::runtime::{Builder, Runtime};

use crate::args::Run;
use crate::compose::{Node, Parts};
use crate::config::{Config, Overrides};
use crate::data_dir::{DataDir, TlsPaths};
use crate::environment;
use crate::logging;
use crate::signals::{ReloadSignal, StopSignals};
use crate::tokens;

/// The time for a node's stop: leaders are handed over, requests end, files are synced.
const STOP_DEADLINE: Duration = Duration::from_secs(8);
/// Threads of Raft's runtime: requests on the other runtime never delay a heartbeat.
const RAFT_THREADS: usize = 2;

/// The place of the data directory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    /// The place where it was written, as far as the operator knows.
    AsIs,
    /// A new place, and the operator says that no other copy is in use.
    Moved,
}

/// Runs a node until a signal ends it.
pub(crate) fn run(args: Run) -> ExitCode {
    let place = match args.moved {
        true => Place::Moved,
        false => Place::AsIs,
    };
    let config = match configuration(args) {
        Ok(config) => config,
        Err(error) => return crate::complain(&error, ExitCode::from(2)),
    };
    match serve(&config, place) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // The log is on standard error too: the error is reported once, in the configured
            // format.
            tracing::error!("the node failed: {}", crate::words(&error));
            ExitCode::FAILURE
        }
    }
}

fn configuration(args: Run) -> anyhow::Result<Config> {
    let path = args
        .config
        .or_else(|| environment::text("HENGE_CONFIG").map(PathBuf::from))
        .context("no configuration given: pass --config FILE or set HENGE_CONFIG")?;
    let overrides = Overrides {
        data_dir: args.data_dir,
        http_listen: args.http_listen,
        rpc_listen: args.rpc_listen,
        log_filter: args.log_filter,
    };
    let config = Config::load(&path, environment::text, overrides)?;
    logging::install(&config.log_filter, config.log_format)?;
    Ok(config)
}

fn serve(config: &Config, place: Place) -> anyhow::Result<()> {
    let raft = runtime("raft", Some(RAFT_THREADS))?;
    let serving = runtime("serve", None)?;
    // Before anything begins: from here on a signal ends the node in order.
    let mut signals = {
        let _entered = serving.enter();
        Signals::install().context("cannot take signals")?
    };
    let mut data_dir = DataDir::open(&config.data_dir)?;
    check_membership(config, &data_dir)?;
    if place == Place::Moved {
        tracing::info!("the data directory is taken over as one that was moved");
        henge_cluster::adopt_moved(&OsDisk, data_dir.path())
            .context("cannot take over the moved data directory")?;
    }
    let tls = TlsPaths::in_dir(data_dir.path());
    tls.check()?;
    let tokens = Tokens::new(tokens::read(config)?);
    tracing::info!(
        version = env!("CARGO_PKG_VERSION"),
        cluster = %data_dir.identity().cluster_id,
        node = %data_dir.identity().node_id,
        incarnation = %data_dir.identity().incarnation,
        http = %config.http_listen,
        rpc = %config.rpc_listen,
        "starting"
    );
    if let Some(warning) = in_the_clear(config.http_listen) {
        tracing::warn!(http = %config.http_listen, "{warning}");
    }
    raise_open_files();
    let scope = Scope::root("node", serving.handle().clone(), limits::BLOCKING_JOBS_MAX);
    let parts = Parts {
        config,
        identity: data_dir.identity().clone(),
        tls,
        tokens: tokens.clone(),
        raft: raft.handle().clone(),
        scope: scope.clone(),
    };
    let outcome = serving.block_on(async {
        // Boxed: this future contains the whole start.
        let node = Box::pin(Node::start(parts));
        let node = tokio::select! {
            biased;
            signal = signals.stop.next() => {
                tracing::info!(signal, "stopping before the start was done");
                return Ok(());
            }
            node = node => node?,
        };
        data_dir.started()?;
        tracing::info!("started");
        until_stopped(node, &mut signals, || tokens::reload(config, &tokens)).await
    });
    scope.cancel();
    serving.shutdown_timeout(Duration::from_secs(1));
    raft.shutdown_timeout(Duration::from_secs(1));
    outcome?;
    data_dir.close().context("cannot remove the pid file")?;
    tracing::info!("stopped");
    Ok(())
}

/// The signals of a node's process.
struct Signals {
    stop: StopSignals,
    reload: ReloadSignal,
}

impl Signals {
    fn install() -> std::io::Result<Self> {
        Ok(Self {
            stop: StopSignals::without_hang_up()?,
            reload: ReloadSignal::install()?,
        })
    }
}

/// The warning about a listener that other machines reach: it speaks plain HTTP.
pub(crate) fn in_the_clear(listen: SocketAddr) -> Option<&'static str> {
    (!listen.ip().to_canonical().is_loopback()).then_some(
        "the listener is reached from other machines and does not encrypt: tokens and repositories \
         can be read on the way, put a proxy with TLS in front of it",
    )
}

/// Runs a node until a signal comes or the node cannot go on, and stops it.
async fn until_stopped(node: Node, signals: &mut Signals, reload: impl Fn()) -> anyhow::Result<()> {
    let ended = loop {
        tokio::select! {
            biased;
            signal = signals.stop.next() => {
                tracing::info!(signal, "stopping");
                break None;
            }
            reason = node.ended() => break Some(reason),
            () = signals.reload.next() => reload(),
        }
    };
    tokio::select! {
        biased;
        signal = signals.stop.next() => bail!("ended by a second {signal} without waiting"),
        () = Box::pin(node.stop(STOP_DEADLINE)) => {}
    }
    match ended {
        Some(reason) => bail!(reason),
        None => Ok(()),
    }
}

/// Raises the soft limit of open files: connections, segments and packs are all open files, and the
/// usual limit is too low for them.
fn raise_open_files() {
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit {
        current: limit.maximum,
        maximum: limit.maximum,
    };
    if let Err(error) = setrlimit(Resource::Nofile, raised) {
        tracing::warn!(%error, limit = limit.current, "cannot raise the limit of open files");
    }
}

/// Checks that the configuration's founders include this data directory, with its incarnation and
/// addresses.
fn check_membership(config: &Config, data_dir: &DataDir) -> anyhow::Result<()> {
    let identity = data_dir.identity();
    let founder = config
        .cluster
        .founders
        .iter()
        .find(|founder| founder.node == identity.node_id)
        .with_context(|| {
            format!(
                "node {} is not among [[cluster.founders]], and this release has no other members",
                identity.node_id
            )
        })?;
    ensure!(
        founder.incarnation == identity.incarnation,
        "[[cluster.founders]] names incarnation {} as node {}, but this data directory is {}: \
         a wiped node does not come back under its old number",
        founder.incarnation,
        identity.node_id,
        identity.incarnation
    );
    ensure!(
        founder.rpc == config.rpc_advertise && founder.http == config.http_advertise,
        "[[cluster.founders]] names {} and {} as node {}, but [node] says {} and {}",
        founder.rpc,
        founder.http,
        identity.node_id,
        config.rpc_advertise,
        config.http_advertise
    );
    Ok(())
}

fn runtime(name: &'static str, threads: Option<usize>) -> anyhow::Result<Runtime> {
    let mut builder = Builder::new_multi_thread();
    builder.thread_name(name).enable_all();
    if let Some(threads) = threads {
        builder.worker_threads(threads);
    }
    builder
        .build()
        .with_context(|| format!("cannot start the {name} runtime"))
}

#[cfg(test)]
mod tests {
    use super::in_the_clear;

    #[test]
    fn a_listener_that_others_reach_is_warned_of() {
        let warned = |address: &str| in_the_clear(address.parse().expect("an address")).is_some();
        for address in [
            "127.0.0.1:7401",
            "127.9.9.9:1",
            "[::1]:7401",
            "[::ffff:127.0.0.1]:1",
        ] {
            assert!(!warned(address), "{address}");
        }
        for address in [
            "0.0.0.0:7401",
            "192.168.0.1:7401",
            "[::]:7401",
            "[2001:db8::1]:1",
        ] {
            assert!(warned(address), "{address}");
        }
    }
}
