//! What can fail in a call, and the error code each failure stands for.

use std::fmt;
use std::time::Duration;

use henge_types::ErrorCode;
use thiserror::Error;

use crate::address::Address;

/// One address that could not be reached, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attempt {
    /// Who was asked.
    pub address: Address,
    /// What went wrong, in the words of the operating system.
    pub reason: String,
}

impl fmt::Display for Attempt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.address, self.reason)
    }
}

/// Why a call failed.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum ClientError {
    /// A node answered, and said no.
    #[error("{message}")]
    Refused {
        /// Who answered.
        address: Address,
        /// The code it gave, or the one its status stands for.
        code: ErrorCode,
        /// The HTTP status.
        status: u16,
        /// Its message.
        message: String,
        /// When it asked to be tried again, seconds.
        retry_after_s: Option<u32>,
    },
    /// No address could be connected to: nothing was sent.
    #[error("no node can be reached: {}", join(.attempts))]
    Unreachable {
        /// Every address asked.
        attempts: Vec<Attempt>,
    },
    /// The connection broke after the request was sent. A change may have been made.
    #[error("the connection to {} broke before the answer: {}", .attempt.address, .attempt.reason)]
    Broken {
        /// Where it broke.
        attempt: Attempt,
        /// Whether the request would have changed something, so that its outcome is unknown.
        changes: bool,
    },
    /// No answer in time. A change may have been made.
    #[error("{address} did not answer within {} ms", .waited.as_millis())]
    Timeout {
        /// Who was asked last.
        address: Address,
        /// For how long.
        waited: Duration,
    },
    /// The answer was longer than the client takes.
    #[error("{address} sent more than {bytes_max} bytes")]
    TooLong {
        /// Who answered.
        address: Address,
        /// The bound.
        bytes_max: usize,
    },
    /// The answer is not what this release understands.
    #[error("{address} sent an answer that this client does not understand: {detail}")]
    Malformed {
        /// Who answered.
        address: Address,
        /// What is wrong with it.
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

/// The code that an HTTP status stands for, where the body names none (a proxy answered).
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
