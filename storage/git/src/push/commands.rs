//! The head of a push: its commands, capabilities and options, read before the pack.

use std::collections::BTreeSet;
use std::io::BufRead;

use henge_types::{ObjectFormat, PreviousValue, RefName, RefUpdate, limits};

use crate::oid::{Oid, from_gix, parse_hex};
use crate::pkt::{self, Packet};
use crate::protocol::PushLimits;
use crate::push::ReceiveError;
use crate::push::certificate::Certificate;

/// The maximum number of push options.
const OPTIONS_MAX: usize = 256;
/// The maximum length of a ref name on the wire: a report cannot carry longer ones.
const RAW_NAME_BYTES_MAX: usize = 4096;
/// The maximum number of `shallow` lines.
const SHALLOW_MAX: usize = 100_000;
/// The refusal of a signed push whose options are not the signed ones.
const INCONSISTENT_OPTIONS: &str = "inconsistent push options";
/// Refusals of names that git accepts and this server cannot store.
const NAME_NOT_UTF8: &str = "this server takes names of refs in UTF-8 only: rename it";
const NAME_TOO_LONG: &str = "the name of a ref may have 1024 bytes here: rename it";
const _: () = assert!(limits::REF_NAME_BYTES_MAX == 1024);

/// Capabilities of the client that the server uses.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Capabilities {
    /// Requests a report.
    pub report_status: bool,
    /// Requests a report in version 2.
    pub report_status_v2: bool,
    /// Requests the report in sideband frames.
    pub side_band_64k: bool,
    /// Requests no output besides the report.
    pub quiet: bool,
    /// Requests all updates or none.
    pub atomic: bool,
    /// Push options follow the commands.
    pub push_options: bool,
}

/// One command as sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Command {
    /// The name of the ref, valid or not: the report has to repeat it as it came.
    pub name: Vec<u8>,
    /// Its index in [`PushHead::updates`], or the reason of an early refusal.
    pub update: Result<usize, &'static str>,
}

/// The head of a push.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PushHead {
    /// Every command, in the client's order.
    pub commands: Vec<Command>,
    /// The valid commands, in the client's order. No ref occurs twice.
    pub updates: Vec<RefUpdate>,
    /// The negotiated capabilities.
    pub capabilities: Capabilities,
    /// Push options, as sent.
    pub options: Vec<String>,
    /// The shallow boundary of the client: commits without parents there.
    pub shallow: Vec<henge_types::ObjectId>,
    /// Whether a pack follows: every push has one, except one that only deletes refs.
    pub has_pack: bool,
    /// The certificate of a signed push. The commands are then those of the certificate.
    pub certificate: Option<Certificate>,
}

impl PushHead {
    /// Whether this is a probe: with a lone flush a client checks whether it may push.
    pub fn is_empty(&self) -> bool {
        self.commands.is_empty()
    }
}

/// Reads the head of a push to a repository of this format. `input` is left at the first byte of
/// the pack.
///
/// A ref name that git would refuse, or that is not UTF-8, does not fail the push: the report
/// refuses its command.
///
/// # Errors
/// When the stream fails, is not a push, or exceeds a limit.
pub fn parse_push(
    input: &mut dyn BufRead,
    format: ObjectFormat,
    limits: &PushLimits,
) -> Result<PushHead, ReceiveError> {
    let mut head = PushHead::default();
    let mut buffer = Vec::new();
    let mut names = BTreeSet::new();
    loop {
        let packet = pkt::read(input, &mut buffer)?;
        let line = match packet {
            None if head.commands.is_empty() && head.certificate.is_none() => return Ok(head),
            None => return Err(ReceiveError::Truncated),
            Some(Packet::Flush) => break,
            Some(packet) => packet.line().ok_or(ReceiveError::NotAPush)?,
        };
        if let Some(id) = line.strip_prefix(b"shallow ") {
            let id = parse_hex(id, format).ok_or(ReceiveError::NotAPush)?;
            if head.shallow.len() == SHALLOW_MAX {
                return Err(ReceiveError::TooManyShallow { max: SHALLOW_MAX });
            }
            head.shallow.push(from_gix(&id));
            continue;
        }
        let line = split_capabilities(line, format, &mut head)?;
        // Either all commands are signed, or none.
        let is_signed = line == b"push-cert";
        if head.certificate.is_some() || (is_signed && !head.commands.is_empty()) {
            return Err(ReceiveError::UnsignedCommands);
        }
        if is_signed {
            let certificate = Certificate::read(input, limits.certificate_bytes_max)?;
            head.certificate = Some(certificate);
        } else {
            add_command(&mut head, &mut names, line, format, limits)?;
        }
    }
    let certificate = head.certificate.take();
    for line in certificate.iter().flat_map(Certificate::commands) {
        add_command(&mut head, &mut names, line, format, limits)?;
    }
    head.certificate = certificate;
    if head.capabilities.push_options {
        read_options(input, &mut head)?;
    }
    refuse_unsigned_options(&mut head);
    Ok(head)
}

fn add_command(
    head: &mut PushHead,
    names: &mut BTreeSet<RefName>,
    line: &[u8],
    format: ObjectFormat,
    limits: &PushLimits,
) -> Result<(), ReceiveError> {
    if head.commands.len() == limits.updates_max {
        return Err(ReceiveError::TooManyUpdates {
            max: limits.updates_max,
        });
    }
    let raw = RawCommand::parse(line, format)?;
    head.has_pack |= raw.new.is_some();
    let update = accept(&raw, names);
    head.commands.push(Command {
        name: raw.name.to_owned(),
        update: update
            .as_ref()
            .map(|_| head.updates.len())
            .map_err(|reason| *reason),
    });
    head.updates.extend(update.ok());
    Ok(())
}

/// Refuses every command of a signed push whose options are not the signed ones: options are part
/// of what the signer agreed to.
fn refuse_unsigned_options(head: &mut PushHead) {
    let signed = head.certificate.as_ref();
    if signed.is_none_or(|certificate| certificate.options == head.options) {
        return;
    }
    for command in &mut head.commands {
        command.update = Err(INCONSISTENT_OPTIONS);
    }
    head.updates.clear();
}

fn split_capabilities<'a>(
    line: &'a [u8],
    format: ObjectFormat,
    head: &mut PushHead,
) -> Result<&'a [u8], ReceiveError> {
    let Some(end) = memchr::memchr(0, line) else {
        return Ok(line);
    };
    if head.commands.is_empty() {
        let text = std::str::from_utf8(&line[end + 1..]).map_err(|_| ReceiveError::NotAPush)?;
        head.capabilities = parse_capabilities(text, format)?;
    }
    Ok(&line[..end])
}

fn parse_capabilities(text: &str, format: ObjectFormat) -> Result<Capabilities, ReceiveError> {
    let mut found = Capabilities::default();
    // The default of a client that sends no format.
    let mut client = ObjectFormat::Sha1.as_str();
    for word in text.split_ascii_whitespace() {
        match word {
            "report-status" => found.report_status = true,
            "report-status-v2" => found.report_status_v2 = true,
            "side-band-64k" => found.side_band_64k = true,
            "quiet" => found.quiet = true,
            "atomic" => found.atomic = true,
            "push-options" => found.push_options = true,
            _ => {
                if let Some(name) = word.strip_prefix("object-format=") {
                    client = name;
                }
            }
        }
    }
    if client != format.as_str() {
        return Err(ReceiveError::ObjectFormat {
            server: format,
            client: client.chars().take(80).collect(),
        });
    }
    Ok(found)
}

struct RawCommand<'a> {
    old: Option<Oid>,
    new: Option<Oid>,
    name: &'a [u8],
}

impl<'a> RawCommand<'a> {
    /// Parses `OLD NEW NAME`; an id of zeros is `None`.
    fn parse(line: &'a [u8], format: ObjectFormat) -> Result<Self, ReceiveError> {
        let not_a_push = || ReceiveError::NotAPush;
        let digits = format.hex_bytes();
        let (old, rest) = line.split_at_checked(digits).ok_or_else(not_a_push)?;
        let rest = rest.strip_prefix(b" ").ok_or_else(not_a_push)?;
        let (new, rest) = rest.split_at_checked(digits).ok_or_else(not_a_push)?;
        let name = rest.strip_prefix(b" ").ok_or_else(not_a_push)?;
        if name.is_empty() {
            return Err(ReceiveError::NotAPush);
        }
        let id = |text| {
            parse_hex(text, format)
                .map(|id| (!id.is_null()).then_some(id))
                .ok_or(ReceiveError::NotAPush)
        };
        let raw = Self {
            old: id(old)?,
            new: id(new)?,
            name,
        };
        if name.len() > RAW_NAME_BYTES_MAX {
            let max = limits::REF_NAME_BYTES_MAX;
            return Err(ReceiveError::NameTooLong { max });
        }
        Ok(raw)
    }
}

fn accept(raw: &RawCommand<'_>, names: &mut BTreeSet<RefName>) -> Result<RefUpdate, &'static str> {
    if raw.name.len() > limits::REF_NAME_BYTES_MAX {
        return Err(NAME_TOO_LONG);
    }
    let name = std::str::from_utf8(raw.name).map_err(|_| NAME_NOT_UTF8)?;
    let name: RefName = name.parse().map_err(|_| "funny refname")?;
    if raw.old.is_none() && raw.new.is_none() {
        return Err("nothing to do");
    }
    if !names.insert(name.clone()) {
        return Err("multiple updates for ref not allowed");
    }
    Ok(RefUpdate {
        name,
        expected: raw.old.map_or(PreviousValue::MustNotExist, |old| {
            PreviousValue::MustExistAndMatch(from_gix(&old))
        }),
        new: raw.new.map(|new| from_gix(&new)),
    })
}

fn read_options(input: &mut dyn BufRead, head: &mut PushHead) -> Result<(), ReceiveError> {
    let mut buffer = Vec::new();
    loop {
        match pkt::read(input, &mut buffer)? {
            None => return Err(ReceiveError::Truncated),
            Some(Packet::Flush) => return Ok(()),
            Some(packet) => {
                let line = packet.line().ok_or(ReceiveError::NotAPush)?;
                if head.options.len() == OPTIONS_MAX {
                    return Err(ReceiveError::TooManyOptions { max: OPTIONS_MAX });
                }
                head.options
                    .push(String::from_utf8_lossy(line).into_owned());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const A: &str = "1111111111111111111111111111111111111111";
    const B: &str = "2222222222222222222222222222222222222222";
    const ZERO: &str = "0000000000000000000000000000000000000000";

    fn push(lines: &[String]) -> Vec<u8> {
        let mut bytes = Vec::new();
        for line in lines {
            pkt::write(&mut bytes, line.as_bytes()).unwrap();
        }
        pkt::write_flush(&mut bytes).unwrap();
        bytes
    }

    fn parse(bytes: &[u8]) -> Result<PushHead, ReceiveError> {
        parse_push(&mut &bytes[..], ObjectFormat::Sha1, &PushLimits::default())
    }

    #[test]
    fn commands_capabilities_and_options_are_read() {
        let mut bytes = push(&[
            format!("shallow {A}\n"),
            format!(
                "{ZERO} {A} refs/heads/new\0 report-status-v2 side-band-64k atomic push-options object-format=sha1 agent=x"
            ),
            format!("{A} {B} refs/heads/main"),
            format!("{A} {ZERO} refs/tags/gone"),
        ]);
        bytes.extend(push(&["ci.skip".to_owned()]));
        bytes.extend_from_slice(b"PACK");
        let mut input = &bytes[..];
        let head = parse_push(&mut input, ObjectFormat::Sha1, &PushLimits::default()).unwrap();
        assert_eq!(input, b"PACK");
        assert!(head.capabilities.atomic && head.capabilities.report_status_v2);
        assert!(head.has_pack);
        assert_eq!(head.options, ["ci.skip"]);
        assert_eq!(head.shallow.len(), 1);
        let previous: Vec<_> = head.updates.iter().map(|update| update.expected).collect();
        let a = PreviousValue::MustExistAndMatch(A.parse().unwrap());
        assert_eq!(previous, [PreviousValue::MustNotExist, a, a]);
        assert_eq!(head.updates[2].new, None);
    }

    #[test]
    fn a_lone_flush_is_a_probe() {
        assert!(parse(b"0000").unwrap().is_empty());
        assert!(parse(b"").unwrap().is_empty());
    }

    #[test]
    fn a_push_that_only_deletes_has_no_pack() {
        let head = parse(&push(&[format!("{A} {ZERO} refs/heads/x\0 report-status")])).unwrap();
        assert!(!head.has_pack);
    }

    #[test]
    fn bad_and_repeated_names_are_refused_one_by_one() {
        let head = parse(&push(&[
            format!("{ZERO} {A} refs/heads/../../etc\0report-status"),
            format!("{ZERO} {A} refs/heads/ok"),
            format!("{ZERO} {B} refs/heads/ok"),
            format!("{ZERO} {A} HEAD"),
        ]))
        .unwrap();
        let verdicts: Vec<_> = head.commands.iter().map(|command| command.update).collect();
        assert_eq!(
            verdicts,
            [
                Err("funny refname"),
                Ok(0),
                Err("multiple updates for ref not allowed"),
                Err("funny refname")
            ]
        );
    }

    /// A branch named in Latin-1 once failed the whole push, with an error that git does not show.
    #[test]
    fn a_name_that_is_not_utf8_refuses_its_command() {
        let lines = [
            format!("{ZERO} {A} refs/heads/ok\0report-status").into_bytes(),
            [format!("{ZERO} {A} refs/heads/").as_bytes(), b"caf\xe9"].concat(),
        ];
        let mut bytes = Vec::new();
        for line in &lines {
            pkt::write(&mut bytes, line).unwrap();
        }
        pkt::write_flush(&mut bytes).unwrap();
        let head = parse(&bytes).unwrap();
        let verdicts: Vec<_> = head.commands.iter().map(|command| command.update).collect();
        assert_eq!(verdicts, [Ok(0), Err(NAME_NOT_UTF8)]);
        assert_eq!(head.commands[1].name, b"refs/heads/caf\xe9");
        let long = format!("{ZERO} {A} refs/heads/{}", "n".repeat(RAW_NAME_BYTES_MAX));
        let error = parse(&push(&[long])).unwrap_err();
        assert!(matches!(error, ReceiveError::NameTooLong { max: 1024 }));
    }

    #[test]
    fn what_is_no_push_is_an_error() {
        for line in [
            "hello".to_owned(),
            format!("{A} {B}"),
            format!("{A} {B} "),
            format!("{A}x{B} refs/heads/a"),
            format!("{ZERO} {A} refs/heads/a\0object-format=sha256"),
        ] {
            assert!(
                parse(&push(std::slice::from_ref(&line))).is_err(),
                "{line:?} was accepted"
            );
        }
        let bytes = push(&[format!("{ZERO} {A} refs/heads/a\0report-status")]);
        assert!(parse(&bytes[..bytes.len() - 4]).is_err(), "no flush");
    }

    #[test]
    fn more_updates_than_allowed_are_refused() {
        let lines: Vec<_> = (0..3)
            .map(|n| format!("{ZERO} {A} refs/heads/{n}"))
            .collect();
        let limits = PushLimits {
            updates_max: 2,
            ..PushLimits::default()
        };
        let outcome = parse_push(&mut &push(&lines)[..], ObjectFormat::Sha1, &limits);
        assert!(matches!(
            outcome,
            Err(ReceiveError::TooManyUpdates { max: 2 })
        ));
    }

    #[test]
    fn a_push_of_another_object_format_is_refused() {
        use ObjectFormat::{Sha1, Sha256};
        let parse = |digits: usize, words: &str, format| {
            let (zero, id) = ("0".repeat(digits), "1".repeat(digits));
            let bytes = push(&[format!("{zero} {id} refs/heads/a\0 report-status{words}")]);
            parse_push(&mut &bytes[..], format, &PushLimits::default())
                .map_err(|error| error.to_string())
        };
        let head = parse(64, " object-format=sha256", Sha256).unwrap();
        assert_eq!(head.updates[0].new, "1".repeat(64).parse().ok());
        for (digits, words, format, says) in [
            (
                40,
                " object-format=sha1",
                Sha256,
                "unsupported object format 'sha1'",
            ),
            // A client that sends no format uses SHA-1.
            (40, "", Sha256, "unsupported object format 'sha1'"),
            (
                64,
                " object-format=sha256",
                Sha1,
                "unsupported object format 'sha256'",
            ),
            (
                64,
                " object-format=md5",
                Sha1,
                "unsupported object format 'md5'",
            ),
            (40, " object-format=sha256", Sha256, "not a push"),
            (64, " object-format=sha1", Sha1, "not a push"),
        ] {
            let error = parse(digits, words, format).unwrap_err();
            assert!(error.contains(says), "{digits} {words:?} {format}: {error}");
        }
    }

    fn signed(words: &str, options: &[&str], commands: &[String]) -> Vec<u8> {
        let mut lines = vec![format!("push-cert\0report-status-v2 {words}")];
        lines.push("certificate version 0.1\n".to_owned());
        lines.push("pusher A <a@example.org> 1700000000 +0000\n".to_owned());
        lines.extend(
            options
                .iter()
                .map(|option| format!("push-option {option}\n")),
        );
        lines.push("\n".to_owned());
        lines.extend(commands.iter().map(|command| format!("{command}\n")));
        lines.push("-----BEGIN SSH SIGNATURE-----\n".to_owned());
        lines.push("push-cert-end\n".to_owned());
        let mut bytes = push(&lines);
        bytes.truncate(bytes.len() - 4);
        bytes
    }

    #[test]
    fn the_commands_of_a_certificate_are_those_of_the_push() {
        let commands = [
            format!("{ZERO} {A} refs/heads/new"),
            format!("{A} {ZERO} refs/tags/gone"),
        ];
        let bytes = [&signed("atomic", &[], &commands)[..], b"0000PACK"].concat();
        let mut input = &bytes[..];
        let head = parse_push(&mut input, ObjectFormat::Sha1, &PushLimits::default()).unwrap();
        assert_eq!(input, b"PACK");
        let plain = parse(&push(&[
            format!("{}\0report-status-v2 atomic", commands[0]),
            commands[1].clone(),
        ]));
        let certificate = head.certificate.clone().unwrap();
        assert_eq!(certificate.nonce, None);
        let unsigned = PushHead {
            certificate: None,
            ..head
        };
        assert_eq!(unsigned, plain.unwrap());
    }

    #[test]
    fn signed_and_unsigned_commands_do_not_mix() {
        let command = [format!("{ZERO} {A} refs/heads/a")];
        let certificate = signed("", &[], &command);
        let other = push(&[format!("{ZERO} {A} refs/heads/b\0report-status")]);
        let first = &other[..other.len() - 4];
        for bytes in [
            [&certificate[..], &other].concat(),
            [first, &certificate, b"0000"].concat(),
            [&certificate[..], &certificate, b"0000"].concat(),
        ] {
            let error = parse(&bytes).unwrap_err().to_string();
            assert_eq!(error, "got both push certificate and unsigned commands");
        }
    }

    #[test]
    fn options_that_were_not_signed_refuse_every_command() {
        let command = [format!("{ZERO} {A} refs/heads/a")];
        for (signed_options, sent, is_taken) in [
            (&["x", "y"][..], &["x", "y"][..], true),
            (&[], &[], true),
            (&["x", "y"], &["y", "x"], false),
            (&["x"], &["x", "y"], false),
            (&["x"], &[], false),
            (&[], &["x"], false),
        ] {
            let sent: Vec<_> = sent.iter().map(|&option| option.to_owned()).collect();
            let head = signed("push-options", signed_options, &command);
            let bytes = [&head[..], b"0000", &push(&sent)].concat();
            let head = parse(&bytes).unwrap();
            let expected = if is_taken {
                Ok(0)
            } else {
                Err("inconsistent push options")
            };
            assert_eq!(
                head.commands[0].update, expected,
                "{signed_options:?} {sent:?}"
            );
            assert_eq!(head.updates.len(), usize::from(is_taken));
            assert!(head.has_pack);
        }
    }

    #[test]
    fn a_certificate_alone_is_no_push() {
        let bytes = signed("", &[], &[format!("{ZERO} {A} refs/heads/a")]);
        assert!(matches!(parse(&bytes), Err(ReceiveError::Truncated)));
        let empty = [&signed("", &[], &[])[..], b"0000"].concat();
        let error = parse(&empty).unwrap_err().to_string();
        assert_eq!(
            error,
            "malformed push certificate: there are no commands in it"
        );
    }

    proptest! {
        #[test]
        fn arbitrary_lines_never_panic(lines in proptest::collection::vec(".{0,120}", 0..6)) {
            let outcome = parse(&push(&lines));
            if let Ok(head) = outcome {
                prop_assert!(head.updates.len() <= head.commands.len());
            }
        }
    }
}
