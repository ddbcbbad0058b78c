//! Applying one committed command.

use henge_types::{Command, GroupId, LogIndex, Proposal, Refusal, Reply, RequestBinding};

use crate::changes::Changes;
use crate::outcome::Outcome;
use crate::view::View;
use crate::{meta, requests, shard, version};

/// Where an entry stands and all that its command may know of the world outside.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Header {
    /// The group.
    pub group: GroupId,
    /// The entry's index.
    pub index: LogIndex,
    /// The entry's term.
    pub term: u64,
    /// The proposer's clock, milliseconds since the Unix epoch. It may step back from entry to entry.
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

/// What a command does to the state. Total and deterministic; a refusal is a reply.
///
/// A request that was executed before gets its recorded answer, without writes. One that came with the same
/// id but other content is refused. One older than its record may be is answered *unknown outcome*.
///
/// # Panics
/// At a version barrier that this release does not know, and when the state cannot be read: the group must
/// stop, because a replica that guessed would drift away from the others.
pub fn apply(view: &impl View, header: &Header, command: &Command) -> Outcome {
    if let Some(request) = &header.request
        && let Some(reply) = requests::answered(view, request, header.proposed_at_ms)
    {
        return Outcome::reply(reply);
    }
    let mut changes = Changes::new(view);
    let mut outcome = execute(&mut changes, header, command);
    if let Some(request) = &header.request
        // The leader checks again and proposes again under the same id: this is no answer yet.
        && outcome.reply != Reply::Recheck
    {
        requests::record(&mut changes, request, header.proposed_at_ms, &outcome.reply);
    }
    outcome.writes = changes.into_writes();
    outcome
}

fn execute(changes: &mut Changes<'_, impl View>, header: &Header, command: &Command) -> Outcome {
    match command {
        Command::VersionBarrier { version } => version::raise(changes, header.group, *version),
        Command::Meta(command) if header.group.is_meta() => meta::execute(changes, header, command),
        Command::Shard(command) if !header.group.is_meta() => {
            shard::execute(changes, header, command)
        }
        // Proposed to the wrong kind of group.
        Command::Meta(_) | Command::Shard(_) => Outcome::reply(Reply::Refused(Refusal::Invalid)),
    }
}
