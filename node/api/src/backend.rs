//! What the API asks of the cluster, a trait for each subject.
//!
//! Every method that answers a future has its own deadline, and answers `unavailable` when there is
//! no quorum in time.

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

/// Everything that the API asks of the cluster. A type that answers every subject is one.
pub trait Backend:
    Limits + Maintenance + Mirrors + References + Repositories + Status + Send + Sync + 'static
{
}

impl<T> Backend for T where
    T: Limits + Maintenance + Mirrors + References + Repositories + Status + Send + Sync + 'static
{
}
