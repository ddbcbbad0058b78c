//! Patterns of a sparse checkout (gitignore(5)), for `sparse:oid` filters.

use gix_glob::{Pattern, pattern::Case, pattern::Mode, wildmatch};
use gix_object::Kind;

use crate::fetch::FetchError;
use crate::fetch::filter::Filter;
use crate::fetch::filtered::Sieve;
use crate::fetch::request::not_a_fetch;
use crate::fetch::select::not_tips;
use crate::fetch::serve::Session;
use crate::fetch::shallow::resolve;
use crate::object::TreeEntries;
use crate::oid::{Oid, parse_hex, to_gix};
use crate::protocol::Stop;
use crate::store::{ObjectStore, StoreError};

/// Maximum bytes of the blob that holds a list.
const LIST_BYTES_MAX: u64 = 1024 * 1024;
/// Maximum number of patterns in one list.
const PATTERNS_MAX: usize = 10_000;
/// Maximum number of `**` in one pattern: each doubles the time for a path that does not match, in
/// git's matcher as well.
const DOUBLE_STARS_MAX: usize = 8;
/// Interval of deadline checks, in patterns.
const STOP_EVERY: usize = 16;

/// A list of patterns; the last one that matches decides.
pub(super) struct Patterns(Vec<Pattern>);

/// The kind of entry at a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum At {
    Directory,
    File,
}

impl Patterns {
    /// Parses a list; `None` when it is too long, or has a pattern that takes too long to match.
    pub(super) fn parse(text: &[u8]) -> Option<Self> {
        let text = text.strip_prefix(b"\xef\xbb\xbf").unwrap_or(text);
        let mut patterns = Vec::new();
        for line in text.split(|byte| *byte == b'\n') {
            let line = without_trailing_spaces(line.strip_suffix(b"\r").unwrap_or(line));
            if line.starts_with(b"#") {
                continue;
            }
            if memchr::memmem::find_iter(line, "**").count() > DOUBLE_STARS_MAX {
                return None;
            }
            patterns.extend(Pattern::from_bytes(line));
            if patterns.len() > PATTERNS_MAX {
                return None;
            }
        }
        Some(Self(patterns))
    }

    /// Whether the patterns include `path`; `None` when no pattern matches it.
    ///
    /// # Errors
    /// When the deadline passes.
    pub(super) fn decide(
        &self,
        path: &[u8],
        at: At,
        stop: &Stop,
    ) -> Result<Option<bool>, FetchError> {
        let basename = memchr::memrchr(b'/', path).map(|slash| slash + 1);
        let is_directory = at == At::Directory;
        for (number, pattern) in self.0.iter().rev().enumerate() {
            if number.is_multiple_of(STOP_EVERY) && stop.is_set() {
                return Err(FetchError::Stopped);
            }
            let matches = pattern.matches_repo_relative_path(
                path.into(),
                basename,
                Some(is_directory),
                Case::Sensitive,
                wildmatch::Mode::NO_MATCH_SLASH_LITERAL,
            );
            if matches {
                return Ok(Some(!pattern.mode.contains(Mode::NEGATIVE)));
            }
        }
        Ok(None)
    }
}

impl Session<'_> {
    /// The filter of a request, ready for use.
    pub(super) fn sieve(
        &self,
        store: &ObjectStore,
        filter: Option<&Filter>,
    ) -> Result<Sieve, FetchError> {
        let stop = self.work.clone();
        let Some(filter) = filter else {
            return Ok(Sieve::new(Filter::default(), Vec::new(), stop));
        };
        if !self.limits.policy.filter {
            return Err(not_a_fetch(b"filter"));
        }
        let lists = filter.sparse.iter().map(|name| self.patterns(store, name));
        let lists = lists.collect::<Result<_, _>>()?;
        Ok(Sieve::new(filter.clone(), lists, stop))
    }

    /// The patterns in the blob that the client names by id or as `REF:PATH`.
    fn patterns(&self, store: &ObjectStore, name: &str) -> Result<Patterns, FetchError> {
        let short: String = name.chars().take(120).collect();
        let no_access = || FetchError::Filter {
            message: format!("unable to access sparse blob in '{short}'"),
        };
        let id = match parse_hex(name.as_bytes(), store.format()) {
            Some(id) => {
                // An object that the client may not want looks like a missing one.
                let not_tips = not_tips(self.refs, self.index(), &[id]);
                let is_ours = store.contains(&id) && self.not_ours(store, &not_tips)?.is_empty();
                is_ours.then_some(id)
            }
            None => self.blob_at(store, name)?,
        };
        let id = id.ok_or_else(no_access)?;
        let (kind, size) = store.header(&id)?.ok_or_else(no_access)?;
        if kind != Kind::Blob {
            return Err(no_access());
        }
        let unreadable = || FetchError::Filter {
            message: format!("unable to parse sparse filter data in {id}"),
        };
        if size > LIST_BYTES_MAX {
            return Err(unreadable());
        }
        let mut text = Vec::new();
        store.get(&id, &mut text)?;
        Patterns::parse(&text).ok_or_else(unreadable)
    }

    /// The object at `REF:PATH`. A visible ref is enough for access.
    fn blob_at(&self, store: &ObjectStore, name: &str) -> Result<Option<Oid>, FetchError> {
        let Some((revision, path)) = name.split_once(':') else {
            return Ok(None);
        };
        let tip = match revision {
            "HEAD" => {
                let tip = self.refs.get(&self.refs.head());
                tip.and_then(|tip| to_gix(tip, store.format()))
            }
            _ => resolve(self.refs, revision, store.format()),
        };
        let mut buffer = Vec::new();
        let Some(tip) = tip else {
            return Ok(None);
        };
        let Some(peeled) = store.peel(&tip, &mut buffer)? else {
            return Ok(None);
        };
        let mut id = match store.kind(&peeled)? {
            Some(Kind::Commit) => store.commit(&peeled, &mut buffer)?.tree,
            Some(Kind::Tree) => peeled,
            Some(Kind::Blob | Kind::Tag) | None => return Ok(None),
        };
        for part in path.split('/').filter(|part| !part.is_empty()) {
            if store.kind(&id)? != Some(Kind::Tree) {
                return Ok(None);
            }
            store.get(&id, &mut buffer)?;
            let mut next = None;
            for entry in TreeEntries::new(&buffer, store.format()) {
                let entry = entry.map_err(|_| StoreError::Malformed { id })?;
                if entry.name == part.as_bytes() {
                    next = Some(entry.id.to_owned());
                }
            }
            match next {
                Some(next) => id = next,
                None => return Ok(None),
            }
        }
        Ok(Some(id))
    }
}

/// Strips trailing spaces, except one that is escaped.
fn without_trailing_spaces(line: &[u8]) -> &[u8] {
    let end = line
        .iter()
        .rposition(|byte| *byte != b' ')
        .map_or(0, |at| at + 1);
    if end < line.len() && line[..end].ends_with(b"\\") {
        &line[..=end]
    } else {
        &line[..end]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_match_decides() {
        let patterns = Patterns::parse(b"# cone\n/*\n!/*/\n/a/\n*.md\n!b.md \n").unwrap();
        for (path, at, expected) in [
            ("x", At::File, Some(true)),
            ("a", At::Directory, Some(true)),
            ("b", At::Directory, Some(false)),
            ("a/c", At::File, None),
            ("b/c/d.md", At::File, Some(true)),
            ("b/b.md", At::File, Some(false)),
            ("", At::Directory, Some(false)),
        ] {
            let decided = patterns.decide(path.as_bytes(), at, &Stop::default());
            assert_eq!(decided.unwrap(), expected, "{path:?}");
        }
        let many = b"x\n".repeat(PATTERNS_MAX + 1);
        assert!(Patterns::parse(&many).is_none());
    }

    #[test]
    fn patterns_that_double_the_time_with_each_star_are_refused() {
        let pattern = |stars: usize| [&b"**/".repeat(stars)[..], b"z"].concat();
        let patterns = Patterns::parse(&pattern(DOUBLE_STARS_MAX)).unwrap();
        let path = b"a/".repeat(1000);
        let decided = patterns.decide(&path, At::File, &Stop::default());
        assert_eq!(decided.unwrap(), None);
        assert!(Patterns::parse(&pattern(DOUBLE_STARS_MAX + 1)).is_none());
        let stopped = Stop::default();
        stopped.stop();
        assert!(patterns.decide(&path, At::File, &stopped).is_err());
    }
}
