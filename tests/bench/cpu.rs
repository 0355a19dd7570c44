//! What processes have taken of the processor, as Linux counts it.

use tidegate_tests::process::processor_time;

/// Processes, by a name and an id, and what they had taken when it started.
pub(crate) struct Cpu {
    processes: Vec<(&'static str, u32, Option<f64>)>,
}

impl Cpu {
    pub(crate) fn start(processes: &[(&'static str, u32)]) -> Self {
        let processes = processes.iter().map(|(name, pid)| (*name, *pid, processor_time(*pid)));
        Self { processes: processes.collect() }
    }

    /// Microseconds that each has taken for each of `count`, in words.
    pub(crate) fn per(&self, count: u64) -> String {
        let words = self.processes.iter().map(|(name, pid, before)| {
            let took = processor_time(*pid).zip(*before).map(|(now, before)| now - before);
            took.map_or(format!("{name} ?"), |took| {
                format!("{name} {:.0}", took * 1e6 / count as f64)
            })
        });
        format!("processor time each, us: {}", words.collect::<Vec<_>>().join(", "))
    }
}
