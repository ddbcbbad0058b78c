//! Gitea's API, as far as its clients need it to create, find, change and delete repositories and
//! read branches.
//!
//! Shapes follow Gitea's v1. Fields for what this product does not have are left out where clients take
//! that, and hold the neutral value where they do not.

mod branches;
mod edit;
mod mirrors;
mod page;
mod protections;
mod repos;
mod repository;
mod user;

pub(crate) use branches::{get_branch, list_branches};
pub(crate) use edit::{add_topic, edit_repo, get_topics, put_topics, remove_topic, transfer_repo};
pub(crate) use mirrors::{
    add_push_mirror, delete_push_mirror, get_push_mirror, list_push_mirrors, sync_pull_mirror,
    sync_push_mirrors,
};
pub(crate) use page::PageParams;
pub(crate) use protections::{
    create_protection, delete_protection, edit_protection, get_protection, list_protections,
};
pub(crate) use repos::{create_repo, delete_repo, fork_repo, get_repo, list_forks, search_repos};
pub(crate) use user::current_user;

use axum::Json;
use axum::extract::State;
use henge_auth::Authorized;
use henge_auth::action::ReadCluster;
use henge_types::{ObjectFormat, RefName, limits};
use serde::Serialize;

use crate::backend::NewRepo;
use crate::error::ApiError;
use crate::router::Api;

/// The release of Gitea whose shapes these are. Clients read it out of the version to know what they may
/// ask for; Forgejo's servers say it in the same way.
const GITEA: &str = "1.22.0";

#[derive(Serialize)]
pub(crate) struct Version {
    version: String,
}

/// `GET /api/v1/version`.
pub(crate) async fn version(_: Authorized<ReadCluster>, State(api): State<Api>) -> Json<Version> {
    Json(Version {
        version: format!("{}+gitea-{GITEA}", api.version),
    })
}

/// What a new repository is of which nobody said whether everybody may read it.
pub(crate) const fn private_unless_said() -> bool {
    true
}

/// What both dialects of creating a repository check in the same way.
pub(crate) fn new_repo(
    description: String,
    private: bool,
    default_branch: Option<&str>,
    object_format: Option<&str>,
) -> Result<NewRepo, ApiError> {
    check_description(&description)?;
    let default_branch = default_branch.filter(|branch| !branch.is_empty());
    let default_branch = default_branch.map(|branch| {
        let name = branch.strip_prefix("refs/heads/").unwrap_or(branch);
        let named = RefName::branch(name);
        named.map_err(|error| ApiError::invalid(format!("default_branch: {error}")))
    });
    let object_format = match object_format {
        None | Some("") => ObjectFormat::default(),
        Some(name) => name
            .parse()
            .map_err(|error| ApiError::invalid(format!("object_format_name: {error}")))?,
    };
    Ok(NewRepo {
        object_format,
        default_branch: default_branch.transpose()?,
        private,
        description,
    })
}

/// One line, not too long.
pub(crate) fn check_description(description: &str) -> Result<(), ApiError> {
    if description.len() > limits::DESCRIPTION_BYTES_MAX {
        let bytes_max = limits::DESCRIPTION_BYTES_MAX;
        let text = format!("the description is longer than {bytes_max} bytes");
        return Err(ApiError::invalid(text));
    }
    if description.chars().any(char::is_control) {
        let text =
            "the description is one line: it holds a line break or another control character";
        return Err(ApiError::invalid(text));
    }
    Ok(())
}
