//! The cluster of a command: from flags, then from the environment, then the cluster of
//! `henge dev`.

use std::io;
use std::path::PathBuf;

use clap::{Args, ValueEnum};
use henge_client::{Address, Client, Deadlines, Secret};

use crate::cluster_file::ClusterFile;
use crate::error::CliError;
use crate::exit::EXIT_CODES_HELP;
use crate::private_file::{self, PrivateFileError};

/// The cluster file in the default folder of `henge dev`.
pub const DEV_CLUSTER_FILE: &str = ".henge-dev/cluster.json";

const CONTEXT_HELP: &str = "Which cluster:
  --url and --token (or --token-file) win over HENGE_URL and HENGE_TOKEN. Where neither a flag nor the
  environment names a cluster or a token, ./.henge-dev/cluster.json is used if `henge dev` left one there.";

/// The text of `--help` below the arguments of a verb that calls a cluster.
pub(crate) fn long_help() -> String {
    format!("{CONTEXT_HELP}\n\n{EXIT_CODES_HELP}")
}

/// How the answer is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Output {
    /// For people
    Table,
    /// For programs
    Json,
}

/// Which cluster, with which token, and how to answer.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Cluster")]
pub struct Remote {
    /// Addresses of nodes, comma separated, asked in turn [env: HENGE_URL]
    #[arg(long, global = true, value_name = "URL")]
    pub url: Option<String>,
    /// The token [env: HENGE_TOKEN]; other users of this machine may see it: prefer a file
    #[arg(long, global = true, value_name = "TOKEN")]
    pub token: Option<String>,
    /// A file with the token, which only its owner may read
    #[arg(long, global = true, value_name = "FILE")]
    pub token_file: Option<PathBuf>,
    /// How to write the answer
    #[arg(
        long,
        global = true,
        value_enum,
        default_value = "table",
        value_name = "FORMAT"
    )]
    pub output: Output,
}

/// The part of the process's environment that the commands use.
#[derive(Debug, Clone, Default)]
pub struct Environment {
    /// `HENGE_URL`.
    pub url: Option<String>,
    /// `HENGE_TOKEN`.
    pub token: Option<Secret>,
    /// The working directory, which may hold `.henge-dev`.
    pub folder: PathBuf,
}

/// The cluster of a command.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Context {
    /// Its addresses, in the order of the attempts.
    pub(crate) addresses: Vec<Address>,
    /// The token.
    pub(crate) token: Option<Secret>,
}

impl Context {
    /// A client for it.
    pub(crate) fn client(&self) -> Client {
        let (addresses, token) = (self.addresses.clone(), self.token.clone());
        Client::with_deadlines(addresses, token, Deadlines::default())
    }
}

/// A client for the cluster of a command.
pub(crate) fn client(remote: &Remote, environment: &Environment) -> Result<Client, CliError> {
    Ok(resolve(remote, environment)?.client())
}

/// Resolves the cluster of a command.
pub(crate) fn resolve(remote: &Remote, environment: &Environment) -> Result<Context, CliError> {
    let url = remote.url.as_ref().or(environment.url.as_ref());
    let token = match (&remote.token, &remote.token_file) {
        (Some(_), Some(_)) => return Err(CliError::TwoTokens),
        (Some(token), None) => Some(Secret::new(token)),
        (None, Some(file)) => Some(Secret::from_file(&private_file::read(file)?)),
        (None, None) => environment.token.clone(),
    };
    if let Some(url) = url {
        let addresses = Address::parse_list(url)?;
        return Ok(Context { addresses, token });
    }
    if token.is_some() {
        return Err(CliError::NoCluster);
    }
    let file = match ClusterFile::read(&environment.folder.join(DEV_CLUSTER_FILE)) {
        Ok(file) => file,
        Err(CliError::PrivateFile(PrivateFileError::Read { source, .. }))
            if source.kind() == io::ErrorKind::NotFound =>
        {
            return Err(CliError::NoCluster);
        }
        Err(error) => return Err(error),
    };
    let urls: Vec<String> = file.nodes.into_iter().map(|node| node.http).collect();
    Ok(Context {
        addresses: Address::parse_list(&urls.join(","))?,
        token: Some(file.admin_token),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::PermissionsExt;

    fn remote() -> Remote {
        Remote {
            url: None,
            token: None,
            token_file: None,
            output: Output::Table,
        }
    }

    fn dev_folder() -> (tempfile::TempDir, Environment) {
        let dir = tempfile::tempdir().expect("a folder");
        fs::create_dir(dir.path().join(".henge-dev")).expect("made");
        let json = r#"{"cluster_id":"00000000000000000000000000000000","admin_user":"admin",
            "admin_token":"dev","nodes":[{"id":1,"http":"http://127.0.0.1:7401","ssh":null,
            "rpc":"127.0.0.1:7441","pid":1,"data_dir":"/d","config":"/c"}]}"#;
        private_file::write(&dir.path().join(DEV_CLUSTER_FILE), json.as_bytes()).expect("written");
        let environment = Environment {
            folder: dir.path().to_owned(),
            ..Environment::default()
        };
        (dir, environment)
    }

    #[test]
    fn flags_win_over_the_environment_and_both_over_the_dev_cluster() {
        let (dir, mut environment) = dev_folder();
        let Context { addresses, token } =
            resolve(&remote(), &environment).expect("the dev cluster");
        assert_eq!(addresses[0].as_str(), "http://127.0.0.1:7401");
        assert_eq!(token, Some(Secret::new("dev")));

        environment.url = Some("http://env:1,http://env:2".to_owned());
        let Context { addresses, token } =
            resolve(&remote(), &environment).expect("the environment");
        assert_eq!((addresses.len(), token), (2, None));

        environment.token = Some(Secret::new("env"));
        let file = dir.path().join("token");
        private_file::write(&file, b"filed\n").expect("written");
        let flags = Remote {
            url: Some("http://flag:1".to_owned()),
            token_file: Some(file.clone()),
            ..remote()
        };
        let Context { addresses, token } = resolve(&flags, &environment).expect("the flags");
        assert_eq!(addresses[0].as_str(), "http://flag:1");
        assert_eq!(token, Some(Secret::new("filed")));

        fs::set_permissions(&file, fs::Permissions::from_mode(0o644)).expect("chmod");
        assert!(matches!(
            resolve(&flags, &environment),
            Err(CliError::PrivateFile(PrivateFileError::Exposed { .. }))
        ));
    }

    #[test]
    fn a_token_alone_or_nothing_names_no_cluster() {
        let (_dir, mut environment) = dev_folder();
        environment.token = Some(Secret::new("t"));
        assert!(matches!(
            resolve(&remote(), &environment),
            Err(CliError::NoCluster)
        ));
        let nowhere = Environment {
            folder: PathBuf::from("/nonexistent"),
            ..Environment::default()
        };
        assert!(matches!(
            resolve(&remote(), &nowhere),
            Err(CliError::NoCluster)
        ));
        let both = Remote {
            token: Some("a".to_owned()),
            token_file: Some(PathBuf::from("/b")),
            ..remote()
        };
        assert!(matches!(resolve(&both, &nowhere), Err(CliError::TwoTokens)));
    }
}
