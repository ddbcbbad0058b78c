//! Reclamation of segments: the oldest is freed once it has no live entries. Live entries are
//! rewritten at the tail where that gains space, and their group is requested to take a snapshot;
//! `room` decides.

use std::io;
use std::sync::Arc;

use henge_types::GroupId;

use super::Shared;
use super::frame::Kind;
use super::room::Plan;
use super::writer::Writer;

/// Payload rewritten in one turn: appends wait for it.
const MOVE_BYTES_PER_TURN: usize = 1024 * 1024;
/// The same while only the reserve is left: appends of entries are refused then anyway.
const MOVE_BYTES_PER_TURN_SHORT: usize = 4 * 1024 * 1024;

impl Writer {
    /// Examines the oldest segment; adds the records that free it to the batch.
    pub(super) fn reclaim(&mut self) -> io::Result<()> {
        let shared = Arc::clone(&self.shared);
        let (oldest, needed_from, plan, short) = {
            let table = shared.table();
            let room = shared.room(&table);
            let needed_from = table.needed_from();
            (table.oldest(), needed_from, room.plan(), room.is_short())
        };
        if let Some(below) = needed_from.filter(|below| *below > self.oldest) {
            self.push(Kind::Oldest, GroupId::META, u64::from(below), &[])?;
            self.oldest = below;
            self.free_when_durable(below);
        }
        let bytes_max = match short {
            true => MOVE_BYTES_PER_TURN_SHORT,
            false => MOVE_BYTES_PER_TURN,
        };
        let asked = match (oldest, plan) {
            (None, _) | (_, Plan::Wait) => None,
            (Some((generation, _)), Plan::Ask) => self.largest_in(generation),
            (Some((generation, _)), Plan::Move) => self.move_some(generation, bytes_max)?,
            (Some((generation, _)), Plan::MoveAndAsk) => {
                self.move_some(generation, bytes_max)?;
                self.largest_in(generation)
            }
        };
        self.shared.pressure.send_if_modified(|pressure| {
            let changed = *pressure != asked;
            *pressure = asked;
            changed
        });
        Ok(())
    }

    /// The group with the most live bytes in a segment.
    fn largest_in(&self, generation: u32) -> Option<GroupId> {
        let groups = self.shared.table().groups_in(generation);
        let largest = groups.into_iter().max_by_key(|(_, bytes)| *bytes);
        largest.map(|(group, _)| group)
    }

    /// Rewrites some live entries of a segment. Returns a group whose entries cannot be read: only
    /// its snapshot frees the segment.
    fn move_some(&mut self, generation: u32, bytes_max: usize) -> io::Result<Option<GroupId>> {
        let (groups, file) = {
            let table = self.shared.table();
            (table.groups_in(generation), table.file(generation))
        };
        let Some((file, salt)) = file else {
            return Ok(None);
        };
        let mut bytes = 0;
        for (group, _) in groups {
            let Some(cell) = self.shared.groups().get(&group).cloned() else {
                continue;
            };
            let entries = cell.lock().entries_in(generation);
            for entry in entries {
                let (index, offset, payload_bytes) = entry;
                let file = (file.as_ref(), salt);
                let payload = match Shared::read_one(file, group, generation, entry) {
                    Ok(payload) => payload,
                    Err(error) => {
                        tracing::error!(%error, "an old log entry cannot be read");
                        return Ok(Some(group));
                    }
                };
                let to = self.push(Kind::Moved, group, index, &payload)?;
                self.moved(Arc::clone(&cell), index, (generation, offset), to);
                bytes += payload_bytes;
                if bytes >= bytes_max {
                    return Ok(None);
                }
            }
        }
        Ok(None)
    }
}
