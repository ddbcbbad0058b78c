//! Pushes and fetches that must be refused.
