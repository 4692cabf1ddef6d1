//! Readings of the operating system: processor time, memory, and what other processes used meanwhile.

use std::{fs, time::Duration};

use nix::time::{ClockId, clock_gettime};

/// Processor time that this process has used, all threads.
pub(crate) fn process_cpu() -> Duration {
    clock_gettime(ClockId::CLOCK_PROCESS_CPUTIME_ID).map(Duration::from).unwrap_or_default()
}

/// Peak of the resident memory of this process in bytes, as far as the system tells.
pub(crate) fn peak_memory() -> Option<u64> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    let kilobytes: u64 = line.trim().trim_end_matches("kB").trim().parse().ok()?;
    Some(kilobytes * 1024)
}

/// Ticks of a set of processors since start-up.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Ticks {
    /// Spent on anything, time taken by a hypervisor included.
    pub(crate) busy: u64,
    /// All.
    pub(crate) total: u64,
}

impl Ticks {
    pub(crate) fn since(self, earlier: Self) -> Self {
        Self { busy: self.busy.saturating_sub(earlier.busy), total: self.total.saturating_sub(earlier.total) }
    }

    pub(crate) fn plus(self, other: Self) -> Self {
        Self { busy: self.busy + other.busy, total: self.total + other.total }
    }

    /// Share (0 to 1) of these processors that others used, when this process used `own` within `wall` on `count` of them.
    pub(crate) fn others_share(self, own: Duration, wall: Duration, count: usize) -> Option<f64> {
        let available = wall.as_secs_f64() * count as f64;
        if self.total == 0 || available <= 0.0 {
            return None;
        }
        Some((self.busy as f64 / self.total as f64 - own.as_secs_f64() / available).clamp(0.0, 1.0))
    }
}

/// Ticks of the whole machine and of these processors.
pub(crate) fn ticks(cpus: &[usize]) -> (Ticks, Ticks) {
    fs::read_to_string("/proc/stat").map(|text| parse(&text, cpus)).unwrap_or_default()
}

/// Number of processors of the machine.
pub(crate) fn processors() -> usize {
    let count = |text: String| {
        text.lines().filter(|line| line.strip_prefix("cpu").is_some_and(|rest| !rest.starts_with(' '))).count()
    };
    fs::read_to_string("/proc/stat").map(count).unwrap_or(0).max(1)
}

fn parse(text: &str, cpus: &[usize]) -> (Ticks, Ticks) {
    let (mut all, mut some) = (Ticks::default(), Ticks::default());
    for line in text.lines() {
        let Some(rest) = line.strip_prefix("cpu") else { break };
        let (number, values) = rest.split_once(' ').unwrap_or((rest, ""));
        // user nice system idle iowait irq softirq steal; guest time is part of user.
        let values: Vec<u64> = values.split_whitespace().take(8).filter_map(|value| value.parse().ok()).collect();
        let total: u64 = values.iter().sum();
        let idle: u64 = values.iter().skip(3).take(2).sum();
        let ticks = Ticks { busy: total - idle, total };
        match number.parse::<usize>() {
            Ok(cpu) if cpus.contains(&cpu) => some = some.plus(ticks),
            Ok(_) => {}
            Err(_) => all = ticks,
        }
    }
    (all, some)
}

#[cfg(test)]
mod tests {
    use super::*;

    const STAT: &str = "cpu  30 0 10 50 10 0 0 0 0 0\ncpu0 10 0 5 30 5 0 0 0 0 0\ncpu1 20 0 5 20 5 0 0 0 7 0\nintr 5\n";

    #[test]
    fn reads_the_processors_asked_for() {
        let (all, one) = parse(STAT, &[1]);
        assert_eq!(all, Ticks { busy: 40, total: 100 });
        assert_eq!(one, Ticks { busy: 25, total: 50 });
    }

    #[test]
    fn own_time_is_not_others() {
        let ticks = Ticks { busy: 80, total: 100 };
        let share = ticks.others_share(Duration::from_millis(500), Duration::from_secs(1), 1).unwrap();
        assert!((share - 0.3).abs() < 1e-9);
        assert_eq!(Ticks::default().others_share(Duration::ZERO, Duration::from_secs(1), 1), None);
    }

    #[test]
    fn this_process_uses_time_and_memory() {
        assert!(process_cpu() > Duration::ZERO);
        assert!(peak_memory().unwrap() > 1 << 20);
    }
}
