//! Release levels of groups.

use std::time::Duration;

use henge_cluster::LevelError;
use henge_types::GroupId;
use henge_types::command::VERSION_KNOWN;

use crate::ring::{Ring, eventually};

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn groups_rise_to_what_all_nodes_know_and_no_further() {
    let ring = Ring::start().await;
    let groups = ring.node(1).cluster.local_groups();
    assert!(groups.contains(&GroupId::META) && groups.len() > 1);
    for node in ring.live() {
        for group in &groups {
            eventually("the group is at this release's level", async || {
                let level = ring.node(node).cluster.level(*group)?;
                (level == VERSION_KNOWN).then_some(())
            })
            .await;
        }
    }
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
