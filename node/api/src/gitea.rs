//! Gitea's API, as far as its clients need it to create, find, change and delete repositories and
//! read branches.
//!
//! A file for each feature has its routes, its JSON bodies and its handlers.
//!
//! Shapes follow Gitea's v1. A field for a missing feature is left out where clients accept that.
//! Elsewhere it has the neutral value.

mod branches;
mod edit;
mod mirrors;
mod page;
mod protections;
mod repos;
mod repository;
mod user;
mod version;

pub(crate) use page::PageParams;

use henge_types::{ObjectFormat, RefName, limits};

use crate::backend::NewRepo;
use crate::error::ApiError;
use crate::routes::Routes;

/// The routes of every feature.
pub(crate) fn routes() -> Routes {
    Routes::new()
        .merge(branches::routes())
        .merge(edit::routes())
        .merge(mirrors::routes())
        .merge(protections::routes())
        .merge(repos::routes())
        .merge(user::routes())
        .merge(version::routes())
}

/// A new repository is private by default.
const fn private_unless_said() -> bool {
    true
}

/// The checks that both dialects of creating a repository share.
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

/// The description has one line, and a bounded length.
fn check_description(description: &str) -> Result<(), ApiError> {
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
