//! Commands whose reply is a type of their own.
//!
//! `Cluster::call` takes and answers enums. A caller with one of the bodies below knows its reply,
//! and [`TypedCommand::reply_from`] reads it. Commands whose fields stand in the variant itself
//! have no body yet.

use super::{
    Command, ConfigureRepo, CreateRepo, EditRepo, ForkRepo, MetaCommand, PrunePacks, ReplacePacks,
    ShardCommand, SignedUpdate, UpdateRefs,
};
use crate::certificates::NonceSeed;
use crate::mirrors::{BeginMirror, ChangeMirror, EditMirror, RecordMirror, SetMirror};
use crate::records::{NodeRecord, RepoRecord};
use crate::reply::{NotAccepted, RefVerdict, Reply, TypedReply};
use crate::starts::RegisterStart;

/// The body of a command, with the type of its reply.
pub trait TypedCommand: Into<Command> {
    /// The reply when the command is accepted.
    type Reply: TypedReply;

    /// Reads the reply to this command.
    ///
    /// # Errors
    /// When the command was not accepted.
    fn reply_from(reply: Reply) -> Result<Self::Reply, NotAccepted> {
        <Self::Reply as TypedReply>::from_reply(reply)
    }
}

macro_rules! typed {
    ($($group:ident($commands:ident::$variant:ident($body:ty)) -> $reply:ty;)+) => {
        $(
            impl From<$body> for Command {
                fn from(body: $body) -> Self {
                    Self::$group($commands::$variant(body))
                }
            }

            impl TypedCommand for $body {
                type Reply = $reply;
            }
        )+
    };
}

typed! {
    Meta(MetaCommand::RegisterNode(NodeRecord)) -> ();
    Meta(MetaCommand::ReserveRepo(CreateRepo)) -> RepoRecord;
    Meta(MetaCommand::EditRepo(EditRepo)) -> RepoRecord;
    Meta(MetaCommand::RegisterStart(RegisterStart)) -> ();
    Shard(ShardCommand::UpdateRefs(UpdateRefs)) -> Vec<RefVerdict>;
    Shard(ShardCommand::UpdateSignedRefs(SignedUpdate)) -> Vec<RefVerdict>;
    Shard(ShardCommand::ReplacePacks(ReplacePacks)) -> ();
    Shard(ShardCommand::PrunePacks(PrunePacks)) -> ();
    Shard(ShardCommand::ForkRepo(ForkRepo)) -> ();
    Shard(ShardCommand::ConfigureRepo(ConfigureRepo)) -> ();
    Shard(ShardCommand::SetMirror(SetMirror)) -> ();
    Shard(ShardCommand::ChangeMirror(ChangeMirror)) -> ();
    Shard(ShardCommand::BeginMirror(BeginMirror)) -> ();
    Shard(ShardCommand::RecordMirror(RecordMirror)) -> ();
    Shard(ShardCommand::EditMirror(EditMirror)) -> ();
    Shard(ShardCommand::SetNonceSeed(NonceSeed)) -> ();
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::{Generation, LogIndex, NetworkId, RepoId};

    fn agrees<C: TypedCommand>(body: C) {
        let command: Command = body.into();
        let kind = <C::Reply as TypedReply>::KIND;
        assert_eq!(command.reply_kind(), kind, "{command:?}");
    }

    #[test]
    fn the_type_of_a_reply_is_of_the_kind_of_the_row() {
        let (repo, network) = (RepoId::from_bytes([1; 16]), NetworkId::from_bytes([2; 16]));
        agrees(EditRepo::nothing(repo));
        agrees(ForkRepo {
            repo,
            network,
            generation: Generation::new(1),
            parent: repo,
        });
        agrees(UpdateRefs {
            repo,
            generation: Generation::new(1),
            packs: Vec::new(),
            updates: Vec::new(),
            atomic: false,
            pusher: String::new(),
            options: Vec::new(),
            checked_at: LogIndex::new(1),
        });
    }
}
