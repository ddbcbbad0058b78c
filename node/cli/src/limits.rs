//! `henge repo limits`

use std::io::Write;

use henge_client::{Client, ClientError};
use henge_types::RepoPath;

use crate::args::LimitsArgs;
use crate::cluster::write_json;
use crate::error::CliError;

fn failed(what: &str, path: &RepoPath) -> impl FnOnce(ClientError) -> CliError {
    let what = format!("cannot {what} the limits of {path}");
    move |source| CliError::Call { what, source }
}

/// Sets those that were given, if any, and shows all.
pub(crate) async fn run(
    client: &Client,
    asked: &LimitsArgs,
    json: bool,
    out: &mut (dyn Write + Send),
) -> Result<(), CliError> {
    let path = &asked.path;
    let before = client
        .repo_limits(path)
        .await
        .map_err(failed("read", path))?;
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
        limits = set.map_err(failed("set", path))?;
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
