//! Transfer of refs and objects from a source to a destination: selection, steps and result.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use henge_git::Stop;
use henge_types::{ObjectId, PreviousValue, RefName, RefUpdate, limits};

use crate::error::Error;
use crate::listing::{Listing, UnholdableRefs};
use crate::losses::{Removals, check_removals};
use crate::pack::PackFile;
use crate::report::PushVerdict;
use crate::request::HAVES_MAX;

/// Refs of a host or of one person, which no copy of a repository has. A name that ends in a slash
/// includes all refs below it.
const LEFT_OUT: &[&str] = &[
    // Pull and merge requests of Gitea, GitHub, GitLab and Gerrit: they cannot be pushed.
    "refs/pull/",
    "refs/merge-requests/",
    "refs/changes/",
    "refs/for/",
    // GitLab's internal refs.
    "refs/keep-around/",
    "refs/environments/",
    "refs/pipelines/",
    "refs/tmp/",
    // Refs of one clone and not of its project.
    "refs/remotes/",
    "refs/stash",
    "refs/bisect/",
    "refs/worktree/",
    "refs/rewritten/",
    "refs/prefetch/",
];

/// Progress of a transfer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Event<'a> {
    /// A message of the remote: parts of lines, as received.
    Said(&'a str),
    /// Bytes of a pack received so far.
    Received {
        /// Bytes.
        bytes: u64,
    },
    /// Bytes of a push sent so far.
    Sent {
        /// Bytes.
        bytes: u64,
        /// Total number of bytes.
        total: u64,
    },
    /// Refs of answered pushes so far.
    Refs {
        /// Refs whose update was requested so far.
        done: usize,
        /// Total number of refs.
        total: usize,
    },
}

/// Progress callback and cancellation of a transfer.
pub struct Watch<'a> {
    /// The cancellation.
    pub stop: &'a Stop,
    /// The progress callback.
    pub tell: &'a mut dyn FnMut(Event<'_>),
}

impl std::fmt::Debug for Watch<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Watch")
    }
}

/// A source of objects.
pub trait Source {
    /// The refs of the source.
    ///
    /// # Errors
    /// When the source does not answer.
    fn list(&mut self, watch: &mut Watch<'_>) -> Result<Listing, Error>;

    /// A pack in `directory` with all objects that are reachable from `wants` and not from `haves`,
    /// without external delta bases.
    ///
    /// # Errors
    /// When the source fails, or the pack is larger than allowed.
    fn fetch(
        &mut self,
        listing: &Listing,
        wants: &[ObjectId],
        haves: &[ObjectId],
        directory: &Path,
        watch: &mut Watch<'_>,
    ) -> Result<PackFile, Error>;

    /// Whether a ref that moves from `old` to `new` keeps its history; `false` where this source
    /// cannot decide.
    fn keeps_history(&mut self, _old: ObjectId, _new: ObjectId, _watch: &mut Watch<'_>) -> bool {
        false
    }
}

/// A destination of refs and objects.
pub trait Destination {
    /// The refs of the destination.
    ///
    /// # Errors
    /// When the destination does not answer.
    fn list(&mut self, watch: &mut Watch<'_>) -> Result<Listing, Error>;

    /// Pushes: one verdict per update. `pack` is `None` only when all updates delete.
    ///
    /// # Errors
    /// When the result is unknown, or nothing was changed.
    fn push(
        &mut self,
        updates: &[RefUpdate],
        pack: Option<&PackFile>,
        watch: &mut Watch<'_>,
    ) -> Result<Vec<PushVerdict>, Error>;
}

/// The selection of refs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Selection {
    /// All but the refs of pull requests, hosts and single clones.
    #[default]
    Project,
}

impl Selection {
    /// Whether a ref is selected.
    pub fn takes(self, name: &RefName) -> bool {
        self.takes_name(name.as_str().as_bytes())
    }

    /// Whether a ref with any name is selected.
    pub(crate) fn takes_name(self, name: &[u8]) -> bool {
        let Self::Project = self;
        !LEFT_OUT.iter().any(|out| {
            name == out.as_bytes() || (out.ends_with('/') && name.starts_with(out.as_bytes()))
        })
    }
}

/// The treatment of refs that the source lacks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Prune {
    /// They are kept.
    #[default]
    Keep,
    /// They are deleted.
    Delete,
}

/// Options of a transfer.
#[derive(Debug, Clone)]
pub struct Transfer<'a> {
    /// The selected refs.
    pub selection: Selection,
    /// The treatment of refs that the source lacks.
    pub prune: Prune,
    /// The limit on deleted refs.
    pub removals: Removals,
    /// Directory for temporary packs.
    pub directory: &'a Path,
    /// Updates in one push.
    pub updates_max: usize,
}

impl<'a> Transfer<'a> {
    /// All refs, without deletions, with temporary packs in `directory`.
    pub const fn new(directory: &'a Path) -> Self {
        Self {
            selection: Selection::Project,
            prune: Prune::Keep,
            removals: Removals::Half,
            directory,
            updates_max: limits::REF_UPDATES_MAX,
        }
    }
}

/// The result of a transfer.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TransferSummary {
    /// Refs that the destination lacked.
    pub created: u64,
    /// Refs with a new value.
    pub updated: u64,
    /// Deleted refs.
    pub deleted: u64,
    /// Refs that were already the same.
    pub unchanged: u64,
    /// Refs of the source that were left out.
    pub left_out: u64,
    /// Those of them that would have been copied if their names could be stored.
    pub unholdable: UnholdableRefs,
    /// Refs that the destination refused, with its reasons.
    pub refused: Vec<(RefName, String)>,
    /// Sent objects.
    pub objects: u64,
    /// Bytes of their packs.
    pub pack_bytes: u64,
    /// The source's default branch.
    pub default_branch: Option<RefName>,
}

/// The updates that turn `current` into `wanted`, deletions first.
fn plan(
    wanted: &BTreeMap<RefName, ObjectId>,
    current: &BTreeMap<RefName, ObjectId>,
    first: Option<&RefName>,
    transfer: &Transfer<'_>,
) -> Vec<RefUpdate> {
    let mut updates = Vec::new();
    if transfer.prune == Prune::Delete {
        let gone = current
            .iter()
            .filter(|(name, _)| !wanted.contains_key(*name) && transfer.selection.takes(name));
        updates.extend(gone.map(|(name, id)| RefUpdate {
            name: name.clone(),
            expected: PreviousValue::MustExistAndMatch(*id),
            new: None,
        }));
    }
    let changed = wanted
        .iter()
        .filter(|(name, id)| current.get(*name) != Some(*id));
    let mut changed: Vec<_> = changed
        .map(|(name, id)| RefUpdate {
            name: name.clone(),
            expected: current
                .get(name)
                .map_or(PreviousValue::MustNotExist, |old| {
                    PreviousValue::MustExistAndMatch(*old)
                }),
            new: Some(*id),
        })
        .collect();
    // A transfer that breaks off should leave useful refs behind: the default branch first, then
    // the others.
    changed.sort_by_key(|update| {
        let name = &update.name;
        (Some(name) != first, !name.is_branch(), !name.is_tag())
    });
    updates.extend(changed);
    updates
}

/// Whether the destination can store the listing. An incomplete listing prunes nothing.
fn check_listing(listing: &Listing, there: &Listing, transfer: &Transfer<'_>) -> Result<(), Error> {
    if listing.format != there.format && !listing.refs.is_empty() {
        return Err(Error::ObjectFormat {
            source_format: listing.format,
            destination_format: there.format,
        });
    }
    match transfer.prune {
        Prune::Keep => Ok(()),
        Prune::Delete => listing.check_names(transfer.selection),
    }
}

/// Makes the refs of `destination` equal to those of `source`, and copies the objects.
///
/// Every push names the values that it replaces: a concurrent change is refused, not overwritten.
/// After a transfer that broke off, another one continues where it ended.
///
/// # Errors
/// When either side fails; earlier answered pushes stay. [`Error::Empty`] when all refs of the
/// destination would be deleted without a replacement. [`Error::Losses`] when more would be deleted
/// than [`Transfer::removals`] allows. [`Error::Names`] when a deletion is possible and the source
/// has refs that cannot be stored. Without [`Prune::Delete`] those are left out and named in the
/// summary.
pub fn transfer(
    source: &mut dyn Source,
    destination: &mut dyn Destination,
    transfer: &Transfer<'_>,
    watch: &mut Watch<'_>,
) -> Result<TransferSummary, Error> {
    let listing = source.list(watch)?;
    let there = destination.list(watch)?;
    transfer_listed(source, &listing, destination, &there, transfer, watch)
}

/// [`transfer`](transfer()) with existing listings of both sides.
///
/// # Errors
/// As [`transfer`](transfer()).
pub fn transfer_listed(
    source: &mut dyn Source,
    listing: &Listing,
    destination: &mut dyn Destination,
    there: &Listing,
    transfer: &Transfer<'_>,
    watch: &mut Watch<'_>,
) -> Result<TransferSummary, Error> {
    check_listing(listing, there, transfer)?;
    let mut summary = TransferSummary {
        default_branch: listing.default_branch(),
        unholdable: listing.unholdable(transfer.selection),
        ..TransferSummary::default()
    };
    let mut wanted = listing.values();
    let all = wanted.len();
    wanted.retain(|name, id| transfer.selection.takes(name) && listing.format == id.format());
    summary.left_out = (all - wanted.len()) as u64 + listing.left_out_unseen();
    let mut current = there.values();
    // A server that has lost its refs, or shows only internal ones, must not cause the loss of all
    // others.
    let deletes = transfer.prune == Prune::Delete;
    if deletes && wanted.is_empty() && current.keys().any(|name| transfer.selection.takes(name)) {
        return Err(Error::Empty);
    }
    if deletes {
        check_removals(&wanted, &current, transfer.selection, &transfer.removals)?;
    }
    let first = summary.default_branch.clone();
    let updates = plan(&wanted, &current, first.as_ref(), transfer);
    let kept = wanted
        .keys()
        .filter(|name| current.contains_key(*name))
        .count() as u64;
    let source_values: BTreeSet<ObjectId> = wanted.values().copied().collect();
    let mut changes = 0_u64;
    let mut done = 0;
    for batch in updates.chunks(transfer.updates_max.max(1)) {
        let pack = pack_for(
            batch,
            &current,
            &source_values,
            source,
            listing,
            transfer,
            watch,
        )?;
        if let Some(pack) = &pack {
            summary.objects += u64::from(pack.objects());
            summary.pack_bytes += pack.bytes();
        }
        let verdicts = destination.push(batch, pack.as_ref(), watch)?;
        for (update, verdict) in batch.iter().zip(verdicts) {
            let existed = current.contains_key(&update.name);
            changes += u64::from(existed && update.new.is_some());
            match (verdict.result, update.new) {
                (Err(reason), _) => summary.refused.push((update.name.clone(), reason)),
                (Ok(()), None) => {
                    summary.deleted += 1;
                    current.remove(&update.name);
                }
                (Ok(()), Some(id)) => {
                    let count = match existed {
                        true => &mut summary.updated,
                        false => &mut summary.created,
                    };
                    *count += 1;
                    current.insert(update.name.clone(), id);
                }
            }
        }
        done += batch.len();
        (watch.tell)(Event::Refs {
            done,
            total: updates.len(),
        });
    }
    summary.unchanged = kept.saturating_sub(changes);
    Ok(summary)
}

/// The pack of a push; `None` when it only deletes.
fn pack_for(
    batch: &[RefUpdate],
    current: &BTreeMap<RefName, ObjectId>,
    source_values: &BTreeSet<ObjectId>,
    source: &mut dyn Source,
    listing: &Listing,
    transfer: &Transfer<'_>,
    watch: &mut Watch<'_>,
) -> Result<Option<PackFile>, Error> {
    if batch.iter().all(|update| update.new.is_none()) {
        return Ok(None);
    }
    let there: BTreeSet<ObjectId> = current.values().copied().collect();
    let wants: BTreeSet<ObjectId> = batch
        .iter()
        .filter_map(|update| update.new)
        .filter(|id| !there.contains(id))
        .collect();
    if wants.is_empty() {
        return PackFile::empty(transfer.directory, listing.format).map(Some);
    }
    let wants: Vec<_> = wants.into_iter().collect();
    // Values that the source certainly has come first; of the others it uses those that it has.
    let (known, others): (Vec<_>, Vec<_>) =
        there.into_iter().partition(|id| source_values.contains(id));
    let haves: Vec<_> = known.into_iter().chain(others).take(HAVES_MAX).collect();
    source
        .fetch(listing, &wants, &haves, transfer.directory, watch)
        .map(Some)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(text: &str) -> RefName {
        text.parse().unwrap()
    }

    fn id(digit: u8) -> ObjectId {
        ObjectId::from_bytes(&[digit; 20]).unwrap()
    }

    #[test]
    fn refs_of_hosts_and_of_single_clones_are_left_out() {
        for (text, taken) in [
            ("refs/heads/main", true),
            ("refs/heads/pull/1", true),
            ("refs/tags/v1", true),
            ("refs/notes/commits", true),
            ("refs/replace/x", true),
            ("refs/pull/1/head", false),
            ("refs/merge-requests/1/head", false),
            ("refs/remotes/origin/main", false),
            ("refs/keep-around/1", false),
            ("refs/stash/x", true),
        ] {
            assert_eq!(Selection::Project.takes(&name(text)), taken, "{text}");
        }
    }

    #[test]
    fn what_differs_is_changed_and_nothing_else() {
        let wanted = BTreeMap::from([
            (name("refs/heads/a"), id(1)),
            (name("refs/heads/main"), id(2)),
            (name("refs/heads/same"), id(3)),
            (name("refs/notes/x"), id(4)),
            (name("refs/tags/v"), id(5)),
        ]);
        let current = BTreeMap::from([
            (name("refs/heads/gone"), id(6)),
            (name("refs/heads/main"), id(7)),
            (name("refs/heads/same"), id(3)),
            (name("refs/pull/1/head"), id(8)),
        ]);
        let dir = Path::new("/");
        let main = name("refs/heads/main");
        let names = |transfer: &Transfer<'_>| -> Vec<String> {
            let updates = plan(&wanted, &current, Some(&main), transfer);
            let names = updates.iter().map(|update| update.name.to_string());
            names.collect()
        };
        let kept = [
            "refs/heads/main",
            "refs/heads/a",
            "refs/tags/v",
            "refs/notes/x",
        ];
        assert_eq!(names(&Transfer::new(dir)), kept);
        let prune = Transfer {
            prune: Prune::Delete,
            ..Transfer::new(dir)
        };
        assert_eq!(names(&prune), [&["refs/heads/gone"][..], &kept].concat());
        let updates = plan(&wanted, &current, Some(&main), &prune);
        assert_eq!(updates[1].expected, PreviousValue::MustExistAndMatch(id(7)));
        assert_eq!(updates[2].expected, PreviousValue::MustNotExist);
    }

    /// A side with a fixed listing; nothing is fetched from it and nothing arrives.
    struct Side(Listing);

    impl Source for Side {
        fn list(&mut self, _: &mut Watch<'_>) -> Result<Listing, Error> {
            Ok(self.0.clone())
        }

        fn fetch(
            &mut self,
            _: &Listing,
            _: &[ObjectId],
            _: &[ObjectId],
            _: &Path,
            _: &mut Watch<'_>,
        ) -> Result<PackFile, Error> {
            Err(Error::protocol("there is nothing to fetch"))
        }
    }

    impl Destination for Side {
        fn list(&mut self, _: &mut Watch<'_>) -> Result<Listing, Error> {
            Ok(self.0.clone())
        }

        fn push(
            &mut self,
            updates: &[RefUpdate],
            _: Option<&PackFile>,
            _: &mut Watch<'_>,
        ) -> Result<Vec<PushVerdict>, Error> {
            let done = |update: &RefUpdate| PushVerdict {
                name: update.name.clone(),
                result: Ok(()),
            };
            Ok(updates.iter().map(done).collect())
        }
    }

    fn side(names: &[&str]) -> Side {
        let mut listing = Listing::default();
        for text in names {
            listing.add(text, id(1)).unwrap();
        }
        Side(listing)
    }

    /// A Gerrit that hides its branches still lists `refs/changes/`: a mirror of it lost all of its
    /// branches.
    #[test]
    fn a_source_that_has_nothing_to_copy_does_not_empty_the_destination() {
        let run = |from: &[&str], to: &[&str], prune| {
            let how = Transfer {
                prune,
                ..Transfer::new(Path::new("/"))
            };
            let mut watch = Watch {
                stop: &Stop::default(),
                tell: &mut |_| {},
            };
            transfer(&mut side(from), &mut side(to), &how, &mut watch)
        };
        let full = ["refs/heads/main", "refs/tags/v1"];
        for from in [&[][..], &["refs/pull/1/head", "refs/changes/01/1/1"]] {
            let error = run(from, &full, Prune::Delete).unwrap_err();
            assert!(matches!(error, Error::Empty), "{error}");
            assert_eq!(run(from, &full, Prune::Keep).unwrap().deleted, 0);
            let own = ["refs/pull/7/head"];
            assert_eq!(run(from, &own, Prune::Delete).unwrap().deleted, 0);
            assert_eq!(run(from, &[], Prune::Delete).unwrap().deleted, 0);
        }
        let done = run(&full[..1], &full, Prune::Delete).unwrap();
        assert_eq!((done.deleted, done.unchanged), (1, 1));
    }

    /// One branch with a name in Latin-1 prevented the import and the mirroring of a repository.
    #[test]
    fn a_name_that_cannot_be_held_prunes_nothing() {
        let long = |folder: &str| format!("{folder}{}", "n".repeat(limits::REF_NAME_BYTES_MAX));
        let run = |odd: &str, prune| {
            let how = Transfer {
                prune,
                ..Transfer::new(Path::new("/"))
            };
            let mut watch = Watch {
                stop: &Stop::default(),
                tell: &mut |_| {},
            };
            let mut from = side(&["refs/heads/main", odd]);
            let mut to = side(&["refs/heads/main", "refs/heads/old"]);
            transfer(&mut from, &mut to, &how, &mut watch)
        };
        let odd = long("refs/heads/");
        let error = run(&odd, Prune::Delete).unwrap_err();
        assert!(matches!(error, Error::Names { .. }), "{error}");
        let done = run(&odd, Prune::Keep).unwrap();
        assert_eq!((done.deleted, done.unchanged, done.left_out), (0, 1, 1));
        assert_eq!(done.unholdable.names.len(), 1);
        assert!(odd.starts_with(&done.unholdable.to_string()));
        // Refs that are not copied anyway do no harm.
        let done = run(&long("refs/pull/1/"), Prune::Delete).unwrap();
        assert_eq!((done.deleted, done.left_out), (1, 1));
        assert!(done.unholdable.is_empty());
    }
}
