//! AdamW against libtorch's; Lion and Adafactor against their definitions; state, threads and accumulation.
use quintet_proto::v1::Hyperparameters;
use tch::{
    Device, Kind, Tensor,
    nn::{self, OptimizerConfig as _},
};

use super::*;
use crate::parameters::Slot;

const ROWS: i64 = 40;
const HIDDEN: i64 = 6;
const FLOAT: (Kind, Device) = (Kind::Float, Device::Cpu);

/// A word table, a weight and a bias.
fn parameters(initial: &[f32]) -> Parameters {
    parameters_in(initial, Kind::Float)
}

fn parameters_in(initial: &[f32], kind: Kind) -> Parameters {
    let flat = Tensor::from_slice(initial);
    let copy = (kind != Kind::Float).then(|| flat.to_kind(kind));
    let leaf = |offset: i64, shape: &[i64], decays| {
        let length: i64 = shape.iter().product();
        let tensor =
            copy.as_ref().unwrap_or(&flat).narrow(0, offset, length).view(shape).detach().set_requires_grad(true);
        let (offset, length) = (offset as usize, length as usize);
        Leaf { tensor, offset, length, names: Vec::new(), decays, depth: 0, head: false, fresh: false }
    };
    let leaves = vec![leaf(0, &[ROWS, HIDDEN], true), leaf(240, &[10, 10], true), leaf(352, &[10], false)];
    let slot = |name: &str, offset, shape: &[usize]| Slot { file_name: name.to_owned(), shape: shape.to_vec(), offset };
    let slots = vec![slot("words", 0, &[40, 6]), slot("weight", 240, &[10, 10]), slot("bias", 352, &[10])];
    let tensors = leaves.iter().map(|leaf: &Leaf| leaf.tensor.shallow_clone()).collect();
    Parameters { flat, copy, leaves, tensors, slots, adapters: None }
}

fn initial() -> Vec<f32> {
    tch::manual_seed(1);
    Vec::try_from(Tensor::randn([362], FLOAT)).unwrap()
}

/// Gradients of a step: a few rows of the table, a dense weight, a bias; the same with the whole table.
fn gradients(step: i64) -> (Gradients, Gradients) {
    tch::manual_seed(100 + step);
    let ids: Vec<i64> = (0..ROWS).filter(|row| row % 7 == step % 7 || *row == 3).collect();
    let rows = Tensor::randn([ids.len() as i64, HIDDEN], FLOAT);
    let table = Tensor::zeros([ROWS, HIDDEN], FLOAT).index_copy(0, &Tensor::from_slice(&ids), &rows);
    let others = [Tensor::randn([10, 10], FLOAT), Tensor::randn([10], FLOAT)];
    let list = |first: Option<Tensor>| {
        std::iter::once(first).chain(others.iter().map(|tensor| Some(tensor.shallow_clone()))).collect()
    };
    let sparse = Gradients { leaves: list(None), words: Some((ids, rows)) };
    (sparse, Gradients { leaves: list(Some(table)), words: None })
}

fn settings(given: &Hyperparameters, parameters: &Parameters) -> Settings {
    Settings::new(&Hyper::from_proto(given).unwrap(), parameters, |_| 1.0)
}

fn given(optim: &str, weight_decay: f64, max_grad_norm: f64) -> Hyperparameters {
    Hyperparameters {
        optim: Some(optim.to_owned()),
        weight_decay: Some(weight_decay),
        max_grad_norm: Some(max_grad_norm),
        ..Default::default()
    }
}

fn largest_difference(a: &Tensor, b: &Tensor) -> f64 {
    (a - b).abs().max().double_value(&[])
}

#[test]
fn equals_libtorchs_adamw_with_clipping() {
    let initial = initial();
    let (rate, decay, clip) = (0.05, 0.1, 1.5);
    let store = nn::VarStore::new(Device::Cpu);
    let source = parameters(&initial);
    let variables: Vec<Tensor> = source
        .leaves
        .iter()
        .enumerate()
        .map(|(n, leaf)| {
            let path = store.root();
            let path = if leaf.decays { path } else { path.set_group(1) };
            path.var_copy(&format!("v{n}"), &leaf.tensor)
        })
        .collect();
    let mut reference = nn::AdamW::default().build(&store, rate).unwrap();
    reference.set_weight_decay_group(0, decay);
    reference.set_weight_decay_group(1, 0.0);

    let mut ours = parameters(&initial);
    let mut optimizer = Optimizer::new(&ours, settings(&given("adamw", decay, clip), &ours)).unwrap();
    for step in 1..=20 {
        let (sparse, dense) = gradients(step as i64);
        reference.zero_grad();
        let terms = variables.iter().zip(&dense.leaves).map(|(v, g)| (v * g.as_ref().unwrap()).sum(Kind::Float));
        terms.sum::<Tensor>().backward();
        reference.clip_grad_norm(clip);
        reference.step();
        let norm = optimizer.step(&mut ours, &sparse, rate, step).unwrap().unwrap();
        let squares: f64 = dense.leaves.iter().flatten().map(|g| g.square().sum(Kind::Double).double_value(&[])).sum();
        assert!((norm - squares.sqrt()).abs() < 1e-4 * norm);
    }
    optimizer.settle(&mut ours).unwrap();
    for (variable, ours) in variables.iter().zip(&ours.leaves) {
        assert!(largest_difference(variable, &ours.tensor) < 2e-5);
    }
}

/// The weights after a few steps by each optimizer's definition, element by element or weight by weight.
fn by_definition(initial: &[f32], steps: i64, rule: fn(&mut Tensor, &mut Tensor, &Tensor, f64)) -> Vec<Tensor> {
    let source = parameters(initial);
    let mut weights: Vec<Tensor> = source.leaves.iter().map(|leaf| leaf.tensor.detach().copy()).collect();
    let mut states: Vec<Tensor> = weights.iter().map(Tensor::zeros_like).collect();
    for step in 1..=steps {
        let (_, dense) = gradients(step);
        for (index, gradient) in dense.leaves.iter().enumerate() {
            let decay = if index < 2 { 0.1 } else { 0.0 };
            rule(&mut weights[index], &mut states[index], gradient.as_ref().unwrap(), decay);
        }
    }
    weights
}

#[test]
fn lion_follows_signs() {
    let initial = initial();
    let expected = by_definition(&initial, 9, |weight, moment, gradient, decay| {
        let sign = (&*moment * 0.9 + gradient * 0.1).sign();
        *weight = &*weight * (1.0 - 0.01 * decay) - sign * 0.01;
        *moment = &*moment * 0.99 + gradient * 0.01;
    });
    let mut ours = parameters(&initial);
    let mut optimizer = Optimizer::new(&ours, settings(&given("lion", 0.1, 0.0), &ours)).unwrap();
    for step in 1..=9 {
        optimizer.step(&mut ours, &gradients(step as i64).0, 0.01, step).unwrap();
    }
    optimizer.settle(&mut ours).unwrap();
    for (expected, ours) in expected.iter().zip(&ours.leaves) {
        assert!(largest_difference(expected, &ours.tensor) < 1e-5);
    }
}

#[test]
fn threads_and_saved_states_do_not_change_the_result() {
    for optim in ["adamw", "lion", "adafactor"] {
        let run = |threads: i32, break_at: Option<usize>| {
            tch::set_num_threads(threads);
            let mut parameters = parameters(&vec![0.5; 362]);
            let fresh = |parameters: &Parameters| {
                Optimizer::new(parameters, settings(&given(optim, 0.1, 0.0), parameters)).unwrap()
            };
            let mut optimizer = fresh(&parameters);
            for step in 1..=10 {
                if break_at == Some(step) {
                    let state = optimizer.state();
                    let copies = state.tensors.iter().map(|(name, tensor)| (name.clone(), tensor.copy())).collect();
                    optimizer = fresh(&parameters);
                    optimizer.resume(&OptimizerState { tensors: copies, ..state }).unwrap();
                }
                optimizer.step(&mut parameters, &gradients(step as i64).0, 0.01, step).unwrap();
            }
            optimizer.settle(&mut parameters).unwrap();
            Vec::<f32>::try_from(&parameters.flat).unwrap()
        };
        let plain = run(1, None);
        assert_eq!(plain, run(3, None), "{optim}");
        assert_eq!(plain, run(1, Some(5)), "{optim}");
    }
    tch::set_num_threads(1);
}

#[test]
fn a_gradient_that_is_no_number_changes_nothing() {
    for optim in ["adamw", "lion", "adafactor"] {
        let initial = vec![0.5; 362];
        let mut parameters = parameters(&initial);
        let mut optimizer = Optimizer::new(&parameters, settings(&given(optim, 0.1, 1.0), &parameters)).unwrap();
        let (mut sparse, _) = gradients(1);
        sparse.leaves[2] = Some(Tensor::full([10], f64::NAN, FLOAT));
        let norm = optimizer.step(&mut parameters, &sparse, 0.1, 1).unwrap().unwrap();
        assert!(norm.is_nan());
        assert_eq!(Vec::<f32>::try_from(&parameters.flat).unwrap(), initial, "{optim}");
    }
}

#[test]
fn rates_of_leaves_and_frozen_leaves() {
    let initial = initial();
    let mut ours = parameters(&initial);
    let mut settings = settings(&given("lion", 0.0, 0.0), &ours);
    settings.scales = vec![1.0, 0.5, 1.0];
    let mut optimizer = Optimizer::new(&ours, settings).unwrap();
    let (mut sparse, _) = gradients(1);
    sparse.leaves[2] = None;
    optimizer.step(&mut ours, &sparse, 0.02, 1).unwrap();
    let moved = |leaf: &Leaf| {
        let before = Tensor::from_slice(&initial[leaf.offset..leaf.offset + leaf.length]).view_as(&leaf.tensor);
        largest_difference(&before, &leaf.tensor)
    };
    let [words, weight, bias] = [0, 1, 2].map(|index| moved(&ours.leaves[index]));
    assert!((words - 0.02).abs() < 1e-6 && (weight - 0.01).abs() < 1e-6 && bias == 0.0, "{words} {weight} {bias}");
}

#[test]
fn a_copy_in_bf16_follows_the_weights() {
    let initial = initial();
    let mut ours = parameters_in(&initial, Kind::BFloat16);
    let mut wide = parameters(&initial);
    let mut optimizer = Optimizer::new(&ours, settings(&given("adamw", 0.1, 1.0), &ours)).unwrap();
    let mut reference = Optimizer::new(&wide, settings(&given("adamw", 0.1, 1.0), &wide)).unwrap();
    for step in 1..=5 {
        let (sparse, _) = gradients(step as i64);
        let narrow = |tensor: &Tensor| tensor.to_kind(Kind::BFloat16);
        let rounded = |tensor: &Tensor| narrow(tensor).to_kind(Kind::Float);
        let map = |change: &dyn Fn(&Tensor) -> Tensor| Gradients {
            leaves: sparse.leaves.iter().map(|leaf| leaf.as_ref().map(change)).collect(),
            words: sparse.words.as_ref().map(|(ids, rows)| (ids.clone(), change(rows))),
        };
        optimizer.step(&mut ours, &map(&narrow), 0.01, step).unwrap();
        reference.step(&mut wide, &map(&rounded), 0.01, step).unwrap();
    }
    optimizer.settle(&mut ours).unwrap();
    reference.settle(&mut wide).unwrap();
    assert_eq!(ours.flat, wide.flat);
    assert_eq!(ours.copy.as_ref().unwrap(), &wide.flat.to_kind(Kind::BFloat16));
    assert_eq!(ours.leaves[1].tensor.kind(), Kind::BFloat16);
}

#[test]
fn accumulated_gradients_are_their_sum() {
    let (sparse, dense) = gradients(1);
    let (more, more_dense) = gradients(2);
    let expected: Vec<Tensor> =
        dense.leaves.iter().zip(&more_dense.leaves).map(|(a, b)| a.as_ref().unwrap() + b.as_ref().unwrap()).collect();
    let mut sum = Gradients::default();
    sum.add(sparse).unwrap();
    sum.add(more).unwrap();
    let leaf = &parameters(&initial()).leaves[0];
    let words = dense_words(leaf, sum.words.as_ref().unwrap()).unwrap();
    assert!(largest_difference(&words, &expected[0]) < 1e-6);
    for index in [1, 2] {
        assert_eq!(sum.leaves[index].as_ref().unwrap(), &expected[index]);
    }
}

#[test]
fn adafactor_passes_over_tensors_that_are_only_kept() {
    let mut values = initial();
    values.extend([7.0; 8]);
    let mut parameters = parameters(&values);
    parameters.slots.push(Slot { file_name: "kept".to_owned(), shape: vec![2, 4], offset: 362 });
    let mut optimizer = Optimizer::new(&parameters, settings(&given("adafactor", 0.1, 1.0), &parameters)).unwrap();
    optimizer.step(&mut parameters, &gradients(1).0, 1e-2, 1).unwrap();
    let after: Vec<f32> = Vec::try_from(&parameters.flat).unwrap();
    assert_eq!(after[362..], [7.0; 8]);
    assert_ne!(after[..362], values[..362]);
}
