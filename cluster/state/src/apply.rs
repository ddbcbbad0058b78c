//! Applying one committed command.

use henge_types::{Command, GroupId, LogIndex, Proposal, Refusal, Reply, RequestBinding};

use crate::changes::Changes;
use crate::outcome::Outcome;
use crate::time::Now;
use crate::view::View;
use crate::{meta, requests, shard, time, version};

/// Where an entry stands and all that its command may know of the world outside.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Header {
    /// The group.
    pub group: GroupId,
    /// The entry's index.
    pub index: LogIndex,
    /// The entry's term.
    pub term: u64,
    /// The proposer's clock, milliseconds since the Unix epoch. It may step back from entry to entry, and be wrong by any
    /// amount: no machine sees it, see [`crate::time_ms`].
    pub proposed_at_ms: u64,
    /// The only chance there is.
    pub seed: u64,
    /// Who asked, where it was somebody outside.
    pub request: Option<RequestBinding>,
}

impl Header {
    /// The header of a proposal that was committed at this place.
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

/// What the machines see of an entry: its header with the group's time in the place of the proposer's clock.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Entry {
    /// Its index.
    pub(crate) index: LogIndex,
    /// The time that it is applied at, milliseconds since the Unix epoch.
    pub(crate) now_ms: u64,
    /// Whether that is the group's own time; otherwise it is the proposer's clock, as it was before release level
    /// [`henge_types::command::VERSION_STARTS_AND_TIME`].
    pub(crate) time_is_replicated: bool,
    /// The only chance there is.
    pub(crate) seed: u64,
}

/// What a command does to the state. Total and deterministic; a refusal is a reply.
///
/// A request that was executed before gets its recorded answer, without writes. One that came with the same
/// id but other content is refused. One older than its record may be is answered *unknown outcome*.
///
/// # Panics
/// At a version barrier that this release does not know, and when the state cannot be read: the group must
/// stop, because a replica that guessed would drift away from the others.
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
        // The leader checks again and proposes again under the same id: this is no answer yet.
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
