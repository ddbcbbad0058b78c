//! The cost of counting objects: CPU milliseconds of fetches whose bytes are discarded. They are
//! measured with the packs of a bare repository alone, with git's bitmaps, with ours, and with ours
//! and a commit-graph.
//!
//! `cargo run --release -p henge-git --example count -- REPOSITORY [WANT..HAVE]...` fetches
//! everything, then each of the ranges: object ids, or `all` for every advertised object. Compare
//! with `git rev-list --count --objects --all` without and with `--use-bitmap-index`.
#![allow(
    clippy::print_stdout,
    clippy::disallowed_methods,
    reason = "a program for people to run by hand"
)]

use std::error::Error;
use std::io;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use henge_git::{
    BareRepository, FetchLimits, FetchSummary, Objects, Protocol, RefStore, Stop, upload_pack,
    write_bitmap, write_commit_graph,
};
use henge_types::{ObjectFormat, ObjectId, PackId};

type Result<T> = std::result::Result<T, Box<dyn Error>>;

fn main() -> Result<()> {
    let mut arguments = std::env::args().skip(1);
    let repository = PathBuf::from(arguments.next().ok_or("which repository?")?);
    let ranges: Vec<String> = arguments.collect();
    let refs = BareRepository::open(&repository)?;
    let mut tips = Vec::new();
    refs.for_each("", &mut |_, id| tips.push(id));
    tips.sort_unstable();
    tips.dedup();

    let scratch = tempfile::tempdir()?;
    let packs = refs.objects().join("pack");
    let bare = link(&packs, &scratch.path().join("bare"), &["pack", "idx"])?;
    let theirs = scratch.path().join("theirs");
    let theirs = link(&packs, &theirs, &["pack", "idx", "rev", "bitmap"])?;
    let ours = link(&packs, &scratch.path().join("ours"), &["pack", "idx"])?;

    let pack = biggest(&packs)?;
    let (written, ms) = timed(|| write_bitmap(&ours, pack, &tips, &Stop::default()));
    let written = written?;
    println!(
        "write bitmaps: {ms:.0} ms, {} commits, {} bytes, {} tips incomplete",
        written.commits,
        written.bytes,
        written.incomplete.len()
    );
    let both = link(&packs, &scratch.path().join("both"), &["pack", "idx"])?;
    write_bitmap(&both, pack, &tips, &Stop::default())?;
    let (written, ms) = timed(|| write_commit_graph(&both, &tips, &Stop::default()));
    let written = written?;
    println!(
        "write commit-graph: {ms:.0} ms, {} commits, {} bytes",
        written.commits, written.bytes
    );

    let everything = "all".to_owned();
    for range in std::iter::once(&everything).chain(&ranges) {
        println!("{range}");
        let request = request(&tips, range);
        for (name, objects, walked_commits_max) in [
            ("no bitmaps", &bare, usize::MAX),
            ("bitmaps of git", &theirs, 0),
            ("our bitmaps", &ours, 0),
            ("and commit-graph", &both, 0),
            (
                "by default",
                &both,
                FetchLimits::default().walked_commits_max,
            ),
        ] {
            let limits = FetchLimits {
                walked_commits_max,
                ..FetchLimits::default()
            };
            let mut times = Vec::new();
            let mut sent = None;
            for _ in 0..2 {
                let (summary, ms) = timed(|| fetch(&refs, objects, &request, &limits));
                times.push(format!("{ms:.1} ms"));
                sent = Some(summary?);
            }
            let sent = sent.unwrap_or_default();
            println!(
                "  {name}: {}, {} objects, {} bytes",
                times.join(" then "),
                sent.objects_sent,
                sent.pack_bytes
            );
        }
    }
    Ok(())
}

/// An object directory of links to the packs, with those of their files that have one of `kinds` as
/// their extension.
fn link(packs: &Path, directory: &Path, kinds: &[&str]) -> Result<Objects> {
    let pack = directory.join("pack");
    std::fs::create_dir_all(&pack)?;
    for file in std::fs::read_dir(packs)? {
        let file = file?;
        let path = PathBuf::from(file.file_name());
        let extension = path.extension().and_then(|it| it.to_str());
        if extension.is_some_and(|extension| kinds.contains(&extension)) {
            symlink(file.path().canonicalize()?, pack.join(path))?;
        }
    }
    Ok(Objects::at(directory, ObjectFormat::Sha1))
}

fn biggest(packs: &Path) -> Result<PackId> {
    let mut found = Vec::new();
    for file in std::fs::read_dir(packs)? {
        let file = file?;
        let name = file
            .file_name()
            .into_string()
            .map_err(|_| "a file's name")?;
        if let Some(id) = name
            .strip_prefix("pack-")
            .and_then(|it| it.strip_suffix(".pack"))
        {
            found.push((file.metadata()?.len(), id.parse::<ObjectId>()?));
        }
    }
    let (_, id) = found
        .into_iter()
        .max()
        .ok_or("the repository has no pack")?;
    Ok(PackId::new(id))
}

fn line(out: &mut Vec<u8>, text: &str) {
    out.extend_from_slice(format!("{:04x}{text}\n", text.len() + 5).as_bytes());
}

fn request(tips: &[ObjectId], range: &str) -> Vec<u8> {
    let (want, have) = range.split_once("..").unwrap_or((range, ""));
    let mut out = Vec::new();
    line(&mut out, "command=fetch");
    out.extend_from_slice(b"0001");
    for option in ["thin-pack", "no-progress", "include-tag", "ofs-delta"] {
        line(&mut out, option);
    }
    if want == "all" {
        for tip in tips {
            line(&mut out, &format!("want {tip}"));
        }
    } else {
        line(&mut out, &format!("want {want}"));
    }
    if !have.is_empty() {
        line(&mut out, &format!("have {have}"));
    }
    line(&mut out, "done");
    out.extend_from_slice(b"0000");
    out
}

fn fetch(
    refs: &BareRepository,
    objects: &Objects,
    request: &[u8],
    limits: &FetchLimits,
) -> Result<FetchSummary> {
    let (mut input, mut sink) = (request, io::sink());
    let protocol = Protocol::V2;
    Ok(upload_pack(
        refs, objects, protocol, &mut input, &mut sink, limits,
    )?)
}

/// The result of `work`, and the CPU milliseconds that this thread spent on it.
fn timed<T>(work: impl FnOnce() -> T) -> (T, f64) {
    let before = cpu_ns();
    let result = work();
    (result, (cpu_ns() - before) as f64 / 1e6)
}

/// CPU nanoseconds of this thread, as Linux counts them.
fn cpu_ns() -> u64 {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap_or_default();
    let first = text.split_whitespace().next().unwrap_or_default();
    first.parse().unwrap_or(0)
}
