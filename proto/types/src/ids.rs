//! Ids: numbers and random bytes that name things. No id is ever used twice.

use std::fmt;
use std::str::FromStr;

use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use sha2::{Digest, Sha256};
use thiserror::Error;

/// Text that is not an id of the expected kind.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{text:?} is not {wanted}")]
pub struct InvalidId {
    text: String,
    wanted: &'static str,
}

macro_rules! number {
    ($(#[$doc:meta])* $name:ident, $inner:ty) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name($inner);

        impl $name {
            /// Wraps the number.
            pub const fn new(number: $inner) -> Self {
                Self(number)
            }

            /// The number itself.
            pub const fn get(self) -> $inner {
                self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }
    };
}

number!(
    /// A node's number in the cluster, from 1. A node with a wiped disk gets a new one.
    NodeId,
    u64
);
number!(
    /// One Raft group: 0 is the meta group, 1..=S are the shards.
    GroupId,
    u32
);
number!(
    /// A position in one group's log, from 1.
    LogIndex,
    u64
);
number!(
    /// The generation of a repository under one name: a repository that is deleted and made again
    /// has another one.
    Generation,
    u64
);

impl FromStr for NodeId {
    type Err = InvalidId;

    fn from_str(text: &str) -> Result<Self, InvalidId> {
        text.parse().map(Self).map_err(|_| InvalidId {
            text: text.to_owned(),
            wanted: "the number of a node",
        })
    }
}

impl GroupId {
    /// The meta group: membership, shard table, repository catalogue.
    pub const META: Self = Self(0);

    /// Whether this is the meta group.
    pub const fn is_meta(self) -> bool {
        self.0 == 0
    }
}

impl Generation {
    /// The generation after this one.
    #[must_use]
    pub const fn next(self) -> Self {
        Self(self.0 + 1)
    }
}

macro_rules! random_id {
    ($(#[$doc:meta])* $name:ident, $wanted:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name([u8; 16]);

        impl $name {
            /// Wraps 16 random bytes.
            pub const fn from_bytes(bytes: [u8; 16]) -> Self {
                Self(bytes)
            }

            /// The bytes.
            pub const fn as_bytes(&self) -> &[u8; 16] {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&hex::encode(self.0))
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($name), "({})"), self)
            }
        }

        impl FromStr for $name {
            type Err = InvalidId;

            fn from_str(text: &str) -> Result<Self, InvalidId> {
                let mut bytes = [0; 16];
                let lower = !text.bytes().any(|byte| byte.is_ascii_uppercase());
                if lower && hex::decode_to_slice(text, &mut bytes).is_ok() {
                    return Ok(Self(bytes));
                }
                Err(InvalidId { text: text.to_owned(), wanted: $wanted })
            }
        }

        /// An id is 16 bytes in binary formats and lower-case hex in text formats.
        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                if serializer.is_human_readable() {
                    serializer.collect_str(self)
                } else {
                    self.0.serialize(serializer)
                }
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                if deserializer.is_human_readable() {
                    let text = String::deserialize(deserializer)?;
                    text.parse().map_err(D::Error::custom)
                } else {
                    <[u8; 16]>::deserialize(deserializer).map(Self)
                }
            }
        }
    };
}

random_id!(
    /// A mirror of a repository.
    MirrorId,
    "a mirror's id (32 lower-case hex digits)"
);
random_id!(
    /// The cluster, made once by its first start.
    ClusterId,
    "a cluster id (32 lower-case hex digits)"
);
random_id!(
    /// The identity of one data directory. A wiped disk has a new one.
    Incarnation,
    "an incarnation (32 lower-case hex digits)"
);
random_id!(
    /// One start of a node's process.
    StartId,
    "a start's id (32 lower-case hex digits)"
);
random_id!(
    /// A repository. Never used twice.
    RepoId,
    "a repository id (32 lower-case hex digits)"
);
random_id!(
    /// A fork network: the id of its root repository, even after the root is deleted. Names the
    /// object store.
    NetworkId,
    "a network id (32 lower-case hex digits)"
);

impl RepoId {
    /// The network of which this repository is the root.
    pub const fn root_network(self) -> NetworkId {
        NetworkId(self.0)
    }
}

impl NetworkId {
    /// The shard group that owns this network among `shards` shards:
    /// `1 + (big-endian u64 of the first 8 bytes of SHA-256(network id)) mod S`. Never changes.
    ///
    /// # Panics
    /// When `shards` is zero: a cluster has at least one shard.
    pub fn shard(&self, shards: u32) -> GroupId {
        assert!(shards > 0, "invariant: a cluster has at least one shard");
        let digest = Sha256::digest(self.0);
        let mut head = [0; 8];
        head.copy_from_slice(digest.get(..8).expect("invariant: a SHA-256 has 32 bytes"));
        let slot = u64::from_be_bytes(head) % u64::from(shards);
        GroupId(1 + u32::try_from(slot).expect("invariant: slot < shards, a u32"))
    }
}

/// Names one client request across retries and changes of leader. Made by the node that received
/// it.
///
/// The group's state keeps its record for at least [`crate::limits::REQUEST_RECORD_MS_MIN`]. A
/// request with an older id is answered *unknown outcome* and never executed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct RequestId {
    /// In a group with replicated time: the generation of request records that its maker had
    /// applied, with the highest bit set, see [`Self::generation`]. Below that release level: the
    /// time of its making, milliseconds since the Unix epoch, by its maker's clock.
    pub made_at_ms: u64,
    /// The data directory of its maker.
    pub incarnation: Incarnation,
    /// Counts up within one process of the maker; its high half is drawn at the start of the
    /// process.
    pub counter: u64,
}

/// The bit that marks a generation of request records. No clock reaches times with this bit.
const GENERATION: u64 = 1 << 63;

impl RequestId {
    /// An id that cannot have been executed before this generation of request records.
    #[must_use]
    pub const fn in_generation(self, generation: u64) -> Self {
        Self {
            made_at_ms: generation | GENERATION,
            ..self
        }
    }

    /// Whether it is the same request. The generations of the two ids are not compared: a leader
    /// may set a later one.
    pub fn is_same(&self, other: &Self) -> bool {
        (self.incarnation, self.counter) == (other.incarnation, other.counter)
    }

    /// The generation of request records before which it cannot have been executed; `None` for an
    /// id with its maker's clock.
    pub const fn generation(&self) -> Option<u64> {
        match self.made_at_ms & GENERATION {
            0 => None,
            _ => Some(self.made_at_ms & !GENERATION),
        }
    }
}

impl fmt::Display for RequestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.generation() {
            Some(generation) => write!(f, "g{generation}")?,
            None => write!(f, "{}", self.made_at_ms)?,
        }
        write!(f, "-{}-{:016x}", self.incarnation, self.counter)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Golden: printf of the bytes | sha256sum, first 8 bytes, modulo. A change would move every
    /// repository.
    #[test]
    fn shard_of_a_network_is_fixed_for_ever() {
        let network = NetworkId::from_bytes([7; 16]);
        assert_eq!(network.shard(64), GroupId::new(27));
        assert_eq!(network.shard(8), GroupId::new(3));
        assert_eq!(network.shard(1), GroupId::new(1));
        let other: NetworkId = "000102030405060708090a0b0c0d0e0f"
            .parse()
            .expect("a valid id");
        assert_eq!(other.shard(64), GroupId::new(63));
        assert_eq!(other.shard(8), GroupId::new(7));
    }

    /// Golden: the stored bytes must not change, and people read the id in its usual form.
    #[test]
    fn random_ids_are_bytes_in_storage_and_hex_in_text() {
        let id = ClusterId::from_bytes([0xab; 16]);
        let stored = postcard::to_stdvec(&id).expect("encodes");
        assert_eq!(stored, [0xab; 16]);
        assert_eq!(
            postcard::from_bytes::<ClusterId>(&stored).expect("decodes"),
            id
        );
        let text = serde_json::to_string(&id).expect("encodes");
        assert_eq!(text, format!("\"{}\"", "ab".repeat(16)));
        assert_eq!(
            serde_json::from_str::<ClusterId>(&text).expect("decodes"),
            id
        );
        assert!(serde_json::from_str::<ClusterId>("\"ab\"").is_err());
    }

    #[test]
    fn ids_are_lower_case_hex_of_full_length() {
        let text = "000102030405060708090a0b0c0d0e0f";
        let id: RepoId = text.parse().expect("a valid id");
        assert_eq!(id.to_string(), text);
        assert!("00".parse::<RepoId>().is_err());
        assert!(text.to_uppercase().parse::<RepoId>().is_err());
    }
}
