//! A forwarded fetch holds a permit on both nodes for as long as its client reads.

use std::io::{Read, Write};
use std::net::TcpStream;

use bytes::Bytes;
use henge_git::Protocol;
use henge_git::http::{Caller, GitService};
use henge_repos::RepoEdit;
use henge_types::{ErrorCode, limits};

use crate::ring::{ADMIN, Ring, eventually};

const REPO: &str = "admin/places";
/// More than the buffers between a client, its node and another node can hold.
const BYTES: usize = 48 * 1024 * 1024;

fn packet(line: &str) -> String {
    format!("{:04x}{line}", line.len() + 4)
}

/// Requests a complete clone, reads the start of the response, and stops reading.
fn begin_to_clone(url: &str, want: &str) -> TcpStream {
    let (host, path) = url
        .strip_prefix("http://")
        .unwrap()
        .split_once('/')
        .unwrap();
    let wants = [packet(&format!("want {want}\n")), packet("done\n")].concat();
    let body = format!("{}0001{wants}0000", packet("command=fetch"));
    let request = format!(
        "POST /{path}/git-upload-pack HTTP/1.1\r\nHost: {host}\r\nGit-Protocol: version=2\r\n\
         Content-Type: application/x-git-upload-pack-request\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    );
    let mut stream = TcpStream::connect(host).unwrap();
    stream.write_all(request.as_bytes()).unwrap();
    let mut begun = [0; 15];
    stream.read_exact(&mut begun).unwrap();
    assert_eq!(&begun, b"HTTP/1.1 200 OK");
    stream
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_fetch_that_is_passed_on_holds_a_place_on_both_nodes() {
    let ring = Ring::of(4, 3).await;
    let work = ring.work_dir("work");
    let bytes: Vec<u8> = (0..BYTES / 16)
        .flat_map(|_| henge_runtime::random_bytes())
        .collect();
    let tip = work.commit("large", &bytes);
    work.git(&["push", "-q", &ring.url(1, REPO), "main"]).await;
    let shard = ring.shard(REPO).await;
    let outside = ring.live().into_iter().find(|node| {
        let cluster = &ring.node(*node).cluster;
        !cluster.replicas(shard).contains(&cluster.node())
    });
    let outside = outside.expect("one of four nodes holds none of three replicas");
    let held = |node: usize| ring.node(node).repos.fetches_admitted();
    let held_elsewhere = || -> usize {
        let others = ring.live().into_iter().filter(|node| *node != outside);
        others.map(held).sum()
    };
    assert_eq!((held(outside), held_elsewhere()), (0, 0));
    let url = ring.url(outside, REPO);
    let clones: Vec<_> = (0..2).map(|_| begin_to_clone(&url, tip.trim())).collect();
    assert_eq!((held(outside), held_elsewhere()), (2, 2));
    // A disconnected client releases its permits.
    drop(clones);
    eventually("the places are free again", async || {
        (held(outside) + held_elsewhere() == 0).then_some(())
    })
    .await;
}

/// A request of protocol v2.
fn command(name: &str, arguments: &[String]) -> Bytes {
    let arguments: String = arguments.iter().map(|line| packet(line)).collect();
    format!("{}0001{arguments}0000", packet(&format!("command={name}"))).into()
}

/// Visibility is checked before a fetch waits for its permit. A repository that was made private
/// meanwhile was still readable, with all later pushes.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn who_waited_for_a_place_reads_nothing_that_became_private_meanwhile() {
    let ring = Ring::of(1, 1).await;
    let work = ring.work_dir("work");
    let noise: Vec<u8> = (0..256 * 1024)
        .flat_map(|_| henge_runtime::random_bytes())
        .collect();
    let tip = work.commit("large", &noise);
    work.git(&["push", "-q", &ring.url(1, REPO), "main"]).await;
    let path: henge_types::RepoPath = REPO.parse().unwrap();
    let repos = ring.node(1).repos.clone();
    let private = |private| RepoEdit {
        private: Some(private),
        ..RepoEdit::default()
    };
    repos.edit(&ADMIN, &path, private(false)).await.unwrap();
    let v2 = Protocol::V2;
    let listing = command("ls-refs", &[]);
    let public = repos.upload_pack(Caller::default(), REPO, v2, listing.clone());
    assert!(public.await.is_ok());

    // Clients that read nothing hold all permits; no two of them send the same request.
    let mut held = Vec::new();
    for number in 0..limits::FETCHES_AT_ONCE {
        let admin = Caller {
            principal: ADMIN.clone(),
            ..Caller::default()
        };
        let lines = [
            format!("want {}\n", tip.trim()),
            format!("have {number:040x}\n"),
            "done\n".to_owned(),
        ];
        let clone = repos.upload_pack(admin, REPO, v2, command("fetch", &lines));
        held.push(clone.await.unwrap());
    }
    eventually("all places are held", async || {
        (repos.fetches_admitted() == limits::FETCHES_AT_ONCE).then_some(())
    })
    .await;
    let waits = tokio::spawn({
        let repos = repos.clone();
        async move {
            let read = repos.upload_pack(Caller::default(), REPO, v2, listing);
            read.await.map(drop)
        }
    });
    // These lookups are queued behind the first one, which is answered by then.
    for _ in 0..3 {
        repos.get_public(&path).await.unwrap();
    }
    repos.edit(&ADMIN, &path, private(true)).await.unwrap();
    drop(held);
    let refused = waits.await.unwrap().unwrap_err();
    assert_eq!(refused.code, ErrorCode::Unauthenticated, "{refused}");
}
