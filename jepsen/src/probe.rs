//! The cluster's reports about itself: `/readyz` of each node, and `henge cluster status`.

use std::collections::BTreeSet;
use std::fmt;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use serde_json::Value;

use crate::ring::Ring;

/// Time limit for one HTTP request to loopback.
const REQUEST_LIMIT: Duration = Duration::from_secs(5);
/// Time limit for `henge cluster status`.
const STATUS_LIMIT: Duration = Duration::from_secs(20);
/// Maximum size of an answer.
const ANSWER_BYTES_MAX: u64 = 8 * 1024 * 1024;

/// `GET` without a token: the status code and the body.
///
/// # Errors
/// When the node does not answer.
pub fn get(address: &str, path: &str) -> anyhow::Result<(u16, String)> {
    let text = request(address, path)?;
    let (head, body) = text.split_once("\r\n\r\n").unwrap_or((&text, ""));
    let code = head.split_whitespace().nth(1).unwrap_or_default();
    Ok((code.parse()?, body.trim().to_owned()))
}

/// One header of an answer; `None` when the node does not answer or does not send it.
pub fn header(address: &str, path: &str, name: &str) -> Option<String> {
    let text = request(address, path).ok()?;
    let (head, _) = text.split_once("\r\n\r\n")?;
    let pairs = head.lines().filter_map(|line| line.split_once(':'));
    let mut found = pairs.filter(|(key, _)| key.eq_ignore_ascii_case(name));
    found.next().map(|(_, value)| value.trim().to_owned())
}

fn request(address: &str, path: &str) -> anyhow::Result<String> {
    let target: SocketAddr = address.parse()?;
    let mut stream = TcpStream::connect_timeout(&target, REQUEST_LIMIT)?;
    stream.set_read_timeout(Some(REQUEST_LIMIT))?;
    stream.set_write_timeout(Some(REQUEST_LIMIT))?;
    write!(
        stream,
        "GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n"
    )?;
    let mut bytes = Vec::new();
    stream.take(ANSWER_BYTES_MAX).read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// Whether a node reports ready; `Err` holds its answer otherwise.
///
/// # Errors
/// When it is not ready.
pub fn ready(address: &str) -> Result<(), String> {
    match get(address, "/readyz") {
        Ok((200, _)) => Ok(()),
        Ok((code, body)) => Err(format!("{code} {body}")),
        Err(error) => Err(format!("no answer: {error}")),
    }
}

/// The output of `henge cluster status --check`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Status {
    /// `ok`, `degraded` or `failing`; empty when no node answered.
    pub health: String,
    /// The problems, one sentence each.
    pub problems: Vec<String>,
    /// The exit code of `--check`.
    pub exit: i32,
    /// Nodes without a report to the queried node.
    pub silent: BTreeSet<u64>,
}

impl Status {
    /// Whether the reported health is ok.
    pub fn is_ok(&self) -> bool {
        self.health == "ok"
    }

    /// Whether the exit code agrees with the reported health.
    pub fn is_consistent(&self) -> bool {
        (self.exit == 0) == self.is_ok()
    }
}

impl fmt::Display for Status {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let health = match self.health.as_str() {
            "" => "no answer",
            health => health,
        };
        write!(formatter, "{health}")?;
        if !self.problems.is_empty() {
            write!(formatter, " ({})", self.problems.join("; "))?;
        }
        Ok(())
    }
}

/// Requests the status of the cluster from these nodes in turn.
///
/// # Errors
/// When the command cannot be run or its output cannot be parsed.
pub fn status(ring: &Ring, nodes: &[u64]) -> anyhow::Result<Status> {
    let addresses = ring.addresses();
    let asked = addresses.iter().filter(|(id, _)| nodes.contains(id));
    let urls: Vec<String> = asked.map(|(_, http)| format!("http://{http}")).collect();
    let ended = ring
        .henge()
        .args(["cluster", "status", "--check", "--output", "json", "--url"])
        .arg(urls.join(","))
        .args(["--token", &ring.token])
        .deadline(STATUS_LIMIT)
        .run()?;
    let exit = ended.code.unwrap_or(-1);
    let Ok(answer) = serde_json::from_str::<Value>(&ended.stdout) else {
        return Ok(Status {
            health: String::new(),
            problems: vec![ended.stderr.trim().to_owned()],
            exit,
            silent: BTreeSet::new(),
        });
    };
    let text = |value: &Value| value.as_str().map(str::to_owned);
    let list = |key: &str| answer.get(key).and_then(Value::as_array).cloned();
    let silent = list("nodes").unwrap_or_default().into_iter();
    let silent = silent
        .filter(|node| node.get("report").is_none_or(Value::is_null))
        .filter_map(|node| node.get("node").and_then(Value::as_u64));
    let problems = list("problems").unwrap_or_default();
    let words = |problem: &Value| text(problem).unwrap_or_else(|| problem.to_string());
    Ok(Status {
        health: answer.get("health").and_then(text).unwrap_or_default(),
        problems: problems.iter().map(words).collect(),
        exit,
        silent: silent.collect(),
    })
}
