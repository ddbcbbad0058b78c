//! Tests of the storage crate through its public interface.

#![expect(
    clippy::print_stderr,
    reason = "a test that could not check something says so loudly"
)]

mod kv;
mod objects;
mod presence;
mod snapshots;
mod wal_copies;
mod wal_cut;
mod wal_driver;
mod wal_ext4;
mod wal_faults;
mod wal_model;
mod wal_power;
mod wal_removed;
mod wal_spares;
