//! The parsers of a hostile peer's bytes, for the fuzz target and for plain tests.
//!
//! The first byte selects the parser of the rest. The input goes through the public API; a panic
//! means that a result contradicts a known property of the input.

use std::io::BufReader;

use henge_git::{Protocol, Service};
use henge_git_client::transfer::Event;
use henge_git_client::{
    Listing, PackFile, RemoteUrl, read_advertisement, read_banded_report, read_ls_refs, read_report,
};
use henge_types::{ObjectFormat, PreviousValue, RefUpdate};

/// Maximum size of a pack.
const PACK_BYTES_MAX: u64 = 64 * 1024;

/// The directory for packs, and the pushed updates.
pub(crate) struct Place {
    dir: tempfile::TempDir,
    updates: Vec<RefUpdate>,
}

impl Place {
    pub(crate) fn new() -> Self {
        let update = |name: &&str| RefUpdate {
            name: name.parse().expect("a name"),
            expected: PreviousValue::MustNotExist,
            new: None,
        };
        Self {
            dir: tempfile::tempdir().expect("a directory can be made"),
            updates: ["refs/heads/a", "refs/heads/b"]
                .iter()
                .map(update)
                .collect(),
        }
    }

    /// Parses the input; returns the error of a refused one.
    pub(crate) fn take(&self, data: &[u8]) -> Result<(), String> {
        let Some((kind, data)) = data.split_first() else {
            return Err("no input".to_owned());
        };
        match kind {
            b'u' => advertisement(data, Service::UploadPack),
            b'r' => advertisement(data, Service::ReceivePack),
            b'l' => ls_refs(data, ObjectFormat::Sha1),
            b'L' => ls_refs(data, ObjectFormat::Sha256),
            b'f' => self.fetch(data, Protocol::V2),
            b'g' => self.fetch(data, Protocol::V0),
            b'p' => {
                let verdicts = read_report(data, &self.updates);
                self.verdicts(verdicts.map_err(|error| error.to_string())?.len())
            }
            b'b' => {
                let verdicts = read_banded_report(data, &self.updates, &mut |_| {});
                self.verdicts(verdicts.map_err(|error| error.to_string())?.len())
            }
            b'h' => url(data),
            _ => Err("no such kind".to_owned()),
        }
    }

    fn verdicts(&self, verdicts: usize) -> Result<(), String> {
        assert_eq!(verdicts, self.updates.len());
        Ok(())
    }

    /// An answer fed in pieces must give the same result as in one piece. Its first byte is the
    /// size of the pieces.
    fn fetch(&self, data: &[u8], protocol: Protocol) -> Result<(), String> {
        let Some((piece, answer)) = data.split_first() else {
            return Err("no answer".to_owned());
        };
        let whole = self.answer(answer, answer.len() + 1, protocol);
        let pieces = self.answer(answer, usize::from(*piece) + 1, protocol);
        assert_eq!(whole, pieces);
        whole.map(|_| ())
    }

    /// Bytes and objects of the pack in an answer.
    fn answer(&self, data: &[u8], piece: usize, protocol: Protocol) -> Result<(u64, u32), String> {
        let mut most = 0;
        let mut tell = |event: Event<'_>| {
            if let Event::Received { bytes } = event {
                assert!(bytes >= most, "a pack that shrinks");
                most = bytes;
            }
        };
        let pack = PackFile::from_answer(
            self.dir.path(),
            ObjectFormat::Sha1,
            PACK_BYTES_MAX,
            protocol,
            &mut BufReader::with_capacity(piece, data),
            &mut tell,
        );
        let pack = pack.map_err(|error| error.to_string())?;
        let mut copy = Vec::new();
        pack.copy_to(&mut copy).expect("it can be read");
        assert!(pack.bytes() <= PACK_BYTES_MAX && copy.len() as u64 == pack.bytes());
        Ok((pack.bytes(), pack.objects()))
    }
}

fn advertisement(data: &[u8], service: Service) -> Result<(), String> {
    let mut input = data;
    let listing = read_advertisement(&mut input, service).map_err(|error| error.to_string())?;
    check(&listing, data)
}

fn ls_refs(data: &[u8], format: ObjectFormat) -> Result<(), String> {
    let mut input = data;
    let mut listing = Listing::of(format);
    read_ls_refs(&mut input, &mut listing).map_err(|error| error.to_string())?;
    check(&listing, data)
}

fn check(listing: &Listing, data: &[u8]) -> Result<(), String> {
    assert!(listing.refs.len() <= data.len() / listing.format.hex_bytes());
    assert!(listing.values().len() <= listing.refs.len());
    for found in &listing.refs {
        assert_eq!(found.id.format(), listing.format);
    }
    if let Some(branch) = listing.default_branch() {
        assert!(!branch.as_str().is_empty());
    }
    Ok(())
}

/// A URL, optionally followed by a newline and the location of a redirect.
fn url(data: &[u8]) -> Result<(), String> {
    let text = std::str::from_utf8(data).map_err(|error| error.to_string())?;
    let (text, location) = text.split_once('\n').unwrap_or((text, ""));
    let (url, credentials) = RemoteUrl::parse(text).map_err(|error| error.to_string())?;
    let shown = url.to_string();
    if let Ok((again, none)) = RemoteUrl::parse(&shown) {
        assert_eq!(again.to_string(), shown);
        assert!(none.is_none(), "what is shown has credentials");
    } else {
        panic!("{shown:?} is no URL");
    }
    drop(credentials);
    if let Some(next) = url.redirected(location, "/info/refs") {
        assert!(!url.trusts(&next) || next.host() == url.host());
    }
    Ok(())
}
