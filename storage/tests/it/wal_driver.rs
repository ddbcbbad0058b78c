//! Random operations on a log, compared with a naive model of it.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use henge_runtime::SystemClock;
use henge_storage::disk::sim::SimDisk;
use henge_storage::wal::{Done, GroupLog, Purged, Record, Stepper, Wal, WalConfig, WalError};
use henge_types::GroupId;

/// Pseudo-random numbers (splitmix64).
#[derive(Debug)]
pub(crate) struct Dice(pub(crate) u64);

impl Dice {
    pub(crate) fn roll(&mut self, sides: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % sides
    }
}

/// The expected contents of a group's log.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct ModelGroup {
    pub(crate) vote: Option<Bytes>,
    pub(crate) purged: Option<Purged>,
    pub(crate) entries: BTreeMap<u64, Bytes>,
    committed: u64,
}

impl ModelGroup {
    pub(crate) fn last(&self) -> u64 {
        let purged = self.purged.as_ref().map_or(0, |purged| purged.index);
        self.entries.keys().next_back().copied().unwrap_or(purged)
    }
}

pub(crate) type Model = BTreeMap<GroupId, ModelGroup>;

/// An atomic step of the log.
#[derive(Debug, Clone)]
pub(crate) enum Step {
    Entry(u64, Bytes),
    Vote(Bytes),
    Truncate(u64),
    Purge(Purged),
    Drop,
}

pub(crate) fn apply(model: &mut Model, group: GroupId, step: &Step) {
    let state = model.entry(group).or_default();
    match step {
        Step::Entry(index, payload) => {
            state.entries.insert(*index, payload.clone());
        }
        Step::Vote(vote) => state.vote = Some(vote.clone()),
        Step::Truncate(keep) => {
            state.entries.split_off(&(keep + 1));
        }
        Step::Purge(upto) => {
            state.entries = state.entries.split_off(&(upto.index + 1));
            state.purged = Some(upto.clone());
        }
        Step::Drop => {
            model.remove(&group);
        }
    }
}

pub(crate) fn config() -> WalConfig {
    WalConfig {
        dir: PathBuf::from("/data/wal"),
        segment_bytes: 16 * 1024,
        bytes_max: 12 * 16 * 1024,
        tail_bytes_max: 64 * 1024,
    }
}

pub(crate) fn open(disk: &SimDisk) -> Result<(Wal, Stepper), WalError> {
    Wal::open_stepped(disk.shared(), SystemClock::shared(), config())
}

/// A log, its model, and the steps that are not acknowledged yet.
pub(crate) struct Driver {
    pub(crate) wal: Wal,
    pub(crate) stepper: Stepper,
    runtime: tokio::runtime::Runtime,
    /// The model after every submitted step.
    pub(crate) ahead: Model,
    /// The model after every acknowledged step.
    pub(crate) model: Model,
    /// Submitted steps that are not in `model` yet, in order.
    given: Vec<(GroupId, Step)>,
    /// Number of steps taken out of `given`.
    taken: usize,
    /// Number of acknowledged steps, of all steps ever submitted.
    acknowledged: Arc<Mutex<usize>>,
    counter: u64,
    changes_queued: u32,
}

impl Driver {
    pub(crate) fn new(disk: &SimDisk) -> Result<Self, WalError> {
        let (wal, stepper) = open(disk)?;
        let runtime = tokio::runtime::Builder::new_current_thread()
            .build()
            .expect("a runtime");
        Ok(Self {
            wal,
            stepper,
            runtime,
            ahead: Model::new(),
            model: Model::new(),
            given: Vec::new(),
            taken: 0,
            acknowledged: Arc::default(),
            counter: 0,
            changes_queued: 0,
        })
    }

    /// Submits one random change. `false` when the log is dead.
    pub(crate) fn change(&mut self, dice: &mut Dice) -> bool {
        let group = GroupId::new(u32::try_from(dice.roll(4)).expect("small"));
        self.counter += 1;
        self.changes_queued += 1;
        // The queue holds 64 KiB, and only this turn empties it.
        if self.changes_queued > 10 && !self.turn() {
            return false;
        }
        let state = self.ahead.get(&group).cloned().unwrap_or_default();
        match dice.roll(40) {
            0..24 => self.append(group, &state, dice),
            24..28 => self.vote(group),
            28..31 => {
                let floor = state
                    .purged
                    .as_ref()
                    .map_or(0, |p| p.index)
                    .max(state.committed);
                let keep = floor + dice.roll(state.last().saturating_sub(floor) + 1);
                self.truncate(group, keep)
            }
            31..36 => {
                let floor = state.purged.as_ref().map_or(0, |p| p.index);
                let beyond = if dice.roll(10) == 0 { 5 } else { 0 };
                let span = state.last().saturating_sub(floor) + beyond;
                self.purge(group, floor + dice.roll(span + 1))
            }
            36..39 => {
                let last = state.last();
                self.ahead.entry(group).or_default().committed = last;
                let committed = Bytes::from(last.to_string());
                let saved = self.wal.save_committed(group, committed);
                self.runtime.block_on(saved).is_ok()
            }
            _ => {
                let steps = vec![Step::Drop];
                let done = self.give(group, steps);
                let dropped = self.wal.drop_group(group, done);
                self.runtime.block_on(dropped).is_ok()
            }
        }
    }

    pub(crate) fn turn(&mut self) -> bool {
        self.changes_queued = 0;
        self.stepper.turn()
    }

    fn append(&mut self, group: GroupId, state: &ModelGroup, dice: &mut Dice) -> bool {
        if !self.wal.may_grow(group) {
            // The group that pins the log must be purged.
            let asked = *self.wal.pressure().borrow();
            let group = asked.unwrap_or(group);
            let last = self.ahead.get(&group).map_or(0, ModelGroup::last);
            return self.purge(group, last);
        }
        let mut records = Vec::new();
        for offset in 0..=dice.roll(6) {
            let size = usize::try_from(dice.roll(700)).expect("small");
            let mut payload = format!("{}-{offset}-", self.counter).into_bytes();
            payload.resize(payload.len().max(size), b'x');
            records.push(Record {
                index: state.last() + 1 + offset,
                payload: Bytes::from(payload),
            });
        }
        let steps = records
            .iter()
            .map(|record| Step::Entry(record.index, record.payload.clone()))
            .collect();
        let done = self.give(group, steps);
        let appended = self.wal.append(group, records, done);
        self.runtime.block_on(appended).is_ok()
    }

    fn vote(&mut self, group: GroupId) -> bool {
        let vote = Bytes::from(format!("{:020}", self.counter));
        let done = self.give(group, vec![Step::Vote(vote.clone())]);
        let saved = self.wal.save_vote(group, vote, done);
        self.runtime.block_on(saved).is_ok()
    }

    fn truncate(&mut self, group: GroupId, keep: u64) -> bool {
        let done = self.give(group, vec![Step::Truncate(keep)]);
        let truncated = self.wal.truncate_after(group, keep, done);
        self.runtime.block_on(truncated).is_ok()
    }

    pub(crate) fn purge(&mut self, group: GroupId, index: u64) -> bool {
        let upto = Purged {
            index,
            id: Bytes::from(format!("id {index}")),
        };
        let done = self.give(group, vec![Step::Purge(upto.clone())]);
        let purged = self.wal.purge(group, upto, done);
        self.runtime.block_on(purged).is_ok()
    }

    fn give(&mut self, group: GroupId, steps: Vec<Step>) -> Done {
        for step in &steps {
            apply(&mut self.ahead, group, step);
        }
        self.given
            .extend(steps.into_iter().map(|step| (group, step)));
        let upto = self.taken + self.given.len();
        let acknowledged = Arc::clone(&self.acknowledged);
        Box::new(move |result| {
            if result.is_ok() {
                let mut acknowledged = acknowledged.lock().expect("no panic before");
                *acknowledged = upto.max(*acknowledged);
            }
        })
    }

    /// Moves acknowledged steps into the model.
    pub(crate) fn take_acknowledged(&mut self) {
        let acknowledged = *self.acknowledged.lock().expect("no panic before");
        let count = acknowledged.saturating_sub(self.taken);
        self.taken += count;
        for (group, step) in self.given.drain(..count) {
            apply(&mut self.model, group, &step);
        }
    }

    /// The valid states of a log after a cut: all acknowledged steps and then a prefix of the
    /// submitted ones.
    pub(crate) fn possible(&mut self) -> Vec<Model> {
        self.take_acknowledged();
        let mut model = self.model.clone();
        let mut models = vec![model.clone()];
        for (group, step) in &self.given {
            apply(&mut model, *group, step);
            models.push(model.clone());
        }
        models
    }

    /// Continues with a log that was recovered as `model`.
    pub(crate) fn resume(self, wal: Wal, stepper: Stepper, model: Model) -> Self {
        let mut ahead = model.clone();
        for (group, state) in &mut ahead {
            let committed = wal.group(*group).committed;
            state.committed = committed_index(committed.as_ref());
        }
        Self {
            wal,
            stepper,
            ahead,
            model,
            given: Vec::new(),
            taken: 0,
            acknowledged: Arc::default(),
            changes_queued: 0,
            ..self
        }
    }
}

fn committed_index(committed: Option<&Bytes>) -> u64 {
    let text = committed.map(|bytes| String::from_utf8_lossy(bytes).into_owned());
    text.map_or(0, |text| text.parse().expect("a number"))
}

/// Reads the whole contents of a log.
pub(crate) fn contents(wal: &Wal) -> Result<Model, String> {
    let mut model = Model::new();
    for group in wal.recovered_groups() {
        let GroupLog {
            vote,
            committed,
            purged,
            first_index: _,
            last_index,
        } = wal.group(group);
        let first = purged.as_ref().map_or(0, |purged| purged.index) + 1;
        let last = last_index.unwrap_or(0);
        let mut entries = BTreeMap::new();
        while first + (entries.len() as u64) <= last {
            let from = first + entries.len() as u64;
            let records = wal
                .read(group, from..=last, 2000)
                .map_err(|error| error.to_string())?;
            if records.is_empty() {
                return Err(format!("entry {from} of group {group} is missing"));
            }
            for record in records {
                entries.insert(record.index, record.payload);
            }
        }
        let committed = committed_index(committed.as_ref());
        if committed > last {
            return Err(format!(
                "committed {committed} is behind the last entry {last}"
            ));
        }
        let state = ModelGroup {
            vote,
            purged,
            entries,
            committed: 0,
        };
        model.insert(group, state);
    }
    Ok(model)
}

/// Whether two models are equal, ignoring empty groups.
pub(crate) fn same(one: &Model, other: &Model) -> bool {
    let plain = |model: &Model| -> Model {
        model
            .iter()
            .map(|(group, state)| {
                let mut state = state.clone();
                state.committed = 0;
                (*group, state)
            })
            .filter(|(_, state)| *state != ModelGroup::default())
            .collect()
    };
    plain(one) == plain(other)
}
