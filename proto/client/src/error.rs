//! The failures of a call, and the error code of each.

use std::fmt;
use std::time::Duration;

use henge_types::ErrorCode;
use thiserror::Error;

use crate::address::Address;

/// An address that could not be reached, with the reason.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attempt {
    /// The address.
    pub address: Address,
    /// The failure, in the words of the operating system.
    pub reason: String,
}

impl fmt::Display for Attempt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.address, self.reason)
    }
}

/// The failure of a call.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum ClientError {
    /// A node refused the call.
    #[error("{message}")]
    Refused {
        /// The node.
        address: Address,
        /// Its code, or the code for its status.
        code: ErrorCode,
        /// The HTTP status.
        status: u16,
        /// Its message.
        message: String,
        /// Its Retry-After, seconds.
        retry_after_s: Option<u32>,
    },
    /// No address could be connected to: nothing was sent.
    #[error("no node can be reached: {}", join(.attempts))]
    Unreachable {
        /// Every attempt.
        attempts: Vec<Attempt>,
    },
    /// The connection broke after the request was sent. A change may have been made.
    #[error("the connection to {} broke before the answer: {}", .attempt.address, .attempt.reason)]
    Broken {
        /// Where it broke.
        attempt: Attempt,
        /// Whether the request was a change, so that its outcome is unknown.
        changes: bool,
    },
    /// No answer in time. A change may have been made.
    #[error("{address} did not answer within {} ms", .waited.as_millis())]
    Timeout {
        /// The last address.
        address: Address,
        /// The time of the wait.
        waited: Duration,
    },
    /// The answer was longer than the client accepts.
    #[error("{address} sent more than {bytes_max} bytes")]
    TooLong {
        /// The node.
        address: Address,
        /// The bound.
        bytes_max: usize,
    },
    /// The answer is not valid for this release.
    #[error("{address} sent an answer that this client does not understand: {detail}")]
    Malformed {
        /// The node.
        address: Address,
        /// The fault.
        detail: String,
    },
    /// The token cannot be sent in an HTTP header.
    #[error("the token holds characters that a token never has")]
    Token,
}

impl ClientError {
    /// The product's code for this failure. `Timeout` means that the outcome is unknown.
    pub fn code(&self) -> ErrorCode {
        match self {
            Self::Refused { code, .. } => *code,
            Self::Unreachable { .. } | Self::Broken { changes: false, .. } => {
                ErrorCode::Unavailable
            }
            Self::Broken { changes: true, .. } | Self::Timeout { .. } => ErrorCode::Timeout,
            Self::TooLong { .. } | Self::Malformed { .. } => ErrorCode::Internal,
            Self::Token => ErrorCode::Invalid,
        }
    }

    /// The HTTP status, where a node answered with an error.
    pub fn status(&self) -> Option<u16> {
        match self {
            Self::Refused { status, .. } => Some(*status),
            Self::Unreachable { .. }
            | Self::Broken { .. }
            | Self::Timeout { .. }
            | Self::TooLong { .. }
            | Self::Malformed { .. }
            | Self::Token => None,
        }
    }
}

/// The code for an HTTP status, where the body has none (a proxy answered).
pub(crate) fn code_of_status(status: u16) -> ErrorCode {
    match status {
        401 => ErrorCode::Unauthenticated,
        403 => ErrorCode::Forbidden,
        404 => ErrorCode::NotFound,
        409 | 412 => ErrorCode::Conflict,
        408 | 504 => ErrorCode::Timeout,
        429 => ErrorCode::Throttled,
        502 | 503 => ErrorCode::Unavailable,
        400..=499 => ErrorCode::Invalid,
        _ => ErrorCode::Internal,
    }
}

fn join(attempts: &[Attempt]) -> String {
    let texts: Vec<String> = attempts.iter().map(Attempt::to_string).collect();
    texts.join("; ")
}
