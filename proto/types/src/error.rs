//! The one list of error codes, mapped in one place each to gRPC, HTTP, git's side-band and exit codes.

use serde::{Deserialize, Serialize};

/// What kind of failure a caller sees.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ErrorCode {
    /// There is no such thing.
    NotFound,
    /// There already is one.
    AlreadyExists,
    /// The request makes no sense: what was wrong, where, what to do is in the message.
    Invalid,
    /// Nobody said who asks, or the token is wrong.
    Unauthenticated,
    /// The caller may not do this.
    Forbidden,
    /// It contradicts what happened meanwhile.
    Conflict,
    /// Too much at once: try again later.
    Throttled,
    /// Not now: no leader, no quorum, disk full, starting. Nothing was done.
    Unavailable,
    /// The deadline passed: the outcome is unknown.
    Timeout,
    /// A defect or a broken disk: the operator's log says more.
    Internal,
}
