//! The commands against a server in this process: what they print, what they ask, how they end.

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
