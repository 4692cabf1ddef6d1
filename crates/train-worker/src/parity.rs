//! The encoder, its gradients and the optimizer against PyTorch and `transformers`, on a tiny random checkpoint.
//! `testdata/bert` is made by `tests/peers/encoder_golden.py`.
use std::path::Path;

use quintet_nlp::{
    batch::Batch,
    checkpoint::{Checkpoint, EncoderConfig, Weights},
    encoder::Family,
    task::Targets,
};
use tch::{Device, Tensor};

use crate::{
    loss::Loss,
    model::Model,
    optimizer::{Gradients, Optimizer},
    parameters::{Parameters, elements},
    probe::{Steps, backward, flat_gradient},
};

struct Fixture {
    golden: Weights,
    batch: Batch,
    config: EncoderConfig,
    parameters: Parameters,
    model: Model,
}

impl Fixture {
    fn open() -> Self {
        let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("testdata/bert");
        let golden = Weights::open_file(&dir.join("golden.safetensors")).unwrap();
        let (shape, input_ids) = golden.i64("input_ids").unwrap();
        let batch = Batch {
            rows: shape[0],
            length: shape[1],
            input_ids,
            attention_mask: golden.i64("attention_mask").unwrap().1,
            type_ids: vec![0; shape[0] * shape[1]],
            targets: Targets::Tokens(golden.i64("labels").unwrap().1),
        };
        let checkpoint = Checkpoint::open(&dir).unwrap();
        let parameters = Parameters::load(&checkpoint, &checkpoint.config, 1, Device::Cpu).unwrap();
        assert!(parameters.fresh().is_empty());
        let model = Model::new(&parameters, &checkpoint.config, Device::Cpu).unwrap();
        Self { golden, batch, config: checkpoint.config, parameters, model }
    }

    fn expected(&self, name: &str, shape: &[usize]) -> Vec<f32> {
        self.golden.f32(name, shape).unwrap()
    }

    fn backward(&self) -> (Tensor, Tensor, Gradients) {
        backward(&self.model, &self.parameters, &self.batch).unwrap()
    }
}

fn largest_difference(ours: &[f32], theirs: &[f32]) -> f32 {
    assert_eq!(ours.len(), theirs.len());
    ours.iter().zip(theirs).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max)
}

fn magnitude(values: &[f32]) -> f32 {
    values.iter().fold(0.0, |largest, value| largest.max(value.abs()))
}

#[test]
fn logits_loss_and_gradients_equal_transformers() {
    tch::set_num_threads(1);
    let fixture = Fixture::open();
    let (logits, loss, gradients) = fixture.backward();
    let expected = fixture.expected("logits", &[3, 9, 5]);
    let ours = elements(&logits).unwrap();
    for (position, (ours, theirs)) in ours.chunks(5).zip(expected.chunks(5)).enumerate() {
        if fixture.batch.attention_mask[position] == 1 {
            assert!(largest_difference(ours, theirs) < 1e-5, "position {position}: {ours:?} {theirs:?}");
        }
    }
    assert!((loss.double_value(&[]) - f64::from(fixture.expected("loss", &[1])[0])).abs() < 1e-6);

    let whole = fixture.model.input(&fixture.batch).unwrap();
    let same = elements(&fixture.model.logits(&whole, None, false).unwrap()).unwrap();
    assert!(largest_difference(&same, &ours) < 1e-5, "the whole word table gives other logits than its rows");

    let flat = flat_gradient(&fixture.parameters, &gradients).unwrap();
    for slot in &fixture.parameters.slots {
        let expected = fixture.expected(&format!("grad.{}", slot.file_name), &slot.shape);
        let ours = &flat[slot.offset..slot.offset + expected.len()];
        // The gradient of a key bias is zero but for rounding.
        let scale = if slot.file_name.ends_with("key.bias") { 1.0 } else { magnitude(&expected) };
        assert!(scale > 0.0, "{}", slot.file_name);
        let difference = largest_difference(ours, &expected);
        assert!(difference <= 1e-5 * scale, "{}: {difference} of {scale}", slot.file_name);
    }
}

/// Dropout is random, so its places and rates are checked by what they do to the loss: mean and spread over many draws, with one
/// kind of dropout on at a time.
#[test]
fn dropout_does_to_the_loss_what_it_does_in_transformers() {
    const DRAWS: usize = 3000;
    tch::set_num_threads(1);
    let mut fixture = Fixture::open();
    for (kind, hidden, attention, head) in
        [("hidden", 0.3, 0.0, 0.0), ("attention", 0.0, 0.4, 0.0), ("head", 0.0, 0.0, 0.3)]
    {
        let mut config = fixture.config.clone();
        config.hidden_dropout_prob = hidden;
        config.attention_probs_dropout_prob = attention;
        let Family::Bert(bert) = &mut config.family else { panic!("BERT") };
        bert.classifier_dropout = Some(head);
        fixture.model = Model::new(&fixture.parameters, &config, Device::Cpu).unwrap();
        let input = fixture.model.input(&fixture.batch).unwrap();
        tch::manual_seed(3);
        let (plain, terms) = (Loss::default(), Loss::default().terms(&fixture.batch.targets));
        let losses: Vec<f64> = (0..DRAWS)
            .map(|_| {
                let logits = tch::no_grad(|| fixture.model.logits(&input, None, true)).unwrap();
                plain.sum(&logits, &input.wanted).unwrap().double_value(&[]) / terms
            })
            .collect();
        let mean = losses.iter().sum::<f64>() / DRAWS as f64;
        let spread = (losses.iter().map(|loss| (loss - mean).powi(2)).sum::<f64>() / (DRAWS - 1) as f64).sqrt();
        let expected = fixture.expected(&format!("loss_under_dropout.{kind}"), &[2]);
        let (expected_mean, expected_spread) = (f64::from(expected[0]), f64::from(expected[1]));
        // Five standard errors, with those of the expected value: it is a mean over 4000 draws.
        let allowed = 5.0 * expected_spread * (1.0 / DRAWS as f64 + 1.0 / 4000.0).sqrt();
        assert!((mean - expected_mean).abs() < allowed, "{kind}: mean {mean}, expected {expected_mean}");
        assert!((spread / expected_spread - 1.0).abs() < 0.1, "{kind}: spread {spread}, expected {expected_spread}");
    }
}

#[test]
fn weights_after_three_steps_equal_pytorch() {
    tch::set_num_threads(1);
    let mut fixture = Fixture::open();
    let steps = Steps { count: 3, learning_rate: 1e-3, weight_decay: 0.1, max_grad_norm: 0.5 };
    let mut optimizer = Optimizer::new(&fixture.parameters, steps.settings(&fixture.parameters).unwrap()).unwrap();
    for step in 1..=3 {
        let (_, _, gradients) = fixture.backward();
        optimizer.step(&mut fixture.parameters, &gradients, 1e-3, step).unwrap();
    }
    optimizer.settle(&mut fixture.parameters).unwrap();
    let flat = elements(&fixture.parameters.flat).unwrap();
    for slot in &fixture.parameters.slots {
        // Adam makes steps of up to the learning rate out of the noise in a key bias's gradient.
        if slot.file_name.ends_with("key.bias") {
            continue;
        }
        let expected = fixture.expected(&format!("after.{}", slot.file_name), &slot.shape);
        let difference = largest_difference(&flat[slot.offset..slot.offset + expected.len()], &expected);
        assert!(difference < 1e-5, "{}: {difference}", slot.file_name);
    }
}
