//! Requests of protocol v2, parsed and checked.

use std::collections::BTreeSet;
use std::io::BufRead;

use henge_types::ObjectFormat;
use sha2::{Digest, Sha256};

use crate::fetch::FetchError;
use crate::fetch::filter::Filter;
use crate::oid::{Oid, parse_hex};
use crate::pkt::{self, Packet};

/// Maximum number of lines in one request.
const LINES_MAX: usize = 400_000;
/// The depth of the whole history (`git fetch --unshallow`).
pub(super) const DEPTH_INFINITE: u32 = 0x7fff_ffff;

/// A command of protocol v2.
#[derive(Debug)]
pub(super) enum Request {
    LsRefs(LsRefs),
    Fetch(Box<Fetch>),
    ObjectInfo(ObjectInfo),
    /// It has no arguments.
    BundleUri,
}

/// The arguments of `ls-refs`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub(super) struct LsRefs {
    pub(super) symrefs: bool,
    pub(super) peel: bool,
    pub(super) unborn: bool,
    pub(super) prefixes: Vec<String>,
}

/// The arguments of `object-info`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub(super) struct ObjectInfo {
    pub(super) size: bool,
    pub(super) ids: Vec<Oid>,
}

/// The arguments of `fetch`. Equivalent requests are equal, except for the order of their haves.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub(super) struct Fetch {
    /// Ascending, without duplicates (v2).
    pub(super) wants: Vec<Oid>,
    /// Refs whose current values are wanted: `want-ref`.
    pub(super) want_refs: Vec<String>,
    pub(super) haves: Vec<Oid>,
    pub(super) done: bool,
    /// Haves are acknowledged, and nothing else is sent before the client is done.
    pub(super) wait_for_done: bool,
    /// Every section is sent in side-band frames.
    pub(super) sideband_all: bool,
    pub(super) thin_pack: bool,
    pub(super) ofs_delta: bool,
    pub(super) include_tag: bool,
    pub(super) no_progress: bool,
    pub(super) deepen: Deepen,
    /// The client's shallow boundary: commits without parents there.
    pub(super) shallow: BTreeSet<Oid>,
    /// The objects to leave out.
    pub(super) filter: Option<Filter>,
    /// SHA-256 of the argument lines.
    pub(super) digest: [u8; 32],
}

/// The part of the history that the client requests.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub(super) struct Deepen {
    pub(super) depth: Option<u32>,
    /// The depth counts from the client's shallow boundary.
    pub(super) relative: bool,
    /// Excludes older commits, seconds since the Unix epoch.
    pub(super) since: Option<i64>,
    /// Excludes commits that these refs reach.
    pub(super) not: Vec<String>,
}

impl Deepen {
    pub(super) fn is_asked(&self) -> bool {
        self.depth.is_some() || self.since.is_some() || !self.not.is_empty()
    }
}

pub(super) fn not_a_fetch(line: &[u8]) -> FetchError {
    FetchError::NotAFetch {
        what: String::from_utf8_lossy(&line[..line.len().min(120)]).into_owned(),
    }
}

/// The error for a line in a place where its kind is not allowed, in git's words.
pub(super) fn unexpected(what: &'static str, line: &[u8]) -> FetchError {
    FetchError::Unexpected {
        what,
        line: String::from_utf8_lossy(&line[..line.len().min(120)]).into_owned(),
    }
}

/// Checks that a client has the object format of the repository.
pub(super) fn check_format(name: &str, server: ObjectFormat) -> Result<(), FetchError> {
    match name.parse() {
        Ok(client) if client == server => Ok(()),
        Ok(client) => Err(FetchError::ObjectFormat { server, client }),
        Err(_) => Err(FetchError::UnknownObjectFormat {
            name: name.chars().take(80).collect(),
        }),
    }
}

/// Reads the next command to a repository of this format; `None` at the end of the session.
pub(super) fn read(
    input: &mut dyn BufRead,
    format: ObjectFormat,
) -> Result<Option<Request>, FetchError> {
    let mut buffer = Vec::new();
    let mut command = None;
    // The format of a client that does not send it.
    let mut of_client = ObjectFormat::Sha1.as_str().to_owned();
    let mut lines = 0;
    let more = loop {
        let Some(packet) = pkt::read(input, &mut buffer)? else {
            if lines == 0 {
                return Ok(None);
            }
            return Err(not_a_fetch(b"a request without an end"));
        };
        lines += 1;
        match packet {
            Packet::Flush if lines == 1 => return Ok(None),
            Packet::Flush => break false,
            Packet::Delimiter => break true,
            Packet::ResponseEnd => return Err(not_a_fetch(b"0002")),
            Packet::Data(_) => {
                let line = packet.line().unwrap_or_default();
                if let Some(name) = line.strip_prefix(b"command=") {
                    if command.replace(name.to_vec()).is_some() {
                        return Err(not_a_fetch(line));
                    }
                } else if let Some(name) = line.strip_prefix(b"object-format=") {
                    of_client = String::from_utf8_lossy(name).into_owned();
                }
            }
        }
        if lines > 64 {
            return Err(FetchError::TooLarge { max: 64 });
        }
    };
    if command.is_some() {
        check_format(&of_client, format)?;
    }
    match command.as_deref() {
        Some(b"ls-refs") => read_ls_refs(input, more).map(Request::LsRefs).map(Some),
        Some(b"fetch") => {
            read_fetch(input, more, format).map(|fetch| Some(Request::Fetch(Box::new(fetch))))
        }
        Some(b"object-info") => {
            read_object_info(input, more, format).map(|info| Some(Request::ObjectInfo(info)))
        }
        Some(b"bundle-uri") => {
            arguments(input, more, &mut |line| {
                Err(unexpected("bundle-uri: unexpected argument", line))
            })?;
            Ok(Some(Request::BundleUri))
        }
        Some(other) => Err(not_a_fetch(other)),
        None => Err(not_a_fetch(b"a request without a command")),
    }
}

/// Passes every argument line to `take`; returns the SHA-256 of all of them.
fn arguments(
    input: &mut dyn BufRead,
    more: bool,
    take: &mut dyn FnMut(&[u8]) -> Result<(), FetchError>,
) -> Result<[u8; 32], FetchError> {
    let mut digest = Sha256::new();
    if !more {
        return Ok(digest.finalize().into());
    }
    let mut buffer = Vec::new();
    for _ in 0..LINES_MAX {
        match pkt::read(input, &mut buffer)? {
            Some(Packet::Flush) => return Ok(digest.finalize().into()),
            None => return Err(not_a_fetch(b"a request without an end")),
            Some(packet) => {
                let line = packet.line().ok_or_else(|| not_a_fetch(b"0001"))?;
                digest.update(line.len().to_le_bytes());
                digest.update(line);
                take(line)?;
            }
        }
    }
    Err(FetchError::TooLarge { max: LINES_MAX })
}

fn read_ls_refs(input: &mut dyn BufRead, more: bool) -> Result<LsRefs, FetchError> {
    let mut request = LsRefs::default();
    arguments(input, more, &mut |line| {
        match line {
            b"symrefs" => request.symrefs = true,
            b"peel" => request.peel = true,
            b"unborn" => request.unborn = true,
            _ => match line.strip_prefix(b"ref-prefix ") {
                Some(prefix) => request
                    .prefixes
                    .push(String::from_utf8_lossy(prefix).into_owned()),
                None => return Err(not_a_fetch(line)),
            },
        }
        Ok(())
    })?;
    Ok(request)
}

fn read_object_info(
    input: &mut dyn BufRead,
    more: bool,
    format: ObjectFormat,
) -> Result<ObjectInfo, FetchError> {
    let mut request = ObjectInfo::default();
    arguments(input, more, &mut |line| {
        match line.strip_prefix(b"oid ") {
            Some(id) => {
                let id = parse_hex(id, format).ok_or_else(|| not_a_fetch(line))?;
                request.ids.push(id);
            }
            None if line == b"size" => request.size = true,
            None => return Err(not_a_fetch(line)),
        }
        Ok(())
    })?;
    Ok(request)
}

fn read_fetch(
    input: &mut dyn BufRead,
    more: bool,
    format: ObjectFormat,
) -> Result<Fetch, FetchError> {
    let mut request = Fetch::default();
    let digest = arguments(input, more, &mut |line| {
        match line {
            b"done" => request.done = true,
            b"thin-pack" => request.thin_pack = true,
            b"ofs-delta" => request.ofs_delta = true,
            b"include-tag" => request.include_tag = true,
            b"no-progress" => request.no_progress = true,
            b"deepen-relative" => request.deepen.relative = true,
            b"wait-for-done" => request.wait_for_done = true,
            b"sideband-all" => request.sideband_all = true,
            _ => {
                if let Some(name) = line.strip_prefix(b"want-ref ") {
                    let name = String::from_utf8_lossy(name).into_owned();
                    request.want_refs.push(name);
                } else if !request.take_line(line, format)? {
                    return Err(not_a_fetch(line));
                }
            }
        }
        Ok(())
    })?;
    request.digest = digest;
    request.wants.sort_unstable();
    request.wants.dedup();
    request.check()?;
    Ok(request)
}

impl Fetch {
    /// Whether the response depends on refs.
    pub(super) fn names_refs(&self) -> bool {
        let filtered = self
            .filter
            .as_ref()
            .is_some_and(|filter| !filter.sparse.is_empty());
        filtered || !self.want_refs.is_empty() || !self.deepen.not.is_empty()
    }

    /// Parses a line that all versions of the protocol share; returns whether it was one.
    pub(super) fn take_line(
        &mut self,
        line: &[u8],
        format: ObjectFormat,
    ) -> Result<bool, FetchError> {
        let (word, value) = match line.iter().position(|byte| *byte == b' ') {
            Some(space) => (&line[..space], &line[space + 1..]),
            None => return Ok(false),
        };
        let id = || parse_hex(value, format).ok_or_else(|| not_a_fetch(line));
        match word {
            b"want" => self.wants.push(id()?),
            b"have" => self.haves.push(id()?),
            b"shallow" => {
                self.shallow.insert(id()?);
            }
            b"deepen" => {
                let depth: u32 = number(value).ok_or_else(|| not_a_fetch(line))?;
                if depth == 0 {
                    return Err(not_a_fetch(line));
                }
                self.deepen.depth = Some(depth);
            }
            b"deepen-since" => {
                self.deepen.since = Some(number(value).ok_or_else(|| not_a_fetch(line))?);
            }
            b"deepen-not" => self
                .deepen
                .not
                .push(String::from_utf8_lossy(value).into_owned()),
            b"filter" => {
                let spec = std::str::from_utf8(value).map_err(|_| not_a_fetch(line))?;
                self.filter = Some(Filter::parse(spec)?);
            }
            _ => return Ok(false),
        }
        Ok(true)
    }

    /// Checks that need more than one line.
    pub(super) fn check(&self) -> Result<(), FetchError> {
        let by_rule = self.deepen.since.is_some() || !self.deepen.not.is_empty();
        if self.deepen.depth.is_some() && by_rule {
            return Err(FetchError::TwoCuts);
        }
        Ok(())
    }
}

fn number<T: std::str::FromStr>(text: &[u8]) -> Option<T> {
    std::str::from_utf8(text).ok()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn request(head: &[&str], arguments: &[&str]) -> Vec<u8> {
        let mut bytes = Vec::new();
        for line in head {
            pkt::write(&mut bytes, line.as_bytes()).unwrap();
        }
        if !arguments.is_empty() {
            pkt::write_delimiter(&mut bytes).unwrap();
        }
        for line in arguments {
            pkt::write(&mut bytes, line.as_bytes()).unwrap();
        }
        pkt::write_flush(&mut bytes).unwrap();
        bytes
    }

    #[test]
    fn a_fetch_is_read() {
        let id = "1".repeat(40);
        let bytes = request(
            &["command=fetch", "agent=git/2", "object-format=sha1"],
            &[
                "thin-pack",
                "ofs-delta",
                &format!("want {id}\n"),
                &format!("have {id}"),
                "deepen 3",
                &format!("shallow {id}"),
                &format!("want {id}\n"),
                "want-ref refs/heads/main",
                "filter blob:none",
                "sideband-all",
                "wait-for-done",
                "done\n",
            ],
        );
        let Some(Request::Fetch(fetch)) = read(&mut &bytes[..], ObjectFormat::Sha1).unwrap() else {
            panic!("not a fetch");
        };
        assert!(fetch.done && fetch.thin_pack && fetch.ofs_delta && !fetch.include_tag);
        assert_eq!(
            (fetch.wants.len(), fetch.haves.len(), fetch.shallow.len()),
            (1, 1, 1)
        );
        assert_eq!(fetch.deepen.depth, Some(3));
        assert_eq!(fetch.want_refs, ["refs/heads/main"]);
        assert_eq!(fetch.filter, Some(Filter::parse("blob:limit=0").unwrap()));
        assert!(fetch.sideband_all && fetch.wait_for_done);
    }

    #[test]
    fn a_lone_flush_and_the_end_of_the_stream_end_the_conversation() {
        assert!(
            read(&mut &b"0000"[..], ObjectFormat::Sha1)
                .unwrap()
                .is_none()
        );
        assert!(read(&mut &b""[..], ObjectFormat::Sha1).unwrap().is_none());
    }

    #[test]
    fn what_is_not_understood_is_refused() {
        for (head, arguments) in [
            ("command=push", "want x"),
            ("agent=x", "peel"),
            ("command=fetch", "filter blob:some"),
            ("command=fetch", "packfile-uris https"),
            ("command=object-info", "oid 12"),
            ("command=object-info", "type"),
            ("command=fetch", "want 12"),
            ("command=fetch", "deepen 0"),
            ("command=fetch", "deepen -1"),
            ("command=ls-refs", "want x"),
        ] {
            let bytes = request(&[head], &[arguments]);
            let outcome = read(&mut &bytes[..], ObjectFormat::Sha1);
            assert!(outcome.is_err(), "{head} {arguments}");
        }
    }

    #[test]
    fn clients_of_another_object_format_are_refused() {
        use ObjectFormat::{Sha1, Sha256};
        let refusal = |head: &[&str], format| {
            let bytes = request(head, &[&format!("want {}", "1".repeat(64)), "done"]);
            read(&mut &bytes[..], format).map_err(|error| error.to_string())
        };
        let sha256 = ["command=fetch", "object-format=sha256"];
        assert!(refusal(&sha256, Sha256).is_ok());
        assert_eq!(
            refusal(&sha256, Sha1).unwrap_err(),
            "mismatched object format: server sha1; client sha256"
        );
        // A client that does not send its format uses SHA-1.
        for head in [
            &["command=fetch", "object-format=sha1"][..],
            &["command=fetch"],
        ] {
            assert_eq!(
                refusal(head, Sha256).unwrap_err(),
                "mismatched object format: server sha256; client sha1"
            );
        }
        let unknown = ["object-format=md5", "command=fetch"];
        assert_eq!(
            refusal(&unknown, Sha1).unwrap_err(),
            "unknown object format 'md5'"
        );
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            for format in [ObjectFormat::Sha1, ObjectFormat::Sha256] {
                let _outcome = read(&mut &bytes[..], format).is_ok();
            }
        }
    }
}
