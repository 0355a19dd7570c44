//! What processes have taken of the processor, as Linux counts it.

/// Processes, by a name and an id, and what they had taken when it started.
pub(crate) struct Cpu {
    processes: Vec<(&'static str, u32, Option<f64>)>,
}

/// Of `/proc/PID/stat`, in every Linux there is (`USER_HZ`).
const TICKS_PER_SECOND: f64 = 100.0;

impl Cpu {
    pub(crate) fn start(processes: &[(&'static str, u32)]) -> Self {
        let processes = processes.iter().map(|(name, pid)| (*name, *pid, taken(*pid)));
        Self { processes: processes.collect() }
    }

    /// Microseconds that each has taken for each of `count`, in words.
    pub(crate) fn per(&self, count: u64) -> String {
        let words = self.processes.iter().map(|(name, pid, before)| {
            let took = taken(*pid).zip(*before).map(|(now, before)| now - before);
            took.map_or(format!("{name} ?"), |took| {
                format!("{name} {:.0}", took * 1e6 / count as f64)
            })
        });
        format!("processor time each, us: {}", words.collect::<Vec<_>>().join(", "))
    }
}

/// Seconds, in user and kernel mode, all its threads.
fn taken(pid: u32) -> Option<f64> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name of the command may hold anything, and ends with the last parenthesis.
    let mut fields = stat[stat.rfind(')')? + 2..].split(' ').skip(11);
    let mut next = || fields.next().and_then(|field| field.parse::<f64>().ok());
    Some((next()? + next()?) / TICKS_PER_SECOND)
}
