//! The cluster and its nodes.

use henge_types::status::ClusterStatus;
use henge_types::tasks::NodeTasks;

use super::{ANSWER_BYTES_MAX, Client, Effect, LIST_BYTES_MAX, decode, get};
use crate::address::Address;
use crate::error::ClientError;
use crate::model::Version;
use crate::transport::Failure;

/// The readiness of a node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Readiness {
    /// It serves.
    Ready,
    /// It answers, with the reason why it does not serve yet.
    NotYet(String),
    /// It does not answer.
    Silent(String),
}

impl Client {
    /// The release of the node that answers.
    ///
    /// # Errors
    /// As every call: [`ClientError`].
    pub async fn version(&self) -> Result<String, ClientError> {
        let call = get("/api/v1/version".to_owned(), ANSWER_BYTES_MAX);
        let version: Version = self.json(&call, Effect::Reads).await?;
        Ok(version.version)
    }

    /// The status of the cluster, from the first node that answers.
    ///
    /// # Errors
    /// As every call.
    pub async fn cluster(&self) -> Result<ClusterStatus, ClientError> {
        let call = get("/api/henge/v1/cluster".to_owned(), LIST_BYTES_MAX);
        let (address, answer) = self
            .ask_within(&call, Effect::Reads, self.deadlines.status)
            .await?;
        decode(&address, &answer.body)
    }

    /// The background tasks of the first node that answers.
    ///
    /// # Errors
    /// As every call.
    pub async fn tasks(&self) -> Result<NodeTasks, ClientError> {
        let call = get("/api/henge/v1/node/tasks".to_owned(), LIST_BYTES_MAX);
        let (address, answer) = self
            .ask_within(&call, Effect::Reads, self.deadlines.status)
            .await?;
        decode(&address, &answer.body)
    }

    /// Requests the readiness of one node. Never fails: a node that does not answer is
    /// [`Readiness::Silent`].
    pub async fn readiness(&self, address: &Address) -> Readiness {
        let call = get("/readyz".to_owned(), ANSWER_BYTES_MAX);
        let within = self.deadlines.status;
        match self.transport.send(address, &call, None, within).await {
            Ok(answer) if answer.status.is_success() => Readiness::Ready,
            Ok(answer) => Readiness::NotYet(
                String::from_utf8_lossy(&answer.body)
                    .trim()
                    .chars()
                    .take(300)
                    .collect(),
            ),
            Err(Failure::Connect(reason) | Failure::Broken(reason)) => Readiness::Silent(reason),
            Err(Failure::Timeout) => Readiness::Silent("no answer in time".to_owned()),
            Err(Failure::TooLong) => Readiness::Silent("the answer is too long".to_owned()),
        }
    }
}
