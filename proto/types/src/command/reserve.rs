//! The commands that are proposed even when the log has only its reserve left.

use super::{Command, MetaCommand, ShardCommand};

impl Command {
    /// Whether the command may use the log's reserve: a command that a cluster needs in order to
    /// heal is never refused for want of space.
    pub const fn uses_reserve(&self) -> bool {
        match self {
            Self::VersionBarrier { .. } | Self::MoveTime { .. } => true,
            Self::Meta(command) => command.uses_reserve(),
            Self::Shard(command) => command.uses_reserve(),
        }
    }
}

impl MetaCommand {
    const fn uses_reserve(&self) -> bool {
        match self {
            // Members and their starts.
            Self::FormCluster { .. } | Self::RegisterNode(_) | Self::RegisterStart(_) => true,
            // The end of a deletion.
            Self::MarkRepoDropped { .. } => true,
            Self::ReserveRepo(_)
            | Self::MarkRepoReady { .. }
            | Self::AbandonRepo { .. }
            | Self::DeleteRepo { .. }
            | Self::EditRepo(_)
            | Self::MarkRepoTold { .. } => false,
        }
    }
}

impl ShardCommand {
    const fn uses_reserve(&self) -> bool {
        match self {
            // They free space.
            Self::DropRepo { .. } | Self::MarkUnreachable { .. } | Self::PrunePacks(_) => true,
            Self::CreateRepo { .. }
            | Self::UpdateRefs(_)
            | Self::SetHead { .. }
            | Self::ReplacePacks(_)
            | Self::ForkRepo(_)
            | Self::SetLimits { .. }
            | Self::SetPushRules { .. }
            | Self::ConfigureRepo(_)
            | Self::ProtectRefs { .. }
            | Self::UnprotectRefs { .. }
            | Self::SetMirror(_)
            | Self::ChangeMirror(_)
            | Self::BeginMirror(_)
            | Self::RecordMirror(_)
            | Self::UpdateSignedRefs(_)
            | Self::SetNonceSeed(_)
            | Self::EditMirror(_) => false,
        }
    }
}
