//! Signed pushes in a ring of processes: through any node, kept by all of them, also when the
//! leader is lost.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::{Value, json};

use super::harness::{
    Ring, commit, commit_large, git, git_raw, git_with, gits, henge, wait, work_tree,
};

const REPO: &str = "admin/demo";
const ZERO: &str = "0000000000000000000000000000000000000000";
/// A pack without objects.
const EMPTY_PACK: &[u8] = b"PACK\0\0\0\x02\0\0\0\0\
    \x02\x9d\x08\x82\x3b\xd8\xa8\xea\xb5\x10\xad\x6a\xc7\x5c\x82\x3c\xfd\x3e\xd3\x1e";

fn keygen() -> Option<Command> {
    let program = Path::new("/usr/bin/ssh-keygen");
    if !program.is_file() {
        assert!(
            std::env::var_os("HENGE_TESTS_ALL").is_none(),
            "ssh-keygen is missing on this machine"
        );
        eprintln!("NOT CHECKED: ssh-keygen is missing on this machine");
        return None;
    }
    Some(Command::new(program))
}

/// A signer: `-c` settings of git.
struct Signer {
    settings: [String; 2],
}

impl Signer {
    fn new(dir: &Path) -> Option<Self> {
        let key = dir.join("signing_key");
        let made = keygen()?
            .args(["-q", "-t", "ed25519", "-N", "", "-C", "a@example.invalid"])
            .arg("-f")
            .arg(&key)
            .status();
        assert!(made.expect("it runs").success());
        Some(Self {
            settings: [
                "gpg.format=ssh".to_owned(),
                format!("user.signingkey={}", key.display()),
            ],
        })
    }

    fn push(&self, git: &Path, tree: &Path, args: &[&str]) {
        let [format, key] = &self.settings;
        let push = ["-c", format, "-c", key, "push", "-q", "--signed"];
        git_with(git, tree, &[&push[..], args].concat());
    }
}

/// Sends one raw request; returns the status and the whole response.
fn ask(ring: &Ring, node: u64, head: &str, body: &[u8]) -> (u16, String) {
    let mut stream = TcpStream::connect(ring.address(node)).expect("it listens");
    let (token, length) = (ring.token(), body.len());
    write!(
        stream,
        "{head} HTTP/1.1\r\nHost: x\r\nAuthorization: token {token}\r\nContent-Type: application/x-git-receive-pack-request\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n"
    )
    .expect("it reads");
    // A server that refuses early may close before it has read everything.
    let _sent = stream.write_all(body).is_ok();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).ok();
    let answer = String::from_utf8_lossy(&answer).into_owned();
    let status = answer.split(' ').nth(1).and_then(|word| word.parse().ok());
    (status.expect("a status"), answer)
}

/// The nonce that a node advertises for signed pushes.
fn nonce(ring: &Ring, node: u64, repo: &str) -> Option<String> {
    let head = format!("GET /{repo}.git/info/refs?service=git-receive-pack");
    let (_, listing) = ask(ring, node, &head, b"");
    let (_, rest) = listing.split_once(" push-cert=")?;
    Some(rest.split(' ').next()?.to_owned())
}

/// Waits until every node advertises a nonce: a new ring first checks that all nodes support it.
fn wait_until_asked(ring: &Ring, repo: &str) {
    for node in ring.nodes() {
        let what = format!("node {node} to ask for signatures");
        wait(&what, || nonce(ring, node, repo).is_some());
    }
}

fn line(text: &str) -> Vec<u8> {
    format!("{:04x}{text}", text.len() + 4).into_bytes()
}

/// A push with an unsigned certificate.
fn certificate(nonce: &str, commands: &[String]) -> Vec<u8> {
    let mut body = line("push-cert\0report-status push-options");
    body.extend(line("certificate version 0.1\n"));
    body.extend(line("pusher A <a@example.invalid> 1700000000 +0000\n"));
    if !nonce.is_empty() {
        body.extend(line(&format!("nonce {nonce}\n")));
    }
    body.extend(line("\n"));
    for command in commands {
        body.extend(line(command));
    }
    body.extend(line("push-cert-end\n"));
    body
}

fn post(ring: &Ring, node: u64, repo: &str, parts: &[&[u8]]) -> (u16, String) {
    let head = format!("POST /{repo}.git/git-receive-pack");
    ask(ring, node, &head, &parts.concat())
}

fn list(ring: &Ring, node: u64, query: &str) -> Value {
    let path = format!("/api/henge/v1/repos/{REPO}/push-certificates{query}");
    ring.json(node, &path)
}

fn newest(ring: &Ring, node: u64) -> Value {
    list(ring, node, "?limit=1")["certificates"][0].clone()
}

/// Checks that the signature in a certificate is valid for the text before it.
fn verify(dir: &Path, certificate: &str) {
    let at = certificate.find("-----BEGIN SSH SIGNATURE-----");
    let (signed, signature) = certificate.split_at(at.expect("a signature"));
    let (payload, armor): (PathBuf, PathBuf) = (dir.join("payload"), dir.join("armor"));
    std::fs::write(&payload, signed).expect("a file");
    std::fs::write(&armor, signature).expect("a file");
    let checked = keygen()
        .expect("it was there")
        .args(["-Y", "check-novalidate", "-n", "git", "-s"])
        .arg(&armor)
        .stdin(std::fs::File::open(&payload).expect("a file"))
        .stdout(Stdio::null())
        .status();
    assert!(checked.expect("it runs").success(), "{certificate}");
}

fn push_certs(ring: &Ring, node: u64, args: &[&str]) -> String {
    let done = henge()
        .args(["repo", "push-certs", REPO, "--url"])
        .arg(format!("http://{}", ring.address(node)))
        .args(["--token", ring.token()])
        .args(args)
        .output()
        .expect("henge runs");
    let errors = String::from_utf8_lossy(&done.stderr);
    assert!(done.status.success(), "{errors}");
    String::from_utf8(done.stdout).expect("text")
}

/// Every git pushes a commit: one in the log entry, one staged on the replicas first. Returns the
/// tips, the last one first.
fn push_with_every_git(ring: &Ring, signer: &Signer, tree: &Path, nodes: &[u64]) -> Vec<String> {
    let mut tips = Vec::new();
    for (number, git) in gits().into_iter().enumerate() {
        let tip = match number {
            0 => commit(tree, "signed"),
            _ => commit_large(tree, "noise", 300_000, 3),
        };
        let url = ring.url(nodes[number % nodes.len()], REPO);
        let spec = format!("main:refs/heads/by{number}");
        signer.push(&git, tree, &["-o", "ci.skip", &url, "main", &spec]);
        tips.insert(0, tip);
    }
    tips
}

/// Pushes two refs, one of which is refused because it lies below the other one.
fn push_in_each_others_way(ring: &Ring, signer: &Signer, tree: &Path, node: u64) {
    let [format, key] = &signer.settings;
    let url = ring.url(node, REPO);
    let sign = ["-c", format, "-c", key, "push", "--signed", &url];
    let specs = ["main:refs/heads/one", "main~1:refs/heads/one/two"];
    let pushed = git_raw(&gits()[0], tree, &[&sign[..], &specs].concat());
    assert!(!pushed.status.success());
}

/// Checks that the first certificate is of a half-refused push, and that the others are of these
/// tips.
fn check_certificates(ring: &Ring, certificates: &[Value], tips: &[String]) {
    let refs = certificates[0]["refs"].as_array().expect("a list");
    let accepted = refs.iter().filter(|of| of["accepted"] == true);
    assert_eq!((refs.len(), accepted.count()), (2, 1), "{refs:?}");
    for (certificate, tip) in certificates[1..].iter().zip(tips) {
        assert_eq!(certificate["nonce_status"], "OK");
        assert_eq!(certificate["nonce_slop_s"], Value::Null);
        assert_eq!(certificate["signature_kind"], "ssh");
        assert_eq!(certificate["signature_verified"], false);
        assert_eq!(certificate["account"], "admin");
        assert_eq!(certificate["refs"][0]["new"], json!(tip));
        assert_eq!(certificate["refs"][0]["accepted"], true);
        let text = certificate["certificate"].as_str().expect("text");
        assert!(text.contains("\npush-option ci.skip\n"), "{text}");
        assert!(!text.contains(ring.token()), "{text}");
        verify(ring.dir.path(), text);
    }
}

/// Checks that pages, refs and the command line show parts of the whole list.
fn check_parts(ring: &Ring, node: u64, whole: &Value) {
    let of_one = list(ring, node, "?ref=refs/heads/by0&limit=9");
    assert_eq!(of_one["total"], 1);
    let second = list(ring, node, "?page=2&limit=1");
    assert_eq!(second["certificates"][0], whole["certificates"][1]);
    assert_eq!(second["total"], whole["total"]);
    let shown = push_certs(ring, node, &["--ref", "refs/heads/by0"]);
    assert!(shown.contains("ssh, not verified  OK"), "{shown}");
    let raw = push_certs(ring, node, &["--ref", "refs/heads/by0", "--raw"]);
    assert_eq!(of_one["certificates"][0]["certificate"], json!(raw));
}

/// The leader is killed between the nonce and the push. Before that, it has taken pushes through
/// the others.
#[test]
fn signed_pushes_go_through_any_node_and_outlive_their_leader() {
    let mut ring = Ring::start(2);
    let Some(signer) = Signer::new(ring.dir.path()) else {
        return;
    };
    let nodes = ring.nodes();
    let tree = work_tree(ring.dir.path(), "tree");
    git(&tree, &["push", "-q", &ring.url(nodes[0], REPO), "main"]);
    wait_until_asked(&ring, REPO);
    let leader = ring.leader_of(REPO, &nodes);
    let survivors: Vec<u64> = nodes.iter().copied().filter(|n| *n != leader).collect();

    let tips = push_with_every_git(&ring, &signer, &tree, &survivors);
    push_in_each_others_way(&ring, &signer, &tree, survivors[0]);
    let first = list(&ring, leader, "");
    assert_eq!(first["total"], tips.len() + 1, "{first}");
    let certificates = first["certificates"].as_array().expect("a list");
    check_certificates(&ring, certificates, &tips);
    for node in &survivors {
        assert_eq!(list(&ring, *node, ""), first, "node {node}");
        check_parts(&ring, *node, &first);
    }

    let asked = nonce(&ring, leader, REPO).expect("it asked before");
    ring.kill(leader);
    let tip = git(&tree, &["rev-parse", "main"]);
    let command = format!("{ZERO} {tip} refs/heads/late\n");
    let late = certificate(&asked, &[command]);
    let (status, report) = post(&ring, survivors[0], REPO, &[&late, b"00000000", EMPTY_PACK]);
    assert_eq!(status, 200, "{report}");
    assert!(report.contains("ok refs/heads/late"), "{report}");
    for node in &survivors {
        let now = list(&ring, *node, "");
        let now = now["certificates"].as_array().expect("a list");
        assert_eq!(now[0]["nonce_status"], "OK", "{}", now[0]);
        assert_eq!(now[0]["signature_kind"], Value::Null);
        assert_eq!(&now[1..], certificates, "node {node}");
    }
    let after = commit(&tree, "after the kill");
    signer.push(&gits()[0], &tree, &[&ring.url(survivors[1], REPO), "main"]);
    ring.restart(leader);
    ring.wait_ready(leader);
    ring.wait_equal_hashes();
    assert_eq!(newest(&ring, leader)["refs"][0]["new"], json!(after));
    assert_eq!(list(&ring, leader, ""), list(&ring, survivors[0], ""));
}

#[test]
fn what_is_wrong_with_a_certificate_is_said_and_what_it_is_worth_is_kept() {
    let ring = Ring::start(1);
    let nodes = ring.nodes();
    let tree = work_tree(ring.dir.path(), "tree");
    for repo in [REPO, "admin/other"] {
        git(&tree, &["push", "-q", &ring.url(nodes[0], repo), "main"]);
        wait_until_asked(&ring, repo);
    }
    let tip = git(&tree, &["rev-parse", "main"]);
    let command = |name: &str| format!("{ZERO} {tip} refs/heads/{name}\n");
    let own = nonce(&ring, nodes[1], REPO).expect("it asked before");
    let other = nonce(&ring, nodes[1], "admin/other").expect("it asked before");
    let (_, code) = own.split_once('-').expect("a time and a code");
    let behind: &[&[u8]] = &[b"00000000", EMPTY_PACK];
    for (at, (nonce, status)) in [
        (own.clone(), "OK"),
        // A nonce of another repository is not valid for this one.
        (other, "BAD"),
        (format!("1700000000-{code}"), "BAD"),
        ("x".to_owned(), "BAD"),
        (String::new(), "MISSING"),
    ]
    .into_iter()
    .enumerate()
    {
        let name = format!("n{at}");
        let push = certificate(&nonce, &[command(&name)]);
        let node = nodes[at % nodes.len()];
        let (_, report) = post(&ring, node, REPO, &[&[&push[..]], behind].concat());
        let taken = format!("ok refs/heads/{name}");
        assert!(report.contains(&taken), "{nonce}: {report}");
        assert_eq!(newest(&ring, nodes[0])["nonce_status"], status, "{nonce}");
    }
    let kept = list(&ring, nodes[0], "")["total"].clone();

    let whole = |name: &str| certificate(&own, &[command(name)]);
    let option = [line("ci.skip"), b"0000".to_vec()].concat();
    let with_option: &[&[u8]] = &[b"0000", &option, EMPTY_PACK];
    let (status, report) = post(
        &ring,
        nodes[0],
        REPO,
        &[&[&whole("p")[..]], with_option].concat(),
    );
    assert_eq!(status, 200);
    assert!(
        report.contains("ng refs/heads/p inconsistent push options"),
        "{report}"
    );

    let unsigned = line(&command("u2"));
    let long: Vec<_> = (0..300)
        .map(|at| command(&format!("{at}{}", "x".repeat(900))))
        .collect();
    let cut = whole("cut");
    // git shows a report, and no response with another status.
    for (what, parts, (told, says)) in [
        (
            "commands beside it",
            [&[&whole("u")[..], &unsigned][..], behind].concat(),
            (400, "unsigned commands"),
        ),
        (
            "no end",
            [&[&cut[..cut.len() - 18]][..], behind].concat(),
            (400, "push-cert-end"),
        ),
        ("cut off", vec![&cut[..]], (400, "ends in the middle")),
        (
            "too large",
            [&[&certificate(&own, &long)[..]][..], behind].concat(),
            (200, "unpack a push certificate may have 262144 bytes"),
        ),
    ] {
        for node in &nodes {
            let (status, answer) = post(&ring, *node, REPO, &parts);
            assert_eq!(status, told, "{what}: {answer}");
            assert!(answer.contains(says), "{what}: {answer}");
        }
    }
    assert_eq!(list(&ring, nodes[0], "")["total"], kept);

    // A new repository under a former name has none of the former one's certificates.
    let path = format!("/api/v1/repos/{REPO}");
    let deleted = ring.request(nodes[0], "DELETE", &path, "");
    assert_eq!(deleted.expect("an answer").0, 204);
    git(&tree, &["push", "-q", &ring.url(nodes[0], REPO), "main"]);
    assert_eq!(list(&ring, nodes[0], "")["total"], 0);
    let again = certificate(&own, &[command("again")]);
    let (_, report) = post(&ring, nodes[0], REPO, &[&[&again[..]], behind].concat());
    assert!(report.contains("ok refs/heads/again"), "{report}");
    assert_eq!(newest(&ring, nodes[1])["nonce_status"], "BAD");
    ring.wait_equal_hashes();
}
