//! Compresses objects and deltas that are not copied from disk.

use std::io::{self, Write};

use gix_zlib::stream::deflate::{Compress, FlushCompress};
use gix_zlib::{Compression, Status};

/// Level 1 of this library is fast, but its output is a fifth larger than that of zlib.
const LEVEL: i32 = 3;
/// Bytes written at a time.
const PIECE_BYTES: usize = 16 * 1024;

/// Compresses one buffer after another. It is reused because its tables take longer to make than
/// most deltas take to compress.
pub(super) struct Deflater {
    compress: Compress,
    piece: Box<[u8]>,
}

impl Default for Deflater {
    fn default() -> Self {
        let level = Compression::new(LEVEL).unwrap_or(Compression::BEST_SPEED);
        Self {
            compress: Compress::new(level),
            piece: vec![0; PIECE_BYTES].into(),
        }
    }
}

impl Deflater {
    /// Writes `data` as a zlib stream (RFC 1950).
    pub(super) fn write(&mut self, data: &[u8], output: &mut dyn Write) -> io::Result<()> {
        self.compress.reset();
        let mut rest = data;
        loop {
            let (before_in, before_out) = (self.compress.total_in(), self.compress.total_out());
            let status = self
                .compress
                .compress(rest, &mut self.piece, FlushCompress::Finish)
                .map_err(io::Error::other)?;
            let taken = usize::try_from(self.compress.total_in() - before_in);
            let made = usize::try_from(self.compress.total_out() - before_out);
            let (taken, made) = (
                taken.map_err(io::Error::other)?,
                made.map_err(io::Error::other)?,
            );
            output.write_all(&self.piece[..made])?;
            rest = &rest[taken..];
            if matches!(status, Status::StreamEnd) {
                return Ok(());
            }
            if taken == 0 && made == 0 {
                return Err(io::Error::other("deflating does not go on"));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_after_another_come_back_as_they_were() {
        let long: Vec<u8> = (0..200_000_u32)
            .flat_map(|number| number.wrapping_mul(2_654_435_761).to_le_bytes())
            .collect();
        let mut deflater = Deflater::default();
        for data in [&b""[..], b"one", &long, b"one", &[7; 100_000]] {
            let mut deflated = Vec::new();
            deflater.write(data, &mut deflated).unwrap();
            let mut inflated = vec![0; data.len() + 1];
            let (status, taken, made) = gix_zlib::Inflate::default()
                .once(&deflated, &mut inflated)
                .unwrap();
            assert!(matches!(status, Status::StreamEnd));
            assert_eq!((taken, made), (deflated.len(), data.len()));
            assert!(inflated[..made] == *data);
        }
    }
}
