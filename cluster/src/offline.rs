//! The state of a stopped node, read from its log, its snapshots and its kv: to export everything
//! from it, with or without the other nodes.
//!
//! The directories must be copies: opening a log and a kv writes to them. Every entry in the log is
//! applied, also one that is not known to be committed. It was acknowledged if a majority has it,
//! and one node alone cannot find that out. Entries that a later leader replaced were truncated
//! from the log then.

use std::collections::BTreeMap;
use std::io;
use std::path::Path;
use std::sync::Arc;

use henge_runtime::Clock;
use henge_state::State;
use henge_storage::disk::Disk;
use henge_storage::kv::{Kv, SledKv, Trust};
use henge_storage::snapshots::SnapshotStore;
use henge_storage::wal::{self, Wal, WalConfig, WalError};
use henge_types::{Command, GroupId, PackRef, Proposal, ShardCommand, limits};
use openraft::EntryPayload;
use openraft::entry::RaftEntry;

use crate::log_store::slot;
use crate::machine::header;
use crate::raft::{self, Entry, Position};
use crate::snapshot_file;

/// How often a log is truncated before damage until it is given up: each time it is shorter.
const CUTS_MAX: usize = 64;

/// The directories to read.
#[derive(Debug, Clone, Copy)]
pub struct OfflineDirs<'a> {
    /// The disk with the copy of the log.
    pub disk: &'a Arc<dyn Disk>,
    /// A copy of the write-ahead log.
    pub wal: &'a Path,
    /// A copy of the kv.
    pub kv: &'a Path,
    /// A copy of the snapshots.
    pub snapshots: &'a Path,
}

/// The last state of a group on the node.
#[derive(Debug, Clone)]
pub struct OfflineGroup {
    /// Its state.
    pub state: State,
    /// The last entry in the state.
    pub applied: u64,
    /// The number of applied entries that are not known to be committed.
    pub uncommitted: u64,
}

/// The extent of the log that was read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum LogExtent {
    /// All of it.
    #[default]
    Whole,
    /// The part before damage, or nothing: the last entries of any group may be missing.
    Beginning,
}

/// All readable state, and a list of the unreadable parts.
#[derive(Debug, Default)]
pub struct Offline {
    /// By group.
    pub groups: BTreeMap<GroupId, OfflineGroup>,
    /// The extent of the log in them.
    pub log: LogExtent,
    /// The unreadable parts, one sentence each.
    pub missing: Vec<String>,
}

struct Sources {
    wal: Option<Wal>,
    kv: Option<SledKv>,
    snapshots: SnapshotStore,
}

/// Reads all possible groups (0 to [`limits::SHARDS_MAX`]) and any other group in the log. `inline`
/// is called with every small pack that is inline in an entry of the log. A damaged log is read up
/// to the damage. Blocking.
///
/// # Errors
/// When the snapshots' directory cannot be read, or `inline` fails: all other failures are in
/// [`Offline::missing`].
pub fn read(
    dirs: OfflineDirs<'_>,
    clock: &Arc<dyn Clock>,
    inline: &mut dyn FnMut(&PackRef) -> io::Result<()>,
) -> io::Result<Offline> {
    let mut offline = Offline::default();
    let sources = open(dirs, clock, &mut offline)?;
    let mut groups: Vec<GroupId> = (0..=limits::SHARDS_MAX).map(GroupId::new).collect();
    if let Some(wal) = &sources.wal {
        groups.extend(wal.recovered_groups());
        groups.sort_unstable();
        groups.dedup();
    }
    for group in groups {
        match sources.group(group, inline)? {
            Ok(Some(read)) => {
                offline.groups.insert(group, read);
            }
            Ok(None) => {}
            Err(reason) => offline.missing.push(format!("group {group}: {reason}")),
        }
    }
    if let Some(wal) = &sources.wal
        && let Err(error) = wal.close()
    {
        tracing::debug!(%error, "the copy of the log was not closed cleanly");
    }
    Ok(offline)
}

fn open(
    dirs: OfflineDirs<'_>,
    clock: &Arc<dyn Clock>,
    offline: &mut Offline,
) -> io::Result<Sources> {
    let config = WalConfig {
        // The node's own cap may have been higher than the default: a copy is only read.
        bytes_max: u64::MAX / 2,
        ..WalConfig::new(dirs.wal.to_owned())
    };
    // A log records the identity of its files, and refuses a copy; this copy serves no cluster.
    let disk = dirs.disk;
    let none = wal::is_empty(disk.as_ref(), dirs.wal)?;
    if none {
        let text = "there is no log: what was only in it is missing";
        offline.missing.push(text.to_owned());
        offline.log = LogExtent::Beginning;
    }
    let adopted = wal::adopt(disk.as_ref(), dirs.wal).map(|_| ());
    let opened = adopted.and_then(|()| open_log((disk, clock), &config, offline));
    let wal = match opened {
        Ok(wal) => Some(wal),
        Err(error) => {
            let text = format!("the log cannot be read, what is only in it is missing: {error}");
            offline.missing.push(text);
            offline.log = LogExtent::Beginning;
            None
        }
    };
    let kv = match SledKv::open(dirs.kv) {
        Ok((kv, Trust::Clean)) => Some(kv),
        // The node was not shut down cleanly: snapshots and log hold the whole state.
        Ok((_, Trust::Wiped { .. })) => None,
        Err(error) => {
            tracing::warn!(%error, "the kv cannot be read: snapshots and log are used");
            None
        }
    };
    Ok(Sources {
        wal,
        kv,
        snapshots: SnapshotStore::open(dirs.snapshots, snapshot_file::index_of)
            .map_err(io::Error::other)?,
    })
}

/// Opens the log; a log that lost records in its middle is truncated before them.
fn open_log(
    (disk, clock): (&Arc<dyn Disk>, &Arc<dyn Clock>),
    config: &WalConfig,
    offline: &mut Offline,
) -> Result<Wal, WalError> {
    let mut cuts = 0;
    loop {
        let opened = Wal::open(Arc::clone(disk), Arc::clone(clock), config.clone());
        let Err(WalError::LostAcknowledged { segment, offset }) = opened else {
            return opened;
        };
        if cuts == CUTS_MAX || !wal::cut(disk.as_ref(), &config.dir, segment, offset)? {
            return opened;
        }
        cuts += 1;
        offline.log = LogExtent::Beginning;
        offline.missing.push(format!(
            "the log is damaged at offset {offset} of segment {segment}: it is read up to there, what came later is missing"
        ));
    }
}

impl Sources {
    /// The group's newest state; the outer error is that of `inline`.
    fn group(
        &self,
        group: GroupId,
        inline: &mut dyn FnMut(&PackRef) -> io::Result<()>,
    ) -> io::Result<Result<Option<OfflineGroup>, String>> {
        let base = self.base(group);
        let (mut state, mut applied) = base.state.unwrap_or_else(|| (State::empty(), 0));
        let known = applied;
        let Some(wal) = &self.wal else {
            return Ok(
                match (found(state, applied, 0), base.unreadable.as_slice()) {
                    (None, [_, ..]) => Err(base.unreadable.join("; ")),
                    (found, _) => Ok(found),
                },
            );
        };
        let log = wal.group(group);
        let committed = log.committed.as_deref().map(raft::decode_log_id);
        let committed = committed.and_then(Result::ok).map_or(0, |id| id.index());
        let purged = log.purged.as_ref().map_or(0, |purged| purged.index);
        let first = log.first_index.unwrap_or(0);
        let last = log.last_index.unwrap_or(0);
        if purged > slot(applied) {
            let mut reason = format!(
                "the log begins behind entry {}, and no snapshot or kv reaches it: entries are missing",
                purged.saturating_sub(1)
            );
            for unreadable in &base.unreadable {
                reason.push_str("; ");
                reason.push_str(unreadable);
            }
            return Ok(Err(reason));
        }
        let mut next = first.max(1);
        while first > 0 && next <= last {
            let records = wal.read(group, next..=last, limits::APPEND_BYTES_MAX);
            let records = match records {
                Ok(records) if records.is_empty() => break,
                Ok(records) => records,
                Err(error) => return Ok(Err(format!("entry {} of its log: {error}", next - 1))),
            };
            for record in &records {
                let entry = match raft::decode_entry(&record.payload) {
                    Ok(entry) => entry,
                    Err(error) => {
                        return Ok(Err(format!(
                            "entry {} of its log: {error}",
                            record.index - 1
                        )));
                    }
                };
                let index = entry.log_id().index();
                if let Err(reason) = one(group, &mut state, entry, index > applied, inline)? {
                    return Ok(Err(reason));
                }
                applied = applied.max(index);
                next = record.index + 1;
            }
        }
        let uncommitted = applied.saturating_sub(committed.max(known));
        Ok(Ok(found(state, applied, uncommitted)))
    }

    /// The kv's state after a clean shutdown or the newest snapshot: whichever is newer. An
    /// unreadable one does not block the other.
    fn base(&self, group: GroupId) -> Base {
        let mut base = newest([self.snapshot(group), self.image(group)]);
        if let Some(path) = self.snapshots.damaged(group) {
            let name = path.file_name().unwrap_or_default().display();
            let text =
                format!("its snapshot {name} is damaged: the bytes do not match their checksum");
            base.unreadable.push(text);
        }
        base
    }

    fn snapshot(&self, group: GroupId) -> Result<Option<(State, u64)>, String> {
        let latest = self.snapshots.latest(group).map_err(|e| e.to_string())?;
        let Some(file) = latest else { return Ok(None) };
        let position = Position::decode(&file.meta).map_err(|error| error.to_string())?;
        let state = snapshot_file::load(&self.snapshots, &file);
        let state = state.map_err(|error| format!("its snapshot cannot be read: {error}"))?;
        Ok(Some((state, position.index())))
    }

    fn image(&self, group: GroupId) -> Result<Option<(State, u64)>, String> {
        let Some(kv) = &self.kv else { return Ok(None) };
        let image = kv.load(group);
        let image = image.map_err(|error| format!("its kv cannot be read: {error}"))?;
        let Some(image) = image else { return Ok(None) };
        let position = Position::decode(&image.meta).map_err(|error| error.to_string())?;
        Ok(Some((State::from_pairs(image.pairs), position.index())))
    }
}

/// The state that the log is applied to.
#[derive(Debug, Default)]
struct Base {
    /// The newest state, and its last entry.
    state: Option<(State, u64)>,
    /// The errors of the unreadable ones.
    unreadable: Vec<String>,
}

/// The newest of the readable states, the last one of equals.
fn newest(sources: impl IntoIterator<Item = Result<Option<(State, u64)>, String>>) -> Base {
    let mut base = Base::default();
    for source in sources {
        let checked = source.and_then(|found| {
            let Some((state, applied)) = found else {
                return Ok(None);
            };
            henge_state::check_version(&state).map_err(|error| error.to_string())?;
            Ok(Some((state, applied)))
        });
        match checked {
            Ok(Some(found)) if base.state.as_ref().is_none_or(|(_, at)| found.1 >= *at) => {
                base.state = Some(found);
            }
            Ok(_) => {}
            Err(reason) => base.unreadable.push(reason),
        }
    }
    base
}

fn found(state: State, applied: u64, uncommitted: u64) -> Option<OfflineGroup> {
    (applied > 0).then_some(OfflineGroup {
        state,
        applied,
        uncommitted,
    })
}

/// Passes the small packs of an entry to `inline`, and applies the entry if it `is_new`.
fn one(
    group: GroupId,
    state: &mut State,
    entry: Entry,
    is_new: bool,
    inline: &mut dyn FnMut(&PackRef) -> io::Result<()>,
) -> io::Result<Result<(), String>> {
    let id = entry.log_id();
    let EntryPayload::Normal(proposed) = entry.payload else {
        return Ok(Ok(()));
    };
    let proposal = match Proposal::decode(&proposed.0) {
        Ok(proposal) => proposal,
        Err(error) => return Ok(Err(format!("entry {} of its log: {error}", id.index()))),
    };
    for pack in packs(&proposal.command) {
        if pack.inline.is_some() {
            inline(pack)?;
        }
    }
    if is_new {
        let header = header(group, &id, &proposal);
        let outcome = henge_state::apply(state, &header, &proposal.command);
        state.commit(&outcome.writes);
    }
    Ok(Ok(()))
}

/// The packs that a command adds.
fn packs(command: &Command) -> Vec<&PackRef> {
    let Command::Shard(command) = command else {
        return Vec::new();
    };
    match command {
        ShardCommand::UpdateRefs(push) => push.packs.iter().collect(),
        ShardCommand::UpdateSignedRefs(signed) => signed.push.packs.iter().collect(),
        ShardCommand::ReplacePacks(replaced) => vec![&replaced.new],
        ShardCommand::PrunePacks(pruned) => pruned.new.iter().collect(),
        ShardCommand::CreateRepo { .. }
        | ShardCommand::DropRepo { .. }
        | ShardCommand::SetHead { .. }
        | ShardCommand::MarkUnreachable { .. }
        | ShardCommand::ForkRepo(_)
        | ShardCommand::SetLimits { .. }
        | ShardCommand::SetPushRules { .. }
        | ShardCommand::ConfigureRepo(_)
        | ShardCommand::ProtectRefs { .. }
        | ShardCommand::UnprotectRefs { .. }
        | ShardCommand::SetMirror(_)
        | ShardCommand::ChangeMirror(_)
        | ShardCommand::BeginMirror(_)
        | ShardCommand::RecordMirror(_)
        | ShardCommand::SetNonceSeed(_)
        | ShardCommand::EditMirror(_) => Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An unreadable snapshot cost the group, although the kv had its whole state, and vice versa.
    #[test]
    fn what_cannot_be_read_is_in_nobodys_way() {
        let state = || State::empty();
        let unreadable = || Err("cannot be read".to_owned());
        let at = |base: &Base| base.state.as_ref().map(|(_, at)| *at);
        let base = newest([unreadable(), Ok(Some((state(), 7)))]);
        assert_eq!((at(&base), base.unreadable.len()), (Some(7), 1));
        let base = newest([Ok(Some((state(), 5))), unreadable()]);
        assert_eq!((at(&base), base.unreadable.len()), (Some(5), 1));
        let base = newest([Ok(Some((state(), 5))), Ok(Some((state(), 3)))]);
        assert_eq!((at(&base), base.unreadable.len()), (Some(5), 0));
        let base = newest([Ok(None), unreadable()]);
        assert_eq!((at(&base), base.unreadable.len()), (None, 1));
    }
}
