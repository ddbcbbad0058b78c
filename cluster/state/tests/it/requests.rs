//! Requests are executed at most once.

use henge_types::limits::{REQUEST_RECORD_MS_MIN, REQUEST_RECORDS_EXPIRED_PER_APPLY};
use henge_types::{Incarnation, Refusal, Reply, RequestBinding, RequestId};

use crate::fixtures::*;

const MAIN: &str = "refs/heads/main";

fn again(shard: &mut Group, request: RequestBinding, reply: &Reply) {
    let before = shard.state.hash();
    // The command differs on purpose: only the digest counts.
    let outcome = shard.run_for(Some(request), drop_repo(1));
    assert_eq!(outcome.reply, *reply);
    assert_eq!((outcome.writes, outcome.effects), (vec![], vec![]));
    assert_eq!(shard.state.hash(), before);
}

#[test]
fn a_repeated_request_gets_the_recorded_answer() {
    let mut shard = Group::shard();
    shard.run(create(1));
    let request = binding(START_MS, 1);
    let push = refs(push(1, vec![to_create(MAIN, 1)]));
    let first = shard.run_for(Some(request.clone()), push.clone());
    assert_eq!(first.effects.len(), 1);
    let record = shard.view().request(&request.id).expect("it is recorded");
    assert_eq!(record.reply, first.reply);
    assert!(record.binds(&request));
    again(&mut shard, request.clone(), &first.reply);
    // Without the record the push would be refused now.
    assert_ne!(shard.reply(push), first.reply);
    shard.now_ms += REQUEST_RECORD_MS_MIN;
    again(&mut shard, request, &first.reply);
}

#[test]
fn refusals_are_recorded_too() {
    let mut shard = Group::shard();
    let request = binding(START_MS, 1);
    let push = refs(push(1, vec![to_create(MAIN, 1)]));
    let unknown = Reply::Refused(Refusal::NoSuchRepo { repo: repo_id(1) });
    let outcome = shard.run_for(Some(request.clone()), push);
    assert_eq!(outcome.reply, unknown);
    shard.run(create(1));
    again(&mut shard, request, &unknown);
}

#[test]
fn the_same_id_with_other_content_is_refused() {
    let mut shard = Group::shard();
    let request = binding(START_MS, 1);
    shard.run_for(Some(request.clone()), create(1));
    let mismatch = Reply::Refused(Refusal::RequestMismatch);
    let mut other_digest = request.clone();
    other_digest.digest = [0; 32];
    let mut other_principal = request.clone();
    other_principal.principal = "eve".to_owned();
    let mut other_repo = request.clone();
    other_repo.repo = None;
    for other in [other_digest, other_principal, other_repo] {
        again(&mut shard, other, &mismatch);
    }
    again(&mut shard, request, &Reply::Done);
}

#[test]
fn other_ids_are_other_requests() {
    let mut shard = Group::shard();
    let request = binding(START_MS, 1);
    shard.run_for(Some(request.clone()), create(1));
    let same_counter = RequestId {
        incarnation: Incarnation::from_bytes([2; 16]),
        ..request.id
    };
    for id in [
        binding(START_MS, 2).id,
        binding(START_MS + 1, 1).id,
        same_counter,
    ] {
        let other = RequestBinding {
            id,
            ..request.clone()
        };
        let outcome = shard.run_for(Some(other), create(1));
        assert_eq!(outcome.reply, Reply::Done);
        assert_eq!(outcome.writes.len(), 1);
    }
}

#[test]
fn a_request_older_than_its_record_may_be_is_not_executed() {
    let mut shard = Group::shard();
    let fresh = binding(START_MS - REQUEST_RECORD_MS_MIN, 1);
    assert_eq!(shard.run_for(Some(fresh), create(1)).reply, Reply::Done);
    let old = binding(START_MS - REQUEST_RECORD_MS_MIN - 1, 2);
    again(&mut shard, old, &Reply::UnknownOutcome);
    // The same with a record and without one.
    shard.now_ms += 1;
    let recorded = binding(START_MS - REQUEST_RECORD_MS_MIN, 1);
    again(&mut shard, recorded, &Reply::UnknownOutcome);
}

#[test]
fn old_records_leave_a_few_at_a_time() {
    let mut shard = Group::shard();
    let count = u64::try_from(REQUEST_RECORDS_EXPIRED_PER_APPLY).expect("few") + 3;
    for counter in 0..count {
        shard.run_for(Some(binding(START_MS + counter, counter)), create(1));
    }
    let kept = |shard: &Group| {
        let ids = (0..count).map(|counter| binding(START_MS + counter, counter).id);
        ids.filter(|id| shard.view().request(id).is_some()).count()
    };
    assert_eq!(kept(&shard), 11);
    shard.now_ms += REQUEST_RECORD_MS_MIN + 1;
    shard.run_for(Some(binding(shard.now_ms, 100)), create(1));
    assert_eq!(kept(&shard), 10, "only the first is old");
    shard.now_ms += count;
    shard.run_for(Some(binding(shard.now_ms, 101)), create(1));
    assert_eq!(kept(&shard), 2);
    shard.run_for(Some(binding(shard.now_ms, 102)), create(1));
    assert_eq!(kept(&shard), 0);
}

/// A leader with a fast clock lets records expire; the next leader's clock is right again. The
/// request with the removed record must not be executed a second time.
#[test]
fn a_clock_that_steps_back_does_not_revive_a_forgotten_request() {
    let mut shard = Group::shard();
    let request = binding(START_MS, 1);
    shard.run_for(Some(request.clone()), create(1));
    shard.now_ms += REQUEST_RECORD_MS_MIN + 1;
    shard.run_for(Some(binding(shard.now_ms, 2)), create(1));
    assert!(shard.view().request(&request.id).is_none());
    shard.now_ms = START_MS + 1;
    again(&mut shard, request, &Reply::UnknownOutcome);
    // New requests are executed.
    let new = shard.run_for(Some(binding(START_MS + 1, 3)), create(1));
    assert_eq!(new.reply, Reply::Done);
}

#[test]
fn meta_knows_requests_too() {
    let mut meta = Group::meta();
    let request = binding(START_MS, 1);
    let first = meta.run_for(Some(request.clone()), reserve(1, "a/x"));
    meta.run(delete(1));
    let second = meta.run_for(Some(request.clone()), reserve(1, "a/x"));
    assert_eq!(second.reply, first.reply);
    assert_eq!(second.writes, vec![]);
    assert!(meta.catalogue().request(&request.id).is_some());
}
