//! Parsers and services for hostile bytes: one function per kind of input, for the fuzz targets and
//! for plain tests.
//!
//! Each of them uses the public API, panics when a file is left behind or a result contradicts a
//! known property of the input, and returns the result.

mod files;
mod longer;
mod packs;

use std::path::Path;
use std::time::Duration;

#[allow(unused_imports, reason = "every target uses its part of the inputs")]
pub(crate) use files::Shelf;
use henge_git::{
    BareRepository, Conversation, Deadline, FetchLimits, Objects, Output, Part, Protocol, PushHead,
    PushLimits, Stop, parse_push, receive_pack, upload_pack,
};
use henge_runtime::SystemClock;
use henge_types::ObjectFormat;
use henge_types::limits::CERTIFICATE_IDENT_BYTES_MAX;
use longer::{Longer, first_whole};
#[allow(unused_imports, reason = "every target uses its part of the inputs")]
pub(crate) use packs::{
    Entry, Id, Kind, commit_text, deflate, hex, line, object_id, pack_body, push_head, tag_text,
    with_trailer,
};

/// Deadline of every input, far above the usual time.
const DEADLINE: Duration = Duration::from_secs(20);
/// Size limit of objects that the drivers inflate themselves.
const OBJECT_BYTES_MAX: usize = 1 << 20;
/// The ref that hostile pushes create. It is not a branch, so it may point at any kind of object.
pub(crate) const REF: &str = "refs/tags/x";

/// The result of an input.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Taken {
    Accepted,
    /// With the error message.
    Refused(String),
}

impl Taken {
    pub(crate) fn is_accepted(&self) -> bool {
        *self == Self::Accepted
    }
}

/// A bare repository with a small, known history.
pub(crate) struct Place {
    dir: tempfile::TempDir,
    repo: BareRepository,
    longer: Longer,
    pub(crate) blob: Vec<u8>,
    pub(crate) blob_id: Id,
    pub(crate) tree_id: Id,
    pub(crate) commit_id: Id,
    pub(crate) tag_id: Id,
}

impl Place {
    pub(crate) fn new() -> Self {
        let dir = tempfile::tempdir().expect("a directory can be made");
        let root = dir.path();
        std::fs::write(root.join("HEAD"), "ref: refs/heads/main\n").expect("written");
        for below in ["objects/pack", "refs/heads", "refs/tags"] {
            std::fs::create_dir_all(root.join(below)).expect("made");
        }
        let repo = BareRepository::open(root).expect("a bare repository");
        let longer = Longer::new();
        let blob = b"a line of the base\n".repeat(20);
        let blob_id = object_id(Kind::Blob, &blob);
        let tree = [&b"100644 base.txt\0"[..], &blob_id].concat();
        let tree_id = object_id(Kind::Tree, &tree);
        let commit = commit_text(&tree_id, &[]);
        let commit_id = object_id(Kind::Commit, &commit);
        let tag = tag_text(&commit_id, "commit");
        let tag_id = object_id(Kind::Tag, &tag);
        let place = Self {
            dir,
            repo,
            longer,
            blob,
            blob_id,
            tree_id,
            commit_id,
            tag_id,
        };
        let body = pack_body(&[
            Entry::Whole(Kind::Commit, &commit),
            Entry::Whole(Kind::Tree, &tree),
            Entry::Whole(Kind::Blob, &place.blob),
            Entry::Whole(Kind::Tag, &tag),
        ]);
        let commands = [(commit_id, "refs/heads/main"), (tag_id, "refs/tags/v1")];
        let taken = place.push(&commands, &with_trailer(&body), &limits());
        assert_eq!(taken, Taken::Accepted);
        place
    }

    pub(crate) fn path(&self) -> &Path {
        self.dir.path()
    }

    fn objects(&self) -> Objects {
        Objects::at(&self.repo.objects(), self.repo.object_format())
    }

    /// Pushes new refs with a pack. Only packs and refs may be left, and only after success.
    pub(crate) fn push(&self, refs: &[(Id, &str)], pack: &[u8], limits: &PushLimits) -> Taken {
        let packs = self.packs();
        let taken = push(&self.repo, &self.objects(), refs, pack, limits);
        self.assert_clean();
        if !taken.is_accepted() {
            assert_eq!(packs, self.packs(), "a refused push left a pack");
            assert!(
                !self.dir.path().join(REF).is_file(),
                "a refused push left a ref"
            );
        }
        taken
    }

    /// Fetches; the response goes to `answer`.
    pub(crate) fn fetch(
        &self,
        protocol: Protocol,
        request: &[u8],
        answer: &mut dyn Output,
        stop: Stop,
    ) -> Result<(), String> {
        let limits = FetchLimits {
            stop,
            ..FetchLimits::default()
        };
        let mut request = request;
        let objects = self.objects();
        upload_pack(
            &self.repo,
            &objects,
            protocol,
            &mut request,
            answer,
            &limits,
        )
        .map(|_| ())
        .map_err(|error| error.to_string())
    }

    /// Fetches on a stream, as over SSH; the response is discarded.
    pub(crate) fn converse(&self, request: &[u8], stop: Stop) -> Result<(), String> {
        let limits = FetchLimits {
            stop,
            ..FetchLimits::default()
        };
        let objects = self.objects();
        let conversation = Conversation {
            refs: &self.repo,
            objects: &objects,
            protocol: Protocol::V0,
            part: Part::Whole,
        };
        let mut request = request;
        conversation
            .upload_pack(&mut request, &mut std::io::sink(), &limits)
            .map(|_| ())
            .map_err(|error| error.to_string())
    }

    fn packs(&self) -> usize {
        let packs = std::fs::read_dir(self.repo.objects().join("pack"));
        packs.expect("readable").count()
    }

    fn assert_clean(&self) {
        for file in std::fs::read_dir(self.repo.objects()).expect("readable") {
            let name = file.expect("readable").file_name();
            assert_eq!(name, "pack", "something is left among the objects");
        }
    }

    /// Pushes [`REF`]; after success the repository is created again.
    fn try_push(&mut self, tip: Id, pack: &[u8]) -> Taken {
        self.longer.push(pack);
        let taken = self.push(&[(tip, REF)], pack, &limits());
        if taken.is_accepted() {
            *self = Self::new();
        }
        taken
    }
}

/// Pushes new refs with a pack.
pub(crate) fn push(
    repo: &BareRepository,
    objects: &Objects,
    refs: &[(Id, &str)],
    pack: &[u8],
    limits: &PushLimits,
) -> Taken {
    let mut request = Vec::new();
    for (number, (id, name)) in refs.iter().enumerate() {
        let capabilities = if number == 0 { "\0report-status" } else { "" };
        let command = format!("{:040} {} {name}{capabilities}", 0, hex(id));
        request.extend(line(command.as_bytes()));
    }
    request.extend(b"0000");
    let mut input = std::io::Read::chain(&request[..], pack);
    let quarantine = repo.quarantine().expect("a quarantine can be made");
    let mut report = Vec::new();
    let outcome = receive_pack(
        repo,
        objects,
        &quarantine.path(),
        &mut input,
        &mut report,
        limits,
    );
    drop(quarantine);
    match outcome {
        Ok(_) => {}
        Err(error) if limits.stop.is_set() => return Taken::Refused(error.to_string()),
        Err(error) => panic!("a push had no report: {error}"),
    }
    let report = String::from_utf8_lossy(&report).into_owned();
    let is_ok = |(_, name): &(Id, &str)| report.contains(&format!("ok {name}\n"));
    if refs.iter().all(is_ok) {
        Taken::Accepted
    } else {
        Taken::Refused(report)
    }
}

fn stop() -> Stop {
    Stop::at(Deadline::after(SystemClock::shared(), DEADLINE))
}

fn limits() -> PushLimits {
    PushLimits {
        stop: stop(),
        ..PushLimits::default()
    }
}

/// Parses frames until the end or an error; returns their number.
pub(crate) fn pkt_line(data: &[u8]) -> Result<usize, String> {
    let mut input = data;
    let mut buffer = Vec::new();
    let mut frames = 0;
    while henge_git::pkt::read(&mut input, &mut buffer)
        .map_err(|error| error.to_string())?
        .is_some()
    {
        frames += 1;
    }
    assert!(frames <= data.len() / 4);
    Ok(frames)
}

/// A low size limit for certificates.
const FEW_CERTIFICATE_BYTES: usize = 200;

/// Parses the head of a push; returns the number of updates.
pub(crate) fn push_commands(data: &[u8]) -> Result<usize, String> {
    // A repository of the other format may refuse the same bytes, or parse others.
    let _other = push_head_of(data, ObjectFormat::Sha256).is_ok();
    push_head_of(data, ObjectFormat::Sha1).map(|head| head.updates.len())
}

/// The head of a push to a repository of this format.
pub(crate) fn push_head_of(data: &[u8], format: ObjectFormat) -> Result<PushHead, String> {
    let limits = limits();
    let head = parse_push(&mut &data[..], format, &limits).map_err(|error| error.to_string());
    let few = PushLimits {
        certificate_bytes_max: FEW_CERTIFICATE_BYTES,
        ..limits.clone()
    };
    let short = parse_push(&mut &data[..], format, &few).map_err(|error| error.to_string());
    if let Ok(head) = &head {
        check_head(head, limits.certificate_bytes_max);
        let bytes = head
            .certificate
            .as_ref()
            .map_or(0, |read| read.text().len());
        assert_eq!(short.is_ok(), bytes <= FEW_CERTIFICATE_BYTES, "{short:?}");
    }
    if let Ok(short) = &short {
        assert_eq!(head.as_ref(), Ok(short), "a bound changes what is read");
    }
    head
}

/// Checks the invariants of every parsed push.
fn check_head(head: &PushHead, certificate_bytes_max: usize) {
    assert!(head.updates.len() <= head.commands.len());
    for command in &head.commands {
        if let Ok(at) = command.update {
            assert_eq!(head.updates[at].name.as_str().as_bytes(), command.name);
        }
    }
    let Some(certificate) = &head.certificate else {
        return;
    };
    let text = certificate.text();
    assert!(text.len() <= certificate_bytes_max);
    assert!(text.starts_with(b"certificate version 0.1\n") && !text.contains(&0));
    assert!(!head.commands.is_empty(), "nothing was signed");
    let idents = std::iter::once(&certificate.pusher).chain(&certificate.pushee);
    for ident in idents {
        assert!(ident.len() <= CERTIFICATE_IDENT_BYTES_MAX);
    }
    for command in &head.commands {
        let name = command.name.as_slice();
        let mut lines = text.split(|byte| *byte == b'\n');
        assert!(
            lines.any(|line| line.ends_with(name)),
            "{command:?} was not signed"
        );
    }
    let sent_is_signed = certificate.options == head.options;
    assert!(sent_is_signed || head.updates.is_empty());
}

/// Pushes a pack without its trailer, with its first object as the tip if that is not a delta.
pub(crate) fn push_pack(place: &mut Place, body: &[u8]) -> Taken {
    let tip = first_object(body).unwrap_or([0x11; 20]);
    place.try_push(tip, &with_trailer(body))
}

/// The same with a complete pack, trailer included.
pub(crate) fn push_raw_pack(place: &mut Place, pack: &[u8]) -> Taken {
    let tip = first_object(pack).unwrap_or([0x11; 20]);
    place.try_push(tip, pack)
}

/// The name of the first object of a pack, if it is undeltified and not too large.
pub(crate) fn first_object(body: &[u8]) -> Option<Id> {
    first_whole(body).map(|(kind, data)| object_id(kind, &data))
}

/// Pushes a pack with `delta` on a base in the repository. It must be accepted exactly if it is a
/// delta by gitformat-pack(5).
pub(crate) fn delta(place: &mut Place, delta: &[u8]) -> Taken {
    let result = apply_delta(&place.blob, delta);
    let tip = result
        .as_deref()
        .map_or([0x11; 20], |result| object_id(Kind::Blob, result));
    let pack = delta_pack(place, delta);
    let taken = place.try_push(tip, &pack);
    assert_eq!(taken.is_accepted(), result.is_some(), "{taken:?}");
    if let (None, Taken::Refused(report)) = (&result, &taken) {
        assert!(!report.contains("unpack ok"), "{report}");
    }
    taken
}

/// The pack pushed by [`delta`].
pub(crate) fn delta_pack(place: &Place, delta: &[u8]) -> Vec<u8> {
    with_trailer(&pack_body(&[Entry::RefDelta(place.blob_id, delta)]))
}

/// Applies a delta by the format document, byte by byte. As in git, the shortest delta has four
/// bytes.
pub(crate) fn apply_delta(base: &[u8], delta: &[u8]) -> Option<Vec<u8>> {
    const DELTA_BYTES_MIN: usize = 4;
    if delta.len() < DELTA_BYTES_MIN {
        return None;
    }
    let mut bytes = delta.iter().copied();
    let mut size = || {
        let mut value = 0_u64;
        for shift in (0..64).step_by(7) {
            let byte = bytes.next()?;
            value |= u64::from(byte & 0x7f).checked_mul(1 << shift)?;
            if byte & 0x80 == 0 {
                return usize::try_from(value).ok();
            }
        }
        None
    };
    let (base_bytes, result_bytes) = (size()?, size()?);
    if base_bytes != base.len() {
        return None;
    }
    let mut result = Vec::new();
    while let Some(code) = bytes.next() {
        if code == 0 {
            return None;
        } else if code & 0x80 == 0 {
            for _ in 0..code {
                result.push(bytes.next()?);
            }
        } else {
            let mut parts = [0_usize; 7];
            for (bit, part) in parts.iter_mut().enumerate() {
                if code >> bit & 1 == 1 {
                    *part = usize::from(bytes.next()?);
                }
            }
            let offset = parts[0] | parts[1] << 8 | parts[2] << 16 | parts[3] << 24;
            let length = match parts[4] | parts[5] << 8 | parts[6] << 16 {
                0 => 0x1_0000,
                length => length,
            };
            result.extend(base.get(offset..offset.checked_add(length)?)?);
        }
        if result.len() > result_bytes {
            return None;
        }
    }
    (result.len() == result_bytes).then_some(result)
}

/// Pushes a tag of an object whose kind is in the first byte.
pub(crate) fn object(place: &mut Place, data: &[u8]) -> Taken {
    let Some((tip, pack)) = object_pack(data) else {
        return Taken::Refused("no object".to_owned());
    };
    place.try_push(tip, &pack)
}

/// The object pushed by [`object`], and its pack.
pub(crate) fn object_pack(data: &[u8]) -> Option<(Id, Vec<u8>)> {
    let (first, content) = data.split_first()?;
    let kind = Kind::of(first % 4 + 1)?;
    let pack = with_trailer(&pack_body(&[Entry::Whole(kind, content)]));
    Some((object_id(kind, content), pack))
}

/// Parses a ref name; an accepted name must be unchanged.
pub(crate) fn ref_name(data: &[u8]) -> bool {
    let Ok(text) = std::str::from_utf8(data) else {
        return false;
    };
    match text.parse::<henge_types::RefName>() {
        Ok(name) => {
            assert_eq!(name.as_str(), text);
            true
        }
        Err(_) => false,
    }
}

/// A fetch. The first line is the version of the protocol. Each other line becomes a frame, except
/// for `0000`, `0001` and `0002`, and lines that start with `=`: their rest is sent unframed.
pub(crate) fn fetch(place: &Place, text: &[u8]) -> Result<Vec<u8>, String> {
    let (protocol, request) = fetch_request(text);
    place.longer.fetch(protocol, &request);
    let mut answer = Vec::new();
    place
        .fetch(protocol, &request, &mut answer, stop())
        .map(|()| answer)
}

/// The request sent by [`fetch`].
pub(crate) fn fetch_request(text: &[u8]) -> (Protocol, Vec<u8>) {
    let mut lines = text.split(|byte| *byte == b'\n');
    let protocol = match lines.next() {
        Some(b"0") => Protocol::V0,
        Some(b"1") => Protocol::V1,
        _ => Protocol::V2,
    };
    let mut request = Vec::new();
    for text in lines.filter(|line| !line.is_empty()) {
        match (text, text.strip_prefix(b"=")) {
            (b"0000" | b"0001" | b"0002", _) => request.extend(text),
            (_, Some(raw)) => request.extend(raw),
            (_, None) => request.extend(line(&[text, b"\n"].concat())),
        }
    }
    (protocol, request)
}
