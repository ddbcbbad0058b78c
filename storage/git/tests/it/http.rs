//! What the HTTP layer promises.
