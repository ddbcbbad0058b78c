//! Test servers, and stock git for comparison.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::extract::Request;
use axum::http::{Response, StatusCode};
use axum::middleware::{self, Next};
use henge_git::bare::Pushes;
use henge_git::{BareRoot, Stop, http};
use henge_git_client::{
    AddressPolicy, Credentials, Error, Event, Network, Remote, RemoteUrl, Timeouts, Trust, Watch,
};
use henge_runtime::{Scope, SystemClock};
use henge_types::ObjectFormat;

const GITS: [&str; 2] = ["/usr/local/bin/git", "/usr/bin/git"];

/// Every git on this machine; reports loudly which ones are missing.
pub(crate) fn gits() -> Vec<PathBuf> {
    let gits: Vec<PathBuf> = GITS.iter().map(PathBuf::from).collect();
    let found = gits.into_iter().filter(|git| {
        let there = git.is_file();
        if !there {
            eprintln!("NOT CHECKED: {} is missing on this machine", git.display());
        }
        there
    });
    let found: Vec<_> = found.collect();
    assert!(
        !found.is_empty(),
        "no git on this machine: nothing was checked"
    );
    found
}

/// Runs git in `folder`; returns its output without the trailing newline.
#[track_caller]
pub(crate) fn git(program: &Path, folder: &Path, args: &[&str]) -> String {
    let output = Command::new(program)
        .args(args)
        .current_dir(folder)
        .env_clear()
        .env("HOME", folder)
        .env("PATH", "/usr/bin:/bin")
        .env("GIT_CONFIG_NOSYSTEM", "1")
        .env("GIT_AUTHOR_NAME", "a")
        .env("GIT_AUTHOR_EMAIL", "a@example.com")
        .env("GIT_COMMITTER_NAME", "a")
        .env("GIT_COMMITTER_EMAIL", "a@example.com")
        .stdin(Stdio::null())
        .output()
        .unwrap();
    assert!(
        output.status.success(),
        "git {args:?}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8(output.stdout)
        .unwrap()
        .trim_end()
        .to_owned()
}

/// A repository with a work tree, branches, tags of both kinds, notes and a pull request.
pub(crate) fn project(program: &Path, folder: &Path) -> PathBuf {
    project_of(program, folder, ObjectFormat::Sha1)
}

/// The same with objects of this format.
pub(crate) fn project_of(program: &Path, folder: &Path, format: ObjectFormat) -> PathBuf {
    let work = folder.join("work");
    std::fs::create_dir(&work).unwrap();
    let format = format!("--object-format={format}");
    git(program, &work, &["init", "-q", "-b", "trunk", &format]);
    for number in 0..12 {
        let text: String = (0..200)
            .map(|line| format!("{number} {}\n", line * number))
            .collect();
        std::fs::write(work.join(format!("f{}", number % 3)), text).unwrap();
        git(program, &work, &["add", "."]);
        git(
            program,
            &work,
            &["commit", "-q", "-m", &format!("c{number}")],
        );
    }
    git(program, &work, &["branch", "dev", "HEAD~3"]);
    git(program, &work, &["tag", "light", "HEAD~1"]);
    git(program, &work, &["tag", "-a", "-m", "v1", "v1", "HEAD~2"]);
    git(program, &work, &["notes", "add", "-m", "noted"]);
    git(
        program,
        &work,
        &["update-ref", "refs/pull/1/head", "HEAD~4"],
    );
    git(
        program,
        &work,
        &["update-ref", "refs/remotes/origin/x", "HEAD~5"],
    );
    work
}

/// The refs of a repository on disk that a copy has.
pub(crate) fn refs(program: &Path, repository: &Path) -> String {
    let all = git(
        program,
        repository,
        &["for-each-ref", "--format=%(objectname) %(refname)"],
    );
    let kept = all
        .lines()
        .filter(|line| !line.contains("refs/pull/") && !line.contains("refs/remotes/"));
    kept.collect::<Vec<_>>().join("\n")
}

/// Received requests: method, path and query, Authorization.
pub(crate) type Seen = Arc<Mutex<Vec<(String, String, Option<String>)>>>;

/// A server of any kind on a port of its own.
pub(crate) struct Server {
    pub(crate) url: String,
    pub(crate) seen: Seen,
    runtime: tokio::runtime::Runtime,
    _spool: tempfile::TempDir,
}

impl Server {
    /// Serves `router`.
    pub(crate) fn of(router: Router) -> Self {
        Self::start(|_, _| router)
    }

    fn start(router: impl FnOnce(Scope, &Path) -> Router) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()
            .unwrap();
        let spool = tempfile::tempdir().unwrap();
        let scope = Scope::root("test", runtime.handle().clone(), 8);
        let seen = Seen::default();
        let record = Arc::clone(&seen);
        let layer = middleware::from_fn(move |request: Request, next: Next| {
            let authorization = request.headers().get("authorization");
            let authorization = authorization.map(|value| value.to_str().unwrap().to_owned());
            let asked = (
                request.method().to_string(),
                request.uri().to_string(),
                authorization,
            );
            record.lock().unwrap().push(asked);
            next.run(request)
        });
        let router = router(scope, spool.path()).layer(layer);
        let listener = runtime
            .block_on(tokio::net::TcpListener::bind("127.0.0.1:0"))
            .unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        runtime.spawn(async move { axum::serve(listener, router).await });
        Self {
            url,
            seen,
            runtime,
            _spool: spool,
        }
    }

    /// A Henge server over the bare repositories in `root`.
    pub(crate) fn henge(root: &Path) -> Self {
        Self::start(|scope, spool| {
            let clock = SystemClock::shared();
            let root = BareRoot::open(root, spool, Pushes::Allowed, scope, clock).unwrap();
            http::router(root)
        })
    }

    /// git http-backend over the repositories in `root`; without the `Git-Protocol` header it uses
    /// protocol v0.
    pub(crate) fn backend(program: &Path, root: &Path, header: Header) -> Self {
        let (program, root) = (program.to_owned(), root.to_owned());
        Self::of(Router::new().fallback(move |request: Request| {
            let (program, root) = (program.clone(), root.clone());
            async move { cgi(&program, &root, header, request).await }
        }))
    }

    pub(crate) fn network(&self) -> Network {
        Network {
            handle: self.runtime.handle().clone(),
            trust: Trust::system(),
            addresses: AddressPolicy::Private,
            timeouts: Timeouts::default(),
        }
    }

    pub(crate) fn remote(&self, path: &str) -> Remote {
        self.remote_with(self.network(), path, None)
    }

    pub(crate) fn remote_with(
        &self,
        network: Network,
        path: &str,
        credentials: Option<Credentials>,
    ) -> Remote {
        let (url, none) = RemoteUrl::parse(&format!("{}/{path}", self.url)).unwrap();
        assert!(none.is_none());
        Remote::new(Arc::new(network), url, credentials, 1 << 30)
    }

    pub(crate) fn seen(&self) -> Vec<(String, String, Option<String>)> {
        self.seen.lock().unwrap().clone()
    }
}

/// Whether the server receives the client's protocol header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Header {
    Passed,
    Dropped,
}

async fn cgi(program: &Path, root: &Path, header: Header, request: Request) -> Response<Body> {
    let (parts, body) = request.into_parts();
    let body = to_bytes(body, 1 << 30).await.unwrap();
    let text = |name: &str| {
        let value = parts.headers.get(name);
        value.map_or("", |value| value.to_str().unwrap()).to_owned()
    };
    let mut command = Command::new(program);
    command
        .arg("http-backend")
        .env_clear()
        .env("PATH", "/usr/bin:/bin")
        .env("HOME", root)
        .env("GIT_CONFIG_NOSYSTEM", "1")
        .env("GIT_PROJECT_ROOT", root)
        .env("GIT_HTTP_EXPORT_ALL", "1")
        .env("REMOTE_USER", "somebody")
        .env("REQUEST_METHOD", parts.method.as_str())
        .env("PATH_INFO", parts.uri.path())
        .env("QUERY_STRING", parts.uri.query().unwrap_or_default())
        .env("CONTENT_TYPE", text("content-type"))
        .env("CONTENT_LENGTH", body.len().to_string());
    if header == Header::Passed {
        command.env("GIT_PROTOCOL", text("git-protocol"));
    }
    let run = move || {
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::inherit())
            .spawn()
            .unwrap();
        let mut stdin = child.stdin.take().unwrap();
        let writer = std::thread::spawn(move || stdin.write_all(&body));
        let output = child.wait_with_output().unwrap();
        // The process may have stopped reading its input.
        drop(writer.join().unwrap());
        output.stdout
    };
    let output = tokio::task::spawn_blocking(run).await.unwrap();
    let end = output
        .windows(4)
        .position(|bytes| bytes == b"\r\n\r\n")
        .unwrap();
    let mut response = Response::builder().status(StatusCode::OK);
    for line in std::str::from_utf8(&output[..end]).unwrap().lines() {
        let (name, value) = line.split_once(": ").unwrap();
        response = match name {
            "Status" => response.status(value[..3].parse::<u16>().unwrap()),
            name => response.header(name, value),
        };
    }
    response
        .body(Body::from(output[end + 4..].to_vec()))
        .unwrap()
}

/// Runs `work` without cancellation; returns its result.
pub(crate) fn watched<T>(
    work: impl FnOnce(&mut Watch<'_>) -> Result<T, Error>,
) -> Result<T, Error> {
    let stop = Stop::default();
    let mut watch = Watch {
        stop: &stop,
        tell: &mut |_: Event<'_>| {},
    };
    work(&mut watch)
}
