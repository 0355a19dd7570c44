//! What memory a process has taken, in the unit of the table.

use tidegate_tests::process;

/// MiB resident now.
pub(crate) fn resident(pid: u32) -> f64 {
    mib(process::resident(pid))
}

/// MiB resident at most since its start.
pub(crate) fn peak(pid: u32) -> f64 {
    mib(process::peak(pid))
}

fn mib(bytes: u64) -> f64 {
    bytes as f64 / f64::from(1 << 20)
}
