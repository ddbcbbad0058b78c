//! Hostile peers: the corpus of the fuzz target and mutations of it, without a fuzzer, the same in
//! every run.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;

use henge_git::pkt::{self, Band};
use sha1::{Digest, Sha1};

use crate::inputs::Place;

/// Mutations per file.
const MUTATIONS: usize = 400;
const ONE: &str = "1111111111111111111111111111111111111111";
const TWO: &str = "2222222222222222222222222222222222222222";

fn corpus() -> PathBuf {
    PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/fuzz/corpus/client"))
}

/// Frames: an empty line is a flush, `-` a delimiter.
fn frames(kind: u8, lines: &[&[u8]]) -> Vec<u8> {
    let mut bytes = vec![kind];
    for line in lines {
        match *line {
            b"" => pkt::write_flush(&mut bytes).unwrap(),
            b"-" => pkt::write_delimiter(&mut bytes).unwrap(),
            line => pkt::write(&mut bytes, line).unwrap(),
        }
    }
    bytes
}

/// A pack of one empty blob.
fn pack() -> Vec<u8> {
    let mut pack = b"PACK\0\0\0\x02\0\0\0\x01\x30\x78\x9c\x03\0\0\0\0\x01".to_vec();
    let checksum = Sha1::digest(&pack);
    pack.extend(checksum);
    pack
}

fn advertisements() -> Vec<(&'static str, Vec<u8>)> {
    let first = format!("{ONE} HEAD\0side-band-64k report-status symref=HEAD:refs/heads/main");
    let main = format!("{ONE} refs/heads/main\n");
    let tag = format!("{TWO} refs/tags/v1\n");
    let peeled = format!("{ONE} refs/tags/v1^{{}}\n");
    let shallow = format!("shallow {ONE}");
    let refs: [&[u8]; 5] = [
        first.as_bytes(),
        main.as_bytes(),
        tag.as_bytes(),
        peeled.as_bytes(),
        b"",
    ];
    let service: [&[u8]; 2] = [b"# service=git-upload-pack\n", b""];
    let long = format!("{} HEAD\0object-format=sha256", "3".repeat(64));
    let words: [&[u8]; 5] = [
        b"version 2\n",
        b"agent=git/2\n",
        b"ls-refs=unborn\n",
        b"fetch=shallow filter\n",
        b"",
    ];
    let empty = format!("{} capabilities^{{}}\0agent=x", "0".repeat(40));
    vec![
        ("first", frames(b'u', &refs)),
        (
            "first_service",
            frames(b'u', &[&service[..], &refs].concat()),
        ),
        (
            "first_version",
            frames(b'u', &[&[&b"version 1\n"[..]][..], &refs].concat()),
        ),
        ("first_sha256", frames(b'u', &[long.as_bytes(), b""])),
        ("first_empty", frames(b'u', &[empty.as_bytes(), b""])),
        (
            "first_shallow",
            frames(b'u', &[first.as_bytes(), shallow.as_bytes(), b""]),
        ),
        ("first_for_push", frames(b'r', &refs)),
        ("second", frames(b'u', &words)),
        ("refused", frames(b'u', &[b"ERR no such repository\n", b""])),
    ]
}

fn listings() -> Vec<(&'static str, Vec<u8>)> {
    let head = format!("{ONE} HEAD symref-target:refs/heads/main\n");
    let main = format!("{ONE} refs/heads/main\n");
    let tag = format!("{TWO} refs/tags/v1 peeled:{ONE}\n");
    let lines: [&[u8]; 4] = [head.as_bytes(), main.as_bytes(), tag.as_bytes(), b""];
    let unborn: &[u8] = b"unborn HEAD symref-target:refs/heads/trunk\n";
    let long = format!("{} refs/heads/main\n", "3".repeat(64));
    vec![
        ("refs", frames(b'l', &lines)),
        ("refs_unborn", frames(b'l', &[unborn, b""])),
        ("refs_sha256", frames(b'L', &[long.as_bytes(), b""])),
    ]
}

fn answers() -> Vec<(&'static str, Vec<u8>)> {
    let pack = pack();
    let (one, two) = pack.split_at(20);
    let (one, two) = ([b"\x01", one].concat(), [b"\x01", two].concat());
    let answer = |kind, before: &[&[u8]], behind: &[&[u8]]| {
        let packed: [&[u8]; 3] = [&one, b"\x02counting\r", &two];
        let mut bytes = frames(kind, &[before, &packed, behind].concat());
        // The size of the pieces.
        bytes.insert(1, 6);
        bytes
    };
    let ack = format!("ACK {ONE}\n");
    vec![
        ("pack", answer(b'f', &[b"packfile\n"], &[b""])),
        (
            "pack_sections",
            answer(
                b'f',
                &[
                    b"acknowledgments\n",
                    ack.as_bytes(),
                    b"ready\n",
                    b"-",
                    b"wanted-refs\n",
                    b"-",
                    b"packfile\n",
                ],
                &[b""],
            ),
        ),
        ("pack_cut", answer(b'f', &[b"packfile\n"], &[])),
        (
            "pack_error",
            answer(b'f', &[b"packfile\n"], &[b"\x03it broke\n", b""]),
        ),
        ("pack_first", answer(b'g', &[b"NAK\n"], &[b""])),
        (
            "pack_first_ack",
            answer(b'g', &[ack.as_bytes(), b"NAK\n"], &[b""]),
        ),
        ("pack_shallow", answer(b'f', &[b"shallow-info\n"], &[b""])),
    ]
}

fn reports() -> Vec<(&'static str, Vec<u8>)> {
    let lines: [&[u8]; 5] = [
        b"unpack ok\n",
        b"ok refs/heads/a\n",
        b"option refname refs/heads/a\n",
        b"ng refs/heads/b fetch first\n",
        b"",
    ];
    let mut banded = vec![b'b'];
    pkt::write_band(&mut banded, Band::Progress, b"hello\n").unwrap();
    pkt::write_band(&mut banded, Band::Data, &frames(b'p', &lines)[1..]).unwrap();
    pkt::write_flush(&mut banded).unwrap();
    vec![
        ("report", frames(b'p', &lines)),
        (
            "report_refused",
            frames(b'p', &[b"unpack disk full\n", b""]),
        ),
        ("report_banded", banded),
    ]
}

fn seeds() -> Vec<(&'static str, Vec<u8>)> {
    let urls = [
        (
            "url",
            "https://me:secret@example.org:8443/a/b.git\nhttps://example.org/x/info/refs?service=x",
        ),
        ("url_address", "http://[::1]:80/a\n/b/info/refs"),
        (
            "url_upgraded",
            "HTTP://Example.org/a/\nhttps://example.org/b/info/refs",
        ),
        (
            "url_escaped",
            "http://a%40b:c%3ad@h/%2e%2e/\n//evil/info/refs",
        ),
    ];
    let urls = urls.map(|(name, text)| (name, [b"h", text.as_bytes()].concat()));
    [
        advertisements(),
        listings(),
        answers(),
        reports(),
        urls.to_vec(),
    ]
    .concat()
}

#[test]
fn corpus_is_what_the_seeds_say() {
    for (name, bytes) in seeds() {
        let path = corpus().join(name);
        if std::env::var_os("HENGE_BLESS").is_some() {
            std::fs::create_dir_all(corpus()).unwrap();
            std::fs::write(&path, &bytes).unwrap();
        }
        assert!(
            std::fs::read(&path).is_ok_and(|found| found == bytes),
            "{} is out of date: HENGE_BLESS=1 cargo test -p henge-git-client writes it again",
            path.display()
        );
    }
}

#[test]
fn what_a_good_peer_says_is_taken() {
    let place = Place::new();
    let refused = [
        "first_shallow",
        "refused",
        "pack_cut",
        "pack_error",
        "pack_shallow",
        "report_refused",
    ];
    for (name, bytes) in seeds() {
        let outcome = place.take(&bytes);
        assert_eq!(
            outcome.is_ok(),
            !refused.contains(&name),
            "{name}: {outcome:?}"
        );
    }
}

/// xorshift64*: the same numbers in every run.
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        let mixed = self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33;
        usize::try_from(mixed).unwrap() % bound.max(1)
    }

    fn mutated(&mut self, seed: &[u8], other: &[u8]) -> Vec<u8> {
        let mut bytes = seed.to_vec();
        for _ in 0..=self.below(3) {
            let at = self.below(bytes.len() + 1);
            let end = (at + 1 + self.below(8)).min(bytes.len());
            match self.below(6) {
                0 => bytes.truncate(at),
                1 if at < bytes.len() => bytes[at] ^= 1 << self.below(8),
                2 => drop(bytes.drain(at..end)),
                3 => drop(bytes.splice(at.., other[self.below(other.len())..].iter().copied())),
                4 => bytes.insert(at, b"\0\x01\x03 \n0f-"[self.below(8)]),
                _ => bytes.extend_from_within(at..end),
            }
        }
        bytes
    }
}

#[test]
fn hostile_peers_are_answered() {
    let place = Place::new();
    let mut files: Vec<_> = std::fs::read_dir(corpus())
        .unwrap()
        .map(|file| file.unwrap().path())
        .collect();
    files.sort();
    let files: Vec<_> = files
        .iter()
        .map(|path| std::fs::read(path).unwrap())
        .collect();
    let mut numbers = Numbers(0x9e37_79b9_7f4a_7c15);
    for seed in &files {
        for number in 0..=MUTATIONS {
            let input = if number == 0 {
                seed.clone()
            } else {
                let other = &files[numbers.below(files.len())];
                numbers.mutated(seed, other)
            };
            let caught = catch_unwind(AssertUnwindSafe(|| drop(place.take(&input))));
            assert!(caught.is_ok(), "{:?}", String::from_utf8_lossy(&input));
        }
    }
}
