//! The client side of the git protocol: lists, fetches from and pushes to remote repositories,
//! without a git binary.
//!
//! Blocking, like the server's core: it runs on a blocking pool or a thread of its own, and uses a
//! tokio runtime for its sockets only. Fetched and pushed packs are stored in a temporary file, so
//! memory does not grow with them.
//!
//! - [`url`]: the address of a repository, and credentials, which are never shown.
//! - [`network`]: trusted addresses and certificates, and time-outs.
//! - [`remote`]: a repository over smart HTTP: protocol v2, v1 and v0 for fetches, receive-pack for
//!   pushes.
//! - [`local`]: a repository on this machine, as the source of objects.
//! - [`transfer`](mod@transfer): from a source to a destination, ref by ref: import, mirrors,
//!   export.
//! - [`losses`]: refs and values that a transfer removes from its destination, with limits.
//! - [`bundle`], [`export`]: a repository as one file (gitformat-bundle(5)) or as a bare
//!   repository.
//!
//! It deliberately does not depend on clusters, accounts or schedules, and ignores proxy settings.

mod address;
mod answer;
pub mod bundle;
mod error;
mod exchange;
pub mod export;
mod listing;
pub mod local;
pub mod losses;
pub mod network;
mod pack;
pub mod remote;
mod report;
mod request;
pub mod transfer;
mod trust;
pub mod url;

pub use address::AddressPolicy;
pub use error::Error;
pub use listing::{Listing, RemoteRef, UnholdableRefs, read_advertisement, read_ls_refs};
pub use local::{Directory, Local};
pub use losses::{Losses, Removals};
pub use network::{Network, Timeouts};
pub use pack::PackFile;
pub use remote::Remote;
pub use report::{PushVerdict, read_banded_report, read_report};
pub use request::push_commands;
pub use transfer::{
    Destination, Event, Prune, Selection, Source, Transfer, TransferSummary, Watch, transfer,
    transfer_listed,
};
pub use trust::{Trust, TrustError};
pub use url::{Credentials, InvalidUrl, RemoteUrl};
