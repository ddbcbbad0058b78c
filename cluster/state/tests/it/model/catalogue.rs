//! A naive model of the catalogue: it searches the records of all repositories for a name.

use std::collections::BTreeSet;
use std::mem;

use henge_types::command::VERSION_FORKS_AS_PARENT;
use henge_types::limits::DESCRIPTION_BYTES_MAX;
use henge_types::{
    CreateRepo, EditRepo, Generation, Refusal, RepoId, RepoPath, RepoRecord, RepoState, Topic,
    TopicsEdit, UntoldRecord,
};

use super::group::ModelEntry;
use super::meta::MetaModel;

impl MetaModel {
    /// The repositories that hold a name, by id.
    pub(super) fn named(&self) -> impl Iterator<Item = &RepoRecord> {
        let has_name =
            |repo: &&RepoRecord| matches!(repo.state, RepoState::Reserved | RepoState::Ready);
        self.repos.values().filter(has_name)
    }

    /// The repository that holds the name.
    pub(super) fn holder(&self, key: &str) -> Option<&RepoRecord> {
        self.named().find(|repo| repo.path.key() == key)
    }

    /// The repository that held the name before, while it is still found under it.
    pub(super) fn former_holder(&self, key: &str) -> Option<&RepoRecord> {
        self.repos.values().find(|repo| had(repo, key))
    }

    pub(super) fn reserve(
        &mut self,
        create: &CreateRepo,
        entry: ModelEntry,
    ) -> Result<RepoRecord, Refusal> {
        let key = create.path.key();
        if let Some(holder) = self.holder(&key) {
            return match holder.repo == create.repo {
                true => Ok(holder.clone()),
                false => Err(taken(holder)),
            };
        }
        if self.repos.contains_key(&create.repo) {
            return Err(Refusal::IdTaken { repo: create.repo });
        }
        let private = self.privacy(create)?;
        let highest = self.generations.get(&key).copied().unwrap_or_default();
        let record = RepoRecord {
            repo: create.repo,
            network: create.network,
            path: create.path.clone(),
            generation: highest.next(),
            state: RepoState::Reserved,
            private,
            description: create.description.clone(),
            default_branch: create.default_branch.clone(),
            created_at_ms: entry.now_ms,
            updated_at_ms: entry.now_ms,
            topics: Vec::new(),
            archived: false,
            object_format: create.object_format,
            forked_from: create.forked_from,
            former_paths: Vec::new(),
        };
        self.take(&record, entry);
        self.repos.insert(create.repo, record.clone());
        Ok(record)
    }

    /// Whether the new repository is private: by its own setting, or by its parent's.
    fn privacy(&self, create: &CreateRepo) -> Result<bool, Refusal> {
        let source = create
            .forked_from
            .and_then(|source| self.repos.get(&source));
        let fits = source.is_none_or(|source| source.object_format == create.object_format);
        if !fits || !create.default_branch.is_branch() {
            return Err(Refusal::Invalid);
        }
        let Some(repo) = create.forked_from else {
            return Ok(create.private);
        };
        let serves = |source: &&RepoRecord| {
            source.state == RepoState::Ready && source.network == create.network
        };
        let source = source.filter(serves);
        let source = source.ok_or(Refusal::NoSuchRepo { repo })?;
        let as_parent = self.group.version >= VERSION_FORKS_AS_PARENT;
        Ok(create.private || (as_parent && source.private))
    }

    /// Moves a repository to the next state, if there is one. A deleted one has no former names and
    /// no mark.
    pub(super) fn move_on(
        &mut self,
        repo: &RepoId,
        next: impl Fn(RepoState) -> Option<RepoState>,
    ) -> Result<(), Refusal> {
        let record = self.repos.get_mut(repo);
        let record = record.ok_or(Refusal::NoSuchRepo { repo: *repo })?;
        let state = next(record.state).ok_or(Refusal::WrongState { repo: *repo })?;
        record.state = state;
        if matches!(state, RepoState::Deleting | RepoState::Deleted) {
            record.former_paths.clear();
            self.untold.remove(repo);
        }
        Ok(())
    }

    pub(super) fn edit(
        &mut self,
        edit: &EditRepo,
        entry: ModelEntry,
    ) -> Result<RepoRecord, Refusal> {
        let known = self.editable(&edit.repo)?;
        let holder = edit.path.as_ref().and_then(|to| self.holder(&to.key()));
        if let Some(holder) = holder.filter(|holder| holder.repo != edit.repo) {
            return Err(taken(holder));
        }
        let branch = edit.default_branch.as_ref();
        let description = edit.description.as_ref();
        if branch.is_some_and(|branch| !branch.is_branch())
            || description.is_some_and(|line| line.len() > DESCRIPTION_BYTES_MAX)
        {
            return Err(Refusal::Invalid);
        }
        let mut record = RepoRecord {
            topics: topics(&known.topics, &edit.topics),
            private: edit.private.unwrap_or(known.private),
            archived: edit.archived.unwrap_or(known.archived),
            ..known.clone()
        };
        if let Some(description) = description {
            record.description.clone_from(description);
        }
        if let Some(branch) = branch {
            record.default_branch = branch.clone();
        }
        if let Some(to) = &edit.path {
            self.rename(&mut record, to, entry);
        }
        if branch.is_some() || record.archived != known.archived {
            self.note_untold(edit.repo, branch.is_some(), entry);
        }
        if record != known {
            let later_ms = known.updated_at_ms.saturating_add(1);
            record.updated_at_ms = entry.now_ms.max(later_ms);
        }
        self.repos.insert(edit.repo, record.clone());
        Ok(record)
    }

    fn editable(&self, repo: &RepoId) -> Result<RepoRecord, Refusal> {
        let unknown = Refusal::NoSuchRepo { repo: *repo };
        let record = self.repos.get(repo).ok_or(unknown)?;
        match record.state {
            RepoState::Ready => Ok(record.clone()),
            RepoState::Reserved => Err(Refusal::WrongState { repo: *repo }),
            RepoState::Deleting | RepoState::Deleted => Err(Refusal::NoSuchRepo { repo: *repo }),
        }
    }

    /// The drawn names are fewer than the former names of a repository may be.
    fn rename(&mut self, record: &mut RepoRecord, to: &RepoPath, entry: ModelEntry) {
        let from = mem::replace(&mut record.path, to.clone());
        let key = to.key();
        if from.key() == key {
            return;
        }
        record.former_paths.retain(|path| path.key() != key);
        record.former_paths.push(from);
        self.take(record, entry);
    }

    /// A repository takes a free name. The former holder is no longer found under it: it gets a new
    /// generation, which is pending at its shard.
    fn take(&mut self, taker: &RepoRecord, entry: ModelEntry) {
        let key = taker.path.key();
        self.note_generation(key.clone(), taker.generation);
        let mut others = self.repos.values_mut();
        let Some(before) = others.find(|repo| repo.repo != taker.repo && had(repo, &key)) else {
            return;
        };
        before.former_paths.retain(|path| path.key() != key);
        before.generation = before.generation.next();
        let (repo, path, generation) = (before.repo, before.path.key(), before.generation);
        self.note_generation(path, generation);
        self.note_untold(repo, false, entry);
    }

    fn note_generation(&mut self, key: String, generation: Generation) {
        let highest = self.generations.entry(key).or_default();
        *highest = generation.max(*highest);
    }

    fn note_untold(&mut self, repo: RepoId, head: bool, entry: ModelEntry) {
        let known = self.untold.get(&repo);
        let mark = UntoldRecord {
            revision: entry.index,
            head: head || known.is_some_and(|known| known.head),
        };
        self.untold.insert(repo, mark);
    }
}

fn had(repo: &RepoRecord, key: &str) -> bool {
    repo.former_paths.iter().any(|path| path.key() == key)
}

fn taken(holder: &RepoRecord) -> Refusal {
    Refusal::NameTaken {
        path: holder.path.clone(),
        by: holder.repo,
    }
}

/// Sorted, without duplicates. The drawn topics are fewer than a repository may have.
fn topics(known: &[Topic], edit: &TopicsEdit) -> Vec<Topic> {
    let mut topics: BTreeSet<Topic> = known.iter().cloned().collect();
    match edit {
        TopicsEdit::Keep => {}
        TopicsEdit::Set(set) => topics = set.iter().cloned().collect(),
        TopicsEdit::Add(topic) => {
            topics.insert(topic.clone());
        }
        TopicsEdit::Remove(topic) => {
            topics.remove(topic);
        }
    }
    topics.into_iter().collect()
}
