//! Who asks: one admin token, in three forms, or nobody.
//!
//! Without a token nothing is answered but reads of public repositories: fetches, and the routes of [`OPEN`]. Those get
//! no [`Principal`] and look by themselves whether the repository is public; one that is private is answered like one
//! that is not there, with the challenge that makes git ask for a token. A node may be told to answer nothing at all
//! without one ([`AnonymousReads`]).
//!
//! `Authorization: token T`, `Authorization: Bearer T`, and HTTP Basic with `T` as the password and any
//! user name, which is what git sends. Tokens in the query are not read: they end up in logs.

use axum::extract::{MatchedPath, Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use henge_git::http::{Caller, bundle_path};
use henge_types::{ErrorCode, limits};
use http::header::AUTHORIZATION;
use http::{HeaderMap, Method};
use sha2::{Digest, Sha256};
use std::fmt;
use std::sync::Arc;
use subtle::ConstantTimeEq;
use thiserror::Error;
use tokio::sync::Semaphore;

use crate::error::ApiError;
use crate::metrics;

/// The user that the token belongs to.
const ADMIN: &str = "admin";
/// The routes that are answered without a token too, if the repository is public.
const OPEN: [&str; 4] = [
    "/api/v1/repos/{owner}/{repo}",
    "/api/v1/repos/{owner}/{repo}/branches",
    "/api/v1/repos/{owner}/{repo}/branches/{*branch}",
    "/api/v1/repos/{owner}/{repo}/topics",
];
/// A shorter token could be guessed.
const TOKEN_BYTES_MIN: usize = 16;

/// What is answered to requests without a token.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AnonymousReads {
    /// Reads of public repositories.
    Allowed,
    /// Nothing: public means everybody with a token.
    Refused,
}

/// Why a text cannot be a token.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum InvalidToken {
    /// It could be guessed.
    #[error("the token has {bytes} bytes, at least {TOKEN_BYTES_MIN} are needed")]
    TooShort {
        /// Its bytes.
        bytes: usize,
    },
    /// It cannot be sent in a header.
    #[error("the token holds a character other than visible ASCII")]
    Characters,
}

/// The admin's token: only its SHA-256 is kept, so that neither a dump nor the time a comparison takes
/// says anything of it.
#[derive(Clone)]
pub struct AdminToken {
    digest: [u8; 32],
}

impl AdminToken {
    /// The token `text`.
    ///
    /// # Errors
    /// When it is short or holds anything but visible ASCII.
    pub fn new(text: &str) -> Result<Self, InvalidToken> {
        if text.len() < TOKEN_BYTES_MIN {
            return Err(InvalidToken::TooShort { bytes: text.len() });
        }
        if !text.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(InvalidToken::Characters);
        }
        let digest = Sha256::digest(text).into();
        Ok(Self { digest })
    }

    /// Whether `presented` is the token; takes as long whatever it is.
    fn matches(&self, presented: &[u8]) -> bool {
        let digest: [u8; 32] = Sha256::digest(presented).into();
        self.digest.ct_eq(&digest).into()
    }
}

impl fmt::Debug for AdminToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("AdminToken(redacted)")
    }
}

/// Who asks, put into a request's extensions once the token was checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Principal(Arc<str>);

impl Principal {
    /// The user's name.
    pub fn name(&self) -> &str {
        &self.0
    }
}

/// Why a request is not let in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Refusal {
    Missing,
    Malformed,
    Wrong,
}

impl Refusal {
    const fn label(self) -> &'static str {
        match self {
            Self::Missing => "missing",
            Self::Malformed => "malformed",
            Self::Wrong => "wrong",
        }
    }

    const fn message(self) -> &'static str {
        match self {
            Self::Missing => {
                "no token: send it as the password, or as \"Authorization: Bearer TOKEN\""
            }
            Self::Malformed => {
                "the authorization header cannot be read: send \"Bearer TOKEN\", \"token TOKEN\" or Basic"
            }
            Self::Wrong => "the token is not valid",
        }
    }
}

/// The token of a request.
fn presented(headers: &HeaderMap) -> Result<Vec<u8>, Refusal> {
    let mut values = headers.get_all(AUTHORIZATION).iter();
    let value = values.next().ok_or(Refusal::Missing)?;
    if values.next().is_some() {
        return Err(Refusal::Malformed);
    }
    let value = value.to_str().map_err(|_| Refusal::Malformed)?;
    let (scheme, rest) = value.split_once(' ').ok_or(Refusal::Malformed)?;
    let rest = rest.trim();
    if scheme.eq_ignore_ascii_case("bearer") || scheme.eq_ignore_ascii_case("token") {
        return Ok(rest.as_bytes().to_vec());
    }
    if !scheme.eq_ignore_ascii_case("basic") {
        return Err(Refusal::Malformed);
    }
    let pair = STANDARD.decode(rest).map_err(|_| Refusal::Malformed)?;
    let colon = pair.iter().position(|byte| *byte == b':');
    let at = colon.ok_or(Refusal::Malformed)?;
    Ok(pair.into_iter().skip(at + 1).collect())
}

/// What the layer needs.
#[derive(Clone)]
pub(crate) struct Gate {
    token: AdminToken,
    principal: Principal,
    anonymous_reads: AnonymousReads,
    /// Requests without a token: they must not keep those with one waiting.
    anonymous: Arc<Semaphore>,
}

impl Gate {
    pub(crate) fn new(token: AdminToken, anonymous_reads: AnonymousReads) -> Self {
        let principal = Principal(ADMIN.into());
        let anonymous = Arc::new(Semaphore::new(limits::ANONYMOUS_REQUESTS_AT_ONCE));
        Self {
            token,
            principal,
            anonymous_reads,
            anonymous,
        }
    }

    /// Whether the request is answered without a token, as far as can be said without looking at the repository.
    fn is_open_to(&self, request: &Request) -> bool {
        self.anonymous_reads == AnonymousReads::Allowed && is_open(request)
    }

    fn admit(&self, headers: &HeaderMap) -> Result<Principal, Refusal> {
        let token = presented(headers)?;
        if self.token.matches(&token) {
            Ok(self.principal.clone())
        } else {
            Err(Refusal::Wrong)
        }
    }
}

/// Whether the request only reads what may be public: nothing else is ever answered to nobody.
fn is_open(request: &Request) -> bool {
    let (method, uri) = (request.method(), request.uri());
    if let Some(route) = request.extensions().get::<MatchedPath>() {
        return *method == Method::GET && OPEN.contains(&route.as_str());
    }
    // The git router is a fallback: no route is known yet.
    let upload_pack = |query: &str| query.split('&').any(|one| one == "service=git-upload-pack");
    if *method == Method::GET || *method == Method::HEAD {
        if bundle_path(uri.path()).is_some() {
            return true;
        }
        *method == Method::GET
            && uri.path().ends_with("/info/refs")
            && uri.query().is_some_and(upload_pack)
    } else {
        *method == Method::POST && uri.path().ends_with("/git-upload-pack")
    }
}

/// What everybody is told who may not know whether there is such a repository.
pub(crate) fn log_in_first() -> ApiError {
    let text = "log in first: send a token as the password";
    ApiError::new(ErrorCode::Unauthenticated, text)
}

/// Lets a request in, with who asks in its extensions, or answers 401.
pub(crate) async fn authenticate(
    State(gate): State<Gate>,
    mut request: Request,
    next: Next,
) -> Response {
    match gate.admit(request.headers()) {
        Ok(principal) => {
            let name = Some(principal.name().to_owned());
            request.extensions_mut().insert(Caller { name });
            request.extensions_mut().insert(principal);
            next.run(request).await
        }
        Err(Refusal::Missing) if gate.is_open_to(&request) => {
            anonymously(&gate, request, next).await
        }
        Err(refusal) => {
            metrics::auth_failed(refusal.label());
            let error = ApiError::new(ErrorCode::Unauthenticated, refusal.message());
            shaped(error, &request)
        }
    }
}

/// Lets a request in that says nothing of who asks, if there are not too many already.
async fn anonymously(gate: &Gate, mut request: Request, next: Next) -> Response {
    let Ok(_admitted) = gate.anonymous.try_acquire() else {
        metrics::anonymous("throttled");
        let text = "too many requests without a token: send one, or try again";
        return shaped(ApiError::new(ErrorCode::Throttled, text), &request);
    };
    metrics::anonymous("admitted");
    request.extensions_mut().insert(Caller { name: None });
    next.run(request).await
}

/// In the words of the API, or in text for git.
fn shaped(error: ApiError, request: &Request) -> Response {
    if request.uri().path().starts_with("/api/") {
        error.into_response()
    } else {
        error.into_text()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderValue;

    fn headers(values: &[&str]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append(AUTHORIZATION, HeaderValue::from_str(value).unwrap());
        }
        headers
    }

    #[test]
    fn a_token_is_long_and_printable_and_never_shown() {
        assert_eq!(
            AdminToken::new("short").unwrap_err(),
            InvalidToken::TooShort { bytes: 5 }
        );
        assert_eq!(
            AdminToken::new("0123456789abcdef\n").unwrap_err(),
            InvalidToken::Characters
        );
        let token = AdminToken::new("0123456789abcdef").unwrap();
        assert_eq!(format!("{token:?}"), "AdminToken(redacted)");
        assert!(token.matches(b"0123456789abcdef"));
        assert!(!token.matches(b"0123456789abcdeg"));
        assert!(!token.matches(b""));
    }

    #[test]
    fn three_forms_are_read_and_nothing_else() {
        for value in [
            "token T:1",
            "Bearer T:1",
            "bearer  T:1",
            "Basic YW55OlQ6MQ==",
        ] {
            assert_eq!(
                presented(&headers(&[value])),
                Ok(b"T:1".to_vec()),
                "{value}"
            );
        }
        assert_eq!(presented(&headers(&[])), Err(Refusal::Missing));
        for value in ["T", "Digest x", "Basic !", "Basic bm9jb2xvbg=="] {
            assert_eq!(
                presented(&headers(&[value])),
                Err(Refusal::Malformed),
                "{value}"
            );
        }
        let twice = headers(&["token T", "token T"]);
        assert_eq!(presented(&twice), Err(Refusal::Malformed));
    }
}
