//! Writes the pack: bases before their deltas, everything else in the order of the walk.

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use gix_object::Kind;
use gix_pack::data::entry::Header;
use gix_zlib::Status;
use gix_zlib::stream::deflate::{Compress, FlushCompress};
use henge_types::ObjectFormat;
use tempfile::NamedTempFile;

use crate::oid::{Checksum, Oid};
use crate::repack::forms::{Form, Forms};
use crate::repack::search::NewDeltas;
use crate::repack::sources::{Reader, STOP_EVERY, Sources};
use crate::repack::{RepackError, RepackOptions};

/// The buffer in front of a file.
const BUFFER_BYTES: usize = 256 * 1024;
/// The mode of git's pack files: a pack never changes.
const FILE_MODE: u32 = 0o444;

/// Deflates whole buffers at git's default level.
pub(super) struct Deflater {
    compress: Compress,
    output: Vec<u8>,
}

impl Default for Deflater {
    fn default() -> Self {
        Self {
            compress: Compress::new(gix_zlib::Compression::DEFAULT),
            output: Vec::new(),
        }
    }
}

impl Deflater {
    pub(super) fn deflate(&mut self, data: &[u8]) -> io::Result<&[u8]> {
        self.compress.reset();
        self.output.resize(data.len() / 2 + 128, 0);
        let (mut taken, mut written) = (0, 0);
        loop {
            let (taken_before, written_before) =
                (self.compress.total_in(), self.compress.total_out());
            let status = self
                .compress
                .compress(
                    &data[taken..],
                    &mut self.output[written..],
                    FlushCompress::Finish,
                )
                .map_err(|error| io::Error::other(error.to_string()))?;
            taken += grown(self.compress.total_in(), taken_before);
            written += grown(self.compress.total_out(), written_before);
            match status {
                Status::StreamEnd => return Ok(&self.output[..written]),
                Status::Ok | Status::BufError => {
                    let more = self.output.len() + data.len() / 2 + 128;
                    self.output.resize(more, 0);
                }
            }
        }
    }
}

fn grown(after: u64, before: u64) -> usize {
    usize::try_from(after - before).unwrap_or(usize::MAX)
}

/// A file with the checksum of its contents, removed on drop unless it is kept.
pub(super) struct HashedFile {
    file: BufWriter<NamedTempFile>,
    hash: Checksum,
    pub(super) written: u64,
}

impl HashedFile {
    pub(super) fn create(directory: &Path, format: ObjectFormat) -> io::Result<Self> {
        let file = tempfile::Builder::new()
            .prefix("tmp_repack_")
            .permissions(std::fs::Permissions::from_mode(FILE_MODE))
            .tempfile_in(directory)?;
        Ok(Self {
            file: BufWriter::with_capacity(BUFFER_BYTES, file),
            hash: Checksum::new(format),
            written: 0,
        })
    }

    pub(super) fn put(&mut self, data: &[u8]) -> io::Result<()> {
        self.hash.update(data);
        self.written += data.len() as u64;
        self.file.write_all(data)
    }

    /// Ends the file with its checksum. Not fsynced.
    pub(super) fn finish(mut self) -> io::Result<(Oid, NamedTempFile)> {
        let checksum = self.hash.finish();
        self.file.write_all(checksum.as_bytes())?;
        let file = self
            .file
            .into_inner()
            .map_err(io::IntoInnerError::into_error)?;
        Ok((checksum, file))
    }
}

/// Gives a finished file its name.
pub(super) fn keep(file: NamedTempFile, path: PathBuf) -> io::Result<PathBuf> {
    let _file: File = file.persist(&path).map_err(|error| error.error)?;
    Ok(path)
}

/// A complete pack without a name yet.
pub(super) struct WrittenPack {
    pub(super) file: NamedTempFile,
    pub(super) checksum: Oid,
    pub(super) bytes: u64,
    /// Offset of each object's entry.
    pub(super) offsets: Vec<u64>,
    pub(super) checksums: Vec<u32>,
    /// Objects in the order of their offsets.
    pub(super) order: Vec<u32>,
    /// Objects that were deflated again because no pack held them whole.
    pub(super) deflated: u32,
}

/// Writes every object in the order of `sequence`, except that bases precede their deltas.
pub(super) fn write_pack(
    sources: &Sources,
    forms: &Forms,
    deltas: NewDeltas,
    sequence: &[u32],
    into: &Path,
    options: &RepackOptions,
) -> Result<WrittenPack, RepackError> {
    let mut output = Output {
        file: HashedFile::create(into, sources.format())?,
        offsets: vec![0; sequence.len()],
        checksums: vec![0; sequence.len()],
        order: Vec::with_capacity(sequence.len()),
        deflated: 0,
        reader: Reader::new(sources),
        deflater: Deflater::default(),
        head: Vec::new(),
        buffer: Vec::new(),
        sources,
        forms,
        deltas,
    };
    let header = gix_pack::data::header::encode(gix_pack::data::Version::V2, sources.len());
    output.file.put(&header)?;
    let mut chain = Vec::new();
    for (position, object) in sequence.iter().enumerate() {
        if position.is_multiple_of(STOP_EVERY) && options.stop.is_set() {
            return Err(RepackError::Stopped);
        }
        let mut link = Some(*object);
        while let Some(object) = link.filter(|object| output.offsets[*object as usize] == 0) {
            chain.push(object);
            link = output.base(object);
        }
        while let Some(object) = chain.pop() {
            output.write_object(object)?;
        }
    }
    let bytes = output.file.written + sources.format().id_bytes() as u64;
    let (checksum, file) = output.file.finish()?;
    Ok(WrittenPack {
        file,
        checksum,
        bytes,
        offsets: output.offsets,
        checksums: output.checksums,
        order: output.order,
        deflated: output.deflated,
    })
}

struct Output<'a> {
    file: HashedFile,
    offsets: Vec<u64>,
    checksums: Vec<u32>,
    order: Vec<u32>,
    deflated: u32,
    reader: Reader<'a>,
    deflater: Deflater,
    head: Vec<u8>,
    buffer: Vec<u8>,
    sources: &'a Sources,
    forms: &'a Forms,
    deltas: NewDeltas,
}

impl Output<'_> {
    fn base(&self, object: u32) -> Option<u32> {
        match self.forms.forms[object as usize] {
            Form::Reused { base } => Some(base),
            Form::New { delta } => Some(self.deltas.get(delta).base),
            Form::Copied | Form::Deflated => None,
        }
    }

    fn write_object(&mut self, object: u32) -> Result<(), RepackError> {
        let at = object as usize;
        let copy = self.forms.copies[at];
        let distance = |base: u32| Header::OfsDelta {
            base_distance: self.file.written - self.offsets[base as usize],
        };
        match self.forms.forms[at] {
            Form::Copied => {
                let (entry, body) = self.sources.entry(copy)?;
                self.put(object, entry.header, entry.decompressed_size, body)
            }
            Form::Reused { base } => {
                let (entry, body) = self.sources.entry(copy)?;
                self.put(object, distance(base), entry.decompressed_size, body)
            }
            Form::New { delta } => {
                let found = self.deltas.get(delta);
                let header = distance(found.base);
                let mut body = std::mem::take(&mut self.buffer);
                self.deltas.read(delta, &mut body)?;
                self.put(object, header, u64::from(found.size), &body)?;
                self.buffer = body;
                Ok(())
            }
            Form::Deflated => {
                let mut data = std::mem::take(&mut self.buffer);
                let kind = self.reader.read_checked(copy, &mut data)?;
                let mut deflater = std::mem::take(&mut self.deflater);
                let body = deflater.deflate(&data)?;
                self.put(object, whole(kind), data.len() as u64, body)?;
                self.deflated += 1;
                (self.buffer, self.deflater) = (data, deflater);
                Ok(())
            }
        }
    }

    fn put(
        &mut self,
        object: u32,
        header: Header,
        size: u64,
        body: &[u8],
    ) -> Result<(), RepackError> {
        self.head.clear();
        header.write_to(size, &mut self.head)?;
        let mut checksum = crc32fast::Hasher::new();
        checksum.update(&self.head);
        checksum.update(body);
        self.offsets[object as usize] = self.file.written;
        self.checksums[object as usize] = checksum.finalize();
        self.order.push(object);
        self.file.put(&self.head)?;
        self.file.put(body)?;
        Ok(())
    }
}

const fn whole(kind: Kind) -> Header {
    match kind {
        Kind::Commit => Header::Commit,
        Kind::Tree => Header::Tree,
        Kind::Blob => Header::Blob,
        Kind::Tag => Header::Tag,
    }
}
