//! Plain bare repositories on disk: one as a [`RefStore`], and a directory of them as a service.

mod certificate;
mod config;
mod open;
mod ref_files;
mod refuse;
mod root;
mod visible;

use std::fs::{self, File};
use std::io;
use std::ops::Bound;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use gix_lock::acquire::Fail;
use gix_ref::transaction::{PreviousValue as GixPrevious, RefEdit};
use gix_ref::{FullName, Target, file};
use henge_types::{
    ObjectFormat, ObjectId, PreviousValue, RefName, RefRefusal, RefUpdate, RefVerdict,
};

use crate::oid::to_gix;
use crate::protocol::{BundleList, PushLimits, Stop};
use crate::push::{PushPolicy, Rule};
use crate::refs::{CommitError, QuarantinedPack, RefStore, UpdateOutcome, VerifiedPush};
use crate::store::Objects;
pub use config::{Config, ConfigError, NonceSeed};
pub use open::OpenError;
use ref_files::RefTable;
pub use ref_files::{RefProblem, UnreadableRef};
pub use root::{BareRoot, Pushes};
pub use visible::VisibleRefs;

/// Maximum wait for the lock file of a ref.
const LOCK_WAIT: Fail = Fail::AfterDurationWithBackoff(std::time::Duration::from_secs(2));

/// A bare repository whose refs are files.
///
/// Its refs are a snapshot of the files, taken when it is opened and again when a push begins to
/// write. A detached HEAD is shown as `refs/heads/main`. A ref that cannot be read, or whose name
/// [`RefName`] cannot hold, fails the whole snapshot.
#[derive(Debug)]
pub struct BareRepository {
    path: PathBuf,
    config: Config,
    refs: file::Store,
    table: Mutex<Arc<RefTable>>,
    /// One push of this value at a time. Lock files exclude other processes.
    writing: Mutex<()>,
}

impl BareRepository {
    /// Its configuration.
    pub const fn config(&self) -> &Config {
        &self.config
    }

    /// The format of its object ids.
    pub const fn object_format(&self) -> ObjectFormat {
        self.config.object_format
    }

    /// Its refs as fetches see them.
    pub fn for_fetches(&self) -> VisibleRefs<'_> {
        VisibleRefs {
            repository: self,
            hidden: &self.config.hidden_from_fetches,
            gives_hidden_tips: self.config.gives_hidden_tips(),
            now_s: None,
        }
    }

    /// Its refs as pushes see them. The time, in seconds since the Unix epoch, is that of the
    /// nonces of signed pushes.
    pub fn for_pushes(&self, now_s: u64) -> VisibleRefs<'_> {
        VisibleRefs {
            repository: self,
            hidden: &self.config.hidden_from_pushes,
            gives_hidden_tips: false,
            now_s: Some(now_s),
        }
    }

    /// The limits of a push: `limits` with the repository's own bound on packs, where that is
    /// smaller, and a larger bound on certificates.
    #[must_use]
    pub fn push_limits(&self, limits: PushLimits) -> PushLimits {
        let own = self.config.pack_bytes_max.unwrap_or(u64::MAX);
        PushLimits {
            pack_bytes_max: limits.pack_bytes_max.min(own),
            // The certificate is a file of its own, not part of a log entry: as many refs may be
            // signed as pushed.
            certificate_bytes_max: certificate::BYTES_MAX,
            ..limits
        }
    }

    /// The response to the command `bundle-uri`, if the configuration offers it.
    pub fn bundle_list(&self) -> Option<Arc<dyn BundleList>> {
        let offered = self.config.advertise_bundle_uris;
        offered.then(|| Arc::new(Configured(self.config.bundles.clone())) as Arc<dyn BundleList>)
    }

    /// Its object store.
    pub fn objects(&self) -> PathBuf {
        self.path.join("objects")
    }

    /// A new empty quarantine directory for one push, on the file system of the objects. It is
    /// removed when dropped.
    ///
    /// # Errors
    /// When it cannot be created.
    pub fn quarantine(&self) -> io::Result<tempfile::TempDir> {
        // git's own maintenance removes directories of this name that a crash left behind.
        tempfile::Builder::new()
            .prefix("tmp_objdir-incoming-")
            .tempdir_in(self.objects())
    }

    /// Reads the refs again.
    ///
    /// # Errors
    /// When one of them cannot be read. The previous snapshot stays.
    pub fn reread(&self) -> Result<(), UnreadableRef> {
        let table = RefTable::read(&self.path, self.object_format())?;
        *self.table.lock().unwrap_or_else(PoisonError::into_inner) = Arc::new(table);
        Ok(())
    }

    /// Number of files and lines that are not shown because they are no refs here, although they
    /// may be refs for git (`refs/stash`).
    pub fn unnameable_refs(&self) -> u64 {
        self.table().unnameable
    }

    fn table(&self) -> Arc<RefTable> {
        let table = self.table.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(&table)
    }

    /// Branches that a work tree has checked out: the repository's own and those of `git worktree`.
    fn checked_out(&self) -> Vec<RefName> {
        let mut found = Vec::new();
        let has_work_tree = match self.config.is_bare {
            Some(is_bare) => !is_bare,
            None => self.path.file_name().is_some_and(|name| name == ".git"),
        };
        if has_work_tree {
            found.push(self.head());
        }
        let linked = fs::read_dir(self.path.join("worktrees")).ok();
        for entry in linked.into_iter().flatten().flatten() {
            let head = fs::read_to_string(entry.path().join("HEAD")).unwrap_or_default();
            let branch = head.trim().strip_prefix("ref: ");
            found.extend(branch.and_then(|branch| branch.parse().ok()));
        }
        found
    }

    /// Moves a pack into the store. It is durable before any ref may need it.
    fn keep_pack(&self, pack: &QuarantinedPack) -> io::Result<()> {
        let directory = self.objects().join("pack");
        fs::create_dir_all(&directory)?;
        // The index last: a pack without one is invisible.
        for (from, extension) in [(&pack.pack_path, "pack"), (&pack.idx_path, "idx")] {
            let file = File::open(from)?;
            let mut permissions = file.metadata()?.permissions();
            permissions.set_readonly(true);
            file.set_permissions(permissions)?;
            file.sync_all()?;
            fs::rename(
                from,
                directory.join(format!("pack-{}.{extension}", pack.id)),
            )?;
        }
        File::open(&directory)?.sync_all()
    }

    fn edit(&self, update: &RefUpdate) -> io::Result<RefEdit> {
        let name = FullName::try_from(update.name.as_str()).map_err(io::Error::other)?;
        let gix = |id: ObjectId| {
            to_gix(id, self.object_format())
                .ok_or_else(|| io::Error::other("an object id of another format"))
        };
        let expected = match update.expected {
            PreviousValue::Any => GixPrevious::Any,
            PreviousValue::MustNotExist => GixPrevious::MustNotExist,
            PreviousValue::MustExist => GixPrevious::MustExist,
            PreviousValue::MustExistAndMatch(id) => {
                GixPrevious::MustExistAndMatch(Target::Object(gix(id)?))
            }
        };
        Ok(match update.new {
            Some(new) => RefEdit::update(name, gix(new)?, expected, "push"),
            None => RefEdit::delete(name, expected),
        })
    }

    /// Applies `updates` in one transaction.
    fn apply(&self, updates: &[&RefUpdate]) -> Applied {
        let edits: io::Result<Vec<_>> = updates.iter().map(|update| self.edit(update)).collect();
        let edits = match edits {
            Ok(edits) => edits,
            Err(error) => return Applied::No(error.to_string()),
        };
        let prepared = match self.refs.transaction().prepare(edits, LOCK_WAIT, LOCK_WAIT) {
            Ok(prepared) => prepared,
            Err(error) => {
                tracing::info!(repository = %self.path.display(), %error, "a push got no locks for its refs");
                let message = match self.reread() {
                    Ok(()) => error.to_string(),
                    Err(error) => error.to_string(),
                };
                return Applied::No(message);
            }
        };
        let committed = prepared.commit(None).map_err(io::Error::other);
        if let Err(error) = committed.and_then(|_| self.sync_refs(updates)) {
            tracing::error!(repository = %self.path.display(), %error, "refs of a push were written in part");
            return Applied::Unknown(error.to_string());
        }
        let mut table = self.table.lock().unwrap_or_else(PoisonError::into_inner);
        let table = Arc::make_mut(&mut table);
        for update in updates {
            match update.new {
                Some(new) => table.refs.insert(update.name.clone(), new),
                None => table.refs.remove(&update.name),
            };
        }
        Applied::Yes
    }

    fn sync_refs(&self, updates: &[&RefUpdate]) -> io::Result<()> {
        let mut directories = std::collections::BTreeSet::from([self.path.clone()]);
        for update in updates {
            let file = self.path.join(update.name.as_str());
            if update.new.is_some() {
                File::open(&file)?.sync_all()?;
            }
            let parents = file.ancestors().skip(1);
            directories.extend(
                parents
                    .take_while(|parent| *parent != self.path)
                    .map(Path::to_owned),
            );
        }
        for directory in directories {
            match File::open(&directory) {
                Ok(directory) => directory.sync_all()?,
                // A deletion removes directories that became empty.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    fn commit_all(&self, updates: &[RefUpdate]) -> Vec<Ended> {
        let mut results = refuse::check_all(self, updates);
        if results.iter().all(Result::is_ok) {
            let all: Vec<_> = updates.iter().collect();
            let applied = self.apply(&all);
            if let Applied::No(_) = &applied {
                results = refuse::check_all(self, updates);
            }
            if results.iter().all(Result::is_ok) {
                return vec![applied.into(); updates.len()];
            }
        }
        for result in results.iter_mut().filter(|result| result.is_ok()) {
            *result = Err(RefRefusal::AtomicAborted);
        }
        results.into_iter().map(Ended::Judged).collect()
    }

    /// Applies each update by itself, deletions first: they make room for names below or above
    /// them.
    fn commit_each(&self, updates: &[RefUpdate]) -> Vec<Ended> {
        let mut results: Vec<_> = updates.iter().map(|_| Ended::Judged(Ok(()))).collect();
        let mut order: Vec<usize> = (0..updates.len()).collect();
        order.sort_by_key(|index| updates[*index].new.is_some());
        for index in order {
            let update = &updates[index];
            results[index] = match refuse::check(self, update) {
                Err(refusal) => Ended::Judged(Err(refusal)),
                Ok(()) => match self.apply(&[update]) {
                    Applied::No(message) => match refuse::check(self, update) {
                        // Another push was faster.
                        Err(refusal) => Ended::Judged(Err(refusal)),
                        Ok(()) => Applied::No(message).into(),
                    },
                    applied @ (Applied::Yes | Applied::Unknown(_)) => applied.into(),
                },
            };
        }
        results
    }
}

/// The outcome of a transaction.
#[derive(Debug, Clone)]
enum Applied {
    Yes,
    /// Nothing was changed. If locks were not available, the refs were read again.
    No(String),
    /// Some of its refs may have changed, or are not flushed.
    Unknown(String),
}

/// The outcome of one update.
#[derive(Debug, Clone)]
enum Ended {
    Judged(Result<(), RefRefusal>),
    No(String),
    Unknown(String),
}

impl From<Applied> for Ended {
    fn from(applied: Applied) -> Self {
        match applied {
            Applied::Yes => Self::Judged(Ok(())),
            Applied::No(why) => Self::No(format!("it could not be stored: {why}")),
            Applied::Unknown(why) => Self::Unknown(why),
        }
    }
}

impl Ended {
    fn outcome(self, name: RefName, old: Option<ObjectId>) -> UpdateOutcome {
        match self {
            Self::Judged(result) => UpdateOutcome::Judged(RefVerdict { name, old, result }),
            Self::No(message) => UpdateOutcome::Failed { message },
            Self::Unknown(message) => UpdateOutcome::Unknown { message },
        }
    }
}

/// The bundles that a configuration lists, with any location and author.
#[derive(Debug)]
struct Configured(Vec<(String, String)>);

impl BundleList for Configured {
    fn lines(
        &self,
        _refs: &dyn RefStore,
        _objects: &Objects,
        _stop: &Stop,
    ) -> Vec<(String, String)> {
        self.0.clone()
    }
}

impl RefStore for BareRepository {
    fn head(&self) -> RefName {
        let main = || {
            "refs/heads/main"
                .parse()
                .expect("invariant: a valid ref name")
        };
        self.table().head.clone().unwrap_or_else(main)
    }

    fn object_format(&self) -> ObjectFormat {
        self.config.object_format
    }

    fn get(&self, name: &RefName) -> Option<ObjectId> {
        self.table().refs.get(name).copied()
    }

    fn for_each(&self, prefix: &str, visit: &mut dyn FnMut(&RefName, ObjectId)) {
        let table = self.table();
        let from = table
            .refs
            .range::<str, _>((Bound::Included(prefix), Bound::Unbounded));
        for (name, id) in from.take_while(|(name, _)| name.as_str().starts_with(prefix)) {
            visit(name, *id);
        }
    }

    /// Files have no record of former values.
    fn was_tip_recently(&self, _id: ObjectId) -> bool {
        false
    }

    fn push_policy(&self) -> PushPolicy {
        let config = &self.config;
        let mut kept = Vec::new();
        let checked_out = self.checked_out();
        if config.delete_current == Rule::Denied {
            kept.push(self.head());
            kept.extend(checked_out.iter().cloned());
        }
        PushPolicy {
            closed: config.objects.as_ref().err().map(|why| why.clone().into()),
            hidden: config.hidden_from_pushes.clone(),
            deletes: config.deletes,
            non_fast_forwards: config.non_fast_forwards,
            kept,
            checked_out: match config.update_checked_out {
                Rule::Denied => checked_out,
                Rule::Allowed => Vec::new(),
            },
            atomic: config.atomic,
            push_options: config.push_options,
            objects: config.objects.clone().unwrap_or_default(),
            ..PushPolicy::default()
        }
    }

    fn commit(&self, push: VerifiedPush<'_>) -> Result<Vec<RefVerdict>, CommitError> {
        let _guard = self.writing.lock().map_err(|_| CommitError::Unavailable {
            message: "an earlier push failed in the middle: restart the server".to_owned(),
        })?;
        self.reread().map_err(|error| CommitError::Unavailable {
            message: error.to_string(),
        })?;
        let old: Vec<_> = push
            .updates
            .iter()
            .map(|update| self.get(&update.name))
            .collect();
        if let Some(pack) = &push.pack {
            self.keep_pack(pack)?;
        }
        if let Some(certificate) = &push.certificate {
            self.keep_certificate(certificate)?;
        }
        let ended = if push.atomic {
            self.commit_all(&push.updates)
        } else {
            self.commit_each(&push.updates)
        };
        let updates = push.updates.into_iter().zip(old);
        let outcomes: Vec<_> = updates
            .zip(ended)
            .map(|((update, old), ended)| ended.outcome(update.name, old))
            .collect();
        let verdict = |outcome: &UpdateOutcome| match outcome {
            UpdateOutcome::Judged(verdict) => Some(verdict.clone()),
            UpdateOutcome::Failed { .. } | UpdateOutcome::Unknown { .. } => None,
        };
        let verdicts: Option<Vec<_>> = outcomes.iter().map(verdict).collect();
        verdicts.ok_or(CommitError::Partial { outcomes })
    }
}
