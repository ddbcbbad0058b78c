//! The machines as their shell drives them: commands in, replies, state and effects out.

mod certificates;
mod compaction;
mod edit;
mod fixtures;
mod forks;
mod golden;
mod golden_3;
mod golden_4;
mod golden_log;
mod golden_network;
mod meta;
mod mirrors;
mod model;
mod properties;
mod protection;
mod pruning;
mod push;
mod quota;
mod requests;
mod shard;
mod starts;
mod state;
mod time;
mod time_requests;
mod version;
