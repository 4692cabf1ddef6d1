//! Runs on GPUs. Where there is none they check nothing and say so.
use quintet_proto::v1::Hyperparameters;
use train_worker::{DeviceChoice, TrainReport, device, train};

use crate::support::{Bench, Recorder};

/// Whether so many GPUs are there.
fn has_gpus(needed: usize) -> bool {
    let seen = device::gpus();
    if seen < needed {
        let missing = if seen == 0 { "no CUDA device".to_owned() } else { format!("{seen} of {needed} CUDA devices") };
        eprintln!("skipped: {missing}");
    }
    seen >= needed
}

fn trained(bench: &Bench, place: DeviceChoice, devices: usize) -> TrainReport {
    let mut request = bench.request("out");
    request.metrics_only = true;
    request.resume_dir = None;
    (request.device, request.devices) = (place, devices);
    train(&request, &mut Recorder::default()).unwrap()
}

fn assert_close(a: &TrainReport, b: &TrainReport) {
    assert_eq!(a.epochs.len(), b.epochs.len());
    for (a, b) in a.epochs.iter().zip(&b.epochs) {
        assert!((a.train_loss - b.train_loss).abs() < 1e-3, "{} and {}", a.train_loss, b.train_loss);
    }
}

#[test]
fn a_gpu_computes_what_the_processor_does() {
    if !has_gpus(1) {
        return;
    }
    for given in [
        Hyperparameters::default(),
        Hyperparameters {
            gradient_checkpointing: Some(true),
            gradient_accumulation_steps: Some(2),
            ..Default::default()
        },
        Hyperparameters { lora_r: Some(4), ..Default::default() },
    ] {
        let mut bench = Bench::new();
        let settings = bench.hyper().clone();
        *bench.hyper() = Hyperparameters {
            learning_rate: Some(1e-3),
            batch_size: settings.batch_size,
            epochs: Some(2),
            max_length: settings.max_length,
            precision: Some("fp32".into()),
            ..given
        };
        bench.without_dropout();
        let gpu = trained(&bench, DeviceChoice::Cuda, 1);
        assert_eq!((gpu.device.as_str(), gpu.precision.as_str()), ("cuda:0", "fp32"));
        assert_close(&gpu, &trained(&bench, DeviceChoice::Cpu, 1));
    }
}

#[test]
fn a_gpu_learns_in_16_bits_with_dropout() {
    if !has_gpus(1) {
        return;
    }
    for precision in ["auto", "bf16", "fp16"] {
        for gradient_checkpointing in [false, true] {
            let mut bench = Bench::new();
            bench.hyper().precision = Some(precision.into());
            bench.hyper().gradient_checkpointing = Some(gradient_checkpointing);
            let report = trained(&bench, DeviceChoice::Cuda, 1);
            assert_eq!(report.precision, if precision == "auto" { "bf16" } else { precision });
            assert!(report.metrics["f1"] > 0.9, "{precision}: {:?}", report.metrics);
        }
    }
}

#[test]
fn two_gpus_make_of_a_step_what_one_does() {
    if !has_gpus(2) {
        return;
    }
    let mut bench = Bench::new();
    bench.hyper().precision = Some("fp32".into());
    bench.hyper().gradient_accumulation_steps = Some(2);
    bench.hyper().learning_rate = Some(1e-3);
    // A piece has the same dropout on whichever GPU.
    for gradient_checkpointing in [false, true] {
        bench.hyper().gradient_checkpointing = Some(gradient_checkpointing);
        let two = trained(&bench, DeviceChoice::Cuda, 2);
        assert_eq!(two.device, "cuda:0, cuda:1");
        assert_close(&two, &trained(&bench, DeviceChoice::Cuda, 1));
    }
}

#[test]
fn more_gpus_than_there_are_and_any_where_there_is_none_are_refused() {
    let mut bench = Bench::new();
    bench.spec.metrics_only = true;
    let mut request = bench.request("out");
    (request.device, request.devices) = (DeviceChoice::Cuda, device::gpus() + 1);
    let error = train(&request, &mut Recorder::default()).unwrap_err().to_string();
    let expected = if device::gpus() == 0 { "libtorch sees no GPU" } else { "libtorch sees" };
    assert!(error.contains(expected), "{error}");
}
