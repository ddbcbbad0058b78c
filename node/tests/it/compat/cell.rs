//! The operations that are tested with every client and server.

use std::path::{Path, PathBuf};

use super::client::{Client, Push, git_command, run};
use super::narrow::Narrow;
use super::server::Server;

/// Branches of the repository with many refs.
const MANY_REFS: usize = 10_000;
/// Its name.
const MANY: &str = "many-refs";
/// Concurrent pushers.
const PUSHERS: usize = 16;
/// Bytes of a response that reach the client before it is cut off.
const INTERRUPTED_BYTES: u64 = 300_000;

/// The feature of a client that a cell needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Plain,
    Push,
    Shallow,
    Partial,
    Atomic,
    Sha256,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Outcome {
    Works,
    /// The reason why the client lacks the feature.
    NotApplicable(&'static str),
}

type Done = Result<Outcome, String>;

pub(super) struct Cell {
    pub(super) title: &'static str,
    pub(super) kind: Kind,
    pub(super) run: fn(&Place<'_>) -> Done,
}

const fn cell(title: &'static str, kind: Kind, run: fn(&Place<'_>) -> Done) -> Cell {
    Cell { title, kind, run }
}

pub(super) const CELLS: &[Cell] = &[
    cell("clone of an empty repository", Kind::Plain, clone_empty),
    cell("clone", Kind::Plain, clone),
    cell("incremental fetch", Kind::Plain, fetch),
    cell("shallow clone", Kind::Shallow, shallow),
    cell("shallow clone, deepened", Kind::Shallow, deepened),
    cell("partial clone, the rest on demand", Kind::Partial, partial),
    cell("push of a new branch", Kind::Push, push_new),
    cell("fast-forward push", Kind::Push, push_fast_forward),
    cell("forced push", Kind::Push, push_forced),
    cell("push that deletes", Kind::Push, push_delete),
    cell("push of tags", Kind::Push, push_tags),
    cell("atomic push", Kind::Atomic, push_atomic),
    cell("stale push is refused", Kind::Push, push_stale),
    cell("10,000 refs listed", Kind::Plain, many_refs_listed),
    cell("10,000 refs cloned", Kind::Plain, many_refs_cloned),
    cell("clone killed midway, then again", Kind::Plain, interrupted),
    cell("sixteen pushers at once", Kind::Push, many_pushers),
    cell("SHA-256 repository", Kind::Sha256, sha256),
];

/// A repository of a cell's own, and a folder beside it.
pub(super) struct Place<'a> {
    pub(super) server: &'a Server,
    pub(super) client: &'a Client,
    repo: String,
    dir: tempfile::TempDir,
}

pub(super) fn ok(is_ok: bool, else_say: impl FnOnce() -> String) -> Result<(), String> {
    if is_ok { Ok(()) } else { Err(else_say()) }
}

/// A folder, in memory if possible: some clients write ten thousand refs as so many files, and sync
/// each.
fn room() -> std::io::Result<tempfile::TempDir> {
    tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir())
}

fn equal(what: &str, found: &str, expected: &str) -> Result<(), String> {
    ok(found == expected, || {
        format!("{what} is {found:?}, not {expected:?}")
    })
}

/// Stock git, for everything that is not under test.
pub(super) fn git(dir: &Path, args: &[&str]) -> Result<String, String> {
    let mut command = git_command(&crate::gits::gits()[0], dir);
    command.args(args);
    run(command).map(|said| said.trim().to_owned())
}

fn fsck(dir: &Path) -> Result<(), String> {
    git(dir, &["fsck", "--full", "--strict"]).map(drop)
}

fn commit(tree: &Path, text: &str) -> Result<String, String> {
    let write = |name: &str, text: &str| {
        std::fs::write(tree.join(name), text).map_err(|error| error.to_string())
    };
    write("file.txt", &format!("{text}\n"))?;
    write(&format!("{text}.txt"), text)?;
    git(tree, &["add", "-A"])?;
    git(tree, &["commit", "-q", "-m", text])?;
    git(tree, &["rev-parse", "HEAD"])
}

impl<'a> Place<'a> {
    pub(super) fn new(server: &'a Server, client: &'a Client, number: usize) -> Self {
        client.learn(&server.url("any")).expect("a file");
        Self {
            server,
            client,
            repo: format!("{}-{number}", client.slug()),
            dir: room().expect("a folder"),
        }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn url(&self) -> String {
        self.server.url(&self.repo)
    }

    /// A work tree of three commits, pushed by stock git with a branch `side` and two tags.
    fn seeded(&self) -> Result<PathBuf, String> {
        self.server.create(&self.repo)?;
        git(self.dir.path(), &["init", "-q", "seed"])?;
        let seed = self.path("seed");
        for text in ["one", "two", "three"] {
            commit(&seed, text)?;
        }
        git(&seed, &["branch", "side", "main~1"])?;
        git(&seed, &["tag", "-a", "-m", "annotated", "v1", "main~1"])?;
        git(&seed, &["tag", "light"])?;
        self.seed_push(&seed, &["main", "side", "v1", "light"])?;
        Ok(seed)
    }

    /// Pushes with stock git, through another node than the client's.
    fn seed_push(&self, seed: &Path, refs: &[&str]) -> Result<(), String> {
        let url = self.server.other_url(&self.repo);
        git(seed, &[&["push", "-q", &url][..], refs].concat()).map(drop)
    }

    /// The value of a ref, read through another node.
    fn tip(&self, name: &str) -> Result<String, String> {
        let url = self.server.other_url(&self.repo);
        let listed = git(self.dir.path(), &["ls-remote", &url, name])?;
        let found = listed
            .lines()
            .find(|line| line.ends_with(&format!("\t{name}")));
        let id = found.and_then(|line| line.split('\t').next());
        Ok(id.unwrap_or("absent").to_owned())
    }

    fn cloned(&self, depth: Option<u32>) -> Result<PathBuf, String> {
        self.client
            .clone(self.dir.path(), &self.url(), "clone", depth)?;
        Ok(self.path("clone"))
    }

    fn push(&self, repo: &Path, how: Push, refspecs: &[&str]) -> Result<String, String> {
        self.client.push(repo, &self.url(), how, refspecs)
    }
}

fn clone_empty(place: &Place<'_>) -> Done {
    place.server.create(&place.repo)?;
    let clone = place.cloned(None)?;
    let unborn = git(&clone, &["rev-parse", "-q", "--verify", "HEAD"]).is_err();
    ok(unborn, || "the clone has commits".to_owned())?;
    // The clone can make a first push.
    let tip = commit(&clone, "first")?;
    git(&clone, &["branch", "-q", "-M", "main"])?;
    match place.client.lacks(Kind::Push) {
        None => drop(place.push(&clone, Push::Plain, &["refs/heads/main:refs/heads/main"])?),
        Some(_) => place.seed_push(&clone, &["main"])?,
    }
    equal("main", &place.tip("refs/heads/main")?, &tip)?;
    Ok(Outcome::Works)
}

fn clone(place: &Place<'_>) -> Done {
    let seed = place.seeded()?;
    let clone = place.cloned(None)?;
    fsck(&clone)?;
    for (found, expected) in [
        ("HEAD", "main"),
        ("refs/remotes/origin/side", "side"),
        ("refs/tags/v1", "v1"),
        ("refs/tags/light", "light"),
    ] {
        let expected = git(&seed, &["rev-parse", expected])?;
        equal(found, &git(&clone, &["rev-parse", found])?, &expected)?;
    }
    let text =
        std::fs::read_to_string(clone.join("file.txt")).map_err(|error| error.to_string())?;
    equal("file.txt", &text, "three\n")?;
    Ok(Outcome::Works)
}

fn fetch(place: &Place<'_>) -> Done {
    let seed = place.seeded()?;
    let clone = place.cloned(None)?;
    // A commit that the server does not have.
    commit(&clone, "own")?;
    for text in ["four", "five"] {
        let tip = commit(&seed, text)?;
        place.seed_push(&seed, &["main"])?;
        place.client.fetch(&clone)?;
        let found = git(&clone, &["rev-parse", "refs/remotes/origin/main"])?;
        equal("origin/main", &found, &tip)?;
        fsck(&clone)?;
    }
    // A fetch without news is no error.
    place.client.fetch(&clone)?;
    Ok(Outcome::Works)
}

fn depth(clone: &Path) -> Result<String, String> {
    fsck(clone)?;
    git(clone, &["rev-list", "--count", "refs/remotes/origin/main"])
}

fn shallow(place: &Place<'_>) -> Done {
    place.seeded()?;
    equal("the depth", &depth(&place.cloned(Some(1))?)?, "1")?;
    Ok(Outcome::Works)
}

fn deepened(place: &Place<'_>) -> Done {
    let seed = place.seeded()?;
    // The other refs lie far behind: the depth counts from each of them.
    for number in 0..6 {
        commit(&seed, &format!("more{number}"))?;
    }
    place.seed_push(&seed, &["main"])?;
    let clone = place.cloned(Some(1))?;
    equal("the depth", &depth(&clone)?, "1")?;
    place.client.deepen(&clone, 3)?;
    equal("the depth", &depth(&clone)?, "3")?;
    Ok(Outcome::Works)
}

fn partial(place: &Place<'_>) -> Done {
    let seed = place.seeded()?;
    let mut command = place
        .client
        .clone_command(place.dir.path(), &place.url(), "clone", None);
    command.arg("--filter=blob:none");
    run(command)?;
    let clone = place.path("clone");
    let list = ["rev-list", "--objects", "--all", "--missing=print"];
    let missing = git(&clone, &list)?.matches('?').count();
    ok(missing == 2, || {
        format!("{missing} objects are left out, not 2")
    })?;
    // Two versions of file.txt, one after the other.
    for (spec, text) in [("HEAD~1:file.txt", "two"), ("HEAD~2:file.txt", "one")] {
        let mut show = git_command(&crate::gits::gits()[0], &clone);
        show.args(["show", spec]);
        equal(spec, run(show)?.trim(), text)?;
    }
    let missing = git(&clone, &list)?.matches('?').count();
    ok(missing == 0, || format!("{missing} objects did not come"))?;
    equal(
        "HEAD",
        &git(&clone, &["rev-parse", "HEAD"])?,
        &git(&seed, &["rev-parse", "HEAD"])?,
    )?;
    Ok(Outcome::Works)
}

fn push_new(place: &Place<'_>) -> Done {
    let seed = place.seeded()?;
    git(&seed, &["checkout", "-q", "-b", "new"])?;
    let tip = commit(&seed, "new")?;
    place.push(&seed, Push::Plain, &["refs/heads/new:refs/heads/new"])?;
    equal("new", &place.tip("refs/heads/new")?, &tip)?;
    Ok(Outcome::Works)
}

fn push_fast_forward(place: &Place<'_>) -> Done {
    let seed = place.seeded()?;
    for text in ["four", "five"] {
        let tip = commit(&seed, text)?;
        place.push(&seed, Push::Plain, &["refs/heads/main:refs/heads/main"])?;
        equal("main", &place.tip("refs/heads/main")?, &tip)?;
    }
    let url = place.server.other_url(&place.repo);
    git(place.dir.path(), &["clone", "-q", &url, "check"])?;
    fsck(&place.path("check"))?;
    Ok(Outcome::Works)
}

fn push_forced(place: &Place<'_>) -> Done {
    let seed = place.seeded()?;
    git(&seed, &["reset", "-q", "--hard", "HEAD~1"])?;
    let tip = commit(&seed, "another")?;
    place.push(&seed, Push::Force, &["refs/heads/main:refs/heads/main"])?;
    equal("main", &place.tip("refs/heads/main")?, &tip)?;
    Ok(Outcome::Works)
}

fn push_delete(place: &Place<'_>) -> Done {
    let seed = place.seeded()?;
    place.push(&seed, Push::Plain, &[":refs/heads/side"])?;
    equal("side", &place.tip("refs/heads/side")?, "absent")?;
    Ok(Outcome::Works)
}

fn push_tags(place: &Place<'_>) -> Done {
    let seed = place.seeded()?;
    commit(&seed, "tagged")?;
    git(&seed, &["tag", "-a", "-m", "annotated", "v2"])?;
    git(&seed, &["tag", "light2"])?;
    let refspecs = [
        "refs/tags/v2:refs/tags/v2",
        "refs/tags/light2:refs/tags/light2",
    ];
    place.push(&seed, Push::Plain, &refspecs)?;
    for name in ["refs/tags/v2", "refs/tags/light2"] {
        equal(name, &place.tip(name)?, &git(&seed, &["rev-parse", name])?)?;
    }
    Ok(Outcome::Works)
}

fn push_atomic(place: &Place<'_>) -> Done {
    let seed = place.seeded()?;
    let tip = commit(&seed, "atomic")?;
    let both = [
        "refs/heads/main:refs/heads/a",
        "refs/heads/main:refs/heads/b",
    ];
    place.push(&seed, Push::Atomic, &both)?;
    equal("a", &place.tip("refs/heads/a")?, &tip)?;
    equal("b", &place.tip("refs/heads/b")?, &tip)?;
    // A ref below `a` cannot be created, so `c` is not created either.
    let one_wrong = [
        "refs/heads/main:refs/heads/c",
        "refs/heads/main:refs/heads/a/below",
    ];
    let said = place.push(&seed, Push::Atomic, &one_wrong);
    let is_told = said
        .as_ref()
        .map_or(true, |said| said.to_lowercase().contains("reject"));
    ok(is_told, || format!("it was not told: {said:?}"))?;
    equal("c", &place.tip("refs/heads/c")?, "absent")?;
    Ok(Outcome::Works)
}

fn push_stale(place: &Place<'_>) -> Done {
    let seed = place.seeded()?;
    git(place.dir.path(), &["clone", "-q", &place.url(), "other"])?;
    let other = place.path("other");
    let winner = commit(&other, "winner")?;
    git(&other, &["push", "-q", "origin", "main"])?;
    commit(&seed, "loser")?;
    let refspec = ["refs/heads/main:refs/heads/main"];
    let said = place.push(&seed, Push::Plain, &refspec);
    let is_told = said
        .as_ref()
        .map_or(true, |said| said.to_lowercase().contains("reject"));
    ok(is_told, || format!("it was not told: {said:?}"))?;
    equal("main", &place.tip("refs/heads/main")?, &winner)?;
    Ok(Outcome::Works)
}

/// A repository with many branches, shared by all clients.
fn many_refs(place: &Place<'_>) -> Result<String, String> {
    let server = place.server;
    server
        .many_refs()
        .get_or_init(|| make_many_refs(place))
        .clone()?;
    Ok(server.url(MANY))
}

/// The push is built by hand: stock git takes minutes for so many refs.
fn make_many_refs(place: &Place<'_>) -> Result<(), String> {
    let server = place.server;
    server.create(MANY)?;
    git(place.dir.path(), &["init", "-q", "many"])?;
    let tree = place.path("many");
    let tip = commit(&tree, "one")?;
    let url = server.url(MANY);
    git(&tree, &["push", "-q", &url, "main"])?;
    let names = (0..MANY_REFS).map(|number| format!("refs/heads/b/{number:05}"));
    if let Some(bare) = server.on_disk(MANY) {
        let head = "# pack-refs with: peeled fully-peeled sorted \n".to_owned();
        let lines = names.map(|name| format!("{tip} {name}\n"));
        let packed: String = std::iter::once(head).chain(lines).collect();
        return std::fs::write(bare.join("packed-refs"), packed).map_err(|error| error.to_string());
    }
    let mut body = Vec::new();
    for (number, name) in names.enumerate() {
        let capabilities = if number == 0 { "\0report-status" } else { "" };
        let line = format!("{} {tip} {name}{capabilities}", "0".repeat(40));
        body.extend(format!("{:04x}{line}", line.len() + 4).into_bytes());
    }
    body.extend_from_slice(b"0000PACK\0\0\0\x02\0\0\0\0");
    body.extend_from_slice(
        b"\x02\x9d\x08\x82\x3b\xd8\xa8\xea\xb5\x10\xad\x6a\xc7\x5c\x82\x3c\xfd\x3e\xd3\x1e",
    );
    let file = place.path("request");
    std::fs::write(&file, body).map_err(|error| error.to_string())?;
    let mut post = std::process::Command::new("curl");
    post.args(["-sS", "--fail", "--data-binary"])
        .arg(format!("@{}", file.display()))
        .args(["-H", "Content-Type: application/x-git-receive-pack-request"])
        .arg(format!("{url}/git-receive-pack"));
    let report = run(post)?;
    ok(
        report.contains("unpack ok") && !report.contains("ng refs/"),
        || report,
    )
}

fn many_refs_listed(place: &Place<'_>) -> Done {
    let url = many_refs(place)?;
    let names = place.client.list(place.dir.path(), &url)?;
    let branches = names
        .iter()
        .filter(|name| name.starts_with("refs/heads/b/"));
    equal(
        "the number of branches",
        &branches.count().to_string(),
        "10000",
    )?;
    Ok(Outcome::Works)
}

fn many_refs_cloned(place: &Place<'_>) -> Done {
    let url = many_refs(place)?;
    place.client.clone(place.dir.path(), &url, "clone", None)?;
    let refs = git(
        &place.path("clone"),
        &["for-each-ref", "refs/remotes/origin/b/"],
    )?;
    equal(
        "the number of branches",
        &refs.lines().count().to_string(),
        "10000",
    )?;
    Ok(Outcome::Works)
}

fn interrupted(place: &Place<'_>) -> Done {
    let seed = place.seeded()?;
    let mut state = 7_u64;
    let noise: Vec<u8> = std::iter::repeat_with(|| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()[3]
    })
    .take(3_000_000)
    .collect();
    std::fs::write(seed.join("noise"), noise).map_err(|error| error.to_string())?;
    let tip = commit(&seed, "noise")?;
    place.seed_push(&seed, &["main"])?;
    let url = place.url();
    let server = url
        .split("://")
        .nth(1)
        .and_then(|rest| rest.split('/').next());
    let server = server
        .and_then(|host| host.rsplit('@').next())
        .ok_or("no server")?;
    let narrow = Narrow::to(server, INTERRUPTED_BYTES).map_err(|error| error.to_string())?;
    let narrowed = url.replace(server, narrow.address());
    let mut cut = place
        .client
        .clone_command(place.dir.path(), &narrowed, "cut", None)
        .stdout(std::process::Stdio::null())
        .stderr(std::process::Stdio::null())
        .spawn()
        .map_err(|error| error.to_string())?;
    let is_midway = narrow.wait_until_full();
    let was_running = cut.try_wait().map_err(|error| error.to_string())?.is_none();
    cut.kill().map_err(|error| error.to_string())?;
    cut.wait().map_err(|error| error.to_string())?;
    drop(narrow);
    ok(is_midway && was_running, || {
        "the clone was not cut midway".to_owned()
    })?;
    let clone = place.cloned(None)?;
    fsck(&clone)?;
    equal("HEAD", &git(&clone, &["rev-parse", "HEAD"])?, &tip)?;
    Ok(Outcome::Works)
}

/// Each pusher pushes to its own branch and to one that all share, through two nodes.
fn many_pushers(place: &Place<'_>) -> Done {
    place.seeded()?;
    let push = |number: usize| -> Result<(String, bool), String> {
        let name = format!("tree{number}");
        let (own, other) = (place.url(), place.server.other_url(&place.repo));
        let url = if number.is_multiple_of(2) { own } else { other };
        git(place.dir.path(), &["clone", "-q", &url, &name])?;
        let tree = place.path(&name);
        let tip = commit(&tree, &name)?;
        let mine = format!("refs/heads/main:refs/heads/{name}");
        place.client.push(&tree, &url, Push::Plain, &[&mine])?;
        let contended = ["refs/heads/main:refs/heads/main"];
        let said = place.client.push(&tree, &url, Push::Plain, &contended);
        let won = said.is_ok_and(|said| !said.to_lowercase().contains("reject"));
        Ok((tip, won))
    };
    let outcomes: Vec<_> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..PUSHERS)
            .map(|number| scope.spawn(move || push(number)))
            .collect();
        threads
            .into_iter()
            .map(|thread| thread.join().expect("nobody panics"))
            .collect()
    });
    let mut winners = Vec::new();
    for (number, outcome) in outcomes.into_iter().enumerate() {
        let (tip, won) = outcome?;
        let name = format!("refs/heads/tree{number}");
        equal(&name, &place.tip(&name)?, &tip)?;
        if won {
            winners.push(tip);
        }
    }
    // A tree that was cloned after a first win builds on that commit: it may win as well. The last
    // winner stands.
    let main = place.tip("refs/heads/main")?;
    ok(winners.contains(&main), || format!("nobody pushed {main}"))?;
    git(place.dir.path(), &["clone", "-q", &place.url(), "check"])?;
    let check = place.path("check");
    fsck(&check)?;
    for winner in &winners {
        git(&check, &["merge-base", "--is-ancestor", winner, &main])?;
    }
    Ok(Outcome::Works)
}

/// A repository with SHA-256 objects, and a push from one with SHA-1 objects.
fn sha256(place: &Place<'_>) -> Done {
    place.server.create_of(&place.repo, "sha256")?;
    let format = ["rev-parse", "--show-object-format"];
    let init = ["init", "-q", "--object-format=sha256", "seed"];
    git(place.dir.path(), &init)?;
    let seed = place.path("seed");
    for text in ["one", "two", "three"] {
        commit(&seed, text)?;
    }
    git(&seed, &["tag", "-a", "-m", "annotated", "v1", "main~1"])?;
    place.seed_push(&seed, &["main", "v1"])?;
    let clone = place.cloned(None)?;
    fsck(&clone)?;
    equal("the format", &git(&clone, &format)?, "sha256")?;
    let tip = commit(&seed, "four")?;
    place.seed_push(&seed, &["main"])?;
    place.client.fetch(&clone)?;
    let found = git(&clone, &["rev-parse", "refs/remotes/origin/main"])?;
    equal("origin/main", &found, &tip)?;
    place
        .client
        .clone(place.dir.path(), &place.url(), "shallow", Some(1))?;
    equal("the depth", &depth(&place.path("shallow"))?, "1")?;
    if place.client.lacks(Kind::Push).is_some() {
        return Ok(Outcome::Works);
    }
    let new = commit(&seed, "five")?;
    let refspec = ["refs/heads/main:refs/heads/new"];
    if let Some(reason) = place.client.lacks_sha256_pushes() {
        let pushed = place.push(&seed, Push::Plain, &refspec);
        ok(pushed.is_err(), || "a push was taken".to_owned())?;
        equal("new", &place.tip("refs/heads/new")?, "absent")?;
        return Ok(Outcome::NotApplicable(reason));
    }
    place.push(&seed, Push::Plain, &refspec)?;
    equal("new", &place.tip("refs/heads/new")?, &new)?;
    place.push(&seed, Push::Plain, &[":refs/heads/new"])?;
    equal("new", &place.tip("refs/heads/new")?, "absent")?;
    // Objects of the other format are refused and change nothing.
    git(place.dir.path(), &["init", "-q", "other"])?;
    let other = place.path("other");
    commit(&other, "one")?;
    let refused = place.push(&other, Push::Plain, &["refs/heads/main:refs/heads/other"]);
    ok(refused.is_err(), || "a push of SHA-1 was taken".to_owned())?;
    equal("other", &place.tip("refs/heads/other")?, "absent")?;
    Ok(Outcome::Works)
}
