//! Every default of `node.toml`, in one place.

use std::time::Duration;

use henge_types::limits;

/// `[cluster] shards`.
pub(crate) const SHARDS: u32 = limits::SHARDS_DEFAULT;
/// `[cluster] replication`, where there are enough founders; 1 otherwise.
pub(crate) const REPLICATION: u32 = 3;
/// `[cluster] heartbeat`: how often a leader speaks. Sized for machines that share their cores with
/// builds and tests; a cluster with cores of its own can be quicker.
pub(crate) const HEARTBEAT: Duration = Duration::from_millis(250);
/// `[cluster] election_min`: a follower never stands for election earlier than this after its leader spoke.
pub(crate) const ELECTION_MIN: Duration = Duration::from_millis(800);
/// `[cluster] election_max`: and never later than this.
pub(crate) const ELECTION_MAX: Duration = Duration::from_millis(1200);

/// `[storage] wal_segment`.
pub(crate) const WAL_SEGMENT_BYTES: u64 = limits::WAL_SEGMENT_BYTES;
/// `[storage] wal_max`.
pub(crate) const WAL_BYTES_MAX: u64 = limits::WAL_BYTES_MAX;
/// `[storage] low_space`.
pub(crate) const LOW_SPACE_BYTES: u64 = limits::LOW_SPACE_BYTES;
/// `[storage] low_space_percent`.
pub(crate) const LOW_SPACE_PERCENT: u64 = limits::LOW_SPACE_PERCENT;

/// `[git] bundle_uri`: only clients that are told to ask for bundles do.
pub(crate) const BUNDLE_URI: bool = true;
/// `[git] bundle_uri_min`: a clone of less is soon begun anew.
pub(crate) const BUNDLE_URI_MIN_BYTES: u64 = limits::BUNDLE_BYTES_MIN;

/// `[mirrors] allow_private_addresses`: who may set a mirror may not have this node look around in its network.
pub(crate) const MIRRORS_ALLOW_PRIVATE_ADDRESSES: bool = false;
/// `[mirrors] at_once`.
pub(crate) const MIRRORS_AT_ONCE: usize = 2;

/// `[http] anonymous_reads`: public means everybody who reaches the node.
pub(crate) const ANONYMOUS_READS: bool = true;

/// `[maintenance] prune_every`.
pub(crate) const PRUNE_EVERY: Duration = Duration::from_hours(7 * 24);
/// `[maintenance] prune_grace`: as long as git keeps what no ref reaches.
pub(crate) const PRUNE_GRACE: Duration = Duration::from_hours(14 * 24);

/// `[maintenance] settle_after`.
pub(crate) const SETTLE_AFTER: Duration = Duration::from_secs(5);

/// `[log] filter`. What sled says of its failures we say ourselves, once; it says them again at each flush, also at an ordinary
/// stop long after the disk was full.
pub(crate) const LOG_FILTER: &str = "info,openraft=error,sled=off";
