//! The encoding of claims: as metadata of gRPC calls, and after the preamble of bulk streams. Older
//! releases skip both.

use henge_types::{KnownStart, StartClaim};
use serde::{Deserialize, Serialize};
use tonic::Status;
use tonic::metadata::{Binary, MetadataMap, MetadataValue};

/// Metadata: the start header of a call.
const START: &str = "henge-start-bin";
/// Metadata of a refusal: the caller's start is the reason.
const REFUSED: &str = "henge-start-refused";

/// The start header of a call.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct StartHeader {
    /// The caller's claim.
    pub claim: StartClaim,
    /// The last start of the callee that the caller knows.
    pub known: Option<KnownStart>,
}

impl StartHeader {
    /// The header as bytes; later releases may append to them.
    pub(crate) fn encode(&self) -> Vec<u8> {
        postcard::to_stdvec(self).expect("invariant: a start is representable in postcard")
    }

    /// Reads the bytes; additions of a later release are skipped.
    pub(crate) fn decode(bytes: &[u8]) -> Option<Self> {
        postcard::take_from_bytes(bytes)
            .ok()
            .map(|(header, _)| header)
    }

    /// Adds the header to a call.
    pub(crate) fn insert(&self, metadata: &mut MetadataMap) {
        let value = MetadataValue::<Binary>::from_bytes(&self.encode());
        metadata.insert_bin(START, value);
    }

    /// The header of a call; none from an older release.
    pub(crate) fn of(metadata: &MetadataMap) -> Option<Self> {
        let bytes = metadata.get_bin(START)?.to_bytes().ok()?;
        Self::decode(&bytes)
    }
}

/// The response to a call whose start is refused.
pub(crate) fn refusal(reason: &str) -> Status {
    let mut status = Status::permission_denied(reason);
    let yes = MetadataValue::from_static("1");
    status.metadata_mut().insert(REFUSED, yes);
    status
}

/// The reason why the callee refused this process's start, if it did.
pub(crate) fn refused(status: &Status) -> Option<&str> {
    status.metadata().get(REFUSED).map(|_| status.message())
}
