//! The benchmark: one process for each model, the models taking turns in rounds at each shape.

use std::{
    ffi::OsString,
    fs,
    path::{Path, PathBuf},
    time::Instant,
};

use quintet_nlp::files;
use rand::{SeedableRng as _, seq::SliceRandom as _};
use rand_chacha::ChaCha8Rng;

use crate::{
    Error, Settings,
    child::{Launch, Measurer},
    environment, inputs, markdown,
    measure::ratio,
    models::{self, ModelFile, Source},
    protocol::{Answer, Command, Figures, Loaded},
    report::{Model, Report, Row, SCHEMA, Warmup},
    statistics,
};

/// What to measure, and how.
#[derive(Clone, Debug)]
pub struct Request {
    /// What to measure.
    pub models: Vec<Source>,
    /// How.
    pub settings: Settings,
    /// Folder for `benchmark.json` and `benchmark.md`; must not exist or be empty.
    pub output: PathBuf,
    /// Program that measures a model in a process of its own.
    pub program: PathBuf,
    /// Its first arguments, before those of [`crate::measure::Arguments`].
    pub program_arguments: Vec<OsString>,
}

/// Hears how it goes, and says whether to go on.
pub trait Observer {
    /// `done` of `total` rounds of a model at a shape; `message` is one line for a person.
    fn progress(&mut self, done: u64, total: u64, message: &str);
    /// A line for the log.
    fn log(&mut self, line: &str);
    /// Whether to stop; asked between measurements.
    fn stop_requested(&mut self) -> bool;
}

/// Measures, and writes the report's folder in one step.
///
/// # Errors
/// See [`Error`]; nothing is written then. Bad models are found before anything is measured.
pub fn benchmark(request: &Request, observer: &mut dyn Observer) -> Result<Report, Error> {
    let start = Instant::now();
    let time = jiff::Timestamp::now().to_string();
    let settings = &request.settings;
    let files = models::find(&request.models)?;
    let cpus = environment::choose_processors(settings.threads)?;
    let mut environment = environment::look(&cpus);
    let launch = Launch {
        program: &request.program,
        arguments: &request.program_arguments,
        threads: settings.threads,
        cpus: &cpus,
        seed: settings.seed,
    };
    let (mut variants, models) = open(&launch, &files, settings, observer)?;
    environment.onnxruntime = variants.first().map(|variant| variant.onnxruntime.clone()).unwrap_or_default();
    let rows = measure(&mut variants, settings, observer)?;
    let models = models.into_iter().map(|model| with_peak(model, &rows)).collect();
    let report = Report {
        schema: SCHEMA.to_owned(),
        time,
        seconds: start.elapsed().as_secs_f64(),
        settings: settings.clone(),
        inputs: inputs::DESCRIPTION.to_owned(),
        environment,
        models,
        rows,
    };
    write(&report, &request.output)?;
    Ok(report)
}

/// A model in its process.
struct Variant {
    name: String,
    measurer: Measurer,
    onnxruntime: String,
}

/// Starts a process for each model and checks that the model can take every shape.
fn open(
    launch: &Launch<'_>,
    files: &[ModelFile],
    settings: &Settings,
    observer: &mut dyn Observer,
) -> Result<(Vec<Variant>, Vec<Model>), Error> {
    let (mut variants, mut models) = (Vec::new(), Vec::new());
    for file in files {
        stop(observer)?;
        let (measurer, loaded) = Measurer::start(launch, &file.path)?;
        observer.log(&format!("{}: loaded in {:.0} ms", file.given, loaded.load_ms));
        check_lengths(file, &loaded, settings)?;
        models.push(describe(file, &loaded)?);
        variants.push(Variant { name: file.name.clone(), measurer, onnxruntime: loaded.onnxruntime });
    }
    Ok((variants, models))
}

fn check_lengths(file: &ModelFile, loaded: &Loaded, settings: &Settings) -> Result<(), Error> {
    let Some(most) = loaded.max_length else { return Ok(()) };
    match settings.sequence_lengths.iter().find(|length| **length > most) {
        None => Ok(()),
        Some(length) => Err(Error::Argument {
            field: "sequence_lengths",
            problem: format!("{length}; {} takes 1 to {most}", file.given),
        }),
    }
}

fn describe(file: &ModelFile, loaded: &Loaded) -> Result<Model, Error> {
    let metadata = fs::metadata(&file.path).map_err(Error::io(format!("reading {}", file.path.display())))?;
    Ok(Model {
        name: file.name.clone(),
        path: file.given.clone(),
        size_bytes: metadata.len(),
        sha256: files::digest(&file.path)?,
        load_ms: loaded.load_ms,
        loaded_memory_bytes: loaded.memory_bytes,
        peak_memory_bytes: loaded.memory_bytes,
        quantization: loaded.quantization.clone(),
        max_length: loaded.max_length,
        checkpoint_digest: loaded.checkpoint_digest.clone(),
        crf: loaded.crf,
    })
}

fn with_peak(mut model: Model, rows: &[Row]) -> Model {
    let peaks = rows.iter().filter(|row| row.model == model.name).filter_map(|row| row.peak_memory_bytes);
    model.peak_memory_bytes = peaks.max().max(model.peak_memory_bytes);
    model
}

fn measure(variants: &mut [Variant], settings: &Settings, observer: &mut dyn Observer) -> Result<Vec<Row>, Error> {
    let shapes = settings.shapes();
    let mut rows = Vec::new();
    // A warm-up counts as a round.
    let total = (shapes.len() * variants.len() * (settings.rounds + 1)) as u64;
    let mut done = 0;
    let mut order_random = ChaCha8Rng::seed_from_u64(settings.seed);
    for (batch, sequence) in shapes {
        let message = format!("batch {batch}, sequence {sequence}");
        let mut tick = |observer: &mut dyn Observer| {
            done += 1;
            observer.progress(done, total, &message);
            stop(observer)
        };
        let mut warmups = Vec::new();
        for variant in variants.iter_mut() {
            warmups.push(warm_up(variant, settings, batch, sequence)?);
            tick(observer)?;
        }
        let mut rates = vec![Vec::new(); variants.len()];
        let mut order: Vec<usize> = (0..variants.len()).collect();
        let part = Command::Measure {
            runs: settings.min_runs.div_ceil(settings.rounds),
            seconds: settings.min_seconds / settings.rounds as f64,
        };
        for _ in 0..settings.rounds {
            order.shuffle(&mut order_random);
            for index in &order {
                let measurer = &mut variants[*index].measurer;
                match measurer.ask(&part)? {
                    Answer::Measured { runs, seconds } => rates[*index].push(runs as f64 / seconds.max(1e-9)),
                    other => return Err(measurer.unexpected(&other)),
                }
                tick(observer)?;
            }
        }
        let first = rows.len();
        for (variant, (warmup, rates)) in variants.iter_mut().zip(warmups.into_iter().zip(&rates)) {
            let figures = match variant.measurer.ask(&Command::Figures)? {
                Answer::Figures(figures) => figures,
                other => return Err(variant.measurer.unexpected(&other)),
            };
            let mut row = judge(&variant.name, (batch, sequence), &figures, warmup, ratio(rates), settings);
            let reference = rows.get(first).map_or(row.latency_ms.p50, |first: &Row| first.latency_ms.p50);
            row.speedup = reference / row.latency_ms.p50.max(1e-9);
            observer.log(&format!(
                "{} {batch}x{sequence}: p50 {:.3} ms, {:.1} rows/s, {} runs",
                row.model, row.latency_ms.p50, row.throughput, row.runs
            ));
            rows.push(row);
        }
    }
    Ok(rows)
}

fn warm_up(variant: &mut Variant, settings: &Settings, batch: usize, sequence: usize) -> Result<Warmup, Error> {
    let answer = variant.measurer.ask(&Command::WarmUp {
        batch,
        sequence,
        runs: settings.warmup_runs,
        window_seconds: (settings.min_seconds / 10.0).clamp(0.01, 0.5),
        limit_seconds: (settings.min_seconds * 5.0).clamp(1.0, 30.0),
        stability: settings.stability,
    })?;
    match answer {
        Answer::Warm(warmup) => Ok(warmup),
        other => Err(variant.measurer.unexpected(&other)),
    }
}

/// The figures of a row with the rules that they break.
fn judge(
    model: &str,
    (batch, sequence): (usize, usize),
    figures: &Figures,
    warmup: Warmup,
    rounds_ratio: f64,
    settings: &Settings,
) -> Row {
    let mut problems = Vec::new();
    let percent = |share: f64| format!("{:.0} %", share * 100.0);
    if !warmup.stable {
        problems.push(format!("warm-up ended before 3 windows agreed within {}", percent(settings.stability)));
    }
    if rounds_ratio > 1.0 + settings.stability {
        problems.push(format!("rounds differ by more than {}", percent(settings.stability)));
    }
    match figures.others_share {
        Some(share) if share > settings.max_others_share => {
            problems.push(format!("others used more than {} of the processors", percent(settings.max_others_share)));
        }
        _ => {}
    }
    // The measuring process holds to these; a row that breaks them is a mistake in it.
    if figures.runs < settings.min_runs as u64 || figures.seconds < settings.min_seconds * 0.999 {
        problems.push("measured for too few runs or seconds".to_owned());
    }
    let notes = [99.0, 95.0, 90.0]
        .into_iter()
        .filter(|percentile| figures.runs < statistics::least_runs(*percentile))
        .map(|percentile| format!("p{percentile} needs {} runs", statistics::least_runs(percentile)))
        .collect();
    Row {
        model: model.to_owned(),
        batch,
        sequence,
        runs: figures.runs,
        seconds: figures.seconds,
        latency_ms: figures.latency,
        throughput: figures.runs as f64 * batch as f64 / figures.seconds.max(1e-9),
        cpu_ms: figures.cpu_seconds * 1e3 / figures.runs.max(1) as f64,
        peak_memory_bytes: figures.peak_memory_bytes,
        others_share: figures.others_share,
        machine_others_share: figures.machine_others_share,
        warmup,
        rounds_ratio,
        speedup: 1.0,
        valid: problems.is_empty(),
        problems,
        notes,
    }
}

fn stop(observer: &mut dyn Observer) -> Result<(), Error> {
    if observer.stop_requested() { Err(Error::Cancelled) } else { Ok(()) }
}

fn write(report: &Report, output: &Path) -> Result<(), Error> {
    files::write_folder(output, |folder| {
        let mut json = serde_json::to_vec_pretty(report)
            .map_err(|error| Error::io("writing benchmark.json")(std::io::Error::other(error)))?;
        json.push(b'\n');
        files::write_file(&folder.join("benchmark.json"), &json)?;
        files::write_file(&folder.join("benchmark.md"), markdown::render(report).as_bytes())?;
        Ok(())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings() -> Settings {
        Settings::from_spec(&quintet_proto::v1::BenchmarkSpec::default()).unwrap()
    }

    fn figures(runs: u64, others: Option<f64>) -> Figures {
        Figures { runs, seconds: 2.0, cpu_seconds: 1.0, others_share: others, ..Figures::default() }
    }

    #[test]
    fn a_clean_row_is_valid_and_short_percentiles_are_noted() {
        let stable = Warmup { runs: 20, windows: 3, stable: true };
        let row = judge("m", (8, 32), &figures(100, Some(0.02)), stable, 1.05, &settings());
        assert!(row.valid, "{:?}", row.problems);
        assert_eq!(row.notes, ["p99 needs 662 runs", "p95 needs 130 runs"]);
        assert_eq!((row.throughput, row.cpu_ms), (400.0, 10.0));
        assert!(judge("m", (8, 32), &figures(662, None), stable, 1.0, &settings()).notes.is_empty());
    }

    #[test]
    fn each_broken_rule_is_named() {
        let row = judge("m", (1, 1), &figures(10, Some(0.5)), Warmup::default(), 1.5, &settings());
        assert!(!row.valid);
        assert_eq!(
            row.problems,
            [
                "warm-up ended before 3 windows agreed within 10 %",
                "rounds differ by more than 10 %",
                "others used more than 10 % of the processors",
                "measured for too few runs or seconds"
            ]
        );
    }
}
