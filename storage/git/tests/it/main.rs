//! Stock git against an in-process server over plain bare repositories.
#![allow(
    clippy::disallowed_methods,
    reason = "tests start git, servers and threads"
)]
#![allow(
    clippy::unwrap_used,
    clippy::print_stderr,
    reason = "a test that cannot go on fails where it stands, and says what it could not check"
)]

mod bare_config;
mod bitmap;
mod bounds;
mod bundles;
mod clone_push;
mod commit_graph;
mod damage;
mod differential;
mod fsck;
mod fuzz;
mod history;
mod hostile;
mod http;
#[allow(
    clippy::cast_possible_truncation,
    reason = "the bytes of a number are cut on purpose"
)]
#[path = "../../fuzz/inputs.rs"]
mod inputs;
mod kept;
mod object_rules;
mod packs;
mod partial;
mod policy;
mod random;
mod raw;
mod read;
mod read_bounds;
mod refusals;
mod rehearsal;
mod repack;
mod server;
mod sha256;
mod shallow;
mod signed;
mod work;

pub(crate) use server::{
    Git, Server, first_word, for_each_git, for_each_git_and_format, objects_of,
};
