//! The table of commands: a row each, and the methods and constants derived from the rows.

use super::{
    Command, CreateRepo, MetaCommand, ShardCommand, VERSION_FIRST, VERSION_MIRROR_REMOVALS,
    VERSION_PUSH_RULES, VERSION_REPLACE_PACKS, VERSION_REPOS, VERSION_STARTS_AND_TIME,
};
use crate::mirrors::{ChangeMirror, EditMirror, MirrorChange, MirrorWord, RecordMirror, SetMirror};
use crate::object::ObjectFormat;
use crate::reply::ReplyKind;
use crate::stored::{self, DecodeError, Location, Row};

/// Expands a table into its rows and into three methods of its commands: `row`, `encode` and
/// `decode_body`.
///
/// A variant is used twice: as the pattern that a command is encoded from, and as the expression
/// that it is decoded to. The first row that matches a command is its row, so the row of an earlier
/// release stands before that of a later one. Example: a mirror without a removal is 76, one with
/// it is 96.
macro_rules! commands {
    (
        $(#[$doc:meta])*
        $table:ident: $commands:ident and those in ($($inner:ident),*), from $first:literal;
        $(
            $number:literal $name:ident $level:ident $reply:ident:
            [$($variant:tt)+] $(if ($guard:expr))? = ($($field:ident),+);
        )+
    ) => {
        $(#[$doc])*
        pub const $table: &[Row] = &[$(
            Row {
                number: $number,
                name: stringify!($name),
                levels: &[$level],
                location: Location::Proposal(ReplyKind::$reply),
            }
        ),+];

        impl $commands {
            /// The row of the command.
            #[expect(unused_variables, reason = "the fields are bound for the stored form")]
            pub const fn row(&self) -> Row {
                match self {
                    $(Self::$($variant)+ $(if $guard)? => {
                        const ROW: Row = Row {
                            number: $number,
                            name: stringify!($name),
                            levels: &[$level],
                            location: Location::Proposal(ReplyKind::$reply),
                        };
                        ROW
                    })+
                    $(Self::$inner(command) => command.row(),)*
                }
            }

            /// The stored form.
            pub fn encode(&self) -> Vec<u8> {
                match self {
                    $(Self::$($variant)+ $(if $guard)? => {
                        stored::encode($number, 1, &($($field,)+))
                    })+
                    $(Self::$inner(command) => command.encode(),)*
                }
            }

            fn decode_body(number: u16, version: u16, bytes: &[u8]) -> Result<Self, DecodeError> {
                match number {
                    $($number => {
                        let ($($field,)+) = stored::body(number, version, bytes)?;
                        Ok(Self::$($variant)+)
                    })+
                    _ => Err(DecodeError::Number {
                        expected: $first,
                        found: number,
                    }),
                }
            }
        }
    };
}

// number, name, release level, reply: [variant] = (stored fields).
commands! {
    /// Commands of either kind of group.
    GROUP_COMMANDS: Command and those in (Meta, Shard), from 1;

    1 version_barrier VERSION_FIRST Done: [VersionBarrier { version }] = (version);
    3 move_time VERSION_STARTS_AND_TIME Done: [MoveTime { clocks }] = (clocks);
}

commands! {
    /// Commands of the meta group.
    META_COMMANDS: MetaCommand and those in (), from 16;

    16 form_cluster VERSION_FIRST Done:
        [FormCluster { cluster, replication, nodes, placements }]
        = (cluster, replication, nodes, placements);
    17 register_node VERSION_FIRST Done: [RegisterNode(node)] = (node);
    18 reserve_repo VERSION_FIRST Repo:
        [ReserveRepo(CreateRepo {
            repo, network, path, default_branch, private, description,
            object_format: ObjectFormat::Sha1, forked_from: None
        })]
        = (repo, network, path, default_branch, private, description);
    19 mark_repo_ready VERSION_FIRST Done: [MarkRepoReady { repo }] = (repo);
    20 abandon_repo VERSION_FIRST Done: [AbandonRepo { repo }] = (repo);
    21 delete_repo VERSION_FIRST Done: [DeleteRepo { repo }] = (repo);
    22 mark_repo_dropped VERSION_FIRST Done: [MarkRepoDropped { repo }] = (repo);
    23 reserve_repo VERSION_REPOS Repo:
        [ReserveRepo(CreateRepo {
            repo, network, path, default_branch, private, description, object_format, forked_from
        })]
        = (repo, network, path, default_branch, private, description, object_format, forked_from);
    24 edit_repo VERSION_REPOS Repo: [EditRepo(edit)] = (edit);
    25 mark_repo_told VERSION_REPOS Done: [MarkRepoTold { repo, revision }] = (repo, revision);
    38 register_start VERSION_STARTS_AND_TIME Done: [RegisterStart(register)] = (register);
}

commands! {
    /// Commands of a shard.
    SHARD_COMMANDS: ShardCommand and those in (), from 64;

    64 create_repo VERSION_FIRST Done:
        [CreateRepo { repo, network, generation, head, object_format: ObjectFormat::Sha1 }]
        = (repo, network, generation, head);
    65 drop_repo VERSION_FIRST Done: [DropRepo { repo }] = (repo);
    66 update_refs VERSION_FIRST RefsUpdated: [UpdateRefs(push)] = (push);
    67 set_head VERSION_FIRST Done: [SetHead { repo, generation, head }] = (repo, generation, head);
    68 replace_packs VERSION_REPLACE_PACKS Done: [ReplacePacks(replace)] = (replace);
    69 create_repo VERSION_REPOS Done:
        [CreateRepo { repo, network, generation, head, object_format }]
        = (repo, network, generation, head, object_format);
    70 configure_repo VERSION_REPOS Done: [ConfigureRepo(settings)] = (settings);
    71 protect_refs VERSION_REPOS Done:
        [ProtectRefs { repo, generation, pattern }] = (repo, generation, pattern);
    72 unprotect_refs VERSION_REPOS Done:
        [UnprotectRefs { repo, generation, pattern }] = (repo, generation, pattern);
    76 set_mirror VERSION_REPOS Done:
        [SetMirror(SetMirror { repo, generation, mirror, settings, removal: None })]
        = (repo, generation, mirror, settings);
    77 change_mirror VERSION_REPOS Done:
        [ChangeMirror(change)] if (is_first_change(change)) = (change);
    78 begin_mirror VERSION_REPOS Done: [BeginMirror(begin)] = (begin);
    79 record_mirror VERSION_REPOS Done:
        [RecordMirror(record)] if (is_first_word(record)) = (record);
    84 mark_unreachable VERSION_REPOS Done:
        [MarkUnreachable { network, instead_of, found }] = (network, instead_of, found);
    85 prune_packs VERSION_REPOS Done: [PrunePacks(prune)] = (prune);
    86 fork_repo VERSION_REPOS Done: [ForkRepo(fork)] = (fork);
    87 set_limits VERSION_REPOS Done:
        [SetLimits { repo, generation, limits }] = (repo, generation, limits);
    88 update_signed_refs VERSION_REPOS RefsUpdated: [UpdateSignedRefs(signed)] = (signed);
    89 set_nonce_seed VERSION_REPOS Done: [SetNonceSeed(seed)] = (seed);
    92 edit_mirror VERSION_REPOS Done:
        [EditMirror(EditMirror {
            repo, generation, mirror, url, secret, interval_ms, on_push, removal: None
        })]
        = (repo, generation, mirror, url, secret, interval_ms, on_push);
    93 set_push_rules VERSION_PUSH_RULES Done:
        [SetPushRules { repo, generation, rules }] = (repo, generation, rules);
    96 set_mirror VERSION_MIRROR_REMOVALS Done:
        [SetMirror(SetMirror { repo, generation, mirror, settings, removal: Some(removal) })]
        = (repo, generation, mirror, settings, removal);
    97 edit_mirror VERSION_MIRROR_REMOVALS Done:
        [EditMirror(EditMirror {
            repo, generation, mirror, url, secret, interval_ms, on_push, removal: Some(removal)
        })]
        = (repo, generation, mirror, url, secret, interval_ms, on_push, removal);
    98 change_mirror VERSION_MIRROR_REMOVALS Done: [ChangeMirror(change)] = (change);
    99 record_mirror VERSION_MIRROR_REMOVALS Done: [RecordMirror(record)] = (record);
}

/// Whether number 77 can encode the change. A new change is of the release level that adds it.
const fn is_first_change(change: &ChangeMirror) -> bool {
    match change.change {
        MirrorChange::Remove | MirrorChange::Due => true,
        MirrorChange::DueWhateverItRemoves => false,
    }
}

/// Whether number 79 can encode the report. A new kind of report is of the release level that adds
/// it.
const fn is_first_word(record: &RecordMirror) -> bool {
    match record.word {
        MirrorWord::Working { .. } | MirrorWord::Ended(_) => true,
        MirrorWord::CameThrough { .. } => false,
    }
}

/// The tables of commands.
pub(crate) const fn tables() -> [&'static [Row]; 3] {
    [GROUP_COMMANDS, META_COMMANDS, SHARD_COMMANDS]
}

/// Numbers of commands of the meta group, future ones included.
const META: std::ops::RangeInclusive<u16> = 16..=63;
/// Numbers of commands of a shard, future ones included.
const SHARD: std::ops::RangeInclusive<u16> = 64..=127;

impl Command {
    /// The number, for logs.
    pub const fn number(&self) -> u16 {
        self.row().number
    }

    /// The name, for logs and metrics.
    pub const fn name(&self) -> &'static str {
        self.row().name
    }

    /// The release level that a group must have before the command may be proposed to it: an older
    /// replica would stop at it. A version barrier names its level itself, for replicas that must
    /// stop.
    pub const fn level(&self) -> u32 {
        self.row().since()
    }

    /// The kind of reply that the command has when it is accepted.
    ///
    /// # Panics
    /// Never: each row of the tables here lies in a proposal.
    pub const fn reply_kind(&self) -> ReplyKind {
        match self.row().location {
            Location::Proposal(kind) => kind,
            Location::State
            | Location::Raft
            | Location::File
            | Location::Message
            | Location::Nowhere => panic!("invariant: a command lies in a proposal"),
        }
    }

    /// Reads the stored form.
    ///
    /// # Errors
    /// When the number or version is unknown or the body is broken.
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let (number, version, body) = stored::open(bytes)?;
        if version != 1 {
            return Err(DecodeError::Version {
                number,
                version,
                known: 1,
            });
        }
        if META.contains(&number) {
            MetaCommand::decode_body(number, version, body).map(Self::Meta)
        } else if SHARD.contains(&number) {
            ShardCommand::decode_body(number, version, body).map(Self::Shard)
        } else {
            Self::decode_body(number, version, body)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_lie_in_the_range_of_their_group() {
        for row in GROUP_COMMANDS {
            assert!((1..*META.start()).contains(&row.number), "{row:?}");
        }
        for row in META_COMMANDS {
            assert!(META.contains(&row.number), "{row:?}");
        }
        for row in SHARD_COMMANDS {
            assert!(SHARD.contains(&row.number), "{row:?}");
        }
    }

    #[test]
    fn an_unknown_command_number_is_an_error_and_names_itself() {
        for (found, expected) in [(2, 1), (9999, 1), (63, 16), (127, 64)] {
            let bytes = stored::encode(found, 1, &0_u8);
            let error = DecodeError::Number { expected, found };
            assert_eq!(Command::decode(&bytes), Err(error));
        }
    }

    #[test]
    fn a_newer_version_asks_for_an_upgrade() {
        let bytes = stored::encode(66, 2, &0_u8);
        assert_eq!(
            Command::decode(&bytes),
            Err(DecodeError::Version {
                number: 66,
                version: 2,
                known: 1
            })
        );
    }

    #[test]
    fn what_an_earlier_release_says_has_the_earlier_row() {
        for (name, numbers) in [
            ("reserve_repo", &[18_u16, 23][..]),
            ("create_repo", &[64, 69][..]),
            ("set_mirror", &[76, 96][..]),
            ("change_mirror", &[77, 98][..]),
            ("record_mirror", &[79, 99][..]),
            ("edit_mirror", &[92, 97][..]),
        ] {
            let rows = tables().into_iter().flatten();
            let rows: Vec<_> = rows.filter(|row| row.name == name).collect();
            let found: Vec<_> = rows.iter().map(|row| row.number).collect();
            assert_eq!(found, numbers, "{name}");
            assert!(rows.is_sorted_by_key(|row| row.since()), "{name}");
        }
    }
}
