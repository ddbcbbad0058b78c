//! Processes of the binary, ended with the test in every case.

use std::fs::File;
use std::io::{BufRead as _, BufReader, Read as _};
use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::atomic::{AtomicU16, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, sync_channel};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

/// The deadline of every wait in a test. Long: only a failure reaches it.
pub(crate) const DEADLINE: Duration = Duration::from_secs(120);

/// The binary without the `HENGE_*` variables of the environment.
pub(crate) fn command(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_henge"));
    command.args(args).stdin(Stdio::null());
    for (name, _) in std::env::vars_os() {
        if name.to_str().is_some_and(|name| name.starts_with("HENGE_")) {
            command.env_remove(name);
        }
    }
    command
}

/// Runs it to its end.
pub(crate) fn henge(args: &[&str]) -> Output {
    command(args).output().expect("the binary runs")
}

pub(crate) fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).expect("text")
}

/// Waits for a condition.
pub(crate) fn until<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let start = Instant::now();
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(start.elapsed() < DEADLINE, "never came: {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

pub(crate) fn signal(pid: u32, signal: Signal) {
    let pid = Pid::from_raw(i32::try_from(pid).expect("a pid")).expect("a pid");
    kill_process(pid, signal).expect("the process is there");
}

/// A base port whose ports are free, and which no other test of this process gets.
pub(crate) fn base_port() -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let slots = 300;
    let first = u16::try_from(std::process::id() % u32::from(slots)).expect("small");
    for _ in 0..slots {
        let slot = (first + NEXT.fetch_add(1, Ordering::SeqCst)) % slots;
        // Below the kernel's ephemeral ports.
        let base = 12_000 + slot * 60;
        let free = |offset: u16| TcpListener::bind(("127.0.0.1", base + offset)).is_ok();
        if [1, 2, 3, 41, 42, 43].into_iter().all(free) {
            return base;
        }
    }
    panic!("no free ports");
}

/// The running binary; its standard output is read line by line.
pub(crate) struct Running {
    child: Child,
    lines: Receiver<String>,
    pub(crate) seen: Vec<String>,
}

impl Running {
    pub(crate) fn start(command: Command) -> Self {
        Self::start_with(command, Stdio::piped())
    }

    /// The same with standard error in a file, which can be read while the process runs.
    pub(crate) fn start_logging(command: Command, log: &Path) -> Self {
        let log = File::create(log).expect("a log");
        Self::start_with(command, log.into())
    }

    fn start_with(mut command: Command, errors: Stdio) -> Self {
        let mut child = command
            .stdout(Stdio::piped())
            .stderr(errors)
            .spawn()
            .expect("the binary runs");
        let stdout = child.stdout.take().expect("piped");
        let (sender, lines) = sync_channel(1000);
        std::thread::spawn(move || {
            for line in BufReader::new(stdout).lines() {
                if line.map(|line| sender.send(line).is_err()).unwrap_or(true) {
                    return;
                }
            }
        });
        Self {
            child,
            lines,
            seen: Vec::new(),
        }
    }

    /// `henge dev` in this folder.
    pub(crate) fn dev(dir: &Path, args: &[&str]) -> Self {
        let mut dev = command(&["dev", "--dir"]);
        dev.arg(dir).args(args);
        Self::start(dev)
    }

    /// Waits for a line with this beginning; panics with the output if the process ends first.
    pub(crate) fn wait_for_line(&mut self, start: &str) {
        loop {
            match self.lines.recv_timeout(DEADLINE) {
                Ok(line) => {
                    let found = line.starts_with(start);
                    self.seen.push(line);
                    if found {
                        return;
                    }
                }
                Err(RecvTimeoutError::Timeout) => panic!("no {start:?} in {:#?}", self.seen),
                Err(RecvTimeoutError::Disconnected) => {
                    let (status, errors) = self.wait();
                    panic!("{status} before {start:?}: {errors}\n{:#?}", self.seen);
                }
            }
        }
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    pub(crate) fn signal(&self, which: Signal) {
        signal(self.child.id(), which);
    }

    /// Waits for the end of the process; returns its status and its standard error, unless that is
    /// in a file.
    pub(crate) fn wait(&mut self) -> (ExitStatus, String) {
        let status = until("the end of the process", || {
            self.child.try_wait().expect("waited")
        });
        let mut errors = String::new();
        if let Some(mut stderr) = self.child.stderr.take() {
            stderr.read_to_string(&mut errors).expect("text");
        }
        (status, errors)
    }

    pub(crate) fn interrupt(mut self) -> (ExitStatus, String) {
        self.signal(Signal::INT);
        self.wait()
    }
}

impl Drop for Running {
    /// A failed test leaves nothing behind: `henge dev` gets SIGINT, and the time to stop its
    /// nodes.
    fn drop(&mut self) {
        if self.child.try_wait().is_ok_and(|status| status.is_none()) {
            self.signal(Signal::INT);
            drop(self.child.wait());
        }
    }
}
