//! Stock git against the whole router: git answers the challenge, and its streams pass completely.

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use henge_git::bare::Pushes;
use henge_git::{BareRoot, http};
use henge_runtime::{Scope, SystemClock};
use henge_types::limits;
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio::runtime::{Builder, Runtime};

use crate::harness::{Node, TOKEN};

/// One bare repository behind the router on a loopback port. Dropping it ends the server.
struct Server {
    dir: TempDir,
    address: String,
    runtime: Runtime,
}

impl Server {
    fn start() -> Self {
        let dir = tempfile::tempdir().expect("a directory");
        let (repos, spool) = (dir.path().join("repos"), dir.path().join("spool"));
        fs::create_dir(&repos).expect("a directory");
        fs::create_dir(&spool).expect("a directory");
        let runtime = Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build();
        let runtime = runtime.expect("a runtime");
        let scope = Scope::root("test", runtime.handle().clone(), 8);
        let clock = SystemClock::shared();
        let bare = BareRoot::open(&repos, &spool, Pushes::Allowed, scope.clone(), clock);
        let router = Node::over(
            http::router(bare.expect("the root opens")),
            runtime.handle(),
        );
        let listener = runtime.block_on(TcpListener::bind("127.0.0.1:0"));
        let listener = listener.expect("a free port");
        let address = listener.local_addr().expect("an address").to_string();
        let serve = async move { drop(axum::serve(listener, router).await) };
        scope.spawn("http", henge_runtime::tasks::OnPanic::Log, serve);
        Self {
            dir,
            address,
            runtime,
        }
    }

    #[expect(clippy::disallowed_methods, reason = "a test may start processes")]
    fn git(&self, at: &Path, arguments: &[&str]) -> Output {
        let output = Command::new("git")
            .args([
                "-c",
                "user.name=t",
                "-c",
                "user.email=t@t",
                "-c",
                "gc.auto=0",
            ])
            .args(["-c", "credential.helper=", "-c", "init.defaultBranch=main"])
            .args(arguments)
            .current_dir(at)
            .env("HOME", self.dir.path())
            .env("GIT_CONFIG_NOSYSTEM", "1")
            .env("GIT_TERMINAL_PROMPT", "0")
            .env_remove("GIT_DIR")
            .output();
        output.expect("git is installed")
    }

    #[track_caller]
    fn git_ok(&self, at: &Path, arguments: &[&str]) -> String {
        let output = self.git(at, arguments);
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "git {arguments:?}: {errors}");
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    fn url(&self, credentials: &str) -> String {
        format!("http://{credentials}@{}/demo.git", self.address)
    }
}

#[test]
fn stock_git_clones_and_pushes_with_the_token_as_its_password() {
    let server = Server::start();
    let top = server.dir.path().to_owned();
    server.git_ok(&top.join("repos"), &["init", "-q", "--bare", "demo.git"]);
    let url = server.url(&format!("admin:{TOKEN}"));
    server.git_ok(&top, &["clone", "-q", &url, "work"]);
    let work = top.join("work");

    // Larger than any API body may be, and not compressible: it arrives in chunks.
    let mut number = 1_u64;
    let noise: Vec<u8> = std::iter::repeat_with(|| {
        number = number
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        number.to_be_bytes()[0]
    })
    .take(3 * limits::API_BODY_BYTES_MAX)
    .collect();
    fs::write(work.join("noise"), &noise).expect("a file");
    server.git_ok(&work, &["add", "noise"]);
    server.git_ok(&work, &["commit", "-q", "-m", "noise"]);
    server.git_ok(&work, &["push", "-q", "origin", "HEAD:refs/heads/main"]);

    server.git_ok(&top, &["clone", "-q", "-b", "main", &url, "again"]);
    let cloned = fs::read(top.join("again/noise")).expect("the cloned file");
    assert!(cloned == noise, "the file came back different");
    server.runtime.shutdown_background();
}

#[test]
fn stock_git_is_refused_without_the_token() {
    let server = Server::start();
    let top = server.dir.path().to_owned();
    server.git_ok(&top.join("repos"), &["init", "-q", "--bare", "demo.git"]);
    // The gate admits fetches, because the check for public repositories is behind it; here every
    // repository is public.
    server.git_ok(&top, &["init", "-q", "work"]);
    let work = top.join("work");
    server.git_ok(&work, &["commit", "-q", "--allow-empty", "-m", "one"]);
    for credentials in ["admin:wrong", "admin:", "anybody"] {
        let refused = server.git(&work, &["push", &server.url(credentials), "HEAD:main"]);
        assert!(!refused.status.success(), "{credentials} was let in");
        let said = String::from_utf8_lossy(&refused.stderr).into_owned();
        let told = said.contains("Authentication failed") || said.contains("could not read");
        assert!(told, "{said}");
    }
    server.runtime.shutdown_background();
}
