//! A ring that will be flooded, and the baseline of other clients there.

use std::cell::Cell;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::MutexGuard;
use std::time::{Duration, Instant};

use crate::flood::{Memory, alone, clone_time_max};
use crate::ring::harness::{Ring, git, wait, work_tree};

/// The public repository.
pub(super) const REPO: &str = "admin/public";
/// The time-out of a health probe.
const HEALTH_TIME_MAX: Duration = Duration::from_secs(1);
/// Clones that are measured before a flood.
const ROUNDS: usize = 3;

/// A ring with a public repository, and its node that is flooded.
pub(super) struct Flooded {
    pub(super) ring: Ring,
    pub(super) node: u64,
    source: PathBuf,
    _alone: MutexGuard<'static, ()>,
}

impl Flooded {
    /// `source` makes a local repository in a directory; its branch `main` is pushed.
    pub(super) fn start(source: impl FnOnce(&Path) -> PathBuf) -> Self {
        let alone = alone();
        let ring = Ring::start(4);
        let node = ring.nodes()[0];
        let source = source(ring.dir.path());
        git(&source, &["push", "-q", &ring.url(node, REPO), "main"]);
        let public = r#"{"private":false}"#;
        let path = format!("/api/v1/repos/{REPO}");
        let (status, body) = ring.request(node, "PATCH", &path, public).expect("answers");
        assert_eq!(status, 200, "{body}");
        wait("everybody to see it", || {
            let mut stream = TcpStream::connect(ring.address(node)).expect("listens");
            let head = format!(
                "GET /{REPO}.git/info/refs?service=git-upload-pack HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
            );
            stream.write_all(head.as_bytes()).expect("sent");
            let mut answer = String::new();
            drop(stream.read_to_string(&mut answer));
            answer.starts_with("HTTP/1.1 200")
        });
        Self {
            ring,
            node,
            source,
            _alone: alone,
        }
    }

    /// The same with a repository of one commit.
    pub(super) fn start_small() -> Self {
        Self::start(|dir| work_tree(dir, "tree"))
    }

    pub(super) fn address(&self) -> SocketAddr {
        let address = self.ring.address(self.node);
        address.parse().expect("an address")
    }

    /// The commit that was pushed.
    pub(super) fn tip(&self) -> String {
        git(&self.source, &["rev-parse", "main"])
    }
}

/// The baseline of other clients at a node, measured before a flood.
pub(super) struct Usual<'a> {
    ring: &'a Ring,
    node: u64,
    repo: &'static str,
    rounds: Cell<u32>,
    clone_time: Duration,
    memory: Memory,
}

impl<'a> Usual<'a> {
    /// Measures the median of three clones of a repository, with a token, and the memory at rest.
    pub(super) fn measure(flooded: &'a Flooded, repo: &'static str) -> Self {
        let (ring, node) = (&flooded.ring, flooded.node);
        let pid = ring.pid(node).expect("it runs");
        let mut usual = Self {
            ring,
            node,
            repo,
            rounds: Cell::new(0),
            clone_time: Duration::ZERO,
            memory: Memory::of(u32::try_from(pid).expect("a pid")),
        };
        // A large pack reaches all nodes after the push has ended; until then other nodes answer.
        wait("the node to answer from its own replica", || {
            let before = usual.forwarded();
            usual.clone_and_push();
            usual.forwarded() <= before
        });
        let mut times: Vec<Duration> = (0..ROUNDS)
            .map(|_| {
                let took = usual.clone_and_push();
                usual.memory.settle();
                took
            })
            .collect();
        times.sort_unstable();
        usual.clone_time = times[ROUNDS / 2];
        usual
    }

    fn forwarded(&self) -> f64 {
        self.ring
            .metric(self.node, "henge_repos_forwarded_total", "")
    }

    /// Clones, and pushes a commit, so that the response cache does not serve the next clone.
    /// Returns the time of the clone.
    fn clone_and_push(&self) -> Duration {
        let round = self.rounds.get();
        self.rounds.set(round + 1);
        let dir = self.ring.dir.path();
        let (name, url) = (
            format!("round-{round}"),
            self.ring.url(self.node, self.repo),
        );
        let began = Instant::now();
        git(dir, &["clone", "-q", "--bare", &url, &name]);
        let took = began.elapsed();
        let clone = dir.join(&name);
        let tree = "HEAD^{tree}";
        let next = git(&clone, &["commit-tree", "-p", "HEAD", "-m", &name, tree]);
        let main = format!("{next}:refs/heads/main");
        git(&clone, &["push", "-q", "origin", &main]);
        std::fs::remove_dir_all(&clone).expect("removed");
        took
    }

    /// Checks the node's health and the bound on its memory.
    pub(super) fn assert_bounded(&self) {
        self.assert_healthy();
        self.memory.assert_bounded();
    }

    fn assert_healthy(&self) {
        for path in ["/healthz", "/readyz"] {
            let began = Instant::now();
            let (status, body) = self.ring.get(self.node, path).expect("answers");
            let took = began.elapsed();
            assert_eq!(status, 200, "{path}: {body}");
            assert!(took <= HEALTH_TIME_MAX, "{path}: {took:?}");
        }
    }

    /// The same, with a clone and a push of a client with a token.
    pub(super) fn others_go_on(&self) {
        self.assert_bounded();
        let took = self.clone_and_push();
        let usual = self.clone_time;
        assert!(
            took <= clone_time_max(usual),
            "a clone took {took:?}, usually {usual:?}"
        );
        self.assert_bounded();
    }

    /// Waits until the node has given its memory back, after the flood.
    pub(super) fn assert_calm(&self) {
        self.memory.assert_given_back();
        self.assert_healthy();
    }
}
