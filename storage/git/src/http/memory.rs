//! The memory budget of a node for its clients: bodies of requests until they are answered,
//! listings until they are sent.
//!
//! There is one budget for all requests, and a share of it for requests without a token. A request
//! without a token is refused at once if the budget is exhausted; others wait a few seconds before
//! they are refused. A flood of requests costs bounded memory, however small each of them is on the
//! wire.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::HttpBody;
use bytes::Bytes;
use henge_types::{ErrorCode, limits};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use http_body::{Frame, SizeHint};

use crate::http::ServiceError;

/// The unit of accounting.
const BLOCK_BYTES: usize = 4096;
/// The retry interval in refusals, in seconds.
const RETRY_AFTER_S: u32 = 5;

/// The budget of a node; clones share it.
#[derive(Debug, Clone)]
pub struct ClientMemory {
    all: Arc<Semaphore>,
    anonymous: Arc<Semaphore>,
}

impl Default for ClientMemory {
    fn default() -> Self {
        Self::new(limits::CLIENT_BYTES_MAX, limits::ANONYMOUS_BYTES_MAX)
    }
}

/// The budget is exhausted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("this node holds as much for its clients as it may: try again")]
pub struct NoMemory;

impl From<NoMemory> for ServiceError {
    fn from(error: NoMemory) -> Self {
        Self {
            code: ErrorCode::Throttled,
            message: error.to_string(),
            retry_after_s: Some(RETRY_AFTER_S),
        }
    }
}

impl ClientMemory {
    /// A budget of `all` bytes, with at most `anonymous` of them for requests without a token.
    pub fn new(all: usize, anonymous: usize) -> Self {
        let blocks = |bytes: usize| Arc::new(Semaphore::new(bytes / BLOCK_BYTES));
        Self {
            all: blocks(all),
            anonymous: blocks(anonymous),
        }
    }

    /// An empty share of the budget for one request. `is_known` is true for a request with a token.
    pub fn share(&self, is_known: bool) -> MemoryShare {
        MemoryShare {
            memory: self.clone(),
            is_known,
            blocks: 0,
            permits: Vec::new(),
        }
    }
}

/// The memory held for one request, released on drop.
#[derive(Debug)]
pub struct MemoryShare {
    memory: ClientMemory,
    is_known: bool,
    blocks: usize,
    permits: Vec<OwnedSemaphorePermit>,
}

impl MemoryShare {
    /// Raises the held memory to `bytes` in total. A request with a token waits up to
    /// [`limits::CLIENT_BYTES_WAIT_MS`] for released memory. A request without one does not wait: a
    /// large one must not delay small ones.
    ///
    /// # Errors
    /// When there is not enough memory; memory held before stays held.
    pub async fn hold(&mut self, bytes: usize) -> Result<(), NoMemory> {
        let more = bytes.div_ceil(BLOCK_BYTES).saturating_sub(self.blocks);
        if more == 0 {
            return Ok(());
        }
        let blocks = u32::try_from(more).map_err(|_| NoMemory)?;
        let taken = if self.is_known {
            let all = Arc::clone(&self.memory.all).acquire_many_owned(blocks);
            let wait = Duration::from_millis(limits::CLIENT_BYTES_WAIT_MS);
            let all = tokio::time::timeout(wait, all).await;
            let all = all.map_err(|_| NoMemory)?.map_err(|_| NoMemory)?;
            [Some(all), None]
        } else {
            let now = |budget: &Arc<Semaphore>| Arc::clone(budget).try_acquire_many_owned(blocks);
            let anonymous = now(&self.memory.anonymous).map_err(|_| NoMemory)?;
            let all = now(&self.memory.all).map_err(|_| NoMemory)?;
            [Some(all), Some(anonymous)]
        };
        for permit in taken.into_iter().flatten() {
            self.keep(permit);
        }
        self.blocks += more;
        Ok(())
    }

    /// Merges permits, so that there is one for each budget.
    fn keep(&mut self, permit: OwnedSemaphorePermit) {
        let same = self
            .permits
            .iter_mut()
            .find(|held| Arc::ptr_eq(held.semaphore(), permit.semaphore()));
        match same {
            Some(held) => held.merge(permit),
            None => self.permits.push(permit),
        }
    }
}

/// The bytes of a client and the memory held for them.
#[derive(Debug)]
struct Owned {
    bytes: Vec<u8>,
    _held: MemoryShare,
}

impl AsRef<[u8]> for Owned {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

/// `bytes`, with `held` until the last clone of them is dropped.
pub(super) fn owned(bytes: Vec<u8>, held: MemoryShare) -> Bytes {
    Bytes::from_owner(Owned { bytes, _held: held })
}

/// A body of pieces in memory, with the memory held for it until it is dropped.
pub(super) struct Held {
    pieces: std::collections::VecDeque<Bytes>,
    _held: MemoryShare,
}

impl Held {
    pub(super) fn new(pieces: impl IntoIterator<Item = Bytes>, held: MemoryShare) -> Self {
        let pieces = pieces.into_iter().filter(|piece| !piece.is_empty());
        Self {
            pieces: pieces.collect(),
            _held: held,
        }
    }
}

impl HttpBody for Held {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        Poll::Ready(self.pieces.pop_front().map(|piece| Ok(Frame::data(piece))))
    }

    fn is_end_stream(&self) -> bool {
        self.pieces.is_empty()
    }

    fn size_hint(&self) -> SizeHint {
        let bytes: usize = self.pieces.iter().map(Bytes::len).sum();
        SizeHint::with_exact(u64::try_from(bytes).unwrap_or(u64::MAX))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BLOCKS: usize = 10;

    fn free(memory: &ClientMemory) -> (usize, usize) {
        (
            memory.all.available_permits(),
            memory.anonymous.available_permits(),
        )
    }

    #[tokio::test(start_paused = true)]
    async fn those_without_a_token_have_a_share_and_all_is_given_back() {
        let memory = ClientMemory::new(BLOCKS * BLOCK_BYTES, 4 * BLOCK_BYTES);
        let mut anonymous = memory.share(false);
        anonymous.hold(1).await.unwrap();
        anonymous.hold(3 * BLOCK_BYTES).await.unwrap();
        anonymous.hold(BLOCK_BYTES).await.unwrap();
        assert_eq!(free(&memory), (7, 1));
        let mut other = memory.share(false);
        assert_eq!(other.hold(2 * BLOCK_BYTES).await, Err(NoMemory));
        assert_eq!(free(&memory), (7, 1), "in vain, and nothing is kept");
        let mut known = memory.share(true);
        known.hold(7 * BLOCK_BYTES).await.unwrap();
        assert_eq!(known.hold(8 * BLOCK_BYTES).await, Err(NoMemory));
        drop(anonymous);
        known.hold(8 * BLOCK_BYTES).await.unwrap();
        drop((known, other));
        assert_eq!(free(&memory), (BLOCKS, 4));
    }

    #[tokio::test(start_paused = true)]
    async fn who_waits_gets_what_is_given_back() {
        let memory = ClientMemory::new(BLOCKS * BLOCK_BYTES, 0);
        let mut first = memory.share(true);
        first.hold(BLOCKS * BLOCK_BYTES).await.unwrap();
        let mut second = memory.share(true);
        let (held, ()) = tokio::join!(second.hold(BLOCK_BYTES), async {
            tokio::time::sleep(Duration::from_millis(limits::CLIENT_BYTES_WAIT_MS / 2)).await;
            drop(first);
        });
        held.unwrap();
        let most = usize::MAX;
        assert_eq!(second.hold(most).await, Err(NoMemory), "more than there is");
    }
}
