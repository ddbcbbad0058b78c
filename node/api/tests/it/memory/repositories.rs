//! The catalogue.

use std::collections::BTreeMap;

use henge_api::{Answer, Home, NewRepo, RepoEdit, Repositories};
use henge_git::http::ServiceError;
use henge_types::{
    ErrorCode, Generation, NodeId, OwnerName, Principal, PushRules, RefName, RepoId, RepoLimits,
    RepoPath, RepoRecord, RepoState, TopicsEdit,
};

use super::{CREATED_AT_MS, Memory, Repo, lock, no_such};

impl Repositories for Memory {
    fn create<'a>(
        &'a self,
        principal: &'a Principal,
        path: RepoPath,
        new: NewRepo,
    ) -> Answer<'a, RepoRecord> {
        self.unless_broken(move |repos| {
            if repos.contains_key(&path.key()) {
                let text = format!("there is a repository {path} already");
                return Err(ServiceError::new(ErrorCode::AlreadyExists, text));
            }
            lock(&self.created_by).push(principal.to_string());
            let count = u8::try_from(repos.len()).expect("few repositories");
            let repo = RepoId::from_bytes([count + 1; 16]);
            let main = RefName::branch("main").expect("a branch");
            let record = RepoRecord {
                repo,
                network: repo.root_network(),
                path: path.clone(),
                generation: Generation::new(1),
                state: RepoState::Ready,
                private: new.private,
                description: new.description,
                default_branch: new.default_branch.unwrap_or(main),
                created_at_ms: CREATED_AT_MS,
                updated_at_ms: CREATED_AT_MS,
                topics: Vec::new(),
                archived: false,
                object_format: new.object_format,
                forked_from: None,
                former_paths: Vec::new(),
            };
            let made = Repo {
                record: record.clone(),
                refs: BTreeMap::new(),
                asked: None,
                limits: RepoLimits::default(),
                push_rules: PushRules::default(),
                protected: Vec::new(),
                mirrors: Vec::new(),
                certificates: Vec::new(),
                forced: false,
            };
            repos.insert(path.key(), made);
            Ok(record)
        })
    }

    fn fork<'a>(
        &'a self,
        _: &'a Principal,
        parent: &'a RepoPath,
        path: RepoPath,
        description: Option<String>,
    ) -> Answer<'a, RepoRecord> {
        self.unless_broken(move |repos| {
            let mut fork = repos
                .get(&parent.key())
                .ok_or_else(|| no_such(parent))?
                .clone();
            if repos.contains_key(&path.key()) {
                let text = format!("there is a repository {path} already");
                return Err(ServiceError::new(ErrorCode::AlreadyExists, text));
            }
            let count = u8::try_from(repos.len()).expect("few repositories");
            fork.record.forked_from = Some(fork.record.repo);
            fork.record.repo = RepoId::from_bytes([count + 1; 16]);
            fork.record.path = path.clone();
            fork.record.description = description.unwrap_or(fork.record.description);
            let record = fork.record.clone();
            repos.insert(path.key(), fork);
            Ok(record)
        })
    }

    fn get<'a>(&'a self, path: &'a RepoPath) -> Answer<'a, RepoRecord> {
        self.unless_broken(move |repos| {
            let repo = repos.get(&path.key()).ok_or_else(|| no_such(path))?;
            Ok(repo.record.clone())
        })
    }

    fn get_public<'a>(&'a self, path: &'a RepoPath) -> Answer<'a, RepoRecord> {
        self.unless_broken(move |repos| {
            let record = repos.get(&path.key()).map(|repo| repo.record.clone());
            record.filter(|record| !record.private).ok_or_else(|| {
                ServiceError::new(ErrorCode::Unauthenticated, "log in first".to_owned())
            })
        })
    }

    fn edit<'a>(
        &'a self,
        _: &'a Principal,
        path: &'a RepoPath,
        edit: RepoEdit,
    ) -> Answer<'a, RepoRecord> {
        self.unless_broken(move |repos| {
            let mut repo = repos.remove(&path.key()).ok_or_else(|| no_such(path))?;
            let record = &mut repo.record;
            let to = edit.path.unwrap_or_else(|| path.clone());
            if repos.contains_key(&to.key()) {
                repos.insert(path.key(), repo);
                let text = format!("there is a repository {to} already");
                return Err(ServiceError::new(ErrorCode::AlreadyExists, text));
            }
            record.path = to.clone();
            record.description = edit
                .description
                .unwrap_or_else(|| record.description.clone());
            record.private = edit.private.unwrap_or(record.private);
            record.archived = edit.archived.unwrap_or(record.archived);
            record.default_branch = edit
                .default_branch
                .unwrap_or_else(|| record.default_branch.clone());
            match edit.topics {
                TopicsEdit::Keep => {}
                TopicsEdit::Set(topics) => record.topics = topics,
                TopicsEdit::Add(topic) => record.topics.push(topic),
                TopicsEdit::Remove(gone) => record.topics.retain(|topic| *topic != gone),
            }
            let record = record.clone();
            repos.insert(to.key(), repo);
            Ok(record)
        })
    }

    fn list<'a>(
        &'a self,
        owner: Option<&'a OwnerName>,
        after: Option<&'a RepoPath>,
        limit: usize,
    ) -> Answer<'a, Vec<RepoRecord>> {
        self.unless_broken(move |repos| {
            let after = after.map(RepoPath::key);
            let records = repos
                .iter()
                .filter(|(key, _)| after.as_ref().is_none_or(|after| *key > after))
                .map(|(_, repo)| repo.record.clone())
                .filter(|record| owner.is_none_or(|owner| record.path.owner == *owner));
            Ok(records.take(limit).collect())
        })
    }

    fn delete<'a>(&'a self, _: &'a Principal, path: &'a RepoPath) -> Answer<'a, ()> {
        self.unless_broken(move |repos| {
            let gone = repos.remove(&path.key());
            gone.map(drop).ok_or_else(|| no_such(path))
        })
    }

    fn family(&self, repo: &RepoRecord) -> (Option<RepoRecord>, Vec<RepoRecord>) {
        let repos = lock(&self.repos);
        let records = repos.values().map(|known| &known.record);
        let forks = records
            .clone()
            .filter(|known| known.forked_from == Some(repo.repo));
        let parent = records
            .clone()
            .find(|known| Some(known.repo) == repo.forked_from);
        (parent.cloned(), forks.cloned().collect())
    }

    fn home(&self, repo: &RepoRecord) -> Home {
        Home {
            shard: repo.network.shard(8),
            leader: Some(NodeId::new(2)),
        }
    }
}
