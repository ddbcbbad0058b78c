//! One push from its first byte to its report.

use std::io::{BufRead, Write};

use henge_types::{ObjectId, PreviousValue, PushCertificate, RefRefusal, RefUpdate, RefVerdict};

use gix_hashtable::HashSet;
use gix_object::Kind;

use crate::oid::{Oid, to_gix};
use crate::protocol::PushLimits;
use crate::push::closure::{Closure, ClosureError, NoResults, Pushed};
use crate::push::commands::{PushHead, parse_push};
use crate::push::ingest::{IngestError, Ingested, ingest};
use crate::push::nonce::{self, Asked};
use crate::push::policy::PushPolicy;
use crate::push::report::{Doubts, refusal_text, report_results, tell};
use crate::push::{Quarantine, ReceiveError};
use crate::reach::Reach;
use crate::refs::{
    ClosureCheck, CommitError, QuarantinedPack, RefStore, UpdateOutcome, VerifiedPush,
};
use crate::store::{ObjectStore, Objects};

const ATOMIC_FAILURE: &str = "atomic push failure";
const NO_COMMIT: &str = "a branch must point at a commit";

/// The result of a push.
#[derive(Debug, Default)]
pub struct PushSummary {
    /// The request.
    pub head: PushHead,
    /// The verdicts of the commit: one for each committed update, except for updates that failed or
    /// whose outcome is unknown.
    pub verdicts: Vec<RefVerdict>,
    /// The received pack, whether it was kept or not.
    pub pack: Option<QuarantinedPack>,
    /// Counts of the connectivity check.
    pub checked: ClosureCheck,
    /// The reason to refuse the pack, if it was refused.
    pub unpack_error: Option<String>,
}

/// Runs one receive-pack request: commands and pack come from `input`, the report goes to `output`.
///
/// `objects` is the repository's object store. `quarantine` holds the pack until the end; the
/// caller removes its remaining contents in every case. Only [`RefStore::commit`] writes outside of
/// it. If every update is refused before the pack, the pack is left unread.
///
/// # Errors
/// When the push ends without a report: the request is malformed, a disk failed, or the commit
/// failed.
pub fn receive_pack(
    refs: &dyn RefStore,
    objects: &Objects,
    quarantine: &dyn Quarantine,
    input: &mut dyn BufRead,
    output: &mut dyn Write,
    limits: &PushLimits,
) -> Result<PushSummary, ReceiveError> {
    let place = Place {
        objects,
        quarantine,
    };
    receive(refs, place, Transport::Requests, input, output, limits)
}

/// The object store and the quarantine of a push.
#[derive(Clone, Copy)]
pub(crate) struct Place<'a> {
    pub(crate) objects: &'a Objects,
    pub(crate) quarantine: &'a dyn Quarantine,
}

/// The kind of connection.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Transport {
    /// The request stands alone. If every update is refused early, the pack stays unread, and the
    /// transport handles the rest of the body.
    Requests,
    /// The advertisement was on the same stream. If every update is refused early, the pack is read
    /// all the same, as in git: a client reads the report only after it has sent everything.
    Stream,
}

/// [`receive_pack`], over any transport.
pub(crate) fn receive(
    refs: &dyn RefStore,
    place: Place<'_>,
    transport: Transport,
    input: &mut dyn BufRead,
    output: &mut dyn Write,
    limits: &PushLimits,
) -> Result<PushSummary, ReceiveError> {
    let head = parse_push(input, place.objects.format(), limits)?;
    if head.is_empty() {
        return Ok(PushSummary::default());
    }
    let current: Vec<Option<ObjectId>> = head
        .updates
        .iter()
        .map(|update| refs.get(&update.name))
        .collect();
    let policy = refs.push_policy();
    let mut push = Push {
        results: early_results(&head, &current, &policy),
        known_tips: {
            let format = place.objects.format();
            let known = current.iter().flatten();
            known.filter_map(|id| to_gix(*id, format)).collect()
        },
        doubts: Doubts::new(),
        warnings: String::new(),
        summary: PushSummary::default(),
        refs,
        limits,
        policy,
        certificate: judge_certificate(&head, refs, transport),
    };
    push.refuse_too_many_refs(&head, &current);
    push.abort_if_atomic(&head);
    if head.has_pack && push.has_hope() {
        push.take_pack(&head, place, input)?;
    } else if push.has_hope() {
        push.commit(&head)?;
    } else if head.has_pack && transport == Transport::Stream {
        push.drain(place, input)?;
    }
    let unpack = push.summary.unpack_error.clone().map_or(Ok(()), Err);
    tell(&head, &push.warnings, output)
        .and_then(|()| report_results(&head, unpack, &push.results, &push.doubts, output))
        .map_err(ReceiveError::Output)?;
    push.summary.head = head;
    Ok(push.summary)
}

fn judge_certificate(
    head: &PushHead,
    refs: &dyn RefStore,
    transport: Transport,
) -> Option<PushCertificate> {
    let certificate = head.certificate.as_ref()?;
    let asked = match transport {
        Transport::Requests => Asked::Before,
        Transport::Stream => Asked::Here,
    };
    let nonces = refs.nonces();
    let nonce = nonce::judge(nonces.as_ref(), certificate.nonce.as_deref(), asked);
    Some(certificate.judged(nonce, &head.updates))
}

/// Results of updates before the pack is read, from the current refs.
fn early_results(
    head: &PushHead,
    current: &[Option<ObjectId>],
    policy: &PushPolicy,
) -> Vec<Result<(), String>> {
    let check = |update, current| {
        if let Some(refusal) = policy.refusal(update) {
            return Err(refusal);
        }
        early_refusal(update, current).map_or(Ok(()), |refusal| Err(refusal_text(&refusal)))
    };
    head.updates
        .iter()
        .zip(current)
        .map(|(update, current)| check(update, *current))
        .collect()
}

fn early_refusal(update: &RefUpdate, current: Option<ObjectId>) -> Option<RefRefusal> {
    match (update.expected, current) {
        (PreviousValue::MustNotExist, Some(current)) => Some(RefRefusal::Exists { current }),
        (PreviousValue::MustExist, None) => Some(RefRefusal::Missing),
        (PreviousValue::MustExistAndMatch(_), None) if update.new.is_none() => {
            Some(RefRefusal::Missing)
        }
        (PreviousValue::MustExistAndMatch(expected), current) if current != Some(expected) => {
            Some(RefRefusal::Stale { current })
        }
        (
            PreviousValue::Any
            | PreviousValue::MustNotExist
            | PreviousValue::MustExist
            | PreviousValue::MustExistAndMatch(_),
            _,
        ) => None,
    }
}

struct Push<'a> {
    refs: &'a dyn RefStore,
    limits: &'a PushLimits,
    /// Current values of the refs of the push.
    known_tips: HashSet<Oid>,
    /// One for each update.
    results: Vec<Result<(), String>>,
    /// Updates with an unknown outcome; their entries in `results` are ignored.
    doubts: Doubts,
    /// Findings in pushed objects that do not refuse them, as lines for the user.
    warnings: String,
    summary: PushSummary,
    policy: PushPolicy,
    certificate: Option<PushCertificate>,
}

impl Push<'_> {
    /// Whether any update is not refused.
    fn has_hope(&self) -> bool {
        self.results.iter().any(Result::is_ok)
    }

    /// Refuses new refs over the quota of the repository. Deletions in the same push do not free
    /// quota.
    fn refuse_too_many_refs(&mut self, head: &PushHead, current: &[Option<ObjectId>]) {
        let Some(quota) = self.limits.refs else {
            return;
        };
        let mut more = 0;
        let updates = head.updates.iter().zip(current);
        for ((update, current), result) in updates.zip(&mut self.results) {
            if result.is_err() || current.is_some() || update.new.is_none() {
                continue;
            }
            more += 1;
            if quota.is_exceeded_by(more) {
                let max = quota.max;
                *result = Err(refusal_text(&RefRefusal::TooManyRefs { max }));
            }
        }
    }

    /// One refused command of an atomic push refuses all of them.
    fn abort_if_atomic(&mut self, head: &PushHead) {
        let refused = self.results.iter().any(Result::is_err)
            || head.commands.iter().any(|command| command.update.is_err());
        if head.capabilities.atomic && refused {
            for result in self.results.iter_mut().filter(|result| result.is_ok()) {
                *result = Err(ATOMIC_FAILURE.to_owned());
            }
        }
    }

    fn take_pack(
        &mut self,
        head: &PushHead,
        place: Place<'_>,
        input: &mut dyn BufRead,
    ) -> Result<(), ReceiveError> {
        let mut store = place.objects.open()?;
        let ingested = match self.ingest(&store, place.quarantine, input) {
            Ok(ingested) => ingested,
            Err(IngestError::Bases(error)) => return Err(ReceiveError::Check(error)),
            Err(error) if error.is_internal() => return Err(ReceiveError::Ingest(error)),
            Err(error) => {
                self.refuse_pack(error.to_string());
                return Ok(());
            }
        };
        let pushed = match &ingested.pack {
            Some(pack) => Some(Pushed {
                slot: store.add_pack(&pack.pack_path, &pack.idx_path)?,
                external: ingested.external,
            }),
            None => None,
        };
        self.summary.pack = ingested.pack;
        let mut closure = Closure::new(
            self.refs,
            &store,
            pushed,
            self.known_tips.clone(),
            self.policy.objects.as_deref(),
            self.limits,
        );
        let mut outcome = check_tips(&mut closure, &store, head, &mut self.results);
        if outcome.is_ok() && self.results.iter().any(Result::is_ok) {
            outcome = closure.check_other_objects();
        }
        self.summary.checked = closure.stats;
        self.warnings = closure.warnings();
        drop(closure);
        match outcome {
            Ok(()) => {}
            Err(NoResults::Failed(error)) => return Err(ReceiveError::Check(error)),
            Err(NoResults::Unsound(unsound)) => {
                self.refuse_pack(unsound.to_string());
                return Ok(());
            }
        }
        let (results, stop) = (&mut self.results, &self.limits.stop);
        self.policy
            .check_fast_forwards(&store, head, results, stop)
            .map_err(ReceiveError::Check)?;
        drop(store);
        self.abort_if_atomic(head);
        if self.has_hope() {
            self.commit(head)?;
        }
        Ok(())
    }

    /// Streams the pack into the quarantine and indexes it.
    fn ingest(
        &self,
        store: &ObjectStore,
        quarantine: &dyn Quarantine,
        input: &mut dyn BufRead,
    ) -> Result<Ingested, IngestError> {
        let (refs, limits) = (self.refs, self.limits);
        let reach = refs
            .shares_objects()
            .then(|| Reach::new(refs, store, self.known_tips.clone(), &limits.stop));
        ingest(input, store, reach, quarantine, limits)
    }

    /// Reads and discards the pack of a push whose updates are all refused.
    fn drain(&self, place: Place<'_>, input: &mut dyn BufRead) -> Result<(), ReceiveError> {
        let store = place.objects.open()?;
        match self.ingest(&store, place.quarantine, input) {
            Err(error) if error.is_internal() => Err(ReceiveError::Ingest(error)),
            // The earlier reasons to refuse the updates take precedence over errors of the pack.
            Ok(_) | Err(_) => Ok(()),
        }
    }

    fn refuse_pack(&mut self, why: String) {
        self.summary.unpack_error = Some(why);
        for result in &mut self.results {
            *result = Err("unpacker error".to_owned());
        }
    }

    fn commit(&mut self, head: &PushHead) -> Result<(), ReceiveError> {
        let accepted: Vec<_> = (0..head.updates.len())
            .filter(|index| self.results[*index].is_ok())
            .collect();
        let needs_pack = accepted
            .iter()
            .any(|index| head.updates[*index].new.is_some());
        let committed = self.refs.commit(VerifiedPush {
            pack: self.summary.pack.clone().filter(|_| needs_pack),
            updates: accepted
                .iter()
                .map(|index| head.updates[*index].clone())
                .collect(),
            atomic: head.capabilities.atomic,
            options: head.options.clone(),
            certificate: self.certificate.take(),
            checked: &self.summary.checked,
        });
        let verdicts = match committed {
            Ok(verdicts) => verdicts,
            Err(CommitError::Partial { outcomes }) => {
                self.take_outcomes(accepted, outcomes);
                return Ok(());
            }
            Err(error) => return Err(ReceiveError::Commit(error)),
        };
        for (position, index) in accepted.into_iter().enumerate() {
            let verdict = verdicts
                .get(position)
                .filter(|verdict| verdict.name == head.updates[index].name);
            // An update without a verdict is never reported as ok.
            self.results[index] = match verdict.map(|verdict| &verdict.result) {
                Some(Ok(())) => Ok(()),
                Some(Err(refusal)) => Err(refusal_text(refusal)),
                None => Err("the update has no verdict".to_owned()),
            };
        }
        self.summary.verdicts = verdicts;
        Ok(())
    }

    /// Takes the outcomes of a commit that decided only some updates.
    fn take_outcomes(&mut self, accepted: Vec<usize>, outcomes: Vec<UpdateOutcome>) {
        let mut outcomes = outcomes.into_iter();
        for index in accepted {
            let unsaid = || "the update has no verdict".to_owned();
            self.results[index] = match outcomes.next() {
                Some(UpdateOutcome::Judged(verdict)) => {
                    let result = verdict.result.as_ref();
                    let result = result.copied().map_err(refusal_text);
                    self.summary.verdicts.push(verdict);
                    result
                }
                Some(UpdateOutcome::Failed { message }) => Err(message),
                Some(UpdateOutcome::Unknown { message }) => {
                    self.doubts.insert(index, message);
                    Err(unsaid())
                }
                None => {
                    self.doubts.insert(index, unsaid());
                    Err(unsaid())
                }
            };
        }
    }
}

/// Checks all new tips together, and one by one if that fails.
fn check_tips(
    closure: &mut Closure<'_>,
    store: &ObjectStore,
    head: &PushHead,
    results: &mut [Result<(), String>],
) -> Result<(), NoResults> {
    let mut tips: Vec<(usize, Oid)> = Vec::new();
    for (index, update) in head.updates.iter().enumerate() {
        let Some(new) = update.new else {
            continue;
        };
        if results[index].is_err() {
            continue;
        }
        closure.check_stop()?;
        match to_gix(new, store.format()) {
            None => results[index] = Err("object id of another hash".to_owned()),
            Some(id) if update.name.is_branch() && closure.sent_no_commit(&id)? => {
                results[index] = Err(NO_COMMIT.to_owned());
            }
            Some(id) => tips.push((index, id)),
        }
    }
    let all: Vec<_> = tips.iter().map(|(_, id)| *id).collect();
    match closure.check(&all) {
        Ok(()) => return check_branches(store, head, &tips, results),
        Err(ClosureError::NoResults(why)) => return Err(why),
        Err(ClosureError::Refused(refused)) if tips.len() == 1 => {
            results[tips[0].0] = Err(refused.to_string());
            return Ok(());
        }
        Err(ClosureError::Refused(_)) => {}
    }
    for (index, tip) in &tips {
        results[*index] = match closure.check(&[*tip]) {
            Ok(()) => Ok(()),
            Err(ClosureError::Refused(refused)) => Err(refused.to_string()),
            Err(ClosureError::NoResults(why)) => return Err(why),
        };
    }
    check_branches(store, head, &tips, results)
}

/// Checks that branches point at commits. Objects that were not sent may be read now: the
/// repository's own refs reach them.
fn check_branches(
    store: &ObjectStore,
    head: &PushHead,
    tips: &[(usize, Oid)],
    results: &mut [Result<(), String>],
) -> Result<(), NoResults> {
    for (index, tip) in tips {
        let is_branch = head.updates[*index].name.is_branch();
        if is_branch && results[*index].is_ok() && store.kind(tip)? != Some(Kind::Commit) {
            results[*index] = Err(NO_COMMIT.to_owned());
        }
    }
    Ok(())
}
