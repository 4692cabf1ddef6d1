//! Low-rank changes against `peft` (`lora.safetensors`, made by `tests/peers/lora_golden.py`), and what is drawn and trained.
use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
};

use quintet_nlp::{
    batch::Batch,
    checkpoint::{Checkpoint, Weights},
    encoder::EncoderConfig,
    task::Task,
    testing::TinyCheckpoint,
};
use quintet_proto::v1::Hyperparameters;
use tch::{Device, Kind};

use super::*;
use crate::{
    Hyper,
    model::Model,
    optimizer::{Optimizer, Settings},
    parameters::elements,
    probe::{backward, read_batch},
};

const FIXTURES: [&str; 4] = ["bert", "distilbert", "deberta-conv", "modernbert"];
const LORA: Lora = Lora { r: 3, alpha: 5.0 };

fn folder(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("testdata").join(name)
}

/// A checkpoint with low-rank changes, a batch, and what `peft` makes of them.
struct Fixture {
    golden: Weights,
    batch: Batch,
    checkpoint: Checkpoint,
    parameters: Parameters,
    model: Model,
}

impl Fixture {
    fn open(name: &str, kind: Kind) -> Self {
        tch::set_num_threads(1);
        let dir = folder(name);
        let checkpoint = Checkpoint::open(&dir).unwrap();
        let batch = read_batch(&dir.join("golden.safetensors"), checkpoint.config.task).unwrap();
        let golden = Weights::open_file(&dir.join("lora.safetensors")).unwrap();
        let parameters = load(&checkpoint, &checkpoint.config, 1, kind);
        let model = Model::new(&parameters, &checkpoint.config, Device::Cpu).unwrap();
        Self { golden, batch, checkpoint, parameters, model }
    }

    /// Puts the factors of the golden file in place.
    fn take_factors(&mut self) {
        let mut values = elements(&self.parameters.flat).unwrap();
        for leaf in self.parameters.leaves.iter().filter(|leaf| is_factor(leaf)) {
            let factor = self.golden.f32(&leaf.names[0], &shape(&leaf.tensor)).unwrap();
            values[leaf.offset..leaf.offset + leaf.length].copy_from_slice(&factor);
        }
        let changing = self.parameters.first_trained();
        self.parameters.set(&Tensor::from_slice(&values[changing..])).unwrap();
    }

    fn logits(&self) -> Vec<f32> {
        let input = self.model.input(&self.batch).unwrap();
        elements(&tch::no_grad(|| self.model.logits(&input, None, false)).unwrap()).unwrap()
    }

    fn expected(&self, name: &str, like: &Tensor) -> Vec<f32> {
        self.golden.f32(name, &shape(like)).unwrap()
    }
}

fn load(checkpoint: &Checkpoint, config: &EncoderConfig, seed: u64, kind: Kind) -> Parameters {
    Parameters::load_adapted(checkpoint, config, seed, Device::Cpu, kind, Some(LORA)).unwrap()
}

fn is_factor(leaf: &Leaf) -> bool {
    leaf.names.iter().any(|name| name.contains(".lora_"))
}

fn shape(tensor: &Tensor) -> Vec<usize> {
    tensor.size().iter().map(|size| *size as usize).collect()
}

fn assert_close(what: &str, ours: &[f32], theirs: &[f32], allowed: f32) {
    assert_eq!(ours.len(), theirs.len(), "{what}");
    let largest = theirs.iter().fold(0f32, |largest, value| largest.max(value.abs()));
    let difference = ours.iter().zip(theirs).map(|(a, b)| (a - b).abs()).fold(0f32, f32::max);
    assert!(difference <= allowed * largest.max(1e-6), "{what}: {difference} of {largest}");
}

#[test]
fn before_the_first_step_logits_are_those_of_the_checkpoint() {
    for name in FIXTURES {
        for kind in [Kind::Float, Kind::BFloat16] {
            let fixture = Fixture::open(name, kind);
            let config = &fixture.checkpoint.config;
            let base = Parameters::load(&fixture.checkpoint, config, 1, Device::Cpu, kind).unwrap();
            let model = Model::new(&base, config, Device::Cpu).unwrap();
            let input = model.input(&fixture.batch).unwrap();
            let expected = tch::no_grad(|| model.logits(&input, None, false)).unwrap();
            assert_eq!(fixture.logits(), elements(&expected).unwrap(), "{name}");
        }
    }
}

#[test]
fn logits_gradients_and_merged_weights_equal_those_of_peft() {
    for name in FIXTURES {
        let mut fixture = Fixture::open(name, Kind::Float);
        fixture.take_factors();
        let (logits, loss, gradients) = backward(&fixture.model, &fixture.parameters, &fixture.batch).unwrap();
        let expected = fixture.expected("logits", &logits);
        assert_close(name, &elements(&logits).unwrap(), &expected, 1e-5);
        let difference = loss.double_value(&[]) - f64::from(fixture.golden.f32("loss", &[1]).unwrap()[0]);
        assert!(difference.abs() < 1e-5, "{name}: loss {difference}");
        assert!(gradients.words.is_none());
        let mut trained = BTreeSet::new();
        for (leaf, gradient) in fixture.parameters.leaves.iter().zip(&gradients.leaves) {
            let Some(gradient) = gradient else { continue };
            let expected = fixture.expected(&format!("grad.{}", leaf.names[0]), gradient);
            assert_close(&leaf.names[0], &elements(gradient).unwrap(), &expected, 2e-5);
            trained.insert(leaf.names[0].as_str());
        }
        let theirs: BTreeSet<&str> = fixture.golden.names().filter_map(|name| name.strip_prefix("grad.")).collect();
        assert_eq!(trained, theirs, "{name}");

        fixture.parameters.merge().unwrap();
        let values = elements(&fixture.parameters.flat).unwrap();
        let mut merged = 0;
        for (weight, shape, ours) in fixture.parameters.named(&values) {
            let merged_name = format!("merged.{weight}");
            if fixture.golden.contains(&merged_name) {
                assert_close(&weight, ours, &fixture.golden.f32(&merged_name, &shape).unwrap(), 1e-6);
                merged += 1;
            } else {
                let source = Weights::open_file(&folder(name).join("model.safetensors")).unwrap();
                assert_eq!(source.f32(&weight, &shape).unwrap(), ours, "{name}, {weight}");
            }
        }
        assert_eq!(merged, fixture.golden.names().filter(|name| name.starts_with("merged.")).count(), "{name}");
        assert_close(name, &fixture.logits(), &expected, 1e-5);
        fixture.parameters.merge().unwrap();
        assert_eq!(values, elements(&fixture.parameters.flat).unwrap(), "{name}: a second merge changes nothing");
    }
}

#[test]
fn bf16_computes_about_the_same_and_merges_in_fp32() {
    for name in FIXTURES {
        let mut fixture = Fixture::open(name, Kind::BFloat16);
        fixture.take_factors();
        let (logits, _, gradients) = backward(&fixture.model, &fixture.parameters, &fixture.batch).unwrap();
        let expected = fixture.expected("logits", &logits);
        assert_close(name, &elements(&logits).unwrap(), &expected, 0.15);
        let given = Hyperparameters { weight_decay: Some(0.1), ..Default::default() };
        let settings = Settings::new(&Hyper::from_proto(&given).unwrap(), &fixture.parameters, |_| 1.0);
        let mut optimizer = Optimizer::new(&fixture.parameters, settings).unwrap();
        let before = elements(&fixture.parameters.flat).unwrap();
        optimizer.step(&mut fixture.parameters, &gradients, 1e-3, 1).unwrap();
        let after = elements(&fixture.parameters.flat).unwrap();
        for leaf in &fixture.parameters.leaves {
            let part = leaf.offset..leaf.offset + leaf.length;
            let same = before[part.clone()] == after[part];
            assert_eq!(same, !leaf.head && !is_factor(leaf), "{name}, {:?}", leaf.names);
        }
        fixture.take_factors();
        fixture.parameters.merge().unwrap();
        let values = elements(&fixture.parameters.flat).unwrap();
        for (weight, shape, ours) in fixture.parameters.named(&values) {
            if let Ok(theirs) = fixture.golden.f32(&format!("merged.{weight}"), &shape) {
                assert_close(&weight, ours, &theirs, 1e-6);
            }
        }
        let copy = fixture.parameters.copy.as_ref().unwrap();
        assert_eq!(elements(copy).unwrap(), elements(&fixture.parameters.flat.to_kind(Kind::BFloat16)).unwrap());
    }
}

#[test]
fn factors_are_drawn_as_peft_draws_them_and_follow_their_layer() {
    let fixture = Fixture::open("bert", Kind::Float);
    let factors = |parameters: &Parameters| -> Vec<(String, usize, Vec<f32>)> {
        let leaves = parameters.leaves.iter().filter(|leaf| is_factor(leaf));
        leaves.map(|leaf| (leaf.names[0].clone(), leaf.depth, elements(&leaf.tensor).unwrap())).collect()
    };
    let drawn = factors(&fixture.parameters);
    assert_eq!(drawn.len(), 2 * 2 * 6);
    for (name, depth, values) in &drawn {
        let layer = if name.contains("layer.0.") { 1 } else { 2 };
        assert_eq!(*depth, layer, "{name}");
        if name.contains("lora_B") {
            assert!(values.iter().all(|value| *value == 0.0), "{name}");
            continue;
        }
        let bound = 1.0 / (values.len() as f64 / LORA.r as f64).sqrt();
        assert!(values.iter().all(|value| f64::from(value.abs()) <= bound), "{name}");
        let square = values.iter().map(|value| f64::from(*value).powi(2)).sum::<f64>() / values.len() as f64;
        assert!((square.sqrt() / (bound / 3f64.sqrt()) - 1.0).abs() < 0.3, "{name}: {}", square.sqrt());
    }
    let again = |seed| factors(&load(&fixture.checkpoint, &fixture.checkpoint.config, seed, Kind::Float));
    assert_eq!(again(1), drawn);
    assert_ne!(again(2), drawn);
}

#[test]
fn what_the_checkpoint_lacks_is_trained_as_well() {
    let dir = tempfile::tempdir().unwrap();
    TinyCheckpoint::default().write(&dir.path().join("base")).unwrap();
    let checkpoint = Checkpoint::open(&dir.path().join("base")).unwrap();
    let mut config = checkpoint.config.clone();
    config.task = Some(Task::SequenceClassification);
    config.labels = ["a", "b"].map(str::to_owned).to_vec();
    let parameters = load(&checkpoint, &config, 1, Kind::Float);
    let trained = parameters.leaves.iter().filter(|leaf| leaf.tensor.requires_grad() && !is_factor(leaf));
    let names: Vec<&str> = trained.flat_map(|leaf| &leaf.names).map(String::as_str).collect();
    assert_eq!(names, ["bert.pooler.dense.weight", "bert.pooler.dense.bias", "classifier.weight", "classifier.bias"]);
    // The optimizer counts on the word table as the first leaf, trained or not.
    assert_eq!(parameters.leaves[0].names, ["bert.embeddings.word_embeddings.weight"]);
}
