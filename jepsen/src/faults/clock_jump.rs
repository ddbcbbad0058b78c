//! A wall clock that is 400 days ahead or behind, by libfaketime. The monotonic clock stays
//! correct.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rand::Rng as _;

use super::{Bite, Ends, Fault, Field, Injected, READY_LIMIT, Shows};
use crate::clock;
use crate::probe;
use crate::ring::Ending;

/// libfaketime re-reads its file after a second.
const JUMP_LIMIT: Duration = Duration::from_secs(15);
/// A node that refuses to run with such a clock logs one of these words.
const WORDS: &[&str] = &["clock"];

/// The file that controls the clock.
#[derive(Debug, Default)]
pub(super) struct ClockJump {
    file: Option<PathBuf>,
}

/// The library's path on Debian and its derivatives.
fn library() -> Option<PathBuf> {
    let folders = fs::read_dir("/usr/lib").ok()?.flatten();
    let mut found = folders
        .map(|folder| folder.path().join("faketime/libfaketimeMT.so.1"))
        .chain([PathBuf::from("/usr/lib/faketime/libfaketimeMT.so.1")]);
    found.find(|path| path.is_file())
}

/// The `Date` header of an answer, which shows the node's own clock.
fn date(address: &str) -> Option<String> {
    probe::header(address, "/healthz", "date")
}

/// The first time in a log that lies in another year than `year`. After a jump back the `Date`
/// header does not change: hyper refreshes it once per second of that clock, and the next refresh
/// is 400 days away.
fn other_year(log: &str, year: &str) -> Option<String> {
    let mut times = log
        .lines()
        .filter_map(|line| line.split_whitespace().next());
    let is_time = |time: &str| time.len() > 20 && time.as_bytes().get(10) == Some(&b'T');
    let found = times.find(|time| is_time(time) && !time.starts_with(year));
    found.map(str::to_owned)
}

fn write(file: &Path, text: &str) -> anyhow::Result<()> {
    Ok(fs::write(file, format!("{text}\n"))?)
}

impl Fault for ClockJump {
    fn inject(&mut self, field: &mut Field<'_>) -> anyhow::Result<Injected> {
        let Some(library) = library() else {
            return Ok(Injected::NotPossible(
                "libfaketime is not installed".to_owned(),
            ));
        };
        let offset = match field.rng.random_range(0..2) {
            0 => "+400d",
            _ => "-400d",
        };
        let from_the_start = field.rng.random_range(0..2) == 0;
        let node = field.node;
        let address = field.ring.node(node)?.http.clone();
        let before = date(&address).unwrap_or_default();
        let file = field.ring.dir.join(format!("clock/n{node}"));
        write(&file, if from_the_start { offset } else { "+0" })?;
        field.ring.end(node, Ending::Stop)?;
        let variables = [
            ("LD_PRELOAD", library.display().to_string()),
            ("FAKETIME_TIMESTAMP_FILE", file.display().to_string()),
            ("FAKETIME_CACHE_DURATION", "1".to_owned()),
            ("FAKETIME_DONT_FAKE_MONOTONIC", "1".to_owned()),
            ("DONT_FAKE_MONOTONIC", "1".to_owned()),
            ("NO_FAKE_STAT", "1".to_owned()),
        ];
        self.file = Some(file.clone());
        let position = field.ring.log_position(node);
        field.ring.start_with(node, &[], &variables)?;
        if !from_the_start {
            field.ring.wait_ready(&[node], READY_LIMIT);
            write(&file, offset)?;
        }
        let year = |date: &str| date.split_whitespace().nth(3).map(str::to_owned);
        let ring = &*field.ring;
        let jumped = clock::wait_for(JUMP_LIMIT, || {
            let answered = date(&address).filter(|now| year(now) != year(&before));
            answered.or_else(|| other_year(&ring.log_since(node, position), &year(&before)?))
        });
        let how = if from_the_start {
            "at its start"
        } else {
            "while it ran"
        };
        let Some(jumped) = jumped else {
            let ended = field.ring.ended(node)?;
            let why = format!(
                "{offset} {how}: no answer and no line of its log shows it (ended: {ended:?})"
            );
            return Ok(Injected::NotPossible(why));
        };
        let proof = format!("{offset} {how}: the node says that it is {jumped}");
        let mut bite = Bite::new(proof, [node]);
        bite.hold = Duration::from_secs(6);
        bite.shows = Shows::Problem;
        bite.ends = Ends::MayRefuse(WORDS);
        Ok(Injected::Bit(bite))
    }

    fn heal(&mut self, field: &mut Field<'_>) -> anyhow::Result<()> {
        if let Some(file) = self.file.take() {
            write(&file, "+0")?;
        }
        // Half of the nodes continue with the correct time, half are restarted.
        let again = field.rng.random_range(0..2) == 0;
        if again && field.ring.runs(field.node) {
            field.ring.end(field.node, Ending::Kill)?;
        }
        if !field.ring.runs(field.node) {
            field.ring.start(field.node)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_of_another_year_shows_the_clock() {
        let log = "2026-12-01T00:00:00.000000Z  INFO up\n  continued 2025-10-27T00:00:00.000000Z\n\
            2025-10-27T00:42:33.230000Z ERROR henge_cluster: the clock is wrong\n";
        let found = other_year(log, "2026");
        assert_eq!(found.as_deref(), Some("2025-10-27T00:42:33.230000Z"));
        assert_eq!(
            other_year("2026-12-01T00:00:00.000000Z  INFO up\n", "2026"),
            None
        );
    }
}
