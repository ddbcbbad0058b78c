//! The proof of a decision.

use std::marker::PhantomData;

use henge_types::Principal;

use crate::action::Act;
use crate::decision::{Decision, Denial, decide};
use crate::resource::Resource;

/// The proof that a principal may do `A`. Only [`Authorized::check`] makes one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Authorized<A> {
    principal: Principal,
    action: PhantomData<A>,
}

impl<A: Act> Authorized<A> {
    /// The proof, if [`decide`] allows the action on this resource.
    ///
    /// # Errors
    /// The denial.
    pub fn check(principal: Principal, resource: &Resource) -> Result<Self, Denial> {
        match decide(&principal, A::ACTION, resource) {
            Decision::Allow => Ok(Self {
                principal,
                action: PhantomData,
            }),
            Decision::Deny(denial) => Err(denial),
        }
    }
}

impl<A> Authorized<A> {
    /// The principal.
    pub const fn principal(&self) -> &Principal {
        &self.principal
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::action::{DeleteRepo, ReadRepo};
    use crate::resource::Visibility;

    #[test]
    fn a_proof_is_made_of_an_allowed_action_only() {
        let public = Resource::Repository(Visibility::Public);
        let read = Authorized::<ReadRepo>::check(Principal::Anonymous, &public);
        let read = read.expect("every client reads a public repository");
        assert_eq!(read.principal(), &Principal::Anonymous);
        let deleted = Authorized::<DeleteRepo>::check(Principal::Anonymous, &public);
        assert_eq!(deleted, Err(Denial::AskForToken));
    }
}
