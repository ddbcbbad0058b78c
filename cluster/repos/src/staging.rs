//! Packs kept durable for a leader that has not proposed them yet.
//!
//! A pack stays while it has a claim. A claim ends when its leader releases it, when its entry
//! comes, or when its term is over here: after an entry of a higher term was applied, no entry of
//! that leader can name the pack. A claim is on disk before its pack is, so that a restart loses no
//! promise.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard};

use henge_storage::objects::blocks::{BlockSums, SMALL_PACK_BYTES_MAX};
use henge_storage::objects::{ObjectError, ObjectStore};
use henge_types::stored::{self, number::CLAIMS};
use henge_types::{GroupId, NetworkId, PackId, RequestId};
use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::frames::{Claim, StageRequest};
use crate::metrics;
use crate::parking::Missing;

/// The extension after the pack's name.
const EXTENSION: &str = "claims";

/// Why a pack was not stored.
#[derive(Debug, Error)]
pub(crate) enum KeepError {
    /// Another network has a claim on the same pack: files are named by content, and the first
    /// entry moves them.
    #[error("the same pack is being pushed to another repository: try again")]
    Busy,
    /// Its content differs from the announced one, or the disk failed.
    #[error(transparent)]
    Store(#[from] ObjectError),
    /// The claims could not be written.
    #[error("cannot write the claims of a pack: {0}")]
    Claims(#[from] io::Error),
}

/// Whether the files were verified already.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Trust {
    /// This node wrote them itself.
    Made,
    /// They came from another node.
    Received,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Kept {
    network: NetworkId,
    claims: BTreeSet<Claim>,
}

/// The staged packs of this node. All methods block.
#[derive(Debug)]
pub(crate) struct Staging {
    objects: ObjectStore,
    dir: PathBuf,
    kept: Mutex<BTreeMap<PackId, Kept>>,
}

impl Staging {
    /// Reads the packs that an earlier process staged; `dir` holds the claims.
    ///
    /// # Errors
    /// When a directory cannot be read.
    pub(crate) fn open(objects: ObjectStore, dir: PathBuf) -> Result<Self, KeepError> {
        fs::create_dir_all(&dir)?;
        let staged: BTreeSet<_> = objects.staged()?.into_iter().collect();
        let (mut kept, mut unclaimed) = (BTreeMap::new(), BTreeSet::new());
        for entry in fs::read_dir(&dir)? {
            let path = entry?.path();
            // The pack was promoted to its network, or never arrived.
            let Some(pack) = pack_of(&path).filter(|pack| staged.contains(pack)) else {
                fs::remove_file(&path)?;
                continue;
            };
            match read_claims(&path) {
                Ok(claims) => drop(kept.insert(pack, claims)),
                Err(error) => {
                    tracing::warn!(path = %path.display(), %error, "for whom a pack is staged cannot be read: it is kept for the repository that names it; once the node is healthy the pack in staged/ and this file may be removed");
                    unclaimed.insert(pack);
                }
            }
        }
        let is_known = |pack: &PackId| kept.contains_key(pack) || unclaimed.contains(pack);
        for pack in staged.iter().filter(|pack| !is_known(pack)) {
            tracing::info!(%pack, "a staged pack that nobody was promised is dropped");
            objects.drop_staged(pack)?;
        }
        metrics::staged_packs(kept.len());
        Ok(Self {
            objects,
            dir,
            kept: Mutex::new(kept),
        })
    }

    /// Moves a pack and its index in and makes them durable, after their claim.
    ///
    /// # Errors
    /// See [`KeepError`].
    pub(crate) fn keep(
        &self,
        stage: &StageRequest,
        (pack, idx): (&Path, &Path),
        trust: Trust,
    ) -> Result<(), KeepError> {
        // Packs made by this node were hashed when they were written.
        let sums = match trust {
            Trust::Received => self.objects.verify_and_sum(&stage.pack, pack, idx)?,
            Trust::Made => {
                let trailer_bytes = stage.pack.checksum().as_bytes().len();
                BlockSums::of_files(pack, idx, trailer_bytes)?
            }
        };
        // Synced before the lock: a large file takes long, and applying waits for the lock.
        sync(pack)?;
        sync(idx)?;
        let mut kept = self.lock();
        let empty = Kept {
            network: stage.network,
            claims: BTreeSet::new(),
        };
        let mut claimed = kept.get(&stage.pack).cloned().unwrap_or(empty);
        if claimed.network != stage.network {
            return Err(KeepError::Busy);
        }
        claimed.claims.insert(stage.claim);
        self.write_claims(&stage.pack, &claimed)?;
        kept.insert(stage.pack, claimed);
        metrics::staged_packs(kept.len());
        if sums.pack.bytes() + sums.idx.bytes() > SMALL_PACK_BYTES_MAX {
            self.objects.stage_sums(&stage.pack, &sums)?;
        }
        // Under the lock: no promotion or release of the same pack may come in between.
        let staged = self.objects.stage(&stage.pack, pack, idx);
        Ok(staged.map_err(end_after_failed_sync)?)
    }

    /// The paths of a staged pack and its index.
    pub(crate) fn paths(&self, pack: &PackId) -> (PathBuf, PathBuf) {
        self.objects.staged_paths(pack)
    }

    /// Whether the pack is staged for this network.
    pub(crate) fn holds(&self, network: &NetworkId, pack: &PackId) -> bool {
        let kept = self.lock();
        kept.get(pack).is_some_and(|kept| kept.network == *network)
    }

    /// Moves the pack into its network's store, if it is not there, because an entry names it.
    /// `false` when it is neither there nor staged for it. The claims for the `request` that the
    /// entry answers end. The pack stays staged for other claims: this entry's pack may be replaced
    /// before their entries come.
    ///
    /// # Errors
    /// When the disk fails.
    pub(crate) fn promote(
        &self,
        network: &NetworkId,
        pack: &PackId,
        request: Option<RequestId>,
    ) -> Result<bool, KeepError> {
        let mut kept = self.lock();
        if let Some(entry) = kept.get_mut(pack) {
            if entry.network != *network {
                // It is promised to another network, whose entry must find it.
                return Ok(self.objects.has_pack(network, pack));
            }
            if entry.claims.iter().any(|claim| claim.outlasts(request)) {
                return self.promote_shared(network, pack, request, entry);
            }
        }
        match self.objects.promote(network, pack) {
            Ok(()) => {}
            Err(ObjectError::MissingPack(_)) => return Ok(false),
            Err(error) => return Err(end_after_failed_sync(error).into()),
        }
        // Damaged claims have no entry in the list.
        self.remove_claims(pack)?;
        if kept.remove(pack).is_some() {
            // It was staged again although the network had it already.
            self.objects.drop_staged(pack)?;
        }
        metrics::staged_packs(kept.len());
        Ok(true)
    }

    fn promote_shared(
        &self,
        network: &NetworkId,
        pack: &PackId,
        request: Option<RequestId>,
        entry: &mut Kept,
    ) -> Result<bool, KeepError> {
        match self.objects.share_staged(network, pack) {
            Ok(()) => {}
            // Claims are written before their pack arrives.
            Err(ObjectError::MissingPack(_)) => return Ok(self.objects.has_pack(network, pack)),
            Err(error) => return Err(end_after_failed_sync(error).into()),
        }
        let before = entry.claims.len();
        entry.claims.retain(|claim| claim.outlasts(request));
        if entry.claims.len() < before {
            self.write_claims(pack, entry)?;
        }
        Ok(true)
    }

    /// Whether the pack is staged here for this claim, complete by the lengths of its files. Staged
    /// packs were flushed before their claim counted.
    pub(crate) fn holds_for(&self, stage: &StageRequest) -> bool {
        let kept = self.lock();
        let claimed = kept.get(&stage.pack);
        claimed.is_some_and(|kept| kept.claims.contains(&stage.claim))
            && self
                .objects
                .is_staged(&stage.pack, stage.pack_bytes, stage.idx_bytes)
    }

    /// Whether the pack, or the half that an interrupted promotion left, is staged for this
    /// network.
    pub(crate) fn is_staged_for(&self, network: &NetworkId, pack: &PackId) -> bool {
        let kept = self.lock();
        match kept.get(pack) {
            Some(kept) => kept.network == *network,
            None => self.objects.staged_paths(pack).1.is_file(),
        }
    }

    /// Ends a claim that will not be proposed. The pack is removed with its last claim, unless
    /// `is_needed` reports that its network lacks it: an entry may name it although its promotion
    /// failed.
    ///
    /// # Errors
    /// When the disk fails.
    pub(crate) fn release(
        &self,
        pack: &PackId,
        claim: &Claim,
        is_needed: impl Fn(&Missing) -> bool,
    ) -> Result<(), KeepError> {
        self.retain(&[*pack], |known| known != claim, is_needed)
    }

    /// Groups with claims of fetches, or of terms below `term_of`.
    pub(crate) fn doubtful(&self, term_of: impl Fn(GroupId) -> u64) -> BTreeSet<GroupId> {
        let kept = self.lock();
        let claims = kept.values().flat_map(|kept| &kept.claims);
        claims
            .filter(|claim| claim.is_of_fetch() || claim.term < term_of(claim.group))
            .map(|claim| claim.group)
            .collect()
    }

    /// An entry of `term` was applied in the group: ends every claim of a lower term, and those of
    /// fetches. Packs that their network lacks according to `is_needed` keep their claims.
    ///
    /// # Errors
    /// When the disk fails.
    pub(crate) fn term_applied(
        &self,
        group: GroupId,
        term: u64,
        is_needed: impl Fn(&Missing) -> bool,
    ) -> Result<(), KeepError> {
        let all: Vec<_> = self.lock().keys().copied().collect();
        // An interrupted fetch: its pack stays only if it is still lacked.
        let keep =
            |claim: &Claim| claim.group != group || (claim.term >= term && !claim.is_of_fetch());
        self.retain(&all, keep, is_needed)
    }

    fn retain(
        &self,
        packs: &[PackId],
        keep: impl Fn(&Claim) -> bool,
        is_needed: impl Fn(&Missing) -> bool,
    ) -> Result<(), KeepError> {
        let mut kept = self.lock();
        for pack in packs {
            let Some(entry) = kept.get_mut(pack) else {
                continue;
            };
            let network = entry.network;
            let lacks = |claim: &Claim| {
                is_needed(&Missing {
                    group: claim.group,
                    network,
                    pack: *pack,
                })
            };
            if entry.claims.iter().any(lacks) {
                continue;
            }
            let before = entry.claims.len();
            entry.claims.retain(&keep);
            if entry.claims.is_empty() {
                self.objects.drop_staged(pack)?;
                self.remove_claims(pack)?;
                kept.remove(pack);
            } else if entry.claims.len() < before {
                self.write_claims(pack, entry)?;
            }
        }
        metrics::staged_packs(kept.len());
        Ok(())
    }

    fn claims_path(&self, pack: &PackId) -> PathBuf {
        self.dir.join(format!("{pack}.{EXTENSION}"))
    }

    fn write_claims(&self, pack: &PackId, claims: &Kept) -> io::Result<()> {
        let path = self.claims_path(pack);
        let unfinished = path.with_extension("new");
        fs::write(&unfinished, stored::encode(CLAIMS, 1, claims))?;
        sync(&unfinished)?;
        fs::rename(&unfinished, &path)?;
        sync(&self.dir)
    }

    fn remove_claims(&self, pack: &PackId) -> io::Result<()> {
        match fs::remove_file(self.claims_path(pack)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            Ok(()) | Err(_) => Ok(()),
        }
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<PackId, Kept>> {
        self.kept
            .lock()
            .expect("invariant: nothing panics while the claims are held")
    }
}

/// Makes a file or directory durable. A failed sync is never retried: the kernel may have dropped
/// the unwritten pages and would report success the second time. The process ends, and its restart
/// reads the disk.
fn sync(path: &Path) -> io::Result<()> {
    let file = fs::File::open(path)?;
    if let Err(error) = file.sync_all() {
        tracing::error!(path = %path.display(), %error, "a sync failed: the process ends");
        std::process::abort();
    }
    Ok(())
}

/// Ends the process after a failed sync of the object store.
pub(crate) fn end_after_failed_sync(error: ObjectError) -> ObjectError {
    if let ObjectError::Io { doing: "sync", .. } = &error {
        tracing::error!(%error, "a sync failed: the process ends");
        std::process::abort();
    }
    error
}

/// The pack of a claims file; `None` for an unfinished file.
fn pack_of(path: &Path) -> Option<PackId> {
    let finished = path.extension()? == EXTENSION;
    let name = path.file_stem()?.to_str().filter(|_| finished)?;
    name.parse().ok()
}

fn read_claims(path: &Path) -> io::Result<Kept> {
    stored::decode_v1(CLAIMS, &fs::read(path)?).map_err(io::Error::other)
}

#[cfg(test)]
mod tests {
    use super::*;
    use henge_types::{Incarnation, ObjectId, RequestId};
    use tempfile::TempDir;

    struct Fixture {
        dir: TempDir,
        objects: ObjectStore,
        staging: Staging,
    }

    fn open(dir: &TempDir) -> (ObjectStore, Staging) {
        let objects = ObjectStore::open(dir.path()).unwrap();
        let staging = Staging::open(objects.clone(), dir.path().join("claims")).unwrap();
        (objects, staging)
    }

    impl Fixture {
        fn new() -> Self {
            let dir = tempfile::tempdir().unwrap();
            let (objects, staging) = open(&dir);
            Self {
                dir,
                objects,
                staging,
            }
        }

        fn restart(self) -> Self {
            let Self {
                dir,
                objects,
                staging,
            } = self;
            drop((objects, staging));
            let (objects, staging) = open(&dir);
            Self {
                dir,
                objects,
                staging,
            }
        }

        fn keep(&self, network: u8, term: u64, counter: u64) -> Result<(), KeepError> {
            self.keep_for(&stage(network, term, counter))
        }

        fn keep_for(&self, stage: &StageRequest) -> Result<(), KeepError> {
            let (pack, idx) = (self.dir.path().join("p"), self.dir.path().join("i"));
            let (_, pack_bytes, idx_bytes) = empty_pack();
            fs::write(&pack, pack_bytes).unwrap();
            fs::write(&idx, idx_bytes).unwrap();
            self.staging.keep(stage, (&pack, &idx), Trust::Made)
        }

        fn is_staged(&self) -> bool {
            !self.objects.staged().unwrap().is_empty()
        }
    }

    fn network(byte: u8) -> NetworkId {
        NetworkId::from_bytes([byte; 16])
    }

    /// A pack without objects, and its index.
    fn empty_pack() -> (PackId, Vec<u8>, Vec<u8>) {
        use sha1::{Digest, Sha1};
        let mut pack = b"PACK\0\0\0\x02\0\0\0\0".to_vec();
        let sum: [u8; 20] = Sha1::digest(&pack).into();
        pack.extend_from_slice(&sum);
        let mut idx = vec![0xff, b't', b'O', b'c', 0, 0, 0, 2];
        idx.resize(8 + 256 * 4, 0);
        idx.extend_from_slice(&sum);
        let idx_sum: [u8; 20] = Sha1::digest(&idx).into();
        idx.extend_from_slice(&idx_sum);
        (PackId::new(ObjectId::Sha1(sum)), pack, idx)
    }

    fn stage(of: u8, term: u64, counter: u64) -> StageRequest {
        let request = RequestId {
            made_at_ms: 1,
            incarnation: Incarnation::from_bytes([0; 16]),
            counter,
        };
        StageRequest {
            network: network(of),
            pack: empty_pack().0,
            pack_bytes: 32,
            idx_bytes: 1072,
            claim: Claim {
                group: GroupId::new(1),
                term,
                request,
            },
        }
    }

    #[test]
    fn a_pack_stays_until_its_last_claim_is_released_also_over_a_restart() {
        let fixture = Fixture::new();
        fixture.keep(1, 3, 1).unwrap();
        fixture.keep(1, 3, 2).unwrap();
        let one = stage(1, 3, 1);
        fixture
            .staging
            .release(&one.pack, &one.claim, |_| false)
            .unwrap();
        let fixture = fixture.restart();
        assert!(fixture.is_staged());
        let two = stage(1, 3, 2);
        fixture
            .staging
            .release(&two.pack, &two.claim, |_| false)
            .unwrap();
        assert!(!fixture.is_staged());
    }

    #[test]
    fn claims_of_a_past_term_are_over() {
        let fixture = Fixture::new();
        fixture.keep(1, 3, 1).unwrap();
        let group = GroupId::new(1);
        assert!(fixture.staging.doubtful(|_| 3).is_empty());
        assert_eq!(fixture.staging.doubtful(|_| 4), BTreeSet::from([group]));
        fixture
            .staging
            .term_applied(GroupId::new(2), 9, |_| false)
            .unwrap();
        fixture.staging.term_applied(group, 3, |_| false).unwrap();
        assert!(fixture.is_staged());
        fixture.staging.term_applied(group, 4, |_| false).unwrap();
        assert!(!fixture.is_staged());
    }

    /// An entry named a large pack and no replica could move it into its store. The next term ended
    /// the claims, and the only copies of an acknowledged push were removed with them.
    #[test]
    fn a_staged_pack_that_its_network_lacks_outlives_its_term() {
        let fixture = Fixture::new();
        fixture.keep(1, 3, 1).unwrap();
        let (group, one) = (GroupId::new(1), stage(1, 3, 1));
        let lacks = |missing: &Missing| missing.pack == one.pack && missing.network == network(1);
        fixture.staging.term_applied(group, 4, lacks).unwrap();
        let released = fixture.staging.release(&one.pack, &one.claim, lacks);
        released.unwrap();
        assert!(fixture.staging.is_staged_for(&network(1), &one.pack));
        assert!(!fixture.staging.is_staged_for(&network(2), &one.pack));
        fixture.staging.term_applied(group, 4, |_| false).unwrap();
        assert!(!fixture.is_staged());
    }

    #[test]
    fn an_entry_takes_the_pack_and_ends_its_claims() {
        let fixture = Fixture::new();
        let pack = stage(1, 3, 1).pack;
        let request = Some(stage(1, 3, 1).claim.request);
        let promote = |fixture: &Fixture| fixture.staging.promote(&network(1), &pack, request);
        assert!(!promote(&fixture).unwrap());
        fixture.keep(1, 3, 1).unwrap();
        assert!(fixture.staging.holds_for(&stage(1, 3, 1)));
        assert!(promote(&fixture).unwrap());
        assert!(fixture.objects.has_pack(&network(1), &pack));
        assert!(!fixture.staging.holds_for(&stage(1, 3, 1)));
        assert!(promote(&fixture).unwrap(), "again is no failure");
        assert!(!fixture.restart().is_staged());
    }

    /// One flipped bit in a claims file kept the node from starting; its error message asked for an
    /// upgrade.
    #[test]
    fn a_pack_whose_claims_are_damaged_is_kept_for_whoever_names_it() {
        let fixture = Fixture::new();
        fixture.keep(1, 1, 1).unwrap();
        let pack = stage(1, 1, 1).pack;
        let path = fixture.staging.claims_path(&pack);
        let mut bytes = fs::read(&path).unwrap();
        bytes[3] ^= 0x40;
        fs::write(&path, bytes).unwrap();
        let fixture = fixture.restart().restart();
        assert!(fixture.is_staged());
        assert!(fixture.staging.promote(&network(1), &pack, None).unwrap());
        assert!(fixture.objects.has_pack(&network(1), &pack));
        assert!(!path.try_exists().unwrap() && !fixture.is_staged());
        fixture.restart();
    }

    /// A fetched pack was staged and the process killed before it went into its store. The entry's
    /// request was not that of its claim, whose term never ends: the files stayed in `staged/`, and
    /// no other network could stage the same pack.
    #[test]
    fn a_broken_off_fetch_leaves_nothing_staged() {
        let entry = stage(1, 3, 1);
        let mut fetched = stage(1, 3, 1);
        fetched.claim = Claim::of_fetch(GroupId::new(1));
        let fixture = Fixture::new();
        fixture.keep_for(&fetched).unwrap();
        let fixture = fixture.restart();
        let request = Some(entry.claim.request);
        let promoted = fixture.staging.promote(&network(1), &entry.pack, request);
        assert!(promoted.unwrap());
        assert!(!fixture.is_staged());

        // Replaced meanwhile: the network no longer lacks it.
        let fixture = Fixture::new();
        fixture.keep_for(&fetched).unwrap();
        let group = GroupId::new(1);
        assert_eq!(fixture.staging.doubtful(|_| 0), BTreeSet::from([group]));
        fixture.staging.term_applied(group, 3, |_| true).unwrap();
        assert!(fixture.is_staged());
        fixture.staging.term_applied(group, 3, |_| false).unwrap();
        assert!(!fixture.is_staged());
    }

    /// Two pushes of one pack to one network were staged. The entry of the first took the pack and
    /// ended the claims of both. A compaction replaced the pack and removed its files. Then the
    /// entry of the second push named a pack that no replica had any more.
    #[test]
    fn an_entry_ends_no_claim_of_another_push() {
        let fixture = Fixture::new();
        let (first, second) = (stage(1, 3, 1), stage(1, 3, 2));
        let (pack, request) = (first.pack, |of: &StageRequest| Some(of.claim.request));
        fixture.keep(1, 3, 1).unwrap();
        fixture.keep(1, 3, 2).unwrap();
        for _ in ["once", "replayed"] {
            let promoted = fixture.staging.promote(&network(1), &pack, request(&first));
            assert!(promoted.unwrap());
            assert!(fixture.objects.has_pack(&network(1), &pack));
            assert!(fixture.staging.holds_for(&second) && !fixture.staging.holds_for(&first));
        }
        let fixture = fixture.restart();
        fixture.objects.remove_pack(&network(1), &pack).unwrap();
        assert!(
            fixture.staging.holds_for(&second),
            "promised, and still there"
        );
        let promoted = fixture
            .staging
            .promote(&network(1), &pack, request(&second));
        assert!(promoted.unwrap());
        assert!(fixture.objects.has_pack(&network(1), &pack));
        assert!(!fixture.is_staged());
    }

    /// A compaction's entry must not take a pack that is promised to a push, even if that is the
    /// only claim.
    #[test]
    fn a_compaction_s_entry_ends_only_claims_of_no_request() {
        let fixture = Fixture::new();
        fixture.keep(1, 3, 1).unwrap();
        let pack = stage(1, 3, 1).pack;
        assert!(fixture.staging.promote(&network(1), &pack, None).unwrap());
        assert!(fixture.staging.holds_for(&stage(1, 3, 1)));
        let own = StageRequest {
            claim: Claim::of_no_request(GroupId::new(1), 3),
            ..stage(1, 3, 1)
        };
        fixture.keep_for(&own).unwrap();
        assert!(fixture.staging.holds_for(&own));
        assert!(fixture.staging.promote(&network(1), &pack, None).unwrap());
        assert!(!fixture.staging.holds_for(&own));
        assert!(fixture.staging.holds_for(&stage(1, 3, 1)));
    }

    #[test]
    fn a_staged_pack_that_lost_a_file_is_not_held() {
        let fixture = Fixture::new();
        fixture.keep(1, 3, 1).unwrap();
        let (pack, _) = fixture.staging.paths(&stage(1, 3, 1).pack);
        fs::write(pack, b"").unwrap();
        assert!(!fixture.staging.holds_for(&stage(1, 3, 1)));
    }

    #[test]
    fn what_was_promised_to_one_network_is_not_given_to_another() {
        let fixture = Fixture::new();
        fixture.keep(1, 3, 1).unwrap();
        assert!(matches!(fixture.keep(2, 3, 2), Err(KeepError::Busy)));
        let pack = stage(1, 3, 1).pack;
        let request = Some(stage(1, 3, 1).claim.request);
        let promote = |of| fixture.staging.promote(&network(of), &pack, request);
        assert!(!promote(2).unwrap());
        assert!(promote(1).unwrap());
        fixture.keep(2, 3, 2).unwrap();
    }

    #[test]
    fn a_staged_pack_without_a_claim_was_never_promised() {
        let fixture = Fixture::new();
        fixture.keep(1, 3, 1).unwrap();
        let pack = stage(1, 3, 1).pack;
        fs::remove_file(fixture.staging.claims_path(&pack)).unwrap();
        assert!(!fixture.restart().is_staged());
    }

    /// Claims are on disk beside staged packs: the format may only be extended.
    #[test]
    fn the_bytes_of_claims_are_fixed() {
        let kept = Kept {
            network: NetworkId::from_bytes([2; 16]),
            claims: BTreeSet::from([Claim {
                group: GroupId::new(1),
                term: 7,
                request: RequestId {
                    made_at_ms: 300,
                    incarnation: Incarnation::from_bytes([3; 16]),
                    counter: 5,
                },
            }]),
        };
        let bytes = stored::encode(CLAIMS, 1, &kept);
        let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        let golden = include_str!("../tests/golden/claims.hex");
        assert_eq!(format!("claims {hex}\n"), golden);
        assert_eq!(stored::decode_v1(CLAIMS, &bytes), Ok(kept));
    }
}
