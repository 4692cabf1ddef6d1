//! Steps that are shared among devices; here the processor stands for each of them.
use quintet_proto::v1::Hyperparameters;
use train_worker::{TrainReport, train};

use crate::support::{Bench, Recorder, assert_same_in_parts};

fn trained(bench: &Bench, devices: usize) -> TrainReport {
    let mut request = bench.request("out");
    request.metrics_only = true;
    request.resume_dir = None;
    request.devices = devices;
    let report = train(&request, &mut Recorder::default()).unwrap();
    assert_eq!(report.device.matches("cpu").count(), devices);
    report
}

/// Rounding differs, since sums come in another order.
fn assert_close(given: &Hyperparameters, a: &TrainReport, b: &TrainReport, tolerance: f64) {
    assert_eq!((a.steps, a.epochs.len()), (b.steps, b.epochs.len()));
    for (a, b) in a.epochs.iter().zip(&b.epochs) {
        assert!((a.train_loss - b.train_loss).abs() < tolerance, "{given:?}: {} and {}", a.train_loss, b.train_loss);
    }
}

#[test]
fn several_devices_make_of_a_step_what_one_does() {
    let h = Hyperparameters::default;
    let fp16 = || Some("fp16".to_owned());
    let cases = [
        (h(), 1e-4),
        (Hyperparameters { gradient_accumulation: Some("mean".into()), ..h() }, 1e-4),
        (Hyperparameters { lora_r: Some(4), learning_rate: Some(2e-2), ..h() }, 1e-4),
        (Hyperparameters { freeze_layers: Some(1), gradient_checkpointing: Some(true), ..h() }, 1e-4),
        (Hyperparameters { precision: fp16(), ..h() }, 2e-2),
        (Hyperparameters { precision: fp16(), lora_r: Some(4), ..h() }, 2e-2),
    ];
    for (given, tolerance) in cases {
        let mut bench = Bench::new();
        *bench.hyper() = Hyperparameters {
            learning_rate: given.learning_rate.or(Some(5e-3)),
            batch_size: Some(5),
            gradient_accumulation_steps: Some(2),
            epochs: Some(2),
            max_length: Some(32),
            ..given
        };
        // Whole batches go to the devices, with the dropout that they have on one.
        let given = bench.hyper().clone();
        let one = trained(&bench, 1);
        assert_close(&given, &one, &trained(&bench, 2), tolerance);
        // Batches are cut, which changes dropout.
        bench.without_dropout();
        assert_close(&given, &trained(&bench, 1), &trained(&bench, 3), tolerance);
    }
}

#[test]
fn a_resumed_run_on_several_devices_ends_like_an_undisturbed_one() {
    let mut bench = Bench::new();
    bench.hyper().ema_decay = Some(0.9);
    let request = |out: &str| {
        let mut request = bench.request(out);
        request.devices = 3;
        request
    };
    let report = assert_same_in_parts(request, &[5, 11, 21]);
    assert!(report.metrics["test_f1"] > 0.8, "{:?}", report.metrics);
}
