//! A conversation of protocol v2, and what both versions share: checking wants, choosing, sending.

use std::io::BufRead;

use gix_hashtable::HashSet;
use gix_object::Kind;
use sha2::{Digest, Sha256};

use crate::fetch::emit::{Accepts, write_pack};
use crate::fetch::graph::{Graph, Node};
use crate::fetch::ls_refs::ls_refs;
use crate::fetch::negotiate::{common, is_enough};
use crate::fetch::request::{self, Fetch, LsRefs, Request};
use crate::fetch::select::{Selection, Selector, not_tips};
use crate::fetch::shallow::{self, Cut};
use crate::fetch::walk::{Ends, missing_commits};
use crate::fetch::{FetchError, FetchSummary};
use crate::oid::Oid;
use crate::output::Output;
use crate::pkt::{self, Band, SidebandWriter};
use crate::protocol::FetchLimits;
use crate::reach::Reach;
use crate::refs::RefStore;
use crate::responses::Turn;
use crate::store::{ObjectStore, Objects, StoreError};

/// What one call of `upload_pack` works with.
pub(super) struct Session<'a> {
    pub(super) refs: &'a dyn RefStore,
    pub(super) objects: &'a Objects,
    pub(super) limits: &'a FetchLimits,
    pub(super) summary: FetchSummary,
    /// Whether side-band frames have begun: errors go there from then on.
    pub(super) in_pack: bool,
}

/// Wants, as the walk needs them.
pub(super) struct Wants {
    /// Commits, also those that tags lead to.
    pub(super) commits: Vec<Node>,
    /// Wants that are no commits.
    others: Vec<Oid>,
}

impl Session<'_> {
    /// Answers commands until the client has no more.
    pub(super) fn commands(
        &mut self,
        input: &mut dyn BufRead,
        output: &mut dyn Output,
    ) -> Result<(), FetchError> {
        let mut input = pkt::Bounded::new(input, self.limits.request_bytes_max as u64);
        while let Some(request) = request::read(&mut input)? {
            match request {
                Request::LsRefs(request) => self.ls_refs(&request, output)?,
                Request::Fetch(request) => self.fetch(&request, output)?,
            }
            output.flush()?;
        }
        Ok(())
    }

    fn ls_refs(&mut self, request: &LsRefs, output: &mut dyn Output) -> Result<(), FetchError> {
        let key = match (&self.limits.responses, self.refs.version()) {
            (Some(responses), Some(version)) => {
                let mut key = responses.key("ls-refs", &request.digest);
                key.update(version.to_le_bytes());
                Some(key)
            }
            (Some(_), None) | (None, _) => None,
        };
        self.once(key, output, |session, output| {
            session.summary.refs_listed += ls_refs(session.refs, session.objects, request, output)?;
            Ok(())
        })
    }

    fn fetch(&mut self, request: &Fetch, output: &mut dyn Output) -> Result<(), FetchError> {
        if request.wants.is_empty() {
            return Ok(pkt::write_flush(output)?);
        }
        let not_tips = not_tips(self.refs, &request.wants);
        let store = self.objects.open()?;
        self.check_wants(&store, &not_tips)?;
        let key = self.limits.responses.as_ref().map(|responses| {
            let mut key = responses.key("fetch", &request.digest);
            self.add_refs(request, &mut key);
            key
        });
        self.once(key, output, |session, output| {
            session.answer(&store, request, output)
        })
    }

    /// Adds to the key of a fetch what its answer depends on beside the request: objects never change, refs do. An
    /// object that came since could make the answer shorter, never wrong.
    fn add_refs(&self, request: &Fetch, key: &mut Sha256) {
        if request.include_tag {
            self.refs
                .for_each("refs/tags/", &mut |_, id| key.update(id.as_bytes()));
        }
        if !request.deepen.not.is_empty() {
            self.refs.for_each("", &mut |name, id| {
                key.update(name.as_str().len().to_le_bytes());
                key.update(name.as_str());
                key.update(id.as_bytes());
            });
        }
    }

    /// Answers like an earlier request with the same key, or by `make`.
    fn once(
        &mut self,
        key: Option<Sha256>,
        output: &mut dyn Output,
        make: impl FnOnce(&mut Self, &mut dyn Output) -> Result<(), FetchError>,
    ) -> Result<(), FetchError> {
        let (Some(key), Some(responses)) = (key, &self.limits.responses) else {
            return make(self, output);
        };
        match responses.turn(key, &self.limits.stop) {
            None => Err(FetchError::Stopped),
            Some(Turn::Known(answer)) => {
                self.summary.replayed += 1;
                Ok(answer.replay(output)?)
            }
            Some(Turn::Make(making)) => {
                let mut recorder = making.recorder(output);
                make(self, &mut recorder)?;
                Ok(making.finish(recorder)?)
            }
        }
    }

    fn answer(
        &mut self,
        store: &ObjectStore,
        request: &Fetch,
        output: &mut dyn Output,
    ) -> Result<(), FetchError> {
        let mut graph = Graph::new(store, &self.limits.stop);
        let wants = wants(&mut graph, &request.wants)?;
        let common = common(&mut graph, &request.haves)?;
        if !request.haves.is_empty() && !request.done {
            pkt::write(output, b"acknowledgments\n")?;
            for node in &common {
                pkt::write(output, format!("ACK {}\n", graph.id(*node)).as_bytes())?;
            }
            if common.is_empty() {
                pkt::write(output, b"NAK\n")?;
            }
            if !is_enough(&mut graph, &wants.commits, &common)? {
                return Ok(pkt::write_flush(output)?);
            }
            pkt::write(output, b"ready\n")?;
            pkt::write_delimiter(output)?;
        }
        let cut = self.cut(&mut graph, request, &wants)?;
        if request.deepen.is_asked() {
            pkt::write(output, b"shallow-info\n")?;
            write_cut(&cut, output)?;
            pkt::write_delimiter(output)?;
        }
        pkt::write(output, b"packfile\n")?;
        self.in_pack = true;
        let selection = self.select(&mut graph, request, &wants, &common, &cut)?;
        if !request.no_progress {
            let line = format!("Sending {} objects\n", selection.len());
            pkt::write_band(output, Band::Progress, line.as_bytes())?;
        }
        output.begin_pack();
        let mut pack = SidebandWriter::new(output);
        self.send(store, selection, request, &mut pack)?;
        let output = pack.finish()?;
        pkt::write_flush(output)?;
        self.in_pack = false;
        Ok(())
    }

    /// A want must be a visible tip, have been one recently, or be reachable from one.
    pub(super) fn check_wants(
        &self,
        store: &ObjectStore,
        not_tips: &[Oid],
    ) -> Result<(), FetchError> {
        if not_tips.is_empty() {
            return Ok(());
        }
        let not_ours = |id: &Oid| FetchError::NotOurRef { id: id.to_string() };
        let mut commits = HashSet::default();
        let mut others = HashSet::default();
        for id in not_tips {
            match store.kind(id)? {
                None => return Err(not_ours(id)),
                Some(Kind::Commit) => commits.insert(*id),
                Some(Kind::Tree | Kind::Blob | Kind::Tag) => others.insert(*id),
            };
        }
        let mut reach = Reach::new(self.refs, store, HashSet::default(), &self.limits.stop);
        reach.prove_commits(&mut commits)?;
        if commits.is_empty() {
            reach.prove_objects(&mut others, &[])?;
        }
        match commits.iter().chain(&others).min() {
            None => Ok(()),
            Some(id) => Err(not_ours(id)),
        }
    }

    pub(super) fn cut(
        &self,
        graph: &mut Graph<'_>,
        request: &Fetch,
        wants: &Wants,
    ) -> Result<Cut, FetchError> {
        if request.deepen.is_asked() {
            return shallow::cut(
                graph,
                self.refs,
                &wants.commits,
                &request.deepen,
                &request.shallow,
            );
        }
        Ok(Cut {
            ends: request.shallow.clone(),
            ..Cut::default()
        })
    }

    pub(super) fn select(
        &self,
        graph: &mut Graph<'_>,
        request: &Fetch,
        wants: &Wants,
        common: &[Node],
        cut: &Cut,
    ) -> Result<Selection, FetchError> {
        let ends = Ends {
            after: &cut.ends,
            before: &request.shallow,
        };
        let mut all = wants.commits.clone();
        all.extend(&cut.uncovered);
        let missing = missing_commits(graph, &all, common, &ends)?;
        let mut selector = Selector::new(graph.store, &self.limits.stop);
        for other in &wants.others {
            selector.add_other(*other)?;
        }
        selector.add_commits(graph, &missing, common)?;
        if request.include_tag {
            selector.add_tags(self.refs)?;
        }
        Ok(selector.finish())
    }

    pub(super) fn send(
        &mut self,
        store: &ObjectStore,
        selection: Selection,
        request: &Fetch,
        output: &mut dyn Output,
    ) -> Result<(), FetchError> {
        let accepts = Accepts {
            ofs_delta: request.ofs_delta,
            thin: request.thin_pack,
        };
        let sent = write_pack(store, selection, accepts, &self.limits.stop, output)?;
        self.summary.objects_sent += sent.objects_sent;
        self.summary.objects_copied += sent.objects_copied;
        self.summary.pack_bytes += sent.pack_bytes;
        Ok(())
    }
}

/// Sorts wants into commits and others; a tag is both.
pub(super) fn wants(graph: &mut Graph<'_>, wanted: &[Oid]) -> Result<Wants, FetchError> {
    let mut wants = Wants {
        commits: Vec::new(),
        others: Vec::new(),
    };
    let mut buffer = Vec::new();
    for id in wanted {
        let target = graph
            .store
            .peel(id, &mut buffer)?
            .ok_or(StoreError::Missing { id: *id })?;
        if target != *id {
            wants.others.push(*id);
        }
        if graph.store.kind(&target)? == Some(Kind::Commit) {
            wants.commits.push(graph.node(target)?);
        } else if target == *id {
            wants.others.push(*id);
        }
    }
    Ok(wants)
}

/// The `shallow` and `unshallow` lines of an answer.
pub(super) fn write_cut(cut: &Cut, output: &mut dyn Output) -> Result<(), FetchError> {
    for id in &cut.shallow {
        pkt::write(output, format!("shallow {id}\n").as_bytes())?;
    }
    for id in &cut.unshallow {
        pkt::write(output, format!("unshallow {id}\n").as_bytes())?;
    }
    Ok(())
}
