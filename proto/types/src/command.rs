//! Commands: what is proposed to a group. Numbered, never reused; an unknown number stops the group.
//!
//! `command/table.rs` has a row for each number. A new command is a variant here, a row there and, if
//! its reply is used as a type, a line in `command/typed.rs`.

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::certificates::{NonceSeed, PushCertificate};
use crate::ids::{ClusterId, Generation, LogIndex, NetworkId, NodeId, RepoId, RequestId};
use crate::mirrors::{BeginMirror, ChangeMirror, EditMirror, RecordMirror, SetMirror};
use crate::names::{RefName, RefPattern, RepoPath, Topic};
use crate::object::{ObjectFormat, ObjectId, PackId};
use crate::records::{NodeRecord, PushRules, RepoLimits, ShardPlacement};
use crate::starts::RegisterStart;

mod packs;
mod proposal;
mod reserve;
mod table;
mod typed;

pub(crate) use table::tables;
pub use table::{GROUP_COMMANDS, META_COMMANDS, SHARD_COMMANDS};
pub use typed::TypedCommand;

/// The level of the first release, which every group starts at.
pub const VERSION_FIRST: u32 = 1;
/// The release level this build understands; a [`Command::VersionBarrier`] above it stops the group.
pub const VERSION_KNOWN: u32 = 5;
/// The release level from which [`ShardCommand::ReplacePacks`] is understood.
pub const VERSION_REPLACE_PACKS: u32 = 2;
/// The release level from which the second version of repositories' records is understood, and every command
/// that can cause one.
pub const VERSION_REPOS: u32 = 3;
/// The release level from which starts of nodes are registered, `apply` uses replicated time instead of the clock of one
/// node, and records of requests are compact.
pub const VERSION_STARTS_AND_TIME: u32 = 4;
/// The release level from which a mirror is told what its runs may remove.
pub const VERSION_MIRROR_REMOVALS: u32 = 5;
/// The release level from which repositories have rules for pushes.
pub const VERSION_PUSH_RULES: u32 = 5;
/// The release level from which nodes tell each other that a read is asked by somebody of whom nothing is known.
pub const VERSION_READS_OF_ANYBODY: u32 = 5;
/// The release level from which a fork of a private repository is private, whatever its command says.
pub const VERSION_FORKS_AS_PARENT: u32 = 5;

/// A command as it rides in a log entry, with what `apply` may know of the world outside.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Proposal {
    /// Who asked for it; none for what a leader proposes by itself.
    pub request: Option<RequestBinding>,
    /// The proposer's clock: the only time that `apply` sees.
    pub proposed_at_ms: u64,
    /// The only chance that `apply` sees.
    pub seed: u64,
    /// What to do.
    pub command: Command,
}

/// Binds a request id to who made it and what it asked: the same id with other content is refused.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RequestBinding {
    /// The id.
    pub id: RequestId,
    /// The principal's name.
    pub principal: String,
    /// The repository it is about, where there is one.
    pub repo: Option<RepoId>,
    /// SHA-256 of the commands as the client sent them.
    pub digest: [u8; 32],
}

/// A command of either kind of group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Command {
    /// Every replica must understand this release level, or stop here instead of guessing. Number 1.
    VersionBarrier {
        /// The level.
        version: u32,
    },
    /// Moves the group's time to the smallest of these clocks, forward or back, further than an entry does. Number 3; needs
    /// release level [`VERSION_STARTS_AND_TIME`].
    MoveTime {
        /// The clocks of a majority of the group's voters, read within [`crate::limits::CLOCK_READING_MS_MAX`].
        clocks: Vec<VoterClock>,
    },
    /// For the meta group.
    Meta(MetaCommand),
    /// For a shard.
    Shard(ShardCommand),
}

/// The clock of a voter.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct VoterClock {
    /// Whose.
    pub node: NodeId,
    /// What it showed, milliseconds since the Unix epoch.
    pub unix_ms: u64,
}

/// Commands of the meta group (numbers 16 to 63).
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum MetaCommand {
    /// The first entry of a cluster: who is in it and where the shards live. Number 16.
    FormCluster {
        /// The cluster's id.
        cluster: ClusterId,
        /// Replicas per group.
        replication: u32,
        /// The initial members.
        nodes: Vec<NodeRecord>,
        /// One placement per shard, groups 1..=S in order.
        placements: Vec<ShardPlacement>,
    },
    /// A member says where it is reached now. Number 17.
    RegisterNode(NodeRecord),
    /// Takes a name and an id. Number 18; 23 for what needs release level [`VERSION_REPOS`].
    ReserveRepo(CreateRepo),
    /// The shard has made it. Number 19.
    MarkRepoReady {
        /// The repository.
        repo: RepoId,
    },
    /// Undoes a reservation whose shard never made it. Number 20.
    AbandonRepo {
        /// The repository.
        repo: RepoId,
    },
    /// The tombstone: from here on nobody finds it. Number 21.
    DeleteRepo {
        /// The repository.
        repo: RepoId,
    },
    /// The shard has dropped it. Number 22.
    MarkRepoDropped {
        /// The repository.
        repo: RepoId,
    },
    /// Changes what the catalogue says of a repository, all or nothing. Number 24.
    EditRepo(EditRepo),
    /// The shard has been told the settings of this revision. Number 25.
    MarkRepoTold {
        /// The repository.
        repo: RepoId,
        /// The entry that changed them.
        revision: LogIndex,
    },
    /// A process of a member has started. Number 38; needs release level [`VERSION_STARTS_AND_TIME`].
    RegisterStart(RegisterStart),
}

/// Changes of a repository; what is `None` stays.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EditRepo {
    /// The repository.
    pub repo: RepoId,
    /// Its owner and name from here on. The former ones go on leading to it until somebody takes them.
    pub path: Option<RepoPath>,
    /// One line about it.
    pub description: Option<String>,
    /// Whether only its owner sees it.
    pub private: Option<bool>,
    /// Whether it is read-only.
    pub archived: Option<bool>,
    /// What HEAD points at; it need not exist.
    pub default_branch: Option<RefName>,
    /// What it is about.
    pub topics: TopicsEdit,
}

impl EditRepo {
    /// Changes nothing of this repository.
    pub const fn nothing(repo: RepoId) -> Self {
        Self {
            repo,
            path: None,
            description: None,
            private: None,
            archived: None,
            default_branch: None,
            topics: TopicsEdit::Keep,
        }
    }
}

/// A change of a repository's topics.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum TopicsEdit {
    /// None.
    #[default]
    Keep,
    /// These instead.
    Set(Vec<Topic>),
    /// One more.
    Add(Topic),
    /// One less.
    Remove(Topic),
}

/// What a repository starts with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CreateRepo {
    /// Its id, drawn by the node that was asked.
    pub repo: RepoId,
    /// Its fork network.
    pub network: NetworkId,
    /// Its owner and name.
    pub path: RepoPath,
    /// What HEAD points at until a push says otherwise.
    pub default_branch: RefName,
    /// Whether only its owner sees it.
    pub private: bool,
    /// One line about it.
    pub description: String,
    /// The hash that its objects are named by.
    pub object_format: ObjectFormat,
    /// The repository it is a fork of.
    pub forked_from: Option<RepoId>,
}

/// Commands of a shard (numbers 64 to 127).
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ShardCommand {
    /// Makes the repository; again is answered `Done`. Number 64; 69 for what needs release level
    /// [`VERSION_REPOS`].
    CreateRepo {
        /// The repository.
        repo: RepoId,
        /// Its fork network.
        network: NetworkId,
        /// The life of its name.
        generation: Generation,
        /// What HEAD points at.
        head: RefName,
        /// The hash that its objects are named by.
        object_format: ObjectFormat,
    },
    /// Drops it; again is answered `Done`. Number 65.
    DropRepo {
        /// The repository.
        repo: RepoId,
    },
    /// A push. Number 66.
    UpdateRefs(UpdateRefs),
    /// Points HEAD elsewhere. Number 67.
    SetHead {
        /// The repository.
        repo: RepoId,
        /// Must not be older than the repository's.
        generation: Generation,
        /// The branch; it need not exist.
        head: RefName,
    },
    /// Compaction: one pack instead of several. Number 68; needs release level [`VERSION_REPLACE_PACKS`].
    ReplacePacks(ReplacePacks),
    /// Begins to note which tips a network's refs lose, so that what none has reached since can be told and dropped. Does
    /// nothing while a mark stands, unless it is the one named. Number 84; needs release level [`VERSION_REPOS`].
    MarkUnreachable {
        /// The network.
        network: NetworkId,
        /// The entry of a mark that this one takes the place of.
        instead_of: Option<LogIndex>,
        /// What was found in the network before it.
        found: MarkFound,
    },
    /// Drops what no ref has reached since the mark. Number 85; needs release level [`VERSION_REPOS`].
    PrunePacks(PrunePacks),
    /// Makes a repository with the refs that another one of its network has now; again is answered `Done`. Number 86;
    /// needs release level [`VERSION_REPOS`].
    ForkRepo(ForkRepo),
    /// Sets what a repository may hold. Number 87; needs release level [`VERSION_REPOS`].
    SetLimits {
        /// The repository.
        repo: RepoId,
        /// Must be the repository's.
        generation: Generation,
        /// All of its limits from here on.
        limits: RepoLimits,
    },
    /// The catalogue's settings of a repository, as far as its shard needs them. Number 70.
    ConfigureRepo(ConfigureRepo),
    /// No push may delete these refs or take history from them. Number 71.
    ProtectRefs {
        /// The repository.
        repo: RepoId,
        /// Must not be older than the repository's.
        generation: Generation,
        /// Which refs.
        pattern: RefPattern,
    },
    /// The opposite. Number 72.
    UnprotectRefs {
        /// The repository.
        repo: RepoId,
        /// Must not be older than the repository's.
        generation: Generation,
        /// The pattern, as it was set.
        pattern: RefPattern,
    },
    /// Makes a mirror or changes it. Number 76; 96 for what needs release level [`VERSION_MIRROR_REMOVALS`].
    SetMirror(SetMirror),
    /// Removes a mirror or makes it due. Number 77; 98 for what needs release level [`VERSION_MIRROR_REMOVALS`].
    ChangeMirror(ChangeMirror),
    /// Begins a run of a mirror. Number 78.
    BeginMirror(BeginMirror),
    /// A word of a run. Number 79; 99 for what needs release level [`VERSION_MIRROR_REMOVALS`].
    RecordMirror(RecordMirror),
    /// A signed push. Number 88; needs release level [`VERSION_REPOS`].
    UpdateSignedRefs(SignedUpdate),
    /// Gives the shard what the nonces of push certificates are made with, unless it has it. Number 89; needs release
    /// level [`VERSION_REPOS`].
    SetNonceSeed(NonceSeed),
    /// Changes what a mirror is told to do. Number 92, of release level [`VERSION_REPOS`]; 97 for what needs release level
    /// [`VERSION_MIRROR_REMOVALS`].
    EditMirror(EditMirror),
    /// Sets what is asked of pushes to a repository. Number 93; needs release level [`VERSION_PUSH_RULES`].
    SetPushRules {
        /// The repository.
        repo: RepoId,
        /// Must be the repository's.
        generation: Generation,
        /// All of its rules from here on.
        rules: PushRules,
    },
}

/// What whoever makes a mark has found of what refs reach.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum MarkFound {
    /// Nobody has looked.
    Unknown,
    /// Refs reach as many tips as these that were noted as lost since the mark before it.
    LostTipsReached {
        /// How many: the first ones.
        tips: u32,
    },
    /// Refs, and the tips that were lost since the mark before it, reach everything.
    AllReached,
}

/// A repository to be made of another one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct ForkRepo {
    /// The new one.
    pub repo: RepoId,
    /// The network of both.
    pub network: NetworkId,
    /// The life of the new one's name.
    pub generation: Generation,
    /// The one whose refs, HEAD and limits it gets.
    pub parent: RepoId,
}

/// Packs of a network's manifest and the one that holds what is still reached of all their objects.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PrunePacks {
    /// Whose manifest.
    pub network: NetworkId,
    /// The packs that go. Every one must be in the manifest, and none twice.
    pub old: Vec<PackId>,
    /// The pack that comes, if anything is still reached. It is none of those that go.
    pub new: Option<PackRef>,
    /// The index of the state whose refs were walked: no ref of the network may have moved since.
    pub walked_at: LogIndex,
    /// The entry that made the mark: the tips lost since then were walked as well.
    pub marked_at: LogIndex,
    /// How long ago the mark must have been made, milliseconds.
    pub grace_ms: u64,
}

/// Settings of a repository. Those of a revision that is not above the last one told are skipped.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConfigureRepo {
    /// The repository.
    pub repo: RepoId,
    /// What updates and reads must name from here on, or a later one.
    pub generation: Generation,
    /// The entry of the meta group that changed them.
    pub revision: LogIndex,
    /// Whether every push is refused.
    pub archived: bool,
    /// Where HEAD points from here on, if that changed.
    pub head: Option<RefName>,
}

/// Packs of a network's manifest and the one that holds all their objects.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReplacePacks {
    /// Whose manifest.
    pub network: NetworkId,
    /// The packs that go. Every one must be in the manifest, and none twice.
    pub old: Vec<PackId>,
    /// The pack that comes. It is none of those that go.
    pub new: PackRef,
}

/// One push: packs and ref updates, checked again by apply.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct UpdateRefs {
    /// The repository.
    pub repo: RepoId,
    /// Must not be older than the repository's: a push resolved before its name went to another one is refused.
    pub generation: Generation,
    /// The packs that the updates need. Named by the manifest if at least one update is accepted.
    pub packs: Vec<PackRef>,
    /// The updates, in the client's order. No ref twice.
    pub updates: Vec<RefUpdate>,
    /// All or nothing.
    pub atomic: bool,
    /// Who pushed.
    pub pusher: String,
    /// Push options, as sent.
    pub options: Vec<String>,
    /// The applied index at which the closure was checked.
    pub checked_at: LogIndex,
}

/// A push and its certificate: the ref changes and the record of who signed them are one entry.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SignedUpdate {
    /// The push.
    pub push: UpdateRefs,
    /// What was signed of it.
    pub certificate: PushCertificate,
}

/// A pack that an entry names.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PackRef {
    /// Its name.
    pub pack: PackId,
    /// Bytes of the completed pack file.
    pub pack_bytes: u64,
    /// Bytes of its index.
    pub idx_bytes: u64,
    /// Objects in it.
    pub objects: u32,
    /// The bytes themselves when small; else a quorum holds them durably already.
    pub inline: Option<InlinePack>,
}

/// A small pack that rides in the entry.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct InlinePack {
    /// The completed pack file.
    pub pack: Bytes,
    /// Its version 2 index.
    pub idx: Bytes,
}

impl std::fmt::Debug for InlinePack {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "InlinePack({} + {} bytes)",
            self.pack.len(),
            self.idx.len()
        )
    }
}

/// What a ref's value must be for an update to be taken; mirrors gix's `PreviousValue`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum PreviousValue {
    /// Whatever it is, also nothing.
    Any,
    /// There must be none.
    MustNotExist,
    /// There must be one, whatever it is.
    MustExist,
    /// It must be this one.
    MustExistAndMatch(ObjectId),
}

/// One ref of a push.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RefUpdate {
    /// The ref.
    pub name: RefName,
    /// What it must be now.
    pub expected: PreviousValue,
    /// What it becomes; `None` deletes it.
    pub new: Option<ObjectId>,
}
