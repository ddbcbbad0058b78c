//! Reachability bitmaps: for selected commits of a pack, all objects that they need, one bit per
//! object of the pack.
//!
//! A clone is counted as the union of a few sets instead of reading every tree of the history. The
//! files are git's (gitformat-bitmap(5), version 1, of single packs): either side reads the other's
//! files. Bit *i* stands for the *i*th object of the pack in the order of the file.
//!
//! A bitmap is only a shortcut: where one is missing, damaged or of another pack, the history is
//! walked.
//!
//! - `bits`, `ewah`: sets in memory and in their stored form.
//! - `order`: from positions in a pack to entries in its index, with the `.rev` file.
//! - `file`: reads a `.bitmap` file, one commit at a time.
//! - `coverage`: the objects reached so far inside the pack.
//! - `count`: counts reachable objects, by bitmaps where they exist, by walking elsewhere.
//! - `write`, `history`, `choose`, `encode`: write a `.bitmap` file.

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
