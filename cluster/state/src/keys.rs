//! The keys of both machines: one tag byte, then fixed-width big-endian parts, then at most one
//! text. So keys of one kind are adjacent and sort by their parts. Tags are never reused.

use bytes::Bytes;
use henge_types::{
    GroupId, LogIndex, MirrorId, NetworkId, NodeId, ObjectId, PackId, RefName, RepoId, RequestId,
};

const VERSION: u8 = 0x01;
const REQUEST: u8 = 0x02;
const REQUEST_FLOOR: u8 = 0x03;
const START: u8 = 0x05;
const COMPACT_REQUEST: u8 = 0x0d;
const REQUEST_GENERATION: u8 = 0x0e;
const TIME: u8 = 0x0f;

const CLUSTER: u8 = 0x10;
const NODE: u8 = 0x11;
const PLACEMENT: u8 = 0x12;
const REPO: u8 = 0x13;
const PATH: u8 = 0x14;
const PATH_GENERATION: u8 = 0x15;
const UNFINISHED: u8 = 0x16;
const FORMER_PATH: u8 = 0x17;
const UNTOLD: u8 = 0x18;
const FORK: u8 = 0x19;

const SHARD_REPO: u8 = 0x20;
const NETWORK_REPO: u8 = 0x21;
const REF: u8 = 0x22;
const PACK: u8 = 0x23;
const FORMER_TIP: u8 = 0x24;
const FORMER_TIP_AGE: u8 = 0x25;
const PROTECTIONS: u8 = 0x26;

const PRUNE_MARK: u8 = 0x30;
const LOST_TIP: u8 = 0x31;
const PRUNED_AT: u8 = 0x32;
const REPO_LIMITS: u8 = 0x33;
const SHARED: u8 = 0x34;
const PUSH_RULES: u8 = 0x35;
const MIRROR: u8 = 0x28;
const MIRROR_REMOVAL: u8 = 0x29;
const PUSH_CERTIFICATE: u8 = 0x2c;
const NONCE_SEED: u8 = 0x2d;

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

/// Splits the first `N` bytes off.
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

/// The record of a request; the records sort by the time of the request.
pub(crate) fn request(id: &RequestId) -> Bytes {
    let made_at = id.made_at_ms.to_be_bytes();
    let counter = id.counter.to_be_bytes();
    join(REQUEST, &[&made_at, id.incarnation.as_bytes(), &counter])
}

/// All request records.
pub(crate) fn requests() -> Bytes {
    join(REQUEST, &[])
}

/// The time of the request with this record key.
pub(crate) fn request_made_at_ms(key: &[u8]) -> Option<u64> {
    let (made_at, _) = take::<8>(after_tag(REQUEST, key)?)?;
    Some(u64::from_be_bytes(made_at))
}

/// Records of requests made at this time or before have been removed.
pub(crate) fn request_floor() -> Bytes {
    join(REQUEST_FLOOR, &[])
}

/// The compact record of a request; the records sort by the generation in which the request was
/// executed.
pub(crate) fn compact_request(generation: u64, id: &RequestId) -> Bytes {
    let (generation, counter) = (generation.to_be_bytes(), id.counter.to_be_bytes());
    let parts: [&[u8]; 3] = [&generation, id.incarnation.as_bytes(), &counter];
    join(COMPACT_REQUEST, &parts)
}

/// All compact request records.
pub(crate) fn compact_requests() -> Bytes {
    join(COMPACT_REQUEST, &[])
}

/// The generation of the compact record with this key.
pub(crate) fn compact_request_generation(key: &[u8]) -> Option<u64> {
    let (generation, _) = take::<8>(after_tag(COMPACT_REQUEST, key)?)?;
    Some(u64::from_be_bytes(generation))
}

/// The current generation of request records, and its size.
pub(crate) fn request_generation() -> Bytes {
    join(REQUEST_GENERATION, &[])
}

/// The group's time.
pub(crate) fn time() -> Bytes {
    join(TIME, &[])
}

/// The cluster record.
pub(crate) fn cluster() -> Bytes {
    join(CLUSTER, &[])
}

/// A node record; the records sort by number.
pub(crate) fn node(node: NodeId) -> Bytes {
    join(NODE, &[&node.get().to_be_bytes()])
}

/// All node records.
pub(crate) fn nodes() -> Bytes {
    join(NODE, &[])
}

/// The last registered start of a member; the records sort by number.
pub(crate) fn start(node: NodeId) -> Bytes {
    join(START, &[&node.get().to_be_bytes()])
}

/// The last registered starts of all members.
pub(crate) fn starts() -> Bytes {
    join(START, &[])
}

/// The member of such a key.
pub(crate) fn start_node(key: &[u8]) -> Option<NodeId> {
    let (node, _) = take::<8>(after_tag(START, key)?)?;
    Some(NodeId::new(u64::from_be_bytes(node)))
}

/// A shard's placement; the placements sort by group.
pub(crate) fn placement(group: GroupId) -> Bytes {
    join(PLACEMENT, &[&group.get().to_be_bytes()])
}

/// All placements.
pub(crate) fn placements() -> Bytes {
    join(PLACEMENT, &[])
}

/// A repository in the catalogue, in any state.
pub(crate) fn repo(repo: &RepoId) -> Bytes {
    join(REPO, &[repo.as_bytes()])
}

/// The repository that holds the name. `path` is the lower-case `owner/name`.
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

/// The highest generation of the name so far.
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

/// The repository that held the name before, as long as no other repository holds it.
pub(crate) fn former_path(path: &str) -> Bytes {
    join(FORMER_PATH, &[path.as_bytes()])
}

/// The settings of a repository that its shard has not acknowledged.
pub(crate) fn untold(repo: &RepoId) -> Bytes {
    join(UNTOLD, &[repo.as_bytes()])
}

/// The pending settings of all repositories.
pub(crate) fn all_untold() -> Bytes {
    join(UNTOLD, &[])
}

/// The repository of a pending-settings key.
pub(crate) fn untold_repo(key: &[u8]) -> Option<RepoId> {
    let (repo, _) = take::<ID_BYTES>(after_tag(UNTOLD, key)?)?;
    Some(RepoId::from_bytes(repo))
}

/// The protected refs of a repository.
pub(crate) fn protections(repo: &RepoId) -> Bytes {
    join(PROTECTIONS, &[repo.as_bytes()])
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

/// A fork that serves, under its parent.
pub(crate) fn fork(parent: &RepoId, fork: &RepoId) -> Bytes {
    join(FORK, &[parent.as_bytes(), fork.as_bytes()])
}

/// The forks of a repository.
pub(crate) fn forks(parent: &RepoId) -> Bytes {
    join(FORK, &[parent.as_bytes()])
}

/// The fork of such a mark.
pub(crate) fn fork_of(key: &[u8]) -> Option<RepoId> {
    let (_, rest) = take::<ID_BYTES>(after_tag(FORK, key)?)?;
    let (repo, _) = take::<ID_BYTES>(rest)?;
    Some(RepoId::from_bytes(repo))
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

/// The same, for the name of a stored ref.
pub(crate) fn ref_text(repo: &RepoId, name: &str) -> Bytes {
    refs(repo, name)
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

/// The time when an object stopped being the value of some ref.
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

/// The same, sorted by that time: the oldest are removed first.
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

/// A network's mark for the removal of unreachable objects.
pub(crate) fn prune_mark(network: &NetworkId) -> Bytes {
    join(PRUNE_MARK, &[network.as_bytes()])
}

/// An object that some ref of the network lost since the mark.
pub(crate) fn lost_tip(network: &NetworkId, tip: &ObjectId) -> Bytes {
    join(LOST_TIP, &[network.as_bytes(), tip.as_bytes()])
}

/// All lost tips of a network.
pub(crate) fn lost_tips(network: &NetworkId) -> Bytes {
    join(LOST_TIP, &[network.as_bytes()])
}

/// The object of a lost tip.
pub(crate) fn lost_tip_of(key: &[u8]) -> Option<ObjectId> {
    let (_, tip) = take::<ID_BYTES>(after_tag(LOST_TIP, key)?)?;
    ObjectId::from_bytes(tip)
}

/// The last entry that removed objects of a network.
pub(crate) fn pruned_at(network: &NetworkId) -> Bytes {
    join(PRUNED_AT, &[network.as_bytes()])
}

/// Marks a network that ever had more than one repository.
pub(crate) fn shared(network: &NetworkId) -> Bytes {
    join(SHARED, &[network.as_bytes()])
}

/// The quota of a repository.
pub(crate) fn repo_limits(repo: &RepoId) -> Bytes {
    join(REPO_LIMITS, &[repo.as_bytes()])
}

/// The push rules of a repository.
pub(crate) fn push_rules(repo: &RepoId) -> Bytes {
    join(PUSH_RULES, &[repo.as_bytes()])
}

/// A mirror of a repository.
pub(crate) fn mirror(repo: &RepoId, mirror: &MirrorId) -> Bytes {
    join(MIRROR, &[repo.as_bytes(), mirror.as_bytes()])
}

/// The mirrors of a repository.
pub(crate) fn mirrors_of(repo: &RepoId) -> Bytes {
    join(MIRROR, &[repo.as_bytes()])
}

/// All mirrors of the shard.
pub(crate) fn mirrors() -> Bytes {
    join(MIRROR, &[])
}

/// The refs that runs of a mirror may remove.
pub(crate) fn mirror_removal(repo: &RepoId, mirror: &MirrorId) -> Bytes {
    join(MIRROR_REMOVAL, &[repo.as_bytes(), mirror.as_bytes()])
}

/// The same for all mirrors of a repository.
pub(crate) fn mirror_removals_of(repo: &RepoId) -> Bytes {
    join(MIRROR_REMOVAL, &[repo.as_bytes()])
}

/// The push certificate of an entry; the certificates sort by entry.
pub(crate) fn push_certificate(repo: &RepoId, at: LogIndex) -> Bytes {
    let at = at.get().to_be_bytes();
    join(PUSH_CERTIFICATE, &[repo.as_bytes(), &at])
}

/// The push certificates of a repository.
pub(crate) fn push_certificates(repo: &RepoId) -> Bytes {
    join(PUSH_CERTIFICATE, &[repo.as_bytes()])
}

/// The seed of the shard's nonces.
pub(crate) fn nonce_seed() -> Bytes {
    join(NONCE_SEED, &[])
}

#[cfg(test)]
mod tests {
    use henge_types::Incarnation;

    use super::*;

    fn repo_of(byte: u8) -> RepoId {
        RepoId::from_bytes([byte; 16])
    }

    fn name(text: &str) -> RefName {
        text.parse().expect("a valid ref name")
    }

    fn request_of(made_at_ms: u64, incarnation: u8, counter: u64) -> RequestId {
        RequestId {
            made_at_ms,
            incarnation: Incarnation::from_bytes([incarnation; 16]),
            counter,
        }
    }

    fn sorted(keys: &[Bytes]) {
        assert!(keys.is_sorted_by(|one, other| one < other), "{keys:?}");
    }

    #[test]
    fn requests_sort_by_time_then_maker_then_counter() {
        sorted(&[
            request(&request_of(255, 9, 9)),
            request(&request_of(256, 1, 256)),
            request(&request_of(256, 2, 255)),
            request(&request_of(256, 2, 256)),
            request(&request_of(1 << 40, 0, 0)),
        ]);
        let key = request(&request_of(1 << 40, 1, 7));
        assert_eq!(request_made_at_ms(&key), Some(1 << 40));
        assert_eq!(request_made_at_ms(b"\x02short"), None);
        assert_eq!(request_made_at_ms(&request_floor()), None);
    }

    #[test]
    fn compact_requests_sort_by_generation_and_forget_when_they_were_made() {
        sorted(&[
            compact_request(255, &request_of(9, 9, 9)),
            compact_request(256, &request_of(8, 1, 256)),
            compact_request(256, &request_of(7, 2, 255)),
        ]);
        let key = compact_request(256, &request_of(1, 2, 3));
        assert_eq!(key, compact_request(256, &request_of(2, 2, 3)));
        assert_eq!(compact_request_generation(&key), Some(256));
        assert_eq!(compact_request_generation(b"\x0dshort"), None);
    }

    #[test]
    fn numbers_sort_as_numbers() {
        sorted(&[9, 10, 255, 256, 70_000].map(|number| node(NodeId::new(number))));
        sorted(&[1, 9, 10, 255, 256].map(|number| placement(GroupId::new(number))));
        sorted(&[9, 10, 255, 256].map(|at| push_certificate(&repo_of(1), LogIndex::new(at))));
    }

    #[test]
    fn former_tips_sort_by_age_and_read_back() {
        let tip = ObjectId::Sha1([3; 20]);
        let long = ObjectId::Sha256([3; 32]);
        sorted(&[
            former_tip_age(255, &repo_of(9), &tip),
            former_tip_age(256, &repo_of(1), &tip),
            former_tip_age(256, &repo_of(1), &long),
            former_tip_age(256, &repo_of(2), &tip),
        ]);
        for tip in [tip, long] {
            let age = former_tip_age(256, &repo_of(1), &tip);
            assert_eq!(former_tip_age_of(&age), Some((256, repo_of(1), tip)));
            let key = former_tip(&repo_of(1), &tip);
            assert_eq!(former_tip_of(&key), Some((repo_of(1), tip)));
            assert!(key.starts_with(&former_tips(&repo_of(1))));
            assert!(age.starts_with(&former_tip_ages()));
        }
        assert_eq!(former_tip_age_of(b"\x25"), None);
        assert_eq!(former_tip_of(&former_tips(&repo_of(1))), None);
    }

    #[test]
    fn refs_sort_by_repository_then_name_and_read_back() {
        let names = [
            "refs/heads/a",
            "refs/heads/a-b",
            "refs/heads/a/b",
            "refs/tags/a",
        ];
        let keys = names.map(|text| reference(&repo_of(1), &name(text)));
        sorted(&keys);
        sorted(&[keys[3].clone(), reference(&repo_of(2), &name(names[0]))]);
        for (key, text) in keys.iter().zip(names) {
            assert_eq!(ref_name(key), Some(text));
            assert!(key.starts_with(&refs(&repo_of(1), "refs/")));
        }
        assert_eq!(ref_name(b"\x22short"), None);
    }

    #[test]
    fn names_sort_by_path_and_owners_do_not_mix() {
        sorted(&[path("a/x"), after_path("a/x"), path("a/x-y"), path("b/a")]);
        assert!(path("a/x").starts_with(&paths_of("a")));
        assert!(!path("ab/x").starts_with(&paths_of("a")));
    }

    #[test]
    fn marks_read_back() {
        assert_eq!(unfinished_repo(&unfinished(&repo_of(7))), Some(repo_of(7)));
        assert_eq!(unfinished_repo(b"\x16short"), None);
        assert_eq!(untold_repo(&untold(&repo_of(7))), Some(repo_of(7)));
        assert_eq!(untold_repo(b"\x18short"), None);
        let network = repo_of(1).root_network();
        let mark = network_repo(&network, &repo_of(2));
        assert_eq!(network_of(&mark), Some((network, repo_of(2))));
        assert_eq!(network_of(&network_repos(&network)), None);
    }

    /// Tags are stored on disks: a new kind of pair gets a new one, a removed kind keeps its own.
    #[test]
    fn every_kind_of_pair_has_its_own_tag() {
        let tip = ObjectId::Sha1([3; 20]);
        let network = repo_of(1).root_network();
        let keys = [
            version(),
            request(&request_of(1, 1, 1)),
            request_floor(),
            cluster(),
            node(NodeId::new(1)),
            placement(GroupId::new(1)),
            repo(&repo_of(1)),
            path("a/x"),
            path_generation("a/x"),
            unfinished(&repo_of(1)),
            shard_repo(&repo_of(1)),
            network_repo(&network, &repo_of(1)),
            reference(&repo_of(1), &name("refs/heads/a")),
            pack(&network, &PackId::new(tip)),
            former_tip(&repo_of(1), &tip),
            former_tip_age(1, &repo_of(1), &tip),
            prune_mark(&network),
            lost_tip(&network, &tip),
            pruned_at(&network),
            repo_limits(&repo_of(1)),
            shared(&network),
            former_path("a/x"),
            untold(&repo_of(1)),
            protections(&repo_of(1)),
            mirror(&repo_of(1), &MirrorId::from_bytes([1; 16])),
            push_certificate(&repo_of(1), LogIndex::new(1)),
            nonce_seed(),
            fork(&repo_of(1), &repo_of(2)),
            compact_request(1, &request_of(1, 1, 1)),
            request_generation(),
            time(),
            mirror_removal(&repo_of(1), &MirrorId::from_bytes([1; 16])),
            push_rules(&repo_of(1)),
        ];
        let tags = keys.map(|key| key[0]);
        let expected = [
            0x01, 0x02, 0x03, 0x10, 0x11, 0x12, 0x13, 0x14, 0x15, 0x16, 0x20, 0x21, 0x22, 0x23,
            0x24, 0x25, 0x30, 0x31, 0x32, 0x33, 0x34, 0x17, 0x18, 0x26, 0x28, 0x2c, 0x2d, 0x19,
            0x0d, 0x0e, 0x0f, 0x29, 0x35,
        ];
        assert_eq!(tags, expected);
    }
}
