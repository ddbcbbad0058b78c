//! The tidy test: what holds of the whole workspace and that no compiler checks.
//!
//! Every check is a plain function from text to the violations it found, so that each is tested on text
//! that breaks its rule. `tests/it` runs them all on the real tree; nothing ships this crate.
//!
//! - [`graph`]: which crate may name which, and what may lie below the purity wall.
//! - [`lock`]: packages that must not be in the lock file, and how many there may be.
//! - [`sources`]: lengths and names of source files, one integration-test binary per crate.
//! - [`lints`]: every crate takes the workspace's lints; the pure crates' own files repeat the root's.
//! - [`limits`]: the page of limits says what the code does.
//! - [`links`]: every link and every mention of a page in the documentation leads to a file.
//! - [`words`]: words that must not stand in the tree.
//!
//! When a check is in the way of better code, change its table here and say why in the commit.

pub mod graph;
pub mod limits;
pub mod links;
pub mod lints;
pub mod lock;
pub mod sources;
pub mod words;

/// A text file of the tree.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SourceFile {
    /// Its path below the root, with `/`.
    pub path: String,
    /// What it holds.
    pub text: String,
}

impl SourceFile {
    /// The file `path` holding `text`.
    pub fn new(path: &str, text: &str) -> Self {
        Self {
            path: path.to_owned(),
            text: text.to_owned(),
        }
    }

    /// The last part of its path.
    pub fn name(&self) -> &str {
        self.path.rsplit('/').next().unwrap_or(&self.path)
    }

    /// Whether it is Rust.
    pub fn is_rust(&self) -> bool {
        self.path.ends_with(".rs")
    }

    /// Whether it is only ever compiled for tests.
    pub fn is_test(&self) -> bool {
        self.path.split('/').any(|part| part == "tests") || self.name() == "tests.rs"
    }
}
