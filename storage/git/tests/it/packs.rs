//! Packs made by hand, and histories in many packs.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use henge_types::ObjectFormat;
use sha1::{Digest, Sha1};
use sha2::Sha256;

use crate::Git;

/// Runs a command with `input`; returns its output.
#[track_caller]
pub(crate) fn feed(mut command: Command, input: &[u8]) -> Vec<u8> {
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let output = std::thread::scope(|scope| {
        scope.spawn(move || stdin.write_all(input).unwrap());
        child.wait_with_output().unwrap()
    });
    assert!(output.status.success(), "{command:?}");
    output.stdout
}

/// The indexes of a repository's packs, sorted.
pub(crate) fn idx_files(bare: &Path) -> Vec<PathBuf> {
    let mut files: Vec<_> = std::fs::read_dir(bare.join("objects/pack"))
        .unwrap()
        .map(|file| file.unwrap().path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "idx"))
        .collect();
    files.sort();
    files
}

/// One entry of a pack made by hand.
pub(crate) enum Entry<'a> {
    Blob(&'a [u8]),
    /// An object of this kind: 1 is a commit, 2 a tree.
    Whole(u8, &'a [u8]),
    /// A delta against the object of this id.
    RefDelta(&'a str, &'a [u8]),
    /// A delta against the entry before it.
    DeltaOnPrevious(&'a [u8]),
}

/// A pack of `entries`.
pub(crate) fn pack_by_hand(entries: &[Entry<'_>], format: ObjectFormat) -> Vec<u8> {
    let mut pack = b"PACK\0\0\0\x02".to_vec();
    pack.extend_from_slice(&u32::try_from(entries.len()).unwrap().to_be_bytes());
    let mut previous = 0;
    for entry in entries {
        let begin = pack.len();
        let (kind, data) = match entry {
            Entry::Blob(data) => (3, data),
            Entry::Whole(kind, data) => (*kind, data),
            Entry::DeltaOnPrevious(delta) => (6, delta),
            Entry::RefDelta(_, delta) => (7, delta),
        };
        let mut size = data.len() >> 4;
        let mut byte = kind << 4 | u8::try_from(data.len() & 15).unwrap();
        while size > 0 {
            pack.push(byte | 0x80);
            byte = u8::try_from(size & 0x7f).unwrap();
            size >>= 7;
        }
        pack.push(byte);
        match entry {
            Entry::Blob(_) | Entry::Whole(..) => {}
            Entry::RefDelta(base, _) => pack.extend(hex::decode(base).unwrap()),
            Entry::DeltaOnPrevious(_) => {
                let distance = begin - previous;
                assert!(distance < 128, "the entry before is short");
                pack.push(u8::try_from(distance).unwrap());
            }
        }
        let mut deflate = flate2::write::ZlibEncoder::new(pack, flate2::Compression::default());
        deflate.write_all(data).unwrap();
        pack = deflate.finish().unwrap();
        previous = begin;
    }
    pack.extend(digest(&pack, format));
    pack
}

pub(crate) fn digest(data: &[u8], format: ObjectFormat) -> Vec<u8> {
    match format {
        ObjectFormat::Sha1 => Sha1::digest(data).to_vec(),
        ObjectFormat::Sha256 => Sha256::digest(data).to_vec(),
    }
}

/// The id of an object.
pub(crate) fn object_id(kind: &str, data: &[u8]) -> String {
    let mut hash = Sha1::new();
    hash.update(format!("{kind} {}\0", data.len()));
    hash.update(data);
    hex::encode(hash.finalize())
}

/// Adds a pack to a repository, completed if it is thin, without a ref to it.
#[track_caller]
pub(crate) fn keep_pack(git: &Git, bare: &Path, pack: &[u8]) {
    feed(
        git.command(&["index-pack", "--stdin", "--fix-thin"], bare),
        pack,
    );
}

/// Pseudo-random numbers, the same in every run.
pub(crate) struct Numbers(pub(crate) u64);

impl Numbers {
    pub(crate) fn below(&mut self, bound: usize) -> usize {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        usize::try_from(self.0 >> 33).unwrap() % bound
    }

    fn line(&mut self) -> String {
        const WORDS: [&str; 12] = [
            "let", "value", "return", "index", "match", "buffer", "length", "error", "state",
            "offset", "for", "result",
        ];
        let words: Vec<_> = (0..3 + self.below(6))
            .map(|_| WORDS[self.below(12)])
            .collect();
        format!("    {} {}\n", words.join(" "), self.below(1000))
    }
}

/// A repository with `commits` commits on `main`: a few files of a source tree change in each.
pub(crate) fn history(git: &Git, path: &Path, commits: usize) {
    use std::fmt::Write as _;
    std::fs::create_dir_all(path).unwrap();
    git.ok(&["init", "-q", "--bare", "-b", "main"], path);
    let mut numbers = Numbers(7);
    let mut files: Vec<(String, Vec<String>)> = Vec::new();
    let mut stream = String::new();
    for commit in 0..commits {
        writeln!(stream, "commit refs/heads/main").unwrap();
        writeln!(
            stream,
            "committer C <c@example.org> {} +0000",
            1_700_000_000 + commit * 60
        )
        .unwrap();
        let message = format!("change {commit}: {}", numbers.line().trim());
        writeln!(stream, "data {}\n{message}", message.len()).unwrap();
        let is_new = files.len() < 10 || numbers.below(12) == 0;
        if is_new {
            let directory = ["src", "src/net", "src/disk", "docs", "tests/it"][numbers.below(5)];
            let lines = (0..20 + numbers.below(200))
                .map(|_| numbers.line())
                .collect();
            files.push((format!("{directory}/file{}.rs", files.len()), lines));
        }
        for change in 0..1 + numbers.below(3) {
            let newest = files.len() - 1;
            let at = if change == 0 && is_new {
                newest
            } else {
                numbers.below(files.len())
            };
            let (name, lines) = &mut files[at];
            for _ in 0..1 + numbers.below(6) {
                let line = numbers.below(lines.len());
                match numbers.below(3) {
                    0 => lines[line] = numbers.line(),
                    1 => lines.insert(line, numbers.line()),
                    _ => drop(lines.remove(line)),
                }
            }
            let text = lines.concat();
            writeln!(
                stream,
                "M 100644 inline {name}\ndata {}\n{text}",
                text.len()
            )
            .unwrap();
        }
    }
    feed(
        git.command(&["fast-import", "--quiet"], path),
        stream.as_bytes(),
    );
}

/// The kind of packs in the pushes.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Client {
    /// Like git's.
    Thin,
    /// Without deltas.
    Whole,
}

/// Sends `main` of `source` to the new repository `bare`, `step` commits at a time, each in a pack
/// of its own.
pub(crate) fn push_in_steps(git: &Git, source: &Path, bare: &Path, step: usize, client: Client) {
    std::fs::create_dir_all(bare).unwrap();
    git.ok(&["init", "-q", "--bare", "-b", "main"], bare);
    let listing = git.ok(&["rev-list", "--reverse", "main"], source);
    let commits: Vec<&str> = listing.lines().collect();
    let mut have: Option<&str> = None;
    for want in commits.chunks(step).filter_map(|part| part.last()) {
        let exclude = have.map(|have| format!("^{have}\n")).unwrap_or_default();
        let mut arguments = vec![
            "pack-objects",
            "-q",
            "--stdout",
            "--revs",
            "--no-reuse-delta",
        ];
        match client {
            Client::Thin => arguments.extend(["--thin", "--delta-base-offset"]),
            Client::Whole => arguments.push("--window=0"),
        }
        let pack = feed(
            git.command(&arguments, source),
            format!("{want}\n{exclude}").as_bytes(),
        );
        keep_pack(git, bare, &pack);
        have = Some(want);
    }
    git.ok(&["update-ref", "refs/heads/main", have.unwrap()], bare);
}
