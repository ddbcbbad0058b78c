//! Every bare repository below a directory, as a [`GitService`].

use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use bytes::Bytes;
use henge_runtime::{Clock, Scope};
use henge_types::{ErrorCode, limits};

use crate::advertise::advertise_peeled;
use crate::bare::{BareRepository, OpenError};
use crate::fetch::{FetchError, upload_pack};
use crate::http::{
    Caller, GitService, PlaceBounds, Places, ServiceError, Spool, stream_blocking, until_sent,
};
use crate::protocol::{Deadline, FetchLimits, Protocol, PushLimits, Service, Stop};
use crate::push::{IngestError, ReceiveError, receive_pack};
use crate::refs::CommitError;
use crate::responses::Responses;
use crate::store::ObjectsPool;

/// Concurrent fetches: fewer than blocking jobs, so that slow readers do not hold up listings and
/// pushes.
const FETCHES: PlaceBounds = PlaceBounds {
    in_all: limits::BLOCKING_JOBS_MAX - 16,
    per_address: limits::BLOCKING_JOBS_MAX / 2,
    per_connection: limits::BLOCKING_JOBS_MAX / 8,
};
/// Maximum wait of a fetch for its permit.
const PLACE_WAIT: Duration = Duration::from_secs(5);
/// `Retry-After` of refused fetches, seconds.
const RETRY_AFTER_S: u32 = 5;
/// Maximum working time of one request.
const WORK_MAX: Duration = Duration::from_secs(60 * 60);

/// Whether pushes are accepted, where a repository does not set `http.receivepack`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pushes {
    /// From every client that reaches the server.
    Allowed,
    /// From no client.
    Refused,
}

/// Serves every bare repository below a directory at its relative path, with or without `.git`.
///
/// A repository that a path reaches only through `..`, or through a symbolic link out of the
/// directory, does not exist for the service. Pointers inside a repository to places elsewhere
/// (alternates, links among its files) are followed, as git does: only writers to the server's disk
/// can make them, no client can.
#[derive(Debug, Clone)]
pub struct BareRoot {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    root: PathBuf,
    spool: PathBuf,
    pushes: Pushes,
    scope: Scope,
    clock: Arc<dyn Clock>,
    pool: ObjectsPool,
    responses: Responses,
    fetches: Places,
}

impl BareRoot {
    /// Serves the directory `root`. Pushes are spooled in the existing directory `spool`; blocking
    /// work runs in `scope`.
    ///
    /// # Errors
    /// When `root` cannot be resolved.
    pub fn open(
        root: &Path,
        spool: &Path,
        pushes: Pushes,
        scope: Scope,
        clock: Arc<dyn Clock>,
    ) -> io::Result<Self> {
        Ok(Self {
            shared: Arc::new(Shared {
                root: root.canonicalize()?,
                spool: spool.to_owned(),
                pushes,
                scope,
                clock,
                pool: ObjectsPool::default(),
                responses: Responses::new(spool),
                fetches: Places::new(FETCHES),
            }),
        })
    }

    async fn blocking<T, F>(&self, name: &'static str, job: F) -> Result<T, ServiceError>
    where
        T: Send + 'static,
        F: FnOnce(&Shared) -> Result<T, ServiceError> + Send + 'static,
    {
        let shared = Arc::clone(&self.shared);
        self.shared
            .scope
            .blocking(name, move || job(&shared))
            .await
            .map_err(|error| internal(&error))?
    }
}

impl Shared {
    fn repository(&self, repo: &str) -> Result<BareRepository, ServiceError> {
        let not_found = || {
            ServiceError::new(
                ErrorCode::NotFound,
                format!("there is no repository {repo:?} here"),
            )
        };
        let relative = Path::new(repo);
        let is_plain = relative
            .components()
            .all(|part| matches!(part, Component::Normal(_)));
        if repo.is_empty() || !is_plain || repo.contains('\0') {
            return Err(not_found());
        }
        for candidate in [repo.to_owned(), format!("{repo}.git")] {
            let Ok(path) = self.root.join(candidate).canonicalize() else {
                continue;
            };
            if !path.starts_with(&self.root) || path == self.root {
                continue;
            }
            match BareRepository::open(&path) {
                Ok(repository) => return Ok(repository),
                Err(OpenError::NotARepository { .. }) => {}
                Err(error @ (OpenError::Config { .. } | OpenError::Shallow { .. })) => {
                    tracing::warn!(%error, "a repository is not served");
                    let message = format!("{repo:?} cannot be served: the server's log says why");
                    return Err(ServiceError::new(ErrorCode::Invalid, message));
                }
                Err(OpenError::Ref { path, source }) => {
                    tracing::error!(repository = %path.display(), error = %source, "a repository is not listed");
                    let message = format!("the refs of {repo:?} cannot be listed: {source}");
                    return Err(ServiceError::new(ErrorCode::Internal, message));
                }
                Err(error @ OpenError::Io { .. }) => return Err(internal(&error)),
            }
        }
        Err(not_found())
    }

    /// The repository, if this service is enabled for it.
    fn repository_for(&self, service: Service, repo: &str) -> Result<BareRepository, ServiceError> {
        let repository = self.repository(repo)?;
        let config = repository.config();
        let (is_open, reason) = match service {
            Service::UploadPack => (
                config.http_upload_pack,
                "fetches of it are switched off (http.uploadpack)",
            ),
            Service::ReceivePack => match config.http_receive_pack {
                Some(is_open) => (is_open, "pushes to it are switched off (http.receivepack)"),
                None => (
                    self.pushes == Pushes::Allowed,
                    "this server takes no pushes",
                ),
            },
        };
        if is_open {
            return Ok(repository);
        }
        Err(ServiceError::new(ErrorCode::Forbidden, reason.to_owned()))
    }

    fn now_s(&self) -> u64 {
        self.clock.unix_ms() / 1000
    }

    fn stop(&self) -> Stop {
        Stop::at(Deadline::after(Arc::clone(&self.clock), WORK_MAX))
    }

    fn receive(&self, repo: &str, request: &Spool) -> Result<Vec<u8>, ServiceError> {
        let repository = self.repository_for(Service::ReceivePack, repo)?;
        let quarantine = repository.quarantine().map_err(|error| internal(&error))?;
        let limits = repository.push_limits(PushLimits {
            stop: self.stop(),
            ..PushLimits::default()
        });
        let mut input = request.reader().map_err(|error| internal(&error))?;
        let mut report = Vec::new();
        receive_pack(
            &repository.for_pushes(self.now_s()),
            &self
                .pool
                .get(&repository.objects(), repository.object_format()),
            &quarantine.path(),
            &mut *input,
            &mut report,
            &limits,
        )
        .map_err(|error| push_error(&error))?;
        Ok(report)
    }
}

fn too_many_fetches() -> ServiceError {
    ServiceError {
        code: ErrorCode::Throttled,
        message: "as many fetches run here as may run at once: try again".to_owned(),
        retry_after_s: Some(RETRY_AFTER_S),
    }
}

fn internal(error: &(impl std::error::Error + ?Sized)) -> ServiceError {
    tracing::error!(error = %error, "request failed");
    ServiceError::new(
        ErrorCode::Internal,
        "the server failed: its log says more".to_owned(),
    )
}

/// The response to a push whose job panicked, possibly after its first ref update.
fn died(error: &io::Error) -> ServiceError {
    tracing::error!(%error, "a push died");
    let message =
        "the server failed in the middle: the push may or may not be in, look before pushing again";
    ServiceError::new(ErrorCode::Timeout, message.to_owned())
}

/// The response to a failed push.
fn push_error(error: &ReceiveError) -> ServiceError {
    let code = match error {
        // The push is well-formed: `Forbidden` lets the reason appear in git's report.
        limit if limit.is_limit() => ErrorCode::Forbidden,
        ReceiveError::NotAPush
        | ReceiveError::Truncated
        | ReceiveError::TooManyUpdates { .. }
        | ReceiveError::TooManyOptions { .. }
        | ReceiveError::TooManyShallow { .. }
        | ReceiveError::NameTooLong { .. }
        | ReceiveError::Certificate { .. }
        | ReceiveError::CertificateTooLarge { .. }
        | ReceiveError::UnsignedCommands
        | ReceiveError::ObjectFormat { .. }
        | ReceiveError::Pkt(_) => ErrorCode::Invalid,
        ReceiveError::Commit(CommitError::Unavailable { .. }) => ErrorCode::Unavailable,
        ReceiveError::Commit(CommitError::UnknownOutcome { .. }) => ErrorCode::Timeout,
        ReceiveError::Commit(CommitError::NotFound) => ErrorCode::NotFound,
        // Nothing was changed.
        ReceiveError::Check(crate::ReachError::Stopped) => ErrorCode::Unavailable,
        ReceiveError::Ingest(IngestError::Disk(_)) => {
            tracing::error!(error = %error, "request failed");
            ErrorCode::Unavailable
        }
        ReceiveError::Store(_)
        | ReceiveError::Check(_)
        | ReceiveError::Ingest(_)
        | ReceiveError::Commit(CommitError::Io(_) | CommitError::Partial { .. })
        | ReceiveError::Output(_) => return internal(error),
    };
    ServiceError::new(code, error.to_string())
}

impl GitService for BareRoot {
    async fn advertise(
        &self,
        _caller: Caller,
        repo: &str,
        service: Service,
        protocol: Protocol,
    ) -> Result<Bytes, ServiceError> {
        let repo = repo.to_owned();
        self.blocking("advertise", move |shared| {
            let repository = shared.repository_for(service, &repo)?;
            let mut output = Vec::new();
            let objects = shared
                .pool
                .get(&repository.objects(), repository.object_format());
            let refs = match service {
                Service::UploadPack => repository.for_fetches(),
                Service::ReceivePack => repository.for_pushes(shared.now_s()),
            };
            let policy = repository.config().fetch_policy();
            advertise_peeled(&refs, &objects, service, protocol, policy, &mut output)
                .map_err(|error| internal(&error))?;
            Ok(output.into())
        })
        .await
    }

    async fn upload_pack(
        &self,
        caller: Caller,
        repo: &str,
        protocol: Protocol,
        request: Bytes,
    ) -> Result<Body, ServiceError> {
        let place = self.shared.fetches.enter(caller.peer, PLACE_WAIT).await;
        let place = place.ok_or_else(too_many_fetches)?;
        let repo = repo.to_owned();
        let repository = self
            .blocking("open", move |shared| {
                shared.repository_for(Service::UploadPack, &repo)
            })
            .await?;
        let stop = self.shared.stop();
        let limits = FetchLimits {
            policy: repository.config().fetch_policy(),
            stop: stop.clone(),
            responses: Some(
                self.shared
                    .responses
                    .of(repository.objects().as_os_str().as_bytes()),
            ),
            bundles: repository.bundle_list(),
            ..FetchLimits::default()
        };
        let objects = self
            .shared
            .pool
            .get(&repository.objects(), repository.object_format());
        let body = stream_blocking(&self.shared.scope, &stop, move |output| {
            upload_pack(
                &repository.for_fetches(),
                &objects,
                protocol,
                &mut &request[..],
                output,
                &limits,
            )
            .map(drop)
            .or_else(|error| {
                if let FetchError::Output(error) = error {
                    return Err(error);
                }
                // The client has received the error within the protocol: the response is complete.
                tracing::info!(%error, "fetch refused");
                Ok(())
            })
        });
        // The job waits for the client to read its last pieces. It holds its permit until then.
        Ok(until_sent(body, place))
    }

    async fn receive_pack(
        &self,
        _caller: Caller,
        repo: &str,
        _protocol: Protocol,
        request: Arc<Spool>,
    ) -> Result<Body, ServiceError> {
        let repo = repo.to_owned();
        let shared = Arc::clone(&self.shared);
        let job = move || shared.receive(&repo, &request);
        let report = self.shared.scope.blocking("receive-pack", job).await;
        Ok(Body::from(report.map_err(|error| died(&error))??))
    }

    fn asks_for_tokens(&self) -> bool {
        false
    }

    fn clock(&self) -> Arc<dyn Clock> {
        Arc::clone(&self.shared.clock)
    }

    fn blocking_work(&self) -> &Scope {
        &self.shared.scope
    }

    fn spool_dir(&self) -> &Path {
        &self.shared.spool
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Instant;

    use henge_runtime::SystemClock;

    /// Panics on a read of the Unix time, which the job of every push makes.
    #[derive(Debug)]
    struct NoClock;

    impl Clock for NoClock {
        fn unix_ms(&self) -> u64 {
            panic!("on purpose")
        }

        fn instant(&self) -> Instant {
            SystemClock.instant()
        }
    }

    /// The job may panic after its first ref update. Such a push was once reported as refused in
    /// whole.
    #[tokio::test]
    async fn a_push_whose_job_died_is_not_called_refused() {
        let directory = tempfile::tempdir().unwrap();
        let repository = directory.path().join("r.git");
        for name in ["objects", "refs"] {
            std::fs::create_dir_all(repository.join(name)).unwrap();
        }
        std::fs::write(repository.join("HEAD"), "ref: refs/heads/main\n").unwrap();
        let scope = Scope::root("test", tokio::runtime::Handle::current(), 2);
        let (root, clock) = (directory.path(), Arc::new(NoClock));
        let service = BareRoot::open(root, root, Pushes::Allowed, scope, clock).unwrap();
        let request = Arc::new(Spool::from_bytes(Bytes::from_static(b"0000")));
        let pushed = service.receive_pack(Caller::default(), "r", Protocol::V0, request);
        let error = pushed.await.expect_err("died");
        assert_eq!(error.code, ErrorCode::Timeout, "{error}");
        assert!(error.message.contains("may or may not be in"), "{error}");
    }
}
