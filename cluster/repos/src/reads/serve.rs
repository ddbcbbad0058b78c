//! Reads that other nodes forward to this one.

use std::io::{self, Write};
use std::sync::Arc;
use std::time::Duration;

use henge_cluster::BulkStream;
use henge_git::http::{ServiceError, TakenPlace};
use henge_git::{BundleId, Service};
use henge_types::{NodeId, limits};
use serde::Serialize;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio_util::io::SyncIoBridge;

use crate::admission::{Admitted, NotAdmitted};
use crate::asking::Request;
use crate::catalogue::Reader;
use crate::certificates::wire_certificates;
use crate::error;
use crate::frames::{self, ReadAnswer, ReadRequest, ReadVerb};
use crate::metrics;
use crate::reads::{
    Answered, BODY_TIMEOUT, Local, NotServed, TURN_WAIT_MS, Target, protocol, timed, wire_refs,
};
use crate::repos::Inner;

/// The permits that a read for another node holds.
type Places = (Option<Arc<Admitted>>, Option<TakenPlace>);

impl Inner {
    /// Serves a read that another node forwarded.
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
        let (reader, verb) = request.verb.into_asked();
        // Both permits are held until the other node has the last byte.
        let (local, (place, _anonymous)) = match self.let_in(reader, &verb, &target).await {
            Ok(opened) => opened,
            Err(not_served) => {
                return end_with(stream, &ReadAnswer::from(not_served)).await;
            }
        };
        if let ReadVerb::Bundle { id, range } = verb {
            let id = BundleId::from_bytes(id);
            return self
                .serve_bundle((local, place), id, range.into(), stream)
                .await;
        }
        metrics::read_served(verb.name());
        if let ReadVerb::InfoRefs { service, version } = &verb {
            return self.serve_info_refs(local, service, *version, stream).await;
        }
        frames::write(&mut stream, &ReadAnswer::Serving).await?;
        let asked = verb.clone();
        match verb {
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
            // Answered above: the result may be a refusal.
            ReadVerb::Bundle { .. } | ReadVerb::InfoRefs { .. } => Ok(()),
            ReadVerb::OfAnybody(_) => Err(io::Error::other("a read is asked by anybody twice")),
            ReadVerb::UploadPack { version } => {
                let inner = Arc::clone(self);
                let served = self.work.blocking("git for another node", move || {
                    let mut bridge = SyncIoBridge::new(stream);
                    let mut output = io::BufWriter::with_capacity(64 * 1024, &mut bridge);
                    let stop = inner.deadline();
                    let limits = Self::fetch_limits(stop, reader, place);
                    let protocol = protocol(version);
                    let answered =
                        inner.upload_pack(local, protocol, &body, &mut output, limits)?;
                    if answered == Answered::Elsewhere {
                        // The requesting node was promised an answer already.
                        let body = body.into();
                        inner.answer_elsewhere(reader, &target, (&asked, &body), &mut output)?;
                    }
                    output.flush()?;
                    drop(output);
                    bridge.shutdown()
                });
                served.await?
            }
        }
    }

    async fn let_in(
        &self,
        reader: Reader,
        verb: &ReadVerb,
        target: &Target,
    ) -> Result<(Local, Places), NotServed> {
        let places = self.place_for(reader, verb).await;
        let places = places.map_err(NotServed::Failed)?;
        Ok((self.open_local(target).await?, places))
    }

    /// The listing is computed before this node answers that it serves: computing it may fail.
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

    /// A fetch takes a permit here too, whichever node received it, and so does a bundle. Other
    /// reads cost little and take none. A read without a token takes an anonymous permit besides.
    async fn place_for(&self, reader: Reader, verb: &ReadVerb) -> Result<Places, ServiceError> {
        let anonymous = match reader {
            Reader::Known => None,
            Reader::Anybody => {
                let place = self.anonymous_fetches.try_enter(None);
                Some(place.ok_or_else(|| error::too_many_fetches(self.cluster.node()))?)
            }
        };
        if !matches!(verb, ReadVerb::UploadPack { .. } | ReadVerb::Bundle { .. }) {
            return Ok((None, anonymous));
        }
        let within = Duration::from_millis(TURN_WAIT_MS);
        let admitted = self.fetches.admit(within).await;
        let admitted = admitted.map_err(|refusal| match refusal {
            NotAdmitted::Full => error::too_many_fetches(self.cluster.node()),
            NotAdmitted::Stopping => error::unavailable("the node is stopping"),
        })?;
        Ok((Some(Arc::new(admitted)), anonymous))
    }
}

impl ReadVerb {
    /// The verb in the form sent to another node.
    pub(crate) fn asked_by(self, reader: Reader, knows_readers: bool) -> Self {
        match reader {
            Reader::Anybody if knows_readers => Self::OfAnybody(Box::new(self)),
            Reader::Anybody | Reader::Known => self,
        }
    }

    /// The inverse of [`Self::asked_by`].
    pub(crate) fn into_asked(self) -> (Reader, Self) {
        if let Self::OfAnybody(verb) = self {
            return (Reader::Anybody, *verb);
        }
        (Reader::Known, self)
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

/// Writes the last frame of an answer.
async fn end_with<T: Serialize>(mut stream: BulkStream, frame: &T) -> io::Result<()> {
    frames::write(&mut stream, frame).await?;
    stream.shutdown().await
}

impl Request for ReadRequest {
    const SERVICE: &'static str = frames::GIT;

    async fn serve(self, inner: Arc<Inner>, peer: NodeId, stream: BulkStream) -> io::Result<()> {
        tracing::debug!(%peer, group = %self.group, verb = self.verb.name(), "read for another node");
        inner.serve_read(self, stream).await
    }
}
