//! Gradients of recomputed layers against those of the ordinary backward pass, for every family.
use quintet_nlp::{
    batch::Batch,
    checkpoint::Checkpoint,
    encoder::{EncoderConfig, Family},
};
use tch::{Device, Kind, Tensor};

use crate::{
    backward::Pass,
    hyper::Lora,
    loss::Loss,
    model::Model,
    optimizer::Gradients,
    parameters::{Leaf, Parameters, elements},
    parity::{FIXTURES, folder},
    probe::read_batch,
};

struct Fixture {
    name: &'static str,
    checkpoint: Checkpoint,
    config: EncoderConfig,
    batch: Batch,
}

/// A checkpoint and a batch, with every kind of dropout on.
fn fixture(name: &'static str) -> Fixture {
    tch::set_num_threads(1);
    let dir = folder(name);
    let checkpoint = Checkpoint::open(&dir).unwrap();
    let mut config = checkpoint.config.clone();
    config.set_dropout(0.3);
    config.attention_probs_dropout_prob = 0.2;
    if let Family::Bert(bert) = &mut config.family {
        bert.classifier_dropout = Some(0.4);
    }
    let batch = read_batch(&dir.join("golden.safetensors"), config.task).unwrap();
    Fixture { name, checkpoint, config, batch }
}

impl Fixture {
    fn parameters(&self, kind: Kind, lora: Option<Lora>) -> Parameters {
        Parameters::load_adapted(&self.checkpoint, &self.config, 1, Device::Cpu, kind, lora).unwrap()
    }

    fn gradients(&self, parameters: &Parameters, pass: Pass) -> (f64, Gradients) {
        let model = Model::new(parameters, &self.config, Device::Cpu).unwrap();
        model.seed_dropout(5);
        let plain = Loss::default();
        let found = parameters.gradients(&model, &self.batch, pass, |logits, wanted| plain.sum(logits, wanted));
        let (loss, gradients) = found.unwrap();
        (loss.double_value(&[]), gradients)
    }

    /// The same numbers; of what all layers share the sums of the layers come in another order.
    fn assert_equal(&self, leaf: &Leaf, plain: &[f32], recomputed: &[f32]) {
        let shared = ["encoder.rel_embeddings", "encoder.LayerNorm", "encoder.relative_attention_bias"];
        let is_shared = leaf.names.iter().any(|name| shared.iter().any(|shared| name.contains(shared)));
        let precision = if leaf.tensor.kind() == Kind::Float { 1e-6 } else { 2e-2 };
        let largest = plain.iter().fold(0f32, |largest, value| largest.max(value.abs()));
        let tolerance = if is_shared { precision * largest } else { 0.0 };
        let pairs = plain.iter().zip(recomputed);
        let apart = pairs.map(|(plain, recomputed)| (plain - recomputed).abs()).fold(0f32, f32::max);
        assert!(apart <= tolerance, "{}, {:?}: {apart} apart, of {largest}", self.name, leaf.names);
    }

    /// Compares both ways to compute; gives how many gradients are not zero.
    fn assert_same(&self, parameters: &Parameters, train: bool) -> usize {
        let (loss, plain) = self.gradients(parameters, Pass { train, recompute: false });
        let (again, recomputed) = self.gradients(parameters, Pass { train, recompute: true });
        assert_eq!(loss, again, "{}", self.name);
        let pairs = parameters.leaves.iter().zip(plain.leaves.iter().zip(&recomputed.leaves));
        let mut found = 0;
        for (leaf, pair) in pairs {
            let (Some(plain), Some(recomputed)) = pair else {
                assert!(pair.0.is_none() && pair.1.is_none(), "{}, {:?}", self.name, leaf.names);
                continue;
            };
            self.assert_equal(leaf, &values(plain), &values(recomputed));
            found += usize::from(values(plain).iter().any(|value| *value != 0.0));
        }
        match (plain.words, recomputed.words) {
            (Some(plain), Some(recomputed)) => {
                assert_eq!(plain.0, recomputed.0, "{}", self.name);
                assert_eq!(values(&plain.1), values(&recomputed.1), "{}", self.name);
            }
            (plain, recomputed) => assert!(plain.is_none() && recomputed.is_none(), "{}", self.name),
        }
        found
    }
}

fn values(tensor: &Tensor) -> Vec<f32> {
    elements(tensor).unwrap()
}

#[test]
fn recomputed_layers_have_the_gradients_of_kept_ones() {
    for name in FIXTURES {
        let fixture = fixture(name);
        for kind in [Kind::Float, Kind::BFloat16] {
            for train in [false, true] {
                let parameters = fixture.parameters(kind, None);
                let found = fixture.assert_same(&parameters, train);
                assert!(found > parameters.leaves.len() / 2, "{name}: {found} of {}", parameters.leaves.len());
            }
        }
    }
}

#[test]
fn frozen_layers_and_low_rank_changes_too() {
    for name in FIXTURES {
        let fixture = fixture(name);
        for frozen in 0..=fixture.config.num_hidden_layers {
            let mut parameters = fixture.parameters(Kind::Float, None);
            for leaf in parameters.leaves.iter_mut().filter(|leaf| !leaf.head && leaf.depth <= frozen) {
                leaf.tensor = leaf.tensor.set_requires_grad(false);
            }
            assert!(fixture.assert_same(&parameters, true) > 0, "{name}: {frozen} layers frozen");
        }
        let mut parameters = fixture.parameters(Kind::Float, Some(Lora { r: 2, alpha: 4.0 }));
        // B is zero at first, and the gradient of A with it.
        let changing = parameters.changing().unwrap();
        parameters.set(&(&changing + changing.randn_like() * 0.01)).unwrap();
        assert!(fixture.assert_same(&parameters, true) > 8, "{name}: low-rank changes");
    }
}
