//! One answer: recorded while it is made, and replayed.

use std::io::{self, Write};
use std::path::Path;
use std::sync::{Arc, Weak};

use tempfile::SpooledTempFile;

use crate::output::{Output, PackPart};
use crate::spooled::Spooled;
use crate::store::Pack;

/// An answer's own bytes stay in memory up to this: a listing of a hundred thousand refs does.
const MEMORY_BYTES_MAX: usize = 8 * 1024 * 1024;
/// An answer with more own bytes is not kept.
const OWN_BYTES_MAX: u64 = 256 * 1024 * 1024;

#[derive(Debug)]
enum Piece {
    /// So many of the answer's own bytes.
    Own(u64),
    /// A part of a pack, which maintenance may remove.
    Part(Weak<Pack>, std::ops::Range<u64>),
}

/// An answer, framed as it leaves.
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

    /// Writes the answer.
    pub(crate) fn replay(&self, output: &mut dyn Output) -> io::Result<()> {
        self.replay_from(0, output)
    }

    /// Writes the answer from piece `first` on.
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

/// Records an answer on its way out.
///
/// What comes before the pack leaves at once. The pack is held back and leaves when it is whole: whoever waits for the
/// same answer must not wait for a slow client. An answer that becomes too long leaves as it is made, and is not kept.
pub(crate) struct Recorder<'a> {
    output: &'a mut dyn Output,
    recording: Option<Recording>,
}

/// What of an answer has not left yet.
pub(super) struct Held<'a> {
    from: usize,
    output: &'a mut dyn Output,
}

impl Held<'_> {
    /// Sends it.
    pub(super) fn leave(self, answer: &Answer) -> io::Result<()> {
        answer.replay_from(self.from, self.output)
    }
}

struct Recording {
    pieces: Vec<Piece>,
    own: SpooledTempFile,
    own_bytes: u64,
    /// The first piece that was held back.
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

    /// The answer and what of it was held back; `None` when it became too long and has left.
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

    /// Stops recording; what was held back leaves.
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

    /// Whether what is written now must leave at once.
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

    /// Whether it was taken.
    fn take(&mut self, data: &[u8]) -> bool {
        let bytes = data.len() as u64;
        if self.own_bytes + bytes > OWN_BYTES_MAX || self.own.write_all(data).is_err() {
            return false;
        }
        self.own_bytes += bytes;
        // What has left already must not be held back as well.
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
