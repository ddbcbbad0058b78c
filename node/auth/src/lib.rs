//! Authorization: one decision for every request.
//!
//! - [`decide`]: the rules, a function of a principal, an [`Action`] and a [`Resource`]. Without a
//!   rule the decision is a denial.
//! - [`Authorized`]: the proof that an action is allowed. A handler that takes one is not reached
//!   without a decision.
//! - [`action`]: the list of actions, and a type for each.
//!
//! It is pure: it looks nothing up. The caller looks up the repository and passes its visibility.
//! Tokens are checked before: here the principal is known.

pub mod action;
mod authorized;
mod decision;
mod resource;

pub use action::{Act, Action};
pub use authorized::Authorized;
pub use decision::{Decision, Denial, decide};
pub use resource::{Resource, Visibility};
