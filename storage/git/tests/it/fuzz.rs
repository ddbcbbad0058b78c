//! Hostile bytes: the corpus of the fuzz targets and mutations of it, without a fuzzer, the same in
//! every run.

mod certificates;
mod limits;
mod mutate;
mod seeds;
mod verdicts;

use std::path::PathBuf;
use std::time::{Duration, Instant};

use henge_types::ObjectFormat;

use crate::inputs::{self, Place, Shelf};
use mutate::Mutations;

/// Mutations per file; packs cost the most.
const MUTATIONS: usize = 60;
/// Time limit of one input, on a busy machine and without optimisation.
const INPUT_MAX: Duration = Duration::from_secs(10);
/// Limit of the memory growth of the process by all inputs, kilobytes.
const GROWTH_KB_MAX: u64 = 512 * 1024;

fn corpus(target: &str) -> PathBuf {
    PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/fuzz/corpus")).join(target)
}

/// The files of a target, by name.
fn files(target: &str) -> Vec<(String, Vec<u8>)> {
    let mut files: Vec<_> = std::fs::read_dir(corpus(target))
        .unwrap()
        .map(|file| file.unwrap())
        .map(|file| {
            let name = file.file_name().into_string().unwrap();
            (name, std::fs::read(file.path()).unwrap())
        })
        .collect();
    files.sort();
    assert!(!files.is_empty(), "{target} has no corpus");
    files
}

/// The peak resident size of the process, kilobytes.
fn peak_kb() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status
        .lines()
        .find(|line| line.starts_with("VmHWM:"))
        .unwrap();
    line.split_ascii_whitespace()
        .nth(1)
        .unwrap()
        .parse()
        .unwrap()
}

/// Calls `take` with every file of `target`, and with mutations of it.
fn run(target: &str, take: impl FnMut(&[u8])) {
    run_with(target, &[], take);
}

/// The same; some mutations insert one of `words`, if any, between the frames of the file.
fn run_with(target: &str, words: &[Vec<u8>], mut take: impl FnMut(&[u8])) {
    let files = files(target);
    let before = peak_kb();
    for (name, seed) in &files {
        let mut mutations = Mutations::new(&format!("{target}/{name}"));
        for number in 0..=MUTATIONS {
            let input = if number == 0 {
                seed.clone()
            } else {
                let other = &files[mutations.below(files.len())].1;
                match words {
                    [] => mutations.of(seed, other),
                    words => mutations.with_word(seed, other, words),
                }
            };
            let begun = Instant::now();
            let caught = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| take(&input)));
            assert!(
                caught.is_ok(),
                "{target}/{name}, mutation {number}: {}",
                hex::encode(&input[..input.len().min(4096)])
            );
            let took = begun.elapsed();
            assert!(
                took < INPUT_MAX,
                "{target}/{name}, mutation {number} took {took:?}"
            );
        }
    }
    // Other tests run at the same time: the limit applies to all of them together.
    let growth = peak_kb().saturating_sub(before);
    assert!(growth < GROWTH_KB_MAX, "{target}: {growth} kB more memory");
}

#[test]
fn corpus_is_what_the_seeds_say() {
    let place = Place::new();
    for (target, seeds) in seeds::all(&place) {
        if std::env::var_os("HENGE_BLESS").is_some() {
            std::fs::create_dir_all(corpus(target)).unwrap();
            for (name, bytes) in &seeds {
                std::fs::write(corpus(target).join(name), bytes).unwrap();
            }
        }
        for (name, bytes) in seeds {
            let path = corpus(target).join(name);
            assert!(
                std::fs::read(&path).is_ok_and(|found| found == bytes),
                "{} is out of date: HENGE_BLESS=1 cargo test -p henge-git writes it again",
                path.display()
            );
        }
    }
}

#[test]
fn the_dictionary_of_pushes_is_what_its_words_say() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/fuzz/push_commands.dict");
    let file = certificates::dictionary_file();
    if std::env::var_os("HENGE_BLESS").is_some() {
        std::fs::write(path, &file).unwrap();
    }
    assert!(
        std::fs::read_to_string(path).is_ok_and(|found| found == file),
        "{path} is out of date: HENGE_BLESS=1 cargo test -p henge-git writes it again"
    );
}

#[test]
fn certificates_are_taken_or_refused_for_what_is_wrong_with_them() {
    for (name, push, expected) in certificates::cases() {
        let taken = inputs::push_commands(&push);
        match (&taken, expected) {
            (Ok(updates), Ok(expected)) => assert_eq!(*updates, expected, "{name}"),
            (Err(said), Err(expected)) => assert!(said.contains(expected), "{name}: {said}"),
            (taken, expected) => panic!("{name}: {taken:?}, not {expected:?}"),
        }
        let long = inputs::push_head_of(&push, ObjectFormat::Sha256);
        assert_eq!(
            long.is_ok(),
            name == "certificate_sha256",
            "{name}: {long:?}"
        );
    }
}

#[test]
fn hostile_frames_and_commands_and_names_are_answered() {
    run("pkt_line", |data| drop(inputs::pkt_line(data)));
    let words = certificates::dictionary();
    run_with("push_commands", &words, |data| {
        drop(inputs::push_commands(data));
    });
    run("ref_name", |data| {
        inputs::ref_name(data);
    });
}

#[test]
fn hostile_packs_are_answered_and_leave_nothing() {
    let mut place = Place::new();
    let mut number = 0;
    run("push_pack", |body| {
        number += 1;
        if number % 8 == 0 {
            inputs::push_raw_pack(&mut place, body);
        } else {
            inputs::push_pack(&mut place, body);
        }
    });
}

#[test]
fn hostile_deltas_are_taken_exactly_if_they_are_deltas() {
    let mut place = Place::new();
    run("delta", |delta| {
        inputs::delta(&mut place, delta);
    });
}

#[test]
fn hostile_objects_are_answered_and_leave_nothing() {
    let mut place = Place::new();
    run("object", |object| {
        inputs::object(&mut place, object);
    });
}

#[test]
fn hostile_fetches_are_answered() {
    let place = Place::new();
    run("fetch", |text| drop(inputs::fetch(&place, text)));
}

#[test]
fn repositories_with_hostile_files_are_served_or_refused() {
    let shelf = Shelf::new();
    for (name, input) in shelf.inputs() {
        let answers = shelf.take(&input);
        assert!(answers.iter().all(Result::is_ok), "{name}: {answers:?}");
    }
    run("repository_file", |data| drop(shelf.take(data)));
}
