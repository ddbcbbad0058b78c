//! Requests as bytes, without a connection.

use std::io;

use henge_git::protocol::AGENT;
use henge_git::{Protocol, pkt};
use henge_types::{ObjectFormat, ObjectId, PreviousValue, RefUpdate};

use crate::error::Error;
use crate::listing::Listing;

/// Maximum number of haves sent to a remote.
pub(crate) const HAVES_MAX: usize = 16_384;

fn built(result: io::Result<()>) -> Result<(), Error> {
    result.map_err(Error::io("cannot write a request"))
}

fn line(request: &mut Vec<u8>, text: &str) -> Result<(), Error> {
    built(pkt::write(request, format!("{text}\n").as_bytes()))
}

/// The beginning of a command of protocol v2.
fn command(request: &mut Vec<u8>, listing: &Listing, name: &str) -> Result<(), Error> {
    line(request, &format!("command={name}"))?;
    if listing.capabilities.has("agent") {
        line(request, &format!("agent={AGENT}"))?;
    }
    if listing.capabilities.has("object-format") {
        line(request, &format!("object-format={}", listing.format))?;
    }
    built(pkt::write_delimiter(request))
}

/// The request for all refs (v2).
pub(crate) fn ls_refs(listing: &Listing) -> Result<Vec<u8>, Error> {
    let mut request = Vec::new();
    command(&mut request, listing, "ls-refs")?;
    line(&mut request, "symrefs")?;
    if listing.capabilities.offers("ls-refs", "unborn") {
        line(&mut request, "unborn")?;
    }
    line(&mut request, "ref-prefix HEAD")?;
    line(&mut request, "ref-prefix refs/")?;
    built(pkt::write_flush(&mut request))?;
    Ok(request)
}

/// The request for a pack with all objects that are reachable from `wants` and not from `haves`.
///
/// All haves are sent at once: a second round of negotiation would only find fewer of them.
pub(crate) fn fetch(
    listing: &Listing,
    wants: &[ObjectId],
    haves: &[ObjectId],
) -> Result<Vec<u8>, Error> {
    let haves = &haves[..haves.len().min(HAVES_MAX)];
    match listing.protocol {
        Protocol::V2 => fetch_v2(listing, wants, haves),
        Protocol::V0 | Protocol::V1 => fetch_first(listing, wants, haves),
    }
}

fn fetch_v2(listing: &Listing, wants: &[ObjectId], haves: &[ObjectId]) -> Result<Vec<u8>, Error> {
    let mut request = Vec::new();
    command(&mut request, listing, "fetch")?;
    line(&mut request, "ofs-delta")?;
    for id in wants {
        line(&mut request, &format!("want {id}"))?;
    }
    for id in haves {
        line(&mut request, &format!("have {id}"))?;
    }
    line(&mut request, "done")?;
    built(pkt::write_flush(&mut request))?;
    Ok(request)
}

fn fetch_first(
    listing: &Listing,
    wants: &[ObjectId],
    haves: &[ObjectId],
) -> Result<Vec<u8>, Error> {
    let offered = &listing.capabilities;
    let side_band = ["side-band-64k", "side-band"]
        .into_iter()
        .find(|name| offered.has(name))
        .ok_or_else(|| Error::protocol("it is too old to offer side-band"))?;
    let mut words = side_band.to_owned();
    if offered.has("ofs-delta") {
        words.push_str(" ofs-delta");
    }
    if offered.has("object-format") {
        words.push_str(&format!(" object-format={}", listing.format));
    }
    if offered.has("agent") {
        words.push_str(&format!(" agent={AGENT}"));
    }
    let mut request = Vec::new();
    for (position, id) in wants.iter().enumerate() {
        if position == 0 {
            line(&mut request, &format!("want {id} {words}"))?;
        } else {
            line(&mut request, &format!("want {id}"))?;
        }
    }
    built(pkt::write_flush(&mut request))?;
    for id in haves {
        line(&mut request, &format!("have {id}"))?;
    }
    line(&mut request, "done")?;
    Ok(request)
}

/// The commands of a push, up to its pack.
///
/// # Errors
/// When an update's expectation has no command, or the remote lacks a capability for it.
pub(crate) fn push(listing: &Listing, updates: &[RefUpdate]) -> Result<Vec<u8>, Error> {
    let offered = &listing.capabilities;
    if !offered.has("report-status") {
        return Err(Error::protocol("it does not report what became of a push"));
    }
    let mut words = "report-status".to_owned();
    for name in ["side-band-64k", "quiet", "ofs-delta"] {
        if offered.has(name) {
            words.push_str(&format!(" {name}"));
        }
    }
    if offered.has("object-format") {
        words.push_str(&format!(" object-format={}", listing.format));
    }
    if offered.has("agent") {
        words.push_str(&format!(" agent={AGENT}"));
    }
    let mut request = Vec::new();
    for (position, update) in updates.iter().enumerate() {
        if update.new.is_none() && !offered.has("delete-refs") {
            return Err(Error::protocol("it does not delete refs"));
        }
        let zero = "0".repeat(listing.format.hex_bytes());
        let old = match update.expected {
            PreviousValue::MustExistAndMatch(id) => id.to_string(),
            PreviousValue::MustNotExist => zero.clone(),
            PreviousValue::Any | PreviousValue::MustExist => {
                return Err(Error::Push {
                    message: format!("{}: its present value must be named", update.name),
                });
            }
        };
        let new = update.new.map_or(zero, |id| id.to_string());
        let command = format!("{old} {new} {}", update.name);
        let text = match position {
            0 => format!("{command}\0 {words}"),
            _ => command,
        };
        built(pkt::write(&mut request, text.as_bytes()))?;
    }
    built(pkt::write_flush(&mut request))?;
    Ok(request)
}

/// The commands of a push to a Henge server in the same process, up to its pack: the report comes
/// without side-bands.
///
/// # Errors
/// When an update's expectation has no command.
pub fn push_commands(format: ObjectFormat, updates: &[RefUpdate]) -> Result<Vec<u8>, Error> {
    let mut listing = Listing::of(format);
    for word in ["report-status", "delete-refs", "ofs-delta", "object-format"] {
        listing.capabilities.add(word)?;
    }
    push(&listing, updates)
}
