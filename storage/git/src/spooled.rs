//! Bytes written once and read many times, in memory or in a file without a name.

use std::fs::File;
use std::io::{self, Write};
use std::os::unix::fs::FileExt;

use tempfile::{SpooledData, SpooledTempFile};

/// The size of one read from a file.
const STEP_BYTES: usize = 128 * 1024;

/// The contents of a [`SpooledTempFile`].
#[derive(Debug)]
pub(crate) enum Spooled {
    Memory(Vec<u8>),
    File(File),
}

impl From<SpooledTempFile> for Spooled {
    fn from(written: SpooledTempFile) -> Self {
        match written.into_inner() {
            SpooledData::InMemory(cursor) => Self::Memory(cursor.into_inner()),
            SpooledData::OnDisk(file) => Self::File(file),
        }
    }
}

impl Spooled {
    /// Whether it is in memory.
    pub(crate) const fn is_in_memory(&self) -> bool {
        matches!(self, Self::Memory(_))
    }

    /// Writes `bytes` bytes from offset `at`. The range must exist.
    pub(crate) fn write_range(
        &self,
        at: u64,
        bytes: u64,
        output: &mut dyn Write,
    ) -> io::Result<()> {
        let size = |bytes: u64| usize::try_from(bytes).map_err(io::Error::other);
        match self {
            Self::Memory(data) => output.write_all(&data[size(at)?..size(at + bytes)?]),
            Self::File(file) => {
                let mut buffer = vec![0; STEP_BYTES.min(size(bytes)?)];
                let mut done = 0;
                while done < bytes {
                    let step = size((bytes - done).min(buffer.len() as u64))?;
                    file.read_exact_at(&mut buffer[..step], at + done)?;
                    output.write_all(&buffer[..step])?;
                    done += step as u64;
                }
                Ok(())
            }
        }
    }
}
