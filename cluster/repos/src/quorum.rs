//! Counts answers against the voter sets in force.

use std::collections::BTreeSet;

use henge_types::NodeId;

/// Whether the nodes in `durable` are a majority of every voter set. During a change of membership
/// there are two sets, and a majority of both is needed; without any set there is no quorum.
pub(crate) fn is_quorum(voters: &[BTreeSet<NodeId>], durable: &BTreeSet<NodeId>) -> bool {
    !voters.is_empty()
        && voters
            .iter()
            .all(|set| set.intersection(durable).count() > set.len() / 2)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(nodes: &[u64]) -> BTreeSet<NodeId> {
        nodes.iter().copied().map(NodeId::new).collect()
    }

    #[test]
    fn a_majority_of_one_set_is_more_than_half() {
        let three = [set(&[1, 2, 3])];
        assert!(!is_quorum(&three, &set(&[1])));
        assert!(is_quorum(&three, &set(&[1, 3])));
        let four = [set(&[1, 2, 3, 4])];
        assert!(!is_quorum(&four, &set(&[1, 2])));
        assert!(is_quorum(&four, &set(&[1, 2, 4])));
        assert!(is_quorum(&[set(&[1])], &set(&[1])));
    }

    #[test]
    fn answers_of_nodes_that_do_not_vote_count_for_nothing() {
        assert!(!is_quorum(&[set(&[1, 2, 3])], &set(&[1, 4, 5, 6])));
    }

    #[test]
    fn a_joint_membership_needs_both_halves() {
        let joint = [set(&[1, 2, 3]), set(&[3, 4, 5])];
        assert!(!is_quorum(&joint, &set(&[1, 2, 3])));
        assert!(!is_quorum(&joint, &set(&[3, 4, 5])));
        assert!(is_quorum(&joint, &set(&[1, 3, 4])));
        assert!(is_quorum(&joint, &set(&[2, 3, 5])));
    }

    #[test]
    fn no_voters_are_no_quorum() {
        assert!(!is_quorum(&[], &set(&[1])));
        assert!(!is_quorum(&[set(&[])], &set(&[1])));
    }
}
