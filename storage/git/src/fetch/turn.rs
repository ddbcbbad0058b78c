//! Permits to make a response: each response costs memory and a processor until the objects that
//! the client lacks are known.

use crate::fetch::FetchError;
use crate::fetch::graph::Node;
use crate::fetch::request::Fetch;
use crate::fetch::serve::Session;
use crate::responses::{MakingTurn, Work};
use crate::store::ObjectStore;

impl Session<'_> {
    /// Waits for the permit to make the response to a client that has `common`. A small repository
    /// needs none.
    pub(super) fn making_turn(
        &self,
        store: &ObjectStore,
        common: &[Node],
    ) -> Result<Option<MakingTurn>, FetchError> {
        let Some(responses) = &self.limits.responses else {
            return Ok(None);
        };
        let objects = store.packs().iter().map(|pack| u64::from(pack.objects()));
        if objects.sum::<u64>() < self.limits.turn_objects_min {
            return Ok(None);
        }
        let work = match common.is_empty() {
            true => Work::Clone,
            false => Work::Fetch,
        };
        let (asker, stop) = (self.limits.asker, &self.limits.stop);
        let turn = self
            .work
            .uncounted(|| responses.making_turn(work, asker, stop));
        turn.map(Some).ok_or(FetchError::Stopped)
    }

    /// The permit that exists already, or else one that is waited for.
    pub(super) fn keep_turn(
        &self,
        turn: Option<MakingTurn>,
        store: &ObjectStore,
        common: &[Node],
    ) -> Result<Option<MakingTurn>, FetchError> {
        match turn {
            Some(turn) => Ok(Some(turn)),
            None => self.making_turn(store, common),
        }
    }

    /// The permit to compute a shallow boundary, which may take a walk of the whole history. The
    /// walk stays in memory until the response is made.
    pub(super) fn cutting_turn(
        &self,
        store: &ObjectStore,
        request: &Fetch,
    ) -> Result<Option<MakingTurn>, FetchError> {
        match request.deepen.is_asked() {
            true => self.making_turn(store, &[]),
            false => Ok(None),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::path::Path;
    use std::time::Duration;

    use flate2::Compression;
    use flate2::write::ZlibEncoder;
    use henge_runtime::SystemClock;
    use henge_types::ObjectFormat;

    use super::*;
    use crate::bare::BareRepository;
    use crate::fetch::upload_pack;
    use crate::oid::Checksum;
    use crate::pkt;
    use crate::protocol::{Asker, Deadline, FetchLimits, Protocol, Stop};
    use crate::responses::Responses;
    use crate::store::Objects;

    /// Long enough for requests that need no permit, milliseconds.
    const LONG: u64 = 20_000;

    /// Writes a loose object; returns its id.
    fn put(objects: &Path, kind: &str, data: &[u8]) -> String {
        let head = format!("{kind} {}\0", data.len());
        let whole = [head.as_bytes(), data].concat();
        let id = Checksum::of(ObjectFormat::Sha1, &whole).to_string();
        let (directory, name) = id.split_at(2);
        let directory = objects.join(directory);
        std::fs::create_dir_all(&directory).unwrap();
        let file = std::fs::File::create(directory.join(name)).unwrap();
        let mut deflate = ZlibEncoder::new(file, Compression::fast());
        deflate.write_all(&whole).unwrap();
        deflate.finish().unwrap();
        id
    }

    /// A repository of one commit, and the commit's id.
    fn repository(root: &Path) -> (BareRepository, String) {
        let objects = root.join("objects");
        for directory in [&objects, &root.join("refs/heads")] {
            std::fs::create_dir_all(directory).unwrap();
        }
        std::fs::write(root.join("HEAD"), "ref: refs/heads/main\n").unwrap();
        let tree = put(&objects, "tree", b"");
        let who = "A <a@example.org> 1000 +0000";
        let commit = format!("tree {tree}\nauthor {who}\ncommitter {who}\n\nwords\n");
        let tip = put(&objects, "commit", commit.as_bytes());
        std::fs::write(root.join("refs/heads/main"), format!("{tip}\n")).unwrap();
        (BareRepository::open(root).unwrap(), tip)
    }

    fn request(lines: &[&str]) -> Vec<u8> {
        let mut request = Vec::new();
        pkt::write(&mut request, b"command=fetch\n").unwrap();
        pkt::write_delimiter(&mut request).unwrap();
        for line in lines {
            pkt::write(&mut request, line.as_bytes()).unwrap();
        }
        pkt::write_flush(&mut request).unwrap();
        request
    }

    /// Requests for missing objects or cached responses once waited for the clones of other
    /// clients.
    #[test]
    fn what_is_refused_or_kept_takes_no_turn() {
        let directory = tempfile::tempdir().unwrap();
        let (repository, tip) = repository(directory.path());
        let objects = Objects::at(&repository.objects(), ObjectFormat::Sha1);
        let responses = Responses::new(directory.path()).of(b"r");
        let ask = |within_ms: u64, lines: &[&str]| {
            let within = Duration::from_millis(within_ms);
            let limits = FetchLimits {
                turn_objects_min: 0,
                stop: Stop::at(Deadline::after(SystemClock::shared(), within)),
                responses: Some(responses.clone()),
                ..FetchLimits::default()
            };
            let request = request(lines);
            let mut answer = Vec::new();
            let outcome = upload_pack(
                &repository,
                &objects,
                Protocol::V2,
                &mut &request[..],
                &mut answer,
                &limits,
            );
            (outcome, answer)
        };
        let want = format!("want {tip}\n");
        let (made, first) = ask(LONG, &[&want, "done\n"]);
        assert_eq!(made.unwrap().objects_sent, 2);

        let stopped = Stop::default();
        stopped.stop();
        let take = |work| responses.making_turn(work, Asker::Known, &stopped);
        let clones: Vec<_> = std::iter::from_fn(|| take(Work::Clone)).collect();
        let fetches: Vec<_> = std::iter::from_fn(|| take(Work::Fetch)).collect();
        let (kept, again) = ask(LONG, &[&want, "done\n"]);
        assert_eq!((kept.unwrap().replayed, again == first), (1, true));
        let absent = "f".repeat(40);
        let (refused, _) = ask(LONG, &[&format!("want {absent}\n"), "done\n"]);
        assert!(matches!(refused, Err(FetchError::NotOurRef { .. })));
        // A shallow boundary may take a walk of the whole history: 24 such requests once walked at
        // the same time, and held their walks in memory.
        for depth in ["deepen 1000000\n", "deepen-since 9999999999\n"] {
            let (waited, _) = ask(100, &[&want, depth, "done\n"]);
            assert!(matches!(waited, Err(FetchError::Stopped)), "{waited:?}");
        }
        let (negotiated, answer) = ask(LONG, &[&want, &format!("have {absent}\n")]);
        assert!(negotiated.is_ok() && answer.windows(3).any(|three| three == b"NAK"));

        let other = [want.as_str(), "no-progress\n", "done\n"];
        let (waited, _) = ask(100, &other);
        assert!(matches!(waited, Err(FetchError::Stopped)), "{waited:?}");
        drop((clones, fetches));
        assert!(ask(LONG, &other).0.is_ok());
    }
}
