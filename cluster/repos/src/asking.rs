//! Requests between nodes.
//!
//! - [`Request`]: the head of a kind of stream, and how a node serves it ([`serve`]).
//! - [`Question`]: a request with one frame as its answer. [`Inner::ask`] sends it to a node, this
//!   one included.
//! - [`Inner::in_life`]: work on the generation of a repository that the catalogue names now.

use std::io;
use std::marker::PhantomData;
use std::sync::{Arc, Weak};
use std::time::Duration;

use bytes::Bytes;
use futures::future::BoxFuture;
use henge_cluster::{BulkHandler, BulkStream};
use henge_git::http::ServiceError;
use henge_types::{NodeId, RepoPath};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::io::AsyncWriteExt as _;

use crate::catalogue::{Freshness, Reader};
use crate::error;
use crate::frames;
use crate::reads::Target;
use crate::repos::Inner;

/// How long opening a stream to another node may take: a dead node must not use up a whole quorum
/// wait.
pub(crate) const OPEN_TIMEOUT: Duration = Duration::from_millis(1500);
/// How long a node may take to answer a question: it confirms its leadership, or applies the
/// entries that were committed before.
pub(crate) const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);

/// The head of a kind of stream between nodes.
pub(crate) trait Request: DeserializeOwned + Send + 'static {
    /// The name of the kind.
    const SERVICE: &'static str;

    /// Serves a stream of another node.
    ///
    /// # Errors
    /// When the stream breaks; the other node sees this as well.
    fn serve(
        self,
        inner: Arc<Inner>,
        peer: NodeId,
        stream: BulkStream,
    ) -> impl Future<Output = io::Result<()>> + Send;
}

/// A request with one frame as its answer.
pub(crate) trait Question: Request + Serialize + Sync {
    /// The answer.
    type Answer: Serialize + DeserializeOwned + Send + Sync;

    /// The answer of this node.
    fn answer(&self, inner: &Arc<Inner>) -> impl Future<Output = Self::Answer> + Send;
}

/// Serves streams of this kind from now on.
pub(crate) fn serve<R: Request>(inner: &Arc<Inner>) {
    let server = Server::<R>(Arc::downgrade(inner), PhantomData);
    inner.cluster.bulk().serve(R::SERVICE, Arc::new(server));
}

/// Answers a question of another node.
///
/// # Errors
/// When the stream breaks.
pub(crate) async fn answer<Q: Question>(
    question: Q,
    inner: Arc<Inner>,
    mut stream: BulkStream,
) -> io::Result<()> {
    let answer = question.answer(&inner).await;
    frames::write(&mut stream, &answer).await?;
    stream.shutdown().await
}

struct Server<R>(Weak<Inner>, PhantomData<fn() -> R>);

impl<R: Request> BulkHandler for Server<R> {
    fn handle(
        &self,
        peer: NodeId,
        head: Bytes,
        stream: BulkStream,
    ) -> BoxFuture<'static, io::Result<()>> {
        let inner = self.0.upgrade();
        Box::pin(async move {
            let inner = inner.ok_or_else(|| io::Error::other("the node is stopping"))?;
            frames::open_head::<R>(&head)?
                .serve(inner, peer, stream)
                .await
        })
    }
}

impl Inner {
    /// Puts a question to a node.
    ///
    /// # Errors
    /// When the node does not answer in time, or the stream breaks.
    pub(crate) async fn ask<Q: Question>(
        self: &Arc<Self>,
        node: NodeId,
        question: &Q,
    ) -> io::Result<Q::Answer> {
        if node == self.cluster.node() {
            return Ok(question.answer(self).await);
        }
        let head = frames::head(question);
        let opened = self
            .cluster
            .bulk()
            .open(node, Q::SERVICE, head, OPEN_TIMEOUT);
        let mut stream = opened.await.map_err(io::Error::other)?;
        timed(ANSWER_TIMEOUT, frames::read(&mut stream)).await
    }

    /// Runs `work` for the generation of a repository that this node's copy of the catalogue names.
    /// If the shard has another generation (`None`), the copy is stale: `work` runs once more, for
    /// the generation that the meta group names.
    ///
    /// # Errors
    /// `NotFound` when the shard has neither generation, because the repository is being deleted. A
    /// reader without a token gets `Unauthenticated` in place of `NotFound`. The errors of `work`.
    pub(crate) fn in_life<'a, T, F>(
        &'a self,
        reader: Reader,
        path: &'a RepoPath,
        work: impl Fn(Target) -> F + Send + Sync + 'a,
    ) -> BoxFuture<'a, Result<T, ServiceError>>
    where
        F: Future<Output = Result<Option<T>, ServiceError>> + Send + 'a,
        T: Send + 'a,
    {
        // Boxed: the futures around it nest deeper than the compiler's recursion limit.
        Box::pin(async move {
            for freshness in [Freshness::Local, Freshness::Linearizable] {
                let record = self.catalogue.find_for(reader, path, freshness).await?;
                if let Some(done) = work(self.target(&record)).await? {
                    return Ok(done);
                }
            }
            Err(error::not_found(path))
        })
    }
}

/// Runs a step between two nodes with a time-out.
///
/// # Errors
/// The step's error; `TimedOut`.
pub(crate) async fn timed<T>(
    within: Duration,
    step: impl Future<Output = io::Result<T>>,
) -> io::Result<T> {
    tokio::time::timeout(within, step)
        .await
        .map_err(|_| io::Error::from(io::ErrorKind::TimedOut))?
}
