//! A naive model of a shard: its repositories, their settings and forks.

use std::collections::BTreeMap;

use henge_state::Effect;
use henge_types::{
    Command, ConfigureRepo, ForkRepo, Generation, LogIndex, MirrorId, NetworkId, NonceSeed,
    ObjectFormat, ObjectId, PushCertificateRecord, PushRules, RefName, RefPattern, Refusal, RepoId,
    RepoLimits, ShardCommand,
};

use super::Answer;
use super::group::{GroupModel, ModelEntry};
use super::mirrors::ModelMirror;
use super::networks::ModelNetwork;

/// A live repository.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct ModelRepo {
    pub(super) network: NetworkId,
    pub(super) generation: Generation,
    pub(super) head: RefName,
    pub(super) object_format: ObjectFormat,
    /// The last entry that moved a ref or HEAD, and its time.
    pub(super) updated_at: LogIndex,
    pub(super) updated_at_ms: u64,
    pub(super) revision: LogIndex,
    pub(super) archived: bool,
    /// Pattern to the time when it was set.
    pub(super) protected: BTreeMap<RefPattern, u64>,
    /// The last entry that changed the patterns.
    pub(super) protected_at: LogIndex,
    pub(super) refs: BTreeMap<RefName, ObjectId>,
    /// Former tip to the last time when a ref lost it.
    pub(super) lost: BTreeMap<ObjectId, u64>,
    pub(super) limits: RepoLimits,
    pub(super) rules: PushRules,
    pub(super) mirrors: BTreeMap<MirrorId, ModelMirror>,
    /// The oldest first.
    pub(super) certificates: Vec<PushCertificateRecord>,
}

impl ModelRepo {
    fn new(
        (network, generation): (NetworkId, Generation),
        head: &RefName,
        object_format: ObjectFormat,
        entry: ModelEntry,
    ) -> Self {
        Self {
            network,
            generation,
            head: head.clone(),
            object_format,
            updated_at: entry.index,
            updated_at_ms: entry.now_ms,
            revision: LogIndex::new(0),
            archived: false,
            protected: BTreeMap::new(),
            protected_at: LogIndex::new(0),
            refs: BTreeMap::new(),
            lost: BTreeMap::new(),
            limits: RepoLimits::default(),
            rules: PushRules::default(),
            mirrors: BTreeMap::new(),
            certificates: Vec::new(),
        }
    }

    /// A ref or HEAD has moved.
    pub(super) const fn touch(&mut self, entry: ModelEntry) {
        self.updated_at = entry.index;
        self.updated_at_ms = entry.now_ms;
    }

    fn set_head(&mut self, head: &RefName, entry: ModelEntry) {
        if self.head != *head {
            self.head = head.clone();
            self.touch(entry);
        }
    }
}

#[derive(Debug, Clone)]
pub(crate) struct ShardModel {
    pub(super) group: GroupModel,
    /// `None` after the drop.
    pub(super) repos: BTreeMap<RepoId, Option<ModelRepo>>,
    /// Networks with a live repository.
    pub(super) networks: BTreeMap<NetworkId, ModelNetwork>,
    pub(super) nonce_seed: Option<NonceSeed>,
}

impl ShardModel {
    pub(crate) const fn new() -> Self {
        Self {
            group: GroupModel::new(),
            repos: BTreeMap::new(),
            networks: BTreeMap::new(),
            nonce_seed: None,
        }
    }

    /// The next entry, at this clock of its proposer.
    pub(crate) fn run(&mut self, command: &Command, clock_ms: u64) -> Answer {
        let entry = self.group.enter(clock_ms);
        match command {
            Command::VersionBarrier { version } => {
                self.group.raise(*version, entry);
                Answer::done(Ok(()))
            }
            Command::MoveTime { clocks } => Answer::done(self.group.move_time(clocks)),
            Command::Shard(command) => self.execute(command, entry),
            Command::Meta(_) => Answer::done(Err(Refusal::Invalid)),
        }
    }

    fn execute(&mut self, command: &ShardCommand, entry: ModelEntry) -> Answer {
        match command {
            ShardCommand::CreateRepo {
                repo,
                network,
                generation,
                head,
                object_format,
            } => {
                let made = ModelRepo::new((*network, *generation), head, *object_format, entry);
                Answer::done(self.create(*repo, made))
            }
            ShardCommand::DropRepo { repo } => self.drop_repo(*repo),
            ShardCommand::UpdateRefs(push) => self.push(push, entry),
            ShardCommand::SetHead {
                repo,
                generation,
                head,
            } => Answer::done(self.set_head((*repo, *generation), head, entry)),
            ShardCommand::ReplacePacks(replace) => self.replace_packs(replace, entry),
            ShardCommand::MarkUnreachable {
                network,
                instead_of,
                found,
            } => Answer::done(self.mark(network, (*instead_of, *found), entry)),
            ShardCommand::PrunePacks(prune) => self.prune_packs(prune, entry),
            ShardCommand::ForkRepo(fork) => Answer::done(self.fork(fork, entry)),
            ShardCommand::SetLimits {
                repo,
                generation,
                limits,
            } => {
                let found = self.live_mut(repo, *generation);
                Answer::done(found.map(|repo| repo.limits = *limits))
            }
            ShardCommand::SetPushRules {
                repo,
                generation,
                rules,
            } => {
                let found = self.live_mut(repo, *generation);
                Answer::done(found.map(|repo| repo.rules = *rules))
            }
            ShardCommand::ConfigureRepo(settings) => Answer::done(self.configure(settings, entry)),
            ShardCommand::ProtectRefs {
                repo,
                generation,
                pattern,
            } => Answer::done(self.protect((*repo, *generation), pattern, entry)),
            ShardCommand::UnprotectRefs {
                repo,
                generation,
                pattern,
            } => Answer::done(self.unprotect((*repo, *generation), pattern, entry)),
            ShardCommand::SetMirror(set) => Answer::done(self.set_mirror(set, entry)),
            ShardCommand::ChangeMirror(change) => Answer::done(self.change_mirror(change, entry)),
            ShardCommand::BeginMirror(begin) => Answer::done(self.begin_mirror(begin, entry)),
            ShardCommand::RecordMirror(record) => Answer::done(self.record_mirror(record, entry)),
            ShardCommand::UpdateSignedRefs(signed) => self.push_signed(signed, entry),
            ShardCommand::SetNonceSeed(seed) => {
                let known = self.nonce_seed.take();
                self.nonce_seed = known.or_else(|| Some(seed.clone()));
                Answer::done(Ok(()))
            }
            ShardCommand::EditMirror(edit) => Answer::done(self.edit_mirror(edit, entry)),
        }
    }

    /// The repository, if its present generation or a later one is named.
    pub(super) fn live(
        &self,
        repo: &RepoId,
        generation: Generation,
    ) -> Result<&ModelRepo, Refusal> {
        let found = self.repos.get(repo).and_then(Option::as_ref);
        let found = found.ok_or(Refusal::NoSuchRepo { repo: *repo })?;
        if found.generation > generation {
            return Err(Refusal::WrongGeneration {
                named: generation,
                current: found.generation,
            });
        }
        Ok(found)
    }

    pub(super) fn live_mut(
        &mut self,
        repo: &RepoId,
        generation: Generation,
    ) -> Result<&mut ModelRepo, Refusal> {
        self.live(repo, generation)?;
        let found = self.repos.get_mut(repo).and_then(Option::as_mut);
        Ok(found.expect("it was found a moment ago"))
    }

    /// The live repositories of a network, by id.
    pub(super) fn repos_of(&self, network: &NetworkId) -> Vec<RepoId> {
        let mut found = Vec::new();
        for (id, repo) in &self.repos {
            if repo.as_ref().is_some_and(|repo| repo.network == *network) {
                found.push(*id);
            }
        }
        found
    }

    fn create(&mut self, repo: RepoId, made: ModelRepo) -> Result<(), Refusal> {
        match self.repos.get(&repo) {
            Some(Some(known))
                if (known.network, known.generation, known.object_format)
                    == (made.network, made.generation, made.object_format) =>
            {
                return Ok(());
            }
            Some(_) => return Err(Refusal::WrongState { repo }),
            None => {}
        }
        let mut others = self.repos.values().flatten();
        let has_other_format = others.any(|other| {
            other.network == made.network && other.object_format != made.object_format
        });
        if has_other_format || !made.head.is_branch() {
            return Err(Refusal::Invalid);
        }
        self.networks.entry(made.network).or_default();
        self.repos.insert(repo, Some(made));
        Ok(())
    }

    fn drop_repo(&mut self, repo: RepoId) -> Answer {
        let Some(dropped) = self.repos.insert(repo, None).flatten() else {
            return Answer::done(Ok(()));
        };
        let network = dropped.network;
        if self.repos_of(&network).is_empty() {
            self.networks.remove(&network);
        } else {
            self.suspect(&network);
        }
        Answer::with(Ok(()), Effect::DropRepo { network, repo })
    }

    fn fork(&mut self, fork: &ForkRepo, entry: ModelEntry) -> Result<(), Refusal> {
        match self.repos.get(&fork.repo) {
            Some(Some(known))
                if (known.network, known.generation) == (fork.network, fork.generation) =>
            {
                return Ok(());
            }
            Some(_) => return Err(Refusal::WrongState { repo: fork.repo }),
            None => {}
        }
        let parent = self.repos.get(&fork.parent).and_then(Option::as_ref);
        let parent = parent.filter(|parent| parent.network == fork.network);
        let parent = parent.ok_or(Refusal::NoSuchRepo { repo: fork.parent })?;
        let life = (fork.network, fork.generation);
        let made = ModelRepo {
            refs: parent.refs.clone(),
            limits: parent.limits,
            rules: parent.rules,
            ..ModelRepo::new(life, &parent.head, parent.object_format, entry)
        };
        self.repos.insert(fork.repo, Some(made));
        self.network_mut(&fork.network)?.is_shared = true;
        Ok(())
    }

    fn set_head(
        &mut self,
        (repo, generation): (RepoId, Generation),
        head: &RefName,
        entry: ModelEntry,
    ) -> Result<(), Refusal> {
        let repo = self.live_mut(&repo, generation)?;
        if !head.is_branch() {
            return Err(Refusal::Invalid);
        }
        repo.set_head(head, entry);
        Ok(())
    }

    fn configure(&mut self, settings: &ConfigureRepo, entry: ModelEntry) -> Result<(), Refusal> {
        let repo = self.repos.get_mut(&settings.repo).and_then(Option::as_mut);
        let repo = repo.ok_or(Refusal::NoSuchRepo {
            repo: settings.repo,
        })?;
        if settings.head.as_ref().is_some_and(|head| !head.is_branch()) {
            return Err(Refusal::Invalid);
        }
        if settings.revision <= repo.revision {
            return Ok(());
        }
        repo.revision = settings.revision;
        repo.archived = settings.archived;
        repo.generation = repo.generation.max(settings.generation);
        if let Some(head) = &settings.head {
            repo.set_head(head, entry);
        }
        Ok(())
    }

    fn protect(
        &mut self,
        (repo, generation): (RepoId, Generation),
        pattern: &RefPattern,
        entry: ModelEntry,
    ) -> Result<(), Refusal> {
        let repo = self.live_mut(&repo, generation)?;
        let is_known = repo.protected.contains_key(pattern);
        if is_known {
            return Err(Refusal::ProtectionExists);
        }
        repo.protected.insert(pattern.clone(), entry.now_ms);
        repo.protected_at = entry.index;
        Ok(())
    }

    fn unprotect(
        &mut self,
        (repo, generation): (RepoId, Generation),
        pattern: &RefPattern,
        entry: ModelEntry,
    ) -> Result<(), Refusal> {
        let repo = self.live_mut(&repo, generation)?;
        let removed = repo.protected.remove(pattern);
        removed.ok_or(Refusal::NoSuchProtection)?;
        repo.protected_at = entry.index;
        Ok(())
    }
}
