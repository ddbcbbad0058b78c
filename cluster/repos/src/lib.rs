//! The life of replicated repositories: what a node does with them above the cluster, the git protocol and
//! the object store.
//!
//! What it deliberately is not: consensus (henge-cluster), the rules of refs (henge-state), the protocol
//! (henge-git), files (henge-storage), HTTP routes and accounts (henge-api).
//!
//! - [`repos`]: the handle; [`service`]: the same as the smart-HTTP router serves it.
//! - `catalogue`, `reconcile`: names and lives; half-done ones finished by the meta group's leader.
//! - `settings`: what the catalogue says of a repository and its shard has to know; `protection`: protected refs.
//! - `certificates`: signed pushes.
//! - `push`: `receive` at the node a push came to, `lead` at the leader of its shard, `commit` and
//!   `replicate` for the entry and the packs under it.
//! - `reads`: from this replica, or through a node that holds the repository; `refs`: refs in the state.
//! - `bundles`: what clones may begin with and go on with after they broke off.
//! - [`effects`]: what every replica carries out when an entry is applied; `staging`: packs promised
//!   durable; `parking`: networks that lack a pack; `from_log`: packs from the replica's own log; `replaying`: packs
//!   named while it is replayed; `fetcher` and `retries`: the background that mends it; `damage`: packs whose files
//!   are damaged or gone; `arriving` and `lacking`: packs on their way, and those that no replica has;
//!   `retiring` and `retire`: packs that were replaced; `replica`: what
//!   other nodes ask of this one; `readers`: who reads a store.
//! - `maintain`: compaction by the leader, and what an operator asks of it; `freshen`: bitmaps and commit-graphs, by
//!   every replica.
//! - `mirrors`: repositories that follow others or are copied to others, run by the leader of their shard.
//! - `frames`: what nodes say to each other; `asking`: how a node is asked; `quorum`: counting their answers; `space`: free space;
//!   `handover`: a leader that lacks packs.
//! - `repo_limits`: what a repository may hold, and what is asked of pushes to it.
//! - `error`, `access`, `metrics`: mapped, allowed and counted in one place each.

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
