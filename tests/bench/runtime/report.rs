//! Rows of figures as a table and as JSON, and the disk's own speed beside them.

use std::{
    fs::File,
    io::Write as _,
    path::Path,
    time::{Duration, Instant},
};

use serde_json::json;

/// Figures of one run.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Measured {
    pub(crate) jobs_per_second: f64,
    pub(crate) p50: Duration,
    pub(crate) p99: Duration,
    /// Of the server's process; unlike the rest it hardly depends on what else the machine does.
    pub(crate) cpu_per_job: Option<Duration>,
}

/// Runs of one system under one load.
#[derive(Debug)]
pub(crate) struct Row {
    pub(crate) system: String,
    pub(crate) load: String,
    pub(crate) runs: Vec<Measured>,
}

impl Row {
    /// The median of a figure over the runs.
    fn median(&self, figure: impl Fn(&Measured) -> f64) -> f64 {
        let mut values: Vec<f64> = self.runs.iter().map(figure).collect();
        values.sort_by(f64::total_cmp);
        values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
    }

    fn rate(&self) -> f64 {
        self.median(|run| run.jobs_per_second)
    }

    fn p50_ms(&self) -> f64 {
        self.median(|run| run.p50.as_secs_f64() * 1e3)
    }

    fn p99_ms(&self) -> f64 {
        self.median(|run| run.p99.as_secs_f64() * 1e3)
    }

    fn cpu_us(&self) -> Option<f64> {
        let known = self.runs.iter().all(|run| run.cpu_per_job.is_some());
        known.then(|| self.median(|run| run.cpu_per_job.unwrap_or_default().as_secs_f64() * 1e6))
    }

    fn cpu(&self) -> String {
        self.cpu_us().map_or_else(|| "-".to_owned(), |cpu| format!("{cpu:.0}"))
    }
}

/// CPU time that a process has used.
pub(crate) fn cpu_time(process: i32) -> anyhow::Result<Duration> {
    let stat = std::fs::read_to_string(format!("/proc/{process}/stat"))?;
    // The name in parentheses may hold anything; user and system time are the 12th and 13th word after it.
    let words: Vec<&str> = stat.rsplit_once(')').map(|(_, rest)| rest.split_whitespace().collect()).unwrap_or_default();
    let ticks = |index: usize| words.get(index).and_then(|word| word.parse::<u64>().ok()).unwrap_or_default();
    // Linux counts in hundredths here, whatever its own clock does.
    Ok(Duration::from_millis(10 * (ticks(11) + ticks(12))))
}

/// Median time of a synced write of a page, which no durable answer can undercut.
pub(crate) fn sync_time(folder: &Path) -> std::io::Result<Duration> {
    let mut file = File::create(folder.join("sync"))?;
    let mut times = Vec::new();
    for _ in 0..500 {
        file.write_all(&[0; 4096])?;
        let start = Instant::now();
        file.sync_data()?;
        times.push(start.elapsed());
    }
    times.sort_unstable();
    Ok(times[times.len() / 2])
}

/// Prints a row as soon as it is there.
pub(crate) fn print(row: Option<&Row>) {
    if let Some(row) = row {
        let runs: Vec<String> = row.runs.iter().map(|run| format!("{:.0}", run.jobs_per_second)).collect();
        println!(
            "{}: {}: {:.0} jobs/s ({}), start p50 {:.2} ms, p99 {:.2} ms, server CPU {} us a job",
            row.system,
            row.load,
            row.rate(),
            runs.join(", "),
            row.p50_ms(),
            row.p99_ms(),
            row.cpu()
        );
    }
}

/// A Markdown table; each system's rate is also told as a multiple of huey's under the same load.
pub(crate) fn table(rows: &[Row]) -> String {
    let mut text = String::from(
        "| load | system | jobs/s | to huey | start p50 ms | start p99 ms | server CPU us a job |\n|---|---|--:|--:|--:|--:|--:|\n",
    );
    for row in rows {
        let huey = rows.iter().find(|other| other.load == row.load && other.system.starts_with("huey"));
        let ratio = huey.map_or_else(|| "-".to_owned(), |huey| format!("{:.2}", row.rate() / huey.rate()));
        text += &format!(
            "| {} | {} | {:.0} | {ratio} | {:.2} | {:.2} | {} |\n",
            row.load,
            row.system,
            row.rate(),
            row.p50_ms(),
            row.p99_ms(),
            row.cpu()
        );
    }
    text
}

/// The same as a document.
pub(crate) fn json(rows: &[Row], jobs: usize, sync: Duration) -> serde_json::Result<String> {
    let rows: Vec<serde_json::Value> = rows
        .iter()
        .map(|row| {
            let rates: Vec<f64> = row.runs.iter().map(|run| run.jobs_per_second).collect();
            json!({
                "load": row.load, "system": row.system, "jobs_per_second": row.rate(), "runs": rates,
                "start_p50_ms": row.p50_ms(), "start_p99_ms": row.p99_ms(), "server_cpu_us_per_job": row.cpu_us(),
            })
        })
        .collect();
    serde_json::to_string_pretty(&json!({ "jobs": jobs, "fdatasync_p50_ms": sync.as_secs_f64() * 1e3, "rows": rows }))
}
