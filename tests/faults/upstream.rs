//! Faults of third-party APIs and of the way to them.
