//! Time of a trial by history: our suggest and tell over gRPC, durable, beside Optuna and Rustuna in memory in the same minute.
//!
//! `cargo bench -p quintet-tests --bench hpo_speed [-- --counts 100,1000 --rounds N --python PROGRAM]`. Without `--bench`, as
//! `cargo test --benches` runs it, a short history shows that everything works.
//!
//! 5 floats and 2 categoricals, TPE with default settings. A study is filled with random finished trials; then a client asks for a
//! trial and tells its value, two calls over a socket to a server process, and the median of the rounds counts. Beside it stands the
//! CPU time of the server, which does not depend on what else the machine does. Peers: `speed_peers.py`.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context as _, ensure};
use clap::Parser;
use futures::{StreamExt as _, TryStreamExt as _};
use hpo_svc::{
    space::{Distribution, ParamValue},
    storage::{NewTrial, Past, Store},
    study::{Param, State},
};
use quintet_proto::{
    types,
    v1::{
        self, CreateStudyRequest, StudySpec, SuggestTrialsRequest, TellTrialRequest, Trial,
        hpo_service_client::HpoServiceClient, parameter::Domain,
    },
};
use rand::{RngExt as _, SeedableRng as _};
use rand_chacha::ChaCha8Rng;
use runtime_core::{
    client::{Connection, connect},
    config::{Config, Service},
    host::Host,
};
use serde_json::Value;

/// Trials before those that count.
const WARM: usize = 3;
/// Set in the process that is the server, to its folder.
const SERVER: &str = "QUINTET_BENCH_HPO_SERVER";
const CHOICES: [&str; 3] = ["a", "b", "c"];

/// Measures suggest and tell.
#[derive(Debug, Parser)]
struct Options {
    /// Lengths of the history
    #[arg(long, value_delimiter = ',')]
    counts: Option<Vec<usize>>,
    /// Trials that are timed at each length
    #[arg(long, default_value_t = 30)]
    rounds: usize,
    /// Python with optuna and rustuna; without it the peers are left out
    #[arg(long)]
    python: Option<PathBuf>,
    /// Given by `cargo bench`
    #[arg(long, hide = true)]
    bench: bool,
}

fn main() -> anyhow::Result<()> {
    if let Some(folder) = std::env::var_os(SERVER) {
        // As many threads as a server has.
        let threads = std::thread::available_parallelism().map_or(1, |cores| cores.get().div_ceil(2));
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(threads).enable_all().build()?;
        return runtime.block_on(serve(Path::new(&folder)));
    }
    let options = Options::parse();
    // One client that waits for each answer has no use for a second thread.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(measure(&options))
}

async fn serve(folder: &Path) -> anyhow::Result<()> {
    let mut config = Config {
        data_dir: folder.join("data"),
        listen: "127.0.0.1:0".into(),
        services: vec![Service::Hpo],
        ..Config::default()
    };
    config.worker.enabled = false;
    config.backup.enabled = false;
    let server = hpo_svc::mount(Host::open(config).await?).await?.start().await?;
    std::fs::write(folder.join("starting"), server.url())?;
    std::fs::rename(folder.join("starting"), folder.join("url"))?;
    std::future::pending().await
}

/// The server's process; killed when this is dropped.
struct Server(Child);

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

async fn start(folder: &Path) -> anyhow::Result<(Server, HpoServiceClient<Connection>)> {
    let mut command = Command::new(std::env::current_exe()?);
    let server = Server(command.env(SERVER, folder).stdin(Stdio::null()).spawn()?);
    let deadline = Instant::now() + Duration::from_secs(60);
    let url = loop {
        match std::fs::read_to_string(folder.join("url")) {
            Ok(url) => break url,
            Err(_) if Instant::now() < deadline => tokio::time::sleep(Duration::from_millis(5)).await,
            Err(error) => return Err(error).context("the server has not started"),
        }
    };
    Ok((server, HpoServiceClient::new(connect(&url, None)?)))
}

fn spec() -> StudySpec {
    let float = |index| v1::Parameter {
        name: format!("x{index}"),
        domain: Some(Domain::Float(v1::FloatDomain { low: 0.0, high: 1.0, log: false, step: None })),
        condition: None,
    };
    let choices: Vec<types::Value> = CHOICES.map(types::Value::from).to_vec();
    let choice = |index| v1::Parameter {
        name: format!("c{index}"),
        domain: Some(Domain::Categorical(v1::CategoricalDomain { choices: choices.clone() })),
        condition: None,
    };
    StudySpec {
        search_space: (0..5).map(float).chain((0..2).map(choice)).collect(),
        objectives: vec![v1::Objective { metric: "loss".into(), direction: v1::Direction::Minimize.into() }],
        seed: Some(1),
        ..StudySpec::default()
    }
}

/// What the peers compute too.
fn loss(x: impl Iterator<Item = f64>, first_choices: usize) -> f64 {
    x.map(|x| (x - 0.3).powi(2)).sum::<f64>() + 0.1 * first_choices as f64
}

/// Adds random finished trials, as another program on the same database does.
async fn fill(folder: &Path, count: usize) -> anyhow::Result<()> {
    let store = Store::open(&format!("sqlite://{}", folder.join("data/hpo.db").display()))?;
    let study = store.find_study("speed").await?.context("no study")?.id;
    let float = Distribution::float(0.0, 1.0, false, None)?;
    let choice = Distribution::categorical(CHOICES.map(|name| ParamValue::Text(name.into())).to_vec())?;
    let mut random = ChaCha8Rng::seed_from_u64(count as u64);
    let now = "2026-01-01T00:00:00Z".parse()?;
    let trials: Vec<NewTrial> = (0..count)
        .map(|_| {
            let x: Vec<f64> = (0..5).map(|_| random.random()).collect();
            let c: Vec<f64> = (0..2).map(|_| f64::from(random.random_range(0..3_u8))).collect();
            let value = loss(x.iter().copied(), c.iter().filter(|c| **c == 0.0).count());
            let param =
                |(name, value, of): (String, f64, &Distribution)| Param { name, value, distribution: of.clone() };
            let floats = x.into_iter().enumerate().map(|(index, value)| (format!("x{index}"), value, &float));
            let chosen = c.into_iter().enumerate().map(|(index, value)| (format!("c{index}"), value, &choice));
            let past = Past { values: vec![value], start: Some(now), complete: Some(now), ..Past::of(State::Complete) };
            NewTrial { params: floats.chain(chosen).map(param).collect(), past: Some(past), ..NewTrial::default() }
        })
        .collect();
    let made = trials.into_iter().map(|new| store.create_trial(study, new, now));
    futures::stream::iter(made).buffered(256).try_collect::<Vec<_>>().await?;
    Ok(())
}

fn value_of(trial: &Trial) -> anyhow::Result<f64> {
    use types::value::Kind;
    let fields = &trial.parameters.as_ref().context("no parameters")?.fields;
    let (mut x, mut first) = (Vec::new(), 0);
    for value in fields.values() {
        match &value.kind {
            Some(Kind::NumberValue(number)) => x.push(*number),
            Some(Kind::StringValue(text)) => first += usize::from(text == CHOICES[0]),
            other => anyhow::bail!("{other:?} is no value of the space"),
        }
    }
    ensure!(x.len() == 5, "{} floats", x.len());
    Ok(loss(x.into_iter(), first))
}

/// What a trial takes, in milliseconds.
#[derive(Debug, Clone, Copy)]
struct Cost {
    /// From the request for a trial to the answer that it has ended: the median.
    wall: f64,
    /// CPU of the server: the mean.
    cpu: f64,
}

/// Seconds of CPU that the threads of a process have had.
fn cpu_seconds(process: u32) -> anyhow::Result<f64> {
    let mut nanoseconds = 0.0;
    for thread in std::fs::read_dir(format!("/proc/{process}/task"))? {
        // A thread may end meanwhile.
        let Ok(figures) = std::fs::read_to_string(thread?.path().join("schedstat")) else { continue };
        nanoseconds += figures.split(' ').next().context("no figures")?.parse::<f64>()?;
    }
    Ok(nanoseconds / 1e9)
}

/// The cost of suggest and tell after `count` trials.
async fn ours(count: usize, rounds: usize) -> anyhow::Result<Cost> {
    let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR"))?;
    let (server, mut client) = start(folder.path()).await?;
    client.create_study(CreateStudyRequest { study_name: "speed".into(), spec: Some(spec()) }).await?;
    fill(folder.path(), count).await?;
    let (mut times, mut cpu) = (Vec::new(), 0.0);
    for round in 0..rounds + WARM {
        if round == WARM {
            cpu = cpu_seconds(server.0.id())?;
        }
        let start = Instant::now();
        let request = SuggestTrialsRequest { study: "studies/speed".into(), client_id: "bench".into(), count: 1 };
        let trial = client.suggest_trials(request).await?.into_inner().trials.pop().context("no trial")?;
        let values = vec![value_of(&trial)?];
        client.tell_trial(TellTrialRequest { name: trial.name, values, ..TellTrialRequest::default() }).await?;
        times.push(start.elapsed());
    }
    let cpu = (cpu_seconds(server.0.id())? - cpu) / rounds as f64 * 1e3;
    let mut times = times.split_off(WARM);
    times.sort_unstable();
    Ok(Cost { wall: times[times.len() / 2].as_secs_f64() * 1e3, cpu })
}

fn peers(python: &Path, counts: &[usize], rounds: usize) -> anyhow::Result<BTreeMap<String, BTreeMap<String, f64>>> {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("bench/hpo/speed_peers.py");
    let counts = counts.iter().map(ToString::to_string);
    let output = Command::new(python).arg(script).args(counts).args(["--rounds", &rounds.to_string()]).output()?;
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let document: Value = serde_json::from_slice(&output.stdout)?;
    Ok(serde_json::from_value(document)?)
}

async fn measure(options: &Options) -> anyhow::Result<()> {
    let counts = options.counts.clone().unwrap_or_else(|| match options.bench {
        true => vec![100, 1_000, 5_000, 20_000],
        false => vec![50],
    });
    let rounds = if options.bench { options.rounds } else { 5 };
    let mut rows = Vec::new();
    for count in &counts {
        rows.push((*count, ours(*count, rounds).await?));
    }
    let python = options.python.as_deref();
    let peers = python.map(|python| peers(python, &counts, rounds)).transpose()?.unwrap_or_default();
    println!("ms a trial (suggest + tell), median of {rounds}");
    println!(
        "{:>8} {:>16} {:>18} {:>19} {:>18}",
        "trials", "quintet, durable", "optuna, in memory", "rustuna, in memory", "our server's CPU"
    );
    for (count, Cost { wall: time, cpu }) in rows {
        let peer = |name: &str| match peers.get(name).and_then(|times| times.get(&count.to_string())) {
            Some(theirs) => format!("{theirs:.2} ({:.1}x)", theirs / time),
            None => "-".to_owned(),
        };
        println!("{count:>8} {time:>16.2} {:>18} {:>19} {cpu:>18.2}", peer("optuna"), peer("rustuna"));
    }
    Ok(())
}
