//! Gitea's dialect: shapes, statuses, pages.

use http::StatusCode;
use serde_json::{Value, json};

use crate::harness::Node;

const TIP: &str = "0123456789abcdef0123456789abcdef01234567";

#[tokio::test]
async fn version_and_user_are_there_for_clients_that_ask_first() {
    let node = Node::new();
    let version = node.get("/api/v1/version").await;
    assert_eq!(version.json(), json!({"version": "1.2.3+gitea-1.22.0"}));
    let user = node.get("/api/v1/user").await.json();
    assert_eq!(user["login"], "admin");
    assert_eq!(user["username"], "admin");
    assert_eq!(user["is_admin"], true);
    assert!(user["id"].as_i64().is_some_and(|id| id > 0));
}

#[tokio::test]
async fn a_repository_is_created_found_and_deleted() {
    let node = Node::new();
    let body = json!({"name": "Demo", "description": "a demo", "private": true,
        "default_branch": "trunk", "issue_labels": "", "readme": ""});
    let made = node.post("/api/v1/user/repos", body).await;
    assert_eq!(made.status, StatusCode::CREATED, "{made:?}");
    let repo = made.json();
    let expected = [
        ("name", json!("Demo")),
        ("full_name", json!("admin/Demo")),
        ("description", json!("a demo")),
        ("private", json!(true)),
        ("empty", json!(true)),
        ("fork", json!(false)),
        ("default_branch", json!("trunk")),
        ("clone_url", json!("http://node.test:7401/admin/Demo.git")),
        ("html_url", json!("http://node.test:7401/admin/Demo")),
        ("ssh_url", json!("")),
        ("created_at", json!("2026-01-02T03:04:05Z")),
        ("updated_at", json!("2026-01-02T03:04:05Z")),
        (
            "permissions",
            json!({"admin": true, "push": true, "pull": true}),
        ),
        ("id", json!(0x0101_0101_0101_0101_u64 >> 11)),
        ("object_format_name", json!("sha1")),
    ];
    for (field, value) in expected {
        assert_eq!(repo[field], value, "{field}");
    }
    assert_eq!(repo["owner"]["login"], "admin");
    assert_eq!(node.backend.created_by(), ["admin"]);
    for (asked, made) in [("", "sha1"), ("sha1", "sha1"), ("sha256", "sha256")] {
        let body = json!({"name": format!("format-{asked}"), "object_format_name": asked});
        let repo = node.post("/api/v1/user/repos", body).await.json();
        assert_eq!(repo["object_format_name"], made, "{asked:?}");
    }

    node.backend.set_ref("admin/demo", "refs/heads/trunk", TIP);
    let found = node.get("/api/v1/repos/ADMIN/demo").await.json();
    assert_eq!(found["empty"], false);
    assert_eq!(found["id"], repo["id"]);
    assert_eq!(found["updated_at"], "2026-01-02T03:05:05Z");

    let gone = node.ask("DELETE", "/api/v1/repos/admin/Demo", None).await;
    assert_eq!(
        (gone.status, gone.text.as_str()),
        (StatusCode::NO_CONTENT, "")
    );
    let lost = node.get("/api/v1/repos/admin/Demo").await;
    lost.error(404, "not_found");
    let again = node.ask("DELETE", "/api/v1/repos/admin/Demo", None).await;
    again.error(404, "not_found");
}

#[tokio::test]
async fn a_taken_name_is_a_conflict() {
    let node = Node::new();
    node.create("demo").await;
    let again = node
        .post("/api/v1/user/repos", json!({"name": "DEMO"}))
        .await;
    again.error(409, "already_exists");
}

#[tokio::test]
async fn what_cannot_be_made_is_refused_and_not_half_made() {
    let node = Node::new();
    let long = "x".repeat(2_049);
    let bodies = [
        (json!({"name": ""}), "name: "),
        (json!({"name": "../x"}), "name: "),
        (json!({"name": "x.git"}), "name: "),
        (
            json!({"name": "x", "default_branch": "a..b"}),
            "default_branch: ",
        ),
        (
            json!({"name": "x", "description": long}),
            "the description is longer",
        ),
        (
            json!({"name": "x", "description": "a\nb"}),
            "the description is one line",
        ),
        (
            json!({"name": "x", "auto_init": true}),
            "auto_init is not supported",
        ),
        (
            json!({"name": "x", "template": true}),
            "template repositories",
        ),
        (
            json!({"name": "x", "object_format_name": "md5"}),
            "object_format_name: \"md5\" is not an object format",
        ),
        (json!({}), "the body does not fit: missing field `name`"),
        (json!({"name": 1}), "the body does not fit: "),
        (json!([]), "the body does not fit: "),
    ];
    for (body, start) in bodies {
        let answer = node.post("/api/v1/user/repos", body.clone()).await;
        let message = answer.error(422, "invalid");
        assert!(message.starts_with(start), "{body}: {message}");
    }
    assert!(node.backend.created_by().is_empty());
}

#[tokio::test]
async fn a_name_that_no_repository_can_have_is_not_found() {
    let node = Node::new();
    for uri in [
        "/api/v1/repos/admin/nothing",
        "/api/v1/repos/admin/%2e%2e",
        "/api/v1/repos/api/x",
        "/api/v1/repos/a%2Fb/x",
        "/api/v1/repos/admin/x%00y",
        "/api/v1/repos/admin/%ff",
        "/api/v1/repos/admin/nothing/branches",
        "/api/v1/repos/admin/nothing/branches/main",
    ] {
        node.get(uri).await.error(404, "not_found");
    }
}

#[tokio::test]
async fn branches_come_in_pages_when_asked_for() {
    let node = Node::new();
    node.create("demo").await;
    node.backend.set_ref("admin/demo", "refs/tags/v1", TIP);
    let empty = node.get("/api/v1/repos/admin/demo/branches").await;
    assert_eq!(
        (empty.json(), empty.header("x-total-count")),
        (json!([]), Some("0"))
    );
    for number in 10..70 {
        let name = format!("refs/heads/b{number}");
        node.backend.set_ref("admin/demo", &name, TIP);
    }

    let all = node.get("/api/v1/repos/admin/demo/branches").await;
    assert_eq!(all.json().as_array().expect("a list").len(), 60);
    assert_eq!(all.json()[0]["name"], "b10");
    assert_eq!(all.json()[0]["commit"], json!({"id": TIP}));
    assert_eq!(all.json()[0]["protected"], false);
    assert_eq!(all.header("link"), None);

    let page = node
        .get("/api/v1/repos/admin/demo/branches?page=2&limit=25")
        .await;
    assert_eq!(page.json().as_array().expect("a list").len(), 25);
    assert_eq!(page.json()[0]["name"], "b35");
    assert_eq!(page.header("x-total-count"), Some("60"));
    let url = "http://node.test:7401/api/v1/repos/admin/demo/branches";
    let link = format!(
        "<{url}?page=3&limit=25>; rel=\"next\",<{url}?page=3&limit=25>; rel=\"last\",\
         <{url}?page=1&limit=25>; rel=\"first\",<{url}?page=1&limit=25>; rel=\"prev\""
    );
    assert_eq!(page.header("link"), Some(link.as_str()));

    let beyond = node.get("/api/v1/repos/admin/demo/branches?page=9").await;
    assert_eq!((beyond.status, beyond.json()), (StatusCode::OK, json!([])));
    let bounded = node
        .get("/api/v1/repos/admin/demo/branches?limit=1000")
        .await;
    assert_eq!(bounded.json().as_array().expect("a list").len(), 50);
    let odd = node.get("/api/v1/repos/admin/demo/branches?page=x").await;
    odd.error(422, "invalid");
}

#[tokio::test]
async fn one_branch_is_found_by_its_whole_name() {
    let node = Node::new();
    node.create("demo").await;
    node.backend.set_ref("admin/demo", "refs/heads/a/b", TIP);
    let found = node.get("/api/v1/repos/admin/demo/branches/a/b").await;
    assert_eq!(found.json()["name"], "a/b");
    for missing in ["a", "a/", "b", "a/b/c", "a..b"] {
        let uri = format!("/api/v1/repos/admin/demo/branches/{missing}");
        node.get(&uri).await.error(404, "not_found");
    }
}

#[tokio::test]
async fn search_finds_by_a_part_of_the_path_over_all_pages() {
    let node = Node::new();
    for number in 0..40 {
        node.create(&format!("repo{number:02}")).await;
    }
    node.create("Other").await;
    node.backend.set_ref("admin/other", "refs/heads/main", TIP);

    let first = node.get("/api/v1/repos/search").await;
    let body = first.json();
    assert_eq!(body["ok"], true);
    assert_eq!(body["data"].as_array().expect("a list").len(), 30);
    assert_eq!(first.header("x-total-count"), Some("41"));
    assert_eq!(body["data"][0]["name"], "Other");
    assert_eq!(body["data"][0]["empty"], false);
    assert_eq!(body["data"][1]["empty"], true);

    let some = node
        .get("/api/v1/repos/search?q=REPO3&limit=7&page=2")
        .await;
    let found = some.json()["data"].as_array().expect("a list").clone();
    let names: Vec<_> = found.iter().map(|repo| repo["name"].clone()).collect();
    assert_eq!(names, ["repo37", "repo38", "repo39"]);
    assert_eq!(some.header("x-total-count"), Some("10"));
    let links = some.header("link").expect("links");
    assert!(links.contains("?q=REPO3&page=1&limit=7"), "{links}");
    let none = node.get("/api/v1/repos/search?q=nothing").await;
    assert_eq!(none.json(), json!({"ok": true, "data": []}));
}

#[tokio::test]
async fn forks_are_made_below_the_user_or_another_owner_and_listed() {
    const FORKS: &str = "/api/v1/repos/admin/demo/forks";
    let node = Node::new();
    node.post(FORKS, json!({})).await.error(404, "not_found");
    node.post(
        "/api/v1/user/repos",
        json!({"name": "demo", "private": true}),
    )
    .await;
    let taken = node.post(FORKS, json!({})).await;
    taken.error(409, "already_exists");
    let made = node.post(FORKS, json!({"name": "copy"})).await;
    assert_eq!(made.status, StatusCode::ACCEPTED, "{made:?}");
    let made = made.json();
    assert_eq!(
        (&made["full_name"], &made["fork"], &made["private"]),
        (&json!("admin/copy"), &json!(true), &json!(true))
    );
    let other = node.post(FORKS, json!({"organization": "bob"})).await;
    assert_eq!(other.json()["full_name"], "bob/demo");
    let wrong = node.post(FORKS, json!({"organization": "a b"})).await;
    wrong.error(422, "invalid");
    let listed = node.get(FORKS).await.json();
    let names: Vec<_> = listed.as_array().unwrap().iter().collect();
    let names: Vec<_> = names.iter().map(|repo| &repo["full_name"]).collect();
    assert_eq!(names, ["admin/copy", "bob/demo"]);
    assert_eq!(made["parent"]["full_name"], "admin/demo");
    let parent = node.get("/api/v1/repos/admin/demo").await.json();
    assert_eq!(
        (&parent["forks_count"], &parent["parent"]),
        (&json!(2), &Value::Null)
    );
    let fork = node.get("/api/v1/repos/bob/demo").await.json();
    assert_eq!(fork["parent"]["id"], parent["id"]);
    assert_eq!(
        (&fork["forks_count"], &fork["fork"]),
        (&json!(0), &json!(true))
    );
    let none = node.get("/api/v1/repos/bob/demo/forks").await;
    assert_eq!(none.json(), json!([]));
}

#[tokio::test]
async fn push_mirrors_are_made_listed_synced_and_deleted() {
    const MIRRORS: &str = "/api/v1/repos/admin/demo/push_mirrors";
    let node = Node::new();
    node.get(MIRRORS).await.error(404, "not_found");
    node.create("demo").await;
    assert_eq!(node.get(MIRRORS).await.json(), json!([]));
    let pull = json!({"kind": "pull", "url": "https://example.org/a.git", "interval_s": 60});
    node.post("/api/henge/v1/repos/admin/demo/mirrors", pull)
        .await;
    let body = json!({"remote_address": "https://example.org/b.git", "remote_username": "me",
        "remote_password": "hunter2", "interval": "8h0m0s", "sync_on_commit": true});
    let made = node.post(MIRRORS, body).await;
    assert_eq!(made.status, StatusCode::OK, "{made:?}");
    let id = "01".repeat(16);
    let expected = json!({
        "repo_name": "demo", "remote_name": id, "remote_address": "https://example.org/b.git",
        "created": "2026-01-02T03:04:05Z", "last_update": null, "last_error": "",
        "interval": "8h0m0s", "sync_on_commit": true,
    });
    assert_eq!(made.json(), expected);
    assert_eq!(
        node.get(MIRRORS).await.json(),
        json!([expected]),
        "no pull mirror"
    );
    let one = format!("{MIRRORS}/{id}");
    assert_eq!(node.get(&one).await.json(), expected);
    let usual = json!({"remote_address": "https://example.org/c.git"});
    assert_eq!(node.post(MIRRORS, usual).await.json()["interval"], "8h0m0s");
    let rarely = json!({"remote_address": "https://example.org/d.git", "interval": "0",
        "sync_on_commit": true});
    assert_eq!(
        node.post(MIRRORS, rarely).await.json()["interval"],
        "8784h0m0s"
    );
    for bad in [
        json!({"remote_address": "https://example.org/b.git", "interval": "daily"}),
        json!({"interval": "8h"}),
    ] {
        node.post(MIRRORS, bad).await.error(422, "invalid");
    }
    let synced = node.post(&format!("{MIRRORS}-sync"), json!({})).await;
    assert_eq!(synced.status, StatusCode::OK);
    let due = format!("/api/henge/v1/repos/admin/demo/mirrors/{id}");
    assert_eq!(
        node.get(&due).await.json()["next_due_at"],
        "2026-01-02T03:04:05Z"
    );
    let gone = node.ask("DELETE", &one, None).await;
    assert_eq!(gone.status, StatusCode::NO_CONTENT);
    node.get(&one).await.error(404, "not_found");
    let pull = format!("{MIRRORS}/{}", "00".repeat(16));
    node.get(&pull).await.error(404, "not_found");
}
