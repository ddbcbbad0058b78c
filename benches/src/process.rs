//! Programs that a bench starts, and their end: the only module that starts processes.
//!
//! Every process ends with its bench: a [`Process`] is killed by its process id on drop.

use std::ffi::OsStr;
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context as _, bail};
use rustix::process::{Pid, Signal, kill_process, kill_process_group};
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader, Lines};
use tokio::process::{Child, ChildStdout, Command};
use tokio::time::timeout;

/// Deadline of a program that ends by itself.
const RUN_DEADLINE: Duration = Duration::from_secs(120);
/// The same for a program that copies a whole repository.
const LONG_RUN_DEADLINE: Duration = Duration::from_secs(900);
/// Bytes of a log's end that explain a failure.
const TAIL_BYTES: usize = 2_000;

/// A program to start.
#[derive(Debug)]
pub(crate) struct Program {
    command: Command,
    name: String,
    deadline: Duration,
}

impl Program {
    /// `path` is a file, or a name to look up in `PATH`.
    #[expect(
        clippy::disallowed_methods,
        reason = "a bench runs the product and its peers as processes, and only here"
    )]
    pub(crate) fn new(path: impl AsRef<OsStr>) -> Self {
        let path = path.as_ref();
        let mut command = Command::new(path);
        command
            .stdin(Stdio::null())
            .kill_on_drop(true)
            // Ctrl-C reaches the bench alone, which then ends its processes in order.
            .process_group(0);
        Self {
            command,
            name: path.to_string_lossy().into_owned(),
            deadline: RUN_DEADLINE,
        }
    }

    /// Stock git, independent of the user's configuration.
    pub(crate) fn git() -> Self {
        let mut git = Self::new("git");
        git.command
            .env("GIT_CONFIG_NOSYSTEM", "1")
            .env("GIT_CONFIG_GLOBAL", "/dev/null")
            .env("GIT_TERMINAL_PROMPT", "0")
            .env("LC_ALL", "C");
        git
    }

    /// Sets a deadline of a quarter of an hour.
    pub(crate) const fn patiently(mut self) -> Self {
        self.deadline = LONG_RUN_DEADLINE;
        self
    }

    pub(crate) fn arg(mut self, arg: impl AsRef<OsStr>) -> Self {
        self.command.arg(arg);
        self
    }

    pub(crate) fn args<A: AsRef<OsStr>>(mut self, args: impl IntoIterator<Item = A>) -> Self {
        self.command.args(args);
        self
    }

    pub(crate) fn env(mut self, name: &str, value: &str) -> Self {
        self.command.env(name, value);
        self
    }

    /// Starts it with both outputs in `log`.
    pub(crate) fn start(mut self, log: &Path) -> anyhow::Result<Process> {
        let output = append(log)?;
        self.command.stdout(output);
        self.launch(log)
    }

    /// Starts it with a pipe from its standard output.
    pub(crate) fn start_talking(
        mut self,
        log: &Path,
    ) -> anyhow::Result<(Process, Lines<BufReader<ChildStdout>>)> {
        self.command.stdout(Stdio::piped());
        let mut process = self.launch(log)?;
        let output = process.child.stdout.take();
        let output = output.context("a piped output is there once")?;
        Ok((process, BufReader::new(output).lines()))
    }

    fn launch(mut self, log: &Path) -> anyhow::Result<Process> {
        self.command.stderr(append(log)?);
        let child = self
            .command
            .spawn()
            .with_context(|| format!("cannot start {}", self.name))?;
        Ok(Process {
            child,
            name: self.name,
            log: log.to_owned(),
        })
    }

    /// Runs it with `input`, and returns its standard output.
    ///
    /// # Errors
    /// When it does not start, fails, or exceeds its deadline.
    pub(crate) async fn output(mut self, input: &[u8]) -> anyhow::Result<String> {
        self.command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let name = self.name;
        let mut child = self
            .command
            .spawn()
            .with_context(|| format!("cannot start {name}: is it installed?"))?;
        let mut group = Group(child.id());
        let stdin = child.stdin.take();
        let feed = async move {
            let mut stdin = stdin.context("a piped input is there once")?;
            match stdin.write_all(input).await {
                // The program reports why it stopped reading.
                Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
                other => other.context("cannot write to it"),
            }
        };
        let run = async { tokio::join!(feed, child.wait_with_output()) };
        let (fed, ended) = timeout(self.deadline, run)
            .await
            .with_context(|| format!("{name} did not end in time"))?;
        let output = ended.with_context(|| format!("cannot wait for {name}"))?;
        group.0 = None;
        if !output.status.success() {
            let errors = String::from_utf8_lossy(&output.stderr);
            bail!("{name} failed ({}): {}", output.status, errors.trim());
        }
        fed.with_context(|| name.clone())?;
        String::from_utf8(output.stdout).with_context(|| format!("{name} wrote no text"))
    }
}

/// The process group of a running program. It is killed on drop: `git push` leaves its helpers
/// behind.
struct Group(Option<u32>);

impl Drop for Group {
    fn drop(&mut self) {
        let leader = self.0.and_then(|pid| i32::try_from(pid).ok());
        if let Some(leader) = leader.and_then(Pid::from_raw) {
            // The group may have ended meanwhile.
            kill_process_group(leader, Signal::KILL).ok();
        }
    }
}

fn append(log: &Path) -> anyhow::Result<File> {
    File::options()
        .create(true)
        .append(true)
        .open(log)
        .with_context(|| format!("cannot write {}", log.display()))
}

/// A program that runs until it is stopped, killed on drop.
#[derive(Debug)]
pub(crate) struct Process {
    child: Child,
    name: String,
    log: PathBuf,
}

impl Process {
    /// Its process id; an error when it has ended.
    pub(crate) fn pid(&self) -> anyhow::Result<u32> {
        let pid = self.child.id();
        pid.with_context(|| format!("{} ended; the end of its log:\n{}", self.name, self.tail()))
    }

    /// Fails when it has ended, with the end of its log.
    pub(crate) fn check(&mut self) -> anyhow::Result<()> {
        let ended = self.child.try_wait();
        match ended.with_context(|| format!("cannot look after {}", self.name))? {
            None => Ok(()),
            Some(status) => bail!("{} ended ({status}): {}", self.name, self.tail()),
        }
    }

    /// Kills it (SIGKILL) without waiting for its end.
    pub(crate) fn kill(&mut self) -> anyhow::Result<()> {
        self.child
            .start_kill()
            .with_context(|| format!("cannot kill {}", self.name))
    }

    /// Waits for its end.
    pub(crate) async fn wait(&mut self) -> anyhow::Result<()> {
        let ended = self.child.wait().await;
        ended.map(drop).context("cannot wait for a process")
    }

    /// Stops it (SIGTERM), and kills it at the deadline.
    ///
    /// # Errors
    /// When it had to be killed.
    pub(crate) async fn stop(mut self, deadline: Duration) -> anyhow::Result<()> {
        let Some(pid) = self.child.id() else {
            return Ok(());
        };
        signal(pid, Signal::TERM);
        if timeout(deadline, self.child.wait()).await.is_ok() {
            return Ok(());
        }
        self.kill()?;
        self.wait().await?;
        bail!("{} had to be killed: it did not stop", self.name)
    }

    /// The end of its log.
    pub(crate) fn tail(&self) -> String {
        let bytes = std::fs::read(&self.log).unwrap_or_default();
        let from = bytes.len().saturating_sub(TAIL_BYTES);
        String::from_utf8_lossy(bytes.get(from..).unwrap_or_default()).into_owned()
    }
}

/// Sends a signal to a process. Ignored when the process has ended.
pub(crate) fn signal(pid: u32, signal: Signal) {
    if let Some(pid) = i32::try_from(pid).ok().and_then(Pid::from_raw) {
        kill_process(pid, signal).ok();
    }
}
