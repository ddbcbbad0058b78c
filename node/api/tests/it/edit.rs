//! Changes of repositories in Gitea's dialect.

use http::StatusCode;
use serde_json::{Value, json};

use crate::harness::{Answered, Node};

const REPO: &str = "/api/v1/repos/admin/demo";

async fn patch(node: &Node, uri: &str, body: Value) -> Answered {
    node.ask("PATCH", uri, Some(body)).await
}

#[tokio::test]
async fn settings_are_changed_one_by_one_or_together() {
    let node = Node::new();
    node.create("demo").await;
    let body = json!({"description": "another", "private": false, "archived": true,
        "default_branch": "trunk", "website": "", "has_wiki": false, "mirror_interval": null});
    let changed = patch(&node, REPO, body).await;
    assert_eq!(changed.status, StatusCode::OK, "{changed:?}");
    let repo = changed.json();
    assert_eq!(repo["description"], "another");
    assert_eq!(
        (&repo["private"], &repo["archived"]),
        (&json!(false), &json!(true))
    );
    assert_eq!(repo["default_branch"], "trunk");
    let own = node.get("/api/henge/v1/repos/admin/demo").await.json();
    assert_eq!(
        (&own["archived"], &own["private"]),
        (&json!(true), &json!(false))
    );
    let one = patch(&node, REPO, json!({"archived": false})).await.json();
    assert_eq!(
        (&one["archived"], &one["private"]),
        (&json!(false), &json!(false))
    );
    assert_eq!(one["description"], "another");
}

#[tokio::test]
async fn what_would_be_lost_is_refused_by_name() {
    let node = Node::new();
    node.create("demo").await;
    for (body, word) in [
        (json!({"website": "http://x"}), "website"),
        (json!({"has_issues": true}), "has_issues"),
        (json!({"template": true}), "template"),
        (json!({"default_branch": "a..b"}), "default_branch"),
        (json!({"name": "a/b"}), "name"),
        (json!({"description": "two\nlines"}), "description"),
        (json!({"description": "x".repeat(3000)}), "description"),
        (json!({"private": "yes"}), "private"),
    ] {
        let message = patch(&node, REPO, body).await.error(422, "invalid");
        let field = word == "private" || message.contains(word);
        assert!(field, "{message}");
    }
    let gone = "/api/v1/repos/admin/nothing";
    patch(&node, gone, json!({"private": true}))
        .await
        .error(404, "not_found");
}

#[tokio::test]
async fn a_repository_gets_another_name_and_another_owner() {
    let node = Node::new();
    node.create("demo").await;
    node.create("taken").await;
    let taken = patch(&node, REPO, json!({"name": "taken"})).await;
    taken.error(409, "already_exists");
    let renamed = patch(&node, REPO, json!({"name": "other"})).await.json();
    assert_eq!(renamed["full_name"], "admin/other");
    let transfer = "/api/v1/repos/admin/other/transfer";
    let moved = node.post(transfer, json!({"new_owner": "team"})).await;
    assert_eq!(moved.status, StatusCode::ACCEPTED, "{moved:?}");
    assert_eq!(moved.json()["full_name"], "team/other");
    let refused = node.post(
        "/api/v1/repos/team/other/transfer",
        json!({"new_owner": "api"}),
    );
    assert!(refused.await.error(422, "invalid").contains("new_owner"));
    let teams = json!({"new_owner": "x", "team_ids": [1]});
    let refused = node.post("/api/v1/repos/team/other/transfer", teams);
    assert!(refused.await.error(422, "invalid").contains("team_ids"));
}

#[tokio::test]
async fn topics_are_set_added_and_removed() {
    let node = Node::new();
    node.create("demo").await;
    let topics = "/api/v1/repos/admin/demo/topics";
    assert_eq!(node.get(topics).await.json(), json!({"topics": []}));
    let set = node
        .ask("PUT", topics, Some(json!({"topics": ["git", "C-3 "]})))
        .await;
    assert_eq!(set.status, StatusCode::NO_CONTENT, "{set:?}");
    let add = node.ask("PUT", &format!("{topics}/rust"), None).await;
    assert_eq!(add.status, StatusCode::NO_CONTENT);
    let gone = node.ask("DELETE", &format!("{topics}/git"), None).await;
    assert_eq!(gone.status, StatusCode::NO_CONTENT);
    let left = node.get(topics).await.json();
    assert_eq!(left, json!({"topics": ["c-3", "rust"]}));
    let repo = node.get(REPO).await.json();
    assert_eq!(repo["topics"], left["topics"]);
    let never = node.ask("DELETE", &format!("{topics}/never"), None).await;
    never.error(404, "not_found");
    let wrong = json!({"topics": ["two words"]});
    let wrong = node.ask("PUT", topics, Some(wrong)).await;
    wrong.error(422, "invalid");
}

#[tokio::test]
async fn branches_are_protected_by_patterns() {
    let node = Node::new();
    node.create("demo").await;
    let rules = "/api/v1/repos/admin/demo/branch_protections";
    assert_eq!(node.get(rules).await.json(), json!([]));
    let made = node.post(rules, json!({"rule_name": "release/*"})).await;
    assert_eq!(made.status, StatusCode::CREATED, "{made:?}");
    let made = made.json();
    assert_eq!(made["rule_name"], "release/*");
    assert_eq!(made["enable_force_push"], false);
    assert_eq!(made["created_at"], "2026-01-02T03:04:05Z");
    let older = json!({"branch_name": "main", "enable_push": true, "enable_force_push": false});
    assert_eq!(node.post(rules, older).await.status, StatusCode::CREATED);
    let again = node.post(rules, json!({"rule_name": "main"})).await;
    again.error(409, "already_exists");
    let found = node.get(&format!("{rules}/release/%2A")).await;
    assert_eq!(found.json(), made);
    assert_eq!(
        node.get(rules).await.json().as_array().map(Vec::len),
        Some(2)
    );
    for asks in [
        json!({"rule_name": "x", "enable_push": false}),
        json!({"rule_name": "x", "enable_force_push": true}),
        json!({"rule_name": "x", "required_approvals": 1}),
        json!({"rule_name": "x", "enable_status_check": true}),
        json!({"rule_name": "a b"}),
        json!({}),
    ] {
        node.post(rules, asks).await.error(422, "invalid");
    }
    let edit = async |body| {
        node.ask("PATCH", &format!("{rules}/release/*"), Some(body))
            .await
    };
    let holds = json!({"enable_push": true, "enable_force_push": false, "required_approvals": 0});
    let edited = edit(holds).await;
    assert_eq!((edited.status, edited.json()), (StatusCode::OK, made));
    for asks in [
        json!({"enable_push": false}),
        json!({"enable_force_push": true}),
        json!({"required_approvals": 1}),
        json!({"rule_name": "other/*"}),
    ] {
        edit(asks).await.error(422, "invalid");
    }
    let never = format!("{rules}/never");
    let never = node.ask("PATCH", &never, Some(json!({}))).await;
    never.error(404, "not_found");
    let tip = "0123456789abcdef0123456789abcdef01234567";
    for branch in ["refs/heads/main", "refs/heads/release/1", "refs/heads/x"] {
        node.backend.set_ref("admin/demo", branch, tip);
    }
    let branches = node.get("/api/v1/repos/admin/demo/branches").await.json();
    for (at, (name, rule)) in [("main", "main"), ("release/1", "release/*"), ("x", "")]
        .into_iter()
        .enumerate()
    {
        let one = format!("/api/v1/repos/admin/demo/branches/{name}");
        let one = node.get(&one).await.json();
        for branch in [&branches[at], &one] {
            assert_eq!(branch["name"], name);
            assert_eq!(branch["protected"], !rule.is_empty());
            assert_eq!(branch["effective_branch_protection_name"], rule);
            assert_eq!(branch["user_can_push"], true);
        }
    }
    let gone = node
        .ask("DELETE", &format!("{rules}/release/*"), None)
        .await;
    assert_eq!(gone.status, StatusCode::NO_CONTENT);
    node.get(&format!("{rules}/release/*"))
        .await
        .error(404, "not_found");
}
