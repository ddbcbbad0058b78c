//! A repository on this machine as the source of objects: the server's own upload-pack, without a connection.

use std::path::Path;

use henge_git::{FetchLimits, FetchPolicy, Objects, Protocol, RefStore, upload_pack};
use henge_types::ObjectId;

use crate::answer::{AnswerReader, AnswerSink};
use crate::error::Error;
use crate::listing::Listing;
use crate::pack::PackFile;
use crate::request;
use crate::transfer::{Event, Source, Watch};

/// A repository whose refs and objects are at hand.
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
    /// The repository with these refs and objects; packs get at most `pack_bytes_max` bytes.
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
            ..Listing::default()
        };
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
}
