//! Patterns of ref names.

use std::fmt;
use std::ops::RangeInclusive;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::{InvalidName, RefName, RefPatterns};
use crate::limits;

/// A pattern over full ref names, as `wildmatch` of git matches paths (gitignore(5)): `*` and `?`
/// stand for anything but `/`, `[…]` for one character of a set, `**` between slashes or at the
/// end for any number of directories. A pattern that does not start with `refs/` is one of
/// branches.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct RefPattern(String);

const BRANCHES: &str = "refs/heads/";

impl RefPattern {
    /// The pattern of full names.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The pattern below `refs/heads/`; the full pattern for every other one.
    pub fn short(&self) -> &str {
        self.0.strip_prefix(BRANCHES).unwrap_or(&self.0)
    }

    /// Whether the pattern matches the ref. A caller with many names compiles [`RefPatterns`] once.
    pub fn matches(&self, name: &RefName) -> bool {
        let alone = RefPatterns::new([self.clone()]);
        alone.first_match(name).is_some()
    }

    /// The pattern, sign by sign.
    pub(super) fn signs(&self) -> Vec<Sign<'_>> {
        signs(self.0.as_bytes())
    }
}

impl fmt::Display for RefPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for RefPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.0)
    }
}

impl From<RefPattern> for String {
    fn from(pattern: RefPattern) -> Self {
        pattern.0
    }
}

impl TryFrom<String> for RefPattern {
    type Error = InvalidName;

    fn try_from(pattern: String) -> Result<Self, InvalidName> {
        pattern.parse()
    }
}

impl FromStr for RefPattern {
    type Err = InvalidName;

    fn from_str(text: &str) -> Result<Self, InvalidName> {
        let full = if text.starts_with("refs/") {
            text.to_owned()
        } else {
            format!("{BRANCHES}{text}")
        };
        let invalid = || InvalidName::Pattern {
            name: text.chars().take(64).collect(),
        };
        let sets = sets_end(full.as_bytes());
        // Characters that no ref name has, except the signs of patterns: a pattern with one would
        // silently match nothing.
        let plain: String = full
            .replace("**", "x/x")
            .chars()
            .map(|sign| match sign {
                '*' | '?' | '[' | ']' | '!' | '^' => 'x',
                other => other,
            })
            .collect();
        let fine = full.len() <= limits::REF_PATTERN_BYTES_MAX
            && !text.is_empty()
            && sets
            && plain.parse::<RefName>().is_ok();
        if fine { Ok(Self(full)) } else { Err(invalid()) }
    }
}

/// Whether every set that begins in the pattern ends in it.
fn sets_end(pattern: &[u8]) -> bool {
    let mut rest = pattern;
    while let Some(at) = rest.iter().position(|byte| *byte == b'[') {
        let behind = rest.get(at..).unwrap_or_default();
        match Set::read(behind) {
            Some((_, after)) => rest = after,
            None => return false,
        }
    }
    true
}

/// `[abc]`, `[a-z]`, `[!abc]` or `[^abc]`.
pub(super) struct Set<'p> {
    members: &'p [u8],
    negated: bool,
}

impl<'p> Set<'p> {
    /// The set at the start of `pattern`, and the rest behind it.
    fn read(pattern: &'p [u8]) -> Option<(Self, &'p [u8])> {
        let inside = pattern.strip_prefix(b"[")?;
        let negated = matches!(inside.first(), Some(b'!' | b'^'));
        let inside = inside.get(usize::from(negated)..)?;
        // A bracket in front is a member.
        let end = 1 + inside.get(1..)?.iter().position(|byte| *byte == b']')?;
        let set = Self {
            members: inside.get(..end)?,
            negated,
        };
        Some((set, inside.get(end + 1..)?))
    }

    /// Its ranges, each from its first to its last byte.
    pub(super) fn ranges(&self) -> impl Iterator<Item = RangeInclusive<u8>> + use<'p> {
        let mut members = self.members;
        std::iter::from_fn(move || {
            let (first, rest) = members.split_first()?;
            if let [b'-', last, behind @ ..] = rest {
                members = behind;
                Some(*first..=*last)
            } else {
                members = rest;
                Some(*first..=*first)
            }
        })
    }

    /// Whether the set holds the byte; `None` stands for a byte that the set does not name and that
    /// is not `/`.
    pub(super) fn holds(&self, byte: Option<u8>) -> bool {
        match byte {
            Some(b'/') => false,
            Some(byte) => self.ranges().any(|range| range.contains(&byte)) != self.negated,
            None => self.negated,
        }
    }
}

/// One sign of a pattern.
pub(super) enum Sign<'p> {
    /// This byte.
    Byte(u8),
    /// One byte but `/`.
    Any,
    /// One byte of the set.
    Of(Set<'p>),
    /// Any number of bytes but `/`.
    Name,
    /// `**/`: nothing, or any number of whole directories.
    Directories,
    /// `**` at the end: everything.
    Rest,
}

fn signs(pattern: &[u8]) -> Vec<Sign<'_>> {
    let mut signs = Vec::with_capacity(pattern.len());
    let mut rest = pattern;
    let mut at_start = true;
    while let Some((first, behind)) = rest.split_first() {
        let starts = at_start;
        at_start = *first == b'/';
        let (sign, next) = match first {
            b'*' if rest.starts_with(b"**") => {
                let stars = rest.iter().take_while(|byte| **byte == b'*').count();
                let after = rest.get(stars..).unwrap_or_default();
                match after.split_first() {
                    None if starts => (Sign::Rest, after),
                    Some((b'/', behind)) if starts => {
                        at_start = true;
                        (Sign::Directories, behind)
                    }
                    // Not alone between slashes: the same as one `*`.
                    _ => (Sign::Name, after),
                }
            }
            b'*' => (Sign::Name, behind),
            b'?' => (Sign::Any, behind),
            b'[' => match Set::read(rest) {
                Some((set, after)) => (Sign::Of(set), after),
                None => (Sign::Byte(b'['), behind),
            },
            byte => (Sign::Byte(*byte), behind),
        };
        signs.push(sign);
        rest = next;
    }
    signs
}

/// The definition of a match, sign by sign over all places of the name: the reference for the
/// compiled pattern.
#[cfg(test)]
pub(super) fn by_definition(pattern: &RefPattern, name: &RefName) -> bool {
    let text = name.as_str().as_bytes();
    // reached[n]: the signs so far match the first n bytes.
    let mut reached = vec![false; text.len() + 1];
    if let Some(start) = reached.first_mut() {
        *start = true;
    }
    for sign in pattern.signs() {
        let mut next = vec![false; text.len() + 1];
        let mut open = false;
        for (at, now) in reached.iter().enumerate() {
            let byte = at
                .checked_sub(1)
                .and_then(|before| text.get(before))
                .copied();
            let before = at.checked_sub(1).and_then(|before| reached.get(before));
            let from_before = before.copied().unwrap_or(false);
            let here = match &sign {
                Sign::Byte(wanted) => from_before && byte == Some(*wanted),
                Sign::Any => from_before && byte != Some(b'/'),
                Sign::Of(set) => from_before && byte.is_some_and(|byte| set.holds(Some(byte))),
                Sign::Name => {
                    open = *now || (open && byte != Some(b'/'));
                    open
                }
                Sign::Rest => {
                    open |= *now;
                    open
                }
                Sign::Directories => {
                    let whole = open && byte == Some(b'/');
                    open |= *now;
                    *now || whole
                }
            };
            if let Some(slot) = next.get_mut(at) {
                *slot = here;
            }
        }
        reached = next;
    }
    reached.last().copied().unwrap_or(false)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn matches(pattern: &str, name: &str) -> bool {
        let pattern: RefPattern = pattern.parse().expect("a valid pattern");
        let name = name.parse().expect("a valid ref name");
        let found = pattern.matches(&name);
        assert_eq!(found, by_definition(&pattern, &name), "{pattern} {name}");
        found
    }

    #[test]
    fn patterns_match_as_gits_wildmatch_matches_paths() {
        for (pattern, name) in [
            ("main", "refs/heads/main"),
            ("refs/heads/main", "refs/heads/main"),
            ("release/*", "refs/heads/release/1"),
            ("release/v?.x", "refs/heads/release/v3.x"),
            ("*", "refs/heads/x"),
            ("r*e", "refs/heads/release"),
            ("refs/tags/*", "refs/tags/v1"),
            ("refs/**", "refs/heads/a/b/c"),
            ("**/deep", "refs/heads/deep"),
            ("**/deep", "refs/heads/a/b/deep"),
            ("a/**/z", "refs/heads/a/z"),
            ("a/**/z", "refs/heads/a/b/c/z"),
            ("a/**", "refs/heads/a/b/c"),
            ("v[0-9]", "refs/heads/v7"),
            ("v[!a-c]", "refs/heads/vd"),
            ("v[^x]", "refs/heads/vy"),
            ("v[]x]", "refs/heads/vx"),
            ("a*b*c", "refs/heads/axbybzc"),
            ("w**", "refs/heads/wide"),
        ] {
            assert!(matches(pattern, name), "{pattern} does not match {name}");
        }
        for (pattern, name) in [
            ("main", "refs/heads/main2"),
            ("main", "refs/tags/main"),
            ("release/*", "refs/heads/release/1/2"),
            ("release/*", "refs/heads/release"),
            ("*", "refs/heads/x/y"),
            ("a?b", "refs/heads/a/b"),
            ("a[!x]b", "refs/heads/a/b"),
            ("**/deep", "refs/heads/notdeep"),
            ("a/**/z", "refs/heads/az"),
            ("a/**", "refs/heads/a"),
            ("v[0-9]", "refs/heads/vx"),
            ("w**", "refs/heads/w/x"),
            ("Main", "refs/heads/main"),
        ] {
            assert!(!matches(pattern, name), "{pattern} matches {name}");
        }
    }

    #[test]
    fn what_could_match_nothing_is_no_pattern() {
        let long = "a".repeat(300);
        for text in [
            "", "a b", "a..b", "/a", "a/", "a//b", "a\\*", "a[b", "a[]", "a~", "refs/x", "a.lock",
            &long,
        ] {
            assert!(text.parse::<RefPattern>().is_err(), "{text:?} was accepted");
        }
        let pattern: RefPattern = "release/*".parse().expect("a valid pattern");
        assert_eq!(pattern.as_str(), "refs/heads/release/*");
        assert_eq!(pattern.short(), "release/*");
    }
}
