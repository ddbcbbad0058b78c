//! Edits of a repository's settings in the catalogue.
//!
//! The catalogue holds the settings. Settings that a shard needs (HEAD, archived, the generation)
//! are marked as pending until the shard has acknowledged them. The leader of the meta group finds
//! the marks again, and the shard skips revisions older than its own.

use henge_types::limits::{DESCRIPTION_BYTES_MAX, TOPICS_MAX};
use henge_types::{
    EditRepo, LogIndex, Refusal, Reply, RepoId, RepoRecord, RepoState, Topic, TopicsEdit,
};

use super::naming::{self, Head};
use super::{MetaView, catalogue};
use crate::apply::Entry;
use crate::changes::Changes;
use crate::keys;
use crate::outcome::Outcome;
use crate::view::View;

/// All or nothing. The reply is the record after the edit.
pub(super) fn edit(
    changes: &mut Changes<'_, impl View>,
    entry: &Entry,
    edit: &EditRepo,
) -> Outcome {
    let before = MetaView::new(changes.before());
    let Some(known) = before.repo(&edit.repo) else {
        return catalogue::refused(Refusal::NoSuchRepo { repo: edit.repo });
    };
    match known.state {
        RepoState::Ready => {}
        RepoState::Reserved => return catalogue::wrong_state(&known),
        RepoState::Deleting | RepoState::Deleted => {
            return catalogue::refused(Refusal::NoSuchRepo { repo: edit.repo });
        }
    }
    let holder = edit.path.as_ref().and_then(|to| before.repo_by_path(to));
    if let Some(holder) = holder.filter(|holder| holder.repo != edit.repo) {
        return catalogue::refused(Refusal::NameTaken {
            path: holder.path,
            by: holder.repo,
        });
    }
    let topics = match topics(&known.topics, &edit.topics) {
        Ok(topics) => topics,
        Err(refusal) => return catalogue::refused(refusal),
    };
    if !is_well_formed(edit) {
        return catalogue::refused(Refusal::Invalid);
    }
    let mut record = RepoRecord {
        description: edit
            .description
            .clone()
            .unwrap_or_else(|| known.description.clone()),
        private: edit.private.unwrap_or(known.private),
        archived: edit.archived.unwrap_or(known.archived),
        default_branch: edit
            .default_branch
            .clone()
            .unwrap_or_else(|| known.default_branch.clone()),
        topics,
        ..known.clone()
    };
    if let Some(to) = &edit.path {
        naming::rename(changes, entry, &mut record, to);
    }
    let head = match edit.default_branch {
        // Also when the catalogue has this branch: a push may have moved HEAD.
        Some(_) => Head::Changed,
        None => Head::AsItIs,
    };
    if head == Head::Changed || record.archived != known.archived {
        naming::untold(changes, entry, &record, head);
    }
    if record != known {
        // Also when the clock stepped back: the record must show the change.
        record.updated_at_ms = entry.now_ms.max(known.updated_at_ms.saturating_add(1));
        catalogue::put(changes, &record);
    }
    Outcome::reply(Reply::Repo(record))
}

fn is_well_formed(edit: &EditRepo) -> bool {
    let branch = edit.default_branch.as_ref();
    let description = edit.description.as_ref();
    branch.is_none_or(henge_types::RefName::is_branch)
        && description.is_none_or(|line| line.len() <= DESCRIPTION_BYTES_MAX)
}

/// Sorted, without duplicates.
fn topics(known: &[Topic], edit: &TopicsEdit) -> Result<Vec<Topic>, Refusal> {
    let mut topics = match edit {
        TopicsEdit::Keep => return Ok(known.to_vec()),
        TopicsEdit::Set(topics) => topics.clone(),
        TopicsEdit::Add(topic) => known.iter().chain([topic]).cloned().collect(),
        TopicsEdit::Remove(gone) => known
            .iter()
            .filter(|topic| *topic != gone)
            .cloned()
            .collect(),
    };
    topics.sort();
    topics.dedup();
    if topics.len() > TOPICS_MAX {
        return Err(Refusal::TooMany);
    }
    Ok(topics)
}

/// The shard has acknowledged the settings. A mark of a later revision stays.
pub(super) fn mark_told(
    changes: &mut Changes<'_, impl View>,
    repo: &RepoId,
    revision: LogIndex,
) -> Outcome {
    let mark = MetaView::new(changes.before()).untold_of(repo);
    if mark.is_some_and(|mark| mark.revision <= revision) {
        changes.delete(keys::untold(repo));
    }
    catalogue::done()
}
