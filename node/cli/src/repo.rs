//! `henge repo …`

use std::io::{self, Write};
use std::time::Duration;

use henge_client::model::{Branch, NewRepo, RepoInfo};
use henge_client::{Client, ClientError};
use henge_types::records::RepoState;
use henge_types::status::CompactionDepth;
use henge_types::{ErrorCode, OwnerName, PushRules, RepoPath};
use serde::Serialize;

use crate::args::{Output, Repo, RepoVerb};
use crate::carry;
use crate::certificates;
use crate::cluster::write_json;
use crate::console::{Console, Input};
use crate::context::{self, Environment};
use crate::error::CliError;
use crate::exit::Exit;
use crate::fsck;
use crate::import;
use crate::limits;
use crate::mirror;
use crate::packs;
use crate::settings;
use crate::table::{Table, printable};

/// Repositories asked for at once.
const PAGE: usize = 200;
/// Branches that a person is shown.
const BRANCHES_SHOWN: usize = 20;

pub(crate) async fn run(
    command: Repo,
    environment: &Environment,
    console: &mut Console<'_>,
) -> Result<Exit, CliError> {
    let context = context::resolve(&command.remote, environment)?;
    let client = context.client();
    let json = command.remote.output == Output::Json;
    match command.verb {
        RepoVerb::Create {
            path,
            description,
            public,
            private: _,
            default_branch,
            object_format,
        } => {
            let mut new = NewRepo::new(path);
            new.description = description;
            new.private = !public;
            new.default_branch = default_branch;
            new.object_format = object_format;
            create(&client, &new, json, console.out).await?;
        }
        RepoVerb::List { owner } => list(&client, owner.as_ref(), json, console.out).await?,
        RepoVerb::Show { path } => show(&client, &path, json, console.out).await?,
        RepoVerb::Stats { path } => packs::stats(&client, &path, json, console.out).await?,
        RepoVerb::Gc {
            path,
            aggressive,
            prune,
            wait,
        } => {
            let depth = match (prune, aggressive) {
                (Some(seconds), _) => CompactionDepth::Prune {
                    grace_ms: seconds.saturating_mul(1000),
                },
                (None, true) => CompactionDepth::Everything,
                (None, false) => CompactionDepth::Geometric,
            };
            let wait = Duration::from_secs(wait);
            packs::gc(&client, &path, depth, wait, json, console.out).await?;
        }
        RepoVerb::Fork { parent, path } => fork(&client, &parent, &path, json, console.out).await?,
        RepoVerb::Limits(asked) => limits::run(&client, &asked, json, console.out).await?,
        RepoVerb::Fsck {
            path,
            node,
            repair,
            wait,
        } => {
            let asked = fsck::Asked {
                nodes: node.0,
                repair,
                wait: Duration::from_secs(wait),
            };
            fsck::run(&client, &path, &asked, json, console).await?;
        }
        RepoVerb::PushCerts(asked) => certificates::run(&client, &asked, json, console.out).await?,
        RepoVerb::Import(args) => import::import(&client, &context, args, json, console).await?,
        RepoVerb::Export(args) => carry::export(&context, args, json, console).await?,
        RepoVerb::Mirror(command) => mirror::run(&client, command, json, console.out).await?,
        RepoVerb::Delete { path, yes } => {
            if !yes {
                confirm(&path, console)?;
            }
            delete(&client, &path, json, console.out).await?;
        }
        RepoVerb::Settings(change) => settings::run(&client, change, json, console.out).await?,
    }
    Ok(Exit::Ok)
}

pub(crate) fn failed(
    what: &str,
    path: &(impl ToString + ?Sized),
) -> impl FnOnce(ClientError) -> CliError {
    let what = format!("cannot {what} {}", path.to_string());
    move |source| CliError::Call { what, source }
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

async fn create(
    client: &Client,
    new: &NewRepo,
    json: bool,
    out: &mut (dyn Write + Send),
) -> Result<(), CliError> {
    let path = format!("{}/{}", new.owner, new.name);
    let repo = client
        .create_repo(new)
        .await
        .map_err(failed("create", &path))?;
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

async fn fork(
    client: &Client,
    parent: &RepoPath,
    path: &RepoPath,
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

async fn list(
    client: &Client,
    owner: Option<&OwnerName>,
    json: bool,
    out: &mut (dyn Write + Send),
) -> Result<(), CliError> {
    let repos = all(client, owner).await?;
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

/// Every page, until an empty one: a node may give fewer than were asked for.
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

async fn show(
    client: &Client,
    path: &RepoPath,
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
        // A node of an earlier release has none to tell, or its leader has none.
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

async fn delete(
    client: &Client,
    path: &RepoPath,
    json: bool,
    out: &mut (dyn Write + Send),
) -> Result<(), CliError> {
    client
        .delete_repo(path)
        .await
        .map_err(failed("delete", path))?;
    if json {
        write_json(&serde_json::json!({ "deleted": path.to_string() }), out)?;
    } else {
        writeln!(out, "deleted {path}")?;
    }
    Ok(())
}

/// Who sees a repository, in the words of `--private` and `--public`.
pub(crate) const fn visibility(private: bool) -> &'static str {
    match private {
        true => "private",
        false => "public",
    }
}

/// The same with what it means, where that must not be overlooked.
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
