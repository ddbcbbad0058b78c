//! Old copies of a data directory, moved directories, and configurations of another cluster.
//!
//! The story: a node was stopped and its directory copied. The node was started again and pushed
//! to; then the copy replaced the directory. Either the node was ready and answered every fetch
//! with 503 forever. Or, after the next failover, acknowledged pushes were gone and two nodes
//! showed different values of one ref.

use std::fs;
use std::io::Read;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Instant;

use super::harness::{PATIENCE, Ring, clone_checked, commit, git, henge, wait, work_tree};

/// Runs a node that must end by itself; returns its exit code and its standard error.
fn run_to_its_end(dir: &Path, arguments: &[&str]) -> (Option<i32>, String) {
    let mut child = henge()
        .args(["node", "run", "--config"])
        .arg(dir.join("node.toml"))
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .expect("henge starts");
    let mut stderr = child.stderr.take().expect("piped");
    let reader = std::thread::spawn(move || {
        let mut said = String::new();
        stderr.read_to_string(&mut said).expect("text");
        said
    });
    let started = Instant::now();
    let status = loop {
        if let Some(status) = child.try_wait().expect("a child's state") {
            break status;
        }
        if started.elapsed() > PATIENCE {
            child.kill().expect("killed");
            panic!("not refused:\n{}", reader.join().expect("read"));
        }
        std::thread::sleep(std::time::Duration::from_millis(20));
    };
    (status.code(), reader.join().expect("read"))
}

fn shell(program: &str, arguments: &[&str]) {
    let status = Command::new(program).args(arguments).status();
    assert!(
        status.expect("runs").success(),
        "{program} {arguments:?} failed"
    );
}

fn text(path: &Path) -> &str {
    path.to_str().expect("a path")
}

fn copy(from: &Path, to: &Path) {
    shell("cp", &["-a", text(from), text(to)]);
}

/// Writes a copy's bytes into the files of the directory, as a disk that is rolled back does: no
/// inode changes.
fn roll_back(dir: &Path, copy: &Path) {
    for entry in fs::read_dir(dir).expect("listed") {
        let path = entry.expect("an entry").path();
        match path.file_name().and_then(|name| name.to_str()) {
            Some("wal") => {}
            _ if path.is_dir() => fs::remove_dir_all(&path).expect("removed"),
            _ => fs::remove_file(&path).expect("removed"),
        }
    }
    for entry in fs::read_dir(dir.join("wal")).expect("listed") {
        let path = entry.expect("an entry").path();
        let name = path.file_name().expect("a name");
        if !copy.join("wal").join(name).is_file() {
            fs::remove_file(&path).expect("removed");
        }
    }
    shell("cp", &["-a", text(&copy.join(".")), text(dir)]);
}

fn tip(ring: &Ring, tree: &Path, node: u64) -> String {
    let url = ring.url(node, "admin/demo");
    let line = git(tree, &["ls-remote", &url, "refs/heads/main"]);
    line.split_whitespace().next().unwrap_or("none").to_owned()
}

#[test]
fn an_old_copy_of_a_data_directory_is_refused() {
    let mut ring = Ring::start(2);
    let tree = work_tree(ring.dir.path(), "tree");
    git(&tree, &["push", "-q", &ring.url(2, "admin/demo"), "main"]);
    let (dir, aside) = (ring.node_dir(1), ring.dir.path().join("aside"));
    ring.stop(1);
    copy(&dir, &aside);
    ring.restart(1);
    ring.wait_ready(1);
    let newest = commit(&tree, "after the copy");
    git(&tree, &["push", "-q", &ring.url(1, "admin/demo"), "main"]);
    assert_eq!(tip(&ring, &tree, 1), newest);
    ring.stop(1);
    let starts = fs::read(dir.join("starts.json")).expect("read");

    // The copy's bytes are in the original's inodes: only the members have newer data. With
    // `--moved` the node queries them, too.
    for arguments in [&[][..], &["--moved"][..]] {
        roll_back(&dir, &aside);
        let (code, said) = run_to_its_end(&dir, arguments);
        assert_eq!(code, Some(1), "{said}");
        assert!(said.contains("it is an old copy"), "{said}");
    }

    // A disk that lost flushed data, but not the record of its starts: the leaders have the
    // acknowledged indexes.
    roll_back(&dir, &aside);
    fs::write(dir.join("starts.json"), starts).expect("written");
    let (code, said) = run_to_its_end(&dir, &[]);
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("has acknowledged entry"), "{said}");

    // The copy in place of the directory.
    fs::remove_dir_all(&dir).expect("removed");
    copy(&aside, &dir);
    let (code, said) = run_to_its_end(&dir, &[]);
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("is a copy"), "{said}");

    for node in [2, 3] {
        assert_eq!(tip(&ring, &tree, node), newest);
        clone_checked(&ring, node, "admin/demo", &format!("clone-{node}"));
    }
    let last = commit(&tree, "without the copy");
    git(&tree, &["push", "-q", &ring.url(3, "admin/demo"), "main"]);
    assert_eq!(tip(&ring, &tree, 2), last);
}

#[test]
fn a_moved_directory_serves_once_it_is_answered_for() {
    let mut ring = Ring::start(2);
    let tree = work_tree(ring.dir.path(), "tree");
    git(&tree, &["push", "-q", &ring.url(2, "admin/demo"), "main"]);
    let (dir, elsewhere) = (ring.node_dir(1), ring.dir.path().join("elsewhere"));
    ring.stop(1);
    copy(&dir, &elsewhere);
    fs::remove_dir_all(&dir).expect("removed");
    fs::rename(&elsewhere, &dir).expect("renamed");
    let (code, said) = run_to_its_end(&dir, &[]);
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("--moved"), "{said}");

    ring.restart_moved(1);
    ring.wait_ready(1);
    let newest = commit(&tree, "through the moved one");
    git(&tree, &["push", "-q", &ring.url(1, "admin/demo"), "main"]);
    assert_eq!(tip(&ring, &tree, 1), newest);

    // The move is complete: after a rename within the file system, the node starts like any other.
    ring.stop(1);
    fs::rename(&dir, &elsewhere).expect("renamed");
    fs::rename(&elsewhere, &dir).expect("renamed");
    ring.restart(1);
    ring.wait_ready(1);
}

/// Votes and entries flow before a start is registered: otherwise no start could be registered.
#[test]
fn a_cluster_that_stops_as_a_whole_starts_again() {
    let mut ring = Ring::start(4);
    let tree = work_tree(ring.dir.path(), "tree");
    git(&tree, &["push", "-q", &ring.url(1, "admin/demo"), "main"]);
    for round in 0..2 {
        let nodes = ring.nodes();
        for node in &nodes {
            ring.stop(*node);
        }
        for node in &nodes {
            ring.restart(*node);
        }
        for node in &nodes {
            ring.wait_ready(*node);
        }
        let newest = commit(&tree, &format!("after stop {round}"));
        git(&tree, &["push", "-q", &ring.url(2, "admin/demo"), "main"]);
        assert_eq!(tip(&ring, &tree, 3), newest);
    }
}

/// Regression: a node with another number of shards in its configuration looked for repositories in
/// the wrong shards.
#[test]
fn a_configuration_of_another_cluster_is_refused() {
    let mut ring = Ring::start(8);
    let tree = work_tree(ring.dir.path(), "tree");
    git(&tree, &["push", "-q", &ring.url(1, "admin/demo"), "main"]);
    ring.stop(1);
    let path = ring.node_dir(1).join("node.toml");
    let right = fs::read_to_string(&path).expect("read");
    // At the value of a key of the last founder.
    let split = |key: &str| {
        let at = right.rfind(key).expect("the last founder") + key.len();
        right.split_at(at)
    };
    let (head, tail) = split("incarnation = \"");
    let other = if tail.starts_with('0') { '1' } else { '0' };
    let wiped = format!("{head}{other}{}", &tail[1..]);
    let (head, tail) = split("http = \"");
    let moved = format!("{head}{}", tail.replacen("127.0.0.1:", "localhost:", 1));
    assert_ne!(moved, right);
    for (wrong, words) in [
        (right.replace("shards = 8", "shards = 4"), "formed with 8"),
        (wiped, "names as a founder node 3"),
    ] {
        assert_ne!(wrong, right);
        fs::write(&path, wrong).expect("written");
        let (code, said) = run_to_its_end(&ring.node_dir(1), &[]);
        assert_eq!(code, Some(1), "{said}");
        assert!(said.contains(words), "{said}");
    }
    // Another address of the same founder is logged, and not used.
    fs::write(&path, moved).expect("written");
    ring.restart(1);
    ring.wait_ready(1);
    assert_eq!(tip(&ring, &tree, 1), git(&tree, &["rev-parse", "HEAD"]));
    let log = fs::read_to_string(ring.node_dir(1).join("henge.log")).expect("a log");
    assert!(
        log.contains("goes on with the addresses that the cluster knows"),
        "{log}"
    );
}

/// Regression: only the first replica of a shard began it. A node that was down when the cluster
/// was formed kept its shards without a leader forever.
#[test]
fn shards_begin_without_their_first_replica() {
    serves_with(&[1, 2]);
}

/// The same for the meta group and the first founder.
#[test]
fn a_cluster_begins_without_its_first_founder() {
    serves_with(&[2, 3]);
}

/// A new cluster of three of which only these nodes are started.
fn serves_with(started: &[u16]) {
    let dir = tempfile::tempdir().expect("a folder");
    let place = dir.path().join("ring");
    let base = crate::process::base_port();
    // A cluster that was made and not started, because a port was taken.
    let taken = std::net::TcpListener::bind(("127.0.0.1", base + 1)).expect("a port");
    let made = henge()
        .args(["dev", "--shards", "8", "--base-port", &base.to_string()])
        .arg("--dir")
        .arg(&place)
        .output()
        .expect("henge runs");
    assert!(!made.status.success());
    drop(taken);
    let mut nodes: Vec<_> = started
        .iter()
        .map(|node| {
            let config = place.join(format!("n{node}/node.toml"));
            let log = fs::File::create(dir.path().join(format!("log-{node}"))).expect("a log");
            henge()
                .args(["node", "run", "--config"])
                .arg(config)
                .stdin(Stdio::null())
                .stdout(Stdio::null())
                .stderr(log)
                .spawn()
                .expect("henge starts")
        })
        .collect();
    let ready = |node: u16| {
        let mut stream = std::net::TcpStream::connect(("127.0.0.1", base + node)).ok()?;
        let request = "GET /readyz HTTP/1.1\r\nHost: henge\r\nConnection: close\r\n\r\n";
        std::io::Write::write_all(&mut stream, request.as_bytes()).ok()?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).ok()?;
        answer.starts_with("HTTP/1.1 200").then_some(())
    };
    wait("two of three to serve every shard", || {
        started.iter().all(|node| ready(*node).is_some())
    });
    for node in &mut nodes {
        node.kill().expect("killed");
        node.wait().expect("ended");
    }
}
