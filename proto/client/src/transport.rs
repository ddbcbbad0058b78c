//! One request to one address: connect, send, read a bounded answer, all within a deadline.

use std::error::Error as _;
use std::time::Duration;

use bytes::Bytes;
use http::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, RETRY_AFTER, USER_AGENT};
use http::{HeaderValue, Method, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full, LengthLimitError, Limited};
use hyper::body::Incoming;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::client::legacy::{Client as HttpClient, Error as HttpError};
use hyper_util::rt::TokioExecutor;

use crate::address::Address;

/// A request.
#[derive(Debug, Clone)]
pub(crate) struct Call {
    pub(crate) method: Method,
    /// Path and query below the address.
    pub(crate) path: String,
    /// A JSON body.
    pub(crate) body: Option<Bytes>,
    pub(crate) answer_bytes_max: usize,
}

/// An answer.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) retry_after_s: Option<u32>,
    pub(crate) body: Bytes,
}

/// The reason why there is no answer.
#[derive(Debug)]
pub(crate) enum Failure {
    /// No connection: nothing was sent.
    Connect(String),
    /// The connection broke later: a change may have been made.
    Broken(String),
    /// The deadline passed: a change may have been made.
    Timeout,
    /// The answer exceeds the bound of the call.
    TooLong,
}

/// Connections to nodes, kept for the next call.
#[derive(Debug, Clone)]
pub(crate) struct Transport {
    http: HttpClient<HttpConnector, Full<Bytes>>,
}

impl Transport {
    pub(crate) fn new(connect_timeout: Duration) -> Self {
        let mut connector = HttpConnector::new();
        connector.set_nodelay(true);
        connector.set_connect_timeout(Some(connect_timeout));
        Self {
            http: HttpClient::builder(TokioExecutor::new()).build(connector),
        }
    }

    pub(crate) async fn send(
        &self,
        address: &Address,
        call: &Call,
        authorization: Option<&HeaderValue>,
        within: Duration,
    ) -> Result<Answer, Failure> {
        let request = request(address, call, authorization)?;
        let exchange = async {
            let response = self
                .http
                .request(request)
                .await
                .map_err(|error| failure(&error))?;
            read(response, call.answer_bytes_max).await
        };
        tokio::time::timeout(within, exchange)
            .await
            .unwrap_or(Err(Failure::Timeout))
    }
}

fn request(
    address: &Address,
    call: &Call,
    authorization: Option<&HeaderValue>,
) -> Result<Request<Full<Bytes>>, Failure> {
    let mut request = Request::builder()
        .method(call.method.clone())
        .uri(format!("{address}{}", call.path))
        .header(ACCEPT, "application/json")
        .header(
            USER_AGENT,
            concat!("henge-client/", env!("CARGO_PKG_VERSION")),
        );
    if let Some(value) = authorization {
        request = request.header(AUTHORIZATION, value.clone());
    }
    if call.body.is_some() {
        request = request.header(CONTENT_TYPE, "application/json");
    }
    request
        .body(Full::new(call.body.clone().unwrap_or_default()))
        .map_err(|error| Failure::Connect(error.to_string()))
}

async fn read(response: Response<Incoming>, bytes_max: usize) -> Result<Answer, Failure> {
    let status = response.status();
    let retry_after_s = response
        .headers()
        .get(RETRY_AFTER)
        .and_then(|value| value.to_str().ok())
        .and_then(|text| text.parse().ok());
    let body = Limited::new(response.into_body(), bytes_max)
        .collect()
        .await
        .map_err(|error| {
            if error.is::<LengthLimitError>() {
                Failure::TooLong
            } else {
                Failure::Broken(error.to_string())
            }
        })?
        .to_bytes();
    Ok(Answer {
        status,
        retry_after_s,
        body,
    })
}

fn failure(error: &HttpError) -> Failure {
    let connect = error.is_connect();
    let mut reason = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        reason = cause.to_string();
        source = cause.source();
    }
    if connect {
        Failure::Connect(reason)
    } else {
        Failure::Broken(reason)
    }
}
