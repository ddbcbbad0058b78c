//! The repositories, for the smart-HTTP router.

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use bytes::Bytes;
use futures::StreamExt;
use henge_git::http::{
    BundleAnswer, ByteRange, Caller, GitService, ServiceError, Spool, TakenPlace, stream_blocking,
    too_many_without_token, until_sent,
};
use henge_git::{
    Admission, BundleId, FetchPolicy, Protocol, PushHead, Service, advertise_missing, told_before,
};
use henge_runtime::{Clock, Scope};
use henge_types::{ErrorCode, ObjectFormat, Principal, RepoPath, RepoRecord};
use tokio::io::AsyncReadExt;
use tokio_util::io::ReaderStream;

use crate::access::{allow, creates};
use crate::admission::{Admitted, NotAdmitted};
use crate::catalogue::{CreateOptions, Freshness, Reader};
use crate::error::{self, failed};
use crate::frames::ReadVerb;
use crate::metrics;
use crate::push::input::Impatient;
use crate::push::receive::{Prepared, Receiving, Verdict, prepare};
use crate::reads::{ANSWER_REST_MAX, Answered, Found, broke_off, version};
use crate::repos::{Inner, Repos};

/// How long a fetch waits for a permit.
const TURN_WAIT: Duration = Duration::from_secs(5);
/// Maximum size of an advertisement from another node.
const ADVERTISEMENT_BYTES_MAX: u64 = 256 * 1024 * 1024;
/// Maximum number of generations of a repository that one push is resolved to.
const LIVES_MAX: usize = 3;

fn parse(repo: &str) -> Result<RepoPath, ServiceError> {
    repo.parse().map_err(|_| {
        failed(
            ErrorCode::NotFound,
            "there is no such repository: its path is OWNER/NAME.git",
        )
    })
}

impl GitService for Repos {
    async fn advertise(
        &self,
        caller: Caller,
        repo: &str,
        service: Service,
        protocol: Protocol,
    ) -> Result<Bytes, ServiceError> {
        if caller.principal.is_anonymous() {
            return self.advertise_public(repo, service, protocol).await;
        }
        let principal = allow(&caller.principal)?;
        let path = parse(repo)?;
        let found = self.inner.catalogue.find(&path, Freshness::Local).await;
        if service == Service::ReceivePack && found.as_ref().is_ok_and(|record| record.archived) {
            self.refuse_archived(&path).await?;
        }
        if let (Service::ReceivePack, Ok(record)) = (service, &found) {
            let group = record.network.shard(self.inner.cluster.shards());
            self.inner.refuse_without_room(group)?;
        }
        match (found, service) {
            // The capability advertisement of v2 has no refs. It discloses that the repository
            // exists, its object format, and whether it may have bundles.
            (Ok(record), Service::UploadPack) if protocol == Protocol::V2 => {
                self.capabilities(service, protocol, &record)
            }
            (Ok(_), _) => {
                Box::pin(self.advertise_found(Reader::Known, &path, service, protocol)).await
            }
            (Err(error), Service::ReceivePack)
                if error.code == ErrorCode::NotFound && creates(principal, &path) =>
            {
                nothing_yet(
                    service,
                    protocol,
                    ObjectFormat::default(),
                    FetchPolicy::default(),
                )
            }
            (Err(error), _) => Err(error),
        }
    }

    fn clock(&self) -> Arc<dyn Clock> {
        Arc::clone(&self.inner.clock)
    }

    async fn may_fetch(&self, caller: &Caller, repo: &str) -> Result<(), ServiceError> {
        if caller.principal.is_anonymous() {
            return self.public(repo).await.map(drop);
        }
        allow(&caller.principal).map(drop)
    }

    async fn upload_pack(
        &self,
        caller: Caller,
        repo: &str,
        protocol: Protocol,
        request: Bytes,
    ) -> Result<Body, ServiceError> {
        let place = self.admit(&caller, repo).await?;
        let reader = place.reader();
        let Place {
            path,
            admitted,
            anonymous,
        } = place;
        let verb = ReadVerb::UploadPack {
            version: version(protocol),
        };
        match Box::pin(self.inner.find_reader(reader, &path, &verb, &request)).await? {
            Found::Here(local) => {
                let inner = Arc::clone(&self.inner);
                let target = inner.target_of(&local);
                let stop = inner.deadline();
                let working = Arc::clone(&admitted);
                let body = stream_blocking(&self.inner.work, &stop.clone(), move |output| {
                    let limits = Inner::fetch_limits(stop, reader, Some(working));
                    match inner.upload_pack(local, protocol, &request, output, limits)? {
                        Answered::Elsewhere => {
                            inner.answer_elsewhere(reader, &target, (&verb, &request), output)
                        }
                        Answered::Here => Ok(()),
                    }
                });
                // The job ends when the client has taken the last bytes: until then it holds its
                // permits.
                Ok(until_sent(body, (admitted, anonymous)))
            }
            Found::There(stream) => {
                // Forwarding bytes costs almost no CPU, like waiting: the permit is exchanged for a
                // waiting one.
                admitted.waits();
                let stream = Impatient::for_at_most(ANSWER_REST_MAX, stream);
                let answer = ReaderStream::new(stream);
                Ok(Body::from_stream(answer.map(move |part| {
                    let _held_until_the_last_byte = (&admitted, &anonymous);
                    part
                })))
            }
        }
    }

    async fn receive_pack(
        &self,
        caller: Caller,
        repo: &str,
        _protocol: Protocol,
        request: Arc<Spool>,
    ) -> Result<Body, ServiceError> {
        let principal = allow(&caller.principal)?;
        let path = parse(repo)?;
        let format = self.format_of(principal, &path).await?;
        metrics::push_received(request.bytes());
        let started = self.inner.clock.instant();
        let spool = request;
        let reading = Arc::clone(&spool);
        let prepared = self
            .inner
            .work
            .blocking("push head", move || prepare(&reading, format))
            .await;
        let prepared = prepared.map_err(|error| error::internal(error.to_string()))??;
        if prepared.head.is_empty() {
            return Ok(Body::empty());
        }
        let report = Box::pin(self.push(principal, &path, &spool, &prepared)).await?;
        let seconds = self
            .inner
            .clock
            .instant()
            .duration_since(started)
            .as_secs_f64();
        metrics::push_answered(seconds);
        Ok(Body::from(report))
    }

    /// A bundle of a repository. The permission and the permits are those of a fetch.
    async fn bundle(
        &self,
        caller: Caller,
        repo: &str,
        id: BundleId,
        range: ByteRange,
    ) -> Result<BundleAnswer, ServiceError> {
        let place = self.admit(&caller, repo).await?;
        let (reader, path) = (place.reader(), place.path.clone());
        let found = Box::pin(self.inner.find_bundle(reader, &path, id, range)).await?;
        Ok(self.inner.send_bundle(found, range, place))
    }

    fn blocking_work(&self) -> &Scope {
        &self.inner.work
    }

    fn spool_dir(&self) -> &Path {
        &self.inner.spool_dir
    }

    fn spool_room(&self) -> io::Result<u64> {
        let space = self.inner.objects().space().map_err(io::Error::other)?;
        Ok(space.room)
    }
}

/// An admitted fetch; dropping it releases its permits.
pub(crate) struct Place {
    path: RepoPath,
    admitted: Arc<Admitted>,
    anonymous: Option<TakenPlace>,
}

impl Place {
    const fn reader(&self) -> Reader {
        match self.anonymous {
            Some(_) => Reader::Anybody,
            None => Reader::Known,
        }
    }

    /// Exchanges the permit for a waiting one: forwarding bytes costs almost no CPU.
    pub(crate) fn only_passes_on(&self) {
        self.admitted.waits();
    }
}

/// The target of a push.
enum Pushed {
    /// An existing repository.
    Found(RepoRecord),
    /// A repository that the push created.
    Created(RepoRecord),
}

/// The error of a push that failed after creating its repository; the message names the repository.
fn also_created(error: ServiceError, created: Option<&RepoPath>) -> ServiceError {
    match created {
        Some(path) => ServiceError {
            message: format!("{} (created {path}, private, before that)", error.message),
            ..error
        },
        None => error,
    }
}

/// The report of a push; it names the repository if the push created one.
fn with_creation(report: Bytes, created: Option<RepoPath>, head: &PushHead) -> Bytes {
    match created {
        Some(path) => told_before(&format!("created {path}, private\n"), head, report),
        None => report,
    }
}

fn nothing_yet(
    service: Service,
    protocol: Protocol,
    format: ObjectFormat,
    policy: FetchPolicy,
) -> Result<Bytes, ServiceError> {
    let mut listing = Vec::new();
    advertise_missing(service, protocol, format, policy, &mut listing)
        .map_err(|error| error::internal(error.to_string()))?;
    Ok(listing.into())
}

impl Repos {
    /// Admits a fetch: checks the permission, then waits for a permit.
    async fn admit(&self, caller: &Caller, repo: &str) -> Result<Place, ServiceError> {
        let anonymous = if caller.principal.is_anonymous() {
            let places = &self.inner.anonymous_fetches;
            // Without a token there is no wait: any client could fill such a queue. The refusal
            // requests a token at once.
            let place = places.try_enter(caller.peer);
            Some(place.ok_or_else(too_many_without_token)?)
        } else {
            allow(&caller.principal)?;
            None
        };
        let path = match anonymous {
            Some(_) => self.public(repo).await?.0,
            None => parse(repo)?,
        };
        let admitted = self.inner.fetches.admit(TURN_WAIT).await;
        let admitted = Arc::new(admitted.map_err(|refusal| match refusal {
            NotAdmitted::Full => error::too_many_fetches(self.inner.cluster.node()),
            NotAdmitted::Stopping => error::unavailable("the node is stopping"),
        })?);
        Ok(Place {
            path,
            admitted,
            anonymous,
        })
    }

    /// The path and record of a repository that is public now. A caller that waits afterwards must
    /// look it up again.
    async fn public(&self, repo: &str) -> Result<(RepoPath, RepoRecord), ServiceError> {
        let path = parse(repo).map_err(|_| error::log_in_first())?;
        let record = self.inner.catalogue.find_public(&path).await?;
        Ok((path, record))
    }

    /// The advertisement for a request without a token: upload-pack on public repositories only.
    async fn advertise_public(
        &self,
        repo: &str,
        service: Service,
        protocol: Protocol,
    ) -> Result<Bytes, ServiceError> {
        if service == Service::ReceivePack {
            return Err(error::log_in_first());
        }
        let (path, record) = self.public(repo).await?;
        match protocol {
            Protocol::V2 => self.capabilities(service, protocol, &record),
            Protocol::V0 | Protocol::V1 => {
                Box::pin(self.advertise_found(Reader::Anybody, &path, service, protocol)).await
            }
        }
    }

    /// The capability advertisement of a repository; needs no replica.
    fn capabilities(
        &self,
        service: Service,
        protocol: Protocol,
        record: &RepoRecord,
    ) -> Result<Bytes, ServiceError> {
        let policy = FetchPolicy {
            bundle_uri: self.inner.offers_bundles(record),
            ..FetchPolicy::default()
        };
        nothing_yet(service, protocol, record.object_format, policy)
    }

    /// Checked before a client sends a pack: the local copy may be stale, so the lookup is
    /// linearizable.
    async fn refuse_archived(&self, path: &RepoPath) -> Result<(), ServiceError> {
        let now = self.inner.catalogue.find(path, Freshness::Linearizable);
        if now.await?.archived {
            return Err(failed(
                ErrorCode::Forbidden,
                format!("repository {path} is archived: it is read-only"),
            ));
        }
        Ok(())
    }

    async fn advertise_found(
        &self,
        reader: Reader,
        path: &RepoPath,
        service: Service,
        protocol: Protocol,
    ) -> Result<Bytes, ServiceError> {
        let verb = ReadVerb::InfoRefs {
            service: service.name().to_owned(),
            version: version(protocol),
        };
        let body = Bytes::new();
        let mut found = self.inner.find_reader(reader, path, &verb, &body).await?;
        if let Found::Here(local) = found {
            let network = local.refs.repo().network;
            let error = match self.inner.advertise(local, service, protocol).await {
                Ok(listing) => return Ok(listing),
                Err(error) => error,
            };
            tracing::error!(%error, "an advertisement cannot be made");
            let unreadable = || error::internal("the repository cannot be read: tell its operator");
            if !self.inner.effects.parking().is_parked(&network) {
                return Err(unreadable());
            }
            // Damaged here: another node may serve it.
            found = self.inner.find_reader(reader, path, &verb, &body).await?;
            if matches!(found, Found::Here(_)) {
                return Err(unreadable());
            }
        }
        match found {
            Found::Here(_) => Err(error::internal("the repository cannot be read: try again")),
            Found::There(stream) => {
                let mut listing = Vec::new();
                let mut stream = Impatient::new(stream).take(ADVERTISEMENT_BYTES_MAX);
                stream
                    .read_to_end(&mut listing)
                    .await
                    .map_err(|error| broke_off(&error))?;
                Ok(listing.into())
            }
        }
    }

    /// One push, to the current generation of the repository.
    async fn push(
        &self,
        principal: &Principal,
        path: &RepoPath,
        spool: &Arc<Spool>,
        prepared: &Prepared,
    ) -> Result<Bytes, ServiceError> {
        let mut freshness = Freshness::Local;
        let mut created = None;
        for _ in 0..LIVES_MAX {
            let record = match self.find_or_create(principal, path, freshness).await? {
                Pushed::Found(record) => record,
                Pushed::Created(record) => {
                    created = Some(record.path.clone());
                    record
                }
            };
            let cluster = &self.inner.cluster;
            // One id per generation: a refusal by an earlier generation must not count for a later
            // one.
            let id = cluster.next_request_id(record.network.shard(cluster.shards()));
            let spool = Arc::clone(spool);
            let push = Receiving::new(&self.inner, spool, &record, id, principal, prepared.digest);
            let pushed = push.run().await;
            match pushed.map_err(|error| also_created(error, created.as_ref()))? {
                Verdict::Report(report) => {
                    return Ok(with_creation(report, created, &prepared.head));
                }
                Verdict::Resolve => freshness = Freshness::Linearizable,
            }
        }
        Err(failed(
            ErrorCode::Conflict,
            format!("repository {path} is being deleted or made again: push again"),
        ))
    }

    /// The object format of a push: that of the repository, or of the one that the push would
    /// create.
    async fn format_of(
        &self,
        principal: &Principal,
        path: &RepoPath,
    ) -> Result<ObjectFormat, ServiceError> {
        match self.inner.catalogue.find(path, Freshness::Local).await {
            Ok(record) => Ok(record.object_format),
            Err(error) if error.code == ErrorCode::NotFound && creates(principal, path) => {
                Ok(ObjectFormat::default())
            }
            Err(error) => Err(error),
        }
    }

    async fn find_or_create(
        &self,
        principal: &Principal,
        path: &RepoPath,
        freshness: Freshness,
    ) -> Result<Pushed, ServiceError> {
        let catalogue = &self.inner.catalogue;
        match catalogue.find(path, freshness).await {
            Err(error) if error.code == ErrorCode::NotFound && creates(principal, path) => {}
            found => return found.map(Pushed::Found),
        }
        // Private: a repository becomes public only on request.
        let options = CreateOptions::default();
        match catalogue.create(principal, path.clone(), options).await {
            // A concurrent request created it first: the push goes to that repository.
            Err(error) if error.code == ErrorCode::AlreadyExists => {
                let found = catalogue.find(path, Freshness::Linearizable).await;
                found.map(Pushed::Found)
            }
            created => created.map(Pushed::Created),
        }
    }
}
