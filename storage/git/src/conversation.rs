//! Whole conversations over one two-way stream, as SSH, `git://` and pipes have them: git-upload-pack(1) and
//! git-receive-pack(1).

use std::io::BufRead;

use crate::advertise::advertise_peeled;
use crate::fetch::{FetchError, FetchSummary, upload_pack, upload_pack_stream};
use crate::output::Output;
use crate::protocol::{FetchLimits, FetchPolicy, Protocol, PushLimits, Service};
use crate::push::{Place, PushSummary, Quarantine, ReceiveError, Transport, receive};
use crate::refs::RefStore;
use crate::store::Objects;

/// Which part of a conversation takes place.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Part {
    /// All of it, on one stream: the advertisement, then what the client asks, in rounds.
    #[default]
    Whole,
    /// The advertisement only (`--http-backend-info-refs`).
    Advertisement,
    /// One request without the advertisement before it (`--stateless-rpc`).
    Request,
}

/// A conversation about one repository. Blocking.
#[derive(Clone, Copy)]
pub struct Conversation<'a> {
    /// The refs, as this client may see them.
    pub refs: &'a dyn RefStore,
    /// The object store.
    pub objects: &'a Objects,
    /// What the client said before the conversation (`GIT_PROTOCOL`).
    pub protocol: Protocol,
    /// Which part of it.
    pub part: Part,
}

impl std::fmt::Debug for Conversation<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Conversation")
            .field("objects", &self.objects)
            .field("protocol", &self.protocol)
            .field("part", &self.part)
            .finish_non_exhaustive()
    }
}

impl Conversation<'_> {
    /// The client fetches. `output` is flushed whenever the client waits for an answer, and at the end.
    ///
    /// A client that ends the stream early, or wants nothing, ends the conversation without an error.
    ///
    /// # Errors
    /// As [`upload_pack`]; the client has been told where the protocol has a place for it.
    pub fn upload_pack(
        &self,
        input: &mut dyn BufRead,
        output: &mut dyn Output,
        limits: &FetchLimits,
    ) -> Result<FetchSummary, FetchError> {
        let Self {
            refs,
            objects,
            protocol,
            part,
        } = *self;
        if part != Part::Request {
            let service = Service::UploadPack;
            advertise_peeled(refs, objects, service, protocol, limits.policy, output)?;
            output.flush()?;
        }
        let outcome = match part {
            Part::Advertisement => Ok(FetchSummary::default()),
            Part::Request => upload_pack(refs, objects, protocol, input, output, limits),
            Part::Whole => upload_pack_stream(refs, objects, protocol, input, output, limits),
        };
        // Also what a client is told of an error waits in the output.
        output.flush()?;
        outcome
    }

    /// The client pushes. `quarantine` is where the pack lies until the end; the caller removes what is left there.
    ///
    /// On a stream the pack is read also where nothing can come of it: a client listens for the report only after it
    /// has sent everything.
    ///
    /// # Errors
    /// As [`crate::receive_pack`]: the conversation then ends without a report.
    pub fn receive_pack(
        &self,
        quarantine: &dyn Quarantine,
        input: &mut dyn BufRead,
        output: &mut dyn Output,
        limits: &PushLimits,
    ) -> Result<PushSummary, ReceiveError> {
        if self.part != Part::Request {
            advertise_peeled(
                self.refs,
                self.objects,
                Service::ReceivePack,
                self.protocol,
                FetchPolicy::default(),
                output,
            )
            .and_then(|()| output.flush())
            .map_err(ReceiveError::Output)?;
        }
        let transport = match self.part {
            Part::Advertisement => return Ok(PushSummary::default()),
            Part::Request => Transport::Requests,
            Part::Whole => Transport::Stream,
        };
        let place = Place {
            objects: self.objects,
            quarantine,
        };
        let outcome = receive(self.refs, place, transport, input, output, limits);
        output.flush().map_err(ReceiveError::Output)?;
        outcome
    }
}
