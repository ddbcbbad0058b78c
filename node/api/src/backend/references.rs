//! The refs of a repository: their values, their protection, and the certificates of their pushes.

use henge_types::{
    ObjectId, Principal, PushCertificateRecord, RefName, RefPattern, RefProtection, RefUpdate,
    RefVerdict, RepoPath,
};

use super::answer::Answer;

/// Refs of a repository, read at one point in time that is not before the request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refs {
    /// The target of HEAD; it need not exist.
    pub head: RefName,
    /// The refs below the requested prefix, by name.
    pub refs: Vec<(RefName, ObjectId)>,
    /// The time of the last change of a ref, milliseconds since the Unix epoch.
    pub updated_at_ms: u64,
}

/// Push certificates of a repository, read at one point in time that is not before the request.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct PushCertificates {
    /// The number of matching certificates.
    pub total: u64,
    /// A page of them, the newest first.
    pub certificates: Vec<PushCertificateRecord>,
}

/// The refs of a repository.
pub trait References {
    /// The refs whose names start with `prefix`; linearizable. Errors: `not_found`, `unavailable`.
    fn refs<'a>(&'a self, path: &'a RepoPath, prefix: &'a str) -> Answer<'a, Refs>;

    /// Changes refs to objects that are reachable already; one verdict per update, in their order.
    /// Errors: `not_found`, `invalid`, `unavailable`, `timeout`.
    fn update_refs<'a>(
        &'a self,
        principal: &'a Principal,
        path: &'a RepoPath,
        updates: Vec<RefUpdate>,
        atomic: bool,
    ) -> Answer<'a, Vec<RefVerdict>>;

    /// The protected refs of a repository, by pattern; linearizable. Errors: `not_found`,
    /// `unavailable`.
    fn protections<'a>(&'a self, path: &'a RepoPath) -> Answer<'a, Vec<RefProtection>>;

    /// Protects refs from deletion and from losing history. Errors: `not_found`, `already_exists`,
    /// `invalid`, `unavailable`, `timeout`.
    fn protect<'a>(
        &'a self,
        principal: &'a Principal,
        path: &'a RepoPath,
        pattern: &'a RefPattern,
    ) -> Answer<'a, ()>;

    /// Removes that protection; the pattern exactly as it was set. Errors: `not_found`,
    /// `unavailable`, `timeout`.
    fn unprotect<'a>(
        &'a self,
        principal: &'a Principal,
        path: &'a RepoPath,
        pattern: &'a RefPattern,
    ) -> Answer<'a, ()>;

    /// The push certificates that a repository keeps, of one ref or of all: at most `limit`, after
    /// the newest `skip`; linearizable. Errors: `not_found`, `unavailable`.
    fn push_certificates<'a>(
        &'a self,
        path: &'a RepoPath,
        reference: Option<&'a RefName>,
        skip: usize,
        limit: usize,
    ) -> Answer<'a, PushCertificates>;
}
