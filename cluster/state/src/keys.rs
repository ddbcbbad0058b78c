//! The keys of both machines: one tag byte, then fixed-width big-endian parts, then at most one text.
//! So keys of one kind lie together and sort by their parts. Tags are never reused.

use bytes::Bytes;
use henge_types::{GroupId, NetworkId, NodeId, ObjectId, PackId, RefName, RepoId, RequestId};

const VERSION: u8 = 0x01;
const REQUEST: u8 = 0x02;
const REQUEST_FLOOR: u8 = 0x03;

const CLUSTER: u8 = 0x10;
const NODE: u8 = 0x11;
const PLACEMENT: u8 = 0x12;
const REPO: u8 = 0x13;
const PATH: u8 = 0x14;
const PATH_GENERATION: u8 = 0x15;
const UNFINISHED: u8 = 0x16;

const SHARD_REPO: u8 = 0x20;
const NETWORK_REPO: u8 = 0x21;
const REF: u8 = 0x22;
const PACK: u8 = 0x23;
const FORMER_TIP: u8 = 0x24;
const FORMER_TIP_AGE: u8 = 0x25;

const ID_BYTES: usize = 16;

fn join(tag: u8, parts: &[&[u8]]) -> Bytes {
    let length = 1 + parts.iter().map(|part| part.len()).sum::<usize>();
    let mut key = Vec::with_capacity(length);
    key.push(tag);
    for part in parts {
        key.extend_from_slice(part);
    }
    key.into()
}

/// Cuts `N` bytes off the front.
fn take<const N: usize>(bytes: &[u8]) -> Option<([u8; N], &[u8])> {
    bytes
        .split_first_chunk::<N>()
        .map(|(head, rest)| (*head, rest))
}

fn after_tag(tag: u8, key: &[u8]) -> Option<&[u8]> {
    key.strip_prefix(&[tag])
}

/// The release level of the last version barrier.
pub(crate) fn version() -> Bytes {
    join(VERSION, &[])
}

/// The record of a request; they sort by the time the request was made.
pub(crate) fn request(id: &RequestId) -> Bytes {
    let made_at = id.made_at_ms.to_be_bytes();
    let counter = id.counter.to_be_bytes();
    join(REQUEST, &[&made_at, id.incarnation.as_bytes(), &counter])
}

/// All request records.
pub(crate) fn requests() -> Bytes {
    join(REQUEST, &[])
}

/// When the request of this record's key was made.
pub(crate) fn request_made_at_ms(key: &[u8]) -> Option<u64> {
    let (made_at, _) = take::<8>(after_tag(REQUEST, key)?)?;
    Some(u64::from_be_bytes(made_at))
}

/// Records of requests made at or before this have been removed.
pub(crate) fn request_floor() -> Bytes {
    join(REQUEST_FLOOR, &[])
}

/// The cluster record.
pub(crate) fn cluster() -> Bytes {
    join(CLUSTER, &[])
}

/// A node record; they sort by number.
pub(crate) fn node(node: NodeId) -> Bytes {
    join(NODE, &[&node.get().to_be_bytes()])
}

/// All node records.
pub(crate) fn nodes() -> Bytes {
    join(NODE, &[])
}

/// A shard's placement; they sort by group.
pub(crate) fn placement(group: GroupId) -> Bytes {
    join(PLACEMENT, &[&group.get().to_be_bytes()])
}

/// All placements.
pub(crate) fn placements() -> Bytes {
    join(PLACEMENT, &[])
}

/// A repository in the catalogue, whatever its state.
pub(crate) fn repo(repo: &RepoId) -> Bytes {
    join(REPO, &[repo.as_bytes()])
}

/// Which repository has the name. `path` is the lower-case `owner/name`.
pub(crate) fn path(path: &str) -> Bytes {
    join(PATH, &[path.as_bytes()])
}

/// The names of one owner, given in lower case.
pub(crate) fn paths_of(owner: &str) -> Bytes {
    join(PATH, &[owner.as_bytes(), b"/"])
}

/// All names.
pub(crate) fn paths() -> Bytes {
    join(PATH, &[])
}

/// The first key that sorts after the name.
pub(crate) fn after_path(path: &str) -> Bytes {
    join(PATH, &[path.as_bytes(), &[0]])
}

/// The highest generation that the name ever had.
pub(crate) fn path_generation(path: &str) -> Bytes {
    join(PATH_GENERATION, &[path.as_bytes()])
}

/// Marks a repository that is reserved or being deleted.
pub(crate) fn unfinished(repo: &RepoId) -> Bytes {
    join(UNFINISHED, &[repo.as_bytes()])
}

/// All such marks.
pub(crate) fn all_unfinished() -> Bytes {
    join(UNFINISHED, &[])
}

/// The repository of such a mark.
pub(crate) fn unfinished_repo(key: &[u8]) -> Option<RepoId> {
    let (repo, _) = take::<ID_BYTES>(after_tag(UNFINISHED, key)?)?;
    Some(RepoId::from_bytes(repo))
}

/// A repository in its shard.
pub(crate) fn shard_repo(repo: &RepoId) -> Bytes {
    join(SHARD_REPO, &[repo.as_bytes()])
}

/// All repositories of the shard.
pub(crate) fn shard_repos() -> Bytes {
    join(SHARD_REPO, &[])
}

/// Marks a live repository of a network.
pub(crate) fn network_repo(network: &NetworkId, repo: &RepoId) -> Bytes {
    join(NETWORK_REPO, &[network.as_bytes(), repo.as_bytes()])
}

/// The live repositories of a network.
pub(crate) fn network_repos(network: &NetworkId) -> Bytes {
    join(NETWORK_REPO, &[network.as_bytes()])
}

/// The live repositories of all networks.
pub(crate) fn networks() -> Bytes {
    join(NETWORK_REPO, &[])
}

/// Network and repository of such a mark.
pub(crate) fn network_of(key: &[u8]) -> Option<(NetworkId, RepoId)> {
    let (network, rest) = take::<ID_BYTES>(after_tag(NETWORK_REPO, key)?)?;
    let (repo, _) = take::<ID_BYTES>(rest)?;
    Some((NetworkId::from_bytes(network), RepoId::from_bytes(repo)))
}

/// A ref's value.
pub(crate) fn reference(repo: &RepoId, name: &RefName) -> Bytes {
    refs(repo, name.as_str())
}

/// The refs of a repository whose names start with `prefix`.
pub(crate) fn refs(repo: &RepoId, prefix: &str) -> Bytes {
    join(REF, &[repo.as_bytes(), prefix.as_bytes()])
}

/// The name of the ref with this key.
pub(crate) fn ref_name(key: &[u8]) -> Option<&str> {
    let name = after_tag(REF, key)?.get(ID_BYTES..)?;
    std::str::from_utf8(name).ok()
}

/// A pack in the manifest of a network.
pub(crate) fn pack(network: &NetworkId, pack: &PackId) -> Bytes {
    join(PACK, &[network.as_bytes(), pack.checksum().as_bytes()])
}

/// The manifest of a network.
pub(crate) fn packs(network: &NetworkId) -> Bytes {
    join(PACK, &[network.as_bytes()])
}

/// When an object stopped being the value of some ref.
pub(crate) fn former_tip(repo: &RepoId, tip: &ObjectId) -> Bytes {
    join(FORMER_TIP, &[repo.as_bytes(), tip.as_bytes()])
}

/// All former tips of a repository.
pub(crate) fn former_tips(repo: &RepoId) -> Bytes {
    join(FORMER_TIP, &[repo.as_bytes()])
}

/// Repository and object of a former tip.
pub(crate) fn former_tip_of(key: &[u8]) -> Option<(RepoId, ObjectId)> {
    let (repo, tip) = take::<ID_BYTES>(after_tag(FORMER_TIP, key)?)?;
    Some((RepoId::from_bytes(repo), ObjectId::from_bytes(tip)?))
}

/// The same, sorted by that time: the oldest go first.
pub(crate) fn former_tip_age(at_ms: u64, repo: &RepoId, tip: &ObjectId) -> Bytes {
    let at = at_ms.to_be_bytes();
    join(FORMER_TIP_AGE, &[&at, repo.as_bytes(), tip.as_bytes()])
}

/// All former tips by age.
pub(crate) fn former_tip_ages() -> Bytes {
    join(FORMER_TIP_AGE, &[])
}

/// Time, repository and object of a former tip by age.
pub(crate) fn former_tip_age_of(key: &[u8]) -> Option<(u64, RepoId, ObjectId)> {
    let (at, rest) = take::<8>(after_tag(FORMER_TIP_AGE, key)?)?;
    let (repo, tip) = take::<ID_BYTES>(rest)?;
    let tip = ObjectId::from_bytes(tip)?;
    Some((u64::from_be_bytes(at), RepoId::from_bytes(repo), tip))
}
