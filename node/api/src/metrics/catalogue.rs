//! The list of metrics, from the descriptions of the crates, so that the page in the documentation
//! cannot contradict them.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::sync::{Arc, Mutex, PoisonError};

use metrics::{
    Counter, Gauge, Histogram, Key, KeyName, Metadata, Recorder, SharedString, Unit,
    with_local_recorder,
};

/// The kind of a metric.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Only grows.
    Counter,
    /// Goes up and down.
    Gauge,
    /// Samples in buckets.
    Histogram,
}

impl Kind {
    const fn name(self) -> &'static str {
        match self {
            Self::Counter => "counter",
            Self::Gauge => "gauge",
            Self::Histogram => "histogram",
        }
    }
}

/// One metric as its crate describes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Description {
    /// The kind.
    pub kind: Kind,
    /// The meaning.
    pub help: String,
}

#[derive(Default, Clone)]
struct Collector {
    found: Arc<Mutex<BTreeMap<String, Description>>>,
}

impl Collector {
    fn add(&self, kind: Kind, name: &KeyName, help: &SharedString) {
        let help = help.trim_end_matches('.').to_owned();
        let mut found = self.found.lock().unwrap_or_else(PoisonError::into_inner);
        found.insert(name.as_str().to_owned(), Description { kind, help });
    }
}

impl Recorder for Collector {
    fn describe_counter(&self, name: KeyName, _: Option<Unit>, help: SharedString) {
        self.add(Kind::Counter, &name, &help);
    }

    fn describe_gauge(&self, name: KeyName, _: Option<Unit>, help: SharedString) {
        self.add(Kind::Gauge, &name, &help);
    }

    fn describe_histogram(&self, name: KeyName, _: Option<Unit>, help: SharedString) {
        self.add(Kind::Histogram, &name, &help);
    }

    fn register_counter(&self, _: &Key, _: &Metadata<'_>) -> Counter {
        Counter::noop()
    }

    fn register_gauge(&self, _: &Key, _: &Metadata<'_>) -> Gauge {
        Gauge::noop()
    }

    fn register_histogram(&self, _: &Key, _: &Metadata<'_>) -> Histogram {
        Histogram::noop()
    }
}

/// The descriptions that `describe` registers, by name.
pub fn collect(describe: fn()) -> BTreeMap<String, Description> {
    let collector = Collector::default();
    with_local_recorder(&collector, describe);
    let found = collector.found.lock();
    found.unwrap_or_else(PoisonError::into_inner).clone()
}

/// Names and help texts that break the rules: prefix `henge_`, a base unit or the counted thing
/// last, `_total` at the end of counters only; help that starts with a capital letter.
pub fn misnamed(found: &BTreeMap<String, Description>) -> Vec<String> {
    let mut wrong = Vec::new();
    for (name, description) in found {
        let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_';
        if !name.starts_with("henge_") || !name.bytes().all(plain) {
            wrong.push(format!("{name}: not henge_ and lower-case words"));
        }
        if (description.kind == Kind::Counter) != name.ends_with("_total") {
            wrong.push(format!("{name}: counters end in _total, nothing else does"));
        }
        for unit in [
            "_ms",
            "_millis",
            "_milliseconds",
            "_us",
            "_kb",
            "_mb",
            "_percent",
        ] {
            if name.trim_end_matches("_total").ends_with(unit) {
                wrong.push(format!("{name}: use base units: seconds, bytes, ratio"));
            }
        }
        let help = &description.help;
        let begins = help.starts_with(|first: char| first.is_ascii_uppercase());
        if !begins || help.contains('|') {
            wrong.push(format!("{name}: its help is not like the others"));
        }
    }
    wrong
}

/// The page of all metrics, by crate.
pub fn page(crates: &[(&str, fn())]) -> String {
    let mut page = String::from(
        "# Metrics\n\n\
         Generated from what the crates describe; a test of henge-api compares it and says how to write \
         it again.\n\n\
         `GET /metrics` shows them in Prometheus' text format and needs the token, or one for metrics alone, as \
         bearer token or as the password of basic authentication. Durations are in seconds, sizes in bytes. No label holds \
         the name of a repository or a user.\n",
    );
    for (name, describe) in crates {
        let mut table = String::new();
        for (metric, description) in collect(*describe) {
            let (kind, help) = (description.kind.name(), description.help);
            writeln!(table, "| `{metric}` | {kind} | {help} |")
                .expect("invariant: writing to a string does not fail");
        }
        page.push_str(&format!(
            "\n## {name}\n\n| name | kind | what it says |\n|---|---|---|\n{table}"
        ));
    }
    page
}

#[cfg(test)]
mod tests {
    use super::*;
    use metrics::{describe_counter, describe_gauge};

    fn describe_badly() {
        describe_counter!("henge_x_requests", "No total");
        describe_gauge!("other_x_ms", "no capital.");
    }

    #[test]
    fn names_and_help_that_break_the_rules_are_found() {
        assert_eq!(misnamed(&collect(describe_badly)).len(), 4);
    }

    #[test]
    fn the_page_names_every_metric_under_its_crate() {
        let page = page(&[("henge-x", describe_badly)]);
        assert!(page.contains("\n## henge-x\n"));
        assert!(page.contains("| `henge_x_requests` | counter | No total |\n"));
    }
}
