//! Who is let in, and what a node holds for those who are.

use std::time::Duration;

use axum::body::Body;
use bytes::Bytes;
use henge_types::{ErrorCode, limits};

use crate::http::memory::{ClientMemory, NoMemory};
use crate::http::places::{PlaceBounds, Places};
use crate::http::spool::{self, Spool, SpoolError};
use crate::http::{Caller, GitService, ServiceError};

/// What requests share.
#[derive(Debug, Clone)]
pub(super) struct Shared<S> {
    pub(super) service: S,
    pub(super) memory: ClientMemory,
    /// Fetches without a token whose body is read.
    bodies: Places,
    /// Listings without a token that are made: how large one is, is known afterwards.
    pub(super) listings: Places,
    /// Fetches without a token whose repository is looked for.
    lookups: Places,
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
            service,
            memory: ClientMemory::default(),
            bodies,
            listings,
            lookups,
        }
    }

    /// Whether somebody has the places of those who say who they are: where nobody can, everybody has.
    pub(super) fn is_known(&self, caller: &Caller) -> bool {
        caller.name.is_some() || !self.service.asks_for_tokens()
    }
}

/// What is said to whoever shows no token while too many such requests are answered: git asks for one, and comes again.
pub fn too_many_without_token() -> ServiceError {
    let text = "too many requests without a token are answered here: send one, or try again";
    ServiceError::new(ErrorCode::Unauthenticated, text.to_owned())
}

/// The body of a fetch, if whoever sends it may fetch. A body that does not come to its end keeps nobody else out.
pub(super) async fn fetch_request<S: GitService>(
    shared: &Shared<S>,
    caller: &Caller,
    repo: &str,
    (body, encoding): (Body, spool::Encoding),
) -> Result<Bytes, ServiceError> {
    let is_known = shared.is_known(caller);
    let looking = match is_known {
        true => None,
        false => {
            let place = shared.lookups.try_enter(caller.peer);
            Some(place.ok_or_else(too_many_without_token)?)
        }
    };
    shared.service.may_fetch(caller, repo).await?;
    drop(looking);
    let (place, within) = if is_known {
        (None, limits::FETCH_REQUEST_MS_MAX)
    } else {
        let place = shared.bodies.try_enter(caller.peer);
        let place = place.ok_or_else(too_many_without_token)?;
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
            return no_memory(error, is_known);
        }
        error.into()
    })?;
    drop(place);
    Ok(received)
}

/// Who has a token is asked for it, where the memory of those without one is held by others.
pub(super) fn no_memory(error: NoMemory, is_known: bool) -> ServiceError {
    match is_known {
        true => error.into(),
        false => too_many_without_token(),
    }
}
