//! A load of the REST API over keep-alive sockets: requests a second and latencies, every write answered after its synced commit.
//!
//! `cargo run --release -p tracking-svc --example load [SECONDS]`

use std::{
    io::{Read as _, Write as _},
    net::{SocketAddr, TcpStream},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use axum::serve::ListenerExt as _;
use runtime_core::artifacts::ArtifactStore;
use tracking_svc::{Batch, Metric, NewRun, Options, Pair};

type Failure = Box<dyn std::error::Error + Send + Sync>;

/// One connection of a client.
struct Client(TcpStream, Vec<u8>);

impl Client {
    fn open(address: SocketAddr) -> Result<Self, Failure> {
        let socket = TcpStream::connect(address)?;
        socket.set_nodelay(true)?;
        Ok(Self(socket, vec![0; 1 << 20]))
    }

    /// Sends a request and reads its whole answer, which has to be 200.
    fn call(&mut self, request: &[u8]) -> Result<(), Failure> {
        self.0.write_all(request)?;
        let (mut filled, mut needed) = (0, None);
        loop {
            if filled == self.1.len() {
                self.1.resize(filled * 2, 0);
            }
            let count = self.0.read(&mut self.1[filled..])?;
            if count == 0 {
                return Err("the server closed the connection".into());
            }
            filled += count;
            if needed.is_none()
                && let Some(end) = self.1[..filled].windows(4).position(|part| part == b"\r\n\r\n")
            {
                let head = std::str::from_utf8(&self.1[..end])?.to_ascii_lowercase();
                if !head.starts_with("http/1.1 200") {
                    return Err(String::from_utf8_lossy(&self.1[..filled]).into_owned().into());
                }
                let length = head.split("content-length: ").nth(1).and_then(|rest| rest.lines().next());
                needed = Some(end + 4 + length.ok_or("no length")?.trim().parse::<usize>()?);
            }
            if needed.is_some_and(|needed| filled >= needed) {
                return Ok(());
            }
        }
    }
}

fn post(path: &str, body: &str) -> Vec<u8> {
    format!(
        "POST /api/2.0/mlflow/{path} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    )
    .into_bytes()
}

/// Runs `request` from so many clients for so long, and prints what came of it.
fn measure(
    name: &str,
    address: SocketAddr,
    clients: usize,
    time: Duration,
    request: impl Fn(u64) -> Vec<u8> + Sync,
) -> Result<(), Failure> {
    let number = AtomicU64::new(1);
    let begin = Instant::now();
    let mut latencies: Vec<Duration> = Vec::new();
    std::thread::scope(|scope| -> Result<(), Failure> {
        let work = || -> Result<Vec<Duration>, Failure> {
            let mut client = Client::open(address)?;
            let mut latencies = Vec::new();
            while begin.elapsed() < time {
                let request = request(number.fetch_add(1, Ordering::Relaxed));
                let sent = Instant::now();
                client.call(&request)?;
                latencies.push(sent.elapsed());
            }
            Ok(latencies)
        };
        let threads: Vec<_> = (0..clients).map(|_| scope.spawn(work)).collect();
        for thread in threads {
            latencies.extend(thread.join().map_err(|_| "a client panicked")??);
        }
        Ok(())
    })?;
    let rate = latencies.len() as f64 / begin.elapsed().as_secs_f64();
    latencies.sort_unstable();
    let at = |share: f64| latencies[((latencies.len() - 1) as f64 * share) as usize].as_secs_f64() * 1000.0;
    println!("{name:<24} {clients} clients {rate:>9.0}/s   p50 {:>7.3} ms   p99 {:>7.3} ms", at(0.5), at(0.99));
    Ok(())
}

#[tokio::main]
async fn main() -> Result<(), Failure> {
    let time = Duration::from_secs(std::env::args().nth(1).map_or(Ok(4), |text| text.parse())?);
    let folder = tempfile::tempdir()?;
    let artifacts = ArtifactStore::open(&folder.path().join("artifacts").display().to_string())?;
    let tracking = tracking_svc::build(Options::new(format!("sqlite://{}/t.db", folder.path().display()), artifacts))?;
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    let listener = listener.tap_io(|socket| {
        // Without it every answer on a kept connection may wait for the client's acknowledgement.
        let _ = socket.set_nodelay(true);
    });
    let router = tracking_router(&tracking).await;
    tokio::spawn(async move { axum::serve(listener, router).await });
    tokio::task::spawn_blocking(move || scenarios(address, time)).await?
}

/// The router of a store that holds 10,000 runs of 10 metrics, 5 parameters and 5 tags each, and one with 1,000 points.
async fn tracking_router(tracking: &tracking_svc::Tracking) -> axum::Router {
    let store = Arc::new(tracking.store().clone());
    let begin = Instant::now();
    let tasks = (0..16).map(|task| {
        let store = store.clone();
        tokio::spawn(async move {
            for i in (task..10_000).step_by(16) {
                let uid = format!("{i:032x}");
                let tags = (0..5).map(|t| Pair::new(format!("t{t}"), format!("{i}"))).collect();
                let run = NewRun { run_id: Some(uid.clone()), start_time: 1000 + i, tags, ..NewRun::default() };
                let metric = |m: i64| Metric {
                    key: format!("m{m}").into(),
                    value: ((i * 7919 + m) % 1000) as f64,
                    timestamp: 1000,
                    step: 0,
                };
                let params = (0..5).map(|p| Pair::new(format!("p{p}"), format!("{}", i % 10))).collect();
                let batch = Batch { metrics: (0..10).map(metric).collect(), params, tags: Vec::new() };
                let seeded = async {
                    store.create_run(run).await?;
                    store.log_batch(uid, batch, true).await
                };
                if let Err(error) = seeded.await {
                    eprintln!("seeding: {error}");
                }
            }
        })
    });
    for task in tasks.collect::<Vec<_>>() {
        let _ = task.await;
    }
    let metric = |step: i64| Metric { key: "long".into(), value: step as f64, timestamp: 1000 + step, step };
    let batch = Batch { metrics: (0..1000).map(metric).collect(), ..Batch::default() };
    if let Err(error) = store.log_batch(format!("{:032x}", 1), batch, true).await {
        eprintln!("seeding: {error}");
    }
    println!("seeded in {:.1} s", begin.elapsed().as_secs_f64());
    tracking.router()
}

fn scenarios(address: SocketAddr, time: Duration) -> Result<(), Failure> {
    let run = |number: u64| format!("{:032x}", number % 64);
    let long = "GET /api/2.0/mlflow/metrics/get-history?metric_key=long&max_results=25000&run_id=00000000000000000000000000000001 HTTP/1.1\r\nHost: x\r\n\r\n";
    let filter = r#"{"experiment_ids": ["0"], "max_results": 100, "filter": "metrics.m1 > 500 AND params.p1 = '3'", "order_by": ["metrics.m2 DESC"]}"#;
    for clients in [1, 8] {
        measure("get run", address, clients, time, |n| {
            format!("GET /api/2.0/mlflow/runs/get?run_id={} HTTP/1.1\r\nHost: x\r\n\r\n", run(n)).into_bytes()
        })?;
        measure("history of 1,000", address, clients, time, |_| long.as_bytes().to_vec())?;
        let search = r#"{"experiment_ids": ["0"], "max_results": 100}"#;
        measure("search 100 of 10,000", address, clients, time, |_| post("runs/search", search))?;
        measure("filter, order by metric", address, clients, time, |_| post("runs/search", filter))?;
    }
    for clients in [1, 8] {
        measure("log-metric", address, clients, time, |n| {
            let run = run(n);
            post(
                "runs/log-metric",
                &format!(r#"{{"run_id": "{run}", "key": "w", "value": {n}.5, "timestamp": {n}, "step": {n}}}"#),
            )
        })?;
        measure("log-batch of 100", address, clients, time, |n| {
            let metrics: Vec<String> = (0..100)
                .map(|m| {
                    format!(
                        r#"{{"key": "b{}", "value": {n}.5, "timestamp": {n}, "step": {}}}"#,
                        m % 10,
                        n * 10 + m / 10
                    )
                })
                .collect();
            post("runs/log-batch", &format!(r#"{{"run_id": "{}", "metrics": [{}]}}"#, run(n), metrics.join(",")))
        })?;
        measure("create run", address, clients, time, |n| {
            post(
                "runs/create",
                &format!(r#"{{"experiment_id": "0", "start_time": {n}, "tags": [{{"key": "a", "value": "b"}}]}}"#),
            )
        })?;
    }
    Ok(())
}
