//! The same hostile bytes for a repository of the other object format.

use std::io::Read;

use flate2::read::ZlibDecoder;
use henge_git::{BareRepository, FetchLimits, Objects, Protocol, receive_pack, upload_pack};
use sha2::{Digest, Sha256};

use super::{Kind, OBJECT_BYTES_MAX, REF, limits, line, stop};

/// An empty repository with SHA-256 objects. It receives the same inputs as [`Place`]: it must
/// answer all of them, and list only accepted refs.
pub(super) struct Longer {
    dir: tempfile::TempDir,
    repo: BareRepository,
}

impl Longer {
    pub(super) fn new() -> Self {
        let dir = tempfile::tempdir().expect("a directory can be made");
        let root = dir.path();
        let config = "[core]\nrepositoryformatversion = 1\n[extensions]\nobjectformat = sha256\n";
        for (name, text) in [("HEAD", "ref: refs/heads/main\n"), ("config", config)] {
            std::fs::write(root.join(name), text).expect("written");
        }
        for below in ["objects/pack", "refs/heads", "refs/tags"] {
            std::fs::create_dir_all(root.join(below)).expect("made");
        }
        let repo = BareRepository::open(root).expect("a bare repository");
        Self { dir, repo }
    }

    fn objects(&self) -> Objects {
        Objects::at(&self.repo.objects(), self.repo.object_format())
    }

    /// Pushes the same entries with the matching SHA-256 checksum.
    pub(super) fn push(&mut self, pack: &[u8]) {
        let body = &pack[..pack.len().saturating_sub(20)];
        let tip = first_whole(body).map_or([0x11; 32], |(kind, data)| {
            let mut hash = Sha256::new();
            hash.update(format!("{} {}\0", kind.name(), data.len()));
            hash.update(data);
            hash.finalize().into()
        });
        let tip: String = tip.iter().map(|byte| format!("{byte:02x}")).collect();
        let words = "report-status object-format=sha256";
        let command = format!("{:064} {tip} {REF}\0{words}", 0);
        let mut request = line(command.as_bytes());
        request.extend(b"0000");
        request.extend(body);
        request.extend(Sha256::digest(body));
        let quarantine = self.repo.quarantine().expect("a quarantine can be made");
        let mut report = Vec::new();
        let outcome = receive_pack(
            &self.repo,
            &self.objects(),
            &quarantine.path(),
            &mut &request[..],
            &mut report,
            &limits(),
        );
        drop(quarantine);
        if let Err(error) = outcome {
            panic!("a push had no report: {error}");
        }
        let is_taken = String::from_utf8_lossy(&report).contains(&format!("ok {REF}\n"));
        let is_there = self.dir.path().join(REF).is_file();
        assert_eq!(is_taken, is_there, "the report is wrong");
        if is_taken {
            *self = Self::new();
        }
    }

    pub(super) fn fetch(&self, protocol: Protocol, request: &[u8]) {
        let mut whole = match protocol {
            Protocol::V2 => line(b"object-format=sha256\n"),
            Protocol::V0 | Protocol::V1 => Vec::new(),
        };
        whole.extend(request);
        let (mut input, mut answer) = (&whole[..], Vec::new());
        let limits = FetchLimits {
            stop: stop(),
            ..FetchLimits::default()
        };
        let objects = self.objects();
        let repo = &self.repo;
        let _answered =
            upload_pack(repo, &objects, protocol, &mut input, &mut answer, &limits).is_ok();
    }
}

/// Kind and content of the first object of a pack, if it is undeltified and not too large.
pub(super) fn first_whole(body: &[u8]) -> Option<(Kind, Vec<u8>)> {
    let entry = body.get(12..)?;
    let kind = Kind::of(entry.first()? >> 4 & 7)?;
    let head = entry.iter().position(|byte| byte & 0x80 == 0)? + 1;
    let mut data = Vec::new();
    ZlibDecoder::new(&entry[head..])
        .take(OBJECT_BYTES_MAX as u64)
        .read_to_end(&mut data)
        .ok()?;
    Some((kind, data))
}
