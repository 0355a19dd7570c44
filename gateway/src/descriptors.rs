//! File descriptors: every connection is one, and the usual limit of a shell is 1,024.
//!
//! The soft limit is a default for programs that use `select(2)`, which breaks beyond it; nothing
//! here does. So it is raised to the hard limit, which is the administrator's.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Beside webhooks' connections: those to upstreams and the broker, the queue's files, listeners.
const OTHERS: u64 = 1024;

/// Raises the limit of this process as far as it may; warns when `connections` webhook senders at
/// once would not fit.
pub fn raise(connections: u32) {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    let raised = setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum });
    // What was there before still holds then; too little of it is told below.
    let limit = if raised.is_ok() { maximum } else { current };
    let needed = u64::from(connections) + OTHERS;
    if limit.is_some_and(|limit| limit < needed) {
        tracing::warn!(
            limit,
            needed,
            "the system allows fewer open files than server.max_connections may need: raise its \
             hard limit (ulimit -Hn), or lower the setting"
        );
    }
}
