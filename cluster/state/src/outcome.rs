//! What applying a command hands back.

use henge_types::{LogIndex, NetworkId, PackId, PackRef, Reply, RepoId};

use crate::view::Write;

/// What one entry did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outcome {
    /// The answer to whoever asked.
    pub reply: Reply,
    /// Changes of the state, in the order of their keys, no key twice: committed in one batch with the
    /// applied index.
    pub writes: Vec<Write>,
    /// For every replica's shell, in order.
    pub effects: Vec<Effect>,
}

impl Outcome {
    /// An answer, and nothing else.
    pub(crate) const fn reply(reply: Reply) -> Self {
        Self {
            reply,
            writes: Vec::new(),
            effects: Vec::new(),
        }
    }
}

/// Work outside the state that every replica's shell carries out when it applies the entry. It may be
/// carried out again when the entry is replayed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Effect {
    /// The manifest names this pack: put it in the network's store, over whatever has its file name.
    InstallPack {
        /// Whose store.
        network: NetworkId,
        /// The pack.
        pack: PackRef,
    },
    /// The manifest names `new` instead of `old`: put `new` in the network's store. Once it is there, whole
    /// and durable, the files of `old` may go.
    ReplacePacks {
        /// Whose store.
        network: NetworkId,
        /// What the manifest named.
        old: Vec<PackId>,
        /// What holds their objects now.
        new: PackRef,
    },
    /// The manifest names `new` instead of `old`, which may hold objects that no ref reaches: put `new` in the network's
    /// store. Once it is there, whole and durable, and all that refs reach was found in what the manifest names, the files
    /// of `old` may go.
    PrunePacks {
        /// Whose store.
        network: NetworkId,
        /// What the manifest named.
        old: Vec<PackId>,
        /// What holds what is still reached of it; none when nothing is.
        new: Option<PackRef>,
    },
    /// The repository is gone. Its network's store may go when no live repository of the network is left
    /// ([`crate::ShardView::network_is_live`]).
    DropRepo {
        /// Its network.
        network: NetworkId,
        /// The repository.
        repo: RepoId,
    },
}

/// Work that the leader's shell carries out, at least once. [`crate::pending_actions`] lists it from the state, so a new
/// leader needs no memory of the old one. The value itself is the idempotency key: two equal actions are the same work.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Action {
    /// Name and id are reserved: make the repository in its shard, then mark it ready.
    FinishCreate {
        /// The repository.
        repo: RepoId,
    },
    /// Settings changed: tell the repository's shard, then mark it told.
    TellShard {
        /// The repository.
        repo: RepoId,
        /// The entry of the last change.
        revision: LogIndex,
    },
    /// The tombstone stands: drop the repository in its shard, then mark it dropped.
    FinishDelete {
        /// The repository.
        repo: RepoId,
    },
}
