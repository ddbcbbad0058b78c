//! A naive model of pushes, including signed ones.

use std::collections::BTreeSet;

use henge_state::Effect;
use henge_types::command::VERSION_REPOS;
use henge_types::limits::{FORMER_TIP_MS, TIME_KEPT_MS};
use henge_types::{
    NetworkId, ObjectFormat, ObjectId, PreviousValue, PushCertificate, PushCertificateRecord,
    RecordedRef, RefName, RefRefusal, RefUpdate, RefVerdict, Refusal, Reply, SignedUpdate,
    UpdateRefs,
};

use super::Answer;
use super::group::ModelEntry;
use super::networks::{self, ModelNetwork};
use super::shard::{ModelRepo, ShardModel};

/// The reason why a push has no verdicts.
enum Unjudged {
    Refused(Refusal),
    /// The leader has to check again.
    Recheck,
}

impl From<Refusal> for Unjudged {
    fn from(refusal: Refusal) -> Self {
        Self::Refused(refusal)
    }
}

impl ShardModel {
    pub(super) fn push(&mut self, push: &UpdateRefs, entry: ModelEntry) -> Answer {
        let verdicts = match self.judge(push) {
            Ok(verdicts) => verdicts,
            Err(Unjudged::Refused(refusal)) => return Answer::done(Err(refusal)),
            Err(Unjudged::Recheck) => return Answer::reply(Reply::Recheck),
        };
        let mut effects = Vec::new();
        if verdicts.iter().any(|verdict| verdict.result.is_ok()) {
            let repo = self.live(&push.repo, push.generation);
            let network = repo.expect("it was judged").network;
            if !is_full(&verdicts) {
                effects = self.name_packs(&network, push, entry);
                if verdicts.iter().any(|verdict| verdict.result.is_err()) {
                    self.suspect(&network);
                }
            }
            self.forget_former_tips(entry);
            self.move_refs(push, &verdicts, entry);
        }
        Answer {
            reply: Reply::RefsUpdated { verdicts },
            effects,
        }
    }

    /// A push, and its certificate if an update was accepted.
    pub(super) fn push_signed(&mut self, signed: &SignedUpdate, entry: ModelEntry) -> Answer {
        if !is_well_formed_certificate(&signed.certificate) {
            return Answer::done(Err(Refusal::Invalid));
        }
        let answer = self.push(&signed.push, entry);
        if let Reply::RefsUpdated { verdicts } = &answer.reply {
            self.keep_certificate(signed, verdicts, entry);
        }
        answer
    }

    fn keep_certificate(
        &mut self,
        signed: &SignedUpdate,
        verdicts: &[RefVerdict],
        entry: ModelEntry,
    ) {
        let SignedUpdate { push, certificate } = signed;
        let accepted: Vec<&RefName> = accepted(push, verdicts)
            .map(|(update, _)| &update.name)
            .collect();
        if accepted.is_empty() {
            return;
        }
        let refs = certificate.refs.iter().map(|certified| RecordedRef {
            certified: certified.clone(),
            accepted: accepted.contains(&&certified.name),
        });
        let record = PushCertificateRecord {
            at: entry.index,
            at_ms: entry.now_ms,
            account: push.pusher.clone(),
            pusher: certificate.pusher.clone(),
            pushee: certificate.pushee.clone(),
            nonce: certificate.nonce,
            signature: certificate.signature,
            refs: refs.collect(),
            text: certificate.text.clone(),
        };
        let repo = self.live_mut(&push.repo, push.generation);
        repo.expect("it was judged").certificates.push(record);
    }

    fn judge(&self, push: &UpdateRefs) -> Result<Vec<RefVerdict>, Unjudged> {
        let repo = self.live(&push.repo, push.generation)?;
        if !self.names_its_format(repo, push) || !is_well_formed(push) {
            return Err(Unjudged::Refused(Refusal::Invalid));
        }
        let network = self.networks.get(&repo.network);
        let network = network.expect("the network of a live repository");
        if network.pruned_at.is_some_and(|at| push.checked_at < at) {
            return Err(Unjudged::Recheck);
        }
        if repo.archived {
            return Ok(archived(repo, push));
        }
        if !repo.takes_pushes_of(&push.pusher) {
            return Err(Unjudged::Refused(Refusal::WrongState { repo: push.repo }));
        }
        let verdict = |update: &RefUpdate| {
            let old = repo.refs.get(&update.name).copied();
            RefVerdict {
                name: update.name.clone(),
                old,
                result: expected(update.expected, old),
            }
        };
        let mut verdicts: Vec<_> = push.updates.iter().map(verdict).collect();
        refuse_protected(repo, push, &mut verdicts)?;
        refuse_conflicts(repo, push, &mut verdicts);
        refuse_refs(repo, push, &mut verdicts);
        refuse_bytes((repo, network), push, &mut verdicts);
        if push.atomic && verdicts.iter().any(|verdict| verdict.result.is_err()) {
            for verdict in verdicts.iter_mut().filter(|verdict| verdict.result.is_ok()) {
                verdict.result = Err(RefRefusal::AtomicAborted);
            }
        }
        Ok(verdicts)
    }

    /// Whether values and packs have the hash of the repository. Replicas that know one hash only
    /// accept every value.
    fn names_its_format(&self, repo: &ModelRepo, push: &UpdateRefs) -> bool {
        let values = push.updates.iter().filter_map(|update| update.new);
        let packs = push.packs.iter().map(|pack| *pack.pack.checksum());
        let mut ids = values.chain(packs);
        let knows_one = self.group.version < VERSION_REPOS;
        (knows_one && repo.object_format == ObjectFormat::Sha1)
            || ids.all(|id| id.format() == repo.object_format)
    }

    fn name_packs(
        &mut self,
        network: &NetworkId,
        push: &UpdateRefs,
        entry: ModelEntry,
    ) -> Vec<Effect> {
        let known = self.network_mut(network);
        let known = known.expect("the network of a live repository");
        let mut effects = Vec::new();
        for pack in &push.packs {
            known.name(pack, entry);
            effects.push(Effect::InstallPack {
                network: *network,
                pack: pack.clone(),
            });
        }
        effects
    }

    /// An accepted push removes expired former tips: the next clock may be behind. In a group that
    /// keeps its own time, a former tip with a time ahead gets the present time.
    fn forget_former_tips(&mut self, entry: ModelEntry) {
        let ahead_ms = entry.now_ms.saturating_add(TIME_KEPT_MS + 1);
        for repo in self.repos.values_mut().flatten() {
            for at_ms in repo.lost.values_mut() {
                if entry.time_is_replicated && *at_ms >= ahead_ms {
                    *at_ms = entry.now_ms;
                }
            }
            let is_wanted = |at_ms: u64| entry.now_ms.saturating_sub(at_ms) <= FORMER_TIP_MS;
            repo.lost.retain(|_, at_ms| is_wanted(*at_ms));
        }
    }

    fn move_refs(&mut self, push: &UpdateRefs, verdicts: &[RefVerdict], entry: ModelEntry) {
        let repo = self.live_mut(&push.repo, push.generation);
        let repo = repo.expect("it was judged");
        let network = repo.network;
        let had_branches = repo.refs.keys().any(RefName::is_branch);
        let mut lost = Vec::new();
        let mut moved = false;
        for (update, verdict) in accepted(push, verdicts) {
            if update.new == verdict.old {
                continue;
            }
            moved = true;
            match update.new {
                Some(new) => repo.refs.insert(update.name.clone(), new),
                None => repo.refs.remove(&update.name),
            };
            if let Some(old) = verdict.old {
                let at_ms = repo.lost.entry(old).or_insert(entry.now_ms);
                *at_ms = entry.now_ms.max(*at_ms);
                lost.push(old);
            }
        }
        if !moved {
            return;
        }
        // The first branches of a repository: HEAD points at one of them.
        let mut updates = accepted(push, verdicts).map(|(update, _)| update);
        let first = updates.find(|update| update.new.is_some() && update.name.is_branch());
        let head_exists = repo.refs.contains_key(&repo.head);
        if let (false, false, Some(first)) = (had_branches, head_exists, first) {
            repo.head = first.name.clone();
        }
        repo.touch(entry);
        repo.make_mirrors_due(entry);
        let mark = self.networks.get_mut(&network);
        if let Some(mark) = mark.and_then(|network| network.mark.as_mut()) {
            mark.lost.extend(lost);
        }
    }
}

/// The accepted updates and their verdicts, in the order of the push.
fn accepted<'a>(
    push: &'a UpdateRefs,
    verdicts: &'a [RefVerdict],
) -> impl Iterator<Item = (&'a RefUpdate, &'a RefVerdict)> {
    let updates = push.updates.iter().zip(verdicts);
    updates.filter(|(_, verdict)| verdict.result.is_ok())
}

/// Whether the packs of the push exceed the quota.
fn is_full(verdicts: &[RefVerdict]) -> bool {
    let mut results = verdicts.iter().map(|verdict| &verdict.result);
    results.any(|result| matches!(result, Err(RefRefusal::PacksFull { .. })))
}

/// One or more refs and any packs, without duplicates; no value is all zeros.
fn is_well_formed(push: &UpdateRefs) -> bool {
    let names: BTreeSet<_> = push.updates.iter().map(|update| &update.name).collect();
    let packs: BTreeSet<_> = push.packs.iter().map(|pack| pack.pack).collect();
    let mut values = push.updates.iter().filter_map(|update| update.new);
    !push.updates.is_empty()
        && names.len() == push.updates.len()
        && packs.len() == push.packs.len()
        && push.packs.iter().all(networks::is_whole)
        && !values.any(|value| value.as_bytes().iter().all(|byte| *byte == 0))
}

/// One or more refs, without duplicates.
fn is_well_formed_certificate(certificate: &PushCertificate) -> bool {
    let names: BTreeSet<_> = certificate.refs.iter().map(|one| &one.name).collect();
    !certificate.refs.is_empty() && names.len() == certificate.refs.len()
}

fn archived(repo: &ModelRepo, push: &UpdateRefs) -> Vec<RefVerdict> {
    let refused = |update: &RefUpdate| RefVerdict {
        name: update.name.clone(),
        old: repo.refs.get(&update.name).copied(),
        result: Err(RefRefusal::Archived),
    };
    push.updates.iter().map(refused).collect()
}

fn expected(expected: PreviousValue, old: Option<ObjectId>) -> Result<(), RefRefusal> {
    match expected {
        PreviousValue::Any => Ok(()),
        PreviousValue::MustNotExist => match old {
            Some(current) => Err(RefRefusal::Exists { current }),
            None => Ok(()),
        },
        PreviousValue::MustExist => old.map(|_| ()).ok_or(RefRefusal::Missing),
        PreviousValue::MustExistAndMatch(wanted) if old == Some(wanted) => Ok(()),
        PreviousValue::MustExistAndMatch(_) => Err(RefRefusal::Stale { current: old }),
    }
}

/// A protected ref is not deleted. A move of it must have been checked by the leader, from this
/// value and with these patterns.
fn refuse_protected(
    repo: &ModelRepo,
    push: &UpdateRefs,
    verdicts: &mut [RefVerdict],
) -> Result<(), Unjudged> {
    for (update, verdict) in push.updates.iter().zip(verdicts) {
        let changes_it = verdict.old.is_some() && verdict.old != update.new;
        let mut patterns = repo.protected.keys();
        let pattern = patterns.find(|pattern| pattern.matches(&update.name));
        let Some(pattern) = pattern.filter(|_| changes_it && verdict.result.is_ok()) else {
            continue;
        };
        if update.new.is_none() {
            let pattern = pattern.clone();
            verdict.result = Err(RefRefusal::ProtectedFromDeletion { pattern });
            continue;
        }
        let names_it = matches!(update.expected, PreviousValue::MustExistAndMatch(_));
        if !names_it || push.checked_at < repo.protected_at {
            return Err(Unjudged::Recheck);
        }
    }
    Ok(())
}

/// A new ref is neither below nor above another ref, after the accepted deletions.
fn refuse_conflicts(repo: &ModelRepo, push: &UpdateRefs, verdicts: &mut [RefVerdict]) {
    let mut names: BTreeSet<RefName> = repo.refs.keys().cloned().collect();
    for (update, _) in accepted(push, verdicts).filter(|(update, _)| update.new.is_none()) {
        names.remove(&update.name);
    }
    for verdict in new_refs(push, verdicts) {
        let with = names.iter().find(|name| in_the_way(name, &verdict.name));
        if let Some(with) = with.cloned() {
            verdict.result = Err(RefRefusal::NameConflict { with });
        } else {
            names.insert(verdict.name.clone());
        }
    }
}

/// New refs beyond the limit are refused, in the order of the push.
fn refuse_refs(repo: &ModelRepo, push: &UpdateRefs, verdicts: &mut [RefVerdict]) {
    let Some(max) = repo.limits.refs_max else {
        return;
    };
    let mut held = u64::try_from(repo.refs.len()).expect("a few refs");
    for verdict in new_refs(push, verdicts) {
        if held < max {
            held += 1;
        } else {
            verdict.result = Err(RefRefusal::TooManyRefs { max });
        }
    }
}

/// The verdicts of the refs that the push would create.
fn new_refs<'a>(
    push: &'a UpdateRefs,
    verdicts: &'a mut [RefVerdict],
) -> impl Iterator<Item = &'a mut RefVerdict> {
    let updates = push.updates.iter().zip(verdicts);
    updates.filter_map(|(update, verdict)| {
        let is_new = update.new.is_some() && verdict.old.is_none() && verdict.result.is_ok();
        is_new.then_some(verdict)
    })
}

/// Refuses each new value if the packs that are new to the manifest exceed the quota.
fn refuse_bytes(
    (repo, network): (&ModelRepo, &ModelNetwork),
    push: &UpdateRefs,
    verdicts: &mut [RefVerdict],
) {
    let Some(max) = repo.limits.network_bytes_max else {
        return;
    };
    let packs = push.packs.iter();
    let new = packs.filter(|pack| !network.packs.contains_key(&pack.pack));
    let bytes: u64 = new.map(|pack| pack.pack_bytes + pack.idx_bytes).sum();
    let named = network.packs.values();
    let used: u64 = named.map(|pack| pack.pack_bytes + pack.idx_bytes).sum();
    if bytes == 0 || used + bytes <= max {
        return;
    }
    for (update, verdict) in push.updates.iter().zip(verdicts) {
        if update.new.is_some() && verdict.result.is_ok() {
            verdict.result = Err(RefRefusal::PacksFull { used, max, bytes });
        }
    }
}

fn in_the_way(one: &RefName, other: &RefName) -> bool {
    let below = |upper: &RefName, lower: &RefName| {
        lower
            .as_str()
            .strip_prefix(upper.as_str())
            .is_some_and(|rest| rest.starts_with('/'))
    };
    below(one, other) || below(other, one)
}
