//! The meta leader's loop: finishes or undoes what somebody began and left: creations,
//! deletions, settings that a shard was not told.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use henge_cluster::Cluster;
use henge_git::http::ServiceError;
use henge_runtime::tasks::OnPanic;
use henge_runtime::{Clock, Scope};
use henge_state::MetaView;
use henge_types::{GroupId, LogIndex, RepoId, RepoRecord, RepoState, UntoldRecord};

use crate::catalogue::Catalogue;

/// How often a leader looks.
const PERIOD: Duration = Duration::from_secs(1);
/// How long a record must have been unfinished: whoever began it usually finishes it.
const GRACE: Duration = Duration::from_secs(4);
/// In whose name the loop works.
const PRINCIPAL: &str = "henge";

/// Looks at unfinished repositories while this node leads the meta group.
#[derive(Debug)]
pub(crate) struct Reconciler {
    cluster: Cluster,
    catalogue: Catalogue,
    clock: Arc<dyn Clock>,
    /// When each unfinished record was first seen, in its state then.
    seen: BTreeMap<RepoId, (RepoState, Instant)>,
    /// When each mark of a shard that has to be told was first seen, with its revision then.
    untold: BTreeMap<RepoId, (LogIndex, Instant)>,
}

impl Reconciler {
    /// Starts the loop.
    pub(crate) fn start(
        cluster: Cluster,
        catalogue: Catalogue,
        clock: Arc<dyn Clock>,
        scope: &Scope,
    ) {
        let mut reconciler = Self {
            cluster,
            catalogue,
            clock,
            seen: BTreeMap::new(),
            untold: BTreeMap::new(),
        };
        scope.spawn("catalogue reconciler", OnPanic::EndProcess, async move {
            loop {
                tokio::time::sleep(PERIOD).await;
                reconciler.look().await;
            }
        });
    }

    async fn look(&mut self) {
        if self.cluster.leadership(GroupId::META).is_none() {
            self.seen.clear();
            self.untold.clear();
            return;
        }
        let Some(view) = self.cluster.view(GroupId::META) else {
            return;
        };
        let (unfinished, untold) = view.with(|state, _| {
            let meta = MetaView::new(state);
            let unfinished: Vec<_> = meta.unfinished().collect();
            (unfinished, meta.untold().collect::<Vec<_>>())
        });
        // First: a repository that took another one's name serves only when that one's shard knows.
        for (record, mark) in self.untold_for_long(untold) {
            let repo = record.repo;
            match self.catalogue.tell_shard(PRINCIPAL, &record, mark).await {
                Ok(()) => tracing::info!(%repo, "a shard was told the settings of a repository"),
                Err(error) => tracing::warn!(%repo, %error, "a shard is still to be told"),
            }
        }
        for record in self.due(unfinished) {
            let (repo, state) = (record.repo, record.state);
            // Nothing is lost when this fails: the record stays unfinished and is seen again.
            match self.finish(record).await {
                Ok(()) => tracing::info!(%repo, ?state, "unfinished repository brought to its end"),
                Err(error) => {
                    tracing::warn!(%repo, ?state, %error, "unfinished repository stays so");
                }
            }
        }
    }

    fn untold_for_long(
        &mut self,
        untold: Vec<(RepoRecord, UntoldRecord)>,
    ) -> Vec<(RepoRecord, UntoldRecord)> {
        let now = self.clock.instant();
        let before = std::mem::take(&mut self.untold);
        let mut due = Vec::new();
        for (record, mark) in untold {
            let known = before.get(&record.repo);
            let known = known.filter(|(revision, _)| *revision == mark.revision);
            let since = known.map_or(now, |(_, since)| *since);
            self.untold.insert(record.repo, (mark.revision, since));
            if now.duration_since(since) >= GRACE {
                due.push((record, mark));
            }
        }
        due
    }

    /// The records that have been unfinished for long enough.
    fn due(&mut self, unfinished: Vec<RepoRecord>) -> Vec<RepoRecord> {
        let now = self.clock.instant();
        let before = std::mem::take(&mut self.seen);
        let mut due = Vec::new();
        for record in unfinished {
            let known = before
                .get(&record.repo)
                .filter(|(state, _)| *state == record.state);
            let since = known.map_or(now, |(_, since)| *since);
            self.seen.insert(record.repo, (record.state, since));
            if now.duration_since(since) >= GRACE {
                due.push(record);
            }
        }
        due
    }

    async fn finish(&self, record: RepoRecord) -> Result<(), ServiceError> {
        match record.state {
            RepoState::Reserved => self
                .catalogue
                .finish_create(PRINCIPAL, record)
                .await
                .map(|_| ()),
            RepoState::Deleting => self.catalogue.finish_delete(PRINCIPAL, &record).await,
            RepoState::Ready | RepoState::Deleted => Ok(()),
        }
    }
}
