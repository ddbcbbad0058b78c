//! The problems of a cluster: those that the reports show, joined with the conditions that the
//! nodes report.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use super::groups::{Agreement, GroupView, reports};
use super::names::{group_name, group_names, group_of};
use crate::conditions::{Condition, ConditionKind, Severity};
use crate::ids::{GroupId, NodeId};
use crate::status::{ClusterStatus, NodeReport, Role};

/// A problem of a cluster.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Problem {
    /// Its kind.
    pub kind: ConditionKind,
    /// Its severity.
    pub severity: Severity,
    /// Its node; `None` for a problem of groups on any node.
    pub node: Option<NodeId>,
    /// Its groups.
    pub groups: Vec<GroupId>,
    /// Its other subjects: repositories, paths.
    pub subjects: Vec<String>,
    /// Its begin, milliseconds since the Unix epoch by the clock of the node that noticed it first;
    /// `None` where no node reports one.
    pub since_ms: Option<u64>,
    /// Its duration, milliseconds by the clock of that node.
    pub for_ms: Option<u64>,
    /// Figures and reasons, for people.
    pub detail: String,
    /// The advice.
    pub advice: String,
}

impl Problem {
    /// The problem in one line, without its begin and its advice.
    pub fn sentence(&self) -> String {
        let node = self.node.map(|node| format!("node {node}"));
        let groups = (!self.groups.is_empty()).then(|| group_names(&self.groups));
        let subjects = (!self.subjects.is_empty()).then(|| some_of(&self.subjects));
        let about: Vec<String> = [node, groups, subjects].into_iter().flatten().collect();
        let mut text = about.join(", ");
        if !text.is_empty() {
            text.push_str(": ");
        }
        text.push_str(self.kind.title());
        if !self.detail.is_empty() {
            text.push_str(": ");
            text.push_str(&self.detail);
        }
        text
    }
}

/// Subjects that a line names; above this number it only counts them.
const SUBJECTS_NAMED_MAX: usize = 5;

fn some_of(subjects: &[String]) -> String {
    let named = subjects.iter().take(SUBJECTS_NAMED_MAX).cloned();
    let mut texts: Vec<String> = named.collect();
    if subjects.len() > SUBJECTS_NAMED_MAX {
        texts.push(format!("{} more", subjects.len() - SUBJECTS_NAMED_MAX));
    }
    texts.join(", ")
}

/// The key by which findings are merged into one line: the kind, the node and, for groups that are
/// not served, the reason.
type Key = (ConditionKind, Option<NodeId>, String);

#[derive(Default)]
struct Draft {
    groups: BTreeSet<GroupId>,
    subjects: BTreeSet<String>,
    /// Begin and duration.
    since: Option<(u64, u64)>,
    detail: String,
}

#[derive(Default)]
struct Drafts(BTreeMap<Key, Draft>);

impl Drafts {
    fn about(&mut self, kind: ConditionKind, node: Option<NodeId>) -> &mut Draft {
        self.0.entry((kind, node, String::new())).or_default()
    }

    fn has(&self, kind: ConditionKind) -> bool {
        self.0.keys().any(|key| key.0 == kind)
    }
}

impl Draft {
    fn note(&mut self, report: &NodeReport, condition: &Condition) {
        let since = condition.since_ms;
        let held = report.now_ms.saturating_sub(since);
        if self.since.is_none_or(|(first, _)| since < first) {
            self.since = Some((since, held));
        }
        if self.detail.is_empty() {
            self.detail.clone_from(&condition.detail);
        }
    }

    fn subject(&mut self, subject: &str) {
        if let Some(group) = group_of(subject) {
            self.groups.insert(group);
        } else {
            self.subjects.insert(subject.to_owned());
        }
    }
}

/// Every problem once, the worst kinds first. An empty list: the nodes report no fault.
pub fn problems(status: &ClusterStatus, groups: &[GroupView]) -> Vec<Problem> {
    let mut drafts = Drafts::default();
    of_groups(status, groups, &mut drafts);
    for node in status.nodes.iter().filter(|node| node.report.is_none()) {
        let draft = drafts.about(ConditionKind::NodeSilent, Some(node.node));
        draft.detail.clone_from(&node.http);
    }
    for (node, report) in reports(status) {
        of_node(node, report, groups, &mut drafts);
    }
    for (node, report) in reports(status) {
        for condition in &report.conditions {
            reported(status, (node, report), condition, &mut drafts);
        }
        if report.conditions_left_out > 0 {
            let draft = drafts.about(ConditionKind::Other, Some(node));
            let more = report.conditions_left_out;
            draft.detail = format!("at least {more} conditions more than are listed");
        }
    }
    let finished = drafts.0.into_iter().map(|(key, draft)| finish(key, draft));
    let mut problems: Vec<Problem> = finished.collect();
    problems.sort_by_key(|problem| std::cmp::Reverse(problem.severity));
    problems
}

fn finish((kind, node, reason): Key, draft: Draft) -> Problem {
    Problem {
        kind,
        severity: kind.severity(),
        node,
        groups: draft.groups.into_iter().collect(),
        subjects: draft.subjects.into_iter().collect(),
        since_ms: draft.since.map(|since| since.0),
        for_ms: draft.since.map(|since| since.1),
        detail: if reason.is_empty() {
            draft.detail
        } else {
            reason
        },
        advice: kind.advice().to_owned(),
    }
}

fn of_groups(status: &ClusterStatus, groups: &[GroupView], drafts: &mut Drafts) {
    for group in groups.iter().filter(|g| g.state == Agreement::Differ) {
        let draft = drafts.about(ConditionKind::StatesDiffer, None);
        draft.groups.insert(group.group);
    }
    for group in groups {
        if let Err(reason) = &group.served {
            let key = (ConditionKind::GroupNotServed, None, reason.clone());
            let draft = drafts.0.entry(key).or_default();
            draft.groups.insert(group.group);
            for (_, report) in reports(status) {
                let conditions = report.conditions.iter();
                for condition in conditions.filter(|c| c.kind == ConditionKind::GroupNotServed) {
                    draft.note(report, condition);
                }
            }
        }
    }
}

/// The problems that a report itself shows, including reports of releases without conditions.
fn of_node(node: NodeId, report: &NodeReport, groups: &[GroupView], drafts: &mut Drafts) {
    if let Some(reason) = &report.not_ready {
        // Groups that are not served have a line of their own, and every node gives them as its
        // reason.
        if !drafts.has(ConditionKind::GroupNotServed) {
            let draft = drafts.about(ConditionKind::NodeNotReady, Some(node));
            draft.detail.clone_from(reason);
        }
    }
    for group in groups.iter().filter(|group| group.should_be_on(node)) {
        let replica = report.replicas.iter().find(|r| r.group == group.group);
        let kind = match replica.map(|replica| replica.role) {
            None if report.starting => continue,
            None => ConditionKind::ReplicaMissing,
            Some(Role::Stopped) => ConditionKind::GroupStopped,
            Some(Role::Learner) => ConditionKind::VoterIsLearner,
            Some(Role::Leader | Role::Follower | Role::Candidate) => continue,
        };
        drafts.about(kind, Some(node)).groups.insert(group.group);
    }
    if report.low_space {
        drafts.about(ConditionKind::LowSpace, Some(node));
    }
    let parked: u64 = report.replicas.iter().map(|r| u64::from(r.parked)).sum();
    if parked > 0 {
        let draft = drafts.about(ConditionKind::PacksMissing, Some(node));
        let noun = if parked == 1 {
            "repository"
        } else {
            "repositories"
        };
        draft.detail = format!("{parked} {noun}");
    }
}

/// The conditions that a node reports: about itself, about another node, or about another node's
/// replica.
fn reported(
    status: &ClusterStatus,
    (node, report): (NodeId, &NodeReport),
    condition: &Condition,
    drafts: &mut Drafts,
) {
    let (kind, subject) = (condition.kind, condition.subject.as_str());
    if kind == ConditionKind::GroupNotServed {
        // Judged from all reports together; its begin was taken there.
        return;
    }
    if kind == ConditionKind::NodeSilent {
        let Some(other) = node_of(subject) else {
            return;
        };
        let answers = reports(status).any(|(answering, _)| answering == other);
        let draft = drafts.about(kind, Some(other));
        if answers && draft.detail.is_empty() {
            draft.detail = format!("node {node} does not hear it");
        }
        draft.note(report, condition);
        return;
    }
    if matches!(
        kind,
        ConditionKind::OldCopy | ConditionKind::ReplicaLogWentBack
    ) && let Some(other) = node_of(subject)
    {
        // Other members report it about the node; the node itself does not run, or does not detect
        // it.
        drafts.about(kind, Some(other)).note(report, condition);
        return;
    }
    let on_another = subject
        .split_once(" on ")
        .filter(|_| kind == ConditionKind::ReplicaLags);
    let (about, subject) = match on_another {
        Some((subject, other)) => (node_of(other).unwrap_or(node), subject),
        None => (node, subject),
    };
    let draft = drafts.about(kind, Some(about));
    draft.subject(subject);
    draft.note(report, condition);
}

fn node_of(subject: &str) -> Option<NodeId> {
    let number = subject.strip_prefix("node ")?;
    number.parse().ok().map(NodeId::new)
}

/// The detail of the lag that is reported for a group's replica on a node, from any reporting node.
pub(super) fn lagging_subject(
    status: &ClusterStatus,
    group: GroupId,
    node: NodeId,
) -> Option<&str> {
    let subject = lag_subject(group, node);
    let conditions = reports(status).flat_map(|(_, report)| &report.conditions);
    let mut lags = conditions.filter(|c| c.kind == ConditionKind::ReplicaLags);
    lags.find(|condition| condition.subject == subject)
        .map(|condition| condition.detail.as_str())
}

/// The subject under which the lag of a group's replica on a node is reported.
pub fn lag_subject(group: GroupId, node: NodeId) -> String {
    format!("{} on node {node}", group_name(group))
}
