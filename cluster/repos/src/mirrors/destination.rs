//! The shard of a repository as the destination of a pull mirror: the normal path of a push, with
//! the mirror's run as the pusher.

use std::io::Write;
use std::sync::Arc;

use henge_git::RefStore;
use henge_git::http::{ServiceError, Spool};
use henge_git_client::{
    Destination, Error, Listing, PackFile, PushVerdict, Watch, push_commands, read_report,
};
use henge_types::{Generation, GroupId, MirrorPusher, Principal, RefUpdate, RepoId};
use tokio::runtime::Handle;

use crate::frames::PushRequest;
use crate::push::receive::{Receiving, Verdict, prepare};
use crate::refs::StateRefs;
use crate::repos::Inner;

/// A repository as the destination of its pull mirror.
pub(super) struct Shard<'a> {
    inner: Arc<Inner>,
    group: GroupId,
    refs: &'a StateRefs,
    pusher: MirrorPusher,
    handle: &'a Handle,
}

impl<'a> Shard<'a> {
    /// The repository with these refs, and the run that pushes to it. Blocking calls wait on
    /// `handle`.
    pub(super) fn new(
        inner: &Arc<Inner>,
        group: GroupId,
        refs: &'a StateRefs,
        pusher: MirrorPusher,
        handle: &'a Handle,
    ) -> Self {
        Self {
            inner: Arc::clone(inner),
            group,
            refs,
            pusher,
            handle,
        }
    }

    fn life(&self) -> (RepoId, Generation) {
        let repo = self.refs.repo();
        (repo.repo, repo.generation)
    }

    /// The push as a client would send it.
    fn spool(&self, updates: &[RefUpdate], pack: Option<&PackFile>) -> Result<Spool, Error> {
        let failed = |source| Error::Io {
            what: "cannot spool a push".to_owned(),
            source,
        };
        let commands = push_commands(self.refs.object_format(), updates)?;
        let mut file = tempfile::Builder::new()
            .prefix("push-")
            .tempfile_in(&self.inner.spool_dir)
            .map_err(failed)?;
        file.write_all(&commands).map_err(failed)?;
        if let Some(pack) = pack {
            pack.copy_to(&mut file).map_err(failed)?;
        }
        Spool::from_file(file.into_temp_path()).map_err(failed)
    }
}

fn refused(error: &ServiceError) -> Error {
    Error::Push {
        message: error.message.clone(),
    }
}

impl Destination for Shard<'_> {
    fn list(&mut self, _: &mut Watch<'_>) -> Result<Listing, Error> {
        let mut listing = Listing::of(self.refs.object_format());
        for (name, id) in self.refs.list("refs/") {
            listing.add(name.as_str(), id)?;
        }
        listing.head = Some(self.refs.head());
        Ok(listing)
    }

    fn push(
        &mut self,
        updates: &[RefUpdate],
        pack: Option<&PackFile>,
        _: &mut Watch<'_>,
    ) -> Result<Vec<PushVerdict>, Error> {
        let spool = self.spool(updates, pack)?;
        let prepared =
            prepare(&spool, self.refs.object_format()).map_err(|error| refused(&error))?;
        let (repo, generation) = self.life();
        let request = PushRequest {
            group: self.group,
            repo,
            generation,
            request: self.inner.cluster.next_request_id(self.group),
            principal: Principal::Mirror(self.pusher),
            digest: prepared.digest,
            bytes: spool.bytes(),
        };
        let push = Receiving::of(&self.inner, Arc::new(spool), request);
        match self.handle.block_on(push.run()) {
            Ok(Verdict::Report(report)) => read_report(&report, updates),
            Ok(Verdict::Resolve) => Err(Error::Push {
                message: "the repository was deleted or made again meanwhile".to_owned(),
            }),
            Err(error) => Err(refused(&error)),
        }
    }
}
