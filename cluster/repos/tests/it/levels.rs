//! Release levels of groups.

use std::time::Duration;

use henge_cluster::LevelError;
use henge_repos::{CreateOptions, RepoEdit};
use henge_types::command::VERSION_KNOWN;
use henge_types::{GroupId, NodeId, ObjectFormat, RepoLimits};

use crate::ring::{ADMIN, Ring, eventually};

/// Waits until every group of these nodes is at this release's level.
async fn all_rise(ring: &Ring, nodes: &[usize]) {
    for node in nodes {
        let cluster = &ring.node(*node).cluster;
        for group in cluster.local_groups() {
            eventually("the group is at this release's level", async || {
                (cluster.level(group)? == VERSION_KNOWN).then_some(())
            })
            .await;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn groups_rise_to_what_all_nodes_know_and_no_further() {
    let ring = Ring::start().await;
    let groups = ring.node(1).cluster.local_groups();
    assert!(groups.contains(&GroupId::META) && groups.len() > 1);
    all_rise(&ring, &ring.live()).await;
    let leader = ring.leader(GroupId::META).await;
    let cluster = &ring.node(leader).cluster;
    let within = Duration::from_secs(10);
    let before = cluster.state(GroupId::META).unwrap().state.hash();
    let again = cluster.raise_level(GroupId::META, VERSION_KNOWN, within);
    assert_eq!(again.await, Ok(()));
    let unknown = cluster.raise_level(GroupId::META, VERSION_KNOWN + 1, within);
    let refused = unknown.await.unwrap_err();
    assert!(matches!(refused, LevelError::OtherRelease(_)), "{refused}");
    let after = cluster.state(GroupId::META).unwrap().state.hash();
    assert_eq!(before, after);
}

/// Nodes that reported their level before the cluster was formed are not asked again.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_young_cluster_does_what_is_new_while_a_node_is_down() {
    let mut ring = Ring::start().await;
    for node in ring.live() {
        let level = ring.node(node).cluster.level(GroupId::META);
        assert_eq!(level, Some(VERSION_KNOWN), "formed at its level");
    }
    ring.stop_node(3).await;
    let repos = &ring.node(1).repos;
    let path = "admin/young".parse().unwrap();
    let options = CreateOptions {
        object_format: ObjectFormat::Sha256,
        ..CreateOptions::default()
    };
    let made = repos.create(&ADMIN, path, options).await.unwrap();
    let limits = RepoLimits {
        refs_max: Some(3),
        ..RepoLimits::default()
    };
    repos.set_limits(&ADMIN, &made.path, limits).await.unwrap();
    let archive = RepoEdit {
        archived: Some(true),
        ..RepoEdit::default()
    };
    let edited = repos.edit(&ADMIN, &made.path, archive).await.unwrap();
    assert!(edited.archived);
    all_rise(&ring, &[1, 2]).await;
    ring.start_node(3).await;
    all_rise(&ring, &[3]).await;
}

/// A founder that reports no level may run an older release: the cluster stays at the first level,
/// without the features that it may not support.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_founder_that_was_not_heard_keeps_the_cluster_at_the_first_level() {
    let mut ring = Ring::founded(3, 3);
    ring.start_node(1).await;
    ring.start_node(2).await;
    for node in [1, 2] {
        let cluster = &ring.node(node).cluster;
        eventually("the cluster is formed", async || {
            (cluster.local_groups().len() > 1).then_some(())
        })
        .await;
        assert_eq!(cluster.level(GroupId::META), Some(1));
    }
    let leader = ring.leader(GroupId::META).await;
    let cluster = &ring.node(leader).cluster;
    let within = Duration::from_secs(10);
    let raised = cluster.raise_level(GroupId::META, VERSION_KNOWN, within);
    let silent = LevelError::OtherRelease(NodeId::new(3));
    assert_eq!(raised.await, Err(silent));
    ring.start_node(3).await;
    for node in ring.live() {
        ring.wait_until_ready(node).await;
    }
    all_rise(&ring, &ring.live()).await;
}
