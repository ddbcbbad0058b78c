//! The log on a real ext4 that loses power: a loop device, a process that appends and reports, and
//! the shutdown ioctl, which discards all unsynced data. Needs root and loop devices.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};

use bytes::Bytes;
use henge_runtime::SystemClock;
use henge_storage::disk::OsDisk;
use henge_storage::wal::{Done, Record, Wal, WalConfig};
use henge_types::GroupId;
use rustix::ioctl::{Setter, opcode};

/// Environment variable of the writing process: the log's directory.
const WRITER: &str = "HENGE_TEST_WAL_WRITER";
const GROUPS: u32 = 4;
/// Acknowledgements to wait for before the power cut.
const ACKNOWLEDGED: usize = 3000;
/// No log flush: data in the journal's memory is lost too.
const NO_LOG_FLUSH: u32 = 2;

fn config(dir: &Path) -> WalConfig {
    WalConfig {
        dir: dir.to_owned(),
        segment_bytes: 1024 * 1024,
        bytes_max: 16 * 1024 * 1024,
        tail_bytes_max: 256 * 1024,
    }
}

fn open(dir: &Path) -> Wal {
    Wal::open(OsDisk::shared(), SystemClock::shared(), config(dir)).expect("opens")
}

fn payload(group: GroupId, index: u64) -> Bytes {
    Bytes::from(format!("group {group} entry {index} ").repeat(10))
}

/// The writing process: this test again, with the variable set. The power cut ends it.
#[test]
#[expect(
    clippy::disallowed_methods,
    reason = "the writing process is told by its environment"
)]
fn writer_process() {
    let Some(dir) = std::env::var_os(WRITER) else {
        return;
    };
    let wal = open(Path::new(&dir));
    let runtime = tokio::runtime::Builder::new_current_thread()
        .build()
        .expect("a runtime");
    let mut last: Vec<u64> = (0..GROUPS)
        .map(|group| wal.group(GroupId::new(group)).last_index.unwrap_or(0))
        .collect();
    loop {
        for (group, last) in (0..GROUPS).map(GroupId::new).zip(&mut last) {
            *last += 1;
            let index = *last;
            let record = Record {
                index,
                payload: payload(group, index),
            };
            // Written straight to the pipe: an acknowledgement is out before the next batch.
            let done: Done = Box::new(move |result| {
                let line = format!("\nack {group} {index} {}\n", result.is_ok());
                if std::io::stderr().write_all(line.as_bytes()).is_err() {
                    std::process::abort();
                }
            });
            let appended = wal.append(group, vec![record], done);
            if runtime.block_on(appended).is_err() {
                return;
            }
            if index.is_multiple_of(500) {
                let upto = henge_storage::wal::Purged {
                    index: index - 100,
                    id: Bytes::new(),
                };
                let purged = wal.purge(group, upto, Box::new(drop));
                runtime.block_on(purged).expect("is queued");
            }
        }
    }
}

#[expect(clippy::disallowed_methods, reason = "a test with a mount of its own")]
fn command(program: &str) -> Command {
    Command::new(program)
}

fn run(program: &str, arguments: &[&str]) -> Result<String, String> {
    let output: Output = command(program)
        .args(arguments)
        .stdin(Stdio::null())
        .output()
        .map_err(|error| format!("{program}: {error}"))?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned());
    }
    Err(format!(
        "{program} {arguments:?}: {}",
        String::from_utf8_lossy(&output.stderr).trim()
    ))
}

/// An ext4 in a file, mounted; unmounted and detached on drop.
pub(crate) struct Mount {
    device: String,
    pub(crate) point: PathBuf,
}

impl Mount {
    pub(crate) fn make(dir: &Path) -> Result<Self, String> {
        let image = dir.join("image");
        let file = File::create(&image).map_err(|error| error.to_string())?;
        file.set_len(64 * 1024 * 1024)
            .map_err(|error| error.to_string())?;
        let image = image.to_string_lossy().into_owned();
        run("mkfs.ext4", &["-q", "-F", &image])?;
        let device = run("losetup", &["--find", "--show", &image])?;
        let point = dir.join("mount");
        fs::create_dir(&point).map_err(|error| error.to_string())?;
        let mount = Self { device, point };
        mount.mount()?;
        Ok(mount)
    }

    fn mount(&self) -> Result<(), String> {
        let point = self.point.to_string_lossy();
        run("mount", &["-t", "ext4", &self.device, &point]).map(drop)
    }

    /// Unmounts the image of `dir` and mounts it again as another device.
    pub(crate) fn attach_elsewhere(&mut self, dir: &Path) -> Result<(), String> {
        self.unmount()?;
        let image = dir.join("image");
        // The first device stays attached to an empty file, so that the second one gets another
        // number.
        run("losetup", &["-d", &self.device])?;
        let empty = dir.join("empty");
        let file = File::create(&empty).map_err(|error| error.to_string())?;
        file.set_len(1024 * 1024)
            .map_err(|error| error.to_string())?;
        let taken = run("losetup", &["--find", "--show", &empty.to_string_lossy()])?;
        let attached = run("losetup", &["--find", "--show", &image.to_string_lossy()]);
        run("losetup", &["-d", &taken])?;
        let attached = attached?;
        if attached == self.device {
            return Err(format!("{attached} again"));
        }
        self.device = attached;
        self.mount()
    }

    fn unmount(&self) -> Result<(), String> {
        run("umount", &[&self.point.to_string_lossy()]).map(drop)
    }

    /// Cuts the power of the mounted file system.
    #[expect(
        unsafe_code,
        reason = "an ioctl that the kernel has no safe wrapper for"
    )]
    fn cut(&self) -> Result<(), String> {
        let root = File::open(&self.point).map_err(|error| error.to_string())?;
        const SHUTDOWN: rustix::ioctl::Opcode = opcode::read::<u32>(b'X', 125);
        // SAFETY: EXT4_IOC_SHUTDOWN reads one u32 of flags through the pointer and keeps nothing.
        let result = unsafe {
            let setter = Setter::<SHUTDOWN, u32>::new(NO_LOG_FLUSH);
            rustix::ioctl::ioctl(&root, setter)
        };
        result.map_err(|error| format!("shutdown ioctl: {error}"))
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        // Lazily: a failed test still has files open on it.
        let lazily = run("umount", &["--lazy", &self.point.to_string_lossy()]).map(drop);
        for result in [lazily, run("losetup", &["-d", &self.device]).map(drop)] {
            if let Err(error) = result {
                eprintln!("not cleaned up: {error}");
            }
        }
    }
}

fn writer(dir: &Path) -> Child {
    let program = std::env::current_exe().expect("this program");
    command(&program.to_string_lossy())
        .args(["--exact", "wal_ext4::writer_process", "--nocapture"])
        .env(WRITER, dir)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .expect("starts")
}

/// The last acknowledged entry per group of a process that a power cut interrupts.
fn write_and_cut(mount: &Mount, dir: &Path) -> BTreeMap<u32, u64> {
    let mut child = writer(dir);
    let output = BufReader::new(child.stderr.take().expect("a pipe"));
    let mut acknowledged = BTreeMap::new();
    let mut count = 0;
    for line in output.lines() {
        let line = line.expect("reads");
        let mut words = line.split(' ');
        if words.next() != Some("ack") {
            continue;
        }
        let numbers: Vec<&str> = words.collect();
        let [group, index, "true"] = numbers[..] else {
            continue;
        };
        let group = group.parse().expect("a group");
        acknowledged.insert(group, index.parse().expect("an index"));
        count += 1;
        if count == ACKNOWLEDGED {
            mount.cut().expect("cuts");
        }
    }
    // The first failed sync ended the process.
    let status = child.wait().expect("ends");
    assert!(!status.success());
    assert!(count >= ACKNOWLEDGED, "only {count} acknowledgements");
    acknowledged
}

#[test]
fn a_real_power_cut_loses_nothing_that_was_acknowledged() {
    let dir = tempfile::tempdir().expect("a directory");
    let mount = match Mount::make(dir.path()) {
        Ok(mount) => mount,
        Err(error) => {
            eprintln!("NOT CHECKED: the log on an ext4 that loses power ({error})");
            return;
        }
    };
    let wal_dir = mount.point.join("wal");
    for _ in 0..3 {
        let acknowledged = write_and_cut(&mount, &wal_dir);
        mount.unmount().expect("unmounts");
        mount.mount().expect("mounts");
        let wal = open(&wal_dir);
        for (group, index) in acknowledged {
            let group = GroupId::new(group);
            let log = wal.group(group);
            let last = log.last_index.unwrap_or(0);
            assert!(
                last >= index,
                "group {group}: {index} was acknowledged, {last} found"
            );
            let first = log.purged.map_or(1, |purged| purged.index + 1);
            let records = wal.read(group, first..=last, usize::MAX).expect("reads");
            assert_eq!(records.len() as u64, last + 1 - first);
            for record in records {
                assert_eq!(record.payload, payload(group, record.index));
            }
        }
        wal.close().expect("closes");
    }
}
