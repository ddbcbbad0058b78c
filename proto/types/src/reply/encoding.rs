//! The stored form of replies: variants are only ever added at the end.

use std::borrow::Cow;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::{RefVerdict, Refusal, Reply};
use crate::records::{RepoRecordV1, RepoRecordV2};

#[derive(Serialize, Deserialize)]
enum StoredReply<'a> {
    Done,
    Repo(RepoRecordV1),
    RefsUpdated { verdicts: Cow<'a, [RefVerdict]> },
    Refused(Cow<'a, Refusal>),
    UnknownOutcome,
    Recheck,
    // From release level 3 on.
    RepoV2(RepoRecordV2),
}

impl<'a> From<&'a Reply> for StoredReply<'a> {
    fn from(reply: &'a Reply) -> Self {
        match reply {
            Reply::Done => Self::Done,
            Reply::Repo(record) if record.is_of_version_1() => Self::Repo(record.into()),
            Reply::Repo(record) => Self::RepoV2(record.into()),
            Reply::RefsUpdated { verdicts } => Self::RefsUpdated {
                verdicts: Cow::Borrowed(verdicts),
            },
            Reply::Refused(refusal) => Self::Refused(Cow::Borrowed(refusal)),
            Reply::UnknownOutcome => Self::UnknownOutcome,
            Reply::Recheck => Self::Recheck,
        }
    }
}

impl From<StoredReply<'_>> for Reply {
    fn from(stored: StoredReply<'_>) -> Self {
        match stored {
            StoredReply::Done => Self::Done,
            StoredReply::Repo(record) => Self::Repo(record.into()),
            StoredReply::RepoV2(record) => Self::Repo(record.into()),
            StoredReply::RefsUpdated { verdicts } => Self::RefsUpdated {
                verdicts: verdicts.into_owned(),
            },
            StoredReply::Refused(refusal) => Self::Refused(refusal.into_owned()),
            StoredReply::UnknownOutcome => Self::UnknownOutcome,
            StoredReply::Recheck => Self::Recheck,
        }
    }
}

impl Serialize for Reply {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        StoredReply::from(self).serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Reply {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        StoredReply::deserialize(deserializer).map(Self::from)
    }
}
