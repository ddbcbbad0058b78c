//! A repository as a bare one on disk (gitrepository-layout(5)), for stock git.

use std::fs::{self, File};
use std::io::{self, BufReader, BufWriter, Cursor, Read, Write};
use std::path::Path;
use std::sync::Mutex;

use henge_git::{CommitError, Objects, PushLimits, RefStore, VerifiedPush, pkt, receive_pack};
use henge_types::{ObjectFormat, ObjectId, RefName, RefVerdict};

use crate::bundle::{Exported, parent, refuse_existing, sync_directory, wants};
use crate::error::Error;
use crate::listing::Listing;
use crate::pack::PackFile;
use crate::transfer::{Selection, Source, Watch};

/// Writes the repository of `source` into the new directory `path`: packs and indexes,
/// `packed-refs`, `HEAD` and `config`. The directory is written under a temporary name, flushed and
/// then renamed: it is complete or absent.
///
/// # Errors
/// When `path` exists, or either side fails.
pub fn write_bare(
    source: &mut dyn Source,
    path: &Path,
    selection: Selection,
    watch: &mut Watch<'_>,
) -> Result<Exported, Error> {
    refuse_existing(path)?;
    let mut listing = source.list(watch)?;
    listing.check_names(selection)?;
    let all = listing.refs.len() as u64;
    listing.refs.retain(|found| selection.takes(&found.name));
    listing.refs.sort_by(|one, other| one.name.cmp(&other.name));
    let directory = parent(path);
    let failed = || Error::io(format!("cannot write {}", path.display()));
    let aside = tempfile::Builder::new()
        .prefix(".henge-export-")
        .tempdir_in(directory)
        .map_err(failed())?;
    lay_out(aside.path(), &listing).map_err(failed())?;
    let wants = wants(&listing, selection);
    let mut exported = Exported {
        refs: listing.refs.len() as u64,
        left_out: all - listing.refs.len() as u64 + listing.left_out_unseen(),
        ..Exported::default()
    };
    if !wants.is_empty() {
        let pack = source.fetch(&listing, &wants, &[], directory, watch)?;
        exported.objects = u64::from(pack.objects());
        exported.pack_bytes = pack.bytes();
        take_pack(aside.path(), &listing, &pack, watch)?;
    }
    sync_tree(aside.path()).map_err(failed())?;
    // A directory created meanwhile is replaced only if it is empty.
    fs::rename(aside.path(), path).map_err(failed())?;
    drop(aside.keep());
    sync_directory(directory).map_err(failed())?;
    Ok(exported)
}

fn lay_out(root: &Path, listing: &Listing) -> io::Result<()> {
    use std::os::unix::fs::PermissionsExt;
    fs::set_permissions(root, fs::Permissions::from_mode(0o755))?;
    for directory in [
        "objects/pack",
        "objects/info",
        "refs/heads",
        "refs/tags",
        "info",
    ] {
        fs::create_dir_all(root.join(directory))?;
    }
    let (version, extensions) = match listing.format {
        ObjectFormat::Sha1 => (0, ""),
        ObjectFormat::Sha256 => (1, "[extensions]\n\tobjectformat = sha256\n"),
    };
    let core = format!("\trepositoryformatversion = {version}\n\tfilemode = true\n\tbare = true\n");
    fs::write(root.join("config"), format!("[core]\n{core}{extensions}"))?;
    let description = "Unnamed repository; edit this file 'description' to name the repository.\n";
    fs::write(root.join("description"), description)?;
    let head = listing.default_branch();
    let head = head.as_ref().map_or("refs/heads/main", RefName::as_str);
    fs::write(root.join("HEAD"), format!("ref: {head}\n"))
}

/// Indexes the pack, checks that no object is missing, and writes the refs, as a server does for a
/// push.
fn take_pack(
    root: &Path,
    listing: &Listing,
    pack: &PackFile,
    watch: &Watch<'_>,
) -> Result<(), Error> {
    let failed = || Error::io(format!("cannot write {}", root.display()));
    let objects = root.join("objects");
    let quarantine = tempfile::Builder::new()
        .prefix("tmp_objdir-incoming-")
        .tempdir_in(&objects)
        .map_err(failed())?;
    let refs = ExportedRefs {
        root,
        format: listing.format,
        written: Mutex::new(false),
    };
    let limits = PushLimits {
        pack_bytes_max: u64::MAX,
        updates_max: usize::MAX,
        // Data that the cluster accepted is not limited again.
        inflated_bytes_free: u64::MAX,
        stop: watch.stop.clone(),
        ..PushLimits::default()
    };
    let head = commands(listing).map_err(failed())?;
    let reader = pack.reader().map_err(failed())?.take(pack.bytes());
    let mut input = BufReader::with_capacity(128 * 1024, Cursor::new(head).chain(reader));
    let mut report = Vec::new();
    let objects = Objects::at(&objects, listing.format);
    let summary = receive_pack(
        &refs,
        &objects,
        &quarantine.path(),
        &mut input,
        &mut report,
        &limits,
    );
    let summary = summary.map_err(|error| Error::Push {
        message: error.to_string(),
    })?;
    if let Some(message) = summary.unpack_error {
        return Err(Error::Push { message });
    }
    let written = refs.written.into_inner().unwrap_or(false);
    if !written || summary.verdicts.len() != listing.refs.len() {
        let message = "the repository is not whole: a ref was refused by the check of its objects";
        return Err(Error::Push {
            message: message.to_owned(),
        });
    }
    Ok(())
}

fn commands(listing: &Listing) -> io::Result<Vec<u8>> {
    let mut head = Vec::new();
    let format = listing.format;
    let zero = "0".repeat(format.hex_bytes());
    let words = format!("\0report-status object-format={format}");
    for (position, found) in listing.refs.iter().enumerate() {
        let words = if position == 0 { words.as_str() } else { "" };
        let command = format!("{zero} {} {}{words}", found.id, found.name);
        pkt::write(&mut head, command.as_bytes())?;
    }
    pkt::write_flush(&mut head)?;
    Ok(head)
}

/// The refs of a repository that is being written: none at first, then all at once.
struct ExportedRefs<'a> {
    root: &'a Path,
    format: ObjectFormat,
    written: Mutex<bool>,
}

impl ExportedRefs<'_> {
    fn keep(&self, push: &VerifiedPush<'_>) -> io::Result<()> {
        if let Some(pack) = &push.pack {
            let directory = self.root.join("objects/pack");
            for (from, extension) in [(&pack.pack_path, "pack"), (&pack.idx_path, "idx")] {
                let file = File::open(from)?;
                let mut permissions = file.metadata()?.permissions();
                permissions.set_readonly(true);
                file.set_permissions(permissions)?;
                fs::rename(
                    from,
                    directory.join(format!("pack-{}.{extension}", pack.id)),
                )?;
            }
        }
        let mut output = BufWriter::new(File::create_new(self.root.join("packed-refs"))?);
        // Without the word `fully-peeled` git peels tags itself.
        writeln!(output, "# pack-refs with: sorted ")?;
        for update in &push.updates {
            if let Some(id) = update.new {
                writeln!(output, "{id} {}", update.name)?;
            }
        }
        output
            .into_inner()
            .map_err(io::IntoInnerError::into_error)?;
        Ok(())
    }
}

impl RefStore for ExportedRefs<'_> {
    fn head(&self) -> RefName {
        "refs/heads/main"
            .parse()
            .expect("invariant: a valid ref name")
    }

    fn object_format(&self) -> ObjectFormat {
        self.format
    }

    fn get(&self, _: &RefName) -> Option<ObjectId> {
        None
    }

    fn for_each(&self, _: &str, _: &mut dyn FnMut(&RefName, ObjectId)) {}

    fn was_tip_recently(&self, _: ObjectId) -> bool {
        false
    }

    fn commit(&self, push: VerifiedPush<'_>) -> Result<Vec<RefVerdict>, CommitError> {
        self.keep(&push)?;
        if let Ok(mut written) = self.written.lock() {
            *written = true;
        }
        let verdict = |update: henge_types::RefUpdate| RefVerdict {
            name: update.name,
            old: None,
            result: Ok(()),
        };
        Ok(push.updates.into_iter().map(verdict).collect())
    }
}

/// Flushes every file and directory below `directory`, and the directory itself.
fn sync_tree(directory: &Path) -> io::Result<()> {
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            sync_tree(&entry.path())?;
        } else {
            File::open(entry.path())?.sync_all()?;
        }
    }
    sync_directory(directory)
}
