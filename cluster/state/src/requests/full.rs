//! Records of requests before replicated time: whole, for a day by the clocks of proposers.
//!
//! A group that keeps its own time creates no more of them. Its existing ones are found until there
//! are two generations of compact ones, and are then removed a few at a time.

use henge_types::limits::{REQUEST_RECORD_MS_MIN, REQUEST_RECORDS_EXPIRED_PER_APPLY};
use henge_types::stored::{self, DecodeError, Row};
use henge_types::{Refusal, Reply, RepoId, RequestBinding, RequestId, StoredRecord};
use serde::{Deserialize, Serialize};

use crate::changes::Changes;
use crate::keys;
use crate::view::View;

/// The request of an id, and its reply.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RequestRecord {
    /// The principal.
    pub principal: String,
    /// The repository of the request.
    pub repo: Option<RepoId>,
    /// SHA-256 of the commands as the client sent them.
    pub digest: [u8; 32],
    /// The reply.
    pub reply: Reply,
}

impl StoredRecord for RequestRecord {
    const ROW: Row = Row::REQUEST_RECORD;

    fn encode(&self) -> Vec<u8> {
        stored::encode(Self::ROW.number, 1, self)
    }

    /// Reads version 1: version 2 is the compact record.
    fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        stored::decode_v1(Self::ROW.number, bytes)
    }
}

impl RequestRecord {
    /// Whether the request is the recorded one: same principal, repository and commands.
    pub fn binds(&self, request: &RequestBinding) -> bool {
        // All of it: an id alone does not identify its request.
        self.principal == request.principal
            && self.repo == request.repo
            && self.digest == request.digest
    }
}

/// The record of a request, while it is kept.
pub(crate) fn find(view: &impl View, id: &RequestId) -> Option<RequestRecord> {
    let key = keys::request(id);
    let bytes = view.get(&key)?;
    Some(crate::view::decode(&key, &bytes))
}

/// The reply to a request that must not be executed: it has a record, or is so old that it may have
/// been executed.
pub(crate) fn answered(view: &impl View, request: &RequestBinding, now_ms: u64) -> Option<Reply> {
    let made_at_ms = request.id.made_at_ms;
    // The floor keeps this true when the next proposer's clock is behind the last one's.
    if is_forgotten(view, &request.id) || is_old(made_at_ms, now_ms) {
        return Some(Reply::UnknownOutcome);
    }
    let record = find(view, &request.id)?;
    if record.binds(request) {
        Some(record.reply)
    } else {
        Some(Reply::Refused(Refusal::RequestMismatch))
    }
}

/// Records the reply, and removes a few records of requests that are too old for a retry.
pub(crate) fn record(
    changes: &mut Changes<'_, impl View>,
    request: &RequestBinding,
    now_ms: u64,
    reply: &Reply,
) {
    let record = RequestRecord {
        principal: request.principal.clone(),
        repo: request.repo,
        digest: request.digest,
        reply: reply.clone(),
    };
    changes.put_record(keys::request(&request.id), &record);
    expire(changes, now_ms);
}

fn expire(changes: &mut Changes<'_, impl View>, now_ms: u64) {
    let all = keys::requests();
    let mut floor = None;
    let oldest = changes.before().range(&all, &all);
    for (key, _) in oldest.take(REQUEST_RECORDS_EXPIRED_PER_APPLY) {
        let made_at_ms = keys::request_made_at_ms(key)
            .unwrap_or_else(|| panic!("request record with a broken key {key:?}: state damaged"));
        if !is_old(made_at_ms, now_ms) {
            break;
        }
        floor = Some(made_at_ms);
        changes.delete(key.clone());
    }
    if let Some(floor) = floor {
        changes.put(keys::request_floor(), floor.to_be_bytes().to_vec());
    }
}

/// Whether the record of such a request may have been removed.
pub(crate) fn is_forgotten(view: &impl View, id: &RequestId) -> bool {
    floor(view).is_some_and(|floor| id.made_at_ms <= floor)
}

/// Whether there is a record.
pub(crate) fn any(view: &impl View) -> bool {
    let all = keys::requests();
    view.range(&all, &all).next().is_some()
}

/// Removes the first records, at any age.
pub(crate) fn drain(changes: &mut Changes<'_, impl View>, records: usize) {
    let all = keys::requests();
    let first = changes.before().range(&all, &all);
    for (key, _) in first.take(records) {
        changes.delete(key.clone());
    }
}

fn floor(view: &impl View) -> Option<u64> {
    let key = keys::request_floor();
    view.get(&key)
        .map(|bytes| crate::view::decode_u64(&key, &bytes))
}

const fn is_old(made_at_ms: u64, now_ms: u64) -> bool {
    now_ms.saturating_sub(made_at_ms) > REQUEST_RECORD_MS_MIN
}
