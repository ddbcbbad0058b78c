//! Naive models of the machines: no keys, no overlay, no indexes; each rule reads everything.
//!
//! - `group`: the release level and the time of a group.
//! - `shard`: repositories. Beside it `pushes`, `networks` (packs and marks) and `mirrors`.
//! - `meta`: the cluster, its nodes and their starts. Beside it `catalogue`.
//! - `views`: the views of a machine compared with its model.

mod catalogue;
mod group;
mod meta;
mod mirrors;
mod networks;
mod pushes;
mod shard;
mod views;

use henge_state::Effect;
use henge_types::{Refusal, Reply, RepoRecord};

pub(crate) use meta::MetaModel;
pub(crate) use shard::ShardModel;
pub(crate) use views::{compare_meta, compare_shard};

/// The reply to an entry, and its effects on each replica.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Answer {
    pub(crate) reply: Reply,
    pub(crate) effects: Vec<Effect>,
}

impl Answer {
    const fn reply(reply: Reply) -> Self {
        Self {
            reply,
            effects: Vec::new(),
        }
    }

    fn done(result: Result<(), Refusal>) -> Self {
        match result {
            Ok(()) => Self::reply(Reply::Done),
            Err(refusal) => Self::reply(Reply::Refused(refusal)),
        }
    }

    fn repo(result: Result<RepoRecord, Refusal>) -> Self {
        match result {
            Ok(record) => Self::reply(Reply::Repo(record)),
            Err(refusal) => Self::reply(Reply::Refused(refusal)),
        }
    }

    /// The effect of an accepted command; a refused command has none.
    fn with(result: Result<(), Refusal>, effect: Effect) -> Self {
        let effects = if result.is_ok() {
            vec![effect]
        } else {
            Vec::new()
        };
        Self {
            effects,
            ..Self::done(result)
        }
    }
}
