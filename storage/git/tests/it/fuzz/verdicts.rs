//! Accepted and refused input, compared with stock git.

use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};

use super::files;
use super::mutate::Mutations;
use crate::inputs::{self, Id, Place, REF, Taken, with_trailer};
use crate::{Git, for_each_git};
use henge_git::{Protocol, PushLimits};

/// Mutations of each object and pack that git judges too.
const MUTATIONS: usize = 3;
/// Generated ref names.
const NAMES: usize = 300;

/// Runs a command that may fail, with input that it may not read completely; returns whether it
/// succeeded, and its outputs.
fn judge(mut command: Command, input: &[u8]) -> (bool, Vec<u8>, String) {
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let output = std::thread::scope(|scope| {
        scope.spawn(move || stdin.write_all(input).is_ok());
        child.wait_with_output().unwrap()
    });
    let errors = String::from_utf8_lossy(&output.stderr).into_owned();
    (output.status.success(), output.stdout, errors)
}

/// Whether git accepts a pack into a quarantine of its own, and its messages.
fn index_pack(git: &Git, place: &Path, strict: &[&str], pack: &[u8]) -> (bool, String) {
    let quarantine = tempfile::tempdir().unwrap();
    std::fs::create_dir(quarantine.path().join("pack")).unwrap();
    let arguments = [&["index-pack", "--stdin", "--fix-thin"], strict].concat();
    let mut command = git.command(&arguments, place);
    command
        .env("GIT_OBJECT_DIRECTORY", quarantine.path())
        .env("GIT_ALTERNATE_OBJECT_DIRECTORIES", place.join("objects"));
    let (taken, _, errors) = judge(command, pack);
    (taken, errors)
}

/// Both verdicts on a pack with a tip. A pack that Henge refuses and strict git accepts must be
/// refused for one of the reasons in `excused`.
fn compare(git: &Git, place: &mut Place, what: &str, tip: Id, pack: &[u8], excused: &[&str]) {
    let (loose, loose_errors) = index_pack(git, place.path(), &[], pack);
    let (strict, _) = index_pack(git, place.path(), &["--strict"], pack);
    let taken = place.push(&[(tip, REF)], pack, &PushLimits::default());
    match &taken {
        Taken::Accepted => assert!(loose, "{what}: accepted; git: {loose_errors}"),
        Taken::Refused(reason) => {
            let is_excused = excused.iter().any(|excuse| reason.contains(excuse));
            assert!(
                !strict || is_excused,
                "{what}: git --strict accepts it; refused: {reason}"
            );
        }
    }
    if taken.is_accepted() {
        *place = Place::new();
    }
}

/// The seeds of a target and a few mutations of each.
fn inputs_of(target: &str) -> Vec<(String, Vec<u8>)> {
    let files = files(target);
    let mut inputs = Vec::new();
    for (name, seed) in &files {
        let mut mutations = Mutations::new(&format!("verdict/{name}"));
        inputs.push((name.clone(), seed.clone()));
        for number in 0..MUTATIONS {
            let other = &files[mutations.below(files.len())].1;
            inputs.push((
                format!("{name}, mutation {number}"),
                mutations.of(seed, other),
            ));
        }
    }
    inputs
}

#[test]
fn objects_are_judged_as_git_judges_them() {
    for_each_git(|_, git| {
        let mut place = Place::new();
        for (name, input) in inputs_of("object") {
            if let Some((tip, pack)) = inputs::object_pack(&input) {
                let excused: &[_] = if input[0] % 4 == 1 && has_odd_mode(&input[1..]) {
                    &["malformed object"]
                } else {
                    &[]
                };
                compare(git, &mut place, &name, tip, &pack, excused);
            }
        }
    });
}

/// Whether a tree has an entry whose mode is no directory, file, link or submodule. git treats it
/// as a submodule; documented as refused.
fn has_odd_mode(mut tree: &[u8]) -> bool {
    while let Some(space) = tree.iter().position(|byte| *byte == b' ') {
        let mode = std::str::from_utf8(&tree[..space]).ok();
        let mode = mode.and_then(|text| u64::from_str_radix(text, 8).ok());
        let is_known = mode.is_some_and(|mode| {
            space < 8
                && matches!(
                    mode & 0o170_000,
                    0o040_000 | 0o100_000 | 0o120_000 | 0o160_000
                )
        });
        if !is_known {
            return true;
        }
        let Some(end) = tree.iter().position(|byte| *byte == 0) else {
            return false;
        };
        tree = tree.get(end + 21..).unwrap_or_default();
    }
    false
}

#[test]
fn packs_are_judged_as_git_judges_them() {
    for_each_git(|_, git| {
        let mut place = Place::new();
        for (name, body) in inputs_of("push_pack") {
            // git does not check the tip; an unknown tip is missing here. git reads sizes with more
            // digits than a number has; no client writes them.
            let (tip, excused): (_, &[_]) = match inputs::first_object(&body) {
                Some(tip) => (tip, &["not a pack", "overflowed"]),
                None => ([0x11; 20], &["unpack ok", "not a pack", "overflowed"]),
            };
            compare(git, &mut place, &name, tip, &with_trailer(&body), excused);
        }
    });
}

#[test]
fn deltas_are_judged_as_git_judges_them() {
    for_each_git(|_, git| {
        let mut place = Place::new();
        for (name, delta) in inputs_of("delta") {
            let result = inputs::apply_delta(&place.blob, &delta);
            let tip = result.map_or([0x11; 20], |result| {
                inputs::object_id(inputs::Kind::Blob, &result)
            });
            let pack = inputs::delta_pack(&place, &delta);
            compare(git, &mut place, &name, tip, &pack, &[]);
        }
    });
}

#[test]
fn ref_names_are_judged_as_git_judges_them() {
    for_each_git(|server, git| {
        let parts = [
            "a", "B9", ".", "..", "/", "@", "{", "@{", ".lock", "lock", "-", "~", "^", ":", "?",
            "*", "[", "]", "\\", " ", "\t", "\n", "\u{7f}", "\u{1}", "\u{e4}", "\u{200b}", "#",
            "%",
        ];
        let mut numbers = Mutations::new("names");
        let mut names: Vec<String> = parts
            .iter()
            .map(|part| format!("refs/heads/{part}"))
            .collect();
        while names.len() < NAMES {
            let length = 1 + numbers.below(5);
            let generated: String = (0..length)
                .map(|_| parts[numbers.below(parts.len())])
                .collect();
            names.push(format!("refs/heads/{generated}"));
            names.push(format!("refs/heads/x{generated}y"));
        }
        let mutated = inputs_of("ref_name").into_iter();
        let mutated = mutated.filter_map(|(_, name)| String::from_utf8(name).ok());
        // An argument has no NUL, and must not look like an option.
        names.extend(mutated.filter(|name| {
            name.starts_with("refs/heads/") && name.len() < 1024 && !name.contains('\0')
        }));
        let mut taken = 0;
        for name in names {
            let here = inputs::ref_name(name.as_bytes());
            let there = git.run(&["check-ref-format", &name], server.dir.path());
            assert_eq!(here, there.status.success(), "{name:?}");
            taken += usize::from(here);
        }
        assert!(taken > NAMES / 10, "only {taken} names were taken");
        // Documented: names have at most 1024 bytes and are UTF-8.
        assert!(!inputs::ref_name(
            format!("refs/heads/{}", "a".repeat(1014)).as_bytes()
        ));
        assert!(!inputs::ref_name(b"refs/heads/\xe4"));
    });
}

#[test]
fn fetches_are_answered_where_git_answers_them() {
    for_each_git(|_, git| {
        let place = Place::new();
        let git = git
            .with("uploadpack.allowFilter=true")
            .with("uploadpack.allowReachableSHA1InWant=true")
            .with("uploadpack.allowRefInWant=true")
            .with("uploadpack.allowSidebandAll=true")
            .with("transfer.advertiseObjectInfo=true");
        let (mut answered, mut wrong) = (0, Vec::new());
        for (name, text) in files("fetch").into_iter().chain(malformed(&place)) {
            let (protocol, request) = inputs::fetch_request(&text);
            let version = match protocol {
                Protocol::V0 => "version=0",
                Protocol::V1 => "version=1",
                Protocol::V2 => "version=2",
            };
            let mut command = git.command(&["upload-pack", "--stateless-rpc", "."], place.path());
            command.env("GIT_PROTOCOL", version);
            let (there, answer, errors) = judge(command, &request);
            let there = there && !answer.windows(4).any(|word| word == b"ERR ");
            let here = inputs::fetch(&place, &text);
            answered += usize::from(here.is_ok());
            let is_known = DIFFERENT.iter().any(|(other, _)| *other == name);
            if (here.is_ok() != there) != is_known {
                let answer = String::from_utf8_lossy(&answer).into_owned();
                wrong.push(format!(
                    "{name}: here {:?}, git {there}: {errors} {answer}",
                    here.err()
                ));
            }
        }
        assert!(wrong.is_empty(), "{}", wrong.join("\n"));
        assert!(answered > 10, "only {answered} fetches were answered");
    });
}

/// Intended differences of Henge.
const DIFFERENT: &[(&str, &str)] = &[
    ("v2_deepen_big", "git counts depth in 31 bits"),
    (
        "2\n=0fff",
        "git takes a request that ends within its first line for none",
    ),
    (
        "0\nhave ID\n0000\ndone",
        "a request without wants is answered with nothing",
    ),
    (
        "0\nwant ID\n0001\n0000\ndone",
        "git takes a delimiter for a flush",
    ),
];

/// Requests that no client sends.
fn malformed(place: &Place) -> Vec<(String, Vec<u8>)> {
    let want = inputs::hex(&place.commit_id);
    let v2 = |lines: &str| format!("2\ncommand=fetch\n0001\nwant {want}\n{lines}\ndone\n0000");
    let texts = [
        v2("deepen 0"),
        v2("deepen -1"),
        v2("deepen x"),
        v2("deepen 1\ndeepen-since 5"),
        v2("deepen-not nothing"),
        v2("filter"),
        v2("filter "),
        v2("filter blob:none:x"),
        v2("filter blob:limit=1z"),
        v2("filter blob:limit="),
        v2("filter tree:-1"),
        v2("filter tree:"),
        v2("filter object:type=thing"),
        v2("filter combine:"),
        v2("filter combine:blob:none+"),
        v2("filter sparse:path=x"),
        v2("filter sparse:oid=nothing"),
        v2("want-ref refs/heads/none"),
        v2("have 12"),
        v2("shallow 12"),
        v2("nonsense"),
        v2("done x"),
        format!(
            "2\ncommand=fetch\n0001\nwant {}\ndone\n0000",
            "0".repeat(40)
        ),
        format!("2\ncommand=fetch\n0001\nwant {want}\n0001\ndone\n0000"),
        format!("2\ncommand=fetch\n0001\nwant {want}\n0002\n"),
        "2\ncommand=nothing\n0000".to_owned(),
        "2\ncommand=\n0000".to_owned(),
        "2\nnonsense\n0000".to_owned(),
        "2\n0001\n0000".to_owned(),
        "2\n=0003".to_owned(),
        "2\n=zzzz".to_owned(),
        "2\n=0fff".to_owned(),
        "2\ncommand=object-info\n0001\noid 12\n0000".to_owned(),
        "2\ncommand=ls-refs\n0001\nnonsense\n0000".to_owned(),
        "0\nwant 12\n0000\ndone".to_owned(),
        "0\nnonsense\n0000".to_owned(),
        format!("0\nhave {want}\n0000\ndone"),
        format!("0\nwant {want}\n0001\n0000\ndone"),
        format!("0\nwant {want}\n0000\nnonsense"),
        format!("0\nwant {want}\ndeepen x\n0000\ndone"),
        format!("0\nwant {want}\nshallow x\n0000\ndone"),
        format!("0\nwant {want} filter\nfilter x\n0000\ndone"),
        format!("0\nwant {}\n0000\ndone", "2".repeat(40)),
    ];
    texts
        .into_iter()
        .map(|text| (text.replace(&want, "ID"), text.into_bytes()))
        .collect()
}
