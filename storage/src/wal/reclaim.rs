//! Freeing segments: the oldest goes once nothing live is in it. Few live entries of slow groups are
//! written again at the tail; many are a reason to ask their group for a snapshot.

use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use henge_types::GroupId;

use super::Shared;
use super::frame::{HEADER_BYTES, Kind};
use super::writer::Writer;

/// Payload written again in one turn: appends wait for it.
const MOVE_BYTES_PER_TURN: usize = 1024 * 1024;

/// How full the log is, and what that calls for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Filled {
    /// Below half of the cap.
    Little,
    /// From half: write few live entries again, ask for a snapshot when they are many.
    Half,
    /// From three quarters: write again even half a segment, which still gains space.
    Much,
}

impl Writer {
    /// Looks at the oldest segment; adds to the batch what frees it.
    pub(super) fn reclaim(&mut self) -> io::Result<()> {
        let (oldest, needed_from, used) = {
            let table = self.shared.table();
            (table.oldest(), table.needed_from(), table.len())
        };
        let max = self.shared.segments_max();
        self.shared.full.store(used + 1 >= max, Ordering::Relaxed);
        if let Some(below) = needed_from.filter(|below| *below > self.oldest) {
            self.push(Kind::Oldest, GroupId::META, u64::from(below), &[])?;
            self.oldest = below;
            self.free_when_durable(below);
        }
        let filled = match used {
            used if used * 2 < max => Filled::Little,
            used if used * 4 < max * 3 => Filled::Half,
            _ => Filled::Much,
        };
        let usable = self.shared.config.segment_bytes - HEADER_BYTES as u64;
        let asked = match (oldest, filled) {
            (None | Some((_, 0)), _) | (_, Filled::Little) => None,
            (Some((generation, live)), Filled::Half) if live <= usable / 4 => {
                self.move_some(generation)?
            }
            (Some((generation, live)), Filled::Much) if live <= usable / 2 => {
                self.move_some(generation)?;
                self.largest_in(generation)
            }
            (Some((generation, _)), Filled::Half | Filled::Much) => self.largest_in(generation),
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

    /// Writes some live entries of a segment again. Returns a group whose entries cannot be read: only
    /// its snapshot frees the segment.
    fn move_some(&mut self, generation: u32) -> io::Result<Option<GroupId>> {
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
                if bytes >= MOVE_BYTES_PER_TURN {
                    return Ok(None);
                }
            }
        }
        Ok(None)
    }
}
