//! Runs in fp16 with a scaled loss.
use std::fs;

use quintet_proto::v1::{Hyperparameters, TextClassificationData, TextTask};
use train_worker::{Error, train};

use crate::support::{Bench, NAMES, Recorder, assert_same_in_parts};

#[test]
fn fp16_learns_as_fp32_does() {
    let losses = |precision: &str| {
        let mut bench = Bench::new();
        bench.spec.metrics_only = true;
        bench.hyper().precision = Some(precision.into());
        let report = train(&bench.request("out"), &mut Recorder::default()).unwrap();
        assert_eq!((report.precision.as_str(), report.skipped_steps), (precision, 0));
        assert!(report.metrics["f1"] > 0.9, "{:?}", report.metrics);
        report.epochs.iter().map(|epoch| epoch.train_loss).collect::<Vec<_>>()
    };
    let (narrow, wide) = (losses("fp16"), losses("fp32"));
    assert_ne!(narrow, wide);
    for (narrow, wide) in narrow.iter().zip(&wide) {
        assert!((narrow - wide).abs() < 0.02 + 0.05 * wide, "{narrow} in fp16, {wide} in fp32");
    }
}

/// A bench whose numbers are learnt; gradients of the squared error grow with their size.
fn numbers(size: f64) -> Bench {
    let mut bench = Bench::new();
    let file = |name: &str, rows: usize| {
        let row = |n: usize| format!("we saw {},{:.2}\n", NAMES[n % 6], size * (1.0 + (n % 6) as f64 / 10.0));
        let lines: String = std::iter::once("text,label\n".to_owned()).chain((0..rows).map(row)).collect();
        let path = bench.path(name);
        fs::write(&path, lines).unwrap();
        path.display().to_string()
    };
    let data = TextClassificationData {
        train: file("train.csv", 48),
        validation: file("dev.csv", 12),
        task: TextTask::Regression.into(),
        ..Default::default()
    };
    bench.spec.data = None;
    bench.spec.text_classification = Some(data);
    bench
}

#[test]
fn steps_that_overflow_are_skipped_and_a_resumed_run_skips_the_same() {
    let mut bench = numbers(100.0);
    *bench.hyper() = Hyperparameters {
        precision: Some("fp16".into()),
        gradient_accumulation_steps: Some(2),
        ema_decay: Some(0.9),
        max_grad_norm: Some(0.5),
        ..bench.hyper().clone()
    };
    let mut recorder = Recorder::default();
    let mut request = bench.request("shown");
    request.resume_dir = None;
    train(&request, &mut recorder).unwrap();
    let skipped = recorder.log.iter().filter(|line| line.contains("too large for fp16")).count();
    let report = assert_same_in_parts(|out| bench.request(out), &[2, 5, 9]);
    assert_eq!((report.skipped_steps, report.steps), (skipped, 12));
    assert!((4..10).contains(&skipped), "{skipped}: {:?}", recorder.log);
}

#[test]
fn gradients_that_no_scale_brings_into_range_end_the_run() {
    let mut bench = numbers(1e8);
    bench.hyper().precision = Some("fp16".into());
    match train(&bench.request("out"), &mut Recorder::default()).unwrap_err() {
        Error::Diverged { step: 17, what, rows, .. } => {
            assert_eq!(what, "gradient norm");
            assert!(rows.contains("fp16"), "{rows}");
        }
        other => panic!("{other}"),
    }
}
