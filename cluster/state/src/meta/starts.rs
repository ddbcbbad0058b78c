//! The sequence of the members' starts.

use henge_types::limits::STARTS_DRAWN_MAX;
use henge_types::{Refusal, RegisterStart, RegisteredStart, Reply, StartRecord};

use super::MetaView;
use crate::apply::Entry;
use crate::changes::Changes;
use crate::keys;
use crate::outcome::Outcome;
use crate::view::View;

/// Registers a start that follows the registered one. A repeated registration changes nothing, so a
/// proposer whose reply was lost proposes once more.
pub(super) fn register(
    changes: &mut Changes<'_, impl View>,
    entry: &Entry,
    command: &RegisterStart,
) -> Outcome {
    let refused = |refusal| Outcome::reply(Reply::Refused(refusal));
    let meta = MetaView::new(changes.before());
    let member = meta.node(command.node);
    if member.is_none_or(|member| member.incarnation != command.incarnation) {
        return refused(Refusal::UnknownNode);
    }
    if command.claim.drawn.len() > STARTS_DRAWN_MAX {
        return refused(Refusal::Invalid);
    }
    // A record of another data directory does not apply to this one.
    let before = meta.start(command.node);
    let before = before.filter(|record| record.incarnation == command.incarnation);
    if let Some(StartRecord { registered, .. }) = before {
        if registered.start == command.claim.start {
            return Outcome::reply(Reply::Done);
        }
        if !command.claim.follows(&registered.into()) {
            return refused(Refusal::LaterStart { registered });
        }
    }
    let record = StartRecord {
        incarnation: command.incarnation,
        registered: RegisteredStart {
            start: command.claim.start,
            index: entry.index,
        },
    };
    changes.put_record(keys::start(command.node), &record);
    Outcome::reply(Reply::Done)
}
