//! The git smart-HTTP server: a blocking core over a ref trait, with a thin layer of async IO.
//!
//! - [`refs`]: [`RefStore`], the protocol's interface to refs, and the checked push it receives.
//! - [`advertise`](mod@advertise): the first response: refs or capabilities.
//! - [`push`]: receive-pack: commands, pack into quarantine, connectivity check, commit, report.
//! - [`fetch`]: upload-pack: `ls-refs`, negotiation, shallow history, the pack.
//! - [`repack`]: merges packs: selection of packs, form of the result, selection of deltas.
//! - [`rules`]: checks of the single objects of a push: the messages of git's fsck, and their
//!   levels.
//! - [`read`]: reads trees, files, history, differences and blame of a proven commit.
//! - [`fsck`](mod@fsck): checks a whole object store; [`stats()`] counts its contents.
//! - [`bare`]: refs and repositories as plain bare repositories on disk.
//! - [`bundle`]: bundles of a repository's refs, made once and served in parts.
//! - `bitmap`, `commit_graph`: readers and writers of the git files that make counting and walking
//!   cheap.
//! - [`conversation`]: complete protocol sessions over one bidirectional stream, as with SSH and
//!   pipes.
//! - [`http`]: the axum router and streaming bodies.
//! - [`hidden`]: refs hidden from clients.
//! - [`metrics`]: names, labels and help texts of the metrics.
//! - [`pkt`], [`protocol`], [`output`]: framing, vocabulary and limits, destinations of responses.
//!
//! This crate never starts git, and does not depend on replication, accounts or configuration.

pub mod advertise;
mod ancestry;
pub mod bare;
mod bitmap;
pub mod bundle;
mod commit_graph;
pub mod conversation;
mod delta;
pub mod fetch;
pub mod fsck;
mod generations;
pub mod hidden;
mod history;
pub mod http;
pub mod metrics;
mod object;
mod oid;
pub mod output;
mod peel;
pub mod pkt;
pub mod protocol;
pub mod push;
mod reach;
pub mod read;
pub mod refs;
pub mod repack;
mod responses;
pub mod rules;
mod spooled;
mod stats;
mod store;
mod trees;

pub use advertise::{advertise, advertise_missing, advertise_peeled};
pub use bare::{BareRepository, BareRoot};
pub use bitmap::{BitmapError, BitmapSummary, write_bitmap, write_reverse_index};
pub use bundle::{Bundle, BundleId, BundleMaking, Bundles, NoBundle, Offer, OpenBundle};
pub use commit_graph::{CommitGraphError, CommitGraphSummary, write_commit_graph};
pub use conversation::{Conversation, Part};
pub use fetch::{FetchError, FetchSummary, rehearse_fetches, rehearse_tags, upload_pack};
pub use history::history_holds;
pub use output::{Output, PackPart};
pub use protocol::{
    AcceptedWants, Admission, Asker, BundleList, Deadline, FetchLimits, FetchPolicy, Protocol,
    PushLimits, Quota, Service, Stop,
};
pub use push::{
    IngestError, Nonces, OversizedObject, PushHead, PushPolicy, PushSummary, Quarantine,
    ReceiveError, Rule, keeps_history, parse_push, receive_pack, refusal_text, report, told_before,
};
pub use reach::ReachError;
pub use refs::{ClosureCheck, CommitError, QuarantinedPack, RefStore, UpdateOutcome, VerifiedPush};
pub use responses::{RepositoryResponses, Responses};
pub use rules::ObjectRules;
pub use stats::{StoreStats, stats};
pub use store::{DamagedPack, Objects, ObjectsPool, StoreError};
