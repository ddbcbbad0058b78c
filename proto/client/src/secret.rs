//! A token that no debug output shows.

use std::fmt;

/// A token. Neither `Debug` nor an error message ever shows it.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// Wraps the token; surrounding white space (the newline at the end of its file) is cut.
    pub fn new(token: &str) -> Self {
        Self(token.trim().to_owned())
    }

    /// The newest token of a file, which is on the first line.
    pub fn from_file(text: &str) -> Self {
        Self::new(text.trim().lines().next().unwrap_or_default())
    }

    /// The token itself: only for code that sends or compares it.
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(…)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn debug_does_not_show_the_token() {
        let secret = Secret::new("hunter2\n");
        assert_eq!(secret.reveal(), "hunter2");
        assert!(!format!("{secret:?}").contains("hunter2"));
    }

    #[test]
    fn the_first_line_of_a_file_is_its_newest_token() {
        assert_eq!(Secret::from_file("\nnew\r\nold\n"), Secret::new("new"));
        assert_eq!(Secret::from_file("one"), Secret::new("one"));
    }
}
