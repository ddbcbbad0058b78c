//! Signed pushes.

use henge_types::{RefName, RepoPath, limits};

use super::{Client, Effect, LIST_BYTES_MAX, get, in_path};
use crate::error::ClientError;
use crate::model::{CertificatePage, PushCertificate};

/// Pages that are requested at most: a repository keeps fewer.
const PAGES_MAX: usize = limits::PUSH_CERTIFICATES_KEPT_MAX / limits::PAGE_ITEMS_MAX + 2;

impl Client {
    /// The push certificates that a repository keeps, of one ref or of all, the newest first. After
    /// a push between two pages one certificate may be listed twice.
    ///
    /// # Errors
    /// `not_found`, and as every call.
    pub async fn push_certificates(
        &self,
        path: &RepoPath,
        reference: Option<&RefName>,
    ) -> Result<Vec<PushCertificate>, ClientError> {
        let of = reference.map_or_else(String::new, |name| {
            format!("&ref={}", in_path(name.as_str()))
        });
        let limit = limits::PAGE_ITEMS_MAX;
        let mut all: Vec<PushCertificate> = Vec::new();
        for page in 1..=PAGES_MAX {
            let path = format!(
                "/api/henge/v1/repos/{path}/push-certificates?page={page}&limit={limit}{of}"
            );
            let call = get(path, LIST_BYTES_MAX);
            let found: CertificatePage = self.json(&call, Effect::Reads).await?;
            let is_last = found.certificates.len() < limit;
            all.extend(found.certificates);
            if is_last {
                break;
            }
        }
        Ok(all)
    }
}
