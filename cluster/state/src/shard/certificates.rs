//! Signed pushes: the entry that changes the refs also records the certificate, so neither exists
//! without the other.

use std::collections::BTreeSet;

use henge_types::limits::{PUSH_CERTIFICATES_KEPT_BYTES_MAX, PUSH_CERTIFICATES_KEPT_MAX};
use henge_types::{
    NonceSeed, PushCertificateRecord, RecordedRef, RefVerdict, Refusal, Reply, RepoId,
    SignedUpdate, StoredRecord,
};

use super::{ShardView, push};
use crate::apply::Entry;
use crate::changes::Changes;
use crate::keys;
use crate::outcome::Outcome;
use crate::view::View;

/// A push, and the record of its certificate if any of its updates was accepted: a push without a
/// change must not displace the records of pushes with changes.
pub(super) fn update_refs(
    changes: &mut Changes<'_, impl View>,
    entry: &Entry,
    signed: &SignedUpdate,
) -> Outcome {
    if !signed.certificate.is_well_formed() {
        return Outcome::reply(Reply::Refused(Refusal::Invalid));
    }
    let outcome = push::update_refs(changes, entry, &signed.push);
    if let Reply::RefsUpdated { verdicts } = &outcome.reply
        && verdicts.iter().any(|verdict| verdict.result.is_ok())
    {
        let record = record(entry, signed, verdicts);
        keep(changes, &signed.push.repo, &record);
    }
    outcome
}

fn record(entry: &Entry, signed: &SignedUpdate, verdicts: &[RefVerdict]) -> PushCertificateRecord {
    let certificate = &signed.certificate;
    let accepted = verdicts.iter().filter(|verdict| verdict.result.is_ok());
    let accepted: BTreeSet<_> = accepted.map(|verdict| &verdict.name).collect();
    let refs = certificate.refs.iter().map(|certified| RecordedRef {
        certified: certified.clone(),
        accepted: accepted.contains(&certified.name),
    });
    PushCertificateRecord {
        at: entry.index,
        at_ms: entry.now_ms,
        account: signed.push.pusher.clone(),
        pusher: certificate.pusher.clone(),
        pushee: certificate.pushee.clone(),
        nonce: certificate.nonce,
        signature: certificate.signature,
        refs: refs.collect(),
        text: certificate.text.clone(),
    }
}

/// Adds a record, and removes as many of the oldest as necessary.
fn keep(changes: &mut Changes<'_, impl View>, repo: &RepoId, record: &PushCertificateRecord) {
    let bytes = record.encode();
    let all = keys::push_certificates(repo);
    let known = changes.before().range(&all, &all);
    let mut known: Vec<_> = known.map(|(key, old)| (key.clone(), old.len())).collect();
    // The newest are kept, as long as they fit.
    known.reverse();
    let (mut kept, mut kept_bytes) = (1, bytes.len());
    for (key, old_bytes) in known {
        kept += 1;
        kept_bytes = kept_bytes.saturating_add(old_bytes);
        if kept > PUSH_CERTIFICATES_KEPT_MAX || kept_bytes > PUSH_CERTIFICATES_KEPT_BYTES_MAX {
            changes.delete(key);
        }
    }
    changes.put(keys::push_certificate(repo, record.at), bytes);
}

/// Sets the shard's seed. An existing one stays: nonces that were issued must remain valid.
pub(super) fn set_nonce_seed(changes: &mut Changes<'_, impl View>, seed: &NonceSeed) -> Outcome {
    if ShardView::new(changes.before()).nonce_seed().is_none() {
        changes.put_record(keys::nonce_seed(), seed);
    }
    Outcome::reply(Reply::Done)
}
