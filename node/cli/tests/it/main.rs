//! The commands against a server in this process: their output, their questions, their exit codes.

mod arguments;
mod cluster;
mod credential;
mod debug;
mod fixtures;
mod import;
mod push_rules;
mod repo;
mod run;
mod visibility;
