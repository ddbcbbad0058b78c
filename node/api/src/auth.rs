//! The gate: authentication and authorization of requests.
//!
//! The token of a request names its principal; without a token that is [`Principal::Anonymous`].
//! The route, or for git the method and path, names the action ([`Rules`]). [`decide`] decides
//! whether the principal may do it.
//!
//! Without a token only reads of public repositories are answered. The gate does not know which
//! repositories are public: it admits a read, and the repository is looked up behind it
//! (`Readable`, and the git service). The answer for a private repository is the same as for a
//! missing one: a challenge, at which git sends a token. The configuration may refuse every request
//! without a token ([`AnonymousReads`]).
//!
//! The accepted forms are `Authorization: token T`, `Authorization: Bearer T`, and HTTP Basic with
//! `T` as the password and any user name, which is git's form. Tokens in the query are not read:
//! they end up in logs.
//!
//! A token for metrics opens that page and nothing else.

use axum::extract::{FromRequestParts, Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use henge_auth::{Act, Authorized, Decision, Denial, Visibility, decide};
use henge_git::http::{Caller, PlaceBounds, Places, too_many_without_token, until_sent};
use henge_runtime::Clock;
use henge_types::{ErrorCode, Principal, limits};
use http::header::{AUTHORIZATION, CONNECTION};
use http::request::Parts;
use http::{HeaderMap, HeaderValue, Method, Version};
use std::sync::Arc;

use crate::api::Api;
use crate::error::ApiError;
use crate::metrics;
use crate::refusal_log::{RefusalLine, RefusalLog, peer_of};
use crate::routes::{Rules, may_be_anonymous};
use crate::tokens::Tokens;
use crate::wrong_tokens::{Answered, WrongTokens};

/// The requests without a token that are answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AnonymousReads {
    /// Reads of public repositories.
    Allowed,
    /// None: a public repository is readable with any token.
    Refused,
}

/// The reason why a request is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Refusal {
    Missing,
    Malformed,
    Wrong,
    /// The token is not enough.
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

/// The state of the layer.
#[derive(Clone)]
pub(crate) struct Gate {
    rules: Arc<Rules>,
    tokens: Tokens,
    anonymous_reads: AnonymousReads,
    wrong_tokens: Arc<WrongTokens>,
    /// Requests without a token: they must not delay those with one.
    anonymous: Places,
    anonymous_log: Arc<RefusalLog>,
}

impl Gate {
    pub(crate) fn new(
        rules: Rules,
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
            rules: Arc::new(rules),
            tokens,
            anonymous_reads,
            wrong_tokens: Arc::new(WrongTokens::new(Arc::clone(&clock))),
            anonymous,
            anonymous_log: Arc::new(RefusalLog::new(clock)),
        }
    }

    /// The principal of a request that is let through.
    fn admit(&self, request: &Request) -> Result<Principal, Refusal> {
        let principal = match presented(request.headers()) {
            Ok(token) => self.tokens.principal(&token).ok_or(Refusal::Wrong)?,
            Err(Refusal::Missing) => Principal::Anonymous,
            Err(refusal @ (Refusal::Malformed | Refusal::Wrong | Refusal::Narrow)) => {
                return Err(refusal);
            }
        };
        let action = self.rules.action(request);
        match decide(&principal, action, &action.on(self.visibility(request))) {
            Decision::Allow => Ok(principal),
            Decision::Deny(Denial::AskForToken) => Err(Refusal::Missing),
            Decision::Deny(Denial::Forbidden) => Err(Refusal::Narrow),
        }
    }

    /// The visibility that a repository has at best, for a request before the lookup.
    fn visibility(&self, request: &Request) -> Visibility {
        match self.anonymous_reads {
            AnonymousReads::Allowed if may_be_anonymous(request) => Visibility::Public,
            AnonymousReads::Allowed | AnonymousReads::Refused => Visibility::Private,
        }
    }
}

/// The principal of a request. Only the gate sets it: a request that did not pass the gate is
/// anonymous.
pub(crate) fn principal_of(parts: &Parts) -> Principal {
    let caller = parts.extensions.get::<Caller>();
    caller.map_or(Principal::Anonymous, |caller| caller.principal.clone())
}

/// The error of a denial.
pub(crate) fn refused(denial: Denial) -> ApiError {
    match denial {
        Denial::AskForToken => log_in_first(),
        Denial::Forbidden => ApiError::new(ErrorCode::Forbidden, "this token may not do this"),
    }
}

/// Allowed as for a private repository: the visibility was not looked up.
impl<A: Act> FromRequestParts<Api> for Authorized<A> {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _: &Api) -> Result<Self, ApiError> {
        let resource = A::ACTION.on(Visibility::Private);
        Self::check(principal_of(parts), &resource).map_err(refused)
    }
}

/// The answer to clients that may not learn whether the repository exists.
pub(crate) fn log_in_first() -> ApiError {
    let text = "log in first: send a token as the password";
    ApiError::new(ErrorCode::Unauthenticated, text)
}

/// Admits a request, with its principal in its extensions, or answers 401.
pub(crate) async fn authenticate(
    State(gate): State<Gate>,
    mut request: Request,
    next: Next,
) -> Response {
    match gate.admit(&request) {
        Ok(principal) if principal.is_anonymous() => anonymously(&gate, request, next).await,
        Ok(principal) => {
            let peer = peer_of(&request);
            request.extensions_mut().insert(Caller { principal, peer });
            next.run(request).await
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

/// Admits a request without a token, up to a bound. Above it the answer is a challenge for a token:
/// the first request of every git client has none.
async fn anonymously(gate: &Gate, mut request: Request, next: Next) -> Response {
    let peer = peer_of(&request);
    // A fetch takes a permit once its body has arrived: a slow body blocks no other request.
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
    let principal = Principal::Anonymous;
    request.extensions_mut().insert(Caller { principal, peer });
    let response = next.run(request).await;
    match place {
        Some(place) => response.map(|body| until_sent(body, place)),
        None => response,
    }
}

/// The error in JSON for the API, or as text for git.
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
