//! Repositories that change while git works with them: visibility, archive, names, protected refs.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Output, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::Duration;

use super::harness::{Ring, clone_checked, commit, git, git_raw, gits, henge, wait, work_tree};

const REPO: &str = "admin/demo";

fn said(output: &Output) -> String {
    let all = [output.stdout.clone(), output.stderr.clone()].concat();
    String::from_utf8_lossy(&all).into_owned()
}

/// Runs `henge repo …` against a node.
fn cli(ring: &Ring, node: u64, args: &[&str]) -> Output {
    henge()
        .arg("repo")
        .args(args)
        .args(["--url", &format!("http://{}", ring.address(node))])
        .args(["--token", ring.token()])
        .output()
        .expect("henge runs")
}

#[track_caller]
fn cli_ok(ring: &Ring, node: u64, args: &[&str]) -> String {
    let output = cli(ring, node, args);
    assert!(output.status.success(), "{args:?}: {}", said(&output));
    said(&output)
}

/// A ring with `admin/demo`, pushed from the work tree.
fn pushed() -> (Ring, std::path::PathBuf) {
    let ring = Ring::start(2);
    let tree = work_tree(ring.dir.path(), "tree");
    git(
        &tree,
        &["push", "-q", &ring.url(ring.nodes()[0], REPO), "main"],
    );
    (ring, tree)
}

/// The status and body of a request without a token.
fn anonymously(ring: &Ring, node: u64, method: &str, path: &str) -> (u16, String) {
    let mut stream = TcpStream::connect(ring.address(node)).expect("the node listens");
    let timeout = Some(Duration::from_secs(30));
    stream.set_read_timeout(timeout).expect("a timeout");
    let head = format!(
        "{method} {path} HTTP/1.1\r\nHost: x\r\nContent-Type: application/x-git-upload-pack-request\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
    );
    stream.write_all(head.as_bytes()).expect("sent");
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).expect("an answer");
    let answer = String::from_utf8_lossy(&answer).into_owned();
    let status = answer.split_whitespace().nth(1).expect("a status");
    (status.parse().expect("a number"), answer)
}

/// A response without its request id and its date, for comparisons.
fn comparable(answer: &str) -> String {
    let mine = |line: &&str| {
        let line = line.to_ascii_lowercase();
        !line.starts_with("x-request-id:") && !line.starts_with("date:")
    };
    answer.lines().filter(mine).collect::<Vec<_>>().join("\n")
}

#[test]
fn public_repositories_are_fetched_without_a_token_and_private_ones_look_like_none() {
    let (ring, tree) = pushed();
    let nodes = ring.nodes();
    // A repository that a push made is private until it is published.
    let hidden = ring.open_url(nodes[1], REPO);
    for stock in gits() {
        let refused = git_raw(&stock, &tree, &["ls-remote", &hidden]);
        let words = said(&refused);
        let asked = words.contains("could not read Username") || words.contains("terminal prompts");
        assert!(!refused.status.success() && asked, "{words}");
    }
    let show = cli_ok(&ring, nodes[0], &["show", REPO]);
    assert!(show.contains("visibility      private"), "{show}");
    let same = |path: &dyn Fn(&str) -> String, method: &str| {
        let (status, closed) = anonymously(&ring, nodes[2], method, &path("demo"));
        let (_, missing) = anonymously(&ring, nodes[2], method, &path("none"));
        assert_eq!(status, 401, "{closed}");
        assert_eq!(comparable(&closed), comparable(&missing));
        assert!(
            closed
                .to_ascii_lowercase()
                .contains("www-authenticate: basic"),
            "{closed}"
        );
    };
    same(
        &|name| format!("/admin/{name}.git/info/refs?service=git-upload-pack"),
        "GET",
    );
    same(&|name| format!("/admin/{name}.git/git-upload-pack"), "POST");
    same(&|name| format!("/api/v1/repos/admin/{name}"), "GET");
    same(
        &|name| format!("/api/v1/repos/admin/{name}/branches"),
        "GET",
    );

    cli_ok(
        &ring,
        nodes[0],
        &["edit", REPO, "--public", "--description", "for all"],
    );
    for (at, stock) in gits().iter().enumerate() {
        for (version, node) in [(0, nodes[0]), (1, nodes[1]), (2, nodes[2])] {
            let name = format!("clone-{at}-{version}");
            let protocol = format!("protocol.version={version}");
            let url = ring.open_url(node, REPO);
            let args = ["-c", &protocol, "clone", "-q", &url, &name];
            let cloned = git_raw(stock, ring.dir.path(), &args);
            assert!(cloned.status.success(), "{}", said(&cloned));
        }
        // A public repository can be read without a token, and changed only with one.
        let push = git_raw(
            stock,
            &tree,
            &["push", &ring.open_url(nodes[0], REPO), "main:x"],
        );
        assert!(!push.status.success(), "{}", said(&push));
    }
    let (status, repo) = anonymously(&ring, nodes[1], "GET", "/api/v1/repos/admin/demo");
    assert!(status == 200 && repo.contains("for all"), "{repo}");
    for path in [
        "/metrics",
        "/api/henge/v1/cluster",
        "/api/henge/v1/repos/admin/demo/stats",
        "/api/v1/repos/search",
        "/api/v1/repos/admin/demo/branch_protections",
    ] {
        assert_eq!(anonymously(&ring, nodes[0], "GET", path).0, 401, "{path}");
    }
    cli_ok(&ring, nodes[2], &["edit", REPO, "--private"]);
    for node in nodes {
        let refused = git_raw(
            &gits()[0],
            &tree,
            &["ls-remote", &ring.open_url(node, REPO)],
        );
        assert!(!refused.status.success(), "node {node} still shows it");
    }
    ring.wait_equal_hashes();
}

#[test]
fn settings_are_edited_from_the_command_line() {
    let (ring, tree) = pushed();
    let nodes = ring.nodes();
    git(
        &tree,
        &["push", "-q", &ring.url(nodes[0], REPO), "main:trunk"],
    );
    let args = [
        "edit",
        REPO,
        "--default-branch",
        "trunk",
        "--topic",
        "git",
        "--topic",
        "c-3",
        "--description",
        "a line",
    ];
    cli_ok(&ring, nodes[1], &args);
    let show = cli_ok(&ring, nodes[2], &["show", REPO]);
    for line in [
        "default branch  trunk",
        "topics          c-3 git",
        "description     a line",
    ] {
        assert!(show.contains(line), "{line}: {show}");
    }
    let clone = ring.dir.path().join("clone");
    git(
        ring.dir.path(),
        &["clone", "-q", &ring.url(nodes[2], REPO), "clone"],
    );
    assert_eq!(
        git(&clone, &["symbolic-ref", "--short", "HEAD"]).trim(),
        "trunk"
    );
    let missing = cli(
        &ring,
        nodes[0],
        &["edit", REPO, "--default-branch", "missing"],
    );
    assert!(
        said(&missing).contains("there is no branch \"missing\""),
        "{}",
        said(&missing)
    );
    let nothing = cli(&ring, nodes[0], &["edit", REPO]);
    assert_eq!(nothing.status.code(), Some(2), "{}", said(&nothing));
    cli_ok(&ring, nodes[0], &["edit", REPO, "--topic", ""]);
    let repo = ring.json(nodes[1], "/api/v1/repos/admin/demo");
    assert_eq!(repo["topics"], serde_json::json!([]));
    ring.wait_equal_hashes();
}

/// Pushes go on through all nodes while the repository is archived: none that begins after the
/// acknowledgement is accepted.
#[test]
fn no_push_is_taken_once_the_archive_was_acknowledged() {
    let (ring, tree) = pushed();
    let ring = Arc::new(ring);
    let nodes = ring.nodes();
    let archived = Arc::new(AtomicBool::new(false));
    let stop = Arc::new(AtomicBool::new(false));
    let pushers: Vec<_> = nodes
        .iter()
        .map(|node| {
            let (ring, node) = (Arc::clone(&ring), *node);
            let (archived, stop) = (Arc::clone(&archived), Arc::clone(&stop));
            let name = format!("pusher-{node}");
            let tree = ring.dir.path().join(&name);
            git(
                ring.dir.path(),
                &["clone", "-q", &ring.url(node, REPO), &name],
            );
            thread::spawn(move || {
                let (mut taken, mut refused) = (0, 0);
                while !stop.load(Ordering::SeqCst) {
                    let after = archived.load(Ordering::SeqCst);
                    commit(&tree, &format!("{name}-{taken}-{refused}"));
                    let to = format!("main:{name}");
                    let push = git_raw(&gits()[0], &tree, &["push", &ring.url(node, REPO), &to]);
                    let words = said(&push);
                    assert!(!(push.status.success() && after), "taken late: {words}");
                    match push.status.success() {
                        true => taken += 1,
                        false => {
                            assert!(words.contains("archived"), "{words}");
                            refused += 1;
                        }
                    }
                }
                (taken, refused)
            })
        })
        .collect();
    wait("a few pushes", || {
        let refs = ring.json(nodes[0], "/api/v1/repos/admin/demo/branches");
        refs.as_array().is_some_and(|refs| refs.len() == 4)
    });
    cli_ok(&ring, nodes[1], &["archive", REPO]);
    archived.store(true, Ordering::SeqCst);
    let before = ring.json(nodes[2], "/api/v1/repos/admin/demo/branches");
    assert_eq!(
        ring.json(nodes[2], "/api/v1/repos/admin/demo")["archived"],
        true
    );
    for node in &nodes {
        clone_checked(&ring, *node, REPO, &format!("read-{node}"));
        cli_ok(&ring, *node, &["gc", REPO, "--aggressive", "--wait", "0"]);
    }
    stop.store(true, Ordering::SeqCst);
    for pusher in pushers {
        let (taken, _) = pusher.join().expect("a pusher without a complaint");
        assert!(taken > 0);
    }
    let after = ring.json(nodes[2], "/api/v1/repos/admin/demo/branches");
    assert_eq!(before, after);
    let show = cli_ok(&ring, nodes[0], &["show", REPO]);
    assert!(show.contains("ready, archived"), "{show}");
    cli_ok(&ring, nodes[0], &["unarchive", REPO]);
    git(
        &tree,
        &["push", "-q", &ring.url(nodes[2], REPO), "main:again"],
    );
    ring.wait_equal_hashes();
}

/// A proxy between git and a node. It holds back git's bytes from the first chunk with `mark` until
/// the test goes on.
struct Gate {
    port: u16,
    reached: mpsc::Receiver<()>,
    go: mpsc::SyncSender<()>,
}

impl Gate {
    fn before(mark: &'static [u8], to: String) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let port = listener.local_addr().expect("an address").port();
        let (reach, reached) = mpsc::sync_channel(1);
        let (go, gone_on) = mpsc::sync_channel(1);
        thread::spawn(move || {
            let mut closed = Some((reach, gone_on));
            for client in listener.incoming() {
                let client = client.expect("git connects");
                let node = TcpStream::connect(&to).expect("the node listens");
                let (from_node, to_client) = (copy_of(&node), copy_of(&client));
                thread::spawn(move || pass(from_node, to_client, |_| {}));
                pass(client, node, |chunk| {
                    if holds(chunk, mark)
                        && let Some((reach, gone_on)) = closed.take()
                    {
                        reach.send(()).expect("the test waits");
                        gone_on.recv().expect("the test goes on");
                    }
                });
            }
        });
        Self { port, reached, go }
    }

    fn url(&self, ring: &Ring, repo: &str) -> String {
        format!(
            "http://admin:{}@127.0.0.1:{}/{repo}.git",
            ring.token(),
            self.port
        )
    }
}

fn copy_of(stream: &TcpStream) -> TcpStream {
    stream.try_clone().expect("a second handle")
}

fn holds(chunk: &[u8], mark: &[u8]) -> bool {
    chunk.windows(mark.len()).any(|window| window == mark)
}

fn pass(mut from: TcpStream, mut to: TcpStream, mut before: impl FnMut(&[u8])) {
    let mut buffer = [0; 64 * 1024];
    while let Ok(read @ 1..) = from.read(&mut buffer) {
        before(&buffer[..read]);
        if to.write_all(&buffer[..read]).is_err() {
            break;
        }
    }
    to.shutdown(Shutdown::Write).ok();
}

/// Runs git through a gate, calls `meanwhile` while git is held back, and expects git to succeed.
fn while_held_back(
    ring: &Ring,
    mark: &'static [u8],
    at: &Path,
    args: &dyn Fn(&str) -> Vec<String>,
    meanwhile: impl FnOnce(),
) {
    let gate = Gate::before(mark, ring.address(ring.nodes()[0]));
    let running = std::process::Command::new(&gits()[0])
        .args(args(&gate.url(ring, REPO)))
        .current_dir(at)
        .env("GIT_TERMINAL_PROMPT", "0")
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("git starts");
    let reached = gate.reached.recv_timeout(Duration::from_secs(60));
    reached.expect("git comes to the gate");
    meanwhile();
    gate.go.send(()).expect("the gate is closed");
    let output = running.wait_with_output().expect("git ends");
    assert!(output.status.success(), "{}", said(&output));
}

#[test]
fn clones_and_pushes_in_flight_outlive_a_rename() {
    let (ring, tree) = pushed();
    let nodes = ring.nodes();
    let words = |words: &[&str]| {
        words
            .iter()
            .map(|word| (*word).to_owned())
            .collect::<Vec<_>>()
    };
    // The refs were listed under the old name, and the pack comes under it too.
    while_held_back(
        &ring,
        b"command=fetch",
        ring.dir.path(),
        &|url| words(&["clone", "-q", url, "in-flight"]),
        || {
            cli_ok(&ring, nodes[1], &["rename", REPO, "moved"]);
        },
    );
    let tip = git(&tree, &["rev-parse", "main"]);
    let clone = ring.dir.path().join("in-flight");
    assert_eq!(git(&clone, &["rev-parse", "main"]), tip);
    // The refs were advertised under the old name, and the owner changes before the pack is sent.
    commit(&tree, "second");
    while_held_back(
        &ring,
        b"POST /admin/demo.git/git-receive-pack",
        &tree,
        &|url| words(&["push", "-q", url, "main"]),
        || {
            cli_ok(&ring, nodes[2], &["transfer", "admin/moved", "team"]);
        },
    );
    let tip = git(&tree, &["rev-parse", "main"]);
    for node in &nodes {
        for name in [REPO, "admin/moved", "team/moved"] {
            let refs = git(&tree, &["ls-remote", &ring.url(*node, name), "main"]);
            assert!(refs.starts_with(tip.trim()), "{name}: {refs}");
        }
    }
    let show = cli_ok(&ring, nodes[0], &["show", REPO]);
    assert!(show.contains("repository      team/moved"), "{show}");
    assert!(
        show.contains("former names    admin/demo admin/moved"),
        "{show}"
    );

    // A push under the old name is held back while another repository takes that name: it reaches
    // neither repository.
    commit(&tree, "third");
    let gate = Gate::before(
        b"POST /admin/demo.git/git-receive-pack",
        ring.address(nodes[0]),
    );
    let late = std::process::Command::new(&gits()[0])
        .args(["push", &gate.url(&ring, REPO), "main"])
        .current_dir(&tree)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("git starts");
    let reached = gate.reached.recv_timeout(Duration::from_secs(60));
    reached.expect("git comes to the gate");
    cli_ok(&ring, nodes[1], &["create", REPO]);
    for node in &nodes {
        let refs = git(&tree, &["ls-remote", &ring.url(*node, REPO)]);
        assert_eq!(
            refs.trim(),
            "",
            "node {node} shows what had the name before"
        );
    }
    gate.go.send(()).expect("the gate is closed");
    let late = late.wait_with_output().expect("git ends");
    assert!(!late.status.success(), "{}", said(&late));
    let refs = git(&tree, &["ls-remote", &ring.url(nodes[0], REPO)]);
    assert_eq!(refs.trim(), "", "{}", said(&late));
    for node in &nodes {
        let refs = git(
            &tree,
            &["ls-remote", &ring.url(*node, "team/moved"), "main"],
        );
        assert!(refs.starts_with(tip.trim()), "{refs}");
    }
    git(
        &tree,
        &["push", "-q", &ring.url(nodes[2], "team/moved"), "main"],
    );
    ring.wait_equal_hashes();
}

#[test]
fn protected_refs_refuse_in_git_s_words() {
    let (ring, tree) = pushed();
    let nodes = ring.nodes();
    cli_ok(&ring, nodes[0], &["protect", REPO, "main"]);
    cli_ok(&ring, nodes[0], &["protect", REPO, "main"]);
    cli_ok(&ring, nodes[1], &["protect", REPO, "release/*"]);
    let show = cli_ok(&ring, nodes[2], &["show", REPO]);
    assert!(show.contains("protected refs  main release/*"), "{show}");
    commit(&tree, "second");
    let url = ring.url(nodes[0], REPO);
    git(&tree, &["push", "-q", &url, "main", "main:release/1"]);
    for stock in gits() {
        for (node, refspec, words) in [
            (
                nodes[0],
                "+main~1:main",
                "protected branch: no force push (main)",
            ),
            (nodes[1], ":main", "protected branch: no deletion (main)"),
            (
                nodes[2],
                ":release/1",
                "protected branch: no deletion (release/*)",
            ),
        ] {
            let url = ring.url(node, REPO);
            let refused = git_raw(&stock, &tree, &["push", &url, refspec]);
            assert!(!refused.status.success(), "{refspec}");
            assert!(said(&refused).contains(words), "{}", said(&refused));
        }
    }
    // The leader of the shard dies: the next one has the patterns.
    let mut ring = ring;
    let leader = ring.leader_of(REPO, &nodes);
    ring.kill(leader);
    let left: Vec<_> = nodes
        .iter()
        .copied()
        .filter(|node| *node != leader)
        .collect();
    let url = ring.url(left[0], REPO);
    let refused = git_raw(&gits()[0], &tree, &["push", &url, "+main~1:main"]);
    let words = said(&refused);
    assert!(words.contains("no force push (main)"), "{words}");
    ring.restart(leader);
    ring.wait_ready(leader);
    cli_ok(&ring, left[1], &["unprotect", REPO, "main"]);
    let unknown = cli(&ring, left[0], &["unprotect", REPO, "main"]);
    assert!(!unknown.status.success(), "{}", said(&unknown));
    git(
        &tree,
        &[
            "push",
            "-q",
            "--force",
            &ring.url(leader, REPO),
            "main~1:main",
        ],
    );
    ring.wait_equal_hashes();
}
