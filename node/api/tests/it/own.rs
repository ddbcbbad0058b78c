//! Our own dialect.

use henge_types::{
    CertifiedRef, LogIndex, NonceStatus, PushCertificateRecord, RecordedRef, SignatureKind,
};
use http::StatusCode;
use serde_json::{Value, json};

use crate::harness::Node;
use crate::memory::{Fault, UPDATED_AT_MS, shard_of};

const ONE: &str = "1111111111111111111111111111111111111111";
const TWO: &str = "2222222222222222222222222222222222222222";
const REFS: &str = "/api/henge/v1/repos/admin/demo/refs";

#[tokio::test]
async fn the_cluster_and_the_node_say_how_they_are() {
    let node = Node::new();
    let cluster = node.get("/api/henge/v1/cluster").await.json();
    assert_eq!(cluster["cluster_id"], "cc".repeat(16));
    assert_eq!(cluster["nodes"][0]["report"]["version"], "1.2.3");
    let report = node.get("/api/henge/v1/node").await.json();
    assert_eq!(report, cluster["nodes"][0]["report"]);
    let tasks = node.get("/api/henge/v1/node/tasks").await.json();
    let task = json!({
        "name": "compaction", "group": 3, "term": 7, "steps": 12,
        "state": {"state": "waiting", "within_ms": null, "for_entry": true}, "state_ms": 1500,
    });
    assert_eq!(tasks, json!({"node": 1, "leader_tasks": [task]}));
}

#[tokio::test]
async fn a_repository_of_another_owner_is_created_and_says_where_it_lives() {
    let node = Node::new();
    let body = json!({"owner": "Team", "name": "x", "default_branch": "dev"});
    let made = node.post("/api/henge/v1/repos", body).await;
    assert_eq!(made.status, StatusCode::CREATED, "{made:?}");
    let expected = json!({
        "id": "01".repeat(16), "network": "01".repeat(16), "owner": "Team", "name": "x",
        "shard": shard_of(1).get(), "generation": 1, "state": "ready", "leader": 2,
        "private": true, "description": "", "default_branch": "dev",
        "object_format_name": "sha1", "created_at": "2026-01-02T03:04:05Z",
        "updated_at": "2026-01-02T03:04:05Z",
        "archived": false, "topics": [], "forked_from": null,
        "former_names": [],
    });
    assert_eq!(made.json(), expected);
    let found = node.get("/api/henge/v1/repos/team/X").await;
    assert_eq!(found.json(), expected);
    let missing = node.get("/api/henge/v1/repos/team/y").await;
    missing.error(404, "not_found");
    let body = json!({"owner": "Team", "name": "y", "object_format_name": "sha256"});
    let made = node.post("/api/henge/v1/repos", body).await.json();
    assert_eq!(made["object_format_name"], "sha256");
}

#[tokio::test]
async fn names_and_fields_are_checked_before_anything_is_made() {
    let node = Node::new();
    for (body, start) in [
        (json!({"owner": "api", "name": "x"}), "owner: "),
        (json!({"owner": "a", "name": "x/y"}), "name: "),
        (
            json!({"name": "x"}),
            "the body does not fit: missing field `owner`",
        ),
        (
            json!({"owner": "a", "name": "x", "privat": true}),
            "the body does not fit: unknown",
        ),
    ] {
        let answer = node.post("/api/henge/v1/repos", body).await;
        let message = answer.error(422, "invalid");
        assert!(message.starts_with(start), "{message}");
    }
    assert!(node.backend.created_by().is_empty());
}

fn names(page: &Value) -> Vec<String> {
    let repositories = page["repositories"].as_array().expect("a list");
    let name = |repo: &Value| format!("{}/{}", repo["owner"], repo["name"]).replace('"', "");
    repositories.iter().map(name).collect()
}

#[tokio::test]
async fn the_catalogue_is_read_in_parts() {
    let node = Node::new();
    for (owner, name) in [("b", "x"), ("a", "z"), ("a", "Y"), ("c", "w")] {
        let body = json!({"owner": owner, "name": name});
        node.post("/api/henge/v1/repos", body).await;
    }
    let all = node.get("/api/henge/v1/repos").await.json();
    assert_eq!(names(&all), ["a/Y", "a/z", "b/x", "c/w"]);
    assert_eq!(all["next"], Value::Null);
    let first = node.get("/api/henge/v1/repos?limit=2").await.json();
    assert_eq!(names(&first), ["a/Y", "a/z"]);
    assert_eq!(first["next"], "a/z");
    let rest = node.get("/api/henge/v1/repos?limit=2&after=a/z").await;
    assert_eq!(names(&rest.json()), ["b/x", "c/w"]);
    let owned = node.get("/api/henge/v1/repos?owner=a").await.json();
    assert_eq!(names(&owned), ["a/Y", "a/z"]);
    for odd in ["owner=..", "after=x", "limit=-1", "limit=x"] {
        let uri = format!("/api/henge/v1/repos?{odd}");
        node.get(&uri).await.error(422, "invalid");
    }
}

async fn update(node: &Node, updates: Value, atomic: bool) -> Value {
    let body = json!({"updates": updates, "atomic": atomic});
    let answer = node.post(REFS, body).await;
    assert_eq!(answer.status, StatusCode::OK, "{answer:?}");
    answer.json()["results"].clone()
}

#[tokio::test]
async fn refs_are_changed_one_by_one_or_together() {
    let node = Node::new();
    node.create("demo").await;
    let first = json!([{"ref": "refs/heads/a", "old": null, "new": ONE},
                       {"ref": "refs/heads/b", "old": "any", "new": ONE}]);
    let both = json!([{"ref": "refs/heads/a", "ok": true}, {"ref": "refs/heads/b", "ok": true}]);
    assert_eq!(update(&node, first, false).await, both);

    let mixed = json!([{"ref": "refs/heads/a", "old": ONE, "new": TWO},
                       {"ref": "refs/heads/b", "old": TWO, "new": null},
                       {"ref": "refs/heads/a2", "old": TWO, "new": ONE}]);
    let together = update(&node, mixed.clone(), true).await;
    assert_eq!(together[0]["ok"], false);
    assert_eq!(together[0]["code"], "atomic_aborted");
    assert_eq!(together[1]["code"], "stale");
    assert_eq!(together[1]["reason"], format!("stale: the ref is at {ONE}"));
    assert_eq!(together[2]["reason"], "stale: the ref does not exist");

    let single = update(&node, mixed, false).await;
    assert_eq!(single[0], json!({"ref": "refs/heads/a", "ok": true}));
    assert_eq!(single[1]["ok"], false);
    let last = json!([{"ref": "refs/heads/a", "old": null, "new": ONE},
                      {"ref": "refs/heads/b", "old": ONE, "new": null}]);
    let last = update(&node, last, false).await;
    assert_eq!(last[0]["code"], "exists");
    assert_eq!(last[1], json!({"ref": "refs/heads/b", "ok": true}));
    let branches = node.get("/api/v1/repos/admin/demo/branches").await.json();
    assert_eq!(branches.as_array().expect("a list").len(), 1);
    assert_eq!(branches[0]["commit"]["id"], TWO);
}

fn change(name: &str, old: Value, new: Value) -> Value {
    let mut change = json!({"ref": name});
    change["old"] = old;
    change["new"] = new;
    change
}

#[tokio::test]
async fn changes_that_make_no_sense_change_nothing() {
    let node = Node::new();
    node.create("demo").await;
    let a = "refs/heads/a";
    let (any, one, none) = (json!("any"), json!(ONE), Value::Null);
    let many: Vec<_> = (0..10_001)
        .map(|number| change(&format!("refs/heads/{number}"), none.clone(), one.clone()))
        .collect();
    let twice = [
        change(a, any.clone(), one.clone()),
        change(a, any.clone(), json!(TWO)),
    ];
    let zeros = json!("0".repeat(40));
    let cases = [
        (json!([]), "updates: there are none"),
        (json!(many), "updates: more than 10000"),
        (json!([change("main", none.clone(), one.clone())]), "ref: "),
        (json!([change(a, json!("HEAD"), one.clone())]), "old: "),
        (json!([change(a, any, json!("xyz"))]), "new: "),
        (json!([change(a, zeros, one.clone())]), "old: write null"),
        (
            json!([change(a, none.clone(), none.clone())]),
            "refs/heads/a: old and new",
        ),
        (json!(twice), "updates: refs/heads/a is named twice"),
        (
            json!([{"ref": a, "new": ONE}]),
            "the body does not fit: missing field `old`",
        ),
        (
            json!([{"ref": a, "old": null}]),
            "the body does not fit: missing field `new`",
        ),
    ];
    for (updates, start) in cases {
        let answer = node.post(REFS, json!({ "updates": updates })).await;
        let message = answer.error(422, "invalid");
        assert!(message.starts_with(start), "{message}");
    }
    let misspelt = json!({"updates": [change(a, none.clone(), one.clone())], "atomc": true});
    node.post(REFS, misspelt).await.error(422, "invalid");
    let branches = node.get("/api/v1/repos/admin/demo/branches").await;
    assert_eq!(branches.json(), json!([]));
    let body = json!({"updates": [change(a, none, one)]});
    let missing = node.post("/api/henge/v1/repos/admin/x/refs", body).await;
    missing.error(404, "not_found");
}

#[tokio::test]
async fn packs_are_counted_and_compacted() {
    const STATS: &str = "/api/henge/v1/repos/Admin/Demo/stats";
    const GC: &str = "/api/henge/v1/repos/admin/demo/gc";
    let node = Node::new();
    node.get(STATS).await.error(404, "not_found");
    node.post(GC, json!({})).await.error(404, "not_found");
    let body = json!({"owner": "admin", "name": "demo"});
    node.post("/api/henge/v1/repos", body).await;
    let mut expected = json!({
        "leader": 2, "packs": 3, "objects": 10, "pack_bytes": 2000, "idx_bytes": 1400,
        "bitmap": false, "compaction": "idle", "last_compaction": null,
        "prune_mark": null,
    });
    let last_fsck = json!([{
        "node": 1, "failed": null,
        "last": {"at": "1970-01-01T00:00:00Z", "took_ms": 0, "objects": 10, "findings": 0, "repaired": 0, "failed": null},
    }]);
    let shown = |figures: &Value| {
        let mut shown = figures.clone();
        shown["last_fsck"] = last_fsck.clone();
        shown
    };
    assert_eq!(node.get(STATS).await.json(), shown(&expected));
    expected["compaction"] = json!("queued");
    expected["prune_mark"] = json!("2026-01-02T03:04:05Z");
    for (body, replaced, dropped) in [
        (json!({}), 2, json!(null)),
        (json!({"aggressive": true}), 3, json!(null)),
        (json!({"prune": 7}), 4, json!(7000)),
    ] {
        let answer = node.post(GC, body).await;
        assert_eq!(answer.status, StatusCode::ACCEPTED, "{answer:?}");
        expected["last_compaction"] = json!({
            "at": "2026-01-02T03:05:05Z", "took_ms": 12, "replaced": replaced, "bytes": 900,
            "failed": null, "dropped": dropped, "run": 4,
        });
        assert_eq!(answer.json(), expected);
    }
    assert_eq!(node.get(STATS).await.json(), shown(&expected));
    let unknown = node.post(GC, json!({"agressive": true})).await;
    unknown.error(422, "invalid");
    // The figures are returned even when the replicas cannot be queried.
    node.backend.set_fault(Fault::ReplicasSilent);
    expected["last_fsck"] = json!(null);
    assert_eq!(node.get(STATS).await.json(), expected);
}

#[tokio::test]
async fn stores_are_checked_on_the_nodes_that_are_named() {
    const FSCK: &str = "/api/henge/v1/repos/admin/demo/fsck";
    let node = Node::new();
    node.get(FSCK).await.error(404, "not_found");
    node.post(FSCK, json!({})).await.error(404, "not_found");
    let body = json!({"owner": "admin", "name": "demo"});
    node.post("/api/henge/v1/repos", body).await;
    let answer = node.post(FSCK, json!({"nodes": [3], "repair": true})).await;
    assert_eq!(answer.status, StatusCode::ACCEPTED, "{answer:?}");
    let last = json!({
        "run": 7, "ended_at_ms": 0, "took_ms": 0, "packs": 0, "objects": 10, "reachable": 9,
        "unreachable": 1, "problems": [], "more_problems": 0, "repaired": ["ab".repeat(20)],
        "failed": null,
    });
    let mut expected = json!({"replicas": [{
        "node": 3, "state": "idle", "run": 7, "progress": null, "last": last, "failed": null,
    }]});
    assert_eq!(answer.json(), expected);
    expected["replicas"][0]["node"] = json!(1);
    expected["replicas"][0]["last"]["repaired"] = json!([]);
    assert_eq!(node.get(FSCK).await.json(), expected);
    let unknown = node.post(FSCK, json!({"node": 3})).await;
    unknown.error(422, "invalid");
}

#[tokio::test]
async fn limits_are_set_as_a_whole_and_read_back() {
    const LIMITS: &str = "/api/henge/v1/repos/admin/demo/limits";
    let node = Node::new();
    node.get(LIMITS).await.error(404, "not_found");
    let body = json!({"owner": "admin", "name": "demo"});
    node.post("/api/henge/v1/repos", body).await;
    let mut expected = json!({
        "network_bytes_max": null, "push_bytes_max": null, "object_bytes_max": null,
        "push_objects_max": null, "refs_max": null,
    });
    assert_eq!(node.get(LIMITS).await.json(), expected);
    let body = json!({"network_bytes_max": 1000, "refs_max": 3});
    expected["network_bytes_max"] = json!(1000);
    expected["refs_max"] = json!(3);
    assert_eq!(node.ask("PUT", LIMITS, Some(body)).await.json(), expected);
    assert_eq!(node.get(LIMITS).await.json(), expected);
    let unknown = node.ask("PUT", LIMITS, Some(json!({"max_refs": 3}))).await;
    unknown.error(422, "invalid");
}

#[tokio::test]
async fn rules_for_pushes_are_set_and_read_back() {
    const RULES: &str = "/api/henge/v1/repos/admin/demo/push-rules";
    let node = Node::new();
    node.get(RULES).await.error(404, "not_found");
    let body = json!({"owner": "admin", "name": "demo"});
    node.post("/api/henge/v1/repos", body).await;
    let strict = json!({"fsck": "strict"});
    assert_eq!(node.get(RULES).await.json(), strict);
    let lenient = json!({"fsck": "lenient"});
    let set = node.ask("PUT", RULES, Some(lenient.clone())).await;
    assert_eq!(set.json(), lenient);
    assert_eq!(node.get(RULES).await.json(), lenient);
    for wrong in [json!({"fsck": "none"}), json!({"rules": 1}), json!({})] {
        let answer = node.ask("PUT", RULES, Some(wrong)).await;
        answer.error(422, "invalid");
    }
}

fn certificate(at: u64, name: &str) -> PushCertificateRecord {
    let certified = CertifiedRef {
        name: name.parse().expect("a name"),
        old: None,
        new: Some(ONE.parse().expect("an id")),
    };
    PushCertificateRecord {
        at: LogIndex::new(at),
        at_ms: UPDATED_AT_MS,
        account: "admin".to_owned(),
        pusher: "A <a@example.org> 1700000000 +0000".to_owned(),
        pushee: Some("http://example.org/demo.git".to_owned()),
        nonce: NonceStatus::Slop { seconds: 700 },
        signature: Some(SignatureKind::OpenPgp),
        refs: vec![RecordedRef {
            certified,
            accepted: true,
        }],
        text: "certificate version 0.1\n".into(),
    }
}

#[tokio::test]
async fn push_certificates_are_listed_in_pages_and_by_ref() {
    const LIST: &str = "/api/henge/v1/repos/admin/demo/push-certificates";
    let node = Node::new();
    node.get(LIST).await.error(404, "not_found");
    node.create("demo").await;
    let none = json!({"total": 0, "certificates": []});
    assert_eq!(node.get(LIST).await.json(), none);
    let latin = PushCertificateRecord {
        nonce: NonceStatus::Ok,
        signature: None,
        text: b"\xe9".as_slice().into(),
        ..certificate(2, "refs/heads/b")
    };
    for record in [certificate(1, "refs/heads/a"), latin] {
        node.backend.add_certificate("admin/demo", record);
    }
    let first = json!({
        "entry": 1, "at": "2026-01-02T03:05:05Z", "account": "admin",
        "pusher": "A <a@example.org> 1700000000 +0000", "pushee": "http://example.org/demo.git",
        "nonce_status": "SLOP", "nonce_slop_s": 700, "signature_kind": "openpgp",
        "signature_verified": false,
        "refs": [{"ref": "refs/heads/a", "old": null, "new": ONE, "accepted": true}],
        "certificate": "certificate version 0.1\n",
    });
    let all = node.get(LIST).await.json();
    assert_eq!(all["total"], 2);
    assert_eq!(all["certificates"][1], first);
    let newest = &all["certificates"][0];
    assert_eq!(newest["certificate"], Value::Null);
    assert_eq!(newest["certificate_base64"], "6Q==");
    assert_eq!(newest["nonce_slop_s"], Value::Null);
    assert_eq!(newest["signature_kind"], Value::Null);
    let second = node.get(&format!("{LIST}?page=2&limit=1")).await.json();
    assert_eq!(second, json!({"total": 2, "certificates": [first]}));
    let of_one = node.get(&format!("{LIST}?ref=refs/heads/a")).await.json();
    assert_eq!(of_one, json!({"total": 1, "certificates": [first]}));
    let message = node
        .get(&format!("{LIST}?ref=a"))
        .await
        .error(422, "invalid");
    assert!(message.starts_with("ref: "), "{message}");
}

#[tokio::test]
async fn mirrors_are_made_shown_without_secrets_synced_and_removed() {
    let node = Node::new();
    node.create("demo").await;
    let path = "/api/henge/v1/repos/admin/demo/mirrors";
    let sync = "/api/v1/repos/admin/demo/mirror-sync";
    node.post(sync, json!({})).await.error(422, "invalid");
    let body = json!({"kind": "pull", "url": "https://example.org/a.git", "user": "me",
        "password": "hunter2", "interval_s": 3600});
    let made = node.post(path, body.clone()).await;
    assert_eq!(made.status, StatusCode::CREATED, "{made:?}");
    let expected = json!({
        "id": "00".repeat(16), "kind": "pull", "url": "https://example.org/a.git", "user": "me",
        "interval_s": 3600, "on_push": false, "running": false, "next_due_at": "2026-01-02T03:05:05Z", "failures": 1,
        "last": {"scheduled_at": "2026-01-02T03:04:05Z", "ended_at": "2026-01-02T03:04:05Z",
            "outcome": "failed", "changed": 0, "pack_bytes": 0, "error": "nobody answers"},
    });
    assert_eq!(made.json(), expected);
    let push = json!({"kind": "push", "url": "https://example.org/b.git", "interval_s": 60});
    let push = node.post(path, push).await.json();
    assert_eq!((&push["last"], &push["user"]), (&Value::Null, &Value::Null));
    assert_eq!(node.get(path).await.json(), json!([expected, push]));

    assert_eq!(node.post(sync, json!({})).await.status, StatusCode::OK);
    let one = format!("{path}/{}", "00".repeat(16));
    let due = node.get(&one).await.json();
    assert_eq!(due["next_due_at"], "2026-01-02T03:04:05Z");
    let synced = node.post(&format!("{one}/sync"), json!({})).await;
    assert_eq!(synced.status, StatusCode::ACCEPTED);
    let edit = async |body| node.ask("PATCH", &one, Some(body)).await;
    let edited = edit(json!({"interval_s": 60})).await;
    assert_eq!(edited.status, StatusCode::OK, "{edited:?}");
    let edited = edited.json();
    assert_eq!(
        (&edited["interval_s"], &edited["user"]),
        (&json!(60), &json!("me"))
    );
    let url = "https://example.org/other.git";
    let moved = edit(json!({"url": url, "on_push": true})).await.json();
    assert_eq!((&moved["url"], &moved["user"]), (&json!(url), &Value::Null));
    assert_eq!(moved["on_push"], true);
    edit(json!({"kind": "push"})).await.error(422, "invalid");
    let never = node
        .ask("PATCH", &format!("{path}/x"), Some(json!({})))
        .await;
    never.error(404, "not_found");
    let removed = node.ask("DELETE", &one, None).await;
    assert_eq!(removed.status, StatusCode::NO_CONTENT);
    node.get(&one).await.error(404, "not_found");
    node.get(&format!("{path}/x")).await.error(404, "not_found");
    for bad in [
        json!({"kind": "both", "url": "x", "interval_s": 60}),
        json!({"kind": "pull", "interval_s": 60}),
    ] {
        node.post(path, bad).await.error(422, "invalid");
    }
}

/// A mirror deleted refs of the side that it wrote to, without consent in the request that made it.
#[tokio::test]
async fn a_mirror_that_takes_something_is_made_only_where_that_is_said() {
    let node = Node::new();
    node.create("demo").await;
    let path = "/api/henge/v1/repos/admin/demo/mirrors";
    let full = crate::memory::FULL_URL;
    let body = |replace: Option<bool>| {
        let mut body = json!({"kind": "pull", "url": full, "interval_s": 60});
        if let Some(replace) = replace {
            body["replace"] = json!(replace);
        }
        body
    };
    for replace in [None, Some(false)] {
        let said = node.post(path, body(replace)).await.error(409, "conflict");
        assert!(said.contains("refs/heads/mine"), "{said}");
    }
    assert_eq!(node.get(path).await.json(), json!([]));
    let made = node.post(path, body(Some(true))).await;
    assert_eq!(made.status, StatusCode::CREATED, "{made:?}");

    let push = json!({"remote_address": full});
    let gitea = "/api/v1/repos/admin/demo/push_mirrors";
    node.post(gitea, push).await.error(409, "conflict");
    let push = json!({"remote_address": full, "replace": true});
    assert_eq!(node.post(gitea, push).await.status, StatusCode::OK);

    let other = json!({"kind": "push", "url": "https://example.org/b.git", "interval_s": 60});
    let other = node.post(path, other).await.json();
    let one = format!("{path}/{}", other["id"].as_str().expect("an id"));
    let edit = async |body| node.ask("PATCH", &one, Some(body)).await;
    edit(json!({"url": full})).await.error(409, "conflict");
    let led = edit(json!({"url": full, "replace": true})).await;
    assert_eq!(led.json()["url"], full);

    for (query, forced) in [("", false), ("?force=false", false), ("?force=true", true)] {
        let synced = node.post(&format!("{one}/sync{query}"), json!({})).await;
        assert_eq!(synced.status, StatusCode::ACCEPTED, "{query}");
        assert_eq!(node.backend.is_forced("admin/demo"), forced, "{query}");
    }
    let odd = node.post(&format!("{one}/sync?force=1"), json!({})).await;
    odd.error(422, "invalid");
}

/// A repository became public by default.
#[tokio::test]
async fn what_is_not_said_to_be_public_is_private() {
    let node = Node::new();
    for (at, said, private) in [
        (0, None, true),
        (1, Some(true), true),
        (2, Some(false), false),
    ] {
        let own = json!({"owner": "admin", "name": format!("own-{at}")});
        let gitea = json!({"name": format!("gitea-{at}")});
        for (uri, mut body) in [("/api/henge/v1/repos", own), ("/api/v1/user/repos", gitea)] {
            if let Some(said) = said {
                body["private"] = json!(said);
            }
            let made = node.post(uri, body).await;
            assert_eq!(made.status, StatusCode::CREATED, "{made:?}");
            assert_eq!(made.json()["private"], private, "{uri} {said:?}");
        }
    }
    let none = json!({"owner": "admin", "name": "x", "private": null});
    let refused = node.post("/api/henge/v1/repos", none).await;
    refused.error(422, "invalid");
}
