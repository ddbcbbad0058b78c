//! `henge repo …` against a server with repositories in memory.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use axum::extract::{Path, Query, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::{delete, get, post, put};
use axum::{Json, Router};
use henge_cli::Exit;
use serde_json::{Value, json};

use crate::push_rules;
use crate::run::{Server, henge, henge_typing};

pub(crate) type Repos = Arc<Mutex<BTreeMap<String, Value>>>;

/// Items per page, for every request: a node may have a smaller page than the client.
const PAGE: usize = 3;

pub(crate) fn router() -> Router {
    Router::new()
        .route("/api/henge/v1/repos", post(create).get(list))
        .route("/api/henge/v1/repos/{owner}/{name}", get(show))
        .route("/api/henge/v1/repos/{owner}/{name}/gc", post(gc))
        .route("/api/henge/v1/repos/{owner}/{name}/stats", get(stats))
        .route(
            "/api/henge/v1/repos/{owner}/{name}/push-rules",
            get(push_rules::rules).put(push_rules::set_rules),
        )
        .route(
            "/api/henge/v1/repos/{owner}/{name}/push-certificates",
            get(certificates),
        )
        .route("/api/v1/repos/{owner}/{name}", delete(remove).patch(change))
        .route("/api/v1/repos/{owner}/{name}/topics", put(set_topics))
        .route("/api/v1/repos/{owner}/{name}/transfer", post(transfer))
        .route(
            "/api/v1/repos/{owner}/{name}/branch_protections",
            get(protections).post(protect),
        )
        .route(
            "/api/v1/repos/{owner}/{name}/branch_protections/{*rule}",
            delete(unprotect),
        )
        .route("/api/v1/repos/{owner}/{name}/branches", get(branches))
        .with_state(Repos::default())
}

/// A hundred pushes of `main` and one of `refs/heads/two`; the certificate of the last one is not
/// UTF-8.
async fn certificates(Query(query): Query<BTreeMap<String, String>>) -> Json<Value> {
    let (page, limit): (usize, usize) = (
        query["page"].parse().expect("a number"),
        query["limit"].parse().expect("a number"),
    );
    let certificate = |at: usize| {
        let name = if at == 0 {
            "refs/heads/two"
        } else {
            "refs/heads/main"
        };
        let of = |name: &str| json!({"ref": name, "old": null, "new": null, "accepted": at != 3});
        json!({
            "entry": at, "at": "2026-01-01T00:00:00Z", "account": "admin",
            "pusher": "A \u{1b}[1m", "pushee": null,
            "nonce_status": if at == 2 { "SLOP" } else { "OK" },
            "nonce_slop_s": (at == 2).then_some(700),
            "signature_kind": if at == 1 { None } else { Some("ssh") },
            "signature_verified": false,
            "refs": [of(name)],
            "certificate": (at != 100).then(|| format!("certificate {at}\n")),
            "certificate_base64": (at == 100).then_some("6Qo="),
        })
    };
    let wanted = |found: &Value| {
        query
            .get("ref")
            .is_none_or(|name| found["refs"][0]["ref"] == json!(name))
    };
    let all: Vec<_> = (0..=100).rev().map(certificate).filter(wanted).collect();
    let page: Vec<_> = all.iter().skip((page - 1) * limit).take(limit).collect();
    Json(json!({"total": all.len(), "certificates": page}))
}

/// A compaction waits for two polls, runs for two, and fails in a repository called `broken`.
async fn gc(
    State(repos): State<Repos>,
    Path((owner, name)): Path<(String, String)>,
    Json(asked): Json<Value>,
) -> Response {
    let mut repos = repos.lock().expect("not poisoned");
    let Some(repo) = repos.get_mut(&format!("{owner}/{name}")) else {
        return error(StatusCode::NOT_FOUND, "not_found");
    };
    repo["looks"] = json!(4);
    repo["aggressive"] = asked["aggressive"].clone();
    (StatusCode::ACCEPTED, Json(stats_of(repo))).into_response()
}

async fn stats(
    State(repos): State<Repos>,
    Path((owner, name)): Path<(String, String)>,
) -> Response {
    let mut repos = repos.lock().expect("not poisoned");
    let Some(repo) = repos.get_mut(&format!("{owner}/{name}")) else {
        return error(StatusCode::NOT_FOUND, "not_found");
    };
    if let Some(looks) = repo["looks"].as_u64().filter(|looks| *looks > 0) {
        repo["looks"] = json!(looks - 1);
    }
    let found = |findings: u64, repaired: u64, failed: Option<&str>| {
        json!({"at": "2026-01-01T00:00:07Z", "took_ms": 3, "objects": 21, "findings": findings,
               "repaired": repaired, "failed": failed})
    };
    let mut stats = stats_of(repo);
    stats["last_fsck"] = json!([
        {"node": 1, "last": found(0, 0, None), "failed": null},
        {"node": 2, "last": null, "failed": null},
        {"node": 3, "last": found(2, 1, None), "failed": null},
        {"node": 4, "last": found(0, 0, Some("the disk\u{7} is full")), "failed": null},
        {"node": 5, "last": null, "failed": "nobody answers"},
    ]);
    Json(stats).into_response()
}

fn stats_of(repo: &Value) -> Value {
    let looks = repo["looks"].as_u64();
    let state = match looks {
        None | Some(0) => "idle",
        Some(1 | 2) => "running",
        Some(_) => "queued",
    };
    let failed = (repo["name"] == "broken").then_some("the disk is full");
    let replaced = if repo["aggressive"] == true { 12 } else { 7 };
    let last = (looks == Some(0)).then(|| {
        json!({"at": "2026-01-01T00:00:09Z", "took_ms": 80, "replaced": replaced, "bytes": 900,
               "failed": failed})
    });
    json!({"leader": 3, "packs": 5, "objects": 21, "pack_bytes": 2000, "idx_bytes": 1500,
           "bitmap": true, "compaction": state, "last_compaction": last})
}

pub(crate) fn error(status: StatusCode, code: &str) -> Response {
    (status, Json(json!({"message": code, "code": code}))).into_response()
}

async fn create(State(repos): State<Repos>, Json(new): Json<Value>) -> Response {
    let (owner, name) = (new["owner"].clone(), new["name"].clone());
    let key = format!(
        "{}/{}",
        owner.as_str().expect("text"),
        name.as_str().expect("text")
    );
    let mut repos = repos.lock().expect("not poisoned");
    if repos.contains_key(&key) {
        return error(StatusCode::CONFLICT, "already_exists");
    }
    let repo = json!({
        "id": "0a".repeat(16), "network": "0a".repeat(16), "owner": owner, "name": name, "shard": 2,
        "generation": 1, "state": "ready", "leader": 3, "private": new["private"],
        "created_at": "2026-01-01T00:00:00Z",
        "description": new.get("description").cloned().unwrap_or_else(|| json!("")),
        "default_branch": new.get("default_branch").cloned().unwrap_or_else(|| json!("main")),
        "object_format_name": new.get("object_format_name").cloned().unwrap_or_else(|| json!("sha1")),
    });
    repos.insert(key, repo.clone());
    (StatusCode::CREATED, Json(repo)).into_response()
}

async fn list(
    State(repos): State<Repos>,
    Query(query): Query<BTreeMap<String, String>>,
) -> Json<Value> {
    let repos = repos.lock().expect("not poisoned");
    let after = query.get("after").map_or("", String::as_str);
    let page: Vec<&Value> = repos
        .iter()
        .filter(|(key, repo)| {
            key.as_str() > after
                && query
                    .get("owner")
                    .is_none_or(|owner| repo["owner"] == **owner)
        })
        .map(|(_, repo)| repo)
        .take(PAGE)
        .collect();
    Json(json!({ "repositories": page }))
}

async fn show(State(repos): State<Repos>, Path((owner, name)): Path<(String, String)>) -> Response {
    match repos
        .lock()
        .expect("not poisoned")
        .get(&format!("{owner}/{name}"))
    {
        Some(repo) => Json(repo.clone()).into_response(),
        None => error(StatusCode::NOT_FOUND, "not_found"),
    }
}

async fn branches() -> Json<Value> {
    let branch = |n: usize| json!({"name": format!("b{n:02}"), "commit": {"id": "ab".repeat(20)}});
    Json((1..=22).map(branch).collect())
}

async fn remove(
    State(repos): State<Repos>,
    Path((owner, name)): Path<(String, String)>,
) -> Response {
    match repos
        .lock()
        .expect("not poisoned")
        .remove(&format!("{owner}/{name}"))
    {
        Some(_) => StatusCode::NO_CONTENT.into_response(),
        None => error(StatusCode::NOT_FOUND, "not_found"),
    }
}

/// Runs `step` on an existing repository.
fn with(
    repos: &Repos,
    (owner, name): &(String, String),
    step: impl FnOnce(&mut Value) -> StatusCode,
) -> Response {
    let mut repos = repos.lock().expect("not poisoned");
    match repos.get_mut(&format!("{owner}/{name}")) {
        Some(repo) => step(repo).into_response(),
        None => error(StatusCode::NOT_FOUND, "not_found"),
    }
}

/// A renamed repository is found under its former name, too.
async fn change(
    State(repos): State<Repos>,
    Path(at): Path<(String, String)>,
    Json(change): Json<BTreeMap<String, Value>>,
) -> Response {
    with(&repos, &at, |repo| {
        for (field, value) in change {
            repo[field] = value;
        }
        StatusCode::OK
    })
}

async fn transfer(
    State(repos): State<Repos>,
    Path(at): Path<(String, String)>,
    Json(to): Json<Value>,
) -> Response {
    with(&repos, &at, |repo| {
        repo["owner"] = to["new_owner"].clone();
        StatusCode::ACCEPTED
    })
}

async fn set_topics(
    State(repos): State<Repos>,
    Path(at): Path<(String, String)>,
    Json(set): Json<Value>,
) -> Response {
    with(&repos, &at, |repo| {
        repo["topics"] = set["topics"].clone();
        StatusCode::NO_CONTENT
    })
}

async fn protections(
    State(repos): State<Repos>,
    Path((owner, name)): Path<(String, String)>,
) -> Json<Value> {
    let repos = repos.lock().expect("not poisoned");
    let rules = repos
        .get(&format!("{owner}/{name}"))
        .map(|repo| repo["rules"].clone());
    Json(rules.filter(Value::is_array).unwrap_or_else(|| json!([])))
}

async fn protect(
    State(repos): State<Repos>,
    Path(at): Path<(String, String)>,
    Json(rule): Json<Value>,
) -> Response {
    let taken = std::cell::Cell::new(false);
    let answer = with(&repos, &at, |repo| {
        let mut rules = repo["rules"].as_array().cloned().unwrap_or_default();
        taken.set(rules.contains(&rule));
        if !taken.get() {
            rules.push(rule);
        }
        repo["rules"] = json!(rules);
        StatusCode::CREATED
    });
    match taken.get() {
        true => error(StatusCode::CONFLICT, "already_exists"),
        false => answer,
    }
}

async fn unprotect(
    State(repos): State<Repos>,
    Path((owner, name, rule)): Path<(String, String, String)>,
) -> Response {
    with(&repos, &(owner, name), |repo| {
        let rules = repo["rules"].as_array().cloned().unwrap_or_default();
        let left: Vec<_> = rules
            .iter()
            .filter(|one| one["rule_name"] != *rule)
            .collect();
        let gone = left.len() < rules.len();
        repo["rules"] = json!(left);
        match gone {
            true => StatusCode::NO_CONTENT,
            false => StatusCode::NOT_FOUND,
        }
    })
}

#[tokio::test]
async fn a_repository_is_changed_as_it_is_said() {
    let server = Server::start(router()).await;
    let url = server.url.as_str();
    henge(url, &["repo", "create", "admin/demo"]).await;
    let say = async |args: &[&str]| {
        let done = henge(url, &[&["repo"], args].concat()).await;
        assert_eq!(done.exit, Exit::Ok, "{args:?}: {}", done.err);
        done.out
    };
    let edit = [
        "edit",
        "admin/demo",
        "--description",
        "a line",
        "--default-branch",
        "dev",
        "--private",
        "--topic",
        "git",
        "--topic",
        "c-3",
    ];
    assert_eq!(say(&edit).await, "changed admin/demo\n");
    assert_eq!(
        say(&["archive", "admin/demo"]).await,
        "archived admin/demo\n"
    );
    let rule = ["protect", "admin/demo", "release/v[0-9]*"];
    let said = say(&rule).await;
    assert_eq!(said, "protected release/v[0-9]* in admin/demo\n");
    assert_eq!(say(&rule).await, said, "again is as good as once");
    let show = say(&["show", "admin/demo"]).await;
    for line in [
        "description     a line\n",
        "visibility      private\n",
        "default branch  dev\n",
        "state           ready, archived\n",
        "topics          git c-3\n",
        "protected refs  refs/heads/release/v[0-9]*\n",
    ] {
        assert!(show.contains(line), "{line}: {show}");
    }
    say(&["unarchive", "admin/demo"]).await;
    say(&["unprotect", "admin/demo", "release/v[0-9]*"]).await;
    say(&["edit", "admin/demo", "--public", "--topic", ""]).await;
    let json = say(&["show", "admin/demo", "--output", "json"]).await;
    let value: Value = serde_json::from_str(&json).expect("JSON");
    assert_eq!(
        (&value["archived"], &value["private"]),
        (&json!(false), &json!(false))
    );
    assert_eq!(
        (&value["topics"], &value["protected"]),
        (&json!([]), &json!([]))
    );
    let said = say(&["rename", "admin/demo", "other"]).await;
    assert_eq!(said, "renamed admin/demo: it is admin/other now\n");
    let said = say(&["transfer", "admin/demo", "team"]).await;
    assert_eq!(said, "transferred admin/demo: it is team/other now\n");
}

#[tokio::test]
async fn a_change_that_makes_no_sense_is_not_sent() {
    let server = Server::start(router()).await;
    let url = server.url.as_str();
    henge(url, &["repo", "create", "admin/demo"]).await;
    for (args, exit) in [
        (&["edit", "admin/demo"][..], Exit::Usage),
        (&["edit", "admin/demo", "--topic", "Two words"], Exit::Usage),
        (&["archive", "admin/none"], Exit::NotFound),
        (&["unprotect", "admin/demo", "main"], Exit::NotFound),
    ] {
        let done = henge(url, &[&["repo"], args].concat()).await;
        assert_eq!(done.exit, exit, "{args:?}: {}", done.err);
    }
}

#[tokio::test]
async fn a_repository_is_created_shown_and_deleted() {
    let server = Server::start(router()).await;
    let url = server.url.as_str();
    let args = [
        "repo",
        "create",
        "admin/demo",
        "--default-branch",
        "trunk",
        "--object-format=sha256",
    ];
    let done = henge(url, &args).await;
    assert_eq!(done.exit, Exit::Ok, "{}", done.err);
    assert_eq!(
        done.out,
        format!("created admin/demo in shard 2, private\n{url}/admin/demo.git\n")
    );
    let again = henge(url, &args).await;
    assert_eq!(again.exit, Exit::Conflict);
    assert_eq!(
        again.err,
        "henge: cannot create admin/demo: already_exists\n"
    );

    let done = henge(url, &["repo", "show", "admin/demo.git"]).await;
    let lines: Vec<&str> = done.out.lines().collect();
    assert_eq!(lines[0], "repository      admin/demo");
    assert_eq!(lines[3], "visibility      private");
    assert_eq!(lines[4], "default branch  trunk");
    assert_eq!(lines[5], "object format   sha256");
    assert_eq!(lines[7], "created         2026-01-01T00:00:00Z");
    assert_eq!(lines[11], "shard           2, led by node 3");
    assert_eq!(lines[12], "branches        22");
    assert_eq!(lines[13], format!("  {} b01", "ab".repeat(20)));
    assert_eq!(lines[33], "  and 2 more");

    let done = henge(url, &["repo", "show", "admin/demo", "--output", "json"]).await;
    let value: Value = serde_json::from_str(&done.out).expect("JSON");
    assert_eq!(value["branches"].as_array().map(Vec::len), Some(22));
    assert_eq!(value["clone_url"], format!("{url}/admin/demo.git"));

    let done = henge(url, &["repo", "delete", "admin/demo"]).await;
    assert_eq!(done.exit, Exit::Usage, "nobody to ask");
    let done = henge_typing(url, &["repo", "delete", "admin/demo"], "y\n").await;
    assert_eq!(done.exit, Exit::Failure);
    assert!(
        done.err.ends_with("admin/demo was not deleted\n"),
        "{}",
        done.err
    );
    let done = henge_typing(url, &["repo", "delete", "admin/demo"], "admin/demo\n").await;
    assert_eq!(
        (done.exit, done.out.as_str()),
        (Exit::Ok, "deleted admin/demo\n")
    );
    let done = henge(url, &["repo", "delete", "admin/demo", "--yes"]).await;
    assert_eq!(done.exit, Exit::NotFound);
}

#[tokio::test]
async fn a_list_goes_through_every_page() {
    let server = Server::start(router()).await;
    for name in ["a/1", "a/2", "b/1", "b/2", "b/3", "b/4", "b/5"] {
        let done = henge(
            &server.url,
            &["repo", "create", name, "--description", "one"],
        )
        .await;
        assert_eq!(done.exit, Exit::Ok);
    }
    let done = henge(&server.url, &["repo", "list"]).await;
    assert_eq!(done.out.lines().count(), 8);
    assert!(
        done.out.starts_with(
            "REPOSITORY  SHARD  STATE  VISIBILITY  DESCRIPTION\n\
             a/1         2      ready  private     one\n"
        ),
        "{}",
        done.out
    );
    let done = henge(&server.url, &["repo", "list", "--owner=b", "--output=json"]).await;
    let value: Value = serde_json::from_str(&done.out).expect("JSON");
    assert_eq!(value.as_array().map(Vec::len), Some(5));
}

#[tokio::test]
async fn a_list_that_turns_in_circles_is_given_up() {
    let route = get(|| async {
        let repo = json!({"id": "0a".repeat(16), "network": "0a".repeat(16), "owner": "a",
            "name": "b", "shard": 2, "generation": 1, "state": "ready"});
        Json(json!({ "repositories": [repo] }))
    });
    let server = Server::start(Router::new().route("/api/henge/v1/repos", route)).await;
    let done = henge(&server.url, &["repo", "list"]).await;
    assert_eq!(done.exit, Exit::Failure);
    assert!(done.err.contains("goes back to a/b"), "{}", done.err);
}

#[tokio::test]
async fn packs_are_counted_and_a_compaction_is_waited_for() {
    let server = Server::start(router()).await;
    let url = server.url.as_str();
    for name in ["admin/demo", "admin/broken"] {
        henge(url, &["repo", "create", name]).await;
    }
    let done = henge(url, &["repo", "stats", "admin/demo"]).await;
    assert_eq!(done.exit, Exit::Ok, "{}", done.err);
    let text = "repository       admin/demo\npacks            5\nobjects          21\n\
                pack bytes       2000\nindex bytes      1500\nbitmap           yes\n\
                compaction       idle, on node 3\n";
    let none = "last compaction  none since this leader leads\n";
    let fsck = "last fsck        node 1: 2026-01-01T00:00:07Z, 21 objects, no findings\n                 \
                node 2: never\n                 \
                node 3: 2026-01-01T00:00:07Z, 21 objects, 2 findings, 1 pack fetched again\n                 \
                node 4: 2026-01-01T00:00:07Z, not finished: the disk\u{fffd} is full\n                 \
                node 5: not known: nobody answers\n";
    assert_eq!(done.out, format!("{text}{none}{fsck}"));
    let done = henge(url, &["repo", "stats", "admin/demo", "--output", "json"]).await;
    let value: Value = serde_json::from_str(&done.out).expect("JSON");
    assert_eq!(value["last_fsck"][2]["last"]["findings"], 2);
    assert_eq!(value["last_fsck"][1]["last"], Value::Null);

    for (flags, replaced) in [(&[][..], 7), (&["--aggressive"], 12)] {
        let args = [&["repo", "gc", "admin/demo"], flags].concat();
        let done = henge(url, &args).await;
        assert_eq!(done.exit, Exit::Ok, "{}", done.err);
        let last = format!(
            "last compaction  2026-01-01T00:00:09Z, {replaced} packs into one of 900 bytes in 80 ms\n"
        );
        assert_eq!(done.out, format!("{text}{last}{fsck}"));
    }
    let args = [
        "repo",
        "gc",
        "admin/demo",
        "--wait",
        "0",
        "--output",
        "json",
    ];
    let done = henge(url, &args).await;
    let value: Value = serde_json::from_str(&done.out).expect("JSON");
    assert_eq!(value["compaction"], "queued");

    let done = henge(url, &["repo", "gc", "admin/broken"]).await;
    assert_eq!(done.exit, Exit::Failure);
    assert_eq!(
        done.err,
        "henge: admin/broken was not compacted: the disk is full\n"
    );
    let done = henge(url, &["repo", "gc", "admin/none"]).await;
    assert_eq!(done.exit, Exit::NotFound);
}

#[tokio::test]
async fn push_certificates_are_listed_and_written_as_they_came() {
    let server = Server::start(router()).await;
    let list = ["repo", "push-certs", "admin/demo"];
    let done = henge(&server.url, &list).await;
    assert_eq!(done.exit, Exit::Ok, "{}", done.err);
    let lines: Vec<_> = done.out.lines().collect();
    assert_eq!(lines.len(), 102, "every page and a header");
    assert!(!done.out.contains('\u{1b}'), "{}", lines[1]);
    assert!(
        lines[98].ends_with("OK          refs/heads/main (refused)"),
        "{}",
        lines[98]
    );
    assert!(
        lines[99].contains("ssh, not verified   SLOP 700 s"),
        "{}",
        lines[99]
    );
    assert!(lines[100].contains("none, not verified"), "{}", lines[100]);

    let of_two = [&list[..], &["--ref", "refs/heads/two", "--raw"]].concat();
    assert_eq!(henge(&server.url, &of_two).await.out, "certificate 0\n");
    let json = [&list[..], &["--output", "json", "--ref", "refs/heads/two"]].concat();
    let done = henge(&server.url, &json).await;
    let value: Value = serde_json::from_str(&done.out).expect("JSON");
    assert_eq!(value[0]["signature_verified"], false);
}
