//! A known request, sent to the leader as by another node.

use std::time::Duration;

use bytes::Bytes;
use henge_types::{Generation, GroupId, NodeId, RepoId, RepoPath, RequestId};
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::ring::{Node, Ring};

/// The head of a push between nodes, field by field: nodes of two releases must agree on it.
#[derive(Serialize)]
struct Head {
    group: GroupId,
    repo: RepoId,
    generation: Generation,
    request: RequestId,
    principal: String,
    digest: [u8; 32],
    bytes: u64,
}

/// The answers, in the order of their wire numbers.
#[derive(Debug, PartialEq, Eq, Deserialize)]
enum Answer {
    Working,
    Report(Bytes),
    NotLeader(Option<NodeId>),
    Again(String),
    WrongGeneration,
    Refused(henge_types::ErrorCode, String),
    InDoubt(String),
}

async fn ask(node: &Node, leader: usize, head: &Head, push: &[u8]) -> Answer {
    let leader = NodeId::new(leader as u64);
    let head = postcard::to_stdvec(head).unwrap().into();
    let opened = node
        .cluster
        .bulk()
        .open(leader, "push", head, Duration::from_secs(10))
        .await;
    let mut stream = opened.unwrap();
    // The leader need not read a push whose answer it has: writing may then fail, and the answer is
    // there.
    if stream.write_all(push).await.is_ok() {
        stream.shutdown().await.ok();
    }
    loop {
        let length = stream.read_u32().await.unwrap();
        let mut frame = vec![0; usize::try_from(length).unwrap()];
        stream.read_exact(&mut frame).await.unwrap();
        let answer = postcard::from_bytes(&frame).unwrap();
        if answer != Answer::Working {
            return answer;
        }
    }
}

fn pkt(line: &str) -> Vec<u8> {
    format!("{:04x}{line}", line.len() + 4).into_bytes()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_known_request_gets_its_answer_again_and_a_borrowed_one_does_not() {
    let ring = Ring::start().await;
    let work = ring.work_dir("work");
    let tip = work.commit("a", b"a\n");
    work.git(&["push", "-q", &ring.url(1, "admin/replay"), "main"])
        .await;
    let path: RepoPath = "admin/replay".parse().unwrap();
    let group = ring.shard("admin/replay").await;
    let leader = ring.leader(group).await;
    let node = ring.node(1 + leader % 3);
    let record = node.repos.get(&path).await.unwrap();

    // Deletes the branch: applied once it succeeds, applied twice it must fail.
    let zero = "0".repeat(40);
    let mut push = pkt(&format!("{tip} {zero} refs/heads/main\0report-status"));
    push.extend_from_slice(b"0000");
    let mut head = Head {
        group,
        repo: record.repo,
        generation: record.generation,
        request: node.cluster.next_request_id(group),
        principal: "admin".to_owned(),
        digest: [1; 32],
        bytes: push.len() as u64,
    };
    let first = ask(node, leader, &head, &push).await;
    let done = Bytes::from_static(b"000eunpack ok\n0017ok refs/heads/main\n0000");
    assert_eq!(first, Answer::Report(done));
    assert_eq!(ask(node, leader, &head, &push).await, first);

    head.digest = [2; 32];
    let borrowed = ask(node, leader, &head, &push).await;
    assert!(
        matches!(
            borrowed,
            Answer::Refused(henge_types::ErrorCode::Conflict, _)
        ),
        "{borrowed:?}"
    );

    head.request = node.cluster.next_request_id(group);
    let new = ask(node, leader, &head, &push).await;
    let Answer::Report(report) = new else {
        panic!("a report: {new:?}")
    };
    assert!(report.windows(2).any(|two| two == b"ng"), "{report:?}");

    // Older than the shard's generation: the resolved name may belong to another repository by now.
    head.generation = Generation::new(0);
    head.request = node.cluster.next_request_id(group);
    assert_eq!(
        ask(node, leader, &head, &push).await,
        Answer::WrongGeneration
    );
}
