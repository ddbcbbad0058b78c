//! Replicated repositories: the part of a node above the cluster, the git protocol and the object
//! store.
//!
//! Not part of it: consensus (henge-cluster), the rules of refs (henge-state), the protocol
//! (henge-git), files (henge-storage), HTTP routes and accounts (henge-api).
//!
//! - [`repos`]: the handle; [`service`]: the same for the smart-HTTP router.
//! - `catalogue`, `reconcile`: names and generations; the meta group's leader completes pending
//!   operations.
//! - `settings`: settings in the catalogue that the shard needs; `protection`: protected refs.
//! - `certificates`: signed pushes.
//! - `push`: `receive` at the node that received a push, `lead` at the leader of its shard,
//!   `commit` and `replicate` for the entry and its packs.
//! - `reads`: from this replica, or through a node that holds the repository; `refs`: refs in the
//!   state.
//! - `bundles`: bundles that clones start with and can resume.
//! - [`effects`]: effects of applied entries on a replica; `staging`: packs promised durable;
//!   `parking`: networks that lack a pack; `from_log`: packs from the replica's own log;
//!   `replaying`: packs named while the log is replayed; `fetcher` and `retries`: the background
//!   task that fetches missing packs; `damage`: packs whose files are damaged or gone; `arriving`
//!   and `lacking`: packs on their way, and packs that no replica has; `retiring` and `retire`:
//!   replaced packs; `replica`: requests of other nodes to this one; `readers`: the readers of a
//!   store.
//! - `maintain`: compaction by the leader, and requests of an operator to it; `freshen`: bitmaps
//!   and commit-graphs, by every replica.
//! - `mirrors`: repositories that follow others or are copied to others, run by the leader of their
//!   shard.
//! - `frames`: the wire format between nodes; `asking`: requests to a node; `quorum`: counting
//!   their answers; `space`: free space; `handover`: a leader that lacks packs.
//! - `repo_limits`: quotas and push rules of a repository.
//! - `error`, `access`, `metrics`: error mapping, authorization and metrics, in one place each.

mod access;
mod admission;
mod arriving;
mod asking;
mod bundles;
mod catalogue;
mod certificates;
mod damage;
pub mod effects;
mod error;
mod fetcher;
mod frames;
mod freshen;
mod from_log;
mod handover;
mod lacking;
mod maintain;
pub mod metrics;
mod mirrors;
mod parking;
mod protection;
mod push;
mod quorum;
mod readers;
mod reads;
mod reconcile;
mod ref_updates;
mod refs;
mod replaying;
mod replica;
mod repo_limits;
pub mod repos;
mod retire;
mod retiring;
mod retries;
pub mod service;
mod settings;
mod space;
mod staging;
mod sweeper;

pub use bundles::BundlesConfig;
pub use catalogue::CreateOptions;
pub use certificates::CertificatesPage;
pub use effects::PackEffects;
pub use maintain::schedule::PruneSchedule;
pub use mirrors::{MirrorAddress, MirrorEdit, MirrorsConfig};
pub use repos::{RefsPage, Repos};
pub use settings::RepoEdit;
