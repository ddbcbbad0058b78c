//! Admission of requests, and the memory and permits that a node holds for them.

use std::time::Duration;

use axum::body::Body;
use bytes::Bytes;
use henge_types::{ErrorCode, limits};

use crate::http::memory::{ClientMemory, NoMemory};
use crate::http::places::{Peer, PlaceBounds, Places, TakenPlace};
use crate::http::shortage::ShortageLog;
use crate::http::spool::{self, Spool, SpoolError};
use crate::http::{Caller, GitService, ServiceError};
use crate::metrics::Shortage;

/// The state that requests share.
#[derive(Debug, Clone)]
pub(super) struct Shared<S> {
    pub(super) service: S,
    pub(super) memory: ClientMemory,
    /// Permits for requests without a token to have their body read.
    bodies: Places,
    /// Permits for listings without a token: the size of a listing is known only after it is made.
    listings: Places,
    /// Permits for requests without a token to look up their repository.
    lookups: Places,
    log: ShortageLog,
}

impl<S: GitService> Shared<S> {
    pub(super) fn new(service: S) -> Self {
        let bodies = Places::new(PlaceBounds {
            in_all: limits::ANONYMOUS_BODIES_AT_ONCE,
            per_address: limits::ANONYMOUS_BODIES_PER_ADDRESS,
            per_connection: limits::ANONYMOUS_BODIES_PER_CONNECTION,
        });
        let listings = Places::new(PlaceBounds {
            in_all: limits::ANONYMOUS_LISTINGS_AT_ONCE,
            per_address: limits::ANONYMOUS_LISTINGS_PER_ADDRESS,
            per_connection: limits::ANONYMOUS_LISTINGS_PER_CONNECTION,
        });
        let lookups = Places::new(PlaceBounds {
            in_all: limits::ANONYMOUS_REQUESTS_AT_ONCE,
            per_address: limits::ANONYMOUS_REQUESTS_PER_ADDRESS,
            per_connection: limits::ANONYMOUS_REQUESTS_PER_CONNECTION,
        });
        Self {
            log: ShortageLog::new(service.clock()),
            service,
            memory: ClientMemory::default(),
            bodies,
            listings,
            lookups,
        }
    }

    /// Whether a request counts as authenticated. Without authentication on this server, all
    /// requests do.
    pub(super) fn is_known(&self, caller: &Caller) -> bool {
        !caller.principal.is_anonymous() || !self.service.asks_for_tokens()
    }

    /// A permit for a listing without a token. Some clients support only protocol version 0, and
    /// several of them may arrive within a moment: the queue is short, and so is the wait.
    pub(super) async fn listing_place(
        &self,
        peer: Option<Peer>,
    ) -> Result<TakenPlace, ServiceError> {
        let within = Duration::from_millis(limits::ANONYMOUS_LISTING_WAIT_MS);
        let place = self.listings.enter(peer, within).await;
        place.ok_or_else(|| self.no_place(Shortage::Listing, peer))
    }

    fn no_place(&self, shortage: Shortage, peer: Option<Peer>) -> ServiceError {
        self.log.refused(shortage, peer);
        too_many_without_token()
    }

    /// The refusal for lack of memory. A request without a token is asked for one, because other
    /// requests without a token may hold the memory.
    pub(super) fn no_memory(
        &self,
        error: NoMemory,
        peer: Option<Peer>,
        is_known: bool,
    ) -> ServiceError {
        self.log.refused(Shortage::Memory, peer);
        match is_known {
            true => error.into(),
            false => too_many_without_token(),
        }
    }
}

/// The refusal of a request without a token while too many of them are handled: git asks for a
/// token, and sends the request again.
pub fn too_many_without_token() -> ServiceError {
    let text = "too many requests without a token are answered here: send one, or try again";
    ServiceError::new(ErrorCode::Unauthenticated, text.to_owned())
}

/// The body of a fetch, if its sender may fetch. Meanwhile no permit for a lookup is held: an
/// unfinished body does not block lookups.
pub(super) async fn fetch_request<S: GitService>(
    shared: &Shared<S>,
    caller: &Caller,
    repo: &str,
    (body, encoding): (Body, spool::Encoding),
) -> Result<Bytes, ServiceError> {
    let (is_known, peer) = (shared.is_known(caller), caller.peer);
    let looking = match is_known {
        true => None,
        false => {
            let place = shared.lookups.try_enter(peer);
            Some(place.ok_or_else(|| shared.no_place(Shortage::Lookup, peer))?)
        }
    };
    shared.service.may_fetch(caller, repo).await?;
    drop(looking);
    let (place, within) = if is_known {
        (None, limits::FETCH_REQUEST_MS_MAX)
    } else {
        let place = shared.bodies.try_enter(peer);
        let place = place.ok_or_else(|| shared.no_place(Shortage::Body, peer))?;
        (Some(place), limits::ANONYMOUS_FETCH_REQUEST_MS_MAX)
    };
    let received = Spool::receive(
        body,
        encoding,
        limits::FETCH_REQUEST_BYTES_MAX as u64,
        Duration::from_millis(within),
        shared.memory.share(is_known),
    );
    let received = received.await.map_err(|error| {
        if let SpoolError::Memory(error) = error {
            return shared.no_memory(error, peer, is_known);
        }
        error.into()
    })?;
    drop(place);
    Ok(received)
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;
    use std::path::Path;
    use std::sync::Arc;

    use henge_runtime::Scope;
    use tokio::runtime::Handle;

    use super::*;
    use crate::metrics::tests::Counted;
    use crate::protocol::{Protocol, Service};

    /// A service whose operations do nothing: the test covers admission only.
    #[derive(Debug, Clone)]
    struct Nothing(Scope);

    impl GitService for Nothing {
        async fn advertise(
            &self,
            _: Caller,
            _: &str,
            _: Service,
            _: Protocol,
        ) -> Result<Bytes, ServiceError> {
            Ok(Bytes::new())
        }

        async fn upload_pack(
            &self,
            _: Caller,
            _: &str,
            _: Protocol,
            _: Bytes,
        ) -> Result<Body, ServiceError> {
            Ok(Body::empty())
        }

        async fn receive_pack(
            &self,
            _: Caller,
            _: &str,
            _: Protocol,
            _: Arc<Spool>,
        ) -> Result<Body, ServiceError> {
            Ok(Body::empty())
        }

        fn blocking_work(&self) -> &Scope {
            &self.0
        }

        fn spool_dir(&self) -> &Path {
            Path::new("/nowhere")
        }
    }

    /// Floods of fetches once took all permits without a sign to the operator.
    #[tokio::test(start_paused = true)]
    async fn requests_that_find_no_place_are_counted() {
        let counted = Counted::default();
        let _counting = ::metrics::set_default_local_recorder(&counted);
        let mut shared = Shared::new(Nothing(Scope::root("test", Handle::current(), 1)));
        let peer = Some(Peer {
            address: IpAddr::from([192, 0, 2, 1]),
            connection: 1,
        });
        let caller = Caller {
            peer,
            ..Caller::default()
        };
        let fetch = async |shared: &Shared<Nothing>| {
            let body = (Body::from("0000"), spool::Encoding::Plain);
            let fetched = fetch_request(shared, &caller, "r.git", body).await;
            fetched.map_err(|error| error.code)
        };
        let asked_for_a_token = Err(ErrorCode::Unauthenticated);
        assert_eq!(fetch(&shared).await, Ok(Bytes::from_static(b"0000")));
        let all_of = |places: &Places, most: usize| -> Vec<TakenPlace> {
            (0..most).map_while(|_| places.try_enter(peer)).collect()
        };
        let taken = all_of(&shared.lookups, limits::ANONYMOUS_REQUESTS_PER_CONNECTION);
        assert_eq!(fetch(&shared).await, asked_for_a_token);
        drop(taken);
        let taken = all_of(&shared.bodies, limits::ANONYMOUS_BODIES_PER_CONNECTION);
        assert_eq!(fetch(&shared).await, asked_for_a_token);
        drop(taken);
        let taken = all_of(&shared.listings, limits::ANONYMOUS_LISTINGS_PER_CONNECTION);
        let listed = shared.listing_place(peer).await.map(drop);
        assert_eq!(listed, Err(too_many_without_token()));
        drop(taken);
        shared.memory = ClientMemory::new(0, 0);
        assert_eq!(fetch(&shared).await, asked_for_a_token);
        for (shortage, times) in [
            (Shortage::Lookup, 1),
            (Shortage::Body, 1),
            (Shortage::Listing, 1),
            (Shortage::Memory, 1),
            (Shortage::Work, 0),
        ] {
            assert_eq!(counted.of(shortage), times, "{shortage:?}");
        }
    }
}
