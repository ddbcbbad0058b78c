//! Extractors of handlers, with our errors instead of the framework's.

use axum::body::{Bytes, to_bytes};
use axum::extract::rejection::PathRejection;
use axum::extract::{FromRequest, FromRequestParts, Path, Query, RawPathParams, Request};
use henge_auth::action::ReadRepo;
use henge_auth::{Authorized, Denial, Resource, Visibility};
use henge_types::{ErrorCode, Principal, RepoPath, RepoRecord, limits};
use http::header::{CONTENT_LENGTH, CONTENT_TYPE};
use http::request::Parts;
use http::{HeaderMap, StatusCode};
use serde::de::DeserializeOwned;

use crate::api::Api;
use crate::auth;
use crate::error::ApiError;
use crate::routes::Proof;

/// A JSON body of at most [`limits::API_BODY_BYTES_MAX`].
pub(crate) struct JsonBody<T>(pub(crate) T);

pub(crate) fn is_json(headers: &HeaderMap) -> bool {
    // A browser sends forms and plain text to other sites without a preflight request: only JSON is
    // accepted.
    let value = headers
        .get(CONTENT_TYPE)
        .and_then(|value| value.to_str().ok());
    value.is_some_and(|value| {
        let kind = value.split(';').next().unwrap_or_default().trim();
        kind.eq_ignore_ascii_case("application/json")
    })
}

/// The answer to a body that is not declared as JSON.
pub(crate) fn not_json() -> ApiError {
    ApiError::invalid("send the body as Content-Type: application/json")
        .with_status(StatusCode::UNSUPPORTED_MEDIA_TYPE)
}

fn too_large(bytes_max: usize) -> ApiError {
    ApiError::invalid(format!("the body is larger than {bytes_max} bytes"))
        .with_status(StatusCode::PAYLOAD_TOO_LARGE)
}

fn announced_bytes(headers: &HeaderMap) -> Option<u64> {
    headers.get(CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}

/// A JSON body of at most `BYTES_MAX` bytes that is not parsed yet: parsing a large one takes long.
pub(crate) struct UnreadJson<const BYTES_MAX: usize>(Bytes);

impl<const BYTES_MAX: usize> UnreadJson<BYTES_MAX> {
    pub(crate) fn read<T: DeserializeOwned>(&self) -> Result<T, ApiError> {
        serde_json::from_slice(&self.0)
            .map_err(|error| ApiError::invalid(format!("the body does not fit: {error}")))
    }
}

impl<S: Send + Sync, const BYTES_MAX: usize> FromRequest<S> for UnreadJson<BYTES_MAX> {
    type Rejection = ApiError;

    async fn from_request(request: Request, _: &S) -> Result<Self, ApiError> {
        if !is_json(request.headers()) {
            return Err(not_json());
        }
        let announced = announced_bytes(request.headers()).unwrap_or(0);
        if usize::try_from(announced).map_or(true, |bytes| bytes > BYTES_MAX) {
            return Err(too_large(BYTES_MAX));
        }
        let body = to_bytes(request.into_body(), BYTES_MAX).await;
        body.map(Self).map_err(|_| too_large(BYTES_MAX))
    }
}

impl<S: Send + Sync, T: DeserializeOwned> FromRequest<S> for JsonBody<T> {
    type Rejection = ApiError;

    async fn from_request(request: Request, state: &S) -> Result<Self, ApiError> {
        let body = UnreadJson::<{ limits::API_BODY_BYTES_MAX }>::from_request(request, state);
        body.await?.read().map(Self)
    }
}

/// The query of a request.
pub(crate) struct Params<T>(pub(crate) T);

impl<S: Send + Sync, T: DeserializeOwned> FromRequestParts<S> for Params<T> {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        let query = Query::<T>::from_request_parts(parts, state).await;
        query
            .map(|Query(params)| Self(params))
            .map_err(|error| ApiError::invalid(error.body_text().to_ascii_lowercase()))
    }
}

/// The answer for a repository that does not exist, or whose name is invalid.
pub(crate) fn no_such_repo(owner: &str, name: &str) -> ApiError {
    let code = ErrorCode::NotFound;
    let path: String = format!("{owner}/{name}").chars().take(256).collect();
    ApiError::new(code, format!("there is no repository {path:?}"))
}

fn parse_repo(owner: &str, name: &str) -> Result<RepoPath, ApiError> {
    match (owner.parse(), name.parse()) {
        (Ok(owner), Ok(name)) => Ok(RepoPath { owner, name }),
        (Err(_), _) | (_, Err(_)) => Err(no_such_repo(owner, name)),
    }
}

fn bad_path(error: &PathRejection) -> ApiError {
    ApiError::not_found(error.body_text().to_ascii_lowercase())
}

/// `{owner}/{repo}` of a route that has no other parameters.
pub(crate) struct AtRepo(pub(crate) RepoPath);

impl<S: Send + Sync> FromRequestParts<S> for AtRepo {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        let path = Path::<(String, String)>::from_request_parts(parts, state).await;
        let Path((owner, name)) = path.map_err(|error| bad_path(&error))?;
        parse_repo(&owner, &name).map(Self)
    }
}

/// A repository that the client may read, and the rest of its path. Without a token it is a public
/// one, and the answers for private and missing ones are equal.
pub(crate) struct Readable {
    /// The repository, found under this path or a former one.
    pub(crate) record: RepoRecord,
    /// The part of the route behind `{owner}/{repo}`, if any.
    pub(crate) below: String,
    by: Authorized<ReadRepo>,
}

impl Proof<ReadRepo> for Readable {}

impl Readable {
    /// The kind of client.
    pub(crate) const fn reader(&self) -> Reader {
        match self.by.principal().is_anonymous() {
            true => Reader::Anybody,
            false => Reader::Known,
        }
    }
}

fn may_read(principal: &Principal, visibility: Visibility) -> Result<Authorized<ReadRepo>, Denial> {
    Authorized::check(principal.clone(), &Resource::Repository(visibility))
}

/// The kind of client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Reader {
    /// A client with a token.
    Known,
    /// A client without a token.
    Anybody,
}

impl FromRequestParts<Api> for Readable {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, api: &Api) -> Result<Self, ApiError> {
        let path = RawPathParams::from_request_parts(parts, api).await;
        let path = path.map_err(|error| ApiError::not_found(error.body_text()))?;
        let mut values = path.iter().map(|(_, value)| value);
        let (owner, name) = (values.next(), values.next());
        let path = parse_repo(owner.unwrap_or_default(), name.unwrap_or_default());
        let below = values.next().unwrap_or_default().to_owned();
        let principal = auth::principal_of(parts);
        let record = if may_read(&principal, Visibility::Private).is_ok() {
            api.backend.get(&path?).await?
        } else {
            may_read(&principal, Visibility::Public).map_err(auth::refused)?;
            let path = path.map_err(|_| auth::log_in_first())?;
            let record = api.backend.get_public(&path).await;
            record.map_err(|error| {
                if error.code == ErrorCode::Unauthenticated {
                    auth::log_in_first()
                } else {
                    error.into()
                }
            })?
        };
        let by = may_read(&principal, Visibility::of(record.private));
        Ok(Self {
            record,
            below,
            by: by.map_err(auth::refused)?,
        })
    }
}

/// `{owner}/{repo}` and the rest of the path.
pub(crate) struct BelowRepo(pub(crate) RepoPath, pub(crate) String);

impl<S: Send + Sync> FromRequestParts<S> for BelowRepo {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        let path = Path::<(String, String, String)>::from_request_parts(parts, state).await;
        let Path((owner, name, below)) = path.map_err(|error| bad_path(&error))?;
        parse_repo(&owner, &name).map(|path| Self(path, below))
    }
}
