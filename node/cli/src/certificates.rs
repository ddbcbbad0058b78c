//! `henge repo push-certs`

use std::io::{self, Write};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use clap::Args;
use henge_client::Client;
use henge_client::model::PushCertificate;
use henge_types::{RefName, RepoPath};

use crate::cluster::write_json;
use crate::error::{CliError, failed};
use crate::table::Table;

/// Refs of one push that the output for people shows.
const REFS_SHOWN: usize = 3;

/// `henge repo push-certs`
#[derive(Debug, Args)]
pub struct PushCerts {
    /// The repository
    #[arg(value_name = "OWNER/NAME")]
    pub path: RepoPath,
    /// Only the pushes of this ref, in full: refs/heads/main
    #[arg(long = "ref", value_name = "REF")]
    pub reference: Option<RefName>,
    /// Write the certificates as they came, signatures included, the newest first
    #[arg(long)]
    pub raw: bool,
}

/// Lists the certificates, or writes their raw bytes.
pub(crate) async fn run(
    client: &Client,
    asked: &PushCerts,
    json: bool,
    out: &mut (dyn Write + Send),
) -> Result<(), CliError> {
    let listed = client.push_certificates(&asked.path, asked.reference.as_ref());
    let listed = listed
        .await
        .map_err(failed("list the push certificates of", &asked.path))?;
    match (asked.raw, json) {
        (true, _) => {
            for certificate in &listed {
                out.write_all(&bytes(certificate)?)?;
            }
        }
        (false, true) => write_json(&listed, out)?,
        (false, false) => table(&listed).write(out)?,
    }
    Ok(())
}

/// The raw bytes of the certificate, as they were signed.
fn bytes(certificate: &PushCertificate) -> io::Result<Vec<u8>> {
    let coded = certificate.certificate_base64.as_ref();
    match (&certificate.certificate, coded) {
        (Some(text), _) => Ok(text.clone().into_bytes()),
        (None, Some(coded)) => STANDARD.decode(coded).map_err(io::Error::other),
        (None, None) => Ok(Vec::new()),
    }
}

fn table(listed: &[PushCertificate]) -> Table {
    let mut table = Table::new(&["AT", "ACCOUNT", "SIGNED BY", "SIGNATURE", "NONCE", "REFS"]);
    for certificate in listed {
        let kind = certificate.signature_kind.as_deref();
        let nonce = match certificate.nonce_slop_s {
            Some(seconds) => format!("{} {seconds} s", certificate.nonce_status),
            None => certificate.nonce_status.clone(),
        };
        table.row([
            certificate.at.clone(),
            certificate.account.clone(),
            certificate.pusher.clone(),
            format!("{}, not verified", kind.unwrap_or("none")),
            nonce,
            refs(certificate),
        ]);
    }
    table
}

fn refs(certificate: &PushCertificate) -> String {
    let shown = certificate.refs.iter().take(REFS_SHOWN);
    let shown = shown.map(|certified| match certified.accepted {
        true => certified.name.clone(),
        false => format!("{} (refused)", certified.name),
    });
    let mut text = shown.collect::<Vec<_>>().join(", ");
    let more = certificate.refs.len().saturating_sub(REFS_SHOWN);
    if more > 0 {
        text.push_str(&format!(" and {more} more"));
    }
    text
}
