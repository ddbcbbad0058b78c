//! The accepted tokens of a node, and their replacement while it runs.

use std::fmt;
use std::sync::{Arc, PoisonError, RwLock};

use henge_types::{Principal, TokenScope, limits};
use sha2::{Digest, Sha256};
use subtle::{Choice, ConstantTimeEq};
use thiserror::Error;

/// A shorter token could be guessed.
const TOKEN_BYTES_MIN: usize = 16;

/// The reason why a text is not a list of tokens.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum InvalidToken {
    /// The list is empty.
    #[error("there is no token in it")]
    None,
    /// More tokens than a replacement needs.
    #[error(
        "there are {tokens} tokens in it, at most {} are taken",
        limits::TOKENS_MAX
    )]
    TooMany {
        /// Their number.
        tokens: usize,
    },
    /// One could be guessed.
    #[error("the token has {bytes} bytes, at least {TOKEN_BYTES_MIN} are needed")]
    TooShort {
        /// Its bytes.
        bytes: usize,
    },
    /// One cannot be sent in a header.
    #[error("the token holds a character other than visible ASCII")]
    Characters,
    /// A token for metrics is also one of the administrator.
    #[error("a token for metrics is the administrator's too")]
    Shared,
}

/// One token: only its SHA-256 is kept, so that neither a dump nor the duration of a comparison
/// reveals it.
#[derive(Clone, PartialEq, Eq)]
struct Token {
    digest: [u8; 32],
}

impl Token {
    fn new(text: &str) -> Result<Self, InvalidToken> {
        if text.len() < TOKEN_BYTES_MIN {
            return Err(InvalidToken::TooShort { bytes: text.len() });
        }
        if !text.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(InvalidToken::Characters);
        }
        let digest = Sha256::digest(text).into();
        Ok(Self { digest })
    }
}

/// The tokens of a list, a line each, the newest first.
fn tokens(text: &str) -> Result<Vec<Token>, InvalidToken> {
    let lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
    let tokens = lines.map(Token::new).collect::<Result<Vec<_>, _>>()?;
    match tokens.len() {
        0 => Err(InvalidToken::None),
        tokens if tokens > limits::TOKENS_MAX => Err(InvalidToken::TooMany { tokens }),
        _ => Ok(tokens),
    }
}

/// The tokens that are valid at one time.
#[derive(Clone)]
pub struct TokenSet {
    admin: Vec<Token>,
    metrics: Vec<Token>,
}

impl TokenSet {
    /// The administrator's tokens, a line each, one or two: the current one, and its predecessor or
    /// successor.
    ///
    /// # Errors
    /// When there are none or too many, or one is short or holds anything but visible ASCII.
    pub fn new(admin: &str) -> Result<Self, InvalidToken> {
        Ok(Self {
            admin: tokens(admin)?,
            metrics: Vec::new(),
        })
    }

    /// The same, and tokens that open the page of metrics and nothing else.
    ///
    /// # Errors
    /// As of [`Self::new`], and when one is among the administrator's.
    pub fn with_metrics(mut self, metrics: &str) -> Result<Self, InvalidToken> {
        self.metrics = tokens(metrics)?;
        if self.metrics.iter().any(|token| self.admin.contains(token)) {
            return Err(InvalidToken::Shared);
        }
        Ok(self)
    }

    /// The principal of a presented token; takes the same time for every token.
    fn principal(&self, presented: &[u8]) -> Option<Principal> {
        let digest: [u8; 32] = Sha256::digest(presented).into();
        let is_among = |tokens: &[Token]| -> bool {
            let same = tokens.iter().map(|token| token.digest.ct_eq(&digest));
            same.fold(Choice::from(0), |any, same| any | same).into()
        };
        match (is_among(&self.admin), is_among(&self.metrics)) {
            (true, _) => Some(Principal::admin()),
            (false, true) => Some(Principal::Token(TokenScope::Metrics)),
            (false, false) => None,
        }
    }
}

impl fmt::Debug for TokenSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TokenSet")
            .field("admin", &self.admin.len())
            .field("metrics", &self.metrics.len())
            .finish()
    }
}

/// The currently valid tokens; clones share them.
#[derive(Debug, Clone)]
pub struct Tokens(Arc<RwLock<TokenSet>>);

impl Tokens {
    /// These tokens, until others replace them.
    pub fn new(tokens: TokenSet) -> Self {
        Self(Arc::new(RwLock::new(tokens)))
    }

    /// Replaces the tokens from the next request on.
    pub fn replace(&self, tokens: TokenSet) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = tokens;
    }

    /// The principal of a presented token.
    pub(crate) fn principal(&self, presented: &[u8]) -> Option<Principal> {
        let tokens = self.0.read().unwrap_or_else(PoisonError::into_inner);
        tokens.principal(presented)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OLD: &str = "0123456789abcdef";
    const NEW: &str = "fedcba9876543210";
    const SEEN: &str = "metrics-metrics-";

    fn refused(text: &str) -> InvalidToken {
        TokenSet::new(text).expect_err("refused")
    }

    #[test]
    fn a_token_is_long_and_printable_and_never_shown() {
        assert_eq!(refused("short"), InvalidToken::TooShort { bytes: 5 });
        assert_eq!(refused("0123456789 abcdef"), InvalidToken::Characters);
        assert_eq!(refused(" \n\n"), InvalidToken::None);
        let three = format!("{OLD}\n{NEW}\n{OLD}");
        assert_eq!(refused(&three), InvalidToken::TooMany { tokens: 3 });
        let one = TokenSet::new(OLD).expect("a token");
        assert_eq!(format!("{one:?}"), "TokenSet { admin: 1, metrics: 0 }");
        assert_eq!(one.principal(OLD.as_bytes()), Some(Principal::admin()));
        for wrong in ["0123456789abcdeg", "", "0123456789abcdef\n"] {
            assert_eq!(one.principal(wrong.as_bytes()), None, "{wrong:?}");
        }
        let shared = one.with_metrics(&format!("{SEEN}\n{OLD}"));
        assert_eq!(shared.expect_err("refused"), InvalidToken::Shared);
    }

    /// The replacement of a token required a stop of every node.
    #[test]
    fn two_tokens_hold_while_one_takes_the_others_place() {
        let tokens = Tokens::new(TokenSet::new(&format!("{OLD}\n")).expect("a token"));
        let both = TokenSet::new(&format!("{NEW}\n{OLD}\n")).expect("two tokens");
        tokens.replace(both);
        for token in [OLD, NEW] {
            assert_eq!(tokens.principal(token.as_bytes()), Some(Principal::admin()));
        }
        let after = TokenSet::new(NEW).expect("a token");
        tokens.replace(after.with_metrics(SEEN).expect("a token"));
        assert_eq!(tokens.principal(OLD.as_bytes()), None);
        let scraper = Principal::Token(TokenScope::Metrics);
        assert_eq!(tokens.principal(SEEN.as_bytes()), Some(scraper));
    }
}
