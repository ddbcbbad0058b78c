//! An ext4 file system in a file whose power can be cut. Needs root and loop devices.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use rustix::ioctl::{Setter, opcode};

/// Room for a ring above its low-space watermark; the file is sparse.
const BYTES: u64 = 6 * 1024 * 1024 * 1024;
/// No log flush: data that is only in the journal's memory is lost too.
const NO_LOG_FLUSH: u32 = 2;

/// The file system, mounted; unmounted and detached on drop.
pub(super) struct Disk {
    device: String,
    point: PathBuf,
}

fn run(program: &str, arguments: &[&str]) -> Result<String, String> {
    let output = Command::new(program)
        .args(arguments)
        .stdin(Stdio::null())
        .output();
    let output = output.map_err(|error| format!("{program}: {error}"))?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned());
    }
    Err(format!(
        "{program} {arguments:?}: {}",
        String::from_utf8_lossy(&output.stderr).trim()
    ))
}

impl Disk {
    pub(super) fn make(dir: &Path) -> Result<Self, String> {
        let image = dir.join("image");
        let file = File::create(&image).map_err(|error| error.to_string())?;
        file.set_len(BYTES).map_err(|error| error.to_string())?;
        let image = image.to_string_lossy().into_owned();
        run("mkfs.ext4", &["-q", "-F", &image])?;
        let device = run("losetup", &["--find", "--show", &image])?;
        let point = dir.join("mount");
        fs::create_dir(&point).map_err(|error| error.to_string())?;
        let disk = Self { device, point };
        disk.mount()?;
        Ok(disk)
    }

    pub(super) fn point(&self) -> &Path {
        &self.point
    }

    fn mount(&self) -> Result<(), String> {
        run(
            "mount",
            &["-t", "ext4", &self.device, &self.point.to_string_lossy()],
        )
        .map(drop)
    }

    /// Drops all data that was not synced; every access fails from here on.
    #[expect(
        unsafe_code,
        reason = "an ioctl that the kernel has no safe wrapper for"
    )]
    pub(super) fn cut(&self) {
        let root = File::open(&self.point).expect("the mount point opens");
        const SHUTDOWN: rustix::ioctl::Opcode = opcode::read::<u32>(b'X', 125);
        // SAFETY: EXT4_IOC_SHUTDOWN reads one u32 of flags through the pointer and keeps nothing.
        let result = unsafe {
            let setter = Setter::<SHUTDOWN, u32>::new(NO_LOG_FLUSH);
            rustix::ioctl::ioctl(&root, setter)
        };
        result.expect("the shutdown ioctl works");
    }

    /// Mounts the file system again, as after a power cut. No process may have a file open on it.
    pub(super) fn boot(&self) {
        run("umount", &[&self.point.to_string_lossy()]).expect("unmounts");
        self.mount().expect("mounts");
    }
}

impl Drop for Disk {
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
