//! Refs, their protection, and push certificates.

use std::collections::BTreeMap;

use futures::FutureExt;
use henge_api::{Answer, PushCertificates, References, Refs};
use henge_git::http::ServiceError;
use henge_types::{
    ErrorCode, ObjectId, PreviousValue, Principal, PushCertificateRecord, RefName, RefPattern,
    RefProtection, RefRefusal, RefUpdate, RefVerdict, RepoPath,
};

use super::{CREATED_AT_MS, Fault, Memory, UPDATED_AT_MS, lock, no_such};

fn verdict(refs: &BTreeMap<RefName, ObjectId>, update: &RefUpdate) -> RefVerdict {
    let current = refs.get(&update.name).copied();
    let result = match (update.expected, current) {
        (PreviousValue::Any, _)
        | (PreviousValue::MustNotExist, None)
        | (PreviousValue::MustExist, Some(_)) => Ok(()),
        (PreviousValue::MustNotExist, Some(current)) => Err(RefRefusal::Exists { current }),
        (PreviousValue::MustExist, None) => Err(RefRefusal::Missing),
        (PreviousValue::MustExistAndMatch(wanted), current) => match current {
            Some(current) if current == wanted => Ok(()),
            _ => Err(RefRefusal::Stale { current }),
        },
    };
    RefVerdict {
        name: update.name.clone(),
        old: current,
        result,
    }
}

impl References for Memory {
    fn refs<'a>(&'a self, path: &'a RepoPath, prefix: &'a str) -> Answer<'a, Refs> {
        if let Fault::ShardLost(lost) = *lock(&self.fault)
            && path.to_string() == lost
        {
            let error =
                ServiceError::new(ErrorCode::Unavailable, "the shard has no leader".to_owned());
            return async move { Err(error) }.boxed();
        }
        self.unless_broken(move |repos| {
            let repo = repos.get(&path.key()).ok_or_else(|| no_such(path))?;
            let refs = repo.refs.iter().map(|(name, tip)| (name.clone(), *tip));
            let below = refs.filter(|(name, _)| name.as_str().starts_with(prefix));
            let updated_at_ms = if repo.refs.is_empty() {
                0
            } else {
                UPDATED_AT_MS
            };
            Ok(Refs {
                head: repo.record.default_branch.clone(),
                refs: below.collect(),
                updated_at_ms,
            })
        })
    }

    fn update_refs<'a>(
        &'a self,
        _: &'a Principal,
        path: &'a RepoPath,
        updates: Vec<RefUpdate>,
        atomic: bool,
    ) -> Answer<'a, Vec<RefVerdict>> {
        self.unless_broken(move |repos| {
            let repo = repos.get_mut(&path.key()).ok_or_else(|| no_such(path))?;
            let verdicts = updates.iter().map(|update| verdict(&repo.refs, update));
            let mut verdicts: Vec<_> = verdicts.collect();
            if atomic && verdicts.iter().any(|verdict| verdict.result.is_err()) {
                let accepted = verdicts.iter_mut().filter(|verdict| verdict.result.is_ok());
                for verdict in accepted {
                    verdict.result = Err(RefRefusal::AtomicAborted);
                }
            }
            for (update, verdict) in updates.iter().zip(&verdicts) {
                match (&verdict.result, update.new) {
                    (Ok(()), Some(new)) => drop(repo.refs.insert(update.name.clone(), new)),
                    (Ok(()), None) => drop(repo.refs.remove(&update.name)),
                    (Err(_), _) => {}
                }
            }
            Ok(verdicts)
        })
    }

    fn protections<'a>(&'a self, path: &'a RepoPath) -> Answer<'a, Vec<RefProtection>> {
        self.unless_broken(move |repos| {
            let repo = repos.get(&path.key()).ok_or_else(|| no_such(path))?;
            Ok(repo.protected.clone())
        })
    }

    fn protect<'a>(
        &'a self,
        _: &'a Principal,
        path: &'a RepoPath,
        pattern: &'a RefPattern,
    ) -> Answer<'a, ()> {
        self.unless_broken(move |repos| {
            let repo = repos.get_mut(&path.key()).ok_or_else(|| no_such(path))?;
            if repo.protected.iter().any(|rule| rule.pattern == *pattern) {
                let text = "these refs are protected already".to_owned();
                return Err(ServiceError::new(ErrorCode::AlreadyExists, text));
            }
            repo.protected.push(RefProtection {
                pattern: pattern.clone(),
                created_at_ms: CREATED_AT_MS,
            });
            Ok(())
        })
    }

    fn unprotect<'a>(
        &'a self,
        _: &'a Principal,
        path: &'a RepoPath,
        pattern: &'a RefPattern,
    ) -> Answer<'a, ()> {
        self.unless_broken(move |repos| {
            let repo = repos.get_mut(&path.key()).ok_or_else(|| no_such(path))?;
            let before = repo.protected.len();
            repo.protected.retain(|rule| rule.pattern != *pattern);
            if repo.protected.len() == before {
                let text = "no refs are protected by this".to_owned();
                return Err(ServiceError::new(ErrorCode::NotFound, text));
            }
            Ok(())
        })
    }

    fn push_certificates<'a>(
        &'a self,
        path: &'a RepoPath,
        reference: Option<&'a RefName>,
        skip: usize,
        limit: usize,
    ) -> Answer<'a, PushCertificates> {
        self.unless_broken(move |repos| {
            let repo = repos.get(&path.key()).ok_or_else(|| no_such(path))?;
            let covers = |record: &&PushCertificateRecord| {
                let mut refs = record.refs.iter();
                reference.is_none_or(|name| refs.any(|found| found.certified.name == *name))
            };
            let found: Vec<_> = repo.certificates.iter().filter(covers).collect();
            let page = found.iter().rev().skip(skip).take(limit);
            Ok(PushCertificates {
                total: u64::try_from(found.len()).expect("few"),
                certificates: page.map(|record| (*record).clone()).collect(),
            })
        })
    }
}
