//! Resources used by processes, from `/proc`.

use std::fs;
use std::time::Duration;

use anyhow::Context as _;
use nix::time::ClockId;
use nix::unistd::Pid;

/// The fields of `/proc/PID/stat` after the program's name, from field 3 on.
fn stat_fields(text: &str) -> Option<Vec<&str>> {
    // The name is in parentheses and may contain some itself.
    let (_, rest) = text.rsplit_once(')')?;
    Some(rest.split_whitespace().collect())
}

fn ticks(text: &str, fields: std::ops::RangeInclusive<usize>) -> Option<u64> {
    let all = stat_fields(text)?;
    let mut sum = 0_u64;
    for field in fields {
        // proc(5) counts from 1; the first element here is field 3.
        sum += all.get(field.checked_sub(3)?)?.parse::<u64>().ok()?;
    }
    Some(sum)
}

fn stat(pid: u32) -> anyhow::Result<String> {
    fs::read_to_string(format!("/proc/{pid}/stat"))
        .with_context(|| format!("process {pid} is gone"))
}

fn duration(ticks: u64) -> Duration {
    let per_second = rustix::param::clock_ticks_per_second();
    Duration::from_micros(ticks.saturating_mul(1_000_000) / per_second.max(1))
}

/// Processor time of a process and its threads, including ended ones, in nanoseconds: the process's
/// CPU clock (clock_getcpuclockid(3)).
pub(crate) fn cpu(pid: u32) -> anyhow::Result<Duration> {
    let pid_number = Pid::from_raw(i32::try_from(pid)?);
    let clock = ClockId::pid_cpu_clock_id(pid_number);
    let now = clock.and_then(ClockId::now);
    Ok(now
        .with_context(|| format!("process {pid} is gone"))?
        .into())
}

/// User and system time of a process, of its threads, and of every child that ended and was waited
/// for, in steps of a clock tick (usually 10 ms).
pub(crate) fn cpu_with_children(pid: u32) -> anyhow::Result<Duration> {
    let ticks = ticks(&stat(pid)?, 14..=17).context("/proc/PID/stat has no times")?;
    Ok(duration(ticks))
}

/// Resident memory of a process in KiB: total, and the part without a backing file.
pub(crate) fn resident_kib(pid: u32) -> anyhow::Result<(u64, u64)> {
    let text = fs::read_to_string(format!("/proc/{pid}/status"))
        .with_context(|| format!("process {pid} is gone"))?;
    let field = |name: &str| -> Option<u64> {
        let line = text.lines().find(|line| line.starts_with(name))?;
        line.split_whitespace().nth(1)?.parse().ok()
    };
    let all = field("VmRSS:").context("/proc/PID/status has no VmRSS")?;
    Ok((all, field("RssAnon:").unwrap_or(all)))
}

/// Whether a process has open files; an ended one has none.
pub(crate) fn holds_files(pid: u32) -> bool {
    let open = fs::read_dir(format!("/proc/{pid}/fd"));
    open.is_ok_and(|mut open| open.next().is_some())
}

/// The processes whose parent is `parent`.
pub(crate) fn children(parent: u32) -> Vec<u32> {
    let Ok(entries) = fs::read_dir("/proc") else {
        return Vec::new();
    };
    let parent = parent.to_string();
    let pids = entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
    pids.filter(|pid| {
        let text = stat(*pid).unwrap_or_default();
        stat_fields(&text).is_some_and(|fields| fields.get(1) == Some(&parent.as_str()))
    })
    .collect()
}

/// Whether a process was started with this word on its command line: a process id read from a file
/// may have been reused by another program.
pub(crate) fn was_started_with(pid: u32, word: &str) -> bool {
    let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    line.split(|byte| *byte == 0)
        .any(|part| part == word.as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_with_parentheses_does_not_move_the_fields() {
        let text = "42 (a) b) (c) S 7 1 1 0 -1 0 0 0 0 0 11 22 33 44 20 0 1 0 5";
        assert_eq!(ticks(text, 14..=15), Some(33));
        assert_eq!(ticks(text, 14..=17), Some(110));
        assert_eq!(stat_fields(text).and_then(|f| f.get(1).copied()), Some("7"));
        assert_eq!(ticks("42 (cut", 14..=15), None);
    }

    #[test]
    fn this_process_can_be_looked_at() {
        let pid = std::process::id();
        cpu(pid).expect("its CPU time");
        let (all, anonymous) = resident_kib(pid).expect("its memory");
        assert!(all >= anonymous && anonymous > 0);
    }
}
