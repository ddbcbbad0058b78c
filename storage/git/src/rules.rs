//! Messages of git's fsck about single objects: a table of messages with their levels, and the
//! checks.
//!
//! Messages, texts, order and default levels are those of git's `fsck.c` and `fsck.h` (2.55;
//! `git-fsck(1)`, "FSCK MESSAGES"). Pushes are checked as in git with `receive.fsckObjects`.
//! `docs/fsck.md` lists all messages, and the differences to git.

mod blobs;
mod check;
mod config_text;
mod headers;
mod levels;
mod names;
mod tree;
mod url;

pub(crate) use blobs::{ATTRIBUTES_BYTES_MAX, MODULES_BYTES_MAX};
pub(crate) use check::{Named, NamedBlobs, ObjectCheck, Pass, Unsound};
pub use levels::{Level, Message, ObjectRules, RuleError, Severity, is_eased};
