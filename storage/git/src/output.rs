//! Where an answer goes: a writer that can also pass bytes on without copying them.

use std::io::{self, Write};

use bytes::Bytes;

/// A writer for answers to fetches.
pub trait Output: Write {
    /// Writes `bytes`. An output that can keeps them as they are, without copying; parts of packs come this way.
    ///
    /// # Errors
    /// When the output breaks.
    fn write_shared(&mut self, bytes: Bytes) -> io::Result<()> {
        self.write_all(&bytes)
    }
}

impl Output for Vec<u8> {}

impl Output for io::Sink {}

impl<W: Write> Output for io::BufWriter<W> {}
