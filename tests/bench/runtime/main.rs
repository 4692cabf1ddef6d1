//! Throughput and start latency of the durable job runtime over gRPC, on SQLite and PostgreSQL, with huey beside it.
//!
//! `cargo bench -p quintet-tests --bench runtime [-- --jobs N --repeat N --only sqlite|postgresql --json FILE]`. Without
//! `--bench`, as `cargo test --benches` runs it, a few jobs show that everything works.
//!
//! 8 clients submit no-op jobs while 8 workers drain them, each with a connection of its own; every job takes three
//! transitions (created, claimed, finished), each answered after a synced commit. Then submissions are planned at a fixed rate,
//! and the time from the planned moment to the arrival of the claim's answer is measured. The server is a process of its own:
//! this program started again. After each run the store is read and must hold exactly three transitions of each job.

mod report;
mod server;

use std::{path::PathBuf, process::Command, time::Duration};

use anyhow::{Context as _, ensure};
use clap::Parser;
use quintet_tests::{
    load::{self, Load},
    sandbox,
};
use report::{Measured, Row};
use runtime_core::db::testing::PostgresServer;

/// Rate of the paced submissions, jobs a second.
const PACE: f64 = 2_000.0;

/// Measures the job runtime.
#[derive(Debug, Parser)]
struct Options {
    /// Jobs of a run
    #[arg(long)]
    jobs: Option<usize>,
    /// Runs of each row; the median counts
    #[arg(long)]
    repeat: Option<usize>,
    /// Only this database: sqlite or postgresql
    #[arg(long, value_parser = ["sqlite", "postgresql"])]
    only: Option<String>,
    /// Leaves huey out
    #[arg(long)]
    no_huey: bool,
    /// Writes the figures as JSON
    #[arg(long)]
    json: Option<PathBuf>,
    /// Given by `cargo bench`
    #[arg(long, hide = true)]
    bench: bool,
}

fn main() -> anyhow::Result<()> {
    if let Some(database) = std::env::var_os(server::VARIABLE) {
        return server::serve(&database.to_string_lossy());
    }
    let options = Options::parse();
    // One thread for all clients and workers of the load: what they take of the machine is not the server's.
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
    runtime.block_on(measure(&options))
}

async fn measure(options: &Options) -> anyhow::Result<()> {
    let jobs = options.jobs.unwrap_or(if options.bench { 10_000 } else { 200 });
    let repeat = options.repeat.unwrap_or(if options.bench { 3 } else { 1 });
    let postgres = match options.only.as_deref() {
        Some("sqlite") => None,
        // Starting it waits for a process.
        _ => Some(tokio::task::block_in_place(PostgresServer::start).map_err(anyhow::Error::msg)?),
    };
    let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR"))?;
    let sync = report::sync_time(folder.path())?;
    println!("{jobs} jobs a run, median of {repeat}; fdatasync p50 {:.3} ms", sync.as_secs_f64() * 1e3);
    let mut rows = Vec::new();
    for (name, claim, pace) in [
        ("8 clients + 8 workers, one job a claim", 1, None),
        ("8 clients + 8 workers, up to 16 jobs a claim", 16, None),
        ("submitted at 2,000/s, one job a claim", 1, Some(PACE)),
        ("submitted at 2,000/s, up to 16 jobs a claim", 16, Some(PACE)),
    ] {
        let load = Load { jobs, claim, pace };
        for database in ["SQLite", "PostgreSQL"] {
            if options.only.as_ref().is_some_and(|only| !only.eq_ignore_ascii_case(database)) {
                continue;
            }
            let mut runs = Vec::new();
            for _ in 0..repeat {
                let url = match &postgres {
                    Some(server) if database == "PostgreSQL" => Some(server.database().map_err(anyhow::Error::msg)?),
                    _ => None,
                };
                runs.push(run(url, load).await?);
            }
            rows.push(Row { system: format!("quintet, {database}"), load: name.into(), runs });
            report::print(rows.last());
        }
        if !options.no_huey && claim == 1 {
            let huey: anyhow::Result<Vec<Measured>> = (0..repeat).map(|_| huey(folder.path(), jobs, pace)).collect();
            rows.push(Row { system: "huey, SQLite, 8 processes".into(), load: name.into(), runs: huey? });
            report::print(rows.last());
        }
    }
    println!("\n{}", report::table(&rows));
    if let Some(path) = &options.json {
        std::fs::write(path, report::json(&rows, jobs, sync)?).with_context(|| path.display().to_string())?;
    }
    Ok(())
}

/// One run on a fresh store.
async fn run(database: Option<String>, load: Load) -> anyhow::Result<Measured> {
    let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR"))?;
    let server = server::start(folder.path(), database.as_deref())?;
    let outcomes = load::run(&server.url, load).await?;
    let cpu = report::cpu_time(server.id())?;
    server.kill()?;
    // Killed, not ended: what was answered has to be there all the same.
    let store = server::store(folder.path(), database.as_deref());
    load::check_store(&store, load.jobs).await?;
    Ok(Measured {
        jobs_per_second: outcomes.rate(),
        p50: outcomes.start_quantile(0.5),
        p99: outcomes.start_quantile(0.99),
        cpu_per_job: Some(cpu / u32::try_from(load.jobs)?),
    })
}

fn huey(folder: &std::path::Path, jobs: usize, pace: Option<f64>) -> anyhow::Result<Measured> {
    let script = sandbox::root().join("tests/bench/runtime/huey_queue.py");
    let output = Command::new(sandbox::python()?)
        .arg(script)
        .args(["--jobs", &jobs.to_string(), "--pace", &pace.unwrap_or(0.0).to_string(), "--folder"])
        .arg(folder)
        .output()?;
    ensure!(output.status.success(), "huey: {}", String::from_utf8_lossy(&output.stderr));
    let figures: serde_json::Value = serde_json::from_slice(&output.stdout)?;
    let read = |name: &str| figures[name].as_f64().with_context(|| format!("huey's figures lack {name}"));
    Ok(Measured {
        jobs_per_second: read("jobs_per_second")?,
        p50: Duration::from_secs_f64(read("p50_ms")? / 1e3),
        p99: Duration::from_secs_f64(read("p99_ms")? / 1e3),
        cpu_per_job: None,
    })
}
