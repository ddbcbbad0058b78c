//! Bitmaps and commit-graphs: every replica makes its own, of the objects in its packs.
//!
//! They only lower the cost of serving; losing them loses no data. They are made again when another
//! pack has become the biggest of a network: compaction causes this each time the network has
//! doubled. With them, or when the network is first read after a start, the fetches of clients that
//! follow its branches are prewarmed.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use henge_git::{
    BitmapError, BitmapSummary, CommitGraphError, CommitGraphSummary, Deadline, FetchError,
    Objects, Stop, rehearse_fetches, rehearse_tags, write_bitmap, write_commit_graph,
};
use henge_runtime::tasks::OnPanic;
use henge_state::ShardView;
use henge_types::{GroupId, NetworkId, ObjectId, PackId};

use crate::maintain::compact::StopOnDrop;
use crate::metrics;
use crate::repos::Inner;

/// Interval between two looks at the replica.
const LOOK_EVERY: Duration = Duration::from_secs(2);
/// Smaller packs, in objects, get none: counting them by a walk takes about a millisecond.
const OBJECTS_MIN: u32 = 256;
/// Time limit for one network.
const TIME_MAX: Duration = Duration::from_secs(60 * 60);

/// Branches of a network whose fetches are prewarmed: those of forks are mostly at the same
/// commits.
const HEADS_MAX: usize = 4;

/// The result of the last attempt for a network. A failed attempt is recorded as well, so that it
/// is not repeated.
#[derive(Clone, Copy)]
struct Dealt {
    pack: PackId,
    is_rehearsed: bool,
}

type Fresh = BTreeMap<NetworkId, Dealt>;

/// The results for the bitmap, the commit-graph and the prewarmed fetches.
type Made = (
    Result<BitmapSummary, BitmapError>,
    Result<CommitGraphSummary, CommitGraphError>,
    Result<usize, FetchError>,
);

/// Starts the background task.
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
            // Networks that no longer exist are forgotten.
            let mut left = Fresh::default();
            for (group, network, pack) in biggest.collect::<Vec<_>>() {
                let before = fresh.get(&network).filter(|dealt| dealt.pack == pack);
                let dealt = match before {
                    Some(dealt) if dealt.is_rehearsed => Some(*dealt),
                    Some(dealt) => Some(self.rehearse_if_read(group, network, *dealt).await),
                    None => self.freshen(group, network, pack).await,
                };
                left.extend(dealt.map(|dealt| (network, dealt)));
            }
            fresh = left;
        }
    }

    /// The biggest pack of each network of a shard, if it has at least [`OBJECTS_MIN`] objects.
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

    /// Makes the missing files. Nothing when the pack is not here.
    async fn freshen(
        self: &Arc<Self>,
        group: GroupId,
        network: NetworkId,
        pack: PackId,
    ) -> Option<Dealt> {
        if !self.objects().has_pack(&network, &pack) {
            return None;
        }
        let bitmap = self.objects().side_file(&network, &pack, "bitmap");
        if bitmap.is_file() {
            let is_rehearsed = false;
            return Some(Dealt { pack, is_rehearsed });
        }
        // Before the state is read: a store that has no reader afterwards belongs to no live
        // repository.
        let reading = self.effects.readers().enter(network);
        let tips = self.tips(group, network);
        let heads = self.heads(group, network);
        let stop = Stop::at(Deadline::after(Arc::clone(&self.clock), TIME_MAX));
        let _stopped = StopOnDrop(stop.clone());
        let objects = self.opened(&network, pack.checksum().format());
        let started = self.clock.instant();
        let inner = Arc::clone(self);
        let made = self.work_of_freshening.blocking("bitmaps", move || {
            let bitmaps = write_bitmap(&objects, pack, &tips, &stop);
            let graph = write_commit_graph(&objects, &tips, &stop);
            let rehearsed = rehearse(&objects, &heads, &tips, &stop);
            drop(reading);
            if let Err(BitmapError::Store(fault)) = &bitmaps {
                inner.object_failed((group, network), fault);
            } else if let Err(FetchError::Store(fault)) = &rehearsed {
                inner.object_failed((group, network), fault);
            }
            (bitmaps, graph, rehearsed)
        });
        let made = made.await;
        let took = self.clock.instant().duration_since(started);
        let is_rehearsed = true;
        self.tell(group, network, pack, made, took)
            .then_some(Dealt { pack, is_rehearsed })
    }

    /// Prewarms the fetches of a network that has readers: a start begins with an empty response
    /// cache.
    async fn rehearse_if_read(
        self: &Arc<Self>,
        group: GroupId,
        network: NetworkId,
        dealt: Dealt,
    ) -> Dealt {
        if !self.has_opened(&network) {
            return dealt;
        }
        let reading = self.effects.readers().enter(network);
        let tips = self.tips(group, network);
        let heads = self.heads(group, network);
        let stop = Stop::at(Deadline::after(Arc::clone(&self.clock), TIME_MAX));
        let _stopped = StopOnDrop(stop.clone());
        let objects = self.opened(&network, dealt.pack.checksum().format());
        let inner = Arc::clone(self);
        let done = self.work_of_freshening.blocking("rehearsal", move || {
            let rehearsed = rehearse(&objects, &heads, &tips, &stop);
            drop(reading);
            if let Err(FetchError::Store(fault)) = &rehearsed {
                inner.object_failed((group, network), fault);
            }
            rehearsed
        });
        match done.await {
            Ok(Ok(_)) => {}
            Ok(Err(error)) => tell_of_rehearsal(group, network, &error),
            Err(error) => tracing::error!(%group, %network, %error, "a rehearsal ended"),
        }
        Dealt {
            is_rehearsed: true,
            ..dealt
        }
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
            Ok((Ok(bitmaps), Ok(graph), rehearsed)) => {
                tracing::info!(%group, %network, %pack, bitmaps = bitmaps.commits, commits = graph.commits, "bitmaps and commit-graph made");
                if let Err(error) = rehearsed {
                    tell_of_rehearsal(group, network, &error);
                }
                metrics::freshened(took.as_secs_f64());
            }
            // The pack was replaced meanwhile: its successor is next.
            Ok((Err(BitmapError::NoSuchPack { .. }), ..)) => return false,
            Ok((bitmaps, graph, _)) => {
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

    /// The ref values of a network's live repositories.
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

    /// The HEAD commits of repositories of a network.
    fn heads(&self, group: GroupId, network: NetworkId) -> Vec<ObjectId> {
        let Some(at) = self.cluster.state(group) else {
            return Vec::new();
        };
        let view = ShardView::new(&at.state);
        let mut heads = Vec::new();
        for repo in view.repos_of(&network) {
            let head = view.repo(&repo).map(|record| record.head);
            let tip = head.and_then(|head| view.ref_value(&repo, &head));
            if let Some(tip) = tip.filter(|tip| !heads.contains(tip)) {
                heads.push(tip);
            }
            if heads.len() == HEADS_MAX {
                break;
            }
        }
        heads
    }
}

/// Prewarms the tags of all refs, and the fetches of clients that follow some branches; returns the
/// number of fetches.
fn rehearse(
    objects: &Objects,
    heads: &[ObjectId],
    tips: &[ObjectId],
    stop: &Stop,
) -> Result<usize, FetchError> {
    rehearse_tags(objects, tips, stop)?;
    heads.iter().try_fold(0, |count, head| {
        Ok(count + rehearse_fetches(objects, *head, stop)?)
    })
}

/// Logs that prewarming failed: only the first fetches cost more.
fn tell_of_rehearsal(group: GroupId, network: NetworkId, error: &FetchError) {
    tracing::warn!(%group, %network, %error, "fetches could not be rehearsed");
}
