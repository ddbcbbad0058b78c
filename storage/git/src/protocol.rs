//! Vocabulary of the protocol: services, versions, policies, limits, deadlines.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use henge_runtime::Clock;
use henge_types::limits;

use crate::refs::RefStore;
use crate::responses::RepositoryResponses;
use crate::store::Objects;

/// The agent string of this server.
pub const AGENT: &str = concat!("henge/", env!("CARGO_PKG_VERSION"));

/// The service that a client requests.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Service {
    /// Fetch, clone, ls-remote.
    UploadPack,
    /// Push.
    ReceivePack,
}

impl Service {
    /// Its name on the wire.
    pub const fn name(self) -> &'static str {
        match self {
            Self::UploadPack => "git-upload-pack",
            Self::ReceivePack => "git-receive-pack",
        }
    }

    /// Parses its name on the wire.
    pub fn parse(name: &str) -> Option<Self> {
        [Self::UploadPack, Self::ReceivePack]
            .into_iter()
            .find(|service| service.name() == name)
    }
}

/// The protocol version that a client requests.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Protocol {
    /// Version 0: the version of clients that request none.
    #[default]
    V0,
    /// Version 1: version 0 with a version line.
    V1,
    /// Version 2: the commands `ls-refs` and `fetch`. Pushes fall back to version 0.
    V2,
}

impl Protocol {
    /// Parses a `Git-Protocol` header or variable: the highest known `version=` in it.
    pub fn parse(text: &str) -> Self {
        let version = |part: &str| match part.trim() {
            "version=2" => Self::V2,
            "version=1" => Self::V1,
            _ => Self::V0,
        };
        text.split(':')
            .map(version)
            .max_by_key(|protocol| *protocol as u8)
            .unwrap_or_default()
    }
}

/// A point in time after which work is aborted.
#[derive(Debug, Clone)]
pub struct Deadline {
    clock: Arc<dyn Clock>,
    at: Instant,
    /// Nanoseconds by which the deadline was extended, shared by all clones.
    put_off_ns: Arc<AtomicU64>,
}

impl Deadline {
    /// `within` from now by `clock`.
    pub fn after(clock: Arc<dyn Clock>, within: Duration) -> Self {
        let at = clock.instant() + within;
        Self {
            clock,
            at,
            put_off_ns: Arc::default(),
        }
    }

    /// Whether it has passed.
    pub fn is_over(&self) -> bool {
        let put_off = Duration::from_nanos(self.put_off_ns.load(Ordering::Relaxed));
        self.now() >= self.at + put_off
    }

    fn put_off(&self, by: Duration) {
        let ns = u64::try_from(by.as_nanos()).unwrap_or(u64::MAX);
        self.put_off_ns.fetch_add(ns, Ordering::Relaxed);
    }

    fn now(&self) -> Instant {
        self.clock.instant()
    }
}

/// A signal to running work to stop: set by its caller, or by a deadline.
#[derive(Debug, Clone, Default)]
pub struct Stop {
    flag: Arc<AtomicBool>,
    deadline: Option<Deadline>,
    /// The signal of the whole work that this work is a part of; see [`Stop::part`].
    whole: Option<Arc<Self>>,
}

impl Stop {
    /// Stops at `deadline`.
    pub fn at(deadline: Deadline) -> Self {
        Self {
            flag: Arc::default(),
            deadline: Some(deadline),
            whole: None,
        }
    }

    /// A signal for a part of the work. It is set together with this one, or when the part has
    /// taken `within`. Without a deadline there is no clock, so the part has no time limit. A part
    /// that stops does not stop the rest.
    pub(crate) fn part(&self, within: Duration) -> Self {
        let clock = self.deadline.as_ref().map(|all| Arc::clone(&all.clock));
        Self {
            flag: Arc::default(),
            deadline: clock.map(|clock| Deadline::after(clock, within)),
            whole: Some(Arc::new(self.clone())),
        }
    }

    /// Runs `wait`, whose duration does not count towards the time limit of a part.
    pub(crate) fn uncounted<T>(&self, wait: impl FnOnce() -> T) -> T {
        let of_part = self.whole.as_ref().and(self.deadline.as_ref());
        let begun = of_part.map(|deadline| (deadline, deadline.now()));
        let done = wait();
        if let Some((deadline, begun)) = begun {
            deadline.put_off(deadline.now().saturating_duration_since(begun));
        }
        done
    }

    /// Sets the signal.
    pub fn stop(&self) {
        self.flag.store(true, Ordering::Relaxed);
    }

    /// Whether the work has to stop.
    pub fn is_set(&self) -> bool {
        if self.deadline.as_ref().is_some_and(Deadline::is_over)
            || self.whole.as_ref().is_some_and(|whole| whole.is_set())
        {
            self.stop();
        }
        self.flag.load(Ordering::Relaxed)
    }

    /// The time on the deadline's clock, to measure work with; `None` without a deadline.
    pub(crate) fn now(&self) -> Option<Instant> {
        self.deadline.as_ref().map(Deadline::now)
    }

    pub(crate) fn flag(&self) -> &AtomicBool {
        &self.flag
    }
}

/// A quota of a repository: usage and maximum.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Quota {
    /// The current usage.
    pub used: u64,
    /// The maximum.
    pub max: u64,
}

impl Quota {
    /// Whether `more` in addition to the usage exceeds the maximum.
    pub const fn is_exceeded_by(&self, more: u64) -> bool {
        self.used.saturating_add(more) > self.max
    }
}

/// Bounds on one push.
#[derive(Debug, Clone)]
pub struct PushLimits {
    /// Bytes of the pack, as sent.
    pub pack_bytes_max: u64,
    /// Objects in the pack.
    pub objects_max: u32,
    /// Bytes of one object, inflated. It also bounds the inflation of a small compressed input.
    pub object_bytes_max: u64,
    /// Inflated bytes of all objects of a pack together, for each byte of the pack.
    pub inflated_ratio_max: u64,
    /// Inflated bytes beyond that, independent of the size of the pack.
    pub inflated_bytes_free: u64,
    /// Bytes of memory in use at once to resolve a delta: the bases kept for other deltas, the
    /// delta itself, and twice the larger of its base and its result, which later reads need as
    /// well.
    pub resolved_bytes_max: u64,
    /// Deltas in a chain, from an object to the whole object at the end.
    pub delta_depth_max: u32,
    /// Directories from the top of a tree down to the deepest one.
    pub tree_depth_max: usize,
    /// Bytes of one tree, which also bounds the number of its entries.
    pub tree_bytes_max: usize,
    /// Quota of the repository for bytes of packs; with `None` the disk is the limit.
    pub quota: Option<Quota>,
    /// Quota of the repository for refs; with `None` there is no limit.
    pub refs: Option<Quota>,
    /// Ref updates.
    pub updates_max: usize,
    /// Bytes of a push certificate.
    pub certificate_bytes_max: usize,
    /// Threads that index a large pack.
    pub index_threads_max: usize,
    /// The signal to abort.
    pub stop: Stop,
}

impl Default for PushLimits {
    fn default() -> Self {
        Self {
            pack_bytes_max: limits::PUSH_BYTES_MAX,
            objects_max: limits::PACK_OBJECTS_MAX,
            object_bytes_max: limits::OBJECT_BYTES_MAX,
            inflated_ratio_max: limits::PACK_INFLATED_RATIO_MAX,
            inflated_bytes_free: limits::PACK_INFLATED_BYTES_FREE,
            resolved_bytes_max: limits::DELTA_RESOLVED_BYTES_MAX,
            delta_depth_max: limits::DELTA_DEPTH_MAX,
            tree_depth_max: limits::TREE_DEPTH_MAX,
            tree_bytes_max: limits::TREE_BYTES_MAX,
            quota: None,
            refs: None,
            updates_max: limits::REF_UPDATES_MAX,
            certificate_bytes_max: limits::PUSH_CERTIFICATE_BYTES_MAX,
            index_threads_max: 2,
            stop: Stop::default(),
        }
    }
}

/// Objects that a client may name in `want` lines and in `object-info`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub enum AcceptedWants {
    /// Values of visible refs: git's default.
    Tips,
    /// Also the objects reachable from them (`uploadpack.allowReachableSHA1InWant`): lazy fetches
    /// of partial clones need it.
    #[default]
    Reachable,
    /// Every object in the store (`uploadpack.allowAnySHA1InWant`). Never for a store that
    /// repositories share.
    Any,
}

/// Features of fetches that a repository offers to its clients.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct FetchPolicy {
    /// Objects that may be wanted.
    pub wants: AcceptedWants,
    /// Whether filters may leave out objects (`uploadpack.allowFilter`).
    pub filter: bool,
    /// Whether refs may be wanted by name (`uploadpack.allowRefInWant`).
    pub ref_in_want: bool,
    /// Whether bundles may be requested (`uploadpack.advertiseBundleURIs`).
    /// [`FetchLimits::bundles`] provides the list.
    pub bundle_uri: bool,
}

impl Default for FetchPolicy {
    fn default() -> Self {
        Self {
            wants: AcceptedWants::default(),
            filter: true,
            ref_in_want: true,
            bundle_uri: false,
        }
    }
}

/// See [`FetchLimits::walked_commits_max`].
const WALKED_COMMITS_MAX: usize = 256;
/// See [`FetchLimits::turn_objects_min`].
const TURN_OBJECTS_MIN: u64 = 20_000;

/// The requester of a response.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Asker {
    /// A client with a known identity.
    Known,
    /// An anonymous client.
    Anybody,
}

/// Bounds on one fetch.
#[derive(Debug, Clone)]
pub struct FetchLimits {
    /// Features on offer.
    pub policy: FetchPolicy,
    /// Bytes of the request.
    pub request_bytes_max: usize,
    /// The number of missing commits up to which a graph walk selects the objects to send, even
    /// where there are bitmaps, for a client that has some of the history. The walk takes longer,
    /// but only a walk finds delta bases. With 0 bitmaps are always used.
    pub walked_commits_max: usize,
    /// The number of packed objects in a store from which on fetches wait for a permit. In a
    /// smaller store the selection of the objects to send takes some hundredths of a second.
    pub turn_objects_min: u64,
    /// The signal to abort.
    pub stop: Stop,
    /// The response cache of the repository; none by default.
    pub responses: Option<RepositoryResponses>,
    /// The requester. Fetches without a token never hold all permits, and get no more processing
    /// time than [`limits::ANONYMOUS_FETCH_WORK_MS_MAX`].
    pub asker: Asker,
    /// The admission permit of this fetch.
    pub admission: Option<Arc<dyn Admission>>,
    /// The bundles listed in the response to the command `bundle-uri`; with `None` there is no such
    /// command.
    pub bundles: Option<Arc<dyn BundleList>>,
}

/// The bundles that a client may download before it fetches: gitprotocol-v2(5), bundle-uri.
pub trait BundleList: fmt::Debug + Send + Sync {
    /// Keys below `bundle.` and their values, in order and in the syntax of git-config(1). May
    /// block until `stop` is set.
    fn lines(&self, refs: &dyn RefStore, objects: &Objects, stop: &Stop) -> Vec<(String, String)>;
}

/// The permit of a fetch among those that a server handles at once.
pub trait Admission: fmt::Debug + Send + Sync {
    /// Called when the fetch begins to wait for the response to an equal one: from then on it uses
    /// no processor.
    fn waits(&self);
}

impl Default for FetchLimits {
    fn default() -> Self {
        Self {
            policy: FetchPolicy::default(),
            request_bytes_max: limits::FETCH_REQUEST_BYTES_MAX,
            walked_commits_max: WALKED_COMMITS_MAX,
            turn_objects_min: TURN_OBJECTS_MIN,
            stop: Stop::default(),
            responses: None,
            asker: Asker::Known,
            admission: None,
            bundles: None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A clock set by a test, in seconds.
    #[derive(Debug)]
    struct Hand(Instant, AtomicU64);

    impl Clock for Hand {
        fn unix_ms(&self) -> u64 {
            0
        }

        fn instant(&self) -> Instant {
            self.0 + Duration::from_secs(self.1.load(Ordering::Relaxed))
        }
    }

    #[test]
    fn a_part_stops_by_itself_and_with_the_whole() {
        let start = henge_runtime::SystemClock.instant();
        let hand = Arc::new(Hand(start, AtomicU64::new(0)));
        let clock: Arc<dyn Clock> = Arc::<Hand>::clone(&hand);
        let set = |seconds| hand.1.store(seconds, Ordering::Relaxed);
        let whole = Stop::at(Deadline::after(clock, Duration::from_secs(100)));
        let part = whole.part(Duration::from_secs(10));
        set(9);
        assert!(!part.is_set());
        part.uncounted(|| set(59));
        assert!(!part.is_set(), "fifty seconds were no time of it");
        set(60);
        assert!(part.is_set() && !whole.is_set());
        let long = whole.part(Duration::from_secs(1000));
        assert!(!long.is_set());
        long.uncounted(|| set(100));
        assert!(long.is_set() && whole.is_set());
        let timeless = Stop::default();
        let part = timeless.part(Duration::ZERO);
        assert!(!part.is_set(), "there is no clock");
        timeless.stop();
        assert!(part.is_set());
    }

    #[test]
    fn the_highest_known_version_is_taken() {
        for (text, expected) in [
            ("", Protocol::V0),
            ("version=2", Protocol::V2),
            ("version=1:version=2", Protocol::V2),
            ("version=2:version=1", Protocol::V2),
            ("version=9", Protocol::V0),
            ("key=value:version=1", Protocol::V1),
        ] {
            assert_eq!(Protocol::parse(text), expected, "{text:?}");
        }
    }
}
