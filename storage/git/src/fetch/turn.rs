//! When an answer may be made: each costs memory and a processor until it is known what the client lacks.

use crate::fetch::FetchError;
use crate::fetch::graph::Node;
use crate::fetch::serve::Session;
use crate::responses::{MakingTurn, Work};
use crate::store::ObjectStore;

/// Objects of a repository, in all, of which an answer is made without a turn: some hundredths of a second.
const OBJECTS_WITHOUT_TURN: u64 = 20_000;

impl Session<'_> {
    /// Waits until the answer may be made to a client that has `common`: nothing is waited for where all there is is little.
    pub(super) fn making_turn(
        &self,
        store: &ObjectStore,
        common: &[Node],
    ) -> Result<Option<MakingTurn>, FetchError> {
        let Some(responses) = &self.limits.responses else {
            return Ok(None);
        };
        let objects = store.packs().iter().map(|pack| u64::from(pack.objects()));
        if objects.sum::<u64>() <= OBJECTS_WITHOUT_TURN {
            return Ok(None);
        }
        let work = match common.is_empty() {
            true => Work::Clone,
            false => Work::Fetch,
        };
        let turn = responses.making_turn(work, self.limits.asker, &self.limits.stop);
        turn.map(Some).ok_or(FetchError::Stopped)
    }
}
