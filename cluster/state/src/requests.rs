//! Requests: every one is executed at most once, and a repeated one gets the answer of the first time.
//!
//! - `compact`: the records of a group that keeps its own time.
//! - `full`: those of release levels before that.

use henge_types::{Reply, RequestBinding, RequestId};

use crate::apply::Entry;
use crate::changes::Changes;
use crate::view::View;

mod compact;
mod full;

pub(crate) use compact::tend;
pub use compact::{request_generation, wants_tending};
pub use full::RequestRecord;

/// What is kept of a request, and the answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RecordedRequest {
    bound: Bound,
    /// The answer. Of a push that is recorded compactly, without the values before.
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

/// What was found compactly; else what an earlier release recorded, whose ids name no generation.
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

/// The answer to a request that must not be executed: known already, or so old that it may have been.
pub(crate) fn answered(view: &impl View, request: &RequestBinding, entry: &Entry) -> Option<Reply> {
    match entry.time_is_replicated {
        true => compact::answered(view, request),
        false => full::answered(view, request, entry.now_ms),
    }
}

/// Records the answer, and removes a few records that nothing asks for any more.
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
