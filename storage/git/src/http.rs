//! Smart HTTP: an axum router over a [`GitService`].
//!
//! `GET /PATH/info/refs?service=…`, `POST /PATH/git-upload-pack`, `POST /PATH/git-receive-pack`,
//! and `GET /PATH/bundles/ID.bundle`, in ranges too. A path may have any number of components.
//! Request bodies may be chunked and gzipped; responses are streamed with back-pressure.

mod admission;
mod bundle;
mod memory;
mod places;
mod refusal;
mod shortage;
mod spool;
mod stream;

use std::future::Future;
use std::io;
use std::path::Path;
use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::extract::{self, Query, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use bytes::Bytes;
use henge_runtime::{Clock, Scope, SystemClock};
use henge_types::{ErrorCode, Principal, limits};

pub use admission::too_many_without_token;
pub use bundle::{BundleAnswer, ByteRange, bundle_path, bundle_uri};
pub use memory::{ClientMemory, MemoryShare, NoMemory};
pub use places::{Peer, PlaceBounds, Places, TakenPlace, until_sent};
pub use spool::{Spool, SpoolError};
pub use stream::stream_blocking;

use crate::bundle::BundleId;
use crate::http::admission::{Shared, fetch_request};
use crate::http::memory::Held;
use crate::http::refusal::Extent;
use crate::http::spool::{NotSpooled, SpoolDir};
use crate::pkt;
use crate::protocol::{Protocol, Service};

/// The sender of a request. The authentication layer puts it into the request's extensions; without
/// it the sender is anonymous.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Caller {
    /// The identity.
    pub principal: Principal,
    /// The origin of the request, if it is known.
    pub peer: Option<Peer>,
}

/// A request that failed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct ServiceError {
    /// The kind of failure.
    pub code: ErrorCode,
    /// The error, and what to do.
    pub message: String,
    /// The retry interval in seconds.
    pub retry_after_s: Option<u32>,
}

impl ServiceError {
    /// A failure without a retry interval.
    pub const fn new(code: ErrorCode, message: String) -> Self {
        Self {
            code,
            message,
            retry_after_s: None,
        }
    }

    /// Its HTTP status.
    pub const fn status(&self) -> StatusCode {
        match self.code {
            ErrorCode::NotFound => StatusCode::NOT_FOUND,
            ErrorCode::AlreadyExists | ErrorCode::Conflict => StatusCode::CONFLICT,
            ErrorCode::Invalid => StatusCode::BAD_REQUEST,
            ErrorCode::Unauthenticated => StatusCode::UNAUTHORIZED,
            ErrorCode::Forbidden => StatusCode::FORBIDDEN,
            ErrorCode::Throttled => StatusCode::TOO_MANY_REQUESTS,
            ErrorCode::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
            ErrorCode::Timeout => StatusCode::GATEWAY_TIMEOUT,
            ErrorCode::Internal => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }

    /// The failure as an `ERR` pkt-line, for a response whose status is sent already.
    pub fn err_pkt(&self) -> Bytes {
        let mut line = Vec::new();
        pkt::write_error(&mut line, &self.message).expect("invariant: a Vec takes every write");
        line.into()
    }
}

impl IntoResponse for ServiceError {
    fn into_response(self) -> Response {
        let mut response = (
            self.status(),
            [(header::CONTENT_TYPE, "text/plain; charset=utf-8")],
            format!("{}\n", self.message),
        )
            .into_response();
        let headers = response.headers_mut();
        no_cache(headers);
        if let Some(seconds) = self.retry_after_s {
            headers.insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        if self.code == ErrorCode::Unauthenticated {
            let challenge = HeaderValue::from_static("Basic realm=\"henge\", charset=\"UTF-8\"");
            headers.insert(header::WWW_AUTHENTICATE, challenge);
        }
        response
    }
}

/// The operations behind the router. `repo` is the path in the URL, decoded, without a leading
/// slash.
pub trait GitService: Send + Sync + Clone + 'static {
    /// The advertisement, without the `# service=` line.
    fn advertise(
        &self,
        caller: Caller,
        repo: &str,
        service: Service,
        protocol: Protocol,
    ) -> impl Future<Output = Result<Bytes, ServiceError>> + Send;

    /// Whether the caller may fetch from a repository, as far as it is known at once. Called before
    /// the body of the request is read: a body is received only from admitted callers.
    fn may_fetch(
        &self,
        _caller: &Caller,
        _repo: &str,
    ) -> impl Future<Output = Result<(), ServiceError>> + Send {
        std::future::ready(Ok(()))
    }

    /// Handles one upload-pack request (inflated, at most [`limits::FETCH_REQUEST_BYTES_MAX`]).
    fn upload_pack(
        &self,
        caller: Caller,
        repo: &str,
        protocol: Protocol,
        request: Bytes,
    ) -> impl Future<Output = Result<Body, ServiceError>> + Send;

    /// Handles one receive-pack request (inflated, at most [`limits::PUSH_BYTES_MAX`]).
    fn receive_pack(
        &self,
        caller: Caller,
        repo: &str,
        protocol: Protocol,
        request: Arc<Spool>,
    ) -> impl Future<Output = Result<Body, ServiceError>> + Send;

    /// A part of a bundle from the list in a `bundle-uri` response. A service has no bundles by
    /// default.
    fn bundle(
        &self,
        _caller: Caller,
        _repo: &str,
        _id: BundleId,
        _range: ByteRange,
    ) -> impl Future<Output = Result<BundleAnswer, ServiceError>> + Send {
        let message = "there is no such bundle here".to_owned();
        std::future::ready(Err(ServiceError::new(ErrorCode::NotFound, message)))
    }

    /// Whether clients may authenticate with a token.
    fn asks_for_tokens(&self) -> bool {
        true
    }

    /// The clock for the limit on log lines about refused requests.
    fn clock(&self) -> Arc<dyn Clock> {
        SystemClock::shared()
    }

    /// The pool that reads the head of a refused push: a bounded pool for blocking work of clients.
    fn blocking_work(&self) -> &Scope;

    /// An existing directory for the bodies of pushes. Files that a crash leaves there may be
    /// removed.
    fn spool_dir(&self) -> &Path;

    /// Bytes that the bodies of pushes may still take there. Blocking: it calls the file system.
    ///
    /// # Errors
    /// When the file system returns an error.
    fn spool_room(&self) -> io::Result<u64> {
        let free = rustix::fs::statvfs(self.spool_dir())?;
        let free = free.f_bavail.saturating_mul(free.f_frsize);
        Ok(free.saturating_sub(limits::SPOOL_FREE_BYTES_MIN))
    }
}

/// The routes of smart HTTP. They match every path without another route.
pub fn router<S: GitService>(service: S) -> Router {
    crate::metrics::describe();
    let shared = Shared::new(service);
    Router::new()
        .route("/{*path}", get(read::<S>).merge(post(rpc::<S>)))
        .with_state(shared)
}

#[derive(Debug)]
struct NoSuchPath;

impl IntoResponse for NoSuchPath {
    fn into_response(self) -> Response {
        let message = "there is no such page; a repository is at /OWNER/NAME.git".to_owned();
        ServiceError::new(ErrorCode::NotFound, message).into_response()
    }
}

fn protocol(headers: &HeaderMap) -> Protocol {
    headers
        .get("git-protocol")
        .and_then(|value| value.to_str().ok())
        .map_or(Protocol::V0, Protocol::parse)
}

fn no_cache(headers: &mut HeaderMap) {
    for (name, value) in [
        (
            header::CACHE_CONTROL,
            "no-cache, max-age=0, must-revalidate",
        ),
        (header::PRAGMA, "no-cache"),
        (header::EXPIRES, "Fri, 01 Jan 1980 00:00:00 GMT"),
    ] {
        headers.insert(name, HeaderValue::from_static(value));
    }
}

fn answer(content_type: &str, body: Body) -> Response {
    let mut response = Response::new(body);
    let headers = response.headers_mut();
    no_cache(headers);
    if let Ok(value) = HeaderValue::from_str(content_type) {
        headers.insert(header::CONTENT_TYPE, value);
    }
    response
}

async fn read<S: GitService>(
    State(shared): State<Shared<S>>,
    extract::Path(path): extract::Path<String>,
    Query(query): Query<std::collections::BTreeMap<String, String>>,
    request: extract::Request,
) -> Result<Response, Response> {
    let caller = caller(&request);
    if let Some((repo, id)) = bundle_path(&path) {
        let range = ByteRange::parse(request.headers(), &bundle::etag(id));
        let found = shared.service.bundle(caller, repo, id, range).await;
        let found = found.map_err(IntoResponse::into_response)?;
        return Ok(bundle::answer(id, range, found));
    }
    let protocol = protocol(request.headers());
    info_refs(&shared, &path, &query, caller, protocol).await
}

async fn info_refs<S: GitService>(
    shared: &Shared<S>,
    path: &str,
    query: &std::collections::BTreeMap<String, String>,
    caller: Caller,
    protocol: Protocol,
) -> Result<Response, Response> {
    let repo = path
        .strip_suffix("/info/refs")
        .ok_or_else(|| NoSuchPath.into_response())?;
    let Some(wanted) = query.get("service").and_then(|name| Service::parse(name)) else {
        let message = "only smart HTTP is spoken here: use git 1.6.6 or newer".to_owned();
        return Err(ServiceError::new(ErrorCode::Forbidden, message).into_response());
    };
    let is_known = shared.is_known(&caller);
    // Capabilities are a few bytes: git's first request, which has no token, needs no permit.
    let is_small = wanted == Service::UploadPack && protocol == Protocol::V2;
    let place = if is_known || is_small {
        None
    } else {
        let place = shared.listing_place(caller.peer).await;
        Some(place.map_err(IntoResponse::into_response)?)
    };
    let peer = caller.peer;
    let mut held = shared.memory.share(is_known);
    let listing = shared
        .service
        .advertise(caller, repo, wanted, protocol)
        .await
        .map_err(IntoResponse::into_response)?;
    if !is_small && let Err(error) = held.hold(listing.len()).await {
        return Err(shared.no_memory(error, peer, is_known).into_response());
    }
    drop(place);
    let mut first = Vec::new();
    if wanted == Service::ReceivePack || protocol != Protocol::V2 {
        let line = format!("# service={}\n", wanted.name());
        pkt::write(&mut first, line.as_bytes())
            .and_then(|()| pkt::write_flush(&mut first))
            .expect("invariant: a Vec takes every write");
    }
    let content_type = format!("application/x-{}-advertisement", wanted.name());
    // Two pieces: a large listing is not copied.
    let body = Body::new(Held::new([Bytes::from(first), listing], held));
    Ok(answer(&content_type, body))
}

fn caller(request: &extract::Request) -> Caller {
    let extensions = request.extensions();
    let caller = extensions.get::<Caller>().cloned().unwrap_or_default();
    Caller {
        peer: extensions.get::<Peer>().copied().or(caller.peer),
        ..caller
    }
}

async fn rpc<S: GitService>(
    State(shared): State<Shared<S>>,
    extract::Path(path): extract::Path<String>,
    request: extract::Request,
) -> Result<Response, Response> {
    let (repo, wanted) = path
        .rsplit_once('/')
        .and_then(|(repo, name)| Some((repo, Service::parse(name)?)))
        .ok_or_else(|| NoSuchPath.into_response())?;
    if let Some(refusal) = wrong_content_type(wanted, request.headers()) {
        return Err(refusal);
    }
    let caller = caller(&request);
    let protocol = protocol(request.headers());
    let encoding = spool::Encoding::parse(request.headers())
        .map_err(|error| ServiceError::from(error).into_response())?;
    let service = &shared.service;
    let body = match wanted {
        Service::UploadPack => {
            let request = fetch_request(&shared, &caller, repo, (request.into_body(), encoding));
            let request = request.await.map_err(IntoResponse::into_response)?;
            let (is_known, peer) = (shared.is_known(&caller), caller.peer);
            let mut held = shared.memory.share(is_known);
            if let Err(error) = held.hold(limits::ANSWER_BYTES_AHEAD).await {
                return Err(shared.no_memory(error, peer, is_known).into_response());
            }
            let body = service.upload_pack(caller, repo, protocol, request).await;
            body.map(|body| until_sent(body, held))
        }
        Service::ReceivePack => {
            let room = || service.spool_room();
            let directory = SpoolDir {
                path: service.spool_dir(),
                room: &room,
            };
            let max = limits::PUSH_BYTES_MAX;
            let body = request.into_body();
            match Spool::receive_push(body, encoding, max, directory).await {
                Ok(spool) => {
                    let spool = Arc::new(spool);
                    let pushed = service.receive_pack(caller, repo, protocol, Arc::clone(&spool));
                    match pushed.await {
                        Ok(body) => Ok(body),
                        Err(error) => {
                            let sent = Some((spool, Extent::Whole));
                            refused(service.blocking_work(), sent, error).await
                        }
                    }
                }
                Err(NotSpooled { error, begun }) => {
                    let begun = begun.map(|spool| (Arc::new(spool), Extent::Beginning));
                    refused(service.blocking_work(), begun, error.into()).await
                }
            }
        }
    }
    .map_err(IntoResponse::into_response)?;
    let content_type = format!("application/x-{}-result", wanted.name());
    Ok(answer(&content_type, body))
}

/// The response to a push that was not done, in a form that git shows. The head of the push is
/// usually in a file, and as long as the client made it: it is read in `work`.
async fn refused(
    work: &Scope,
    begun: Option<(Arc<Spool>, Extent)>,
    error: ServiceError,
) -> Result<Body, ServiceError> {
    let begun = begun.filter(|(_, extent)| refusal::may_be_told(&error, *extent));
    let Some((spool, extent)) = begun else {
        return Err(error);
    };
    let reason = error.clone();
    let told = work.blocking("push refusal", move || {
        let mut reader = spool.reader().ok()?;
        refusal::answer(&mut *reader, extent, &reason)
    });
    match told.await {
        Ok(Some(told)) => {
            tracing::info!(code = ?error.code, reason = error.message, "push refused");
            Ok(Body::from(told))
        }
        Ok(None) => Err(error),
        Err(died) => {
            tracing::error!(%died, "a refused push was not read");
            Err(error)
        }
    }
}

fn wrong_content_type(service: Service, headers: &HeaderMap) -> Option<Response> {
    let expected = format!("application/x-{}-request", service.name());
    let found = headers
        .get(header::CONTENT_TYPE)
        .and_then(|value| value.to_str().ok())
        .unwrap_or_default();
    if found == expected {
        return None;
    }
    let text = format!("the content type is {found:?}, it must be {expected:?}\n");
    let mut response = (StatusCode::UNSUPPORTED_MEDIA_TYPE, text).into_response();
    no_cache(response.headers_mut());
    Some(response)
}
