//! The replica's own log as a source of packs: entries contain small packs.
//!
//! A pack that could not be written when its entry was applied is written from the log; other
//! replicas are the second choice. The log keeps the entry until then: no snapshot is taken or
//! received while such a pack is missing.

use std::collections::BTreeSet;
use std::io;

use henge_cluster::StartedFrom;
use henge_state::{ShardView, State};
use henge_storage::objects::{ObjectError, PackFault, PackLengths, Presence};
use henge_types::{GroupId, InlinePack, LogIndex, NetworkId, PackId, RequestId, ShardRepoState};

use crate::damage::lengths_of;
use crate::effects::PackEffects;
use crate::parking::{Cause, Missing};
use crate::retiring::Retired;
use crate::staging::{KeepError, end_after_failed_sync};

/// A pack as an entry of the log names it.
#[derive(Debug)]
pub(crate) struct LoggedPack {
    /// Its bytes, if the entry contains them.
    pub inline: Option<InlinePack>,
    /// The lengths that the entry names.
    pub lengths: PackLengths,
    /// The request that the entry answers.
    pub request: Option<RequestId>,
}

/// Why a pack is missing whose bytes are not in the log, by the state of its files. Files with the
/// lengths of their entry are not known to be damaged: a pack by reference gets here while its log
/// is replayed. Without the entry the right lengths are unknown.
const fn cause_without_bytes(left: &Presence, lengths: Option<PackLengths>) -> Cause {
    match (left, lengths) {
        (Presence::Missing, _) | (Presence::Whole, Some(_)) => Cause::Elsewhere,
        (Presence::Whole, None) | (Presence::Damaged(_), _) => Cause::Damaged { in_log: None },
    }
}

/// The result of a search of the log for a pack.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum FromLog {
    /// The pack is in its network's store now.
    Installed,
    /// The log does not hold its bytes.
    NotThere,
}

impl PackEffects {
    /// The pack as the entry `named_at` of the group names it, with its bytes if the entry contains
    /// them, and the request that the entry answers. `None` when this node's log does not have the
    /// entry.
    ///
    /// # Errors
    /// When the log cannot be read.
    pub(crate) fn logged_pack(
        &self,
        group: GroupId,
        named_at: LogIndex,
        pack: &PackId,
    ) -> io::Result<Option<LoggedPack>> {
        let Some(log) = self.log() else {
            return Ok(None);
        };
        let proposal = log.proposal(group, named_at)?;
        let named = proposal.and_then(|proposal| {
            let mut packs = proposal.command.packs().iter();
            let named = packs.find(|named| named.pack == *pack)?;
            Some(LoggedPack {
                inline: named.inline.clone(),
                lengths: PackLengths {
                    pack: named.pack_bytes,
                    idx: named.idx_bytes,
                },
                request: proposal.request.as_ref().map(|request| request.id),
            })
        });
        // The trailer of a pack is its id.
        Ok(named.filter(|named| {
            let inline = named.inline.as_ref();
            inline.is_none_or(|inline| inline.pack.ends_with(pack.checksum().as_bytes()))
        }))
    }

    /// Writes a missing pack from the entry `named_at` of this node's log.
    ///
    /// # Errors
    /// When the log cannot be read or the pack cannot be written: it stays missing.
    pub(crate) fn install_from_log(
        &self,
        missing: &Missing,
        named_at: LogIndex,
    ) -> Result<FromLog, KeepError> {
        let logged = self.logged_pack(missing.group, named_at, &missing.pack)?;
        let lengths = logged.as_ref().map(|named| named.lengths);
        let Some(inline) = logged.and_then(|named| named.inline) else {
            let (network, pack) = (&missing.network, &missing.pack);
            let left = self.objects().presence(network, pack, lengths);
            let cause = cause_without_bytes(&left, lengths);
            self.parking().is_not_logged(missing, cause);
            return Ok(FromLog::NotThere);
        };
        let (network, pack) = (&missing.network, &missing.pack);
        let installed = self
            .objects()
            .install_pack(network, pack, &inline.pack, &inline.idx);
        installed.map_err(end_after_failed_sync)?;
        self.is_here(missing);
        Ok(FromLog::Installed)
    }

    /// Records that a missing pack was put in place.
    pub(crate) fn is_here(&self, missing: &Missing) {
        if !self.parking().arrived(missing) {
            // Replaced while it was being fetched or written.
            let retired = Retired {
                group: missing.group,
                by: None,
                after: self.reached(missing.group),
            };
            self.retiring().note(missing.network, missing.pack, retired);
        }
    }

    /// Installs the packs that replayed entries named and did not replace: from the entries, from
    /// the staged packs, or in place if the files exist. Each is parked until then.
    pub(crate) fn install_replayed(&self, packs: &[(Missing, LogIndex)]) {
        let mut failed = None;
        for (missing, named_at) in packs {
            let named_at = *named_at;
            self.parking()
                .park(*missing, Cause::NotWritten { named_at });
        }
        for (missing, named_at) in packs {
            match self.install_one_replayed(missing, *named_at) {
                Ok(FromLog::Installed) => {}
                Ok(FromLog::NotThere) => {
                    tracing::info!(group = %missing.group, network = %missing.network, pack = %missing.pack, "a pack named by an entry is not here: parked");
                }
                Err(error) => failed = Some((missing, error)),
            }
        }
        if let Some((missing, error)) = failed {
            tracing::error!(group = %missing.group, network = %missing.network, pack = %missing.pack, %error, "cannot install packs of the log: parked until they can be written");
        }
    }

    fn install_one_replayed(
        &self,
        missing: &Missing,
        named_at: LogIndex,
    ) -> Result<FromLog, KeepError> {
        if self.install_from_log(missing, named_at)? == FromLog::NotThere {
            // Named by reference: it was durable before it was proposed.
            let (network, pack) = (&missing.network, &missing.pack);
            let logged = self.logged_pack(missing.group, named_at, pack)?;
            let request = logged.and_then(|named| named.request);
            if !self.staging().promote(network, pack, request)? {
                return Ok(FromLog::NotThere);
            }
            self.is_here(missing);
        }
        Ok(FromLog::Installed)
    }

    /// Finds the pending work in the state of a starting replica: parks every network that lacks a
    /// pack of its manifest, and records the networks of dropped repositories. Its sources are the
    /// state and the log; no list of missing packs is kept on disk.
    pub(crate) fn scan(&self, group: GroupId, state: &State, from: StartedFrom) {
        let view = ShardView::new(state);
        let dropped = |repo: &henge_types::ShardRepo| repo.state == ShardRepoState::Deleted;
        for repo in view.repos().filter(dropped) {
            self.bereave(group, repo.network, repo.updated_at);
        }
        for network in view.networks() {
            let mut manifest = BTreeSet::new();
            for record in view.packs(&network) {
                let (pack, named_at) = (record.pack, record.named_at);
                manifest.insert(pack);
                let missing = Missing {
                    group,
                    network,
                    pack,
                };
                let lengths = Some(lengths_of(&record));
                let found = self.objects().presence(&network, &pack, lengths);
                let cause = match found {
                    // An earlier process may have stopped before the pack was durable.
                    Presence::Whole if named_at > from.snapshot => {
                        self.objects().presume_dirty(&network, &pack);
                        continue;
                    }
                    Presence::Whole => continue,
                    Presence::Missing | Presence::Damaged(_)
                        if self.parking().cause(&missing).is_some() =>
                    {
                        continue;
                    }
                    // The log may hold the only copy. Below the snapshot, some replica held the
                    // pack durably when the snapshot was taken.
                    Presence::Missing | Presence::Damaged(_) if named_at > from.snapshot => {
                        Cause::NotWritten { named_at }
                    }
                    Presence::Missing => Cause::Elsewhere,
                    Presence::Damaged(_) => Cause::Damaged { in_log: None },
                };
                match found {
                    Presence::Damaged(fault) => {
                        tracing::error!(%group, %network, %pack, %fault, "a pack is damaged and will be written or fetched again");
                    }
                    Presence::Whole | Presence::Missing => {
                        tracing::warn!(%group, %network, %pack, "a pack is missing here and will be fetched");
                    }
                }
                self.parking().park(missing, cause);
            }
            self.note_leftovers(group, network, &manifest);
        }
    }

    /// Makes the local packs of a received snapshot durable, and parks the others. A file under the
    /// name of a pack that this process did not install is left from a crash: it is read completely
    /// first. An unreadable pack is parked: one bad block must not end the group. A failed sync
    /// ends the process.
    ///
    /// # Errors
    /// When a pack cannot be flushed for a reason that may be transient: this is no damage, and the
    /// pack is still to be flushed.
    pub(crate) fn settle(
        &self,
        group: GroupId,
        applied: LogIndex,
        state: &State,
    ) -> io::Result<()> {
        let view = ShardView::new(state);
        for network in view.networks() {
            for record in view
                .packs(&network)
                .filter(|record| record.named_at > applied)
            {
                self.settle_left(group, network, record.pack);
            }
            let synced = self.objects().sync_dirty([&network]);
            if let Err(error) = synced.map_err(end_after_failed_sync) {
                tracing::warn!(%group, %network, %error, "packs cannot be made durable together: one by one");
                self.settle_each(group, network)?;
            }
        }
        Ok(())
    }

    fn settle_left(&self, group: GroupId, network: NetworkId, pack: PackId) {
        match self.objects().presence(&network, &pack, None) {
            // The verification below returns the cause.
            Presence::Whole | Presence::Damaged(PackFault::Unreadable) => {}
            Presence::Missing | Presence::Damaged(_) => return,
        }
        let missing = Missing {
            group,
            network,
            pack,
        };
        match self.objects().verify_pack(&network, &pack) {
            Ok(()) => self.objects().presume_dirty(&network, &pack),
            Err(error @ (ObjectError::BrokenPack { .. } | ObjectError::MissingPack(_))) => {
                tracing::warn!(%group, %network, %pack, %error, "a pack that a crash left is fetched again");
                self.parking().park(missing, Cause::Elsewhere);
            }
            // The pack has nothing to flush: it is fetched. A file that cannot be opened does not
            // block the group's snapshot.
            Err(error) => self.park_unreadable(missing, &error),
        }
    }

    /// Makes the packs of a network durable, and parks those that are damaged or gone.
    fn settle_each(&self, group: GroupId, network: NetworkId) -> io::Result<()> {
        for pack in self.objects().dirty_packs(&network) {
            let synced = self.objects().sync_packs(&network, &[pack]);
            if let Err(error) = synced.map_err(end_after_failed_sync) {
                if !error.is_damage() {
                    return Err(io::Error::other(error));
                }
                let missing = Missing {
                    group,
                    network,
                    pack,
                };
                self.park_unreadable(missing, &error);
                // Otherwise every later sync of the network would fail. Its replacement is durable
                // on arrival.
                self.objects().forget_dirty(&network, &pack);
            }
        }
        Ok(())
    }

    fn park_unreadable(&self, missing: Missing, error: &ObjectError) {
        let Missing {
            group,
            network,
            pack,
        } = missing;
        tracing::error!(%group, %network, %pack, %error, "a pack that a received snapshot names cannot be read: reads are passed on and it is fetched again");
        self.parking()
            .park(missing, Cause::Damaged { in_log: None });
    }
}

#[cfg(test)]
pub(crate) mod tests;
