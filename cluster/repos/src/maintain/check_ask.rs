//! Checks of stores: asked of any node, carried out by every replica that is meant.

use std::io;
use std::sync::{Arc, Weak};
use std::time::Duration;

use bytes::Bytes;
use futures::future::{BoxFuture, join_all};
use henge_cluster::{BulkHandler, BulkStream};
use henge_git::http::ServiceError;
use henge_state::ShardView;
use henge_types::status::RepoCheck;
use henge_types::{ErrorCode, NodeId, RepoPath};
use tokio::io::AsyncWriteExt;

use crate::catalogue::Freshness;
use crate::error::{self, failed};
use crate::frames::{self, CHECK, CheckAnswer, CheckRequest, CheckVerb};
use crate::maintain::check::not_asked;
use crate::reads::Target;
use crate::repos::{Inner, still_there};

/// How long opening a stream to a replica may take.
const OPEN_TIMEOUT: Duration = Duration::from_millis(1500);
/// How long a replica may take to say how it stands.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);

/// A check is to begin.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Start {
    /// Damaged packs are fetched from other replicas.
    pub repair: bool,
}

impl Inner {
    /// Asks the replicas on `nodes`, or all of them when none is named.
    pub(crate) async fn checks_of(
        self: &Arc<Self>,
        path: &RepoPath,
        nodes: &[NodeId],
        start: Option<Start>,
    ) -> Result<RepoCheck, ServiceError> {
        for freshness in [Freshness::Local, Freshness::Linearizable] {
            let record = self.catalogue.find(path, freshness).await?;
            let target = self.target(&record);
            let replicas = self.replicas_among(&target, nodes)?;
            let request = CheckRequest {
                group: target.group,
                repo: target.repo,
                network: target.network,
                generation: target.generation,
                verb: match start {
                    Some(Start { repair }) => CheckVerb::Start { repair },
                    None => CheckVerb::Look,
                },
            };
            let answers = replicas
                .iter()
                .map(|node| self.ask_replica(*node, &request));
            let mut checks = Vec::with_capacity(replicas.len());
            let mut another_life = false;
            for (node, answer) in replicas.iter().zip(join_all(answers).await) {
                match answer {
                    Ok(CheckAnswer::Stands(check)) => checks.push(*check),
                    Ok(CheckAnswer::WrongGeneration) => another_life = true,
                    Ok(CheckAnswer::Refused(code, message)) => return Err(failed(code, message)),
                    Err(error) => checks.push(not_asked(*node, &error)),
                }
            }
            if !another_life {
                return Ok(RepoCheck { replicas: checks });
            }
        }
        Err(error::not_found(path))
    }

    fn replicas_among(
        &self,
        target: &Target,
        nodes: &[NodeId],
    ) -> Result<Vec<NodeId>, ServiceError> {
        let mut replicas = self.cluster.replicas(target.group);
        replicas.sort_unstable();
        if let Some(other) = nodes.iter().find(|node| !replicas.contains(node)) {
            let listed: Vec<_> = replicas.iter().map(ToString::to_string).collect();
            return Err(error::invalid(format!(
                "node {other} has no replica of this repository: it lives on {}",
                listed.join(", ")
            )));
        }
        replicas.retain(|node| nodes.is_empty() || nodes.contains(node));
        Ok(replicas)
    }

    async fn ask_replica(
        self: &Arc<Self>,
        node: NodeId,
        request: &CheckRequest,
    ) -> io::Result<CheckAnswer> {
        if node == self.cluster.node() {
            return Ok(self.answer_check(request).await);
        }
        let head = frames::head(request);
        let opened = self.cluster.bulk().open(node, CHECK, head, OPEN_TIMEOUT);
        let mut stream = opened.await.map_err(io::Error::other)?;
        let answer = tokio::time::timeout(ANSWER_TIMEOUT, frames::read(&mut stream)).await;
        answer.map_err(|_| io::Error::from(io::ErrorKind::TimedOut))?
    }

    /// The answer of this replica. The check itself waits until it has applied all that was committed before.
    async fn answer_check(&self, request: &CheckRequest) -> CheckAnswer {
        let (group, network) = (request.group, request.network);
        let Some(at) = self.cluster.state(group) else {
            let message = format!("node {} has no replica of the shard", self.cluster.node());
            return CheckAnswer::Refused(ErrorCode::Unavailable, message);
        };
        let view = ShardView::new(&at.state);
        if view.live_repo(&request.repo, request.generation).is_err() {
            return CheckAnswer::WrongGeneration;
        }
        if let CheckVerb::Start { repair } = request.verb
            && !self
                .checks
                .ask((group, network), repair, self.clock.unix_ms())
        {
            let message = format!(
                "too many checks wait on node {}: try again later",
                self.cluster.node()
            );
            return CheckAnswer::Refused(ErrorCode::Throttled, message);
        }
        CheckAnswer::Stands(Box::new(self.check_of(&network).await))
    }
}

/// Serves [`frames::CHECK`].
#[derive(Debug)]
pub(crate) struct CheckService(pub(crate) Weak<Inner>);

impl BulkHandler for CheckService {
    fn handle(
        &self,
        _peer: NodeId,
        head: Bytes,
        mut stream: BulkStream,
    ) -> BoxFuture<'static, io::Result<()>> {
        let inner = still_there(&self.0);
        Box::pin(async move {
            let inner = inner?;
            let request: CheckRequest = frames::open_head(&head)?;
            let answer = inner.answer_check(&request).await;
            frames::write(&mut stream, &answer).await?;
            stream.shutdown().await
        })
    }
}
