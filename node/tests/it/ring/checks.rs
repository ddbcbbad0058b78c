//! `henge repo fsck` on a real ring: a flipped byte on one disk is found, named and repaired.

use std::fs;

use super::harness::{Ring, clone_checked, commit, commit_large, git, wait, work_tree};
use crate::process::{command, text};

const REPO: &str = "admin/demo";

/// The exit code and the standard output.
fn henge(ring: &Ring, args: &[&str]) -> (i32, String) {
    let url = ring.url(ring.nodes()[0], "x");
    let url = url.strip_suffix("/x.git").unwrap_or(&url);
    let url = url
        .split_once('@')
        .map_or_else(|| url.to_owned(), |(_, host)| format!("http://{host}"));
    let mut command = command(args);
    let done = command.args(["--url", &url, "--token", ring.token()]);
    let done = done.output().expect("the binary runs");
    eprintln!("{}", String::from_utf8_lossy(&done.stderr));
    (done.status.code().expect("a code"), text(&done.stdout))
}

#[test]
fn a_flipped_byte_on_one_disk_is_found_named_and_mended() {
    let ring = Ring::start(1);
    let nodes = ring.nodes();
    let tree = work_tree(ring.dir.path(), "tree");
    let url = ring.url(nodes[0], REPO);
    git(&tree, &["push", "-q", &url, "main"]);
    commit_large(&tree, "large", 300_000, 7);
    git(&tree, &["push", "-q", &url, "main"]);
    let stats = ["repo", "stats", REPO];
    let (_, said) = henge(&ring, &stats);
    assert_eq!(said.matches(": never\n").count(), nodes.len(), "{said}");
    let fsck = ["repo", "fsck", REPO];
    let (code, said) = henge(&ring, &fsck);
    assert_eq!(code, 0, "{said}");
    assert_eq!(said.matches(": whole;").count(), nodes.len(), "{said}");
    let info = ring.json(nodes[0], &format!("/api/henge/v1/repos/{REPO}"));
    let network = info["network"].as_str().expect("a network");
    let sick = nodes[1];
    let packs = ring.node_dir(sick).join("networks").join(&network[..2]);
    let packs = packs.join(network).join("objects/pack");
    let files = fs::read_dir(&packs).expect("packs");
    let files = files.map(|file| file.expect("a file").path());
    let files = files.filter(|file| file.extension().is_some_and(|kind| kind == "pack"));
    let size = |file: &std::path::PathBuf| fs::metadata(file).expect("a file").len();
    let pack = files.max_by_key(size).expect("a pack");
    let whole = fs::read(&pack).expect("readable");
    let mut bytes = whole.clone();
    bytes[150_000] ^= 1;
    // A new file replaces the old one in one step: a missing file would be noticed.
    let damage = || {
        let aside = ring.dir.path().join("aside");
        fs::write(&aside, &bytes).expect("written");
        fs::rename(&aside, &pack).expect("renamed");
    };
    damage();
    let name = pack.file_stem().expect("a name").to_str().expect("text");
    let id = name.strip_prefix("pack-").expect("a pack's name");
    let (code, said) = henge(&ring, &fsck);
    assert_eq!(code, 1, "{said}");
    assert!(said.contains(&format!("node {sick}: damaged")), "{said}");
    assert!(said.contains(id), "{said}");
    assert_eq!(said.matches(": whole;").count(), nodes.len() - 1, "{said}");
    let (code, said) = henge(&ring, &stats);
    assert_eq!(code, 0, "what was found is told, whatever it was");
    let of_sick = said
        .lines()
        .find(|line| line.contains(&format!("node {sick}: ")));
    let of_sick = of_sick.expect("a line");
    assert!(
        of_sick.contains(" objects, ") && !of_sick.contains("no findings"),
        "{said}"
    );
    assert_eq!(
        said.matches(", no findings\n").count(),
        nodes.len() - 1,
        "{said}"
    );
    // A pack that is known to be damaged is fetched again without a request.
    wait("the pack is fetched again", || {
        fs::read(&pack).is_ok_and(|bytes| bytes == whole)
    });
    damage();
    let node = sick.to_string();
    let repair = ["repo", "fsck", REPO, "--node", &node, "--repair"];
    let (code, said) = henge(&ring, &repair);
    assert_eq!(code, 0, "{said}");
    assert!(
        said.contains(&format!("pack {id} was fetched again")),
        "{said}"
    );
    assert_eq!(fs::read(&pack).expect("readable"), whole);
    let (code, said) = henge(&ring, &["repo", "fsck", REPO, "--node", "99"]);
    assert_eq!(code, 2, "{said}");
    commit(&tree, "more");
    git(&tree, &["push", "-q", &url, "main"]);
    clone_checked(&ring, sick, REPO, "clone");
}

#[test]
fn forks_and_limits_are_made_and_seen_from_the_command_line() {
    let ring = Ring::start(2);
    let nodes = ring.nodes();
    let tree = work_tree(ring.dir.path(), "tree");
    git(&tree, &["push", "-q", &ring.url(nodes[0], REPO), "main"]);
    let (code, said) = henge(&ring, &["repo", "fork", REPO, "bob/demo"]);
    assert_eq!(code, 0, "{said}");
    assert!(said.contains("forked admin/demo as bob/demo"), "{said}");
    let (code, _) = henge(&ring, &["repo", "fork", REPO, "bob/demo"]);
    assert_eq!(code, 4);
    for node in nodes {
        clone_checked(&ring, node, "bob/demo", &format!("clone-{node}"));
    }
    let limit = ["repo", "limits", "bob/demo", "--max-refs", "1"];
    let (code, said) = henge(&ring, &limit);
    assert_eq!(code, 0, "{said}");
    let (_, again) = henge(&ring, &["repo", "limits", "bob/demo"]);
    assert_eq!(said, again);
    assert!(said.contains("max refs          1\n"), "{said}");
    let (code, said) = henge(&ring, &["repo", "limits", "bob/demo", "--max-refs", "few"]);
    assert_eq!(code, 2, "{said}");
}
