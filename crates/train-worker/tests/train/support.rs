//! A tiny checkpoint and data of which the word tells the tag, and an observer that keeps what it hears.
use std::{fs, path::PathBuf, time::Duration};

use quintet_nlp::{seqeval, testing::TinyCheckpoint};
use quintet_proto::v1::{Hyperparameters, TokenClassificationData, TrainSpec};
use train_worker::{DeviceChoice, Directive, Observer, Outcome, Scores, SplitReport, TrainReport, TrainRequest, train};

pub(crate) const PLACES: [&str; 6] = ["paris", "oslo", "rome", "lima", "cairo", "quito"];
pub(crate) const NAMES: [&str; 6] = ["anna", "piet", "olga", "juan", "mary", "ivan"];

/// Sentences of which the word tells the tag.
pub(crate) fn conll(rows: usize, offset: usize) -> String {
    let row = |n: usize| {
        let (name, place) = (NAMES[n * 5 % 6], PLACES[(n * 7 + n / 6) % 6]);
        match n % 3 {
            0 => format!("{name} B-per\nlives O\nin O\nnew B-loc\n{place} I-loc\n\n"),
            1 => format!("in O\n{place} B-loc\nwe O\nsaw O\n{name} B-per\n. O\n\n"),
            _ => format!("we O\nlike O\n{place} B-loc\n\n"),
        }
    };
    (offset..offset + rows).map(row).collect()
}

pub(crate) struct Bench {
    pub(crate) dir: tempfile::TempDir,
    pub(crate) spec: TrainSpec,
}

impl Bench {
    pub(crate) fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let words = PLACES.iter().chain(&NAMES).chain(&["lives", "in", "new", "we", "saw", "like"]);
        let checkpoint =
            TinyCheckpoint { words: words.map(|w| (*w).to_owned()).collect(), ..TinyCheckpoint::default() };
        checkpoint.write(&dir.path().join("base")).unwrap();
        let file = |name: &str, content: String| {
            let path = dir.path().join(name);
            fs::write(&path, content).unwrap();
            path.display().to_string()
        };
        let data = TokenClassificationData {
            train: file("train.conll", conll(60, 0)),
            validation: file("dev.conll", conll(18, 100)),
            test: file("test.conll", conll(80, 200)),
            ..Default::default()
        };
        let hyperparameters = Hyperparameters {
            learning_rate: Some(5e-3),
            batch_size: Some(8),
            epochs: Some(4),
            max_length: Some(32),
            ..Default::default()
        };
        let spec = TrainSpec {
            checkpoint: dir.path().join("base").display().to_string(),
            data: Some(data),
            hyperparameters: Some(hyperparameters),
            ..Default::default()
        };
        Self { dir, spec }
    }

    pub(crate) fn hyper(&mut self) -> &mut Hyperparameters {
        self.spec.hyperparameters.get_or_insert_default()
    }

    /// Turns dropout off, also that of the attention.
    pub(crate) fn without_dropout(&mut self) {
        let config = self.path("base/config.json");
        let mut json: serde_json::Value = serde_json::from_slice(&fs::read(&config).unwrap()).unwrap();
        json["attention_probs_dropout_prob"] = 0.0.into();
        fs::write(&config, json.to_string()).unwrap();
        self.hyper().dropout = Some(0.0);
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub(crate) fn request(&self, out: &str) -> TrainRequest {
        let resume = Some(self.path("resume"));
        let mut request = TrainRequest::from_spec(&self.spec, &self.path(out), resume, 1).unwrap();
        request.resume_every = Duration::ZERO;
        request.device = DeviceChoice::Cpu;
        request
    }
}

/// Keeps what it is told; asks to stop at a step.
#[derive(Default)]
pub(crate) struct Recorder {
    pub(crate) steps: Vec<u64>,
    pub(crate) total: u64,
    pub(crate) metrics: Vec<(String, f64, i64)>,
    pub(crate) log: Vec<String>,
    pub(crate) stop: Option<(u64, Directive)>,
}

impl Observer for Recorder {
    fn progress(&mut self, done: u64, total: u64, _unit: &str, _message: &str) {
        // Before the first step the total is not known.
        if total > 0 {
            self.steps.push(done);
        }
        self.total = total;
    }

    fn metric(&mut self, key: &str, value: f64, step: i64) {
        self.metrics.push((key.to_owned(), value, step));
    }

    fn directive(&mut self) -> Directive {
        match self.stop {
            Some((step, directive)) if self.steps.last().is_some_and(|done| *done >= step) => directive,
            _ => Directive::Continue,
        }
    }

    fn log(&mut self, line: &str) {
        self.log.push(line.to_owned());
    }
}

pub(crate) fn entities(report: &SplitReport) -> &seqeval::Report {
    match &report.scores {
        Scores::Entities { default, .. } => default,
        Scores::Texts { .. } => panic!("texts"),
    }
}

pub(crate) fn nothing_written(bench: &Bench, out: &str) -> bool {
    fs::read_dir(bench.path(out)).map_or(true, |mut entries| entries.next().is_none())
}

/// Trains whole, and again in attempts that are cancelled at these steps; the published weights are the same, bit by bit.
pub(crate) fn assert_same_in_parts(requests: impl Fn(&str) -> TrainRequest, stops: &[u64]) -> TrainReport {
    let mut undisturbed = requests("whole");
    undisturbed.resume_dir = None;
    let whole = train(&undisturbed, &mut Recorder::default()).unwrap();
    for step in stops {
        let mut recorder = Recorder { stop: Some((*step, Directive::Cancel)), ..Recorder::default() };
        assert_eq!(train(&requests("parts"), &mut recorder).unwrap().outcome, Outcome::Cancelled);
    }
    let mut last = Recorder::default();
    let parts = train(&requests("parts"), &mut last).unwrap();
    assert!(last.log.iter().any(|line| line.contains("resuming after epoch")), "{:?}", last.log);
    assert_eq!((&parts.metrics, parts.skipped_steps), (&whole.metrics, whole.skipped_steps));
    let weights = |out: &str| fs::read(requests(out).checkpoint_out.join("model.safetensors")).unwrap();
    assert!(weights("parts") == weights("whole"), "the weights differ");
    whole
}
