//! The packs that a command names.

use std::slice;

use super::{Command, PackRef, ShardCommand};

impl Command {
    /// The packs that the manifest names once the command is accepted, in the order of the command.
    pub fn packs(&self) -> &[PackRef] {
        match self {
            Self::VersionBarrier { .. } | Self::MoveTime { .. } | Self::Meta(_) => &[],
            Self::Shard(command) => command.packs(),
        }
    }
}

impl ShardCommand {
    fn packs(&self) -> &[PackRef] {
        match self {
            Self::UpdateRefs(push) => &push.packs,
            Self::UpdateSignedRefs(signed) => &signed.push.packs,
            Self::ReplacePacks(replace) => slice::from_ref(&replace.new),
            Self::PrunePacks(prune) => prune.new.as_slice(),
            Self::CreateRepo { .. }
            | Self::DropRepo { .. }
            | Self::SetHead { .. }
            | Self::MarkUnreachable { .. }
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
            | Self::SetNonceSeed(_)
            | Self::EditMirror(_) => &[],
        }
    }
}
