//! Refs that a transfer removes from its destination because the source lacks them, and values that
//! it replaces.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use henge_types::{ObjectId, RefName};

use crate::error::Error;
use crate::listing::Listing;
use crate::transfer::{Prune, Selection};

/// Number of refs shown by name.
const NAMES_SHOWN: usize = 20;

/// The limit on the refs that a pruning transfer may delete.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Removals {
    /// At most half of the refs: more at once usually means that the source lost refs, or is the
    /// wrong one.
    #[default]
    Half,
    /// Only refs whose deletion the user confirmed.
    Agreed(BTreeSet<RefName>),
    /// All refs that the source lacks.
    Everything,
}

/// Refs and values of a destination that a transfer would remove.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Losses {
    /// Refs that would be deleted.
    pub deleted: Vec<RefName>,
    /// Refs that would get another value whose history is not known to contain the old one.
    pub replaced: Vec<RefName>,
    /// Number of refs of the destination, without those that no transfer touches.
    pub of: usize,
}

impl Losses {
    /// The losses of a transfer from `source` to `there`. `keeps` returns whether a ref that moves
    /// from the first value to the second one keeps its history; it is called once for each ref
    /// that has different values on the two sides.
    pub fn between(
        source: &Listing,
        there: &Listing,
        selection: Selection,
        prune: Prune,
        keeps: &mut dyn FnMut(ObjectId, ObjectId) -> bool,
    ) -> Self {
        let mut wanted = source.values();
        wanted.retain(|_, id| source.format == id.format());
        let mut losses = Self::default();
        for (name, old) in &there.values() {
            if !selection.takes(name) {
                continue;
            }
            losses.of += 1;
            match wanted.get(name) {
                None if prune == Prune::Delete => losses.deleted.push(name.clone()),
                Some(new) if new != old && !keeps(*old, *new) => losses.replaced.push(name.clone()),
                None | Some(_) => {}
            }
        }
        losses
    }

    /// Whether nothing is lost.
    pub const fn is_none(&self) -> bool {
        self.deleted.is_empty() && self.replaced.is_empty()
    }

    /// Refuses any loss.
    ///
    /// # Errors
    /// [`Error::Losses`] when there is one.
    pub fn refuse_any(self) -> Result<(), Error> {
        match self.is_none() {
            true => Ok(()),
            false => Err(Error::Losses(Box::new(self))),
        }
    }
}

/// Refuses to delete more refs of `current` than `removals` allows; refs that `wanted` lacks are
/// deleted.
pub(crate) fn check_removals(
    wanted: &BTreeMap<RefName, ObjectId>,
    current: &BTreeMap<RefName, ObjectId>,
    selection: Selection,
    removals: &Removals,
) -> Result<(), Error> {
    let taken = current.keys().filter(|name| selection.takes(name));
    let of = taken.clone().count();
    let gone = taken.filter(|name| !wanted.contains_key(*name));
    let deleted: Vec<RefName> = gone.cloned().collect();
    let may_go = match removals {
        Removals::Half => deleted.len() <= of / 2,
        Removals::Agreed(agreed) => deleted.iter().all(|name| agreed.contains(name)),
        Removals::Everything => true,
    };
    if may_go {
        return Ok(());
    }
    Err(Error::Losses(Box::new(Losses {
        deleted,
        replaced: Vec::new(),
        of,
    })))
}

/// Names for a message, limited in number.
fn names(refs: &[RefName]) -> String {
    let shown: Vec<&str> = refs.iter().take(NAMES_SHOWN).map(RefName::as_str).collect();
    // A terminal interprets some characters that a name may contain.
    let names = shown.join(", ").replace(char::is_control, "\u{fffd}");
    match refs.len().saturating_sub(NAMES_SHOWN) {
        0 => names,
        more => format!("{names} and {more} more"),
    }
}

impl fmt::Display for Losses {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (deleted, replaced) = (&self.deleted, &self.replaced);
        if !deleted.is_empty() {
            let (count, of) = (deleted.len(), self.of);
            write!(
                f,
                "{count} of {of} refs would be deleted: {}",
                names(deleted)
            )?;
        }
        if !replaced.is_empty() {
            let and = if deleted.is_empty() { "" } else { "; " };
            let (count, of) = (replaced.len(), self.of);
            write!(
                f,
                "{and}{count} of {of} refs would get another value: {}",
                names(replaced)
            )?;
        }
        if self.is_none() {
            f.write_str("nothing would be lost")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(digit: u8) -> ObjectId {
        ObjectId::from_bytes(&[digit; 20]).unwrap()
    }

    fn listing(refs: &[(&str, u8)]) -> Listing {
        let mut listing = Listing::default();
        for (name, value) in refs {
            listing.add(name, id(*value)).unwrap();
        }
        listing
    }

    fn texts(refs: &[RefName]) -> Vec<&str> {
        refs.iter().map(RefName::as_str).collect()
    }

    /// A repository that was made to follow another one lost all of its contents without a
    /// confirmation.
    #[test]
    fn what_is_deleted_and_what_is_replaced_is_named() {
        let source = listing(&[
            ("refs/heads/main", 2),
            ("refs/heads/new", 1),
            ("refs/heads/on", 4),
            ("refs/heads/same", 1),
        ]);
        let there = listing(&[
            ("refs/heads/main", 1),
            ("refs/heads/mine", 1),
            ("refs/heads/on", 3),
            ("refs/heads/same", 1),
            ("refs/pull/1/head", 1),
        ]);
        let losses = |prune| {
            let mut keeps = |old, new| (old, new) == (id(3), id(4));
            Losses::between(&source, &there, Selection::Project, prune, &mut keeps)
        };
        let found = losses(Prune::Delete);
        assert_eq!(texts(&found.deleted), ["refs/heads/mine"]);
        assert_eq!(texts(&found.replaced), ["refs/heads/main"]);
        assert_eq!(found.of, 4, "what no transfer touches does not count");
        assert_eq!(
            found.to_string(),
            "1 of 4 refs would be deleted: refs/heads/mine; 1 of 4 refs would get another value: refs/heads/main"
        );
        assert!(found.refuse_any().is_err());
        let kept = losses(Prune::Keep);
        assert_eq!(texts(&kept.deleted), [""; 0]);
        assert_eq!(texts(&kept.replaced), ["refs/heads/main"]);
        let mut never = |_, _| false;
        let (selection, prune) = (Selection::Project, Prune::Delete);
        for (source, there) in [(&source, &listing(&[])), (&there, &there)] {
            let none = Losses::between(source, there, selection, prune, &mut never);
            assert!(none.is_none(), "{none}");
            none.refuse_any().unwrap();
        }
    }

    /// Refs created between the question and the answer were deleted with the confirmed ones.
    #[test]
    fn what_nobody_was_asked_about_does_not_go() {
        let wanted = BTreeMap::new();
        let name = |name: &str| -> RefName { name.parse().unwrap() };
        let of = |names: &[&str]| -> BTreeMap<RefName, ObjectId> {
            names.iter().map(|one| (name(one), id(1))).collect()
        };
        let asked = ["refs/heads/a", "refs/heads/b"];
        let agreed = Removals::Agreed(asked.map(name).into());
        let check = |current| check_removals(&wanted, &current, Selection::Project, &agreed);
        check(of(&asked)).unwrap();
        check(of(&["refs/heads/b"])).unwrap();
        let error = check(of(&["refs/heads/b", "refs/heads/new"])).unwrap_err();
        assert!(error.to_string().contains("refs/heads/new"), "{error}");
    }

    /// A source that had lost most of its branches removed them from every copy of it.
    #[test]
    fn more_than_half_goes_only_where_that_is_said() {
        let values = |count: u8| -> BTreeMap<RefName, ObjectId> {
            let one = |digit| (format!("refs/heads/b{digit}").parse().unwrap(), id(1));
            (0..count).map(one).collect()
        };
        let check = |left, before, removals| {
            check_removals(
                &values(left),
                &values(before),
                Selection::Project,
                &removals,
            )
        };
        for (left, before, fits) in [
            (4, 4, true),
            (2, 4, true),
            (1, 4, false),
            (0, 4, false),
            (3, 5, true),
            (2, 5, false),
            (1, 2, true),
            (0, 1, false),
            (0, 0, true),
            (9, 0, true),
        ] {
            assert_eq!(
                check(left, before, Removals::Half).is_ok(),
                fits,
                "{left} of {before}"
            );
            check(left, before, Removals::Everything).unwrap();
        }
        let error = check(1, 40, Removals::Half).unwrap_err().to_string();
        assert!(error.contains("39 of 40 refs would be deleted"), "{error}");
        assert!(error.contains(" and 19 more"), "{error}");
    }
}
