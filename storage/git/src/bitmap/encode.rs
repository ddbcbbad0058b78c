//! Encodes a `.bitmap` file, one commit after the other.

use std::collections::VecDeque;

use crate::bitmap::Bits;
use crate::bitmap::ewah::{Ewah, Malformed, encode};
use crate::bitmap::file::{
    BASE_DISTANCE_MAX, ENTRY_HEAD_BYTES, FULL_DAG, HEAD_BYTES, LOOKUP_TABLE, NO_BASE, ROW_BYTES,
    SIGNATURE, VERSION,
};
use crate::oid::{Checksum, format_of, oid};

/// Number of preceding bitmaps that may be the base of the next one, which is stored as a
/// difference.
const WINDOW: usize = 10;
const _: () = assert!(WINDOW <= BASE_DISTANCE_MAX as usize);
/// Maximum number of differences that are added up to decode one bitmap.
const CHAIN_MAX: u32 = 64;

#[derive(Debug)]
struct Stored {
    /// The commit's index entry.
    entry: u32,
    /// Its offset in the body.
    offset: usize,
    /// The number of its base, the bitmap that it is a difference to.
    base: Option<u32>,
    /// The number of bases behind it.
    chain: u32,
}

/// Bitmaps in storage order.
#[derive(Debug)]
pub(super) struct Body {
    objects: u32,
    bytes: Vec<u8>,
    stored: Vec<Stored>,
    window: VecDeque<(u32, Bits)>,
}

impl Body {
    pub(super) const fn new(objects: u32) -> Self {
        Self {
            objects,
            bytes: Vec::new(),
            stored: Vec::new(),
            window: VecDeque::new(),
        }
    }

    /// Stores the bitmap of the commit at an index entry; returns its number.
    pub(super) fn push(&mut self, entry: u32, bits: Bits) -> u32 {
        let number = u32::try_from(self.stored.len()).unwrap_or(u32::MAX);
        let usable = self.window.iter().filter(|(number, _)| {
            let base = &self.stored[*number as usize];
            base.chain < CHAIN_MAX
        });
        let nearest = usable
            .map(|(number, base)| (bits.distance(base), *number, base))
            .min_by_key(|(distance, number, _)| (*distance, std::cmp::Reverse(*number)))
            .filter(|(distance, _, _)| *distance < bits.count());
        let offset = self.bytes.len();
        self.bytes.extend_from_slice(&entry.to_be_bytes());
        let distance = nearest.map_or(0, |(_, base, _)| number - base);
        // At most `WINDOW`, which fits a byte.
        self.bytes.push(u8::try_from(distance).unwrap_or(0));
        self.bytes.push(0);
        match nearest {
            Some((_, _, base)) => {
                let mut difference = bits.clone();
                difference.xor(base);
                encode(&difference, &mut self.bytes);
            }
            None => encode(&bits, &mut self.bytes),
        }
        let base = nearest.map(|(_, base, _)| base);
        let chain = base.map_or(0, |base| self.stored[base as usize].chain + 1);
        self.stored.push(Stored {
            entry,
            offset,
            base,
            chain,
        });
        if self.window.len() == WINDOW {
            self.window.pop_front();
        }
        self.window.push_back((number, bits));
        number
    }

    /// Adds a stored bitmap to `bits`.
    pub(super) fn add_to(&self, number: u32, bits: &mut Bits) -> Result<(), Malformed> {
        if let Some((_, known)) = self.window.iter().find(|(other, _)| *other == number) {
            bits.or(known);
            return Ok(());
        }
        let mut decoded = Bits::new(self.objects);
        let mut next = Some(number);
        while let Some(number) = next {
            let stored = &self.stored[number as usize];
            let (ewah, _) = Ewah::parse(&self.bytes[stored.offset + ENTRY_HEAD_BYTES..])?;
            ewah.xor_into(&mut decoded)?;
            next = stored.base;
        }
        bits.or(&decoded);
        Ok(())
    }

    /// The bytes of the file. `kinds` are the objects of each type, in the order of the format.
    pub(super) fn finish(self, pack: &oid, kinds: &[Bits; 4]) -> Vec<u8> {
        let count = u32::try_from(self.stored.len()).unwrap_or(u32::MAX);
        let mut out = Vec::with_capacity(HEAD_BYTES + self.bytes.len());
        out.extend_from_slice(SIGNATURE);
        out.extend_from_slice(&VERSION.to_be_bytes());
        out.extend_from_slice(&(FULL_DAG | LOOKUP_TABLE).to_be_bytes());
        out.extend_from_slice(&count.to_be_bytes());
        out.extend_from_slice(pack.as_bytes());
        for kind in kinds {
            encode(kind, &mut out);
        }
        let start = out.len();
        out.extend_from_slice(&self.bytes);
        let mut sorted: Vec<u32> = (0..count).collect();
        sorted.sort_unstable_by_key(|number| self.stored[*number as usize].entry);
        let mut rows = vec![NO_BASE; self.stored.len()];
        for (row, number) in (0_u32..).zip(&sorted) {
            rows[*number as usize] = row;
        }
        out.reserve(sorted.len() * ROW_BYTES);
        for number in sorted {
            let stored = &self.stored[number as usize];
            let base = stored.base.map_or(NO_BASE, |base| rows[base as usize]);
            out.extend_from_slice(&stored.entry.to_be_bytes());
            out.extend_from_slice(&((start + stored.offset) as u64).to_be_bytes());
            out.extend_from_slice(&base.to_be_bytes());
        }
        let checksum = Checksum::of(format_of(pack), &out);
        out.extend_from_slice(checksum.as_bytes());
        out
    }
}
