//! Applying one committed command.

use henge_types::{Command, GroupId, LogIndex, Proposal, Refusal, Reply, RequestBinding};

use crate::changes::Changes;
use crate::outcome::Outcome;
use crate::time::Now;
use crate::view::View;
use crate::{meta, requests, shard, time, version};

/// The position of an entry and all external input of its command.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Header {
    /// The group.
    pub group: GroupId,
    /// The entry's index.
    pub index: LogIndex,
    /// The entry's term.
    pub term: u64,
    /// The proposer's clock, milliseconds since the Unix epoch. It may step back from entry to
    /// entry, and be wrong by any amount: no machine reads it, see [`crate::time_ms`].
    pub proposed_at_ms: u64,
    /// The only source of randomness.
    pub seed: u64,
    /// The client's request, if the entry has one.
    pub request: Option<RequestBinding>,
}

impl Header {
    /// The header of a proposal that was committed at this index.
    pub fn new(group: GroupId, index: LogIndex, term: u64, proposal: &Proposal) -> Self {
        Self {
            group,
            index,
            term,
            proposed_at_ms: proposal.proposed_at_ms,
            seed: proposal.seed,
            request: proposal.request.clone(),
        }
    }
}

/// The machines' view of an entry: its header with the group's time instead of the proposer's
/// clock.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Entry {
    /// Its index.
    pub(crate) index: LogIndex,
    /// The time at which it is applied, milliseconds since the Unix epoch.
    pub(crate) now_ms: u64,
    /// Whether that is the group's own time. Otherwise it is the proposer's clock, as before
    /// release level [`henge_types::command::VERSION_STARTS_AND_TIME`].
    pub(crate) time_is_replicated: bool,
    /// The only source of randomness.
    pub(crate) seed: u64,
}

/// The effect of a command on the state. Total and deterministic; a refusal is a reply.
///
/// A request that was executed before gets its recorded reply, without writes. A request with the
/// same id but other content is refused. The reply to a request that may be older than its record
/// is *unknown outcome*.
///
/// # Panics
/// At a version barrier that this release does not know, and when the state cannot be read: the
/// group must stop, because a replica that guessed would diverge from the others.
pub fn apply(view: &impl View, header: &Header, command: &Command) -> Outcome {
    let now = Now::of(view, header);
    let entry = Entry {
        index: header.index,
        now_ms: now.now_ms,
        time_is_replicated: now.is_replicated(),
        seed: header.seed,
    };
    if let Some(request) = &header.request
        && let Some(reply) = requests::answered(view, request, &entry)
    {
        return Outcome::reply(reply);
    }
    let mut changes = Changes::new(view);
    now.keep(&mut changes);
    let mut outcome = execute(&mut changes, (header, &entry), command);
    if let Some(request) = &header.request
        // The leader checks again and proposes again under the same id: this is not the final
        // reply.
        && outcome.reply != Reply::Recheck
    {
        requests::record(&mut changes, request, &entry, &outcome.reply);
    }
    outcome.writes = changes.into_writes();
    outcome
}

fn execute(
    changes: &mut Changes<'_, impl View>,
    (header, entry): (&Header, &Entry),
    command: &Command,
) -> Outcome {
    match command {
        Command::VersionBarrier { version } => {
            time::begin(changes, *version, entry.now_ms);
            version::raise(changes, header.group, *version)
        }
        Command::MoveTime { clocks } => time::step(changes, clocks),
        Command::Meta(command) if header.group.is_meta() => meta::execute(changes, entry, command),
        Command::Shard(command) if !header.group.is_meta() => {
            shard::execute(changes, entry, command)
        }
        // Proposed to the wrong kind of group.
        Command::Meta(_) | Command::Shard(_) => Outcome::reply(Reply::Refused(Refusal::Invalid)),
    }
}
