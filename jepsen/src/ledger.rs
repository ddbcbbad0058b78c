//! The findings of a run, and its line in the ledger file.

use std::collections::BTreeMap;
use std::fmt;
use std::fs::File;
use std::io::Write as _;
use std::path::Path;

use anyhow::Context as _;
use serde::Serialize;

use crate::truth::Counts;

/// A kind of finding, the worst first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Sort {
    /// Acknowledged data is missing, or a read returned an older value.
    Lost,
    /// A clone succeeded with wrong or missing content.
    Wrong,
    /// Content was served, or a process ran, that must not be.
    Accepted,
    /// A process panicked.
    Panic,
    /// The ring did not recover by itself.
    Stuck,
    /// A ready node of a healthy ring does not serve a repository.
    Unserved,
    /// A majority did not accept pushes.
    Unavailable,
    /// The status, or readiness, contradicted the facts.
    Status,
    /// A process ended for another reason, or with other words, than allowed.
    Words,
    /// A log contains a forbidden message.
    Noise,
}

impl Sort {
    /// Whether later results would be meaningless.
    pub const fn ends_the_run(self) -> bool {
        matches!(self, Self::Lost | Self::Wrong)
    }
}

/// An observation that must not occur.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// Its kind.
    pub sort: Sort,
    /// The step; 0 outside of the steps.
    pub step: u32,
    /// Its description.
    pub text: String,
}

impl fmt::Display for Finding {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let sort = serde_json::to_string(&self.sort).unwrap_or_default();
        let sort = sort.trim_matches('"');
        write!(formatter, "{sort} (step {}): {}", self.step, self.text)
    }
}

/// How often a kind of fault was scheduled, and had an effect.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
pub struct Tally {
    /// Steps of the schedule that were reached.
    pub scheduled: u32,
    /// Faults with a proven effect.
    pub bit: u32,
    /// Faults that were not possible: not checked.
    pub not_checked: u32,
}

/// One run.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Ledger {
    /// Start time, milliseconds since the Unix epoch.
    pub began_ms: u64,
    /// Duration.
    pub seconds: u64,
    /// The binary's version, and the first bytes of its checksum where `sha256sum` is installed.
    pub binary: String,
    /// The seed.
    pub seed: u64,
    /// Faults by kind.
    pub faults: BTreeMap<String, Tally>,
    /// Acknowledged pushes.
    pub acknowledged: u64,
    /// Refused pushes.
    pub refused: u64,
    /// Pushes with an unknown outcome.
    pub unknown: u64,
    /// The findings.
    pub findings: Vec<Finding>,
}

impl Ledger {
    /// Copies the counts of the pushes.
    pub const fn count(&mut self, counts: Counts) {
        self.acknowledged = counts.acknowledged;
        self.refused = counts.refused;
        self.unknown = counts.unknown;
    }

    /// The reasons why the run is not clean: findings, or faults without an effect.
    pub fn objections(&self) -> Vec<String> {
        let mut found: Vec<String> = self.findings.iter().map(ToString::to_string).collect();
        for (kind, tally) in &self.faults {
            if tally.scheduled > 0 && tally.bit == 0 {
                let times = tally.scheduled;
                found.push(format!("{kind} was scheduled {times} times and never bit"));
            }
        }
        if self.faults.is_empty() {
            found.push("no fault was injected".to_owned());
        }
        if self.acknowledged == 0 {
            found.push("no push was acknowledged".to_owned());
        }
        found
    }

    /// Appends the run to a file, as one line of JSON.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn append(&self, path: &Path) -> anyhow::Result<()> {
        let mut line = serde_json::to_value(self)?;
        if let Some(object) = line.as_object_mut() {
            let clean = self.objections().is_empty();
            let verdict = if clean { "clean" } else { "not clean" };
            object.insert("verdict".to_owned(), verdict.into());
        }
        let file = File::options().create(true).append(true).open(path);
        let mut file = file.with_context(|| format!("cannot write {}", path.display()))?;
        writeln!(file, "{line}").context("cannot write the ledger")
    }

    /// Number of faults that had an effect.
    pub fn bit(&self) -> u32 {
        self.faults.values().map(|tally| tally.bit).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ledger(bit: u32) -> Ledger {
        let tally = Tally {
            scheduled: 3,
            bit,
            not_checked: 3 - bit,
        };
        Ledger {
            faults: BTreeMap::from([("kill".to_owned(), tally)]),
            acknowledged: 10,
            unknown: 5,
            ..Ledger::default()
        }
    }

    #[test]
    fn unknown_outcomes_are_no_objection() {
        assert_eq!(ledger(1).objections(), Vec::<String>::new());
    }

    #[test]
    fn a_fault_that_never_bit_is_an_objection() {
        assert_eq!(ledger(0).objections().len(), 1);
        assert_eq!(Ledger::default().objections().len(), 2);
    }

    #[test]
    fn a_finding_is_an_objection_and_stands_in_the_line() {
        let mut found = ledger(2);
        found.findings.push(Finding {
            sort: Sort::Lost,
            step: 7,
            text: "gone".to_owned(),
        });
        assert_eq!(found.objections(), ["lost (step 7): gone"]);
        let dir = tempfile::tempdir().expect("a folder");
        let path = dir.path().join("ledger.jsonl");
        found.append(&path).expect("written");
        ledger(1).append(&path).expect("written");
        let text = std::fs::read_to_string(path).expect("read");
        let verdicts: Vec<serde_json::Value> = text
            .lines()
            .map(|line| serde_json::from_str(line).expect("JSON"))
            .collect();
        assert_eq!(verdicts[0]["verdict"], "not clean");
        assert_eq!(verdicts[0]["findings"][0]["sort"], "lost");
        assert_eq!(verdicts[1]["verdict"], "clean");
    }
}
