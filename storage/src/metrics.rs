//! The metrics of this crate.

use std::time::Duration;

use henge_types::GroupId;
use metrics::{counter, describe_counter, describe_gauge, describe_histogram, gauge, histogram};

const WAL_FSYNC: &str = "henge_storage_wal_fsync_seconds";
const WAL_BATCH: &str = "henge_storage_wal_batch_bytes";
const WAL_BYTES: &str = "henge_storage_wal_bytes";
const WAL_QUEUE: &str = "henge_storage_wal_queue_operations";
const WAL_PINNED: &str = "henge_storage_wal_pinned_bytes";
const WAL_SPARES_REFUSED: &str = "henge_storage_wal_spares_refused_total";

/// Registers names, units and help texts with the process's recorder.
pub fn describe() {
    describe_histogram!(
        WAL_FSYNC,
        metrics::Unit::Seconds,
        "Time of one fdatasync of the write-ahead log"
    );
    describe_histogram!(
        WAL_BATCH,
        metrics::Unit::Bytes,
        "Bytes that one fdatasync of the write-ahead log made durable"
    );
    describe_gauge!(
        WAL_BYTES,
        metrics::Unit::Bytes,
        "Bytes of all segments of the write-ahead log, in use and spare"
    );
    describe_gauge!(
        WAL_QUEUE,
        metrics::Unit::Count,
        "Changes that wait for the write-ahead log's writer"
    );
    describe_gauge!(
        WAL_PINNED,
        metrics::Unit::Bytes,
        "Log bytes that a group keeps from being freed"
    );
    describe_counter!(
        WAL_SPARES_REFUSED,
        metrics::Unit::Count,
        "Tries to make or remove a spare segment of the write-ahead log that the disk refused"
    );
}

pub(crate) fn wal_batch(sync: Duration, bytes: usize) {
    histogram!(WAL_FSYNC).record(sync.as_secs_f64());
    histogram!(WAL_BATCH).record(u32::try_from(bytes).unwrap_or(u32::MAX));
}

pub(crate) fn wal_queue_depth(operations: usize) {
    gauge!(WAL_QUEUE).set(u32::try_from(operations).unwrap_or(u32::MAX));
}

pub(crate) fn wal_bytes(bytes: u64) {
    gauge!(WAL_BYTES).set(to_f64(bytes));
}

pub(crate) fn wal_spare_refused() {
    counter!(WAL_SPARES_REFUSED).increment(1);
}

pub(crate) fn wal_pinned(group: GroupId, bytes: u64) {
    gauge!(WAL_PINNED, "group" => group.to_string()).set(to_f64(bytes));
}

/// Exact up to 2^53, approximate above.
#[expect(clippy::cast_precision_loss, reason = "a gauge has no other type")]
const fn to_f64(number: u64) -> f64 {
    number as f64
}
