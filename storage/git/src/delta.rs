//! Deltas: an object as copies from another one and bytes of its own (gitformat-pack(5), "Deltified
//! representation").
//!
//! A [`DeltaIndex`] is made once per base and serves any number of targets; [`encode`] writes the
//! delta. Time is linear in base and target for any content: at most [`index::CANDIDATES_MAX`]
//! positions of the base are compared per position of the target, and a match is skipped as a
//! whole.

mod apply;
mod encode;
mod index;

pub(crate) use apply::{apply, sizes};
pub(crate) use encode::encode;
pub(crate) use index::DeltaIndex;

/// Length of the windows that locate a position in the base: no shorter match begins a copy.
const WINDOW_BYTES: usize = 16;

/// Maximum bytes of one copy, encoded as a size of zero. The format allows more, but not every
/// reader does.
const COPY_BYTES_MAX: usize = 0x1_0000;

/// Appends a size in the form of delta headers: seven bits a byte, the lowest first.
fn push_size(mut size: usize, output: &mut Vec<u8>) {
    loop {
        let bits = size.to_le_bytes()[0] & 0x7f;
        size >>= 7;
        if size == 0 {
            output.push(bits);
            return;
        }
        output.push(bits | 0x80);
    }
}

#[cfg(test)]
mod tests;
