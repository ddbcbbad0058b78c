//! What pushed objects refer to outside their pack: it must be there, reachable from the repository's own refs, and of the
//! kind that it is named for. What is not reachable is told like what is not there.

use gix_hashtable::HashSet;
use gix_object::Kind;

use crate::oid::Oid;
use crate::push::closure::findings::Findings;
use crate::push::closure::{Closure, ClosureError, Unconnected, Walked};
use crate::push::sent::sent_as_well;

impl Closure<'_> {
    /// Every commit that pushed ones build on must be reachable; then its tree is one to compare with.
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

    /// What is left outside the pack, and every base that the server itself added, must be reachable.
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
            // A base that a parent has in a tree beside a pushed one is as good as that parent; what a pushed tree
            // itself names is among `outside` and gets no such credit.
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
            // Only now: an object that only another repository has is of no kind.
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
