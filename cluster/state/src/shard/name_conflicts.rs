//! Conflicts of ref names: no ref is below another one.
//!
//! A push may bring ten thousand names of a thousand bytes each, and apply delays every later
//! entry. So each name costs a few range look-ups, for any set of other names: where no ref is
//! near, the folders of a name are not looked up one by one, and no deleted ref is passed twice.

use std::cmp::Ordering;
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;

use henge_types::{RefRefusal, RefUpdate, RefVerdict, RepoId, UpdateRefs};

use super::ShardView;
use crate::keys;
use crate::view::View;

/// Refuses refs that would be below or above another ref. The accepted deletions of the push come
/// first; of two conflicting new refs the earlier one is accepted.
pub(super) fn refuse(
    before: ShardView<'_, impl View>,
    push: &UpdateRefs,
    verdicts: &mut [RefVerdict],
) {
    let creates = |(update, verdict): &(&RefUpdate, &RefVerdict)| {
        verdict.result.is_ok() && verdict.old.is_none() && update.new.is_some()
    };
    let updates = push.updates.iter().zip(&*verdicts);
    let new: Vec<&str> = updates
        .clone()
        .filter(creates)
        .map(|(update, _)| update.name.as_str())
        .collect();
    if new.is_empty() {
        return;
    }
    let deleted = updates
        .filter(|(update, verdict)| verdict.result.is_ok() && update.new.is_none())
        .map(|(update, _)| update.name.as_str())
        .collect();
    let kept = Kept::new(before, &push.repo, deleted);
    let mut above = kept.above(new.clone());
    let new: BTreeSet<&str> = new.into_iter().collect();
    let mut created = Created::default();
    for (update, verdict) in push.updates.iter().zip(verdicts) {
        let name = update.name.as_str();
        if !new.contains(name) {
            continue;
        }
        let above = above.remove(name);
        let with = above
            .or_else(|| created.above(name))
            .or_else(|| created.below(name))
            .or_else(|| kept.below(name));
        match with {
            Some(with) => {
                let with = with
                    .parse()
                    .expect("invariant: names of refs, stored or pushed");
                verdict.result = Err(RefRefusal::NameConflict { with });
            }
            None => created.insert(name),
        }
    }
}

/// The new refs accepted so far, without conflicts among them.
#[derive(Default)]
struct Created<'a> {
    names: BTreeSet<&'a str>,
    by_folder: BTreeSet<ByFolder<'a>>,
}

impl<'a> Created<'a> {
    fn insert(&mut self, name: &'a str) {
        self.names.insert(name);
        self.by_folder.insert(ByFolder(name));
    }

    /// The accepted ref that `name` would be below: in folder order no other name is between it and
    /// the names below it.
    fn above(&self, name: &'a str) -> Option<&'a str> {
        let before = self.by_folder.range(..ByFolder(name)).next_back();
        before
            .map(|before| before.0)
            .filter(|before| lies_below(name, before))
    }

    /// The first accepted ref that would be below `name`.
    fn below(&self, name: &str) -> Option<&'a str> {
        let folder = format!("{name}/");
        let behind = (Bound::Included(folder.as_str()), Bound::Unbounded);
        let first = self.names.range::<str, _>(behind).next().copied();
        first.filter(|first| first.starts_with(&folder))
    }
}

/// A name in folder order: all names below a name follow it directly.
#[derive(PartialEq, Eq)]
struct ByFolder<'a>(&'a str);

impl Ord for ByFolder<'_> {
    fn cmp(&self, other: &Self) -> Ordering {
        let at = common_bytes(self.0, other.0);
        // The end of a name sorts first, then a slash, then every other byte.
        let rank = |name: &str| match name.as_bytes().get(at) {
            None => (0, 0),
            Some(b'/') => (1, 0),
            Some(byte) => (2, *byte),
        };
        rank(self.0).cmp(&rank(other.0))
    }
}

impl PartialOrd for ByFolder<'_> {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

/// The refs that the push does not delete.
struct Kept<'a, 'v, V> {
    before: ShardView<'v, V>,
    repo: &'a RepoId,
    deleted: BTreeSet<&'a str>,
    /// For each deleted ref, the next kept one.
    next_kept: BTreeMap<&'a str, Option<&'v str>>,
}

/// The nearest ref at or after a folder of a name.
#[derive(Clone, Copy)]
enum Near<'v> {
    /// A kept ref has the folder's name.
    InTheWay(&'v str),
    /// The first ref whose name begins with the folder's name.
    Beginning(&'v str),
    /// No ref name begins with it.
    Nothing,
}

impl<'a, 'v, V: View> Kept<'a, 'v, V> {
    fn new(before: ShardView<'v, V>, repo: &'a RepoId, deleted: BTreeSet<&'a str>) -> Self {
        let mut kept = Self {
            before,
            repo,
            deleted,
            next_kept: BTreeMap::new(),
        };
        let mut next_kept = BTreeMap::new();
        for name in kept.deleted.iter().rev() {
            // No name contains this byte.
            let next = kept.first_from(&format!("{name}\0"));
            let next = next.and_then(|next| next_kept.get(next).copied().unwrap_or(Some(next)));
            next_kept.insert(*name, next);
        }
        kept.next_kept = next_kept;
        kept
    }

    /// The first ref whose name is not before `text`.
    fn first_from(&self, text: &str) -> Option<&'v str> {
        let (from, all) = (keys::ref_text(self.repo, text), keys::refs(self.repo, ""));
        let (key, _) = self.before.view.range(&from, &all).next()?;
        let name = keys::ref_name(key);
        Some(name.unwrap_or_else(|| panic!("ref with a broken key {key:?}: state damaged")))
    }

    /// The first kept ref below `name`.
    fn below(&self, name: &str) -> Option<&'v str> {
        let folder = format!("{name}/");
        let first = self.first_from(&folder)?;
        let kept = self.next_kept.get(first).copied().unwrap_or(Some(first))?;
        kept.starts_with(&folder).then_some(kept)
    }

    /// The kept ref that each of these names would be below, if there is one. Results for one
    /// name's folders are reused for the next name in the same folders.
    fn above(&self, mut names: Vec<&'a str>) -> BTreeMap<&'a str, &'v str> {
        names.sort_unstable();
        let mut found = BTreeMap::new();
        let mut looked: Vec<(usize, Near<'v>)> = Vec::new();
        let mut last = "";
        for name in names {
            let common = common_bytes(last, name);
            while looked.last().is_some_and(|(at, _)| *at >= common) {
                looked.pop();
            }
            if let Some(with) = self.look_above(name, &mut looked) {
                found.insert(name, with);
            }
            last = name;
        }
        found
    }

    /// Looks up the folders of a name from the top down, after those already looked up.
    fn look_above(&self, name: &str, looked: &mut Vec<(usize, Near<'v>)>) -> Option<&'v str> {
        // Below `refs/` every ref is in a folder: the first name that can be a ref has two slashes.
        let folders = name.match_indices('/').map(|(at, _)| at).skip(2);
        let mut clear = 0;
        if let Some((at, near)) = looked.last().copied() {
            match near {
                Near::InTheWay(with) => return Some(with),
                Near::Nothing => return None,
                Near::Beginning(first) => clear = common_bytes(first, name).max(at + 1),
            }
        }
        for at in folders {
            // No ref is between a folder and the first ref in it, so no folder on the path to that
            // ref is a ref.
            if at < clear {
                continue;
            }
            let near = self.near(name.get(..at).unwrap_or_default());
            looked.push((at, near));
            match near {
                Near::InTheWay(with) => return Some(with),
                Near::Nothing => return None,
                Near::Beginning(first) => clear = common_bytes(first, name),
            }
        }
        None
    }

    fn near(&self, folder: &str) -> Near<'v> {
        match self.first_from(folder) {
            Some(first) if first == folder && !self.deleted.contains(folder) => {
                Near::InTheWay(first)
            }
            Some(first) if first.starts_with(folder) => Near::Beginning(first),
            Some(_) | None => Near::Nothing,
        }
    }
}

/// Whether `name` is below the ref `upper`.
fn lies_below(name: &str, upper: &str) -> bool {
    let rest = name.strip_prefix(upper);
    rest.is_some_and(|rest| rest.starts_with('/'))
}

/// The length of the common prefix of two names, bytes.
fn common_bytes(one: &str, other: &str) -> usize {
    let mut bytes = one.bytes().zip(other.bytes());
    let differs = bytes.position(|(one, other)| one != other);
    differs.unwrap_or_else(|| one.len().min(other.len()))
}
