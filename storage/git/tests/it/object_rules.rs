//! Rules for pushed objects, compared with git's: these tests write the tables of `docs/fsck.md`.

mod corpus;
mod headers;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use corpus::{Case, Object, all_cases, cases, hostile_file};
use henge_git::rules::{Level, Message, Severity};
use henge_git::{BareRepository, ObjectRules, PushLimits, receive_pack};
use henge_types::ObjectFormat;

use crate::packs::pack_by_hand;
use crate::raw::{ZERO, line};
use crate::{Git, Server, for_each_git, objects_of};

/// Messages of git that no object can cause, with the reason.
const NEVER: &[(&str, &str)] = &[
    ("emptyName", "git cannot parse such a tree: `badTree`"),
    ("missingType", "the header has an end, so the line has one"),
    ("missingTag", "the header has an end, so the line has one"),
    ("badGpgsig", "the header has an end, so the line has one"),
    (
        "badHeaderContinuation",
        "the header has an end, so the line has one",
    ),
];

/// The result of a push of one ref.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Outcome {
    is_taken: bool,
    /// The ids of the reported messages, in order.
    told: Vec<String>,
    text: String,
}

impl Outcome {
    fn new(text: String) -> Self {
        let mut told = Vec::new();
        for part in text.split("object ").skip(1) {
            let is_id =
                |id: &str| id.len() == 40 && id.bytes().all(|byte| byte.is_ascii_hexdigit());
            let message = part.split_once(": ").filter(|(id, _)| is_id(id));
            let message = message.and_then(|(_, rest)| rest.split_once(": "));
            told.extend(message.map(|(message, _)| message.to_owned()));
        }
        Self {
            is_taken: text.contains("unpack ok") && text.contains("ok refs/"),
            told,
            text,
        }
    }

    fn verb(&self) -> &'static str {
        match (self.is_taken, self.told.is_empty()) {
            (true, true) => "taken",
            (true, false) => "warned",
            (false, _) => "refused",
        }
    }

    /// One cell of a table.
    fn cell(&self) -> String {
        let why = if !self.told.is_empty() {
            self.told.join(", ")
        } else if self.is_taken {
            return self.verb().to_owned();
        } else {
            let fatal = self.text.split("fatal: ").nth(1).unwrap_or(&self.text);
            fatal.lines().next().unwrap_or_default().to_owned()
        };
        format!("{}: {why}", self.verb())
    }

    /// Whether git reports the same: git checks the whole object, Henge stops at the first message.
    fn is_as_by(&self, git: &Self) -> bool {
        self.is_taken == git.is_taken
            && match self.told.first() {
                Some(first) => git.told.contains(first),
                None => git.told.is_empty(),
            }
    }
}

/// Two bare repositories with the same configuration: one for pushes to Henge, one for git.
struct Pair {
    ours: PathBuf,
    gits: PathBuf,
}

impl Pair {
    fn new(server: &Server, git: &Git, name: &str, settings: &[(&str, &str)]) -> Self {
        let make = |name: String| {
            let path = server.path(&name);
            let words = ["init", "-q", "--bare", "-b", "main", path.to_str().unwrap()];
            git.ok(&words, server.dir.path());
            for (key, value) in settings {
                git.ok(&["config", "--add", key, value], &path);
            }
            path
        };
        Self {
            ours: make(format!("{name}-henge")),
            gits: make(format!("{name}-git")),
        }
    }

    /// Pushes objects, with the tip last, to the ref with this number.
    fn push(&self, git: &Git, objects: &[Object], number: usize) -> (Outcome, Outcome) {
        let body = push_of(objects, number);
        let dir = tempfile::tempdir().unwrap();
        let quarantine: &Path = dir.path();
        let mut answer = Vec::new();
        receive_pack(
            &BareRepository::open(&self.ours).unwrap(),
            &objects_of(&self.ours),
            &quarantine,
            &mut &body[..],
            &mut answer,
            &PushLimits::default(),
        )
        .unwrap();
        let ours = String::from_utf8_lossy(&answer).into_owned();
        (Outcome::new(ours), self.push_to_git(git, &body))
    }

    fn push_to_git(&self, git: &Git, body: &[u8]) -> Outcome {
        let path = self.gits.to_str().unwrap();
        let mut command = git.command(&["receive-pack", "--stateless-rpc", path], &self.gits);
        command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let mut stdin = child.stdin.take().unwrap();
        let output = std::thread::scope(|scope| {
            use std::io::Write as _;
            // It may end before it has read all input.
            scope.spawn(move || stdin.write_all(body).is_ok());
            child.wait_with_output().unwrap()
        });
        Outcome::new(without_bands(&output.stdout))
    }
}

/// The contents of both side-bands, joined.
fn without_bands(mut answer: &[u8]) -> String {
    let mut parts: [Vec<u8>; 3] = Default::default();
    while let Some((length, rest)) = answer.split_at_checked(4) {
        let length = usize::from_str_radix(&String::from_utf8_lossy(length), 16).unwrap();
        let bytes = length.max(4) - 4;
        if let Some((band, data)) = rest[..bytes].split_first() {
            parts[usize::from(*band) - 1].extend_from_slice(data);
        }
        answer = &rest[bytes..];
    }
    String::from_utf8_lossy(&parts.concat()).into_owned()
}

fn push_of(objects: &[Object], number: usize) -> Vec<u8> {
    let tip = objects.last().unwrap();
    let name = match tip.kind {
        "tag" => format!("refs/tags/case-{number}"),
        _ => format!("refs/heads/case-{number}"),
    };
    let format = ObjectFormat::Sha1;
    let capabilities = "report-status side-band-64k object-format=sha1";
    let mut body = line(&format!("{ZERO} {} {name}\0 {capabilities}", tip.id()));
    body.extend_from_slice(b"0000");
    let mut seen = BTreeSet::new();
    let entries: Vec<_> = objects
        .iter()
        .filter(|object| seen.insert(object.id()))
        .map(Object::entry)
        .collect();
    body.extend(pack_by_hand(&entries, format));
    body
}

fn version(git: &Git, server: &Server) -> String {
    let said = git.ok(&["version"], server.dir.path());
    said.split(' ').nth(2).unwrap().to_owned()
}

#[test]
fn every_message_has_a_case_in_both_directions() {
    let cases = all_cases();
    for message in Message::ALL {
        let name = message.as_str();
        let of_it = || cases.iter().filter(|case| case.message == name);
        let is_never = NEVER.iter().any(|(never, _)| *never == name);
        let is_ignored = message.severity() == Severity::Ignore;
        let is_said = of_it().any(|case| case.is_said);
        assert_eq!(is_said, !is_never && !is_ignored, "{name}");
        if is_said && !ONLY_BAD.contains(&name) {
            assert!(
                of_it().any(|case| !case.is_said),
                "{name}: nothing is taken"
            );
        }
    }
    let mut names = BTreeSet::new();
    for case in &cases {
        assert!(names.insert((case.message, &case.name)), "{}", case.name);
    }
}

/// Messages without an accepted counterpart of their own: every other case of the corpus is one.
const ONLY_BAD: &[&str] = &[
    "badTree",
    "missingTree",
    "badTreeSha1",
    "badParentSha1",
    "missingAuthor",
    "nulInCommit",
    "nulInHeader",
    "missingObject",
    "badObjectSha1",
    "missingTypeEntry",
    "badType",
    "missingTagEntry",
    "missingEmail",
];

/// Each case is pushed to Henge and to every git; the page lists the differences, with their
/// reasons.
#[test]
fn objects_are_judged_as_by_git() {
    let cases = all_cases();
    let found: std::cell::RefCell<BTreeMap<String, Vec<Outcome>>> = Default::default();
    let ours: std::cell::RefCell<Vec<Outcome>> = Default::default();
    for_each_git(|server, git| {
        let settings = [("receive.fsckObjects", "true")];
        let pair = Pair::new(server, git, "strict", &settings);
        let (mut of_henge, mut of_git) = (Vec::new(), Vec::new());
        for (number, case) in cases.iter().enumerate() {
            let (ours, gits) = pair.push(git, &case.objects, number);
            let is_said = ours.told == [case.message];
            let what = format!("{}: {}: {ours:?}", case.message, case.name);
            assert_eq!(is_said, case.is_said, "{what}");
            let is_refused = level_of(case.message) == Level::Error && case.is_said;
            assert_eq!(ours.is_taken, !is_refused, "{what}");
            if !ours.is_as_by(&gits) {
                assert!(
                    !case.why.is_empty(),
                    "{what}\n{}: {gits:?}",
                    version(git, server)
                );
            }
            of_henge.push(ours);
            of_git.push(gits);
        }
        git.ok(&["fsck"], &pair.ours);
        found.borrow_mut().insert(version(git, server), of_git);
        *ours.borrow_mut() = of_henge;
    });
    check_page(&cases, &ours.into_inner(), &found.into_inner());
}

fn level_of(message: &str) -> Level {
    let mut all = Message::ALL.iter();
    let found = all.find(|known| known.as_str() == message).unwrap();
    ObjectRules::strict().level(*found)
}

/// The versions of git on the page.
const VERSIONS: [&str; 2] = ["2.47.3", "2.39.5"];
const BEGIN: &str = "<!-- What follows is written by a test. -->\n";

/// The page ends with the results. For a git that is missing here, the existing entries are kept.
#[expect(
    clippy::disallowed_methods,
    reason = "asks whether to write the page again"
)]
fn check_page(cases: &[Case], ours: &[Outcome], found: &BTreeMap<String, Vec<Outcome>>) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/fsck.md");
    let page = std::fs::read_to_string(&path).unwrap();
    let (head, written) = page.split_once(BEGIN).unwrap();
    let mut made = messages_table();
    made.push_str("\n## Cases\n\n");
    made.push_str(
        "Each is one push. *same*: as Henge, and told with the same message among others, where there are others.\n\n",
    );
    let versions = VERSIONS.map(|version| format!("git {version}")).join(" | ");
    writeln!(made, "| message | case | Henge | {versions} | why |").unwrap();
    made.push_str("|---|---|---|---|---|---|\n");
    // A difference without a reason, or a reason without a difference.
    let mut unexplained = Vec::new();
    for (index, (case, ours)) in cases.iter().zip(ours).enumerate() {
        let start = format!("| `{}` | {} | {} |", case.message, case.name, ours.cell());
        let old = written.lines().find(|line| line.starts_with(&start));
        let cells: Vec<_> = VERSIONS
            .iter()
            .enumerate()
            .map(|(column, version)| match found.get(*version) {
                Some(gits) if ours.is_as_by(&gits[index]) => "same".to_owned(),
                Some(gits) => gits[index].cell(),
                None => {
                    let rest = old.and_then(|line| line.strip_prefix(&start));
                    let cell = rest.and_then(|rest| rest.split(" | ").nth(column));
                    cell.unwrap_or("not checked").trim().to_owned()
                }
            })
            .collect();
        let differs = cells.iter().any(|cell| cell != "same");
        if differs == case.why.is_empty() {
            unexplained.push(format!("{start} {cells:?}"));
        }
        writeln!(made, "{start} {} | {} |", cells.join(" | "), case.why).unwrap();
    }
    assert!(unexplained.is_empty(), "{unexplained:#?}");
    for version in found
        .keys()
        .filter(|known| !VERSIONS.contains(&known.as_str()))
    {
        eprintln!("NOT ON THE PAGE: git {version}");
    }
    if std::env::var_os("HENGE_BLESS").is_some() {
        std::fs::write(&path, format!("{head}{BEGIN}{made}")).unwrap();
        return;
    }
    assert!(
        written == made,
        "docs/fsck.md is out of date: HENGE_BLESS=1 cargo test -p henge-git writes it again"
    );
}

fn messages_table() -> String {
    let (strict, lenient) = (ObjectRules::strict(), ObjectRules::lenient());
    let word = |level| match level {
        Level::Error => "error",
        Level::Warn => "warn",
        Level::Ignore => "ignore",
    };
    let mut table =
        "\n## Messages\n\n| message | `git fsck` | strict | lenient | |\n|---|---|---|---|---|\n"
            .to_owned();
    for message in Message::ALL {
        let severity = match message.severity() {
            Severity::Fatal => "fatal",
            Severity::Error => "error",
            Severity::Warn => "warn",
            Severity::Info => "info",
            Severity::Ignore => "ignore",
        };
        let name = message.as_str();
        let never = NEVER.iter().find(|(never, _)| *never == name);
        let never = never.map_or_else(String::new, |(_, why)| format!("never said: {why}"));
        let (strict, lenient) = (word(strict.level(*message)), word(lenient.level(*message)));
        let lenient = if strict == lenient { "" } else { lenient };
        writeln!(
            table,
            "| `{name}` | {severity} | {strict} | {lenient} | {never} |"
        )
        .unwrap();
    }
    table
}

/// The settings below `receive.fsck` have the same meaning as in git.
#[test]
fn configured_rules_are_those_of_git() {
    for_each_git(|server, git| {
        let cases = cases();
        let named = |message: &str| {
            let mut of_it = cases.iter().filter(|case| case.message == message);
            of_it.find(|case| case.is_said).unwrap()
        };
        let skipped = server.path("skipped");
        let tree = named("hasDotdot").objects[1].id();
        std::fs::write(&skipped, format!("# known\n{tree} # by its id\n")).unwrap();
        let settings = [
            ("transfer.fsckObjects", "true"),
            ("receive.fsck.hasDotgit", "warn"),
            ("receive.fsck.ZEROPADDEDFILEMODE", "ignore"),
            ("receive.fsck.badFilemode", "error"),
            ("receive.fsck.nothingThatIsKnown", "error"),
            ("receive.fsck.skipList", skipped.to_str().unwrap()),
        ];
        let pair = Pair::new(server, git, "set", &settings);
        for (number, (message, expected)) in [
            ("hasDotgit", "warned"),
            ("zeroPaddedFilemode", "taken"),
            ("badFilemode", "refused"),
            ("hasDotdot", "taken"),
            ("hasDot", "refused"),
        ]
        .into_iter()
        .enumerate()
        {
            let (ours, gits) = pair.push(git, &named(message).objects, number);
            assert_eq!(ours.verb(), expected, "{message}: {ours:?}");
            assert!(ours.is_as_by(&gits), "{message}: {ours:?}, {gits:?}");
        }
    });
}

/// An old history with every object that lenient rules only warn about is pushed and fetched, with
/// either git.
#[test]
fn an_old_history_passes_lenient_rules() {
    for_each_git(|server, git| {
        let eased: Vec<_> = Message::ALL
            .iter()
            .filter(|message| {
                let strict = ObjectRules::strict().level(**message);
                strict == Level::Error && ObjectRules::lenient().level(**message) == Level::Warn
            })
            .map(|message| message.as_str())
            .collect();
        assert_eq!(eased.len(), 12);
        let keys: Vec<_> = eased
            .iter()
            .map(|name| format!("receive.fsck.{name}"))
            .collect();
        let mut settings: Vec<_> = keys.iter().map(|key| (key.as_str(), "warn")).collect();
        settings.push(("receive.fsckObjects", "true"));
        let pair = Pair::new(server, git, "old", &settings);
        for (number, case) in cases().iter().enumerate() {
            if !eased.contains(&case.message) || !case.why.is_empty() {
                continue;
            }
            let (ours, gits) = pair.push(git, &case.objects, number);
            let expected = if case.is_said { "warned" } else { "taken" };
            assert_eq!(ours.verb(), expected, "{}: {ours:?}", case.name);
            assert!(ours.is_as_by(&gits), "{}: {ours:?}, {gits:?}", case.name);
        }
        let copy = server.path("copy");
        let words = ["clone", "-q", "--mirror", pair.ours.to_str().unwrap()];
        let words = [&words[..], &[copy.to_str().unwrap()]].concat();
        git.ok(&words, server.dir.path());
        assert_eq!(git.objects(&copy), git.objects(&pair.ours));
        assert_eq!(git.objects(&copy), git.objects(&pair.gits));
    });
}

/// Without `receive.fsckObjects` git accepts every object that it can read. So does Henge, except
/// for names that a checkout cannot create.
#[test]
fn a_repository_that_asks_for_no_rules_has_none() {
    for_each_git(|server, git| {
        let off = [
            ("transfer.fsckObjects", "true"),
            ("receive.fsckObjects", "false"),
            ("receive.fsck.hasDotgit", "error"),
        ];
        for (name, settings) in [("off", &off[..]), ("unset", &off[2..])] {
            let pair = Pair::new(server, git, name, settings);
            for (number, case) in cases().iter().enumerate() {
                let is_meant = ["badTimezone", "zeroPaddedFilemode", "gitmodulesUrl"];
                if !is_meant.contains(&case.message) {
                    continue;
                }
                let (ours, gits) = pair.push(git, &case.objects, number);
                assert_eq!(ours.verb(), "taken", "{}: {ours:?}", case.name);
                assert_eq!(gits.verb(), "taken", "{}: {gits:?}", case.name);
            }
        }
    });
}

/// A file pushed under an ordinary name is checked when a tree gives it a special one, although it
/// is not sent again.
#[test]
fn a_file_is_checked_under_every_name_that_it_gets() {
    for_each_git(|server, git| {
        let settings = [("receive.fsckObjects", "true")];
        let pair = Pair::new(server, git, "renamed", &settings);
        let (file, [tree, commit], named) = hostile_file();
        let (ours, gits) = pair.push(git, &[file, tree, commit], 0);
        assert_eq!((ours.verb(), gits.verb()), ("taken", "taken"), "{ours:?}");
        let (ours, gits) = pair.push(git, &named, 1);
        assert_eq!(ours.cell(), "refused: gitmodulesUrl", "{ours:?}");
        assert!(ours.is_as_by(&gits), "{gits:?}");
    });
}

/// An object of another repository in the store is not read for a tree that only names it: the
/// answer is the one for an absent object.
#[test]
fn a_file_that_may_not_be_seen_is_not_looked_at() {
    for_each_git(|server, git| {
        let settings = [("receive.fsckObjects", "true")];
        let pair = Pair::new(server, git, "unseen", &settings);
        let (file, plain, [tree, commit]) = hostile_file();
        let sound = cases().remove(1).objects;
        let mention = |number: usize| {
            let objects = [&[tree.clone()][..], &sound[..]].concat();
            pair.push(git, &objects, number).0
        };
        let absent = mention(0);
        let path = server.path("hostile");
        std::fs::write(&path, &file.data).unwrap();
        let words = ["hash-object", "-w", path.to_str().unwrap()];
        assert_eq!(git.ok(&words, &pair.ours), file.id());
        let there = mention(1);
        assert_eq!(
            (absent.cell(), there.cell()),
            ("taken".to_owned(), "taken".to_owned())
        );
        let (ours, _) = pair.push(git, &[tree, commit], 2);
        assert!(ours.text.contains("missing necessary objects"), "{ours:?}");
        let (ours, _) = pair.push(git, &plain, 3);
        assert!(ours.text.contains("missing necessary objects"), "{ours:?}");
    });
}
