//! `henge credential`: what git asks for a user and a password (gitcredentials(7)). The token stays out of URLs, where
//! shells, logs and configurations keep it.

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

/// What git says of what it wants, at most.
const QUESTION_BYTES_MAX: u64 = 64 * 1024;
/// The cluster knows one user by password; its name is not looked at.
const USER: &str = "admin";

/// Answers one question of git. Only the cluster's own addresses are told the token; for every other one, and where no cluster
/// is named, nothing is said, and git asks its next helper.
pub(crate) fn run(
    asked: &Credential,
    environment: &Environment,
    console: &mut Console<'_>,
) -> Result<Exit, CliError> {
    let address = read_address(console.answers)?;
    // What git would have kept or forgotten: nothing is kept here.
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

/// The scheme, host and port that git wants to log in at, as an address.
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

/// Whether git means a node of the cluster: the same scheme, host and port, whatever the path.
fn is_same(ours: &Address, asked: &str) -> bool {
    let ours = ours.as_str();
    let end = ours
        .match_indices('/')
        .nth(2)
        .map_or(ours.len(), |(at, _)| at);
    let ours = ours.get(..end).unwrap_or(ours);
    ours.eq_ignore_ascii_case(asked)
}
