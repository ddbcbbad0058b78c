//! The output of `henge cluster status` and `henge cluster shards`.

use axum::http::StatusCode;
use axum::routing::get;
use axum::{Json, Router};
use henge_cli::Exit;
use henge_types::status::ClusterStatus;
use henge_types::{Condition, ConditionKind};

use crate::fixtures;
use crate::run::{Done, Server, henge};

async fn against(status: ClusterStatus, args: &[&str]) -> Done {
    let route = get(move || async move { Json(status) });
    let server = Server::start(Router::new().route("/api/henge/v1/cluster", route)).await;
    henge(&server.url, args).await
}

#[tokio::test]
async fn status_of_a_cluster_that_is_well() {
    let done = against(fixtures::well(), &["cluster", "status", "--check"]).await;
    assert_eq!((done.exit, done.err.as_str()), (Exit::Ok, ""));
    assert_eq!(
        done.out,
        "\
cluster  c1c1c1c1c1c1c1c1c1c1c1c1c1c1c1c1
asked    node 2
shards   2
health   ok

NODE  HTTP            VERSION  UPTIME  ROLES                         TERM  LAST  APPLIED  LAG  HEALTH
1     127.0.0.1:7401  0.1.0    1m1s    meta leader, leads 1 group    7     12    11       0    ok
2     127.0.0.1:7402  0.1.0    2m2s    meta follower, leads 1 group  7     12    11       0    ok
3     127.0.0.1:7403  0.1.0    3m3s    meta follower, leads 1 group  7     12    11       0    ok
"
    );
}

#[tokio::test]
async fn status_without_a_quorum_says_what_is_wrong() {
    let done = against(fixtures::one_left(), &["cluster", "status"]).await;
    assert_eq!(done.exit, Exit::Ok, "somebody answered");
    assert_eq!(
        done.out,
        "\
cluster  c1c1c1c1c1c1c1c1c1c1c1c1c1c1c1c1
asked    node 2
shards   2
health   failing

NODE  HTTP            VERSION  UPTIME  ROLES                           TERM  LAST  APPLIED  LAG  HEALTH
1     127.0.0.1:7401  -        -       -                               -     -     -        -    no answer
2     127.0.0.1:7402  0.1.0    2m2s    meta candidate, leads 0 groups  9     12    11       0    ok
3     127.0.0.1:7403  -        -       -                               -     -     -        -    no answer

problem: meta, shards 1-2: not served: no quorum: 1 of 3 voters answer
         bring nodes back until a majority of the voters answers
problem: node 1: does not answer: 127.0.0.1:7401
         start the node, and look at the network between the nodes
problem: node 3: does not answer: 127.0.0.1:7403
         start the node, and look at the network between the nodes
"
    );
    let done = against(fixtures::one_left(), &["cluster", "status", "--check"]).await;
    assert_eq!(done.exit, Exit::Unavailable);
}

#[tokio::test]
async fn a_dead_node_degrades_and_a_deposed_leader_does_not_count() {
    let done = against(fixtures::one_dead(), &["cluster", "status"]).await;
    assert!(
        done.out
            .contains("health   degraded: every group is served\n")
    );
    assert!(
        done.out.contains("meta leader, leads 2 groups"),
        "{}",
        done.out
    );
    assert!(
        done.out
            .contains("problem: node 3: does not answer: 127.0.0.1:7403\n")
    );
    let done = against(fixtures::one_dead(), &["cluster", "status", "--check"]).await;
    assert_eq!(done.exit, Exit::Degraded, "scripts tell it from failing");

    let mut status = fixtures::well();
    let first = status.nodes.first_mut().expect("three nodes");
    for replica in &mut first.report.as_mut().expect("it answers").replicas {
        replica.role = henge_types::status::Role::Follower;
        replica.term = 8;
    }
    let done = against(status, &["cluster", "status"]).await;
    assert!(
        done.out
            .contains("problem: meta, shards 1-2: not served: no leader yet\n"),
        "{}",
        done.out
    );
}

#[tokio::test]
async fn status_in_json_is_the_nodes_answer_and_the_verdict() {
    let status = fixtures::troubled();
    let done = against(status.clone(), &["cluster", "--output", "json", "status"]).await;
    let value: serde_json::Value = serde_json::from_str(&done.out).expect("JSON");
    assert_eq!(value["health"], "failing");
    assert_eq!(
        value["problems"],
        serde_json::json!([
            "meta: replicas at the same entry differ in their state",
            "node 3: packs are still being fetched: 2 repositories",
            "node 3: free disk space is low",
        ])
    );
    assert_eq!(value["findings"][1]["kind"], "packs_missing");
    assert_eq!(value["findings"][1]["node"], 3);
    let back: ClusterStatus = serde_json::from_value(value).expect("a status");
    assert_eq!(back, status);
}

/// Each line has a begin and an advice: a status that only names a fault sends its reader to the
/// logs of every node.
#[tokio::test]
async fn a_condition_shows_its_time_and_what_to_do() {
    let mut status = fixtures::well();
    let report = status
        .nodes
        .last_mut()
        .and_then(|node| node.report.as_mut());
    report.expect("it answers").conditions = vec![Condition {
        kind: ConditionKind::ClockSkew,
        subject: "clock".to_owned(),
        since_ms: 1_000_000 - 130_000,
        detail: "1 d ahead".to_owned(),
    }];
    let done = against(status, &["cluster", "status", "--check"]).await;
    assert_eq!(done.exit, Exit::Degraded);
    assert!(
        done.out.ends_with(
            "\
problem: node 3, clock: the clock is wrong: 1 d ahead
         for 2m10s; set the clock, and keep it set with NTP
"
        ),
        "{}",
        done.out
    );
}

#[tokio::test]
async fn shards_with_their_replicas() {
    let done = against(fixtures::troubled(), &["cluster", "shards"]).await;
    assert_eq!(
        done.out,
        "\
GROUP   LEADER  TERM  VOTERS  LAST  APPLIED         LAG  STATE
0 meta  1       7     1,2,3   12    1:11 2:11 3:11  0    DIFFER
1       2       7     1,2,3   12    1:11 2:11 3:4   7    equal where comparable
2       3       7     1,2,3   12    1:11 2:11 3:11  0    equal
"
    );
    let done = against(fixtures::one_left(), &["cluster", "shards"]).await;
    assert!(
        done.out
            .contains("1       none    9     1,2,3   12    1:? 2:11 3:?  0    ?\n"),
        "{}",
        done.out
    );
    let done = against(fixtures::well(), &["cluster", "shards", "--output=json"]).await;
    let value: serde_json::Value = serde_json::from_str(&done.out).expect("JSON");
    assert_eq!(value[2]["leader"], 3);
    assert_eq!(value[2]["state"], "equal");
    assert_eq!(value[2]["replicas"][0]["role"], "follower");
}

#[tokio::test]
async fn dead_addresses_are_passed_over_and_all_dead_ends_with_six() {
    let dead = "http://127.0.0.1:1";
    let route = get(|| async { Json(fixtures::well()) });
    let server = Server::start(Router::new().route("/api/henge/v1/cluster", route)).await;
    let both = format!("{dead},{}", server.url);
    assert_eq!(henge(&both, &["cluster", "status"]).await.exit, Exit::Ok);

    let done = henge(dead, &["cluster", "status"]).await;
    assert_eq!(done.exit, Exit::Unavailable);
    assert!(
        done.err.starts_with(
            "henge: cannot get the cluster's status: no node can be reached: http://127.0.0.1:1: "
        ),
        "{}",
        done.err
    );
    assert!(
        done.err.ends_with("are these its addresses?\n"),
        "{}",
        done.err
    );
}

#[tokio::test]
async fn a_wrong_token_ends_with_five_and_says_where_to_put_one() {
    let route = get(|| async {
        let body = r#"{"message":"the token is wrong","code":"unauthenticated"}"#;
        (StatusCode::UNAUTHORIZED, body)
    });
    let server = Server::start(Router::new().route("/api/henge/v1/cluster", route)).await;
    let done = henge(&server.url, &["cluster", "status"]).await;
    assert_eq!(done.exit, Exit::Denied);
    assert_eq!(
        done.err,
        "henge: cannot get the cluster's status: the token is wrong\n\
         henge: pass --token or --token-file, or set HENGE_TOKEN\n"
    );
}
