//! The starts of this node and of its peers: an old copy of a data directory is refused before Raft
//! sees it.
//!
//! Every call carries the caller's claim ([`StartClaim`]) and the last start of the callee known to
//! the caller ([`KnownStart`]). The callee refuses a caller whose claim does not follow the known
//! starts of that node. If the callee itself does not follow the start known to the caller, it has
//! been replaced: it ends. A node knows the starts from the meta group's state, and from received
//! calls until a start is registered there.
//!
//! - `file`: the record in the data directory.
//! - `registration`: the registration of this process's start, and the members' responses to it.
//! - `headers`: the encoding of claims in calls.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use henge_state::MetaView;
use henge_storage::disk::Disk;
use henge_storage::wal;
use henge_types::command::VERSION_STARTS_AND_TIME;
use henge_types::{
    GroupId, Incarnation, KnownStart, NodeId, RegisteredStart, StartClaim, StartId, StartRecord,
};
use thiserror::Error;
use tokio::sync::watch;

mod file;
pub(crate) mod headers;
pub(crate) mod registration;

use file::{Place, StartsFile};

/// The reason why a call is refused for its start.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum StartRefusal {
    /// The caller's data directory is older than a start of the node that is known here.
    #[error(
        "node {node} has started later than this data directory knows (start {known}): it is an old copy, which lacks \
         votes and pushes that the node has acknowledged since. Start the node with its newest data directory; where there is \
         none, leave the node stopped: the other nodes have everything that was acknowledged"
    )]
    LaterStart {
        /// The node.
        node: NodeId,
        /// The later start.
        known: StartId,
    },
    /// The caller shows less of a log than it has acknowledged.
    #[error(
        "node {node} has acknowledged entry {acknowledged} of group {group} and shows the log only up to before \
         {shown}: its data directory is an old copy, or its disk lost what it had flushed. Start the node with its newest data \
         directory; where there is none, leave the node stopped: the other nodes have everything that was acknowledged"
    )]
    LogWentBack {
        /// The node.
        node: NodeId,
        /// The group.
        group: GroupId,
        /// The acknowledged entry.
        acknowledged: u64,
        /// An entry that it lacks.
        shown: u64,
    },
    /// The call carries no start although every member's release requires one.
    #[error(
        "the call carries no start: node {0} runs an older release than the cluster, upgrade it"
    )]
    Missing(NodeId),
    /// This process is itself refused, and ends.
    #[error("this node's start is refused by another member: it ends")]
    SelfRefused,
    /// This process runs on a moved data directory that is not confirmed by every member.
    #[error("this node was started with --moved, and not every member has answered for it yet")]
    Moved,
}

/// How long an old copy is shown after its last refusal, if the newest start was heard as well: a
/// running copy is refused every second.
const OLD_COPY_SHOWN: Duration = Duration::from_secs(60);

/// Whether this process may serve clients.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Standing {
    /// Its start is not registered yet; the reason.
    Waiting(String),
    /// Its start is registered.
    Registered,
}

#[derive(Debug, Default)]
struct Peer {
    registered: Option<StartRecord>,
    noted: Option<(Incarnation, StartClaim)>,
    /// A start that was refused as older.
    old_copy: Option<OldCopy>,
    /// A start whose log lacks acknowledged entries.
    went_back: Option<(Option<StartId>, StartRefusal)>,
}

/// The refusal of an older start than the known one of a peer.
#[derive(Debug)]
struct OldCopy {
    refusal: StartRefusal,
    /// The known start was heard since.
    is_newest_heard: bool,
    /// When the refusal was first listed after the last one.
    shown_since: Option<Instant>,
}

#[derive(Debug)]
struct State {
    file: StartsFile,
    claim: StartClaim,
    incarnation: Incarnation,
    peers: BTreeMap<NodeId, Peer>,
    /// The meta group is at the level from which every call carries a start.
    start_required: bool,
}

#[derive(Debug)]
struct Inner {
    node: NodeId,
    disk: Arc<dyn Disk>,
    data_dir: PathBuf,
    state: Mutex<State>,
    standing: watch::Sender<Standing>,
    moved: watch::Sender<bool>,
    ended: watch::Sender<Option<String>>,
}

/// The starts that this process knows, including its own; clones share them.
#[derive(Debug, Clone)]
pub struct Starts(Arc<Inner>);

/// Takes over a data directory that was copied to another place: the log is marked with its new
/// files, and the node neither votes nor serves until every member has confirmed it.
///
/// # Errors
/// When the directory cannot be read or written.
pub fn adopt_moved(disk: &dyn Disk, data_dir: &Path) -> io::Result<()> {
    let mut file = StartsFile::read(disk, data_dir)?;
    file.place = Place::Moved;
    // The mark comes first: an adopted log without it would be served.
    file.write(disk, data_dir)?;
    let log = data_dir.join("wal");
    if disk.id_of(&log)?.is_some() {
        wal::adopt(disk, &log).map_err(io::Error::other)?;
    }
    Ok(())
}

impl Starts {
    /// Draws the start of this process and writes it to the data directory on `disk`, durably.
    /// Blocking.
    ///
    /// # Errors
    /// When the directory's record of its starts cannot be read or written.
    pub fn draw(
        node: NodeId,
        incarnation: Incarnation,
        (disk, data_dir): (Arc<dyn Disk>, PathBuf),
        start: StartId,
    ) -> io::Result<Self> {
        let mut file = StartsFile::read(disk.as_ref(), &data_dir)?;
        file.check_log(disk.as_ref(), &data_dir)?;
        let claim = file.draw(start);
        file.write(disk.as_ref(), &data_dir)?;
        let moved = file.place == Place::Moved;
        let reason = "this node's start is not registered yet".to_owned();
        Ok(Self(Arc::new(Inner {
            node,
            disk,
            data_dir,
            state: Mutex::new(State {
                file,
                claim,
                incarnation,
                peers: BTreeMap::new(),
                start_required: false,
            }),
            standing: watch::Sender::new(Standing::Waiting(reason)),
            moved: watch::Sender::new(moved),
            ended: watch::Sender::new(None),
        })))
    }

    /// The claim of this process.
    pub(crate) fn claim(&self) -> StartClaim {
        self.lock().claim.clone()
    }

    /// The last start of a peer that is known here.
    pub(crate) fn known(&self, node: NodeId) -> Option<KnownStart> {
        let state = self.lock();
        let peer = state.peers.get(&node)?;
        let registered: Option<KnownStart> = peer.registered.map(|record| record.registered.into());
        let noted = peer.noted.as_ref().map(|(_, claim)| claim);
        let noted = noted.filter(|claim| registered.is_none_or(|known| claim.follows(&known)));
        noted.map(StartClaim::known).or(registered)
    }

    /// Whether a call is admitted: the caller follows its starts known here, and this process
    /// follows its own start known to the caller. Records the caller's start.
    ///
    /// # Errors
    /// With the reason of the refusal.
    pub(crate) fn admit(
        &self,
        node: NodeId,
        incarnation: Incarnation,
        claim: Option<&StartClaim>,
        known_of_this: Option<&KnownStart>,
    ) -> Result<(), StartRefusal> {
        if self.0.ended.borrow().is_some() {
            return Err(StartRefusal::SelfRefused);
        }
        let mut state = self.lock();
        state.check(node, incarnation, claim)?;
        if let Some(known) = known_of_this
            && node != self.0.node
            && !state.claim.follows(known)
        {
            drop(state);
            let refusal = StartRefusal::LaterStart {
                node: self.0.node,
                known: known.start,
            };
            self.end(&refusal.to_string());
            return Err(StartRefusal::SelfRefused);
        }
        Ok(())
    }

    /// Whether this process may vote and take entries.
    ///
    /// # Errors
    /// While it may not.
    pub(crate) fn may_take_part(&self) -> Result<(), StartRefusal> {
        if *self.0.moved.borrow() {
            return Err(StartRefusal::Moved);
        }
        match &*self.0.ended.borrow() {
            Some(_) => Err(StartRefusal::SelfRefused),
            None => Ok(()),
        }
    }

    /// Whether this process was started with `--moved` and is not confirmed by every member.
    pub(crate) fn moved(&self) -> watch::Receiver<bool> {
        self.0.moved.subscribe()
    }

    /// A follower shows less of a group's log than it acknowledged: its start is refused from here
    /// on.
    pub(crate) fn went_back(&self, node: NodeId, refusal: &StartRefusal) {
        let mut state = self.lock();
        let peer = state.peers.entry(node).or_default();
        let start = peer.noted.as_ref().map(|(_, claim)| claim.start);
        if peer.went_back.is_none() {
            tracing::error!(%node, "{refusal}");
        }
        peer.went_back = Some((start, refusal.clone()));
    }

    /// The reason why a peer's start is refused, if it is.
    pub(crate) fn refused(&self, node: NodeId) -> Option<StartRefusal> {
        let state = self.lock();
        let peer = state.peers.get(&node)?;
        peer.went_back.as_ref().map(|(_, refusal)| refusal.clone())
    }

    /// The reason why a peer gets no entries, if it gets none. A refused peer whose release names
    /// no starts still gets them: only its log distinguishes its next start from this one.
    pub(crate) fn refused_entries(&self, node: NodeId) -> Option<StartRefusal> {
        let state = self.lock();
        let (start, refusal) = state.peers.get(&node)?.went_back.as_ref()?;
        start.is_some().then(|| refusal.clone())
    }

    /// A refused peer has shown all its acknowledged entries of the group that it was refused for.
    /// A peer that names its start stays refused until its next start: it may hold less of other
    /// groups.
    pub(crate) fn shows_all(&self, node: NodeId, of: GroupId) {
        let mut state = self.lock();
        let Some(peer) = state.peers.get_mut(&node) else {
            return;
        };
        if let Some((None, StartRefusal::LogWentBack { group, .. })) = &peer.went_back
            && *group == of
        {
            tracing::info!(%node, %group, "a node shows again what it had acknowledged");
            peer.went_back = None;
        }
    }

    /// The starts that are refused now, by node, with the reasons.
    pub(crate) fn refusals(&self, now: Instant) -> Vec<(NodeId, StartRefusal)> {
        let mut state = self.lock();
        let of_peer = |(node, peer): (&NodeId, &mut Peer)| -> Vec<_> {
            let is_over = |copy: &mut OldCopy| {
                let since = *copy.shown_since.get_or_insert(now);
                copy.is_newest_heard && now.saturating_duration_since(since) >= OLD_COPY_SHOWN
            };
            if peer.old_copy.as_mut().is_some_and(is_over) {
                peer.old_copy = None;
            }
            let old_copy = peer.old_copy.as_ref().map(|copy| &copy.refusal);
            let went_back = peer.went_back.as_ref().map(|(_, refusal)| refusal);
            let all = [old_copy, went_back].into_iter().flatten();
            all.map(|refusal| (*node, refusal.clone())).collect()
        };
        state.peers.iter_mut().flat_map(of_peer).collect()
    }

    /// Takes over the starts in the meta group's state.
    pub(crate) fn follow<V: henge_state::View>(&self, meta: MetaView<'_, V>, level: u32) {
        let mut state = self.lock();
        state.start_required = level >= VERSION_STARTS_AND_TIME;
        for (node, record) in meta.starts() {
            state.peers.entry(node).or_default().registered = Some(record);
        }
        let own = state.peers.get(&self.0.node).and_then(|own| own.registered);
        let own = own.filter(|record| record.incarnation == state.incarnation);
        if let Some(record) = own
            && !state.claim.follows(&record.registered.into())
        {
            drop(state);
            let refusal = StartRefusal::LaterStart {
                node: self.0.node,
                known: record.registered.start,
            };
            self.end(&refusal.to_string());
        }
    }

    /// This process's registration in the meta group's state, once it is there.
    pub(crate) fn registration(&self) -> Option<RegisteredStart> {
        let state = self.lock();
        let record = state.peers.get(&self.0.node)?.registered?;
        let own =
            record.incarnation == state.incarnation && record.registered.start == state.claim.start;
        own.then_some(record.registered)
    }

    /// Records in the data directory that this process's start is registered. Blocking.
    pub(crate) fn write_registration(&self, registered: RegisteredStart) -> io::Result<()> {
        let file = {
            let mut state = self.lock();
            state.file.register(registered);
            state.claim = StartClaim {
                start: registered.start,
                last: Some(registered),
                drawn: Vec::new(),
            };
            state.file.clone()
        };
        file.write(self.0.disk.as_ref(), &self.0.data_dir)
    }

    /// Records in the data directory that every member has confirmed it. Blocking.
    pub(crate) fn write_answered_for(&self) -> io::Result<()> {
        let file = {
            let mut state = self.lock();
            state.file.place = Place::Known;
            state.file.clone()
        };
        file.write(self.0.disk.as_ref(), &self.0.data_dir)?;
        self.0.moved.send_replace(false);
        Ok(())
    }

    /// Sets the standing of this process. A process that serves continues to serve: below the
    /// command's release level the members' notes registered it, and it registers once more when
    /// the meta group is at that level.
    pub(crate) fn set_standing(&self, standing: Standing) {
        self.0.standing.send_if_modified(|before| {
            let changed = *before != standing && *before != Standing::Registered;
            if changed {
                *before = standing;
            }
            changed
        });
    }

    /// Whether this process may serve clients.
    ///
    /// # Errors
    /// With the reason why it may not.
    pub(crate) fn serving(&self) -> Result<(), String> {
        if *self.0.moved.borrow()
            && let Standing::Registered = &*self.0.standing.borrow()
        {
            return Err(StartRefusal::Moved.to_string());
        }
        if let Some(reason) = &*self.0.ended.borrow() {
            return Err(reason.clone());
        }
        match &*self.0.standing.borrow() {
            Standing::Waiting(reason) => Err(reason.clone()),
            Standing::Registered => Ok(()),
        }
    }

    /// Ends this process for a reason. The first reason stays.
    pub(crate) fn end(&self, reason: &str) {
        self.0.ended.send_if_modified(|ended| {
            if ended.is_some() {
                return false;
            }
            tracing::error!("this node ends: {reason}");
            *ended = Some(reason.to_owned());
            true
        });
    }

    /// Handles the status of a call of this process: a refused start ends it.
    pub(crate) fn heard(&self, status: &tonic::Status) {
        if let Some(reason) = headers::refused(status) {
            self.end(reason);
        }
    }

    /// Waits until this process has to end. Returns the reason.
    pub(crate) async fn ended(&self) -> String {
        let mut receiver = self.0.ended.subscribe();
        loop {
            if let Some(reason) = receiver.borrow_and_update().clone() {
                return reason;
            }
            if receiver.changed().await.is_err() {
                return std::future::pending().await;
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// Whether a caller follows its starts known here; its start is recorded then.
    fn check(
        &mut self,
        node: NodeId,
        incarnation: Incarnation,
        claim: Option<&StartClaim>,
    ) -> Result<(), StartRefusal> {
        let Some(claim) = claim else {
            return match self.start_required {
                true => Err(StartRefusal::Missing(node)),
                false => Ok(()),
            };
        };
        let peer = self.peers.entry(node).or_default();
        let registered = peer
            .registered
            .filter(|record| record.incarnation == incarnation)
            .map(|record| record.registered.into());
        let noted = peer.noted.as_ref();
        let noted = noted.filter(|(noted, _)| *noted == incarnation);
        let noted = noted.map(|(_, claim)| claim.known());
        let later = |known: &KnownStart| !claim.follows(known);
        if let Some(known) = [registered, noted].into_iter().flatten().find(later) {
            let refusal = StartRefusal::LaterStart {
                node,
                known: known.start,
            };
            peer.old_copy = Some(OldCopy {
                refusal: refusal.clone(),
                is_newest_heard: false,
                shown_since: None,
            });
            return Err(refusal);
        }
        if let Some((start, refusal)) = &peer.went_back {
            if *start == Some(claim.start) {
                return Err(refusal.clone());
            }
            peer.went_back = None;
        }
        if peer.noted.as_ref().is_none_or(|(_, noted)| noted != claim) {
            peer.noted = Some((incarnation, claim.clone()));
            peer.old_copy = None;
        }
        if let Some(copy) = &mut peer.old_copy {
            copy.is_newest_heard = true;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
