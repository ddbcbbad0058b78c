//! A repository in Gitea's shape.

use henge_types::{RepoRecord, Topic};
use serde::Serialize;

use super::user::{User, number};
use crate::api::Api;
use crate::backend::Refs;
use crate::origin::Origin;
use crate::timestamp::rfc3339;

/// The prefix of branches among the refs.
pub(super) const BRANCHES: &str = "refs/heads/";

#[derive(Debug, Serialize)]
struct Permissions {
    admin: bool,
    push: bool,
    pull: bool,
}

/// A repository in Gitea's shape.
#[derive(Debug, Serialize)]
pub(crate) struct Repository {
    id: u64,
    owner: User,
    name: String,
    full_name: String,
    description: String,
    empty: bool,
    private: bool,
    fork: bool,
    /// The repository that it is a fork of, if the catalogue has it.
    parent: Option<Box<Self>>,
    template: bool,
    mirror: bool,
    archived: bool,
    internal: bool,
    size: u64,
    language: String,
    html_url: String,
    url: String,
    link: String,
    ssh_url: String,
    clone_url: String,
    original_url: String,
    website: String,
    avatar_url: String,
    stars_count: u64,
    forks_count: u64,
    watchers_count: u64,
    open_issues_count: u64,
    open_pr_counter: u64,
    release_counter: u64,
    default_branch: String,
    created_at: String,
    updated_at: String,
    permissions: Permissions,
    has_issues: bool,
    has_wiki: bool,
    has_pull_requests: bool,
    has_projects: bool,
    has_releases: bool,
    has_packages: bool,
    has_actions: bool,
    object_format_name: &'static str,
    topics: Vec<Topic>,
}

impl Repository {
    /// The repository of the catalogue, with its branches if they were read. Without them the
    /// default branch is the one of its creation, and the repository counts as not empty and as
    /// unchanged since then.
    pub(crate) fn new(record: &RepoRecord, branches: Option<&Refs>, origin: &Origin) -> Self {
        let [a, b, c, d, e, f, g, h, ..] = *record.repo.as_bytes();
        let path = &record.path;
        let head = branches.map_or(&record.default_branch, |refs| &refs.head);
        let updated_at_ms = branches.map_or(0, |refs| refs.updated_at_ms);
        Self {
            id: number([a, b, c, d, e, f, g, h]),
            owner: User::new(&path.owner, origin),
            name: path.name.to_string(),
            full_name: path.to_string(),
            description: record.description.clone(),
            empty: branches.is_some_and(|refs| refs.refs.is_empty()),
            private: record.private,
            fork: record.network != record.repo.root_network(),
            parent: None,
            template: false,
            mirror: false,
            archived: record.archived,
            internal: false,
            size: 0,
            language: String::new(),
            html_url: origin.url(&format!("/{path}")),
            url: origin.url(&format!("/api/v1/repos/{path}")),
            link: String::new(),
            ssh_url: String::new(),
            clone_url: origin.url(&format!("/{path}.git")),
            original_url: String::new(),
            website: String::new(),
            avatar_url: String::new(),
            stars_count: 0,
            forks_count: 0,
            watchers_count: 0,
            open_issues_count: 0,
            open_pr_counter: 0,
            release_counter: 0,
            default_branch: head.short().to_owned(),
            created_at: rfc3339(record.created_at_ms),
            updated_at: rfc3339(updated_at_ms.max(record.updated_at_ms)),
            permissions: Permissions {
                admin: true,
                push: true,
                pull: true,
            },
            has_issues: false,
            has_wiki: false,
            has_pull_requests: false,
            has_projects: false,
            has_releases: false,
            has_packages: false,
            has_actions: false,
            object_format_name: record.object_format.as_str(),
            topics: record.topics.clone(),
        }
    }

    /// With its parent and the number of its forks.
    pub(crate) fn with_family(mut self, api: &Api, record: &RepoRecord, origin: &Origin) -> Self {
        let (parent, forks) = api.backend.family(record);
        self.forks_count = u64::try_from(forks.len()).unwrap_or(u64::MAX);
        self.parent = parent.map(|parent| Box::new(Self::new(&parent, None, origin)));
        self
    }

    /// The view of a client without a token. Other repositories are left out, as they may be
    /// private.
    pub(crate) fn read_only(mut self) -> Self {
        self.permissions.admin = false;
        self.permissions.push = false;
        self.forks_count = 0;
        self.parent = None;
        self
    }
}
