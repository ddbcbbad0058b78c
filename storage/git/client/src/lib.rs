//! The other side of the git protocol: lists, fetches from and pushes to remote repositories, without a git binary.
//!
//! Blocking, as the server's core is: it runs on a blocking pool or a thread of its own, and uses a tokio runtime for
//! its sockets only. What is fetched or pushed lies in a temporary file in between, so memory does not grow with it.
//!
//! - [`url`]: where a repository is, and the credentials that are never shown.
//! - [`network`]: which addresses and certificates are trusted, and for how long a peer may rest.
//! - [`remote`]: a repository over smart HTTP: protocol v2, v1 and v0 for fetches, receive-pack for pushes.
//! - [`local`]: a repository on this machine, as the source of objects.
//! - [`transfer`](mod@transfer): from a source to a destination, ref by ref: import, mirrors, export.
//! - [`losses`]: what a transfer takes from its destination, and how much of it may go.
//! - [`bundle`], [`export`]: a repository as one file (gitformat-bundle(5)) or as a bare repository.
//!
//! It deliberately knows nothing of clusters, accounts or schedules, and follows no proxy settings.

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
