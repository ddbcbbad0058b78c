//! Rules for every request to the listener and every response from it, on every route.

use axum::Router;
use axum::extract::{Request, State};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse as _, Response};
use henge_git::http::Peer;
use http::header::{
    CONNECTION, CONTENT_SECURITY_POLICY, HOST, REFERRER_POLICY, X_CONTENT_TYPE_OPTIONS,
    X_FRAME_OPTIONS,
};
use http::uri::Authority;
use http::{HeaderValue, StatusCode, Version};

use super::refusals::{Refusal, Refusals};

/// The router behind these rules.
pub(super) fn guarded(router: Router, refusals: Refusals) -> Router {
    router.layer(middleware::from_fn_with_state(refusals, guard))
}

async fn guard(State(refusals): State<Refusals>, request: Request, next: Next) -> Response {
    let version = request.version();
    let mut response = match one_host(&request) {
        Ok(()) => next.run(request).await,
        Err(why) => {
            if let Some(peer) = request.extensions().get::<Peer>() {
                refusals.note(Refusal::Malformed, peer.address);
            }
            let mut refused = (StatusCode::BAD_REQUEST, format!("{why}\n")).into_response();
            if version < Version::HTTP_2 {
                let close = HeaderValue::from_static("close");
                refused.headers_mut().insert(CONNECTION, close);
            }
            refused
        }
    };
    // For browsers: no response is a page. Its type is not guessed, it is not framed, and its links
    // send no referrer.
    for (name, value) in [
        (X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (X_FRAME_OPTIONS, "DENY"),
        (
            CONTENT_SECURITY_POLICY,
            "default-src 'none'; frame-ancestors 'none'",
        ),
        (REFERRER_POLICY, "no-referrer"),
    ] {
        let value = HeaderValue::from_static(value);
        response.headers_mut().insert(name, value);
    }
    response
}

/// A request names its host once and in one way (RFC 9112, section 3.2). HTTP/1.0 and HTTP/2 may
/// omit this header.
fn one_host(request: &Request) -> Result<(), &'static str> {
    let mut hosts = request.headers().get_all(HOST).iter();
    let (host, another) = (hosts.next(), hosts.next());
    if another.is_some() {
        return Err("there is more than one Host header: send one");
    }
    let Some(host) = host else {
        return match request.version() {
            Version::HTTP_11 => Err("there is no Host header: send one"),
            _ => Ok(()),
        };
    };
    let host = host.to_str().ok();
    let host = host.and_then(|host| host.parse::<Authority>().ok());
    let host = host.filter(|host| !host.as_str().contains('@'));
    let host = host.ok_or("the Host header names no host")?;
    match request.uri().authority() {
        Some(named) if *named != host => Err("the Host header names another host than the URL"),
        Some(_) | None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use axum::body::Body;

    use super::*;

    fn host(version: Version, uri: &str, hosts: &[&str]) -> bool {
        let mut request = Request::builder().version(version).uri(uri);
        for host in hosts {
            request = request.header(HOST, *host);
        }
        one_host(&request.body(Body::empty()).expect("a request")).is_ok()
    }

    #[test]
    fn a_request_names_one_host() {
        for one in ["h", "h:7401", "127.0.0.1:7401", "[::1]:7401"] {
            assert!(host(Version::HTTP_11, "/", &[one]), "{one}");
        }
        for none in ["", "a b", "u@h", "a/b"] {
            assert!(!host(Version::HTTP_11, "/", &[none]), "{none:?}");
        }
        assert!(!host(Version::HTTP_11, "/", &[]));
        assert!(!host(Version::HTTP_11, "/", &["h", "h"]));
        assert!(host(Version::HTTP_10, "/", &[]));
        assert!(!host(Version::HTTP_10, "/", &["h", "g"]));
        assert!(host(Version::HTTP_2, "http://h/", &[]));
        assert!(host(Version::HTTP_2, "http://h/", &["h"]));
        assert!(!host(Version::HTTP_2, "http://h/", &["g"]));
        assert!(host(Version::HTTP_11, "http://h:1/", &["h:1"]));
        assert!(!host(Version::HTTP_11, "http://h:1/", &["h"]));
    }
}
