//! The meta leader's loop: finishes or undoes creations and deletions that somebody began and left.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use henge_cluster::Cluster;
use henge_git::http::ServiceError;
use henge_runtime::tasks::OnPanic;
use henge_runtime::{Clock, Scope};
use henge_state::MetaView;
use henge_types::{GroupId, RepoId, RepoRecord, RepoState};

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
            return;
        }
        let Some(view) = self.cluster.view(GroupId::META) else {
            return;
        };
        let unfinished: Vec<_> = view.with(|state, _| MetaView::new(state).unfinished().collect());
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
