//! `ls-refs` of protocol v2.

use henge_types::ObjectId;
use sha2::{Digest, Sha256};

use crate::fetch::FetchError;
use crate::fetch::request::LsRefs;
use crate::output::Output;
use crate::peel::Peeler;
use crate::pkt;
use crate::protocol::Stop;
use crate::refs::RefStore;
use crate::store::Objects;

/// Maximum number of prefixes. With more, all refs are listed, as the protocol allows.
const PREFIXES_MAX: usize = 4096;
/// Bytes of lines that are written at a time.
const PIECE_BYTES: usize = 32 * 1024;

/// Writes the listing; returns the number of its refs.
pub(super) fn ls_refs(
    refs: &dyn RefStore,
    objects: &Objects,
    request: &LsRefs,
    stop: &Stop,
    output: &mut dyn Output,
) -> Result<u64, FetchError> {
    let prefixes = minimal(&request.prefixes);
    let head = refs.head();
    let mut lines = Vec::with_capacity(PIECE_BYTES + pkt::LINE_BYTES_MAX);
    let mut count = 0;
    if prefixes.iter().any(|prefix| "HEAD".starts_with(prefix)) {
        count += write_head(refs, &head, request, &mut lines)?;
    }
    let mut peeler = Peeler::new(objects);
    let mut failure = None;
    for prefix in &prefixes {
        if !prefix.starts_with("refs/") && !"refs/".starts_with(prefix) {
            continue;
        }
        refs.for_each_name(prefix, &mut |name, id| {
            if failure.is_some() {
                return;
            }
            count += 1;
            let peeled = if request.peel {
                peeler.peel(id).map_err(FetchError::from)
            } else {
                Ok(None)
            };
            let written = peeled.and_then(|peeled| {
                let (mut hex, mut peeled_hex) =
                    ([0; ObjectId::HEX_BYTES_MAX], [0; ObjectId::HEX_BYTES_MAX]);
                let id = id.to_hex(&mut hex);
                let appended = match peeled {
                    Some(peeled) => {
                        let peeled = peeled.to_hex(&mut peeled_hex);
                        pkt::append(&mut lines, &[id, " ", name, " peeled:", peeled, "\n"])
                    }
                    None => pkt::append(&mut lines, &[id, " ", name, "\n"]),
                };
                appended?;
                if lines.len() >= PIECE_BYTES {
                    if stop.is_set() {
                        return Err(FetchError::Stopped);
                    }
                    output.write_all(&lines)?;
                    lines.clear();
                }
                Ok(())
            });
            failure = written.err();
        });
        if stop.is_set() {
            return Err(FetchError::Stopped);
        }
    }
    if let Some(error) = failure {
        return Err(error);
    }
    pkt::write_flush(&mut lines)?;
    output.write_all(&lines)?;
    Ok(count)
}

/// The cache key of a listing of one repository. Equivalent requests have the same key.
pub(super) fn what_is_listed(request: &LsRefs) -> [u8; 32] {
    let LsRefs {
        peel,
        symrefs,
        unborn,
        prefixes,
    } = request;
    let mut digest = Sha256::new();
    digest.update([*peel, *symrefs, *unborn].map(u8::from));
    for prefix in minimal(prefixes) {
        digest.update(prefix.len().to_le_bytes());
        digest.update(prefix);
    }
    digest.finalize().into()
}

fn write_head(
    refs: &dyn RefStore,
    head: &henge_types::RefName,
    request: &LsRefs,
    lines: &mut Vec<u8>,
) -> Result<u64, FetchError> {
    let target = if request.symrefs {
        format!(" symref-target:{head}")
    } else {
        String::new()
    };
    let line = match refs.get(head) {
        Some(id) => format!("{id} HEAD{target}\n"),
        None if request.unborn => format!("unborn HEAD{target}\n"),
        None => return Ok(0),
    };
    pkt::write(lines, line.as_bytes())?;
    Ok(1)
}

/// The sorted prefixes without those that another one covers: no ref is listed twice, and refs stay
/// in order.
fn minimal(prefixes: &[String]) -> Vec<&str> {
    if prefixes.is_empty() || prefixes.len() > PREFIXES_MAX {
        return vec![""];
    }
    let mut sorted: Vec<&str> = prefixes.iter().map(String::as_str).collect();
    sorted.sort_unstable();
    let mut kept: Vec<&str> = Vec::with_capacity(sorted.len());
    for prefix in sorted {
        if kept.last().is_none_or(|last| !prefix.starts_with(last)) {
            kept.push(prefix);
        }
    }
    kept
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn covered_prefixes_are_dropped() {
        let prefixes: Vec<_> = [
            "refs/tags/",
            "refs/heads/main",
            "refs/heads/",
            "HEAD",
            "refs/heads/",
        ]
        .map(str::to_owned)
        .to_vec();
        assert_eq!(minimal(&prefixes), ["HEAD", "refs/heads/", "refs/tags/"]);
        assert_eq!(minimal(&[]), [""]);
    }

    #[test]
    fn only_what_changes_the_answer_tells_listings_apart() {
        let request = |peel, prefixes: &[&str]| {
            what_is_listed(&LsRefs {
                peel,
                symrefs: true,
                prefixes: prefixes.iter().map(|prefix| (*prefix).to_owned()).collect(),
                ..LsRefs::default()
            })
        };
        let one = request(true, &["refs/heads/", "HEAD"]);
        assert_eq!(one, request(true, &["HEAD", "refs/heads/", "HEAD"]));
        assert_eq!(one, request(true, &["refs/heads/x", "HEAD", "refs/heads/"]));
        assert_ne!(one, request(false, &["refs/heads/", "HEAD"]));
        assert_ne!(one, request(true, &["refs/heads/HEAD"]));
        assert_ne!(one, request(true, &["refs/heads/"]));
    }
}
