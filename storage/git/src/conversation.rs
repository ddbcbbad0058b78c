//! Whole sessions over one bidirectional stream, as with SSH, `git://` and pipes:
//! git-upload-pack(1) and git-receive-pack(1).

use std::io::BufRead;

use crate::advertise::advertise_peeled;
use crate::fetch::{FetchError, FetchSummary, upload_pack, upload_pack_stream};
use crate::output::Output;
use crate::protocol::{FetchLimits, FetchPolicy, Protocol, PushLimits, Service};
use crate::push::{Place, PushSummary, Quarantine, ReceiveError, Transport, receive};
use crate::refs::RefStore;
use crate::store::Objects;

/// The part of a session to serve.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Part {
    /// All of it, on one stream: the advertisement, then the client's requests, in rounds.
    #[default]
    Whole,
    /// The advertisement only (`--http-backend-info-refs`).
    Advertisement,
    /// One request without the advertisement before it (`--stateless-rpc`).
    Request,
}

/// A session about one repository. Blocking.
#[derive(Clone, Copy)]
pub struct Conversation<'a> {
    /// The refs that are visible to this client.
    pub refs: &'a dyn RefStore,
    /// The object store.
    pub objects: &'a Objects,
    /// The protocol version that the client requested before the session (`GIT_PROTOCOL`).
    pub protocol: Protocol,
    /// The part to serve.
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
    /// Serves a fetch. `output` is flushed whenever the client waits for a response, and at the
    /// end.
    ///
    /// A client that ends the stream early, or has no wants, ends the session without an error.
    ///
    /// # Errors
    /// As [`upload_pack`]. The client receives the error where the protocol has a place for it.
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
        // Error messages for the client wait in the output, too.
        output.flush()?;
        outcome
    }

    /// Serves a push. `quarantine` holds the pack until the end; the caller removes its remaining
    /// content.
    ///
    /// On a stream the pack is read even if the push is refused already: a client reads the report
    /// only after it has sent everything.
    ///
    /// # Errors
    /// As [`crate::receive_pack`]: the session then ends without a report.
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
