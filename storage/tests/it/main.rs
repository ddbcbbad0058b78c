//! Tests of the storage crate through its public interface.

mod wal_driver;
mod wal_power;
