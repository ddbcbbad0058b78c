//! The tidy test: rules of the whole workspace that no compiler checks.
//!
//! Every check is a plain function from text to the violations in it, so that each is tested on
//! text that breaks its rule. `tests/it` runs all of them on the real tree. The crate is not
//! shipped.
//!
//! - [`graph`]: allowed edges between crates, and the purity wall.
//! - [`lock`]: banned packages, and the largest number of packages in the lock file.
//! - [`sources`]: lengths and names of source files, one integration-test binary per crate.
//! - [`lints`]: every crate takes the workspace's lints; the pure crates' own files repeat the
//!   root's.
//! - [`limits`]: the page of limits agrees with the code.
//! - [`links`]: every link and every mention of a page in the documentation leads to a file.
//! - [`stored`]: each number of a stored record has a row and golden bytes.
//! - [`words`]: strings that are banned from the tree, words that are banned from comments.
//!
//! When a check prevents better code, change its table here and give the reason in the commit.

pub mod graph;
pub mod limits;
pub mod links;
pub mod lints;
pub mod lock;
pub mod sources;
pub mod stored;
pub mod words;

/// A text file of the tree.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SourceFile {
    /// Its path below the root, with `/`.
    pub path: String,
    /// Its text.
    pub text: String,
}

impl SourceFile {
    /// The file at `path` with `text`.
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

    /// Whether it is compiled for tests only.
    pub fn is_test(&self) -> bool {
        self.path.split('/').any(|part| part == "tests") || self.name() == "tests.rs"
    }
}
