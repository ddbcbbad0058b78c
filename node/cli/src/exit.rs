//! Exit codes, and the one place that maps the product's error codes to them.

use henge_types::ErrorCode;

/// The result of the process. The numbers are documented and never change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    /// Done.
    Ok,
    /// Failed, for a reason without a number of its own.
    Failure,
    /// The command line is invalid.
    Usage,
    /// The thing does not exist.
    NotFound,
    /// The thing exists already, or the request contradicts a change that happened meanwhile.
    Conflict,
    /// No token, a wrong one, or one without this permission.
    Denied,
    /// No node answers, no leader or quorum, or too many requests: nothing was done.
    Unavailable,
    /// The deadline passed or the connection broke: the outcome is unknown.
    Unknown,
    /// Everything is served, but there is a problem (`henge cluster status --check`).
    Degraded,
}

/// The table of exit codes in `--help`.
pub const EXIT_CODES_HELP: &str = "Exit codes:
  0  done
  1  failed
  2  wrong usage
  3  not found
  4  exists already, or conflicts with what happened meanwhile
  5  no token, a wrong token, or not allowed
  6  unavailable: no node answers, no leader, no quorum, too busy; nothing was done
  7  no answer in time: the outcome is unknown
  8  status of a cluster: everything is served, and something is wrong";

impl Exit {
    /// The number.
    pub const fn code(self) -> u8 {
        match self {
            Self::Ok => 0,
            Self::Failure => 1,
            Self::Usage => 2,
            Self::NotFound => 3,
            Self::Conflict => 4,
            Self::Denied => 5,
            Self::Unavailable => 6,
            Self::Unknown => 7,
            Self::Degraded => 8,
        }
    }
}

impl From<ErrorCode> for Exit {
    fn from(code: ErrorCode) -> Self {
        match code {
            ErrorCode::NotFound => Self::NotFound,
            ErrorCode::AlreadyExists | ErrorCode::Conflict => Self::Conflict,
            ErrorCode::Invalid => Self::Usage,
            ErrorCode::Unauthenticated | ErrorCode::Forbidden => Self::Denied,
            ErrorCode::Throttled | ErrorCode::Unavailable => Self::Unavailable,
            ErrorCode::Timeout => Self::Unknown,
            ErrorCode::Internal => Self::Failure,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_error_code_has_its_documented_number() {
        let codes = [
            (ErrorCode::NotFound, 3),
            (ErrorCode::AlreadyExists, 4),
            (ErrorCode::Invalid, 2),
            (ErrorCode::Unauthenticated, 5),
            (ErrorCode::Forbidden, 5),
            (ErrorCode::Conflict, 4),
            (ErrorCode::Throttled, 6),
            (ErrorCode::Unavailable, 6),
            (ErrorCode::Timeout, 7),
            (ErrorCode::Internal, 1),
        ];
        for (code, number) in codes {
            assert_eq!(Exit::from(code).code(), number, "{code:?}");
        }
        assert_eq!(Exit::Ok.code(), 0);
        assert_eq!(Exit::Degraded.code(), 8);
    }
}
