//! Pack files that are torn, damaged or removed, at rest and under a running node.

use std::fs::{self, File, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use henge_types::{ConditionKind, NetworkId};

use crate::ring::{Ring, Work, eventually};

/// The node with the faulty disk.
const NODE: usize = 3;

/// A repository with one large pack, which node 3 has.
struct Repository {
    name: String,
    work: Work,
    network: NetworkId,
    pack: PathBuf,
}

impl Repository {
    /// A repository whose pack has no file of checksums: it is verified when it is opened.
    async fn push(ring: &Ring, name: &str) -> Self {
        Self::push_of(ring, name, 600_000).await
    }

    async fn push_of(ring: &Ring, name: &str, bytes: usize) -> Self {
        let name = format!("admin/{name}");
        let work = ring.work_dir(&name.replace('/', "-"));
        let random = henge_runtime::random_bytes;
        let noise: Vec<u8> = (0..bytes / 16).flat_map(|_| random()).collect();
        work.commit("large", &noise);
        work.git(&["push", "-q", &ring.url(1, &name), "main"]).await;
        let path = name.parse().unwrap();
        let network = ring.node(NODE).repos.get(&path).await.unwrap().network;
        let objects = &ring.node(NODE).objects;
        // The last replica may apply after the push was answered.
        let pack = eventually("the pack is on the node", async || {
            objects.packs(&network).unwrap().first().copied()
        })
        .await;
        let pack = objects.side_file(&network, &pack, "pack");
        Self {
            name,
            work,
            network,
            pack,
        }
    }

    fn idx(&self) -> PathBuf {
        self.pack.with_extension("idx")
    }

    /// A clone through the node is complete.
    async fn clones(&self, ring: &Ring, into: &str) {
        let clone = ring.clone(&ring.url(NODE, &self.name), into).await;
        assert_eq!(clone.read("large"), self.work.read("large"), "{into}");
    }

    async fn is_whole_again(&self, ring: &Ring) {
        let objects = &ring.node(NODE).objects;
        eventually("the pack is whole again", async || {
            let listed = objects.packs(&self.network).unwrap().len();
            let broken = objects.verify_all(&self.network).unwrap();
            (listed == 1 && broken.is_empty()).then_some(())
        })
        .await;
    }
}

fn open(path: &Path) -> File {
    let mut permissions = fs::metadata(path).unwrap().permissions();
    #[expect(clippy::permissions_set_readonly_false, reason = "a file of a test")]
    permissions.set_readonly(false);
    fs::set_permissions(path, permissions).unwrap();
    let mut options = OpenOptions::new();
    options.read(true).write(true).open(path).unwrap()
}

fn cut(path: &Path, bytes: u64) {
    open(path).set_len(bytes).unwrap();
}

/// Flips a bit without a change of the file's times, like a disk that returns wrong bytes.
fn flip(path: &Path, at: u64) {
    let file = open(path);
    let modified = file.metadata().unwrap().modified().unwrap();
    let mut byte = [0];
    file.read_exact_at(&mut byte, at).unwrap();
    file.write_all_at(&[byte[0] ^ 8], at).unwrap();
    file.set_modified(modified).unwrap();
}

/// A pack counted as present when a file had its name: a node whose packs were empty after a power
/// cut was ready, and every clone through it failed permanently. A missing index was not noticed at
/// all.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn torn_files_are_fetched_again_after_a_start() {
    let mut ring = Ring::start().await;
    let mut all = Vec::new();
    for name in ["empty", "cut", "no-index", "empty-index", "cut-index"] {
        all.push(Repository::push(&ring, name).await);
    }
    ring.stop_node(NODE).await;
    cut(&all[0].pack, 0);
    cut(&all[1].pack, 300_000);
    fs::remove_file(all[2].idx()).unwrap();
    cut(&all[3].idx(), 0);
    cut(&all[4].idx(), 1100);
    ring.start_node(NODE).await;
    ring.wait_until_ready(NODE).await;
    for repository in &all {
        repository
            .clones(&ring, &format!("{}-1", repository.name))
            .await;
    }
    for repository in &all {
        repository.is_whole_again(&ring).await;
        repository
            .clones(&ring, &format!("{}-2", repository.name))
            .await;
    }
}

/// Only `repo fsck`, repository by repository, noticed files that were removed or cut while the
/// node ran.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn files_that_go_under_a_running_node_are_fetched_again() {
    let ring = Ring::start().await;
    let mut all = Vec::new();
    for name in ["no-index", "no-pack", "cut"] {
        all.push(Repository::push(&ring, name).await);
    }
    fs::remove_file(all[0].idx()).unwrap();
    fs::remove_file(&all[1].pack).unwrap();
    cut(&all[2].idx(), 1100);
    for repository in &all {
        repository.is_whole_again(&ring).await;
        repository.clones(&ring, &repository.name).await;
    }
}

/// One flipped bit in a pack or an index made every clone through the node fail permanently; if the
/// pack was the complete repository, its damaged bytes were sent. Now the request continues through
/// another replica, and the pack is fetched.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_flipped_bit_is_passed_by_and_repaired() {
    let ring = Ring::start().await;
    let small = Repository::push(&ring, "small").await;
    let large = Repository::push_of(&ring, "large", 3_000_000).await;
    assert!(large.pack.with_extension("crc").is_file());
    // Files that a read opened before are not used again.
    small.clones(&ring, "small-0").await;
    large.clones(&ring, "large-0").await;
    flip(&small.pack, 300_000);
    flip(&large.pack, 300_000);
    for repository in [&small, &large] {
        repository
            .clones(&ring, &format!("{}-1", repository.name))
            .await;
        repository.is_whole_again(&ring).await;
        repository
            .clones(&ring, &format!("{}-2", repository.name))
            .await;
    }
    // After the bytes that are held back: the clone breaks off, and the next one is answered by
    // another node.
    flip(&large.pack, 2_500_000);
    let into = ring.work_dir("broken").dir.join("clone");
    let url = ring.url(NODE, &large.name);
    let broken = large
        .work
        .try_git(&["clone", "-q", &url, into.to_str().unwrap()])
        .await;
    assert!(!broken.0, "half a pack is no clone");
    large.clones(&ring, "large-3").await;
    large.is_whole_again(&ring).await;
}

/// At rest, in the pack and in the index, of packs with and without a file of checksums.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn bits_flipped_at_rest_are_passed_by_and_repaired() {
    let mut ring = Ring::start().await;
    let mut all = Vec::new();
    for (name, bytes) in [
        ("small", 600_000),
        ("small-idx", 600_000),
        ("idx", 3_000_000),
    ] {
        all.push(Repository::push_of(&ring, name, bytes).await);
    }
    ring.stop_node(NODE).await;
    flip(&all[0].pack, 300_000);
    for repository in &all[1..] {
        // In the table of object names.
        flip(&repository.idx(), 8 + 1024 + 25);
    }
    ring.start_node(NODE).await;
    ring.wait_until_ready(NODE).await;
    for repository in &all {
        repository
            .clones(&ring, &format!("{}-1", repository.name))
            .await;
        repository.is_whole_again(&ring).await;
        repository
            .clones(&ring, &format!("{}-2", repository.name))
            .await;
    }
}

/// A push to a leader whose packs were damaged was refused as one that lacks objects.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_push_waits_until_its_leader_is_whole_again() {
    let ring = Ring::start().await;
    let repository = Repository::push(&ring, "pushed").await;
    let shard = ring.shard(&repository.name).await;
    let leader = ring.leader(shard).await;
    let objects = &ring.node(leader).objects;
    let pack = objects.packs(&repository.network).unwrap()[0];
    fs::remove_file(objects.side_file(&repository.network, &pack, "idx")).unwrap();
    let tip = repository.work.commit("more", b"more\n");
    let url = ring.url(leader, &repository.name);
    repository.work.git(&["push", "-q", &url, "main"]).await;
    let clone = ring.clone(&url, "clone").await;
    assert_eq!(clone.now(&["rev-parse", "HEAD"]), tip);
}

/// Without another replica no wrong bytes are sent: the clone fails.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_damaged_pack_without_another_replica_is_not_served() {
    let ring = Ring::of(1, 1).await;
    let work = ring.work_dir("work");
    let noise: Vec<u8> = (0..40_000)
        .flat_map(|_| henge_runtime::random_bytes())
        .collect();
    work.commit("large", &noise);
    let url = ring.url(1, "admin/alone");
    work.git(&["push", "-q", &url, "main"]).await;
    let path = "admin/alone".parse().unwrap();
    let network = ring.node(1).repos.get(&path).await.unwrap().network;
    let objects = &ring.node(1).objects;
    let pack = objects.packs(&network).unwrap()[0];
    flip(&objects.side_file(&network, &pack, "pack"), 300_000);
    for name in ["one", "two"] {
        let (cloned, said) = work.try_git(&["clone", "-q", &url, name]).await;
        let told = said.contains("no other node serves it") || said.contains("503");
        assert!(!cloned && told, "{said}");
    }
    let conditions = ring.node(1).cluster.conditions();
    let subject = format!("pack {pack} of network {network}");
    eventually("the damage is shown", async || {
        conditions.since_ms(ConditionKind::PacksDamaged, &subject)
    })
    .await;
}

/// Packs of earlier releases have no checksums of their blocks: the background task computes them.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_pack_without_checksums_gets_them() {
    let ring = Ring::start().await;
    let repository = Repository::push_of(&ring, "older", 3_000_000).await;
    let sums = repository.pack.with_extension("crc");
    fs::remove_file(&sums).unwrap();
    repository.clones(&ring, "older-1").await;
    eventually("the checksums are made", async || {
        sums.is_file().then_some(())
    })
    .await;
    repository.clones(&ring, "older-2").await;
}
