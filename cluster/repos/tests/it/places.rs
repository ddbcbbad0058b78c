//! A fetch that is passed on holds a place on both nodes for as long as its client reads.

use std::io::{Read, Write};
use std::net::TcpStream;

use crate::ring::{Ring, eventually};

const REPO: &str = "admin/places";
/// More than the buffers between a client, its node and another node hold.
const BYTES: usize = 48 * 1024 * 1024;

fn packet(line: &str) -> String {
    format!("{:04x}{line}", line.len() + 4)
}

/// Asks for everything, reads that the answer has begun, and no further.
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
    // Whoever goes away leaves its places.
    drop(clones);
    eventually("the places are free again", async || {
        (held(outside) + held_elsewhere() == 0).then_some(())
    })
    .await;
}
