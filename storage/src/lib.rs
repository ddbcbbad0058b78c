//! Write-ahead log, kv, snapshots and object stores of a node.
