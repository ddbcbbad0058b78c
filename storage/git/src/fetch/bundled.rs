//! Bundles: the response to the command `bundle-uri`, the pack of a bundle, and the check whether
//! it may still be served.

use henge_types::ObjectId;

use crate::fetch::emit::{Accepts, write_pack};
use crate::fetch::graph::Graph;
use crate::fetch::request::{Fetch, not_a_fetch};
use crate::fetch::select::not_tips;
use crate::fetch::serve::{Choice, Session, wants};
use crate::fetch::{FetchError, FetchSummary};
use crate::oid::{Oid, to_gix};
use crate::output::Output;
use crate::pkt;
use crate::protocol::{FetchLimits, Stop};
use crate::refs::RefStore;
use crate::store::{ObjectStore, Objects, StoreError};

impl Session<'_> {
    /// Serves `bundle-uri`: gitprotocol-v2(5).
    pub(super) fn bundle_uri(&self, output: &mut dyn Output) -> Result<(), FetchError> {
        let Some(bundles) = &self.limits.bundles else {
            return Err(not_a_fetch(b"bundle-uri"));
        };
        // The lookup of a bundle may take a walk, and a request may repeat the command. Therefore
        // the wait for a bundle counts as work, too.
        for (key, value) in bundles.lines(self.refs, self.objects, &self.work) {
            let line = format!("{key}={value}");
            if line.len() > pkt::DATA_BYTES_MAX {
                tracing::warn!(key, "the value is too long for a line of the protocol");
                continue;
            }
            pkt::write(output, line.as_bytes())?;
        }
        Ok(pkt::write_flush(output)?)
    }
}

fn ids(tips: &[ObjectId], objects: &Objects) -> Vec<Oid> {
    let format = objects.format();
    let ids = tips.iter().filter_map(|id| to_gix(*id, format));
    let mut ids: Vec<_> = ids.collect();
    ids.sort_unstable();
    ids.dedup();
    ids
}

/// Writes the pack of everything that `tips` reach, as for a clone that wants them, without
/// side-band frames.
///
/// # Errors
/// When the store cannot be read, `stop` is set, or the output breaks.
pub(crate) fn write_tips(
    refs: &dyn RefStore,
    objects: &Objects,
    tips: &[ObjectId],
    stop: &Stop,
    output: &mut dyn Output,
) -> Result<FetchSummary, FetchError> {
    let limits = FetchLimits {
        stop: stop.clone(),
        ..FetchLimits::default()
    };
    let session = Session::new(refs, objects, &limits);
    let store = objects.open()?;
    let request = Fetch {
        wants: ids(tips, objects),
        done: true,
        ofs_delta: true,
        no_progress: true,
        ..Fetch::default()
    };
    let mut sieve = session.sieve(&store, None)?;
    let mut graph = Graph::new(&store, stop);
    let wanted = wants(&mut graph, &request.wants)?;
    let cut = session.cut(&mut graph, &request, &wanted)?;
    let choice = Choice {
        common: &[],
        cut: &cut,
        tick: stop,
    };
    let selection = session.select(&mut graph, &request, &wanted, choice, &mut sieve)?;
    drop(graph);
    let accepts = Accepts {
        ofs_delta: true,
        thin: false,
    };
    write_pack(&store, selection, accepts, stop, output)
}

/// The right of a client to want some objects.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Standing {
    /// Lasts as long as the refs do not change.
    Reached,
    /// Lasts for a while: some of the objects were tips until recently.
    Former,
    /// None.
    Lost,
}

/// Whether a client may want all of `tips` now, by the rules of a fetch.
///
/// # Errors
/// When the store cannot be read or `stop` is set.
pub(crate) fn standing(
    refs: &dyn RefStore,
    objects: &Objects,
    tips: &[ObjectId],
    stop: &Stop,
) -> Result<Standing, FetchError> {
    let limits = FetchLimits {
        stop: stop.clone(),
        ..FetchLimits::default()
    };
    let session = Session::new(refs, objects, &limits);
    let mut left = ids(tips, objects);
    left.retain(|id| !session.index().tips(refs).contains(id));
    if left.is_empty() {
        return Ok(Standing::Reached);
    }
    let not_recent = not_tips(refs, session.index(), &left);
    if not_recent.is_empty() {
        // Right after a push: no walk is needed yet.
        return Ok(Standing::Former);
    }
    let store = objects.open()?;
    if proven(&session, &store, &left)? {
        return Ok(Standing::Reached);
    }
    match proven(&session, &store, &not_recent)? {
        true => Ok(Standing::Former),
        false => Ok(Standing::Lost),
    }
}

fn proven(session: &Session<'_>, store: &ObjectStore, ids: &[Oid]) -> Result<bool, FetchError> {
    match session.check_wants(store, ids) {
        Ok(()) => Ok(true),
        Err(FetchError::NotOurRef { .. } | FetchError::Store(StoreError::Missing { .. })) => {
            Ok(false)
        }
        Err(error) => Err(error),
    }
}
