//! What memory a process has taken, as Linux counts it.

/// MiB resident now.
pub(crate) fn resident(pid: u32) -> f64 {
    read(pid, "VmRSS:")
}

/// MiB resident at most since its start.
pub(crate) fn peak(pid: u32) -> f64 {
    read(pid, "VmHWM:")
}

fn read(pid: u32, what: &str) -> f64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status"));
    let status = status.expect("Linux tells about a running process");
    let line = status.lines().find_map(|line| line.strip_prefix(what));
    let kib = line.and_then(|line| line.trim().strip_suffix(" kB")).expect("it has memory");
    kib.parse::<f64>().expect("a number") / 1024.0
}
