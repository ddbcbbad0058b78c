//! The results of the methods.

use futures::future::BoxFuture;
use henge_git::http::ServiceError;

/// The future result of a method of [`Backend`](super::Backend).
pub type Answer<'a, T> = BoxFuture<'a, Result<T, ServiceError>>;
