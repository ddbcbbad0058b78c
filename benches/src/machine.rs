//! The machine of the figures.

use std::fs;
use std::path::Path;

/// The line of `/proc/cpuinfo` that names the processor.
fn processor() -> String {
    let text = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let line = text.lines().find(|line| line.starts_with("model name"));
    let name = line
        .and_then(|line| line.split_once(": "))
        .map(|(_, name)| name);
    name.unwrap_or("an unknown processor").to_owned()
}

fn word(path: &str) -> String {
    fs::read_to_string(path)
        .unwrap_or_default()
        .trim()
        .to_owned()
}

fn memory_gib() -> u64 {
    let text = fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let line = text.lines().find(|line| line.starts_with("MemTotal:"));
    let kib = line.and_then(|line| line.split_whitespace().nth(1));
    kib.and_then(|kib| kib.parse::<u64>().ok()).unwrap_or(0) / (1_024 * 1_024)
}

/// The type of the file system that holds `dir`: on a tmpfs a sync is free and the figures are
/// meaningless.
fn file_system(mounts: &str, dir: &Path) -> String {
    let mut best = (0, "unknown");
    for line in mounts.lines() {
        let mut fields = line.split_whitespace().skip(1);
        let (Some(point), Some(kind)) = (fields.next(), fields.next()) else {
            continue;
        };
        if dir.starts_with(point) && point.len() >= best.0 {
            best = (point.len(), kind);
        }
    }
    best.1.to_owned()
}

/// The head of a report: machine, load before the first bench, command line.
pub(crate) fn head(dir: &Path, command: &str) -> String {
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    let dir = dir.canonicalize().unwrap_or_else(|_| dir.to_owned());
    let mounts = fs::read_to_string("/proc/self/mounts").unwrap_or_default();
    let mut text = format!(
        "Machine: {}, {cores} cores, {} GiB, Linux {}, data on {}. Load average at the start: {}.\n\n\
         Command: `{command}`\n",
        processor(),
        memory_gib(),
        word("/proc/sys/kernel/osrelease"),
        file_system(&mounts, &dir),
        word("/proc/loadavg"),
    );
    if cfg!(debug_assertions) {
        text.push_str(
            "\nThis load generator is a debug build: the figures are not worth keeping.\n",
        );
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_mount_point_decides() {
        let mounts = "/dev/a / ext4 rw 0 0\ntmpfs /tmp tmpfs rw 0 0\n/dev/b /tmpdata xfs rw 0 0\n";
        let kinds =
            ["/tmp/x", "/tmpdata/x", "/home"].map(|dir| file_system(mounts, Path::new(dir)));
        assert_eq!(kinds, ["tmpfs", "xfs", "ext4"]);
    }
}
