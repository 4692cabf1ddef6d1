//! The golden checkpoint as the tests use it: a tokenizer added, evaluation rows with the logits of `transformers`.
#![allow(dead_code, unreachable_pub, clippy::unwrap_used)] // each test file uses its part; helpers fail by panicking

use std::{
    fs,
    path::{Path, PathBuf},
};

use convert_svc::{Observer, Request};
use quintet_nlp::{
    checkpoint::{Elements, Weights, write_safetensors},
    evaluation::{Description, EvaluationSet, argmax},
    task::Task,
    testing::tokenizer_json,
};
use quintet_proto::v1::ConvertSpec;
use serde_json::{Map, Value};

pub const LABELS: [&str; 5] = ["O", "B-Street", "I-Street", "B-Place", "I-Place"];

/// Folder with what `tests/peers/make_bert_golden.py` wrote.
pub fn golden() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden")
}

/// Whether ONNX Runtime is there; says so when not.
pub fn has_runtime() -> bool {
    match quintet_onnx::locate() {
        Ok(_) => true,
        Err(error) => {
            eprintln!("SKIPPED, NOTHING WAS TESTED: {error}");
            false
        }
    }
}

pub fn tensors() -> Weights {
    Weights::open_file(&golden().join("golden.safetensors")).unwrap()
}

pub struct Quiet;

impl Observer for Quiet {
    fn progress(&mut self, _: &str, _: u64, _: u64) {}
    fn log(&mut self, line: &str) {
        eprintln!("{line}");
    }
    fn stop_requested(&mut self) -> bool {
        false
    }
}

/// A temporary folder with `checkpoint` and `evaluation`; `output` is to be written.
pub struct Case {
    pub folder: tempfile::TempDir,
}

impl Case {
    /// The golden checkpoint, `edit`ed by tensor name and values before it is written.
    pub fn new(mut edit: impl FnMut(&str, &mut Vec<f32>)) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let case = Self { folder };
        fs::create_dir(case.checkpoint()).unwrap();
        fs::copy(golden().join("config.json"), case.checkpoint().join("config.json")).unwrap();
        let bytes = fs::read(golden().join("model.safetensors")).unwrap();
        let source = safetensors::SafeTensors::deserialize(&bytes).unwrap();
        let mut tensors: Vec<(String, Vec<usize>, Vec<f32>)> = source
            .iter()
            .map(|(name, view)| {
                let mut values = floats(view.data());
                edit(name, &mut values);
                (name.to_owned(), view.shape().to_vec(), values)
            })
            .collect();
        // The source gives them in random order.
        tensors.sort_by(|(name, ..), (other, ..)| name.cmp(other));
        let borrowed: Vec<_> =
            tensors.iter().map(|(n, shape, values)| (n.clone(), shape.clone(), Elements::F32(values))).collect();
        write_safetensors(&case.checkpoint().join("model.safetensors"), &borrowed).unwrap();
        // The first words of the test tokenizer, as many as the golden word table has rows.
        let mut tokenizer = tokenizer_json(&[]);
        let vocabulary: Map<String, Value> =
            tokenizer["model"]["vocab"].as_object().unwrap().clone().into_iter().take(60).collect();
        tokenizer["model"]["vocab"] = Value::Object(vocabulary);
        fs::write(case.checkpoint().join("tokenizer.json"), tokenizer.to_string()).unwrap();
        evaluation().save(&case.evaluation()).unwrap();
        case
    }

    pub fn checkpoint(&self) -> PathBuf {
        self.folder.path().join("checkpoint")
    }

    pub fn evaluation(&self) -> PathBuf {
        self.folder.path().join("evaluation")
    }

    pub fn output(&self) -> PathBuf {
        self.folder.path().join("out/model")
    }

    pub fn request(&self, spec: &ConvertSpec) -> Request {
        let mut request = Request::from_spec(spec, self.checkpoint(), self.evaluation(), self.output()).unwrap();
        request.threads = 1;
        request
    }

    /// Whether anything is left where the output was to be.
    pub fn left_something(&self) -> bool {
        match fs::read_dir(self.folder.path().join("out")) {
            Ok(entries) => entries.count() > 0,
            Err(_) => false,
        }
    }

    pub fn edit_config(&self, edit: impl FnOnce(&mut Value)) {
        let path = self.checkpoint().join("config.json");
        let mut config: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
        edit(&mut config);
        fs::write(&path, config.to_string()).unwrap();
    }
}

/// The golden rows as a trainer would leave them: every token is a word, and the gold tags are what the logits say.
pub fn evaluation() -> EvaluationSet {
    let tensors = tensors();
    let (shape, input_ids) = tensors.i64("input_ids").unwrap();
    let (rows, length) = (shape[0], shape[1]);
    let attention_mask = tensors.i64("attention_mask").unwrap().1;
    let logits = tensors.f32("logits.gelu", &[rows, length, LABELS.len()]).unwrap();
    let best: Vec<usize> = logits.chunks_exact(LABELS.len()).map(argmax).collect();
    let cell = |row: usize, column: usize| row * length + column;
    let gold_tags: Vec<Vec<String>> = (0..rows)
        .map(|row| {
            (0..length)
                .filter(|column| attention_mask[cell(row, *column)] == 1)
                .map(|column| LABELS[best[cell(row, column)]].to_owned())
                .collect()
        })
        .collect();
    let masked = |value: &dyn Fn(usize) -> i64, padding: i64| -> Vec<i64> {
        (0..rows * length).map(|at| if attention_mask[at] == 1 { value(at) } else { padding }).collect()
    };
    EvaluationSet {
        labels: masked(&|at| best[at] as i64, -100),
        word_index: masked(&|at| (at % length) as i64, -1),
        description: Description {
            format: 1,
            task: Task::TokenClassification,
            split: "test".to_owned(),
            max_length: length,
            pad_token_id: 0,
            labels: LABELS.map(str::to_owned).to_vec(),
            rows,
            length,
            logit_rows: rows,
            predicted_tags: gold_tags.clone(),
            gold_tags,
            covered: Vec::new(),
        },
        values: Vec::new(),
        input_ids,
        attention_mask,
        token_type_ids: tensors.i64("token_type_ids").unwrap().1,
        logits,
    }
}

pub fn floats(bytes: &[u8]) -> Vec<f32> {
    bytes.as_chunks::<4>().0.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect()
}
