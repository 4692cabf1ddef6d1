//! Graphs against `transformers` and ONNX Runtime's own quantizer, by files those two wrote.
#![allow(clippy::unwrap_used)] // helpers of tests fail by panicking, like the tests

mod support;

use std::collections::BTreeMap;

use convert_svc::{
    graph::{self, OPSETS, Scheme},
    onnx::{GraphProto, ModelProto, TensorProto},
};
use prost::Message as _;
use quintet_nlp::checkpoint::{Activation, Checkpoint, Weights};
use quintet_onnx::{Batch, Classifier, Options};
use support::{LABELS, floats, golden, has_runtime, tensors};

fn write(model: &ModelProto, folder: &tempfile::TempDir) -> std::path::PathBuf {
    let path = folder.path().join("model.onnx");
    std::fs::write(&path, model.encode_to_vec()).unwrap();
    path
}

fn build(checkpoint: &Checkpoint, scheme: Scheme, opset: i32) -> ModelProto {
    graph::build(&checkpoint.weights, &checkpoint.config, scheme, opset, &[]).unwrap()
}

/// Largest difference of a token's logit from the golden one, and the largest golden logit.
fn difference(model: &ModelProto, golden: &str) -> (f32, f32) {
    let folder = tempfile::tempdir().unwrap();
    let mut classifier = Classifier::open(&write(model, &folder), Options { threads: 1 }).unwrap();
    let tensors = tensors();
    let [ids, mask, types] = ["input_ids", "attention_mask", "token_type_ids"].map(|name| tensors.i64(name).unwrap().1);
    let (rows, length) = (4, 9);
    let batch = Batch { rows, length, input_ids: &ids, attention_mask: &mask, token_type_ids: &types };
    let found = classifier.run(&batch).unwrap();
    assert_eq!(found.shape, [rows, length, LABELS.len()]);
    let expected = tensors.f32(golden, &found.shape).unwrap();
    let tokens = || mask.iter().flat_map(|mask| [*mask; 5]).zip(found.values.iter().zip(&expected));
    let tokens = || tokens().filter(|(mask, _)| *mask == 1).map(|(_, pair)| pair);
    (
        tokens().map(|(found, expected)| (found - expected).abs()).fold(0.0, f32::max),
        tokens().map(|(_, expected)| expected.abs()).fold(0.0, f32::max),
    )
}

#[test]
fn logits_equal_those_of_transformers_in_every_opset() {
    if !has_runtime() {
        return;
    }
    let checkpoint = Checkpoint::open(&golden()).unwrap();
    for opset in OPSETS {
        let (largest, size) = difference(&build(&checkpoint, Scheme::Fp32, opset), "logits.gelu");
        assert!(largest <= 1e-5, "opset {opset}: {largest}");
        assert!(size > 1.0, "golden logits that say something: {size}");
    }
}

/// Tiny checkpoints of every family with what `transformers` computes, which the trainer is compared with too.
fn families() -> Vec<std::path::PathBuf> {
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../train-worker/testdata");
    let mut found: Vec<_> = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    found.retain(|path| path.is_dir());
    found.sort();
    found
}

#[test]
fn every_family_and_head_equals_transformers() {
    if !has_runtime() {
        return;
    }
    let mut families = families();
    assert!(families.len() >= 11, "{families:?}");
    for path in families.drain(..) {
        let checkpoint = Checkpoint::open(&path).unwrap();
        let golden = Weights::open_file(&path.join("golden.safetensors")).unwrap();
        let (shape, ids) = golden.i64("input_ids").unwrap();
        let mask = golden.i64("attention_mask").unwrap().1;
        let types = if golden.contains("token_type_ids") {
            golden.i64("token_type_ids").unwrap().1
        } else {
            vec![0; ids.len()]
        };
        let expected = golden.get("logits").unwrap();
        let by_token = expected.shape.len() == 3;
        for (scheme, opset, allowed) in [
            (Scheme::Fp32, 17, 1e-5),
            (Scheme::Fp32, 20, 1e-5),
            (Scheme::Fp32, 24, 1e-5),
            (Scheme::Int8 { embeddings: true }, 20, 0.5),
        ] {
            let folder = tempfile::tempdir().unwrap();
            let model = write(&build(&checkpoint, scheme, opset), &folder);
            let mut classifier = Classifier::open(&model, Options { threads: 1 }).unwrap();
            let batch = Batch {
                rows: shape[0],
                length: shape[1],
                input_ids: &ids,
                attention_mask: &mask,
                token_type_ids: &types,
            };
            let found = classifier.run(&batch).unwrap();
            assert_eq!(found.shape, expected.shape, "{}", path.display());
            let labels = *expected.shape.last().unwrap();
            let values = expected.to_f32();
            let pairs = found.values.chunks(labels).zip(values.chunks(labels)).enumerate();
            let largest = pairs
                .filter(|(place, _)| !by_token || mask[*place] == 1)
                .flat_map(|(_, (found, expected))| found.iter().zip(expected).map(|(a, b)| (a - b).abs()))
                .fold(0.0, f32::max);
            assert!(largest <= allowed, "{}, {scheme:?}, opset {opset}: {largest}", path.display());
        }
    }
}

#[test]
fn every_activation_equals_that_of_transformers() {
    if !has_runtime() {
        return;
    }
    let mut checkpoint = Checkpoint::open(&golden()).unwrap();
    for (activation, name) in [
        (Activation::GeluTanh, "gelu_new"),
        (Activation::QuickGelu, "quick_gelu"),
        (Activation::Relu, "relu"),
        (Activation::Silu, "silu"),
        (Activation::Mish, "mish"),
        (Activation::Tanh, "tanh"),
        (Activation::Sigmoid, "sigmoid"),
        (Activation::Linear, "linear"),
        (Activation::Relu2, "relu2"),
        (Activation::Relu6, "relu6"),
        (Activation::LeakyRelu, "leaky_relu"),
        (Activation::Gelu10, "gelu_10"),
        (Activation::Laplace, "laplace"),
    ] {
        checkpoint.config.hidden_act = activation;
        for opset in [17, 20] {
            let (largest, _) = difference(&build(&checkpoint, Scheme::Fp32, opset), &format!("logits.{name}"));
            assert!(largest <= 1e-5, "{name}, opset {opset}: {largest}");
        }
    }
}

#[test]
fn int8_logits_stay_near() {
    if !has_runtime() {
        return;
    }
    let checkpoint = Checkpoint::open(&golden()).unwrap();
    for embeddings in [false, true] {
        for opset in OPSETS {
            let (largest, size) = difference(&build(&checkpoint, Scheme::Int8 { embeddings }, opset), "logits.gelu");
            // Exact would mean that nothing was quantized.
            assert!(largest > 1e-4 && largest < 0.1 * size, "opset {opset}: {largest} of {size}");
        }
    }
}

#[test]
fn batch_and_sequence_are_free_up_to_the_position_table() {
    if !has_runtime() {
        return;
    }
    let checkpoint = Checkpoint::open(&golden()).unwrap();
    let folder = tempfile::tempdir().unwrap();
    for scheme in [Scheme::Fp32, Scheme::Int8 { embeddings: true }] {
        let path = write(&build(&checkpoint, scheme, 20), &folder);
        let mut classifier = Classifier::open(&path, Options { threads: 1 }).unwrap();
        assert_eq!(classifier.input_names(), ["input_ids", "attention_mask", "token_type_ids"]);
        let mut run = |rows: usize, length: usize| {
            let (ids, mask, types) = (vec![5; rows * length], vec![1; rows * length], vec![0; rows * length]);
            classifier.run(&Batch { rows, length, input_ids: &ids, attention_mask: &mask, token_type_ids: &types })
        };
        for (rows, length) in [(1, 1), (3, 24), (7, 2)] {
            assert_eq!(run(rows, length).unwrap().shape, [rows, length, 5]);
        }
        let error = run(1, 25).unwrap_err().to_string();
        assert!(error.contains("on 1 x 25"), "{error}");
    }
}

fn graph_of(model: &ModelProto) -> &GraphProto {
    model.graph.as_ref().unwrap()
}

fn constants(model: &ModelProto) -> BTreeMap<&str, &TensorProto> {
    graph_of(model).initializer.iter().map(|tensor| (tensor.name(), tensor)).collect()
}

/// Columns `range` of a row-major matrix.
fn columns<T: Copy>(values: &[T], width: usize, range: std::ops::Range<usize>) -> Vec<T> {
    values.chunks_exact(width).flat_map(|row| row[range.clone()].to_vec()).collect()
}

#[test]
fn quantized_weights_equal_onnx_runtimes_bit_for_bit() {
    let checkpoint = Checkpoint::open(&golden()).unwrap();
    let model = build(&checkpoint, Scheme::Int8 { embeddings: true }, 20);
    let constants = constants(&model);
    let bytes = std::fs::read(golden().join("golden.safetensors")).unwrap();
    let golden = safetensors::SafeTensors::deserialize(&bytes).unwrap();
    let mut compared = 0;
    for name in golden.names() {
        let Some(name) = name.strip_prefix("int8.") else { continue };
        let expected = golden.tensor(&format!("int8.{name}")).unwrap();
        let scales = floats(golden.tensor(&format!("scale.{name}")).unwrap().data());
        let layer = name.strip_suffix(".weight").unwrap();
        let part = ["query", "key", "value"].iter().position(|part| layer.ends_with(&format!(".self.{part}")));
        let (place, weight, scale) = match (part, layer) {
            (Some(part), _) => (Some(part), format!("{}.qkv/weight", layer.rsplit_once('.').unwrap().0), "_scale"),
            (None, "embeddings.word_embeddings") => (None, "words/table".to_owned(), "_scale"),
            (None, _) => (None, format!("{layer}/weight"), "_scale"),
        };
        let found = constants[format!("{weight}_quantized").as_str()].raw_data();
        let found_scales = floats(constants[format!("{weight}{scale}").as_str()].raw_data());
        let (found, found_scales) = match place {
            Some(part) => {
                let range = part * 32..(part + 1) * 32;
                (columns(found, 96, range.clone()), columns(&found_scales, 96, range))
            }
            None => (found.to_vec(), found_scales),
        };
        assert_eq!(found, expected.data(), "{name}");
        assert_eq!(found_scales, scales, "{name}");
        compared += 1;
    }
    // Six matrices in each of two layers, the head, the word table.
    assert_eq!(compared, 14);
}

#[test]
fn layers_with_one_input_share_its_quantization_and_operators_are_standard() {
    let checkpoint = Checkpoint::open(&golden()).unwrap();
    let model = build(&checkpoint, Scheme::Int8 { embeddings: false }, 20);
    let count = |operator: &str| graph_of(&model).node.iter().filter(|node| node.op_type() == operator).count();
    // qkv, attention output and two feed-forward matrices in each of two layers, and the head.
    assert_eq!([count("MatMulInteger"), count("DynamicQuantizeLinear")], [9, 9]);
    assert_eq!(count("MatMul"), 4, "scores and context of two layers");
    assert!(graph_of(&model).node.iter().all(|node| node.domain().is_empty()));
    assert_eq!(model.opset_import.len(), 1);
}

#[test]
fn the_ir_version_goes_with_the_opset() {
    let checkpoint = Checkpoint::open(&golden()).unwrap();
    for (opset, ir) in [(17, 8), (18, 8), (19, 9), (20, 9), (21, 10), (22, 10), (23, 11), (24, 12)] {
        let model = build(&checkpoint, Scheme::Fp32, opset);
        assert_eq!((model.ir_version(), model.opset_import[0].version()), (ir, i64::from(opset)));
        let gelu = graph_of(&model).node.iter().any(|node| node.op_type() == "Gelu");
        assert_eq!(gelu, opset >= 20, "opset {opset}");
    }
}
