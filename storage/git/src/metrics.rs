//! Names, labels and help texts of this crate's metrics. Labels never hold addresses, repositories
//! or users.

use ::metrics::{counter, describe_counter};

const REFUSALS: &str = "henge_git_refusals_total";

/// Registers the help texts. Call it once in a process.
pub fn describe() {
    describe_counter!(
        REFUSALS,
        "Requests for git that were refused for want of something, by reason (lookup, body, listing: all places for those without a token are taken; work: all the time for one of them is; memory: what clients may have is held)"
    );
}

/// The exhausted resource that a request was refused for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Shortage {
    /// Permits for requests without a token to look up their repository.
    Lookup,
    /// Permits for requests without a token to have their body read.
    Body,
    /// Permits for requests without a token to have a listing of refs made.
    Listing,
    /// Memory for client data.
    Memory,
    /// Processing time for a fetch without a token.
    Work,
}

impl Shortage {
    pub(crate) const fn label(self) -> &'static str {
        match self {
            Self::Lookup => "lookup",
            Self::Body => "body",
            Self::Listing => "listing",
            Self::Memory => "memory",
            Self::Work => "work",
        }
    }
}

pub(crate) fn request_refused(shortage: Shortage) {
    counter!(REFUSALS, "reason" => shortage.label()).increment(1);
}

#[cfg(test)]
pub(crate) mod tests {
    use std::collections::BTreeMap;
    use std::sync::atomic::{AtomicU64, Ordering};
    use std::sync::{Arc, Mutex};

    use ::metrics::{
        Counter, Gauge, Histogram, Key, KeyName, Metadata, Recorder, SharedString, Unit,
    };

    use super::*;

    /// Counts of refusals, by label.
    #[derive(Debug, Default)]
    pub(crate) struct Counted(Mutex<BTreeMap<String, Arc<AtomicU64>>>);

    impl Counted {
        pub(crate) fn of(&self, shortage: Shortage) -> u64 {
            let counts = self.0.lock().unwrap();
            let count = counts.get(shortage.label());
            count.map_or(0, |count| count.load(Ordering::Relaxed))
        }
    }

    impl Recorder for Counted {
        fn describe_counter(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}

        fn describe_gauge(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}

        fn describe_histogram(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}

        fn register_counter(&self, key: &Key, _: &Metadata<'_>) -> Counter {
            assert_eq!(key.name(), REFUSALS);
            let labels: Vec<_> = key.labels().map(|label| label.value().to_owned()).collect();
            let mut counts = self.0.lock().unwrap();
            let count = counts.entry(labels.join(",")).or_default();
            Counter::from_arc(Arc::clone(count))
        }

        fn register_gauge(&self, _: &Key, _: &Metadata<'_>) -> Gauge {
            Gauge::noop()
        }

        fn register_histogram(&self, _: &Key, _: &Metadata<'_>) -> Histogram {
            Histogram::noop()
        }
    }
}
