//! The bundle cache of a server: offers, lookup and eviction.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use henge_runtime::Clock;
use henge_types::limits;

use crate::bundle::{Bundle, BundleId, NoBundle};
use crate::fetch::{Standing, standing};
use crate::protocol::Stop;
use crate::refs::RefStore;
use crate::store::Objects;

/// Interval of deadline checks while waiting for a bundle.
const LOOK_EVERY: Duration = Duration::from_millis(200);
/// Maximum number of repositories remembered as having no bundle. When it is reached, all are
/// forgotten.
const WITHOUT_MAX: usize = 4096;

/// The bundle cache of a server, shared by all clones of this value. Each repository has a unique
/// key of bytes.
#[derive(Debug, Clone)]
pub struct Bundles {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    /// Directory of unnamed files for the bytes that are in no pack.
    directory: PathBuf,
    bytes_min: u64,
    clock: Arc<dyn Clock>,
    state: Mutex<State>,
    made: Condvar,
}

#[derive(Debug, Default)]
struct State {
    /// The newest last.
    kept: Vec<Kept>,
    making: BTreeSet<Box<[u8]>>,
    /// Repositories that have no bundle, with the version of their refs and the time of this
    /// result.
    without: BTreeMap<Box<[u8]>, (Option<u64>, Instant)>,
}

#[derive(Debug)]
struct Kept {
    repository: Box<[u8]>,
    bundle: Arc<Bundle>,
    made_at: Instant,
    /// The version of the refs that it was made of.
    version: Option<u64>,
    asked_at: Instant,
    /// The last version of the refs known to reach all of it.
    reached_at: Option<u64>,
}

/// The current offer for a repository.
#[derive(Debug, Default)]
pub struct Offer {
    /// The bundle.
    pub bundle: Option<Arc<Bundle>>,
    /// Whether a newer one should be made.
    pub is_due: bool,
}

impl Bundles {
    /// Creates a cache of bundles of at least `bytes_min` bytes. Bytes that are in no pack go into
    /// unnamed files in the existing `directory`.
    pub fn new(directory: &Path, bytes_min: u64, clock: Arc<dyn Clock>) -> Self {
        Self {
            shared: Arc::new(Shared {
                directory: directory.to_owned(),
                bytes_min,
                clock,
                state: Mutex::default(),
                made: Condvar::new(),
            }),
        }
    }

    /// Minimum bytes of a bundle. A repository with smaller packs has none.
    pub fn bytes_min(&self) -> u64 {
        self.shared.bytes_min
    }

    /// The newest bundle of a repository that its current refs permit to serve. Blocking.
    pub fn offer(
        &self,
        repository: &[u8],
        refs: &dyn RefStore,
        objects: &Objects,
        stop: &Stop,
    ) -> Offer {
        let now = self.shared.clock.instant();
        let newest = || {
            let state = self.shared.lock();
            let mut kept = state.kept.iter().rev();
            let found = kept.find(|kept| *kept.repository == *repository);
            found.map(|kept| (kept.bundle.id(), kept.made_at, kept.version))
        };
        let mut tried = None;
        while let Some((id, made_at, version)) = newest() {
            if tried.replace(id) == Some(id) {
                return Offer::default();
            }
            if let Some(bundle) = self.find(repository, id, refs, objects, stop) {
                let refresh = Duration::from_millis(limits::BUNDLE_REFRESH_MS);
                let is_old = now.saturating_duration_since(made_at) >= refresh;
                return Offer {
                    bundle: Some(bundle),
                    is_due: is_old && version != refs.version(),
                };
            }
        }
        Offer {
            bundle: None,
            is_due: !self.has_none(repository, refs.version(), now),
        }
    }

    /// Whether these refs were recently found to have no bundle.
    fn has_none(&self, repository: &[u8], version: Option<u64>, now: Instant) -> bool {
        let again = Duration::from_millis(limits::BUNDLE_REFRESH_MS);
        let state = self.shared.lock();
        state
            .without
            .get(repository)
            .is_some_and(|(of, at)| *of == version && now.saturating_duration_since(*at) < again)
    }

    /// A bundle of a repository, if its current refs permit to serve it: a fetch could want all of
    /// the bundle's tips. A bundle that is no longer permitted is evicted. Blocking.
    pub fn find(
        &self,
        repository: &[u8],
        id: BundleId,
        refs: &dyn RefStore,
        objects: &Objects,
        stop: &Stop,
    ) -> Option<Arc<Bundle>> {
        let version = refs.version();
        let (bundle, reached_at) = {
            let now = self.shared.clock.instant();
            let mut state = self.shared.lock();
            let kept = state.get_mut(repository, id)?;
            kept.asked_at = now;
            (Arc::clone(&kept.bundle), kept.reached_at)
        };
        if version.is_some() && reached_at == version {
            return Some(bundle);
        }
        match standing(refs, objects, bundle.tips(), stop) {
            Ok(Standing::Reached) => {
                if let Some(kept) = self.shared.lock().get_mut(repository, id) {
                    kept.reached_at = version;
                }
                Some(bundle)
            }
            Ok(Standing::Former) => Some(bundle),
            Ok(Standing::Lost) => {
                let is_it = |kept: &Kept| kept.bundle.id() == id && *kept.repository == *repository;
                self.shared.lock().kept.retain(|kept| !is_it(kept));
                None
            }
            Err(error) => {
                tracing::debug!(%error, "it is not known whether a bundle may be given");
                None
            }
        }
    }

    /// The permit to make a repository's bundle. `None` if the bundle is being made, or if
    /// [`limits::BUNDLES_WAITING_MAX`] permits are in use.
    pub fn begin(&self, repository: &[u8]) -> Option<BundleMaking> {
        let mut state = self.shared.lock();
        let is_new = state.making.len() < limits::BUNDLES_WAITING_MAX
            && state.making.insert(repository.into());
        is_new.then(|| BundleMaking {
            shared: Arc::clone(&self.shared),
            repository: repository.into(),
        })
    }

    /// Waits while the repository's bundle is being made, for [`limits::BUNDLE_WAIT_MS`] at most.
    /// Blocking.
    pub fn wait(&self, repository: &[u8], stop: &Stop) {
        let clock = &self.shared.clock;
        let until = clock.instant() + Duration::from_millis(limits::BUNDLE_WAIT_MS);
        let mut state = self.shared.lock();
        while state.making.contains(repository) && !stop.is_set() && clock.instant() < until {
            let waited = self.shared.made.wait_timeout(state, LOOK_EVERY);
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// Evicts expired bundles, then the least recently used ones until the rest fits the limits.
    /// Returns the number of the rest and their bytes on disk.
    pub fn sweep(&self) -> (usize, u64) {
        let now = self.shared.clock.instant();
        self.shared.lock().sweep(now)
    }

    /// Evicts the bundles of repositories whose keys begin with `prefix`.
    pub fn forget(&self, prefix: &[u8]) {
        let mut state = self.shared.lock();
        state
            .kept
            .retain(|kept| !kept.repository.starts_with(prefix));
        state.without.retain(|name, _| !name.starts_with(prefix));
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn get_mut(&mut self, repository: &[u8], id: BundleId) -> Option<&mut Kept> {
        let mut kept = self.kept.iter_mut();
        kept.find(|kept| kept.bundle.id() == id && *kept.repository == *repository)
    }

    /// Caches a bundle that was made of the refs of this version.
    fn keep(&mut self, repository: &[u8], bundle: Arc<Bundle>, version: Option<u64>, now: Instant) {
        self.without.remove(repository);
        let id = bundle.id();
        let is_it = |kept: &Kept| kept.bundle.id() == id && *kept.repository == *repository;
        self.kept.retain(|kept| !is_it(kept));
        self.kept.push(Kept {
            repository: repository.into(),
            bundle,
            made_at: now,
            version,
            asked_at: now,
            reached_at: version,
        });
        self.sweep(now);
    }

    fn sweep(&mut self, now: Instant) -> (usize, u64) {
        let keep = Duration::from_millis(limits::BUNDLE_KEPT_MS);
        // A bundle that is being sent is in use, regardless of its age.
        self.kept.retain(|kept| {
            Arc::strong_count(&kept.bundle) > 1
                || now.saturating_duration_since(kept.asked_at) < keep
        });
        loop {
            let bytes = self.kept.iter().map(|kept| kept.bundle.disk_bytes()).sum();
            if self.kept.len() <= limits::BUNDLES_MAX && bytes <= limits::BUNDLES_DISK_BYTES_MAX {
                return (self.kept.len(), bytes);
            }
            let unused = self.kept.iter().enumerate();
            let unused = unused.min_by_key(|(_, kept)| kept.asked_at);
            match unused.map(|(at, _)| at) {
                Some(at) => drop(self.kept.remove(at)),
                None => return (0, 0),
            }
        }
    }
}

/// The permit to make the bundle of a repository. Requests for the bundle wait until the permit is
/// dropped.
#[derive(Debug)]
pub struct BundleMaking {
    shared: Arc<Shared>,
    repository: Box<[u8]>,
}

impl BundleMaking {
    /// Makes the bundle and caches it. Blocking.
    ///
    /// # Errors
    /// See [`NoBundle`]. For [`limits::BUNDLE_REFRESH_MS`], no bundle of the same refs is due
    /// again.
    pub fn make(
        self,
        refs: &dyn RefStore,
        objects: &Objects,
        stop: &Stop,
    ) -> Result<Arc<Bundle>, NoBundle> {
        let shared = &self.shared;
        let version = refs.version();
        let made = Bundle::make(refs, objects, &shared.directory, shared.bytes_min, stop);
        let now = shared.clock.instant();
        let mut state = shared.lock();
        let bundle = match made {
            Ok(bundle) => Arc::new(bundle),
            Err(error) => {
                if state.without.len() >= WITHOUT_MAX {
                    state.without.clear();
                }
                let repository = self.repository.clone();
                state.without.insert(repository, (version, now));
                return Err(error);
            }
        };
        state.keep(&self.repository, Arc::clone(&bundle), version, now);
        Ok(bundle)
    }
}

impl Drop for BundleMaking {
    fn drop(&mut self) {
        self.shared.lock().making.remove(&self.repository);
        self.shared.made.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::sync::atomic::{AtomicU64, Ordering};

    use henge_types::{ObjectFormat, ObjectId, RefName, RefVerdict};

    use super::*;
    use crate::bundle::Recorder;
    use crate::refs::{CommitError, VerifiedPush};

    /// A clock that a test sets.
    #[derive(Debug)]
    struct Hand(Instant, AtomicU64);

    impl Hand {
        fn passes(&self, ms: u64) {
            self.1.fetch_add(ms, Ordering::Relaxed);
        }
    }

    impl Clock for Hand {
        fn unix_ms(&self) -> u64 {
            self.1.load(Ordering::Relaxed)
        }

        fn instant(&self) -> Instant {
            self.0 + Duration::from_millis(self.unix_ms())
        }
    }

    /// A ref store without refs, at this version.
    struct Refs(u64);

    impl RefStore for Refs {
        fn head(&self) -> RefName {
            "refs/heads/main".parse().unwrap()
        }

        fn get(&self, _: &RefName) -> Option<ObjectId> {
            None
        }

        fn for_each(&self, _: &str, _: &mut dyn FnMut(&RefName, ObjectId)) {}

        fn was_tip_recently(&self, _: ObjectId) -> bool {
            false
        }

        fn version(&self) -> Option<u64> {
            Some(self.0)
        }

        fn commit(&self, _: VerifiedPush<'_>) -> Result<Vec<RefVerdict>, CommitError> {
            Err(CommitError::NotFound)
        }
    }

    struct Server {
        directory: tempfile::TempDir,
        clock: Arc<Hand>,
        bundles: Bundles,
        objects: Objects,
        stop: Stop,
    }

    impl Server {
        fn new() -> Self {
            let directory = tempfile::tempdir().unwrap();
            let now = henge_runtime::SystemClock.instant();
            let clock = Arc::new(Hand(now, AtomicU64::new(0)));
            Self {
                bundles: Bundles::new(directory.path(), 100, clock.clone()),
                objects: Objects::at(directory.path(), ObjectFormat::Sha1),
                directory,
                clock,
                stop: Stop::default(),
            }
        }

        /// Caches a bundle without tips, with this number of own bytes.
        fn keep(&self, repository: &[u8], number: u8, own: usize, version: u64) -> BundleId {
            let mut recorder = Recorder::new(self.directory.path(), u64::MAX);
            recorder.write_all(&vec![7; own]).unwrap();
            let id = BundleId::from_bytes([number; 32]);
            let bundle = Arc::new(Bundle {
                id,
                tips: Vec::new(),
                pieces: recorder.finish().unwrap(),
            });
            let now = self.clock.instant();
            let mut state = self.bundles.shared.lock();
            state.keep(repository, bundle, Some(version), now);
            id
        }

        fn offer(&self, repository: &[u8], version: u64) -> (Option<BundleId>, bool) {
            let (refs, objects) = (Refs(version), &self.objects);
            let offer = self.bundles.offer(repository, &refs, objects, &self.stop);
            (offer.bundle.map(|bundle| bundle.id()), offer.is_due)
        }

        fn find(&self, repository: &[u8], id: BundleId) -> Option<Arc<Bundle>> {
            let refs = Refs(1);
            self.bundles
                .find(repository, id, &refs, &self.objects, &self.stop)
        }
    }

    #[test]
    fn the_newest_is_offered_and_made_anew_when_it_is_old_and_refs_changed() {
        let server = Server::new();
        assert_eq!(server.offer(b"a", 1), (None, true));
        let first = server.keep(b"a", 1, 10, 1);
        assert_eq!(server.offer(b"a", 1), (Some(first), false));
        assert_eq!(server.offer(b"a", 2), (Some(first), false));
        server.clock.passes(limits::BUNDLE_REFRESH_MS);
        assert_eq!(server.offer(b"a", 1), (Some(first), false));
        assert_eq!(server.offer(b"a", 2), (Some(first), true));
        let second = server.keep(b"a", 2, 10, 2);
        assert_eq!(server.offer(b"a", 2), (Some(second), false));
        assert!(server.find(b"a", first).is_some(), "who began goes on");
        assert!(server.find(b"b", first).is_none());
        server.bundles.forget(b"a");
        assert_eq!(server.offer(b"a", 2), (None, true));
    }

    #[test]
    fn what_nobody_asks_for_is_forgotten_and_what_is_sent_is_not() {
        let server = Server::new();
        let (first, second) = (server.keep(b"a", 1, 10, 1), server.keep(b"b", 2, 10, 1));
        server.clock.passes(limits::BUNDLE_KEPT_MS - 1);
        let sent = server.find(b"b", second).unwrap();
        server.clock.passes(limits::BUNDLE_KEPT_MS);
        assert_eq!(server.bundles.sweep(), (1, 0));
        assert!(server.find(b"a", first).is_none());
        drop(sent);
        server.clock.passes(limits::BUNDLE_KEPT_MS);
        assert_eq!(server.bundles.sweep(), (0, 0));
    }

    #[test]
    fn the_longest_unused_go_when_there_are_too_many() {
        let server = Server::new();
        let numbers = 0..=u8::try_from(limits::BUNDLES_MAX).unwrap();
        let ids: Vec<_> = numbers
            .map(|number| {
                server.clock.passes(1);
                server.keep(&[number], number, 300_000, 1)
            })
            .collect();
        let bytes = 300_000 * limits::BUNDLES_MAX as u64;
        assert_eq!(server.bundles.sweep(), (limits::BUNDLES_MAX, bytes));
        assert!(server.find(&[0], ids[0]).is_none());
        assert!(server.find(&[1], ids[1]).is_some());
    }

    #[test]
    fn one_makes_it_and_a_failure_is_remembered_for_the_same_refs() {
        let server = Server::new();
        let making = server.bundles.begin(b"a").unwrap();
        assert!(server.bundles.begin(b"a").is_none());
        let refs = Refs(1);
        let made = making.make(&refs, &server.objects, &server.stop);
        assert!(matches!(made, Err(NoBundle::Empty)));
        assert_eq!(server.offer(b"a", 1), (None, false));
        assert_eq!(server.offer(b"a", 2), (None, true));
        server.clock.passes(limits::BUNDLE_REFRESH_MS);
        assert_eq!(server.offer(b"a", 1), (None, true));
        // A wait ends when the permit is dropped or the deadline passes.
        server.bundles.wait(b"a", &server.stop);
        let _making = server.bundles.begin(b"a").unwrap();
        let stopped = Stop::default();
        stopped.stop();
        server.bundles.wait(b"a", &stopped);
        let others = 1..u8::try_from(limits::BUNDLES_WAITING_MAX).unwrap();
        let _others: Vec<_> = others
            .map(|number| server.bundles.begin(&[number]).unwrap())
            .collect();
        assert!(server.bundles.begin(b"b").is_none(), "too many wait");
    }
}
