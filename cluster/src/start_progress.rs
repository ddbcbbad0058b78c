//! How far a node's start is. A start after a crash replays the log, and the operator sees that it moves.

use std::sync::{Arc, Mutex, MutexGuard};

use henge_types::GroupId;
use tokio::sync::watch;

/// What every text begins with while a node starts: a supervisor that sees it change waits on.
pub const STARTING: &str = "starting";

/// How far the start is; clones share it.
#[derive(Debug, Clone, Default)]
pub struct StartProgress(Arc<Mutex<Stage>>);

#[derive(Debug, Default)]
enum Stage {
    #[default]
    Begun,
    /// Something without a count.
    Named(&'static str),
    /// A group is opened: what its log holds behind its snapshot is applied.
    Group {
        group: GroupId,
        /// Groups that run already, and those that will.
        opened: usize,
        of: usize,
        applied: watch::Receiver<u64>,
        last: u64,
    },
    Done,
}

impl StartProgress {
    /// The start is at this stage.
    pub fn stage(&self, what: &'static str) {
        *self.lock() = Stage::Named(what);
    }

    /// A group is opened; `applied` counts up to `last`.
    pub(crate) fn group(
        &self,
        group: GroupId,
        (opened, of): (usize, usize),
        applied: watch::Receiver<u64>,
        last: u64,
    ) {
        let mut stage = self.lock();
        // Groups that are opened while the node serves are no start.
        if !matches!(*stage, Stage::Done) {
            *stage = Stage::Group {
                group,
                opened,
                of,
                applied,
                last,
            };
        }
    }

    /// The start is through.
    pub(crate) fn done(&self) {
        *self.lock() = Stage::Done;
    }

    /// Whether the start is through.
    pub fn is_done(&self) -> bool {
        matches!(*self.lock(), Stage::Done)
    }

    /// How far it is, for a person; none when it is through. The text changes whenever something was done.
    pub fn text(&self) -> Option<String> {
        match &*self.lock() {
            Stage::Done => None,
            Stage::Begun => Some(STARTING.to_owned()),
            Stage::Named(what) => Some(format!("{STARTING}: {what}")),
            Stage::Group {
                group,
                opened,
                of,
                applied,
                last,
            } => {
                let applied = *applied.borrow();
                let last = (*last).max(applied);
                Some(format!(
                    "{STARTING}: replaying group {group}, {applied} of {last} entries applied; {opened} of {of} groups are open"
                ))
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, Stage> {
        self.0
            .lock()
            .expect("invariant: noting a stage does not panic")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A replay of two minutes showed nothing: the supervisor gave up on a node that was working.
    #[test]
    fn the_text_moves_with_the_replay_and_ends() {
        let progress = StartProgress::default();
        assert_eq!(progress.text().as_deref(), Some("starting"));
        progress.stage("reading the write-ahead log");
        assert_eq!(
            progress.text().as_deref(),
            Some("starting: reading the write-ahead log")
        );
        let (applied, receiver) = watch::channel(5);
        progress.group(GroupId::new(3), (1, 9), receiver, 51_200);
        assert_eq!(
            progress.text().as_deref(),
            Some("starting: replaying group 3, 5 of 51200 entries applied; 1 of 9 groups are open")
        );
        let before = progress.text();
        applied.send_replace(261);
        assert_ne!(progress.text(), before);
        progress.done();
        assert_eq!(progress.text(), None);
        let (_, late) = watch::channel(0);
        progress.group(GroupId::new(4), (2, 9), late, 7);
        assert!(progress.is_done(), "a group opened later is no start");
    }
}
