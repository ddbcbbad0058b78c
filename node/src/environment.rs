//! The environment of the process: read here and nowhere else.

use std::path::PathBuf;

use henge_cli::Environment;
use henge_client::Secret;

/// A variable; one that is empty or not text counts as not set.
#[expect(
    clippy::disallowed_methods,
    reason = "the one place that reads the environment"
)]
pub(crate) fn text(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|text| !text.is_empty())
}

/// What the remote verbs want to know of it.
pub(crate) fn remote() -> Environment {
    Environment {
        url: text("HENGE_URL"),
        token: text("HENGE_TOKEN").map(|token| Secret::new(&token)),
        folder: PathBuf::from("."),
    }
}
