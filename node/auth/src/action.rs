//! The actions that a route may stand for.

use crate::resource::{Resource, Visibility};

/// A type that stands for one [`Action`], so that a handler can name it in its signature.
pub trait Act: Copy + Send + Sync + 'static {
    /// The action.
    const ACTION: Action;
}

/// The list of actions: one line each, with the kind of resource that the action is done to.
macro_rules! actions {
    ($($(#[$doc:meta])* $name:ident: $on:ident,)*) => {
        /// What a request does.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
        pub enum Action {
            $($(#[$doc])* $name,)*
        }

        impl Action {
            /// Every action.
            pub const ALL: &'static [Self] = &[$(Self::$name,)*];

            /// The resource that the action is done to. `visibility` is that of a repository.
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
    /// Reads what no client without a token sees of a repository: limits, rules, mirrors,
    /// certificates, figures, forks.
    InspectRepo: Repository,
    /// Changes refs, by a push or by the API. A push to a missing repository of the user's own
    /// creates it.
    WriteRefs: Repository,
    /// Changes description, visibility, topics, default branch and name, or archives.
    EditRepo: Repository,
    /// Gives a repository to another owner.
    TransferRepo: Repository,
    /// Deletes a repository.
    DeleteRepo: Repository,
    /// Makes a repository of another one.
    ForkRepo: Repository,
    /// Sets what a repository may hold, and what is asked of pushes.
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
    /// Reads who the token belongs to.
    ReadAccount: Account,
    /// Reads the page of metrics.
    ReadMetrics: Metrics,
    /// Reads whether the node is alive and ready.
    ReadHealth: Health,
    /// Asks for a path that no route takes.
    MissRoute: Nothing,
}
