//! The node's log: on standard error, in the configured format and with the configured filter.

use std::io;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::Context as _;
use tracing::Metadata;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::writer::MakeWriterExt as _;

use crate::config::LogFormat;

/// Whether this process shuts its groups down.
static STOPPING: AtomicBool = AtomicBool::new(false);
/// The target of a group's heartbeats. They outlive its core for a moment at every stop, and log
/// that at ERROR.
const HEARTBEATS: &str = "openraft::core::heartbeat";

/// Installs the log for the rest of the process.
pub(crate) fn install(filter: &str, format: LogFormat) -> anyhow::Result<()> {
    let filter = EnvFilter::try_new(filter)
        .with_context(|| format!("[log] filter: {filter:?} is not a filter"))?;
    let log = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(io::stderr.with_filter(is_written));
    let installed = match format {
        LogFormat::Text => log.with_ansi(false).try_init(),
        LogFormat::Json => log.json().try_init(),
    };
    installed.map_err(|error| anyhow::anyhow!("cannot install the log: {error}"))
}

/// Marks the shutdown of the process's groups: a heartbeat without a core is no error from here on.
pub(crate) fn stopping() {
    STOPPING.store(true, Ordering::Relaxed);
}

fn is_written(metadata: &Metadata<'_>) -> bool {
    !(STOPPING.load(Ordering::Relaxed) && metadata.target().starts_with(HEARTBEATS))
}
