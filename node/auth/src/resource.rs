//! The resources of actions.

/// The visibility of a repository.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Visibility {
    /// Every client may read it, also without a token.
    Public,
    /// Only its owner may read it.
    Private,
    /// The repository does not exist.
    Absent,
}

impl Visibility {
    /// The visibility of a repository whose record has this value of `private`.
    pub const fn of(private: bool) -> Self {
        match private {
            true => Self::Private,
            false => Self::Public,
        }
    }
}

/// The resource of an action.
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
    /// A path without a route.
    Nothing,
}
