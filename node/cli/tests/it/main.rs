//! The commands against a server in this process: what they print, what they ask, how they end.

mod arguments;
mod cluster;
mod fixtures;
mod repo;
mod run;
