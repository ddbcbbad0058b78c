//! Pushes: spooled where they arrive, led by the shard's leader, answered once.

pub(crate) mod commit;
pub(crate) mod input;
pub(crate) mod lead;
pub(crate) mod receive;
pub(crate) mod replicate;
