//! The replicated state machines of Henge: the effect of a committed command on a group's state.
//!
//! The same commands from the same state give the same reply, writes, effects and state hash on
//! every replica. This crate does not wait, read a clock, draw a number, open a file or depend on
//! Raft. Time and randomness come in the [`Header`]. Work outside the state is returned as
//! [`Effect`]s (carried out by every replica) and [`Action`]s (carried out by the leader, at least
//! once).
//!
//! - [`apply`]: the one entry point, including the deduplication of requests.
//! - [`State`]: all pairs of one group, copy-on-write, with its hash.
//! - [`View`]: the input of a machine; [`Write`]: its output.
//! - [`meta`]: the meta group: cluster, nodes, placements, the catalogue of repositories.
//! - [`shard`]: a shard: repositories, refs, manifests of packs, former tips.
//!
//! The keys and values are described in `docs/formats.md`, section "Machine state".

mod apply;
mod changes;
mod hash;
mod keys;
pub mod meta;
mod outcome;
mod requests;
pub mod shard;
mod state;
mod time;
mod version;
mod view;

pub use apply::{Header, apply};
pub use meta::{MetaView, pending_actions};
pub use outcome::{Action, Effect, Outcome};
pub use requests::{RecordedRequest, RequestRecord, request_generation, wants_tending};
pub use shard::ShardView;
pub use state::State;
pub use time::time_ms;
pub use version::{NewerRelease, check_version, version};
pub use view::{View, Write};
