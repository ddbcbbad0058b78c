//! What the methods answer.

use futures::future::BoxFuture;
use henge_git::http::ServiceError;

/// A future answer of a [`Backend`](super::Backend).
pub type Answer<'a, T> = BoxFuture<'a, Result<T, ServiceError>>;
