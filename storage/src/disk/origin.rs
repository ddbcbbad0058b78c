//! The properties that distinguish a file from a copy of it.

use std::fmt;
use std::fs::File;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::time::UNIX_EPOCH;

/// `f_type` of ext2, ext3 and ext4.
const EXT: i64 = 0xEF53;
/// `f_type` of btrfs.
const BTRFS: i64 = 0x9123_683E;

/// The properties that distinguish a file from a copy of it. A rename keeps all of them; a copy has
/// another inode and another creation time. Device numbers are excluded: they change when a disk is
/// attached elsewhere.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FileOrigin {
    /// The inode number.
    pub inode: u64,
    /// Creation time, nanoseconds since 1970; `None` where the file system does not record it.
    pub created_ns: Option<u64>,
    /// An id that the file system derives from its UUID; `None` where the kernel shows no such id.
    pub file_system: Option<u64>,
}

impl FileOrigin {
    /// The origin of an open file.
    pub(super) fn of(file: &File) -> io::Result<Self> {
        let metadata = file.metadata()?;
        let created = metadata.created().ok();
        let since = created.and_then(|created| created.duration_since(UNIX_EPOCH).ok());
        Ok(Self {
            inode: metadata.ino(),
            created_ns: since.and_then(|since| u64::try_from(since.as_nanos()).ok()),
            file_system: file_system(file)?,
        })
    }

    /// Whether `other` is the same file. Properties that are unknown on one side are not compared.
    pub fn is_same_file(&self, other: &Self) -> bool {
        let differ = |one: Option<u64>, other: Option<u64>| {
            one.zip(other).is_some_and(|(one, other)| one != other)
        };
        self.inode == other.inode
            && !differ(self.created_ns, other.created_ns)
            && !differ(self.file_system, other.file_system)
    }
}

/// `f_fsid`, on file systems that derive it from their UUID; on others it is the device number.
fn file_system(file: &File) -> io::Result<Option<u64>> {
    let kind = rustix::fs::fstatfs(file)?.f_type;
    if kind != EXT && kind != BTRFS {
        return Ok(None);
    }
    let id = rustix::fs::fstatvfs(file)?.f_fsid;
    Ok((id != 0).then_some(id))
}

impl fmt::Display for FileOrigin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "inode {}", self.inode)?;
        if let Some(created) = self.created_ns {
            let (seconds, rest) = (created / 1_000_000_000, created % 1_000_000_000);
            write!(f, " of {seconds}.{rest:09}")?;
        }
        match self.file_system {
            Some(id) => write!(f, " on file system {id:016x}"),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn origin(path: &std::path::Path) -> FileOrigin {
        FileOrigin::of(&File::open(path).expect("opens")).expect("has an origin")
    }

    #[test]
    fn a_rename_keeps_the_origin_and_a_copy_has_another() {
        let dir = tempfile::tempdir().expect("a folder");
        let (one, two) = (dir.path().join("one"), dir.path().join("two"));
        std::fs::write(&one, "bytes").expect("written");
        let first = origin(&one);
        std::fs::rename(&one, &two).expect("renamed");
        std::fs::write(&two, "other bytes").expect("written again");
        assert!(first.is_same_file(&origin(&two)));
        std::fs::copy(&two, &one).expect("copied");
        assert!(!first.is_same_file(&origin(&one)));
    }

    #[test]
    fn only_known_parts_are_compared() {
        let all = FileOrigin {
            inode: 1,
            created_ns: Some(2),
            file_system: Some(3),
        };
        let bare = FileOrigin {
            inode: 1,
            created_ns: None,
            file_system: None,
        };
        assert!(all.is_same_file(&bare) && bare.is_same_file(&all));
        for other in [
            FileOrigin { inode: 9, ..all },
            FileOrigin {
                created_ns: Some(9),
                ..all
            },
            FileOrigin {
                file_system: Some(9),
                ..all
            },
        ] {
            assert!(!all.is_same_file(&other), "{other}");
        }
    }
}
