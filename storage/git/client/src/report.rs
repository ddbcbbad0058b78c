//! The result of a push: the report, with or without side-bands (gitprotocol-pack(5)).

use std::collections::BTreeMap;
use std::io::BufRead;

use henge_git::pkt::{self, Packet};
use henge_types::{RefName, RefUpdate};

use crate::error::{Error, printable};

/// Maximum size of a report.
const REPORT_BYTES_MAX: usize = 32 * 1024 * 1024;

/// The result of one update.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PushVerdict {
    /// The ref.
    pub name: RefName,
    /// The reason, for a refused update.
    pub result: Result<(), String>,
}

/// Reads a report with or without side-bands, and returns a verdict for every update.
pub(crate) fn read(
    input: &mut dyn BufRead,
    side_bands: bool,
    updates: &[RefUpdate],
    tell: &mut dyn FnMut(&str),
) -> Result<Vec<PushVerdict>, Error> {
    if !side_bands {
        return parse(input, updates);
    }
    let (mut report, mut buffer) = (Vec::new(), Vec::new());
    loop {
        let data = match pkt::read(input, &mut buffer)? {
            None => return Err(Error::protocol("the report ends early")),
            Some(Packet::Flush) => break,
            Some(Packet::Data(data)) => data,
            Some(Packet::Delimiter | Packet::ResponseEnd) => {
                return Err(Error::protocol("a delimiter in a report"));
            }
        };
        if let Some(message) = data.strip_prefix(b"ERR ") {
            let message = printable(message);
            return Err(Error::Remote { message });
        }
        match data.split_first() {
            Some((1, part)) if report.len() + part.len() <= REPORT_BYTES_MAX => {
                report.extend_from_slice(part);
            }
            Some((2, text)) => tell(&String::from_utf8_lossy(text)),
            Some((3, message)) => {
                let message = printable(message);
                return Err(Error::Remote { message });
            }
            _ => {
                return Err(Error::protocol(
                    "a report that is too long or in no side-band",
                ));
            }
        }
    }
    parse(&mut report.as_slice(), updates)
}

/// Reads a report without side-bands, the answer to [`push_commands`](crate::push_commands).
///
/// # Errors
/// When it is not a report, or the pack was refused.
pub fn read_report(report: &[u8], updates: &[RefUpdate]) -> Result<Vec<PushVerdict>, Error> {
    let mut report = report;
    parse(&mut report, updates)
}

/// Reads a report in side-bands; messages of the remote go to `tell`.
///
/// # Errors
/// When it is not a report, or the pack was refused.
pub fn read_banded_report(
    report: &[u8],
    updates: &[RefUpdate],
    tell: &mut dyn FnMut(&str),
) -> Result<Vec<PushVerdict>, Error> {
    let mut report = report;
    read(&mut report, true, updates, tell)
}

fn parse(input: &mut dyn BufRead, updates: &[RefUpdate]) -> Result<Vec<PushVerdict>, Error> {
    let mut results: BTreeMap<String, Result<(), String>> = BTreeMap::new();
    let mut unpacked = None;
    let mut buffer = Vec::new();
    loop {
        let line = match pkt::read(input, &mut buffer)? {
            None => return Err(Error::protocol("the report ends early")),
            Some(Packet::Flush) => break,
            Some(packet) => packet.line().unwrap_or_default(),
        };
        if let Some(state) = line.strip_prefix(b"unpack ") {
            unpacked = Some(printable(state));
        } else if let Some(name) = line.strip_prefix(b"ok ") {
            results.insert(String::from_utf8_lossy(name).into_owned(), Ok(()));
        } else if let Some(rest) = line.strip_prefix(b"ng ") {
            let at = rest.iter().position(|byte| *byte == b' ');
            let (name, reason) = rest.split_at(at.unwrap_or(rest.len()));
            let name = String::from_utf8_lossy(name).into_owned();
            results.insert(name, Err(printable(reason)));
        } else if let Some(message) = line.strip_prefix(b"ERR ") {
            let message = printable(message);
            return Err(Error::Remote { message });
        } else if !line.starts_with(b"option ") {
            let line = printable(line);
            return Err(Error::protocol(format!("{line:?} in a report")));
        }
        if results.len() > updates.len() {
            return Err(Error::protocol("a report of more refs than were pushed"));
        }
    }
    match unpacked.as_deref() {
        Some("ok") => {}
        Some(reason) => {
            let message = format!("the pack was refused: {reason}");
            return Err(Error::Push { message });
        }
        None => {
            return Err(Error::protocol(
                "a report that does not say how unpacking went",
            ));
        }
    }
    let verdict = |update: &RefUpdate| PushVerdict {
        name: update.name.clone(),
        // An update without an `ok` line counts as failed.
        result: results
            .remove(update.name.as_str())
            .unwrap_or_else(|| Err("the remote says nothing of it".to_owned())),
    };
    Ok(updates.iter().map(verdict).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use henge_types::PreviousValue;

    fn updates(names: &[&str]) -> Vec<RefUpdate> {
        let update = |name: &&str| RefUpdate {
            name: name.parse().unwrap(),
            expected: PreviousValue::MustNotExist,
            new: None,
        };
        names.iter().map(update).collect()
    }

    fn report(lines: &[&str]) -> Vec<u8> {
        let mut bytes = Vec::new();
        for line in lines {
            pkt::write(&mut bytes, format!("{line}\n").as_bytes()).unwrap();
        }
        pkt::write_flush(&mut bytes).unwrap();
        bytes
    }

    #[test]
    fn every_update_has_its_verdict() {
        let asked = updates(&["refs/heads/a", "refs/heads/b", "refs/heads/c"]);
        let plain = report(&[
            "unpack ok",
            "ok refs/heads/a",
            "option refname refs/heads/a",
            "ng refs/heads/b fetch first",
        ]);
        let mut banded = Vec::new();
        pkt::write_band(&mut banded, pkt::Band::Progress, b"hello\n").unwrap();
        pkt::write_band(&mut banded, pkt::Band::Data, &plain).unwrap();
        pkt::write_flush(&mut banded).unwrap();
        for (bytes, side_bands) in [(plain, false), (banded, true)] {
            let verdicts = read(&mut &bytes[..], side_bands, &asked, &mut |_| {}).unwrap();
            assert_eq!(verdicts[0].result, Ok(()));
            assert_eq!(verdicts[1].result, Err("fetch first".to_owned()));
            assert!(verdicts[2].result.is_err(), "nothing was said of it");
        }
    }

    #[test]
    fn a_refused_pack_and_a_broken_report_are_errors() {
        let asked = updates(&["refs/heads/a"]);
        for (lines, expected) in [
            (
                &["unpack the disk is full", "ng refs/heads/a unpacker error"][..],
                "the disk is full",
            ),
            (&["ok refs/heads/a"], "how unpacking went"),
            (&["unpack ok", "hello"], "in a report"),
            (
                &["unpack ok", "ok refs/heads/a", "ok refs/heads/x"],
                "more refs",
            ),
        ] {
            let bytes = report(lines);
            let error = read(&mut &bytes[..], false, &asked, &mut |_| {}).unwrap_err();
            assert!(error.to_string().contains(expected), "{error}");
            let cut = &bytes[..bytes.len() - 4];
            assert!(read(&mut &cut[..], false, &asked, &mut |_| {}).is_err());
        }
    }
}
