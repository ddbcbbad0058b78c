//! Requests: each is executed at most once, and a repeated one gets the first reply.
//!
//! - `compact`: the records of a group that keeps its own time.
//! - `full`: the records of earlier release levels.

use henge_types::{Reply, RequestBinding, RequestId};

use crate::apply::Entry;
use crate::changes::Changes;
use crate::view::View;

mod compact;
mod full;

pub(crate) use compact::tend;
pub use compact::{request_generation, wants_tending};
pub use full::RequestRecord;

/// The record of a request, with its reply.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RecordedRequest {
    bound: Bound,
    /// The reply. A push with a compact record has no previous values in it.
    pub reply: Reply,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Bound {
    Whole(Box<RequestRecord>),
    Digest(compact::Digest),
}

impl RecordedRequest {
    /// Whether the request is the recorded one: same principal, repository and commands.
    pub fn binds(&self, request: &RequestBinding) -> bool {
        match &self.bound {
            Bound::Whole(record) => record.binds(request),
            Bound::Digest(digest) => *digest == compact::digest(request),
        }
    }
}

/// The record of a request, while it is kept.
pub(crate) fn find(view: &impl View, id: &RequestId) -> Option<RecordedRequest> {
    recorded(compact::find(view, id), view, id)
}

/// The compact record, or else the record of an earlier release, whose ids name no generation.
fn recorded(
    compact: Option<compact::CompactRecord>,
    view: &impl View,
    id: &RequestId,
) -> Option<RecordedRequest> {
    if let Some(record) = compact {
        return Some(RecordedRequest {
            bound: Bound::Digest(record.binding),
            reply: record.reply,
        });
    }
    if id.generation().is_some() {
        return None;
    }
    let record = full::find(view, id)?;
    Some(RecordedRequest {
        reply: record.reply.clone(),
        bound: Bound::Whole(Box::new(record)),
    })
}

/// The reply to a request that must not be executed: it has a record, or is so old that it may have
/// been executed.
pub(crate) fn answered(view: &impl View, request: &RequestBinding, entry: &Entry) -> Option<Reply> {
    match entry.time_is_replicated {
        true => compact::answered(view, request),
        false => full::answered(view, request, entry.now_ms),
    }
}

/// Records the reply, and removes a few expired records.
pub(crate) fn record(
    changes: &mut Changes<'_, impl View>,
    request: &RequestBinding,
    entry: &Entry,
    reply: &Reply,
) {
    match entry.time_is_replicated {
        true => compact::record(changes, request, entry.now_ms, reply),
        false => full::record(changes, request, entry.now_ms, reply),
    }
}
