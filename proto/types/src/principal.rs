//! Principals, the subjects of actions: one notation for the log, for records and for messages
//! between nodes.
//!
//! The log and the records hold a principal as its text, since the first release. Jobs and deploy
//! keys have no text yet: each becomes a variant together with the records that make one.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::mirrors::{MirrorPusher, PUSHER};
use crate::names::{InvalidName, OwnerName};

/// The administrator, the only user until accounts exist.
const ADMIN: &str = "admin";
/// A token for the page of metrics.
const METRICS_TOKEN: &str = "monitoring";
/// The cluster itself.
const SYSTEM: &str = "henge";
/// A request without a token.
const ANONYMOUS: &str = "anonymous";
/// Texts of principals that are not users.
const RESERVED: [&str; 3] = [METRICS_TOKEN, SYSTEM, ANONYMOUS];

/// A text that is not a principal's.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum InvalidPrincipal {
    /// A text with the prefix of a mirror's run and without a valid one.
    #[error("{text:?} names no run of a mirror")]
    Mirror {
        /// The text, cut.
        text: String,
    },
    /// It is not a user's name either.
    #[error(transparent)]
    User(#[from] InvalidName),
}

/// The name of a user: an owner's name that stands for no other principal.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct UserName(OwnerName);

impl UserName {
    /// The name.
    pub fn as_str(&self) -> &str {
        self.0.as_str()
    }

    /// The owner of the user's own repositories.
    pub const fn owner(&self) -> &OwnerName {
        &self.0
    }

    /// Whether the user is the administrator.
    pub fn is_admin(&self) -> bool {
        self.as_str() == ADMIN
    }
}

impl fmt::Display for UserName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl FromStr for UserName {
    type Err = InvalidName;

    fn from_str(name: &str) -> Result<Self, InvalidName> {
        let owner: OwnerName = name.parse()?;
        if RESERVED
            .iter()
            .any(|word| word.eq_ignore_ascii_case(owner.as_str()))
        {
            return Err(InvalidName::Reserved {
                name: name.to_owned(),
            });
        }
        Ok(Self(owner))
    }
}

/// The scope of a token that belongs to no user.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum TokenScope {
    /// The page of metrics.
    Metrics,
}

/// The subject of an action. Encoded as its text, so that variants may be added.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Principal {
    /// A user: `admin`.
    User(UserName),
    /// A token that belongs to no user: `monitoring`.
    Token(TokenScope),
    /// A run of a pull mirror: `mirror/MIRROR/FENCE`.
    Mirror(MirrorPusher),
    /// The cluster, which completes operations that were begun: `henge`.
    System,
    /// A request without a token: `anonymous`. It is never in the log.
    #[default]
    Anonymous,
}

impl Principal {
    /// The administrator.
    pub fn admin() -> Self {
        let name = ADMIN.parse::<UserName>();
        Self::User(name.expect("invariant: admin is a valid user name"))
    }

    /// The user, if it is one.
    pub const fn user(&self) -> Option<&UserName> {
        match self {
            Self::User(name) => Some(name),
            Self::Token(_) | Self::Mirror(_) | Self::System | Self::Anonymous => None,
        }
    }

    /// Whether it is a request without a token.
    pub const fn is_anonymous(&self) -> bool {
        matches!(self, Self::Anonymous)
    }
}

impl fmt::Display for Principal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::User(name) => name.fmt(f),
            Self::Token(TokenScope::Metrics) => f.write_str(METRICS_TOKEN),
            Self::Mirror(pusher) => pusher.fmt(f),
            Self::System => f.write_str(SYSTEM),
            Self::Anonymous => f.write_str(ANONYMOUS),
        }
    }
}

impl FromStr for Principal {
    type Err = InvalidPrincipal;

    fn from_str(text: &str) -> Result<Self, InvalidPrincipal> {
        match text {
            METRICS_TOKEN => return Ok(Self::Token(TokenScope::Metrics)),
            SYSTEM => return Ok(Self::System),
            ANONYMOUS => return Ok(Self::Anonymous),
            _ => {}
        }
        if text.starts_with(PUSHER) {
            let pusher = MirrorPusher::parse(text).ok_or_else(|| InvalidPrincipal::Mirror {
                text: text.chars().take(128).collect(),
            })?;
            return Ok(Self::Mirror(pusher));
        }
        Ok(Self::User(text.parse()?))
    }
}

impl From<Principal> for String {
    fn from(principal: Principal) -> Self {
        principal.to_string()
    }
}

impl TryFrom<String> for Principal {
    type Error = InvalidPrincipal;

    fn try_from(text: String) -> Result<Self, InvalidPrincipal> {
        text.parse()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::{LogIndex, MirrorId};

    fn mirror() -> Principal {
        Principal::Mirror(MirrorPusher {
            mirror: MirrorId::from_bytes([7; 16]),
            fence: LogIndex::new(12),
        })
    }

    /// The log and the records hold these texts.
    #[test]
    fn texts_are_those_of_the_first_release() {
        let of_mirror = format!("mirror/{}/12", MirrorId::from_bytes([7; 16]));
        for (principal, text) in [
            (Principal::admin(), "admin"),
            (Principal::Token(TokenScope::Metrics), "monitoring"),
            (mirror(), of_mirror.as_str()),
            (Principal::System, "henge"),
            (Principal::Anonymous, "anonymous"),
            (Principal::User("eve".parse().unwrap()), "eve"),
        ] {
            assert_eq!(principal.to_string(), text);
            assert_eq!(text.parse::<Principal>(), Ok(principal.clone()), "{text}");
            // Between nodes and on disks a principal is its text.
            let encoded = postcard::to_stdvec(&principal).unwrap();
            assert_eq!(encoded, postcard::to_stdvec(text).unwrap(), "{text}");
            let back: Principal = postcard::from_bytes(&encoded).unwrap();
            assert_eq!(back, principal);
        }
    }

    #[test]
    fn no_user_has_the_text_of_another_principal() {
        for name in ["henge", "Henge", "monitoring", "anonymous", "system", "a/b"] {
            assert!(name.parse::<UserName>().is_err(), "{name}");
        }
        for text in ["", "mirror/", "mirror/x/1", "mirror/0707/1", "job/1", "a b"] {
            assert!(text.parse::<Principal>().is_err(), "{text:?}");
        }
        // A mirror's text has a slash, which no name has.
        let named = Principal::User("mirror".parse().unwrap());
        assert_eq!("mirror".parse::<Principal>(), Ok(named));
    }

    #[test]
    fn only_one_user_is_the_administrator() {
        let is_admin = |text: &str| {
            let principal: Principal = text.parse().unwrap();
            principal.user().is_some_and(UserName::is_admin)
        };
        assert!(is_admin("admin"));
        for other in ["Admin", "eve", "henge", "monitoring", "anonymous"] {
            assert!(!is_admin(other), "{other}");
        }
        assert!(Principal::default().is_anonymous());
    }
}
