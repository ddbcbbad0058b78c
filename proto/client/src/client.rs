//! The order of the addresses of a call. The calls of a feature are in its file.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use henge_types::ErrorCode;
use henge_types::limits::QUORUM_WAIT_MS;
use http::{HeaderValue, Method};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::address::{Address, InvalidAddress};
use crate::error::{Attempt, ClientError, code_of_status};
use crate::model::ErrorBody;
use crate::secret::Secret;
use crate::transport::{Answer, Call, Failure, Transport};

mod certificates;
mod cluster;
mod fsck;
mod limits;
mod mirrors;
mod packs;
mod refs;
mod repos;
mod settings;

pub use cluster::Readiness;

/// An answer about one thing.
const ANSWER_BYTES_MAX: usize = 1024 * 1024;
/// An answer with a list.
const LIST_BYTES_MAX: usize = 16 * 1024 * 1024;

/// The deadlines of a call, per address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Deadlines {
    /// For the connection.
    pub connect: Duration,
    /// For the whole answer, connection included.
    pub answer: Duration,
    /// For the answer to [`Client::cluster`]: nodes answer it without waiting for a quorum.
    pub status: Duration,
}

impl Default for Deadlines {
    /// Longer than a node waits for a quorum before it reports that there is none.
    fn default() -> Self {
        Self {
            connect: Duration::from_secs(2),
            answer: Duration::from_millis(QUORUM_WAIT_MS + 4_000),
            status: Duration::from_secs(4),
        }
    }
}

/// Whether a call may be sent again when its outcome is unknown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Effect {
    Reads,
    Changes,
}

/// A cluster, by the addresses of some of its nodes. Cloning shares the connections.
#[derive(Debug, Clone)]
pub struct Client {
    addresses: Arc<[Address]>,
    /// The address that answered last: the first of the next call.
    preferred: Arc<AtomicUsize>,
    token: Option<Secret>,
    deadlines: Deadlines,
    transport: Transport,
}

impl Client {
    /// A client that tries these addresses in turn.
    ///
    /// # Errors
    /// When there is no address, or one of them is not `http://HOST:PORT`.
    pub fn new(base_urls: &[String], token: Option<Secret>) -> Result<Self, InvalidAddress> {
        let addresses = Address::parse_list(&base_urls.join(","))?;
        Ok(Self::with_deadlines(addresses, token, Deadlines::default()))
    }

    /// The same with other deadlines than the default ones. At least one address must be given:
    /// with none every call fails as unreachable.
    pub fn with_deadlines(
        addresses: Vec<Address>,
        token: Option<Secret>,
        deadlines: Deadlines,
    ) -> Self {
        Self {
            addresses: addresses.into(),
            preferred: Arc::new(AtomicUsize::new(0)),
            token,
            deadlines,
            transport: Transport::new(deadlines.connect),
        }
    }

    /// The addresses, in the order given.
    pub fn addresses(&self) -> &[Address] {
        &self.addresses
    }

    async fn json<T: DeserializeOwned>(
        &self,
        call: &Call,
        effect: Effect,
    ) -> Result<T, ClientError> {
        let (address, answer) = self.ask(call, effect).await?;
        decode(&address, &answer.body)
    }

    async fn ask(&self, call: &Call, effect: Effect) -> Result<(Address, Answer), ClientError> {
        self.ask_within(call, effect, self.deadlines.answer).await
    }

    /// Tries the addresses in turn, from the one that answered last, until one returns a final
    /// answer.
    async fn ask_within(
        &self,
        call: &Call,
        effect: Effect,
        within: Duration,
    ) -> Result<(Address, Answer), ClientError> {
        let authorization = self.authorization()?;
        let first = self.preferred.load(Ordering::Relaxed);
        let mut unreachable = Vec::new();
        let mut failed = None;
        for step in 0..self.addresses.len() {
            let place = (first + step) % self.addresses.len();
            let Some(address) = self.addresses.get(place) else {
                continue;
            };
            let sent = self
                .transport
                .send(address, call, authorization.as_ref(), within);
            let (error, go_on) = match sent.await {
                Ok(answer) if answer.status.is_success() => {
                    self.preferred.store(place, Ordering::Relaxed);
                    return Ok((address.clone(), answer));
                }
                Ok(answer) => refusal(address, &answer, effect),
                Err(Failure::Connect(reason)) => {
                    unreachable.push(Attempt {
                        address: address.clone(),
                        reason,
                    });
                    continue;
                }
                Err(failure) => broken(address, call, failure, effect, within),
            };
            if !go_on {
                return Err(error);
            }
            failed = Some(error);
        }
        Err(failed.unwrap_or(ClientError::Unreachable {
            attempts: unreachable,
        }))
    }

    fn authorization(&self) -> Result<Option<HeaderValue>, ClientError> {
        let Some(token) = &self.token else {
            return Ok(None);
        };
        let mut value = HeaderValue::from_str(&format!("Bearer {}", token.reveal()))
            .map_err(|_| ClientError::Token)?;
        value.set_sensitive(true);
        Ok(Some(value))
    }
}

/// The error for an answer, and whether the next address may be tried. A read tries it after every
/// `unavailable`. A change tries it only after an answer of a node itself, which means that nothing
/// was done.
fn refusal(address: &Address, answer: &Answer, effect: Effect) -> (ClientError, bool) {
    let body: ErrorBody = serde_json::from_slice(&answer.body).unwrap_or_default();
    let status = answer.status.as_u16();
    let code = body.code.unwrap_or_else(|| code_of_status(status));
    let said_unavailable = body.code == Some(ErrorCode::Unavailable);
    let go_on = said_unavailable || (effect == Effect::Reads && code == ErrorCode::Unavailable);
    let message = if body.message.is_empty() {
        format!("{address} answered with HTTP status {status}")
    } else {
        body.message
    };
    let error = ClientError::Refused {
        address: address.clone(),
        code,
        status,
        message,
        retry_after_s: answer.retry_after_s,
    };
    (error, go_on)
}

fn broken(
    address: &Address,
    call: &Call,
    failure: Failure,
    effect: Effect,
    waited: Duration,
) -> (ClientError, bool) {
    let address = address.clone();
    let reads = effect == Effect::Reads;
    match failure {
        Failure::Connect(reason) | Failure::Broken(reason) => {
            let error = ClientError::Broken {
                attempt: Attempt { address, reason },
                changes: !reads,
            };
            (error, reads)
        }
        Failure::Timeout => (ClientError::Timeout { address, waited }, reads),
        Failure::TooLong => {
            let bytes_max = call.answer_bytes_max;
            (ClientError::TooLong { address, bytes_max }, false)
        }
    }
}

fn decode<T: DeserializeOwned>(address: &Address, body: &[u8]) -> Result<T, ClientError> {
    serde_json::from_slice(body).map_err(|error| ClientError::Malformed {
        address: address.clone(),
        detail: error.to_string(),
    })
}

fn get(path: String, answer_bytes_max: usize) -> Call {
    Call {
        answer_bytes_max,
        ..bare(Method::GET, path)
    }
}

/// A call without a body.
fn bare(method: Method, path: String) -> Call {
    Call {
        method,
        path,
        body: None,
        answer_bytes_max: ANSWER_BYTES_MAX,
    }
}

/// A call with a JSON body.
fn with_body(method: Method, path: String, body: &impl Serialize) -> Call {
    let body = serde_json::to_vec(body).expect("invariant: the request bodies have string keys");
    Call {
        body: Some(Bytes::from(body)),
        ..bare(method, path)
    }
}

/// Percent-encoding for a path or a query: only letters, digits, `/` and a few harmless characters
/// stay.
fn in_path(text: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.~/".contains(&byte);
    let encode = |byte: u8| match plain(byte) {
        true => char::from(byte).to_string(),
        false => format!("%{byte:02X}"),
    };
    text.bytes().map(encode).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_stand_in_paths_by_their_bytes() {
        assert_eq!(in_path("release/v[0-9]*"), "release/v%5B0-9%5D%2A");
        assert_eq!(in_path("a?b%"), "a%3Fb%25");
    }
}
