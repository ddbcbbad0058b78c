//! The report of a push: `report-status` and `report-status-v2`.

use std::collections::BTreeMap;
use std::io::{self, Write};

use bytes::Bytes;
use henge_types::{RefPattern, RefRefusal, RefVerdict};

use crate::pkt::{self, Band};
use crate::push::PushHead;

/// Git's message for a refused update.
pub fn refusal_text(refusal: &RefRefusal) -> String {
    match refusal {
        RefRefusal::Stale { .. } => "fetch first".to_owned(),
        RefRefusal::Exists { .. } => "reference already exists".to_owned(),
        RefRefusal::Missing => "reference does not exist".to_owned(),
        RefRefusal::NameConflict { with } => {
            format!("directory/file conflict: {with} is in the way")
        }
        RefRefusal::AtomicAborted => "atomic push failure".to_owned(),
        RefRefusal::Archived => "the repository is archived: it is read-only".to_owned(),
        RefRefusal::ProtectedFromDeletion { pattern } => {
            format!("{}: no deletion ({})", protected(pattern), pattern.short())
        }
        RefRefusal::ProtectedFromForce { pattern } => {
            // A tag object has no history to keep: git's own rule treats every move of one as
            // forced.
            let tags = match pattern.as_str().starts_with("refs/tags/") {
                true => ", and a tag object never moves",
                false => "",
            };
            let (what, refs) = (protected(pattern), pattern.short());
            format!("{what}: no force push{tags} ({refs})")
        }
        RefRefusal::TooManyRefs { max } => {
            format!("the repository may hold {max} refs: delete some first")
        }
        RefRefusal::PacksFull { used, max, bytes } => format!(
            "the repository may hold {max} bytes of packs, holds {used}, and the push needs {bytes} more: ask its operator for a higher quota"
        ),
    }
}

fn protected(pattern: &RefPattern) -> &'static str {
    match pattern.as_str() {
        branches if branches.starts_with("refs/heads/") => "protected branch",
        tags if tags.starts_with("refs/tags/") => "protected tag",
        _ => "protected ref",
    }
}

/// Writes the report in the negotiated form, with the final flush. Writes nothing if the client
/// requested no report.
///
/// `unpack` is the result of the pack. A command without a verdict fails like the pack. The
/// function also repeats the response to a known request.
///
/// # Errors
/// When the output breaks.
pub fn report(
    head: &PushHead,
    unpack: Result<(), String>,
    verdicts: &[RefVerdict],
    output: &mut dyn Write,
) -> io::Result<()> {
    let by_name: BTreeMap<_, _> = verdicts
        .iter()
        .map(|verdict| (&verdict.name, &verdict.result))
        .collect();
    let results: Vec<_> = head
        .updates
        .iter()
        .map(|update| match by_name.get(&update.name) {
            Some(Ok(())) => Ok(()),
            Some(Err(refusal)) => Err(refusal_text(refusal)),
            None => Err("unpacker error".to_owned()),
        })
        .collect();
    report_results(head, unpack, &results, &Doubts::new(), output)
}

/// Updates of [`PushHead::updates`] with an unknown outcome, each with the error.
///
/// A report has no line for them: git reports a ref without a line as not reported by the remote.
pub(crate) type Doubts = BTreeMap<usize, String>;

/// The maximum number of doubts in the text.
const DOUBTS_TOLD_MAX: usize = 20;

/// The text about `doubts` for the user.
fn doubt_text(head: &PushHead, doubts: &Doubts) -> String {
    let mut text = String::new();
    for (index, why) in doubts.iter().take(DOUBTS_TOLD_MAX) {
        let update = head.updates.get(*index);
        let name = update.map_or("", |update| update.name.as_str());
        let why = one_line(why);
        text.push_str(&format!("{name} may or may not have been updated: {why}\n"));
    }
    if let more @ 1.. = doubts.len().saturating_sub(DOUBTS_TOLD_MAX) {
        text.push_str(&format!("... and {more} more refs\n"));
    }
    text.push_str("look before pushing again\n");
    text
}

/// Writes the report from one result for each update, in the order of [`PushHead::updates`].
pub(crate) fn report_results(
    head: &PushHead,
    unpack: Result<(), String>,
    results: &[Result<(), String>],
    doubts: &Doubts,
    output: &mut dyn Write,
) -> io::Result<()> {
    let capabilities = &head.capabilities;
    if !capabilities.report_status && !capabilities.report_status_v2 {
        return Ok(());
    }
    let mut lines = Vec::new();
    let unpack_line = match unpack {
        Ok(()) => "unpack ok\n".to_owned(),
        Err(reason) => format!("unpack {}\n", one_line(&reason)),
    };
    pkt::write(&mut lines, unpack_line.as_bytes())?;
    for command in &head.commands {
        let result = match command.update {
            Ok(index) if doubts.contains_key(&index) => continue,
            Ok(index) => results
                .get(index)
                .cloned()
                .unwrap_or_else(|| Err("unpacker error".to_owned())),
            Err(reason) => Err(reason.to_owned()),
        };
        let line = match result {
            Ok(()) => [b"ok ", &command.name[..], b"\n"].concat(),
            Err(reason) => {
                let reason = one_line(&reason);
                [b"ng ", &command.name[..], b" ", reason.as_bytes(), b"\n"].concat()
            }
        };
        pkt::write(&mut lines, &line)?;
    }
    pkt::write_flush(&mut lines)?;
    if capabilities.side_band_64k {
        if !doubts.is_empty() {
            let text = doubt_text(head, doubts);
            pkt::write_band(output, Band::Progress, text.as_bytes())?;
        }
        pkt::write_band(output, Band::Data, &lines)?;
        pkt::write_flush(output)
    } else {
        output.write_all(&lines)
    }
}

/// `report`, preceded by a line for the user, which git shows after `remote: `. Without the
/// capability side-band-64k, and without a report, the report is returned unchanged.
pub fn told_before(text: &str, head: &PushHead, report: Bytes) -> Bytes {
    if !head.capabilities.side_band_64k || report.is_empty() {
        return report;
    }
    let mut told = Vec::new();
    match pkt::write_band(&mut told, Band::Progress, text.as_bytes()) {
        Ok(()) => {
            told.extend_from_slice(&report);
            told.into()
        }
        // Writes to memory do not fail.
        Err(_) => report,
    }
}

/// Writes lines for the user in addition to the report, if the client has a channel for them.
pub(crate) fn tell(head: &PushHead, text: &str, output: &mut dyn Write) -> io::Result<()> {
    let capabilities = &head.capabilities;
    let has_report = capabilities.report_status || capabilities.report_status_v2;
    if text.is_empty() || !capabilities.side_band_64k || !has_report {
        return Ok(());
    }
    pkt::write_band(output, Band::Progress, text.as_bytes())
}

/// Cuts a reason to 500 characters on one line: it must not end its line or flood the terminal.
pub(crate) fn one_line(reason: &str) -> String {
    reason
        .chars()
        .take(500)
        .map(|letter| if letter.is_control() { ' ' } else { letter })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::PushLimits;
    use crate::push::parse_push;
    use henge_types::ObjectFormat;

    fn head(capabilities: &str) -> PushHead {
        let zero = "0".repeat(40);
        let one = "1".repeat(40);
        let mut bytes = Vec::new();
        let first = format!("{zero} {one} refs/heads/a\0{capabilities}");
        pkt::write(&mut bytes, first.as_bytes()).unwrap();
        pkt::write(&mut bytes, format!("{zero} {one} bad").as_bytes()).unwrap();
        pkt::write_flush(&mut bytes).unwrap();
        parse_push(&mut &bytes[..], ObjectFormat::Sha1, &PushLimits::default()).unwrap()
    }

    fn verdict(result: Result<(), RefRefusal>) -> RefVerdict {
        RefVerdict {
            name: "refs/heads/a".parse().unwrap(),
            old: None,
            result,
        }
    }

    #[test]
    fn the_report_names_every_command() {
        let mut bytes = Vec::new();
        report(
            &head("report-status"),
            Ok(()),
            &[verdict(Ok(()))],
            &mut bytes,
        )
        .unwrap();
        let text = String::from_utf8(bytes).unwrap();
        assert_eq!(
            text,
            "000eunpack ok\n0014ok refs/heads/a\n0019ng bad funny refname\n0000"
        );
    }

    #[test]
    fn the_side_band_wraps_the_report() {
        let mut bytes = Vec::new();
        let refused = verdict(Err(RefRefusal::Stale { current: None }));
        report(
            &head("report-status-v2 side-band-64k"),
            Ok(()),
            &[refused],
            &mut bytes,
        )
        .unwrap();
        assert_eq!(&bytes[4..5], b"\x01");
        let text = String::from_utf8(bytes).unwrap();
        assert!(text.contains("ng refs/heads/a fetch first\n"), "{text}");
        assert!(text.ends_with("00000000"), "{text}");
    }

    /// A push once created a repository without a message to the user about its visibility.
    #[test]
    fn a_line_before_the_report_goes_to_those_who_show_it() {
        let told = |capabilities: &str| {
            let head = head(capabilities);
            let mut bytes = Vec::new();
            report(&head, Ok(()), &[verdict(Ok(()))], &mut bytes).unwrap();
            let told = told_before("created admin/x, private\n", &head, bytes.clone().into());
            (told, bytes)
        };
        let (with, without) = told("report-status side-band-64k");
        let line = b"001e\x02created admin/x, private\n";
        assert_eq!(with, [&line[..], &without].concat());
        for capabilities in ["report-status", "quiet", "side-band-64k"] {
            let (with, without) = told(capabilities);
            assert_eq!(with, without, "{capabilities}");
        }
    }

    #[test]
    fn a_client_that_wants_no_report_gets_none() {
        let mut bytes = Vec::new();
        report(&head("quiet"), Ok(()), &[verdict(Ok(()))], &mut bytes).unwrap();
        assert!(bytes.is_empty());
    }

    #[test]
    fn a_failed_pack_fails_every_command_on_one_line() {
        let mut bytes = Vec::new();
        report(
            &head("report-status"),
            Err("broken\nok refs/heads/a".to_owned()),
            &[],
            &mut bytes,
        )
        .unwrap();
        let text = String::from_utf8(bytes).unwrap();
        assert!(text.contains("unpack broken ok refs/heads/a\n"), "{text}");
        assert!(text.contains("ng refs/heads/a unpacker error\n"), "{text}");
    }
}
