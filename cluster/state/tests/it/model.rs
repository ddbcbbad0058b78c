//! A shard told naively: no keys, no overlay, no indexes, every rule by looking at everything.

use std::collections::{BTreeMap, BTreeSet};

use henge_types::limits::FORMER_TIP_MS;
use henge_types::{
    ConfigureRepo, ForkRepo, Generation, LogIndex, NetworkId, ObjectFormat, ObjectId, PackId,
    PreviousValue, RefName, RefPattern, RefRefusal, RefUpdate, RefVerdict, Refusal, ReplacePacks,
    Reply, RepoId, ShardCommand, UpdateRefs,
};

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ModelRepo {
    pub(crate) network: NetworkId,
    pub(crate) generation: Generation,
    pub(crate) head: RefName,
    pub(crate) object_format: ObjectFormat,
    pub(crate) revision: LogIndex,
    pub(crate) archived: bool,
    pub(crate) protected: BTreeSet<RefPattern>,
    /// When the protected refs changed last: the number of the command.
    pub(crate) protected_at: u64,
    pub(crate) refs: BTreeMap<RefName, ObjectId>,
    /// Object to the last time that a ref lost it.
    pub(crate) lost: BTreeMap<ObjectId, u64>,
}

#[derive(Debug, Clone, Default)]
pub(crate) struct Model {
    /// `None` once dropped.
    pub(crate) repos: BTreeMap<RepoId, Option<ModelRepo>>,
    pub(crate) packs: BTreeMap<NetworkId, BTreeSet<PackId>>,
    /// Commands so far.
    pub(crate) index: u64,
}

impl Model {
    pub(crate) fn run(&mut self, command: &ShardCommand, now_ms: u64) -> Reply {
        self.index += 1;
        match command {
            ShardCommand::CreateRepo {
                repo,
                network,
                generation,
                head,
                object_format,
            } => match self.repos.get(repo) {
                None if self.has_other_format(network, *object_format) => {
                    Reply::Refused(Refusal::Invalid)
                }
                None => {
                    let made = ModelRepo {
                        network: *network,
                        generation: *generation,
                        head: head.clone(),
                        object_format: *object_format,
                        revision: LogIndex::new(0),
                        archived: false,
                        protected: BTreeSet::new(),
                        protected_at: 0,
                        refs: BTreeMap::new(),
                        lost: BTreeMap::new(),
                    };
                    self.repos.insert(*repo, Some(made));
                    Reply::Done
                }
                Some(Some(known))
                    if (known.network, known.generation, known.object_format)
                        == (*network, *generation, *object_format) =>
                {
                    Reply::Done
                }
                Some(_) => Reply::Refused(Refusal::WrongState { repo: *repo }),
            },
            ShardCommand::DropRepo { repo } => {
                self.repos.insert(*repo, None);
                let live: BTreeSet<_> = self.repos.values().flatten().map(|r| r.network).collect();
                self.packs.retain(|network, _| live.contains(network));
                Reply::Done
            }
            ShardCommand::SetHead {
                repo,
                generation,
                head,
            } => self.set_head(repo, *generation, head),
            ShardCommand::UpdateRefs(push) => self.push(push, now_ms),
            ShardCommand::ReplacePacks(replace) => self.replace(replace),
            ShardCommand::ForkRepo(fork) => self.fork(fork),
            // Of these no reply tells what they are for: they have tests of their own.
            ShardCommand::MarkUnreachable { .. }
            | ShardCommand::PrunePacks(_)
            | ShardCommand::SetLimits { .. }
            | ShardCommand::SetPushRules { .. }
            | ShardCommand::SetMirror(_)
            | ShardCommand::ChangeMirror(_)
            | ShardCommand::BeginMirror(_)
            | ShardCommand::RecordMirror(_)
            | ShardCommand::UpdateSignedRefs(_)
            | ShardCommand::SetNonceSeed(_)
            | ShardCommand::EditMirror(_) => panic!("not drawn: {command:?}"),
            ShardCommand::ConfigureRepo(settings) => self.configure(settings),
            ShardCommand::ProtectRefs { .. } | ShardCommand::UnprotectRefs { .. } => {
                self.change_protection(command)
            }
        }
    }

    fn set_head(&mut self, repo: &RepoId, generation: Generation, head: &RefName) -> Reply {
        match self.live(repo, generation) {
            Ok(repo) => {
                repo.head = head.clone();
                Reply::Done
            }
            Err(refusal) => Reply::Refused(refusal),
        }
    }

    fn change_protection(&mut self, command: &ShardCommand) -> Reply {
        let (ShardCommand::ProtectRefs {
            repo,
            generation,
            pattern,
        }
        | ShardCommand::UnprotectRefs {
            repo,
            generation,
            pattern,
        }) = command
        else {
            panic!("no change of protection: {command:?}");
        };
        let adds = matches!(command, ShardCommand::ProtectRefs { .. });
        self.protect((repo, *generation), |protected| match adds {
            true if protected.insert(pattern.clone()) => Ok(()),
            true => Err(Refusal::ProtectionExists),
            false if protected.remove(pattern) => Ok(()),
            false => Err(Refusal::NoSuchProtection),
        })
    }

    fn configure(&mut self, settings: &ConfigureRepo) -> Reply {
        let Some(Some(repo)) = self.repos.get_mut(&settings.repo) else {
            return Reply::Refused(Refusal::NoSuchRepo {
                repo: settings.repo,
            });
        };
        if settings.revision > repo.revision {
            repo.revision = settings.revision;
            repo.archived = settings.archived;
            repo.generation = repo.generation.max(settings.generation);
            if let Some(head) = &settings.head {
                repo.head = head.clone();
            }
        }
        Reply::Done
    }

    fn protect(
        &mut self,
        (repo, generation): (&RepoId, Generation),
        change: impl FnOnce(&mut BTreeSet<RefPattern>) -> Result<(), Refusal>,
    ) -> Reply {
        let index = self.index;
        let repo = match self.live(repo, generation) {
            Ok(repo) => repo,
            Err(refusal) => return Reply::Refused(refusal),
        };
        match change(&mut repo.protected) {
            Ok(()) => {
                repo.protected_at = index;
                Reply::Done
            }
            Err(refusal) => Reply::Refused(refusal),
        }
    }

    fn has_other_format(&self, network: &NetworkId, format: ObjectFormat) -> bool {
        let mut repos = self.repos.values().flatten();
        repos.any(|repo| repo.network == *network && repo.object_format != format)
    }

    fn fork(&mut self, fork: &ForkRepo) -> Reply {
        match self.repos.get(&fork.repo) {
            Some(Some(known))
                if (known.network, known.generation) == (fork.network, fork.generation) =>
            {
                return Reply::Done;
            }
            Some(_) => return Reply::Refused(Refusal::WrongState { repo: fork.repo }),
            None => {}
        }
        let parent = self.repos.get(&fork.parent).cloned().flatten();
        let Some(parent) = parent.filter(|parent| parent.network == fork.network) else {
            return Reply::Refused(Refusal::NoSuchRepo { repo: fork.parent });
        };
        let made = ModelRepo {
            generation: fork.generation,
            lost: BTreeMap::new(),
            revision: LogIndex::new(0),
            archived: false,
            protected: BTreeSet::new(),
            protected_at: 0,
            ..parent
        };
        self.repos.insert(fork.repo, Some(made));
        Reply::Done
    }

    fn live(&mut self, id: &RepoId, generation: Generation) -> Result<&mut ModelRepo, Refusal> {
        let Some(Some(repo)) = self.repos.get_mut(id) else {
            return Err(Refusal::NoSuchRepo { repo: *id });
        };
        if repo.generation > generation {
            return Err(Refusal::WrongGeneration {
                named: generation,
                current: repo.generation,
            });
        }
        Ok(repo)
    }

    fn replace(&mut self, replace: &ReplacePacks) -> Reply {
        let network = replace.network;
        if replace.old.is_empty() || replace.old.contains(&replace.new.pack) {
            return Reply::Refused(Refusal::Invalid);
        }
        let mut repos = self.repos.values().flatten();
        if !repos.any(|repo| repo.network == network) {
            return Reply::Refused(Refusal::NoSuchNetwork { network });
        }
        let packs = self.packs.entry(network).or_default();
        if let Some(pack) = replace.old.iter().find(|old| !packs.contains(old)) {
            return Reply::Refused(Refusal::NoSuchPack { pack: *pack });
        }
        packs.retain(|pack| !replace.old.contains(pack));
        packs.insert(replace.new.pack);
        Reply::Done
    }

    fn push(&mut self, push: &UpdateRefs, now_ms: u64) -> Reply {
        let repo = match self.live(&push.repo, push.generation) {
            Ok(repo) => repo,
            Err(refusal) => return Reply::Refused(refusal),
        };
        // Every group of these tests is at the first level, where only SHA-256 repositories look at the hash.
        let values = push.updates.iter().filter_map(|update| update.new);
        let packs = push.packs.iter().map(|pack| *pack.pack.checksum());
        if repo.object_format == ObjectFormat::Sha256
            && values
                .chain(packs)
                .any(|id| id.format() == ObjectFormat::Sha1)
        {
            return Reply::Refused(Refusal::Invalid);
        }
        let Some(verdicts) = judge(repo, push) else {
            return Reply::Recheck;
        };
        let accepted: Vec<_> = push
            .updates
            .iter()
            .zip(&verdicts)
            .filter(|(_, verdict)| verdict.result.is_ok())
            .collect();
        if accepted.is_empty() {
            return Reply::RefsUpdated { verdicts };
        }
        // An accepted push forgets what is too old by its clock, for good: the next clock may be behind.
        for repo in self.repos.values_mut().flatten() {
            let wanted = |at: u64| now_ms.saturating_sub(at) <= FORMER_TIP_MS;
            repo.lost.retain(|_, at| wanted(*at));
        }
        let repo = match self.live(&push.repo, push.generation) {
            Ok(repo) => repo,
            Err(refusal) => return Reply::Refused(refusal),
        };
        let before = repo.refs.clone();
        for (update, verdict) in &accepted {
            match update.new {
                Some(new) => repo.refs.insert(update.name.clone(), new),
                None => repo.refs.remove(&update.name),
            };
            if let Some(old) = verdict.old.filter(|old| update.new != Some(*old)) {
                let lost = repo.lost.entry(old).or_insert(now_ms);
                *lost = now_ms.max(*lost);
            }
        }
        let head_exists = before.contains_key(&repo.head) || repo.refs.contains_key(&repo.head);
        let had_branches = before.keys().any(RefName::is_branch);
        let first = accepted
            .iter()
            .find(|(update, _)| update.new.is_some() && update.name.is_branch());
        if let (false, false, Some((update, _))) = (head_exists, had_branches, first) {
            repo.head = update.name.clone();
        }
        let network = repo.network;
        let packs = push.packs.iter().map(|pack| pack.pack);
        self.packs.entry(network).or_default().extend(packs);
        Reply::RefsUpdated { verdicts }
    }

    pub(crate) fn was_tip(&self, repo: &RepoId, tip: &ObjectId, now_ms: u64) -> bool {
        let repo = self.repos.get(repo).and_then(Option::as_ref);
        repo.and_then(|repo| repo.lost.get(tip))
            .is_some_and(|at| now_ms.saturating_sub(*at) <= FORMER_TIP_MS)
    }
}

/// `None` when the leader has to look again.
fn judge(repo: &ModelRepo, push: &UpdateRefs) -> Option<Vec<RefVerdict>> {
    let old = |update: &RefUpdate| repo.refs.get(&update.name).copied();
    let mut results: Vec<_> = push
        .updates
        .iter()
        .map(|update| expected(update, old(update)))
        .collect();
    for (update, result) in push.updates.iter().zip(&mut results) {
        let protected = repo.protected.iter().find(|one| one.matches(&update.name));
        let (Ok(()), Some(pattern), Some(old)) = (&result, protected, old(update)) else {
            continue;
        };
        match update.new {
            _ if repo.archived => {}
            Some(new) if new == old => {}
            None => {
                let pattern = pattern.clone();
                *result = Err(RefRefusal::ProtectedFromDeletion { pattern });
            }
            Some(_) => {
                let looked_at = matches!(update.expected, PreviousValue::MustExistAndMatch(_));
                if !looked_at || push.checked_at.get() < repo.protected_at {
                    return None;
                }
            }
        }
    }
    if repo.archived {
        results.fill(Err(RefRefusal::Archived));
    }
    let mut names: BTreeSet<_> = repo.refs.keys().collect();
    for (update, result) in push.updates.iter().zip(&results) {
        if result.is_ok() && update.new.is_none() {
            names.remove(&update.name);
        }
    }
    for (update, result) in push.updates.iter().zip(&mut results) {
        if result.is_err() || update.new.is_none() || old(update).is_some() {
            continue;
        }
        let with = names.iter().find(|name| in_the_way(name, &update.name));
        match with {
            Some(with) => {
                let with = (*with).clone();
                *result = Err(RefRefusal::NameConflict { with });
            }
            None => {
                names.insert(&update.name);
            }
        }
    }
    let abort = !repo.archived && push.atomic && results.iter().any(Result::is_err);
    let verdict = |(update, result): (&RefUpdate, Result<(), RefRefusal>)| RefVerdict {
        name: update.name.clone(),
        old: old(update),
        result: result.and(match abort {
            true => Err(RefRefusal::AtomicAborted),
            false => Ok(()),
        }),
    };
    Some(push.updates.iter().zip(results).map(verdict).collect())
}

fn expected(update: &RefUpdate, old: Option<ObjectId>) -> Result<(), RefRefusal> {
    match update.expected {
        PreviousValue::Any => Ok(()),
        PreviousValue::MustNotExist => match old {
            Some(current) => Err(RefRefusal::Exists { current }),
            None => Ok(()),
        },
        PreviousValue::MustExist => old.map(|_| ()).ok_or(RefRefusal::Missing),
        PreviousValue::MustExistAndMatch(wanted) if old == Some(wanted) => Ok(()),
        PreviousValue::MustExistAndMatch(_) => Err(RefRefusal::Stale { current: old }),
    }
}

fn in_the_way(one: &RefName, other: &RefName) -> bool {
    let below = |upper: &RefName, lower: &RefName| {
        lower
            .as_str()
            .strip_prefix(upper.as_str())
            .is_some_and(|rest| rest.starts_with('/'))
    };
    below(one, other) || below(other, one)
}
