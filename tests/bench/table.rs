//! What was measured, beside what must hold.

use std::fmt;

/// All figures so far.
#[derive(Default)]
pub(crate) struct Table {
    rows: Vec<Row>,
}

struct Row {
    what: String,
    value: f64,
    unit: &'static str,
    bound: Bound,
}

/// What must hold, and what is aimed at.
#[derive(Clone, Copy)]
pub(crate) enum Bound {
    AtLeast { must: f64, aim: f64 },
    AtMost { must: f64, aim: f64 },
}

impl Bound {
    pub(crate) fn least(must: f64, aim: f64) -> Self {
        Self::AtLeast { must, aim }
    }

    pub(crate) fn most(must: f64, aim: f64) -> Self {
        Self::AtMost { must, aim }
    }

    fn verdict(self, value: f64) -> &'static str {
        let (held, reached) = match self {
            Self::AtLeast { must, aim } => (value >= must, value >= aim),
            Self::AtMost { must, aim } => (value <= must, value <= aim),
        };
        match (held, reached) {
            (true, true) => "held, aim reached",
            (true, false) => "held",
            (false, _) => "NOT HELD",
        }
    }
}

impl Table {
    pub(crate) fn add(
        &mut self,
        what: impl Into<String>,
        value: f64,
        unit: &'static str,
        bound: Bound,
    ) {
        self.rows.push(Row { what: what.into(), value, unit, bound });
    }

    /// Whether every bound is kept.
    pub(crate) fn holds(&self) -> bool {
        self.rows.iter().all(|row| row.bound.verdict(row.value) != "NOT HELD")
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "| figure | measured | must | aim | |\n|---|---|---|---|---|")?;
        for Row { what, value, unit, bound } in &self.rows {
            let (sign, must, aim) = match bound {
                Bound::AtLeast { must, aim } => (">=", must, aim),
                Bound::AtMost { must, aim } => ("<=", must, aim),
            };
            let verdict = bound.verdict(*value);
            writeln!(f, "| {what} | {value:.2} {unit} | {sign} {must} | {aim} | {verdict} |")?;
        }
        Ok(())
    }
}

/// What all this was measured on.
pub(crate) fn machine() -> String {
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    let read = |path| std::fs::read_to_string(path).unwrap_or_default();
    let cpu = read("/proc/cpuinfo");
    let model = cpu.lines().find_map(|line| line.strip_prefix("model name")).unwrap_or(" ?");
    let kernel = read("/proc/sys/kernel/osrelease");
    let memory = read("/proc/meminfo");
    let memory = memory.lines().next().unwrap_or_default().trim_start_matches("MemTotal:").trim();
    format!(
        "{cores} cores of{}, {memory}, Linux {}",
        model
            .trim_start_matches([' ', '\t', ':'])
            .split('@')
            .next()
            .map_or_else(String::new, |m| format!(" {m}")),
        kernel.trim()
    )
}
