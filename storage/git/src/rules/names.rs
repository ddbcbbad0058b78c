//! Names of tree entries that some file system treats as another name: HFS+ ignores code points,
//! NTFS has short names, trailing dots and streams (git's `utf8.c` and `path.c`; CVE-2014-9390,
//! CVE-2019-1353, CVE-2019-1354).

/// A name with a special meaning to git, and its NTFS short name for the case that `GIT…~1` to
/// `~4` are taken.
#[derive(Debug, Clone, Copy)]
pub(super) struct Meaning {
    /// The name without its dot, in lower case.
    name: &'static str,
    /// The beginning of its hashed short name.
    short: &'static [u8; 6],
}

pub(super) const MODULES: Meaning = Meaning {
    name: "gitmodules",
    short: b"gi7eba",
};
pub(super) const ATTRIBUTES: Meaning = Meaning {
    name: "gitattributes",
    short: b"gi7d29",
};
pub(super) const IGNORE: Meaning = Meaning {
    name: "gitignore",
    short: b"gi250a",
};
pub(super) const MAILMAP: Meaning = Meaning {
    name: "mailmap",
    short: b"maba30",
};

/// Whether a name may be one of the names that this module detects: cheap, and true for few others.
pub(super) const fn may_mean_something(name: &[u8]) -> bool {
    // A dot; a short name, whose letters the digits may replace completely; the lead bytes of the
    // code points that HFS+ ignores.
    matches!(
        name.first(),
        Some(b'.' | b'g' | b'G' | b'm' | b'M' | b'~' | 0xe2 | 0xef)
    )
}

/// Whether HFS+ or NTFS treats a name as `.git`.
pub(super) fn is_dotgit(name: &[u8]) -> bool {
    is_hfs_dot(name, "git") || is_ntfs_dotgit(name)
}

/// Whether NTFS treats a name as `.git`: `.git`, `git~1`, and either followed by dots, spaces or a
/// stream.
pub(super) fn is_ntfs_dotgit(name: &[u8]) -> bool {
    let Some(rest) = behind(name, b".git").or_else(|| behind(name, b"git~1")) else {
        return false;
    };
    let end = rest.iter().find(|byte| !matches!(byte, b'.' | b' '));
    matches!(end, None | Some(b'/' | b'\\' | b':'))
}

impl Meaning {
    /// Whether HFS+ or NTFS treats a name as this one.
    pub(super) fn is_meant_by(self, name: &[u8]) -> bool {
        is_hfs_dot(name, self.name) || self.is_meant_by_ntfs(name)
    }

    /// Whether NTFS treats a name as this one.
    pub(super) fn is_meant_by_ntfs(self, name: &[u8]) -> bool {
        if let [b'.', rest @ ..] = name
            && let Some(rest) = behind(rest, self.name.as_bytes())
        {
            return is_trimmed(rest);
        }
        let usual = &self.name.as_bytes()[..6];
        if let Some([b'~', b'1'..=b'4', rest @ ..]) = behind(name, usual) {
            return is_trimmed(rest);
        }
        self.is_short_name(name)
    }

    /// `gi7eba~1` and the like: eight bytes, with digits in place of the last letters of the
    /// prefix.
    fn is_short_name(self, name: &[u8]) -> bool {
        let Some((short, rest)) = name.split_at_checked(8) else {
            return false;
        };
        let Some(tilde) = short.iter().position(|byte| *byte == b'~') else {
            return false;
        };
        if tilde > self.short.len() || !self.short[..tilde].eq_ignore_ascii_case(&short[..tilde]) {
            return false;
        }
        match &short[tilde + 1..] {
            [b'1'..=b'9', digits @ ..] => digits.iter().all(u8::is_ascii_digit) && is_trimmed(rest),
            _ => false,
        }
    }
}

/// The part of `name` after `prefix`, which is compared without case.
fn behind<'n>(name: &'n [u8], prefix: &[u8]) -> Option<&'n [u8]> {
    let (start, rest) = name.split_at_checked(prefix.len())?;
    start.eq_ignore_ascii_case(prefix).then_some(rest)
}

/// Whether NTFS drops the end of a name: spaces, dots, and a stream.
fn is_trimmed(rest: &[u8]) -> bool {
    let end = rest.iter().find(|byte| !matches!(byte, b'.' | b' '));
    matches!(end, None | Some(b':'))
}

/// Whether HFS+ treats a name as a dot and `needle`. Invalid UTF-8 ends the name, as in git.
fn is_hfs_dot(name: &[u8], needle: &str) -> bool {
    let text = name.utf8_chunks().next().map_or("", |chunk| chunk.valid());
    // Git rejects the noncharacters U+FFFE and U+FFFF: they end the name.
    let text = text.chars().map(|letter| match letter {
        '\u{fffe}' | '\u{ffff}' => '\0',
        letter => letter,
    });
    let mut text = text.filter(|letter| !is_left_out(*letter));
    let mut wanted = std::iter::once('.').chain(needle.chars());
    let is_same = wanted.all(|wanted| {
        text.next()
            .is_some_and(|letter| letter.to_ascii_lowercase() == wanted)
    });
    is_same && matches!(text.next(), None | Some('\0' | '/'))
}

/// Code points that HFS+ ignores in names.
const fn is_left_out(letter: char) -> bool {
    matches!(
        letter,
        '\u{200c}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{206a}'..='\u{206f}' | '\u{feff}'
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn every_spelling_of_the_git_folder_is_found() {
        for name in [
            ".git",
            ".GIT",
            ".git.",
            ".git ",
            ".git . .",
            "git~1",
            "GIT~1",
            "git~1.",
            ".git:stream",
            ".git::$INDEX_ALLOCATION",
            ".git\\hooks",
            ".g\u{200c}it",
            "\u{feff}.git",
            ".gi\u{206f}T\u{200d}",
            ".git\u{202e}/x",
        ] {
            assert!(is_dotgit(name.as_bytes()), "{name:?}");
            assert!(may_mean_something(name.as_bytes()), "{name:?}");
        }
        assert!(is_dotgit(b".git\xff"), "what is no UTF-8 ends the name");
        for name in [
            "git",
            ".gitx",
            ".git..x",
            "git~2",
            "git~10",
            ".g\u{200b}it",
            "..git",
            ".gi",
            "",
        ] {
            assert!(!is_dotgit(name.as_bytes()), "{name:?}");
        }
        assert!(!is_dotgit(b".gi\xfft"));
    }

    #[test]
    fn every_spelling_of_gitmodules_is_found() {
        for name in [
            ".gitmodules",
            ".GITMODULES",
            ".gitmodules . ",
            ".gitmodules:x",
            "gitmod~1",
            "GITMOD~4.",
            "gi7eba~1",
            "gi7eba~9",
            "GI7EB~10",
            "gi7e~123",
            "g~123456",
            "~1234567",
            ".gitmodu\u{200c}les",
        ] {
            assert!(MODULES.is_meant_by(name.as_bytes()), "{name:?}");
            assert!(may_mean_something(name.as_bytes()), "{name:?}");
        }
        for name in [
            ".gitmodulesx",
            "gitmodules",
            "gitmod~0",
            "gitmod~5",
            "gitmod~1x",
            "gi7eba~0",
            "gi7eba~1x",
            "gi7eb~1",
            "gi7ebaa~",
            "gi7d29~1",
            "~0123456",
        ] {
            assert!(!MODULES.is_meant_by(name.as_bytes()), "{name:?}");
        }
        assert!(MODULES.is_meant_by(b".gitmodules/x"));
        assert!(!MODULES.is_meant_by_ntfs(b".gitmodules/x"));
    }

    #[test]
    fn the_other_files_have_their_own_short_names() {
        for (meaning, names) in [
            (ATTRIBUTES, [".gitattributes", "gitatt~1", "gi7d29~1"]),
            (IGNORE, [".gitignore", "gitign~1", "gi250a~1"]),
            (MAILMAP, [".mailmap", "mailma~1", "maba30~1"]),
        ] {
            for name in names {
                assert!(meaning.is_meant_by(name.as_bytes()), "{name:?}");
            }
            assert!(!meaning.is_meant_by(b".gitmodules"));
        }
    }

    proptest! {
        #[test]
        fn arbitrary_names_never_panic(name in proptest::collection::vec(any::<u8>(), 0..20)) {
            let found = is_dotgit(&name) || MODULES.is_meant_by(&name) || MAILMAP.is_meant_by(&name);
            prop_assert!(!found || may_mean_something(&name));
        }
    }
}
