//! A client of Henge's public API over plain HTTP.
//!
//! It knows several addresses of one cluster and asks them in turn. A call that changes nothing goes on to
//! the next address after any failure; one that changes something only when nothing can have happened: the
//! connection was refused, or a node answered that it did nothing. Every call has a deadline and every
//! answer a bound in bytes.
//!
//! - [`Client`]: the calls, a file for each feature.
//! - [`ClientError`]: what failed, with the product's error code.
//! - [`Address`], [`Secret`]: where to ask and with what.
//! - [`model`]: the JSON bodies, a file for each feature. Nodes read and write these types too.
//!
//! It deliberately has no TLS, no git and no knowledge of how a node answers.

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
