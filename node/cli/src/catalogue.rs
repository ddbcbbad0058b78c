//! `henge repo create`, `list`, `show`, `fork` and `delete`.

use std::io::{self, Write};

use clap::Args;
use henge_client::Client;
use henge_client::model::{Branch, NewRepo, RepoInfo};
use henge_types::records::RepoState;
use henge_types::{ErrorCode, ObjectFormat, OwnerName, PushRules, RepoPath};
use serde::Serialize;

use crate::cluster::write_json;
use crate::console::{Console, Input};
use crate::error::{CliError, failed};
use crate::table::{Table, printable};

/// Repositories in one request.
const PAGE: usize = 200;
/// Branches that the output for people shows.
const BRANCHES_SHOWN: usize = 20;

/// `henge repo create`
#[derive(Debug, Args)]
pub struct Create {
    /// The repository
    #[arg(value_name = "OWNER/NAME")]
    pub path: RepoPath,
    /// One line about it
    #[arg(long, default_value = "", value_name = "TEXT")]
    pub description: String,
    /// Everybody may read it without a token
    #[arg(long)]
    pub public: bool,
    /// Only its owner sees it: so it is unless --public is given
    #[arg(long, conflicts_with = "public")]
    pub private: bool,
    /// What HEAD points at, without refs/heads/
    #[arg(long, value_name = "BRANCH")]
    pub default_branch: Option<String>,
    /// The hash that objects are named by: sha1 or sha256, for ever
    #[arg(long, value_name = "FORMAT")]
    pub object_format: Option<ObjectFormat>,
}

/// `henge repo list`
#[derive(Debug, Args)]
pub struct List {
    /// Only those of this owner
    #[arg(long, value_name = "OWNER")]
    pub owner: Option<OwnerName>,
}

/// `henge repo show`
#[derive(Debug, Args)]
pub struct Show {
    /// The repository
    #[arg(value_name = "OWNER/NAME")]
    pub path: RepoPath,
}

/// `henge repo fork`
#[derive(Debug, Args)]
pub struct Fork {
    /// The repository to start from
    #[arg(value_name = "OWNER/NAME")]
    pub parent: RepoPath,
    /// The new repository
    #[arg(value_name = "NEW_OWNER/NAME")]
    pub path: RepoPath,
}

/// `henge repo delete`
#[derive(Debug, Args)]
pub struct Delete {
    /// The repository
    #[arg(value_name = "OWNER/NAME")]
    pub path: RepoPath,
    /// Do not ask
    #[arg(long)]
    pub yes: bool,
}

#[derive(Serialize)]
struct Shown<'a> {
    #[serde(flatten)]
    repo: &'a RepoInfo,
    clone_url: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    branches: Option<&'a [Branch]>,
    #[serde(skip_serializing_if = "Option::is_none")]
    protected: Option<&'a [String]>,
    #[serde(skip_serializing_if = "Option::is_none")]
    push_rules: Option<PushRules>,
}

fn shown<'a>(client: &Client, repo: &'a RepoInfo, branches: Option<&'a [Branch]>) -> Shown<'a> {
    let address = client
        .addresses()
        .first()
        .map_or("", |first| first.as_str());
    Shown {
        repo,
        clone_url: format!("{address}/{}.git", repo.path()),
        branches,
        protected: None,
        push_rules: None,
    }
}

pub(crate) async fn create(
    client: &Client,
    asked: Create,
    json: bool,
    out: &mut (dyn Write + Send),
) -> Result<(), CliError> {
    let path = asked.path.to_string();
    let mut new = NewRepo::new(asked.path);
    new.description = asked.description;
    new.private = !asked.public;
    new.default_branch = asked.default_branch;
    new.object_format = asked.object_format.map(|format| format.to_string());
    let made = client.create_repo(&new).await;
    let repo = made.map_err(failed("create", &path))?;
    let shown = shown(client, &repo, None);
    if json {
        write_json(&shown, out)?;
    } else {
        let seen = told_visibility(repo.private);
        writeln!(
            out,
            "created {} in shard {}, {seen}",
            repo.path(),
            repo.shard
        )?;
        writeln!(out, "{}", shown.clone_url)?;
    }
    Ok(())
}

pub(crate) async fn fork(
    client: &Client,
    Fork { parent, path }: &Fork,
    json: bool,
    out: &mut (dyn Write + Send),
) -> Result<(), CliError> {
    let forked = client.fork_repo(parent, path).await;
    forked.map_err(failed("fork", parent))?;
    let repo = client.get_repo(path).await.map_err(failed("show", path))?;
    let shown = shown(client, &repo, None);
    if json {
        write_json(&shown, out)?;
    } else {
        writeln!(
            out,
            "forked {parent} as {} in shard {}, {}",
            repo.path(),
            repo.shard,
            told_visibility(repo.private)
        )?;
        writeln!(out, "{}", shown.clone_url)?;
    }
    Ok(())
}

pub(crate) async fn list(
    client: &Client,
    asked: &List,
    json: bool,
    out: &mut (dyn Write + Send),
) -> Result<(), CliError> {
    let repos = all(client, asked.owner.as_ref()).await?;
    if json {
        write_json(&repos, out)?;
        return Ok(());
    }
    let mut table = Table::new(&["REPOSITORY", "SHARD", "STATE", "VISIBILITY", "DESCRIPTION"]);
    for repo in &repos {
        table.row([
            repo.path().to_string(),
            repo.shard.to_string(),
            state(repo.state).to_owned(),
            visibility(repo.private).to_owned(),
            repo.description.clone(),
        ]);
    }
    table.write(out)?;
    Ok(())
}

/// Reads every page, until an empty one: a node may return fewer items than requested.
async fn all(client: &Client, owner: Option<&OwnerName>) -> Result<Vec<RepoInfo>, CliError> {
    let mut repos: Vec<RepoInfo> = Vec::new();
    loop {
        let after = repos.last().map(RepoInfo::path);
        let page = client
            .list_repos(owner, after.as_ref(), PAGE)
            .await
            .map_err(failed("list", "the repositories"))?;
        let Some(first) = page.first() else {
            return Ok(repos);
        };
        if after.is_some_and(|after| first.path().key() <= after.key()) {
            return Err(CliError::ListLoops {
                path: first.path().to_string(),
            });
        }
        repos.extend(page);
    }
}

pub(crate) async fn show(
    client: &Client,
    Show { path }: &Show,
    json: bool,
    out: &mut (dyn Write + Send),
) -> Result<(), CliError> {
    let repo = client.get_repo(path).await.map_err(failed("show", path))?;
    let branches = client
        .branches(path)
        .await
        .map_err(failed("list the branches of", path))?;
    let rules = client.protections(path).await;
    let rules = rules.map_err(failed("list the protected refs of", path))?;
    let protected: Vec<_> = rules.into_iter().map(|rule| rule.rule_name).collect();
    let push_rules = match client.push_rules(path).await {
        // A node of an earlier release has no such route, and a leader may be unavailable.
        Err(error) if matches!(error.code(), ErrorCode::NotFound | ErrorCode::Unavailable) => None,
        rules => Some(rules.map_err(failed("show the rules for pushes to", path))?),
    };
    let mut shown = shown(client, &repo, Some(&branches));
    shown.protected = Some(&protected);
    shown.push_rules = push_rules;
    if json {
        write_json(&shown, out)?;
    } else {
        write_repo(&shown, &branches, &protected, out)?;
    }
    Ok(())
}

fn write_repo(
    shown: &Shown<'_>,
    branches: &[Branch],
    protected: &[String],
    out: &mut dyn Write,
) -> io::Result<()> {
    let (repo, clone_url) = (shown.repo, &shown.clone_url);
    let leader = repo
        .leader
        .map_or_else(|| "none known".to_owned(), |node| format!("node {node}"));
    writeln!(out, "repository      {}", repo.path())?;
    writeln!(out, "clone           {clone_url}")?;
    writeln!(out, "description     {}", printable(&repo.description))?;
    writeln!(out, "visibility      {}", visibility(repo.private))?;
    writeln!(out, "default branch  {}", printable(&repo.default_branch))?;
    writeln!(out, "object format   {}", repo.object_format)?;
    let archived = if repo.archived { ", archived" } else { "" };
    writeln!(out, "state           {}{archived}", state(repo.state))?;
    if let Some(rules) = shown.push_rules {
        writeln!(out, "pushed objects  checked, {}", rules.fsck.as_str())?;
    }
    for (what, words) in [
        ("topics          ", &repo.topics[..]),
        ("former names    ", &repo.former_names),
        ("protected refs  ", protected),
    ] {
        if !words.is_empty() {
            writeln!(out, "{what}{}", printable(&words.join(" ")))?;
        }
    }
    writeln!(out, "created         {}", printable(&repo.created_at))?;
    writeln!(out, "id              {}", repo.id)?;
    writeln!(out, "network         {}", repo.network)?;
    writeln!(out, "generation      {}", repo.generation)?;
    writeln!(out, "shard           {}, led by {leader}", repo.shard)?;
    writeln!(out, "branches        {}", branches.len())?;
    for branch in branches.iter().take(BRANCHES_SHOWN) {
        let (name, id) = (printable(&branch.name), printable(&branch.commit.id));
        writeln!(out, "  {id} {name}")?;
    }
    if branches.len() > BRANCHES_SHOWN {
        writeln!(out, "  and {} more", branches.len() - BRANCHES_SHOWN)?;
    }
    Ok(())
}

fn confirm(path: &RepoPath, console: &mut Console<'_>) -> Result<(), CliError> {
    let repo = path.to_string();
    if console.input == Input::Other {
        return Err(CliError::NotConfirmed { repo });
    }
    let question = format!("type {repo} to delete it and everything in it:");
    if console.ask(&question)? == repo {
        Ok(())
    } else {
        Err(CliError::ThoughtBetter { repo })
    }
}

pub(crate) async fn delete(
    client: &Client,
    Delete { path, yes }: &Delete,
    json: bool,
    console: &mut Console<'_>,
) -> Result<(), CliError> {
    if !yes {
        confirm(path, console)?;
    }
    client
        .delete_repo(path)
        .await
        .map_err(failed("delete", path))?;
    if json {
        let deleted = serde_json::json!({ "deleted": path.to_string() });
        write_json(&deleted, console.out)?;
    } else {
        writeln!(console.out, "deleted {path}")?;
    }
    Ok(())
}

/// The visibility of a repository, in the words of `--private` and `--public`.
pub(crate) const fn visibility(private: bool) -> &'static str {
    match private {
        true => "private",
        false => "public",
    }
}

/// The same with an explanation, where it must not be overlooked.
pub(crate) const fn told_visibility(private: bool) -> &'static str {
    match private {
        true => "private",
        false => "public: everybody who reaches the cluster may read it without a token",
    }
}

const fn state(state: RepoState) -> &'static str {
    match state {
        RepoState::Reserved => "reserved",
        RepoState::Ready => "ready",
        RepoState::Deleting => "deleting",
        RepoState::Deleted => "deleted",
    }
}
