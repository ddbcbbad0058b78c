//! Conflicts of ref names: the same verdicts as by a comparison of all pairs, with a few look-ups
//! per name.

use std::cell::Cell;
use std::collections::BTreeSet;

use bytes::Bytes;
use henge_state::{State, View, apply};
use henge_types::{RefRefusal, RefUpdate, Reply, UpdateRefs};

use crate::fixtures::*;

/// A small deterministic generator.
struct Draws(u64);

impl Draws {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % bound
    }

    /// A name of a few components that are prefixes of each other, or sort before and after a
    /// slash.
    fn name(&mut self) -> String {
        let mut name = "refs/heads".to_owned();
        for _ in 0..=self.below(3) {
            let parts = ["a", "b", "ab", "a!", "a-", "a0"];
            let part = usize::try_from(self.below(6)).expect("small");
            name = format!("{name}/{}", parts[part]);
        }
        name
    }
}

fn names_of(shard: &Group) -> BTreeSet<String> {
    let refs = shard.view().ref_texts(&repo_id(1), "");
    refs.map(|(name, _)| name.to_owned()).collect()
}

fn lies_below(name: &str, upper: &str) -> bool {
    let rest = name.strip_prefix(upper);
    rest.is_some_and(|rest| rest.starts_with('/'))
}

/// The ref in conflict with `name`: above it, or among the new or the kept ones below it.
fn in_the_way<'n>(
    name: &str,
    kept: &'n BTreeSet<String>,
    new: &'n BTreeSet<String>,
) -> Option<&'n String> {
    let above = kept
        .iter()
        .chain(new)
        .filter(|upper| lies_below(name, upper));
    above
        .min_by_key(|upper| upper.len())
        .or_else(|| new.iter().find(|below| lies_below(below, name)))
        .or_else(|| kept.iter().find(|below| lies_below(below, name)))
}

/// Pushes these updates and compares every verdict with the definition.
fn push_and_compare(shard: &mut Group, updates: &[RefUpdate]) {
    let before = names_of(shard);
    let mut kept = before.clone();
    for update in updates.iter().filter(|update| update.new.is_none()) {
        kept.remove(update.name.as_str());
    }
    let mut new = BTreeSet::new();
    let mut expected = Vec::new();
    for update in updates {
        let name = update.name.as_str();
        let with = match update.new {
            Some(_) if !before.contains(name) => in_the_way(name, &kept, &new).cloned(),
            Some(_) | None => None,
        };
        if with.is_none() && update.new.is_some() && !before.contains(name) {
            new.insert(name.to_owned());
        }
        expected.push(with);
    }
    let Reply::RefsUpdated { verdicts } = shard.reply(refs(push(1, updates.to_vec()))) else {
        panic!("the push is judged");
    };
    let found = verdicts.iter().map(|verdict| match &verdict.result {
        Ok(()) => None,
        Err(RefRefusal::NameConflict { with }) => Some(with.to_string()),
        Err(other) => panic!("{other:?}"),
    });
    assert_eq!(
        found.collect::<Vec<_>>(),
        expected,
        "{before:?} {updates:?}"
    );
}

#[test]
fn verdicts_are_those_of_a_comparison_of_all_pairs() {
    let mut draws = Draws(0x2545_f491_4f6c_dd1d);
    for _ in 0..60 {
        let mut shard = Group::shard();
        shard.run(create(1));
        for _ in 0..6 {
            let before = names_of(&shard);
            let mut named = BTreeSet::new();
            let mut updates = Vec::new();
            for _ in 0..=draws.below(25) {
                let name = draws.name();
                if !named.insert(name.clone()) {
                    continue;
                }
                let is_there = before.contains(&name);
                updates.push(match draws.below(3) {
                    0 if is_there => to_delete(&name, 1),
                    _ if is_there => to_move(&name, 1, 1),
                    _ => to_create(&name, 1),
                });
            }
            push_and_compare(&mut shard, &updates);
        }
    }
}

/// A state that counts its look-ups.
struct Counted<'s> {
    state: &'s State,
    looked_up: Cell<usize>,
}

impl<'s> View for Counted<'s> {
    fn get(&self, key: &[u8]) -> Option<Bytes> {
        self.looked_up.set(self.looked_up.get() + 1);
        self.state.get(key)
    }

    fn range<'v>(
        &'v self,
        from: &[u8],
        prefix: &[u8],
    ) -> impl Iterator<Item = (&'v Bytes, &'v Bytes)> + use<'v, 's> {
        self.looked_up.set(self.looked_up.get() + 1);
        let pairs = self.state.range(from, prefix);
        pairs.inspect(move |_| self.looked_up.set(self.looked_up.get() + 1))
    }
}

/// The number of look-ups when the push is applied, without a request record.
fn lookups(shard: &mut Group, push: UpdateRefs) -> usize {
    let header = shard.header(None);
    let counted = Counted {
        state: &shard.state,
        looked_up: Cell::new(0),
    };
    let outcome = apply(&counted, &header, &refs(push));
    let Reply::RefsUpdated { verdicts } = outcome.reply else {
        panic!("the push is judged");
    };
    assert!(!verdicts.is_empty());
    counted.looked_up.get()
}

/// Apply looked up every folder of every new name: 4,000 names of 500 folders each were two million
/// look-ups.
#[test]
fn names_of_many_folders_cost_no_lookup_a_folder() {
    const NAMES: usize = 100;
    let deep = "a/".repeat(400);
    let mut shard = Group::shard();
    shard.run(create(1));
    let far = (0..NAMES).map(|number| to_create(&format!("refs/heads/{number}/{deep}x"), 1));
    let used = lookups(&mut shard, push(1, far.collect()));
    assert!(used < 10 * NAMES, "{used} lookups");

    // Beside a ref of the same depth, and one in each of the folders on the path to it.
    let mut near = vec![to_create(&format!("refs/heads/{deep}x"), 1)];
    near.extend((1..400).map(|depth| to_create(&format!("refs/heads/{}!", "a/".repeat(depth)), 1)));
    shard.run(refs(push(1, near)));
    let beside = (0..NAMES).map(|number| to_create(&format!("refs/heads/{deep}y{number}"), 1));
    let used = lookups(&mut shard, push(1, beside.collect()));
    assert!(used < 10 * NAMES + 2 * 400, "{used} lookups");
}

/// The refs that a push deletes were passed one by one for each new name above them.
#[test]
fn deleted_refs_are_passed_once() {
    const DELETED: usize = 300;
    const DEPTH: usize = 100;
    let deep = "a/".repeat(DEPTH);
    let mut shard = Group::shard();
    shard.run(create(1));
    let below = |number: usize| format!("refs/heads/{deep}{number:04}");
    let there = (0..=DELETED).map(|number| to_create(&below(number), 1));
    shard.run(refs(push(1, there.collect())));
    // One kept ref, after all of them, conflicts with every folder's name.
    let mut updates: Vec<_> = (0..DELETED)
        .map(|number| to_delete(&below(number), 1))
        .collect();
    let folder = |depth: usize| format!("refs/heads/{}a", "a/".repeat(depth));
    updates.extend((0..DEPTH - 1).map(|depth| to_create(&folder(depth), 1)));
    let used = lookups(&mut shard, push(1, updates.clone()));
    assert!(used < 10 * (DELETED + DEPTH), "{used} lookups");
    push_and_compare(&mut shard, &updates);
}
