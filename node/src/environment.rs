//! The environment of the process: read here and nowhere else.

use std::path::PathBuf;

use henge_cli::Environment;
use henge_client::Secret;

/// A variable; an empty one and one that is not text count as not set.
#[expect(
    clippy::disallowed_methods,
    reason = "the one place that reads the environment"
)]
pub(crate) fn text(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|text| !text.is_empty())
}

/// The environment of the remote commands.
pub(crate) fn remote() -> Environment {
    Environment {
        url: text("HENGE_URL"),
        token: text("HENGE_TOKEN").map(|token| Secret::new(&token)),
        folder: PathBuf::from("."),
    }
}
