//! The report of a node's background work.

use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::{GroupId, NodeId};

/// The background work of one node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeTasks {
    /// The node.
    pub node: NodeId,
    /// The tasks of the groups that it leads, by name and group.
    pub leader_tasks: Vec<LeaderTaskReport>,
}

/// A task that the leader of a group runs, on the node that leads.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LeaderTaskReport {
    /// Its name.
    pub name: String,
    /// The group.
    pub group: GroupId,
    /// The Raft term in which the node leads it.
    pub term: u64,
    /// Steps begun in this term.
    pub steps: u64,
    /// Whether a step runs, or the condition of the next one.
    pub state: LeaderTaskState,
    /// Milliseconds since the state began.
    pub state_ms: u64,
}

/// Whether a step of a task runs, or the condition of the next one. A notification ends every wait
/// for the next step.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "state", rename_all = "snake_case")]
pub enum LeaderTaskState {
    /// A step runs.
    Working,
    /// A step waits for a permit that tasks of other groups have.
    Queued,
    /// The next one waits.
    Waiting {
        /// For at most so many milliseconds; without it there is no such limit.
        within_ms: Option<u64>,
        /// For an entry that the group applies.
        for_entry: bool,
    },
}

impl LeaderTaskState {
    /// The next step waits for at most `within`, and for an applied entry where `entry` has a
    /// value.
    pub fn waiting(within: Option<Duration>, entry: Option<Duration>) -> Self {
        let millis = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
        Self::Waiting {
            within_ms: within.map(millis),
            for_entry: entry.is_some(),
        }
    }
}

impl fmt::Display for LeaderTaskState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Working => f.write_str("working"),
            Self::Queued => f.write_str("queued"),
            Self::Waiting {
                within_ms: Some(ms),
                for_entry: true,
            } => write!(f, "waits for an entry, or {ms} ms"),
            Self::Waiting {
                within_ms: Some(ms),
                for_entry: false,
            } => write!(f, "waits {ms} ms"),
            Self::Waiting {
                within_ms: None,
                for_entry: true,
            } => f.write_str("waits for an entry"),
            Self::Waiting {
                within_ms: None,
                for_entry: false,
            } => f.write_str("waits for work"),
        }
    }
}
