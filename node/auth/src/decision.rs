//! The rules.

use henge_types::{Principal, TokenScope};

use crate::action::Action;
use crate::resource::{Resource, Visibility};

/// Whether an action may be done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Decision {
    /// The action is allowed.
    Allow,
    /// The action is denied.
    Deny(Denial),
}

/// The kind of a denial.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Denial {
    /// 401: the client repeats the request with a token. The answer for a private repository is the
    /// same as for a missing one.
    AskForToken,
    /// 403: another token is needed.
    Forbidden,
}

/// Whether `principal` may do `action` to `resource`. An action that no rule allows is denied;
/// so is an action on another kind of resource than its own.
pub fn decide(principal: &Principal, action: Action, resource: &Resource) -> Decision {
    if is_allowed(principal, action, *resource) {
        return Decision::Allow;
    }
    Decision::Deny(match principal {
        Principal::Anonymous => Denial::AskForToken,
        Principal::User(_) | Principal::Token(_) | Principal::Mirror(_) | Principal::System => {
            Denial::Forbidden
        }
    })
}

fn is_allowed(principal: &Principal, action: Action, resource: Resource) -> bool {
    if !is_of(action, resource) {
        return false;
    }
    // Supervisors have no token.
    if action == Action::ReadHealth {
        return true;
    }
    match principal {
        // There is one user, the administrator: roles come with accounts.
        Principal::User(name) => name.is_admin(),
        Principal::Token(TokenScope::Metrics) => action == Action::ReadMetrics,
        Principal::Anonymous => {
            action == Action::ReadRepo && resource == Resource::Repository(Visibility::Public)
        }
        // Both act inside the cluster and send no requests.
        Principal::Mirror(_) | Principal::System => false,
    }
}

/// Whether the resource is of the kind of the action.
fn is_of(action: Action, resource: Resource) -> bool {
    match resource {
        Resource::Repository(visibility) => action.on(visibility) == resource,
        Resource::Catalogue
        | Resource::Cluster
        | Resource::Account
        | Resource::Metrics
        | Resource::Health
        | Resource::Nothing => action.on(Visibility::Absent) == resource,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const VISIBILITIES: [Visibility; 3] =
        [Visibility::Public, Visibility::Private, Visibility::Absent];

    /// Principals, with the number of allowed pairs of an action and a visibility.
    fn principals() -> [(&'static str, usize); 6] {
        let all = Action::ALL.len() * VISIBILITIES.len();
        let health = VISIBILITIES.len();
        [
            ("admin", all),
            ("eve", health),
            ("monitoring", health + VISIBILITIES.len()),
            ("mirror/07070707070707070707070707070707/1", health),
            ("henge", health),
            ("anonymous", health + 1),
        ]
    }

    fn allowed(principal: &Principal) -> Vec<(Action, Visibility)> {
        let mut allowed = Vec::new();
        for action in Action::ALL {
            for visibility in VISIBILITIES {
                if decide(principal, *action, &action.on(visibility)) == Decision::Allow {
                    allowed.push((*action, visibility));
                }
            }
        }
        allowed
    }

    #[test]
    fn each_principal_is_allowed_its_cells() {
        for (text, cells) in principals() {
            let principal: Principal = text.parse().expect("a principal");
            let allowed = allowed(&principal);
            assert_eq!(allowed.len(), cells, "{text}: {allowed:?}");
        }
        let anonymous = allowed(&Principal::Anonymous);
        assert!(anonymous.contains(&(Action::ReadRepo, Visibility::Public)));
        let metrics = allowed(&Principal::Token(TokenScope::Metrics));
        assert!(metrics.contains(&(Action::ReadMetrics, Visibility::Absent)));
    }

    #[test]
    fn only_a_request_without_a_token_is_asked_for_one() {
        for (text, _) in principals() {
            let principal: Principal = text.parse().expect("a principal");
            for action in Action::ALL {
                let decision = decide(&principal, *action, &action.on(Visibility::Private));
                if let Decision::Deny(denial) = decision {
                    let asked = denial == Denial::AskForToken;
                    assert_eq!(asked, principal.is_anonymous(), "{text}: {action:?}");
                }
            }
        }
    }

    #[test]
    fn an_action_on_another_kind_of_resource_is_denied() {
        for action in Action::ALL {
            for other in Action::ALL {
                let resource = other.on(Visibility::Public);
                let decision = decide(&Principal::admin(), *action, &resource);
                let same = action.on(Visibility::Public) == resource;
                assert_eq!(
                    decision == Decision::Allow,
                    same,
                    "{action:?}, {resource:?}"
                );
            }
        }
    }
}
