//! A repository as one file (gitformat-bundle(5)): `git clone FILE.bundle` restores it.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::Path;

use henge_types::ObjectFormat;

use crate::error::Error;
use crate::listing::Listing;
use crate::transfer::{Selection, Source, Watch};

/// The counts of an export.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Exported {
    /// Refs, HEAD not counted.
    pub refs: u64,
    /// Refs that were left out.
    pub left_out: u64,
    /// Objects.
    pub objects: u64,
    /// Bytes of their pack.
    pub pack_bytes: u64,
}

/// The lines before the pack. A bundle without prerequisites holds all objects that are reachable
/// from its refs.
fn head(listing: &Listing, selection: Selection, output: &mut dyn Write) -> std::io::Result<u64> {
    match listing.format {
        ObjectFormat::Sha1 => writeln!(output, "# v2 git bundle")?,
        ObjectFormat::Sha256 => {
            writeln!(output, "# v3 git bundle\n@object-format=sha256")?;
        }
    }
    let mut refs = 0;
    // HEAD is first, as in git: a clone takes its branch from it.
    let head = listing.default_branch();
    let head = head.filter(|name| selection.takes(name));
    let value = |name| listing.refs.iter().find(|found| found.name == name);
    if let Some(found) = head.and_then(value) {
        writeln!(output, "{} HEAD", found.id)?;
    }
    for found in listing
        .refs
        .iter()
        .filter(|found| selection.takes(&found.name))
    {
        writeln!(output, "{} {}", found.id, found.name)?;
        refs += 1;
    }
    writeln!(output)?;
    Ok(refs)
}

/// Writes all objects that are reachable from the refs of `source` into the new file `path`. The
/// file is written under a temporary name, flushed and then renamed: it is complete or absent.
///
/// # Errors
/// When `path` exists, the repository has no ref, or either side fails.
pub fn write(
    source: &mut dyn Source,
    path: &Path,
    selection: Selection,
    watch: &mut Watch<'_>,
) -> Result<Exported, Error> {
    refuse_existing(path)?;
    let listing = source.list(watch)?;
    listing.check_names(selection)?;
    let wants = wants(&listing, selection);
    if wants.is_empty() {
        return Err(Error::Empty);
    }
    let directory = parent(path);
    let failed = || Error::io(format!("cannot write {}", path.display()));
    let pack = source.fetch(&listing, &wants, &[], directory, watch)?;
    let file = tempfile::Builder::new()
        .prefix(".henge-bundle-")
        .tempfile_in(directory)
        .map_err(failed())?;
    let mut output = BufWriter::new(file);
    let refs = head(&listing, selection, &mut output).map_err(failed())?;
    pack.copy_to(&mut output).map_err(failed())?;
    let file = output
        .into_inner()
        .map_err(|error| failed()(error.into_error()))?;
    file.as_file().sync_all().map_err(failed())?;
    readable(file.as_file()).map_err(failed())?;
    file.persist_noclobber(path).map_err(|error| {
        if error.error.kind() == std::io::ErrorKind::AlreadyExists {
            let path = path.to_owned();
            return Error::Exists { path };
        }
        failed()(error.error)
    })?;
    sync_directory(directory).map_err(failed())?;
    Ok(Exported {
        refs,
        left_out: listing.refs.len() as u64 - refs + listing.left_out_unseen(),
        objects: u64::from(pack.objects()),
        pack_bytes: pack.bytes(),
    })
}

/// The values of the selected refs, each once.
pub(crate) fn wants(listing: &Listing, selection: Selection) -> Vec<henge_types::ObjectId> {
    let taken = listing
        .refs
        .iter()
        .filter(|found| selection.takes(&found.name));
    let ids: std::collections::BTreeSet<_> = taken.map(|found| found.id).collect();
    ids.into_iter().collect()
}

pub(crate) fn refuse_existing(path: &Path) -> Result<(), Error> {
    match std::fs::symlink_metadata(path) {
        Ok(_) => Err(Error::Exists {
            path: path.to_owned(),
        }),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(Error::io(format!("cannot look at {}", path.display()))(
            error,
        )),
    }
}

pub(crate) fn parent(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    }
}

pub(crate) fn sync_directory(directory: &Path) -> std::io::Result<()> {
    File::open(directory)?.sync_all()
}

/// Temporary files are private; an export gets the usual permissions of a new file.
fn readable(file: &File) -> std::io::Result<()> {
    use std::os::unix::fs::PermissionsExt;
    file.set_permissions(std::fs::Permissions::from_mode(0o644))
}
