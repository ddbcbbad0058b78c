//! Henge's messages between nodes: generated from `cluster.proto`, nothing by hand.
//!
//! Protobuf never reaches a disk: messages carry stored records in `bytes` fields, in stored form.

/// `henge.cluster.v1`: Raft, and the other requests between nodes.
pub mod cluster {
    #![allow(
        clippy::all,
        clippy::pedantic,
        clippy::or_fun_call,
        clippy::wildcard_enum_match_arm,
        clippy::too_many_lines,
        clippy::use_self,
        clippy::allow_attributes_without_reason,
        missing_debug_implementations,
        unused_qualifications,
        unreachable_pub,
        let_underscore_drop,
        reason = "generated code"
    )]
    tonic::include_proto!("henge.cluster.v1");
}
