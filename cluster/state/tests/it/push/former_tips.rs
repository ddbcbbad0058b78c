//! Values that refs lost are kept for a while.

use henge_types::limits::{FORMER_TIP_MS, FORMER_TIPS_EXPIRED_PER_APPLY};
use henge_types::{ObjectId, PreviousValue, RefUpdate, RepoId};

use super::{MAIN, shard_with};
use crate::fixtures::*;

fn was_tip(shard: &Group, tip: u8, now_ms: u64) -> bool {
    shard
        .view()
        .was_tip_recently(&repo_id(1), &oid(tip), now_ms)
}

#[test]
fn values_that_refs_lose_are_former_tips_for_a_while() {
    let mut shard = shard_with(&[(MAIN, 1), ("refs/heads/b", 2)]);
    let updates = vec![to_move(MAIN, 1, 3), to_delete("refs/heads/b", 2)];
    shard.run(refs(push(1, updates)));
    for lost in [1, 2] {
        assert!(was_tip(&shard, lost, START_MS));
        assert!(was_tip(&shard, lost, START_MS + FORMER_TIP_MS));
        assert!(!was_tip(&shard, lost, START_MS + FORMER_TIP_MS + 1));
        // A reader's clock may be behind the proposer's.
        assert!(was_tip(&shard, lost, START_MS - 1));
    }
    assert!(!was_tip(&shard, 3, START_MS));
    let elsewhere = RepoId::from_bytes([9; 16]);
    assert!(!shard.view().was_tip_recently(&elsewhere, &oid(1), START_MS));
}

#[test]
fn a_tip_lost_again_counts_from_the_later_time() {
    let mut shard = shard_with(&[(MAIN, 1)]);
    shard.run(refs(push(1, vec![to_move(MAIN, 1, 2)])));
    let pairs = shard.state.len();
    shard.now_ms += 1_000;
    shard.run(refs(push(1, vec![to_move(MAIN, 2, 1)])));
    shard.run(refs(push(1, vec![to_move(MAIN, 1, 2)])));
    assert!(was_tip(&shard, 1, START_MS + 1_000 + FORMER_TIP_MS));
    // Two more pairs for the other tip, and no old pair of the first one.
    assert_eq!(shard.state.len(), pairs + 2);
    // A clock that steps back does not make it older.
    shard.now_ms -= 500;
    shard.run(refs(push(1, vec![to_move(MAIN, 2, 1)])));
    shard.run(refs(push(1, vec![to_move(MAIN, 1, 2)])));
    assert!(was_tip(&shard, 1, START_MS + 1_000 + FORMER_TIP_MS));
    assert_eq!(shard.state.len(), pairs + 2);
}

#[test]
fn old_former_tips_leave_a_few_at_a_time() {
    let count = FORMER_TIPS_EXPIRED_PER_APPLY + 10;
    let tip = |number: usize| {
        let mut bytes = [1; 20];
        bytes[0] = u8::try_from(number).expect("few");
        ObjectId::Sha1(bytes)
    };
    let updates = |expected: fn(ObjectId) -> PreviousValue,
                   new: fn(ObjectId) -> Option<ObjectId>| {
        (0..count)
            .map(|number| RefUpdate {
                name: name(&format!("refs/heads/n{number}")),
                expected: expected(tip(number)),
                new: new(tip(number)),
            })
            .collect()
    };
    let mut shard = shard_with(&[(MAIN, 1)]);
    let empty = shard.state.len();
    shard.run(refs(push(
        1,
        updates(|_| PreviousValue::MustNotExist, Some),
    )));
    shard.run(refs(push(
        1,
        updates(PreviousValue::MustExistAndMatch, |_| None),
    )));
    assert_eq!(shard.state.len(), empty + 2 * count);
    shard.now_ms += FORMER_TIP_MS;
    shard.run(refs(push(1, vec![to_move(MAIN, 1, 1)])));
    assert_eq!(shard.state.len(), empty + 2 * count, "still wanted");
    shard.now_ms += 1;
    shard.run(refs(push(1, vec![to_move(MAIN, 1, 1)])));
    assert_eq!(shard.state.len(), empty + 2 * 10);
    shard.run(refs(push(1, vec![to_move(MAIN, 1, 1)])));
    assert_eq!(shard.state.len(), empty);
}

#[test]
fn a_tip_that_expires_and_is_lost_in_one_push_is_kept() {
    let mut shard = shard_with(&[(MAIN, 1)]);
    shard.run(refs(push(1, vec![to_move(MAIN, 1, 2)])));
    shard.run(refs(push(1, vec![to_move(MAIN, 2, 1)])));
    shard.now_ms += FORMER_TIP_MS + 1;
    shard.run(refs(push(1, vec![to_move(MAIN, 1, 2)])));
    assert!(was_tip(&shard, 1, shard.now_ms));
    assert!(!was_tip(&shard, 2, shard.now_ms));
}
