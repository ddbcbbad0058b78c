//! Object filters of partial clones, in their text form: `blob:none`, `tree:1`, `combine:…`
//! (`--filter` in git-rev-list(1)).

use gix_object::Kind;

use crate::fetch::FetchError;

/// Maximum number of filters in one `combine`, and their maximum nesting.
const PARTS_MAX: usize = 64;
const NESTING_MAX: usize = 16;
/// Characters that a part of a `combine` must escape, besides white space.
const RESERVED: &[u8] = b"~`!@#$^&*()[]{}\\;'\",<>?";

/// The objects to leave out. Equivalent filters are equal, whichever way they are written.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Filter {
    /// Only blobs below this many bytes.
    pub(super) blob_bytes: Option<u64>,
    /// Only trees and blobs at less than this depth; the tree of a commit is at depth 0.
    pub(super) tree_depth: Option<u64>,
    /// Only objects of these kinds.
    pub(super) kinds: Kinds,
    /// Only blobs at paths that the patterns in each of these blobs match; sorted.
    pub(super) sparse: Vec<String>,
}

/// A set of kinds of objects.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Kinds(u8);

impl Kinds {
    const ALL: Self = Self(0b1111);

    const fn bit(kind: Kind) -> u8 {
        match kind {
            Kind::Commit => 1,
            Kind::Tree => 2,
            Kind::Blob => 4,
            Kind::Tag => 8,
        }
    }

    const fn only(kind: Kind) -> Self {
        Self(Self::bit(kind))
    }

    pub(super) const fn has(self, kind: Kind) -> bool {
        self.0 & Self::bit(kind) != 0
    }
}

impl Default for Filter {
    /// Leaves nothing out.
    fn default() -> Self {
        Self {
            blob_bytes: None,
            tree_depth: None,
            kinds: Kinds::ALL,
            sparse: Vec::new(),
        }
    }
}

impl Filter {
    /// Parses a filter-spec. Errors have git's wording.
    pub(super) fn parse(spec: &str) -> Result<Self, FetchError> {
        let mut filter = Self::default();
        let mut parts = 0;
        filter.take(spec, 0, &mut parts)?;
        filter.sparse.sort();
        filter.sparse.dedup();
        Ok(filter)
    }

    /// Whether nothing is left out.
    pub(super) fn is_open(&self) -> bool {
        *self == Self::default()
    }

    fn take(&mut self, spec: &str, nesting: usize, parts: &mut usize) -> Result<(), FetchError> {
        *parts += 1;
        if *parts > PARTS_MAX || nesting > NESTING_MAX {
            return Err(refused("too many filters are combined"));
        }
        let invalid = || refused(&format!("invalid filter-spec '{}'", shown(spec)));
        if spec == "blob:none" {
            self.limit_blobs(0);
        } else if let Some(limit) = spec.strip_prefix("blob:limit=") {
            self.limit_blobs(magnitude(limit).ok_or_else(invalid)?);
        } else if let Some(depth) = spec.strip_prefix("tree:") {
            let depth = magnitude(depth).ok_or_else(|| refused("expected 'tree:<depth>'"))?;
            self.tree_depth = Some(self.tree_depth.map_or(depth, |before| before.min(depth)));
        } else if let Some(blob) = spec.strip_prefix("sparse:oid=") {
            self.sparse.push(blob.to_owned());
        } else if spec.starts_with("sparse:path=") {
            return Err(refused("sparse:path filters support has been dropped"));
        } else if let Some(name) = spec.strip_prefix("object:type=") {
            let kind = Kind::from_bytes(name.as_bytes()).map_err(|_| {
                let name = shown(name);
                refused(&format!(
                    "'{name}' for 'object:type=<type>' is not a valid object type"
                ))
            })?;
            self.kinds.0 &= Kinds::only(kind).0;
        } else if let Some(several) = spec.strip_prefix("combine:") {
            if several.is_empty() {
                return Err(refused("expected something after combine:"));
            }
            for part in several.split('+') {
                self.take(&unescape(part)?, nesting + 1, parts)?;
            }
        } else {
            return Err(invalid());
        }
        Ok(())
    }

    fn limit_blobs(&mut self, bytes: u64) {
        self.blob_bytes = Some(self.blob_bytes.map_or(bytes, |before| before.min(bytes)));
    }
}

fn refused(message: &str) -> FetchError {
    FetchError::Filter {
        message: message.to_owned(),
    }
}

/// The beginning of a spec, for a message.
fn shown(spec: &str) -> String {
    spec.chars().take(120).collect()
}

/// A number in the syntax of git's configuration: decimal, octal or hexadecimal, with the suffix
/// `k`, `m` or `g`.
fn magnitude(text: &str) -> Option<u64> {
    let (digits, factor) = match text.as_bytes().last()? {
        b'k' | b'K' => (&text[..text.len() - 1], 1 << 10),
        b'm' | b'M' => (&text[..text.len() - 1], 1 << 20),
        b'g' | b'G' => (&text[..text.len() - 1], 1 << 30),
        _ => (text, 1),
    };
    let (digits, base) = match digits
        .strip_prefix("0x")
        .or_else(|| digits.strip_prefix("0X"))
    {
        Some(rest) => (rest, 16),
        None if digits.len() > 1 && digits.starts_with('0') => (&digits[1..], 8),
        None => (digits, 10),
    };
    if !digits.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return None;
    }
    u64::from_str_radix(digits, base).ok()?.checked_mul(factor)
}

/// Percent-decodes a part of a `combine`.
fn unescape(part: &str) -> Result<String, FetchError> {
    let bytes = part.as_bytes();
    if let Some(letter) = bytes
        .iter()
        .find(|byte| **byte <= b' ' || RESERVED.contains(byte))
    {
        return Err(refused(&format!(
            "must escape char in sub-filter-spec: '{}'",
            char::from(*letter)
        )));
    }
    let mut decoded = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while at < bytes.len() {
        let escaped = (bytes[at] == b'%')
            .then(|| bytes.get(at + 1..at + 3))
            .flatten()
            .and_then(|digits| hex::decode(digits).ok());
        match escaped {
            Some(byte) => {
                decoded.extend(byte);
                at += 3;
            }
            None => {
                decoded.push(bytes[at]);
                at += 1;
            }
        }
    }
    String::from_utf8(decoded)
        .map_err(|_| refused(&format!("invalid filter-spec '{}'", shown(part))))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn filters_are_read() {
        let blobs = |bytes| Filter {
            blob_bytes: Some(bytes),
            ..Filter::default()
        };
        let trees = |depth| Filter {
            tree_depth: Some(depth),
            ..Filter::default()
        };
        let only = |kinds| Filter {
            kinds,
            ..Filter::default()
        };
        let sparse = Filter {
            sparse: vec!["main:a b".into()],
            ..Filter::default()
        };
        let both = Filter {
            tree_depth: Some(2),
            ..blobs(0)
        };
        let nested = "combine:blob:none+tree:3+combine:tree%3A2%2Bblob:limit=5";
        for (spec, expected) in [
            ("blob:none", blobs(0)),
            ("blob:limit=0", blobs(0)),
            ("blob:limit=2k", blobs(2048)),
            ("blob:limit=1G", blobs(1 << 30)),
            ("blob:limit=0x10", blobs(16)),
            ("blob:limit=010", blobs(8)),
            ("tree:0", trees(0)),
            ("object:type=tag", only(Kinds::only(Kind::Tag))),
            ("sparse:oid=main:a b", sparse),
            (nested, both),
            ("combine:object:type=tag+object:type=blob", only(Kinds(0))),
        ] {
            assert_eq!(Filter::parse(spec).unwrap(), expected, "{spec}");
            assert!(!expected.is_open());
        }
    }

    #[test]
    fn what_is_no_filter_is_refused_in_the_words_of_git() {
        for (spec, expected) in [
            ("", "invalid filter-spec ''"),
            ("blob:some", "invalid filter-spec 'blob:some'"),
            ("blob:limit=", "invalid filter-spec 'blob:limit='"),
            ("blob:limit=-1", "invalid filter-spec 'blob:limit=-1'"),
            ("tree:", "expected 'tree:<depth>'"),
            ("tree:x", "expected 'tree:<depth>'"),
            (
                "sparse:path=x",
                "sparse:path filters support has been dropped",
            ),
            (
                "object:type=x",
                "'x' for 'object:type=<type>' is not a valid object type",
            ),
            ("combine:", "expected something after combine:"),
            ("combine:blob:none+", "invalid filter-spec ''"),
            (
                "combine:tree:1+sparse:oid=a b",
                "must escape char in sub-filter-spec: ' '",
            ),
        ] {
            let error = Filter::parse(spec).unwrap_err();
            assert_eq!(error.to_string(), expected, "{spec}");
        }
    }

    #[test]
    fn nesting_is_bounded() {
        let deep = "combine:".repeat(10_000) + "blob:none";
        assert!(Filter::parse(&deep).is_err());
        let wide = format!("combine:blob:none{}", "+tree:1".repeat(10_000));
        assert!(Filter::parse(&wide).is_err());
    }

    proptest! {
        #[test]
        fn arbitrary_text_never_panics(text in "(combine:|blob:|tree:|limit=|[+%0-9a-fkß ]){0,12}") {
            let _outcome = Filter::parse(&text).is_ok();
        }
    }
}
