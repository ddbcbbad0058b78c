//! The table of records: everything that is stored and is not a command.

use super::{DecodeError, Location, Row};
use crate::certificates::{NonceSeed, PushCertificateRecord};
use crate::command::{
    self, VERSION_FIRST, VERSION_MIRROR_REMOVALS, VERSION_PUSH_RULES, VERSION_REPOS,
    VERSION_STARTS_AND_TIME,
};
use crate::mirrors::{Mirror, MirrorRemovalRecord};
use crate::records::{
    ClusterRecord, NodeRecord, PackRecord, PruneMark, PushRules, RefProtections, RepoLimits,
    ShardPlacement, UntoldRecord,
};
use crate::starts::StartRecord;
use crate::status::CheckOutcome;

/// A record with a row in the table.
pub trait StoredRecord: Sized {
    /// The row.
    const ROW: Row;

    /// The stored form.
    fn encode(&self) -> Vec<u8>;

    /// Reads the stored form.
    ///
    /// # Errors
    /// When the bytes are broken, another record, or of a newer release.
    fn decode(bytes: &[u8]) -> Result<Self, DecodeError>;
}

/// Expands the table into [`number`], a constant of [`Row`] for each record, [`RECORDS`], and a
/// [`StoredRecord`] for each type behind `of`. Such a type has one version, and its postcard form
/// is the body. A record without `of` is encoded beside its type.
macro_rules! records {
    ($(
        $(#[$doc:meta])*
        $constant:ident = $number:literal $name:literal $location:ident [$($level:ident),+] $(of $body:ty)?;
    )+) => {
        /// Numbers of records.
        pub mod number {
            $(
                $(#[$doc])*
                pub const $constant: u16 = $number;
            )+
        }

        impl Row {
            $(
                $(#[$doc])*
                pub const $constant: Self = Self {
                    number: $number,
                    name: $name,
                    levels: &[$($level),+],
                    location: Location::$location,
                };
            )+
        }

        /// Every record.
        pub const RECORDS: &[Row] = &[$(Row::$constant),+];

        $($(
            impl StoredRecord for $body {
                const ROW: Row = Row::$constant;

                fn encode(&self) -> Vec<u8> {
                    super::encode(number::$constant, 1, self)
                }

                fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
                    super::decode_v1(number::$constant, bytes)
                }
            }
        )?)+
    };
}

// constant = number, name, location, [the release level of each version], type.
records! {
    /// A proposal inside a log entry.
    PROPOSAL = 1000 "proposal" Raft [VERSION_FIRST];
    /// The head of a snapshot file: the store writes a head of its own.
    SNAPSHOT = 1001 "snapshot" Nowhere [VERSION_FIRST];
    /// A cluster record in the meta group's state.
    CLUSTER_RECORD = 1010 "cluster" State [VERSION_FIRST] of ClusterRecord;
    /// A node record in the meta group's state.
    NODE_RECORD = 1011 "node" State [VERSION_FIRST] of NodeRecord;
    /// A shard's placement in the meta group's state.
    SHARD_PLACEMENT = 1012 "placement" State [VERSION_FIRST] of ShardPlacement;
    /// A repository in the meta group's catalogue.
    REPO_RECORD = 1013 "repo" State [VERSION_FIRST, VERSION_REPOS];
    /// Settings of a repository that its shard has not acknowledged.
    UNTOLD_RECORD = 1014 "untold" State [VERSION_REPOS] of UntoldRecord;
    /// The last registered start of a member, in the meta group's state.
    START_RECORD = 1015 "start_record" State [VERSION_STARTS_AND_TIME] of StartRecord;
    /// A repository in its shard.
    SHARD_REPO = 1020 "shard_repo" State [VERSION_FIRST, VERSION_REPOS];
    /// A pack in a shard's manifest.
    PACK_RECORD = 1021 "pack" State [VERSION_FIRST] of PackRecord;
    /// The protected refs of a repository.
    REF_PROTECTIONS = 1022 "protections" State [VERSION_REPOS] of RefProtections;
    /// A mirror in its shard.
    MIRROR = 1024 "mirror" State [VERSION_REPOS] of Mirror;
    /// The removals that runs of a mirror are allowed.
    MIRROR_REMOVAL = 1025 "mirror_removal" State [VERSION_MIRROR_REMOVALS] of MirrorRemovalRecord;
    /// A network's mark for dropping unreachable objects.
    PRUNE_MARK = 1026 "prune_mark" State [VERSION_REPOS] of PruneMark;
    /// The limits of a repository.
    REPO_LIMITS = 1027 "repo_limits" State [VERSION_REPOS] of RepoLimits;
    /// The rules for pushes to a repository.
    PUSH_RULES = 1028 "push_rules" State [VERSION_PUSH_RULES] of PushRules;
    /// The record of a request and its reply; version 2 is the compact one.
    REQUEST_RECORD = 1030 "request" State [VERSION_FIRST, VERSION_STARTS_AND_TIME];
    /// The generation of request records that is being filled.
    REQUEST_GENERATION = 1031 "request_generation" State [VERSION_STARTS_AND_TIME];
    /// A push certificate that a repository keeps. The number is one of `SHARED_NUMBERS`.
    PUSH_CERTIFICATE = 1040 "push_certificate" State [VERSION_REPOS] of PushCertificateRecord;
    /// The seed of a shard's nonces. The number is one of `SHARED_NUMBERS`.
    NONCE_SEED = 1041 "nonce_seed" State [VERSION_REPOS] of NonceSeed;
    /// A log entry. The number is one of `SHARED_NUMBERS`.
    LOG_ENTRY = 1040 "log_entry" Raft [VERSION_FIRST];
    /// A vote. The number is one of `SHARED_NUMBERS`.
    VOTE = 1041 "vote" Raft [VERSION_FIRST];
    /// A log id.
    LOG_ID = 1042 "log_id" Raft [VERSION_FIRST];
    /// A replica's position: its applied log id and its membership.
    POSITION = 1043 "position" Raft [VERSION_FIRST];
    /// A reply on the way to the node that proposed.
    REPLY = 1044 "reply" Message [VERSION_FIRST];
    /// The claims of a staged pack, beside it.
    CLAIMS = 1060 "claims" File [VERSION_FIRST];
    /// The outcome of the last check of a network's store, beside it.
    LAST_CHECK = 1061 "last_check" File [VERSION_FIRST] of CheckOutcome;
}

/// Numbers that two records have, each with the reason why no reader confuses them. A new record
/// never takes one.
pub const SHARED_NUMBERS: &[(u16, &str)] = &[
    (
        number::PUSH_CERTIFICATE,
        "a push certificate lies in a shard's state behind the tag 2c; a log entry lies in the \
         write-ahead log in records of kind 1 or 2, or in a message that appends entries",
    ),
    (
        number::NONCE_SEED,
        "a seed lies in a shard's state behind the tag 2d; a vote lies in the write-ahead log in \
         records of kind 3, or in a message that names a leader",
    ),
];

/// Every row: those of commands, then those of records.
pub fn rows() -> impl Iterator<Item = &'static Row> {
    command::tables().into_iter().flatten().chain(RECORDS)
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use super::*;
    use crate::status::CheckProblem;

    const LAST_CHECK: &str = include_str!("../../tests/golden/last_check.hex");

    /// Numbers are on disks. The whole workspace takes its numbers from these tables: the tidy test
    /// refuses others.
    #[test]
    fn every_number_stands_for_one_thing() {
        let mut names: BTreeMap<u16, Vec<&str>> = BTreeMap::new();
        for row in rows() {
            names.entry(row.number).or_default().push(row.name);
        }
        let shared: BTreeMap<_, _> = names.iter().filter(|(_, names)| names.len() > 1).collect();
        let listed: BTreeSet<_> = SHARED_NUMBERS.iter().map(|(number, _)| number).collect();
        let found: BTreeSet<_> = shared.keys().copied().collect();
        assert_eq!(found, listed, "numbers with two rows: {shared:?}");
        assert!(shared.values().all(|names| names.len() == 2), "{shared:?}");
    }

    #[test]
    fn shared_numbers_lie_in_the_state_and_in_the_log() {
        for (number, _) in SHARED_NUMBERS {
            let locations: Vec<_> = RECORDS
                .iter()
                .filter(|row| row.number == *number)
                .map(|row| row.location)
                .collect();
            assert_eq!(locations, [Location::State, Location::Raft], "{number}");
        }
    }

    #[test]
    fn levels_rise_with_versions_and_are_known() {
        for row in rows() {
            assert!(!row.levels.is_empty(), "{row:?}");
            assert!(row.levels.is_sorted(), "{row:?}");
            let known = 1..=command::VERSION_KNOWN;
            assert!(
                row.levels.iter().all(|level| known.contains(level)),
                "{row:?}"
            );
        }
    }

    #[test]
    fn names_of_records_are_different() {
        let names: BTreeSet<_> = RECORDS.iter().map(|row| row.name).collect();
        assert_eq!(names.len(), RECORDS.len());
    }

    #[test]
    fn the_last_check_keeps_its_bytes() {
        let outcome = CheckOutcome {
            run: 300,
            ended_at_ms: 1_767_225_600_000,
            took_ms: 7,
            packs: 2,
            objects: 300,
            reachable: Some(200),
            unreachable: None,
            problems: vec![CheckProblem {
                pack: Some("ab".to_owned()),
                object: None,
                text: "the pack is not here".to_owned(),
            }],
            more_problems: 1,
            repaired: vec!["cd".to_owned()],
            failed: Some("no".to_owned()),
        };
        let line = format!("last_check {}\n", hex::encode(outcome.encode()));
        assert_eq!(line, LAST_CHECK);
        assert_eq!(CheckOutcome::decode(&outcome.encode()), Ok(outcome));
    }
}
