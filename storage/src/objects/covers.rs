//! Whether the indexes of some packs list every object of another pack: the precondition for its
//! removal.
//!
//! It reads the sorted names of pack index version 2 (gitformat-pack(5)) side by side, in little
//! memory. In an index that is out of order objects may appear missing, but never present when they
//! are not.

use std::cmp::Ordering;
use std::fs::File;
use std::io::{self, BufReader, Read, Seek, SeekFrom};
use std::path::Path;

use henge_types::{NetworkId, ObjectId, PackId};

use super::packs::names;
use super::{ObjectError, ObjectStore, PackFault};

const MAGIC: [u8; 8] = [0xff, b't', b'O', b'c', 0, 0, 0, 2];
const FAN_OUT: usize = 256;
const NAMES_AT: u64 = 8 + 4 * 256;
const NAME_BYTES_MAX: usize = 32;

type Name = [u8; NAME_BYTES_MAX];

impl ObjectStore {
    /// The first object that the index of `old` lists and no index of `new` does; `None` when the
    /// packs of `new` hold all of them. The packs themselves are not read: see
    /// [`ObjectStore::verify_pack`].
    ///
    /// # Errors
    /// [`ObjectError::MissingPack`], [`ObjectError::BrokenPack`] for an invalid index, and
    /// [`ObjectError::Io`].
    pub fn uncovered(
        &self,
        network: &NetworkId,
        old: &PackId,
        new: &[PackId],
    ) -> Result<Option<ObjectId>, ObjectError> {
        let dir = self.objects_dir(network).join("pack");
        let mut olds = Names::open(&dir, old)?;
        let mut news = Vec::with_capacity(new.len());
        for pack in new {
            news.push(Names::open(&dir, pack)?);
        }
        while let Some(name) = olds.advance()? {
            let mut found = false;
            for names in &mut news {
                if names.has(&name)? {
                    found = true;
                    break;
                }
            }
            if !found {
                return Ok(Some(olds.id(&name)));
            }
        }
        Ok(None)
    }
}

/// The names of an index, read in ascending order.
struct Names {
    pack: PackId,
    path: std::path::PathBuf,
    reader: BufReader<File>,
    /// The number of names whose first byte is at most this one.
    fan_out: Vec<u32>,
    name_bytes: usize,
    /// The position of the next name.
    at: u32,
    /// The name before it.
    last: Option<Name>,
}

impl Names {
    fn open(dir: &Path, pack: &PackId) -> Result<Self, ObjectError> {
        let (_, path) = names(dir, pack);
        let mut reader = BufReader::new(super::packs::open(pack, &path)?);
        let fan_out = read_head(&mut reader).map_err(super::failed("read", &path))?;
        let fan_out = fan_out.ok_or(ObjectError::BrokenPack {
            pack: *pack,
            fault: PackFault::Index,
        })?;
        Ok(Self {
            pack: *pack,
            path,
            reader,
            fan_out,
            name_bytes: pack.checksum().as_bytes().len(),
            at: 0,
            last: None,
        })
    }

    fn count(&self) -> u32 {
        self.fan_out.last().copied().unwrap_or(0)
    }

    fn advance(&mut self) -> Result<Option<Name>, ObjectError> {
        if self.at >= self.count() {
            return Ok(None);
        }
        let mut name = [0; NAME_BYTES_MAX];
        let part = name.get_mut(..self.name_bytes).unwrap_or_default();
        match self.reader.read_exact(part) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
                return Err(self.broken());
            }
            Err(error) => return Err(super::failed("read", &self.path)(error)),
        }
        self.at += 1;
        self.last = Some(name);
        Ok(Some(name))
    }

    /// Whether the name is listed. Calls must pass names in ascending order.
    fn has(&mut self, name: &Name) -> Result<bool, ObjectError> {
        let [byte, ..] = *name;
        let before = byte.checked_sub(1).map(usize::from);
        let start = before.and_then(|before| self.fan_out.get(before)).copied();
        let start = start.unwrap_or(0);
        let end = self.fan_out.get(usize::from(byte)).copied().unwrap_or(0);
        if self.at < start {
            let to = NAMES_AT + u64::from(start) * u64::try_from(self.name_bytes).unwrap_or(0);
            let sought = self.reader.seek(SeekFrom::Start(to));
            sought.map_err(super::failed("read", &self.path))?;
            (self.at, self.last) = (start, None);
        }
        loop {
            if let Some(last) = &self.last {
                match last.cmp(name) {
                    Ordering::Equal => return Ok(true),
                    Ordering::Greater => return Ok(false),
                    Ordering::Less => {}
                }
            }
            if self.at >= end || self.advance()?.is_none() {
                return Ok(false);
            }
        }
    }

    fn id(&self, name: &Name) -> ObjectId {
        let bytes = name.get(..self.name_bytes).unwrap_or_default();
        ObjectId::from_bytes(bytes).expect("invariant: a name is as long as a pack's checksum")
    }

    fn broken(&self) -> ObjectError {
        ObjectError::BrokenPack {
            pack: self.pack,
            fault: PackFault::Index,
        }
    }
}

/// The fan-out table; `None` when the file is not an index of version 2.
fn read_head(reader: &mut impl Read) -> io::Result<Option<Vec<u32>>> {
    let mut head = [0; 8 + 4 * FAN_OUT];
    match reader.read_exact(&mut head) {
        Ok(()) => {}
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
        Err(error) => return Err(error),
    }
    let Some(table) = head.strip_prefix(&MAGIC) else {
        return Ok(None);
    };
    let numbers = table
        .chunks_exact(4)
        .filter_map(|bytes| bytes.try_into().ok());
    let fan_out: Vec<_> = numbers.map(u32::from_be_bytes).collect();
    Ok(fan_out.is_sorted().then_some(fan_out))
}
