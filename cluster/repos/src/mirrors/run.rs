//! One run of a mirror, from its claim to its completion report.

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use henge_cluster::ProposeError;
use henge_git::{Deadline, Stop};
use henge_git_client::{
    Credentials, Destination, Error, Listing, Local, Losses, Network, Prune, Remote, RemoteUrl,
    Removals, Selection, Source, Transfer, TransferSummary, Watch, transfer_listed,
};
use henge_runtime::failpoint;
use henge_state::ShardView;
use henge_types::{
    BeginMirror, ChangeMirror, Command, GroupId, LogIndex, Mirror, MirrorChange, MirrorKind,
    MirrorOutcome, MirrorPusher, MirrorRemoval, MirrorRemovalRecord, MirrorSettings, MirrorWord,
    ObjectId, RecordMirror, RefName, Reply, ShardCommand, ShardRepo, limits,
};
use tokio::runtime::Handle;

use crate::maintain::compact::StopOnDrop;
use crate::metrics;
use crate::mirrors::Runner;
use crate::mirrors::destination::Shard;
use crate::refs::StateRefs;
use crate::repos::Inner;

/// Lease of a run without a heartbeat: after that another leader may claim the run.
const LEASE: Duration = Duration::from_secs(15);
/// Interval of the heartbeat of a run.
const WORD_EVERY: Duration = Duration::from_secs(5);
/// Time limit of a run.
const RUN_TIME_MAX: Duration = Duration::from_secs(60 * 60);
/// How long an entry may take to be applied.
const PROPOSE_WAIT: Duration = Duration::from_secs(5);
/// Attempts to send the completion report: if all fail, another run starts when the lease is over.
const LAST_WORD_TRIES: usize = 3;
/// How long a run waits for packs that this replica lacks.
const PARKED_WAIT: Duration = Duration::from_secs(10);
/// Refused refs whose reasons are in the completion report.
const REFUSED_TOLD: usize = 3;

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// A mirror and its repository in the state of this replica.
struct Now {
    mirror: Mirror,
    repo: ShardRepo,
    removal: Option<MirrorRemovalRecord>,
}

/// A run in progress.
#[derive(Debug, Clone)]
struct Run {
    inner: Arc<Inner>,
    group: GroupId,
    mirror: Mirror,
    fence: LogIndex,
    /// What the run may remove, where it differs from the usual limit of half of the refs.
    removal: Option<MirrorRemovalRecord>,
}

impl Runner {
    /// Claims a mirror that is due, and runs it.
    pub(super) async fn run(&self, group: GroupId, term: u64, mirror: &Mirror) {
        let begin = BeginMirror {
            repo: mirror.repo,
            mirror: mirror.id,
            scheduled_at_ms: mirror.next_due_ms,
            lease_ms: millis(LEASE),
        };
        let begin = Command::Shard(ShardCommand::BeginMirror(begin));
        let cluster = &self.inner.cluster;
        let fence = match cluster.propose(group, begin, None, PROPOSE_WAIT).await {
            Ok(applied) if applied.reply == Reply::Done => applied.index,
            // Another run has the claim.
            Ok(_) | Err(ProposeError::NotLeader { .. }) => return,
            Err(error) => {
                // The outcome may be unknown: if the claim was applied, it is free again when the
                // lease is over.
                tracing::warn!(%group, mirror = %mirror.id, %error, "a mirror was not begun");
                return;
            }
        };
        failpoint::hit("mirror.begun");
        let mut run = Run {
            inner: Arc::clone(&self.inner),
            group,
            mirror: mirror.clone(),
            fence,
            removal: None,
        };
        // The settings at the time of the claim count: `mirror` was read a moment earlier.
        let Some(Now {
            mirror, removal, ..
        }) = run.now()
        else {
            return;
        };
        run.mirror = mirror.clone();
        run.removal = removal;
        let started = self.inner.clock.instant();
        let outcome = Box::pin(self.work(&run)).await;
        let took = self.inner.clock.instant().duration_since(started);
        metrics::mirror_ran(
            mirror.settings.kind,
            matches!(outcome, MirrorOutcome::Done { .. }),
            took.as_secs_f64(),
        );
        failpoint::hit("mirror.worked");
        let (kind, repo) = (mirror.settings.kind, mirror.repo);
        match &outcome {
            MirrorOutcome::Done {
                changed,
                pack_bytes,
            } => {
                tracing::info!(%group, term, %repo, mirror = %mirror.id, ?kind, changed, pack_bytes, "mirrored");
            }
            MirrorOutcome::Failed { why } => {
                tracing::warn!(%group, term, %repo, mirror = %mirror.id, ?kind, why, "a mirror failed: it is tried again later");
            }
        }
        run.end(outcome).await;
        run.begin_anew_if_changed().await;
    }

    /// Runs the transfer on the blocking pool, and sends heartbeats meanwhile.
    async fn work(&self, run: &Run) -> MirrorOutcome {
        let deadline = Deadline::after(Arc::clone(&self.inner.clock), RUN_TIME_MAX);
        let stop = Stop::at(deadline);
        let stopped = StopOnDrop(stop.clone());
        let (network, job, stop_job) = (Arc::clone(&self.network), run.clone(), stop.clone());
        let handle = Handle::current();
        let work = self.work.blocking("mirror", move || {
            let settings = &job.mirror.settings;
            let remote = remote_of(network, settings);
            let outcome = remote.and_then(|remote| job.transfer(remote, &handle, &stop_job));
            outcome.map_err(|error| why(&error, settings.kind))
        });
        let mut work = pin!(work);
        let done = loop {
            match tokio::time::timeout(WORD_EVERY, &mut work).await {
                Ok(done) => break done,
                Err(_) if run.is_still_believed().await => {}
                Err(_) => stop.stop(),
            }
        };
        drop(stopped);
        match done {
            Ok(Ok(summary)) => judge(&summary),
            Ok(Err(why)) => MirrorOutcome::Failed { why },
            Err(error) => MirrorOutcome::Failed {
                why: error.to_string(),
            },
        }
    }
}

/// The client for the other side of a mirror.
///
/// # Errors
/// When its URL cannot be parsed: a later release may have stored it.
pub(super) fn remote_of(network: Arc<Network>, settings: &MirrorSettings) -> Result<Remote, Error> {
    let (url, _) = RemoteUrl::parse(&settings.url).map_err(|error| Error::Local {
        message: error.to_string(),
    })?;
    let secret = settings.secret.clone();
    let credentials = secret.map(|secret| Credentials::Basic {
        user: secret.user,
        password: secret.password,
    });
    Ok(Remote::new(
        network,
        url,
        credentials,
        limits::PUSH_BYTES_MAX,
    ))
}

/// The refs that `there` would lose if it became equal to `source`, by the rules of mirrors.
/// `keeps` is that of [`Losses::between`].
pub(super) fn losses(
    source: &Listing,
    there: &Listing,
    keeps: &mut dyn FnMut(ObjectId, ObjectId) -> bool,
) -> Losses {
    // With deletions, even where this run deletes nothing because the source has a name that cannot
    // be stored: a later run would delete.
    Losses::between(source, there, Selection::default(), Prune::Delete, keeps)
}

/// Why a run failed.
fn why(error: &Error, kind: MirrorKind) -> String {
    let Error::Losses(losses) = error else {
        return error.to_string();
    };
    let loser = match kind {
        MirrorKind::Pull => "the repository",
        MirrorKind::Push => "the other side",
    };
    format!(
        "nothing was changed, {loser} would lose more than was agreed to (if that is meant: henge repo mirror sync --force): {losses}"
    )
}

/// The outcome of a transfer that ended. A transfer that left refs out has failed; the reasons list
/// them.
fn judge(summary: &TransferSummary) -> MirrorOutcome {
    let mut reasons = Vec::new();
    if !summary.refused.is_empty() {
        let told = summary.refused.iter().take(REFUSED_TOLD);
        let told: Vec<_> = told
            .map(|(name, reason)| format!("{name}: {reason}"))
            .collect();
        reasons.push(format!(
            "{} refs were refused: {}",
            summary.refused.len(),
            told.join("; ")
        ));
    }
    if !summary.unholdable.is_empty() {
        reasons.push(format!(
            "the other refs were copied and none was deleted: names of refs are UTF-8 of at most {} bytes here, and the source \
             has {}, rename or delete them there",
            limits::REF_NAME_BYTES_MAX,
            summary.unholdable
        ));
    }
    if reasons.is_empty() {
        MirrorOutcome::Done {
            changed: summary.created + summary.updated + summary.deleted,
            pack_bytes: summary.pack_bytes,
        }
    } else {
        MirrorOutcome::Failed {
            why: reasons.join("; "),
        }
    }
}

/// Deletes refs that the source lacks, unless the source has names that cannot be stored: its
/// listing is then incomplete.
fn prune(listing: &Listing) -> Prune {
    if listing.unholdable(Selection::default()).is_empty() {
        Prune::Delete
    } else {
        Prune::Keep
    }
}

impl Run {
    async fn say(&self, word: MirrorWord) -> Result<bool, ProposeError> {
        let record = RecordMirror {
            repo: self.mirror.repo,
            mirror: self.mirror.id,
            fence: self.fence,
            word,
        };
        let command = Command::Shard(ShardCommand::RecordMirror(record));
        let cluster = &self.inner.cluster;
        let applied = cluster.propose(self.group, command, None, PROPOSE_WAIT);
        Ok(applied.await?.reply == Reply::Done)
    }

    /// Sends a heartbeat. `false` when the run was fenced off, or its node no longer leads.
    async fn is_still_believed(&self) -> bool {
        let lease_ms = millis(LEASE);
        match self.say(MirrorWord::Working { lease_ms }).await {
            Ok(believed) => believed,
            Err(ProposeError::UnknownOutcome) => true,
            Err(_) => false,
        }
    }

    async fn end(&self, outcome: MirrorOutcome) {
        for _ in 0..LAST_WORD_TRIES {
            match self.say(MirrorWord::Ended(outcome.clone())).await {
                Err(ProposeError::UnknownOutcome) => {}
                // Refused: the run was fenced off, the mirror was removed, or an earlier attempt
                // was applied after all.
                Ok(_) | Err(_) => return,
            }
        }
    }

    /// The mirror in the state of this replica; `None` when it was removed or another run has the
    /// claim.
    fn now(&self) -> Option<Now> {
        let view = self.inner.cluster.view(self.group)?;
        view.with(|state, _| {
            let shard = ShardView::new(state);
            let mirror = shard.mirror(&self.mirror.repo, &self.mirror.id)?;
            let is_ours = mirror.fence == self.fence;
            let now = Now {
                removal: shard.mirror_removal(&mirror.repo, &mirror.id),
                repo: shard.repo(&mirror.repo)?,
                mirror,
            };
            Some(now).filter(|_| is_ours)
        })
    }

    /// Makes the mirror due at once if it was changed during the run: the change must not wait for
    /// the next interval.
    async fn begin_anew_if_changed(&self) {
        let since = |removal: Option<MirrorRemovalRecord>| removal.map(|removal| removal.since);
        let changed = self.now().filter(|now| {
            let agreed = now.removal.is_some() && since(now.removal) != since(self.removal);
            agreed || now.mirror.settings != self.mirror.settings
        });
        let Some(Now { mirror, repo, .. }) = changed else {
            return;
        };
        let due = Command::Shard(ShardCommand::ChangeMirror(ChangeMirror {
            repo: repo.repo,
            generation: repo.generation,
            mirror: mirror.id,
            change: MirrorChange::Due,
        }));
        let cluster = &self.inner.cluster;
        if let Err(error) = cluster.propose(self.group, due, None, PROPOSE_WAIT).await {
            tracing::warn!(group = %self.group, mirror = %mirror.id, %error, "a mirror that was changed runs at its next firing");
        }
    }

    /// The refs of the repository in the state of this replica, which contains the claim of the
    /// run.
    fn refs(&self) -> Result<StateRefs, Error> {
        let gone = || Error::Local {
            message: "it is not here any more".to_owned(),
        };
        let at = self.inner.cluster.state(self.group).ok_or_else(gone)?;
        let repo = ShardView::new(&at.state).repo(&self.mirror.repo);
        let generation = repo.ok_or_else(gone)?.generation;
        let now_ms = self.inner.cluster.now_ms(self.group);
        StateRefs::open(at, &self.mirror.repo, generation, now_ms).map_err(|_| gone())
    }

    /// Copies the refs and objects of the source. Blocking.
    fn transfer(
        &self,
        mut remote: Remote,
        handle: &Handle,
        stop: &Stop,
    ) -> Result<TransferSummary, Error> {
        let mut watch = Watch {
            stop,
            tell: &mut |_| {},
        };
        let refs = self.refs()?;
        let network = refs.repo().network;
        // Keeps the store of the source during the copy.
        let reading = self.inner.effects.readers().enter(network);
        let served = self.inner.effects.parking().wait_until_served(&network);
        let served = handle.block_on(async { tokio::time::timeout(PARKED_WAIT, served).await });
        if served.is_err() {
            let message = "the leader still fetches packs of this repository".to_owned();
            return Err(Error::Local { message });
        }
        let objects = self.inner.opened(&network, refs.repo().object_format);
        let mut local = Local::new(&refs, &objects, limits::PUSH_BYTES_MAX);
        let summary = match self.mirror.settings.kind {
            MirrorKind::Push => {
                let ours = local.list(&mut watch)?;
                let theirs = Destination::list(&mut remote, &mut watch)?;
                self.copy(&mut local, &ours, &mut remote, &theirs, handle, &mut watch)
            }
            MirrorKind::Pull => {
                let theirs = Source::list(&mut remote, &mut watch)?;
                let ours = local.list(&mut watch)?;
                let pusher = MirrorPusher {
                    mirror: self.mirror.id,
                    fence: self.fence,
                };
                let mut shard = Shard::new(&self.inner, self.group, &refs, pusher, handle);
                let copied = self.copy(&mut remote, &theirs, &mut shard, &ours, handle, &mut watch);
                copied.and_then(|summary| {
                    handle.block_on(self.follow_head(&theirs))?;
                    Ok(summary)
                })
            }
        };
        drop(reading);
        summary
    }

    /// Sets HEAD to that of the source, if it is a branch that the source has. Skipped if this run
    /// was fenced off or its mirror removed: HEAD may have been set by another request since.
    async fn follow_head(&self, theirs: &Listing) -> Result<(), Error> {
        let is_there = |head: &RefName| theirs.refs.iter().any(|found| found.name == *head);
        let head = theirs.head.clone();
        let head = head.filter(|head| head.is_branch() && is_there(head));
        let now = self.now().filter(|now| now.mirror.run.is_some());
        let repo = now.map(|now| now.repo);
        let (Some(head), Some(repo)) = (head, repo) else {
            return Ok(());
        };
        if repo.head == head {
            return Ok(());
        }
        let command = Command::Shard(ShardCommand::SetHead {
            repo: repo.repo,
            generation: repo.generation,
            head,
        });
        let cluster = &self.inner.cluster;
        let set = cluster.propose(self.group, command, None, PROPOSE_WAIT);
        let failed = |message: String| Error::Local {
            message: format!("HEAD cannot follow the source's: {message}"),
        };
        let set = set.await.map_err(|error| failed(error.to_string()))?;
        let accepted = set.reply.accepted();
        accepted.map_err(|not_accepted| failed(not_accepted.to_string()))
    }

    /// Makes the destination equal to the source, unless it would lose more refs than the mirror
    /// may remove.
    fn copy(
        &self,
        source: &mut dyn Source,
        listing: &Listing,
        destination: &mut dyn Destination,
        there: &Listing,
        handle: &Handle,
        watch: &mut Watch<'_>,
    ) -> Result<TransferSummary, Error> {
        let mut transfer = Transfer {
            prune: prune(listing),
            ..Transfer::new(&self.inner.spool_dir)
        };
        match self.removal.map(|record| (record.removal, record.since)) {
            None => {}
            Some((MirrorRemoval::Nothing, since)) => {
                let mut keeps = |old, new| source.keeps_history(old, new, watch);
                losses(listing, there, &mut keeps).refuse_any()?;
                if self.mirror.settings.kind == MirrorKind::Push {
                    // Other clients push there as well: refs from before the first push are not the
                    // mirror's own.
                    let copied =
                        transfer_listed(source, listing, destination, there, &transfer, watch)?;
                    handle.block_on(self.come_through(since))?;
                    return Ok(copied);
                }
                // Before the first write: all later refs are the mirror's own.
                handle.block_on(self.come_through(since))?;
            }
            Some((MirrorRemoval::Everything, since)) => {
                // For this run only, also if it fails: a later run gets another listing.
                handle.block_on(self.come_through(since))?;
                transfer.removals = Removals::Everything;
            }
        }
        transfer_listed(source, listing, destination, there, &transfer, watch)
    }

    /// Records that from now on the usual limit applies: at most half of the refs may be removed.
    async fn come_through(&self, since: LogIndex) -> Result<(), Error> {
        let failed = |why: String| Error::Local {
            message: format!("what may be removed cannot be noted: {why}"),
        };
        match self.say(MirrorWord::CameThrough { since }).await {
            Ok(true) => Ok(()),
            Ok(false) => Err(failed("another run has taken its place".to_owned())),
            Err(error) => Err(failed(error.to_string())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use henge_types::{ObjectFormat, ObjectId};

    /// A pull mirror of a repository with one branch in Latin-1 always failed, and copied nothing.
    #[test]
    fn a_source_with_an_odd_name_is_followed_without_pruning() {
        let id = ObjectId::from_bytes(&[1; 20]).expect("an id");
        let mut listing = Listing::of(ObjectFormat::Sha1);
        listing.add("refs/heads/main", id).expect("is added");
        assert_eq!(prune(&listing), Prune::Delete);
        let long = "n".repeat(limits::REF_NAME_BYTES_MAX);
        let pull = format!("refs/pull/{long}/head");
        listing.add(&pull, id).expect("is added");
        assert_eq!(prune(&listing), Prune::Delete);
        let odd = format!("refs/heads/{long}");
        listing.add(&odd, id).expect("is added");
        assert_eq!(prune(&listing), Prune::Keep);

        let mut summary = TransferSummary::default();
        assert!(matches!(judge(&summary), MirrorOutcome::Done { .. }));
        summary.unholdable = listing.unholdable(Selection::default());
        let MirrorOutcome::Failed { why } = judge(&summary) else {
            panic!("nothing is said of what is missing");
        };
        assert!(why.contains("none was deleted"), "{why}");
        assert!(why.contains("refs/heads/nnn"), "{why}");
        let name = "refs/heads/x".parse().expect("a name");
        summary.refused.push((name, "no".to_owned()));
        let MirrorOutcome::Failed { why } = judge(&summary) else {
            panic!("nothing is said of what was refused");
        };
        assert!(
            why.starts_with("1 refs were refused: refs/heads/x: no; "),
            "{why}"
        );
    }
}
