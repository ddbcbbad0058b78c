//! The true state of every branch: each value that its single writer attempted, in order, and the
//! outcomes.
//!
//! A branch has one writer, and the writer attempts one change after another. A read is correct
//! when it shows the last change that was acknowledged before the read began, or a later one that
//! was not refused. The outcome of an attempt without an answer is *unknown*: its value may or may
//! not appear.
//!
//! Pure: it uses neither a clock nor a process.

use std::collections::BTreeMap;
use std::fmt;

/// A branch of a repository.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct BranchName {
    /// `OWNER/NAME`.
    pub repo: String,
    /// The full name: `refs/heads/…`.
    pub name: String,
}

impl fmt::Display for BranchName {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{} {}", self.repo, self.name)
    }
}

/// The outcome of an attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// It is in progress.
    Pending,
    /// The cluster acknowledged it, or a later read showed it.
    Acknowledged,
    /// The cluster reported that it did not apply the change.
    Refused,
    /// No answer, or an unclear one.
    Unknown,
}

/// A commit; `None` where the branch does not exist.
pub type Value = Option<String>;

#[derive(Debug, Clone)]
struct Attempt {
    value: Value,
    outcome: Outcome,
}

/// The judgement on a read of one branch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Judgement {
    /// The value of this attempt, which is allowed.
    Right(usize),
    /// An older value, or none, although this later one was acknowledged before the read began.
    Lost {
        /// The last acknowledged value.
        acknowledged: Value,
    },
    /// A value that was refused.
    RefusedButThere,
    /// A value that was never attempted.
    NeverAttempted,
}

/// One branch: all its attempts. The first is its absence.
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

    /// Whether the branch may have been absent at or after `floor`.
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
            // A change names the value that it replaces, and values are unique: a change with an
            // unknown outcome cannot take effect after a later one. The exception is a creation
            // that found no branch both times.
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

/// The last acknowledged attempt of every branch when a read began.
#[derive(Debug, Clone, Default)]
pub struct Floors(BTreeMap<BranchName, usize>);

/// Number of attempts by outcome.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Counts {
    /// Acknowledged, excluding unknown ones that a read settled.
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
    /// Adds a branch that does not exist yet.
    pub fn open(&mut self, branch: &BranchName) {
        self.branches
            .entry(branch.clone())
            .or_insert_with(Branch::new);
    }

    /// Records an attempt before it is made; returns its number.
    pub fn begin(&mut self, branch: &BranchName, value: Value) -> usize {
        let entry = self.branches.entry(branch.clone());
        let known = entry.or_insert_with(Branch::new);
        known.attempts.push(Attempt {
            value,
            outcome: Outcome::Pending,
        });
        known.attempts.len() - 1
    }

    /// Records the outcome of an attempt.
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

    /// Judges a read by the branch's own writer. A correct read settles unknown outcomes, because
    /// no later read may show an older value.
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

    /// The last acknowledged attempt of every branch; taken before a read begins.
    pub fn floors(&self) -> Floors {
        let floors = self.branches.iter();
        Floors(floors.map(|(name, b)| (name.clone(), b.floor())).collect())
    }

    /// Judges a read of all branches of a repository that began when `floors` was taken. `seen`
    /// holds the branches in the read.
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

    /// Number of attempts by outcome.
    pub const fn counts(&self) -> Counts {
        self.counts
    }
}

#[cfg(test)]
mod tests;
