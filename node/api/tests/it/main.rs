//! The router over a cluster in memory, with requests as from a client.

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
