//! Mirrors in a ring of processes: a due run is claimed once, also when the leader is lost in
//! between.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use axum::extract::Request;
use axum::middleware::{self, Next};
use henge_git::bare::Pushes;
use henge_git::{BareRoot, http};
use henge_runtime::{Scope, SystemClock};
use serde_json::{Value, json};

use super::harness::{
    Ring, alive, clone_checked, commit, contents, git, git_raw, gits, wait, work_tree,
};

const REPO: &str = "admin/demo";

/// Bare repositories over HTTP that count the ref listings for fetches.
pub(super) struct Counted {
    pub(super) url: String,
    pub(super) root: PathBuf,
    fetches: Arc<AtomicUsize>,
    /// No request is answered while this is locked.
    held: Arc<tokio::sync::RwLock<()>>,
    runtime: Option<tokio::runtime::Runtime>,
}

impl Counted {
    pub(super) fn start(dir: &Path) -> Self {
        let (root, spool) = (dir.join("served"), dir.join("spool"));
        std::fs::create_dir(&root).expect("a directory");
        std::fs::create_dir(&spool).expect("a directory");
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .expect("a runtime");
        let scope = Scope::root("served", runtime.handle().clone(), 4);
        let clock = SystemClock::shared();
        let served = BareRoot::open(&root, &spool, Pushes::Allowed, scope, clock);
        let fetches = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&fetches);
        let held = Arc::<tokio::sync::RwLock<()>>::default();
        let gate = Arc::clone(&held);
        let count = middleware::from_fn(move |request: Request, next: Next| {
            let uri = request.uri().to_string();
            if uri.ends_with("/info/refs?service=git-upload-pack") {
                counted.fetch_add(1, Ordering::SeqCst);
            }
            let gate = Arc::clone(&gate);
            async move {
                drop(gate.read().await);
                next.run(request).await
            }
        });
        let router = http::router(served.expect("a root")).layer(count);
        let listener = runtime
            .block_on(tokio::net::TcpListener::bind("127.0.0.1:0"))
            .expect("a port");
        let url = format!("http://{}", listener.local_addr().expect("an address"));
        runtime.spawn(async move { axum::serve(listener, router).await });
        Self {
            url,
            root,
            fetches,
            held,
            runtime: Some(runtime),
        }
    }

    /// Makes a repository of this name with the contents of the work tree; returns its URL.
    pub(super) fn put(&self, tree: &Path, name: &str) -> String {
        let tree = tree.to_str().expect("text");
        git(&self.root, &["clone", "-q", "--mirror", tree, name]);
        format!("{}/{name}", self.url)
    }

    fn fetches(&self) -> usize {
        self.fetches.load(Ordering::SeqCst)
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

pub(super) fn mirrors_path() -> String {
    format!("/api/henge/v1/repos/{REPO}/mirrors")
}

/// Makes a mirror; returns its id.
#[track_caller]
pub(super) fn add(ring: &Ring, node: u64, kind: &str, url: &str) -> String {
    let body = json!({"kind": kind, "url": url, "interval_s": 3600}).to_string();
    let answer = ring.request(node, "POST", &mirrors_path(), &body);
    let (status, body) = answer.expect("an answer");
    assert_eq!(status, 201, "{body}");
    assert!(!body.contains("hunter2"), "{body}");
    let (from, to) = (
        body.find('{').expect("JSON"),
        body.rfind('}').expect("JSON"),
    );
    let mirror: Value = serde_json::from_str(&body[from..=to]).expect("JSON");
    mirror["id"].as_str().expect("an id").to_owned()
}

fn look(ring: &Ring, node: u64, id: &str) -> Option<Value> {
    let (status, body) = ring.get(node, &format!("{}/{id}", mirrors_path()))?;
    let (from, to) = (body.find('{')?, body.rfind('}')?);
    (status == 200).then(|| serde_json::from_str(&body[from..=to]).expect("JSON"))
}

/// Makes the mirror due now.
pub(super) fn sync(ring: &Ring, node: u64, id: &str) {
    let path = format!("{}/{id}/sync", mirrors_path());
    wait("a leader that takes the request", || {
        let answer = ring.request(node, "POST", &path, "{}");
        answer.is_some_and(|(status, _)| status == 202)
    });
}

/// Waits until the mirror has ended a run after this one; returns the mirror.
pub(super) fn ended(ring: &Ring, node: u64, id: &str, before: &Value) -> Value {
    let mut last = Value::Null;
    wait("a run of the mirror to end", || {
        let Some(mirror) = look(ring, node, id) else {
            return false;
        };
        last = mirror.clone();
        mirror["running"] == false && mirror["last"] != Value::Null && mirror["last"] != *before
    });
    last
}

pub(super) fn create(ring: &Ring, node: u64) {
    let body = json!({"owner": "admin", "name": "demo"}).to_string();
    let answer = ring.request(node, "POST", "/api/henge/v1/repos", &body);
    assert_eq!(answer.expect("an answer").0, 201);
}

#[test]
fn a_mirror_follows_its_source_and_another_one_what_it_follows() {
    let ring = Ring::start(2);
    let nodes = ring.nodes();
    let dir = ring.dir.path().to_owned();
    let source = Counted::start(&dir);
    let tree = work_tree(&dir, "tree");
    git(&tree, &["tag", "-a", "-m", "v1", "v1"]);
    git(&tree, &["branch", "old"]);
    let url = source.put(&tree, "from.git");
    create(&ring, nodes[0]);
    let secret = url.replace("http://", "http://me:hunter2@");
    let id = add(&ring, nodes[0], "pull", &secret);
    let first = ended(&ring, nodes[1], &id, &Value::Null);
    assert_eq!(first["last"]["outcome"], "done", "{first}");
    assert_eq!(
        (&first["last"]["changed"], &first["user"]),
        (&3.into(), &"me".into())
    );
    assert_eq!(source.fetches(), 1, "a firing comes once");
    let from = source.root.join("from.git");
    let clone = clone_checked(&ring, nodes[2], REPO, "clone-1");
    assert_eq!(contents(&clone), contents(&from));

    // The mirror takes no pushes but its own, over git or the API.
    let push = ["push", "-q", &ring.url(nodes[1], REPO), "main:refs/heads/x"];
    let refused = git_raw(&gits()[0], &tree, &push);
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(
        !refused.status.success() && said.contains("is a mirror of another one"),
        "{said}"
    );
    let delete =
        json!({"updates": [{"ref": "refs/heads/old", "old": "any", "new": null}], "atomic": false});
    let refs = format!("/api/henge/v1/repos/{REPO}/refs");
    let (status, body) = ring
        .request(nodes[0], "POST", &refs, &delete.to_string())
        .expect("an answer");
    assert_eq!(status, 409, "{body}");

    // Changes and deletions at the source appear here, and at a third repository.
    let third = source.put(&tree, "third.git");
    let copy = add(&ring, nodes[0], "push", &third);
    ended(&ring, nodes[0], &copy, &Value::Null);
    commit(&tree, "second");
    git(
        &tree,
        &["push", "-q", "-f", from.to_str().expect("text"), "main"],
    );
    git(&from, &["branch", "-D", "old"]);
    sync(&ring, nodes[2], &id);
    let second = ended(&ring, nodes[0], &id, &first["last"]);
    assert_eq!(
        (&second["last"]["outcome"], &second["last"]["changed"]),
        (&"done".into(), &2.into())
    );
    assert_eq!(source.fetches(), 2);
    let clone = clone_checked(&ring, nodes[0], REPO, "clone-2");
    assert_eq!(contents(&clone), contents(&from));
    let before = look(&ring, nodes[0], &copy).expect("the mirror")["last"].clone();
    sync(&ring, nodes[1], &copy);
    ended(&ring, nodes[0], &copy, &before);
    assert_eq!(contents(&source.root.join("third.git")), contents(&from));
    git(
        &source.root.join("third.git"),
        &["fsck", "--full", "--strict"],
    );

    // A missing remote is reported, and retried after a backoff.
    let nowhere = add(&ring, nodes[0], "push", &format!("{}/none.git", source.url));
    let failed = ended(&ring, nodes[0], &nowhere, &Value::Null);
    assert_eq!(
        (&failed["last"]["outcome"], &failed["failures"]),
        (&"failed".into(), &1.into())
    );
    let why = failed["last"]["error"].as_str().expect("a reason");
    assert!(why.contains("there is no repository at"), "{why}");
    assert!(failed["next_due_at"].as_str() > failed["last"]["ended_at"].as_str());
    for node in &nodes {
        let log = std::fs::read_to_string(ring.node_dir(*node).join("henge.log")).expect("a log");
        assert!(!log.contains("hunter2"), "node {node} told a secret");
    }
    let runs: f64 = nodes
        .iter()
        .map(|node| ring.metric(*node, "henge_repos_mirror_runs_total", "pull"))
        .sum();
    assert!((runs - 2.0).abs() < f64::EPSILON, "{runs}");
    ring.wait_equal_hashes();
}

/// Repeats a PATCH until there is a leader and the status is 200.
fn patch(ring: &Ring, node: u64, path: &str, body: &Value) {
    wait("a leader that takes the change", || {
        let answer = ring.request(node, "PATCH", path, &body.to_string());
        answer.is_some_and(|(status, _)| status == 200)
    });
}

fn default_branch(ring: &Ring, node: u64) -> String {
    let (_, body) = ring
        .get(node, &format!("/api/v1/repos/{REPO}"))
        .expect("an answer");
    let (from, to) = (body.find('{'), body.rfind('}'));
    let repo: Value =
        serde_json::from_str(&body[from.expect("JSON")..=to.expect("JSON")]).expect("JSON");
    repo["default_branch"].as_str().expect("a name").to_owned()
}

#[test]
fn a_mirror_follows_head_rests_while_archived_and_can_be_led_elsewhere() {
    let ring = Ring::start(1);
    let nodes = ring.nodes();
    let dir = ring.dir.path().to_owned();
    let source = Counted::start(&dir);
    let tree = work_tree(&dir, "tree");
    let url = source.put(&tree, "from.git");
    create(&ring, nodes[0]);
    let id = add(&ring, nodes[0], "pull", &url);
    let mirror = format!("{}/{id}", mirrors_path());
    let repo = format!("/api/v1/repos/{REPO}");
    let first = ended(&ring, nodes[0], &id, &Value::Null);
    assert_eq!(default_branch(&ring, nodes[1]), "main");

    // The source has another default branch from here on.
    let from = source.root.join("from.git");
    git(&from, &["branch", "dev", "main"]);
    git(&from, &["symbolic-ref", "HEAD", "refs/heads/dev"]);
    sync(&ring, nodes[1], &id);
    let second = ended(&ring, nodes[0], &id, &first["last"]);
    assert_eq!(second["last"]["outcome"], "done", "{second}");
    assert_eq!(default_branch(&ring, nodes[2]), "dev");
    let clone = clone_checked(&ring, nodes[2], REPO, "clone-1");
    let head = git(&clone, &["symbolic-ref", "HEAD"]);
    assert_eq!(head.trim(), "refs/heads/dev");

    // The run of an archived repository would only fail. The other mirror is due later, and the
    // most overdue one runs first.
    patch(&ring, nodes[0], &repo, &json!({"archived": true}));
    sync(&ring, nodes[0], &id);
    let third = source.put(&tree, "third.git");
    let copy = add(&ring, nodes[0], "push", &third);
    let copied = ended(&ring, nodes[0], &copy, &Value::Null);
    assert_eq!(copied["last"]["outcome"], "done", "{copied}");
    let resting = look(&ring, nodes[0], &id).expect("the mirror");
    assert_eq!(
        (&resting["last"], &resting["failures"]),
        (&second["last"], &0.into())
    );
    assert_eq!(source.fetches(), 2);
    patch(&ring, nodes[0], &repo, &json!({"archived": false}));
    let third_run = ended(&ring, nodes[0], &id, &second["last"]);
    assert_eq!(third_run["last"]["outcome"], "done", "{third_run}");

    // The mirror gets another source, and a mirror with `on_push` follows at once.
    let copy_path = format!("{}/{copy}", mirrors_path());
    patch(&ring, nodes[0], &copy_path, &json!({"on_push": true}));
    ended(&ring, nodes[0], &copy, &copied["last"]);
    commit(&tree, "second");
    let elsewhere = source.put(&tree, "elsewhere.git");
    patch(
        &ring,
        nodes[2],
        &mirror,
        &json!({"url": elsewhere, "interval_s": 7200, "replace": true}),
    );
    let led = ended(&ring, nodes[0], &id, &third_run["last"]);
    assert_eq!(
        (&led["url"], &led["interval_s"], &led["last"]["outcome"]),
        (&elsewhere.into(), &7200.into(), &"done".into())
    );
    let there = contents(&source.root.join("elsewhere.git"));
    let clone = clone_checked(&ring, nodes[1], REPO, "clone-2");
    assert_eq!(contents(&clone), there);
    wait("what was pulled to be pushed on", || {
        contents(&source.root.join("third.git")) == there
    });
    ring.wait_equal_hashes();
}

/// Regression: the run used the settings from before the change, and the change waited for the next
/// interval.
#[test]
fn what_is_changed_while_a_mirror_runs_is_done_when_that_run_has_ended() {
    let ring = Ring::start(1);
    let nodes = ring.nodes();
    let dir = ring.dir.path().to_owned();
    let source = Counted::start(&dir);
    let tree = work_tree(&dir, "tree");
    let url = source.put(&tree, "from.git");
    commit(&tree, "second");
    let elsewhere = source.put(&tree, "elsewhere.git");
    let tip = git(&tree, &["rev-parse", "main"]);
    create(&ring, nodes[0]);
    let held = source.held.blocking_write();
    let id = add(&ring, nodes[0], "pull", &url);
    wait("a run to ask its source", || source.fetches() == 1);
    let mirror = format!("{}/{id}", mirrors_path());
    let led = json!({"url": elsewhere, "replace": true});
    patch(&ring, nodes[1], &mirror, &led);
    drop(held);
    wait("a run that goes where the mirror was led", || {
        let branch = ring.get(nodes[2], &format!("/api/v1/repos/{REPO}/branches/main"));
        branch.is_some_and(|(status, body)| status == 200 && body.contains(tip.trim()))
    });
    assert_eq!(source.fetches(), 2);
    let last = ended(&ring, nodes[0], &id, &Value::Null);
    assert_eq!(last["last"]["outcome"], "done", "{last}");
}

#[test]
fn private_addresses_are_not_followed_unless_the_node_allows_it() {
    let mut ring = Ring::start(1);
    let nodes = ring.nodes();
    let source = Counted::start(ring.dir.path());
    create(&ring, nodes[0]);
    for node in &nodes {
        ring.kill(*node);
    }
    for node in &nodes {
        ring.restart_with(*node, &[("HENGE_MIRRORS_ALLOW_PRIVATE_ADDRESSES", "false")]);
    }
    for node in &nodes {
        ring.wait_ready(*node);
    }
    let id = add(&ring, nodes[0], "pull", &format!("{}/from.git", source.url));
    let failed = ended(&ring, nodes[0], &id, &Value::Null);
    let why = failed["last"]["error"].as_str().expect("a reason");
    assert!(why.contains("allow_private_addresses"), "{why}");
    assert_eq!(source.fetches(), 0, "it was connected to");
}

/// Ends the leader at `failpoint` of a run; returns the number of requests to the source.
fn survives(failpoint: &str) -> usize {
    let mut ring = Ring::start(1);
    let nodes = ring.nodes();
    let dir = ring.dir.path().to_owned();
    let source = Counted::start(&dir);
    let tree = work_tree(&dir, "tree");
    let url = source.put(&tree, "from.git");
    create(&ring, nodes[0]);
    let leader = ring.leader_of(REPO, &nodes);
    let pid = ring.pid(leader).expect("running");
    let survivors: Vec<u64> = nodes
        .iter()
        .copied()
        .filter(|node| *node != leader)
        .collect();
    ring.arm(leader, failpoint);
    let id = add(&ring, survivors[0], "pull", &url);
    wait("the failpoint to end the leader", || !alive(pid));
    let done = ended(&ring, survivors[0], &id, &Value::Null);
    assert_eq!(done["last"]["outcome"], "done", "{done}");
    let asked = source.fetches();
    let clone = clone_checked(&ring, survivors[1], REPO, "clone");
    assert_eq!(contents(&clone), contents(&source.root.join("from.git")));
    ring.restart(leader);
    ring.wait_ready(leader);
    ring.wait_equal_hashes();
    assert_eq!(source.fetches(), asked, "a firing that was had came again");
    asked
}

#[test]
fn a_firing_whose_leader_is_lost_before_it_began_to_work_comes_once() {
    assert_eq!(survives("mirror.begun"), 1);
}

#[test]
fn a_firing_whose_leader_is_lost_before_its_last_word_is_taken_over() {
    // The work was done and not reported: the next run asks the source once more, and changes
    // nothing.
    assert_eq!(survives("mirror.worked"), 2);
}
