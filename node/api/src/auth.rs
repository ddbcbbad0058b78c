//! Who asks: the administrator's token, in three forms, or nobody.
//!
//! Without a token nothing is answered but reads of public repositories: fetches, and the routes of [`OPEN`]. Those get
//! no [`Principal`] and look by themselves whether the repository is public; one that is private is answered like one
//! that is not there, with the challenge that makes git ask for a token. A node may be told to answer nothing at all
//! without one ([`AnonymousReads`]).
//!
//! `Authorization: token T`, `Authorization: Bearer T`, and HTTP Basic with `T` as the password and any
//! user name, which is what git sends. Tokens in the query are not read: they end up in logs.
//!
//! A token for metrics opens that page and nothing else.

use axum::extract::{MatchedPath, Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use henge_git::http::{
    Caller, PlaceBounds, Places, bundle_path, too_many_without_token, until_sent,
};
use henge_runtime::Clock;
use henge_types::{ErrorCode, limits};
use http::header::{AUTHORIZATION, CONNECTION};
use http::{HeaderMap, HeaderValue, Method, Version};
use std::sync::Arc;

use crate::error::ApiError;
use crate::metrics;
use crate::refusal_log::{RefusalLine, RefusalLog, peer_of};
use crate::tokens::{Opens, Tokens};
use crate::wrong_tokens::{Answered, WrongTokens};

/// The user that the token belongs to.
const ADMIN: &str = "admin";
/// The routes that are answered without a token too, if the repository is public.
const OPEN: [&str; 4] = [
    "/api/v1/repos/{owner}/{repo}",
    "/api/v1/repos/{owner}/{repo}/branches",
    "/api/v1/repos/{owner}/{repo}/branches/{*branch}",
    "/api/v1/repos/{owner}/{repo}/topics",
];
/// The user that a token for metrics belongs to.
const MONITORING: &str = "monitoring";
/// The route that such a token opens.
const METRICS: &str = "/metrics";

/// What is answered to requests without a token.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AnonymousReads {
    /// Reads of public repositories.
    Allowed,
    /// Nothing: public means everybody with a token.
    Refused,
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
    /// The token opens something else.
    Narrow,
}

impl Refusal {
    const fn label(self) -> &'static str {
        match self {
            Self::Missing => "missing",
            Self::Malformed => "malformed",
            Self::Wrong => "wrong",
            Self::Narrow => "narrow",
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
            Self::Narrow => "this token opens the page of metrics and nothing else",
        }
    }

    const fn code(self) -> ErrorCode {
        match self {
            Self::Missing | Self::Malformed | Self::Wrong => ErrorCode::Unauthenticated,
            Self::Narrow => ErrorCode::Forbidden,
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
    tokens: Tokens,
    anonymous_reads: AnonymousReads,
    wrong_tokens: Arc<WrongTokens>,
    /// Requests without a token: they must not keep those with one waiting.
    anonymous: Places,
    anonymous_log: Arc<RefusalLog>,
}

impl Gate {
    pub(crate) fn new(
        tokens: Tokens,
        anonymous_reads: AnonymousReads,
        clock: Arc<dyn Clock>,
    ) -> Self {
        let anonymous = Places::new(PlaceBounds {
            in_all: limits::ANONYMOUS_REQUESTS_AT_ONCE,
            per_address: limits::ANONYMOUS_REQUESTS_PER_ADDRESS,
            per_connection: limits::ANONYMOUS_REQUESTS_PER_CONNECTION,
        });
        Self {
            tokens,
            anonymous_reads,
            wrong_tokens: Arc::new(WrongTokens::new(Arc::clone(&clock))),
            anonymous,
            anonymous_log: Arc::new(RefusalLog::new(clock)),
        }
    }

    /// Whether the request is answered without a token, as far as can be said without looking at the repository.
    fn is_open_to(&self, request: &Request) -> bool {
        self.anonymous_reads == AnonymousReads::Allowed && is_open(request)
    }

    fn admit(&self, request: &Request) -> Result<Principal, Refusal> {
        let token = presented(request.headers())?;
        match self.tokens.opens(&token) {
            Some(Opens::Everything) => Ok(Principal(ADMIN.into())),
            Some(Opens::Metrics) if is_metrics(request) => Ok(Principal(MONITORING.into())),
            Some(Opens::Metrics) => Err(Refusal::Narrow),
            None => Err(Refusal::Wrong),
        }
    }
}

fn is_metrics(request: &Request) -> bool {
    let route = request.extensions().get::<MatchedPath>();
    route.is_some_and(|route| route.as_str() == METRICS)
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
    match gate.admit(&request) {
        Ok(principal) => {
            let caller = Caller {
                name: Some(principal.name().to_owned()),
                peer: peer_of(&request),
            };
            request.extensions_mut().insert(caller);
            request.extensions_mut().insert(principal);
            next.run(request).await
        }
        Err(Refusal::Missing) if gate.is_open_to(&request) => {
            anonymously(&gate, request, next).await
        }
        Err(refusal) => {
            metrics::auth_failed(refusal.label());
            let peer = peer_of(&request);
            let is_crowded = refusal == Refusal::Wrong
                && gate.wrong_tokens.one_more(peer).await == Answered::Crowded;
            let error = ApiError::new(refusal.code(), refusal.message());
            let response = shaped(error, &request);
            match is_crowded {
                true => as_last(response, request.version()),
                false => response,
            }
        }
    }
}

/// The answer, as the last one of its connection. HTTP/2 has no header for that.
fn as_last(mut response: Response, version: Version) -> Response {
    if version < Version::HTTP_2 {
        let close = HeaderValue::from_static("close");
        response.headers_mut().insert(CONNECTION, close);
    }
    response
}

/// Lets a request in that says nothing of who asks, if there are not too many already. Where there are, it is asked for a
/// token: the first request of everybody's git carries none.
async fn anonymously(gate: &Gate, mut request: Request, next: Next) -> Response {
    let peer = peer_of(&request);
    // A fetch takes a place once its body is there: whoever goes on sending it keeps nobody out.
    let place = if *request.method() == Method::POST {
        None
    } else {
        let Some(place) = gate.anonymous.try_enter(peer) else {
            metrics::anonymous("throttled");
            if let Some(RefusalLine { address, held_back }) = gate.anonymous_log.line(peer) {
                tracing::warn!(
                    %address,
                    held_back,
                    "a request without a token found no place and was answered 401"
                );
            }
            return shaped(too_many_without_token().into(), &request);
        };
        Some(place)
    };
    metrics::anonymous("admitted");
    request.extensions_mut().insert(Caller { name: None, peer });
    let response = next.run(request).await;
    match place {
        Some(place) => response.map(|body| until_sent(body, place)),
        None => response,
    }
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

    fn headers(values: &[&str]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append(AUTHORIZATION, HeaderValue::from_str(value).unwrap());
        }
        headers
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
