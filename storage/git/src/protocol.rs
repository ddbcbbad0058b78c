//! The words of a conversation: which service, which version, which capabilities.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use henge_runtime::Clock;
use henge_types::limits;

use crate::refs::RefStore;
use crate::responses::RepositoryResponses;
use crate::store::Objects;

/// What this server calls itself.
pub const AGENT: &str = concat!("henge/", env!("CARGO_PKG_VERSION"));

/// What the client wants to do.
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

    /// From its name on the wire.
    pub fn parse(name: &str) -> Option<Self> {
        [Self::UploadPack, Self::ReceivePack]
            .into_iter()
            .find(|service| service.name() == name)
    }
}

/// The version of the protocol that the client asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Protocol {
    /// The first one; what a client that says nothing speaks.
    #[default]
    V0,
    /// The first one with a version line.
    V1,
    /// Commands: `ls-refs`, `fetch`. Pushes fall back to the first one.
    V2,
}

impl Protocol {
    /// From a `Git-Protocol` header or variable: the highest known `version=` in it.
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

/// A point in time after which work is given up.
#[derive(Debug, Clone)]
pub struct Deadline {
    clock: Arc<dyn Clock>,
    at: Instant,
    /// Nanoseconds by which it was put off, together with all its clones.
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

/// Tells running work to give up: at a deadline or when its caller says so.
#[derive(Debug, Clone, Default)]
pub struct Stop {
    flag: Arc<AtomicBool>,
    deadline: Option<Deadline>,
    /// Of what this is a part; see [`Stop::part`].
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

    /// For a part of the work: it stops when all of it does, and once it was worked on for so long. Where there is no
    /// deadline there is no clock either: then its time has no bound. That a part stops does not stop the rest.
    pub(crate) fn part(&self, within: Duration) -> Self {
        let clock = self.deadline.as_ref().map(|all| Arc::clone(&all.clock));
        Self {
            flag: Arc::default(),
            deadline: clock.map(|clock| Deadline::after(clock, within)),
            whole: Some(Arc::new(self.clone())),
        }
    }

    /// Waits for somebody else: that is no time of a part of the work.
    pub(crate) fn uncounted<T>(&self, wait: impl FnOnce() -> T) -> T {
        let of_part = self.whole.as_ref().and(self.deadline.as_ref());
        let begun = of_part.map(|deadline| (deadline, deadline.now()));
        let done = wait();
        if let Some((deadline, begun)) = begun {
            deadline.put_off(deadline.now().saturating_duration_since(begun));
        }
        done
    }

    /// Says stop.
    pub fn stop(&self) {
        self.flag.store(true, Ordering::Relaxed);
    }

    /// Whether to give up.
    pub fn is_set(&self) -> bool {
        if self.deadline.as_ref().is_some_and(Deadline::is_over)
            || self.whole.as_ref().is_some_and(|whole| whole.is_set())
        {
            self.stop();
        }
        self.flag.load(Ordering::Relaxed)
    }

    /// The time on the deadline's clock, to tell how long work takes; `None` without a deadline.
    pub(crate) fn now(&self) -> Option<Instant> {
        self.deadline.as_ref().map(Deadline::now)
    }

    pub(crate) fn flag(&self) -> &AtomicBool {
        &self.flag
    }
}

/// What a repository may hold of something.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Quota {
    /// How much it holds.
    pub used: u64,
    /// How much it may hold.
    pub max: u64,
}

impl Quota {
    /// Whether so much more is too much.
    pub const fn is_exceeded_by(&self, more: u64) -> bool {
        self.used.saturating_add(more) > self.max
    }
}

/// Bounds on one push.
#[derive(Debug, Clone)]
pub struct PushLimits {
    /// Bytes of the pack, as it is sent.
    pub pack_bytes_max: u64,
    /// Objects in the pack.
    pub objects_max: u32,
    /// Bytes of one object, inflated. Bounds what a few bytes may inflate to as well.
    pub object_bytes_max: u64,
    /// Bytes that the objects of a pack may have together for each byte of it.
    pub inflated_ratio_max: u64,
    /// Bytes that they may have beyond that, whatever the pack's size.
    pub inflated_bytes_free: u64,
    /// Bytes that may have to be in memory at once to resolve a delta: the bases kept for others, the delta itself, and
    /// twice the larger of its base and its result, as for whoever reads it later.
    pub resolved_bytes_max: u64,
    /// Deltas from an object to the whole one at the end of its chain.
    pub delta_depth_max: u32,
    /// Directories from the top of a tree down to its deepest one.
    pub tree_depth_max: usize,
    /// Bytes of one tree, which bounds its entries.
    pub tree_bytes_max: usize,
    /// Bytes of packs that the repository may hold; none: as many as there is space for.
    pub quota: Option<Quota>,
    /// Refs that the repository may hold; none: any number.
    pub refs: Option<Quota>,
    /// Ref updates.
    pub updates_max: usize,
    /// Bytes of a push certificate.
    pub certificate_bytes_max: usize,
    /// Threads that index a large pack.
    pub index_threads_max: usize,
    /// When to give up.
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

/// Which objects a client may name in `want` lines and in `object-info`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub enum AcceptedWants {
    /// Values of visible refs (what git accepts without any configuration).
    Tips,
    /// Also what they reach (`uploadpack.allowReachableSHA1InWant`): lazy fetches of partial clones need it.
    #[default]
    Reachable,
    /// Everything in the store (`uploadpack.allowAnySHA1InWant`). Never for a store that repositories share.
    Any,
}

/// What a repository lets its clients ask for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct FetchPolicy {
    /// Which objects may be wanted.
    pub wants: AcceptedWants,
    /// Whether objects may be left out (`uploadpack.allowFilter`).
    pub filter: bool,
    /// Whether refs may be wanted by name (`uploadpack.allowRefInWant`).
    pub ref_in_want: bool,
    /// Whether bundles may be asked for (`uploadpack.advertiseBundleURIs`): what is answered says
    /// [`FetchLimits::bundles`].
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

/// Who asks for an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Asker {
    /// Somebody of whom it is known who they are.
    Known,
    /// Anybody.
    Anybody,
}

/// Bounds on one fetch.
#[derive(Debug, Clone)]
pub struct FetchLimits {
    /// What may be asked for.
    pub policy: FetchPolicy,
    /// Bytes of the request.
    pub request_bytes_max: usize,
    /// A client that has some of the history and lacks no more commits than this gets what a walk finds, also where there
    /// are bitmaps: it takes longer, but only a walk finds what to make deltas on. With 0 bitmaps are always used.
    pub walked_commits_max: usize,
    /// Answers wait for their turn in stores of so many packed objects. With fewer, what the client lacks is known within some
    /// hundredths of a second.
    pub turn_objects_min: u64,
    /// When to give up.
    pub stop: Stop,
    /// Where answers are kept for the next one who asks the same; nowhere by default.
    pub responses: Option<RepositoryResponses>,
    /// Who asks: those without a token never take all turns, and are worked for no longer than
    /// [`limits::ANONYMOUS_FETCH_WORK_MS_MAX`].
    pub asker: Asker,
    /// The place among all fetches that this one takes.
    pub admission: Option<Arc<dyn Admission>>,
    /// What the command `bundle-uri` is answered with; without it there is no such command.
    pub bundles: Option<Arc<dyn BundleList>>,
}

/// The bundles that a client may download before it fetches: gitprotocol-v2(5), bundle-uri.
pub trait BundleList: fmt::Debug + Send + Sync {
    /// Keys below `bundle.` and their values, in order, as git-config(1) has them. May wait until `stop` says no.
    fn lines(&self, refs: &dyn RefStore, objects: &Objects, stop: &Stop) -> Vec<(String, String)>;
}

/// The place that a fetch takes among those that a server handles at once.
pub trait Admission: fmt::Debug + Send + Sync {
    /// Is called when the fetch begins to wait for an equal one's answer: from then on it takes no processor.
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

    /// A clock that a test sets, in seconds.
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
