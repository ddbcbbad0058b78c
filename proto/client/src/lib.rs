//! A client of Henge's public API over plain HTTP.
//!
//! It has several addresses of one cluster and tries them in turn. A read goes on to the next
//! address after any failure. A change goes on only when it cannot have been made: the connection
//! was refused, or a node answered that nothing was done. Every call has a deadline and every
//! answer a bound in bytes.
//!
//! - [`Client`]: the calls, a file for each feature.
//! - [`ClientError`]: the failures, with the product's error codes.
//! - [`Address`], [`Secret`]: the address of a node and the token for it.
//! - [`model`]: the JSON bodies, a file for each feature. Nodes read and write these types too.
//!
//! It deliberately has no TLS, no git and no knowledge of a node's implementation.

mod address;
mod client;
mod error;
pub mod model;
mod secret;
mod transport;

pub use address::{Address, InvalidAddress};
pub use client::{Client, Deadlines, Readiness};
pub use error::{Attempt, ClientError};
pub use secret::Secret;
