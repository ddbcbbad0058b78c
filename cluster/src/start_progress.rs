//! The progress of a node's start. A start after a crash replays the log, and the operator sees it
//! advance.

use std::sync::{Arc, Mutex, MutexGuard};

use henge_types::GroupId;
use tokio::sync::watch;

/// The prefix of every text while a node starts: a supervisor waits as long as the text changes.
pub const STARTING: &str = "starting";

/// The progress of the start; clones share it.
#[derive(Debug, Clone, Default)]
pub struct StartProgress(Arc<Mutex<Stage>>);

#[derive(Debug, Default)]
enum Stage {
    #[default]
    Begun,
    /// A stage without a count.
    Named(&'static str),
    /// A group is opened: the entries in its log after its snapshot are applied.
    Group {
        group: GroupId,
        /// Running groups, and the total.
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
        // A group that is opened while the node serves is not part of the start.
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

    /// The start is complete.
    pub(crate) fn done(&self) {
        *self.lock() = Stage::Done;
    }

    /// Whether the start is complete.
    pub fn is_done(&self) -> bool {
        matches!(*self.lock(), Stage::Done)
    }

    /// The progress for a person; none after the start. The text changes with every step.
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

    /// A replay of two minutes showed no progress: the supervisor gave up on a working node.
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
