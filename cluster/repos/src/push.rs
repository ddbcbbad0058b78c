//! The life of a push: spooled where it arrives, led where its shard is led, one answer.

pub(crate) mod commit;
pub(crate) mod input;
pub(crate) mod lead;
pub(crate) mod receive;
pub(crate) mod replicate;
