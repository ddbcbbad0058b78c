//! The clients: the command of each for every network operation. Stock git does the local steps.

use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use super::cell::Kind;
use super::page::{
    DULWICH_SHA256, GIX_PUSH, ISOMORPHIC_ATOMIC, JGIT_SHALLOW, LIBGIT2_ATOMIC, PARTIAL, SHA1_ONLY,
};

/// The folder of the clients' files, below the crate.
const DRIVERS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/compat");
/// The folder of the clients that do not come with the system.
const INSTALLED: &str = concat!(env!("CARGO_TARGET_TMPDIR"), "/compat");
/// The jars of JGit's command line in Debian; its own script lacks one of them.
const JGIT_JARS: &[&str] = &[
    "org.eclipse.jgit.pgm",
    "org.eclipse.jgit",
    "org.eclipse.jgit.archive",
    "org.eclipse.jgit.http.apache",
    "org.eclipse.jgit.http.server",
    "org.eclipse.jgit.lfs",
    "org.eclipse.jgit.ui",
    "args4j",
    "slf4j-api",
    "slf4j-nop",
    "commons-compress",
    "commons-logging",
    "gson",
    "httpclient",
    "httpcore",
    "JavaEWAH",
    "jsch",
];

#[derive(Debug, Clone, PartialEq, Eq)]
enum Program {
    Git(PathBuf),
    Dulwich,
    Pygit2,
    Isomorphic,
    Gix,
    Jgit,
}

/// The kind of a push.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Push {
    Plain,
    Force,
    Atomic,
}

/// A client on this machine.
pub(super) struct Client {
    program: Program,
    version: String,
    /// JGit's home: it reads a password from a file there, not from a URL.
    home: tempfile::TempDir,
}

/// The clients on this machine, and whether those are all.
pub(super) struct Found {
    pub(super) clients: Vec<Client>,
    pub(super) is_complete: bool,
}

/// Every client of this machine. A missing one is printed; with `CI` or `HENGE_TESTS_ALL` set it is
/// an error.
pub(super) fn all() -> Found {
    let must_have_all =
        std::env::var_os("CI").is_some() || std::env::var_os("HENGE_TESTS_ALL").is_some();
    let mut missing = Vec::new();
    let gits = crate::gits::gits();
    // A machine may have one git only; then the set is incomplete without an error.
    let mut is_complete = gits.len() > 1;
    let mut programs: Vec<_> = gits.into_iter().map(Program::Git).collect();
    let installed = Command::new("bash")
        .arg(Path::new(DRIVERS).join("install"))
        .arg(INSTALLED)
        .output()
        .expect("bash runs");
    if installed.status.success() {
        programs.extend([
            Program::Dulwich,
            Program::Pygit2,
            Program::Isomorphic,
            Program::Gix,
        ]);
    } else {
        let said = String::from_utf8_lossy(&installed.stderr).into_owned();
        missing.push(format!("dulwich, pygit2, isomorphic-git and gix: {said}"));
    }
    programs.push(Program::Jgit);
    let mut clients = Vec::new();
    for program in programs {
        match version(&program) {
            Ok(version) => clients.push(Client {
                program,
                version,
                home: tempfile::tempdir().expect("a folder"),
            }),
            Err(error) => missing.push(format!("{program:?}: {error}")),
        }
    }
    for what in &missing {
        eprintln!("NOT CHECKED: {what}");
    }
    assert!(
        missing.is_empty() || !must_have_all,
        "clients are missing: {missing:#?}"
    );
    is_complete &= missing.is_empty();
    Found {
        clients,
        is_complete,
    }
}

fn version(program: &Program) -> Result<String, String> {
    let home = tempfile::tempdir().map_err(|error| error.to_string())?;
    let mut command = base(program, home.path(), home.path());
    let is_git = matches!(program, Program::Git(_));
    command.arg(if is_git { "--version" } else { "version" });
    let output = command.output().map_err(|error| error.to_string())?;
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    if !output.status.success() || said.trim().is_empty() {
        return Err(String::from_utf8_lossy(&output.stderr).into_owned());
    }
    let said = said.trim();
    let version = match said.split_once(" version ") {
        Some((_, version)) => version,
        None => said,
    };
    Ok(version.to_owned())
}

/// A git without the machine's and the user's configuration.
pub(super) fn git_command(program: &Path, home: impl AsRef<Path>) -> Command {
    let mut command = Command::new(program);
    for setting in [
        "user.name=A",
        "user.email=a@example.invalid",
        "init.defaultBranch=main",
        "gc.auto=0",
        "maintenance.auto=false",
        "advice.detachedHead=false",
        "core.fsync=none",
    ] {
        command.args(["-c", setting]);
    }
    alone(&mut command, home.as_ref());
    command
}

fn alone(command: &mut Command, home: &Path) {
    command
        .current_dir(home)
        .env("HOME", home)
        .env("XDG_CONFIG_HOME", home)
        .env("GIT_CONFIG_NOSYSTEM", "1")
        .env("GIT_CONFIG_GLOBAL", "/dev/null")
        .env("GIT_TERMINAL_PROMPT", "0")
        .env("LC_ALL", "C.UTF-8")
        .stdin(Stdio::null());
}

fn base(program: &Program, dir: &Path, home: &Path) -> Command {
    let python = |script: &str| {
        let mut command = Command::new(format!("{INSTALLED}/venv/bin/python"));
        command.arg(Path::new(DRIVERS).join(script));
        command
    };
    let mut command = match program {
        Program::Git(path) => return git_command(path, dir),
        Program::Dulwich => python("dulwich_client.py"),
        Program::Pygit2 => python("pygit2_client.py"),
        Program::Isomorphic => {
            let mut command = Command::new("node");
            command.arg(format!("{INSTALLED}/isomorphic.mjs"));
            command
        }
        Program::Gix => Command::new(format!("{INSTALLED}/gix/compat-gix")),
        Program::Jgit => {
            let jars: Vec<_> = JGIT_JARS
                .iter()
                .map(|jar| format!("/usr/share/java/{jar}.jar"))
                .collect();
            let mut command = Command::new("java");
            command
                .arg(format!("-Duser.home={}", home.display()))
                .args([
                    "-Djava.awt.headless=true",
                    "-XX:TieredStopAtLevel=1",
                    "-XX:+UseSerialGC",
                    "-Xshare:auto",
                ])
                .args(["-cp", &jars.join(":"), "org.eclipse.jgit.pgm.Main"]);
            command
        }
    };
    alone(&mut command, dir);
    command
}

impl Client {
    const fn name(&self) -> &'static str {
        match self.program {
            Program::Git(_) => "git",
            Program::Dulwich => "dulwich",
            Program::Pygit2 => "pygit2",
            Program::Isomorphic => "isomorphic-git",
            Program::Gix => "gix",
            Program::Jgit => "JGit",
        }
    }

    pub(super) fn label(&self) -> String {
        format!("{} {}", self.name(), self.version)
    }

    fn command(&self, dir: &Path) -> Command {
        base(&self.program, dir, self.home.path())
    }

    /// Stores the password of the server at `url`, for a client that does not read it from there.
    pub(super) fn learn(&self, url: &str) -> Result<(), String> {
        let account = url
            .split("://")
            .nth(1)
            .and_then(|rest| rest.split_once('@'));
        let (Program::Jgit, Some((account, rest))) = (&self.program, account) else {
            return Ok(());
        };
        let (login, password) = account.split_once(':').ok_or("no password")?;
        let machine = rest.split([':', '/']).next().unwrap_or_default();
        let text = format!("machine {machine} login {login} password {password}\n");
        std::fs::write(self.home.path().join(".netrc"), text).map_err(|error| error.to_string())
    }

    /// The reason why it cannot push to a SHA-256 repository, though it fetches from one.
    pub(super) const fn lacks_sha256_pushes(&self) -> Option<&'static str> {
        match self.program {
            Program::Git(_) => None,
            Program::Dulwich => Some(DULWICH_SHA256),
            Program::Gix => Some(GIX_PUSH),
            Program::Pygit2 | Program::Isomorphic | Program::Jgit => Some(SHA1_ONLY),
        }
    }

    /// Its name as a part of a repository's name.
    pub(super) fn slug(&self) -> String {
        let keep = |letter: char| {
            if letter.is_ascii_alphanumeric() {
                letter
            } else {
                '-'
            }
        };
        let version = self.version.split(' ').next().unwrap_or_default();
        let label = format!("{}-{version}", self.name()).to_lowercase();
        label.chars().map(keep).collect()
    }

    /// The reason why it lacks a feature.
    pub(super) fn lacks(&self, kind: Kind) -> Option<&'static str> {
        match (&self.program, kind) {
            (Program::Git(_), _) => None,
            (Program::Dulwich | Program::Gix, Kind::Sha256) => None,
            (_, Kind::Sha256) => Some(SHA1_ONLY),
            (Program::Gix, Kind::Push | Kind::Atomic) => Some(GIX_PUSH),
            (_, Kind::Partial) => Some(PARTIAL),
            (Program::Jgit, Kind::Shallow) => Some(JGIT_SHALLOW),
            (Program::Pygit2, Kind::Atomic) => Some(LIBGIT2_ATOMIC),
            (Program::Isomorphic, Kind::Atomic) => Some(ISOMORPHIC_ATOMIC),
            (_, Kind::Plain | Kind::Push | Kind::Shallow | Kind::Atomic) => None,
        }
    }

    pub(super) fn clone_command(
        &self,
        dir: &Path,
        url: &str,
        to: &str,
        depth: Option<u32>,
    ) -> Command {
        let mut command = self.command(dir);
        let depth = depth.map(|depth| depth.to_string());
        match self.program {
            Program::Git(_) => {
                command.args(["clone", "-q"]);
                if let Some(depth) = depth {
                    command.args(["--depth", &depth]);
                }
                command.args([url, to]);
            }
            Program::Jgit => {
                command.args(["clone", "--quiet", url, to]);
            }
            Program::Dulwich | Program::Pygit2 | Program::Isomorphic | Program::Gix => {
                command.args(["clone", url, to]).args(depth);
            }
        }
        command
    }

    pub(super) fn clone(
        &self,
        dir: &Path,
        url: &str,
        to: &str,
        depth: Option<u32>,
    ) -> Result<(), String> {
        run(self.clone_command(dir, url, to, depth)).map(drop)
    }

    /// Fetches everything new from `origin`.
    pub(super) fn fetch(&self, repo: &Path) -> Result<(), String> {
        let mut command = self.command(repo);
        match self.program {
            Program::Git(_) => command.args(["fetch", "-q", "origin"]),
            Program::Jgit => command.args(["fetch", "--quiet", "origin"]),
            Program::Dulwich | Program::Pygit2 | Program::Isomorphic | Program::Gix => {
                command.args(["fetch", "."])
            }
        };
        run(command).map(drop)
    }

    /// Fetches history of this depth from `origin`.
    pub(super) fn deepen(&self, repo: &Path, depth: u32) -> Result<(), String> {
        let mut command = self.command(repo);
        let depth = depth.to_string();
        match self.program {
            Program::Git(_) => command.args(["fetch", "-q", "--depth", &depth, "origin"]),
            Program::Dulwich
            | Program::Pygit2
            | Program::Isomorphic
            | Program::Gix
            | Program::Jgit => command.args(["deepen", ".", &depth]),
        };
        run(command).map(drop)
    }

    /// Pushes and returns the client's output. The outcome is checked at the server: a client may
    /// report success for a refusal.
    pub(super) fn push(
        &self,
        repo: &Path,
        url: &str,
        how: Push,
        refspecs: &[&str],
    ) -> Result<String, String> {
        let mut command = self.command(repo);
        let word = match how {
            Push::Plain => "plain",
            Push::Force => "force",
            Push::Atomic => "atomic",
        };
        match self.program {
            Program::Git(_) | Program::Jgit => {
                command.arg("push");
                if how != Push::Plain {
                    command.arg(format!("--{word}"));
                }
                command.arg(url);
            }
            Program::Dulwich | Program::Pygit2 | Program::Isomorphic | Program::Gix => {
                command.args(["push", ".", url, word]);
            }
        }
        command.args(refspecs);
        run(command)
    }

    /// Lists the names of the server's refs.
    pub(super) fn list(&self, dir: &Path, url: &str) -> Result<Vec<String>, String> {
        let mut command = self.command(dir);
        match self.program {
            Program::Git(_) | Program::Jgit => command.args(["ls-remote", url]),
            Program::Dulwich | Program::Pygit2 | Program::Isomorphic | Program::Gix => {
                command.args(["ls", url])
            }
        };
        let said = run(command)?;
        let name = |line: &str| line.split_whitespace().last().map(str::to_owned);
        Ok(said.lines().filter_map(name).collect())
    }
}

/// Runs the command; returns its output, or its errors when it failed.
pub(super) fn run(mut command: Command) -> Result<String, String> {
    let Output {
        status,
        stdout,
        stderr,
    } = command
        .output()
        .map_err(|error| format!("{command:?}: {error}"))?;
    let said = String::from_utf8_lossy(&stdout).into_owned();
    let errors = String::from_utf8_lossy(&stderr).into_owned();
    if status.success() {
        return Ok(said);
    }
    Err(format!("{command:?}: {status}\n{said}{errors}"))
}
