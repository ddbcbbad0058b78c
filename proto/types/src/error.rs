//! The one list of error codes, mapped in one place each to gRPC, HTTP, git's side-band and exit
//! codes.

use serde::{Deserialize, Serialize};

/// What kind of failure a caller sees.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ErrorCode {
    /// The thing does not exist.
    NotFound,
    /// The thing exists already.
    AlreadyExists,
    /// The request is not valid. The message names the fault, its place and the remedy.
    Invalid,
    /// The request has no token, or the token is wrong.
    Unauthenticated,
    /// The caller may not do this.
    Forbidden,
    /// The request contradicts a change that happened meanwhile.
    Conflict,
    /// Too many requests at once: try again later.
    Throttled,
    /// Not now: no leader, no quorum, disk full, starting. Nothing was done.
    Unavailable,
    /// The deadline passed: the outcome is unknown.
    Timeout,
    /// A defect or a broken disk: the operator's log has the details.
    Internal,
}
