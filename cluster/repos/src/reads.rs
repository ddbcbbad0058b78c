//! Reads: from this node's replica if it can serve, else from another node.

mod held;
mod serve;

use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use henge_cluster::{BulkStream, ClusterError};
use henge_git::http::{ServiceError, too_many_without_token};
use henge_git::{
    Admission, Asker, FetchError, FetchLimits, FetchPolicy, Output, Protocol, Service, Stop,
    advertise, advertise_peeled, pkt, upload_pack,
};
use henge_types::command::VERSION_READS_OF_ANYBODY;
use henge_types::{
    ErrorCode, Generation, GroupId, NetworkId, NodeId, RepoId, RepoPath, RepoRecord, limits,
};
use tokio::io::AsyncWriteExt;
use tokio::runtime::Handle;
use tokio_util::io::SyncIoBridge;

use crate::admission::Admitted;
use crate::asking::{OPEN_TIMEOUT, timed};
use crate::catalogue::{QUORUM_WAIT, Reader};
use crate::error::{self, failed, from_cluster};
use crate::frames::{self, GIT, ReadAnswer, ReadRequest, ReadVerb, WireRefs};
use crate::metrics;
use crate::push::input::Impatient;
use crate::readers::Reading;
use crate::reads::held::Held;
use crate::refs::StateRefs;
use crate::repos::Inner;

/// How long a fetch waits at a holder for a permit. It also ends the wait of two nodes that have no
/// permit for each other's fetches.
const TURN_WAIT_MS: u64 = 3000;
/// How long a holder may take to report whether it serves: it waits for a permit and for a quorum.
const SERVE_TIMEOUT: Duration = Duration::from_millis(limits::QUORUM_WAIT_MS + TURN_WAIT_MS + 1000);
/// Idle time-out of a response from another node: the fetch waits there for a permit, or for an
/// equal fetch that computes the same response. The loss of the node is noticed sooner, by the
/// keep-alive of the connections between nodes.
pub(crate) const ANSWER_REST_MAX: Duration = Duration::from_secs(5 * 60);
/// How long sending a request's body between two nodes may take.
const BODY_TIMEOUT: Duration = Duration::from_secs(10);

/// A repository that is served from here, at one point in time.
#[derive(Debug)]
pub(crate) struct Local {
    /// Its refs.
    pub refs: StateRefs,
    /// Keeps the store from removal during the read.
    pub _reading: Reading,
}

/// Why a repository is not served from here.
#[derive(Debug)]
pub(crate) enum NotServed {
    /// Another node may serve it.
    Elsewhere(String),
    /// The shard has another generation of it, or none.
    WrongGeneration,
    /// No node can serve it now, or the reader may not read it.
    Failed(ServiceError),
}

/// One generation of a repository.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Target {
    pub group: GroupId,
    pub repo: RepoId,
    pub network: NetworkId,
    pub generation: Generation,
}

/// The outcome of a fetch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Answered {
    /// The client has a response, perhaps an error.
    Here,
    /// An object cannot be read here, and no byte was sent: another node may answer.
    Elsewhere,
}

/// The result of a search for a node that serves a read.
pub(crate) enum Found {
    /// This one.
    Here(Local),
    /// Another one: its response.
    There(BulkStream),
}

impl Inner {
    pub(crate) fn target(&self, record: &RepoRecord) -> Target {
        Target {
            group: record.network.shard(self.cluster.shards()),
            repo: record.repo,
            network: record.network,
            generation: record.generation,
        }
    }

    /// The repository in a state no older than the call, if this node can serve it.
    ///
    /// # Errors
    /// See [`NotServed`].
    pub(crate) async fn open_local(&self, target: &Target) -> Result<Local, NotServed> {
        let elsewhere = |why: &str| NotServed::Elsewhere(why.to_owned());
        if self.cluster.view(target.group).is_none() {
            return Err(elsewhere("it holds no replica of the shard"));
        }
        // Before the state is read: a store that has no reader afterwards belongs to no live
        // repository.
        let reading = self.effects.readers().enter(target.network);
        match self.cluster.read_barrier(target.group, QUORUM_WAIT).await {
            Ok(_) => {}
            Err(ClusterError::NoReplica(_)) => return Err(elsewhere("its replica has gone")),
            Err(error) => return Err(NotServed::Failed(from_cluster(&error))),
        }
        let at = self
            .cluster
            .state(target.group)
            .ok_or_else(|| elsewhere("its replica has gone"))?;
        let now_ms = self.cluster.now_ms(target.group);
        let refs = StateRefs::open(at, &target.repo, target.generation, now_ms)
            .map_err(|_| NotServed::WrongGeneration)?;
        // After the state was read: its packs are here or parked by now.
        if self.effects.parking().is_parked(&target.network) {
            return Err(elsewhere("it lacks packs of the repository"));
        }
        Ok(Local {
            refs,
            _reading: reading,
        })
    }

    /// Finds a node that serves the read; if it is another one, forwards the request.
    ///
    /// # Errors
    /// `NotFound`; for a reader without a token `Unauthenticated` in place of it. `Throttled` when
    /// no node serves it and a holder had no free permit. `Unavailable` when no node serves it for
    /// another reason.
    pub(crate) async fn find_reader(
        &self,
        reader: Reader,
        path: &RepoPath,
        verb: &ReadVerb,
        body: &Bytes,
    ) -> Result<Found, ServiceError> {
        self.in_life(reader, path, |target| async move {
            let found = match self.open_local(&target).await {
                Ok(local) => {
                    metrics::read_served(verb.name());
                    return Ok(Some(Found::Here(local)));
                }
                Err(NotServed::Elsewhere(why)) => {
                    tracing::debug!(group = %target.group, why, "read passed to another node");
                    self.forward(reader, &target, verb, body).await
                }
                Err(not_served) => Err(not_served),
            };
            match found {
                Ok(stream) => {
                    metrics::read_forwarded(verb.name());
                    Ok(Some(Found::There(stream)))
                }
                Err(NotServed::WrongGeneration) => Ok(None),
                Err(NotServed::Elsewhere(why)) => Err(error::unavailable(format!(
                    "no node can serve repository {path} now ({why}): try again"
                ))),
                Err(NotServed::Failed(error)) => Err(error),
            }
        })
        .await
    }

    async fn forward(
        &self,
        reader: Reader,
        target: &Target,
        verb: &ReadVerb,
        body: &Bytes,
    ) -> Result<BulkStream, NotServed> {
        let request = ReadRequest {
            group: target.group,
            repo: target.repo,
            network: target.network,
            generation: target.generation,
            verb: verb.clone().asked_by(reader, self.knows_readers()),
        };
        let mut last = "no other replica".to_owned();
        let mut throttled = None;
        for node in self.holders(target.group).await {
            match self.hand_over(node, &request, body).await {
                Ok((ReadAnswer::Serving, stream)) => return Ok(stream),
                Ok((ReadAnswer::Elsewhere(why), _)) => last = format!("node {node}: {why}"),
                Ok((ReadAnswer::WrongGeneration, _)) => return Err(NotServed::WrongGeneration),
                Ok((ReadAnswer::Refused(ErrorCode::Throttled, _), _)) => throttled = Some(node),
                Ok((ReadAnswer::Refused(code, message), _)) => {
                    return Err(NotServed::Failed(failed(code, message)));
                }
                Err(error) => last = format!("node {node}: {error}"),
            }
        }
        match throttled {
            Some(_) if reader == Reader::Anybody => {
                Err(NotServed::Failed(too_many_without_token()))
            }
            Some(node) => Err(NotServed::Failed(error::too_many_fetches(node))),
            None => Err(NotServed::Elsewhere(last)),
        }
    }

    /// Whether all nodes support reads without a token.
    pub(crate) fn knows_readers(&self) -> bool {
        self.cluster.all_have_said(VERSION_READS_OF_ANYBODY)
    }

    /// The other replicas, the leader first.
    pub(crate) async fn holders(&self, group: GroupId) -> Vec<NodeId> {
        let leader = self.cluster.leader(group).await;
        let replicas = self.cluster.replicas(group);
        let rest = replicas.into_iter().filter(|node| Some(*node) != leader);
        let own = self.cluster.node();
        leader
            .into_iter()
            .chain(rest)
            .filter(|node| *node != own)
            .collect()
    }

    pub(crate) async fn hand_over(
        &self,
        node: NodeId,
        request: &ReadRequest,
        body: &Bytes,
    ) -> io::Result<(ReadAnswer, BulkStream)> {
        let opened = self
            .cluster
            .bulk()
            .open(node, GIT, frames::head(request), OPEN_TIMEOUT)
            .await;
        let mut stream = opened.map_err(io::Error::other)?;
        let send = async {
            stream.write_all(body).await?;
            stream.shutdown().await
        };
        timed(BODY_TIMEOUT, send).await?;
        let answer = timed(SERVE_TIMEOUT, frames::read(&mut stream)).await?;
        Ok((answer, stream))
    }

    /// The advertisement of a repository that is served here.
    ///
    /// # Errors
    /// When its objects cannot be read.
    pub(crate) async fn advertise(
        self: &Arc<Self>,
        local: Local,
        service: Service,
        protocol: Protocol,
    ) -> io::Result<Bytes> {
        let local = match service {
            Service::ReceivePack => Box::pin(self.with_nonce_seed(local)).await,
            Service::UploadPack => local,
        };
        let repo = local.refs.repo();
        let objects = self.opened(&repo.network, repo.object_format);
        let inner = Arc::clone(self);
        let listing = self.work.blocking("advertise", move || {
            let mut listing = Vec::new();
            let listed = match service {
                Service::ReceivePack => advertise(&local.refs, service, protocol, &mut listing),
                Service::UploadPack => {
                    let policy = FetchPolicy::default();
                    advertise_peeled(
                        &local.refs,
                        &objects,
                        service,
                        protocol,
                        policy,
                        &mut listing,
                    )
                }
            };
            if let Err(error) = &listed {
                let fault = error.get_ref().and_then(|inner| inner.downcast_ref());
                if let Some(fault) = fault {
                    inner.object_failed(inner.store_of(&local), fault);
                }
            }
            drop(local);
            listed.map(|()| listing.into())
        });
        listing.await?
    }

    /// The limits of a fetch that holds a permit.
    pub(crate) fn fetch_limits(
        stop: Stop,
        reader: Reader,
        admitted: Option<Arc<Admitted>>,
    ) -> FetchLimits {
        FetchLimits {
            stop,
            asker: match reader {
                Reader::Known => Asker::Known,
                Reader::Anybody => Asker::Anybody,
            },
            admission: admitted.map(|admitted| admitted as Arc<dyn Admission>),
            ..FetchLimits::default()
        }
    }

    /// The generation of a repository that is served here.
    pub(crate) fn target_of(&self, local: &Local) -> Target {
        let (group, network) = self.store_of(local);
        let repo = local.refs.repo();
        Target {
            group,
            repo: repo.repo,
            network,
            generation: repo.generation,
        }
    }

    /// The group and the network of a repository's store.
    pub(crate) fn store_of(&self, local: &Local) -> (GroupId, NetworkId) {
        let network = local.refs.repo().network;
        (network.shard(self.cluster.shards()), network)
    }

    /// Answers one upload-pack request of a repository that is served here. Blocking.
    ///
    /// # Errors
    /// When the response cannot be completed: the caller must abort it.
    pub(crate) fn upload_pack(
        self: &Arc<Self>,
        local: Local,
        protocol: Protocol,
        mut request: &[u8],
        output: &mut dyn Output,
        mut limits: FetchLimits,
    ) -> io::Result<Answered> {
        let repo = local.refs.repo();
        let objects = self.opened(&repo.network, repo.object_format);
        let responses = self.responses.of(local.refs.repo().repo.as_bytes());
        limits.responses = Some(responses);
        limits.bundles = self.bundle_list(&local.refs);
        let store = self.store_of(&local);
        let now = || self.clock.instant();
        let mut held = Held::new(output, &now);
        let outcome = upload_pack(
            &local.refs,
            &objects,
            protocol,
            &mut request,
            &mut held,
            &limits,
        );
        drop(local);
        let error = match outcome {
            Ok(summary) => {
                held.finish()?;
                metrics::fetch_answered(&summary);
                return Ok(Answered::Here);
            }
            Err(error) => error,
        };
        let is_parked = match (&error, error.damaged_pack()) {
            (FetchError::Store(fault), _) => {
                tracing::error!(%error, "a repository cannot be read");
                self.object_failed(store, fault)
            }
            (_, Some(damaged)) => self.store_failed(store, Some(damaged), &error.to_string()),
            (_, None) => {
                tracing::debug!(%error, "fetch refused");
                false
            }
        };
        if is_parked && !held.has_left() {
            return Ok(Answered::Elsewhere);
        }
        if let FetchError::Output(error) = error {
            return Err(error);
        }
        // The error goes to the client within the protocol.
        held.finish().map(|()| Answered::Here)
    }

    /// Forwards a fetch of which no byte was sent to another node. Blocking.
    ///
    /// # Errors
    /// When the response cannot be completed: the caller must abort it.
    pub(crate) fn answer_elsewhere(
        &self,
        reader: Reader,
        target: &Target,
        (verb, body): (&ReadVerb, &Bytes),
        output: &mut dyn Output,
    ) -> io::Result<()> {
        match Handle::current().block_on(self.forward(reader, target, verb, body)) {
            Ok(stream) => {
                metrics::read_forwarded(verb.name());
                let stream = Impatient::for_at_most(ANSWER_REST_MAX, stream);
                io::copy(&mut SyncIoBridge::new(stream), output)?;
            }
            Err(not_served) => {
                tracing::error!(group = %target.group, network = %target.network, ?not_served, "a store is damaged here and no other node serves it");
                let message = "the repository cannot be read here, and no other node serves it now: try again";
                pkt::write_error(output, message)?;
            }
        }
        output.flush()
    }
}

/// HEAD and refs, in their wire form.
pub(crate) fn wire_refs(local: &Local, prefix: &str) -> WireRefs {
    let repo = local.refs.repo();
    WireRefs {
        head: repo.head.clone(),
        refs: local.refs.list(prefix),
        updated_at_ms: repo.updated_at_ms,
        applied: local.refs.applied(),
    }
}

impl ReadVerb {
    /// Its label in metrics.
    pub(crate) fn name(&self) -> &'static str {
        match self {
            Self::InfoRefs { .. } => "info_refs",
            Self::UploadPack { .. } => "upload_pack",
            Self::Refs { .. } => "refs",
            Self::Protected => "protected",
            Self::PushCertificates { .. } => "push_certificates",
            Self::Bundle { .. } => "bundle",
            Self::OfAnybody(verb) => verb.name(),
        }
    }
}

/// The wire number of a protocol version.
pub(crate) const fn version(protocol: Protocol) -> u8 {
    match protocol {
        Protocol::V0 => 0,
        Protocol::V1 => 1,
        Protocol::V2 => 2,
    }
}

const fn protocol(version: u8) -> Protocol {
    match version {
        2 => Protocol::V2,
        1 => Protocol::V1,
        _ => Protocol::V0,
    }
}

/// The client's error for a stream between nodes that broke off.
pub(crate) fn broke_off(error: &io::Error) -> ServiceError {
    failed(
        ErrorCode::Unavailable,
        format!("the node that serves this repository was lost: {error}: try again"),
    )
}
