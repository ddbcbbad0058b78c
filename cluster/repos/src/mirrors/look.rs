//! A preview of the refs that a mirror would delete or overwrite, before it is created or gets
//! another URL.
//!
//! It is a help only: a run checks again and removes nothing beyond
//! [`MirrorRemoval`](henge_types::MirrorRemoval).

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use henge_git::http::ServiceError;
use henge_git::{Stop, keeps_history};
use henge_git_client::{Destination, Error, Listing, Losses, Network, Source, Watch};
use henge_runtime::Scope;
use henge_types::{
    ErrorCode, MirrorKind, MirrorSettings, ObjectFormat, ObjectId, RefName, RepoPath,
};

use crate::catalogue::Reader;
use crate::error::failed;
use crate::frames::{self, ReadVerb, WireRefs};
use crate::maintain::compact::StopOnDrop;
use crate::mirrors::run::{losses, remote_of};
use crate::reads::{Found, Local, broke_off};
use crate::repos::Inner;

/// How long the preview waits for the other side. After this it is left to the mirror's first run.
const LOOK_WAIT: Duration = Duration::from_secs(5);
/// Previews at once: a listing is kept in memory.
pub(super) const LOOKS_AT_ONCE: usize = 2;

/// The connection to the other sides of mirrors.
#[derive(Debug)]
pub(crate) struct Looks {
    pub(super) network: Arc<Network>,
    /// The blocking work, at most [`LOOKS_AT_ONCE`] jobs.
    pub(super) work: Scope,
}

/// The refs of the repository on this side.
enum Ours {
    /// From this node, with its objects.
    Here(Box<Local>),
    /// From another node.
    Refs(Vec<(RefName, ObjectId)>),
}

impl Ours {
    fn listing(&self) -> Result<Listing, Error> {
        let refs = match self {
            Self::Here(local) => local.refs.list("refs/"),
            Self::Refs(refs) => refs.clone(),
        };
        let format = refs.first().map(|(_, id)| id.format());
        let mut listing = Listing::of(format.unwrap_or(ObjectFormat::Sha1));
        for (name, id) in refs {
            listing.add(name.as_str(), id)?;
        }
        Ok(listing)
    }
}

impl Inner {
    /// Refuses a mirror whose first run would delete or overwrite refs of its destination. A mirror
    /// whose losses cannot be determined now is not refused here.
    ///
    /// # Errors
    /// `Conflict` with the refs that would be lost; `NotFound`; `Unavailable` when no node serves
    /// the repository now.
    pub(super) async fn refuse_losses(
        self: &Arc<Self>,
        path: &RepoPath,
        settings: &MirrorSettings,
    ) -> Result<(), ServiceError> {
        let Some(looks) = self.mirror_looks.get() else {
            return Ok(());
        };
        let ours = self.own_refs(path).await?;
        let stop = Stop::default();
        // Stops the job also when the caller is dropped.
        let stopped = StopOnDrop(stop.clone());
        let (inner, network, job) = (
            Arc::clone(self),
            Arc::clone(&looks.network),
            settings.clone(),
        );
        let looking = looks.work.blocking("look at a mirror", move || {
            inner.would_lose(&ours, network, &job, &stop)
        });
        let (kind, url) = (settings.kind, &settings.url);
        let looked = tokio::time::timeout(LOOK_WAIT, looking).await;
        drop(stopped);
        match looked {
            Ok(Ok(Ok(losses))) if !losses.is_none() => Err(failed(
                ErrorCode::Conflict,
                refusal(path, kind, url, &losses),
            )),
            Ok(Ok(Ok(_))) => Ok(()),
            Ok(Ok(Err(error))) => {
                tracing::debug!(%path, %error, "a new mirror's other side is not known yet");
                Ok(())
            }
            Ok(Err(error)) => {
                tracing::warn!(%path, %error, "the look at a new mirror's other side failed");
                Ok(())
            }
            Err(_) => {
                tracing::debug!(%path, "a new mirror's other side takes long to answer");
                Ok(())
            }
        }
    }

    async fn own_refs(&self, path: &RepoPath) -> Result<Ours, ServiceError> {
        let verb = ReadVerb::Refs {
            prefix: "refs/".to_owned(),
        };
        let body = Bytes::new();
        let found = self.find_reader(Reader::Known, path, &verb, &body);
        match Box::pin(found).await? {
            Found::Here(local) => Ok(Ours::Here(Box::new(local))),
            Found::There(mut stream) => {
                let page: WireRefs = frames::read(&mut stream)
                    .await
                    .map_err(|error| broke_off(&error))?;
                Ok(Ours::Refs(page.refs))
            }
        }
    }

    /// The refs that the first run would delete or overwrite. Blocking.
    fn would_lose(
        &self,
        ours: &Ours,
        network: Arc<Network>,
        settings: &MirrorSettings,
        stop: &Stop,
    ) -> Result<Losses, Error> {
        let own = ours.listing()?;
        let mut watch = Watch {
            stop,
            tell: &mut |_| {},
        };
        let mut remote = remote_of(network, settings)?;
        match settings.kind {
            // The source is not contacted: there is nothing to lose.
            MirrorKind::Pull if own.refs.is_empty() => Ok(Losses::default()),
            MirrorKind::Pull => {
                let theirs = Source::list(&mut remote, &mut watch)?;
                Ok(losses(&theirs, &own, &mut |_, _| false))
            }
            MirrorKind::Push => {
                let theirs = Destination::list(&mut remote, &mut watch)?;
                let mut keeps = |old, new| match ours {
                    Ours::Here(local) => {
                        let repo = local.refs.repo();
                        let objects = self.opened(&repo.network, repo.object_format);
                        keeps_history(&objects, old, new, stop).unwrap_or(false)
                    }
                    // Unknown without the objects: the first run checks.
                    Ours::Refs(_) => true,
                };
                Ok(losses(&own, &theirs, &mut keeps))
            }
        }
    }
}

fn refusal(path: &RepoPath, kind: MirrorKind, url: &str, losses: &Losses) -> String {
    let (loser, winner) = match kind {
        MirrorKind::Pull => (path.to_string(), url.to_owned()),
        MirrorKind::Push => (url.to_owned(), path.to_string()),
    };
    format!(
        "{loser} would lose what {winner} does not have, which only `replace` (--replace) lets it: {losses}"
    )
}
