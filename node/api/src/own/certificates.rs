//! Push certificates of a repository. Their signatures are not verified: a reader who has the
//! signers' keys can verify them.

use axum::Json;
use axum::extract::State;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use henge_auth::Authorized;
use henge_auth::action::InspectRepo;
use henge_client::model::{CertificatePage, CertifiedRef, PushCertificate};
use henge_types::{ObjectId, PushCertificateRecord, RecordedRef, RefName};
use serde::Deserialize;

use crate::api::Api;
use crate::error::ApiError;
use crate::extract::{AtRepo, Params};
use crate::gitea::PageParams;
use crate::routes::{Routes, get};
use crate::timestamp::rfc3339;

pub(super) fn routes() -> Routes {
    Routes::new().at(
        "/api/henge/v1/repos/{owner}/{repo}/push-certificates",
        get(InspectRepo, list_certificates),
    )
}

fn certified(recorded: RecordedRef) -> CertifiedRef {
    let text = |id: Option<ObjectId>| id.map(|id| id.to_string());
    CertifiedRef {
        old: text(recorded.certified.old),
        new: text(recorded.certified.new),
        accepted: recorded.accepted,
        name: recorded.certified.name.into(),
    }
}

fn certificate(record: PushCertificateRecord) -> PushCertificate {
    let (text, base64) = match std::str::from_utf8(&record.text) {
        Ok(text) => (Some(text.to_owned()), None),
        Err(_) => (None, Some(STANDARD.encode(&record.text))),
    };
    PushCertificate {
        entry: record.at.get(),
        at: rfc3339(record.at_ms),
        account: record.account,
        pusher: record.pusher,
        pushee: record.pushee,
        nonce_status: record.nonce.as_str().to_owned(),
        nonce_slop_s: record.nonce.slop_s(),
        signature_kind: record.signature.map(|kind| kind.as_str().to_owned()),
        signature_verified: false,
        refs: record.refs.into_iter().map(certified).collect(),
        certificate: text,
        certificate_base64: base64,
    }
}

#[derive(Debug, Deserialize)]
struct CertificateParams {
    #[serde(rename = "ref")]
    reference: Option<String>,
    page: Option<usize>,
    limit: Option<usize>,
}

/// `GET /api/henge/v1/repos/{owner}/{repo}/push-certificates?ref&page&limit`, the newest first.
async fn list_certificates(
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
        certificates: certificates.map(certificate).collect(),
    }))
}
