//! Failures over HTTP. The one place that maps error codes to statuses.

use axum::Json;
use axum::response::{IntoResponse, Response};
use henge_client::model::ErrorBody;
use henge_git::http::ServiceError;
use henge_types::ErrorCode;
use http::header::{HeaderValue, RETRY_AFTER, WWW_AUTHENTICATE};
use http::{HeaderName, StatusCode};

/// The page about errors; Gitea's clients expect a text here.
const HELP: &str = "docs/api.md#errors";
/// The Retry-After of unavailable and throttled answers without one of their own, seconds.
const RETRY_AFTER_S: u32 = 1;

/// A failed request: Gitea's shape (`message`, `url`) and our `code`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ApiError {
    status: StatusCode,
    code: ErrorCode,
    message: String,
    retry_after_s: Option<u32>,
}

const fn status_of(code: ErrorCode) -> StatusCode {
    match code {
        ErrorCode::NotFound => StatusCode::NOT_FOUND,
        ErrorCode::AlreadyExists | ErrorCode::Conflict => StatusCode::CONFLICT,
        ErrorCode::Invalid => StatusCode::UNPROCESSABLE_ENTITY,
        ErrorCode::Unauthenticated => StatusCode::UNAUTHORIZED,
        ErrorCode::Forbidden => StatusCode::FORBIDDEN,
        ErrorCode::Throttled => StatusCode::TOO_MANY_REQUESTS,
        ErrorCode::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
        ErrorCode::Timeout => StatusCode::GATEWAY_TIMEOUT,
        ErrorCode::Internal => StatusCode::INTERNAL_SERVER_ERROR,
    }
}

impl ApiError {
    /// A failure of this kind. The message is lowercase and names the remedy.
    pub fn new(code: ErrorCode, message: impl Into<String>) -> Self {
        Self {
            status: status_of(code),
            code,
            message: message.into(),
            retry_after_s: None,
        }
    }

    /// An invalid request.
    pub fn invalid(message: impl Into<String>) -> Self {
        Self::new(ErrorCode::Invalid, message)
    }

    /// A missing thing.
    pub fn not_found(message: impl Into<String>) -> Self {
        Self::new(ErrorCode::NotFound, message)
    }

    /// The same failure with a status that has no code of ours (405, 413, 415).
    #[must_use]
    pub(crate) fn with_status(mut self, status: StatusCode) -> Self {
        self.status = status;
        self
    }

    fn headers(&self) -> Vec<(HeaderName, HeaderValue)> {
        let mut headers = Vec::new();
        if self.code == ErrorCode::Unauthenticated {
            let realm = HeaderValue::from_static("Basic realm=\"henge\"");
            headers.push((WWW_AUTHENTICATE, realm));
        }
        if matches!(self.code, ErrorCode::Unavailable | ErrorCode::Throttled) {
            let seconds = self.retry_after_s.unwrap_or(RETRY_AFTER_S);
            headers.push((RETRY_AFTER, HeaderValue::from(seconds)));
        }
        headers
    }

    /// The failure as plain text, which git shows to its user.
    pub(crate) fn into_text(self) -> Response {
        let mut response = (self.status, format!("{}\n", self.message)).into_response();
        response.headers_mut().extend(self.headers());
        response
    }
}

impl From<ServiceError> for ApiError {
    fn from(error: ServiceError) -> Self {
        let mut answer = Self::new(error.code, error.message);
        answer.retry_after_s = error.retry_after_s;
        answer
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let headers = self.headers();
        let body = Json(ErrorBody {
            message: self.message,
            url: HELP.to_owned(),
            code: Some(self.code),
        });
        let mut response = (self.status, body).into_response();
        response.headers_mut().extend(headers);
        response
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_has_its_status() {
        let table = [
            (ErrorCode::NotFound, 404),
            (ErrorCode::AlreadyExists, 409),
            (ErrorCode::Invalid, 422),
            (ErrorCode::Unauthenticated, 401),
            (ErrorCode::Forbidden, 403),
            (ErrorCode::Conflict, 409),
            (ErrorCode::Throttled, 429),
            (ErrorCode::Unavailable, 503),
            (ErrorCode::Timeout, 504),
            (ErrorCode::Internal, 500),
        ];
        for (code, status) in table {
            let response = ApiError::new(code, "x").into_response();
            assert_eq!(response.status().as_u16(), status, "{code:?}");
            let may_retry = matches!(status, 429 | 503);
            assert_eq!(response.headers().contains_key(RETRY_AFTER), may_retry);
            let challenged = response.headers().contains_key(WWW_AUTHENTICATE);
            assert_eq!(challenged, status == 401);
        }
    }
}
