//! Maps errors of the lower layers to the errors of this layer.

use henge_cluster::ClusterError;
use henge_git::http::ServiceError;
use henge_types::{ErrorCode, GroupId, NodeId, NotAccepted, Refusal, Reply, RepoPath, limits};

/// Seconds a client should wait before a retry when a group has no quorum.
const RETRY_AFTER_S: u32 = 2;

pub(crate) fn failed(code: ErrorCode, message: impl Into<String>) -> ServiceError {
    ServiceError {
        code,
        message: message.into(),
        retry_after_s: None,
    }
}

pub(crate) fn invalid(message: impl Into<String>) -> ServiceError {
    failed(ErrorCode::Invalid, message)
}

pub(crate) fn internal(message: impl Into<String>) -> ServiceError {
    failed(ErrorCode::Internal, message)
}

pub(crate) fn unavailable(message: impl Into<String>) -> ServiceError {
    ServiceError {
        code: ErrorCode::Unavailable,
        message: message.into(),
        retry_after_s: Some(RETRY_AFTER_S),
    }
}

pub(crate) fn not_found(path: &RepoPath) -> ServiceError {
    failed(
        ErrorCode::NotFound,
        format!("there is no repository {path}"),
    )
}

/// The error for callers who may not learn whether the repository exists.
pub(crate) fn log_in_first() -> ServiceError {
    failed(
        ErrorCode::Unauthenticated,
        "log in first: send a token as the password",
    )
}

/// The node has no permit for another fetch.
pub(crate) fn too_many_fetches(node: NodeId) -> ServiceError {
    ServiceError {
        retry_after_s: Some(5),
        ..failed(
            ErrorCode::Throttled,
            format!(
                "{} fetches run on node {node} already: try again",
                limits::FETCHES_AT_ONCE
            ),
        )
    }
}

pub(crate) fn no_quorum(group: GroupId) -> ServiceError {
    if group.is_meta() {
        unavailable("no quorum for the catalogue of repositories: nothing was changed, try again")
    } else {
        unavailable("no quorum for this repository: nothing was changed, try again")
    }
}

/// The error of a call or barrier without an answer.
pub(crate) fn from_cluster(error: &ClusterError) -> ServiceError {
    match error {
        ClusterError::NoQuorum { group } => no_quorum(*group),
        ClusterError::UnknownOutcome { .. } => ServiceError {
            code: ErrorCode::Timeout,
            message:
                "no answer in time, it may or may not have been done: look before trying again"
                    .to_owned(),
            retry_after_s: Some(RETRY_AFTER_S),
        },
        ClusterError::OtherRelease { .. } => unavailable(error.to_string()),
        ClusterError::LogFull { .. } => unavailable(error.to_string()),
        ClusterError::TooLarge { .. } => {
            invalid("the request is larger than one change may be: make it in smaller steps")
        }
        ClusterError::NoReplica(_) => unavailable("this node is still starting: try again"),
    }
}

/// The error of a refusal that reaches a caller.
pub(crate) fn from_refusal(refusal: &Refusal, path: &RepoPath) -> ServiceError {
    match refusal {
        Refusal::NameTaken { path, .. } => failed(
            ErrorCode::AlreadyExists,
            format!("there is a repository {path} already"),
        ),
        Refusal::NoSuchRepo { .. } => not_found(path),
        Refusal::WrongGeneration { .. } | Refusal::WrongState { .. } => failed(
            ErrorCode::Conflict,
            format!("repository {path} was made or deleted meanwhile: look again"),
        ),
        Refusal::IdTaken { .. } | Refusal::RequestMismatch => {
            internal("an id was used twice: try again")
        }
        Refusal::ProtectionExists => failed(
            ErrorCode::AlreadyExists,
            "these refs are protected already, by the same pattern",
        ),
        Refusal::NoSuchProtection => failed(
            ErrorCode::NotFound,
            "no refs are protected by this pattern: it has to be written as it was set",
        ),
        Refusal::TooMany => invalid(format!(
            "a repository has at most {} topics and {} patterns of protected refs",
            limits::TOPICS_MAX,
            limits::REF_PROTECTIONS_MAX
        )),
        // Refusals of compactions only.
        Refusal::NoSuchNetwork { .. } | Refusal::NoSuchPack { .. } => failed(
            ErrorCode::Conflict,
            format!("the packs of repository {path} changed meanwhile: look again"),
        ),
        Refusal::AlreadyFormed
        | Refusal::UnknownNode
        | Refusal::Invalid
        | Refusal::LaterStart { .. } => invalid("the request breaks a limit or makes no sense"),
    }
}

/// The reply of a command whose only replies are done and refused.
///
/// # Errors
/// `Internal` for any other reply.
pub(crate) fn done(
    command: &'static str,
    reply: Reply,
) -> Result<Result<(), Refusal>, ServiceError> {
    match reply.accepted() {
        Ok(()) => Ok(Ok(())),
        Err(NotAccepted::Refused(refusal)) => Ok(Err(refusal)),
        Err(
            other @ (NotAccepted::Foreign(_) | NotAccepted::UnknownOutcome | NotAccepted::Recheck),
        ) => Err(unexpected(command, &other)),
    }
}

/// The error for a reply that does not belong to the command.
pub(crate) fn unexpected(command: &'static str, reply: &NotAccepted) -> ServiceError {
    tracing::error!(
        command,
        ?reply,
        "a command was answered with what it never answers"
    );
    internal("the cluster gave an answer that makes no sense: the node's log says more")
}
