//! Typed replies: the reply to an accepted command has the kind that the command's row names.

use thiserror::Error;

use super::{RefVerdict, Refusal, Reply};
use crate::records::RepoRecord;

/// The kind of reply that an accepted command has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReplyKind {
    /// [`Reply::Done`].
    Done,
    /// [`Reply::Repo`].
    Repo,
    /// [`Reply::RefsUpdated`].
    RefsUpdated,
}

impl ReplyKind {
    /// Whether a command of this kind may have this reply. Each command may be refused, and each
    /// request may be one with an unknown outcome.
    pub const fn allows(self, reply: &Reply) -> bool {
        match reply {
            Reply::Done => matches!(self, Self::Done),
            Reply::Repo(_) => matches!(self, Self::Repo),
            Reply::RefsUpdated { .. } => matches!(self, Self::RefsUpdated),
            Reply::Refused(_) | Reply::UnknownOutcome | Reply::Recheck => true,
        }
    }
}

/// The reply to an accepted command, as a type.
pub trait TypedReply: Sized {
    /// The kind of reply that it is read from.
    const KIND: ReplyKind;

    /// Reads the reply.
    ///
    /// # Errors
    /// When the command was not accepted.
    fn from_reply(reply: Reply) -> Result<Self, NotAccepted>;
}

impl Reply {
    /// The reply as that of a command whose replies are of this type.
    ///
    /// # Errors
    /// When the command was not accepted.
    pub fn accepted<T: TypedReply>(self) -> Result<T, NotAccepted> {
        T::from_reply(self)
    }
}

/// The reason why a reply is not that of an accepted command.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum NotAccepted {
    /// Nothing was done.
    #[error("the command was refused: {0:?}")]
    Refused(Refusal),
    /// The request id is too old for its record: the command may have been executed.
    #[error("the outcome of the request is unknown")]
    UnknownOutcome,
    /// Nothing was done: the state has changed since the command was checked.
    #[error("the state has changed since the command was checked: check it again")]
    Recheck,
    /// The reply is that of another command: the two nodes disagree about the number.
    #[error("the reply is that of another command: {0:?}")]
    Foreign(Box<Reply>),
}

impl From<Reply> for NotAccepted {
    fn from(reply: Reply) -> Self {
        match reply {
            Reply::Refused(refusal) => Self::Refused(refusal),
            Reply::UnknownOutcome => Self::UnknownOutcome,
            Reply::Recheck => Self::Recheck,
            other @ (Reply::Done | Reply::Repo(_) | Reply::RefsUpdated { .. }) => {
                Self::Foreign(Box::new(other))
            }
        }
    }
}

impl TypedReply for () {
    const KIND: ReplyKind = ReplyKind::Done;

    fn from_reply(reply: Reply) -> Result<Self, NotAccepted> {
        if reply == Reply::Done {
            Ok(())
        } else {
            Err(reply.into())
        }
    }
}

impl TypedReply for RepoRecord {
    const KIND: ReplyKind = ReplyKind::Repo;

    fn from_reply(reply: Reply) -> Result<Self, NotAccepted> {
        if let Reply::Repo(record) = reply {
            Ok(record)
        } else {
            Err(reply.into())
        }
    }
}

impl TypedReply for Vec<RefVerdict> {
    const KIND: ReplyKind = ReplyKind::RefsUpdated;

    fn from_reply(reply: Reply) -> Result<Self, NotAccepted> {
        if let Reply::RefsUpdated { verdicts } = reply {
            Ok(verdicts)
        } else {
            Err(reply.into())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reply_is_read_as_its_kind_only() {
        let updated = || Reply::RefsUpdated {
            verdicts: Vec::new(),
        };
        assert_eq!(<()>::from_reply(Reply::Done), Ok(()));
        assert_eq!(Vec::<RefVerdict>::from_reply(updated()), Ok(Vec::new()));
        let foreign = NotAccepted::Foreign(Box::new(updated()));
        assert_eq!(<()>::from_reply(updated()), Err(foreign.clone()));
        assert_eq!(RepoRecord::from_reply(updated()), Err(foreign));
        assert!(ReplyKind::RefsUpdated.allows(&updated()));
        assert!(!ReplyKind::Done.allows(&updated()));
    }

    #[test]
    fn every_kind_may_be_refused() {
        for kind in [ReplyKind::Done, ReplyKind::Repo, ReplyKind::RefsUpdated] {
            assert!(kind.allows(&Reply::Refused(Refusal::Invalid)));
        }
        let refused = <()>::from_reply(Reply::Refused(Refusal::Invalid));
        assert_eq!(refused, Err(NotAccepted::Refused(Refusal::Invalid)));
    }
}
