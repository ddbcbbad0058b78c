//! A whole cluster of one node, in this process.

use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use henge_runtime::{Scope, SystemClock, SystemRandom};
use henge_storage::disk::OsDisk;
use henge_storage::wal::OnFatal;
use henge_types::command::VERSION_KNOWN;
use henge_types::{ClusterId, Command, GroupId, Incarnation, NodeId, NodeRecord, limits};
use rcgen::{
    BasicConstraints, CertificateParams, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose,
};
use tokio::io::AsyncReadExt as _;
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Handle;
use tokio_rustls::TlsConnector;

use crate::cluster::{Cluster, Reporting};
use crate::config::{ClusterConfig, Timings};
use crate::host::Host;
use crate::lone_replica::run;
use crate::suite::NoPacks;
use crate::transport::members::Identity;
use crate::transport::tcp::TcpNetwork;
use crate::transport::tls::{ALPN_GRPC, Tls, TlsFiles};

const PATIENCE: Duration = Duration::from_secs(60);
pub(crate) const SHARD: GroupId = GroupId::new(1);

fn write_certificates(dir: &Path, cluster: ClusterId) -> TlsFiles {
    let mut params = CertificateParams::new(Vec::new()).expect("parameters");
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    let key = KeyPair::generate().expect("a key");
    let ca = params.self_signed(&key).expect("signs");
    let issuer = Issuer::new(params, key);
    let name = format!("node-1.{cluster}.henge.internal");
    let mut params = CertificateParams::new(vec![name]).expect("parameters");
    params.extended_key_usages = vec![
        ExtendedKeyUsagePurpose::ServerAuth,
        ExtendedKeyUsagePurpose::ClientAuth,
    ];
    let key = KeyPair::generate().expect("a key");
    let cert = params.signed_by(&key, &issuer).expect("signs");
    let files = TlsFiles {
        ca: dir.join("ca.pem"),
        cert: dir.join("1.pem"),
        key: dir.join("1.key"),
    };
    fs::write(&files.ca, ca.pem()).expect("writes");
    fs::write(&files.cert, cert.pem()).expect("writes");
    fs::write(&files.key, key.serialize_pem()).expect("writes");
    files
}

pub(crate) async fn start(dir: &Path, scope: &Scope) -> Cluster {
    start_at(dir, scope, ([127, 0, 0, 1], 0).into()).await
}

async fn start_at(dir: &Path, scope: &Scope, listen: SocketAddr) -> Cluster {
    let identity = Identity {
        cluster: ClusterId::from_bytes([0x42; 16]),
        node: NodeId::new(1),
        incarnation: Incarnation::from_bytes([1; 16]),
    };
    let record = NodeRecord {
        node: identity.node,
        incarnation: identity.incarnation,
        rpc: "127.0.0.1:1".to_owned(),
        http: "127.0.0.1:2".to_owned(),
    };
    let config = ClusterConfig {
        identity,
        listen,
        rpc: record.rpc.clone(),
        http: record.http.clone(),
        data_dir: dir.to_owned(),
        tls: write_certificates(dir, identity.cluster),
        founders: vec![record],
        shards: 2,
        replication: 1,
        timings: Timings {
            heartbeat_ms: 50,
            election_ms_min: 200,
            election_ms_max: 400,
        },
        wal_segment_bytes: 1024 * 1024,
        wal_bytes_max: 16 * 1024 * 1024,
        version: "test".to_owned(),
    };
    let host = Host {
        clock: SystemClock::shared(),
        random: SystemRandom::shared(),
        disk: OsDisk::shared(),
        network: TcpNetwork::shared(),
        on_log_failure: OnFatal::Abort,
    };
    let reporting = Reporting::new(Arc::clone(&host.clock));
    let started = Cluster::start(config, scope, host, reporting, Arc::new(NoPacks));
    Box::pin(started).await.expect("starts")
}

/// Polls until `holds` is true.
pub(crate) async fn eventually(what: &str, holds: impl AsyncFn() -> bool) {
    let looking = async {
        while !holds().await {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    let seen = tokio::time::timeout(PATIENCE, looking).await;
    assert!(seen.is_ok(), "in time: {what}");
}

/// A group that had ended stayed so until the whole process was restarted, and `/readyz` did not
/// report it.
#[test]
fn an_ended_group_is_started_again_beside_the_others() {
    run(async {
        let dir = tempfile::tempdir().expect("a directory");
        let scope = Scope::root("node", Handle::current(), 16);
        let cluster = start(dir.path(), &scope).await;
        let writes = async |group| {
            let barrier = Command::VersionBarrier {
                version: VERSION_KNOWN,
            };
            let second = Duration::from_secs(1);
            cluster.propose(group, barrier, None, second).await.is_ok()
        };
        eventually("it serves", async || cluster.is_ready().is_ok()).await;
        eventually("its shard takes writes", async || writes(SHARD).await).await;

        let ended = cluster.groups().get(SHARD).expect("runs here");
        ended.raft.shutdown().await.expect("ends");
        assert!(ended.ended().is_some());
        assert!(cluster.is_ready().is_err());
        assert!(!cluster.status().await.healthy);
        assert!(writes(GroupId::new(2)).await, "the others go on");

        eventually("it takes writes again", async || writes(SHARD).await).await;
        eventually("the node serves", async || cluster.is_ready().is_ok()).await;
        cluster.shutdown(Duration::from_secs(20)).await;
    });
}

/// A snapshot was compared with its checksum only once, at its first use.
#[test]
fn a_running_node_replaces_a_damaged_snapshot() {
    run(async {
        let dir = tempfile::tempdir().expect("a directory");
        let scope = Scope::root("node", Handle::current(), 16);
        let cluster = start(dir.path(), &scope).await;
        eventually("it serves", async || cluster.is_ready().is_ok()).await;
        let snapshots = cluster.shared.deps.snapshots.clone();
        let shard = cluster.groups().get(SHARD).expect("runs here");
        shard.raft.trigger().snapshot().await.expect("it runs");
        let latest = || snapshots.latest(SHARD).expect("looks");
        eventually("it takes a snapshot", async || latest().is_some()).await;
        let path = latest().expect("is there").path;
        fs::write(&path, b"another file").expect("writes");
        snapshots.check(SHARD).expect("is read");
        eventually("another one is taken", async || {
            snapshots.damaged(SHARD).is_none() && latest().is_some_and(|file| file.path != path)
        })
        .await;
        cluster.shutdown(Duration::from_secs(20)).await;
    });
}

/// Five thousand silent connections held five thousand descriptors, each until its deadline, and
/// every one of them was logged.
#[test]
fn silent_connections_are_few_and_keep_no_member_out() {
    const SURPLUS: usize = 50;
    run(async {
        let dir = tempfile::tempdir().expect("a directory");
        let scope = Scope::root("node", Handle::current(), 16);
        let free = TcpListener::bind("127.0.0.1:0").await.expect("binds");
        let address = free.local_addr().expect("an address");
        drop(free);
        let cluster = start_at(dir.path(), &scope, address).await;
        let mut silent = Vec::new();
        for _ in 0..limits::HANDSHAKES_PER_ADDRESS_MAX + SURPLUS {
            silent.push(TcpStream::connect(address).await.expect("connects"));
        }
        for stream in silent.iter_mut().take(SURPLUS) {
            let mut byte = [0];
            let read = tokio::time::timeout(PATIENCE, stream.read(&mut byte)).await;
            let read = read.expect("the oldest end");
            assert!(matches!(read, Ok(0) | Err(_)), "{read:?}");
        }
        let files = TlsFiles {
            ca: dir.path().join("ca.pem"),
            cert: dir.path().join("1.pem"),
            key: dir.path().join("1.key"),
        };
        let identity = cluster.members().own();
        let tls = Tls::load(identity.cluster, &files).expect("its own certificate");
        let connector = TlsConnector::from(Arc::new(tls.client(ALPN_GRPC)));
        let tcp = TcpStream::connect(address).await.expect("connects");
        let member = connector.connect(tls.server_name(identity.node), tcp);
        let member = tokio::time::timeout(PATIENCE, member).await;
        member.expect("in time").expect("a member comes in");
        cluster.shutdown(Duration::from_secs(20)).await;
    });
}
