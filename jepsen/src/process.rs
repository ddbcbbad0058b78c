//! Programs that a run starts, and their end: the only module that starts processes.
//!
//! Every program has a deadline; at the deadline it is killed with its process group. Signals go to
//! process ids that this module started, never to names.

use std::ffi::OsStr;
use std::fs::File;
use std::io::{Read, Write as _};
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, bail};
use rustix::process::{Pid, Signal, kill_process, kill_process_group};

use crate::clock;

/// Deadline of a program that ends by itself.
const DEADLINE: Duration = Duration::from_secs(60);
/// Interval between two checks whether a program has ended.
const LOOK_EVERY: Duration = Duration::from_millis(3);
/// Maximum size of one output, kept in memory.
const OUTPUT_BYTES_MAX: u64 = 16 * 1024 * 1024;

/// The result of a program.
#[derive(Debug, Clone)]
pub struct Ended {
    /// Its exit code; `None` when a signal ended it.
    pub code: Option<i32>,
    /// Whether it was killed at its deadline.
    pub timed_out: bool,
    /// Its standard output.
    pub stdout: String,
    /// Its standard error.
    pub stderr: String,
}

impl Ended {
    /// Whether it ended by itself, with exit code 0.
    pub fn success(&self) -> bool {
        !self.timed_out && self.code == Some(0)
    }
}

/// A program to start.
#[derive(Debug)]
pub struct Program {
    command: Command,
    name: String,
    deadline: Duration,
    input: Vec<u8>,
}

impl Program {
    /// `path` is a file, or a name to look up in `PATH`.
    #[expect(
        clippy::disallowed_methods,
        reason = "a run starts nodes and stock git as processes, and only here"
    )]
    pub fn new(path: impl AsRef<OsStr>) -> Self {
        let path = path.as_ref();
        let mut command = Command::new(path);
        command.stdin(Stdio::null()).process_group(0);
        for (name, _) in std::env::vars_os() {
            if name.to_str().is_some_and(|name| name.starts_with("HENGE_")) {
                command.env_remove(name);
            }
        }
        Self {
            command,
            name: path.to_string_lossy().into_owned(),
            deadline: DEADLINE,
            input: Vec::new(),
        }
    }

    /// Stock git with no configuration but these options.
    pub fn git() -> Self {
        Self::new("git")
            .env("GIT_CONFIG_NOSYSTEM", "1")
            .env("GIT_CONFIG_GLOBAL", "/dev/null")
            .env("GIT_TERMINAL_PROMPT", "0")
            .env("LC_ALL", "C")
            .args(["-c", "gc.auto=0", "-c", "maintenance.auto=false"])
            .args(["-c", "core.fsync=none"])
    }

    /// Appends one argument.
    #[must_use]
    pub fn arg(mut self, arg: impl AsRef<OsStr>) -> Self {
        self.command.arg(arg);
        self
    }

    /// Appends arguments.
    #[must_use]
    pub fn args<A: AsRef<OsStr>>(mut self, args: impl IntoIterator<Item = A>) -> Self {
        self.command.args(args);
        self
    }

    /// Sets an environment variable.
    #[must_use]
    pub fn env(mut self, name: &str, value: impl AsRef<OsStr>) -> Self {
        self.command.env(name, value);
        self
    }

    /// Sets the working directory.
    #[must_use]
    pub fn dir(mut self, dir: &Path) -> Self {
        self.command.current_dir(dir);
        self
    }

    /// Sets its standard input.
    #[must_use]
    pub fn input(mut self, input: Vec<u8>) -> Self {
        self.input = input;
        self
    }

    /// Sets its deadline.
    #[must_use]
    pub const fn deadline(mut self, deadline: Duration) -> Self {
        self.deadline = deadline;
        self
    }

    /// Starts it with both outputs appended to `log`.
    ///
    /// # Errors
    /// When the log cannot be opened or the program cannot be started.
    pub fn start(mut self, log: &Path) -> anyhow::Result<Child> {
        let out = File::options()
            .create(true)
            .append(true)
            .open(log)
            .with_context(|| format!("cannot write {}", log.display()))?;
        let errors = out.try_clone().context("cannot share a log file")?;
        self.command
            .stdout(out)
            .stderr(errors)
            .spawn()
            .with_context(|| format!("cannot start {}", self.name))
    }

    /// Runs it and waits for its end.
    ///
    /// # Errors
    /// When it cannot be started or waited for.
    pub fn run(mut self) -> anyhow::Result<Ended> {
        self.command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let mut child = self
            .command
            .spawn()
            .with_context(|| format!("cannot start {}: is it installed?", self.name))?;
        let stdin = child.stdin.take();
        let (out, err) = (child.stdout.take(), child.stderr.take());
        let (input, deadline) = (self.input, self.deadline);
        thread::scope(|scope| {
            scope.spawn(move || {
                if let Some(mut stdin) = stdin {
                    // A program that ended early has reported the reason.
                    stdin.write_all(&input).ok();
                }
            });
            let out = scope.spawn(|| read(out));
            let err = scope.spawn(|| read(err));
            let (status, timed_out) = wait(&mut child, deadline)?;
            let joined = |read: thread::ScopedJoinHandle<'_, String>| read.join().ok();
            Ok(Ended {
                code: status.code(),
                timed_out,
                stdout: joined(out).context("an output was not read")?,
                stderr: joined(err).context("an output was not read")?,
            })
        })
    }

    /// Runs it and returns its standard output; the program must succeed.
    ///
    /// # Errors
    /// When it cannot be started, fails or takes too long.
    pub fn output(self) -> anyhow::Result<String> {
        let name = format!("{:?}", self.command);
        let ended = self.run()?;
        if !ended.success() {
            bail!(
                "{name} failed (code {:?}, timed out: {}): {}",
                ended.code,
                ended.timed_out,
                ended.stderr.trim()
            );
        }
        Ok(ended.stdout)
    }
}

fn read(from: Option<impl Read>) -> String {
    let mut bytes = Vec::new();
    if let Some(from) = from {
        // After a read error, the bytes read so far are used.
        from.take(OUTPUT_BYTES_MAX).read_to_end(&mut bytes).ok();
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// Waits for the end; kills the process group at the deadline.
fn wait(child: &mut Child, deadline: Duration) -> anyhow::Result<(ExitStatus, bool)> {
    let end = clock::now() + deadline;
    loop {
        if let Some(status) = child.try_wait().context("cannot wait for a process")? {
            return Ok((status, false));
        }
        if clock::now() >= end {
            if let Some(group) = pid(child) {
                kill_process_group(group, Signal::KILL).ok();
            }
            let status = child.wait().context("cannot wait for a process")?;
            return Ok((status, true));
        }
        clock::pause(LOOK_EVERY);
    }
}

fn pid(child: &Child) -> Option<Pid> {
    i32::try_from(child.id()).ok().and_then(Pid::from_raw)
}

/// Sends a signal to a process of this run. Ignored when the process has ended meanwhile.
pub fn signal(child: &Child, signal: Signal) {
    if let Some(pid) = pid(child) {
        kill_process(pid, signal).ok();
    }
}

/// Waits for the end of a process, and kills it at the deadline.
///
/// # Errors
/// When it cannot be waited for.
pub fn end(child: &mut Child, deadline: Duration) -> anyhow::Result<(ExitStatus, bool)> {
    wait(child, deadline)
}
