//! Records of requests in two generations: the current one, and the one before it.
//!
//! A generation ends when it is [`REQUEST_GENERATION_MS`] old in replicated time or holds
//! [`REQUEST_GENERATION_BYTES_MAX`]. The generation before it then expires. Its records are removed
//! a few at a time, faster than new ones are added. So a record is found for at least one whole
//! generation, and a group's records take a bounded number of bytes at any rate of writes.
//!
//! A request id names the generation that its maker had applied: it cannot have been executed in an
//! earlier one. As long as that generation is kept, an id without a record was never executed. An
//! id of an expired generation may have been executed: its outcome is unknown, and it is never
//! executed. Generations are counters and not times. They only grow, also when the group's time is
//! moved back, and ids that were made while a group was idle for days stay valid.

use henge_types::limits::{
    REQUEST_GENERATION_BYTES_MAX, REQUEST_GENERATION_MS, REQUEST_RECORDS_DRAINED_PER_APPLY,
    REQUEST_RECORDS_DRAINED_PER_STEP,
};
use henge_types::stored::{self, DecodeError, Row};
use henge_types::{RefVerdict, Refusal, Reply, RequestBinding, RequestId, StoredRecord};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use super::full;
use crate::changes::Changes;
use crate::view::{View, decode};
use crate::{keys, time};

/// The first generation.
const FIRST: u64 = 1;
/// Bytes of the digest that binds an id.
const DIGEST_BYTES: usize = 16;

/// The digest that binds an id to its principal and its request.
pub(super) type Digest = [u8; DIGEST_BYTES];

/// The stored form, version 2 of a request's record.
#[derive(Serialize, Deserialize)]
pub(super) struct CompactRecord {
    pub(super) binding: Digest,
    pub(super) reply: Reply,
}

impl StoredRecord for CompactRecord {
    const ROW: Row = Row::REQUEST_RECORD;

    fn encode(&self) -> Vec<u8> {
        stored::encode(Self::ROW.number, 2, self)
    }

    fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let number = Self::ROW.number;
        let (version, body) = stored::open_record(number, Self::ROW.known(), bytes)?;
        stored::body(number, version, body)
    }
}

/// The current generation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
struct Filling {
    generation: u64,
    /// The time of its first record, in the group's time.
    since_ms: u64,
    /// Size of its keys and values.
    bytes: u64,
}

impl StoredRecord for Filling {
    const ROW: Row = Row::REQUEST_GENERATION;

    fn encode(&self) -> Vec<u8> {
        stored::encode(Self::ROW.number, 1, self)
    }

    fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        stored::decode_v1(Self::ROW.number, bytes)
    }
}

impl Filling {
    fn of(view: &impl View) -> Option<Self> {
        let key = keys::request_generation();
        let bytes = view.get(&key)?;
        Some(decode(&key, &bytes))
    }

    const fn first(now_ms: u64) -> Self {
        Self {
            generation: FIRST,
            since_ms: now_ms,
            bytes: 0,
        }
    }

    const fn is_over(&self, now_ms: u64) -> bool {
        now_ms.saturating_sub(self.since_ms) >= REQUEST_GENERATION_MS
    }

    /// This generation, or the next one if this one is over or would exceed its size by `bytes`
    /// more.
    fn with(self, bytes: u64, now_ms: u64) -> Self {
        let full = self.bytes.saturating_add(bytes) > REQUEST_GENERATION_BYTES_MAX;
        if self.is_over(now_ms) || (full && self.bytes > 0) {
            return Self {
                generation: self.generation.saturating_add(1),
                since_ms: now_ms,
                bytes,
            };
        }
        Self {
            // The time may have been moved back since.
            since_ms: self.since_ms.min(now_ms),
            bytes: self.bytes.saturating_add(bytes),
            ..self
        }
    }

    /// Whether expired records may be left: those of generations before the last two, and those of
    /// an earlier release, whose records count as one generation before the first.
    const fn has_outlived_some(&self) -> bool {
        self.generation >= FIRST + 2
    }

    fn put(&self, changes: &mut Changes<'_, impl View>) {
        changes.put_record(keys::request_generation(), self);
    }
}

/// The generation for a new request id; `None` below the release level of replicated time.
pub fn request_generation(view: &impl View) -> Option<u64> {
    time::time_ms(view)?;
    Some(Filling::of(view).map_or(FIRST, |filling| filling.generation))
}

/// Whether records of an earlier release are left that a step of the group's time would remove: a
/// group without writes would keep them for ever.
pub fn wants_tending(view: &impl View, now_ms: u64) -> bool {
    let Some(last_ms) = time::time_ms(view).filter(|_| full::any(view)) else {
        return false;
    };
    let filling = Filling::of(view).unwrap_or_else(|| Filling::first(last_ms));
    filling.has_outlived_some() || filling.is_over(now_ms)
}

/// The binding of an id: 128 bits of SHA-256 over the principal, the repository and the commands.
pub(super) fn digest(request: &RequestBinding) -> Digest {
    let mut hasher = Sha256::new();
    let length = u32::try_from(request.principal.len()).unwrap_or(u32::MAX);
    hasher.update(length.to_be_bytes());
    hasher.update(request.principal.as_bytes());
    match &request.repo {
        Some(repo) => {
            hasher.update([1]);
            hasher.update(repo.as_bytes());
        }
        None => hasher.update([0]),
    }
    hasher.update(request.digest);
    let digest: [u8; 32] = hasher.finalize().into();
    let (first, _) = digest
        .split_first_chunk::<DIGEST_BYTES>()
        .expect("invariant: SHA-256 is longer");
    *first
}

pub(super) fn find(view: &impl View, id: &RequestId) -> Option<CompactRecord> {
    find_in(view, Filling::of(view)?.generation, id)
}

/// The same, with the current generation given. The generation in the id is not used: a retried
/// request may name a later one than its record is in.
fn find_in(view: &impl View, filled: u64, id: &RequestId) -> Option<CompactRecord> {
    [filled, filled.saturating_sub(1)]
        .into_iter()
        .find_map(|generation| {
            let key = keys::compact_request(generation, id);
            let bytes = view.get(&key)?;
            Some(decode(&key, &bytes))
        })
}

pub(super) fn answered(view: &impl View, request: &RequestBinding) -> Option<Reply> {
    let filling = Filling::of(view);
    let compact = filling.and_then(|filling| find_in(view, filling.generation, &request.id));
    if let Some(record) = super::recorded(compact, view, &request.id) {
        return Some(match record.binds(request) {
            true => record.reply,
            false => Reply::Refused(Refusal::RequestMismatch),
        });
    }
    let forgotten = match request.id.generation() {
        Some(named) => {
            let current = filling.map_or(FIRST, |filling| filling.generation);
            // A future generation was not made from this group's state.
            named.saturating_add(1) < current || named > current
        }
        // An id of an earlier release, which carries the clock of its maker.
        None => {
            filling.is_some_and(|filling| filling.has_outlived_some())
                || full::is_forgotten(view, &request.id)
        }
    };
    forgotten.then_some(Reply::UnknownOutcome)
}

pub(super) fn record(
    changes: &mut Changes<'_, impl View>,
    request: &RequestBinding,
    now_ms: u64,
    reply: &Reply,
) {
    let record = CompactRecord {
        binding: digest(request),
        reply: compacted(reply),
    };
    let value = record.encode();
    let key_bytes = keys::compact_request(FIRST, &request.id).len();
    let bytes = size(key_bytes, value.len());
    let filling = Filling::of(changes.before()).unwrap_or_else(|| Filling::first(now_ms));
    let filling = filling.with(bytes, now_ms);
    filling.put(changes);
    changes.put(
        keys::compact_request(filling.generation, &request.id),
        value,
    );
    drain(changes, &filling, REQUEST_RECORDS_DRAINED_PER_APPLY, bytes);
}

/// Ends a generation that is over, and removes expired records.
pub(crate) fn tend(changes: &mut Changes<'_, impl View>, now_ms: u64) {
    let known = Filling::of(changes.before());
    let filling = known
        .unwrap_or_else(|| Filling::first(now_ms))
        .with(0, now_ms);
    if known != Some(filling) {
        filling.put(changes);
    }
    drain(changes, &filling, REQUEST_RECORDS_DRAINED_PER_STEP, 0);
}

/// Removes at least `records` records, and twice as many bytes as were added: the earlier
/// generations are removed before the current one is full.
fn drain(changes: &mut Changes<'_, impl View>, filling: &Filling, records: usize, came: u64) {
    if !filling.has_outlived_some() {
        return;
    }
    let all = keys::compact_requests();
    let first = changes.before().range(&all, &all);
    let mut given_back = 0_u64;
    for (count, (key, value)) in first.enumerate() {
        if count >= records && given_back >= came.saturating_mul(2) {
            break;
        }
        let generation = keys::compact_request_generation(key)
            .unwrap_or_else(|| panic!("request record with a broken key {key:?}: state damaged"));
        if generation.saturating_add(1) >= filling.generation {
            break;
        }
        given_back = given_back.saturating_add(size(key.len(), value.len()));
        changes.delete(key.clone());
    }
    full::drain(changes, records);
}

fn size(key_bytes: usize, value_bytes: usize) -> u64 {
    u64::try_from(key_bytes.saturating_add(value_bytes)).unwrap_or(u64::MAX)
}

/// The reply to a repeated request: the verdict of every ref, without its previous value.
fn compacted(reply: &Reply) -> Reply {
    match reply {
        Reply::RefsUpdated { verdicts } => {
            let verdicts = verdicts.iter().map(|verdict| RefVerdict {
                name: verdict.name.clone(),
                old: None,
                result: verdict.result.clone(),
            });
            Reply::RefsUpdated {
                verdicts: verdicts.collect(),
            }
        }
        Reply::Done
        | Reply::Repo(_)
        | Reply::Refused(_)
        | Reply::UnknownOutcome
        | Reply::Recheck => reply.clone(),
    }
}
