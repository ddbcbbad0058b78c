//! Reachability bitmaps: for chosen commits of a pack, everything they need, one bit for each object of the pack.
//!
//! With them a clone is counted by joining a few sets instead of reading every tree of the history. The files are git's
//! (gitformat-bitmap(5), version 1, of single packs): either side reads what the other wrote. Bit *i* stands for the
//! *i*th object of the pack in the order of the file.
//!
//! A bitmap is a shortcut and never more: where one is missing, damaged or of another pack, the history is walked.
//!
//! - `bits`, `ewah`: sets in memory and as they are stored.
//! - `order`: between positions in a pack and its index, with the `.rev` file.
//! - `file`: a `.bitmap` as it is read, one commit at a time.
//! - `coverage`: what is known to be reached so far, inside the pack.
//! - `count`: what some objects reach, by bitmaps where there are any, by walking where there are none.
//! - `write`, `history`, `choose`, `encode`: making one.

mod bits;
mod choose;
mod count;
mod coverage;
mod encode;
mod ewah;
mod file;
mod history;
mod order;
mod write;

pub(crate) use bits::Bits;
pub(crate) use count::{Counted, count};
pub(crate) use coverage::Coverage;
pub(crate) use file::{LazyBitmap, PackBitmap};
pub(crate) use order::PackOrder;
pub use write::{BitmapError, BitmapSummary, write_bitmap, write_reverse_index};
