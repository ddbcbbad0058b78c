//! The git smart-HTTP server: a blocking core over a ref trait, and thin async IO around it.
//!
//! - [`refs`]: [`RefStore`], what the protocol needs of refs, and what a checked push hands to it.
//! - [`advertise`](mod@advertise): the first answer: refs or capabilities.
//! - [`push`]: receive-pack: commands, pack into quarantine, closure, commit, report.
//! - [`fetch`]: upload-pack: `ls-refs`, negotiation, shallow history, the pack.
//! - [`repack`]: merges packs: which ones, into what, with which deltas.
//! - [`rules`]: what is asked of single objects that a push brings: the messages of git's fsck, and their levels.
//! - [`fsck`](mod@fsck): checks a whole object store; [`stats()`] counts what is in it.
//! - [`bare`]: refs and repositories as plain bare repositories on disk.
//! - [`bundle`]: bundles of a repository's refs, made once and given in parts.
//! - `bitmap`, `commit_graph`: git's files that make counting and walking cheap, read and written.
//! - [`conversation`]: whole conversations over one two-way stream, as SSH and pipes have them.
//! - [`http`]: the axum router and streaming bodies.
//! - [`hidden`]: refs that are kept from clients.
//! - [`metrics`]: names, labels and help of what is counted.
//! - [`pkt`], [`protocol`], [`output`]: framing, words, and where answers go.
//!
//! It never starts git, and knows nothing of replication, accounts or configuration.

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
