//! Why a command failed, what to do about it, and with which code it ends.

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

/// Why a command failed.
#[derive(Debug, Error)]
pub enum CliError {
    /// Nobody said which cluster is meant.
    #[error(
        "no cluster given: pass --url http://HOST:PORT, set HENGE_URL, or run this where `henge dev` was started"
    )]
    NoCluster,
    /// An address that is none.
    #[error(transparent)]
    Address(#[from] InvalidAddress),
    /// Two tokens.
    #[error("--token and --token-file cannot be given together")]
    TwoTokens,
    /// A token or cluster file that cannot be used.
    #[error(transparent)]
    PrivateFile(#[from] PrivateFileError),
    /// A cluster file that is not one.
    #[error("{path} is not a cluster file: {detail}")]
    ClusterFile {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        detail: String,
    },
    /// A node that is not in the cluster.
    #[error("the cluster has no node {node}: `henge cluster status` lists them")]
    NoSuchNode {
        /// The number.
        node: NodeId,
    },
    /// Deleting without being asked about it.
    #[error("deleting {repo} cannot be undone: pass --yes")]
    NotConfirmed {
        /// What would have been deleted.
        repo: String,
    },
    /// The person at the terminal thought better of it.
    #[error("{repo} was not deleted")]
    ThoughtBetter {
        /// What would have been deleted.
        repo: String,
    },
    /// An edit without a change.
    #[error(
        "nothing to change: pass --description, --default-branch, --private, --public or --topic"
    )]
    NothingToChange,
    /// A topic that is none.
    #[error("--topic: {source}")]
    Topic {
        /// Why not.
        source: InvalidName,
    },
    /// The cluster said no, or nothing.
    #[error("{what}: {source}")]
    Call {
        /// What was tried.
        what: String,
        /// What came of it.
        source: ClientError,
    },
    /// The cluster's list of repositories does not come to an end.
    #[error("the list of repositories goes back to {path}: give up")]
    ListLoops {
        /// Where it goes back to.
        path: String,
    },
    /// A compaction did not do what was asked for.
    #[error("{repo} was not compacted: {why}")]
    NotCompacted {
        /// The repository.
        repo: String,
        /// What its leader says.
        why: String,
    },
    /// A compaction takes longer than was to be waited.
    #[error(
        "the compaction of {repo} is not done after {waited_s} s: it goes on, `henge repo stats` tells"
    )]
    StillCompacting {
        /// The repository.
        repo: String,
        /// How long it was waited for.
        waited_s: u64,
    },
    /// A check found something, or could not look at everything.
    #[error("{repo} is not whole everywhere: {problems} problems, {unchecked} replicas unchecked")]
    NotWhole {
        /// The repository.
        repo: String,
        /// What was found on all replicas together.
        problems: u64,
        /// Replicas that were not checked to the end.
        unchecked: usize,
    },
    /// A check takes longer than was to be waited.
    #[error(
        "the check of {repo} is not done after {waited_s} s: it goes on, and asking with --wait again tells its outcome"
    )]
    StillChecking {
        /// The repository.
        repo: String,
        /// How long it was waited for.
        waited_s: u64,
    },
    /// Whoever was asked leads no more.
    #[error("the leader of {repo} changed meanwhile: ask again")]
    LeaderChanged {
        /// The repository.
        repo: String,
    },
    /// A source that is no URL.
    #[error(transparent)]
    SourceUrl(InvalidUrl),
    /// A source on this machine that cannot be read.
    #[error("{path} cannot be imported: {detail}")]
    NotARepository {
        /// The directory.
        path: PathBuf,
        /// What is wrong with it.
        detail: String,
    },
    /// A mirror of a directory of this machine.
    #[error(
        "--mirror needs a URL: the nodes of the cluster cannot follow a directory of this machine"
    )]
    MirrorOfDirectory,
    /// An import into what is there already.
    #[error("{repo} exists already: pass --update to bring it up to date")]
    ImportExists {
        /// The repository.
        repo: String,
    },
    /// The person at the terminal thought better of an import that deletes much.
    #[error("{repo} was not changed")]
    NotPruned {
        /// The repository.
        repo: String,
    },
    /// A transfer of objects failed.
    #[error("{what}: {source}")]
    Transfer {
        /// What was tried.
        what: String,
        /// What came of it.
        source: TransferError,
    },
    /// An import that is not whole.
    #[error(
        "{refs} refs were refused: {repo} is not the same as its source{}",
        kept_private(*.stays_private)
    )]
    RefsRefused {
        /// The repository.
        repo: String,
        /// How many.
        refs: usize,
        /// Whether it was to be public.
        stays_private: bool,
    },
    /// The answer cannot be printed.
    #[error("cannot write the output: {0}")]
    Output(#[from] io::Error),
}

impl CliError {
    /// The code to end with.
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
            // `henge repo list | head` got what it wanted.
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

    /// Writes the error for a person and answers with the code to end with.
    pub(crate) fn tell(&self, console: &mut Console<'_>) -> Exit {
        let exit = self.exit();
        if exit != Exit::Ok {
            let mut text = format!("henge: {self}\n");
            if let Some(hint) = self.hint() {
                text.push_str(&format!("henge: {hint}\n"));
            }
            // Where standard error is gone too, the exit code is all that is left to say it.
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

/// The failure of a call: what could not be done to a repository.
pub(crate) fn failed(
    what: &str,
    path: &(impl ToString + ?Sized),
) -> impl FnOnce(ClientError) -> CliError {
    let what = format!("cannot {what} {}", path.to_string());
    move |source| CliError::Call { what, source }
}
