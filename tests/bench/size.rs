//! How much of it: every size can be set by an environment variable, to try a section out small.

/// Events of one run that measures throughput.
pub(crate) fn events() -> u64 {
    size("BENCH_EVENTS", 20_000)
}

/// Deliveries pending of a route that cannot deliver.
pub(crate) fn rows() -> u64 {
    size("BENCH_ROWS", 10_000_000)
}

/// MiB of history, 4 at least: a quarter of the queue's size, by default of its default.
pub(crate) fn history() -> u64 {
    size("BENCH_HISTORY_MIB", 2048)
}

/// Routes, each with an upstream of its own.
pub(crate) fn routes() -> u64 {
    size("BENCH_ROUTES", 1000)
}

/// Seconds of what must last to say something.
pub(crate) fn seconds() -> u64 {
    size("BENCH_SECONDS", 30)
}

/// Of two or more things compared, how often each is measured, by turns.
pub(crate) fn rounds() -> u64 {
    size("BENCH_ROUNDS", 3)
}

fn size(name: &str, default: u64) -> u64 {
    let Some(set) = std::env::var_os(name) else { return default };
    let number = set.to_str().and_then(|set| set.replace('_', "").parse().ok());
    number.filter(|number| *number > 0).unwrap_or_else(|| panic!("{name}: not a number: {set:?}"))
}

/// A large number as people write it: `10 M`, `1 k`, `250`.
pub(crate) fn short(number: u64) -> String {
    match number {
        _ if number >= 1_000_000 && number.is_multiple_of(100_000) => {
            format!("{} M", number as f64 / 1e6)
        }
        _ if number >= 1000 && number.is_multiple_of(100) => format!("{} k", number as f64 / 1e3),
        _ => number.to_string(),
    }
}
