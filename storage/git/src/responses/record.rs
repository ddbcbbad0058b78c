//! A response: recorded while it is made, and replayed.

use std::io::{self, Write};
use std::path::Path;
use std::sync::{Arc, Weak};

use tempfile::SpooledTempFile;

use crate::output::{Output, PackPart};
use crate::spooled::Spooled;
use crate::store::Pack;

/// The own bytes of a response that stay in memory: enough for a listing of a hundred thousand
/// refs.
const MEMORY_BYTES_MAX: usize = 8 * 1024 * 1024;
/// The maximum of own bytes of a response in the cache.
const OWN_BYTES_MAX: u64 = 256 * 1024 * 1024;

#[derive(Debug)]
enum Piece {
    /// A number of the response's own bytes.
    Own(u64),
    /// A part of a pack, which maintenance may remove.
    Part(Weak<Pack>, std::ops::Range<u64>),
}

/// A response, framed as sent.
#[derive(Debug)]
pub(crate) struct Answer {
    pieces: Vec<Piece>,
    own: Spooled,
    own_bytes: u64,
}

impl Answer {
    /// The packs that it has parts of; `None` when one is gone.
    pub(super) fn packs(&self) -> Option<Vec<Arc<Pack>>> {
        let mut packs: Vec<Arc<Pack>> = Vec::new();
        for piece in &self.pieces {
            let Piece::Part(part, _) = piece else {
                continue;
            };
            let is_held = |pack: &Arc<Pack>| std::ptr::eq(Arc::as_ptr(pack), part.as_ptr());
            if !packs.iter().any(is_held) {
                packs.push(part.upgrade()?);
            }
        }
        Some(packs)
    }

    pub(super) const fn memory_bytes(&self) -> u64 {
        if self.own.is_in_memory() {
            self.own_bytes
        } else {
            0
        }
    }

    pub(super) const fn disk_bytes(&self) -> u64 {
        self.own_bytes - self.memory_bytes()
    }

    /// Writes the response.
    pub(crate) fn replay(&self, output: &mut dyn Output) -> io::Result<()> {
        self.replay_from(0, output)
    }

    /// Writes the response from piece `first` on.
    fn replay_from(&self, first: usize, output: &mut dyn Output) -> io::Result<()> {
        let mut at = 0;
        for (index, piece) in self.pieces.iter().enumerate() {
            match piece {
                Piece::Own(bytes) => {
                    if index >= first {
                        self.own.write_range(at, *bytes, output)?;
                    }
                    at += bytes;
                }
                Piece::Part(..) if index < first => {}
                Piece::Part(pack, range) => {
                    let pack = pack.upgrade().ok_or_else(|| {
                        io::Error::other("a pack was removed while it was being sent")
                    })?;
                    output.write_part(PackPart::new(pack, range.clone()))?;
                }
            }
        }
        Ok(())
    }
}

/// Records a response while it is sent.
///
/// Bytes before the pack are sent at once. The pack is held back until it is complete: waiters for
/// the same response must not depend on a slow client. A response over the limit is sent as it is
/// made, and is not cached.
pub(crate) struct Recorder<'a> {
    output: &'a mut dyn Output,
    recording: Option<Recording>,
}

/// The unsent rest of a response.
pub(super) struct Held<'a> {
    from: usize,
    output: &'a mut dyn Output,
}

impl Held<'_> {
    /// Sends the rest.
    pub(super) fn leave(self, answer: &Answer) -> io::Result<()> {
        answer.replay_from(self.from, self.output)
    }
}

struct Recording {
    pieces: Vec<Piece>,
    own: SpooledTempFile,
    own_bytes: u64,
    /// The first piece that is held back.
    held_from: Option<usize>,
}

impl<'a> Recorder<'a> {
    pub(super) fn new(output: &'a mut dyn Output, directory: &Path) -> Self {
        let own = tempfile::spooled_tempfile_in(MEMORY_BYTES_MAX, directory);
        Self {
            output,
            recording: Some(Recording {
                pieces: Vec::new(),
                own,
                own_bytes: 0,
                held_from: None,
            }),
        }
    }

    /// The response and its unsent rest; `None` when it went over the limit and was sent.
    pub(super) fn into_answer(self) -> io::Result<Option<(Answer, Held<'a>)>> {
        let Some(recording) = self.recording else {
            return Ok(None);
        };
        let held = Held {
            from: recording.held_from.unwrap_or(recording.pieces.len()),
            output: self.output,
        };
        Ok(Some((recording.into_answer()?, held)))
    }

    /// Ends recording and sends the held bytes.
    fn give_up(&mut self) -> io::Result<()> {
        let Some(recording) = self.recording.take() else {
            return Ok(());
        };
        let held_from = recording.held_from;
        match held_from {
            Some(first) => recording.into_answer()?.replay_from(first, self.output),
            None => Ok(()),
        }
    }

    /// Whether written bytes are sent at once.
    fn is_passing(&self) -> bool {
        self.recording
            .as_ref()
            .is_none_or(|recording| recording.held_from.is_none())
    }
}

impl Recording {
    fn into_answer(self) -> io::Result<Answer> {
        let own = Spooled::from(self.own);
        Ok(Answer {
            pieces: self.pieces,
            own,
            own_bytes: self.own_bytes,
        })
    }

    /// Records bytes. Returns false when they exceed the limit or cannot be written.
    fn take(&mut self, data: &[u8]) -> bool {
        let bytes = data.len() as u64;
        if self.own_bytes + bytes > OWN_BYTES_MAX || self.own.write_all(data).is_err() {
            return false;
        }
        self.own_bytes += bytes;
        // A piece that was sent must not grow by held bytes.
        let is_first_held = self.held_from == Some(self.pieces.len());
        match self.pieces.last_mut() {
            Some(Piece::Own(length)) if !is_first_held => *length += bytes,
            Some(Piece::Own(_) | Piece::Part(..)) | None => self.pieces.push(Piece::Own(bytes)),
        }
        true
    }
}

impl Write for Recorder<'_> {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        let taken = self
            .recording
            .as_mut()
            .is_none_or(|recording| recording.take(data));
        if !taken {
            self.give_up()?;
        }
        if self.is_passing() {
            self.output.write_all(data)?;
        }
        Ok(data.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.output.flush()
    }
}

impl Output for Recorder<'_> {
    fn write_part(&mut self, part: PackPart) -> io::Result<()> {
        if let Some(recording) = &mut self.recording {
            let (pack, range) = part.place();
            recording.pieces.push(Piece::Part(pack, range));
        }
        if self.is_passing() {
            self.output.write_part(part)?;
        }
        Ok(())
    }

    fn begin_pack(&mut self) {
        if let Some(recording) = &mut self.recording {
            recording.held_from.get_or_insert(recording.pieces.len());
        }
    }
}
