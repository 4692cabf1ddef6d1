//! Checkpoint folders: what is written is read, what is damaged is named.
#![allow(clippy::unwrap_used)] // helpers of tests fail by panicking, like the tests
use std::{collections::HashMap, fs, path::Path};

use half::{bf16, f16};
use quintet_nlp::{
    Error,
    checkpoint::{Checkpoint, Elements, Weights, write_safetensors},
    testing::TinyCheckpoint,
};
use safetensors::{Dtype, tensor::TensorView};

fn tiny(dir: &Path) -> std::path::PathBuf {
    let path = dir.join("checkpoint");
    TinyCheckpoint { labels: ["O", "B-x", "I-x"].map(str::to_owned).to_vec(), ..TinyCheckpoint::default() }
        .write(&path)
        .unwrap();
    path
}

fn open_error(path: &Path) -> Error {
    Checkpoint::open(path).map(|_| ()).unwrap_err()
}

/// Writes the weights again with names and elements changed.
fn rewrite(path: &Path, change: impl Fn(&str) -> Option<(String, Dtype)>) {
    let file = path.join("model.safetensors");
    let weights = Weights::open(path, "bert.").unwrap();
    let mut tensors: Vec<(String, Dtype, Vec<usize>, Vec<u8>)> = Vec::new();
    for name in weights.names().filter(|name| !name.ends_with("position_ids")) {
        let tensor = weights.get(name).unwrap();
        let Some((name, dtype)) = change(name) else { continue };
        let values = tensor.to_f32();
        let data = match dtype {
            Dtype::F16 => values.iter().flat_map(|v| f16::from_f32(*v).to_le_bytes()).collect(),
            Dtype::BF16 => values.iter().flat_map(|v| bf16::from_f32(*v).to_le_bytes()).collect(),
            _ => values.iter().flat_map(|v| v.to_le_bytes()).collect(),
        };
        tensors.push((name, dtype, tensor.shape.to_vec(), data));
    }
    drop(weights);
    let ids = vec![0; 8];
    tensors.push(("embeddings.position_ids".into(), Dtype::I64, vec![1, 1], ids));
    let views = tensors.iter().map(|(n, d, s, b)| (n.clone(), TensorView::new(*d, s.clone(), b).unwrap()));
    let meta = HashMap::from([("format".to_owned(), "pt".to_owned())]);
    safetensors::serialize_to_file(views, Some(meta), &file).unwrap();
}

#[test]
fn a_written_checkpoint_is_read_back() {
    let dir = tempfile::tempdir().unwrap();
    let path = tiny(dir.path());
    let checkpoint = Checkpoint::open(&path).unwrap();
    assert!(checkpoint.has_head());
    assert_eq!(checkpoint.config.labels, ["O", "B-x", "I-x"]);
    assert_eq!(checkpoint.tokenizer().unwrap().vocabulary_size(), checkpoint.config.vocab_size);
    for spec in checkpoint.config.layout().required() {
        let values = checkpoint.weights.f32(&spec.name, &spec.shape).unwrap();
        assert!(values.iter().any(|v| *v != 0.0) && values.iter().all(|v| v.is_finite()), "{}", spec.name);
    }
    let json: serde_json::Value = serde_json::from_slice(&fs::read(path.join("config.json")).unwrap()).unwrap();
    assert_eq!(json["architectures"][0], "BertForTokenClassification");
    assert_eq!(checkpoint.digest().unwrap().len(), 64);
    // Nothing but the checkpoint is left, and it is not written over.
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    assert!(matches!(TinyCheckpoint::default().write(&path), Err(Error::Io { .. })));
}

#[test]
fn names_without_prefix_and_old_names_are_found() {
    let dir = tempfile::tempdir().unwrap();
    let path = tiny(dir.path());
    let name = "encoder.layer.1.output.LayerNorm.weight";
    let before = Checkpoint::open(&path).unwrap().weights.f32(name, &[32]).unwrap();
    rewrite(&path, |name| {
        let old = name.replace("LayerNorm.weight", "LayerNorm.gamma").replace("LayerNorm.bias", "LayerNorm.beta");
        (!name.starts_with("classifier")).then_some((old, Dtype::F32))
    });
    let checkpoint = Checkpoint::open(&path).unwrap();
    assert!(!checkpoint.has_head());
    assert_eq!(checkpoint.weights.f32(name, &[32]).unwrap(), before);
}

#[test]
fn half_precision_is_widened() {
    let dir = tempfile::tempdir().unwrap();
    let path = tiny(dir.path());
    let name = "encoder.layer.0.intermediate.dense.weight";
    let before = Checkpoint::open(&path).unwrap().weights.f32(name, &[64, 32]).unwrap();
    for (dtype, tolerance) in [(Dtype::F16, 1e-3), (Dtype::BF16, 1e-2)] {
        rewrite(&path, |name| Some((format!("bert.{name}"), dtype)));
        let after = Checkpoint::open(&path).unwrap().weights.f32(name, &[64, 32]).unwrap();
        assert_eq!(after.len(), before.len());
        assert!(before.iter().zip(&after).all(|(a, b)| (a - b).abs() <= tolerance * a.abs().max(1e-2)), "{dtype:?}");
    }
}

#[test]
fn shards_are_joined() {
    let dir = tempfile::tempdir().unwrap();
    let path = tiny(dir.path());
    let whole = Checkpoint::open(&path).unwrap();
    let (mut map, mut parts) = (serde_json::Map::new(), [Vec::new(), Vec::new()]);
    let values: Vec<(String, Vec<usize>, Vec<f32>)> = (whole.weights.names())
        .map(|name| {
            let tensor = whole.weights.get(name).unwrap();
            (name.to_owned(), tensor.shape.to_vec(), tensor.to_f32())
        })
        .collect();
    for (index, (name, shape, values)) in values.iter().enumerate() {
        map.insert(name.clone(), format!("part-{}.safetensors", index % 2).into());
        parts[index % 2].push((name.clone(), shape.clone(), Elements::F32(values)));
    }
    for (index, tensors) in parts.iter().enumerate() {
        write_safetensors(&path.join(format!("part-{index}.safetensors")), tensors).unwrap();
    }
    fs::remove_file(path.join("model.safetensors")).unwrap();
    let index = serde_json::json!({"weight_map": map});
    fs::write(path.join("model.safetensors.index.json"), index.to_string()).unwrap();
    assert!(Checkpoint::open(&path).unwrap().has_head());
    let shard = path.join("part-1.safetensors");
    let bytes = fs::read(&shard).unwrap();
    fs::write(&shard, &bytes[..bytes.len() / 2]).unwrap();
    assert!(matches!(open_error(&path), Error::Format { path, .. } if path == shard));
    fs::remove_file(path.join("part-1.safetensors")).unwrap();
    assert!(matches!(open_error(&path), Error::Io { path, .. } if path.ends_with("part-1.safetensors")));
}

#[test]
fn damage_is_named() {
    let dir = tempfile::tempdir().unwrap();
    assert!(matches!(open_error(&dir.path().join("nowhere")), Error::Io { .. }));
    let path = tiny(dir.path());

    rewrite(&path, |name| Some((name.to_owned(), Dtype::F32)).filter(|_| name != "encoder.layer.0.output.dense.bias"));
    match open_error(&path) {
        Error::MissingTensor { tensor, .. } => assert_eq!(tensor, "encoder.layer.0.output.dense.bias"),
        other => panic!("{other}"),
    }

    let config = fs::read_to_string(path.join("config.json")).unwrap();
    fs::write(path.join("config.json"), config.replace("\"intermediate_size\": 64", "\"intermediate_size\": 72"))
        .unwrap();
    match open_error(&path) {
        Error::TensorShape { tensor, found, expected, .. } => {
            assert_eq!(tensor, "encoder.layer.0.intermediate.dense.weight");
            assert_eq!((found, expected), (vec![64, 32], vec![72, 32]));
        }
        other => panic!("{other}"),
    }
    fs::write(path.join("config.json"), &config).unwrap();

    let file = path.join("model.safetensors");
    let bytes = fs::read(&file).unwrap();
    for length in [0, 7, 8, 100, bytes.len() / 2, bytes.len() - 1] {
        fs::write(&file, &bytes[..length]).unwrap();
        match open_error(&path) {
            Error::Format { path, problem } => assert!(path == file && problem.contains("truncated"), "{problem}"),
            other => panic!("{length}: {other}"),
        }
    }
    fs::remove_file(&file).unwrap();
    assert!(matches!(open_error(&path), Error::Io { path, .. } if path == file));
    fs::write(path.join("pytorch_model.bin"), b"x").unwrap();
    assert!(open_error(&path).to_string().contains("save_pretrained"));
    fs::write(path.join("config.json"), b"{").unwrap();
    assert!(matches!(open_error(&path), Error::Format { path, .. } if path.ends_with("config.json")));
    fs::remove_file(path.join("config.json")).unwrap();
    assert!(matches!(open_error(&path), Error::Io { path, .. } if path.ends_with("config.json")));
}

#[test]
fn every_family_is_written_and_read_with_and_without_its_prefix() {
    let families = ["roberta", "xlm-roberta", "distilbert", "electra", "deberta-v2", "mpnet", "modernbert"];
    for model_type in families {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("checkpoint");
        let labels = ["O", "B-x", "I-x"].map(str::to_owned).to_vec();
        TinyCheckpoint { model_type, labels, ..TinyCheckpoint::default() }.write(&path).unwrap();
        let checkpoint = Checkpoint::open(&path).unwrap();
        assert!(checkpoint.has_head(), "{model_type}");
        let json: serde_json::Value = serde_json::from_slice(&fs::read(path.join("config.json")).unwrap()).unwrap();
        assert_eq!(json["model_type"], model_type);
        let architecture = json["architectures"][0].as_str().unwrap();
        assert!(architecture.ends_with("ForTokenClassification"), "{architecture}");

        // A bare encoder as `transformers` saves it: no head, no prefix, old names of norms.
        let whole = Weights::open_file(&path.join("model.safetensors")).unwrap();
        let prefix = checkpoint.config.family.prefix();
        let bare: Vec<(String, Vec<usize>, Vec<f32>)> = (whole.names())
            .filter_map(|name| {
                let tensor = whole.get(name).unwrap();
                let name = name.strip_prefix(prefix)?.replace("LayerNorm.weight", "LayerNorm.gamma");
                Some((name, tensor.shape.to_vec(), tensor.to_f32()))
            })
            .collect();
        drop((whole, checkpoint));
        let tensors: Vec<_> = bare.iter().map(|(n, s, v)| (n.clone(), s.clone(), Elements::F32(v))).collect();
        write_safetensors(&path.join("model.safetensors"), &tensors).unwrap();
        let checkpoint = Checkpoint::open(&path).unwrap();
        assert!(!checkpoint.has_head(), "{model_type}");
    }
}
