//! The interface of the API to the cluster, a trait for each subject.
//!
//! Every method with a future has its own deadline, and returns `unavailable` when there is no
//! quorum in time.

mod answer;
mod limits;
mod maintenance;
mod mirrors;
mod references;
mod repositories;
mod status;

pub use answer::Answer;
pub use limits::Limits;
pub use maintenance::Maintenance;
pub use mirrors::Mirrors;
pub use references::{PushCertificates, References, Refs};
pub use repositories::{Home, NewRepo, RepoEdit, Repositories};
pub use status::Status;

/// The whole interface of the API to the cluster. Every type with all of these traits implements
/// it.
pub trait Backend:
    Limits + Maintenance + Mirrors + References + Repositories + Status + Send + Sync + 'static
{
}

impl<T> Backend for T where
    T: Limits + Maintenance + Mirrors + References + Repositories + Status + Send + Sync + 'static
{
}
