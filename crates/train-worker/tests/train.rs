//! Whole training runs on tiny checkpoints: what they learn, leave, resume and refuse.
#![allow(clippy::unwrap_used)] // helpers of tests fail by panicking, like the tests
use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
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
            ..Default::default()
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
    assert!(report.epochs.iter().all(|epoch| epoch.metrics["f1"] <= kept.metrics["f1"]));
    assert_eq!(report.metrics["f1"], kept.metrics["f1"]);

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
    // In the middle of the epoch, unless the last steps' state was still being written.
    assert!(last.steps.first().is_some_and(|step| (25..=30).contains(step)), "{:?}", last.steps.first());

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
    let newest = fs::read_dir(bench.path("resume")).unwrap().next().unwrap().unwrap();
    let state = newest.path().join("state.safetensors");
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
    assert_eq!(report.metrics["f1"], report.epochs[0].metrics["f1"]);

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
    assert_eq!(report.evaluation.unwrap().default.micro.f1, last.metrics["f1"]);
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

/// Runs the program until it has kept a state of at least `step` steps, and kills it then. False when it ended before.
fn killed_at(program: &mut Command, resume: &Path, step: usize) -> bool {
    let mut child = program.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    let reached = || {
        let names = fs::read_dir(resume).into_iter().flatten().flatten().map(|entry| entry.file_name());
        names.filter_map(|name| name.to_str()?.strip_prefix("step-")?.parse::<usize>().ok()).any(|kept| kept >= step)
    };
    loop {
        if let Some(status) = child.try_wait().unwrap() {
            assert!(status.success(), "{status}");
            return false;
        }
        if reached() {
            child.kill().unwrap();
            child.wait().unwrap();
            return true;
        }
        std::thread::yield_now();
    }
}

#[test]
fn a_run_killed_at_random_steps_ends_with_the_same_weights() {
    let mut bench = Bench::new();
    bench.hyper().epochs = Some(8);
    bench.hyper().weight_decay = Some(0.1);
    bench.hyper().ema_decay = Some(0.9);
    bench.hyper().gradient_accumulation_steps = Some(2);
    bench.hyper().batch_size = Some(4);
    let spec = bench.path("spec.json");
    fs::write(&spec, serde_json::to_vec(&bench.spec).unwrap()).unwrap();
    let run = |out: &str| {
        let mut program = Command::new(env!("CARGO_BIN_EXE_train-worker"));
        program.args(["local", "--threads", "1", "--device", "cpu", "--resume-every", "0"]);
        program.arg("--spec").arg(&spec).arg("--out").arg(bench.path(out)).env("OMP_WAIT_POLICY", "PASSIVE");
        program
    };
    let output = run("whole").output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));

    let steps = 8 * 8;
    let mut stream = quintet_nlp::random::Stream::new(std::process::id().into(), "kills", 0);
    let mut places: Vec<usize> = stream.permutation(steps - 4).into_iter().take(10).map(|step| step + 1).collect();
    places.sort_unstable();
    let kills = places.iter().filter(|step| killed_at(&mut run("parts"), &bench.path("parts/resume"), **step)).count();
    // The newest state may be steps behind the work, and the last one may come too late to be hit.
    assert!(kills >= 8, "{kills} of {places:?}");
    let output = run("parts").output().unwrap();
    assert!(output.status.success() || bench.path("parts/checkpoint").exists());
    let weights = |out: &str| fs::read(bench.path(out).join("checkpoint/model.safetensors")).unwrap();
    assert!(weights("parts") == weights("whole"), "the weights differ after kills at {places:?}");
}

#[test]
fn accumulated_batches_train_as_one_large_batch() {
    let losses = |batch_size, accumulated, how: &str| {
        let mut bench = Bench::new();
        *bench.hyper() = Hyperparameters {
            batch_size: Some(batch_size),
            gradient_accumulation_steps: Some(accumulated),
            gradient_accumulation: Some(how.to_owned()),
            dropout: Some(0.0),
            epochs: Some(2),
            group_by_length: Some(false),
            learning_rate: Some(5e-3),
            ..Default::default()
        };
        no_attention_dropout(&bench);
        bench.spec.metrics_only = true;
        let report = train(&bench.request("out"), &mut Recorder::default()).unwrap();
        assert_eq!(report.steps, 2 * 5);
        report.epochs.iter().map(|epoch| epoch.train_loss).collect::<Vec<_>>()
    };
    let whole = losses(12, 1, "tokens");
    let close = |a: &[f64], b: &[f64]| a.iter().zip(b).all(|(a, b)| (a - b).abs() < 1e-4);
    assert!(close(&whole, &losses(4, 3, "tokens")), "{whole:?}");
    // Rows have different numbers of words, so that the mean of means is another number.
    assert!(!close(&whole, &losses(4, 3, "mean")));
}

fn no_attention_dropout(bench: &Bench) {
    let config = bench.path("base/config.json");
    let mut json: serde_json::Value = serde_json::from_slice(&fs::read(&config).unwrap()).unwrap();
    json["attention_probs_dropout_prob"] = 0.0.into();
    fs::write(&config, json.to_string()).unwrap();
}

#[test]
fn patience_ends_training() {
    let mut bench = Bench::new();
    bench.spec.metrics_only = true;
    bench.hyper().epochs = Some(50);
    bench.hyper().early_stopping_patience = Some(2);
    let mut recorder = Recorder::default();
    let report = train(&bench.request("out"), &mut recorder).unwrap();
    assert!(report.epochs.len() < 50, "{}", report.epochs.len());
    assert_eq!(report.epochs.len(), report.kept_epoch.unwrap() + 2);
    assert!(recorder.log.iter().any(|line| line.contains("stopping early: no improvement in 2 epochs")));
    // By another metric, and without any improvement that counts.
    let mut bench = Bench::new();
    bench.spec.metrics_only = true;
    bench.hyper().metric_for_best_model = Some("loss".into());
    bench.hyper().early_stopping_patience = Some(1);
    bench.hyper().early_stopping_threshold = Some(1e9);
    assert_eq!(train(&bench.request("out"), &mut Recorder::default()).unwrap().epochs.len(), 2);
    bench.hyper().metric_for_best_model = Some("bleu".into());
    let error = train(&bench.request("out"), &mut Recorder::default()).unwrap_err().to_string();
    assert!(error.contains("metric_for_best_model") && error.contains("f1_strict"), "{error}");
}

#[test]
fn other_optimizers_averages_and_losses_learn_too() {
    let h = Hyperparameters::default;
    let cases = [
        Hyperparameters { optim: Some("lion".into()), learning_rate: Some(3e-3), ..h() },
        Hyperparameters { optim: Some("adafactor".into()), learning_rate: Some(5e-3), ..h() },
        Hyperparameters { ema_decay: Some(0.8), ..h() },
        Hyperparameters { tokens_per_batch: Some(100), lr_scheduler_type: Some("cosine".into()), ..h() },
        Hyperparameters { focal_gamma: Some(2.0), balanced_class_weights: Some(true), ..h() },
        Hyperparameters { label_smoothing_factor: Some(0.1), layer_decay: Some(0.9), ..h() },
        Hyperparameters { freeze_layers: Some(1), head_learning_rate: Some(1e-2), epochs: Some(8), ..h() },
    ];
    for given in cases {
        let mut bench = Bench::new();
        bench.spec.metrics_only = true;
        *bench.hyper() = Hyperparameters {
            learning_rate: given.learning_rate.or(Some(5e-3)),
            epochs: given.epochs.or(Some(6)),
            batch_size: Some(8),
            max_length: Some(32),
            ..given
        };
        let report = train(&bench.request("out"), &mut Recorder::default()).unwrap();
        assert!(report.metrics["f1"] > 0.8, "{:?}: {:?}", bench.hyper(), report.metrics);
    }
}

#[test]
fn frozen_layers_stay_as_they_are() {
    let mut bench = Bench::new();
    bench.hyper().freeze_layers = Some(1);
    train(&bench.request("out"), &mut Recorder::default()).unwrap();
    let tensors = |dir: &str| Checkpoint::open(&bench.path(dir)).unwrap();
    let (before, after) = (tensors("base"), tensors("out/checkpoint"));
    for name in before.weights.names().filter(|name| after.weights.contains(name)) {
        let same = before.weights.get(name).unwrap().data == after.weights.get(name).unwrap().data;
        let frozen = name.starts_with("embeddings.") || name.starts_with("encoder.layer.0.");
        assert_eq!(same, frozen, "{name}");
    }
    bench.hyper().freeze_layers = Some(3);
    let error = failure(&Bench { dir: tempfile::tempdir().unwrap(), spec: bench.spec.clone() }).to_string();
    assert!(error.contains("freeze_layers") && error.contains("2 layers"), "{error}");
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
