//! Whole training runs on tiny checkpoints: what they learn, leave, resume and refuse.
#![allow(clippy::unwrap_used)] // helpers of tests fail by panicking, like the tests
use std::{
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use quintet_nlp::{
    checkpoint::Checkpoint,
    evaluation::EvaluationSet,
    seqeval::{Mode, evaluate},
    testing::TinyCheckpoint,
};
use quintet_proto::v1::{Hyperparameters, TokenClassificationData, TrainSpec};
use train_worker::{DeviceChoice, Directive, Error, Observer, Outcome, TrainRequest, train};

const PLACES: [&str; 6] = ["paris", "oslo", "rome", "lima", "cairo", "quito"];
const NAMES: [&str; 6] = ["anna", "piet", "olga", "juan", "mary", "ivan"];

/// Sentences of which the word tells the tag.
fn conll(rows: usize, offset: usize) -> String {
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

struct Bench {
    dir: tempfile::TempDir,
    spec: TrainSpec,
}

impl Bench {
    fn new() -> Self {
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
            metrics_only: false,
        };
        Self { dir, spec }
    }

    fn hyper(&mut self) -> &mut Hyperparameters {
        self.spec.hyperparameters.get_or_insert_default()
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn request(&self, out: &str) -> TrainRequest {
        let resume = Some(self.path("resume"));
        let mut request = TrainRequest::from_spec(&self.spec, &self.path(out), resume, 1).unwrap();
        request.resume_every = Duration::ZERO;
        request.device = DeviceChoice::Cpu;
        request
    }
}

/// Keeps what it is told; asks to stop at a step.
#[derive(Default)]
struct Recorder {
    steps: Vec<u64>,
    total: u64,
    metrics: Vec<(String, f64, i64)>,
    log: Vec<String>,
    stop: Option<(u64, Directive)>,
}

impl Observer for Recorder {
    fn progress(&mut self, done: u64, total: u64, _unit: &str, _message: &str) {
        self.steps.push(done);
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

fn nothing_written(bench: &Bench, out: &str) -> bool {
    fs::read_dir(bench.path(out)).map_or(true, |mut entries| entries.next().is_none())
}

#[test]
fn a_run_learns_and_leaves_whole_outputs() {
    let bench = Bench::new();
    let mut recorder = Recorder::default();
    let report = train(&bench.request("out"), &mut recorder).unwrap();

    assert_eq!(report.outcome, Outcome::Completed);
    assert_eq!(report.labels, ["O", "B-loc", "I-loc", "B-per", "I-per"]);
    assert!(report.metrics["test_f1"] > 0.95, "{:?}", report.epochs);
    assert!(report.epochs[3].train_loss < report.epochs[0].train_loss / 2.0);
    assert_eq!((report.steps, recorder.total), (32, 32));
    assert!(recorder.steps.is_sorted());
    let f1: Vec<i64> = recorder.metrics.iter().filter(|(key, ..)| key == "f1").map(|(_, _, step)| *step).collect();
    assert_eq!(f1, [1, 2, 3, 4]);
    let kept = &report.epochs[report.kept_epoch.unwrap() - 1];
    assert!(report.epochs.iter().all(|epoch| epoch.f1 <= kept.f1));
    assert_eq!(report.metrics["f1"], kept.f1);

    let checkpoint = Checkpoint::open(&bench.path("out/checkpoint")).unwrap();
    assert!(checkpoint.has_head());
    assert_eq!(checkpoint.config.labels, report.labels);
    checkpoint.tokenizer().unwrap();

    let set = EvaluationSet::load(&bench.path("out/evaluation")).unwrap();
    assert_eq!((set.description.split.as_str(), set.description.rows, set.description.logit_rows), ("test", 80, 64));
    let again = evaluate(&set.description.gold_tags, &set.description.predicted_tags, Mode::Default).unwrap();
    assert_eq!(Some(&again), report.evaluation.as_ref().map(|evaluation| &evaluation.default));
    // The logits of the first rows say what the predictions say.
    let row = set.description.length * set.description.labels.len();
    for index in 0..64 {
        let tags = set.predicted_tags(index, &set.logits[index * row..(index + 1) * row]).unwrap();
        assert_eq!(tags, set.description.predicted_tags[index]);
    }
}

#[test]
fn an_interrupted_run_ends_like_an_undisturbed_one() {
    let mut bench = Bench::new();
    bench.hyper().warmup_ratio = Some(0.2);
    let mut undisturbed = bench.request("whole");
    undisturbed.resume_dir = None;
    let whole = train(&undisturbed, &mut Recorder::default()).unwrap();

    for (attempt, step) in [(1, 11), (2, 19), (3, 29)] {
        let mut recorder = Recorder { stop: Some((step, Directive::Cancel)), ..Recorder::default() };
        let report = train(&bench.request("parts"), &mut recorder).unwrap();
        assert_eq!(report.outcome, Outcome::Cancelled);
        assert_eq!(report.epochs.len(), attempt);
        assert!(nothing_written(&bench, "parts"));
    }
    let mut last = Recorder::default();
    let parts = train(&bench.request("parts"), &mut last).unwrap();
    assert!(last.log.iter().any(|line| line.contains("resuming after epoch 3")), "{:?}", last.log);
    assert_eq!(last.steps.first(), Some(&25));

    assert_eq!(parts.metrics, whole.metrics);
    assert_eq!(parts.evaluation, whole.evaluation);
    let weights = |out: &str| fs::read(bench.path(out).join("checkpoint/model.safetensors")).unwrap();
    assert!(weights("parts") == weights("whole"), "the weights differ");
    // Old states are gone, and another run does not take this one's.
    assert_eq!(fs::read_dir(bench.path("resume")).unwrap().count(), 1);
    bench.hyper().seed = Some(7);
    let mut other = Recorder::default();
    train(&bench.request("other"), &mut other).unwrap();
    assert!(other.log.iter().any(|line| line.contains("another run")));
    assert_eq!(other.steps.first(), Some(&1));
}

#[test]
fn a_broken_state_is_passed_over() {
    let bench = Bench::new();
    let mut recorder = Recorder { stop: Some((10, Directive::Cancel)), ..Recorder::default() };
    train(&bench.request("out"), &mut recorder).unwrap();
    let state = bench.path("resume/epoch-1/state.safetensors");
    let bytes = fs::read(&state).unwrap();
    fs::write(&state, &bytes[..bytes.len() / 2]).unwrap();
    let mut recorder = Recorder::default();
    assert_eq!(train(&bench.request("out"), &mut recorder).unwrap().outcome, Outcome::Completed);
    assert!(recorder.log.iter().any(|line| line.contains("passed over") && line.contains("truncated")));
}

#[test]
fn a_pruned_trial_stops_at_once_and_writes_nothing() {
    let mut bench = Bench::new();
    bench.spec.metrics_only = true;
    let mut recorder = Recorder { stop: Some((9, Directive::Prune)), ..Recorder::default() };
    let report = train(&bench.request("out"), &mut recorder).unwrap();
    assert_eq!((report.outcome, report.steps, report.epochs.len()), (Outcome::Pruned, 9, 1));
    assert_eq!(report.metrics["f1"], report.epochs[0].f1);

    let report = train(&bench.request("out"), &mut Recorder::default()).unwrap();
    assert_eq!(report.outcome, Outcome::Completed);
    assert!(report.evaluation.is_none() && !report.metrics.contains_key("test_f1"));
    assert!(nothing_written(&bench, "out"));
}

#[test]
fn without_a_validation_file_a_part_is_held_out() {
    let mut bench = Bench::new();
    let data = bench.spec.data.as_mut().unwrap();
    data.validation.clear();
    data.test.clear();
    data.validation_fraction = 0.25;
    bench.hyper().load_best_model = Some(false);
    let report = train(&bench.request("out"), &mut Recorder::default()).unwrap();
    assert_eq!((report.splits["train"].rows, report.splits["validation"].rows), (45, 15));
    assert_eq!(report.kept_epoch, Some(4));
    assert_eq!(EvaluationSet::load(&bench.path("out/evaluation")).unwrap().description.split, "validation");
    // The last epoch was kept, so that its validation is the final one.
    let last = report.epochs.last().unwrap();
    assert_eq!(report.evaluation.unwrap().default.micro.f1, last.f1);
}

#[test]
fn every_family_learns_and_its_checkpoint_is_taken_up_again() {
    for model_type in ["roberta", "xlm-roberta", "distilbert", "electra", "deberta-v2", "mpnet", "modernbert"] {
        let mut bench = Bench::new();
        let words = PLACES.iter().chain(&NAMES).chain(&["lives", "in", "new", "we", "saw", "like"]);
        let words = words.map(|w| (*w).to_owned()).collect();
        fs::remove_dir_all(bench.path("base")).unwrap();
        TinyCheckpoint { model_type, words, ..TinyCheckpoint::default() }.write(&bench.path("base")).unwrap();
        let mut recorder = Recorder::default();
        let report = train(&bench.request("out"), &mut recorder).unwrap();
        assert!(report.metrics["test_f1"] > 0.8, "{model_type}: {:?}", report.epochs);
        assert!(recorder.log.iter().any(|line| line.contains("drawn anew: ") && line.contains("classifier.weight")));

        let checkpoint = Checkpoint::open(&bench.path("out/checkpoint")).unwrap();
        assert_eq!(checkpoint.config.family.model_type(), model_type);
        assert!(checkpoint.has_head());
        bench.spec.checkpoint = bench.path("out/checkpoint").display().to_string();
        bench.spec.metrics_only = true;
        let mut recorder = Recorder::default();
        let again = train(&bench.request("again"), &mut recorder).unwrap();
        assert!(again.epochs[0].train_loss < report.epochs[0].train_loss / 2.0, "{model_type}");
        assert!(!recorder.log.iter().any(|line| line.contains("drawn anew")));
    }
}

#[test]
fn divergence_names_step_and_rows() {
    let mut bench = Bench::new();
    bench.hyper().learning_rate = Some(1e30);
    match train(&bench.request("out"), &mut Recorder::default()).unwrap_err() {
        Error::Diverged { step, rows, .. } => {
            assert!((2..=4).contains(&step), "{step}");
            assert!(rows.contains("train.conll") && rows.contains("lines"), "{rows}");
        }
        other => panic!("{other}"),
    }
    assert!(nothing_written(&bench, "out"));
}

fn failure(bench: &Bench) -> Error {
    let error = train(&bench.request("out"), &mut Recorder::default()).unwrap_err();
    assert!(error.is_input_fault(), "{error}");
    assert!(nothing_written(bench, "out"), "{error}");
    error
}

#[test]
fn bad_input_is_refused_before_work_starts() {
    let mut bench = Bench::new();
    bench.hyper().max_length = Some(161);
    assert!(matches!(failure(&bench), Error::Field { field, .. } if field == "hyperparameters.max_length"));

    let mut bench = Bench::new();
    bench.spec.checkpoint = bench.path("nowhere").display().to_string();
    assert!(failure(&bench).to_string().contains("nowhere"));

    let bench = Bench::new();
    fs::write(bench.path("dev.conll"), "a O\n\nb B-animal\n").unwrap();
    assert!(failure(&bench).to_string().contains("dev.conll`:3: label `B-animal`"));

    fs::write(bench.path("dev.conll"), "\n").unwrap();
    assert!(failure(&bench).to_string().starts_with("validation split"));

    let bench = Bench::new();
    let weights = bench.path("base/model.safetensors");
    let bytes = fs::read(&weights).unwrap();
    fs::write(&weights, &bytes[..bytes.len() - 10]).unwrap();
    assert!(failure(&bench).to_string().contains("truncated"));

    let bench = Bench::new();
    let config = bench.path("base/config.json");
    let text = fs::read_to_string(&config).unwrap();
    fs::write(&config, text.replace("\"hidden_size\": 32", "\"hidden_size\": 48")).unwrap();
    let message = failure(&bench).to_string();
    assert!(message.contains("shape") && message.contains("48"), "{message}");

    let bench = Bench::new();
    fs::create_dir_all(bench.path("out/checkpoint")).unwrap();
    fs::write(bench.path("out/checkpoint/x"), "").unwrap();
    let error = train(&bench.request("out"), &mut Recorder::default()).unwrap_err();
    assert!(error.to_string().contains("not empty"));
}

/// The pretrained encoder of the demo, when the set-up has fetched it.
fn pretrained() -> Option<PathBuf> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../.runtime/models/all-MiniLM-L6-v2");
    if path.join("model.safetensors").exists() {
        return Some(path);
    }
    eprintln!("`{}` is absent: run `cargo xtask setup --demo`; this test checked nothing", path.display());
    None
}

#[test]
fn a_pretrained_encoder_learns_in_a_few_steps() {
    let Some(path) = pretrained() else { return };
    let mut bench = Bench::new();
    bench.spec.checkpoint = path.display().to_string();
    bench.spec.metrics_only = true;
    *bench.hyper() =
        Hyperparameters { learning_rate: Some(5e-4), epochs: Some(2), batch_size: Some(8), ..Default::default() };
    let mut recorder = Recorder::default();
    let report = train(&bench.request("out"), &mut recorder).unwrap();
    assert!(report.metrics["f1"] > 0.9, "{:?}", report.epochs);
}
