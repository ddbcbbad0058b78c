//! Which release understands a command.

use super::{
    Command, CreateRepo, MetaCommand, ShardCommand, VERSION_MIRROR_REMOVALS, VERSION_PUSH_RULES,
    VERSION_REPLACE_PACKS, VERSION_REPOS, VERSION_STARTS_AND_TIME,
};
use crate::mirrors::{EditMirror, MirrorChange, MirrorWord, SetMirror};
use crate::object::ObjectFormat;

/// What every release understands.
const FIRST: u32 = 1;

impl Command {
    /// The release level that a group must be at before the command may be proposed to it: an older replica
    /// would stop at it.
    pub const fn level(&self) -> u32 {
        match self {
            // It says so itself, to those who must stop at it.
            Self::VersionBarrier { .. } => FIRST,
            Self::MoveTime { .. } => VERSION_STARTS_AND_TIME,
            Self::Meta(command) => command.level(),
            Self::Shard(command) => command.level(),
        }
    }
}

impl MetaCommand {
    const fn level(&self) -> u32 {
        match self {
            Self::ReserveRepo(create) if !create.is_of_level_1() => VERSION_REPOS,
            Self::EditRepo(_) | Self::MarkRepoTold { .. } => VERSION_REPOS,
            Self::RegisterStart(_) => VERSION_STARTS_AND_TIME,
            Self::FormCluster { .. }
            | Self::RegisterNode(_)
            | Self::ReserveRepo(_)
            | Self::MarkRepoReady { .. }
            | Self::AbandonRepo { .. }
            | Self::DeleteRepo { .. }
            | Self::MarkRepoDropped { .. } => FIRST,
        }
    }
}

impl ShardCommand {
    const fn level(&self) -> u32 {
        match self {
            Self::CreateRepo {
                object_format: ObjectFormat::Sha256,
                ..
            }
            | Self::ConfigureRepo(_)
            | Self::ProtectRefs { .. }
            | Self::UnprotectRefs { .. }
            | Self::BeginMirror(_)
            | Self::UpdateSignedRefs(_)
            | Self::SetNonceSeed(_) => VERSION_REPOS,
            Self::SetMirror(SetMirror { removal, .. })
            | Self::EditMirror(EditMirror { removal, .. }) => match removal {
                None => VERSION_REPOS,
                Some(_) => VERSION_MIRROR_REMOVALS,
            },
            Self::ChangeMirror(change) => match change.change {
                MirrorChange::Remove | MirrorChange::Due => VERSION_REPOS,
                MirrorChange::DueWhateverItRemoves => VERSION_MIRROR_REMOVALS,
            },
            Self::RecordMirror(record) => match record.word {
                MirrorWord::Working { .. } | MirrorWord::Ended(_) => VERSION_REPOS,
                MirrorWord::CameThrough { .. } => VERSION_MIRROR_REMOVALS,
            },
            Self::CreateRepo { .. }
            | Self::DropRepo { .. }
            | Self::UpdateRefs(_)
            | Self::SetHead { .. } => FIRST,
            Self::ReplacePacks(_) => VERSION_REPLACE_PACKS,
            Self::SetPushRules { .. } => VERSION_PUSH_RULES,
            Self::MarkUnreachable { .. }
            | Self::PrunePacks(_)
            | Self::ForkRepo(_)
            | Self::SetLimits { .. } => VERSION_REPOS,
        }
    }
}

impl CreateRepo {
    /// Whether the first release could say it.
    pub(super) const fn is_of_level_1(&self) -> bool {
        matches!(self.object_format, ObjectFormat::Sha1) && self.forked_from.is_none()
    }
}
