//! Names, labels and help texts of this crate's metrics. Repository and user names are never
//! labels.

use ::metrics::{counter, describe_counter, describe_gauge, describe_histogram, gauge, histogram};
use henge_git::FetchSummary;
use henge_types::MirrorKind;

const PUSHES: &str = "henge_repos_pushes_total";
const PUSH_SECONDS: &str = "henge_repos_push_seconds";
const PUSH_RETRIES: &str = "henge_repos_push_retries_total";
const FETCHES: &str = "henge_repos_fetches_total";
const FETCHES_REPLAYED: &str = "henge_repos_fetches_replayed_total";
const FETCHED_BYTES: &str = "henge_repos_fetched_pack_bytes_total";
const PUSHED_BYTES: &str = "henge_repos_pushed_bytes_total";
const PARKED_PACKS: &str = "henge_repos_parked_packs";
const DAMAGED_PACKS: &str = "henge_repos_damaged_packs";
const DAMAGED_PACKS_FOUND: &str = "henge_repos_damaged_packs_found_total";
const DAMAGED_PACKS_REPAIRED: &str = "henge_repos_damaged_packs_repaired_total";
const ORPHANED_PACKS: &str = "henge_repos_orphaned_packs";
const PACKS_FETCHED: &str = "henge_repos_packs_fetched_total";
const STAGED_PACKS: &str = "henge_repos_staged_packs";
const COMPACTIONS: &str = "henge_repos_compactions_total";
const COMPACTED_BYTES: &str = "henge_repos_compacted_bytes_total";
const FRESHENED: &str = "henge_repos_bitmaps_made_total";
const FRESHENING_SECONDS: &str = "henge_repos_bitmaps_seconds";
const COMPACTION_SECONDS: &str = "henge_repos_compaction_seconds";
const PACKS_MAX: &str = "henge_repos_packs_max";
const UNCOVERED_PACKS: &str = "henge_repos_uncovered_packs";
const RETIRED_PACKS: &str = "henge_repos_retired_packs_total";
const MIRROR_RUNS: &str = "henge_repos_mirror_runs_total";
const MIRROR_SECONDS: &str = "henge_repos_mirror_seconds";
const MIRRORS_DUE: &str = "henge_repos_mirrors_due";
const PRUNES_SCHEDULED: &str = "henge_repos_prunes_scheduled_total";
const DROPPED_OBJECTS: &str = "henge_repos_dropped_objects_total";
const BUNDLES_MADE: &str = "henge_repos_bundles_made_total";
const BUNDLE_SECONDS: &str = "henge_repos_bundle_seconds";
const BUNDLES: &str = "henge_repos_bundles";
const BUNDLE_DISK_BYTES: &str = "henge_repos_bundles_disk_bytes";
const BUNDLE_OFFERS: &str = "henge_repos_bundle_offers_total";
const BUNDLE_READS: &str = "henge_repos_bundle_reads_total";
const FORWARDED: &str = "henge_repos_forwarded_total";
const FREE_BYTES: &str = "henge_repos_disk_free_bytes";
const LOW_SPACE: &str = "henge_repos_low_space";

/// Registers help texts; once per process.
pub fn describe() {
    describe_counter!(
        PUSHES,
        "Pushes that this node led, by result (ok, refused, known, failed) and path of the pack (inline, staged, none)"
    );
    describe_histogram!(
        PUSH_SECONDS,
        "Seconds from a push's last byte at the receiving node to its report"
    );
    describe_counter!(
        PUSH_RETRIES,
        "Times a push was sent to a leader again under its request id"
    );
    describe_counter!(
        FETCHES,
        "Reads of repositories that this node answered from its own replica, by verb"
    );
    describe_counter!(
        FETCHES_REPLAYED,
        "Requests of clients (ls-refs, fetch) that were answered like an equal one before"
    );
    describe_counter!(FETCHED_BYTES, "Bytes of packs made for clients");
    describe_counter!(PUSHED_BYTES, "Bytes of pushes received from clients");
    describe_gauge!(
        PARKED_PACKS,
        "Packs that a manifest names and this node lacks: their repositories are served by others"
    );
    describe_gauge!(
        DAMAGED_PACKS,
        "Packs whose files here are damaged or gone; until they are fetched again, reads of their repositories are passed on"
    );
    describe_counter!(
        DAMAGED_PACKS_FOUND,
        "Packs whose files here were found to be damaged or gone"
    );
    describe_counter!(
        DAMAGED_PACKS_REPAIRED,
        "Damaged packs that were replaced by a sound copy"
    );
    describe_gauge!(
        ORPHANED_PACKS,
        "Of the missing packs, those that no other replica has had for a minute, asked again and again: act on any"
    );
    describe_counter!(PACKS_FETCHED, "Missing packs fetched from other replicas");
    describe_gauge!(
        STAGED_PACKS,
        "Packs kept durable for a leader and not yet named by an entry"
    );
    describe_counter!(
        FORWARDED,
        "Reads passed to another node, because this one holds no replica or lacks a pack, by verb"
    );
    describe_maintenance();
    describe_bundles();
    describe_mirrors();
}

fn describe_maintenance() {
    describe_counter!(
        COMPACTIONS,
        "Compactions that this node led, by result (ok, failed)"
    );
    describe_counter!(
        COMPACTED_BYTES,
        "Bytes of packs and indexes that compaction wrote on this node as a leader"
    );
    describe_counter!(
        FRESHENED,
        "Times this replica made the bitmaps and the commit-graph of a network, by result (ok, failed)"
    );
    describe_histogram!(FRESHENING_SECONDS, "Seconds that making them took");
    describe_histogram!(
        COMPACTION_SECONDS,
        "Seconds from the choice of packs to the answer of the shard"
    );
    describe_gauge!(
        PACKS_MAX,
        "Packs of the network that has most, among those that this node leads and that grew lately"
    );
    describe_gauge!(
        UNCOVERED_PACKS,
        "Packs that compaction replaced and that hold what no other pack holds, or cannot be read: kept here, act on any"
    );
    describe_counter!(
        RETIRED_PACKS,
        "Packs removed from this node because others hold all their objects"
    );
    describe_counter!(
        PRUNES_SCHEDULED,
        "Times this node, as a leader, began to drop what no ref reaches because the schedule said so"
    );
    describe_counter!(
        DROPPED_OBJECTS,
        "Objects that no ref reached and that were left out of the packs of networks that this node leads"
    );
}

fn describe_bundles() {
    describe_counter!(
        BUNDLES_MADE,
        "Bundles that this node made, by result (ok, small, failed)"
    );
    describe_histogram!(BUNDLE_SECONDS, "Seconds that making a bundle took");
    describe_gauge!(
        FREE_BYTES,
        "Free bytes of the file system that holds the data directory"
    );
    describe_gauge!(
        LOW_SPACE,
        "Whether free space is below the watermark ([storage] low_space), 1 or 0: this node takes no large packs then"
    );
    describe_gauge!(BUNDLES, "Bundles that this node keeps");
    describe_gauge!(
        BUNDLE_DISK_BYTES,
        "Bytes of this node's disk that only bundles need: their own, and packs that were replaced since"
    );
    describe_counter!(
        BUNDLE_OFFERS,
        "Requests for the list of bundles that this node answered, by result (bundle, none)"
    );
    describe_counter!(
        BUNDLE_READS,
        "Requests for a bundle or a part of one, by result (whole, part, gone)"
    );
}

fn describe_mirrors() {
    describe_counter!(
        MIRROR_RUNS,
        "Runs of mirrors that ended on this node, by kind (pull, push) and outcome (done, failed)"
    );
    describe_histogram!(MIRROR_SECONDS, "Seconds that a run of a mirror took");
    describe_gauge!(
        MIRRORS_DUE,
        "Mirrors of the shards that this node leads that are due and not run yet"
    );
}

/// The outcome of a push at its leader.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum PushResult {
    /// At least one update was accepted.
    Ok,
    /// No update was accepted.
    Refused,
    /// The request had been answered before.
    Known,
    /// It ended without a report.
    Failed,
}

/// How the pack of a push was replicated.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum PackPath {
    /// In the log entry.
    Inline,
    /// To the replicas before the entry.
    Staged,
    /// No pack, or it was not read.
    None,
}

pub(crate) fn push_led(result: PushResult, path: PackPath) {
    let result = match result {
        PushResult::Ok => "ok",
        PushResult::Refused => "refused",
        PushResult::Known => "known",
        PushResult::Failed => "failed",
    };
    let path = match path {
        PackPath::Inline => "inline",
        PackPath::Staged => "staged",
        PackPath::None => "none",
    };
    counter!(PUSHES, "result" => result, "path" => path).increment(1);
}

pub(crate) fn push_received(bytes: u64) {
    counter!(PUSHED_BYTES).increment(bytes);
}

pub(crate) fn push_answered(seconds: f64) {
    histogram!(PUSH_SECONDS).record(seconds);
}

pub(crate) fn push_retried() {
    counter!(PUSH_RETRIES).increment(1);
}

pub(crate) fn read_served(verb: &'static str) {
    counter!(FETCHES, "verb" => verb).increment(1);
}

pub(crate) fn fetch_answered(summary: &FetchSummary) {
    counter!(FETCHES_REPLAYED).increment(summary.replayed);
    counter!(FETCHED_BYTES).increment(summary.pack_bytes);
}

pub(crate) fn read_forwarded(verb: &'static str) {
    counter!(FORWARDED, "verb" => verb).increment(1);
}

/// The outcome of making a bundle.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum BundleMade {
    /// It is offered from now on.
    Ok,
    /// Smaller than the minimum.
    Small,
    /// It could not be made.
    Failed,
}

pub(crate) fn bundle_made(made: BundleMade, seconds: f64) {
    let result = match made {
        BundleMade::Ok => "ok",
        BundleMade::Small => "small",
        BundleMade::Failed => "failed",
    };
    counter!(BUNDLES_MADE, "result" => result).increment(1);
    histogram!(BUNDLE_SECONDS).record(seconds);
}

#[expect(clippy::cast_precision_loss, reason = "a gauge is a float")]
pub(crate) fn bundles_kept(bundles: usize, disk_bytes: u64) {
    gauge!(BUNDLES).set(count(bundles));
    gauge!(BUNDLE_DISK_BYTES).set(disk_bytes as f64);
}

pub(crate) fn bundle_offered(result: &'static str) {
    counter!(BUNDLE_OFFERS, "result" => result).increment(1);
}

pub(crate) fn bundle_read(result: &'static str) {
    counter!(BUNDLE_READS, "result" => result).increment(1);
}

pub(crate) fn pack_fetched() {
    counter!(PACKS_FETCHED).increment(1);
}

pub(crate) fn parked_packs(packs: usize) {
    gauge!(PARKED_PACKS).set(count(packs));
}

pub(crate) fn damaged_packs(packs: usize) {
    gauge!(DAMAGED_PACKS).set(count(packs));
}

pub(crate) fn pack_found_damaged() {
    counter!(DAMAGED_PACKS_FOUND).increment(1);
}

pub(crate) fn pack_repaired() {
    counter!(DAMAGED_PACKS_REPAIRED).increment(1);
}

pub(crate) fn orphaned_packs(packs: usize) {
    gauge!(ORPHANED_PACKS).set(count(packs));
}

pub(crate) fn staged_packs(packs: usize) {
    gauge!(STAGED_PACKS).set(count(packs));
}

pub(crate) fn compacted(bytes: u64, seconds: f64) {
    counter!(COMPACTIONS, "result" => "ok").increment(1);
    counter!(COMPACTED_BYTES).increment(bytes);
    histogram!(COMPACTION_SECONDS).record(seconds);
}

pub(crate) fn compaction_failed() {
    counter!(COMPACTIONS, "result" => "failed").increment(1);
}

pub(crate) fn prune_scheduled() {
    counter!(PRUNES_SCHEDULED).increment(1);
}

pub(crate) fn dropped(objects: u64) {
    counter!(DROPPED_OBJECTS).increment(objects);
}

pub(crate) fn packs_max(packs: usize) {
    gauge!(PACKS_MAX).set(count(packs));
}

pub(crate) fn uncovered_packs(packs: usize) {
    gauge!(UNCOVERED_PACKS).set(count(packs));
}

pub(crate) fn pack_retired() {
    counter!(RETIRED_PACKS).increment(1);
}

pub(crate) fn freshened(seconds: f64) {
    counter!(FRESHENED, "result" => "ok").increment(1);
    histogram!(FRESHENING_SECONDS).record(seconds);
}

pub(crate) fn freshening_failed() {
    counter!(FRESHENED, "result" => "failed").increment(1);
}

/// Counts are far below 2^32; a gauge is a float.
fn count(packs: usize) -> f64 {
    f64::from(u32::try_from(packs).unwrap_or(u32::MAX))
}

pub(crate) fn mirror_ran(kind: MirrorKind, done: bool, seconds: f64) {
    let kind = match kind {
        MirrorKind::Pull => "pull",
        MirrorKind::Push => "push",
    };
    let outcome = if done { "done" } else { "failed" };
    counter!(MIRROR_RUNS, "kind" => kind, "outcome" => outcome).increment(1);
    histogram!(MIRROR_SECONDS).record(seconds);
}

pub(crate) fn mirrors_due(mirrors: usize) {
    gauge!(MIRRORS_DUE).set(count(mirrors));
}

/// Free space of the data directory's file system.
#[expect(clippy::cast_precision_loss, reason = "a gauge is a float")]
pub(crate) fn disk_space(free: u64, low: bool) {
    gauge!(FREE_BYTES).set(free as f64);
    gauge!(LOW_SPACE).set(f64::from(u8::from(low)));
}
