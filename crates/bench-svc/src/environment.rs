//! The machine: what it is and how busy, from the files of the Linux kernel.

use std::fs;

use nix::{
    sched::{CpuSet, sched_getaffinity},
    unistd::Pid,
};

use crate::{Error, clock, report::Environment};

/// Chooses `threads` processors out of those that this process may use: the last ones, since interrupts favour the first.
pub(crate) fn choose_processors(threads: usize) -> Result<Vec<usize>, Error> {
    let set = sched_getaffinity(Pid::from_raw(0))
        .map_err(|error| Error::io("asking for the allowed processors")(error.into()))?;
    let allowed: Vec<usize> = (0..CpuSet::count()).filter(|cpu| set.is_set(*cpu).unwrap_or(false)).collect();
    match allowed.len().checked_sub(threads) {
        Some(first) => Ok(allowed[first..].to_vec()),
        None => Err(Error::Argument {
            field: "threads",
            problem: format!("{threads}; this process may use {} processors", allowed.len()),
        }),
    }
}

/// Looks at the machine; what cannot be read stays empty.
pub(crate) fn look(pinned: &[usize]) -> Environment {
    let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
    let field = |text: &str, key: &str| {
        text.lines()
            .find_map(|line| line.strip_prefix(key))
            .map(|rest| rest.trim_start_matches([' ', '\t', ':', '=']).trim_matches('"').trim().to_owned())
    };
    let governor = pinned
        .first()
        .map(|cpu| read(&format!("/sys/devices/system/cpu/cpu{cpu}/cpufreq/scaling_governor")).trim().to_owned());
    let memory = field(&read("/proc/meminfo"), "MemTotal")
        .and_then(|text| text.trim_end_matches("kB").trim().parse::<u64>().ok())
        .unwrap_or(0);
    let load = read("/proc/loadavg");
    let mut loads = load.split_whitespace().map(|value| value.parse().unwrap_or(0.0));
    let mut next_load = || loads.next().unwrap_or(0.0);
    let name = field(&read("/etc/os-release"), "PRETTY_NAME").unwrap_or_else(|| std::env::consts::OS.to_owned());
    Environment {
        cpu: field(&read("/proc/cpuinfo"), "model name").unwrap_or_default(),
        processors: clock::processors(),
        pinned: pinned.to_vec(),
        governor: governor.filter(|governor| !governor.is_empty()),
        memory_bytes: memory * 1024,
        system: format!("{name}, kernel {}", read("/proc/sys/kernel/osrelease").trim()),
        architecture: std::env::consts::ARCH.to_owned(),
        load_average: [next_load(), next_load(), next_load()],
        onnxruntime: String::new(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn more_threads_than_processors_are_refused() {
        assert_eq!(choose_processors(1).unwrap().len(), 1);
        let error = choose_processors(1000).unwrap_err().to_string();
        assert!(error.starts_with("threads: 1000; this process may use "), "{error}");
    }

    #[test]
    fn the_machine_has_a_processor_and_memory() {
        let environment = look(&choose_processors(1).unwrap());
        assert!(environment.memory_bytes > 1 << 26);
        assert!(environment.processors >= 1);
        assert!(environment.system.contains("kernel "));
    }
}
