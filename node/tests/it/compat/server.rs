//! The two kinds of servers.

use std::path::PathBuf;
use std::sync::{Mutex, OnceLock};

use crate::process::{Running, command};
use crate::ring::harness::Ring;

use super::cell::{git, ok};

/// A server with room for repositories.
pub(super) struct Server {
    kind: Kind,
    /// The outcome of making the repository with many refs, set at its first use.
    many_refs: OnceLock<Result<(), String>>,
}

enum Kind {
    Bare {
        /// Declared before the directory that it serves, so that it ends first.
        _running: Mutex<Running>,
        root: tempfile::TempDir,
        url: String,
    },
    Ring(Box<Ring>),
}

impl Server {
    pub(super) fn bare() -> Self {
        let root = tempfile::tempdir().expect("a folder");
        let mut serve = command(&["serve-bare", "--listen", "127.0.0.1:0", "--allow-push"]);
        serve.arg(root.path());
        let mut running = Running::start(serve);
        running.wait_for_line("ready");
        let words = running.seen.iter().flat_map(|line| line.split(' '));
        let url = words.into_iter().find(|word| word.starts_with("http"));
        let url = url.expect("a URL").trim_end_matches("/PATH").to_owned();
        Self::new(Kind::Bare {
            _running: Mutex::new(running),
            root,
            url,
        })
    }

    pub(super) fn ring() -> Self {
        Self::new(Kind::Ring(Box::new(Ring::start(4))))
    }

    const fn new(kind: Kind) -> Self {
        Self {
            kind,
            many_refs: OnceLock::new(),
        }
    }

    pub(super) const fn many_refs(&self) -> &OnceLock<Result<(), String>> {
        &self.many_refs
    }

    /// The repository on disk, if it is a plain one.
    pub(super) fn on_disk(&self, repo: &str) -> Option<PathBuf> {
        match &self.kind {
            Kind::Bare { root, .. } => Some(root.path().join(format!("{repo}.git"))),
            Kind::Ring(_) => None,
        }
    }

    pub(super) const fn name(&self) -> &'static str {
        match &self.kind {
            Kind::Bare { .. } => "henge serve-bare",
            Kind::Ring(_) => "three nodes",
        }
    }

    /// Makes an empty repository.
    pub(super) fn create(&self, repo: &str) -> Result<(), String> {
        self.create_of(repo, "sha1")
    }

    /// Makes an empty repository of an object format.
    pub(super) fn create_of(&self, repo: &str, format: &str) -> Result<(), String> {
        match &self.kind {
            Kind::Bare { root, .. } => {
                let name = format!("{repo}.git");
                let format = format!("--object-format={format}");
                let init = ["init", "-q", "--bare", "-b", "main", &format, &name];
                git(root.path(), &init)?;
                let settings = ["config", "uploadpack.allowFilter", "true"];
                git(&root.path().join(name), &settings).map(drop)
            }
            Kind::Ring(ring) => {
                let body = format!("{{\"name\":\"{repo}\",\"object_format_name\":\"{format}\"}}");
                let answer = ring.request(ring.nodes()[0], "POST", "/api/v1/user/repos", &body);
                let (status, body) = answer.ok_or("the node does not answer")?;
                ok(status == 201, || body)
            }
        }
    }

    /// The URL for the client under test.
    pub(super) fn url(&self, repo: &str) -> String {
        self.url_at(0, repo)
    }

    /// The URL through another node.
    pub(super) fn other_url(&self, repo: &str) -> String {
        self.url_at(1, repo)
    }

    fn url_at(&self, offset: usize, repo: &str) -> String {
        match &self.kind {
            Kind::Bare { url, .. } => format!("{url}/{repo}.git"),
            Kind::Ring(ring) => {
                let nodes = ring.nodes();
                // Repositories are spread over the nodes.
                let start = repo.bytes().map(usize::from).sum::<usize>();
                let node = nodes[(start + offset) % nodes.len()];
                ring.url(node, &format!("admin/{repo}"))
            }
        }
    }
}
