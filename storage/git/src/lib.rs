//! The git protocol: sans-IO state machines and thin IO.
