//! The response cache of fetches. It serves equal requests: a CI system clones one commit a hundred
//! times.
//!
//! The key of a request covers its bytes and the refs that its response depends on; see the
//! callers. Access of the client is checked before the lookup. The first of several equal requests
//! makes the response; the others wait for it. Parts of packs are kept as references. When
//! maintenance has removed a pack, responses with parts of it are made again.

mod record;
mod turns;

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use sha2::{Digest, Sha256};

use crate::fetch::tips::TipIndex;
use crate::protocol::{Admission, Asker, Stop};
use crate::store::Pack;
pub(crate) use record::{Answer, Recorder};
use turns::Turns;
pub(crate) use turns::{MakingTurn, Work};

/// The maximum number of responses.
const ANSWERS_MAX: usize = 4096;
/// The maximum of their own bytes in memory, together.
const MEMORY_BYTES_MAX: u64 = 64 * 1024 * 1024;
/// The maximum of their own bytes on disk, together.
const DISK_BYTES_MAX: u64 = 1024 * 1024 * 1024;
/// The maximum number of repositories with an index of their refs.
const TIP_INDEXES_MAX: usize = 8;
/// The interval at which a waiting request checks its deadline.
const LOOK_EVERY: Duration = Duration::from_millis(200);

/// The key of a request: SHA-256 of everything that its response depends on.
pub(crate) type Key = [u8; 32];

/// The response cache of a server. Clones share it.
#[derive(Debug, Clone)]
pub struct Responses {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    /// The directory for the bytes of long responses, in files without names.
    directory: PathBuf,
    state: Mutex<State>,
    made: Condvar,
    /// Indexes of recently fetched repositories; the most recently used one is last.
    tip_indexes: Mutex<Vec<KeptIndex>>,
    turns: Arc<Turns>,
}

/// An index of the refs of a repository, at one version of them.
#[derive(Debug)]
struct KeptIndex {
    repository: Box<[u8]>,
    version: u64,
    index: Arc<TipIndex>,
}

#[derive(Debug, Default)]
struct State {
    slots: HashMap<Key, Slot>,
    memory_bytes: u64,
    disk_bytes: u64,
    uses: u64,
}

#[derive(Debug)]
enum Slot {
    /// A request is making the response.
    Making,
    Kept {
        answer: Arc<Answer>,
        /// The number of the last request that used it.
        used: u64,
    },
}

/// The result of a lookup.
pub(crate) enum Turn {
    /// The response is in the cache.
    Known(Known),
    /// The response has to be made, and recorded with [`Making::recorder`].
    Make(Making),
}

/// A response, and the packs that it has parts of: these may be replaced before its last byte is
/// sent.
pub(crate) struct Known {
    answer: Arc<Answer>,
    packs: Vec<Arc<Pack>>,
}

impl Known {
    /// Writes the response.
    pub(crate) fn replay(self, output: &mut dyn crate::Output) -> std::io::Result<()> {
        let Self { answer, packs } = self;
        answer.replay(output)?;
        drop(packs);
        Ok(())
    }
}

/// The number of processors available to this process.
fn processors() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

impl Responses {
    /// Creates a cache. The bytes of long responses are in files without names in the existing
    /// `directory`.
    pub fn new(directory: &Path) -> Self {
        Self {
            shared: Arc::new(Shared {
                directory: directory.to_owned(),
                state: Mutex::default(),
                made: Condvar::new(),
                tip_indexes: Mutex::default(),
                turns: Arc::new(Turns::new(processors())),
            }),
        }
    }

    /// The responses of one repository.
    pub fn of(&self, repository: &[u8]) -> RepositoryResponses {
        RepositoryResponses {
            responses: self.clone(),
            repository: repository.into(),
        }
    }

    /// Looks up a response, or waits for the request that makes it, after a call of
    /// [`Admission::waits`]. `None` when the deadline passed first.
    pub(crate) fn turn(
        &self,
        key: Key,
        stop: &Stop,
        admission: Option<&dyn Admission>,
    ) -> Option<Turn> {
        let mut state = self.shared.lock();
        loop {
            state.uses += 1;
            let now = state.uses;
            match state.slots.get_mut(&key) {
                Some(Slot::Kept { answer, used }) => {
                    if let Some(packs) = answer.packs() {
                        *used = now;
                        let answer = Arc::clone(answer);
                        return Some(Turn::Known(Known { answer, packs }));
                    }
                    return Some(self.make(&mut state, key));
                }
                Some(Slot::Making) => {
                    if let Some(admission) = admission {
                        admission.waits();
                    }
                    let waited = self.shared.made.wait_timeout(state, LOOK_EVERY);
                    state = waited.unwrap_or_else(PoisonError::into_inner).0;
                    if stop.is_set() {
                        return None;
                    }
                }
                None => return Some(self.make(&mut state, key)),
            }
        }
    }

    fn make(&self, state: &mut State, key: Key) -> Turn {
        state.remove(&key);
        state.slots.insert(key, Slot::Making);
        Turn::Make(Making {
            shared: Arc::clone(&self.shared),
            key,
        })
    }
}

/// The [`Responses`] of one repository.
#[derive(Debug, Clone)]
pub struct RepositoryResponses {
    responses: Responses,
    repository: Box<[u8]>,
}

impl RepositoryResponses {
    /// Begins the key of a request. The caller adds everything that the response depends on.
    pub(crate) fn key(&self, command: &str, arguments: &[u8; 32]) -> Sha256 {
        let mut key = Sha256::new();
        key.update(self.repository.len().to_le_bytes());
        key.update(&self.repository);
        key.update(command.len().to_le_bytes());
        key.update(command);
        key.update(arguments);
        key
    }

    /// The index of the repository's refs at this version. The index of another version is dropped.
    pub(crate) fn tip_index(&self, version: u64) -> Arc<TipIndex> {
        let known = &self.responses.shared.tip_indexes;
        let mut known = known.lock().unwrap_or_else(PoisonError::into_inner);
        known.retain(|kept| kept.index.is_small());
        let mut of_it = known.iter();
        let place = of_it.position(|kept| kept.repository == self.repository);
        if let Some(kept) = place.map(|place| known.remove(place))
            && kept.version == version
        {
            let index = Arc::clone(&kept.index);
            known.push(kept);
            return index;
        }
        if known.len() >= TIP_INDEXES_MAX {
            known.remove(0);
        }
        let index = Arc::<TipIndex>::default();
        known.push(KeptIndex {
            repository: self.repository.clone(),
            version,
            index: Arc::clone(&index),
        });
        index
    }

    /// Waits for a permit to make a response of some cost. `None` when the deadline passed first.
    pub(crate) fn making_turn(&self, work: Work, asker: Asker, stop: &Stop) -> Option<MakingTurn> {
        let turns = &self.responses.shared.turns;
        turns.take(work, asker, &self.repository, stop)
    }

    /// See [`Responses::turn`].
    pub(crate) fn turn(
        &self,
        key: Sha256,
        stop: &Stop,
        admission: Option<&dyn Admission>,
    ) -> Option<Turn> {
        self.responses.turn(key.finalize().into(), stop, admission)
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn remove(&mut self, key: &Key) {
        if let Some(Slot::Kept { answer, .. }) = self.slots.remove(key) {
            self.memory_bytes -= answer.memory_bytes();
            self.disk_bytes -= answer.disk_bytes();
        }
    }

    fn is_full(&self) -> bool {
        self.slots.len() > ANSWERS_MAX
            || self.memory_bytes > MEMORY_BYTES_MAX
            || self.disk_bytes > DISK_BYTES_MAX
    }

    /// Evicts the least recently used responses until the rest fits. Each eviction scans all
    /// entries: evictions are rare.
    fn make_room(&mut self) {
        while self.is_full() {
            let used = |slot: &Slot| match slot {
                Slot::Kept { used, .. } => Some(*used),
                Slot::Making => None,
            };
            let kept = self.slots.iter();
            let oldest = kept
                .filter_map(|(key, slot)| Some((used(slot)?, *key)))
                .min();
            match oldest {
                Some((_, key)) => self.remove(&key),
                None => return,
            }
        }
    }
}

/// The obligation to make a response. Equal requests wait for it. If it is dropped without a
/// response, one of them makes the response.
pub(crate) struct Making {
    shared: Arc<Shared>,
    key: Key,
}

impl Making {
    /// A writer that records the response and passes it on to `output`.
    pub(crate) fn recorder<'a>(&self, output: &'a mut dyn crate::Output) -> Recorder<'a> {
        Recorder::new(output, &self.shared.directory)
    }

    /// Ends a complete response: the cache serves it from now on, and its held bytes are sent.
    ///
    /// # Errors
    /// When the output breaks. The response is kept all the same.
    pub(crate) fn finish(self, recorder: Recorder<'_>) -> std::io::Result<()> {
        let Some((answer, held)) = recorder.into_answer()? else {
            return Ok(());
        };
        let answer = Arc::new(answer);
        self.keep(Arc::clone(&answer));
        held.leave(&answer)
    }

    fn keep(self, answer: Arc<Answer>) {
        let mut state = self.shared.lock();
        state.uses += 1;
        let used = state.uses;
        state.memory_bytes += answer.memory_bytes();
        state.disk_bytes += answer.disk_bytes();
        state.slots.insert(self.key, Slot::Kept { answer, used });
        state.make_room();
    }
}

impl Drop for Making {
    fn drop(&mut self) {
        let mut state = self.shared.lock();
        if matches!(state.slots.get(&self.key), Some(Slot::Making)) {
            state.slots.remove(&self.key);
        }
        drop(state);
        self.shared.made.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Output;
    use henge_types::ObjectFormat;
    use std::io::Write;

    fn make(responses: &Responses, key: Key, bytes: &[u8]) -> Vec<u8> {
        let mut output = Vec::new();
        match responses.turn(key, &Stop::default(), None).unwrap() {
            Turn::Known(answer) => answer.replay(&mut output).unwrap(),
            Turn::Make(making) => {
                let mut recorder = making.recorder(&mut output);
                recorder.write_all(&bytes[..bytes.len() / 2]).unwrap();
                recorder.begin_pack();
                recorder.write_all(&bytes[bytes.len() / 2..]).unwrap();
                making.finish(recorder).unwrap();
            }
        }
        output
    }

    #[test]
    fn an_index_of_refs_lasts_until_they_change_or_others_are_used() {
        let directory = tempfile::tempdir().unwrap();
        let responses = Responses::new(directory.path());
        let one = responses.of(b"one");
        let index = one.tip_index(7);
        assert!(Arc::ptr_eq(&index, &one.tip_index(7)));
        assert!(!Arc::ptr_eq(&index, &responses.of(b"two").tip_index(7)));
        let changed = one.tip_index(8);
        assert!(!Arc::ptr_eq(&index, &changed));
        for number in 0..u8::try_from(TIP_INDEXES_MAX).unwrap() {
            responses.of(&[number]).tip_index(1);
        }
        assert!(!Arc::ptr_eq(&changed, &one.tip_index(8)), "forgotten");
        let kept = responses.shared.tip_indexes.lock().unwrap().len();
        assert_eq!(kept, TIP_INDEXES_MAX);
    }

    #[test]
    fn what_was_answered_once_is_answered_again() {
        let directory = tempfile::tempdir().unwrap();
        let responses = Responses::new(directory.path());
        for length in [1000, 9_000_000] {
            let bytes = vec![7; length];
            let key = [u8::try_from(length % 251).unwrap(); 32];
            assert_eq!(make(&responses, key, &bytes), bytes);
            assert_eq!(make(&responses, key, b"something else"), bytes, "{length}");
        }
        let state = responses.shared.lock();
        assert_eq!((state.memory_bytes, state.disk_bytes), (1000, 9_000_000));
    }

    #[test]
    fn the_longest_unused_answers_go_first() {
        let directory = tempfile::tempdir().unwrap();
        let responses = Responses::new(directory.path());
        let key = |number: usize| {
            let mut key = [0; 32];
            key[..8].copy_from_slice(&number.to_le_bytes());
            key
        };
        for number in 0..ANSWERS_MAX + 10 {
            assert_eq!(make(&responses, key(number), b"first"), b"first");
            assert_eq!(make(&responses, key(0), b"second"), b"first");
        }
        assert_eq!(make(&responses, key(1), b"second"), b"second");
        assert_eq!(make(&responses, key(ANSWERS_MAX + 9), b"second"), b"first");
        assert!(responses.shared.lock().slots.len() <= ANSWERS_MAX);
    }

    /// Compaction replaces this pack while its bytes are sent: all of them arrive.
    #[test]
    fn a_pack_that_goes_while_its_part_is_sent_is_sent_to_the_end() {
        let directory = tempfile::tempdir().unwrap();
        crate::store::put_empty_pack(directory.path(), "0");
        let idx = directory.path().join("pack-0.idx");
        let pack = Arc::new(Pack::open(&idx, ObjectFormat::Sha1).unwrap());
        let responses = Responses::new(directory.path());
        let Some(Turn::Make(making)) = responses.turn([1; 32], &Stop::default(), None) else {
            panic!("nobody asked before");
        };
        let mut first = Vec::new();
        let mut recorder = making.recorder(&mut first);
        let part = crate::PackPart::new(Arc::clone(&pack), 0..12);
        recorder.write_part(part).unwrap();
        making.finish(recorder).unwrap();
        let Some(Turn::Known(known)) = responses.turn([1; 32], &Stop::default(), None) else {
            panic!("it was kept");
        };
        drop(pack);
        let mut again = Vec::new();
        known.replay(&mut again).unwrap();
        assert_eq!(again, first);
        assert!(again.starts_with(b"PACK"));
        // With the last reference to the pack gone, the response is made again.
        let turn = responses.turn([1; 32], &Stop::default(), None);
        assert!(matches!(turn, Some(Turn::Make(_))));
    }

    #[derive(Debug, Default)]
    struct Told(std::sync::atomic::AtomicUsize);

    impl Admission for Told {
        fn waits(&self) {
            self.0.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        }
    }

    #[test]
    fn who_waits_says_so_and_who_does_not_keeps_its_place() {
        let directory = tempfile::tempdir().unwrap();
        let responses = Responses::new(directory.path());
        let told = Told::default();
        let count = || told.0.load(std::sync::atomic::Ordering::Relaxed);
        let turn = |stop: &Stop| responses.turn([1; 32], stop, Some(&told));
        let Some(Turn::Make(making)) = turn(&Stop::default()) else {
            panic!("nobody asked before");
        };
        assert_eq!(count(), 0);
        let stopped = Stop::default();
        stopped.stop();
        assert!(turn(&stopped).is_none());
        assert_eq!(count(), 1);
        let mut output = Vec::new();
        let recorder = making.recorder(&mut output);
        making.finish(recorder).unwrap();
        assert!(matches!(turn(&Stop::default()), Some(Turn::Known(_))));
        assert_eq!(count(), 1);
    }

    #[test]
    fn who_gives_up_leaves_the_answer_to_the_next() {
        let directory = tempfile::tempdir().unwrap();
        let responses = Responses::new(directory.path());
        let Some(Turn::Make(first)) = responses.turn([1; 32], &Stop::default(), None) else {
            panic!("nobody asked before");
        };
        let stopped = Stop::default();
        stopped.stop();
        assert!(
            responses.turn([1; 32], &stopped, None).is_none(),
            "it waits"
        );
        drop(first);
        assert!(matches!(
            responses.turn([1; 32], &Stop::default(), None),
            Some(Turn::Make(_))
        ));
    }
}
