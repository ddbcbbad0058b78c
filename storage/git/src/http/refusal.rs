//! The response to a refused push, in a form that git shows.
//!
//! Git shows nothing of a response to a push with an error status, and then prints "Everything
//! up-to-date". It shows the reasons in a report, and sideband 3. So a refusal is a report like any
//! other. A push with an unknown outcome has no report: its response breaks off after the message.

use std::io::{self, BufRead};

use henge_types::ErrorCode;

use crate::http::ServiceError;
use crate::pkt::{self, Band, Packet};

/// The maximum number of refs with a reason each: with more refs the reason stands in front, once.
const REASONS_MAX: usize = 20;
/// The maximum number of refs in the response.
const NAMES_MAX: usize = 100_000;
/// The maximum bytes of names in the response: a pkt-line holds 64 KiB, and a push 2 GiB of them.
const NAMES_BYTES_MAX: usize = 8 * 1024 * 1024;
/// The maximum bytes read of a push: enough for its names, shallow lines and ids.
const HEAD_BYTES_MAX: usize = 32 * 1024 * 1024;
/// The length of the length prefix of a pkt-line.
const LENGTH_BYTES: usize = 4;
/// The maximum bytes of a reason: it shares a pkt-line with a name.
const REASON_BYTES_MAX: usize = 1000;

/// The available extent of a push.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Extent {
    /// Everything that the client sent.
    Whole,
    /// The beginning that was kept: the commands may be truncated.
    Beginning,
}

/// The parts of a request that the response depends on.
#[derive(Debug, Default)]
struct Asked {
    names: Vec<Vec<u8>>,
    report_status: bool,
    side_band: bool,
}

impl Asked {
    /// Reads the head of a push, within limits. `None` for data that is no push, and for a push
    /// without a command within the limits. Also `None` for a whole push without the end of its
    /// commands.
    fn read(input: &mut dyn BufRead, extent: Extent) -> io::Result<Option<Self>> {
        let mut asked = Self::default();
        let mut buffer = Vec::new();
        let mut is_first = true;
        let (mut names_bytes, mut bytes) = (0, 0);
        loop {
            if bytes > HEAD_BYTES_MAX {
                return Ok((!is_first).then_some(asked));
            }
            let line = match pkt::read(input, &mut buffer) {
                Ok(Some(Packet::Flush)) => return Ok((!is_first).then_some(asked)),
                Ok(Some(packet)) => packet.line(),
                Ok(None) | Err(_) if extent == Extent::Beginning && !is_first => {
                    return Ok(Some(asked));
                }
                Ok(None) => return Ok(None),
                Err(error) => return Err(io::Error::other(error)),
            };
            let Some(line) = line else {
                return Ok(None);
            };
            bytes += line.len() + LENGTH_BYTES;
            // A shallow clone sends its shallow boundary first.
            if line.starts_with(b"shallow ") {
                continue;
            }
            let end = line.iter().position(|byte| *byte == 0);
            let (command, words) = line.split_at(end.unwrap_or(line.len()));
            if is_first {
                let words = words.split(|byte| matches!(byte, 0 | b' '));
                for word in words {
                    asked.report_status |= word.starts_with(b"report-status");
                    asked.side_band |= word == b"side-band-64k";
                }
                is_first = false;
            }
            // The commands of a signed push are lines of its certificate.
            if let Some(name) = name_of(command) {
                names_bytes += name.len();
                if asked.names.len() == NAMES_MAX || names_bytes > NAMES_BYTES_MAX {
                    return Ok(Some(asked));
                }
                asked.names.push(name.to_owned());
            }
        }
    }
}

/// The ref of a command: `OLD NEW NAME`.
fn name_of(command: &[u8]) -> Option<&[u8]> {
    let mut words = command.splitn(3, |byte| *byte == b' ');
    let (old, new, name) = (words.next()?, words.next()?, words.next()?);
    let is_id = |word: &[u8]| word.len() >= 40 && word.iter().all(u8::is_ascii_hexdigit);
    (is_id(old) && is_id(new) && name.starts_with(b"refs/")).then_some(name)
}

/// Whether a report may carry an error. It must not carry errors from before the push is examined,
/// nor errors of requests that git never sends.
pub(super) fn may_be_told(error: &ServiceError, extent: Extent) -> bool {
    match error.code {
        ErrorCode::Unauthenticated | ErrorCode::NotFound => false,
        ErrorCode::Invalid => extent == Extent::Beginning,
        ErrorCode::AlreadyExists
        | ErrorCode::Conflict
        | ErrorCode::Forbidden
        | ErrorCode::Throttled
        | ErrorCode::Unavailable
        | ErrorCode::Timeout
        | ErrorCode::Internal => true,
    }
}

/// The response to a push that failed with `error`, whose request begins with `input`. `None` where
/// the HTTP status has to carry the error: for a client without a report, and where a report may
/// not carry it ([`may_be_told`]). Blocking: it reads up to some tens of megabytes.
pub(super) fn answer(
    input: &mut dyn BufRead,
    extent: Extent,
    error: &ServiceError,
) -> Option<Vec<u8>> {
    if !may_be_told(error, extent) {
        return None;
    }
    let asked = Asked::read(input, extent).ok()??;
    let mut output = Vec::new();
    let written = if error.code == ErrorCode::Timeout {
        in_doubt(&asked, &error.message, &mut output)
    } else {
        refused(&asked, &error.message, &mut output)
    };
    written.ok()?.then_some(output)
}

/// The push may have been done: the response reports no ref.
fn in_doubt(asked: &Asked, message: &str, output: &mut Vec<u8>) -> io::Result<bool> {
    if !asked.side_band {
        return Ok(false);
    }
    let text = format!("{}\n", line(message));
    pkt::write_band(output, Band::Error, text.as_bytes())?;
    Ok(true)
}

fn refused(asked: &Asked, message: &str, output: &mut Vec<u8>) -> io::Result<bool> {
    if !asked.report_status {
        return Ok(false);
    }
    let reason = line(message);
    let each = if asked.names.len() > REASONS_MAX {
        "refused with the whole push"
    } else {
        reason.as_str()
    };
    let mut lines = Vec::new();
    pkt::write(&mut lines, format!("unpack {reason}\n").as_bytes())?;
    for name in &asked.names {
        let fits = name.len() + each.len() + "ng  \n".len() <= pkt::DATA_BYTES_MAX;
        let each = if fits { each } else { "refused" };
        let text = [b"ng ", &name[..], b" ", each.as_bytes(), b"\n"].concat();
        pkt::write(&mut lines, &text)?;
    }
    pkt::write_flush(&mut lines)?;
    if asked.side_band {
        pkt::write_band(output, Band::Data, &lines)?;
        pkt::write_flush(output)?;
    } else {
        output.extend_from_slice(&lines);
    }
    Ok(true)
}

/// A reason as one line.
fn line(message: &str) -> String {
    let mut line: String = message
        .trim()
        .chars()
        .map(|c| if c.is_control() { ' ' } else { c })
        .collect();
    let mut end = REASON_BYTES_MAX.min(line.len());
    while !line.is_char_boundary(end) {
        end -= 1;
    }
    line.truncate(end);
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(words: &str, refs: usize) -> Vec<u8> {
        let mut bytes = Vec::new();
        let (old, new) = ("0".repeat(40), "1".repeat(40));
        for number in 0..refs {
            let words = if number == 0 { words } else { "" };
            let command = format!("{old} {new} refs/heads/b{number}{words}\n");
            pkt::write(&mut bytes, command.as_bytes()).unwrap();
        }
        pkt::write_flush(&mut bytes).unwrap();
        bytes.extend(b"PACK and so on");
        bytes
    }

    fn text(error: &ServiceError, request: &[u8]) -> Option<String> {
        let bytes = answer(&mut &request[..], Extent::Whole, error)?;
        Some(String::from_utf8_lossy(&bytes).into_owned())
    }

    const WORDS: &str = "\0report-status-v2 side-band-64k object-format=sha1 agent=x";

    /// A name of a command has up to 64 KiB, and a push has millions of them: 2 MB of gzip once
    /// made a node hold several GiB for the response that refused it.
    #[test]
    fn very_long_names_are_not_all_told() {
        let full = ServiceError::new(ErrorCode::Forbidden, "no".to_owned());
        let mut request = Vec::new();
        let name = "n".repeat(60_000);
        for number in 0..1_000 {
            let words = if number == 0 { WORDS } else { "" };
            let command = format!("{0} {0} refs/heads/{name}{words}\n", "1".repeat(40));
            pkt::write(&mut request, command.as_bytes()).unwrap();
        }
        pkt::write_flush(&mut request).unwrap();
        let told = answer(&mut &request[..], Extent::Whole, &full).unwrap();
        assert!(told.len() < 2 * NAMES_BYTES_MAX, "{}", told.len());
    }

    /// Repeats some bytes endlessly, and counts the bytes taken.
    struct Endless {
        lines: Vec<u8>,
        at: usize,
        taken: usize,
    }

    impl Endless {
        fn of(line: &[u8]) -> Self {
            let mut lines = Vec::new();
            pkt::write(&mut lines, line).unwrap();
            Self {
                lines,
                at: 0,
                taken: 0,
            }
        }
    }

    impl io::Read for Endless {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            let mut left = self.fill_buf()?;
            let read = io::Read::read(&mut left, buffer)?;
            self.consume(read);
            Ok(read)
        }
    }

    impl BufRead for Endless {
        fn fill_buf(&mut self) -> io::Result<&[u8]> {
            assert!(self.taken < 4 * HEAD_BYTES_MAX, "it is read for ever");
            Ok(&self.lines[self.at..])
        }

        fn consume(&mut self, bytes: usize) {
            self.at = (self.at + bytes) % self.lines.len();
            self.taken += bytes;
        }
    }

    /// A gzip of 2 MB with 2 GiB of such lines was once read to its end for the response that
    /// refused it.
    #[test]
    fn a_head_without_an_end_is_not_read_on() {
        let full = ServiceError::new(ErrorCode::Forbidden, "no".to_owned());
        let shallow = format!("shallow {}", "2".repeat(40));
        let long = "x".repeat(60_000);
        for extent in [Extent::Whole, Extent::Beginning] {
            // Shallow lines over the limit are skipped, because git needs a report. So are lines
            // that are no command.
            for line in [shallow.as_bytes(), &[b'x'; 500][..], long.as_bytes()] {
                let mut endless = Endless::of(line);
                assert_eq!(answer(&mut endless, extent, &full), None);
                let most = HEAD_BYTES_MAX + endless.lines.len();
                assert!(endless.taken <= most, "{extent:?}: {}", endless.taken);
            }
        }
        // Commands in front of them are answered.
        let mut command = Vec::new();
        let text = format!("{0} {0} refs/heads/x{WORDS}\n", "1".repeat(40));
        pkt::write(&mut command, text.as_bytes()).unwrap();
        let mut endless = io::Read::chain(&command[..], Endless::of(shallow.as_bytes()));
        let told = answer(&mut endless, Extent::Whole, &full).unwrap();
        assert!(String::from_utf8_lossy(&told).contains("ng refs/heads/x no\n"));
    }

    #[test]
    fn a_refusal_is_a_report_with_its_reason() {
        let full = ServiceError::new(ErrorCode::Unavailable, "the disk is\nfull".to_owned());
        let told = text(&full, &request(WORDS, 2)).unwrap();
        assert!(told.contains("unpack the disk is full\n"), "{told}");
        for name in ["refs/heads/b0", "refs/heads/b1"] {
            assert!(
                told.contains(&format!("ng {name} the disk is full\n")),
                "{told}"
            );
        }
        let told = text(&full, &request("\0report-status", 1)).unwrap();
        assert!(told.starts_with("001cunpack the disk is full\n"), "{told}");
        // With very many refs the reason is not repeated for each.
        let told = text(&full, &request("\0report-status", 11_000)).unwrap();
        assert_eq!(told.matches("the disk is full").count(), 1);
        assert_eq!(told.matches("ng refs/heads/b").count(), 11_000);
    }

    /// The lines of a shallow clone precede its commands: its git once received no refusal.
    #[test]
    fn a_shallow_clone_is_told_as_well() {
        let full = ServiceError::new(ErrorCode::Unavailable, "the disk is full".to_owned());
        let mut shallow = Vec::new();
        pkt::write(
            &mut shallow,
            format!("shallow {}", "2".repeat(40)).as_bytes(),
        )
        .unwrap();
        shallow.extend(request(WORDS, 1));
        let told = text(&full, &shallow).unwrap();
        assert!(
            told.contains("ng refs/heads/b0 the disk is full\n"),
            "{told}"
        );
    }

    /// A name and the reason have to share a pkt-line.
    #[test]
    fn the_longest_name_of_a_line_is_answered() {
        let limit = ServiceError::new(ErrorCode::Forbidden, "r".repeat(REASON_BYTES_MAX));
        let mut bytes = Vec::new();
        let ids = format!("{0} {0} ", "1".repeat(40));
        let rest = pkt::DATA_BYTES_MAX - ids.len() - "refs/".len() - "\0report-status".len();
        let name = format!("refs/{}", "n".repeat(rest));
        let command = format!("{ids}{name}\0report-status");
        pkt::write(&mut bytes, command.as_bytes()).unwrap();
        pkt::write_flush(&mut bytes).unwrap();
        let told = text(&limit, &bytes).unwrap();
        assert!(told.contains(&format!("ng {name} refused\n")));
    }

    #[test]
    fn what_is_not_known_is_never_called_refused() {
        let doubt = ServiceError::new(ErrorCode::Timeout, "it may be in".to_owned());
        let told = text(&doubt, &request(WORDS, 2)).unwrap();
        assert!(told.contains("\u{3}it may be in\n"), "{told}");
        assert!(!told.contains("ng ") && !told.contains("unpack"), "{told}");
        assert_eq!(text(&doubt, &request("\0report-status", 1)), None);
    }

    #[test]
    fn who_takes_no_report_gets_a_status() {
        let full = ServiceError::new(ErrorCode::Unavailable, "the disk is full".to_owned());
        assert_eq!(text(&full, &request("\0side-band-64k", 1)), None);
        let malformed = ServiceError::new(ErrorCode::Invalid, "what is this".to_owned());
        assert_eq!(text(&malformed, &request(WORDS, 1)), None);
        assert_eq!(text(&full, b"0000"), None);
        assert_eq!(text(&full, b"this is not a push"), None);
        let cut = &request(WORDS, 100)[..2_000];
        assert_eq!(text(&full, cut), None);
        let told = answer(&mut &cut[..], Extent::Beginning, &full).unwrap();
        assert!(String::from_utf8_lossy(&told).contains("unpack the disk is full\n"));
        let missing = ServiceError::new(ErrorCode::NotFound, "no such thing".to_owned());
        assert_eq!(text(&missing, &request(WORDS, 1)), None);
    }

    #[test]
    fn the_refs_of_a_signed_push_are_named() {
        let mut signed = Vec::new();
        let command = format!("{} {} refs/heads/x\n", "0".repeat(40), "1".repeat(40));
        for line in [
            format!("push-cert{WORDS}\n"),
            "certificate version 0.1\n".to_owned(),
            command,
            "push-cert-end\n".to_owned(),
        ] {
            pkt::write(&mut signed, line.as_bytes()).unwrap();
        }
        pkt::write_flush(&mut signed).unwrap();
        let refusal = ServiceError::new(ErrorCode::Forbidden, "too much".to_owned());
        let told = text(&refusal, &signed).unwrap();
        assert!(told.contains("ng refs/heads/x too much\n"), "{told}");
    }
}
