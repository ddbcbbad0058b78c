//! `henge repo limits`

use std::io::Write;
use std::str::FromStr;

use clap::Args;
use henge_client::Client;
use henge_types::RepoPath;

use crate::cluster::write_json;
use crate::error::{CliError, failed};

/// `henge repo limits …`
#[derive(Debug, Args)]
pub struct Limits {
    /// The repository
    #[arg(value_name = "OWNER/NAME")]
    pub path: RepoPath,
    /// Bytes of all packs, those of forks included; none for no bound
    #[arg(long, value_name = "BYTES|none")]
    pub max_bytes: Option<Bound<u64>>,
    /// Bytes of one push; none for no bound of its own
    #[arg(long, value_name = "BYTES|none")]
    pub max_push_bytes: Option<Bound<u64>>,
    /// Bytes of one object, uncompressed; none for no bound of its own
    #[arg(long, value_name = "BYTES|none")]
    pub max_object_bytes: Option<Bound<u64>>,
    /// Objects in one push; none for no bound of its own
    #[arg(long, value_name = "COUNT|none")]
    pub max_push_objects: Option<Bound<u32>>,
    /// Branches, tags and other refs; none for no bound
    #[arg(long, value_name = "COUNT|none")]
    pub max_refs: Option<Bound<u64>>,
}

/// A bound, or `none`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bound<T>(pub Option<T>);

impl<T: FromStr> FromStr for Bound<T> {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text == "none" {
            return Ok(Self(None));
        }
        let number = text.parse().map(|number| Self(Some(number)));
        number.map_err(|_| format!("{text:?} is neither a whole number that fits nor none"))
    }
}

/// Sets the given limits, if any, and shows all.
pub(crate) async fn run(
    client: &Client,
    asked: &Limits,
    json: bool,
    out: &mut (dyn Write + Send),
) -> Result<(), CliError> {
    let path = &asked.path;
    let before = client
        .repo_limits(path)
        .await
        .map_err(failed("read the limits of", path))?;
    let mut limits = before;
    let given = [
        (&mut limits.network_bytes_max, asked.max_bytes),
        (&mut limits.push_bytes_max, asked.max_push_bytes),
        (&mut limits.object_bytes_max, asked.max_object_bytes),
        (&mut limits.refs_max, asked.max_refs),
    ];
    for (limit, given) in given {
        *limit = given.map_or(*limit, |given| given.0);
    }
    if let Some(given) = asked.max_push_objects {
        limits.push_objects_max = given.0;
    }
    if limits != before {
        let set = client.set_repo_limits(path, &limits).await;
        limits = set.map_err(failed("set the limits of", path))?;
    }
    if json {
        write_json(&limits, out)?;
        return Ok(());
    }
    let text = |limit: Option<u64>| limit.map_or_else(|| "-".to_owned(), |limit| limit.to_string());
    writeln!(out, "repository        {path}")?;
    writeln!(out, "max bytes         {}", text(limits.network_bytes_max))?;
    writeln!(out, "max push bytes    {}", text(limits.push_bytes_max))?;
    writeln!(out, "max object bytes  {}", text(limits.object_bytes_max))?;
    writeln!(
        out,
        "max push objects  {}",
        text(limits.push_objects_max.map(u64::from))
    )?;
    writeln!(out, "max refs          {}", text(limits.refs_max))?;
    Ok(())
}
