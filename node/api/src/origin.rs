//! The address that a client used, for the links in our answers.

use axum::extract::FromRequestParts;
use http::header::HOST;
use http::request::Parts;
use http::uri::Authority;
use std::convert::Infallible;

/// `http://HOST:PORT` of this node in the client's request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Origin(String);

impl Origin {
    /// The address of `path` (with its slash) at this node.
    pub(crate) fn url(&self, path: &str) -> String {
        format!("{}{path}", self.0)
    }

    fn of(parts: &Parts) -> Self {
        let host = parts.headers.get(HOST).and_then(|host| host.to_str().ok());
        let host = host.and_then(|host| host.parse::<Authority>().ok());
        let authority = host.or_else(|| parts.uri.authority().cloned());
        let authority = authority.map_or_else(
            || "localhost".to_owned(),
            |authority| match authority.port() {
                Some(port) => format!("{}:{port}", authority.host()),
                None => authority.host().to_owned(),
            },
        );
        // Set by a proxy in front. It only changes links in the answer to the client that sent it.
        let forwarded = parts.headers.get("x-forwarded-proto");
        let https = forwarded.is_some_and(|scheme| scheme.as_bytes() == b"https");
        let scheme = if https { "https" } else { "http" };
        Self(format!("{scheme}://{authority}"))
    }
}

impl<S: Send + Sync> FromRequestParts<S> for Origin {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Infallible> {
        Ok(Self::of(parts))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::Request;

    fn origin(headers: &[(&str, &str)], uri: &str) -> String {
        let mut request = Request::builder().uri(uri);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let (parts, ()) = request.body(()).unwrap().into_parts();
        Origin::of(&parts).url("/a")
    }

    #[test]
    fn links_lead_where_the_client_came_from() {
        assert_eq!(origin(&[("host", "n1:7401")], "/"), "http://n1:7401/a");
        assert_eq!(origin(&[], "http://n2/x"), "http://n2/a");
        assert_eq!(origin(&[], "/"), "http://localhost/a");
        let proxied = [("host", "git.example"), ("x-forwarded-proto", "https")];
        assert_eq!(origin(&proxied, "/"), "https://git.example/a");
        assert_eq!(origin(&[("host", "u:p@h:1")], "/"), "http://h:1/a");
        assert_eq!(origin(&[("host", "a/b\"c")], "/"), "http://localhost/a");
        assert_eq!(
            origin(&[("host", "[::1]:7401")], "/"),
            "http://[::1]:7401/a"
        );
    }
}
