//! Reads that other nodes hand over to this one.

use std::io::{self, Write};
use std::sync::{Arc, Weak};
use std::time::Duration;

use bytes::Bytes;
use futures::future::BoxFuture;
use henge_cluster::{BulkHandler, BulkStream};
use henge_git::http::ServiceError;
use henge_git::{BundleId, Service};
use henge_types::{NodeId, limits};
use serde::Serialize;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio_util::io::SyncIoBridge;

use crate::admission::{Admitted, NotAdmitted};
use crate::certificates::wire_certificates;
use crate::error;
use crate::frames::{self, ReadAnswer, ReadRequest, ReadVerb};
use crate::metrics;
use crate::reads::{
    Answered, BODY_TIMEOUT, Local, NotServed, TURN_WAIT_MS, Target, protocol, timed, wire_refs,
};
use crate::repos::{Inner, still_there};

impl Inner {
    /// Serves a read that another node handed over.
    async fn serve_read(
        self: &Arc<Self>,
        request: ReadRequest,
        mut stream: BulkStream,
    ) -> io::Result<()> {
        let mut body = Vec::new();
        let most = u64::try_from(limits::FETCH_REQUEST_BYTES_MAX).unwrap_or(u64::MAX);
        timed(
            BODY_TIMEOUT,
            (&mut stream).take(most).read_to_end(&mut body),
        )
        .await?;
        let target = Target::from(&request);
        let opened = match self.place_for(&request.verb).await {
            Ok(place) => self.open_local(&target).await.map(|local| (local, place)),
            Err(error) => Err(NotServed::Failed(error)),
        };
        let (local, place) = match opened {
            Ok(opened) => opened,
            Err(not_served) => {
                return end_with(stream, &ReadAnswer::from(not_served)).await;
            }
        };
        if let ReadVerb::Bundle { id, range } = request.verb {
            let id = BundleId::from_bytes(id);
            return self
                .serve_bundle((local, place), id, range.into(), stream)
                .await;
        }
        metrics::read_served(request.verb.name());
        if let ReadVerb::InfoRefs { service, version } = &request.verb {
            return self.serve_info_refs(local, service, *version, stream).await;
        }
        frames::write(&mut stream, &ReadAnswer::Serving).await?;
        let verb = request.verb.clone();
        match request.verb {
            ReadVerb::Refs { prefix } => end_with(stream, &wire_refs(&local, &prefix)).await,
            ReadVerb::Protected => {
                let moves = postcard::from_bytes(&body).map_err(io::Error::other)?;
                let looked = self.look_at_moves(local, moves).await?;
                end_with(stream, &looked).await
            }
            ReadVerb::PushCertificates {
                reference,
                skip,
                limit,
            } => {
                let page = wire_certificates(&local, reference.as_ref(), skip, limit);
                end_with(stream, &page).await
            }
            // Answered above: it may be that it is not here.
            ReadVerb::Bundle { .. } | ReadVerb::InfoRefs { .. } => Ok(()),
            ReadVerb::UploadPack { version } => {
                let inner = Arc::clone(self);
                let served = self.work.blocking("git for another node", move || {
                    let mut bridge = SyncIoBridge::new(stream);
                    let mut output = io::BufWriter::with_capacity(64 * 1024, &mut bridge);
                    let stop = inner.deadline();
                    let limits = Self::fetch_limits(stop, place);
                    let protocol = protocol(version);
                    let answered =
                        inner.upload_pack(local, protocol, &body, &mut output, limits)?;
                    if answered == Answered::Elsewhere {
                        // The node that asked was told that this one serves.
                        inner.answer_elsewhere(&target, &verb, &body.into(), &mut output)?;
                    }
                    output.flush()?;
                    drop(output);
                    bridge.shutdown()
                });
                served.await?
            }
        }
    }

    /// The listing is made before it is said that this node serves: it may turn out that it cannot.
    async fn serve_info_refs(
        self: &Arc<Self>,
        local: Local,
        service: &str,
        version: u8,
        mut stream: BulkStream,
    ) -> io::Result<()> {
        let service = Service::parse(service)
            .ok_or_else(|| io::Error::other(format!("unknown git service {service:?}")))?;
        match self.advertise(local, service, protocol(version)).await {
            Ok(listing) => {
                frames::write(&mut stream, &ReadAnswer::Serving).await?;
                stream.write_all(&listing).await?;
                stream.shutdown().await
            }
            Err(error) => {
                tracing::error!(%error, "an advertisement cannot be made");
                let answer = ReadAnswer::Elsewhere("it cannot read the repository".to_owned());
                end_with(stream, &answer).await
            }
        }
    }

    /// A fetch takes a place here too, whichever node it came to, and so does a bundle; other reads cost little and take
    /// none.
    async fn place_for(&self, verb: &ReadVerb) -> Result<Option<Arc<Admitted>>, ServiceError> {
        if !matches!(verb, ReadVerb::UploadPack { .. } | ReadVerb::Bundle { .. }) {
            return Ok(None);
        }
        let within = Duration::from_millis(TURN_WAIT_MS);
        let admitted = self.fetches.admit(within).await;
        let admitted = admitted.map_err(|refusal| match refusal {
            NotAdmitted::Full => error::too_many_fetches(self.cluster.node()),
            NotAdmitted::Stopping => error::unavailable("the node is stopping"),
        })?;
        Ok(Some(Arc::new(admitted)))
    }
}

impl From<&ReadRequest> for Target {
    fn from(request: &ReadRequest) -> Self {
        Self {
            group: request.group,
            repo: request.repo,
            network: request.network,
            generation: request.generation,
        }
    }
}

impl From<NotServed> for ReadAnswer {
    fn from(not_served: NotServed) -> Self {
        match not_served {
            NotServed::Elsewhere(why) => Self::Elsewhere(why),
            NotServed::WrongGeneration => Self::WrongGeneration,
            NotServed::Failed(error) => Self::Refused(error.code, error.message),
        }
    }
}

/// The last frame of an answer.
async fn end_with<T: Serialize>(mut stream: BulkStream, frame: &T) -> io::Result<()> {
    frames::write(&mut stream, frame).await?;
    stream.shutdown().await
}

/// Serves [`frames::GIT`].
#[derive(Debug)]
pub(crate) struct ReadService(pub(crate) Weak<Inner>);

impl BulkHandler for ReadService {
    fn handle(
        &self,
        peer: NodeId,
        head: Bytes,
        stream: BulkStream,
    ) -> BoxFuture<'static, io::Result<()>> {
        let inner = still_there(&self.0);
        Box::pin(async move {
            let inner = inner?;
            let request: ReadRequest = frames::open_head(&head)?;
            tracing::debug!(%peer, group = %request.group, verb = request.verb.name(), "read for another node");
            inner.serve_read(request, stream).await
        })
    }
}
