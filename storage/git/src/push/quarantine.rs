//! Quarantine for the pack of a push: memory for a small pack, files of a directory for a larger
//! one.
//!
//! Creating and removing a file costs more than all other work on a small pack: ext4 checks every
//! inode that was freed in the last seconds before it allocates another one.

use std::cell::RefCell;
use std::fs::File;
use std::io::{self, BufWriter, Read, Seek, SeekFrom, Write};
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use rustix::fs::{MemfdFlags, memfd_create};

/// The size of one read or write.
const BUFFER_BYTES: usize = 64 * 1024;

/// The place of a pack until it is accepted or refused.
pub trait Quarantine {
    /// An empty directory. The owner creates it at the latest at this call, and removes it with its
    /// contents after the push.
    ///
    /// # Errors
    /// When it cannot be made.
    fn dir(&self) -> io::Result<&Path>;

    /// The size in bytes up to which a pack and its index together stay in memory; 0 puts all of
    /// them into files.
    fn memory_bytes_max(&self) -> u64 {
        0
    }
}

/// An existing directory, for packs of any size.
impl Quarantine for &Path {
    fn dir(&self) -> io::Result<&Path> {
        Ok(self)
    }
}

/// An open file, which may have no name besides its descriptor.
#[derive(Debug, Clone)]
pub(super) struct Held {
    file: Arc<File>,
    path: PathBuf,
}

impl Held {
    /// A new file in memory; `None` where the system has no such files, or cannot open them by
    /// name.
    fn in_memory() -> Option<Self> {
        static CAN_BE_OPENED: OnceLock<bool> = OnceLock::new();
        let file = File::from(memfd_create("pack", MemfdFlags::CLOEXEC).ok()?);
        let path = PathBuf::from(format!("/proc/self/fd/{}", file.as_raw_fd()));
        CAN_BE_OPENED
            .get_or_init(|| File::open(&path).is_ok())
            .then(|| Self {
                file: Arc::new(file),
                path,
            })
    }

    fn at(path: PathBuf) -> io::Result<Self> {
        let file = File::options()
            .read(true)
            .write(true)
            .create_new(true)
            .open(&path)?;
        Ok(Self {
            file: Arc::new(file),
            path,
        })
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    pub(super) fn into_file(self) -> Arc<File> {
        self.file
    }
}

impl Read for Held {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        (&*self.file).read(buffer)
    }
}

impl Write for Held {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        (&*self.file).write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        (&*self.file).flush()
    }
}

impl Seek for Held {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        (&*self.file).seek(to)
    }
}

/// A pack during its transfer.
pub(super) struct Incoming<'a> {
    quarantine: &'a dyn Quarantine,
    memory_max: u64,
    pack: RefCell<Option<(Held, bool)>>,
    fault: RefCell<Option<io::Error>>,
}

impl<'a> Incoming<'a> {
    pub(super) fn new(quarantine: &'a dyn Quarantine) -> Self {
        Self {
            quarantine,
            memory_max: quarantine.memory_bytes_max(),
            pack: RefCell::default(),
            fault: RefCell::default(),
        }
    }

    /// Takes the first error of the disk. The writer may report it as an error of the pack.
    pub(super) fn fault(&self) -> Option<io::Error> {
        self.fault.borrow_mut().take()
    }

    /// Records an error for [`Incoming::fault`].
    fn noted<T>(&self, done: io::Result<T>) -> io::Result<T> {
        if let Err(error) = &done
            && error.kind() != io::ErrorKind::Interrupted
        {
            let copy = match error.raw_os_error() {
                Some(code) => io::Error::from_raw_os_error(code),
                None => io::Error::new(error.kind(), error.to_string()),
            };
            self.fault.borrow_mut().get_or_insert(copy);
        }
        done
    }

    fn file(&self, extension: &str) -> io::Result<Held> {
        let name = format!("incoming.{extension}");
        let dir = self.quarantine.dir();
        self.noted(dir.and_then(|dir| Held::at(dir.join(name))))
    }

    /// Begins the pack.
    pub(super) fn begin(&self) -> io::Result<PackFile<'_, 'a>> {
        let in_memory = (self.memory_max > 0).then(Held::in_memory).flatten();
        let (held, is_memory) = match in_memory {
            Some(held) => (held, true),
            None => (self.file("pack")?, false),
        };
        *self.pack.borrow_mut() = Some((held.clone(), is_memory));
        Ok(PackFile {
            incoming: self,
            file: BufWriter::with_capacity(BUFFER_BYTES, held),
            memory_left: is_memory.then_some(self.memory_max),
        })
    }

    fn pack(&self) -> io::Result<(Held, bool)> {
        let pack = self.pack.borrow();
        pack.clone()
            .ok_or_else(|| io::Error::other("no pack was begun"))
    }

    /// The current path of the pack.
    pub(super) fn pack_path(&self) -> io::Result<PathBuf> {
        Ok(self.pack()?.0.path)
    }

    /// Begins the index. The pack must be complete before the first byte of the index.
    pub(super) const fn begin_idx(&self) -> IdxFile<'_, 'a> {
        IdxFile {
            incoming: self,
            to: None,
        }
    }

    /// Puts the pack and its index into their final place.
    pub(super) fn finish(&self, idx: IdxFile<'_, '_>) -> io::Result<Finished> {
        self.noted(self.put_down(idx))
    }

    fn put_down(&self, idx: IdxFile<'_, '_>) -> io::Result<Finished> {
        let (pack, _) = self.pack()?;
        let bytes = match idx.to {
            None => Vec::new(),
            Some(IdxTo::Memory(bytes)) => bytes,
            Some(IdxTo::File(file)) => {
                let idx = file.into_inner().map_err(io::IntoInnerError::into_error)?;
                let in_memory = false;
                return Ok(Finished {
                    pack,
                    idx,
                    in_memory,
                });
            }
        };
        let pack_bytes = pack.file.metadata()?.len();
        let fits = pack_bytes.saturating_add(bytes.len() as u64) <= self.memory_max;
        let idx = fits.then(Held::in_memory).flatten();
        let in_memory = idx.is_some();
        let (pack, mut idx) = match idx {
            Some(idx) => (pack, idx),
            None => (self.spill(pack)?, self.file("idx")?),
        };
        idx.write_all(&bytes)?;
        Ok(Finished {
            pack,
            idx,
            in_memory,
        })
    }

    /// Copies a pack from memory into a file, and keeps the position in it.
    fn spill(&self, mut from: Held) -> io::Result<Held> {
        let at = from.stream_position()?;
        let mut file = self.file("pack")?;
        from.rewind()?;
        self.noted(io::copy(&mut from, &mut file))?;
        file.seek(SeekFrom::Start(at))?;
        *self.pack.borrow_mut() = Some((file.clone(), false));
        Ok(file)
    }
}

/// A pack and its index.
pub(super) struct Finished {
    pub(super) pack: Held,
    pub(super) idx: Held,
    /// Whether both are in memory, without a name in the quarantine's directory.
    pub(super) in_memory: bool,
}

/// A writer of the index, to memory or a file like the pack.
pub(super) struct IdxFile<'i, 'a> {
    incoming: &'i Incoming<'a>,
    to: Option<IdxTo>,
}

enum IdxTo {
    Memory(Vec<u8>),
    File(BufWriter<Held>),
}

impl Write for IdxFile<'_, '_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let to = match &mut self.to {
            Some(to) => to,
            None if self.incoming.pack()?.1 => self.to.insert(IdxTo::Memory(Vec::new())),
            None => {
                let file = self.incoming.file("idx")?;
                let file = BufWriter::with_capacity(BUFFER_BYTES, file);
                self.to.insert(IdxTo::File(file))
            }
        };
        match to {
            IdxTo::Memory(all) => all.write(bytes),
            IdxTo::File(file) => self.incoming.noted(file.write(bytes)),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match &mut self.to {
            Some(IdxTo::File(file)) => self.incoming.noted(file.flush()),
            Some(IdxTo::Memory(_)) | None => Ok(()),
        }
    }
}

/// A writer of the pack, which is then read once for its checksum.
pub(super) struct PackFile<'i, 'a> {
    incoming: &'i Incoming<'a>,
    file: BufWriter<Held>,
    /// Bytes left before the pack moves into a file; `None` after that.
    memory_left: Option<u64>,
}

impl Write for PackFile<'_, '_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if let Some(left) = self.memory_left {
            self.memory_left = left.checked_sub(bytes.len() as u64);
            if self.memory_left.is_none() {
                self.file.flush()?;
                let file = self.incoming.spill(self.file.get_ref().clone())?;
                self.file = BufWriter::with_capacity(BUFFER_BYTES, file);
            }
        }
        self.incoming.noted(self.file.write(bytes))
    }

    fn flush(&mut self) -> io::Result<()> {
        self.incoming.noted(self.file.flush())
    }
}

impl Seek for PackFile<'_, '_> {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        self.incoming.noted(self.file.seek(to))
    }
}

impl Read for PackFile<'_, '_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.flush()?;
        self.incoming.noted(self.file.get_mut().read(buffer))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A directory that is used only when necessary.
    struct Lazy(tempfile::TempDir, u64);

    impl Quarantine for Lazy {
        fn dir(&self) -> io::Result<&Path> {
            Ok(self.0.path())
        }

        fn memory_bytes_max(&self) -> u64 {
            self.1
        }
    }

    /// Writes a pack and its index, and checks their contents. Returns whether they are in memory,
    /// and the number of files.
    fn written(memory_max: u64, pack: &[u8], idx: &[u8]) -> (bool, usize) {
        let quarantine = Lazy(tempfile::tempdir().unwrap(), memory_max);
        let incoming = Incoming::new(&quarantine);
        let mut file = incoming.begin().unwrap();
        file.write_all(b"head").unwrap();
        for byte in pack {
            file.write_all(&[*byte]).unwrap();
        }
        file.rewind().unwrap();
        file.write_all(b"HEAD").unwrap();
        file.flush().unwrap();
        file.rewind().unwrap();
        let mut read = Vec::new();
        file.read_to_end(&mut read).unwrap();
        assert_eq!(read, [b"HEAD", pack].concat());
        let mut file = incoming.begin_idx();
        file.write_all(idx).unwrap();
        let finished = incoming.finish(file).unwrap();
        assert_eq!(std::fs::read(finished.pack.path()).unwrap(), read);
        assert_eq!(std::fs::read(finished.idx.path()).unwrap(), idx);
        let files = std::fs::read_dir(quarantine.0.path()).unwrap();
        (finished.in_memory, files.count())
    }

    /// A quarantine on a broken disk.
    struct Broken;

    impl Quarantine for Broken {
        fn dir(&self) -> io::Result<&Path> {
            Err(io::Error::from_raw_os_error(EIO))
        }

        fn memory_bytes_max(&self) -> u64 {
            10
        }
    }

    const EIO: i32 = rustix::io::Errno::IO.raw_os_error();

    /// Once only some kinds of errors counted as errors of the disk: with EIO, or too many open
    /// files, the error to the client was a broken pack.
    #[test]
    fn what_the_disk_refused_is_kept() {
        let incoming = Incoming::new(&Broken);
        let mut file = incoming.begin().unwrap();
        file.write_all(b"0123456789").unwrap();
        assert!(incoming.fault().is_none());
        assert!(file.write_all(b"a").is_err());
        let fault = incoming.fault().unwrap();
        assert_eq!(fault.raw_os_error(), Some(EIO));
    }

    #[test]
    fn what_is_small_makes_no_files() {
        assert_eq!(written(100, b"a pack", b"its index"), (true, 0));
        assert_eq!(written(0, b"a pack", b"its index"), (false, 2));
    }

    #[test]
    fn what_grows_too_large_moves_into_files() {
        let pack: Vec<u8> = (0..200).collect();
        assert_eq!(written(100, &pack, b"its index"), (false, 2), "the pack");
        assert_eq!(written(206, &pack, b"its index"), (false, 2), "the head");
        assert_eq!(written(210, &pack, b"its index"), (false, 2), "with it");
        assert_eq!(written(213, &pack, b"its index"), (true, 0));
    }
}
