//! Names that people choose, validated once at the edge.

use std::borrow::Borrow;
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::limits;

mod ref_pattern;
mod ref_patterns;

pub use ref_pattern::RefPattern;
pub use ref_patterns::RefPatterns;

/// Why a name was refused.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum InvalidName {
    /// The name is empty, or empty once `.git` was cut.
    #[error("the name is empty")]
    Empty,
    /// Longer than allowed.
    #[error("{name:?} is longer than {max} bytes")]
    TooLong {
        /// The name, cut.
        name: String,
        /// The bound, in bytes.
        max: usize,
    },
    /// A character that is not allowed, or not at this place.
    #[error(
        "{name:?} is not a valid name: letters, digits, '-', '_' and '.' are allowed, it starts with a letter or digit"
    )]
    Characters {
        /// The name.
        name: String,
    },
    /// A name that the product or git uses itself.
    #[error("{name:?} is reserved")]
    Reserved {
        /// The name.
        name: String,
    },
    /// Not `OWNER/NAME`.
    #[error("{text:?} is not OWNER/NAME")]
    NotAPath {
        /// The text.
        text: String,
    },
    /// Not a topic.
    #[error(
        "{name:?} is not a topic: at most {max} lower-case letters, digits and '-', and no '-' in front",
        max = limits::TOPIC_BYTES_MAX
    )]
    Topic {
        /// The text, cut.
        name: String,
    },
    /// Not a pattern of ref names.
    #[error(
        "{name:?} is not a pattern of refs: a ref name in which '*', '?' and '[…]' stand for what they do in \
         gitignore(5), at most {max} bytes",
        max = limits::REF_PATTERN_BYTES_MAX
    )]
    Pattern {
        /// The text, cut.
        name: String,
    },
    /// Not a valid ref name by git-check-ref-format(1).
    #[error("{name:?} is not a valid ref name")]
    Ref {
        /// The name.
        name: String,
    },
}

const RESERVED_OWNERS: &[&str] = &[
    "api", "assets", "govc", "healthz", "login", "metrics", "readyz", "static", "system", "user",
    "-",
];

fn check_component(name: &str, max: usize) -> Result<(), InvalidName> {
    if name.is_empty() {
        return Err(InvalidName::Empty);
    }
    if name.len() > max {
        return Err(InvalidName::TooLong {
            name: name.chars().take(max).collect(),
            max,
        });
    }
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
    let starts_well = name
        .bytes()
        .next()
        .is_some_and(|byte| byte.is_ascii_alphanumeric());
    if !starts_well || !name.bytes().all(allowed) || name.contains("..") || name.ends_with('.') {
        return Err(InvalidName::Characters {
            name: name.to_owned(),
        });
    }
    Ok(())
}

macro_rules! name {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(String);

        impl $name {
            /// The name.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{:?}", self.0)
            }
        }

        impl From<$name> for String {
            fn from(name: $name) -> Self {
                name.0
            }
        }

        impl TryFrom<String> for $name {
            type Error = InvalidName;

            fn try_from(name: String) -> Result<Self, InvalidName> {
                name.parse()
            }
        }
    };
}

name!(
    /// A user or organisation, the first part of a repository's path.
    OwnerName
);
name!(
    /// A repository's name below its owner, without `.git`.
    RepoName
);
name!(
    /// A word for the subject of a repository: lower-case letters, digits and `-`.
    Topic
);
name!(
    /// A full ref name (`refs/heads/main`), valid by git-check-ref-format(1) and below `refs/`.
    RefName
);

impl FromStr for OwnerName {
    type Err = InvalidName;

    fn from_str(name: &str) -> Result<Self, InvalidName> {
        check_component(name, limits::NAME_BYTES_MAX)?;
        if RESERVED_OWNERS.contains(&name.to_ascii_lowercase().as_str()) {
            return Err(InvalidName::Reserved {
                name: name.to_owned(),
            });
        }
        Ok(Self(name.to_owned()))
    }
}

impl FromStr for RepoName {
    type Err = InvalidName;

    fn from_str(name: &str) -> Result<Self, InvalidName> {
        check_component(name, limits::NAME_BYTES_MAX)?;
        let lower = name.to_ascii_lowercase();
        if lower.ends_with(".git") || lower.ends_with(".wiki") || lower.ends_with(".lock") {
            return Err(InvalidName::Reserved {
                name: name.to_owned(),
            });
        }
        Ok(Self(name.to_owned()))
    }
}

impl FromStr for Topic {
    type Err = InvalidName;

    fn from_str(topic: &str) -> Result<Self, InvalidName> {
        let allowed = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
        let fine = (1..=limits::TOPIC_BYTES_MAX).contains(&topic.len())
            && !topic.starts_with('-')
            && topic.bytes().all(allowed);
        if fine {
            Ok(Self(topic.to_owned()))
        } else {
            Err(InvalidName::Topic {
                name: topic.chars().take(64).collect(),
            })
        }
    }
}

/// `OWNER/NAME`, as people write it. Two paths that differ only in case are the same repository.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct RepoPath {
    /// The owner.
    pub owner: OwnerName,
    /// The name below the owner.
    pub name: RepoName,
}

impl RepoPath {
    /// The key by which paths are compared: both parts in lower case.
    pub fn key(&self) -> String {
        format!("{}/{}", self.owner, self.name).to_ascii_lowercase()
    }
}

impl fmt::Display for RepoPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.owner, self.name)
    }
}

impl FromStr for RepoPath {
    type Err = InvalidName;

    /// Accepts `OWNER/NAME` and `OWNER/NAME.git`.
    fn from_str(text: &str) -> Result<Self, InvalidName> {
        let not_a_path = || InvalidName::NotAPath {
            text: text.to_owned(),
        };
        let (owner, name) = text.split_once('/').ok_or_else(not_a_path)?;
        if name.contains('/') {
            return Err(not_a_path());
        }
        let name = name.strip_suffix(".git").unwrap_or(name);
        Ok(Self {
            owner: owner.parse()?,
            name: name.parse()?,
        })
    }
}

/// Names compare and hash as their text does: a map of refs is searched by a prefix that is not a
/// name.
impl Borrow<str> for RefName {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl RefName {
    /// Whether the ref is a branch.
    pub fn is_branch(&self) -> bool {
        self.0.starts_with("refs/heads/")
    }

    /// Whether the ref is a tag.
    pub fn is_tag(&self) -> bool {
        self.0.starts_with("refs/tags/")
    }

    /// The name below `refs/heads/` or `refs/tags/`; the full name for every other ref.
    pub fn short(&self) -> &str {
        let full = self.0.as_str();
        full.strip_prefix("refs/heads/")
            .or_else(|| full.strip_prefix("refs/tags/"))
            .unwrap_or(full)
    }

    /// The branch of this short name.
    ///
    /// # Errors
    /// When git would refuse the name.
    pub fn branch(short: &str) -> Result<Self, InvalidName> {
        format!("refs/heads/{short}").parse()
    }
}

impl FromStr for RefName {
    type Err = InvalidName;

    fn from_str(name: &str) -> Result<Self, InvalidName> {
        if name.len() > limits::REF_NAME_BYTES_MAX {
            let cut = name.chars().take(64).collect();
            return Err(InvalidName::TooLong {
                name: cut,
                max: limits::REF_NAME_BYTES_MAX,
            });
        }
        let components_fine = name
            .split('/')
            .all(|part| !part.is_empty() && !part.starts_with('.') && !part.ends_with(".lock"));
        let forbidden = |byte: u8| {
            byte < 0x20
                || matches!(
                    byte,
                    0x7f | b' ' | b'~' | b'^' | b':' | b'?' | b'*' | b'[' | b'\\'
                )
        };
        let fine = name.starts_with("refs/")
            && name.matches('/').count() >= 2
            && components_fine
            && !name.ends_with('.')
            && !name.contains("..")
            && !name.contains("@{")
            && !name.bytes().any(forbidden);
        if fine {
            Ok(Self(name.to_owned()))
        } else {
            Err(InvalidName::Ref {
                name: name.to_owned(),
            })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn repository_paths_parse_with_and_without_git() {
        let path: RepoPath = "Admin/Demo.git".parse().expect("a valid path");
        assert_eq!(path.to_string(), "Admin/Demo");
        assert_eq!(path.key(), "admin/demo");
    }

    #[test]
    fn paths_that_would_leave_the_store_are_refused() {
        for text in [
            "a", "a/b/c", "../x", "a/..", "a/.git", "a/b.lock", "api/x", "a/", "/b", "a/b\n",
            "a/-x",
        ] {
            assert!(text.parse::<RepoPath>().is_err(), "{text:?} was accepted");
        }
    }

    #[test]
    fn topics_are_short_lower_case_words() {
        let longest = "a".repeat(35);
        for topic in ["git", "c-3", "9p", "a--b-", &longest] {
            assert!(topic.parse::<Topic>().is_ok(), "{topic:?} was refused");
        }
        let too_long = "a".repeat(36);
        for topic in ["", "-a", "Git", "a b", "a.b", "ä", &too_long] {
            assert!(topic.parse::<Topic>().is_err(), "{topic:?} was accepted");
        }
    }

    #[test]
    fn ref_names_follow_check_ref_format() {
        for name in [
            "refs/heads/main",
            "refs/tags/v1.0",
            "refs/heads/a/b",
            "refs/notes/x",
            "refs/heads/@",
            "refs/heads/-x",
            // Only the end of the whole name must not be a dot.
            "refs/heads/a./b",
        ] {
            assert!(name.parse::<RefName>().is_ok(), "{name:?} was refused");
        }
        for name in [
            "HEAD",
            "refs/heads",
            "refs/heads/",
            "refs/heads/.a",
            "refs/heads/a.lock",
            "refs/heads/a.lock/b",
            "refs/heads/a..b",
            "refs/heads/a b",
            "refs/heads/a~1",
            "refs/heads/a@{0}",
            "refs/heads/a\\b",
            "refs/heads//a",
            "refs/heads/a.",
            "refs/heads/a\u{7f}",
            "refs/heads/a*",
            "refs/x",
            "heads/main",
        ] {
            assert!(name.parse::<RefName>().is_err(), "{name:?} was accepted");
        }
    }
}
