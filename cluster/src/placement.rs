//! The placement of groups on nodes: a consistent-hash ring proposes it, the meta group's table
//! decides it.
//!
//! The ring hashes fixed byte strings with SHA-256, so its proposals never depend on a Rust release
//! or a machine. It is used when a cluster is formed, never in the path of a request.

use std::hash::{BuildHasher, Hash, Hasher};

use hashring::HashRing;
use henge_types::{GroupId, NodeId, ShardPlacement};
use sha2::{Digest, Sha256};

/// Points of each node on the ring: enough that nodes differ by a few percent.
const POINTS_PER_NODE: u32 = 128;

/// The first eight bytes of the SHA-256 of all written bytes.
#[derive(Debug, Clone, Default)]
struct Sha256Hasher(Sha256);

impl Hasher for Sha256Hasher {
    fn write(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    fn finish(&self) -> u64 {
        let digest = self.0.clone().finalize();
        let head = digest
            .first_chunk::<8>()
            .expect("invariant: a SHA-256 has 32 bytes");
        u64::from_be_bytes(*head)
    }
}

#[derive(Debug, Clone, Default)]
struct Sha256Build;

impl BuildHasher for Sha256Build {
    type Hasher = Sha256Hasher;

    fn build_hasher(&self) -> Sha256Hasher {
        Sha256Hasher::default()
    }
}

/// A point of a node on the ring.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Point {
    node: NodeId,
    number: u32,
}

impl Hash for Point {
    /// `n`, node and number, big-endian: never the derived form, which may change with the
    /// compiler.
    fn hash<H: Hasher>(&self, state: &mut H) {
        let mut bytes = [b'n'; 13];
        bytes[1..9].copy_from_slice(&self.node.get().to_be_bytes());
        bytes[9..].copy_from_slice(&self.number.to_be_bytes());
        state.write(&bytes);
    }
}

struct GroupKey(GroupId);

impl Hash for GroupKey {
    /// `g` and the group's number, big-endian.
    fn hash<H: Hasher>(&self, state: &mut H) {
        let mut bytes = [b'g'; 5];
        bytes[1..].copy_from_slice(&self.0.get().to_be_bytes());
        state.write(&bytes);
    }
}

/// Proposes the replicas of groups 1..=`shards` over `nodes`, `replication` each (all nodes when
/// there are fewer). The first replicas are then balanced over the nodes: the first one is the
/// preferred leader.
pub fn propose(nodes: &[NodeId], shards: u32, replication: usize) -> Vec<ShardPlacement> {
    let mut ring: HashRing<Point, Sha256Build> = HashRing::with_hasher(Sha256Build);
    let points = nodes.iter().flat_map(|node| {
        (0..POINTS_PER_NODE).map(|number| Point {
            node: *node,
            number,
        })
    });
    ring.batch_add(points.collect());
    let wanted = replication.min(nodes.len());
    let mut first_of = vec![0_u32; nodes.len()];
    (1..=shards)
        .map(|number| {
            let group = GroupId::new(number);
            let mut replicas = walk(&ring, group, wanted);
            prefer_least_loaded(&mut replicas, nodes, &mut first_of);
            ShardPlacement {
                group,
                replicas,
                epoch: 0,
            }
        })
        .collect()
}

/// The first `wanted` distinct nodes clockwise from the group's point.
fn walk(ring: &HashRing<Point, Sha256Build>, group: GroupId, wanted: usize) -> Vec<NodeId> {
    let points = ring
        .get_with_replicas(&GroupKey(group), ring.len().saturating_sub(1))
        .unwrap_or_default();
    let mut replicas = Vec::with_capacity(wanted);
    for point in points {
        if replicas.len() == wanted {
            break;
        }
        if !replicas.contains(&point.node) {
            replicas.push(point.node);
        }
    }
    replicas
}

fn prefer_least_loaded(replicas: &mut [NodeId], nodes: &[NodeId], first_of: &mut [u32]) {
    let load = |node: &NodeId, first_of: &[u32]| {
        let place = nodes.iter().position(|candidate| candidate == node);
        place
            .and_then(|place| first_of.get(place).copied())
            .unwrap_or(u32::MAX)
    };
    let lightest = replicas
        .iter()
        .enumerate()
        .min_by_key(|(_, node)| load(node, first_of))
        .map(|(place, _)| place);
    if let Some(place) = lightest {
        replicas.swap(0, place);
    }
    let chosen = replicas
        .first()
        .and_then(|first| nodes.iter().position(|node| node == first));
    if let Some(count) = chosen.and_then(|place| first_of.get_mut(place)) {
        *count += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn nodes(count: u64) -> Vec<NodeId> {
        (1..=count).map(NodeId::new).collect()
    }

    fn text(placements: &[ShardPlacement]) -> String {
        let line = |placement: &ShardPlacement| {
            let replicas: Vec<String> =
                placement.replicas.iter().map(ToString::to_string).collect();
            format!("{}:{}", placement.group, replicas.join(","))
        };
        placements.iter().map(line).collect::<Vec<_>>().join(" ")
    }

    /// Golden: a change would make two releases propose different placements for the same cluster.
    #[test]
    fn proposals_are_the_same_for_ever() {
        assert_eq!(text(&propose(&nodes(5), 8, 3)), GOLDEN_FIVE);
    }

    const GOLDEN_FIVE: &str = "1:2,3,4 2:5,3,1 3:3,4,1 4:4,1,3 5:5,2,4 6:1,5,2 7:2,1,4 8:1,5,2";

    #[test]
    fn every_group_gets_distinct_replicas_and_first_ones_are_spread() {
        let placements = propose(&nodes(5), 64, 3);
        let mut first = [0_usize; 6];
        for placement in &placements {
            let mut replicas = placement.replicas.clone();
            first[usize::try_from(replicas[0].get()).expect("small")] += 1;
            replicas.sort_unstable();
            replicas.dedup();
            assert_eq!(replicas.len(), 3, "{placement:?}");
        }
        assert!(
            first[1..].iter().all(|count| (8..=18).contains(count)),
            "{first:?}"
        );
    }

    #[test]
    fn fewer_nodes_than_replicas_hold_everything() {
        let placements = propose(&nodes(2), 4, 3);
        assert!(
            placements
                .iter()
                .all(|placement| placement.replicas.len() == 2)
        );
    }
}
