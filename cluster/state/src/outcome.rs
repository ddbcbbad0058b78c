//! The result of an applied command.

use henge_types::{LogIndex, NetworkId, PackId, PackRef, Reply, RepoId};

use crate::view::Write;

/// The result of one entry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outcome {
    /// The reply to the requester.
    pub reply: Reply,
    /// Changes of the state, in the order of their keys, no key twice. They are committed in one
    /// batch with the applied index.
    pub writes: Vec<Write>,
    /// For every replica's shell, in order.
    pub effects: Vec<Effect>,
}

impl Outcome {
    /// A reply without writes and effects.
    pub(crate) const fn reply(reply: Reply) -> Self {
        Self {
            reply,
            writes: Vec::new(),
            effects: Vec::new(),
        }
    }
}

/// Work outside the state that every replica's shell carries out when it applies the entry. A
/// replay of the entry may carry it out again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Effect {
    /// The manifest names this pack: put it in the network's store, replacing a file of the same
    /// name.
    InstallPack {
        /// The network of the store.
        network: NetworkId,
        /// The pack.
        pack: PackRef,
    },
    /// The manifest names `new` instead of `old`: put `new` in the network's store. The files of
    /// `old` may be removed once `new` is there, whole and durable.
    ReplacePacks {
        /// The network of the store.
        network: NetworkId,
        /// The packs that the manifest named before.
        old: Vec<PackId>,
        /// The pack that holds their objects now.
        new: PackRef,
    },
    /// The manifest names `new` instead of `old`, which may hold unreachable objects: put `new` in
    /// the network's store. The files of `old` may be removed under two conditions: `new` is there,
    /// whole and durable, and all objects reachable from refs were found in the packs of the
    /// manifest.
    PrunePacks {
        /// The network of the store.
        network: NetworkId,
        /// The packs that the manifest named before.
        old: Vec<PackId>,
        /// The pack with their reachable objects; none without such objects.
        new: Option<PackRef>,
    },
    /// The repository is deleted. Its network's store may be removed when no live repository of the
    /// network is left ([`crate::ShardView::network_is_live`]).
    DropRepo {
        /// Its network.
        network: NetworkId,
        /// The repository.
        repo: RepoId,
    },
}

/// Work that the leader's shell carries out, at least once. [`crate::pending_actions`] lists it
/// from the state, so a new leader needs no memory of the old one. The value itself is the
/// idempotency key: two equal actions are the same work.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Action {
    /// Name and id are reserved: create the repository in its shard, then mark it ready.
    FinishCreate {
        /// The repository.
        repo: RepoId,
    },
    /// Settings changed: send them to the repository's shard, then mark them acknowledged.
    TellShard {
        /// The repository.
        repo: RepoId,
        /// The entry of the last change.
        revision: LogIndex,
    },
    /// The tombstone is set: drop the repository in its shard, then mark it dropped.
    FinishDelete {
        /// The repository.
        repo: RepoId,
    },
}
