//! Comparison of the cluster's reports with the facts, during a fault and without one.
//!
//! Pure: samples in, complaints out.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use crate::probe::Status;

/// The status must report a missing node after this time.
const NOTICE: Duration = Duration::from_secs(10);

/// One sample of the cluster's state.
#[derive(Debug, Clone)]
pub struct Sample {
    /// Time since the fault.
    pub at: Duration,
    /// The status; `None` when no node could be queried.
    pub status: Option<Status>,
    /// The readiness that each node reports.
    pub ready: BTreeMap<u64, Result<(), String>>,
    /// Downtime of each node that is not running.
    pub down: BTreeMap<u64, Duration>,
}

/// All samples of a step so far.
#[derive(Debug, Clone, Default)]
pub struct Watch {
    previous: Option<Sample>,
    /// Whether a node could be queried at least once.
    asked: bool,
    first_problem: Option<Duration>,
    worst: String,
    complaints: BTreeMap<&'static str, String>,
}

impl Watch {
    /// Adds a sample of a cluster of `nodes` nodes.
    pub fn add(&mut self, sample: Sample, nodes: usize) {
        if let Some(status) = &sample.status {
            self.asked = true;
            if !status.is_ok() && self.first_problem.is_none() {
                self.first_problem = Some(sample.at);
                self.worst = status.to_string();
            }
            if status.health == "failing" && !self.worst.starts_with("failing") {
                self.worst = status.to_string();
            }
            self.check(status, &sample, nodes);
        }
        self.previous = Some(sample);
    }

    fn check(&mut self, status: &Status, sample: &Sample, nodes: usize) {
        if !status.is_consistent() {
            let (health, exit) = (&status.health, status.exit);
            let text = format!("health {health:?} with exit code {exit} of --check");
            self.complaints.entry("exit").or_insert(text);
        }
        let missing: BTreeSet<u64> = sample
            .down
            .iter()
            .filter(|(_, since)| **since > NOTICE)
            .map(|(node, _)| *node)
            .collect();
        if status.is_ok() && !missing.is_empty() {
            let text = format!("status ok while nodes {missing:?} are not running");
            self.complaints.entry("down").or_insert(text);
        }
        if missing.len() > nodes / 2 && status.health != "failing" && !status.health.is_empty() {
            let text = format!("{status} while nodes {missing:?}, a majority, are not running");
            self.complaints.entry("majority").or_insert(text);
        }
        let Some(previous) = &self.previous else {
            return;
        };
        let was_ok = previous.status.as_ref().is_some_and(Status::is_ok);
        for (node, ready) in &sample.ready {
            let before = previous.ready.get(node);
            match (ready, before) {
                (Err(now), Some(Err(_))) if status.is_ok() && was_ok => {
                    let text = format!("status ok while node {node} is not ready: {now}");
                    self.complaints.entry("ready").or_insert(text);
                }
                (Ok(()), Some(Ok(())))
                    if status.silent.contains(node)
                        && previous
                            .status
                            .as_ref()
                            .is_some_and(|status| status.silent.contains(node)) =>
                {
                    let text = format!("node {node} is ready, and has no report in the status");
                    self.complaints.entry("silent").or_insert(text);
                }
                _ => {}
            }
        }
    }

    /// Whether the status was read and never reported a problem.
    pub const fn was_ok(&self) -> bool {
        self.asked && self.first_problem.is_none()
    }

    /// The time of the first reported problem.
    pub const fn first_problem(&self) -> Option<Duration> {
        self.first_problem
    }

    /// The first reported problem, or the first `failing` status after it; `ok` without a problem.
    pub fn worst(&self) -> &str {
        match self.worst.as_str() {
            "" => "ok",
            worst => worst,
        }
    }

    /// The contradictions to the facts.
    pub fn complaints(&self) -> Vec<String> {
        self.complaints.values().cloned().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// With every node down no status can be read: that does not count as ok.
    #[test]
    fn nobody_to_ask_is_not_ok() {
        let mut watch = Watch::default();
        let mut nobody = sample("ok", true, None);
        nobody.status = None;
        watch.add(nobody, 3);
        assert!(!watch.was_ok());
        watch.add(sample("ok", true, None), 3);
        assert!(watch.was_ok());
        watch.add(sample("failing", true, None), 3);
        assert!(!watch.was_ok());
    }

    fn sample(health: &str, ready: bool, down_s: Option<u64>) -> Sample {
        Sample {
            at: Duration::from_secs(1),
            status: Some(Status {
                health: health.to_owned(),
                problems: Vec::new(),
                exit: i32::from(health != "ok") * 6,
                silent: BTreeSet::new(),
            }),
            ready: BTreeMap::from([(1, if ready { Ok(()) } else { Err("no".to_owned()) })]),
            down: down_s
                .map(|s| BTreeMap::from([(2, Duration::from_secs(s)), (3, Duration::ZERO)]))
                .unwrap_or_default(),
        }
    }

    fn complaints(samples: &[Sample]) -> usize {
        let mut watch = Watch::default();
        for sample in samples {
            watch.add(sample.clone(), 3);
        }
        watch.complaints().len()
    }

    #[test]
    fn ok_while_a_node_is_down_is_wrong_after_a_while() {
        assert_eq!(complaints(&[sample("ok", true, Some(1))]), 0);
        assert_eq!(complaints(&[sample("ok", true, Some(30))]), 1);
        assert_eq!(complaints(&[sample("degraded", true, Some(30))]), 0);
    }

    #[test]
    fn a_majority_down_is_failing() {
        let mut lost = sample("degraded", true, Some(30));
        lost.down.insert(3, Duration::from_secs(30));
        assert_eq!(complaints(&[lost.clone()]), 1);
        lost.status = sample("failing", true, None).status;
        assert_eq!(complaints(&[lost]), 0);
    }

    #[test]
    fn ok_while_a_node_is_not_ready_is_wrong_when_it_lasts() {
        let (odd, even) = (sample("ok", false, None), sample("ok", true, None));
        assert_eq!(complaints(&[even, odd.clone()]), 0);
        assert_eq!(complaints(&[odd.clone(), odd]), 1);
    }

    #[test]
    fn words_and_exit_code_must_agree() {
        let mut odd = sample("ok", true, None);
        odd.status.as_mut().unwrap().exit = 6;
        assert_eq!(complaints(&[odd]), 1);
    }
}
