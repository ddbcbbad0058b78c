//! Checks of updates against the current refs of a bare repository.

use std::collections::BTreeSet;

use henge_types::{PreviousValue, RefName, RefRefusal, RefUpdate};

use crate::bare::BareRepository;
use crate::refs::RefStore;

/// Checks one update.
pub(super) fn check(refs: &BareRepository, update: &RefUpdate) -> Result<(), RefRefusal> {
    check_value(refs, update)?;
    if update.new.is_some() {
        check_name(refs, update, &BTreeSet::new())?;
    }
    Ok(())
}

/// Checks updates that are applied together.
pub(super) fn check_all(
    refs: &BareRepository,
    updates: &[RefUpdate],
) -> Vec<Result<(), RefRefusal>> {
    let gone: BTreeSet<&RefName> = updates
        .iter()
        .filter(|update| update.new.is_none())
        .map(|update| &update.name)
        .collect();
    let made: BTreeSet<&RefName> = updates
        .iter()
        .filter(|update| update.new.is_some())
        .map(|update| &update.name)
        .collect();
    updates
        .iter()
        .map(|update| {
            check_value(refs, update)?;
            if update.new.is_none() {
                return Ok(());
            }
            let above = ancestors(&update.name).find(|above| made.contains(above));
            match above {
                Some(with) => Err(RefRefusal::NameConflict { with }),
                None => check_name(refs, update, &gone),
            }
        })
        .collect()
}

fn check_value(refs: &BareRepository, update: &RefUpdate) -> Result<(), RefRefusal> {
    let current = refs.get(&update.name);
    match (update.expected, current) {
        (PreviousValue::MustNotExist, Some(current)) => Err(RefRefusal::Exists { current }),
        (PreviousValue::MustExist, None) => Err(RefRefusal::Missing),
        (PreviousValue::MustExistAndMatch(expected), current) if current != Some(expected) => {
            Err(RefRefusal::Stale { current })
        }
        (
            PreviousValue::Any
            | PreviousValue::MustNotExist
            | PreviousValue::MustExist
            | PreviousValue::MustExistAndMatch(_),
            _,
        ) => Ok(()),
    }
}

/// `refs/heads/a` and `refs/heads/a/b` cannot both exist.
fn check_name(
    refs: &BareRepository,
    update: &RefUpdate,
    gone: &BTreeSet<&RefName>,
) -> Result<(), RefRefusal> {
    if let Some(with) =
        ancestors(&update.name).find(|above| !gone.contains(above) && refs.get(above).is_some())
    {
        return Err(RefRefusal::NameConflict { with });
    }
    let mut with = None;
    refs.for_each(&format!("{}/", update.name), &mut |below, _| {
        if !gone.contains(below) {
            with.get_or_insert_with(|| below.clone());
        }
    });
    match with {
        Some(with) => Err(RefRefusal::NameConflict { with }),
        None => Ok(()),
    }
}

/// The possible ref names above a ref: `refs/heads/a/b` has `refs/heads/a`.
fn ancestors(name: &RefName) -> impl Iterator<Item = RefName> {
    let name = name.as_str();
    name.match_indices('/')
        .filter_map(|(end, _)| name[..end].parse().ok())
}
