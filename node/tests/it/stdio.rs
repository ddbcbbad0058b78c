//! `henge upload-pack` and `henge receive-pack` as the other end of stock git's pipes.

use std::io::{Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};

use crate::process::{command, text, until};

const PROTOCOLS: [&str; 3] = ["0", "1", "2"];

struct Place {
    dir: tempfile::TempDir,
    git: PathBuf,
    /// The object format of new repositories.
    format: &'static str,
}

/// Runs `test` with every git of the machine.
fn for_each_git(test: impl Fn(&Place)) {
    for git in crate::gits::gits() {
        let (dir, format) = (tempfile::tempdir().expect("a folder"), "sha1");
        test(&Place { dir, git, format });
    }
}

/// The same, and with SHA-256 repositories.
fn for_each_git_and_format(test: impl Fn(&Place)) {
    for_each_git(&test);
    for git in crate::gits::gits() {
        let (dir, format) = (tempfile::tempdir().expect("a folder"), "sha256");
        test(&Place { dir, git, format });
    }
}

impl Place {
    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn command(&self, protocol: &str, dir: &Path, args: &[&str]) -> Command {
        let mut command = Command::new(&self.git);
        command
            .current_dir(dir)
            .args(["-c", &format!("protocol.version={protocol}")])
            .args(["-c", "user.name=t", "-c", "user.email=t@example.org"])
            .args(["-c", "protocol.ext.allow=always", "-c", "gc.auto=0"])
            .args(args)
            .env("GIT_CONFIG_GLOBAL", "/dev/null")
            .env("GIT_CONFIG_NOSYSTEM", "1")
            .env("LC_ALL", "C")
            .env("GIT_DEFAULT_HASH", self.format)
            .stdin(Stdio::null());
        command
    }

    fn run(&self, protocol: &str, dir: &Path, args: &[&str]) -> Output {
        let mut command = self.command(protocol, dir, args);
        command.output().expect("git runs")
    }

    #[track_caller]
    fn ok(&self, protocol: &str, dir: &Path, args: &[&str]) -> String {
        let done = self.run(protocol, dir, args);
        let errors = text(&done.stderr);
        assert!(done.status.success(), "v{protocol} git {args:?}: {errors}");
        text(&done.stdout).trim().to_owned()
    }

    #[track_caller]
    fn fails(&self, protocol: &str, dir: &Path, args: &[&str]) -> String {
        let done = self.run(protocol, dir, args);
        assert!(!done.status.success(), "v{protocol} git {args:?} worked");
        text(&done.stderr)
    }

    fn work_tree(&self, name: &str, commits: usize) -> PathBuf {
        let path = self.path(name);
        self.ok("2", self.dir.path(), &["init", "-q", "-b", "main", name]);
        self.commits(&path, name, commits);
        path
    }

    /// Makes many commits at once, by fast-import, on the checked-out branch `main`.
    fn commits(&self, tree: &Path, word: &str, count: usize) {
        let mut script = String::from("feature done\n");
        let parent = self.run("2", tree, &["rev-parse", "-q", "--verify", "main"]);
        for number in 0..count {
            let time = 1_600_000_000 + number;
            let message = format!("{word} {number}");
            script.push_str(&format!(
                "commit refs/heads/main\ncommitter T <t@example.org> {time} +0000\ndata {}\n{message}\n",
                message.len()
            ));
            if number == 0 && parent.status.success() {
                script.push_str("from refs/heads/main^0\n");
            }
            script.push_str(&format!(
                "M 100644 inline {word}-{number}.txt\ndata {}\n{message}\n",
                message.len()
            ));
        }
        script.push_str("done\n");
        let mut import = self
            .command("2", tree, &["fast-import", "--quiet"])
            .stdin(Stdio::piped())
            .spawn()
            .expect("git runs");
        let mut input = import.stdin.take().expect("piped");
        input.write_all(script.as_bytes()).expect("git reads");
        drop(input);
        assert!(import.wait().expect("git ends").success());
        self.ok("2", tree, &["reset", "-q", "--hard"]);
    }
}

fn henge() -> &'static str {
    env!("CARGO_BIN_EXE_henge")
}

fn upload_pack() -> String {
    format!("{} upload-pack", henge())
}

fn receive_pack() -> String {
    format!("--receive-pack={} receive-pack", henge())
}

#[test]
fn clones_and_fetches_over_a_pipe_in_every_protocol_version() {
    for_each_git_and_format(|place| {
        let tree = place.work_tree("tree", 20);
        let dir = place.dir.path();
        place.ok("2", &tree, &["tag", "-a", "-m", "t", "v1", "main~3"]);
        let upload = upload_pack();
        for protocol in PROTOCOLS {
            let name = format!("copy{protocol}");
            let clone = ["clone", "-q", "-u", &upload, "--no-local"];
            place.ok(protocol, dir, &[&clone[..], &["tree", &name]].concat());
            let copy = place.path(&name);
            assert_eq!(
                place.ok(protocol, &copy, &["rev-parse", "HEAD", "v1"]),
                place.ok(protocol, &tree, &["rev-parse", "HEAD", "v1"])
            );
            place.ok(protocol, &copy, &["fsck", "--full", "--strict"]);
            // Nothing new: the conversation ends after the advertisement, or after `ls-refs`.
            place.ok(protocol, &copy, &["fetch", "-q", "--upload-pack", &upload]);
            let listed = place.ok(
                protocol,
                dir,
                &["ls-remote", "--upload-pack", &upload, "tree"],
            );
            assert_eq!(listed, place.ok(protocol, dir, &["ls-remote", "tree"]));
            let shallow = format!("shallow{protocol}");
            let depth = ["--depth", "3", "tree", &shallow];
            place.ok(protocol, dir, &[&clone[..], &depth].concat());
            let shallow = place.path(&shallow);
            let count = |expected: &str| {
                let count = place.ok(protocol, &shallow, &["rev-list", "--count", "HEAD"]);
                assert_eq!(count, expected, "v{protocol}");
            };
            count("3");
            let fetch = ["fetch", "-q", "--upload-pack", &upload];
            place.ok(
                protocol,
                &shallow,
                &[&fetch[..], &["--deepen", "4"]].concat(),
            );
            count("7");
            place.ok(protocol, &shallow, &[&fetch[..], &["--unshallow"]].concat());
            count("20");
            place.ok(protocol, &shallow, &["fsck", "--full", "--strict"]);
        }
    });
}

/// More haves than one round holds, most of them unknown to the server: the client negotiates in
/// many rounds on one stream.
#[test]
fn many_haves_are_negotiated_in_rounds() {
    for_each_git(|place| {
        let tree = place.work_tree("tree", 50);
        let dir = place.dir.path();
        let upload = upload_pack();
        for protocol in PROTOCOLS {
            let name = format!("copy{protocol}");
            let clone = ["clone", "-q", "-u", &upload, "--no-local", "tree", &name];
            place.ok(protocol, dir, &clone);
            let copy = place.path(&name);
            place.commits(&copy, "own", 700);
            place.commits(&tree, &format!("new{protocol}"), 5);
            let trace = place.path(&format!("trace{protocol}"));
            let done = place
                .command(protocol, &copy, &["fetch", "-q", "--upload-pack", &upload])
                .env("GIT_TRACE_PACKET", &trace)
                .output()
                .expect("git runs");
            assert!(done.status.success(), "{}", text(&done.stderr));
            assert_eq!(
                place.ok(protocol, &copy, &["rev-parse", "origin/main"]),
                place.ok(protocol, &tree, &["rev-parse", "main"])
            );
            place.ok(protocol, &copy, &["fsck", "--full", "--strict"]);
            let trace = std::fs::read_to_string(trace).expect("a trace");
            let haves = trace.matches("fetch> have ").count();
            assert!(haves > 256, "v{protocol}: only {haves} haves were sent");
            let is_nak = |line: &&str| line.contains("fetch< ") && line.ends_with("NAK");
            let rounds = trace.lines().filter(is_nak).count();
            assert!(rounds > 2, "v{protocol}: {rounds} rounds\n");
            // The copy has objects. The number of objects that were sent is not checked.
            let received = place.ok(protocol, &copy, &["count-objects", "-v"]);
            assert!(!received.is_empty());
        }
    });
}

#[test]
fn a_client_that_takes_one_acknowledgment_or_no_side_band_is_served() {
    // git always requests more: the protocol is spoken by hand.
    let place = Place {
        format: "sha1",
        dir: tempfile::tempdir().expect("a folder"),
        git: crate::gits::gits().remove(0),
    };
    let tree = place.work_tree("tree", 5);
    let ids = place.ok("2", &tree, &["rev-list", "main"]);
    let ids: Vec<&str> = ids.lines().collect();
    for capabilities in ["", " multi_ack"] {
        let mut child = command(&["upload-pack"])
            .arg(&tree)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("henge runs");
        let mut input = child.stdin.take().expect("piped");
        let mut output = child.stdout.take().expect("piped");
        let mut say = |text: &str| input.write_all(text.as_bytes()).expect("it reads");
        let mut hear = || packet(&mut output);
        while hear().is_some() {}
        let unknown = "1".repeat(40);
        say(&line(&format!("want {}{capabilities}\n", ids[0])));
        say("0000");
        say(&line(&format!("have {unknown}\n")));
        say("0000");
        assert_eq!(hear().as_deref(), Some("NAK\n"));
        say(&line(&format!("have {}\n", ids[2])));
        say(&line(&format!("have {}\n", ids[3])));
        if capabilities.is_empty() {
            say("0000");
            assert_eq!(hear(), Some(format!("ACK {}\n", ids[2])));
            say(&line("done\n"));
        } else {
            say("0000");
            assert_eq!(hear(), Some(format!("ACK {} continue\n", ids[2])));
            assert_eq!(hear(), Some(format!("ACK {} continue\n", ids[3])));
            assert_eq!(hear().as_deref(), Some("NAK\n"));
            say(&line("done\n"));
            assert_eq!(hear(), Some(format!("ACK {}\n", ids[3])));
        }
        let mut pack = Vec::new();
        output.read_to_end(&mut pack).expect("it writes");
        assert_eq!(&pack[..4], b"PACK");
        let objects = u32::from_be_bytes(pack[8..12].try_into().expect("four bytes"));
        assert_eq!(objects, 6, "two commits, two trees, two files");
        assert!(child.wait().expect("it ends").success());
    }
}

fn line(text: &str) -> String {
    format!("{:04x}{text}", text.len() + 4)
}

/// The next pkt-line; `None` for a flush.
fn packet(output: &mut impl std::io::Read) -> Option<String> {
    let mut head = [0; 4];
    output.read_exact(&mut head).expect("a pkt-line");
    let head = std::str::from_utf8(&head).expect("hex");
    let length = usize::from_str_radix(head, 16).expect("hex");
    let mut data = vec![0; length.checked_sub(4)?];
    output.read_exact(&mut data).expect("a whole pkt-line");
    Some(String::from_utf8_lossy(&data).into_owned())
}

#[test]
fn pushes_over_a_pipe_in_every_protocol_version() {
    for_each_git_and_format(|place| {
        let tree = place.work_tree("tree", 4);
        let dir = place.dir.path();
        let receive = receive_pack();
        for protocol in PROTOCOLS {
            let name = format!("bare{protocol}.git");
            place.ok(
                protocol,
                dir,
                &["init", "-q", "--bare", "-b", "main", &name],
            );
            let bare = place.path(&name);
            let url = bare.to_str().expect("text");
            let push = |args: &[&str]| {
                let all = [&["push", &receive, url][..], args].concat();
                place.run(protocol, &tree, &all)
            };
            let ok = |args: &[&str]| {
                let done = push(args);
                assert!(done.status.success(), "v{protocol}: {}", text(&done.stderr));
            };
            ok(&["main"]);
            ok(&["main"]);
            ok(&["--atomic", "main:a", "main:b", "main~2:refs/tags/t"]);
            ok(&["--delete", "a"]);
            let refs = place.ok(protocol, &bare, &["for-each-ref", "--format=%(refname)"]);
            assert_eq!(refs, "refs/heads/b\nrefs/heads/main\nrefs/tags/t");
            // One update is refused and one accepted. With `--atomic` both are refused.
            let mixed = push(&["main:new", ":main"]);
            let said = text(&mixed.stderr);
            assert!(said.contains("deletion of the current branch"), "{said}");
            assert!(said.contains("main -> new"), "{said}");
            let none = push(&["--atomic", "main:newer", ":main"]);
            let said = text(&none.stderr);
            assert!(said.contains("atomic push failure"), "{said}");
            let refs = place.ok(protocol, &bare, &["for-each-ref", "--format=%(refname)"]);
            assert!(!refs.contains("newer") && refs.contains("new"), "{refs}");
            place.ok(protocol, &bare, &["fsck", "--full", "--strict"]);
        }
    });
}

/// Every update is refused before the pack is read; the client, which first sends all of it, still
/// gets the reason.
#[test]
fn a_refusal_is_heard_behind_a_large_pack() {
    for_each_git(|place| {
        let tree = place.work_tree("tree", 1);
        let dir = place.dir.path();
        place.ok("2", dir, &["init", "-q", "--bare", "bare.git"]);
        place.ok(
            "2",
            &place.path("bare.git"),
            &["config", "receive.hideRefs", "refs/secret"],
        );
        let mut state = 1_u64;
        let noise: Vec<u8> = std::iter::repeat_with(|| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state.to_le_bytes()[3]
        })
        .take(3_000_000)
        .collect();
        std::fs::write(tree.join("noise"), noise).expect("a file");
        place.ok("2", &tree, &["add", "-A"]);
        place.ok("2", &tree, &["commit", "-q", "-m", "noise"]);
        let receive = receive_pack();
        let refused = place.fails(
            "2",
            &tree,
            &["push", &receive, "../bare.git", "main:refs/secret/x"],
        );
        assert!(refused.contains("deny updating a hidden ref"), "{refused}");
    });
}

/// A client over SSH keeps its end of the stream open while it waits for the report.
#[test]
fn the_report_comes_without_the_end_of_the_stream() {
    let place = Place {
        format: "sha1",
        dir: tempfile::tempdir().expect("a folder"),
        git: crate::gits::gits().remove(0),
    };
    let tree = place.work_tree("tree", 3);
    let dir = place.dir.path();
    place.ok("2", dir, &["init", "-q", "--bare", "bare.git"]);
    let tip = place.ok("2", &tree, &["rev-parse", "main"]);
    let mut packing = place
        .command("2", &tree, &["pack-objects", "-q", "--stdout", "--revs"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("git runs");
    let mut revisions = packing.stdin.take().expect("piped");
    revisions.write_all(b"main\n").expect("git reads");
    drop(revisions);
    let pack = packing.wait_with_output().expect("git ends").stdout;
    for (name, expected) in [("refs/heads/main", "ok"), ("refs/heads/main", "ng")] {
        let mut child = command(&["receive-pack"])
            .arg(place.path("bare.git"))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("henge runs");
        let mut input = child.stdin.take().expect("piped");
        let mut output = child.stdout.take().expect("piped");
        while packet(&mut output).is_some() {}
        let head = format!("{} {tip} {name}\0 report-status", "0".repeat(40));
        input.write_all(line(&head).as_bytes()).expect("it reads");
        input.write_all(b"0000").expect("it reads");
        input.write_all(&pack).expect("it reads");
        assert_eq!(packet(&mut output).as_deref(), Some("unpack ok\n"));
        let report = packet(&mut output).expect("a report");
        assert!(report.starts_with(expected), "{report}");
        assert_eq!(packet(&mut output), None);
        assert!(child.wait().expect("it ends").success());
        drop(input);
    }
}

#[test]
fn signed_pushes_over_a_pipe_sign_what_was_asked_there() {
    for_each_git(|place| {
        let dir = place.dir.path();
        let key = place.path("signing_key");
        let keygen = Path::new("/usr/bin/ssh-keygen");
        if !keygen.is_file() {
            let must = std::env::var_os("HENGE_TESTS_ALL").is_some();
            assert!(!must, "ssh-keygen is missing on this machine");
            eprintln!("NOT CHECKED: ssh-keygen is missing on this machine");
            return;
        }
        let mut make = Command::new(keygen);
        make.args(["-q", "-t", "ed25519", "-N", "", "-f"]).arg(&key);
        assert!(make.status().expect("it runs").success());
        let tree = place.work_tree("tree", 3);
        place.ok(
            "2",
            dir,
            &["init", "-q", "--bare", "-b", "main", "bare.git"],
        );
        let bare = place.path("bare.git");
        let (receive, key) = (receive_pack(), format!("user.signingkey={}", key.display()));
        let sign = [
            "-c",
            "gpg.format=ssh",
            "-c",
            &key,
            "push",
            "-q",
            "--signed",
            &receive,
        ];
        let push = |protocol: &str, spec: &str| {
            let mut command = place.command(protocol, &tree, &sign);
            command.args([bare.to_str().expect("text"), spec]);
            // The server's log goes to the client's terminal.
            let command = command.env("HENGE_LOG_FILTER", "info");
            command.output().expect("git runs")
        };
        let refused = push("2", "main");
        let said = text(&refused.stderr);
        assert!(!refused.status.success());
        assert!(said.contains("does not support --signed push"), "{said}");
        place.ok("2", &bare, &["config", "receive.certNonceSeed", "seed"]);
        for protocol in PROTOCOLS {
            let done = push(protocol, &format!("main:refs/heads/v{protocol}"));
            let said = text(&done.stderr);
            assert!(done.status.success(), "{said}");
            assert!(said.contains("nonce=\"OK\""), "{said}");
            assert!(said.contains("signature=\"ssh\""), "{said}");
            let (_, rest) = said.split_once("certificate=").expect("an id");
            let id = rest.split(' ').next().expect("an id");
            let kept = place.ok("2", &bare, &["cat-file", "blob", id]);
            assert!(kept.starts_with("certificate version 0.1\n"), "{kept}");
        }
        place.ok("2", &bare, &["fsck", "--full", "--strict"]);
    });
}

#[test]
fn git_calls_it_through_ext_and_ssh() {
    for_each_git(|place| {
        let tree = place.work_tree("tree", 3);
        let dir = place.dir.path();
        place.ok(
            "2",
            dir,
            &["init", "-q", "--bare", "-b", "main", "bare.git"],
        );
        let bare = place.path("bare.git").display().to_string();
        let url = format!("ext::{} %s {bare}", henge());
        // git requests `git-upload-pack` there; `%s` is the name without its prefix, `upload-pack`.
        place.ok("2", &tree, &["push", "-q", &url, "main"]);
        place.ok("2", dir, &["clone", "-q", &url, "by-ext"]);
        // A stand-in for ssh: it runs the remote command on this machine.
        let ssh = place.path("ssh");
        std::fs::write(
            &ssh,
            "#!/bin/sh\nwhile [ $# -gt 1 ]; do shift; done\nexec sh -c \"$1\"\n",
        )
        .expect("a script");
        let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
        std::fs::set_permissions(&ssh, mode).expect("may be run");
        for protocol in PROTOCOLS {
            let name = format!("by-ssh{protocol}");
            let upload = upload_pack();
            let url = format!("ssh://somewhere{bare}");
            let done = place
                .command(protocol, dir, &["clone", "-q", "-u", &upload, &url, &name])
                .env("GIT_SSH", &ssh)
                .env("GIT_SSH_VARIANT", "simple")
                .output()
                .expect("git runs");
            assert!(done.status.success(), "{}", text(&done.stderr));
            let head = place.ok("2", &place.path(&name), &["rev-parse", "HEAD"]);
            assert_eq!(head, place.ok("2", &tree, &["rev-parse", "HEAD"]));
        }
    });
}

#[test]
fn the_parts_of_a_conversation_that_a_web_server_asks_for() {
    let place = Place {
        format: "sha1",
        dir: tempfile::tempdir().expect("a folder"),
        git: crate::gits::gits().remove(0),
    };
    let tree = place.work_tree("tree", 2);
    let tip = place.ok("2", &tree, &["rev-parse", "main"]);
    for flag in ["--http-backend-info-refs", "--advertise-refs"] {
        for service in ["upload-pack", "receive-pack"] {
            let mut ours = command(&[service, flag]);
            let said = text(&ours.arg(&tree).output().expect("henge runs").stdout);
            assert!(said.contains(&tip) && said.ends_with("0000"), "{said}");
        }
    }
    let mut two = command(&["upload-pack", "--advertise-refs"]);
    let two = two.arg(&tree).env("GIT_PROTOCOL", "version=2");
    let said = text(&two.output().expect("henge runs").stdout);
    assert!(said.starts_with("000eversion 2\n"), "{said}");
    let mut child = command(&["upload-pack", "--stateless-rpc"])
        .arg(&tree)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("henge runs");
    let request = format!("{}0000{}", line(&format!("want {tip}\n")), line("done\n"));
    let mut input = child.stdin.take().expect("piped");
    input.write_all(request.as_bytes()).expect("it reads");
    drop(input);
    let answer = child.wait_with_output().expect("it ends").stdout;
    assert_eq!(&answer[..12], b"0008NAK\nPACK");
}

#[test]
fn what_is_no_repository_and_who_says_nothing_end_with_an_error() {
    let place = Place {
        format: "sha1",
        dir: tempfile::tempdir().expect("a folder"),
        git: crate::gits::gits().remove(0),
    };
    let tree = place.work_tree("tree", 1);
    let run = |args: &[&str], dir: &Path| -> Output {
        command(args).arg(dir).output().expect("henge runs")
    };
    for args in [&["upload-pack"][..], &["receive-pack"]] {
        let done = run(args, &place.path("nothing"));
        assert_eq!(done.status.code(), Some(1));
        let said = text(&done.stderr);
        assert!(said.contains("not a git repository"), "{said}");
    }
    // With `--strict` a work tree is no repository: its repository is below it.
    assert_eq!(
        run(&["upload-pack", "--strict"], &tree).status.code(),
        Some(1)
    );
    assert!(run(&["upload-pack"], &tree).status.success());
    let mut child: Child = command(&["upload-pack", "--timeout=1"])
        .arg(&tree)
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .expect("henge runs");
    let silent = child.stdin.take().expect("piped");
    let status = until("the end of its patience", || {
        child.try_wait().expect("waited")
    });
    assert_eq!(status.code(), Some(1));
    let mut said = String::new();
    let mut errors = child.stderr.take().expect("piped");
    errors.read_to_string(&mut said).expect("text");
    assert!(said.contains("rested for 1 s"), "{said}");
    drop(silent);
}
