//! How claims travel: as metadata of gRPC calls, and behind the preamble of bulk streams. Releases before them skip both.

use henge_types::{KnownStart, StartClaim};
use serde::{Deserialize, Serialize};
use tonic::Status;
use tonic::metadata::{Binary, MetadataMap, MetadataValue};

/// Metadata: what a call says of starts.
const START: &str = "henge-start-bin";
/// Metadata of a refusal: the caller's start is the reason.
const REFUSED: &str = "henge-start-refused";

/// What a call says of starts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct StartHeader {
    /// The caller's claim.
    pub claim: StartClaim,
    /// The last start of the callee that the caller knows.
    pub known: Option<KnownStart>,
}

impl StartHeader {
    /// As bytes; later releases may add to them.
    pub(crate) fn encode(&self) -> Vec<u8> {
        postcard::to_stdvec(self).expect("invariant: a start is representable in postcard")
    }

    /// Reads them; what a later release added is skipped.
    pub(crate) fn decode(bytes: &[u8]) -> Option<Self> {
        postcard::take_from_bytes(bytes)
            .ok()
            .map(|(header, _)| header)
    }

    /// Puts it on a call.
    pub(crate) fn insert(&self, metadata: &mut MetadataMap) {
        let value = MetadataValue::<Binary>::from_bytes(&self.encode());
        metadata.insert_bin(START, value);
    }

    /// The one of a call; none of an older release.
    pub(crate) fn of(metadata: &MetadataMap) -> Option<Self> {
        let bytes = metadata.get_bin(START)?.to_bytes().ok()?;
        Self::decode(&bytes)
    }
}

/// The answer to a call whose start is refused.
pub(crate) fn refusal(reason: &str) -> Status {
    let mut status = Status::permission_denied(reason);
    let yes = MetadataValue::from_static("1");
    status.metadata_mut().insert(REFUSED, yes);
    status
}

/// Why the callee refused this process's start, if it did.
pub(crate) fn refused(status: &Status) -> Option<&str> {
    status.metadata().get(REFUSED).map(|_| status.message())
}
