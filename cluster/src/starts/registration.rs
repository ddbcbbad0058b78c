//! The registration of this process's start, and the members' responses to it.
//!
//! A call of its own makes the members note the start, and finds out whether one of them knows a
//! later start. Then a command of the meta group registers the start. Until then this node votes
//! and takes entries, so that a cluster that starts as a whole elects its leaders, but it serves no
//! client.
//!
//! While the meta group is below the command's release level, a start counts as registered by
//! notes. It needs a majority of the meta group's voters; a voter counts if it has noted the start
//! or runs a release that notes none.

use std::collections::BTreeSet;
use std::time::Duration;

use henge_proto::cluster as pb;
use henge_runtime::tasks::OnPanic;
use henge_state::MetaView;
use henge_types::command::VERSION_STARTS_AND_TIME;
use henge_types::{Command, GroupId, NodeId, NotAccepted, Refusal, RegisterStart, TypedCommand};

use super::{Standing, StartRefusal};
use crate::cluster::Cluster;
use crate::formation::configuration;
use crate::log_store::slot;
use crate::proposals::Try;

/// Time-out of a member's response to a start.
const ASK_TIMEOUT: Duration = Duration::from_secs(1);
/// Time-out of one proposal of the registration; it is retried.
const REGISTER_TIMEOUT: Duration = Duration::from_secs(5);
/// Between two attempts.
const PAUSE: Duration = Duration::from_millis(100);
/// Between two attempts of a node that serves already and waits for the release level of the meta
/// group.
const PAUSE_SERVING: Duration = Duration::from_secs(2);

/// A member's response to this process's start.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Answer {
    /// It has noted the start.
    Noted {
        /// The meta group's release level there.
        level: u32,
        /// Its digest of the configuration that founders must agree on.
        founders: Vec<u8>,
    },
    /// Its release notes none.
    Older,
    /// It did not answer.
    Silent,
}

/// Registers the start of this process in the background.
pub(crate) fn spawn(cluster: &Cluster) {
    let registering = cluster.clone();
    cluster
        .shared
        .scope
        .spawn("start registration", OnPanic::EndProcess, async move {
            run(&registering).await;
        });
}

async fn run(cluster: &Cluster) {
    let starts = &cluster.shared.starts;
    let mut written = false;
    loop {
        let registered = starts.registration();
        if let Some(registered) = registered
            && !written
        {
            let writing = starts.clone();
            let write = move || writing.write_registration(registered);
            if !blocking(cluster, "write registered start", write).await {
                return;
            }
            written = true;
            tracing::info!(start = %registered.start, index = %registered.index, "start registered");
            starts.set_standing(Standing::Registered);
        }
        let moved = *starts.moved().borrow();
        if written && !moved {
            return;
        }
        let answers = ask(cluster).await;
        if moved && answered_for(cluster, &answers) {
            let writing = starts.clone();
            let write = move || writing.write_answered_for();
            if !blocking(cluster, "write answers for a moved directory", write).await {
                return;
            }
            tracing::info!("every member has answered for the moved data directory");
        }
        if !written && !*starts.moved().borrow() {
            register(cluster, &answers).await;
        }
        let pause = match starts.serving() {
            Ok(()) if registered.is_none() && starts.registration().is_none() => PAUSE_SERVING,
            Ok(()) | Err(_) => PAUSE,
        };
        tokio::time::sleep(pause).await;
    }
}

/// Runs a write to the data directory; a failed one ends the node. Returns whether it succeeded.
async fn blocking(
    cluster: &Cluster,
    name: &'static str,
    write: impl FnOnce() -> std::io::Result<()> + Send + 'static,
) -> bool {
    let result = cluster.shared.scope.blocking(name, write).await;
    match result {
        Ok(Ok(())) => true,
        Ok(Err(error)) | Err(error) => {
            let reason = format!("cannot write the starts of this node: {error}");
            cluster.shared.starts.end(&reason);
            false
        }
    }
}

/// Makes every other member note the start.
async fn ask(cluster: &Cluster) -> Vec<(NodeId, Answer)> {
    let own = cluster.node();
    let members = cluster.members().all().into_iter();
    let others = members
        .map(|member| member.node)
        .filter(|node| *node != own);
    let asked = others.map(|node| async move { (node, ask_one(cluster, node).await) });
    futures::future::join_all(asked).await
}

async fn ask_one(cluster: &Cluster, node: NodeId) -> Answer {
    let Ok(mut client) = cluster.peers().cluster(node) else {
        return Answer::Silent;
    };
    match tokio::time::timeout(ASK_TIMEOUT, client.start(pb::StartRequest {})).await {
        Ok(Ok(reply)) => {
            let reply = reply.into_inner();
            let acknowledged: Vec<_> = reply
                .acknowledged
                .into_iter()
                .map(|entry| (GroupId::new(entry.group), entry.index))
                .collect();
            if let Some(refusal) = gone_back(cluster, &acknowledged) {
                cluster.shared.starts.end(&refusal.to_string());
            }
            Answer::Noted {
                level: reply.level,
                founders: reply.founders.to_vec(),
            }
        }
        Ok(Err(status)) => {
            cluster.shared.starts.heard(&status);
            match status.code() == tonic::Code::Unimplemented {
                true => Answer::Older,
                false => Answer::Silent,
            }
        }
        Err(_) => Answer::Silent,
    }
}

/// The configuration digests of the other founders that answer.
pub(crate) async fn founders_said(cluster: &Cluster) -> Vec<(NodeId, Vec<u8>)> {
    let answers = ask(cluster).await.into_iter();
    let said = answers.filter_map(|(node, answer)| match answer {
        Answer::Noted { founders, .. } => Some((node, founders)),
        Answer::Older | Answer::Silent => None,
    });
    said.collect()
}

/// The first group of which this node has acknowledged more than its log holds.
fn gone_back(cluster: &Cluster, acknowledged: &[(GroupId, u64)]) -> Option<StartRefusal> {
    let own = cluster.node();
    let held = |group: GroupId| group.is_meta() || cluster.replicas(group).contains(&own);
    let lacks = |(group, index): &&(GroupId, u64)| {
        let last = cluster.shared.wal.group(*group).last_index;
        held(*group) && last.is_none_or(|last| last < slot(*index))
    };
    acknowledged
        .iter()
        .find(lacks)
        .map(|(group, index)| StartRefusal::LogWentBack {
            node: own,
            group: *group,
            acknowledged: *index,
            shown: *index,
        })
}

/// Whether every member has confirmed a moved data directory.
fn answered_for(cluster: &Cluster, answers: &[(NodeId, Answer)]) -> bool {
    let silent: Vec<String> = answers
        .iter()
        .filter(|(_, answer)| !matches!(answer, Answer::Noted { .. }))
        .map(|(node, _)| node.to_string())
        .collect();
    if silent.is_empty() {
        return true;
    }
    let reason = format!(
        "this node was started with --moved and waits until every member has answered for its data directory: \
         no answer from node {}",
        silent.join(", ")
    );
    cluster
        .shared
        .starts
        .set_standing(Standing::Waiting(reason));
    false
}

async fn register(cluster: &Cluster, answers: &[(NodeId, Answer)]) {
    let starts = &cluster.shared.starts;
    if !cluster.is_formed() {
        let reason = "this node's start is not registered: the cluster is not formed, as far as is known here";
        starts.set_standing(Standing::Waiting(reason.to_owned()));
        return;
    }
    let here = cluster.level(GroupId::META).unwrap_or(0);
    if here >= VERSION_STARTS_AND_TIME {
        propose(cluster).await;
        return;
    }
    let elsewhere = answers.iter().map(|(_, answer)| match answer {
        Answer::Noted { level, .. } => *level,
        Answer::Older | Answer::Silent => 0,
    });
    let known = elsewhere.max().unwrap_or(0);
    if known < VERSION_STARTS_AND_TIME && is_noted(&meta_voters(cluster), cluster.node(), answers) {
        starts.set_standing(Standing::Registered);
    }
}

/// The voters of the meta group known to the replica here.
fn meta_voters(cluster: &Cluster) -> BTreeSet<NodeId> {
    let group = cluster.groups().get(GroupId::META);
    group.map_or_else(|_| BTreeSet::new(), |group| group.voters())
}

/// Whether a majority of the voters has noted the start, or runs a release that notes none.
fn is_noted(voters: &BTreeSet<NodeId>, own: NodeId, answers: &[(NodeId, Answer)]) -> bool {
    let noted = answers
        .iter()
        .filter(|(_, answer)| *answer != Answer::Silent)
        .map(|(node, _)| *node)
        .chain([own])
        .filter(|node| voters.contains(node));
    noted.count() > voters.len() / 2
}

async fn propose(cluster: &Cluster) {
    let starts = &cluster.shared.starts;
    let identity = cluster.identity();
    let command = Command::from(RegisterStart {
        node: identity.node,
        incarnation: identity.incarnation,
        claim: starts.claim(),
    });
    // Without a request id: the command is idempotent.
    let tried = cluster.call_once(GroupId::META, command, None, REGISTER_TIMEOUT);
    let reason = match tokio::time::timeout(REGISTER_TIMEOUT, tried).await {
        Ok(Ok(Try::Applied(applied))) => match RegisterStart::reply_from(applied.reply) {
            Err(NotAccepted::Refused(Refusal::LaterStart { registered })) => {
                let refusal = StartRefusal::LaterStart {
                    node: identity.node,
                    known: registered.start,
                };
                starts.end(&refusal.to_string());
                return;
            }
            Ok(()) => "the registration is not applied here yet".to_owned(),
            Err(other) => format!("the meta group answered {other:?}"),
        },
        Ok(Ok(Try::NothingDone | Try::LogFull | Try::Unknown)) | Err(_) => {
            "the meta group does not answer".to_owned()
        }
        Ok(Err(error)) => error.to_string(),
    };
    if starts.registration().is_none() {
        let reason = format!("this node's start is not registered yet: {reason}");
        starts.set_standing(Standing::Waiting(reason));
    }
}

impl Cluster {
    /// This node's response to the start of a peer that it has admitted.
    pub(crate) fn answer_for(&self, peer: NodeId) -> pb::StartReply {
        let member = self.members().get(peer);
        let kept = member.map(|member| self.shared.followed.kept((peer, member.incarnation)));
        let entry = |(group, index): (GroupId, u64)| pb::GroupEntry {
            group: group.get(),
            index,
        };
        pb::StartReply {
            level: self.level(GroupId::META).unwrap_or(0),
            acknowledged: kept.unwrap_or_default().into_iter().map(entry).collect(),
            founders: configuration::digest(&self.shared.config).to_vec().into(),
        }
    }

    /// Whether this node may serve clients: its start is registered, and no member knows a later
    /// one.
    ///
    /// # Errors
    /// With the reason why it may not.
    pub fn serving(&self) -> Result<(), String> {
        self.shared.starts.serving()
    }

    /// Waits until this node has to end: its data directory is an old copy, or its configuration is
    /// another cluster's. Returns the reason, for the operator.
    pub async fn ended(&self) -> String {
        self.shared.starts.ended().await
    }

    /// Takes the registered starts over from the meta group's state.
    pub(crate) fn follow_starts(&self) {
        if let Some(meta) = self.view(GroupId::META) {
            meta.with(|state, _| {
                let level = henge_state::version(state);
                self.shared.starts.follow(MetaView::new(state), level);
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn nodes(numbers: &[u64]) -> BTreeSet<NodeId> {
        numbers.iter().copied().map(NodeId::new).collect()
    }

    fn answers(given: &[(u64, Answer)]) -> Vec<(NodeId, Answer)> {
        given
            .iter()
            .map(|(node, answer)| (NodeId::new(*node), answer.clone()))
            .collect()
    }

    /// The first node of a rolling upgrade meets members that note nothing.
    #[test]
    fn a_majority_of_voters_notes_a_start() {
        let own = NodeId::new(1);
        let noted = Answer::Noted {
            level: 3,
            founders: Vec::new(),
        };
        let three = nodes(&[1, 2, 3]);
        let older = answers(&[(2, Answer::Older), (3, Answer::Silent)]);
        assert!(is_noted(&three, own, &older));
        let silent = answers(&[(2, Answer::Silent), (3, Answer::Silent)]);
        assert!(!is_noted(&three, own, &silent));
        assert!(is_noted(&nodes(&[1]), own, &[]));
        // A learner's note does not count.
        let learner = answers(&[(4, noted)]);
        assert!(!is_noted(&three, own, &learner));
    }
}
