//! The truth about every branch: each value that its one writer attempted, in order, and how that ended.
//!
//! A branch has one writer, and the writer attempts one change after another. So a read is right when it shows
//! the last change that was acknowledged before the read began, or a later one that was not refused. The
//! outcome of an attempt without an answer is *unknown*: its value may show up, and may never do.
//!
//! It is pure: neither a clock nor a process is below it.

use std::collections::BTreeMap;
use std::fmt;

/// A branch of a repository.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct BranchName {
    /// `OWNER/NAME`.
    pub repo: String,
    /// In full: `refs/heads/…`.
    pub name: String,
}

impl fmt::Display for BranchName {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{} {}", self.repo, self.name)
    }
}

/// How an attempt ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// It is under way.
    Pending,
    /// The cluster acknowledged it, or a later read showed it.
    Acknowledged,
    /// The cluster said that it did not do it.
    Refused,
    /// No answer that says either.
    Unknown,
}

/// A commit, or none where the branch does not exist.
pub type Value = Option<String>;

#[derive(Debug, Clone)]
struct Attempt {
    value: Value,
    outcome: Outcome,
}

/// What a read of one branch says about the promise.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Judgement {
    /// The value of this attempt, which is allowed.
    Right(usize),
    /// An older value, or none, although this later one had been acknowledged before the read began.
    Lost {
        /// What was acknowledged last.
        acknowledged: Value,
    },
    /// A value that was refused.
    RefusedButThere,
    /// A value that nothing attempted.
    NeverAttempted,
}

/// One branch: its attempts from the beginning. The first is *not there*.
#[derive(Debug, Clone)]
struct Branch {
    attempts: Vec<Attempt>,
}

impl Branch {
    fn new() -> Self {
        let absent = Attempt {
            value: None,
            outcome: Outcome::Acknowledged,
        };
        Self {
            attempts: vec![absent],
        }
    }

    fn floor(&self) -> usize {
        let acknowledged = |attempt: &Attempt| attempt.outcome == Outcome::Acknowledged;
        self.attempts.iter().rposition(acknowledged).unwrap_or(0)
    }

    fn possible_from(&self, floor: usize) -> impl Iterator<Item = (usize, &Attempt)> {
        let later = self.attempts.iter().enumerate().skip(floor);
        later.filter(|(_, attempt)| attempt.outcome != Outcome::Refused)
    }

    /// Whether the branch may have been missing at or after `floor`.
    fn maybe_absent_from(&self, floor: usize) -> bool {
        self.possible_from(floor)
            .any(|(_, attempt)| attempt.value.is_none())
    }

    fn judge(&self, floor: usize, value: &Value) -> Judgement {
        let found = self.possible_from(floor).find(|(_, a)| a.value == *value);
        if let Some((at, _)) = found {
            return Judgement::Right(at);
        }
        let earlier = self.attempts.iter().position(|a| a.value == *value);
        match earlier.and_then(|at| self.attempts.get(at).map(|attempt| (at, attempt))) {
            None => Judgement::NeverAttempted,
            // A change names the value that it replaces, and values are unique: one without an answer cannot
            // arrive after a later one, except where it found no branch both times.
            Some((at, attempt))
                if attempt.outcome == Outcome::Unknown && self.maybe_absent_from(floor) =>
            {
                Judgement::Right(at)
            }
            Some((_, attempt)) if attempt.outcome == Outcome::Refused => Judgement::RefusedButThere,
            Some(_) => Judgement::Lost {
                acknowledged: self.attempts.get(floor).and_then(|a| a.value.clone()),
            },
        }
    }
}

/// Where every branch stood when a read began.
#[derive(Debug, Clone, Default)]
pub struct Floors(BTreeMap<BranchName, usize>);

/// How many attempts ended how.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Counts {
    /// Acknowledged, the reads that settled an unknown one not counted.
    pub acknowledged: u64,
    /// Refused.
    pub refused: u64,
    /// Without an answer.
    pub unknown: u64,
}

/// Every branch of a run.
#[derive(Debug, Clone, Default)]
pub struct Book {
    branches: BTreeMap<BranchName, Branch>,
    counts: Counts,
}

impl Book {
    /// Makes a branch known, as missing.
    pub fn open(&mut self, branch: &BranchName) {
        self.branches
            .entry(branch.clone())
            .or_insert_with(Branch::new);
    }

    /// Writes down an attempt before it is made; its number.
    pub fn begin(&mut self, branch: &BranchName, value: Value) -> usize {
        let entry = self.branches.entry(branch.clone());
        let known = entry.or_insert_with(Branch::new);
        known.attempts.push(Attempt {
            value,
            outcome: Outcome::Pending,
        });
        known.attempts.len() - 1
    }

    /// Writes down how it ended.
    pub fn end(&mut self, branch: &BranchName, number: usize, outcome: Outcome) {
        let known = self.branches.get_mut(branch);
        if let Some(attempt) = known.and_then(|known| known.attempts.get_mut(number)) {
            attempt.outcome = outcome;
            match outcome {
                Outcome::Acknowledged => self.counts.acknowledged += 1,
                Outcome::Refused => self.counts.refused += 1,
                Outcome::Unknown => self.counts.unknown += 1,
                Outcome::Pending => {}
            }
        }
    }

    /// A read by the branch's own writer: judged, and when it is right it settles what was unknown, for no later
    /// read may show less.
    pub fn observe(&mut self, branch: &BranchName, value: &Value) -> Judgement {
        let known = self.branches.get_mut(branch);
        let Some(known) = known else {
            return Judgement::NeverAttempted;
        };
        let judgement = known.judge(known.floor(), value);
        if let Judgement::Right(at) = judgement
            && at >= known.floor()
            && let Some(attempt) = known.attempts.get_mut(at)
        {
            attempt.outcome = Outcome::Acknowledged;
        }
        judgement
    }

    /// Where every branch stands: taken before a read begins.
    pub fn floors(&self) -> Floors {
        let floors = self.branches.iter();
        Floors(floors.map(|(name, b)| (name.clone(), b.floor())).collect())
    }

    /// Judges a read of all branches of a repository that began when `floors` was taken. `seen` holds the
    /// branches that the read showed.
    pub fn judge(
        &self,
        floors: &Floors,
        repo: &str,
        seen: &BTreeMap<String, String>,
    ) -> Vec<(BranchName, Value, Judgement)> {
        let mut wrong = Vec::new();
        let ours = floors.0.iter().filter(|(name, _)| name.repo == repo);
        for (name, floor) in ours {
            let value = seen.get(&name.name).cloned();
            let known = self.branches.get(name);
            let judgement = known.map_or(Judgement::NeverAttempted, |k| k.judge(*floor, &value));
            if !matches!(judgement, Judgement::Right(_)) {
                wrong.push((name.clone(), value, judgement));
            }
        }
        wrong
    }

    /// The last attempts of a branch, for a report.
    pub fn tail(&self, branch: &BranchName, length: usize) -> String {
        let Some(known) = self.branches.get(branch) else {
            return String::new();
        };
        let from = known.attempts.len().saturating_sub(length);
        let shown = known.attempts.iter().enumerate().skip(from);
        let shown = shown.map(|(number, attempt)| {
            let value = attempt
                .value
                .as_deref()
                .map_or("none", |value| value.get(..10).unwrap_or(value));
            format!("#{number} {value} {:?}", attempt.outcome)
        });
        shown.collect::<Vec<_>>().join(", ")
    }

    /// How many attempts ended how.
    pub const fn counts(&self) -> Counts {
        self.counts
    }
}

#[cfg(test)]
mod tests;
