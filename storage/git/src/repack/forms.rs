//! The form of each object in the new pack: copied, an existing delta, or written again.

use gix_object::Kind;

use crate::protocol::Stop;
use crate::repack::RepackError;
use crate::repack::sources::{Place, Reader, STOP_EVERY, Sources, Stored};

/// The form of an object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Form {
    /// Its compressed bytes, unchanged.
    Copied,
    /// The delta of its copy, on the object of this number.
    Reused { base: u32 },
    /// Inflated from its copy and deflated again: no pack holds it whole.
    Deflated,
    /// A new delta: its number.
    New { delta: u32 },
}

/// The properties of the objects of a new pack, each by its number.
pub(super) struct Forms {
    pub(super) copies: Vec<Place>,
    pub(super) forms: Vec<Form>,
    pub(super) kinds: Vec<Kind>,
    /// Deltas in a chain, from an object to the whole object at the end.
    pub(super) depths: Vec<u16>,
    /// The longest chain of reused deltas that builds on an object.
    pub(super) heights: Vec<u16>,
}

/// Not visited yet.
const UNKNOWN: u32 = u32::MAX;
/// On the path from a delta to its base.
const ON_PATH: u32 = u32::MAX - 1;

impl Forms {
    /// Reuses existing deltas where they form neither a cycle nor a chain longer than `depth_max`.
    ///
    /// A longer chain, the result of many small pushes to one file, is cut at every half of
    /// `depth_max`. The other half is left for new deltas, which are then searched between the
    /// objects at the cuts.
    pub(super) fn choose(
        sources: &Sources,
        depth_max: u16,
        stop: &Stop,
    ) -> Result<Self, RepackError> {
        let count = sources.len() as usize;
        let copies: Vec<_> = (0..sources.len())
            .map(|object| sources.copy(object))
            .collect();
        let mut forms = Self {
            forms: vec![Form::Copied; count],
            kinds: vec![Kind::Blob; count],
            depths: vec![0; count],
            heights: vec![0; count],
            copies,
        };
        let natural = forms.break_circles(sources, stop)?;
        forms.cut_chains(sources, &natural, depth_max)?;
        forms.measure_heights();
        Ok(forms)
    }

    /// Decides for or against each delta, so that every chain ends. Returns the resulting lengths
    /// of chains.
    fn break_circles(&mut self, sources: &Sources, stop: &Stop) -> Result<Vec<u32>, RepackError> {
        let mut natural = vec![UNKNOWN; self.forms.len()];
        let mut path = Vec::new();
        let mut reader = Reader::new(sources);
        for start in 0..sources.len() {
            if (start as usize).is_multiple_of(STOP_EVERY) && stop.is_set() {
                return Err(RepackError::Stopped);
            }
            let mut object = start;
            // Down to an object that is settled, is whole, or is on the path already.
            while natural[object as usize] == UNKNOWN {
                natural[object as usize] = ON_PATH;
                path.push(object);
                let copy = self.copies[object as usize];
                match sources.stored(copy) {
                    Stored::Whole(_) => break,
                    Stored::Delta { base } => match sources.number_of(copy.pack, base) {
                        Some(base) => object = base,
                        None => break,
                    },
                }
            }
            // And back up. The last object is whole, has a settled base, or must become whole. It
            // must become whole if it closes a cycle, or if its base is left out of the pack.
            while let Some(object) = path.pop() {
                let copy = self.copies[object as usize];
                let base = match sources.stored(copy) {
                    Stored::Whole(_) => None,
                    Stored::Delta { base } => sources.number_of(copy.pack, base),
                };
                match base.map(|base| (base, natural[base as usize])) {
                    Some((base, depth)) if depth < ON_PATH => {
                        self.forms[object as usize] = Form::Reused { base };
                        self.kinds[object as usize] = self.kinds[base as usize];
                        natural[object as usize] = depth + 1;
                    }
                    Some(_) | None => {
                        self.make_whole(object, sources, &mut reader)?;
                        natural[object as usize] = 0;
                    }
                }
            }
        }
        Ok(natural)
    }

    fn make_whole(
        &mut self,
        object: u32,
        sources: &Sources,
        reader: &mut Reader<'_>,
    ) -> Result<(), RepackError> {
        let at = object as usize;
        let whole = sources
            .whole_copy(object)
            .map(|copy| (copy, sources.stored(copy)));
        (self.forms[at], self.kinds[at]) = match whole {
            Some((copy, Stored::Whole(kind))) => {
                self.copies[at] = copy;
                (Form::Copied, kind)
            }
            Some((_, Stored::Delta { .. })) | None => {
                let (kind, _) = sources.header(self.copies[at], reader.inflate())?;
                (Form::Deflated, kind)
            }
        };
        Ok(())
    }

    fn base(&self, object: u32) -> Option<u32> {
        match self.forms[object as usize] {
            Form::Reused { base } => Some(base),
            Form::Copied | Form::Deflated | Form::New { .. } => None,
        }
    }

    /// Cuts the chains that are too long, and records the depth of every object.
    fn cut_chains(
        &mut self,
        sources: &Sources,
        natural: &[u32],
        depth_max: u16,
    ) -> Result<(), RepackError> {
        let step = u32::from(depth_max) / 2 + 1;
        let mut reader = Reader::new(sources);
        let mut is_long = vec![false; natural.len()];
        for object in 0..sources.len() {
            if natural[object as usize] <= u32::from(depth_max) {
                continue;
            }
            let mut link = Some(object);
            while let Some(object) = link.filter(|object| !is_long[*object as usize]) {
                is_long[object as usize] = true;
                link = self.base(object);
            }
        }
        for object in 0..sources.len() {
            let depth = natural[object as usize];
            if is_long[object as usize] && depth > 0 && depth.is_multiple_of(step) {
                self.make_whole(object, sources, &mut reader)?;
            }
        }
        for object in 0..sources.len() {
            let (mut depth, mut link) = (0, object);
            while let Some(base) = self.base(link) {
                depth += 1;
                link = base;
            }
            self.depths[object as usize] = depth;
        }
        Ok(())
    }

    fn measure_heights(&mut self) {
        for object in 0..self.forms.len() {
            let (mut height, mut link) = (0, self.forms[object]);
            while let Form::Reused { base } = link {
                height += 1;
                if self.heights[base as usize] >= height {
                    break;
                }
                self.heights[base as usize] = height;
                link = self.forms[base as usize];
            }
        }
    }
}
