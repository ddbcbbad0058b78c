//! The router, asked as a client would ask it, over a cluster in memory.

mod access;
mod bounds;
mod edit;
mod failures;
mod git_client;
mod gitea;
mod harness;
mod memory;
mod metrics_page;
mod observe;
mod own;
mod walk;
