//! Every default of `node.toml`, in one place.

use std::time::Duration;

use henge_types::limits;

/// `[cluster] shards`.
pub(crate) const SHARDS: u32 = limits::SHARDS_DEFAULT;
/// `[cluster] replication`; 1 with fewer founders.
pub(crate) const REPLICATION: u32 = 3;
/// `[cluster] heartbeat`: the interval of a leader's heartbeats. Sized for machines that share
/// their cores with builds and tests; a cluster with cores of its own can use less.
pub(crate) const HEARTBEAT: Duration = Duration::from_millis(250);
/// `[cluster] election_min`: the shortest time from a leader's heartbeat to a follower's election.
pub(crate) const ELECTION_MIN: Duration = Duration::from_millis(800);
/// `[cluster] election_max`: the longest such time.
pub(crate) const ELECTION_MAX: Duration = Duration::from_millis(1200);

/// `[storage] wal_segment`.
pub(crate) const WAL_SEGMENT_BYTES: u64 = limits::WAL_SEGMENT_BYTES;
/// `[storage] wal_max`.
pub(crate) const WAL_BYTES_MAX: u64 = limits::WAL_BYTES_MAX;
/// `[storage] low_space`.
pub(crate) const LOW_SPACE_BYTES: u64 = limits::LOW_SPACE_BYTES;
/// `[storage] low_space_percent`.
pub(crate) const LOW_SPACE_PERCENT: u64 = limits::LOW_SPACE_PERCENT;

/// `[git] bundle_uri`: only clients that are configured to use bundles request them.
pub(crate) const BUNDLE_URI: bool = true;
/// `[git] bundle_uri_min`: a smaller clone is quickly started again.
pub(crate) const BUNDLE_URI_MIN_BYTES: u64 = limits::BUNDLE_BYTES_MIN;

/// `[mirrors] allow_private_addresses`: off, because the creator of a mirror could scan this node's
/// network with it.
pub(crate) const MIRRORS_ALLOW_PRIVATE_ADDRESSES: bool = false;
/// `[mirrors] at_once`.
pub(crate) const MIRRORS_AT_ONCE: usize = 2;

/// `[http] anonymous_reads`: every client that reaches the node can read a public repository.
pub(crate) const ANONYMOUS_READS: bool = true;

/// `[maintenance] prune_every`.
pub(crate) const PRUNE_EVERY: Duration = Duration::from_hours(7 * 24);
/// `[maintenance] prune_grace`: the time that git itself keeps unreachable objects.
pub(crate) const PRUNE_GRACE: Duration = Duration::from_hours(14 * 24);

/// `[maintenance] settle_after`.
pub(crate) const SETTLE_AFTER: Duration = Duration::from_secs(5);

/// `[log] filter`. sled is off: the node logs sled's failures itself, once. sled repeats them at
/// each flush, also at an ordinary stop long after the disk was full.
pub(crate) const LOG_FILTER: &str = "info,openraft=error,sled=off";
