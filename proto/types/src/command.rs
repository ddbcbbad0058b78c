//! Commands: the content of a proposal to a group. Numbered, never reused; an unknown number stops
//! the group.
//!
//! `command/table.rs` has a row for each number. A new command is a variant here, a row there and,
//! if its reply is used as a type, a line in `command/typed.rs`.

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
/// The highest release level of this build; a [`Command::VersionBarrier`] above it stops the group.
pub const VERSION_KNOWN: u32 = 5;
/// The release level from which [`ShardCommand::ReplacePacks`] is understood.
pub const VERSION_REPLACE_PACKS: u32 = 2;
/// The release level from which the second version of repositories' records is understood, and
/// every command that can cause one.
pub const VERSION_REPOS: u32 = 3;
/// The release level from which starts of nodes are registered, `apply` uses replicated time
/// instead of the clock of one node, and records of requests are compact.
pub const VERSION_STARTS_AND_TIME: u32 = 4;
/// The release level from which a mirror has a bound on the removals of its runs.
pub const VERSION_MIRROR_REMOVALS: u32 = 5;
/// The release level from which repositories have rules for pushes.
pub const VERSION_PUSH_RULES: u32 = 5;
/// The release level from which requests between nodes mark a read as anonymous.
pub const VERSION_READS_OF_ANYBODY: u32 = 5;
/// The release level from which every fork of a private repository is private.
pub const VERSION_FORKS_AS_PARENT: u32 = 5;

/// A command as stored in a log entry, with all outside input that `apply` may use.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Proposal {
    /// The request behind it; `None` for a proposal that the leader makes by itself.
    pub request: Option<RequestBinding>,
    /// The proposer's clock: the only clock that `apply` reads.
    pub proposed_at_ms: u64,
    /// The only randomness of `apply`.
    pub seed: u64,
    /// The command.
    pub command: Command,
}

/// Binds a request id to its principal and its content: the same id with other content is refused.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RequestBinding {
    /// The id.
    pub id: RequestId,
    /// The principal's name.
    pub principal: String,
    /// The repository that it concerns, where there is one.
    pub repo: Option<RepoId>,
    /// SHA-256 of the commands as the client sent them.
    pub digest: [u8; 32],
}

/// A command of either kind of group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Command {
    /// Every replica must understand this release level; one that does not stops here. Number 1.
    VersionBarrier {
        /// The level.
        version: u32,
    },
    /// Moves the group's time to the smallest of these clocks, forward or back, further than other
    /// entries do. Number 3; needs release level [`VERSION_STARTS_AND_TIME`].
    MoveTime {
        /// The clocks of a majority of the group's voters, read within
        /// [`crate::limits::CLOCK_READING_MS_MAX`].
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
    /// The voter.
    pub node: NodeId,
    /// The time it showed, milliseconds since the Unix epoch.
    pub unix_ms: u64,
}

/// Commands of the meta group (numbers 16 to 63).
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum MetaCommand {
    /// The first entry of a cluster: its members and the placement of its shards. Number 16.
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
    /// Sets the addresses of a member. Number 17.
    RegisterNode(NodeRecord),
    /// Reserves a name and an id. Number 18; 23 for a repository that needs release level
    /// [`VERSION_REPOS`].
    ReserveRepo(CreateRepo),
    /// Records that the shard has made the repository. Number 19.
    MarkRepoReady {
        /// The repository.
        repo: RepoId,
    },
    /// Undoes a reservation whose shard never made it. Number 20.
    AbandonRepo {
        /// The repository.
        repo: RepoId,
    },
    /// Leaves a tombstone: no lookup finds the repository from here on. Number 21.
    DeleteRepo {
        /// The repository.
        repo: RepoId,
    },
    /// Records that the shard has dropped the repository. Number 22.
    MarkRepoDropped {
        /// The repository.
        repo: RepoId,
    },
    /// Changes the catalogue's record of a repository, all or nothing. Number 24.
    EditRepo(EditRepo),
    /// Records that the shard has acknowledged the settings of this revision. Number 25.
    MarkRepoTold {
        /// The repository.
        repo: RepoId,
        /// The entry that changed them.
        revision: LogIndex,
    },
    /// Registers a start of a member's process. Number 38; needs [`VERSION_STARTS_AND_TIME`].
    RegisterStart(RegisterStart),
}

/// Changes of a repository; a field that is `None` stays.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EditRepo {
    /// The repository.
    pub repo: RepoId,
    /// Its new owner and name. The former ones redirect to it until another repository takes them.
    pub path: Option<RepoPath>,
    /// A description of one line.
    pub description: Option<String>,
    /// Whether only its owner sees it.
    pub private: Option<bool>,
    /// Whether it is read-only.
    pub archived: Option<bool>,
    /// The target of HEAD; it need not exist.
    pub default_branch: Option<RefName>,
    /// Its topics.
    pub topics: TopicsEdit,
}

impl EditRepo {
    /// An edit without changes.
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
    /// No change.
    #[default]
    Keep,
    /// Replaces all topics.
    Set(Vec<Topic>),
    /// Adds one.
    Add(Topic),
    /// Removes one.
    Remove(Topic),
}

/// The initial state of a repository.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CreateRepo {
    /// Its id, drawn by the node that received the request.
    pub repo: RepoId,
    /// Its fork network.
    pub network: NetworkId,
    /// Its owner and name.
    pub path: RepoPath,
    /// The target of HEAD until a push or an edit changes it.
    pub default_branch: RefName,
    /// Whether only its owner sees it.
    pub private: bool,
    /// A description of one line.
    pub description: String,
    /// The hash that its objects are named by.
    pub object_format: ObjectFormat,
    /// The repository it is a fork of.
    pub forked_from: Option<RepoId>,
}

/// Commands of a shard (numbers 64 to 127).
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ShardCommand {
    /// Makes the repository; a repeated command is answered `Done`. Number 64; 69 for a repository
    /// that needs release level [`VERSION_REPOS`].
    CreateRepo {
        /// The repository.
        repo: RepoId,
        /// Its fork network.
        network: NetworkId,
        /// The generation of its name.
        generation: Generation,
        /// The target of HEAD.
        head: RefName,
        /// The hash that its objects are named by.
        object_format: ObjectFormat,
    },
    /// Drops it; a repeated command is answered `Done`. Number 65.
    DropRepo {
        /// The repository.
        repo: RepoId,
    },
    /// A push. Number 66.
    UpdateRefs(UpdateRefs),
    /// Changes the target of HEAD. Number 67.
    SetHead {
        /// The repository.
        repo: RepoId,
        /// Must not be older than the repository's.
        generation: Generation,
        /// The branch; it need not exist.
        head: RefName,
    },
    /// Compaction: one pack instead of several. Number 68; needs [`VERSION_REPLACE_PACKS`].
    ReplacePacks(ReplacePacks),
    /// Sets a mark, from which the tips are recorded that a network's refs lose: objects that stay
    /// unreachable since then can be dropped. Has no effect while another mark stands, except the
    /// one in `instead_of`. Number 84; needs release level [`VERSION_REPOS`].
    MarkUnreachable {
        /// The network.
        network: NetworkId,
        /// The entry of the mark that this one replaces.
        instead_of: Option<LogIndex>,
        /// The objects that were found in the network before it.
        found: MarkFound,
    },
    /// Drops the objects that are unreachable since the mark. Number 85; needs [`VERSION_REPOS`].
    PrunePacks(PrunePacks),
    /// Makes a repository with the current refs of another one of its network; a repeated command
    /// is answered `Done`. Number 86; needs release level [`VERSION_REPOS`].
    ForkRepo(ForkRepo),
    /// Sets the quotas of a repository. Number 87; needs release level [`VERSION_REPOS`].
    SetLimits {
        /// The repository.
        repo: RepoId,
        /// Must be the repository's.
        generation: Generation,
        /// All of its limits from here on.
        limits: RepoLimits,
    },
    /// The settings of a repository that its shard needs from the catalogue. Number 70.
    ConfigureRepo(ConfigureRepo),
    /// Protects refs: no push may delete them or remove commits from their history. Number 71.
    ProtectRefs {
        /// The repository.
        repo: RepoId,
        /// Must not be older than the repository's.
        generation: Generation,
        /// The pattern of the refs.
        pattern: RefPattern,
    },
    /// Removes the protection of a pattern. Number 72.
    UnprotectRefs {
        /// The repository.
        repo: RepoId,
        /// Must not be older than the repository's.
        generation: Generation,
        /// The pattern, exactly as it was set.
        pattern: RefPattern,
    },
    /// Makes a mirror or changes it. Number 76; 96 for a mirror that needs release level
    /// [`VERSION_MIRROR_REMOVALS`].
    SetMirror(SetMirror),
    /// Removes a mirror or makes it due. Number 77; 98 for a change that needs release level
    /// [`VERSION_MIRROR_REMOVALS`].
    ChangeMirror(ChangeMirror),
    /// Begins a run of a mirror. Number 78.
    BeginMirror(BeginMirror),
    /// A heartbeat or a completion report of a run. Number 79; 99 for a report that needs release
    /// level [`VERSION_MIRROR_REMOVALS`].
    RecordMirror(RecordMirror),
    /// A signed push. Number 88; needs release level [`VERSION_REPOS`].
    UpdateSignedRefs(SignedUpdate),
    /// Sets the seed of the nonces of a shard's push certificates, unless it has one. Number 89;
    /// needs release level [`VERSION_REPOS`].
    SetNonceSeed(NonceSeed),
    /// Changes the settings of a mirror. Number 92, of release level [`VERSION_REPOS`]; 97 for
    /// settings that need release level [`VERSION_MIRROR_REMOVALS`].
    EditMirror(EditMirror),
    /// Sets the rules for pushes to a repository. Number 93; needs [`VERSION_PUSH_RULES`].
    SetPushRules {
        /// The repository.
        repo: RepoId,
        /// Must be the repository's.
        generation: Generation,
        /// All of its rules from here on.
        rules: PushRules,
    },
}

/// The reachability of a network's objects, as found before a new mark.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum MarkFound {
    /// Not examined.
    Unknown,
    /// Refs reach the first so many of the tips that were recorded as lost since the mark before.
    LostTipsReached {
        /// How many tips.
        tips: u32,
    },
    /// Every object is reachable from refs and from the tips that were lost since the mark before.
    AllReached,
}

/// A repository to be made of another one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct ForkRepo {
    /// The new repository.
    pub repo: RepoId,
    /// The network of both.
    pub network: NetworkId,
    /// The generation of the new one's name.
    pub generation: Generation,
    /// The repository whose refs, HEAD and limits it gets.
    pub parent: RepoId,
}

/// Packs of a network's manifest, and the pack that replaces them with all of their objects that
/// are still reachable.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PrunePacks {
    /// The network of the manifest.
    pub network: NetworkId,
    /// The packs to remove. Every one must be in the manifest, and none twice.
    pub old: Vec<PackId>,
    /// The pack to add, if any object is still reachable. It is none of the removed ones.
    pub new: Option<PackRef>,
    /// The index of the state whose refs were walked: no ref of the network may have moved since.
    pub walked_at: LogIndex,
    /// The entry that set the mark: the tips lost since then were walked as well.
    pub marked_at: LogIndex,
    /// The least age of the mark, milliseconds.
    pub grace_ms: u64,
}

/// Settings of a repository. A revision at or below the last acknowledged one is skipped.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConfigureRepo {
    /// The repository.
    pub repo: RepoId,
    /// The least generation that updates and reads must name from here on.
    pub generation: Generation,
    /// The entry of the meta group that changed the settings.
    pub revision: LogIndex,
    /// Whether every push is refused.
    pub archived: bool,
    /// The new target of HEAD, if it changed.
    pub head: Option<RefName>,
}

/// Packs of a network's manifest, and the pack that replaces them with all their objects.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReplacePacks {
    /// The network of the manifest.
    pub network: NetworkId,
    /// The packs to remove. Every one must be in the manifest, and none twice.
    pub old: Vec<PackId>,
    /// The pack to add. It is none of the removed ones.
    pub new: PackRef,
}

/// One push: packs and ref updates, checked again by apply.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct UpdateRefs {
    /// The repository.
    pub repo: RepoId,
    /// Must not be older than the repository's: a push that was resolved before its name went to
    /// another repository is refused.
    pub generation: Generation,
    /// The packs that the updates need. The manifest names them if at least one update is accepted.
    pub packs: Vec<PackRef>,
    /// The updates, in the client's order. No ref twice.
    pub updates: Vec<RefUpdate>,
    /// All or nothing.
    pub atomic: bool,
    /// The account that pushed.
    pub pusher: String,
    /// Push options, as sent.
    pub options: Vec<String>,
    /// The applied index at which the connectivity was checked.
    pub checked_at: LogIndex,
}

/// A push and its certificate: the ref changes and the certificate's record are one entry.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SignedUpdate {
    /// The push.
    pub push: UpdateRefs,
    /// Its certificate.
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
    /// The bytes themselves when small. Otherwise a quorum already holds them durably.
    pub inline: Option<InlinePack>,
}

/// A small pack inside the entry.
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

/// The condition on a ref's current value for an update; mirrors gix's `PreviousValue`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum PreviousValue {
    /// Any value, or no ref.
    Any,
    /// The ref must not exist.
    MustNotExist,
    /// The ref must exist, with any value.
    MustExist,
    /// The ref must have this value.
    MustExistAndMatch(ObjectId),
}

/// One ref of a push.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RefUpdate {
    /// The ref.
    pub name: RefName,
    /// The condition on its current value.
    pub expected: PreviousValue,
    /// Its new value; `None` deletes it.
    pub new: Option<ObjectId>,
}
