//! Refs hidden from clients: `hideRefs` of git-config(1).

/// Patterns of refs that are neither advertised nor accepted, in the order of the configuration.
///
/// A pattern is the name of a ref or of a folder of refs. The prefix `!` negates a pattern: refs
/// that an earlier pattern hides are shown. The prefix `^` marks a full name, and changes nothing
/// here, because there are no namespaces. The last pattern that matches decides.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct HiddenRefs {
    patterns: Vec<Pattern>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Pattern {
    shows: bool,
    name: Vec<u8>,
}

impl HiddenRefs {
    /// Appends a pattern.
    pub fn push(&mut self, pattern: &[u8]) {
        let (shows, name) = match pattern.strip_prefix(b"!") {
            Some(name) => (true, name),
            None => (false, pattern),
        };
        let mut name = name.strip_prefix(b"^").unwrap_or(name);
        while let Some(shorter) = name.strip_suffix(b"/") {
            name = shorter;
        }
        self.patterns.push(Pattern {
            shows,
            name: name.to_owned(),
        });
    }

    /// Whether there are no patterns.
    pub fn is_empty(&self) -> bool {
        self.patterns.is_empty()
    }

    /// Whether the ref with this full name is hidden.
    pub fn hides(&self, name: &str) -> bool {
        self.patterns
            .iter()
            .rev()
            .find(|pattern| pattern.matches(name.as_bytes()))
            .is_some_and(|pattern| !pattern.shows)
    }
}

impl Pattern {
    fn matches(&self, name: &[u8]) -> bool {
        name.strip_prefix(&self.name[..])
            .is_some_and(|rest| rest.is_empty() || rest.starts_with(b"/"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hidden(patterns: &[&str]) -> HiddenRefs {
        let mut hidden = HiddenRefs::default();
        for pattern in patterns {
            hidden.push(pattern.as_bytes());
        }
        hidden
    }

    #[test]
    fn a_pattern_is_a_ref_or_a_folder_of_refs() {
        for pattern in ["refs/pull", "refs/pull/", "refs/pull//", "^refs/pull"] {
            let hidden = hidden(&[pattern]);
            assert!(hidden.hides("refs/pull"), "{pattern}");
            assert!(hidden.hides("refs/pull/1/head"), "{pattern}");
            assert!(!hidden.hides("refs/pulls/1"), "{pattern}");
            assert!(!hidden.hides("refs/heads/refs/pull"), "{pattern}");
        }
    }

    #[test]
    fn the_last_pattern_that_matches_decides() {
        let shown = hidden(&["refs/pull", "!refs/pull/1"]);
        assert!(shown.hides("refs/pull/2/head"));
        assert!(!shown.hides("refs/pull/1/head"));
        let hidden_again = hidden(&["!refs/pull/1", "refs/pull"]);
        assert!(hidden_again.hides("refs/pull/1/head"));
        assert!(!hidden(&["refs", "!^refs/heads"]).hides("refs/heads/main"));
        assert!(!hidden(&[""]).hides("refs/heads/main"));
    }
}
