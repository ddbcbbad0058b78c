//! The objects that a client may want: those that the repository's own refs reach.

use gix_hashtable::HashSet;
use gix_object::Kind;

use crate::fetch::FetchError;
use crate::fetch::serve::Session;
use crate::oid::Oid;
use crate::protocol::AcceptedWants;
use crate::reach::Reach;
use crate::store::ObjectStore;

impl Session<'_> {
    /// Checks that the client may want all objects of `not_tips`. The error names the first one
    /// that it may not want: whether another repository has an object in the same store must not
    /// change that choice.
    pub(super) fn check_wants(
        &self,
        store: &ObjectStore,
        not_tips: &[Oid],
    ) -> Result<(), FetchError> {
        let absent = not_tips.iter().position(|id| !store.contains(id));
        let (before, from) = not_tips.split_at(absent.unwrap_or(not_tips.len()));
        let refused = self.not_ours(store, before)?;
        let named = before.iter().find(|id| refused.contains(*id));
        match named.or_else(|| from.first()) {
            None => Ok(()),
            Some(id) => Err(FetchError::NotOurRef { id: id.to_string() }),
        }
    }

    /// The objects of `not_tips` that the client may not want. All of `not_tips` are in the store
    /// and are no tips.
    pub(super) fn not_ours(
        &self,
        store: &ObjectStore,
        not_tips: &[Oid],
    ) -> Result<HashSet<Oid>, FetchError> {
        match self.limits.policy.wants {
            _ if not_tips.is_empty() => return Ok(HashSet::default()),
            AcceptedWants::Any => return Ok(HashSet::default()),
            AcceptedWants::Tips => return Ok(not_tips.iter().copied().collect()),
            AcceptedWants::Reachable => {}
        }
        let mut commits = HashSet::default();
        let mut others = HashSet::default();
        for id in not_tips {
            if self.work.is_set() {
                return Err(FetchError::Stopped);
            }
            match store.kind(id)? {
                Some(Kind::Commit) => commits.insert(*id),
                Some(Kind::Tree | Kind::Blob | Kind::Tag) | None => others.insert(*id),
            };
        }
        let mut reach = Reach::new(self.refs, store, HashSet::default(), &self.work);
        reach.prove_commits(&mut commits)?;
        reach.prove_objects(&mut others, &[])?;
        commits.extend(others);
        Ok(commits)
    }
}
