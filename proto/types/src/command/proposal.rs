//! The stored form of a proposal: its command is an envelope within the envelope.

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::{Command, Proposal, RequestBinding};
use crate::stored::{self, DecodeError, number};

#[derive(Serialize, Deserialize)]
struct ProposalV1 {
    request: Option<RequestBinding>,
    proposed_at_ms: u64,
    seed: u64,
    command: Bytes,
}

impl Proposal {
    /// The stored form.
    pub fn encode(&self) -> Vec<u8> {
        let body = ProposalV1 {
            request: self.request.clone(),
            proposed_at_ms: self.proposed_at_ms,
            seed: self.seed,
            command: self.command.encode().into(),
        };
        stored::encode(number::PROPOSAL, 1, &body)
    }

    /// Reads the stored form.
    ///
    /// # Errors
    /// When it is broken or holds a command this release does not know: the group must stop, not
    /// skip it.
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let body: ProposalV1 = stored::decode_v1(number::PROPOSAL, bytes)?;
        Ok(Self {
            request: body.request,
            proposed_at_ms: body.proposed_at_ms,
            seed: body.seed,
            command: Command::decode(&body.command)?,
        })
    }
}
