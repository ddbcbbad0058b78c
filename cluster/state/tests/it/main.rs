//! The machines as their shell drives them: commands in, replies, state and effects out.

mod compaction;
mod fixtures;
mod golden;
mod golden_3;
mod meta;
mod model;
mod properties;
mod push;
mod requests;
mod shard;
mod state;
mod version;
