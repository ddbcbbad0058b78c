//! `gc` and `stats`: requested from any node, answered by the leader of the shard.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use henge_cluster::{BulkStream, ClusterError};
use henge_git::http::ServiceError;
use henge_state::ShardView;
use henge_types::status::{CompactionState, RepoStats};
use henge_types::{ErrorCode, Mirror, MirrorSecret, MirrorSettings, NodeId, PackRecord, RepoPath};

use crate::asking::{self, ANSWER_TIMEOUT, Question, Request};
use crate::catalogue::{QUORUM_WAIT, Reader};
use crate::error::{self, failed, from_cluster};
use crate::frames::{self, MaintainAnswer, MaintainRequest, MaintainVerb};
use crate::repos::Inner;

/// Pause between two attempts to find a leader.
const RETRY_PAUSE: Duration = Duration::from_millis(50);

impl Inner {
    /// Requests the statistics from the leader of the repository's shard.
    ///
    /// # Errors
    /// `NotFound`; `Throttled` when too many compactions wait; `Unavailable` without a leader.
    pub(crate) async fn maintenance(
        self: &Arc<Self>,
        path: &RepoPath,
        verb: MaintainVerb,
    ) -> Result<RepoStats, ServiceError> {
        match self.ask_maintenance(path, verb).await? {
            MaintainAnswer::Stats(stats) => Ok(stats),
            other @ (MaintainAnswer::Mirrors(_)
            | MaintainAnswer::Limits(_)
            | MaintainAnswer::PushRules(_)
            | MaintainAnswer::NotLeader
            | MaintainAnswer::WrongGeneration
            | MaintainAnswer::Refused(..)) => Err(unexpected(&other)),
        }
    }

    /// The mirrors of a repository, without secrets.
    ///
    /// # Errors
    /// `NotFound`; `Unavailable` without a leader.
    pub(crate) async fn mirrors(
        self: &Arc<Self>,
        path: &RepoPath,
    ) -> Result<Vec<Mirror>, ServiceError> {
        match self.ask_maintenance(path, MaintainVerb::Mirrors).await? {
            MaintainAnswer::Mirrors(mirrors) => Ok(mirrors),
            other @ (MaintainAnswer::Stats(_)
            | MaintainAnswer::Limits(_)
            | MaintainAnswer::PushRules(_)
            | MaintainAnswer::NotLeader
            | MaintainAnswer::WrongGeneration
            | MaintainAnswer::Refused(..)) => Err(unexpected(&other)),
        }
    }

    /// The answer of the leader of the repository's shard.
    pub(crate) async fn ask_maintenance(
        self: &Arc<Self>,
        path: &RepoPath,
        verb: MaintainVerb,
    ) -> Result<MaintainAnswer, ServiceError> {
        self.in_life(Reader::Known, path, |target| async move {
            let request = MaintainRequest {
                group: target.group,
                repo: target.repo,
                network: target.network,
                generation: target.generation,
                verb,
            };
            match self.ask_leader(&request).await? {
                answer @ (MaintainAnswer::Stats(_)
                | MaintainAnswer::Limits(_)
                | MaintainAnswer::PushRules(_)
                | MaintainAnswer::Mirrors(_)) => Ok(Some(answer)),
                MaintainAnswer::Refused(code, message) => Err(failed(code, message)),
                MaintainAnswer::WrongGeneration | MaintainAnswer::NotLeader => Ok(None),
            }
        })
        .await
    }

    /// Retries until a leader answers, for at most the quorum wait.
    async fn ask_leader(
        self: &Arc<Self>,
        request: &MaintainRequest,
    ) -> Result<MaintainAnswer, ServiceError> {
        let until = self.clock.instant() + QUORUM_WAIT;
        loop {
            let answer = match self.cluster.leader(request.group).await {
                None => Ok(MaintainAnswer::NotLeader),
                Some(node) => self.ask(node, request).await,
            };
            match answer {
                Ok(MaintainAnswer::NotLeader) => {}
                Ok(answer) => return Ok(answer),
                Err(error) => {
                    tracing::debug!(group = %request.group, %error, "the leader does not answer");
                }
            }
            if self.clock.instant() >= until {
                return Err(error::no_quorum(request.group));
            }
            tokio::time::sleep(RETRY_PAUSE).await;
        }
    }

    /// The answer of this node, if it leads.
    async fn answer_maintenance(self: &Arc<Self>, request: &MaintainRequest) -> MaintainAnswer {
        let group = request.group;
        if self.cluster.leadership(group).is_none() {
            return MaintainAnswer::NotLeader;
        }
        match self.cluster.read_barrier(group, ANSWER_TIMEOUT / 2).await {
            Ok(_) => {}
            Err(ClusterError::NoReplica(_)) => return MaintainAnswer::NotLeader,
            Err(error) => {
                let error = from_cluster(&error);
                return MaintainAnswer::Refused(error.code, error.message);
            }
        }
        let Some(at) = self.cluster.state(group) else {
            return MaintainAnswer::NotLeader;
        };
        let view = ShardView::new(&at.state);
        if view.live_repo(&request.repo, request.generation).is_err() {
            return MaintainAnswer::WrongGeneration;
        }
        if request.verb == MaintainVerb::Limits {
            return Self::limits_here(view, &request.repo);
        }
        if request.verb == MaintainVerb::PushRules {
            return MaintainAnswer::PushRules(view.push_rules(&request.repo));
        }
        if request.verb == MaintainVerb::Mirrors {
            let mirrors = view.mirrors_of(&request.repo);
            return MaintainAnswer::Mirrors(mirrors.map(without_secret).collect());
        }
        let packs: Vec<_> = view.packs(&request.network).collect();
        let mark_ms = view.prune_mark(&request.network).map(|mark| mark.at_ms);
        let inner = Arc::clone(self);
        let (of, network) = (request.clone(), request.network);
        let stats = self
            .work
            .blocking("repository stats", move || inner.stats_of(&of, &packs));
        let mut stats = match stats.await {
            Ok(stats) => stats,
            Err(error) => {
                return MaintainAnswer::Refused(ErrorCode::Internal, error.to_string());
            }
        };
        // After the statistics: a client waits for an outcome newer than the one in them, so they
        // must not contain the outcome of its own request.
        if let MaintainVerb::Compact { depth } = request.verb {
            if !self.maintenance.ask(group, network, depth) {
                let message = "too many compactions wait on this node: try again later";
                return MaintainAnswer::Refused(ErrorCode::Throttled, message.to_owned());
            }
            if stats.compaction == CompactionState::Idle {
                stats.compaction = CompactionState::Queued;
            }
        }
        MaintainAnswer::Stats(RepoStats {
            prune_mark_ms: mark_ms,
            ..stats
        })
    }

    fn stats_of(&self, request: &MaintainRequest, packs: &[PackRecord]) -> RepoStats {
        let sum = |of: fn(&PackRecord) -> u64| packs.iter().map(of).sum();
        let objects = self.objects();
        let has = |pack: &PackRecord, extension| {
            let file = objects.side_file(&request.network, &pack.pack, extension);
            file.is_file()
        };
        let running = self.maintenance.is_running(&request.network);
        let queued = self.maintenance.is_asked(&request.network);
        RepoStats {
            leader: self.cluster.node(),
            packs: u64::try_from(packs.len()).unwrap_or(u64::MAX),
            objects: sum(|pack| u64::from(pack.objects)),
            pack_bytes: sum(|pack| pack.pack_bytes),
            idx_bytes: sum(|pack| pack.idx_bytes),
            bitmap: packs.iter().any(|pack| has(pack, "bitmap")),
            compaction: match (running, queued) {
                (true, _) => CompactionState::Running,
                (false, true) => CompactionState::Queued,
                (false, false) => CompactionState::Idle,
            },
            last_compaction: self.maintenance.last(&request.network),
            prune_mark_ms: None,
        }
    }
}

fn without_secret(mirror: Mirror) -> Mirror {
    let shown = |secret: MirrorSecret| MirrorSecret {
        password: String::new(),
        ..secret
    };
    Mirror {
        settings: MirrorSettings {
            secret: mirror.settings.secret.map(shown),
            ..mirror.settings
        },
        ..mirror
    }
}

pub(crate) fn unexpected(answer: &MaintainAnswer) -> ServiceError {
    tracing::error!(?answer, "a leader answered what it was not asked");
    error::internal("a leader gave an answer that makes no sense: its log says more")
}

impl Request for MaintainRequest {
    const SERVICE: &'static str = frames::MAINTAIN;

    async fn serve(self, inner: Arc<Inner>, _: NodeId, stream: BulkStream) -> io::Result<()> {
        asking::answer(self, inner, stream).await
    }
}

impl Question for MaintainRequest {
    type Answer = MaintainAnswer;

    async fn answer(&self, inner: &Arc<Inner>) -> MaintainAnswer {
        inner.answer_maintenance(self).await
    }
}
