//! What Linux tells of a process, and signals to it.

use tokio::process::Command;

/// Of `/proc/PID/stat`, in every Linux there is (`USER_HZ`).
const TICKS_PER_SECOND: f64 = 100.0;

/// Sends a signal, as `kill` names it: `-TERM`.
pub async fn signal(pid: u32, signal: &str) {
    let sent = Command::new("kill").args([signal, &pid.to_string()]).status().await;
    assert!(sent.expect("kill(1)").success());
}

/// Bytes resident now.
#[must_use]
pub fn resident(pid: u32) -> u64 {
    memory(pid, "VmRSS:")
}

/// Bytes resident at most since its start.
#[must_use]
pub fn peak(pid: u32) -> u64 {
    memory(pid, "VmHWM:")
}

/// Bytes of its data: what RLIMIT_DATA counts.
#[must_use]
pub fn data(pid: u32) -> u64 {
    memory(pid, "VmData:")
}

fn memory(pid: u32, what: &str) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status"));
    let status = status.expect("Linux tells about a running process");
    let line = status.lines().find_map(|line| line.strip_prefix(what));
    let kib = line.and_then(|line| line.trim().strip_suffix(" kB")).expect("it has memory");
    kib.parse::<u64>().expect("a number") << 10
}

/// How many descriptors it has open.
#[must_use]
pub fn descriptors(pid: u32) -> usize {
    count(pid, "fd")
}

/// How many threads it has.
#[must_use]
pub fn threads(pid: u32) -> usize {
    count(pid, "task")
}

fn count(pid: u32, what: &str) -> usize {
    std::fs::read_dir(format!("/proc/{pid}/{what}")).expect("it runs").count()
}

/// Seconds of processor time it has taken, in user and kernel mode, all its threads; nothing when
/// it is gone.
#[must_use]
pub fn processor_time(pid: u32) -> Option<f64> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name of the command may hold anything, and ends with the last parenthesis.
    let mut fields = stat[stat.rfind(')')? + 2..].split(' ').skip(11);
    let mut next = || fields.next().and_then(|field| field.parse::<f64>().ok());
    Some((next()? + next()?) / TICKS_PER_SECOND)
}
