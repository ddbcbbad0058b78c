//! The output of `henge debug tasks`.

use std::sync::Arc;

use axum::routing::get;
use axum::{Json, Router};
use henge_cli::Exit;
use henge_types::tasks::{LeaderTaskReport, LeaderTaskState, NodeTasks};
use henge_types::{GroupId, NodeId};

use crate::fixtures;
use crate::run::{Done, Server, henge};

fn task(name: &str, group: u32, state: LeaderTaskState, state_ms: u64) -> LeaderTaskReport {
    LeaderTaskReport {
        name: name.to_owned(),
        group: GroupId::new(group),
        term: 7,
        steps: 3,
        state,
        state_ms,
    }
}

fn waiting(within_ms: Option<u64>, for_entry: bool) -> LeaderTaskState {
    LeaderTaskState::Waiting {
        within_ms,
        for_entry,
    }
}

/// A cluster in which one server is every node except node 3, which does not answer.
async fn against(args: &[&str]) -> Done {
    let tasks = NodeTasks {
        node: NodeId::new(1),
        leader_tasks: vec![
            task("catalogue reconciler", 0, waiting(Some(1000), true), 300),
            task("compaction", 2, LeaderTaskState::Working, 61_000),
            task("mirrors", 2, waiting(None, true), 0),
            task("prune schedule", 2, waiting(Some(1000), false), 20),
            task("release levels", 2, waiting(None, false), 7_200_000),
        ],
    };
    let status = Arc::new(std::sync::Mutex::new(fixtures::well()));
    let served = Arc::clone(&status);
    let cluster = get(move || async move { Json(served.lock().expect("not poisoned").clone()) });
    let router = Router::new().route("/api/henge/v1/cluster", cluster).route(
        "/api/henge/v1/node/tasks",
        get(move || async move { Json(tasks) }),
    );
    let server = Server::start(router).await;
    {
        let mut status = status.lock().expect("not poisoned");
        status.nodes.remove(1);
        let address = server.url.trim_start_matches("http://");
        status.nodes[0].http = address.to_owned();
        // No server listens there.
        status.nodes[1].http = "127.0.0.1:1".to_owned();
    }
    henge(&server.url, args).await
}

#[tokio::test]
async fn each_node_says_what_it_does_and_a_silent_one_is_named() {
    let done = against(&["debug", "tasks"]).await;
    assert_eq!(done.exit, Exit::Ok);
    assert_eq!(
        done.out,
        "\
NODE  TASK                  GROUP   TERM  STEPS  FOR   STATE
1     catalogue reconciler  0 meta  7     3      0s    waits for an entry, or 1000 ms
1     compaction            2       7     3      1m1s  working
1     mirrors               2       7     3      0s    waits for an entry
1     prune schedule        2       7     3      0s    waits 1000 ms
1     release levels        2       7     3      2h0m  waits for work
"
    );
    assert!(done.err.starts_with("node 3: "), "{}", done.err);
}

#[tokio::test]
async fn one_node_is_asked_alone() {
    let done = against(&["debug", "--output", "json", "tasks", "--node", "1"]).await;
    assert_eq!((done.exit, done.err.as_str()), (Exit::Ok, ""));
    let value: serde_json::Value = serde_json::from_str(&done.out).expect("JSON");
    assert_eq!(value[0]["node"], 1);
    assert_eq!(value[0]["leader_tasks"][1]["name"], "compaction");
    let done = against(&["debug", "tasks", "--node", "9"]).await;
    assert_eq!(done.exit, Exit::NotFound);
    assert!(
        done.err.contains("the cluster has no node 9"),
        "{}",
        done.err
    );
    let done = against(&["debug", "tasks", "--node", "3"]).await;
    assert_eq!(done.exit, Exit::Unavailable, "{}", done.err);
}
