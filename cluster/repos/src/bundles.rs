//! Bundles: the start of a clone, downloaded separately and resumable.
//!
//! A node makes bundles of its own packs in the background when a client requests one, and keeps
//! them for a while. Two nodes make different bundles of the same refs, so a bundle is identified
//! by its content. A node that lacks a bundle asks the other holders of the repository. If no
//! holder has it, clients clone without a bundle.

use std::io::{self, Write};
use std::sync::{Arc, Weak};
use std::time::Duration;

use axum::body::Body;
use bytes::Bytes;
use futures::StreamExt;
use henge_cluster::BulkStream;
use henge_git::http::{
    BundleAnswer, ByteRange, ServiceError, bundle_uri, stream_blocking, until_sent,
};
use henge_git::{
    BundleId, BundleList, BundleMaking, Bundles, NoBundle, Objects, OpenBundle, RefStore, Stop,
};
use henge_runtime::tasks::OnPanic;
use henge_state::ShardView;
use henge_types::command::VERSION_REPOS;
use henge_types::{ErrorCode, GroupId, NetworkId, RepoPath, RepoRecord};
use tokio::io::AsyncWriteExt;
use tokio_util::io::{ReaderStream, SyncIoBridge};

use crate::admission::Admitted;
use crate::catalogue::Reader;
use crate::error::{self, failed};
use crate::frames::{self, ReadAnswer, ReadRequest, ReadVerb};
use crate::maintain::compact::StopOnDrop;
use crate::metrics::{self, BundleMade};
use crate::push::input::Impatient;
use crate::reads::{Local, NotServed, Target};
use crate::refs::StateRefs;
use crate::repos::{Inner, Repos};
use crate::service::Place;

/// How long a holder may take to report the length of a bundle.
const LENGTH_TIMEOUT: Duration = Duration::from_secs(5);

/// Configuration of bundles.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BundlesConfig {
    /// Smallest bundle offered, in bytes: restarting a smaller clone is cheap.
    pub bytes_min: u64,
}

impl Repos {
    /// Starts offering bundles. Called once.
    pub fn offer_bundles(&self, config: BundlesConfig) {
        let inner = &self.inner;
        let clock = Arc::clone(&inner.clock);
        let bundles = Bundles::new(&inner.spool_dir, config.bytes_min, clock);
        if inner.bundles.set(bundles).is_err() {
            tracing::error!("bundles are offered already");
        }
    }
}

/// A bundle that was found.
pub(crate) enum FoundBundle {
    /// On this node.
    Here(Box<(OpenBundle, Local)>),
    /// On another node: its length, and the requested bytes.
    There(u64, BulkStream),
}

/// The key of the bundles of one generation of a repository. Keys of one network share a prefix.
fn name(refs: &StateRefs) -> Vec<u8> {
    let repo = refs.repo();
    let mut name = repo.network.as_bytes().to_vec();
    name.extend(repo.repo.as_bytes());
    name.extend(repo.generation.get().to_le_bytes());
    name
}

/// The response to `bundle-uri` for one repository.
#[derive(Debug)]
struct Offered {
    inner: Weak<Inner>,
    bundles: Option<Bundles>,
    target: Target,
    name: Vec<u8>,
}

impl BundleList for Offered {
    fn lines(&self, refs: &dyn RefStore, objects: &Objects, stop: &Stop) -> Vec<(String, String)> {
        let Some(bundles) = &self.bundles else {
            return Vec::new();
        };
        let offer = || bundles.offer(&self.name, refs, objects, stop);
        let mut offered = offer();
        if offered.is_due
            && let Some(inner) = self.inner.upgrade()
            && inner.may_be_large(&self.target)
        {
            inner.begin_bundle(bundles, self.target, &self.name);
            drop(inner);
            if offered.bundle.is_none() {
                bundles.wait(&self.name, stop);
                offered = offer();
            }
        }
        let Some(bundle) = offered.bundle else {
            metrics::bundle_offered("none");
            return Vec::new();
        };
        metrics::bundle_offered("bundle");
        // No `bundle.heuristic`: with creationToken git keeps the downloaded file, which is as
        // large as the clone itself.
        [
            ("bundle.version", "1".to_owned()),
            ("bundle.mode", "all".to_owned()),
            ("bundle.refs.uri", bundle_uri(bundle.id())),
        ]
        .map(|(key, value)| (key.to_owned(), value))
        .into()
    }
}

impl Inner {
    /// Whether the advertisement of a repository contains `bundle-uri`. It does not if the
    /// repository is known here to be too small. It does not if a node of the cluster may not
    /// support bundles.
    pub(crate) fn offers_bundles(&self, record: &RepoRecord) -> bool {
        let level = self.cluster.level(GroupId::META);
        self.bundles.get().is_some()
            && level.is_some_and(|level| level >= VERSION_REPOS)
            && self.may_be_large(&self.target(record))
    }

    /// Whether the packs of a repository's network are large enough for a bundle. `true` without a
    /// replica here.
    fn may_be_large(&self, target: &Target) -> bool {
        let (Some(bundles), Some(view)) = (self.bundles.get(), self.cluster.view(target.group))
        else {
            return true;
        };
        view.with(|state, _| {
            let packs = ShardView::new(state).packs(&target.network);
            let bytes = packs.map(|pack| pack.pack_bytes).sum::<u64>();
            bytes >= bundles.bytes_min()
        })
    }

    /// The response to `bundle-uri`. A node that offers no bundles responds as well: another node
    /// may have advertised the capability.
    pub(crate) fn bundle_list(self: &Arc<Self>, refs: &StateRefs) -> Option<Arc<dyn BundleList>> {
        let repo = refs.repo();
        let target = Target {
            group: repo.network.shard(self.cluster.shards()),
            repo: repo.repo,
            network: repo.network,
            generation: repo.generation,
        };
        Some(Arc::new(Offered {
            inner: Arc::downgrade(self),
            bundles: self.bundles.get().cloned(),
            target,
            name: name(refs),
        }))
    }

    /// Starts making a bundle in the background, unless that is under way.
    fn begin_bundle(self: &Arc<Self>, bundles: &Bundles, target: Target, name: &[u8]) {
        if self.space.is_low(self.cluster.node()) {
            return;
        }
        let Some(making) = bundles.begin(name) else {
            return;
        };
        let inner = Arc::clone(self);
        // The handle is not needed: the end of `making` notifies the waiting requests.
        drop(self.scope.spawn("bundle", OnPanic::Log, async move {
            inner.make_bundle(target, making).await;
        }));
    }

    async fn make_bundle(&self, target: Target, making: BundleMaking) {
        let Ok(local) = self.open_local(&target).await else {
            return;
        };
        let objects = self.opened(&target.network, local.refs.repo().object_format);
        let stop = self.deadline();
        let _stopped = StopOnDrop(stop.clone());
        let started = self.clock.instant();
        let made = self.work_of_bundles.blocking("bundle", move || {
            let made = making.make(&local.refs, &objects, &stop);
            drop(local);
            made.map(|bundle| (bundle.id(), bundle.bytes()))
        });
        let made = made.await;
        let took = self.clock.instant().duration_since(started);
        let repo = target.repo;
        let result = match made {
            Ok(Ok((id, bytes))) => {
                tracing::info!(%repo, %id, bytes, "bundle made");
                BundleMade::Ok
            }
            Ok(Err(reason @ (NoBundle::Empty | NoBundle::Small { .. }))) => {
                tracing::debug!(%repo, %reason, "no bundle");
                BundleMade::Small
            }
            Ok(Err(error)) => {
                tracing::warn!(%repo, %error, "no bundle: clones of this repository cannot go on where they broke off");
                BundleMade::Failed
            }
            Err(error) => {
                tracing::error!(%repo, %error, "making a bundle ended");
                BundleMade::Failed
            }
        };
        metrics::bundle_made(result, took.as_secs_f64());
    }

    /// Removes bundles that had no recent request, and all of them when disk space is low.
    pub(crate) async fn sweep_bundles(&self) {
        let Some(bundles) = self.bundles.get().cloned() else {
            return;
        };
        if self.space.is_low(self.cluster.node()) {
            bundles.forget(&[]);
        }
        let swept = self
            .work_of_replica
            .blocking("sweep bundles", move || bundles.sweep());
        match swept.await {
            Ok((bundles, disk_bytes)) => metrics::bundles_kept(bundles, disk_bytes),
            Err(error) => tracing::error!(%error, "sweeping bundles ended"),
        }
    }

    /// Removes the bundles of a network that is being removed.
    pub(crate) fn forget_bundles(&self, network: &NetworkId) {
        if let Some(bundles) = self.bundles.get() {
            bundles.forget(network.as_bytes());
        }
    }

    /// A bundle, on this node or on another holder of the repository.
    ///
    /// # Errors
    /// `NotFound` when no holder has it, or when it covers objects that may no longer be fetched.
    /// `Unavailable` when a holder could not be asked. `Unauthenticated` for a reader without a
    /// token where the repository is not public.
    pub(crate) async fn find_bundle(
        &self,
        reader: Reader,
        path: &RepoPath,
        id: BundleId,
        range: ByteRange,
    ) -> Result<FoundBundle, ServiceError> {
        self.in_life(reader, path, |target| async move {
            let found = match self.open_local(&target).await {
                Ok(local) => match self.bundle_here(local, id).await? {
                    Some(found) => return Ok(Some(FoundBundle::Here(Box::new(found)))),
                    None => self.bundle_elsewhere(reader, &target, id, range).await,
                },
                Err(NotServed::Elsewhere(_)) => {
                    self.bundle_elsewhere(reader, &target, id, range).await
                }
                Err(not_served) => Err(not_served),
            };
            match found {
                Ok(Some((bytes, stream))) => Ok(Some(FoundBundle::There(bytes, stream))),
                Ok(None) => {
                    metrics::bundle_read("gone");
                    let message = "there is no such bundle any more: fetch without it, or ask for another one";
                    Err(failed(ErrorCode::NotFound, message))
                }
                Err(NotServed::WrongGeneration) => Ok(None),
                Err(NotServed::Elsewhere(why)) => Err(error::unavailable(format!(
                    "a node that may have this bundle does not answer ({why}): try again"
                ))),
                Err(NotServed::Failed(error)) => Err(error),
            }
        })
        .await
    }

    /// The bundle, if this node has it and all that it covers may be fetched.
    async fn bundle_here(
        &self,
        local: Local,
        id: BundleId,
    ) -> Result<Option<(OpenBundle, Local)>, ServiceError> {
        let Some(bundles) = self.bundles.get().cloned() else {
            return Ok(None);
        };
        let repo = local.refs.repo();
        let objects = self.opened(&repo.network, repo.object_format);
        let stop = self.deadline();
        let _stopped = StopOnDrop(stop.clone());
        let found = self.work.blocking("find bundle", move || {
            let name = name(&local.refs);
            let bundle = bundles.find(&name, id, &local.refs, &objects, &stop)?;
            match bundle.open(&objects) {
                Ok(bundle) => Some((bundle, local)),
                Err(error) => {
                    tracing::error!(%error, "a repository cannot be read");
                    None
                }
            }
        });
        found
            .await
            .map_err(|error| error::internal(error.to_string()))
    }

    /// The bundle from another holder; `None` when every holder reports that it lacks it.
    async fn bundle_elsewhere(
        &self,
        reader: Reader,
        target: &Target,
        id: BundleId,
        range: ByteRange,
    ) -> Result<Option<(u64, BulkStream)>, NotServed> {
        let verb = ReadVerb::Bundle {
            id: *id.as_bytes(),
            range: range.into(),
        };
        let request = ReadRequest {
            group: target.group,
            repo: target.repo,
            network: target.network,
            generation: target.generation,
            verb: verb.asked_by(reader, self.knows_readers()),
        };
        let mut silent = None;
        for node in self.holders(target.group).await {
            let asked = async {
                let (answer, mut stream) = self.hand_over(node, &request, &Bytes::new()).await?;
                if answer != ReadAnswer::Serving {
                    return Ok((answer, 0, stream));
                }
                let length = tokio::time::timeout(LENGTH_TIMEOUT, frames::read(&mut stream)).await;
                let bytes = length.map_err(|_| io::Error::from(io::ErrorKind::TimedOut))??;
                io::Result::Ok((answer, bytes, stream))
            };
            match asked.await {
                Ok((ReadAnswer::Serving, bytes, stream)) => {
                    metrics::read_forwarded(request.verb.name());
                    return Ok(Some((bytes, stream)));
                }
                Ok((ReadAnswer::Elsewhere(_), ..)) => {}
                Ok((ReadAnswer::WrongGeneration, ..)) => return Err(NotServed::WrongGeneration),
                Ok((ReadAnswer::Refused(code, message), ..)) => {
                    return Err(NotServed::Failed(failed(code, message)));
                }
                Err(error) => silent = Some(format!("node {node}: {error}")),
            }
        }
        match silent {
            None => Ok(None),
            Some(why) => Err(NotServed::Elsewhere(why)),
        }
    }

    /// Sends another node a part of a bundle, if this node has it.
    pub(crate) async fn serve_bundle(
        self: &Arc<Self>,
        (local, place): (Local, Option<Arc<Admitted>>),
        id: BundleId,
        range: ByteRange,
        mut stream: BulkStream,
    ) -> io::Result<()> {
        let found = self.bundle_here(local, id).await;
        let found = found.map_err(|error| io::Error::other(error.message))?;
        let Some((bundle, local)) = found else {
            let answer = ReadAnswer::Elsewhere("it has no such bundle".to_owned());
            frames::write(&mut stream, &answer).await?;
            return stream.shutdown().await;
        };
        metrics::read_served("bundle");
        frames::write(&mut stream, &ReadAnswer::Serving).await?;
        frames::write(&mut stream, &bundle.bytes()).await?;
        let (inner, store) = (Arc::clone(self), self.store_of(&local));
        let served = self.work.blocking("bundle for another node", move || {
            let mut bridge = SyncIoBridge::new(stream);
            let mut output = io::BufWriter::with_capacity(64 * 1024, &mut bridge);
            let part = range.of(bundle.bytes()).unwrap_or(0..0);
            let written = bundle.write(part, &mut output);
            inner.note_damage(store, &written);
            written?;
            output.flush()?;
            drop((output, local, place));
            bridge.shutdown()
        });
        served.await?
    }

    /// Sends a bundle to a client. The fetch permit is held meanwhile.
    pub(crate) fn send_bundle(
        self: &Arc<Self>,
        found: FoundBundle,
        range: ByteRange,
        place: Place,
    ) -> BundleAnswer {
        metrics::bundle_read(match range {
            ByteRange::Whole => "whole",
            ByteRange::From(_) | ByteRange::Between(..) | ByteRange::Last(_) => "part",
        });
        match found {
            FoundBundle::Here(found) => {
                let (bundle, local) = *found;
                metrics::read_served("bundle");
                let bytes = bundle.bytes();
                let Some(part) = range.of(bytes) else {
                    let body = Body::empty();
                    return BundleAnswer { bytes, body };
                };
                let (inner, store) = (Arc::clone(self), self.store_of(&local));
                let body = stream_blocking(&self.work, &self.deadline(), move |output| {
                    let written = bundle.write(part, output);
                    inner.note_damage(store, &written);
                    drop(local);
                    written
                });
                let body = until_sent(body, place);
                BundleAnswer { bytes, body }
            }
            FoundBundle::There(bytes, stream) => {
                place.only_passes_on();
                let answer = ReaderStream::new(Impatient::new(stream));
                let body = Body::from_stream(answer.map(move |part| {
                    let _held_until_the_last_byte = &place;
                    part
                }));
                BundleAnswer { bytes, body }
            }
        }
    }
}
