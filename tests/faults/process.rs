//! Faults of the process and of its machine.
