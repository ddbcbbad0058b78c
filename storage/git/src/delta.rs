//! Deltas: an object as copies out of another one and bytes of its own (gitformat-pack(5), "Deltified
//! representation").
//!
//! [`DeltaIndex`] is made once per base and asked for any number of targets; [`encode`] writes the delta.
//! Time is linear in base and target whatever they hold: no more than [`index::CANDIDATES_MAX`] places of the base
//! are compared per place of the target, and a match is skipped as a whole.

mod apply;
mod encode;
mod index;

pub(crate) use apply::{apply, sizes};
pub(crate) use encode::encode;
pub(crate) use index::DeltaIndex;

/// Bytes that a place in the base is found by: no shorter match begins a copy.
const WINDOW_BYTES: usize = 16;

/// What one copy takes at most: more would fit the format, but not every reader. A size of zero stands for it.
const COPY_BYTES_MAX: usize = 0x1_0000;

/// Appends a size as deltas begin with: seven bits a byte, the lowest first.
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
