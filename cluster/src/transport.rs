//! The transport between nodes: one TLS identity, gRPC over TCP for Raft and control, QUIC for bulk
//! bytes.
//!
//! - [`tls`]: the cluster's CA and this node's certificate, for both.
//! - [`members`]: the members of the cluster and their incarnations.
//! - [`peers`]: gRPC channels to the others.
//! - [`listener`]: the TCP listener: gRPC and, by ALPN, bulk streams where UDP is blocked.
//! - `doors`: the open listeners of a node.
//! - [`handshakes`]: bounds on connections that have shown no certificate yet.
//! - [`bulk`]: bulk streams.
//! - [`quic`]: the QUIC endpoint under them.
//! - [`network`]: the byte streams under TLS, injected; [`tcp`]: those of the operating system;
//!   `memory`: those of a test, with the feature `sim`.

/// While this failpoint is armed on a node, no message passes between it and the others: like a cut
/// cable, with both sides still running.
pub const CUT_OFF: &str = "cluster.cut_off";

pub mod bulk;
pub(crate) mod doors;
pub mod handshakes;
pub mod listener;
pub mod members;
#[cfg(any(test, feature = "sim"))]
pub mod memory;
pub mod network;
pub mod peers;
pub mod quic;
pub mod tcp;
pub mod tls;
