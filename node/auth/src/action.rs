//! The actions of routes.

use crate::resource::{Resource, Visibility};

/// A type for one [`Action`], so that a handler can name it in its signature.
pub trait Act: Copy + Send + Sync + 'static {
    /// The action.
    const ACTION: Action;
}

/// The list of actions: one line each, with the kind of its resource.
macro_rules! actions {
    ($($(#[$doc:meta])* $name:ident: $on:ident,)*) => {
        /// The action of a request.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
        pub enum Action {
            $($(#[$doc])* $name,)*
        }

        impl Action {
            /// Every action.
            pub const ALL: &'static [Self] = &[$(Self::$name,)*];

            /// The resource of the action. `visibility` is that of a repository.
            pub const fn on(self, visibility: Visibility) -> Resource {
                match self {
                    $(Self::$name => actions!(@resource $on visibility),)*
                }
            }
        }

        $(
            $(#[$doc])*
            #[derive(Debug, Clone, Copy, PartialEq, Eq)]
            pub struct $name;

            impl Act for $name {
                const ACTION: Action = Action::$name;
            }
        )*
    };
    (@resource Repository $visibility:ident) => { Resource::Repository($visibility) };
    (@resource $on:ident $visibility:ident) => { Resource::$on };
}

actions! {
    /// Reads what a public repository shows to every client: settings, branches, topics, objects.
    ReadRepo: Repository,
    /// Reads the parts of a repository that no client without a token may see: limits, rules,
    /// mirrors, certificates, figures, forks.
    InspectRepo: Repository,
    /// Changes refs, by a push or by the API. A push to a missing repository of the user's own
    /// creates it.
    WriteRefs: Repository,
    /// Changes description, visibility, topics, default branch and name, or archives.
    EditRepo: Repository,
    /// Transfers a repository to another owner.
    TransferRepo: Repository,
    /// Deletes a repository.
    DeleteRepo: Repository,
    /// Forks a repository.
    ForkRepo: Repository,
    /// Sets the quotas of a repository and its rules for pushes.
    LimitRepo: Repository,
    /// Protects refs, or ends their protection.
    ProtectRefs: Repository,
    /// Makes, changes, removes and starts mirrors.
    MirrorRepo: Repository,
    /// Starts compaction and checks of packs.
    MaintainRepo: Repository,
    /// Makes a repository.
    CreateRepo: Catalogue,
    /// Reads the list of repositories.
    ListRepos: Catalogue,
    /// Reads the release of the node, the status of the cluster and the report of a node.
    ReadCluster: Cluster,
    /// Reads the user of the token.
    ReadAccount: Account,
    /// Reads the page of metrics.
    ReadMetrics: Metrics,
    /// Reads whether the node is alive and ready.
    ReadHealth: Health,
    /// Requests a path without a route.
    MissRoute: Nothing,
}
