//! Checks of stores: requested from any node, run by every selected replica.

use std::io;
use std::sync::Arc;

use futures::future::join_all;
use henge_cluster::BulkStream;
use henge_git::http::ServiceError;
use henge_state::ShardView;
use henge_types::status::RepoCheck;
use henge_types::{ErrorCode, NodeId, RepoPath};

use crate::asking::{self, Question, Request};
use crate::catalogue::Reader;
use crate::error::{self, failed};
use crate::frames::{self, CheckAnswer, CheckRequest, CheckVerb};
use crate::maintain::check::not_asked;
use crate::reads::Target;
use crate::repos::Inner;

/// The options of a check to start.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Start {
    /// Whether damaged packs are fetched from other replicas.
    pub repair: bool,
}

impl Inner {
    /// Sends the request to the replicas on `nodes`, or to all of them when `nodes` is empty.
    pub(crate) async fn checks_of(
        self: &Arc<Self>,
        path: &RepoPath,
        nodes: &[NodeId],
        start: Option<Start>,
    ) -> Result<RepoCheck, ServiceError> {
        self.in_life(Reader::Known, path, |target| async move {
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
            let answers = replicas.iter().map(|node| self.ask(*node, &request));
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
            Ok((!another_life).then_some(RepoCheck { replicas: checks }))
        })
        .await
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

    /// The answer of this replica. The check itself waits for a read barrier.
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

impl Request for CheckRequest {
    const SERVICE: &'static str = frames::CHECK;

    async fn serve(self, inner: Arc<Inner>, _: NodeId, stream: BulkStream) -> io::Result<()> {
        asking::answer(self, inner, stream).await
    }
}

impl Question for CheckRequest {
    type Answer = CheckAnswer;

    async fn answer(&self, inner: &Arc<Inner>) -> CheckAnswer {
        inner.answer_check(self).await
    }
}
