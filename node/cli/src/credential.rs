//! `henge credential`: a credential helper of git (gitcredentials(7)). It keeps the token out of
//! URLs, where shells, logs and configurations store it.

use std::io::{self, BufRead, Read as _};

use clap::Args;
use henge_client::Address;

use crate::console::Console;
use crate::context::{Environment, Remote, resolve};
use crate::error::CliError;
use crate::exit::Exit;

/// `henge credential`
#[derive(Debug, Args)]
pub struct Credential {
    /// What git wants: get, store or erase; nothing is kept, so the last two do nothing
    #[arg(value_name = "OPERATION")]
    pub operation: String,
    /// Which cluster.
    #[command(flatten)]
    pub remote: Remote,
}

/// Bytes of git's request.
const QUESTION_BYTES_MAX: u64 = 64 * 1024;
/// The user name in the answer. The cluster accepts any user name with the token.
const USER: &str = "admin";

/// Answers one request of git. The token is returned only for the cluster's own addresses. For any
/// other address, and without a configured cluster, the output is empty, and git tries its next
/// helper.
pub(crate) fn run(
    asked: &Credential,
    environment: &Environment,
    console: &mut Console<'_>,
) -> Result<Exit, CliError> {
    let address = read_address(console.answers)?;
    // `store` and `erase`: this helper stores nothing.
    if asked.operation != "get" {
        return Ok(Exit::Ok);
    }
    let context = match resolve(&asked.remote, environment) {
        Err(CliError::NoCluster) => return Ok(Exit::Ok),
        context => context?,
    };
    let is_ours = context.addresses.iter().any(|ours| is_same(ours, &address));
    if let Some(token) = context.token.filter(|_| is_ours) {
        write!(
            console.out,
            "username={USER}\npassword={}\n",
            token.reveal()
        )?;
        console.out.flush()?;
    }
    Ok(Exit::Ok)
}

/// The scheme, host and port of git's request, as an address.
fn read_address(input: &mut (dyn BufRead + Send)) -> io::Result<String> {
    let mut question = String::new();
    input
        .take(QUESTION_BYTES_MAX)
        .read_to_string(&mut question)?;
    let value = |key: &str| {
        let mut lines = question.lines();
        lines.find_map(|line| line.strip_prefix(key)?.strip_prefix('='))
    };
    let (protocol, host) = (value("protocol"), value("host"));
    Ok(format!(
        "{}://{}",
        protocol.unwrap_or_default(),
        host.unwrap_or_default()
    ))
}

/// Whether git's request is for a node of the cluster: the same scheme, host and port. The path is
/// not compared.
fn is_same(ours: &Address, asked: &str) -> bool {
    let ours = ours.as_str();
    let end = ours
        .match_indices('/')
        .nth(2)
        .map_or(ours.len(), |(at, _)| at);
    let ours = ours.get(..end).unwrap_or(ours);
    ours.eq_ignore_ascii_case(asked)
}
