//! The contents of a remote: the advertisement of protocol v0 and v1, the capabilities of v2, and
//! `ls-refs` (gitprotocol-pack(5), gitprotocol-v2(5)).

use std::collections::BTreeMap;
use std::fmt;
use std::io::BufRead;

use henge_git::pkt::{self, Packet};
use henge_git::{Protocol, Service};
use henge_types::{ObjectFormat, ObjectId, RefName, limits};

use crate::error::{Error, printable};
use crate::transfer::Selection;

/// Maximum number of refs of one remote. A listing is kept in memory, more than once while it is
/// compared with another one.
const REFS_MAX: usize = 1_000_000;
/// Bytes of an unstorable name that are shown, and the number of shown names.
const NAME_BYTES_SHOWN: usize = 200;
const NAMES_SHOWN: usize = 5;
/// Maximum number of capability lines.
const CAPABILITIES_MAX: usize = 1000;

/// One ref of a remote.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RemoteRef {
    /// Its full name.
    pub name: RefName,
    /// Its value.
    pub id: ObjectId,
}

/// The refs and capabilities of a remote.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Listing {
    /// Its refs, in the remote's order. HEAD is not among them.
    pub refs: Vec<RemoteRef>,
    /// The branch that HEAD points at, where the remote reports it.
    pub head: Option<RefName>,
    /// The value of HEAD, where it has one.
    pub head_id: Option<ObjectId>,
    /// Its object format.
    pub format: ObjectFormat,
    /// Number of refs left out: git considers their names invalid, or they have no folder below
    /// `refs/`.
    pub unnameable: u64,
    /// The beginnings of names that are valid in git but not as a [`RefName`].
    pub(crate) unholdable: Vec<Vec<u8>>,
    pub(crate) protocol: Protocol,
    pub(crate) capabilities: Capabilities,
}

impl Listing {
    /// The listing of an empty repository with this object format.
    pub fn of(format: ObjectFormat) -> Self {
        Self {
            format,
            ..Self::default()
        }
    }

    /// A listing of the same remote with its capabilities only.
    pub(crate) fn without_refs(&self) -> Self {
        Self {
            protocol: self.protocol,
            capabilities: self.capabilities.clone(),
            ..Self::of(self.format)
        }
    }

    /// The values of the refs by name.
    pub fn values(&self) -> BTreeMap<RefName, ObjectId> {
        let pairs = self.refs.iter().map(|found| (found.name.clone(), found.id));
        pairs.collect()
    }

    /// The default branch: HEAD's target, or else the only or best known branch with HEAD's value.
    pub fn default_branch(&self) -> Option<RefName> {
        if self.head.is_some() {
            return self.head.clone();
        }
        let head = self.head_id?;
        let mut same = self
            .refs
            .iter()
            .filter(|found| found.id == head && found.name.is_branch())
            .map(|found| &found.name);
        let first = same.clone().next();
        let known = same.find(|name| matches!(name.short(), "main" | "master"));
        known.or(first).cloned()
    }

    /// Adds a ref, or counts it as left out.
    ///
    /// # Errors
    /// When there are too many refs, or this one has no value.
    pub fn add(&mut self, name: &str, id: ObjectId) -> Result<(), Error> {
        if self.refs.len() + self.unholdable.len() >= REFS_MAX {
            return Err(Error::protocol(format!("it has more than {REFS_MAX} refs")));
        }
        match name.parse() {
            // Git lists a ref that it cannot read with this value.
            Ok(_) if id.as_bytes().iter().all(|byte| *byte == 0) => {
                let name = printable(name.as_bytes());
                return Err(Error::protocol(format!(
                    "{name} is there without a value: the remote cannot read it"
                )));
            }
            Ok(name) => self.refs.push(RemoteRef { name, id }),
            Err(_) if name.len() > limits::REF_NAME_BYTES_MAX => self.add_odd(name.as_bytes()),
            Err(_) => self.unnameable += 1,
        }
        Ok(())
    }

    /// Number of refs that are not in [`Listing::refs`].
    pub(crate) fn left_out_unseen(&self) -> u64 {
        self.unnameable + self.unholdable.len() as u64
    }

    /// Records a name that is too long, or not UTF-8.
    fn add_odd(&mut self, name: &[u8]) {
        let has_folder = name.iter().filter(|byte| **byte == b'/').count() > 1;
        if has_folder && self.unholdable.len() < REFS_MAX {
            let shown = name.len().min(NAME_BYTES_SHOWN);
            self.unholdable.push(name[..shown].to_vec());
        } else {
            self.unnameable += 1;
        }
    }

    /// The selected refs that are not in [`Listing::refs`] because their names cannot be stored.
    pub fn unholdable(&self, selection: Selection) -> UnholdableRefs {
        let is_taken = |name: &&Vec<u8>| selection.takes_name(name);
        let mut taken = self.unholdable.iter().filter(is_taken);
        let shown = (&mut taken).take(NAMES_SHOWN);
        UnholdableRefs {
            names: shown.map(|name| name.escape_ascii().to_string()).collect(),
            more: taken.count(),
        }
    }

    /// Refuses a source with selected refs that cannot be stored: a copy without them would look
    /// complete.
    ///
    /// # Errors
    /// When there are such refs, with their names.
    pub(crate) fn check_names(&self, selection: Selection) -> Result<(), Error> {
        let refs = self.unholdable(selection);
        if refs.is_empty() {
            Ok(())
        } else {
            Err(Error::Names { refs })
        }
    }
}

/// Refs of a source whose names cannot be stored here: not UTF-8, or longer than
/// [`limits::REF_NAME_BYTES_MAX`].
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct UnholdableRefs {
    /// The beginnings of the first names, with non-ASCII bytes escaped.
    pub names: Vec<String>,
    /// The number of further refs.
    pub more: usize,
}

impl UnholdableRefs {
    /// Whether there are no such refs.
    pub fn is_empty(&self) -> bool {
        self.names.is_empty()
    }
}

impl fmt::Display for UnholdableRefs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.names.join(", "))?;
        match self.more {
            0 => Ok(()),
            more => write!(f, " and {more} more"),
        }
    }
}

/// The capabilities of a server: words, each with an optional value.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Capabilities(BTreeMap<String, String>);

impl Capabilities {
    pub(crate) fn add(&mut self, word: &str) -> Result<(), Error> {
        if self.0.len() == CAPABILITIES_MAX {
            return Err(Error::protocol("it has too many capabilities"));
        }
        let (name, value) = word.split_once('=').unwrap_or((word, ""));
        // `symref` may occur several times; only HEAD's is used.
        let counts = name != "symref" || value.starts_with("HEAD:");
        if counts {
            self.0.insert(name.to_owned(), value.to_owned());
        }
        Ok(())
    }

    pub(crate) fn has(&self, name: &str) -> bool {
        self.0.contains_key(name)
    }

    /// Whether the value of `name` contains `word`.
    pub(crate) fn offers(&self, name: &str, word: &str) -> bool {
        let value = self.0.get(name);
        value.is_some_and(|value| value.split(' ').any(|part| part == word))
    }

    fn format(&self) -> Result<ObjectFormat, Error> {
        self.0
            .get("object-format")
            .map_or(Ok(ObjectFormat::Sha1), |name| {
                let unknown = |error| Error::protocol(format!("{error}"));
                name.parse().map_err(unknown)
            })
    }
}

/// Reads the advertisement. In protocol v2 the refs follow in a separate request
/// ([`read_ls_refs`]).
///
/// # Errors
/// When it ends early, is malformed, or describes an unsupported repository.
pub fn read_advertisement(input: &mut dyn BufRead, service: Service) -> Result<Listing, Error> {
    let mut buffer = Vec::new();
    let expected = format!("# service={}", service.name());
    let mut first = line(input, &mut buffer)?;
    if first.as_deref() == Some(expected.as_bytes()) {
        match pkt::read(input, &mut buffer)? {
            Some(Packet::Flush) => {}
            _ => return Err(Error::protocol("the line of the service has no end")),
        }
        first = line(input, &mut buffer)?;
    }
    match first.as_deref() {
        Some(b"version 2") => read_capabilities(input),
        Some(b"version 1") => {
            let first = line(input, &mut buffer)?;
            read_refs(input, first, Protocol::V1)
        }
        first => read_refs(input, first.map(<[u8]>::to_vec), Protocol::V0),
    }
}

/// One line without its newline; `None` for a flush. Anything else is an error.
fn line(input: &mut dyn BufRead, buffer: &mut Vec<u8>) -> Result<Option<Vec<u8>>, Error> {
    match pkt::read(input, buffer)? {
        None => Err(Error::protocol("it ends early")),
        Some(Packet::Flush) => Ok(None),
        Some(packet) => match packet.line() {
            Some(line) => {
                if let Some(message) = line.strip_prefix(b"ERR ") {
                    let message = printable(message);
                    return Err(Error::Remote { message });
                }
                Ok(Some(line.to_vec()))
            }
            None => Err(Error::protocol("a delimiter where a line was expected")),
        },
    }
}

fn read_capabilities(input: &mut dyn BufRead) -> Result<Listing, Error> {
    let mut listing = Listing {
        protocol: Protocol::V2,
        ..Listing::default()
    };
    let mut buffer = Vec::new();
    while let Some(word) = line(input, &mut buffer)? {
        listing.capabilities.add(&String::from_utf8_lossy(&word))?;
    }
    listing.format = listing.capabilities.format()?;
    for needed in ["ls-refs", "fetch"] {
        if !listing.capabilities.has(needed) {
            return Err(Error::protocol(format!("it does not offer {needed}")));
        }
    }
    Ok(listing)
}

/// Reads the refs of protocol v0 and v1, including their first line.
fn read_refs(
    input: &mut dyn BufRead,
    first: Option<Vec<u8>>,
    protocol: Protocol,
) -> Result<Listing, Error> {
    let mut listing = Listing {
        protocol,
        ..Listing::default()
    };
    let mut buffer = Vec::new();
    let mut next = first;
    let mut is_first = true;
    while let Some(line_read) = next {
        let mut entry = line_read.as_slice();
        if is_first {
            let end = entry.iter().position(|byte| *byte == 0);
            let words = end.map_or(&b""[..], |end| &entry[end + 1..]);
            for word in String::from_utf8_lossy(words).split_whitespace() {
                listing.capabilities.add(word)?;
            }
            listing.format = listing.capabilities.format()?;
            entry = &entry[..end.unwrap_or(entry.len())];
            is_first = false;
        }
        if entry.starts_with(b"shallow ") {
            return Err(Error::Shallow);
        }
        add_line(&mut listing, entry)?;
        next = line(input, &mut buffer)?;
    }
    let target = listing.capabilities.0.get("symref");
    let target = target.and_then(|value| value.strip_prefix("HEAD:"));
    listing.head = target.and_then(|target| target.parse().ok());
    Ok(listing)
}

fn add_line(listing: &mut Listing, entry: &[u8]) -> Result<(), Error> {
    let (id, name) = split_ref(entry, listing.format)?;
    let Ok(name) = std::str::from_utf8(name) else {
        // The peeled value of a tag is not a ref.
        if !name.ends_with(b"^{}") {
            listing.add_odd(name);
        }
        return Ok(());
    };
    match name {
        "HEAD" => listing.head_id = Some(id),
        // The placeholder line of an empty repository.
        "capabilities^{}" => {}
        // The peeled value of a tag.
        peeled if peeled.ends_with("^{}") => {}
        // A tip of another repository, as a delta base.
        ".have" => {}
        name => listing.add(name, id)?,
    }
    Ok(())
}

fn split_ref(entry: &[u8], format: ObjectFormat) -> Result<(ObjectId, &[u8]), Error> {
    let malformed = || {
        let line = printable(entry);
        Error::protocol(format!("{line:?} is not a ref"))
    };
    let (id, name) = entry
        .split_at_checked(format.hex_bytes())
        .ok_or_else(malformed)?;
    let name = name.strip_prefix(b" ").ok_or_else(malformed)?;
    let id = std::str::from_utf8(id).ok().and_then(|id| id.parse().ok());
    Ok((id.ok_or_else(malformed)?, name))
}

/// Reads the answer to `ls-refs` into `listing`.
///
/// # Errors
/// When it ends early, is malformed, or lists too many refs.
pub fn read_ls_refs(input: &mut dyn BufRead, listing: &mut Listing) -> Result<(), Error> {
    let mut buffer = Vec::new();
    while let Some(entry) = line(input, &mut buffer)? {
        // `unborn HEAD symref-target:NAME`, or an id.
        let unborn = entry.strip_prefix(b"unborn ");
        let (id, rest) = match unborn {
            Some(rest) => (None, rest),
            None => {
                let (id, rest) = split_ref(&entry, listing.format)?;
                (Some(id), rest)
            }
        };
        let Ok(rest) = std::str::from_utf8(rest) else {
            listing.add_odd(rest.split(|byte| *byte == b' ').next().unwrap_or_default());
            continue;
        };
        let mut words = rest.split(' ');
        let name = words.next().unwrap_or_default();
        if name == "HEAD" {
            listing.head_id = id;
            let target = words.find_map(|word| word.strip_prefix("symref-target:"));
            listing.head = target.and_then(|target| target.parse().ok());
        } else if let Some(id) = id {
            listing.add(name, id)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: &str = "1111111111111111111111111111111111111111";
    const B: &str = "2222222222222222222222222222222222222222";

    fn lines(lines: &[&str]) -> Vec<u8> {
        let mut bytes = Vec::new();
        for line in lines {
            if line.is_empty() {
                pkt::write_flush(&mut bytes).unwrap();
            } else {
                pkt::write(&mut bytes, format!("{line}\n").as_bytes()).unwrap();
            }
        }
        bytes
    }

    fn read(text: &[&str]) -> Result<Listing, Error> {
        read_advertisement(&mut &lines(text)[..], Service::UploadPack)
    }

    /// Such refs were left out of copies, which then looked complete.
    #[test]
    fn a_name_that_cannot_be_held_is_named() {
        let lines = |names: &[&[u8]]| {
            let mut bytes = Vec::new();
            for name in names {
                let line = [A.as_bytes(), b" ", name].concat();
                pkt::write(&mut bytes, &line).unwrap();
            }
            pkt::write_flush(&mut bytes).unwrap();
            bytes
        };
        let check = |names: &[&[u8]]| {
            let bytes = lines(names);
            let first = read_advertisement(&mut &bytes[..], Service::UploadPack).unwrap();
            let mut second = Listing::of(ObjectFormat::Sha1);
            read_ls_refs(&mut &bytes[..], &mut second).unwrap();
            let said = [first, second].map(|listing| {
                let checked = listing.check_names(Selection::Project);
                checked.map_err(|error| error.to_string())
            });
            assert_eq!(said[0], said[1]);
            said[0].clone()
        };
        let long = format!("refs/heads/{}", "n".repeat(limits::REF_NAME_BYTES_MAX));
        let said = check(&[b"refs/heads/caf\xe9", b"refs/tags/x", long.as_bytes()]).unwrap_err();
        let shown = &long[..NAME_BYTES_SHOWN];
        assert!(
            said.contains(r"refs/heads/caf\xe9, refs/heads/nnn"),
            "{said}"
        );
        assert!(
            said.contains(shown) && said.contains("rename or delete"),
            "{said}"
        );
        // Refs that are not copied, and names that git does not use for refs of a project.
        let left_out: [&[u8]; 3] = [b"refs/pull/caf\xe9/head", b"refs/stash", b"refs/\xe9"];
        assert_eq!(check(&left_out), Ok(()));
    }

    #[test]
    fn the_first_protocol_lists_refs() {
        let first = format!("{A} HEAD\0side-band-64k symref=HEAD:refs/heads/main agent=x");
        let (main, tag, peeled) = (
            format!("{A} refs/heads/main"),
            format!("{B} refs/tags/v1"),
            format!("{A} refs/tags/v1^{{}}"),
        );
        let odd = format!("{A} refs/heads/a..b");
        for start in [&["# service=git-upload-pack", ""][..], &["version 1"], &[]] {
            let rest = [&*first, &*main, &*tag, &*peeled, &*odd, ""];
            let listing = read(&[start, &rest].concat()).unwrap();
            assert_eq!(listing.refs.len(), 2);
            assert_eq!(listing.unnameable, 1);
            assert_eq!(listing.head.as_ref().unwrap().as_str(), "refs/heads/main");
            assert_eq!(listing.head_id.unwrap().to_string(), A);
            assert!(listing.capabilities.has("side-band-64k"));
        }
    }

    #[test]
    fn the_second_protocol_lists_capabilities_and_then_refs() {
        let words = ["version 2", "ls-refs=unborn", "fetch=shallow filter", ""];
        let mut listing = read(&words).unwrap();
        assert_eq!(listing.protocol, Protocol::V2);
        assert!(listing.capabilities.offers("fetch", "filter"));
        let refs = lines(&[
            "unborn HEAD symref-target:refs/heads/trunk",
            &format!("{A} refs/heads/x peeled:{B}"),
            "",
        ]);
        read_ls_refs(&mut &refs[..], &mut listing).unwrap();
        assert_eq!(
            listing.default_branch().unwrap().as_str(),
            "refs/heads/trunk"
        );
        assert_eq!((listing.refs.len(), listing.head_id), (1, None));
    }

    #[test]
    fn an_empty_repository_and_one_without_symrefs_are_understood() {
        let zero = "0".repeat(40);
        let empty = read(&[&format!("{zero} capabilities^{{}}\0agent=x"), ""]).unwrap();
        assert_eq!((empty.refs.len(), empty.default_branch()), (0, None));
        let listing = read(&[
            &format!("{A} HEAD\0agent=x"),
            &format!("{A} refs/heads/dev"),
            &format!("{A} refs/heads/master"),
            "",
        ]);
        let branch = listing.unwrap().default_branch().unwrap();
        assert_eq!(branch.as_str(), "refs/heads/master");
    }

    /// A listing that ends early has fewer refs than the remote: a pruning copy would delete the
    /// others.
    #[test]
    fn a_listing_that_ends_early_is_an_error() {
        let (main, next) = (format!("{A} refs/heads/main"), format!("{B} refs/heads/x"));
        let words = ["version 2", "ls-refs", "fetch", ""];
        let first = format!("{A} HEAD\0agent=x");
        let advertised = lines(&[&first, &main, &next, ""]);
        let listed = lines(&[&main, &next, ""]);
        for cut in 0..advertised.len() {
            let read = read_advertisement(&mut &advertised[..cut], Service::UploadPack);
            assert!(read.is_err(), "{cut}");
        }
        for cut in 0..listed.len() {
            let mut listing = read(&words).unwrap();
            assert!(
                read_ls_refs(&mut &listed[..cut], &mut listing).is_err(),
                "{cut}"
            );
        }
        let mut listing = read(&words).unwrap();
        read_ls_refs(&mut &listed[..], &mut listing).unwrap();
        assert_eq!(listing.refs.len(), 2);
    }

    /// Stock git lists a ref whose file it cannot read with the null id.
    #[test]
    fn a_ref_without_a_value_fails_the_listing() {
        let null = format!("{} refs/heads/lost", "0".repeat(40));
        let mut listing = read(&["version 2", "ls-refs", "fetch", ""]).unwrap();
        let listed = lines(&[&null, ""]);
        let error = read_ls_refs(&mut &listed[..], &mut listing).unwrap_err();
        assert!(error.to_string().contains("refs/heads/lost"), "{error}");
        assert!(read(&[&format!("{A} HEAD\0agent=x"), &null, ""]).is_err());
    }

    #[test]
    fn what_is_no_listing_is_an_error() {
        let shallow = format!("shallow {A}");
        let first = format!("{A} HEAD\0agent=x");
        for bad in [
            &["hello", ""][..],
            &["ERR no such thing", ""],
            &[first.as_str()],
            &[first.as_str(), shallow.as_str(), ""],
            &["version 2", "agent=x", ""],
            &[&format!("{A} HEAD\0object-format=sha3"), ""],
            &[&format!("{A}HEAD\0x"), ""],
        ] {
            assert!(read(bad).is_err(), "{bad:?}");
        }
        let error = read(&["ERR no\u{1b}[1mthing", ""]).unwrap_err();
        assert_eq!(error.to_string(), "the remote says: no [1mthing");
    }
}
