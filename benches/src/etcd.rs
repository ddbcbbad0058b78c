//! The peer for writes of state: an etcd cluster of three members on loopback.

pub(crate) mod kv;

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, bail};
use tokio::time::{sleep, timeout};

use crate::process::{Process, Program};
use kv::EtcdClient;

/// As many as Henge's nodes.
pub(crate) const MEMBERS: usize = 3;
/// Deadline for the election of a leader, and for the return of a member.
const READY_DEADLINE: Duration = Duration::from_secs(60);
const LOOK_INTERVAL: Duration = Duration::from_millis(10);
const STOP_DEADLINE: Duration = Duration::from_secs(10);

/// Etcd's two timings, in milliseconds.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Timings {
    pub(crate) heartbeat_ms: u32,
    pub(crate) election_ms: u32,
}

/// Etcd's defaults.
pub(crate) const DEFAULT_TIMINGS: Timings = Timings {
    heartbeat_ms: 100,
    election_ms: 1_000,
};

#[derive(Debug)]
struct Member {
    process: Process,
    client_url: String,
}

/// Three members, killed on drop.
#[derive(Debug)]
pub(crate) struct EtcdCluster {
    dir: PathBuf,
    base_port: u16,
    timings: Timings,
    members: Vec<Member>,
}

impl EtcdCluster {
    /// Starts the members in `dir` and waits for a leader. They use the ports `base_port` to
    /// `base_port + 12`.
    pub(crate) async fn start(
        dir: &Path,
        base_port: u16,
        timings: Timings,
    ) -> anyhow::Result<Self> {
        std::fs::create_dir_all(dir).context("cannot make etcd's folder")?;
        let mut cluster = Self {
            dir: dir.to_owned(),
            base_port,
            timings,
            members: Vec::new(),
        };
        for index in 0..MEMBERS {
            let process = cluster.launch(index)?;
            let client_url = cluster.client_url(index)?;
            cluster.members.push(Member {
                process,
                client_url,
            });
        }
        cluster.wait_until_healthy().await?;
        Ok(cluster)
    }

    fn port(&self, index: usize, offset: u16) -> anyhow::Result<u16> {
        let index = u16::try_from(index).context("three members have small numbers")?;
        let port = self.base_port.checked_add(index + offset);
        port.context("the base port is too high")
    }

    fn client_url(&self, index: usize) -> anyhow::Result<String> {
        Ok(format!("http://127.0.0.1:{}", self.port(index, 0)?))
    }

    fn peer_url(&self, index: usize) -> anyhow::Result<String> {
        Ok(format!("http://127.0.0.1:{}", self.port(index, 10)?))
    }

    fn launch(&self, index: usize) -> anyhow::Result<Process> {
        let mut peers = Vec::new();
        for peer in 0..MEMBERS {
            peers.push(format!("n{peer}={}", self.peer_url(peer)?));
        }
        let client_url = self.client_url(index)?;
        let peer_url = self.peer_url(index)?;
        Program::new("etcd")
            .args(["--name", &format!("n{index}")])
            .arg("--data-dir")
            .arg(self.dir.join(format!("n{index}")))
            .args([
                "--heartbeat-interval",
                &self.timings.heartbeat_ms.to_string(),
            ])
            .args(["--election-timeout", &self.timings.election_ms.to_string()])
            .args(["--listen-client-urls", &client_url])
            .args(["--advertise-client-urls", &client_url])
            .args(["--listen-peer-urls", &peer_url])
            .args(["--initial-advertise-peer-urls", &peer_url])
            .args(["--initial-cluster", &peers.join(",")])
            .args(["--initial-cluster-state", "new"])
            .start(&self.dir.join(format!("n{index}.log")))
    }

    /// Waits until every member reports the same leader.
    pub(crate) async fn wait_until_healthy(&mut self) -> anyhow::Result<()> {
        let wait = async {
            loop {
                for member in &mut self.members {
                    member.process.check()?;
                }
                if self.agreed_leader().await.is_some() {
                    return Ok(());
                }
                sleep(LOOK_INTERVAL).await;
            }
        };
        timeout(READY_DEADLINE, wait)
            .await
            .unwrap_or_else(|_| bail!("etcd has no leader after {} s", READY_DEADLINE.as_secs()))
    }

    async fn agreed_leader(&self) -> Option<usize> {
        let mut leaders = Vec::new();
        let mut members = Vec::new();
        for member in &self.members {
            let client = EtcdClient::connect(&member.client_url).await.ok()?;
            let status = client.status().await.ok()?;
            leaders.push(status.leader);
            members.push(status.header?.member_id);
        }
        let leader = *leaders.first()?;
        let agreed = leader != 0 && leaders.iter().all(|other| *other == leader);
        let index = members.iter().position(|member| *member == leader)?;
        agreed.then_some(index)
    }

    /// The index of the leader on which all members agree.
    pub(crate) async fn leader(&mut self) -> anyhow::Result<usize> {
        self.wait_until_healthy().await?;
        let leader = self.agreed_leader().await;
        leader.context("etcd's leader went away again")
    }

    /// The address of a member's clients.
    pub(crate) fn url(&self, index: usize) -> anyhow::Result<&str> {
        let member = self.members.get(index).context("there is no such member")?;
        Ok(&member.client_url)
    }

    /// The process ids of the members.
    pub(crate) fn pids(&self) -> anyhow::Result<Vec<u32>> {
        let pids = self.members.iter().map(|member| member.process.pid());
        pids.collect()
    }

    /// Kills a member (SIGKILL) and waits for its end.
    pub(crate) async fn kill(&mut self, index: usize) -> anyhow::Result<()> {
        let member = self.members.get_mut(index);
        let process = &mut member.context("there is no such member")?.process;
        process.kill()?;
        process.wait().await
    }

    /// Starts a member again after [`Self::kill`] and waits until all three agree on a leader.
    pub(crate) async fn restart(&mut self, index: usize) -> anyhow::Result<()> {
        let process = self.launch(index)?;
        if let Some(member) = self.members.get_mut(index) {
            member.process = process;
        }
        self.wait_until_healthy().await
    }

    /// The release of the members.
    pub(crate) async fn version(&self) -> anyhow::Result<String> {
        let client = EtcdClient::connect(self.url(0)?).await?;
        Ok(client.status().await?.version)
    }

    /// Stops the members.
    pub(crate) async fn stop(self) -> anyhow::Result<()> {
        let stops = self.members.into_iter();
        let stops = stops.map(|member| member.process.stop(STOP_DEADLINE));
        for stopped in futures::future::join_all(stops).await {
            stopped?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write as _;

    #[tokio::test]
    async fn a_killed_leader_is_followed_and_comes_back() {
        if Program::new("etcd")
            .arg("--version")
            .output(b"")
            .await
            .is_err()
        {
            let text = "NOT CHECKED: etcd is not installed, so the peer of writes was not started";
            writeln!(std::io::stderr(), "{text}").expect("said");
            return;
        }
        let dir = tempfile::tempdir().expect("a folder");
        let mut etcd = EtcdCluster::start(dir.path(), 28_600, DEFAULT_TIMINGS)
            .await
            .expect("three members");
        let leader = etcd.leader().await.expect("a leader");
        let client = EtcdClient::connect(etcd.url(leader).expect("its address")).await;
        client
            .expect("connected")
            .put(b"k", b"v")
            .await
            .expect("put");
        etcd.kill(leader).await.expect("killed");
        etcd.restart(leader).await.expect("back");
        assert!(etcd.version().await.expect("a version").starts_with("3."));
        let pids = etcd.pids().expect("pids");
        etcd.stop().await.expect("stopped");
        for pid in pids {
            assert!(
                !crate::usage::was_started_with(pid, "etcd"),
                "{pid} still runs"
            );
        }
    }
}
