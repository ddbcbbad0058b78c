//! A table of situations: the status and each node's `/readyz`, from the same facts.

use crate::conditions::{Condition, ConditionKind};
use crate::health::{Verdict, judge, lag_subject, readiness};
use crate::ids::{ClusterId, GroupId, Incarnation, NodeId};
use crate::records::ShardPlacement;
use crate::status::{ClusterStatus, NodeReport, NodeStatus, ReplicaStatus, Role};

/// Three nodes, two shards, all well: node 1 leads meta, node 2 shard 1, node 3 shard 2.
fn well() -> ClusterStatus {
    let nodes = || (1..=3).map(NodeId::new);
    let placement = |group| ShardPlacement {
        group: GroupId::new(group),
        replicas: nodes().collect(),
        epoch: 0,
    };
    ClusterStatus {
        cluster_id: ClusterId::from_bytes([1; 16]),
        asked: NodeId::new(1),
        healthy: true,
        shards: 2,
        nodes: nodes().map(node).collect(),
        placements: (1..=2).map(placement).collect(),
    }
}

fn node(node: NodeId) -> NodeStatus {
    let replica = |group: u32| {
        let leader = NodeId::new(u64::from(group) + 1);
        ReplicaStatus {
            group: GroupId::new(group),
            role: if leader == node {
                Role::Leader
            } else {
                Role::Follower
            },
            term: 7,
            leader: Some(leader),
            last_index: 12,
            committed_index: 11,
            applied_index: 11,
            snapshot_index: 0,
            state_hash: "aa".to_owned(),
            parked: 0,
            request_generation: None,
            voters: (1..=3).map(NodeId::new).collect(),
        }
    };
    NodeStatus {
        node,
        incarnation: Incarnation::from_bytes([1; 16]),
        http: format!("h{node}"),
        rpc: format!("r{node}"),
        report: Some(NodeReport {
            version: "1".to_owned(),
            level: 3,
            uptime_ms: 5,
            low_space: false,
            clock: None,
            not_ready: None,
            starting: false,
            now_ms: 100_000,
            replicas: (0..=2).map(replica).collect(),
            conditions: Vec::new(),
            conditions_left_out: 0,
        }),
    }
}

fn report(status: &mut ClusterStatus, node: usize) -> &mut NodeReport {
    let node = status.nodes.get_mut(node - 1).expect("three nodes");
    node.report.as_mut().expect("it answers")
}

fn replica(status: &mut ClusterStatus, node: usize, group: usize) -> &mut ReplicaStatus {
    let replicas = &mut report(status, node).replicas;
    replicas.get_mut(group).expect("three groups")
}

fn raise(status: &mut ClusterStatus, node: usize, kind: ConditionKind, subject: &str) {
    report(status, node).conditions.push(Condition {
        kind,
        subject: subject.to_owned(),
        since_ms: 40_000,
        detail: "detail".to_owned(),
    });
}

struct Case {
    name: &'static str,
    change: fn(&mut ClusterStatus),
    verdict: Verdict,
    /// Text of one problem's sentence; empty where there is no problem.
    sentence: &'static str,
    /// Which of the three nodes are ready.
    ready: [bool; 3],
}

const ALL: [bool; 3] = [true; 3];
const NONE: [bool; 3] = [false; 3];

const fn case(
    name: &'static str,
    change: fn(&mut ClusterStatus),
    verdict: Verdict,
    sentence: &'static str,
    ready: [bool; 3],
) -> Case {
    Case {
        name,
        change,
        verdict,
        sentence,
        ready,
    }
}

fn leaders() -> Vec<Case> {
    vec![
        case("well", |_| {}, Verdict::Ok, "", ALL),
        // The last node of three still called itself leader: the status of a cluster without any
        // write was `degraded: every group is served`.
        case(
            "two of three dead, the third calls itself leader of all",
            |s| {
                for group in 0..3 {
                    let replica = replica(s, 1, group);
                    (replica.role, replica.leader) = (Role::Leader, Some(NodeId::new(1)));
                }
                for node in s.nodes.iter_mut().skip(1) {
                    node.report = None;
                }
            },
            Verdict::Failing,
            "meta, shards 1-2: not served: no quorum: 1 of 3 voters answer",
            NONE,
        ),
        case(
            "a leader's lease ran out",
            |s| replica(s, 2, 1).leader = None,
            Verdict::Failing,
            "shard 1: not served: the leader's lease ran out",
            NONE,
        ),
        case(
            "no leader",
            |s| replica(s, 2, 1).role = Role::Follower,
            Verdict::Failing,
            "shard 1: not served: no leader yet",
            NONE,
        ),
        case(
            "a node is dead",
            |s| {
                s.nodes.get_mut(2).expect("three").report = None;
                let next = replica(s, 1, 2);
                (next.role, next.leader, next.term) = (Role::Leader, Some(NodeId::new(1)), 8);
            },
            Verdict::Degraded,
            "node 3: does not answer",
            [true, true, false],
        ),
    ]
}

fn replicas() -> Vec<Case> {
    vec![
        // A shard did not run on a node: the status was ok, and fetches of that shard through that
        // node were 503.
        case(
            "a replica has stopped",
            |s| replica(s, 1, 2).role = Role::Stopped,
            Verdict::Degraded,
            "node 1, shard 2: the replica has stopped",
            [false, true, true],
        ),
        case(
            "a replica is missing",
            |s| report(s, 1).replicas.retain(|r| r.group.get() != 2),
            Verdict::Degraded,
            "node 1, shard 2: the replica is missing",
            [false, true, true],
        ),
        case(
            "a voter is only a learner",
            |s| replica(s, 1, 2).role = Role::Learner,
            Verdict::Degraded,
            "node 1, shard 2: the replica should vote and is a learner",
            ALL,
        ),
        // A replica never caught up: only its leader has the figure of its lag.
        case(
            "a replica lags, as its leader reports",
            |s| {
                let subject = lag_subject(GroupId::new(1), NodeId::new(3));
                raise(s, 2, ConditionKind::ReplicaLags, &subject);
            },
            Verdict::Degraded,
            "node 3, shard 1: the replica lags and does not catch up: detail",
            [true, true, false],
        ),
    ]
}

fn conditions() -> Vec<Case> {
    vec![
        case(
            "states differ",
            |s| replica(s, 2, 1).state_hash = "bb".to_owned(),
            Verdict::Failing,
            "shard 1: replicas at the same entry differ",
            ALL,
        ),
        case(
            "low space",
            |s| report(s, 2).low_space = true,
            Verdict::Degraded,
            "node 2: free disk space is low",
            ALL,
        ),
        case(
            "a lost pack",
            |s| raise(s, 2, ConditionKind::PackLost, "network x"),
            Verdict::Failing,
            "node 2, network x: a pack is lost: detail",
            ALL,
        ),
        // The advice does not concern the two nodes that report it.
        case(
            "an old copy that others refuse",
            |s| {
                raise(s, 1, ConditionKind::OldCopy, "node 3");
                raise(s, 2, ConditionKind::OldCopy, "node 3");
            },
            Verdict::Degraded,
            "node 3: an old copy of a data directory: detail",
            ALL,
        ),
        case(
            "a log that went back, as its leader saw",
            |s| raise(s, 1, ConditionKind::ReplicaLogWentBack, "node 2"),
            Verdict::Degraded,
            "node 2: the replica's log went back: detail",
            ALL,
        ),
        case(
            "a node that says that it is not ready",
            |s| report(s, 2).not_ready = Some("starting: replaying".to_owned()),
            Verdict::Degraded,
            "node 2: not ready: starting: replaying",
            ALL,
        ),
        case(
            "more conditions than are listed",
            |s| report(s, 2).conditions_left_out = 7,
            Verdict::Degraded,
            "node 2: something else is wrong: at least 7",
            ALL,
        ),
    ]
}

#[test]
fn status_and_readiness_follow_from_the_same_facts() {
    for case in leaders().into_iter().chain(replicas()).chain(conditions()) {
        let mut status = well();
        (case.change)(&mut status);
        let health = judge(&status);
        let sentences: Vec<String> = health.problems.iter().map(|p| p.sentence()).collect();
        assert_eq!(health.verdict, case.verdict, "{}: {sentences:?}", case.name);
        if case.sentence.is_empty() {
            assert_eq!(sentences, Vec::<String>::new(), "{}", case.name);
        } else {
            let said = sentences.iter().any(|text| text.contains(case.sentence));
            assert!(said, "{}: {sentences:?}", case.name);
        }
        for (place, ready) in case.ready.into_iter().enumerate() {
            let node = NodeId::new(u64::try_from(place).expect("small") + 1);
            let answer = readiness(&status, node);
            assert_eq!(
                answer.is_ok(),
                ready,
                "{}, node {node}: {answer:?}",
                case.name
            );
            // Status and readiness agree: neither reports health while the other does not.
            assert!(
                answer.is_ok() || health.verdict != Verdict::Ok,
                "{}: node {node} is not ready and the status is ok",
                case.name
            );
        }
    }
}

#[test]
fn conditions_give_their_time_and_the_gravest_come_first() {
    let mut status = well();
    report(&mut status, 3).low_space = true;
    raise(&mut status, 3, ConditionKind::LowSpace, "/data");
    raise(&mut status, 1, ConditionKind::ClockSkew, "clock");
    raise(&mut status, 1, ConditionKind::StatesDiffer, "shard 2");
    let problems = judge(&status).problems;
    let kinds: Vec<ConditionKind> = problems.iter().map(|problem| problem.kind).collect();
    assert_eq!(
        kinds,
        [
            ConditionKind::StatesDiffer,
            ConditionKind::LowSpace,
            ConditionKind::ClockSkew
        ]
    );
    assert!(problems.iter().all(|p| p.for_ms == Some(60_000)));
    assert!(problems.iter().all(|p| p.since_ms == Some(40_000)));
    let low = problems.get(1).expect("three");
    assert_eq!(
        low.sentence(),
        "node 3, /data: free disk space is low: detail"
    );
}

/// A condition that a member reports about another one was shown as one of the reporting node.
#[test]
fn what_is_about_another_node_is_shown_there() {
    let mut status = well();
    raise(&mut status, 1, ConditionKind::OldCopy, "node 3");
    raise(&mut status, 2, ConditionKind::OldCopy, "node 3");
    raise(&mut status, 2, ConditionKind::ReplicaLogWentBack, "node 1");
    let problems = judge(&status).problems;
    let mut sentences: Vec<_> = problems.iter().map(|p| p.sentence()).collect();
    sentences.sort_unstable();
    assert_eq!(
        sentences,
        [
            "node 1: the replica's log went back: detail",
            "node 3: an old copy of a data directory: detail"
        ]
    );
}

/// A report without placements and conditions is judged by its other fields.
#[test]
fn reports_of_older_releases_are_judged() {
    let mut status = well();
    status.placements.clear();
    assert_eq!(judge(&status).verdict, Verdict::Ok);
}
