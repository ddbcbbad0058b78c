//! Authorization: only the administrator works with repositories until accounts exist.

use henge_git::http::ServiceError;
use henge_types::{ErrorCode, Principal, RepoPath};

use crate::error::{failed, log_in_first};

/// The principal, if it is the administrator.
///
/// # Errors
/// `Unauthenticated` for an anonymous principal, `Forbidden` for any other.
pub(crate) fn allow(principal: &Principal) -> Result<&Principal, ServiceError> {
    match principal {
        Principal::User(name) if name.is_admin() => Ok(principal),
        Principal::Anonymous => Err(log_in_first()),
        Principal::User(_) | Principal::Token(_) | Principal::Mirror(_) | Principal::System => {
            Err(failed(
                ErrorCode::Forbidden,
                format!("user {principal} may not do this: only admin may"),
            ))
        }
    }
}

/// Whether a push by this principal to a missing repository creates the repository.
pub(crate) fn creates(principal: &Principal, path: &RepoPath) -> bool {
    let owner = path.owner.as_str();
    let user = principal.user();
    user.is_some_and(|user| owner.eq_ignore_ascii_case(user.as_str()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn principal(text: &str) -> Principal {
        text.parse().unwrap()
    }

    #[test]
    fn only_the_admin_may() {
        assert!(allow(&Principal::admin()).is_ok());
        for other in ["eve", "henge", "monitoring"] {
            let refused = allow(&principal(other)).unwrap_err();
            assert_eq!(refused.code, ErrorCode::Forbidden, "{other}");
        }
        let refused = allow(&Principal::Anonymous).unwrap_err();
        assert_eq!(refused.code, ErrorCode::Unauthenticated);
    }

    #[test]
    fn a_push_creates_below_its_own_name_only() {
        assert!(creates(&principal("admin"), &"Admin/x".parse().unwrap()));
        assert!(!creates(&principal("admin"), &"other/x".parse().unwrap()));
        assert!(!creates(&Principal::System, &"henge/x".parse().unwrap()));
    }
}
