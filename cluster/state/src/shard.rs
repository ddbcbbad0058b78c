//! A shard: its repositories, their refs, the manifests of their networks' packs, former tips.

mod certificates;
mod compaction;
mod forks;
mod former_tips;
mod lifecycle;
mod mirrors;
mod name_conflicts;
mod packs;
mod protection;
mod pruning;
mod push;
mod quota;

use henge_types::limits::{FORMER_TIP_MS, TIME_STEP_MS_MAX};
use henge_types::{
    Generation, LogIndex, Mirror, MirrorId, MirrorKind, MirrorRemovalRecord, NetworkId, NonceSeed,
    ObjectId, PackId, PackRecord, PruneMark, PushCertificateRecord, PushRules, RefName,
    RefProtections, Refusal, RepoId, RepoLimits, RequestId, ShardCommand, ShardRepo,
    ShardRepoState,
};

use crate::apply::Entry;
use crate::changes::Changes;
use crate::keys;
use crate::outcome::Outcome;
use crate::requests::{self, RecordedRequest};
use crate::view::{View, decode, decode_u64};

/// Reads a shard's state.
#[derive(Debug)]
pub struct ShardView<'v, V> {
    view: &'v V,
}

impl<V> Clone for ShardView<'_, V> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<V> Copy for ShardView<'_, V> {}

impl<'v, V: View> ShardView<'v, V> {
    /// Reads from these pairs, which must be a shard's.
    pub const fn new(view: &'v V) -> Self {
        Self { view }
    }

    /// A repository, live or dropped. It has generation 0 if it was dropped before it was ever
    /// created here.
    pub fn repo(self, repo: &RepoId) -> Option<ShardRepo> {
        let key = keys::shard_repo(repo);
        let bytes = self.view.get(&key)?;
        Some(decode(&key, &bytes))
    }

    /// The repository, if it is live and served in this generation.
    ///
    /// # Errors
    /// `NoSuchRepo` when it is unknown or dropped. `WrongGeneration` when the named generation is
    /// older than the repository's: the resolved name may lead to another repository by now. A
    /// later generation is accepted: the shard has yet to get it.
    pub fn live_repo(self, repo: &RepoId, generation: Generation) -> Result<ShardRepo, Refusal> {
        let record = self
            .repo(repo)
            .filter(|record| record.state == ShardRepoState::Live)
            .ok_or(Refusal::NoSuchRepo { repo: *repo })?;
        if record.generation <= generation {
            Ok(record)
        } else {
            Err(Refusal::WrongGeneration {
                named: generation,
                current: record.generation,
            })
        }
    }

    /// All repositories, live or dropped, by id.
    pub fn repos(self) -> impl Iterator<Item = ShardRepo> + use<'v, V> {
        let all = keys::shard_repos();
        let pairs = self.view.range(&all, &all);
        pairs.map(|(key, bytes)| decode(key, bytes))
    }

    /// The networks with at least one live repository, by id.
    pub fn networks(self) -> Vec<NetworkId> {
        let all = keys::networks();
        let marks = self.view.range(&all, &all);
        let mut networks: Vec<_> = marks
            .map(|(key, _)| {
                keys::network_of(key)
                    .map(|(network, _)| network)
                    .unwrap_or_else(|| panic!("broken key {key:?}: state damaged"))
            })
            .collect();
        networks.dedup();
        networks
    }

    /// Whether the network has a live repository.
    pub fn network_is_live(self, network: &NetworkId) -> bool {
        let all = keys::network_repos(network);
        self.view.range(&all, &all).next().is_some()
    }

    /// A live repository of the network, for the properties that all of them share, for example the
    /// object format.
    pub fn any_repo_of(self, network: &NetworkId) -> Option<ShardRepo> {
        let all = keys::network_repos(network);
        let (key, _) = self.view.range(&all, &all).next()?;
        let (_, repo) =
            keys::network_of(key).unwrap_or_else(|| panic!("broken key {key:?}: state damaged"));
        self.repo(&repo)
    }

    /// The live repositories of a network, by id.
    pub fn repos_of(self, network: &NetworkId) -> impl Iterator<Item = RepoId> + use<'v, V> {
        let all = keys::network_repos(network);
        let marks = self.view.range(&all, &all);
        marks.map(|(key, _)| {
            keys::network_of(key)
                .map(|(_, repo)| repo)
                .unwrap_or_else(|| panic!("broken key {key:?}: state damaged"))
        })
    }

    /// The refs whose names start with `prefix`, by name.
    pub fn refs(
        self,
        repo: &RepoId,
        prefix: &str,
    ) -> impl Iterator<Item = (RefName, ObjectId)> + use<'v, V> {
        self.ref_texts(repo, prefix).map(|(name, value)| {
            let parsed = name.parse();
            let name = parsed.unwrap_or_else(|error| panic!("stored ref: {error}: state damaged"));
            (name, value)
        })
    }

    /// The same, with the stored names: for advertisements of very many refs.
    pub fn ref_texts(
        self,
        repo: &RepoId,
        prefix: &str,
    ) -> impl Iterator<Item = (&'v str, ObjectId)> + use<'v, V> {
        let all = keys::refs(repo, prefix);
        let pairs = self.view.range(&all, &all);
        pairs.map(|(key, bytes)| {
            let name = keys::ref_name(key)
                .unwrap_or_else(|| panic!("ref with a broken key {key:?}: state damaged"));
            (name, object(key, bytes))
        })
    }

    /// The value of a ref.
    pub fn ref_value(self, repo: &RepoId, name: &RefName) -> Option<ObjectId> {
        let key = keys::reference(repo, name);
        self.view.get(&key).map(|bytes| object(&key, &bytes))
    }

    /// The manifest of a network, by pack.
    pub fn packs(self, network: &NetworkId) -> impl Iterator<Item = PackRecord> + use<'v, V> {
        let all = keys::packs(network);
        let pairs = self.view.range(&all, &all);
        pairs.map(|(key, bytes)| decode(key, bytes))
    }

    /// A pack of the manifest.
    pub fn pack(self, network: &NetworkId, pack: &PackId) -> Option<PackRecord> {
        let key = keys::pack(network, pack);
        let bytes = self.view.get(&key)?;
        Some(decode(&key, &bytes))
    }

    /// The protected refs of a repository.
    pub fn protections(self, repo: &RepoId) -> RefProtections {
        let key = keys::protections(repo);
        let bytes = self.view.get(&key);
        bytes.map_or_else(RefProtections::default, |bytes| decode(&key, &bytes))
    }

    /// A mirror of a repository.
    pub fn mirror(self, repo: &RepoId, mirror: &MirrorId) -> Option<Mirror> {
        let key = keys::mirror(repo, mirror);
        let bytes = self.view.get(&key)?;
        Some(decode(&key, &bytes))
    }

    /// The refs that runs of a mirror may remove, if that is not the default of at most half of
    /// them.
    pub fn mirror_removal(self, repo: &RepoId, mirror: &MirrorId) -> Option<MirrorRemovalRecord> {
        let key = keys::mirror_removal(repo, mirror);
        let bytes = self.view.get(&key)?;
        Some(decode(&key, &bytes))
    }

    /// The mirrors of a repository, by id.
    pub fn mirrors_of(self, repo: &RepoId) -> impl Iterator<Item = Mirror> + use<'v, V> {
        let all = keys::mirrors_of(repo);
        let pairs = self.view.range(&all, &all);
        pairs.map(|(key, bytes)| decode(key, bytes))
    }

    /// All mirrors, by repository and id.
    pub fn mirrors(self) -> impl Iterator<Item = Mirror> + use<'v, V> {
        let all = keys::mirrors();
        let pairs = self.view.range(&all, &all);
        pairs.map(|(key, bytes)| decode(key, bytes))
    }

    /// The mirror by which a repository follows another one, if there is one: the repository
    /// accepts no other pushes.
    pub fn pull_mirror(self, repo: &RepoId) -> Option<Mirror> {
        self.mirrors_of(repo)
            .find(|mirror| mirror.settings.kind == MirrorKind::Pull)
    }

    /// Whether a ref of the repository had this value within the last [`FORMER_TIP_MS`] and lost
    /// it. Present values of refs are not considered.
    pub fn was_tip_recently(self, repo: &RepoId, tip: &ObjectId, now_ms: u64) -> bool {
        let key = keys::former_tip(repo, tip);
        self.view.get(&key).is_some_and(|bytes| {
            let until_ms = decode_u64(&key, &bytes);
            now_ms.saturating_sub(until_ms) <= FORMER_TIP_MS
        })
    }

    /// The time for a read of the state at this clock, milliseconds since the Unix epoch: as near
    /// to the group's own time as that of an entry.
    pub fn now_ms(self, clock_ms: u64) -> u64 {
        crate::time_ms(self.view).map_or(clock_ms, |last| {
            clock_ms.clamp(last, last.saturating_add(TIME_STEP_MS_MAX))
        })
    }

    /// The recorded values that refs of the repository lost, with the times of their loss,
    /// milliseconds since the Unix epoch.
    pub fn former_tips(self, repo: &RepoId) -> impl Iterator<Item = (ObjectId, u64)> + use<'v, V> {
        let all = keys::former_tips(repo);
        self.view.range(&all, &all).map(|(key, bytes)| {
            let tip = keys::former_tip_of(key).map(|(_, tip)| tip);
            let tip = tip
                .unwrap_or_else(|| panic!("former tip with a broken key {key:?}: state damaged"));
            (tip, decode_u64(key, bytes))
        })
    }

    /// The network's mark for the removal of unreachable objects.
    pub fn prune_mark(self, network: &NetworkId) -> Option<PruneMark> {
        let key = keys::prune_mark(network);
        let bytes = self.view.get(&key)?;
        Some(decode(&key, &bytes))
    }

    /// The last entry that removed objects of the network: checks before it are void.
    pub fn pruned_at(self, network: &NetworkId) -> Option<LogIndex> {
        let key = keys::pruned_at(network);
        let bytes = self.view.get(&key)?;
        Some(LogIndex::new(decode_u64(&key, &bytes)))
    }

    /// The values that refs of the network lost since its mark, in order.
    pub fn lost_tips(self, network: &NetworkId) -> impl Iterator<Item = ObjectId> + use<'v, V> {
        let lost = keys::lost_tips(network);
        self.view.range(&lost, &lost).map(|(key, _)| {
            let tip = keys::lost_tip_of(key);
            tip.unwrap_or_else(|| panic!("lost tip with a broken key {key:?}: state damaged"))
        })
    }

    /// The tips of a network whose objects must be kept: the values of its refs, those that clients
    /// may have seen since `since_ms`, and those that refs lost since the mark. In order, without
    /// duplicates.
    pub fn kept_tips(self, network: &NetworkId, since_ms: u64) -> Vec<ObjectId> {
        let mut tips: Vec<_> = self.lost_tips(network).collect();
        for repo in self.repos_of(network) {
            tips.extend(self.ref_texts(&repo, "").map(|(_, tip)| tip));
            let former = self.former_tips(&repo);
            let former = former.filter(|(_, lost_ms)| *lost_ms >= since_ms);
            tips.extend(former.map(|(tip, _)| tip));
        }
        tips.sort_unstable();
        tips.dedup();
        tips
    }

    /// Whether the network ever had more than one repository: its packs may hold objects that not
    /// all of them may read.
    pub fn is_shared(self, network: &NetworkId) -> bool {
        self.view.get(&keys::shared(network)).is_some()
    }

    /// The quota of a repository.
    pub fn limits(self, repo: &RepoId) -> RepoLimits {
        let key = keys::repo_limits(repo);
        let bytes = self.view.get(&key);
        bytes.map_or_else(RepoLimits::default, |bytes| decode(&key, &bytes))
    }

    /// The push rules of a repository.
    pub fn push_rules(self, repo: &RepoId) -> PushRules {
        let key = keys::push_rules(repo);
        let bytes = self.view.get(&key);
        bytes.map_or_else(PushRules::default, |bytes| decode(&key, &bytes))
    }

    /// The push certificates of a repository, the oldest first.
    pub fn push_certificates(
        self,
        repo: &RepoId,
    ) -> impl Iterator<Item = PushCertificateRecord> + use<'v, V> {
        let all = keys::push_certificates(repo);
        let pairs = self.view.range(&all, &all);
        pairs.map(|(key, bytes)| decode(key, bytes))
    }

    /// The seed of the nonces of push certificates; none before the first nonce was requested.
    pub fn nonce_seed(self) -> Option<NonceSeed> {
        let key = keys::nonce_seed();
        let bytes = self.view.get(&key)?;
        Some(decode(&key, &bytes))
    }

    /// The record of a request, while it is kept.
    pub fn request(self, id: &RequestId) -> Option<RecordedRequest> {
        requests::find(self.view, id)
    }
}

fn object(key: &[u8], bytes: &[u8]) -> ObjectId {
    ObjectId::from_bytes(bytes).unwrap_or_else(|| {
        let key = bytes::Bytes::copy_from_slice(key);
        panic!("value of ref {key:?} is no object id: state damaged")
    })
}

pub(crate) fn execute(
    changes: &mut Changes<'_, impl View>,
    entry: &Entry,
    command: &ShardCommand,
) -> Outcome {
    match command {
        ShardCommand::CreateRepo {
            repo,
            network,
            generation,
            head,
            object_format,
        } => {
            let made = ShardRepo {
                repo: *repo,
                network: *network,
                generation: *generation,
                state: ShardRepoState::Live,
                head: head.clone(),
                updated_at: entry.index,
                updated_at_ms: entry.now_ms,
                revision: LogIndex::new(0),
                archived: false,
                object_format: *object_format,
            };
            lifecycle::create(changes, &made)
        }
        ShardCommand::DropRepo { repo } => lifecycle::drop_repo(changes, entry, repo),
        ShardCommand::UpdateRefs(push) => push::update_refs(changes, entry, push),
        ShardCommand::SetHead {
            repo,
            generation,
            head,
        } => lifecycle::set_head(changes, entry, repo, *generation, head),
        ShardCommand::ReplacePacks(replace) => compaction::replace_packs(changes, entry, replace),
        ShardCommand::MarkUnreachable {
            network,
            instead_of,
            found,
        } => pruning::mark(changes, entry, network, (*instead_of, *found)),
        ShardCommand::PrunePacks(prune) => pruning::prune_packs(changes, entry, prune),
        ShardCommand::ForkRepo(fork) => forks::fork(changes, entry, fork),
        ShardCommand::SetLimits {
            repo,
            generation,
            limits,
        } => lifecycle::set_limits(changes, repo, *generation, limits),
        ShardCommand::SetPushRules {
            repo,
            generation,
            rules,
        } => lifecycle::set_push_rules(changes, repo, *generation, *rules),
        ShardCommand::ConfigureRepo(settings) => lifecycle::configure(changes, entry, settings),
        ShardCommand::ProtectRefs {
            repo,
            generation,
            pattern,
        } => protection::protect(changes, entry, (repo, *generation), pattern),
        ShardCommand::UnprotectRefs {
            repo,
            generation,
            pattern,
        } => protection::unprotect(changes, entry, (repo, *generation), pattern),
        ShardCommand::SetMirror(set) => mirrors::set(changes, entry, set),
        ShardCommand::ChangeMirror(change) => mirrors::change(changes, entry, change),
        ShardCommand::BeginMirror(begin) => mirrors::begin(changes, entry, begin),
        ShardCommand::RecordMirror(record) => mirrors::record(changes, entry, record),
        ShardCommand::UpdateSignedRefs(signed) => certificates::update_refs(changes, entry, signed),
        ShardCommand::SetNonceSeed(seed) => certificates::set_nonce_seed(changes, seed),
        ShardCommand::EditMirror(edit) => mirrors::edit(changes, entry, edit),
    }
}

/// Writes the repository as changed by the entry at `index`.
fn put_updated(
    changes: &mut Changes<'_, impl View>,
    mut repo: ShardRepo,
    index: LogIndex,
    at_ms: u64,
) {
    repo.updated_at = index;
    repo.updated_at_ms = at_ms;
    put(changes, &repo);
}

fn put(changes: &mut Changes<'_, impl View>, repo: &ShardRepo) {
    changes.put_record(keys::shard_repo(&repo.repo), repo);
}
