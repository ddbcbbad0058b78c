//! Fetches of protocol v0 and v1: one stateless request each, as with HTTP, or rounds on one
//! stream.

use std::io::BufRead;

use henge_types::ObjectFormat;

use crate::fetch::FetchError;
use crate::fetch::answer::{Answer, Frames};
use crate::fetch::graph::{Graph, Node};
use crate::fetch::negotiate::{Whose, common, is_enough};
use crate::fetch::request::{Fetch, check_format, not_a_fetch};
use crate::fetch::select::not_tips;
use crate::fetch::serve::{Choice, Session, Wants, progress, wants, write_cut};
use crate::oid::Oid;
use crate::output::Output;
use crate::pkt::{self, Packet};

/// Maximum number of lines in one request.
const LINES_MAX: usize = 400_000;

/// The transport of a negotiation in several rounds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Rounds {
    /// Each round is a request that repeats the earlier ones.
    Stateless,
    /// All rounds are on one stream, and the client waits for a response to each.
    Stream,
}

/// The acknowledgment of haves.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
enum Acks {
    /// Only the first common one.
    #[default]
    Single,
    /// Each common one, as `continue`.
    Multi,
    /// Each common one, as `common`, then `ready`.
    Detailed,
}

#[derive(Debug, Default)]
struct Legacy {
    fetch: Fetch,
    format: ObjectFormat,
    acks: Acks,
    side_band: bool,
    side_band_64k: bool,
    no_done: bool,
    filters: bool,
}

impl Session<'_> {
    /// Serves one fetch.
    pub(super) fn legacy(
        &mut self,
        rounds: Rounds,
        input: &mut dyn BufRead,
        output: &mut dyn Output,
    ) -> Result<(), FetchError> {
        let mut input = pkt::Bounded::new(input, self.limits.request_bytes_max as u64);
        let Some(mut request) = read_wants(&mut input, self.objects.format())? else {
            return Ok(());
        };
        if request.fetch.filter.is_some() && !request.filters {
            return Err(FetchError::FilterNotNegotiated);
        }
        request.fetch.check()?;
        let not_tips = not_tips(self.refs, self.index(), &request.fetch.wants);
        let store = self.objects.open()?;
        self.check_wants(&store, &not_tips)?;
        let mut sieve = self.sieve(&store, request.fetch.filter.as_ref())?;
        let answer = Answer::new(output, self.work.clone(), false);
        let mut graph = Graph::new(&store, &answer);
        let wants = wants(&mut graph, &request.fetch.wants)?;
        let turn = self.cutting_turn(&store, &request.fetch)?;
        let cut = self.cut(&mut graph, &request.fetch, &wants)?;
        if request.fetch.deepen.is_asked() {
            write_cut(&cut, &answer)?;
            answer.flush()?;
            answer.hand_over()?;
        }
        // A client that deepens may end its request here: it reads the shallow boundary first, and
        // sends its haves in another request.
        if input.fill_buf()?.is_empty() {
            return Ok(());
        }
        let found = match rounds {
            Rounds::Stateless => {
                read_haves(&mut input, &mut request)?;
                negotiate(&mut graph, self.whose(), &request, &wants, &answer)?
            }
            Rounds::Stream => negotiate_rounds(
                &mut graph,
                self.whose(),
                &mut input,
                &mut request,
                &wants,
                &answer,
            )?,
        };
        let Some(common) = found else {
            return Ok(());
        };
        let frames = match request {
            Legacy {
                side_band_64k: true,
                ..
            } => Frames::Large,
            Legacy {
                side_band: true, ..
            } => Frames::Small,
            Legacy { .. } => Frames::None,
        };
        let fetch = &request.fetch;
        self.in_pack = frames != Frames::None;
        answer.begin_pack(frames, progress(fetch));
        let choice = Choice {
            common: &common,
            cut: &cut,
            tick: &answer,
        };
        let turn = self.keep_turn(turn, &store, &common)?;
        let selection = self.select(&mut graph, fetch, &wants, choice, &mut sieve)?;
        // The permit is released before anything is sent, so that no slow client holds it.
        drop(turn);
        answer.enumerated(selection.len())?;
        self.send(&store, selection, fetch, answer, frames)?;
        self.in_pack = false;
        Ok(())
    }
}

/// Reads wants, capabilities and shallow lines; `None` when the client has no wants.
fn read_wants(input: &mut dyn BufRead, format: ObjectFormat) -> Result<Option<Legacy>, FetchError> {
    let mut request = Legacy {
        format,
        ..Legacy::default()
    };
    let mut buffer = Vec::new();
    for _ in 0..LINES_MAX {
        let line = match pkt::read(input, &mut buffer)? {
            Some(Packet::Flush) | None if request.fetch.wants.is_empty() => return Ok(None),
            Some(Packet::Flush) => return Ok(Some(request)),
            None => return Err(not_a_fetch(b"a request without an end")),
            Some(packet) => packet.line().ok_or_else(|| not_a_fetch(b"0001"))?,
        };
        let line = if request.fetch.wants.is_empty() && line.starts_with(b"want ") {
            let end = line
                .iter()
                .enumerate()
                .position(|(at, byte)| at > 5 && matches!(byte, b' ' | 0))
                .unwrap_or(line.len());
            request.take_capabilities(&line[end..])?;
            &line[..end]
        } else {
            line
        };
        // Clients send depth 0 for the whole history.
        if line != b"deepen 0" && !request.fetch.take_line(line, format)? {
            return Err(not_a_fetch(line));
        }
    }
    Err(FetchError::TooLarge { max: LINES_MAX })
}

fn read_haves(input: &mut dyn BufRead, request: &mut Legacy) -> Result<(), FetchError> {
    let mut buffer = Vec::new();
    for _ in 0..LINES_MAX {
        match pkt::read(input, &mut buffer)? {
            None => return Ok(()),
            // A flush separates rounds of haves; a stateless request repeats all of them.
            Some(Packet::Flush) => {}
            Some(packet) => match packet.line() {
                Some(b"done") => {
                    request.fetch.done = true;
                    return Ok(());
                }
                Some(line) if line.starts_with(b"have ") => {
                    request.fetch.take_line(line, request.format)?;
                }
                Some(line) => return Err(not_a_fetch(line)),
                None => return Err(not_a_fetch(b"0001")),
            },
        }
    }
    Err(FetchError::TooLarge { max: LINES_MAX })
}

impl Legacy {
    fn take_capabilities(&mut self, text: &[u8]) -> Result<(), FetchError> {
        let text = String::from_utf8_lossy(text);
        for word in text.split(|letter: char| letter == '\0' || letter.is_ascii_whitespace()) {
            match word {
                "multi_ack" => self.acks = self.acks.max(Acks::Multi),
                "multi_ack_detailed" => self.acks = Acks::Detailed,
                "deepen-relative" => self.fetch.deepen.relative = true,
                "filter" => self.filters = true,
                "no-done" => self.no_done = true,
                "side-band" => self.side_band = true,
                "side-band-64k" => self.side_band_64k = true,
                "thin-pack" => self.fetch.thin_pack = true,
                "ofs-delta" => self.fetch.ofs_delta = true,
                "include-tag" => self.fetch.include_tag = true,
                "no-progress" => self.fetch.no_progress = true,
                _ => {
                    if let Some(name) = word.strip_prefix("object-format=") {
                        check_format(name, self.format)?;
                    }
                }
            }
        }
        Ok(())
    }
}

impl Acks {
    fn max(self, other: Self) -> Self {
        if self == Self::Single { other } else { self }
    }
}

fn acknowledge(answer: &Answer<'_>, id: &Oid, word: &str) -> Result<(), FetchError> {
    Ok(answer.line(&format!("ACK {id}{word}\n"))?)
}

/// Writes the acknowledgments. Returns the common commits when the pack comes next.
fn negotiate(
    graph: &mut Graph<'_>,
    whose: Whose<'_>,
    request: &Legacy,
    wants: &Wants,
    answer: &Answer<'_>,
) -> Result<Option<Vec<Node>>, FetchError> {
    let common = common(graph, whose, &request.fetch.haves)?;
    let last = common.last().map(|node| graph.id(*node));
    let done = request.fetch.done;
    match request.acks {
        Acks::Single => {
            // The first common have is acknowledged once; then the client stops.
            match common.first().map(|node| graph.id(*node)) {
                Some(first) => acknowledge(answer, &first, "")?,
                None => answer.line("NAK\n")?,
            }
            return Ok(done.then_some(common));
        }
        Acks::Multi => {
            for node in &common {
                acknowledge(answer, &graph.id(*node), " continue")?;
            }
        }
        Acks::Detailed => {
            for node in &common {
                acknowledge(answer, &graph.id(*node), " common")?;
            }
            let enough = !done && is_enough(graph, &wants.commits, &common)?;
            if let Some(last) = last.filter(|_| enough) {
                acknowledge(answer, &last, " ready")?;
                if request.no_done {
                    answer.line("NAK\n")?;
                    acknowledge(answer, &last, "")?;
                    return Ok(Some(common));
                }
            }
        }
    }
    match last {
        Some(last) if done => acknowledge(answer, &last, "")?,
        Some(_) | None => answer.line("NAK\n")?,
    }
    Ok(done.then_some(common))
}

/// The end of a round of haves.
#[derive(Debug, PartialEq, Eq)]
enum RoundEnd {
    /// The client waits for a response and continues.
    Flush,
    Done,
    /// The client closed the stream.
    Gone,
}

fn read_round(
    input: &mut dyn BufRead,
    request: &mut Legacy,
    haves: &mut Vec<Oid>,
) -> Result<RoundEnd, FetchError> {
    let mut buffer = Vec::new();
    loop {
        let end = match pkt::read(input, &mut buffer)? {
            None => RoundEnd::Gone,
            Some(Packet::Flush) => RoundEnd::Flush,
            Some(packet) => match packet.line() {
                Some(b"done") => RoundEnd::Done,
                Some(line) if line.starts_with(b"have ") => {
                    request.fetch.take_line(line, request.format)?;
                    continue;
                }
                Some(line) => return Err(not_a_fetch(line)),
                None => return Err(not_a_fetch(b"0001")),
            },
        };
        haves.append(&mut request.fetch.haves);
        return Ok(end);
    }
}

/// Answers rounds of haves until the client is done. Returns the common commits when the pack comes
/// next.
fn negotiate_rounds(
    graph: &mut Graph<'_>,
    whose: Whose<'_>,
    input: &mut dyn BufRead,
    request: &mut Legacy,
    wants: &Wants,
    answer: &Answer<'_>,
) -> Result<Option<Vec<Node>>, FetchError> {
    let mut all = Vec::new();
    let mut last: Option<Oid> = None;
    let mut is_ready = false;
    loop {
        graph.tick()?;
        let mut haves = Vec::new();
        let end = read_round(input, request, &mut haves)?;
        let found = common(graph, whose, &haves)?;
        for node in &found {
            let id = graph.id(*node);
            match request.acks {
                // Only the first common have of all rounds.
                Acks::Single if last.is_none() => acknowledge(answer, &id, "")?,
                Acks::Single => {}
                Acks::Multi => acknowledge(answer, &id, " continue")?,
                Acks::Detailed => acknowledge(answer, &id, " common")?,
            }
            last = Some(id);
        }
        let has_new = !found.is_empty();
        all.extend(found);
        match end {
            RoundEnd::Gone => return Ok(None),
            RoundEnd::Done => {
                match last {
                    Some(last) if request.acks != Acks::Single => acknowledge(answer, &last, "")?,
                    Some(_) => {}
                    None => answer.line("NAK\n")?,
                }
                return Ok(Some(all));
            }
            RoundEnd::Flush => {
                if request.acks == Acks::Detailed
                    && let Some(last) = last
                {
                    // A round without new common commits changes nothing, and a client may send
                    // millions of them.
                    if has_new {
                        is_ready = is_enough(graph, &wants.commits, &all)?;
                    }
                    if is_ready {
                        acknowledge(answer, &last, " ready")?;
                    }
                }
                if last.is_none() || request.acks != Acks::Single {
                    answer.line("NAK\n")?;
                }
                if let Some(last) = last.filter(|_| is_ready && request.no_done) {
                    acknowledge(answer, &last, "")?;
                    return Ok(Some(all));
                }
                answer.hand_over()?;
            }
        }
    }
}
