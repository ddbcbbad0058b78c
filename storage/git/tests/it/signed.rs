//! Signed pushes: stock git signs; this server accepts and stores the same as git's own server.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Mutex;

use henge_git::{
    BareRepository, CommitError, Nonces, Protocol, PushLimits, RefStore, Service, VerifiedPush,
    advertise, receive_pack,
};
use henge_types::{NonceStatus, ObjectId, PushCertificate, RefName, RefVerdict, SignatureKind};

use crate::raw::{EMPTY_PACK, ZERO, line, post};
use crate::{Git, Server, for_each_git, for_each_git_and_format, objects_of};

const FLUSH: &[u8] = b"0000";
const SEED: &str = "a seed of the server's";

fn tool(program: &str, home: &Path) -> Option<Command> {
    let path = Path::new("/usr/bin").join(program);
    if !path.is_file() {
        assert!(
            std::env::var_os("HENGE_TESTS_ALL").is_none(),
            "{program} is missing on this machine"
        );
        eprintln!("NOT CHECKED: {program} is missing on this machine");
        return None;
    }
    let mut command = Command::new(path);
    command
        .env_clear()
        .env("PATH", "/usr/bin:/bin")
        .env("HOME", home)
        .current_dir(home)
        .stdin(Stdio::null());
    Some(command)
}

#[track_caller]
fn done(mut command: Command) {
    let output = command.output().unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?}: {errors}");
}

/// The same git, signing with a new SSH key.
fn with_ssh_key(server: &Server, git: &Git) -> Option<Git> {
    let key = server.path("signing_key");
    let mut make = tool("ssh-keygen", server.dir.path())?;
    make.args(["-q", "-t", "ed25519", "-N", "", "-C", "a@example.org"])
        .arg("-f")
        .arg(&key);
    done(make);
    let git = git.with("gpg.format=ssh");
    Some(git.with(&format!("user.signingkey={}", key.display())))
}

/// Stops the agent that gpg starts, on drop.
struct Agent {
    home: PathBuf,
}

impl Drop for Agent {
    fn drop(&mut self) {
        if let Some(mut end) = tool("gpgconf", &self.home) {
            let ended = end.args(["--kill", "gpg-agent"]).status();
            assert!(ended.is_ok_and(|status| status.success()) || std::thread::panicking());
        }
    }
}

/// The same git, signing with a new OpenPGP key in the keyring of its home.
fn with_gpg_key(server: &Server, git: &Git) -> Option<(Git, Agent)> {
    let home = server.dir.path();
    let mut make = tool("gpg", home)?;
    make.args(["-q", "--batch", "--passphrase", ""]).args([
        "--quick-gen-key",
        "A <a@example.org>",
        "ed25519",
        "sign",
    ]);
    done(make);
    let home = home.to_owned();
    Some((git.with("user.signingkey=a@example.org"), Agent { home }))
}

/// Every certificate in the object store of a repository.
fn certificates(git: &Git, bare: &Path) -> Vec<String> {
    let all = ["cat-file", "--batch-all-objects", "--batch-check"];
    let listed = git.ok(&all, bare);
    let blobs = listed.lines().filter(|line| line.contains(" blob "));
    let ids = blobs.map(|line| line.split(' ').next().unwrap().to_owned());
    let texts = ids.map(|id| git.run(&["cat-file", "blob", &id], bare).stdout);
    let texts = texts.map(|text| String::from_utf8_lossy(&text).into_owned());
    texts
        .filter(|text| text.starts_with("certificate version"))
        .collect()
}

/// The parts that are equal for every push: without nonce, time, URL and signature.
fn shape(certificate: &str) -> Vec<String> {
    let (signed, armor) = certificate.split_once("-----BEGIN ").unwrap();
    let kept = |line: &str| {
        let words = line.split(' ').collect::<Vec<_>>();
        match words.first().copied() {
            Some("pusher") => words[..words.len() - 2].join(" "),
            Some(word @ ("nonce" | "pushee")) => word.to_owned(),
            _ => line.to_owned(),
        }
    };
    let lines = signed.lines().map(kept);
    lines
        .chain(armor.lines().take(1).map(str::to_owned))
        .collect()
}

/// Installs a hook in git's own server that records the nonce status.
fn record_with_git(bare: &Path) -> PathBuf {
    let record = bare.join("recorded");
    let hook = format!(
        "#!/bin/sh\ncat >/dev/null\nprintf '%s' \"$GIT_PUSH_CERT_NONCE_STATUS\" >{}\n",
        record.display()
    );
    let path = bare.join("hooks/pre-receive");
    std::fs::create_dir_all(bare.join("hooks")).unwrap();
    std::fs::write(&path, hook).unwrap();
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    std::fs::set_permissions(&path, mode).unwrap();
    record
}

/// One repository for this server and one for git's own; both request signatures.
fn pair(server: &Server, git: &Git, name: &str) -> (PathBuf, String, PathBuf) {
    let (ours, url) = server.repo(git, &format!("{name}-ours"));
    let (theirs, _) = server.repo(git, &format!("{name}-theirs"));
    for bare in [&ours, &theirs] {
        git.ok(&["config", "receive.certNonceSeed", SEED], bare);
        git.ok(&["config", "receive.advertisePushOptions", "true"], bare);
    }
    (ours, url, theirs)
}

fn push_signed_to_both(server: &Server, git: &Git, signing: &Git, verify: impl Fn(&str)) {
    let (ours, url, theirs) = pair(server, git, "signed");
    let record = record_with_git(&theirs);
    let work = server.path("work");
    git.work_tree(&work, 2);
    let refs = ["main", "main~1:refs/heads/older"];
    for target in [url.as_str(), theirs.to_str().unwrap()] {
        let push = ["push", "-q", "--signed", "-o", "ci.skip", target];
        signing.ok(&[&push[..], &refs].concat(), &work);
    }
    assert_eq!(std::fs::read_to_string(record).unwrap(), "OK");
    let (own, peer) = (certificates(git, &ours), certificates(git, &theirs));
    assert_eq!((own.len(), peer.len()), (1, 1));
    assert_eq!(shape(&own[0]), shape(&peer[0]));
    assert!(own[0].contains("\npush-option ci.skip\n"), "{}", own[0]);
    verify(&own[0]);
    git.fsck(&ours);
    assert_eq!(
        git.ok(&["for-each-ref"], &ours),
        git.ok(&["for-each-ref"], &theirs)
    );
    server.assert_clean(&ours);
    // Unsigned pushes are accepted too.
    git.change(&work, 9);
    git.ok(&["push", "-q", "--no-signed", &url, "main"], &work);
    assert_eq!(certificates(git, &ours).len(), 1);
}

#[test]
fn a_push_signed_with_an_ssh_key_is_kept_as_git_keeps_it() {
    for_each_git_and_format(|server, git| {
        let Some(signing) = with_ssh_key(server, git) else {
            return;
        };
        push_signed_to_both(server, git, &signing, |certificate| {
            let at = certificate.find("-----BEGIN SSH").unwrap();
            let (signed, signature) = certificate.split_at(at);
            let (payload, armor) = (server.path("payload"), server.path("armor"));
            std::fs::write(&payload, signed).unwrap();
            std::fs::write(&armor, signature).unwrap();
            let mut check = tool("ssh-keygen", server.dir.path()).unwrap();
            check
                .args(["-Y", "check-novalidate", "-n", "git", "-s"])
                .arg(&armor)
                .stdin(std::fs::File::open(&payload).unwrap());
            done(check);
        });
    });
}

#[test]
fn a_push_signed_with_an_openpgp_key_is_kept_as_git_keeps_it() {
    for_each_git(|server, git| {
        let Some((signing, _agent)) = with_gpg_key(server, git) else {
            return;
        };
        push_signed_to_both(server, git, &signing, |certificate| {
            let at = certificate.find("-----BEGIN PGP").unwrap();
            let (signed, signature) = certificate.split_at(at);
            let (payload, armor) = (server.path("payload"), server.path("armor"));
            std::fs::write(&payload, signed).unwrap();
            std::fs::write(&armor, signature).unwrap();
            let mut check = tool("gpg", server.dir.path()).unwrap();
            check.args(["-q", "--verify"]).arg(&armor).arg(&payload);
            done(check);
        });
    });
}

#[test]
fn without_a_seed_signed_pushes_are_not_offered() {
    for_each_git(|server, git| {
        let Some(signing) = with_ssh_key(server, git) else {
            return;
        };
        let (_, url) = server.repo(git, "unsigned");
        let work = server.path("work");
        git.work_tree(&work, 1);
        let refused = signing.fails(&["push", "--signed", &url, "main"], &work);
        assert!(
            refused.contains("the receiving end does not support --signed push"),
            "{refused}"
        );
        signing.ok(&["push", "-q", "--signed=if-asked", &url, "main"], &work);
    });
}

fn certificate_body(words: &str, lines: &[String], behind: &[u8]) -> Vec<u8> {
    let mut body = line(&format!("push-cert\0 report-status {words}"));
    for text in lines {
        body.extend(line(text));
    }
    body.extend_from_slice(behind);
    body
}

fn header(more: &[&str]) -> Vec<String> {
    let own = [
        "certificate version 0.1\n",
        "pusher A <a@example.org> 1700000000 +0000\n",
        "pushee nowhere\n",
        "nonce 1700000000-00\n",
    ];
    own.iter()
        .chain(more)
        .map(|&line| line.to_owned())
        .collect()
}

fn armor() -> [String; 3] {
    [
        "-----BEGIN SSH SIGNATURE-----\n".to_owned(),
        "bm90IG9uZQ==\n".to_owned(),
        "-----END SSH SIGNATURE-----\n".to_owned(),
    ]
}

/// The answer of git's own server; `None` when it dies.
fn ask_git(git: &Git, bare: &Path, body: &[u8]) -> Option<String> {
    let path = bare.to_str().unwrap();
    let mut command = git.command(&["receive-pack", "--stateless-rpc", path], bare);
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut stdin = child.stdin.take().unwrap();
    // A git that refuses early stops reading.
    let _written = stdin.write_all(body).is_ok();
    drop(stdin);
    let output = child.wait_with_output().unwrap();
    let answer = String::from_utf8_lossy(&output.stdout).into_owned();
    output.status.success().then_some(answer)
}

fn command(id: &str, name: &str) -> String {
    format!("{ZERO} {id} refs/heads/{name}\n")
}

/// The lines of a certificate that creates a branch.
fn to_make(id: &str, name: &str, more: &[&str]) -> Vec<String> {
    let mut lines = header(more);
    lines.extend(["\n".to_owned(), command(id, name)]);
    lines.extend(armor());
    lines
}

/// The rest of a push after a certificate: its end, and a pack.
fn whole() -> Vec<u8> {
    [&line("push-cert-end\n")[..], FLUSH, EMPTY_PACK].concat()
}

/// Pushes that this server accepts or refuses like git, which dies on some.
fn judged_alike(id: &str) -> Vec<(&'static str, Vec<u8>)> {
    let with_options = |sent: &str| {
        let sent = [line(sent), FLUSH.to_vec()].concat();
        [&line("push-cert-end\n")[..], FLUSH, &sent, EMPTY_PACK].concat()
    };
    let headless: Vec<_> = header(&[]).into_iter().chain([command(id, "h")]).collect();
    let signed = |words: &str, name: &str, more: &[&str], behind: &[u8]| {
        certificate_body(words, &to_make(id, name, more), behind)
    };
    let word = "push-options";
    let option = &["push-option x\n"];
    vec![
        ("taken", signed("", "a", &[], &whole())),
        ("options", signed(word, "o", option, &with_options("x"))),
        ("others", signed(word, "p", option, &with_options("y"))),
        ("not signed", signed(word, "q", &[], &with_options("y"))),
        ("not sent", signed("", "r", option, &whole())),
        ("no empty line", certificate_body("", &headless, &whole())),
        ("cut off", signed("", "cut", &[], &[])),
    ]
}

/// The format has an end line; git also accepts a flush instead. git intends to refuse unsigned
/// commands beside signed ones, but accepts them.
fn refused_here_only(id: &str) -> Vec<(&'static str, Vec<u8>)> {
    let end = line("push-cert-end\n");
    let endless = [FLUSH, EMPTY_PACK].concat();
    let behind = [&end[..], &line(&command(id, "two")), FLUSH, EMPTY_PACK].concat();
    let first = line(&format!("{}\0 report-status", command(id, "b").trim_end()));
    let rest = certificate_body("", &to_make(id, "c", &[]), &whole());
    let signed = |name: &str, behind: &[u8]| certificate_body("", &to_make(id, name, &[]), behind);
    vec![
        ("push-cert-end", signed("endless", &endless)),
        ("unsigned commands", signed("one", &behind)),
        ("unsigned commands", [first, rest].concat()),
    ]
}

#[test]
fn what_is_wrong_with_a_certificate_is_refused_as_git_refuses_it() {
    for_each_git(|server, git| {
        let (ours, url, theirs) = pair(server, git, "hostile");
        let work = server.path("work");
        git.work_tree(&work, 1);
        for target in [url.as_str(), theirs.to_str().unwrap()] {
            git.ok(&["push", "-q", target, "main"], &work);
        }
        let id = git.ok(&["rev-parse", "main"], &work);
        let same_refs = |what: &str| {
            let (own, peer) = (&["for-each-ref"], &["for-each-ref"]);
            assert_eq!(git.ok(own, &ours), git.ok(peer, &theirs), "{what}");
        };
        for (what, body) in judged_alike(&id) {
            let theirs_says = ask_git(git, &theirs, &body);
            let answer = post(&url, "receive-pack", "", &body);
            match theirs_says {
                Some(report) => assert_eq!((answer.status, answer.text()), (200, report), "{what}"),
                None => assert_eq!(answer.status, 400, "{what}: {}", answer.text()),
            }
            same_refs(what);
        }
        for (reason, body) in refused_here_only(&id) {
            let answer = post(&url, "receive-pack", "", &body);
            assert_eq!(answer.status, 400);
            assert!(answer.text().contains(reason), "{}", answer.text());
            same_refs(reason);
        }
        server.assert_clean(&ours);
    });
}

/// A repository that records commits instead of applying them.
struct Watched<'a> {
    repository: &'a BareRepository,
    nonces: Option<Nonces>,
    seen: Mutex<Option<PushCertificate>>,
}

impl RefStore for Watched<'_> {
    fn head(&self) -> RefName {
        self.repository.head()
    }

    fn get(&self, name: &RefName) -> Option<ObjectId> {
        self.repository.get(name)
    }

    fn for_each(&self, prefix: &str, visit: &mut dyn FnMut(&RefName, ObjectId)) {
        self.repository.for_each(prefix, visit);
    }

    fn was_tip_recently(&self, _: ObjectId) -> bool {
        false
    }

    fn nonces(&self) -> Option<Nonces> {
        self.nonces.clone()
    }

    fn commit(&self, push: VerifiedPush<'_>) -> Result<Vec<RefVerdict>, CommitError> {
        *self.seen.lock().unwrap() = push.certificate;
        let accepted = |update: henge_types::RefUpdate| RefVerdict {
            name: update.name,
            old: None,
            result: Ok(()),
        };
        Ok(push.updates.into_iter().map(accepted).collect())
    }
}

const NOW_S: u64 = 1_700_000_000;

fn nonces(repository: &str, now_s: u64) -> Nonces {
    Nonces::new(SEED.as_bytes(), repository.as_bytes(), now_s, 60)
}

#[test]
fn what_a_nonce_is_worth_comes_with_the_push() {
    for_each_git(|server, git| {
        let (bare, url) = server.repo(git, "nonces");
        let work = server.path("work");
        git.work_tree(&work, 1);
        git.ok(&["push", "-q", &url, "main"], &work);
        let id = git.ok(&["rev-parse", "main"], &work);
        let repository = BareRepository::open(&bare).unwrap();
        let asked = |repository: &str, now_s| Some(nonces(repository, now_s).issue());
        let here = || Some(nonces("here", NOW_S));
        for (own, nonce, expected) in [
            (here(), asked("here", NOW_S), NonceStatus::Ok),
            (here(), asked("here", NOW_S - 60), NonceStatus::Ok),
            (
                here(),
                asked("here", NOW_S - 61),
                NonceStatus::Slop { seconds: 61 },
            ),
            (here(), asked("another repository", NOW_S), NonceStatus::Bad),
            (here(), Some("none".to_owned()), NonceStatus::Bad),
            (here(), None, NonceStatus::Missing),
            (None, asked("here", NOW_S), NonceStatus::Unsolicited),
        ] {
            let watched = Watched {
                repository: &repository,
                nonces: own,
                seen: Mutex::new(None),
            };
            let mut lines = header(&[])[..3].to_vec();
            lines.extend(nonce.map(|nonce| format!("nonce {nonce}\n")));
            lines.extend(["\n".to_owned(), format!("{ZERO} {id} refs/heads/new\n")]);
            lines.extend(armor());
            let behind = [&line("push-cert-end\n")[..], FLUSH, EMPTY_PACK].concat();
            let body = certificate_body("", &lines, &behind);
            let quarantine = tempfile::tempdir().unwrap();
            let mut report = Vec::new();
            receive_pack(
                &watched,
                &objects_of(&bare),
                &quarantine.path(),
                &mut &body[..],
                &mut report,
                &PushLimits::default(),
            )
            .unwrap();
            let report = String::from_utf8_lossy(&report);
            assert!(report.contains("ok refs/heads/new"), "{report}");
            let seen = watched.seen.into_inner().unwrap().unwrap();
            assert_eq!(seen.nonce, expected);
            assert_eq!(seen.signature, Some(SignatureKind::Ssh));
            assert_eq!(seen.pusher, "A <a@example.org> 1700000000 +0000");
            assert_eq!(seen.pushee.as_deref(), Some("nowhere"));
            assert_eq!(seen.text, lines.concat());
            assert_eq!(seen.refs.len(), 1);
            assert_eq!(seen.refs[0].new, id.parse().ok());
        }
    });
}

#[test]
fn a_nonce_is_offered_to_those_who_push_in_every_version_of_the_protocol() {
    for_each_git(|server, git| {
        let (bare, _) = server.repo(git, "offered");
        let repository = BareRepository::open(&bare).unwrap();
        let watched = Watched {
            repository: &repository,
            nonces: Some(nonces("here", NOW_S)),
            seen: Mutex::new(None),
        };
        let word = format!(" push-cert={} ", nonces("here", NOW_S).issue());
        for protocol in [Protocol::V0, Protocol::V1, Protocol::V2] {
            for service in [Service::ReceivePack, Service::UploadPack] {
                let mut listing = Vec::new();
                advertise(&watched, service, protocol, &mut listing).unwrap();
                let listing = String::from_utf8_lossy(&listing).into_owned();
                let is_offered = listing.contains(&word);
                assert_eq!(is_offered, service == Service::ReceivePack, "{listing}");
            }
        }
    });
}

#[test]
fn a_certificate_of_any_number_of_refs_is_taken_and_one_beyond_all_bounds_is_not() {
    for_each_git(|server, git| {
        let (ours, url, _) = pair(server, git, "many");
        let work = server.path("work");
        git.work_tree(&work, 1);
        git.ok(&["push", "-q", &url, "main"], &work);
        let id = git.ok(&["rev-parse", "main"], &work);
        let body = |names: &dyn Fn(usize) -> String, count: usize| {
            let mut lines = header(&[]);
            lines.push("\n".to_owned());
            lines.extend((0..count).map(|at| format!("{ZERO} {id} refs/heads/{}\n", names(at))));
            lines.extend(armor());
            let behind = [&line("push-cert-end\n")[..], FLUSH, EMPTY_PACK].concat();
            certificate_body("", &lines, &behind)
        };
        // More than a cluster accepts in one entry.
        let taken = post(
            &url,
            "receive-pack",
            "",
            &body(&|at| format!("b{at}"), 3_000),
        );
        assert_eq!(taken.status, 200, "{}", taken.text());
        assert!(taken.text().contains("ok refs/heads/b2999\n"));
        assert_eq!(git.ok(&["for-each-ref"], &ours).lines().count(), 3_001);
        let long = |at: usize| format!("{at}{}", "x".repeat(4_000));
        let refused = post(&url, "receive-pack", "", &body(&long, 5_000));
        // A report, which git prints.
        assert_eq!(refused.status, 200);
        assert!(
            refused
                .text()
                .contains("unpack a push certificate may have 16777216 bytes"),
            "{}",
            refused.text()
        );
    });
}
