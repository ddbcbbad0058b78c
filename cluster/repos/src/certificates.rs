//! Signed pushes: the nonces that pushers sign, and the certificates that are stored.
//!
//! Nonces derive from a seed in the state of the repository's shard: every replica advertises
//! signed pushes, and every leader can verify a nonce that another node advertised or that was
//! advertised before a restart. The first advertisement to a pusher gives a shard its seed.

use std::time::Duration;

use bytes::Bytes;
use henge_git::http::ServiceError;
use henge_state::ShardView;
use henge_types::command::VERSION_REPOS;
use henge_types::{
    Command, NonceSeed, Principal, PushCertificateRecord, RefName, RepoPath, ShardCommand, limits,
};
use tokio::io::AsyncReadExt;

use crate::catalogue::Reader;
use crate::frames::{self, ReadVerb, WireCertificates};
use crate::reads::{Found, Local, broke_off};
use crate::repos::{Inner, Repos};

/// How long an advertisement waits for the shard's seed; without the seed it omits `push-cert`.
const SEED_WAIT: Duration = Duration::from_secs(2);

/// Push certificates of a repository at one point in time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CertificatesPage {
    /// The number of matching certificates.
    pub total: u64,
    /// A page of them, the newest first.
    pub certificates: Vec<PushCertificateRecord>,
}

impl Repos {
    /// The stored push certificates of a repository, of one ref or of all: at most `limit`, behind
    /// the newest `skip`. Linearizable.
    ///
    /// # Errors
    /// `NotFound`, `Unavailable`.
    pub async fn push_certificates(
        &self,
        path: &RepoPath,
        reference: Option<&RefName>,
        skip: usize,
        limit: usize,
    ) -> Result<CertificatesPage, ServiceError> {
        let skip = u64::try_from(skip).unwrap_or(u64::MAX);
        let limit = u32::try_from(limit).unwrap_or(u32::MAX);
        let verb = ReadVerb::PushCertificates {
            reference: reference.cloned(),
            skip,
            limit,
        };
        let found = self
            .inner
            .find_reader(Reader::Known, path, &verb, &Bytes::new())
            .await?;
        let page = match found {
            Found::Here(local) => wire_certificates(&local, reference, skip, limit),
            Found::There(mut stream) => {
                let page = frames::read(&mut stream).await;
                let page: WireCertificates = page.map_err(|error| broke_off(&error))?;
                // Nothing follows; reading the end lets the stream close.
                let mut rest = [0];
                if stream.read(&mut rest).await.is_err() {
                    tracing::debug!("a stream of certificates was not closed");
                }
                page
            }
        };
        Ok(CertificatesPage {
            total: page.total,
            certificates: page.certificates,
        })
    }
}

/// A page of certificates, in its wire form.
pub(crate) fn wire_certificates(
    local: &Local,
    reference: Option<&RefName>,
    skip: u64,
    limit: u32,
) -> WireCertificates {
    let covers = |record: &PushCertificateRecord| {
        let mut refs = record.refs.iter();
        reference.is_none_or(|name| refs.any(|recorded| recorded.certified.name == *name))
    };
    let mut certificates = local.refs.push_certificates();
    certificates.retain(covers);
    certificates.reverse();
    let total = u64::try_from(certificates.len()).unwrap_or(u64::MAX);
    let most = |count: u64| usize::try_from(count).unwrap_or(usize::MAX);
    let limit = most(limit.into()).min(limits::PAGE_ITEMS_MAX);
    let page = certificates.into_iter().skip(most(skip));
    WireCertificates {
        total,
        certificates: page.take(limit).collect(),
    }
}

impl Inner {
    /// The same repository with its nonce seed, as long as the shard can have one. Without a
    /// quorum, or before all nodes of the shard support signed pushes, the advertisement omits
    /// `push-cert`.
    pub(crate) async fn with_nonce_seed(&self, mut local: Local) -> Local {
        let repo = local.refs.repo().repo;
        let group = local.refs.repo().network.shard(self.cluster.shards());
        let knows = self.cluster.level(group);
        if local.refs.has_nonce_seed() || knows.is_none_or(|level| level < VERSION_REPOS) {
            return local;
        }
        let random = self.cluster.random();
        let halves = [random.bytes(), random.bytes()];
        let mut bytes = [0; 32];
        for (byte, drawn) in bytes.iter_mut().zip(halves.as_flattened()) {
            *byte = *drawn;
        }
        let command = ShardCommand::SetNonceSeed(NonceSeed::from_bytes(bytes));
        let command = Command::Shard(command);
        let request = self
            .catalogue
            .binding(group, &command, &Principal::System, repo);
        let given = async {
            let called = self.cluster.call(group, command, request, SEED_WAIT).await;
            called.map_err(|error| error.to_string())?;
            // A concurrent request may have set it first: the seed in the state counts.
            let applied = self.cluster.read_barrier(group, SEED_WAIT).await;
            applied.map_err(|error| error.to_string())?;
            let at = self.cluster.state(group).ok_or("the replica has gone")?;
            let seed = ShardView::new(&at.state).nonce_seed();
            seed.ok_or_else(|| "the shard has none".to_owned())
        };
        match given.await {
            Ok(seed) => local.refs.set_nonce_seed(seed),
            Err(why) => tracing::debug!(%group, why, "signed pushes are not offered for now"),
        }
        local
    }
}
