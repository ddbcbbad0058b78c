//! What an action is done to.

/// Who may know of a repository.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Visibility {
    /// Every client reads it, also without a token.
    Public,
    /// Only its owner reads it.
    Private,
    /// There is no such repository.
    Absent,
}

impl Visibility {
    /// The visibility of a repository whose record says so.
    pub const fn of(private: bool) -> Self {
        match private {
            true => Self::Private,
            false => Self::Public,
        }
    }
}

/// What an action is done to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Resource {
    /// One repository.
    Repository(Visibility),
    /// The list of all repositories.
    Catalogue,
    /// The cluster and its nodes.
    Cluster,
    /// The principal itself.
    Account,
    /// The page of metrics.
    Metrics,
    /// The answers for load balancers and supervisors.
    Health,
    /// A path that no route takes.
    Nothing,
}
