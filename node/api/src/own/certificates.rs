//! Push certificates of a repository. Nobody verified their signatures: who reads them can, with the signers' keys.

use axum::Json;
use axum::extract::State;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use henge_auth::Authorized;
use henge_auth::action::InspectRepo;
use henge_types::{LogIndex, ObjectId, PushCertificateRecord, RecordedRef, RefName};
use serde::{Deserialize, Serialize};

use crate::error::ApiError;
use crate::extract::{AtRepo, Params};
use crate::gitea::PageParams;
use crate::router::Api;
use crate::timestamp::rfc3339;

/// A certificate and what became of the push.
#[derive(Debug, Serialize)]
pub(crate) struct Certificate {
    entry: LogIndex,
    at: String,
    account: String,
    pusher: String,
    pushee: Option<String>,
    nonce_status: &'static str,
    nonce_slop_s: Option<i64>,
    signature_kind: Option<&'static str>,
    /// Always false in this release: there are no keys to verify with.
    signature_verified: bool,
    refs: Vec<CertifiedRef>,
    /// The whole of it; null where it is not UTF-8.
    certificate: Option<String>,
    /// The whole of it where it is not UTF-8.
    #[serde(skip_serializing_if = "Option::is_none")]
    certificate_base64: Option<String>,
}

/// A command of a certificate.
#[derive(Debug, Serialize)]
struct CertifiedRef {
    #[serde(rename = "ref")]
    name: RefName,
    old: Option<String>,
    new: Option<String>,
    accepted: bool,
}

impl From<RecordedRef> for CertifiedRef {
    fn from(recorded: RecordedRef) -> Self {
        let text = |id: Option<ObjectId>| id.map(|id| id.to_string());
        Self {
            old: text(recorded.certified.old),
            new: text(recorded.certified.new),
            accepted: recorded.accepted,
            name: recorded.certified.name,
        }
    }
}

impl From<PushCertificateRecord> for Certificate {
    fn from(record: PushCertificateRecord) -> Self {
        let (text, base64) = match std::str::from_utf8(&record.text) {
            Ok(text) => (Some(text.to_owned()), None),
            Err(_) => (None, Some(STANDARD.encode(&record.text))),
        };
        Self {
            entry: record.at,
            at: rfc3339(record.at_ms),
            account: record.account,
            pusher: record.pusher,
            pushee: record.pushee,
            nonce_status: record.nonce.as_str(),
            nonce_slop_s: record.nonce.slop_s(),
            signature_kind: record.signature.map(|kind| kind.as_str()),
            signature_verified: false,
            refs: record.refs.into_iter().map(CertifiedRef::from).collect(),
            certificate: text,
            certificate_base64: base64,
        }
    }
}

#[derive(Debug, Serialize)]
pub(crate) struct CertificatePage {
    total: u64,
    certificates: Vec<Certificate>,
}

#[derive(Debug, Deserialize)]
pub(crate) struct CertificateParams {
    #[serde(rename = "ref")]
    reference: Option<String>,
    page: Option<usize>,
    limit: Option<usize>,
}

/// `GET /api/henge/v1/repos/{owner}/{repo}/push-certificates?ref&page&limit`, the newest first.
pub(crate) async fn list_certificates(
    _: Authorized<InspectRepo>,
    State(api): State<Api>,
    AtRepo(path): AtRepo,
    Params(params): Params<CertificateParams>,
) -> Result<Json<CertificatePage>, ApiError> {
    let reference = params.reference.as_deref().map(str::parse::<RefName>);
    let reference = reference.transpose();
    let reference = reference.map_err(|error| ApiError::invalid(format!("ref: {error}")))?;
    let (page, limit) = (params.page, params.limit);
    let page = PageParams { page, limit }.page()?;
    let (skip, limit) = (page.start(), page.end() - page.start());
    let listed = api
        .backend
        .push_certificates(&path, reference.as_ref(), skip, limit)
        .await?;
    let certificates = listed.certificates.into_iter();
    Ok(Json(CertificatePage {
        total: listed.total,
        certificates: certificates.map(Certificate::from).collect(),
    }))
}
