//! References of pushed objects to objects outside their pack. Such an object must exist, be
//! reachable from the repository's own refs, and have the kind that the reference implies. An
//! unreachable object is reported like a missing one.

use gix_hashtable::HashSet;
use gix_object::Kind;

use crate::oid::Oid;
use crate::push::closure::findings::Findings;
use crate::push::closure::{Closure, ClosureError, Unconnected, Walked};
use crate::push::sent::sent_as_well;

impl Closure<'_> {
    /// Proves that every commit that pushed commits build on is reachable. Its tree then serves for
    /// comparison.
    pub(super) fn prove_boundary(&mut self, findings: &mut Findings) -> Result<(), ClosureError> {
        let outside = findings.outside.iter();
        let named: Vec<_> = outside.map(|(id, kind)| (*id, *kind)).collect();
        for (id, kind) in named {
            self.check_stop()?;
            match self.store.kind(&id)? {
                None => findings.missing = Some(id),
                Some(Kind::Commit) if kind.is_none_or(|kind| kind == Kind::Commit) => {
                    findings.boundary.insert(id);
                }
                Some(Kind::Commit | Kind::Tree | Kind::Blob | Kind::Tag) => {}
            }
        }
        let mut unproven = findings.boundary.clone();
        self.stats.proven += unproven.len() as u64;
        self.reach.prove_commits(&mut unproven)?;
        findings.boundary.retain(|id| !unproven.contains(id));
        if let Some(id) = unproven.into_iter().min() {
            findings.missing = Some(id);
        }
        let mut buffer = Vec::new();
        for id in &findings.boundary {
            let commit = self.store.commit(id, &mut buffer)?;
            findings.trees.insert(*id, commit.tree);
            findings.outside.remove(id);
        }
        Ok(())
    }

    /// Proves that the remaining objects outside the pack are reachable. In a store of one
    /// repository this includes every base that the server added; in a shared store those were
    /// proven before.
    pub(super) fn prove_outside(&mut self, findings: &Findings) -> Result<Walked, ClosureError> {
        if let Some(id) = findings.missing {
            return Err(Unconnected::Missing { id }.into());
        }
        let outside = findings.outside.iter();
        let mut outside: Vec<_> = outside.map(|(id, kind)| (*id, *kind)).collect();
        outside.sort_unstable();
        let mut unproven = HashSet::default();
        let mut of_other_kind = None;
        for (id, kind) in outside {
            let found = self.store.kind(&id)?;
            let found = found.ok_or(Unconnected::Missing { id })?;
            if kind.is_some_and(|kind| kind != found) {
                of_other_kind = Some(id);
            }
            unproven.insert(id);
        }
        if let Some(pushed) = self.pushed.as_ref().filter(|_| !self.is_shared) {
            // A base that a parent has in a tree beside a pushed one has the status of that parent.
            // An object that a pushed tree names is in `outside`, and needs a proof.
            let unknown = |id: &&Oid| !findings.beside.contains(*id);
            unproven.extend(pushed.external.iter().filter(unknown).copied());
        }
        if !unproven.is_empty() {
            self.stats.proven += unproven.len() as u64;
            let commits = findings.boundary.iter();
            let trees = commits.filter_map(|commit| findings.trees.get(commit).copied());
            let mut likely: Vec<_> = trees.collect();
            likely.sort_unstable();
            if self.prove_unproven(unproven, &likely)? == Walked::Again {
                return Ok(Walked::Again);
            }
        }
        match of_other_kind {
            // Only after the proof: the kind of an object that only another repository has must not
            // show.
            Some(id) => Err(Unconnected::Malformed { id }.into()),
            None => Ok(Walked::Complete),
        }
    }

    fn prove_unproven(
        &mut self,
        unproven: HashSet<Oid>,
        likely: &[Oid],
    ) -> Result<Walked, ClosureError> {
        let mut commits = HashSet::default();
        let mut objects = HashSet::default();
        for id in unproven {
            if self.store.kind(&id)? == Some(Kind::Commit) {
                commits.insert(id);
            } else {
                objects.insert(id);
            }
        }
        self.reach.prove_commits(&mut commits)?;
        self.reach.prove_objects(&mut objects, likely)?;
        objects.extend(commits);
        if let Some(pushed) = &mut self.pushed {
            let sent = sent_as_well(self.store, pushed, &objects);
            if !sent.is_empty() {
                pushed.external.retain(|id| !sent.contains(id));
                return Ok(Walked::Again);
            }
        }
        match objects.into_iter().min() {
            None => Ok(Walked::Complete),
            Some(id) => Err(Unconnected::Missing { id }.into()),
        }
    }
}
