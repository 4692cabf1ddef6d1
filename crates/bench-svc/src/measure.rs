//! The measuring process: opens one model on its processors and measures as it is told on its standard input.

use std::{
    io::{self, BufRead as _, Write as _},
    path::PathBuf,
    time::{Duration, Instant},
};

use nix::{
    sched::{CpuSet, sched_setaffinity},
    unistd::Pid,
};
use quintet_nlp::crf::Crf;
use quintet_onnx::{Classifier, Logits, Options, keys};

use crate::{
    clock::{self, Ticks},
    inputs::Inputs,
    protocol::{Answer, Command, Failure, FailureKind, Figures, Loaded},
    report::Warmup,
    statistics::Latencies,
};

/// Arguments of the measuring process.
#[derive(Clone, Debug, clap::Args)]
pub struct Arguments {
    /// The ONNX file.
    #[arg(long)]
    pub model: PathBuf,
    /// Threads inside one operator.
    #[arg(long)]
    pub threads: usize,
    /// Processors to run on.
    #[arg(long, value_delimiter = ',')]
    pub cpus: Vec<usize>,
    /// Seed of the inputs.
    #[arg(long)]
    pub seed: u64,
}

/// Token ids when the model does not say how many there are: few enough for any word table.
const SMALL_VOCABULARY: i64 = 100;

/// Runs until standard input ends; the answers are on standard output.
///
/// # Errors
/// Only when the other side cannot be heard or told; everything else is told to it.
pub fn run(arguments: &Arguments) -> io::Result<()> {
    let mut session = match Session::open(arguments) {
        Ok((session, loaded)) => {
            tell(&Answer::Loaded(loaded))?;
            session
        }
        Err(failure) => return tell(&Answer::Failed(failure)),
    };
    for line in io::stdin().lock().lines() {
        let command: Command = serde_json::from_str(&line?).map_err(io::Error::other)?;
        match session.obey(&command) {
            Ok(answer) => tell(&answer)?,
            Err(failure) => return tell(&Answer::Failed(failure)),
        }
    }
    Ok(())
}

fn tell(answer: &Answer) -> io::Result<()> {
    let mut line = serde_json::to_vec(answer).map_err(io::Error::other)?;
    line.push(b'\n');
    let mut out = io::stdout().lock();
    out.write_all(&line)?;
    out.flush()
}

struct Session {
    model: Model,
    cpus: Vec<usize>,
    seed: u64,
    vocabulary: i64,
    shape: Option<Shape>,
}

/// A model, and what it takes to answer with it.
struct Model {
    classifier: Classifier,
    /// Of a head with a CRF: without the best sequence there are no labels.
    crf: Option<Crf>,
}

impl Model {
    /// Decodes as if every sub-token were a word of its own, which is the most that there can be.
    fn decode(&self, logits: &Logits) -> Result<(), Failure> {
        let (Some(crf), [rows, length, labels]) = (&self.crf, logits.shape.as_slice()) else { return Ok(()) };
        if *labels != crf.labels() {
            let problem = format!("logits of {labels} labels, but {} in its {}", crf.labels(), keys::CRF);
            return Err(Failure { kind: FailureKind::Model, problem });
        }
        for row in logits.values.chunks_exact((length * labels).max(1)).take(*rows) {
            std::hint::black_box(crf.decode(row));
        }
        Ok(())
    }
}

/// What was measured at the current shape.
struct Shape {
    inputs: Inputs,
    latencies: Latencies,
    runs: u64,
    wall: Duration,
    cpu: Duration,
    machine: Ticks,
    pinned: Ticks,
    /// Time of the slices in which the ticks were read.
    observed: Duration,
    observed_cpu: Duration,
}

impl Session {
    fn open(arguments: &Arguments) -> Result<(Self, Loaded), Failure> {
        pin(&arguments.cpus).map_err(|problem| Failure { kind: FailureKind::Runtime, problem })?;
        // Loading the library is no part of loading the model.
        let onnxruntime = quintet_onnx::version().map_err(failure)?;
        let start = Instant::now();
        let classifier = Classifier::open(&arguments.model, Options { threads: arguments.threads }).map_err(failure)?;
        let load_ms = start.elapsed().as_secs_f64() * 1e3;
        let metadata = classifier.metadata().map_err(failure)?;
        let loaded = Loaded {
            load_ms,
            memory_bytes: clock::peak_memory(),
            onnxruntime,
            quantization: metadata.get(keys::QUANTIZATION).cloned(),
            max_length: metadata.get(keys::MAX_LENGTH).and_then(|length| length.parse().ok()),
            checkpoint_digest: metadata.get(keys::CHECKPOINT_DIGEST).cloned(),
            crf: metadata.contains_key(keys::CRF),
        };
        let vocabulary = metadata.get(keys::VOCAB_SIZE).and_then(|size| size.parse().ok()).unwrap_or(SMALL_VOCABULARY);
        let crf = metadata.get(keys::CRF).map(|json| serde_json::from_str(json)).transpose();
        let crf = crf.map_err(|error: serde_json::Error| Failure {
            kind: FailureKind::Model,
            problem: format!("{}: {}: {error}", arguments.model.display(), keys::CRF),
        })?;
        let model = Model { classifier, crf };
        let session = Self { model, cpus: arguments.cpus.clone(), seed: arguments.seed, vocabulary, shape: None };
        Ok((session, loaded))
    }

    fn obey(&mut self, command: &Command) -> Result<Answer, Failure> {
        match *command {
            Command::WarmUp { batch, sequence, runs, window_seconds, limit_seconds, stability } => {
                let shape = Shape::new(Inputs::new(self.seed, batch, sequence, self.vocabulary))?;
                let limits = Limits { runs, window_seconds, limit_seconds, stability };
                let warmup = warm_up(&limits, || shape.run(&mut self.model))?;
                self.shape = Some(shape);
                Ok(Answer::Warm(warmup))
            }
            Command::Measure { runs, seconds } => {
                let shape = self.shape.as_mut().ok_or_else(out_of_order)?;
                shape.measure(&mut self.model, &self.cpus, runs, seconds)
            }
            Command::Figures => Ok(Answer::Figures(self.shape.take().ok_or_else(out_of_order)?.figures(&self.cpus))),
        }
    }
}

impl Shape {
    fn new(inputs: Inputs) -> Result<Self, Failure> {
        let latencies = Latencies::new()
            .map_err(|error| Failure { kind: FailureKind::Runtime, problem: format!("histogram: {error}") })?;
        Ok(Self {
            inputs,
            latencies,
            runs: 0,
            wall: Duration::ZERO,
            cpu: Duration::ZERO,
            machine: Ticks::default(),
            pinned: Ticks::default(),
            observed: Duration::ZERO,
            observed_cpu: Duration::ZERO,
        })
    }

    fn run(&self, model: &mut Model) -> Result<Duration, Failure> {
        let batch = self.inputs.batch();
        let start = Instant::now();
        let logits = model.classifier.run(&batch).map_err(failure)?;
        model.decode(&logits)?;
        Ok(start.elapsed())
    }

    fn measure(&mut self, model: &mut Model, cpus: &[usize], runs: usize, seconds: f64) -> Result<Answer, Failure> {
        let (machine, pinned) = clock::ticks(cpus);
        let (start, cpu) = (Instant::now(), clock::process_cpu());
        let (mut done, mut wall) = (0, Duration::ZERO);
        while done < runs as u64 || wall.as_secs_f64() < seconds {
            let elapsed = self.run(model)?;
            self.latencies.record(u64::try_from(elapsed.as_nanos()).unwrap_or(u64::MAX));
            wall += elapsed;
            done += 1;
        }
        let used = clock::process_cpu().saturating_sub(cpu);
        let (machine_now, pinned_now) = clock::ticks(cpus);
        self.machine = self.machine.plus(machine_now.since(machine));
        self.pinned = self.pinned.plus(pinned_now.since(pinned));
        self.observed += start.elapsed();
        self.observed_cpu += used;
        self.cpu += used;
        self.runs += done;
        self.wall += wall;
        Ok(Answer::Measured { runs: done, seconds: wall.as_secs_f64() })
    }

    fn figures(&self, cpus: &[usize]) -> Figures {
        Figures {
            runs: self.runs,
            seconds: self.wall.as_secs_f64(),
            cpu_seconds: self.cpu.as_secs_f64(),
            latency: self.latencies.summary(),
            peak_memory_bytes: clock::peak_memory(),
            others_share: self.pinned.others_share(self.observed_cpu, self.observed, cpus.len()),
            machine_others_share: self.machine.others_share(self.observed_cpu, self.observed, clock::processors()),
        }
    }
}

/// Bounds of a warm-up.
struct Limits {
    runs: usize,
    window_seconds: f64,
    limit_seconds: f64,
    stability: f64,
}

/// Runs `limits.runs` times, then in windows until the throughputs of the last three differ by at most `stability`, or the
/// time is up.
fn warm_up(limits: &Limits, mut run: impl FnMut() -> Result<Duration, Failure>) -> Result<Warmup, Failure> {
    let mut warmup = Warmup::default();
    let mut total = Duration::ZERO;
    for _ in 0..limits.runs {
        total += run()?;
        warmup.runs += 1;
    }
    let mut rates: Vec<f64> = Vec::new();
    while !warmup.stable && (rates.len() < 3 || total.as_secs_f64() < limits.limit_seconds) {
        let (mut runs, mut wall) = (0u32, Duration::ZERO);
        while runs < 2 || wall.as_secs_f64() < limits.window_seconds {
            wall += run()?;
            runs += 1;
        }
        total += wall;
        warmup.runs += u64::from(runs);
        rates.push(f64::from(runs) / wall.as_secs_f64().max(1e-9));
        warmup.windows = rates.len();
        warmup.stable = rates.last_chunk::<3>().is_some_and(|last| ratio(last) <= 1.0 + limits.stability);
    }
    Ok(warmup)
}

/// Largest over smallest; 1 for none.
pub(crate) fn ratio(values: &[f64]) -> f64 {
    let most = values.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let least = values.iter().copied().fold(f64::INFINITY, f64::min);
    if most > 0.0 && least > 0.0 { most / least } else { 1.0 }
}

/// Binds the process to these processors; threads made later inherit it.
fn pin(cpus: &[usize]) -> Result<(), String> {
    let mut set = CpuSet::new();
    for cpu in cpus {
        set.set(*cpu).map_err(|error| format!("processor {cpu}: {error}"))?;
    }
    sched_setaffinity(Pid::from_raw(0), &set).map_err(|error| format!("binding to processors {cpus:?}: {error}"))
}

fn failure(error: quintet_onnx::Error) -> Failure {
    let kind = match error {
        quintet_onnx::Error::LibraryMissing { .. } | quintet_onnx::Error::LibraryUnusable { .. } => {
            FailureKind::Runtime
        }
        _ => FailureKind::Model,
    };
    Failure { kind, problem: error.to_string() }
}

fn out_of_order() -> Failure {
    Failure { kind: FailureKind::Runtime, problem: "command before warming up".to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: Limits = Limits { runs: 2, window_seconds: 0.1, limit_seconds: 10.0, stability: 0.1 };

    #[test]
    fn warming_up_ends_when_three_windows_agree() {
        // Ever faster, then steady: 2 runs, then windows of at least 0.1 s.
        let mut times = [500, 400, 200, 150, 90, 70].into_iter().chain(std::iter::repeat(50));
        let warmup = warm_up(&LIMITS, || Ok(Duration::from_millis(times.next().unwrap()))).unwrap();
        assert!(warmup.stable);
        assert_eq!((warmup.windows, warmup.runs), (5, 12));
    }

    #[test]
    fn warming_up_gives_up_in_time() {
        // Ever slower: no three windows agree.
        let mut time = 20.0;
        let warmup = warm_up(&LIMITS, || {
            time *= 1.15;
            Ok(Duration::from_secs_f64(time / 1e3))
        })
        .unwrap();
        assert!(!warmup.stable);
        assert!(warmup.windows > 3 && warmup.windows < 20, "{warmup:?}");
    }

    #[test]
    fn ratios() {
        assert_eq!(ratio(&[2.0, 1.0, 4.0]), 4.0);
        assert_eq!(ratio(&[]), 1.0);
    }
}
