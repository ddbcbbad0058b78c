//! Bitmaps and commit-graphs: every replica makes its own, of what its packs hold.
//!
//! They only make serving cheaper: whatever becomes of them, nothing is lost. They are made anew when the biggest pack of a
//! network is another one than when they were made last, which compaction sees to every time it has doubled.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use henge_git::{
    BitmapError, BitmapSummary, CommitGraphError, CommitGraphSummary, Deadline, Stop, write_bitmap,
    write_commit_graph,
};
use henge_runtime::tasks::OnPanic;
use henge_state::ShardView;
use henge_types::{GroupId, NetworkId, ObjectId, PackId};

use crate::maintain::compact::StopOnDrop;
use crate::metrics;
use crate::repos::Inner;

/// How often the replica is looked over.
const LOOK_EVERY: Duration = Duration::from_secs(2);
/// Packs of fewer objects are counted by walking just as fast.
const OBJECTS_MIN: u32 = 2_000;
/// How long one network may take.
const TIME_MAX: Duration = Duration::from_secs(60 * 60);

/// The pack of each network that was dealt with last, also if in vain: it is not tried again and again.
type Fresh = BTreeMap<NetworkId, PackId>;

/// Both files, or why there is none.
type Made = (
    Result<BitmapSummary, BitmapError>,
    Result<CommitGraphSummary, CommitGraphError>,
);

/// Starts the loop.
pub(crate) fn start(inner: &Arc<Inner>) {
    let freshening = Arc::clone(inner);
    inner
        .scope
        .spawn("bitmaps", OnPanic::EndProcess, async move {
            freshening.freshen_all().await;
        });
}

impl Inner {
    async fn freshen_all(self: Arc<Self>) {
        let mut fresh = Fresh::default();
        loop {
            tokio::time::sleep(LOOK_EVERY).await;
            let groups = self.cluster.local_groups().into_iter();
            let groups = groups.filter(|group| !group.is_meta());
            let biggest = groups.flat_map(|group| self.biggest(group));
            // What is not there any more is forgotten.
            let mut left = Fresh::default();
            for (group, network, pack) in biggest.collect::<Vec<_>>() {
                let is_fresh = fresh.get(&network) == Some(&pack);
                if is_fresh || self.freshen(group, network, pack).await {
                    left.insert(network, pack);
                }
            }
            fresh = left;
        }
    }

    /// The biggest pack of each network of a shard, where it is worth it.
    fn biggest(&self, group: GroupId) -> Vec<(GroupId, NetworkId, PackId)> {
        let Some(view) = self.cluster.view(group) else {
            return Vec::new();
        };
        view.with(|state, _| {
            let view = ShardView::new(state);
            let networks = view.networks().into_iter();
            let biggest = networks.filter_map(|network| {
                let pack = view.packs(&network).max_by_key(|pack| pack.objects)?;
                (pack.objects >= OBJECTS_MIN).then_some((group, network, pack.pack))
            });
            biggest.collect()
        })
    }

    /// Whether the pack is dealt with.
    async fn freshen(self: &Arc<Self>, group: GroupId, network: NetworkId, pack: PackId) -> bool {
        if !self.objects().has_pack(&network, &pack) {
            return false;
        }
        let bitmap = self.objects().side_file(&network, &pack, "bitmap");
        if bitmap.is_file() {
            return true;
        }
        // Before the state is looked at: a store found unread later belongs to no live repository.
        let reading = self.effects.readers().enter(network);
        let tips = self.tips(group, network);
        let stop = Stop::at(Deadline::after(Arc::clone(&self.clock), TIME_MAX));
        let _stopped = StopOnDrop(stop.clone());
        let objects = self.opened(&network, pack.checksum().format());
        let started = self.clock.instant();
        let made = self.work_of_freshening.blocking("bitmaps", move || {
            let bitmaps = write_bitmap(&objects, pack, &tips, &stop);
            let graph = write_commit_graph(&objects, &tips, &stop);
            drop(reading);
            (bitmaps, graph)
        });
        let made = made.await;
        let took = self.clock.instant().duration_since(started);
        self.tell(group, network, pack, made, took)
    }

    fn tell(
        &self,
        group: GroupId,
        network: NetworkId,
        pack: PackId,
        made: io::Result<Made>,
        took: Duration,
    ) -> bool {
        match made {
            Ok((Ok(bitmaps), Ok(graph))) => {
                tracing::info!(%group, %network, %pack, bitmaps = bitmaps.commits, commits = graph.commits, "bitmaps and commit-graph made");
                metrics::freshened(took.as_secs_f64());
            }
            // The pack was replaced meanwhile: its successor is next.
            Ok((Err(BitmapError::NoSuchPack { .. }), _)) => return false,
            Ok((bitmaps, graph)) => {
                let bitmaps = bitmaps.err().map(|error| error.to_string());
                let graph = graph.err().map(|error| error.to_string());
                let errors = bitmaps.into_iter().chain(graph).collect::<Vec<_>>();
                let errors = errors.join("; ");
                tracing::warn!(%group, %network, %pack, errors, "no bitmaps: clones of this repository cost more");
                metrics::freshening_failed();
            }
            Err(error) => {
                tracing::error!(%group, %network, %pack, %error, "making bitmaps ended");
                metrics::freshening_failed();
            }
        }
        true
    }

    /// What the refs of a network's live repositories are at.
    pub(crate) fn tips(&self, group: GroupId, network: NetworkId) -> Vec<ObjectId> {
        let Some(at) = self.cluster.state(group) else {
            return Vec::new();
        };
        let view = ShardView::new(&at.state);
        let repos = view.repos_of(&network);
        let mut tips: Vec<_> = repos
            .flat_map(|repo| view.ref_texts(&repo, "").map(|(_, id)| id))
            .collect();
        tips.sort_unstable();
        tips.dedup();
        tips
    }
}
