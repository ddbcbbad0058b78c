//! A repository on this machine as the source of objects: the server's own upload-pack, without a
//! connection.

use std::path::Path;

use henge_git::bare::OpenError;
use henge_git::{
    BareRepository, FetchLimits, FetchPolicy, Objects, Protocol, RefStore, keeps_history,
    upload_pack,
};
use henge_types::ObjectId;

use crate::answer::{AnswerReader, AnswerSink};
use crate::error::Error;
use crate::listing::Listing;
use crate::pack::PackFile;
use crate::request;
use crate::transfer::{Event, Source, Watch};

/// A repository with its refs and objects.
pub struct Local<'a> {
    refs: &'a dyn RefStore,
    objects: &'a Objects,
    pack_bytes_max: u64,
}

impl std::fmt::Debug for Local<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Local")
    }
}

impl<'a> Local<'a> {
    /// The repository with these refs and objects; packs have at most `pack_bytes_max` bytes.
    pub const fn new(refs: &'a dyn RefStore, objects: &'a Objects, pack_bytes_max: u64) -> Self {
        Self {
            refs,
            objects,
            pack_bytes_max,
        }
    }
}

impl Source for Local<'_> {
    fn list(&mut self, _: &mut Watch<'_>) -> Result<Listing, Error> {
        let mut listing = Listing {
            protocol: Protocol::V2,
            head: Some(self.refs.head()),
            format: self.refs.object_format(),
            ..Listing::default()
        };
        // The client names the object format in its requests.
        listing.capabilities.add("object-format")?;
        let mut outcome = Ok(());
        self.refs.for_each("", &mut |name, id| {
            if outcome.is_ok() {
                outcome = listing.add(name.as_str(), id);
            }
        });
        outcome?;
        listing.head_id = self.refs.get(&self.refs.head());
        Ok(listing)
    }

    fn fetch(
        &mut self,
        listing: &Listing,
        wants: &[ObjectId],
        haves: &[ObjectId],
        directory: &Path,
        watch: &mut Watch<'_>,
    ) -> Result<PackFile, Error> {
        let request = request::fetch(listing, wants, haves)?;
        let limits = FetchLimits {
            policy: FetchPolicy::default(),
            request_bytes_max: request.len(),
            stop: watch.stop.clone(),
            ..FetchLimits::default()
        };
        PackFile::write(directory, listing.format, self.pack_bytes_max, |pack| {
            let mut sink = AnswerSink {
                reader: AnswerReader::new(Protocol::V2),
                pack,
                tell: &mut |text| (watch.tell)(Event::Said(text)),
                failed: None,
            };
            let mut input = request.as_slice();
            let (refs, objects) = (self.refs, self.objects);
            let answered = upload_pack(refs, objects, Protocol::V2, &mut input, &mut sink, &limits);
            if let Some(error) = sink.failed {
                return Err(error);
            }
            answered.map_err(|error| Error::Local {
                message: error.to_string(),
            })?;
            sink.reader.finish()
        })
    }

    fn keeps_history(&mut self, old: ObjectId, new: ObjectId, watch: &mut Watch<'_>) -> bool {
        // Unreadable history is not known to be kept.
        keeps_history(self.objects, old, new, watch.stop).unwrap_or(false)
    }
}

/// A repository in a directory, bare or with a work tree, as the source of objects. All of its refs
/// are visible, including those that its configuration hides from clients.
#[derive(Debug)]
pub struct Directory {
    repository: BareRepository,
    pack_bytes_max: u64,
}

impl Directory {
    /// Opens the repository that git-upload-pack(1) finds for `path`.
    ///
    /// # Errors
    /// When there is none, or it is shallow or of an unsupported kind.
    pub fn open(path: &Path, pack_bytes_max: u64) -> Result<Self, OpenError> {
        Ok(Self {
            repository: BareRepository::find(path)?,
            pack_bytes_max,
        })
    }
}

impl Directory {
    fn objects(&self) -> Objects {
        let format = self.repository.object_format();
        Objects::at(&self.repository.objects(), format)
    }
}

impl Source for Directory {
    fn list(&mut self, watch: &mut Watch<'_>) -> Result<Listing, Error> {
        // A copy deletes each ref that the listing lacks: any unreadable ref therefore fails the
        // listing.
        self.repository.reread().map_err(|error| Error::Local {
            message: error.to_string(),
        })?;
        let objects = self.objects();
        let mut listing =
            Local::new(&self.repository, &objects, self.pack_bytes_max).list(watch)?;
        listing.unnameable = self.repository.unnameable_refs();
        Ok(listing)
    }

    fn fetch(
        &mut self,
        listing: &Listing,
        wants: &[ObjectId],
        haves: &[ObjectId],
        directory: &Path,
        watch: &mut Watch<'_>,
    ) -> Result<PackFile, Error> {
        let objects = self.objects();
        let mut local = Local::new(&self.repository, &objects, self.pack_bytes_max);
        local.fetch(listing, wants, haves, directory, watch)
    }

    fn keeps_history(&mut self, old: ObjectId, new: ObjectId, watch: &mut Watch<'_>) -> bool {
        let objects = self.objects();
        let mut local = Local::new(&self.repository, &objects, self.pack_bytes_max);
        local.keeps_history(old, new, watch)
    }
}
