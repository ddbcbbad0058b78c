//! One file system for each node: an ext4 in a sparse file behind a loop device. Needs root.
//!
//! Without root a run uses plain folders, and the faults that need a file system of their own are
//! counted as not checked.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context as _;
use rustix::ioctl::{Setter, opcode};

use crate::clock;
use crate::process::Program;

/// Capacity for a node's data of a long run; the file is sparse.
const BYTES: u64 = 6 * 1024 * 1024 * 1024;
/// No log flush: data in the journal's memory is lost too.
const NO_LOG_FLUSH: u32 = 2;
/// A process releases its files a moment after its end.
const UNMOUNT_LIMIT: Duration = Duration::from_secs(20);

/// The file system of one node.
#[derive(Debug)]
pub struct Disk {
    image: PathBuf,
    point: PathBuf,
    device: Option<String>,
}

impl Disk {
    /// Creates the file system and mounts it at `point`.
    ///
    /// # Errors
    /// When this machine or user cannot do so.
    pub fn make(image: PathBuf, point: PathBuf) -> anyhow::Result<Self> {
        let file = File::create(&image).context("cannot create an image")?;
        file.set_len(BYTES).context("cannot size an image")?;
        Program::new("mkfs.ext4")
            .args(["-q", "-F", "-m", "0"])
            .arg(&image)
            .output()?;
        fs::create_dir_all(&point).context("cannot create a mount point")?;
        let mut disk = Self {
            image,
            point,
            device: None,
        };
        disk.mount()?;
        Ok(disk)
    }

    /// Attaches the image to a loop device and mounts it.
    ///
    /// # Errors
    /// When that fails.
    pub fn mount(&mut self) -> anyhow::Result<()> {
        let attach = Program::new("losetup").args(["--find", "--show"]);
        let device = attach.arg(&self.image).output()?.trim().to_owned();
        let mounted = Program::new("mount")
            .args(["-t", "ext4", &device])
            .arg(&self.point)
            .output();
        self.device = Some(device);
        mounted.map(drop)
    }

    /// Unmounts it. Its node must have ended.
    ///
    /// # Errors
    /// When it stays busy.
    pub fn unmount(&mut self) -> anyhow::Result<()> {
        let unmount = || Program::new("umount").arg(&self.point).output();
        clock::wait_for(UNMOUNT_LIMIT, || unmount().ok())
            .with_context(|| format!("{} stays busy", self.point.display()))?;
        if let Some(device) = self.device.take() {
            Program::new("losetup").args(["-d", &device]).output()?;
        }
        Ok(())
    }

    /// Copies the image of an unmounted file system.
    ///
    /// # Errors
    /// When that fails.
    pub fn save(&self, to: &Path) -> anyhow::Result<()> {
        Program::new("cp")
            .arg("--sparse=always")
            .arg(&self.image)
            .arg(to)
            .output()
            .map(drop)
    }

    /// Replaces the image by the one at `from`, and moves the current one to `aside`. It must not
    /// be mounted.
    ///
    /// # Errors
    /// When that fails.
    pub fn swap(&self, from: &Path, aside: &Path) -> anyhow::Result<()> {
        fs::rename(&self.image, aside).context("cannot move an image away")?;
        fs::rename(from, &self.image).context("cannot move an image in")
    }

    /// Discards all unflushed data; every access fails until [`Self::boot`].
    ///
    /// # Errors
    /// When the file system refuses the ioctl.
    #[expect(
        unsafe_code,
        reason = "an ioctl that the kernel has no safe wrapper for"
    )]
    pub fn cut(&self) -> anyhow::Result<()> {
        let root = File::open(&self.point).context("the mount point does not open")?;
        const SHUTDOWN: rustix::ioctl::Opcode = opcode::read::<u32>(b'X', 125);
        // SAFETY: EXT4_IOC_SHUTDOWN reads one u32 of flags through the pointer and keeps nothing.
        let result = unsafe {
            let setter = Setter::<SHUTDOWN, u32>::new(NO_LOG_FLUSH);
            rustix::ioctl::ioctl(&root, setter)
        };
        result.context("the shutdown ioctl failed")
    }

    /// Remounts the file system, like a machine after a power cut. Its node must have ended.
    ///
    /// # Errors
    /// When it cannot be unmounted and mounted.
    pub fn boot(&mut self) -> anyhow::Result<()> {
        self.unmount()?;
        self.mount()
    }

    /// Free bytes.
    ///
    /// # Errors
    /// When the file system does not answer.
    pub fn free(&self) -> anyhow::Result<u64> {
        let stat = rustix::fs::statvfs(&self.point).context("statvfs failed")?;
        Ok(stat.f_bavail.saturating_mul(stat.f_frsize))
    }

    /// The mount point.
    pub fn point(&self) -> &Path {
        &self.point
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        // Lazily: an aborted run still has files open on it.
        let unmount = Program::new("umount").arg("--lazy").arg(&self.point);
        unmount.output().ok();
        if let Some(device) = &self.device {
            Program::new("losetup").args(["-d", device]).output().ok();
        }
    }
}
