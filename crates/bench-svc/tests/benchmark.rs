//! Whole benchmarks of a small model, with the real measuring process and ONNX Runtime.
#![allow(clippy::unwrap_used)] // helpers of tests fail by panicking, like the tests

use std::{
    fs,
    path::{Path, PathBuf},
};

use bench_svc::{Error, Observer, Request, Settings, benchmark, report::Report};
use quintet_proto::{types::Duration, v1::BenchmarkSpec};

struct Quiet {
    progress: Vec<(u64, u64)>,
    stop_after: usize,
}

impl Quiet {
    fn new() -> Self {
        Self { progress: Vec::new(), stop_after: usize::MAX }
    }
}

impl Observer for Quiet {
    fn progress(&mut self, done: u64, total: u64, _: &str) {
        self.progress.push((done, total));
    }
    fn log(&mut self, line: &str) {
        eprintln!("{line}");
    }
    fn stop_requested(&mut self) -> bool {
        self.progress.len() >= self.stop_after
    }
}

fn tiny() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/tiny.onnx")
}

fn has_runtime() -> bool {
    match quintet_onnx::locate() {
        Ok(_) => true,
        Err(error) => {
            eprintln!("SKIPPED, NOTHING WAS TESTED: {error}");
            false
        }
    }
}

fn spec() -> BenchmarkSpec {
    BenchmarkSpec {
        batch_sizes: vec![1, 4],
        sequence_lengths: vec![8, 64],
        min_runs: 20,
        min_duration: Some(Duration { seconds: 0, nanos: 20_000_000 }),
        ..BenchmarkSpec::default()
    }
}

fn request(models: Vec<PathBuf>, spec: &BenchmarkSpec, folder: &Path) -> Request {
    Request {
        models: models.into_iter().map(Into::into).collect(),
        settings: Settings::from_spec(spec).unwrap(),
        output: folder.join("report"),
        program: env!("CARGO_BIN_EXE_bench-svc").into(),
        program_arguments: vec!["measure".into()],
    }
}

#[test]
fn two_models_are_measured_at_every_shape() {
    if !has_runtime() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let models = folder.path().join("models");
    fs::create_dir(&models).unwrap();
    for name in ["a.onnx", "b.onnx"] {
        fs::copy(tiny(), models.join(name)).unwrap();
    }
    let mut observer = Quiet::new();
    let report = benchmark(&request(vec![models], &spec(), folder.path()), &mut observer).unwrap();

    let places: Vec<_> = report.rows.iter().map(|row| (row.batch, row.sequence, row.model.as_str())).collect();
    let shapes = [(1, 8), (4, 8), (1, 64), (4, 64)];
    let expected: Vec<_> = shapes.iter().flat_map(|(b, s)| ["a", "b"].map(|model| (*b, *s, model))).collect();
    assert_eq!(places, expected);
    for row in &report.rows {
        let latency = &row.latency_ms;
        assert!(row.runs >= 20 && row.seconds >= 0.02, "{row:?}");
        assert!(latency.min > 0.0 && latency.min <= latency.p50 * 1.001 && latency.p50 <= latency.p90, "{row:?}");
        assert!(
            latency.p90 <= latency.p95 && latency.p95 <= latency.p99 && latency.p99 <= latency.max * 1.001,
            "{row:?}"
        );
        let by_mean = row.batch as f64 * 1e3 / latency.mean;
        assert!((row.throughput / by_mean - 1.0).abs() < 0.01, "{row:?}");
        assert!(row.cpu_ms > 0.0 && row.peak_memory_bytes.unwrap() > 1 << 20, "{row:?}");
        assert!(row.warmup.runs >= 5 && row.warmup.windows >= 3, "{row:?}");
        assert_eq!(row.valid, row.problems.is_empty());
    }
    assert_eq!(report.rows[0].speedup, 1.0);
    for model in &report.models {
        assert!(model.load_ms > 0.0 && model.peak_memory_bytes >= model.loaded_memory_bytes);
        assert_eq!(model.sha256, quintet_nlp::files::digest(&tiny()).unwrap());
        assert_eq!((model.quantization.as_deref(), model.max_length), (Some("none"), Some(64)));
    }
    assert_eq!(report.environment.pinned.len(), 1);
    assert!(report.environment.onnxruntime.starts_with("1."), "{:?}", report.environment);

    let (done, total) = *observer.progress.last().unwrap();
    assert_eq!((done, total), (48, 48), "four shapes, two models, a warm-up and five rounds");
    let json = fs::read(folder.path().join("report/benchmark.json")).unwrap();
    assert_eq!(serde_json::from_slice::<Report>(&json).unwrap(), report);
    let markdown = fs::read_to_string(folder.path().join("report/benchmark.md")).unwrap();
    assert_eq!(markdown.lines().filter(|line| line.starts_with("| a | ") || line.starts_with("| b | ")).count(), 10);
    assert!(markdown.contains("ONNX Runtime 1."), "{markdown}");
}

/// The model with one more entry in its metadata: what is added at the end of a protobuf message joins its lists.
fn with_metadata(key: &str, value: &str) -> Vec<u8> {
    let mut entry = Vec::new();
    for (field, text) in [(1, key), (2, value)] {
        entry.extend([field << 3 | 2, u8::try_from(text.len()).unwrap()]);
        entry.extend(text.as_bytes());
    }
    let mut model = fs::read(tiny()).unwrap();
    // `metadata_props` of a model.
    model.push(14 << 3 | 2);
    let length = entry.len();
    model.extend([(length & 0x7f) as u8 | 0x80, (length >> 7) as u8]);
    model.extend(entry);
    model
}

#[test]
fn sequences_are_decoded_within_the_measured_time() {
    if !has_runtime() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let spec = BenchmarkSpec { batch_sizes: vec![2], sequence_lengths: vec![64], ..spec() };
    let write = |name: &str, scores: &str| {
        let crf = format!(r#"{{"transitions":[{0},{0},{0}],"start_transitions":{0},"end_transitions":{0}}}"#, scores);
        let path = folder.path().join(name);
        fs::write(&path, with_metadata("quintet.crf", &crf)).unwrap();
        path
    };
    let (plain, chained) = (tiny(), write("chained.onnx", "[0,0,0]"));
    let report = benchmark(&request(vec![plain, chained], &spec, folder.path()), &mut Quiet::new()).unwrap();
    assert_eq!(report.models.iter().map(|model| model.crf).collect::<Vec<_>>(), [false, true]);
    let markdown = fs::read_to_string(folder.path().join("report/benchmark.md")).unwrap();
    assert!(markdown.contains("Of chained a run includes the search"), "{markdown}");
    for (name, scores, expected) in [("b.onnx", "[0,0]", "quintet.crf"), ("c.onnx", "[0]", "quintet.crf")] {
        let path = write(name, scores);
        let mut request = request(vec![path], &spec, folder.path());
        request.output = folder.path().join("bad");
        let error = benchmark(&request, &mut Quiet::new()).unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
    }
}

#[test]
fn bad_models_are_named_before_anything_is_measured() {
    if !has_runtime() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let text = folder.path().join("text.onnx");
    fs::write(&text, "this is not a model").unwrap();
    let half = folder.path().join("half.onnx");
    let bytes = fs::read(tiny()).unwrap();
    fs::write(&half, &bytes[..bytes.len() / 2]).unwrap();
    let missing = folder.path().join("missing.onnx");
    for (model, expected) in
        [(text, "not a usable ONNX model"), (half, "not a usable ONNX model"), (missing, "no such")]
    {
        let mut observer = Quiet::new();
        let error =
            benchmark(&request(vec![tiny(), model.clone()], &spec(), folder.path()), &mut observer).unwrap_err();
        let message = error.to_string();
        assert!(message.contains(model.to_str().unwrap()) && message.contains(expected), "{message}");
        assert!(error.is_input_fault() && observer.progress.is_empty(), "{message}");
    }
    assert!(!folder.path().join("report").exists());
}

#[test]
fn a_sequence_beyond_the_models_maximum_is_refused() {
    if !has_runtime() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let spec = BenchmarkSpec { sequence_lengths: vec![64, 65], ..spec() };
    let error = benchmark(&request(vec![tiny()], &spec, folder.path()), &mut Quiet::new()).unwrap_err().to_string();
    assert!(error.starts_with("sequence_lengths: 65; ") && error.ends_with("tiny.onnx takes 1 to 64"), "{error}");
}

#[test]
fn a_process_that_ends_early_is_told_with_its_status() {
    let folder = tempfile::tempdir().unwrap();
    let mut request = request(vec![tiny()], &spec(), folder.path());
    request.program = "/bin/sh".into();
    request.program_arguments = vec!["-c".into(), "exit 7".into()];
    let error = benchmark(&request, &mut Quiet::new()).unwrap_err();
    assert!(matches!(&error, Error::Process { how, .. } if how.contains('7')), "{error}");
    request.program = "/no/such/program".into();
    let error = benchmark(&request, &mut Quiet::new()).unwrap_err().to_string();
    assert!(error.starts_with("starting /no/such/program"), "{error}");
}

#[test]
fn a_request_to_stop_is_obeyed_and_leaves_nothing() {
    if !has_runtime() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let mut observer = Quiet { stop_after: 3, ..Quiet::new() };
    let result = benchmark(&request(vec![tiny()], &spec(), folder.path()), &mut observer);
    assert!(matches!(result, Err(Error::Cancelled)));
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
}

#[test]
fn a_missing_runtime_is_told_with_what_to_set_up() {
    let folder = tempfile::tempdir().unwrap();
    for (library, expected) in
        [("/none/libonnxruntime.so", "no file is there"), (env!("CARGO_BIN_EXE_bench-svc"), "cannot be loaded")]
    {
        let mut request = request(vec![tiny()], &spec(), folder.path());
        request.program = "/usr/bin/env".into();
        let variable = format!("ORT_DYLIB_PATH={library}");
        request.program_arguments = vec![variable.into(), env!("CARGO_BIN_EXE_bench-svc").into(), "measure".into()];
        let error = benchmark(&request, &mut Quiet::new()).unwrap_err();
        let text = error.to_string();
        assert!(matches!(error, Error::Runtime(_)) && text.contains(library) && text.contains(expected), "{text}");
        assert!(expected != "no file is there" || text.contains("cargo xtask setup"), "{text}");
    }
}
