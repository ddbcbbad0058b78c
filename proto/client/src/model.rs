//! The JSON bodies of the API, as far as the client uses them.
//!
//! Unknown fields of an answer are skipped: a newer node may say more.

use henge_types::records::RepoState;
use henge_types::status::CompactionState;
use henge_types::{
    Generation, GroupId, MirrorId, MirrorKind, NetworkId, NodeId, ObjectFormat, OwnerName, RepoId,
    RepoName, RepoPath, Topic,
};
use serde::{Deserialize, Serialize};

/// Asks for a new repository.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct NewRepo {
    /// Its owner.
    pub owner: OwnerName,
    /// Its name.
    pub name: RepoName,
    /// One line about it.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub description: String,
    /// Whether only its owner sees it; else everybody reads it without a token.
    pub private: bool,
    /// Its default branch, short (`main`); the cluster's own choice when `None`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub default_branch: Option<String>,
    /// The hash that its objects are named by; SHA-1 when `None`.
    #[serde(rename = "object_format_name", skip_serializing_if = "Option::is_none")]
    pub object_format: Option<ObjectFormat>,
}

impl NewRepo {
    /// A private repository without a description.
    pub fn new(path: RepoPath) -> Self {
        Self {
            owner: path.owner,
            name: path.name,
            description: String::new(),
            private: true,
            default_branch: None,
            object_format: None,
        }
    }
}

/// A repository, and where it lives.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RepoInfo {
    /// Its id.
    pub id: RepoId,
    /// Its fork network.
    pub network: NetworkId,
    /// Its owner.
    pub owner: OwnerName,
    /// Its name.
    pub name: RepoName,
    /// The group that owns it.
    pub shard: GroupId,
    /// The life of its name.
    pub generation: Generation,
    /// Where it stands in the catalogue.
    pub state: RepoState,
    /// The shard's leader, as the node that answered knows it.
    #[serde(default)]
    pub leader: Option<NodeId>,
    /// Whether only its owner sees it.
    #[serde(default)]
    pub private: bool,
    /// One line about it.
    #[serde(default)]
    pub description: String,
    /// Its default branch.
    #[serde(default)]
    pub default_branch: String,
    /// The hash that its objects are named by.
    #[serde(rename = "object_format_name", default)]
    pub object_format: ObjectFormat,
    /// When it was created, RFC 3339.
    #[serde(default)]
    pub created_at: String,
    /// Whether it is read-only.
    #[serde(default)]
    pub archived: bool,
    /// What it is about.
    #[serde(default)]
    pub topics: Vec<String>,
    /// Former names that still lead to it.
    #[serde(default)]
    pub former_names: Vec<String>,
}

impl RepoInfo {
    /// `OWNER/NAME`.
    pub fn path(&self) -> RepoPath {
        RepoPath {
            owner: self.owner.clone(),
            name: self.name.clone(),
        }
    }
}

/// Changes of a repository; what is `None` stays.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct RepoChange {
    /// Its name below its owner.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<RepoName>,
    /// One line about it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    /// Whether only its owner sees it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub private: Option<bool>,
    /// Whether it is read-only.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub archived: Option<bool>,
    /// Its default branch, short (`main`).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub default_branch: Option<String>,
}

#[derive(Debug, Serialize)]
pub(crate) struct Topics<'a> {
    pub(crate) topics: &'a [Topic],
}

#[derive(Debug, Serialize)]
pub(crate) struct NewOwner<'a> {
    pub(crate) new_owner: &'a OwnerName,
}

#[derive(Debug, Serialize)]
pub(crate) struct RuleName<'a> {
    pub(crate) rule_name: &'a str,
}

/// A pattern of refs that are protected from deletion and from losing history.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Protection {
    /// The pattern: of branches below `refs/heads/`, of other refs in full.
    pub rule_name: String,
}

/// What a repository's fork network takes on disk, as the leader of its shard says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RepoStats {
    /// Who leads.
    pub leader: NodeId,
    /// Packs.
    pub packs: u64,
    /// Objects in them; one that lies in two counts twice.
    pub objects: u64,
    /// Bytes of the packs.
    pub pack_bytes: u64,
    /// Bytes of their indexes.
    pub idx_bytes: u64,
    /// Whether one of the packs has a reachability bitmap on the leader.
    #[serde(default)]
    pub bitmap: bool,
    /// Whether a compaction waits, runs, or neither.
    pub compaction: CompactionState,
    /// The last one; none when there was none since the leader began to lead.
    pub last_compaction: Option<Compaction>,
    /// Since when the tips are noted that refs lose, RFC 3339; none while they are not.
    #[serde(default)]
    pub prune_mark: Option<String>,
    /// What each replica found when it last checked its store; none when they could not be asked, and in the answer to a
    /// request for a compaction.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_fsck: Option<Vec<ReplicaFsck>>,
}

/// What a replica found when it last checked its store.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReplicaFsck {
    /// Whose replica.
    pub node: NodeId,
    /// None when there was none yet, and when [`failed`](Self::failed) says why nobody knows.
    pub last: Option<LastFsck>,
    /// Why the node could not be asked.
    pub failed: Option<String>,
}

/// A check of a replica's store that ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LastFsck {
    /// When, RFC 3339.
    pub at: String,
    /// How long it took, milliseconds.
    pub took_ms: u64,
    /// Objects that were read and hashed; one that lies in two packs counts twice.
    pub objects: u64,
    /// How much was found to be wrong.
    pub findings: u64,
    /// Packs that were damaged and were fetched again from another replica.
    pub repaired: u64,
    /// Why the check could not be finished, if it could not.
    pub failed: Option<String>,
}

/// A compaction that ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Compaction {
    /// When, RFC 3339.
    pub at: String,
    /// How long it took, milliseconds.
    pub took_ms: u64,
    /// Packs that another one took the place of; 0 when all was well.
    pub replaced: u32,
    /// Bytes of that one with its index.
    pub bytes: u64,
    /// Why it failed, if it did.
    #[serde(default)]
    pub failed: Option<String>,
    /// Objects that were dropped because no ref reaches them; none when it was not looked for them.
    #[serde(default)]
    pub dropped: Option<u64>,
    /// Counts the leader's compactions: two that are alike otherwise are told apart by it.
    #[serde(default)]
    pub run: u64,
}

/// Asks for a compaction.
#[derive(Debug, Clone, Copy, Serialize)]
pub(crate) struct Gc {
    pub aggressive: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub prune: Option<u64>,
}

/// Asks for a fork.
#[derive(Debug, Clone, Copy, Serialize)]
pub(crate) struct Fork<'a> {
    pub organization: &'a OwnerName,
    pub name: &'a RepoName,
}

/// Asks for checks of stores.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Fsck<'a> {
    pub nodes: &'a [NodeId],
    pub repair: bool,
}

/// Whether the next run of a mirror may remove more than half of the refs of the side that it writes to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Force {
    /// It fails instead, and says what it would remove.
    #[default]
    No,
    /// It may.
    Yes,
}

/// Asks for a mirror.
#[derive(Clone, PartialEq, Eq, Serialize)]
pub struct NewMirror {
    /// Which way.
    pub kind: MirrorKind,
    /// The other repository.
    pub url: String,
    /// The user to ask as.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    /// The password or token.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub password: Option<String>,
    /// Seconds from one firing to the next.
    pub interval_s: u64,
    /// Whether it is due whenever a ref changed; only for one that pushes.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub on_push: bool,
    /// Whether its first run may take from the side that it writes to what the other one does not have.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub replace: bool,
}

/// Asks for a mirror to be changed; what is `None` stays, but a new URL comes with its own credentials or none.
#[derive(Clone, Default, PartialEq, Eq, Serialize)]
pub struct MirrorEdit {
    /// The other repository.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub url: Option<String>,
    /// The user to ask as.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    /// The password or token.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub password: Option<String>,
    /// Seconds from one firing to the next.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub interval_s: Option<u64>,
    /// Whether it is due whenever a ref changed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub on_push: Option<bool>,
    /// Whether the first run at a new URL may take what the other side does not have.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub replace: bool,
}

/// The password is not shown.
impl std::fmt::Debug for MirrorEdit {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("MirrorEdit")
            .field("url", &self.url)
            .finish_non_exhaustive()
    }
}

/// The password is not shown.
impl std::fmt::Debug for NewMirror {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("NewMirror")
            .field("kind", &self.kind)
            .field("url", &self.url)
            .finish_non_exhaustive()
    }
}

/// A mirror.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mirror {
    /// Its id.
    pub id: MirrorId,
    /// Which way.
    pub kind: MirrorKind,
    /// The other repository.
    pub url: String,
    /// The user it is asked as.
    #[serde(default)]
    pub user: Option<String>,
    /// Seconds from one firing to the next.
    pub interval_s: u64,
    /// Whether it is due whenever a ref changed.
    #[serde(default)]
    pub on_push: bool,
    /// Whether it runs now.
    pub running: bool,
    /// When it is due next, RFC 3339.
    pub next_due_at: String,
    /// Runs that failed since the last one that did not.
    pub failures: u32,
    /// How the last run ended.
    pub last: Option<MirrorRun>,
}

/// A run of a mirror that ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MirrorRun {
    /// The firing, RFC 3339.
    pub scheduled_at: String,
    /// When it ended.
    pub ended_at: String,
    /// `done` or `failed`.
    pub outcome: String,
    /// Refs that were changed.
    pub changed: u64,
    /// Bytes of packs that travelled.
    pub pack_bytes: u64,
    /// Why it failed, if it did.
    #[serde(default)]
    pub error: Option<String>,
}

/// A push certificate that a repository keeps. Nobody verified its signature.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PushCertificate {
    /// The entry of the shard's log that made the changes.
    pub entry: u64,
    /// When that was, RFC 3339.
    pub at: String,
    /// The account that pushed.
    pub account: String,
    /// Who says to have signed it, and when: seconds since the Unix epoch and a time zone.
    pub pusher: String,
    /// Where the signer meant to push to.
    pub pushee: Option<String>,
    /// `OK`, `SLOP`, `BAD`, `MISSING` or `UNSOLICITED`, as git says it to its hooks.
    pub nonce_status: String,
    /// With `SLOP`: how old the nonce was, seconds.
    pub nonce_slop_s: Option<i64>,
    /// `openpgp`, `x509` or `ssh`; none without a signature.
    pub signature_kind: Option<String>,
    /// Whether the cluster verified the signature.
    pub signature_verified: bool,
    /// Its commands.
    pub refs: Vec<CertifiedRef>,
    /// The whole of it as it came, if it is UTF-8.
    pub certificate: Option<String>,
    /// The whole of it in base64, if it is not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub certificate_base64: Option<String>,
}

/// A command of a push certificate.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CertifiedRef {
    /// The full name of the ref.
    #[serde(rename = "ref")]
    pub name: String,
    /// What the signer took it to be, an id; `None`: not there.
    pub old: Option<String>,
    /// What it was to become, an id; `None`: deleted.
    pub new: Option<String>,
    /// Whether the ref was changed by it.
    pub accepted: bool,
}

#[derive(Debug, Deserialize)]
pub(crate) struct CertificatePage {
    pub(crate) certificates: Vec<PushCertificate>,
}

/// A branch and the commit it names.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Branch {
    /// Its name below `refs/heads/`.
    pub name: String,
    /// What it points at.
    pub commit: Commit,
}

/// A commit, by its id.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Commit {
    /// Its id, lower-case hex.
    pub id: String,
}

/// One change of a ref.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct RefChange {
    /// The full name of the ref.
    #[serde(rename = "ref")]
    pub name: String,
    /// What it must be before: an id, `"any"`, or `None` for "must not exist".
    pub old: Option<String>,
    /// What it becomes: an id, or `None` to delete it.
    pub new: Option<String>,
}

/// What became of one change.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RefResult {
    /// The full name of the ref.
    #[serde(rename = "ref")]
    pub name: String,
    /// Whether it was made.
    pub ok: bool,
    /// Why not, for a person.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Why not, for a program.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub code: Option<String>,
}

#[derive(Debug, Serialize)]
pub(crate) struct RefChanges<'a> {
    pub(crate) updates: &'a [RefChange],
    pub(crate) atomic: bool,
}

#[derive(Debug, Deserialize)]
pub(crate) struct RefResults {
    pub(crate) results: Vec<RefResult>,
}

#[derive(Debug, Deserialize)]
pub(crate) struct RepoPage {
    pub(crate) repositories: Vec<RepoInfo>,
}

#[derive(Debug, Deserialize)]
pub(crate) struct Version {
    pub(crate) version: String,
}

/// The body of an error, as far as a node wrote one.
#[derive(Debug, Default, Deserialize)]
pub(crate) struct ErrorBody {
    #[serde(default)]
    pub(crate) message: String,
    #[serde(default)]
    pub(crate) code: Option<henge_types::ErrorCode>,
}
