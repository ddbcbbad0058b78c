//! Repositories with hostile files: an operator may serve a repository from any source.

use std::path::{Path, PathBuf};

use henge_git::{
    AcceptedWants, BareRepository, FetchLimits, FetchPolicy, Objects, Protocol, PushLimits,
    Service, Stop, advertise_peeled, upload_pack, write_bitmap, write_commit_graph,
};
use henge_types::{ObjectFormat, ObjectId, PackId};
use sha1::{Digest, Sha1};

use super::{
    Entry, Id, Kind, commit_text, deflate, hex, line, object_id, pack_body, push, stop,
    with_trailer,
};

/// Length of a checksum.
const SUM_BYTES: usize = 20;
/// Name of the input for the patterns of a sparse checkout.
const PATTERNS: &str = "patterns";

/// A repository with every kind of file that the server reads. An input replaces one of them.
pub(crate) struct Shelf {
    dir: tempfile::TempDir,
    files: Vec<(&'static str, PathBuf, Vec<u8>)>,
    tip: Id,
    before: Id,
    pack: Vec<u8>,
}

impl Shelf {
    pub(crate) fn new() -> Self {
        let dir = tempfile::tempdir().expect("a directory can be made");
        let root = dir.path();
        for below in ["objects/pack", "objects/info", "refs/heads", "refs/tags"] {
            std::fs::create_dir_all(root.join(below)).expect("made");
        }
        for (name, text) in [
            ("HEAD", "ref: refs/heads/main\n".to_owned()),
            ("config", config()),
        ] {
            std::fs::write(root.join(name), text).expect("written");
        }
        let (tip, before) = history(root);
        let objects = Objects::at(&root.join("objects"), ObjectFormat::Sha1);
        let stop = Stop::default();
        let tips = [value(&tip)];
        let pack = only_pack(root);
        let checksum = last_sum(&std::fs::read(&pack).expect("readable"));
        let id = PackId::new(value(&checksum));
        write_bitmap(&objects, id, &tips, &stop).expect("bitmaps can be written");
        write_commit_graph(&objects, &tips, &stop).expect("a graph can be written");
        let packed = format!(
            "# pack-refs with: peeled fully-peeled sorted \n{} refs/heads/old\n{} refs/tags/v1\n^{}\n",
            hex(&before),
            hex(&tip),
            hex(&before),
        );
        std::fs::write(root.join("packed-refs"), packed).expect("written");
        let files = [
            ("bitmap", pack.with_extension("bitmap")),
            ("graph", root.join("objects/info/commit-graph")),
            ("index", pack.with_extension("idx")),
            ("reverse", pack.with_extension("rev")),
            ("pack", pack.clone()),
            ("config", root.join("config")),
            ("packed_refs", root.join("packed-refs")),
            ("head", root.join("HEAD")),
            ("branch", root.join("refs/heads/main")),
        ];
        let files = files.map(|(name, path)| {
            let bytes = std::fs::read(&path).expect("readable");
            (name, path, bytes)
        });
        Self {
            dir,
            files: files.to_vec(),
            tip,
            before,
            pack: checksum.to_vec(),
        }
    }

    /// Every valid file as an input: its number and its bytes.
    pub(crate) fn inputs(&self) -> Vec<(&'static str, Vec<u8>)> {
        let files = self.files.iter().enumerate();
        let mut inputs: Vec<_> = files
            .map(|(number, (name, _, bytes))| {
                let number = u8::try_from(number).expect("a few");
                (*name, [&[number], &bytes[..]].concat())
            })
            .collect();
        let number = u8::try_from(self.files.len()).expect("a few");
        let list = b"# comment\n/*\n!/*/\n/dir/\n*.md\n!a[b-d]?\n\\!x\n**/a/**\n[[:alpha:]]*\n";
        inputs.push((PATTERNS, [&[number], &list[..]].concat()));
        inputs
    }

    /// Replaces the file with the number in the first byte by the rest, with valid checksums, and
    /// serves the repository.
    pub(crate) fn take(&self, data: &[u8]) -> Vec<Result<(), String>> {
        let Some((number, data)) = data.split_first() else {
            return Vec::new();
        };
        let number = usize::from(*number) % (self.files.len() + 1);
        let Some((name, path, original)) = self.files.get(number) else {
            return vec![self.patterns(data)];
        };
        replace(path, &self.summed(name, data));
        let answers = self.serve();
        replace(path, original);
        answers
    }

    /// Adds valid checksums to the bytes, as an attacker would.
    fn summed(&self, name: &str, data: &[u8]) -> Vec<u8> {
        let mut bytes = data.to_vec();
        let pack = &self.pack[..];
        let at = match name {
            "bitmap" => Some(12),
            "index" | "reverse" => bytes.len().checked_sub(2 * SUM_BYTES),
            "graph" | "pack" => None,
            _ => return bytes,
        };
        if let Some(place) = at.and_then(|at| bytes.get_mut(at..at + SUM_BYTES)) {
            place.copy_from_slice(pack);
        }
        if let Some(end) = bytes.len().checked_sub(SUM_BYTES) {
            let sum = Sha1::digest(&bytes[..end]);
            bytes[end..].copy_from_slice(&sum);
        }
        bytes
    }

    fn serve(&self) -> Vec<Result<(), String>> {
        let repo = match BareRepository::open(self.dir.path()) {
            Ok(repo) => repo,
            Err(error) => return vec![Err(error.to_string())],
        };
        let objects = Objects::at(&repo.objects(), repo.object_format());
        let (tip, before) = (hex(&self.tip), hex(&self.before));
        let fetch = |lines: &[&str]| {
            let mut request = line(b"command=fetch");
            request.extend(b"0001");
            for text in lines {
                request.extend(line(text.as_bytes()));
            }
            request.extend(b"0000");
            request
        };
        let (want, have) = (format!("want {tip}"), format!("have {before}"));
        let mut listing = line(b"command=ls-refs");
        listing.extend(b"0001");
        listing.extend(line(b"peel"));
        listing.extend(b"0000");
        let requests = [
            fetch(&[&want, "done"]),
            fetch(&[&want, &have, "thin-pack", "ofs-delta", "done"]),
            fetch(&[&want, "deepen 2", "done"]),
            fetch(&[&want, "filter blob:none", "include-tag", "done"]),
            listing,
        ];
        let mut answers: Vec<_> = requests
            .iter()
            .map(|request| self.answer(&repo, &objects, request))
            .collect();
        let policy = FetchPolicy::default();
        let (service, mut output) = (Service::UploadPack, Vec::new());
        let visible = repo.for_fetches();
        let told = advertise_peeled(
            &visible,
            &objects,
            service,
            Protocol::V0,
            policy,
            &mut output,
        );
        answers.push(told.map_err(|error| error.to_string()));
        answers
    }

    fn answer(
        &self,
        repo: &BareRepository,
        objects: &Objects,
        request: &[u8],
    ) -> Result<(), String> {
        let limits = FetchLimits {
            stop: stop(),
            policy: FetchPolicy {
                wants: AcceptedWants::Any,
                ..FetchPolicy::default()
            },
            // With 0, bitmaps are used wherever possible.
            walked_commits_max: 0,
            ..FetchLimits::default()
        };
        let (mut input, mut output) = (request, std::io::sink());
        let (protocol, output) = (Protocol::V2, &mut output);
        upload_pack(repo, objects, protocol, &mut input, output, &limits)
            .map(|_| ())
            .map_err(|error| error.to_string())
    }

    /// A fetch with a list of patterns.
    fn patterns(&self, list: &[u8]) -> Result<(), String> {
        let id = hex(&object_id(Kind::Blob, list));
        let directory = self.dir.path().join("objects").join(&id[..2]);
        std::fs::create_dir_all(&directory).expect("made");
        let file = directory.join(&id[2..]);
        let whole = [format!("blob {}\0", list.len()).as_bytes(), list].concat();
        std::fs::write(&file, deflate(&whole)).expect("written");
        let repo = BareRepository::open(self.dir.path()).expect("as it was made");
        let objects = Objects::at(&repo.objects(), repo.object_format());
        let mut request = line(b"command=fetch");
        request.extend(b"0001");
        request.extend(line(format!("want {}", hex(&self.tip)).as_bytes()));
        request.extend(line(format!("filter sparse:oid={id}").as_bytes()));
        request.extend(line(b"done"));
        request.extend(b"0000");
        let answer = self.answer(&repo, &objects, &request);
        std::fs::remove_dir_all(&directory).expect("removed");
        answer
    }
}

/// A config that an operator may have written.
fn config() -> String {
    let lines = [
        "[core]\n\trepositoryformatversion = 1\n\tbare = true\n",
        "[include]\n\tpath = other\n[includeIf \"gitdir:/x/**\"]\n\tpath = \"a b\"\n",
        "[transfer]\n\thideRefs = refs/hidden\n\thideRefs = !refs/hidden/x\n",
        "[receive]\n\tmaxInputSize = 10m\n\tdenyCurrentBranch = warn ; why\n",
        "[uploadpack]\n\tallowFilter\n\tallowAnySHA1InWant = \"tr\\\nue\"\n",
    ];
    lines.concat()
}

fn value(id: &Id) -> ObjectId {
    hex(id).parse().expect("an id")
}

fn last_sum(bytes: &[u8]) -> Id {
    let sum = &bytes[bytes.len() - SUM_BYTES..];
    sum.try_into().expect("as long as a checksum")
}

fn only_pack(root: &Path) -> PathBuf {
    std::fs::read_dir(root.join("objects/pack"))
        .expect("readable")
        .map(|file| file.expect("readable").path())
        .find(|path| path.extension().is_some_and(|end| end == "pack"))
        .expect("a pack")
}

/// Replaces a file that may be mapped by a new one.
fn replace(path: &Path, bytes: &[u8]) {
    drop(std::fs::remove_file(path));
    std::fs::write(path, bytes).expect("written");
}

/// A few commits with unusual file names, in one pack; returns the last and the first commit.
fn history(root: &Path) -> (Id, Id) {
    let names: [&[u8]; 12] = [
        b"!x", b"-", b"[", b"[a]", b"\\", b"a b", b"a*", b"abc", b"b.md", b"c?", b"x.md ", b"\xff",
    ];
    let blob = b"content\n";
    let mut objects = vec![(Kind::Blob, blob.to_vec())];
    let mut tree = Vec::new();
    for name in names {
        tree.extend([b"100644 ", name, b"\0", &object_id(Kind::Blob, blob)[..]].concat());
    }
    let mut below = object_id(Kind::Tree, &tree);
    objects.push((Kind::Tree, tree));
    for name in ["a", "dir", "a"] {
        let tree = [
            &b"100644 a.md\0"[..],
            &object_id(Kind::Blob, blob),
            format!("40000 {name}\0").as_bytes(),
            &below,
        ]
        .concat();
        below = object_id(Kind::Tree, &tree);
        objects.push((Kind::Tree, tree));
    }
    let mut commits: Vec<Id> = Vec::new();
    for number in 0..6 {
        let text = format!("version {number}\n");
        let own = object_id(Kind::Blob, text.as_bytes());
        let tree = [&b"40000 dir\0"[..], &below, b"100644 own\0", &own].concat();
        // The fourth commit has three parents.
        let parents = match number {
            0 => &[][..],
            3 => &commits[..],
            _ => &commits[commits.len() - 1..],
        };
        let commit = commit_text(&object_id(Kind::Tree, &tree), parents);
        commits.push(object_id(Kind::Commit, &commit));
        objects.push((Kind::Blob, text.into_bytes()));
        objects.push((Kind::Tree, tree));
        objects.push((Kind::Commit, commit));
    }
    let entries: Vec<_> = objects
        .iter()
        .map(|(kind, data)| Entry::Whole(*kind, data))
        .collect();
    let pack = with_trailer(&pack_body(&entries));
    let (tip, first) = (commits[commits.len() - 1], commits[0]);
    let repo = BareRepository::open(root).expect("a bare repository");
    let objects = Objects::at(&repo.objects(), repo.object_format());
    let refs = [(tip, "refs/heads/main")];
    let taken = push(&repo, &objects, &refs, &pack, &PushLimits::default());
    assert!(taken.is_accepted(), "{taken:?}");
    (tip, first)
}
