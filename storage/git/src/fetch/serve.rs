//! A session of protocol v2, and the steps that all versions share: checking wants, selecting and
//! sending objects.

use std::cell::OnceCell;
use std::io::BufRead;
use std::sync::Arc;
use std::time::Duration;

use gix_object::Kind;
use henge_types::limits::ANONYMOUS_FETCH_WORK_MS_MAX;

use crate::bitmap::{self, Counted};
use crate::fetch::answer::{Answer, Frames, Progress, Tick};
use crate::fetch::emit::{Accepts, write_pack};
use crate::fetch::filtered::Sieve;
use crate::fetch::graph::{Graph, Node};
use crate::fetch::negotiate::{Whose, acknowledge, common, is_enough};
use crate::fetch::older::newest_at_client;
use crate::fetch::request::{self, Fetch, Request};
use crate::fetch::select::{Selection, Selector, not_tips};
use crate::fetch::shallow::{self, Cut};
use crate::fetch::tips::TipIndex;
use crate::fetch::walk::{Ends, missing_commits};
use crate::fetch::{FetchError, FetchSummary};
use crate::oid::{Oid, to_gix};
use crate::output::Output;
use crate::pkt;
use crate::protocol::{Asker, FetchLimits, Stop};
use crate::reach::ReachError;
use crate::refs::RefStore;
use crate::store::{ObjectStore, Objects, StoreError};

/// Maximum number of commits visited to list those that a client lacks; beyond it, bitmaps are used
/// in any case. The visited commits outnumber the missing ones: a branch that began long ago makes
/// the walk visit everything since.
const LISTED_MAX: usize = 4096;
/// Maximum number of commits without a bitmap that a count may walk, per commit that the client
/// lacks. The former cost about half as much: both have their trees read, but the walk of missing
/// commits also prepares deltas. New bitmaps leave few such commits, old ones many.
const BEYOND_PER_MISSING: usize = 2;

/// The state of one call of `upload_pack`.
pub(super) struct Session<'a> {
    pub(super) refs: &'a dyn RefStore,
    pub(super) objects: &'a Objects,
    pub(super) limits: &'a FetchLimits,
    /// Stops work for this client. Waits for other clients stop by `limits.stop` and do not count
    /// as work.
    pub(super) work: Stop,
    /// The index of the current refs, made once.
    index: OnceCell<Arc<TipIndex>>,
    pub(super) summary: FetchSummary,
    /// Whether side-band frames have begun: errors are sent in them from then on.
    pub(super) in_pack: bool,
}

/// Wants in the form that the walk needs.
pub(super) struct Wants {
    /// Commits, including those that tags lead to.
    pub(super) commits: Vec<Node>,
    /// Wants that are no commits.
    others: Vec<Oid>,
}

impl<'a> Session<'a> {
    pub(super) fn new(
        refs: &'a dyn RefStore,
        objects: &'a Objects,
        limits: &'a FetchLimits,
    ) -> Self {
        Self {
            refs,
            objects,
            limits,
            work: match limits.asker {
                Asker::Known => limits.stop.clone(),
                Asker::Anybody => {
                    let within = Duration::from_millis(ANONYMOUS_FETCH_WORK_MS_MAX);
                    limits.stop.part(within)
                }
            },
            index: OnceCell::new(),
            summary: FetchSummary::default(),
            in_pack: false,
        }
    }

    pub(super) fn index(&self) -> &TipIndex {
        self.index.get_or_init(|| {
            let kept = self.limits.responses.as_ref().zip(self.refs.version());
            kept.map_or_else(Arc::default, |(kept, version)| kept.tip_index(version))
        })
    }

    /// Serves commands until the client sends no more.
    pub(super) fn commands(
        &mut self,
        input: &mut dyn BufRead,
        output: &mut dyn Output,
    ) -> Result<(), FetchError> {
        let mut input = pkt::Bounded::new(input, self.limits.request_bytes_max as u64);
        while let Some(request) = request::read(&mut input, self.objects.format())? {
            if self.work.is_set() {
                return Err(FetchError::Stopped);
            }
            match request {
                Request::LsRefs(request) => self.ls_refs(&request, output)?,
                Request::Fetch(request) => self.fetch(&request, output)?,
                Request::ObjectInfo(request) => self.object_info(&request, output)?,
                Request::BundleUri => self.bundle_uri(output)?,
            }
            self.in_pack = false;
            output.flush()?;
        }
        Ok(())
    }

    pub(super) fn fetch(
        &mut self,
        request: &Fetch,
        output: &mut dyn Output,
    ) -> Result<(), FetchError> {
        if let Some(name) = request.want_refs.first()
            && !self.limits.policy.ref_in_want
        {
            let line = format!("want-ref {name}");
            return Err(request::unexpected("unexpected line", line.as_bytes()));
        }
        self.in_pack = request.sideband_all;
        let named = self.named(request)?;
        let mut wanted = request.wants.clone();
        wanted.extend(named.iter().map(|(id, _)| *id));
        if wanted.is_empty() && (!request.wait_for_done || request.haves.is_empty()) {
            return Ok(pkt::write_flush(output)?);
        }
        let not_tips = not_tips(self.refs, self.index(), &request.wants);
        let store = self.objects.open()?;
        self.check_wants(&store, &not_tips)?;
        let key = self.fetch_key(request);
        self.once(key, output, |session, output| {
            let answer = Answer::new(output, session.work.clone(), request.sideband_all);
            session.answer(&store, request, &wanted, &named, answer)
        })
    }

    fn answer(
        &mut self,
        store: &ObjectStore,
        request: &Fetch,
        wanted: &[Oid],
        named: &[(Oid, &str)],
        answer: Answer<'_>,
    ) -> Result<(), FetchError> {
        let mut sieve = self.sieve(store, request.filter.as_ref())?;
        let mut graph = Graph::new(store, &answer);
        let wants = wants(&mut graph, wanted)?;
        let common = common(&mut graph, self.whose(), &request.haves)?;
        let mut turn = None;
        if !request.haves.is_empty() && !request.done {
            if !common.is_empty() {
                turn = self.making_turn(store, &common)?;
            }
            let is_ready =
                !request.wait_for_done && is_enough(&mut graph, &wants.commits, &common)?;
            acknowledge(&graph, &common, &answer)?;
            if !is_ready {
                return Ok(answer.flush()?);
            }
            answer.line("ready\n")?;
            answer.delimiter()?;
        }
        // The shallow boundary may take a walk of the whole history, too.
        let turn = self.keep_turn(turn, store, &common)?;
        let cut = self.cut(&mut graph, request, &wants)?;
        write_sections(&answer, request, &cut, named)?;
        answer.line("packfile\n")?;
        self.in_pack = true;
        answer.begin_pack(Frames::Large, progress(request));
        let choice = Choice {
            common: &common,
            cut: &cut,
            tick: &answer,
        };
        let selection = self.select(&mut graph, request, &wants, choice, &mut sieve)?;
        drop(graph);
        // The permit is released before anything is sent, so that no slow client holds it.
        drop(turn);
        answer.enumerated(selection.len())?;
        self.send(store, selection, request, answer, Frames::Large)?;
        self.in_pack = false;
        Ok(())
    }

    pub(super) fn whose(&self) -> Whose<'_> {
        Whose {
            refs: self.refs,
            stop: &self.work,
        }
    }

    /// The values of the refs that are wanted by name (`want-ref`).
    fn named<'r>(&self, request: &'r Fetch) -> Result<Vec<(Oid, &'r str)>, FetchError> {
        let mut named: Vec<(Oid, &str)> = Vec::with_capacity(request.want_refs.len());
        let mut seen = std::collections::BTreeSet::new();
        for name in &request.want_refs {
            let name = name.as_str();
            let full = match name {
                "HEAD" => Some(self.refs.head()),
                _ => name.parse().ok(),
            };
            let id = full.and_then(|full| self.refs.get(&full));
            let id = id.and_then(|id| to_gix(id, self.objects.format()));
            let id = id.ok_or_else(|| FetchError::UnknownWantRef {
                name: name.to_owned(),
            })?;
            if !seen.insert(name) {
                return Err(FetchError::DuplicateWantRef {
                    name: name.to_owned(),
                });
            }
            named.push((id, name));
        }
        Ok(named)
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
            ends: request.shallow.iter().copied().collect(),
            ..Cut::default()
        })
    }

    pub(super) fn select(
        &self,
        graph: &mut Graph<'_>,
        request: &Fetch,
        wants: &Wants,
        choice: Choice<'_>,
        sieve: &mut Sieve,
    ) -> Result<Selection, FetchError> {
        let Choice { common, cut, tick } = choice;
        let is_open = sieve.is_open();
        let is_whole = request.shallow.is_empty() && !request.deepen.is_asked();
        let has_bitmaps = is_whole && graph.store.bitmapped().is_some();
        // Objects that a filter left out are no delta bases. Therefore filtered fetches use a walk,
        // except clones whose filter decides by kind alone.
        let counts = has_bitmaps
            && match common {
                [] => sieve.kinds().is_some(),
                _ => is_open,
            };
        let before = request.shallow.iter().copied().collect();
        let ends = Ends {
            after: &cut.ends,
            before: &before,
        };
        let mut all = wants.commits.clone();
        all.extend(&cut.uncovered);
        let mut missing = None;
        let mut counted = None;
        if counts {
            let few = self.limits.walked_commits_max;
            let mut beyond_max = usize::MAX;
            if few > 0 && !common.is_empty() {
                missing = missing_commits(graph, &all, common, &ends, LISTED_MAX)?;
                if let Some(missing) = &missing {
                    beyond_max = missing.len().saturating_mul(BEYOND_PER_MISSING);
                }
            }
            if missing.as_ref().is_none_or(|missing| missing.len() > few) {
                counted = self.count(graph, wants, common, sieve, beyond_max)?;
            }
        }
        if missing.is_none() && counted.is_none() {
            missing = missing_commits(graph, &all, common, &ends, usize::MAX)?;
        }
        let mut selector = Selector::new(graph.store, tick, sieve);
        let all_counted = counted.is_some() && is_open;
        if let Some(counted) = counted {
            selector.add_counted(counted)?;
            let listed = missing.take();
            if request.thin_pack && !common.is_empty() {
                let at_client = newest_at_client(graph, listed.as_deref(), common);
                selector.note_older(graph, &wants.commits, listed.as_deref(), &at_client)?;
            }
        }
        if !all_counted {
            for other in &wants.others {
                selector.add_other(*other)?;
            }
        }
        match missing {
            // Commits that deepening uncovers count as wanted, as with git.
            Some(missing) => selector.add_commits(graph, &missing, common, &all)?,
            None if all_counted => {}
            None => selector.add_given(graph, &wants.commits)?,
        }
        if request.include_tag {
            let index = self.index();
            let tags = index.annotated(self.refs, graph.store, &self.work)?;
            selector.add_tags(tags)?;
        }
        Ok(selector.finish())
    }

    /// Counts by bitmaps: all objects of the filter's kinds that the wants reach and the common
    /// commits do not. `None` when the bitmaps are unusable, or end more than `beyond_max` commits
    /// before the wants.
    fn count(
        &self,
        graph: &Graph<'_>,
        wants: &Wants,
        common: &[Node],
        sieve: &Sieve,
        beyond_max: usize,
    ) -> Result<Option<Counted>, FetchError> {
        let newest_first = |nodes: &[Node]| {
            let mut nodes = nodes.to_vec();
            nodes.sort_unstable_by_key(|node| (std::cmp::Reverse(graph.time(*node)), *node));
            nodes.iter().map(|node| graph.id(*node)).collect::<Vec<_>>()
        };
        let mut wanted = newest_first(&wants.commits);
        let haves = newest_first(common);
        if sieve.is_open() {
            wanted.extend(&wants.others);
        }
        let stop = &self.work;
        let mut counted = match bitmap::count(graph.store, stop, &wanted, &haves, beyond_max) {
            Ok(Some(counted)) => counted,
            Ok(None) => return Ok(None),
            // A common commit may be in the store without everything that it needs. A walk does not
            // look that far.
            Err(ReachError::Store(StoreError::Missing { .. })) if !haves.is_empty() => {
                return Ok(None);
            }
            Err(error) => return Err(error.into()),
        };
        if !sieve.is_open() {
            let Some(kinds) = sieve.kinds() else {
                return Ok(None);
            };
            if !counted.filter_types(graph.store, &kinds)? {
                return Ok(None);
            }
        }
        Ok(Some(counted))
    }

    pub(super) fn send(
        &mut self,
        store: &ObjectStore,
        selection: Selection,
        request: &Fetch,
        answer: Answer<'_>,
        frames: Frames,
    ) -> Result<(), FetchError> {
        let accepts = Accepts {
            ofs_delta: request.ofs_delta,
            thin: request.thin_pack,
        };
        let stop = &self.work;
        let sent = answer.pack(frames, |output| {
            write_pack(store, selection, accepts, stop, output)
        })?;
        self.summary = FetchSummary {
            refs_listed: self.summary.refs_listed,
            ..sent
        };
        Ok(())
    }
}

/// The input of a selection.
#[derive(Clone, Copy)]
pub(super) struct Choice<'a> {
    /// The common commits.
    pub(super) common: &'a [Node],
    pub(super) cut: &'a Cut,
    pub(super) tick: &'a dyn Tick,
}

pub(super) const fn progress(request: &Fetch) -> Progress {
    if request.no_progress {
        Progress::Silent
    } else {
        Progress::Shown
    }
}

/// Writes the sections before the pack, in the order that clients expect.
fn write_sections(
    answer: &Answer<'_>,
    request: &Fetch,
    cut: &Cut,
    named: &[(Oid, &str)],
) -> Result<(), FetchError> {
    if request.deepen.is_asked() {
        answer.line("shallow-info\n")?;
        write_cut(cut, answer)?;
        answer.delimiter()?;
    }
    if !named.is_empty() {
        answer.line("wanted-refs\n")?;
        for (id, name) in named {
            answer.line(&format!("{id} {name}\n"))?;
        }
        answer.delimiter()?;
    }
    Ok(())
}

/// Sorts wants into commits and others. A tag that leads to a commit counts as both.
pub(super) fn wants(graph: &mut Graph<'_>, wanted: &[Oid]) -> Result<Wants, FetchError> {
    let mut wants = Wants {
        commits: Vec::new(),
        others: Vec::new(),
    };
    let mut buffer = Vec::new();
    for id in wanted {
        graph.tick()?;
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

/// Writes the `shallow` and `unshallow` lines of a response.
pub(super) fn write_cut(cut: &Cut, answer: &Answer<'_>) -> Result<(), FetchError> {
    for id in &cut.shallow {
        // Without a newline, as in git: libgit2 accepts no others.
        answer.line(&format!("shallow {id}"))?;
    }
    for id in &cut.unshallow {
        answer.line(&format!("unshallow {id}"))?;
    }
    Ok(())
}
