//! Encoders, gradients and the optimizer against PyTorch and `transformers`, on tiny random checkpoints of every family.
//! `testdata` is made by `tests/peers/encoder_golden.py`; `tests/peers/transformers_parity.py` compares many more configurations.
use std::path::{Path, PathBuf};

use quintet_nlp::{
    batch::Batch,
    checkpoint::{Checkpoint, Weights},
    encoder::{EncoderConfig, Family},
};
use tch::{Device, Kind, Tensor};

use crate::{
    loss::Loss,
    model::Model,
    optimizer::{Gradients, Optimizer},
    parameters::{Parameters, elements},
    probe::{Steps, backward, flat_gradient, read_batch},
};

/// The folders of `testdata`: a tiny checkpoint of every family, and what the peers compute of it.
pub(crate) const FIXTURES: [&str; 12] = [
    "bert",
    "bert-crf",
    "bert-relative",
    "roberta",
    "xlm-roberta",
    "distilbert",
    "electra",
    "mpnet",
    "deberta",
    "deberta-conv",
    "modernbert",
    "modernbert-mean",
];

struct Fixture {
    golden: Weights,
    batch: Batch,
    config: EncoderConfig,
    parameters: Parameters,
    model: Model,
}

pub(crate) fn folder(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("testdata").join(name)
}

impl Fixture {
    fn open(name: &str) -> Self {
        tch::set_num_threads(1);
        let dir = folder(name);
        let file = dir.join("golden.safetensors");
        let checkpoint = Checkpoint::open(&dir).unwrap();
        let config = checkpoint.config.clone();
        let batch = read_batch(&file, config.task).unwrap();
        let parameters = Parameters::load(&checkpoint, &config, 1, Device::Cpu, Kind::Float).unwrap();
        assert!(parameters.fresh().is_empty(), "{name}: {:?}", parameters.fresh());
        let model = Model::new(&parameters, &config, Device::Cpu).unwrap();
        Self { golden: Weights::open_file(&file).unwrap(), batch, config, parameters, model }
    }

    fn expected(&self, name: &str, shape: &[usize]) -> Vec<f32> {
        self.golden.f32(name, shape).unwrap()
    }

    fn backward(&self) -> (Tensor, Tensor, Gradients) {
        backward(&self.model, &self.parameters, &self.batch).unwrap()
    }

    /// Each weight that has a gradient.
    fn weights(&self, kind: &str, ours: &[f32]) -> Vec<Compared> {
        let named = self.parameters.named(ours).into_iter();
        let with_gradient = named.filter(|(name, ..)| self.golden.contains(&format!("grad.{name}")));
        with_gradient
            .map(|(name, shape, ours)| {
                let theirs = self.expected(&format!("{kind}.{name}"), &shape);
                let gradient = self.expected(&format!("grad.{name}"), &shape);
                Compared { name, ours: ours.to_vec(), theirs, gradient }
            })
            .collect()
    }
}

/// Values of a weight, or of its gradient, by us and by PyTorch, and its gradient by PyTorch.
struct Compared {
    name: String,
    ours: Vec<f32>,
    theirs: Vec<f32>,
    gradient: Vec<f32>,
}

fn largest_difference(ours: &[f32], theirs: &[f32]) -> f32 {
    assert_eq!(ours.len(), theirs.len());
    ours.iter().zip(theirs).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max)
}

fn magnitude(values: &[f32]) -> f32 {
    values.iter().fold(0.0, |largest, value| largest.max(value.abs()))
}

/// Gradients below this in double precision are zero in theory, such as those of most key biases.
const ZERO: f32 = 1e-13;

#[test]
fn logits_loss_and_gradients_equal_transformers() {
    for name in FIXTURES {
        let fixture = Fixture::open(name);
        let (logits, loss, gradients) = fixture.backward();
        let shape: Vec<usize> = logits.size().iter().map(|size| *size as usize).collect();
        let expected = fixture.expected("logits", &shape);
        let ours = elements(&logits).unwrap();
        assert!(magnitude(&expected) > 0.05, "{name}: logits that say something");
        assert!(largest_difference(&ours, &expected) < 1e-5, "{name}: {}", largest_difference(&ours, &expected));
        let difference = loss.double_value(&[]) - f64::from(fixture.expected("loss", &[1])[0]);
        assert!(difference.abs() < 1e-5, "{name}: loss {difference}");

        let whole = fixture.model.input(&fixture.batch).unwrap();
        let same = elements(&fixture.model.logits(&whole, None, false).unwrap()).unwrap();
        assert!(
            largest_difference(&same, &ours) < 1e-5,
            "{name}: the whole word table gives other logits than its rows"
        );

        let flat = flat_gradient(&fixture.parameters, &gradients).unwrap();
        for Compared { name: weight, ours, theirs, .. } in fixture.weights("grad", &flat) {
            let scale = if magnitude(&theirs) < ZERO { 0.1 } else { magnitude(&theirs) };
            let difference = largest_difference(&ours, &theirs);
            assert!(difference <= 1e-5 * scale, "{name}, {weight}: {difference} of {scale}");
        }
    }
}

#[test]
fn weights_after_three_steps_equal_pytorch() {
    for name in FIXTURES {
        let mut fixture = Fixture::open(name);
        let steps = Steps { count: 3, learning_rate: 1e-3, weight_decay: 0.1, max_grad_norm: 0.5 };
        let mut optimizer = Optimizer::new(&fixture.parameters, steps.settings(&fixture.parameters).unwrap()).unwrap();
        for step in 1..=3 {
            let (_, _, gradients) = fixture.backward();
            optimizer.step(&mut fixture.parameters, &gradients, 1e-3, step).unwrap();
        }
        optimizer.settle(&mut fixture.parameters).unwrap();
        let flat = elements(&fixture.parameters.flat).unwrap();
        for Compared { name: weight, ours, theirs, gradient } in fixture.weights("after", &flat) {
            if magnitude(&gradient) < ZERO {
                continue;
            }
            // Adam makes steps of up to the learning rate out of noise: elements whose gradient is below its bar are left out.
            let clear = 1e-5 * magnitude(&gradient);
            let pairs = ours.iter().zip(&theirs).zip(&gradient);
            let (ours, theirs): (Vec<f32>, Vec<f32>) = pairs
                .filter(|(_, gradient)| gradient.abs() >= clear || **gradient == 0.0)
                .map(|(pair, _)| pair)
                .unzip();
            let difference = largest_difference(&ours, &theirs);
            assert!(difference < 1e-5, "{name}, {weight}: {difference}");
        }
    }
}

/// A written checkpoint has the tensors that were read, under the same names.
#[test]
fn every_tensor_of_a_checkpoint_is_kept() {
    for name in FIXTURES {
        let fixture = Fixture::open(name);
        let source = Weights::open_file(&folder(name).join("model.safetensors")).unwrap();
        let flat = elements(&fixture.parameters.flat).unwrap();
        let mut names: Vec<String> = Vec::new();
        for (tensor, shape, values) in fixture.parameters.named(&flat) {
            assert_eq!(source.f32(&tensor, &shape).unwrap(), values, "{name}, {tensor}");
            names.push(tensor);
        }
        names.sort_unstable();
        assert!(source.names().eq(names.iter().map(String::as_str)), "{name}");
    }
}

/// Mean and spread of the loss over `draws` passes with dropout.
fn losses(fixture: &Fixture, draws: usize) -> (f64, f64) {
    let input = fixture.model.input(&fixture.batch).unwrap();
    tch::manual_seed(3);
    let (plain, terms) = (Loss::default(), fixture.batch.targets.count() as f64);
    let losses: Vec<f64> = (0..draws)
        .map(|_| {
            let logits = tch::no_grad(|| fixture.model.logits(&input, None, true)).unwrap();
            plain.sum(&logits, &input.wanted).unwrap().double_value(&[]) / terms
        })
        .collect();
    let mean = losses.iter().sum::<f64>() / draws as f64;
    (mean, (losses.iter().map(|loss| (loss - mean).powi(2)).sum::<f64>() / (draws - 1) as f64).sqrt())
}

/// Five standard errors, with those of the expected values: they are over 4000 draws.
fn assert_near(name: &str, draws: usize, found: (f64, f64), expected: &[f32]) {
    let (mean, spread) = (f64::from(expected[0]), f64::from(expected[1]));
    let error = (1.0 / draws as f64 + 1.0 / 4000.0).sqrt();
    assert!((found.0 - mean).abs() < 5.0 * spread * error, "{name}: mean {}, expected {mean}", found.0);
    assert!((found.1 / spread - 1.0).abs() < 5.0 * error, "{name}: spread {}, expected {spread}", found.1);
}

/// Dropout is random, so its places and rates are checked by what they do to the loss: mean and spread over many draws, of BERT with
/// one kind of dropout on at a time.
#[test]
fn dropout_does_to_the_loss_what_it_does_in_transformers() {
    const DRAWS: usize = 3000;
    let mut fixture = Fixture::open("bert");
    for (kind, hidden, attention, head) in
        [("hidden", 0.3, 0.0, 0.0), ("attention", 0.0, 0.4, 0.0), ("head", 0.0, 0.0, 0.3)]
    {
        let mut config = fixture.config.clone();
        config.hidden_dropout_prob = hidden;
        config.attention_probs_dropout_prob = attention;
        let Family::Bert(bert) = &mut config.family else { panic!("BERT") };
        bert.classifier_dropout = Some(head);
        fixture.model = Model::new(&fixture.parameters, &config, Device::Cpu).unwrap();
        let expected = fixture.expected(&format!("loss_under_dropout.{kind}"), &[2]);
        assert_near(kind, DRAWS, losses(&fixture, DRAWS), &expected);
    }
}

#[test]
fn all_dropout_together_does_to_the_loss_what_it_does_in_transformers() {
    const DRAWS: usize = 600;
    let mut checked = 0;
    for name in FIXTURES {
        let fixture = Fixture::open(name);
        if fixture.golden.contains("loss_under_dropout") {
            assert_near(name, DRAWS, losses(&fixture, DRAWS), &fixture.expected("loss_under_dropout", &[2]));
            checked += 1;
        }
    }
    assert_eq!(checked, 7);
}
