//! The peer for pushes: git's own `http-backend` behind lighttpd, one node, without replication.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, bail};
use tokio::net::TcpStream;
use tokio::time::{sleep, timeout};

use crate::process::{Process, Program};
use crate::usage;

const READY_DEADLINE: Duration = Duration::from_secs(10);
const LOOK_INTERVAL: Duration = Duration::from_millis(10);
const STOP_DEADLINE: Duration = Duration::from_secs(5);
const USER: &str = "bench";
const PASSWORD: &str = "bench";

/// Lighttpd with `git http-backend` as a CGI program, killed on drop.
#[derive(Debug)]
pub(crate) struct HttpBackend {
    process: Process,
    repos: PathBuf,
    port: u16,
}

impl HttpBackend {
    /// Starts it in `dir` on 127.0.0.1 and waits until it listens.
    pub(crate) async fn start(dir: &Path, port: u16) -> anyhow::Result<Self> {
        let repos = dir.join("repos");
        std::fs::create_dir_all(&repos).context("cannot make lighttpd's folder")?;
        let repos = repos
            .canonicalize()
            .context("cannot find lighttpd's folder")?;
        let dir = dir
            .canonicalize()
            .context("cannot find lighttpd's folder")?;
        let exec = Program::git().arg("--exec-path").output(b"").await?;
        let program = Path::new(exec.trim()).join("git-http-backend");
        if !program.try_exists().unwrap_or(false) {
            bail!("git has no http-backend in {}", exec.trim());
        }
        std::fs::write(dir.join("users"), format!("{USER}:{PASSWORD}\n"))
            .context("cannot write lighttpd's users")?;
        let config = dir.join("lighttpd.conf");
        std::fs::write(&config, configuration(&dir, port, &program))
            .context("cannot write lighttpd's configuration")?;
        let process = Program::new("lighttpd")
            .args(["-D", "-f"])
            .arg(&config)
            .start(&dir.join("lighttpd.log"))?;
        let mut backend = Self {
            process,
            repos,
            port,
        };
        backend.wait_until_listening().await?;
        Ok(backend)
    }

    async fn wait_until_listening(&mut self) -> anyhow::Result<()> {
        let wait = async {
            loop {
                self.process.check()?;
                if TcpStream::connect(("127.0.0.1", self.port)).await.is_ok() {
                    return Ok(());
                }
                sleep(LOOK_INTERVAL).await;
            }
        };
        timeout(READY_DEADLINE, wait)
            .await
            .unwrap_or_else(|_| bail!("lighttpd does not listen; its log: {}", self.process.tail()))
    }

    /// Creates an empty bare repository with git's own settings. Returns the URL for pushes.
    pub(crate) async fn create(&self, name: &str) -> anyhow::Result<String> {
        Program::git()
            .args(["init", "-q", "--bare", "--initial-branch=main"])
            .arg(self.path(name))
            .output(b"")
            .await?;
        Ok(self.url(name))
    }

    /// The URL of a repository, with user and password.
    pub(crate) fn url(&self, name: &str) -> String {
        let port = self.port;
        format!("http://{USER}:{PASSWORD}@127.0.0.1:{port}/git/{name}.git")
    }

    /// Packs objects and refs of a repository, like good maintenance.
    pub(crate) async fn maintain(&self, name: &str) -> anyhow::Result<()> {
        for verb in [["repack", "-adq"].as_slice(), &["pack-refs", "--all"]] {
            let git = Program::git().arg("-C").arg(self.path(name));
            git.args(verb).output(b"").await?;
        }
        Ok(())
    }

    /// The path of a repository.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.repos.join(format!("{name}.git"))
    }

    /// CPU time of lighttpd and of every CGI program that has ended, including their waited-for
    /// children.
    pub(crate) fn cpu(&self) -> anyhow::Result<Duration> {
        usage::cpu_with_children(self.process.pid()?)
    }

    /// Stops lighttpd.
    pub(crate) async fn stop(self) -> anyhow::Result<()> {
        self.process.stop(STOP_DEADLINE).await
    }

    /// The release of lighttpd.
    pub(crate) async fn version() -> anyhow::Result<String> {
        let text = Program::new("lighttpd").arg("-v").output(b"").await?;
        let first = text.lines().next().unwrap_or_default();
        Ok(first.split(" - ").next().unwrap_or_default().to_owned())
    }
}

/// Basic authentication like Henge's, so that the clients of both do the same work.
fn configuration(dir: &Path, port: u16, program: &Path) -> String {
    let (dir, program) = (dir.display(), program.display());
    format!(
        r#"server.document-root = "{dir}"
server.bind = "127.0.0.1"
server.port = {port}
server.errorlog = "{dir}/error.log"
server.upload-dirs = ("{dir}")
server.stream-response-body = 1
server.modules = ("mod_auth", "mod_authn_file", "mod_alias", "mod_setenv", "mod_cgi")
auth.backend = "plain"
auth.backend.plain.userfile = "{dir}/users"
auth.require = ("/git" => ("method" => "basic", "realm" => "git", "require" => "valid-user"))
alias.url = ("/git" => "{program}")
cgi.assign = ("" => "")
setenv.set-environment = (
  "GIT_PROJECT_ROOT" => "{dir}/repos",
  "GIT_HTTP_EXPORT_ALL" => "1",
  "GIT_CONFIG_NOSYSTEM" => "1",
  "GIT_CONFIG_GLOBAL" => "/dev/null",
)
"#
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::commits::Commits;
    use std::io::Write as _;

    #[tokio::test]
    async fn pushes_arrive_and_cost_processor_time() {
        if HttpBackend::version().await.is_err() {
            let text =
                "NOT CHECKED: lighttpd is not installed, so the peer of pushes was not started";
            writeln!(std::io::stderr(), "{text}").expect("said");
            return;
        }
        let dir = tempfile::tempdir().expect("a folder");
        let commits = Commits::make(&dir.path().join("c.git"), 4).await;
        let commits = commits.expect("four commits");
        let backend = HttpBackend::start(&dir.path().join("lighttpd"), 28_700).await;
        let backend = backend.expect("lighttpd");
        let url = backend.create("r").await.expect("a repository");
        let before = backend.cpu().expect("CPU time");
        for index in 0..4 {
            let pushed = commits.push(&url, index, "refs/heads/main").await;
            pushed.expect("a push");
        }
        commits.push_tags(&url, 3, 2).await.expect("tags");
        backend.maintain("r").await.expect("packed");
        assert!(backend.cpu().expect("CPU time") > before);
        let refs = Program::git().arg("-C").arg(backend.path("r"));
        let refs = refs.args(["for-each-ref", "--format=%(refname) %(objectname)"]);
        let refs = refs.output(b"").await.expect("refs");
        let id = commits.id(3).expect("an id");
        let expected = format!("refs/heads/main {id}\nrefs/tags/v0 {id}\nrefs/tags/v1 {id}\n");
        assert_eq!(refs, expected);
        backend.stop().await.expect("stopped");
    }
}
