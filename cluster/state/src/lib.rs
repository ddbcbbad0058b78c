//! The pure replicated state machines.
