//! Errors of commands, each with its remedy and its exit code.

use std::io;
use std::path::PathBuf;

use henge_client::{ClientError, InvalidAddress};
use henge_git_client::{Error as TransferError, InvalidUrl};
use henge_types::names::InvalidName;
use henge_types::{ErrorCode, NodeId};
use thiserror::Error;

use crate::console::Console;
use crate::exit::Exit;
use crate::private_file::PrivateFileError;

/// The error of a command.
#[derive(Debug, Error)]
pub enum CliError {
    /// No cluster is configured.
    #[error(
        "no cluster given: pass --url http://HOST:PORT, set HENGE_URL, or run this where `henge dev` was started"
    )]
    NoCluster,
    /// An invalid address.
    #[error(transparent)]
    Address(#[from] InvalidAddress),
    /// Two tokens.
    #[error("--token and --token-file cannot be given together")]
    TwoTokens,
    /// A token or cluster file that cannot be used.
    #[error(transparent)]
    PrivateFile(#[from] PrivateFileError),
    /// A cluster file with invalid content.
    #[error("{path} is not a cluster file: {detail}")]
    ClusterFile {
        /// The file.
        path: PathBuf,
        /// The fault.
        detail: String,
    },
    /// A node that is not in the cluster.
    #[error("the cluster has no node {node}: `henge cluster status` lists them")]
    NoSuchNode {
        /// The number.
        node: NodeId,
    },
    /// A deletion without confirmation.
    #[error("deleting {repo} cannot be undone: pass --yes")]
    NotConfirmed {
        /// The repository.
        repo: String,
    },
    /// The user at the terminal did not confirm a deletion.
    #[error("{repo} was not deleted")]
    ThoughtBetter {
        /// The repository.
        repo: String,
    },
    /// An edit without a change.
    #[error(
        "nothing to change: pass --description, --default-branch, --private, --public or --topic"
    )]
    NothingToChange,
    /// An invalid topic.
    #[error("--topic: {source}")]
    Topic {
        /// The reason.
        source: InvalidName,
    },
    /// The cluster refused a call, or did not answer.
    #[error("{what}: {source}")]
    Call {
        /// The attempted operation.
        what: String,
        /// The failure.
        source: ClientError,
    },
    /// The cluster's list of repositories repeats itself.
    #[error("the list of repositories goes back to {path}: give up")]
    ListLoops {
        /// The repeated path.
        path: String,
    },
    /// A compaction failed or did less than requested.
    #[error("{repo} was not compacted: {why}")]
    NotCompacted {
        /// The repository.
        repo: String,
        /// The report of its leader.
        why: String,
    },
    /// A compaction takes longer than the command waits.
    #[error(
        "the compaction of {repo} is not done after {waited_s} s: it goes on, `henge repo stats` tells"
    )]
    StillCompacting {
        /// The repository.
        repo: String,
        /// The time of the wait.
        waited_s: u64,
    },
    /// A check found a problem, or could not be completed.
    #[error("{repo} is not whole everywhere: {problems} problems, {unchecked} replicas unchecked")]
    NotWhole {
        /// The repository.
        repo: String,
        /// Problems on all replicas together.
        problems: u64,
        /// Replicas without a complete check.
        unchecked: usize,
    },
    /// A check takes longer than the command waits.
    #[error(
        "the check of {repo} is not done after {waited_s} s: it goes on, and asking with --wait again tells its outcome"
    )]
    StillChecking {
        /// The repository.
        repo: String,
        /// The time of the wait.
        waited_s: u64,
    },
    /// The node that took the request leads no more.
    #[error("the leader of {repo} changed meanwhile: ask again")]
    LeaderChanged {
        /// The repository.
        repo: String,
    },
    /// A source that is not a URL.
    #[error(transparent)]
    SourceUrl(InvalidUrl),
    /// A source on this machine that cannot be read.
    #[error("{path} cannot be imported: {detail}")]
    NotARepository {
        /// The directory.
        path: PathBuf,
        /// The fault.
        detail: String,
    },
    /// A mirror of a directory of this machine.
    #[error(
        "--mirror needs a URL: the nodes of the cluster cannot follow a directory of this machine"
    )]
    MirrorOfDirectory,
    /// An import into an existing repository.
    #[error("{repo} exists already: pass --update to bring it up to date")]
    ImportExists {
        /// The repository.
        repo: String,
    },
    /// The user at the terminal did not confirm an import that deletes many refs.
    #[error("{repo} was not changed")]
    NotPruned {
        /// The repository.
        repo: String,
    },
    /// A transfer of objects failed.
    #[error("{what}: {source}")]
    Transfer {
        /// The attempted operation.
        what: String,
        /// The failure.
        source: TransferError,
    },
    /// An import with refused refs.
    #[error(
        "{refs} refs were refused: {repo} is not the same as its source{}",
        kept_private(*.stays_private)
    )]
    RefsRefused {
        /// The repository.
        repo: String,
        /// Their number.
        refs: usize,
        /// Whether the repository was to become public.
        stays_private: bool,
    },
    /// The output failed.
    #[error("cannot write the output: {0}")]
    Output(#[from] io::Error),
}

impl CliError {
    /// The exit code.
    pub fn exit(&self) -> Exit {
        match self {
            Self::NoCluster
            | Self::Address(_)
            | Self::TwoTokens
            | Self::NotConfirmed { .. }
            | Self::NothingToChange
            | Self::Topic { .. }
            | Self::PrivateFile(_)
            | Self::ClusterFile { .. }
            | Self::SourceUrl(_)
            | Self::MirrorOfDirectory
            | Self::NotARepository { .. } => Exit::Usage,
            Self::NoSuchNode { .. } => Exit::NotFound,
            Self::ImportExists { .. } => Exit::Conflict,
            Self::Transfer { source, .. } => transfer_exit(source),
            Self::Call { source, .. } => source.code().into(),
            Self::ThoughtBetter { .. }
            | Self::NotPruned { .. }
            | Self::ListLoops { .. }
            | Self::NotCompacted { .. }
            | Self::NotWhole { .. }
            | Self::RefsRefused { .. } => Exit::Failure,
            Self::StillCompacting { .. }
            | Self::StillChecking { .. }
            | Self::LeaderChanged { .. } => Exit::Unknown,
            // `henge repo list | head` got its lines.
            Self::Output(error) if error.kind() == io::ErrorKind::BrokenPipe => Exit::Ok,
            Self::Output(_) => Exit::Failure,
        }
    }

    fn hint(&self) -> Option<&'static str> {
        if let Self::Transfer { source, .. } = self
            && source.may_pass()
        {
            return Some("what was done stays: run it again (an import with --update)");
        }
        if let Self::Transfer {
            source: TransferError::Losses(_),
            ..
        } = self
        {
            return Some("pass --force if that is meant");
        }
        if let Self::Transfer {
            source: TransferError::Push { message },
            ..
        } = self
            && henge_git::rules::is_eased(message)
        {
            return Some(
                "old histories have such objects, and a lenient repository takes them: run it again with --update --fsck lenient",
            );
        }
        let Self::Call { source, .. } = self else {
            return None;
        };
        if matches!(source, ClientError::Unreachable { .. }) {
            return Some("does the cluster run, and are these its addresses?");
        }
        match source.code() {
            ErrorCode::Unauthenticated => Some("pass --token or --token-file, or set HENGE_TOKEN"),
            ErrorCode::Timeout => Some("the outcome is unknown: look before you try again"),
            ErrorCode::Unavailable | ErrorCode::Throttled => {
                Some("nothing was done: `henge cluster status` says what is wrong")
            }
            ErrorCode::NotFound
            | ErrorCode::AlreadyExists
            | ErrorCode::Invalid
            | ErrorCode::Forbidden
            | ErrorCode::Conflict
            | ErrorCode::Internal => None,
        }
    }

    /// Prints the error for people and returns its exit code.
    pub(crate) fn tell(&self, console: &mut Console<'_>) -> Exit {
        let exit = self.exit();
        if exit != Exit::Ok {
            let mut text = format!("henge: {self}\n");
            if let Some(hint) = self.hint() {
                text.push_str(&format!("henge: {hint}\n"));
            }
            // Without standard error, the exit code is the only report.
            drop(console.err.write_all(text.as_bytes()));
        }
        exit
    }
}

const fn kept_private(stays: bool) -> &'static str {
    match stays {
        true => " and stays private",
        false => "",
    }
}

fn transfer_exit(error: &TransferError) -> Exit {
    if matches!(
        error,
        TransferError::Denied { .. } | TransferError::Forbidden { .. }
    ) {
        Exit::Denied
    } else if matches!(error, TransferError::NotFound { .. }) {
        Exit::NotFound
    } else if matches!(
        error,
        TransferError::Exists { .. } | TransferError::Losses(_)
    ) {
        Exit::Conflict
    } else {
        Exit::Failure
    }
}

/// The failure of a call, with the operation on the repository.
pub(crate) fn failed(
    what: &str,
    path: &(impl ToString + ?Sized),
) -> impl FnOnce(ClientError) -> CliError {
    let what = format!("cannot {what} {}", path.to_string());
    move |source| CliError::Call { what, source }
}
