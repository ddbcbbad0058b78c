//! Who may do what: one rule, until accounts exist.

use henge_git::http::ServiceError;
use henge_types::{ErrorCode, RepoPath};

use crate::error::{failed, log_in_first};

/// The one user there is.
const ADMIN: &str = "admin";

/// The principal's name, if it may work with repositories: `admin` may everything, nobody else anything.
///
/// # Errors
/// `Unauthenticated` without a name, `Forbidden` for another one.
pub(crate) fn allow(principal: Option<&str>) -> Result<&str, ServiceError> {
    match principal {
        Some(ADMIN) => Ok(ADMIN),
        Some(other) => Err(failed(
            ErrorCode::Forbidden,
            format!("user {other} may not do this: only {ADMIN} may"),
        )),
        None => Err(log_in_first()),
    }
}

/// Whether a push of this principal to a missing repository creates it.
pub(crate) fn creates(principal: &str, path: &RepoPath) -> bool {
    path.owner.as_str().eq_ignore_ascii_case(principal)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_admin_may() {
        assert!(allow(Some("admin")).is_ok());
        assert_eq!(allow(Some("eve")).unwrap_err().code, ErrorCode::Forbidden);
        assert_eq!(allow(None).unwrap_err().code, ErrorCode::Unauthenticated);
    }

    #[test]
    fn a_push_creates_below_its_own_name_only() {
        assert!(creates("admin", &"Admin/x".parse().unwrap()));
        assert!(!creates("admin", &"other/x".parse().unwrap()));
    }
}
