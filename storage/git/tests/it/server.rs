//! The server under test, and stock git for comparison.

use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use henge_git::bare::Pushes;
use henge_git::{BareRepository, BareRoot, Objects, http};
use henge_runtime::{Scope, SystemClock};
use henge_types::ObjectFormat;

/// Both gits of a development machine: a self-built one and the distribution's.
const GITS: [&str; 2] = ["/usr/local/bin/git", "/usr/bin/git"];

/// Runs `test` with every installed git, and reports loudly which one is missing.
pub(crate) fn for_each_git(test: impl Fn(&Server, &Git)) {
    for_each_git_with(ObjectFormat::Sha1, test);
}

/// Runs `test` with every installed git, in repositories of either object format.
pub(crate) fn for_each_git_and_format(test: impl Fn(&Server, &Git)) {
    for_each_git_with(ObjectFormat::Sha1, &test);
    for_each_git_with(ObjectFormat::Sha256, &test);
}

/// Runs `test` with every installed git, in repositories of this object format.
fn for_each_git_with(format: ObjectFormat, test: impl Fn(&Server, &Git)) {
    let mut found = 0;
    for program in GITS {
        if !Path::new(program).is_file() {
            eprintln!("NOT CHECKED: {program} is missing on this machine");
            continue;
        }
        found += 1;
        let server = Server::start();
        let git = Git {
            program: program.into(),
            home: server.dir.path().to_owned(),
            format,
            extra: Vec::new(),
        };
        test(&server, &git);
    }
    assert!(found > 0, "no git on this machine: nothing was checked");
}

/// The object store of a bare repository.
pub(crate) fn objects_of(bare: &Path) -> Objects {
    let format = BareRepository::open(bare).unwrap().object_format();
    Objects::at(&bare.join("objects"), format)
}

/// A server over the bare repositories in `repos/` of its own directory.
pub(crate) struct Server {
    pub(crate) dir: tempfile::TempDir,
    pub(crate) url: String,
    runtime: Option<tokio::runtime::Runtime>,
}

impl Server {
    /// Every installed git, with its home beside the served repositories.
    #[track_caller]
    pub(crate) fn gits(&self) -> Vec<Git> {
        let gits: Vec<_> = GITS
            .into_iter()
            .filter(|program| {
                let is_there = Path::new(program).is_file();
                if !is_there {
                    eprintln!("NOT CHECKED: {program} is missing on this machine");
                }
                is_there
            })
            .map(|program| Git {
                program: program.into(),
                home: self.dir.path().to_owned(),
                format: ObjectFormat::Sha1,
                extra: Vec::new(),
            })
            .collect();
        assert!(
            !gits.is_empty(),
            "no git on this machine: nothing was checked"
        );
        gits
    }

    pub(crate) fn start() -> Self {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("repos")).unwrap();
        std::fs::create_dir(dir.path().join("spool")).unwrap();
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()
            .unwrap();
        let scope = Scope::root("test", runtime.handle().clone(), 8);
        let service = BareRoot::open(
            &dir.path().join("repos"),
            &dir.path().join("spool"),
            Pushes::Allowed,
            scope,
            SystemClock::shared(),
        )
        .unwrap();
        let listener = runtime
            .block_on(tokio::net::TcpListener::bind("127.0.0.1:0"))
            .unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        runtime.spawn(async move { axum::serve(listener, http::router(service)).await });
        Self {
            dir,
            url,
            runtime: Some(runtime),
        }
    }

    /// A new empty bare repository and its URL.
    pub(crate) fn repo(&self, git: &Git, name: &str) -> (PathBuf, String) {
        let path = self.dir.path().join("repos").join(name);
        git.ok(
            &["init", "-q", "--bare", "-b", "main", path.to_str().unwrap()],
            self.dir.path(),
        );
        git.ok(&["config", "uploadpack.allowFilter", "true"], &path);
        (path, format!("{}/{name}", self.url))
    }

    /// A directory beside the served ones.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Checks that a push left only packs and refs behind.
    pub(crate) fn assert_clean(&self, repo: &Path) {
        let spooled = std::fs::read_dir(self.dir.path().join("spool"))
            .unwrap()
            .count();
        assert_eq!(spooled, 0, "spooled bodies are left");
        for file in std::fs::read_dir(repo.join("objects")).unwrap() {
            let name = file.unwrap().file_name().into_string().unwrap();
            assert!(!name.starts_with("tmp_"), "{name} is left");
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

/// One stock git with a clean environment.
#[derive(Clone)]
pub(crate) struct Git {
    program: PathBuf,
    home: PathBuf,
    /// Object format of the repositories that it creates.
    pub(crate) format: ObjectFormat,
    extra: Vec<String>,
}

impl Git {
    /// The same git, creating repositories of this object format.
    pub(crate) fn of_format(&self, format: ObjectFormat) -> Self {
        Self {
            format,
            ..self.clone()
        }
    }

    /// An id that no object has.
    pub(crate) fn absent(&self) -> String {
        "1".repeat(self.format.hex_bytes())
    }

    /// The same git with `-c key=value`.
    pub(crate) fn with(&self, setting: &str) -> Self {
        let mut git = self.clone();
        git.extra.extend(["-c".to_owned(), setting.to_owned()]);
        git
    }

    pub(crate) fn command(&self, arguments: &[&str], dir: &Path) -> Command {
        let mut command = Command::new(&self.program);
        command
            .env_clear()
            .env("HOME", &self.home)
            .env("PATH", "/usr/local/bin:/usr/bin:/bin")
            .env("GIT_CONFIG_NOSYSTEM", "1")
            .env("GIT_TERMINAL_PROMPT", "0")
            .env("LC_ALL", "C")
            .env("GIT_DEFAULT_HASH", self.format.as_str())
            .envs([
                ("GIT_AUTHOR_NAME", "A"),
                ("GIT_AUTHOR_EMAIL", "a@example.org"),
                ("GIT_COMMITTER_NAME", "C"),
                ("GIT_COMMITTER_EMAIL", "c@example.org"),
            ])
            .args(&self.extra)
            .args(arguments)
            .current_dir(dir)
            .stdin(Stdio::null());
        command
    }

    pub(crate) fn run(&self, arguments: &[&str], dir: &Path) -> Output {
        self.command(arguments, dir).output().unwrap()
    }

    /// Runs git, which must succeed; returns its output.
    #[track_caller]
    pub(crate) fn ok(&self, arguments: &[&str], dir: &Path) -> String {
        let output = self.run(arguments, dir);
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(
            output.status.success(),
            "{} {arguments:?} failed: {errors}",
            self.program.display()
        );
        String::from_utf8_lossy(&output.stdout)
            .trim_end()
            .to_owned()
    }

    /// Runs git, which must fail; returns its error output.
    #[track_caller]
    pub(crate) fn fails(&self, arguments: &[&str], dir: &Path) -> String {
        let output = self.run(arguments, dir);
        let errors = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(
            !output.status.success(),
            "{arguments:?} did not fail: {errors}"
        );
        errors
    }

    /// A work tree with `commits` commits on `main`.
    pub(crate) fn work_tree(&self, path: &Path, commits: usize) {
        std::fs::create_dir_all(path).unwrap();
        self.ok(&["init", "-q", "-b", "main"], path);
        for number in 0..commits {
            self.change(path, number);
        }
    }

    /// One more commit: a file that grows, one that is new, and one deep down.
    pub(crate) fn change(&self, path: &Path, number: usize) {
        let grown: String = (0..200 + number)
            .map(|line| format!("line {line}\n"))
            .collect();
        std::fs::write(path.join("grown.txt"), grown).unwrap();
        std::fs::write(
            path.join(format!("new-{number}.txt")),
            format!("{number}\n"),
        )
        .unwrap();
        let deep = path.join("a/b").join(format!("c{}", number % 3));
        std::fs::create_dir_all(&deep).unwrap();
        std::fs::write(deep.join("deep.txt"), format!("{number}\n")).unwrap();
        self.ok(&["add", "-A"], path);
        let date = format!("{} +0000", 1_700_000_000 + number * 60);
        let mut command = self.command(&["commit", "-q", "-m", &format!("change {number}")], path);
        command
            .env("GIT_AUTHOR_DATE", &date)
            .env("GIT_COMMITTER_DATE", &date);
        assert!(command.status().unwrap().success());
    }

    /// Every reachable object, sorted.
    pub(crate) fn objects(&self, path: &Path) -> Vec<String> {
        let listing = self.ok(&["rev-list", "--objects", "--all"], path);
        let mut objects: Vec<_> = listing.lines().map(first_word).collect();
        objects.sort();
        objects
    }

    /// Runs git's strictest check.
    #[track_caller]
    pub(crate) fn fsck(&self, path: &Path) {
        self.ok(&["fsck", "--full", "--strict"], path);
    }
}

/// The id at the beginning of a line.
pub(crate) fn first_word(line: &str) -> String {
    line.split(' ').next().unwrap_or_default().to_owned()
}
