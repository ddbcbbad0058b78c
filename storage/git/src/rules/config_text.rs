//! A parser of git's configuration format (`git_parse_source` of `config.c`), as far as
//! `.gitmodules` needs it.
//!
//! It returns variables line by line. Clients use the variables before a broken line, so these have
//! to be checked here as well.

/// Whether a text was read to its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Read {
    /// Read to its end.
    Whole,
    /// A line is not valid in a configuration.
    Broken,
}

/// One variable.
#[derive(Debug)]
pub(super) struct Variable<'a> {
    /// The section, with the subsection after a dot. Git ends a text at a NUL, including the full
    /// name of a variable. A name that ends before the key is all in the section.
    pub(super) section: &'a [u8],
    /// Whether it is the first variable of its section: a check of a long section name need not be
    /// repeated.
    pub(super) is_first: bool,
    /// The key, in lower case; empty where a NUL ends the name before it.
    pub(super) key: &'a [u8],
    /// The value, where there is one.
    pub(super) value: Option<&'a [u8]>,
}

/// Visits the variables of `text` in order, up to a broken line.
///
/// # Errors
/// Those of `visit`.
pub(super) fn read<E>(
    text: &[u8],
    visit: &mut dyn FnMut(&Variable<'_>) -> Result<(), E>,
) -> Result<Read, E> {
    const BOM: &[u8] = b"\xef\xbb\xbf";
    let mut letters = Letters {
        text: text.strip_prefix(BOM).unwrap_or(text),
        at: 0,
        has_ended: false,
    };
    let (mut section, mut key) = (Vec::new(), Vec::new());
    let (mut is_first, mut is_cut) = (true, false);
    loop {
        match letters.take() {
            b'\n' if letters.has_ended => return Ok(Read::Whole),
            letter if is_space(letter) => {}
            b'#' | b';' => while letters.take() != b'\n' {},
            b'[' => {
                section.clear();
                if letters.section(&mut section).is_none() || section.is_empty() {
                    return Ok(Read::Broken);
                }
                let name_bytes = until_nul(&section).len();
                is_cut = name_bytes < section.len();
                section.truncate(name_bytes);
                is_first = true;
            }
            letter if letter.is_ascii_alphabetic() => {
                key.clear();
                key.push(letter.to_ascii_lowercase());
                let Some(value) = letters.variable(&mut key) else {
                    return Ok(Read::Broken);
                };
                visit(&Variable {
                    section: &section,
                    is_first,
                    key: if is_cut { b"" } else { &key },
                    value: value.as_deref().map(until_nul),
                })?;
                is_first = false;
            }
            _ => return Ok(Read::Broken),
        }
    }
}

fn until_nul(text: &[u8]) -> &[u8] {
    let end = memchr::memchr(0, text).unwrap_or(text.len());
    &text[..end]
}

/// White space in git's sense.
const fn is_space(letter: u8) -> bool {
    matches!(letter, b' ' | b'\t' | b'\n' | b'\r')
}

const fn is_of_key(letter: u8) -> bool {
    letter.is_ascii_alphanumeric() || letter == b'-'
}

/// The letters of a text, with uniform line ends.
struct Letters<'a> {
    text: &'a [u8],
    at: usize,
    has_ended: bool,
}

impl Letters<'_> {
    /// The next letter; a line end at the end of the text.
    fn take(&mut self) -> u8 {
        let rest = self.text.get(self.at..).unwrap_or_default();
        let (letter, bytes) = match rest {
            [] => {
                self.has_ended = true;
                return b'\n';
            }
            [b'\r', b'\n', ..] => (b'\n', 2),
            [letter, ..] => (*letter, 1),
        };
        self.at += bytes;
        letter
    }

    /// Reads the name of a section after its bracket; `None` where it is malformed.
    fn section(&mut self, name: &mut Vec<u8>) -> Option<()> {
        loop {
            let letter = self.take();
            if self.has_ended {
                return None;
            }
            match letter {
                b']' => return Some(()),
                letter if is_space(letter) => return self.subsection(name, letter),
                letter if is_of_key(letter) || letter == b'.' => {
                    name.push(letter.to_ascii_lowercase());
                }
                _ => return None,
            }
        }
    }

    /// Reads the name of a subsection in its quotes.
    fn subsection(&mut self, name: &mut Vec<u8>, mut letter: u8) -> Option<()> {
        while is_space(letter) {
            if letter == b'\n' {
                return None;
            }
            letter = self.take();
        }
        if letter != b'"' {
            return None;
        }
        name.push(b'.');
        loop {
            let mut letter = self.take();
            if letter == b'"' {
                break;
            }
            if letter == b'\\' {
                letter = self.take();
            }
            if letter == b'\n' {
                return None;
            }
            name.push(letter);
        }
        (self.take() == b']').then_some(())
    }

    /// Reads the rest of a key, and its value where there is one; `None` where it is malformed.
    fn variable(&mut self, name: &mut Vec<u8>) -> Option<Option<Vec<u8>>> {
        let mut letter = self.take();
        while !self.has_ended && is_of_key(letter) {
            name.push(letter.to_ascii_lowercase());
            letter = self.take();
        }
        while matches!(letter, b' ' | b'\t') {
            letter = self.take();
        }
        match letter {
            b'\n' => Some(None),
            b'=' => self.value().map(Some),
            _ => None,
        }
    }

    /// Reads a value to the end of its line, which a backslash may continue.
    fn value(&mut self) -> Option<Vec<u8>> {
        let mut value = Vec::new();
        let mut is_quoted = false;
        // Start of the blanks that end the value unless something follows.
        let mut blanks_from = None;
        loop {
            let letter = self.take();
            match letter {
                b'\n' if is_quoted => return None,
                b'\n' => {
                    value.truncate(blanks_from.unwrap_or(value.len()));
                    return Some(value);
                }
                letter if is_space(letter) && !is_quoted => {
                    if !value.is_empty() {
                        blanks_from.get_or_insert(value.len());
                        value.push(letter);
                    }
                    continue;
                }
                b';' | b'#' if !is_quoted => {
                    while self.take() != b'\n' {}
                    value.truncate(blanks_from.unwrap_or(value.len()));
                    return Some(value);
                }
                _ => blanks_from = None,
            }
            match letter {
                b'\\' => match self.take() {
                    b'\n' => {}
                    b't' => value.push(b'\t'),
                    b'b' => value.push(b'\x08'),
                    b'n' => value.push(b'\n'),
                    letter @ (b'\\' | b'"') => value.push(letter),
                    _ => return None,
                },
                b'"' => is_quoted = !is_quoted,
                letter => value.push(letter),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::convert::Infallible;

    fn variables(text: &str) -> (Vec<String>, Read) {
        let mut found = Vec::new();
        let mut visit = |variable: &Variable<'_>| -> Result<(), Infallible> {
            let section = String::from_utf8_lossy(variable.section);
            let key = String::from_utf8_lossy(variable.key);
            let value = variable.value.map(String::from_utf8_lossy);
            let value = value.map_or_else(String::new, |value| format!("={value}"));
            found.push(format!("{section}.{key}{value}"));
            Ok(())
        };
        let Ok(read) = read(text.as_bytes(), &mut visit);
        (found, read)
    }

    #[test]
    fn variables_are_read_as_git_reads_them() {
        for (text, expected) in [
            ("", vec![]),
            ("\u{feff}# a\n; b\n", vec![]),
            ("[Submodule \"A.b\"] URL = x\n", vec!["submodule.A.b.url=x"]),
            ("[submodule.A]\r\n\turl\r\n", vec!["submodule.a.url"]),
            ("[a]b=c", vec!["a.b=c"]),
            ("[a]b= \t c  d \t # e\n", vec!["a.b=c  d"]),
            ("[a]b=\"c ;#\\n\\\"\" d\\\n e\n", vec!["a.b=c ;#\n\" d e"]),
            ("[a]b=\"c\r\"\n", vec!["a.b=c\r"]),
            ("[a \"\\\"\\x\"]b\n", vec!["a.\"x.b"]),
            ("[a]b=c\0d\ne\n", vec!["a.b=c", "a.e"]),
            ("[a \"b\0c\"]d=e\n", vec!["a.b.=e"]),
            ("a=b\n", vec![".a=b"]),
        ] {
            let expected: Vec<_> = expected.into_iter().map(str::to_owned).collect();
            assert_eq!(variables(text), (expected, Read::Whole), "{text:?}");
        }
    }

    #[test]
    fn what_stands_before_a_broken_line_counts() {
        for broken in [
            "[a",
            "[a b]",
            "[a \"b]\n",
            "[a \"b\"x]",
            "[]",
            "1=a",
            "b c",
            "b=\"",
            "b=\\x",
            "=",
        ] {
            let text = format!("[x]y=z\n{broken}\n[c]d=e\n");
            let (found, read) = variables(&text);
            assert_eq!(found, ["x.y=z"], "{broken:?}");
            assert_eq!(read, Read::Broken, "{broken:?}");
        }
    }

    proptest! {
        #[test]
        fn arbitrary_text_never_panics(text in "[\\[\\]\"a.=# \\\\\n\r;]{0,40}") {
            let (found, _) = variables(&text);
            prop_assert!(found.len() <= text.len());
        }
    }
}
