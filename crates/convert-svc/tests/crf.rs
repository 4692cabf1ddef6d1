//! Conversions of models with a CRF: the graph gives emissions, the metadata the scores that decode them.
#![allow(clippy::unwrap_used)] // helpers of tests fail by panicking, like the tests

mod support;

use std::{
    fs,
    path::{Path, PathBuf},
};

use convert_svc::{Error, Request, convert, report::Report};
use quintet_nlp::{
    align::IGNORED,
    checkpoint::{Checkpoint, Elements, Weights, write_safetensors},
    crf::{self, Crf},
    decoder::Decoder,
    evaluation::{Description, EvaluationSet},
    task::Task,
    testing::tokenizer_json,
};
use quintet_onnx::{Classifier, Options};
use quintet_proto::v1::ConvertSpec;
use serde_json::{Map, Value, json};
use support::{Quiet, has_runtime};

const LABELS: [&str; 5] = ["O", "B-a", "I-a", "B-b", "I-b"];

/// A temporary folder with the checkpoint that `pytorch-crf` computed with, and the rows that a trainer would leave: what is right is
/// what its best sequences say.
struct Case {
    folder: tempfile::TempDir,
    set: EvaluationSet,
}

impl Case {
    /// Weights `edit`ed by name before they are written; false leaves a tensor out.
    fn new(edit: impl Fn(&str, &mut [f32]) -> bool) -> Self {
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("../train-worker/testdata/bert-crf");
        let folder = tempfile::tempdir().unwrap();
        let checkpoint = folder.path().join("checkpoint");
        fs::create_dir(&checkpoint).unwrap();
        let mut config: Value = serde_json::from_slice(&fs::read(source.join("config.json")).unwrap()).unwrap();
        config["id2label"] = LABELS.iter().enumerate().map(|(id, label)| (id.to_string(), json!(label))).collect();
        config["label2id"] = LABELS.iter().enumerate().map(|(id, label)| ((*label).to_owned(), json!(id))).collect();
        fs::write(checkpoint.join("config.json"), config.to_string()).unwrap();
        let file = Weights::open_file(&source.join("model.safetensors")).unwrap();
        let mut tensors = Vec::new();
        for name in file.names() {
            let shape = file.get(name).unwrap().shape.to_vec();
            let mut values = file.f32(name, &shape).unwrap();
            if edit(name, &mut values) {
                tensors.push((name.to_owned(), shape, values));
            }
        }
        let written: Vec<_> =
            tensors.iter().map(|(n, s, values)| (n.clone(), s.clone(), Elements::F32(values))).collect();
        write_safetensors(&checkpoint.join("model.safetensors"), &written).unwrap();
        let mut tokenizer = tokenizer_json(&[]);
        let words: Map<String, Value> =
            tokenizer["model"]["vocab"].as_object().unwrap().clone().into_iter().take(40).collect();
        tokenizer["model"]["vocab"] = Value::Object(words);
        fs::write(checkpoint.join("tokenizer.json"), tokenizer.to_string()).unwrap();

        let golden = Weights::open_file(&source.join("golden.safetensors")).unwrap();
        let (shape, labels) = golden.i64("labels").unwrap();
        let (rows, length) = (shape[0], shape[1]);
        let word_index = labels.chunks(length).flat_map(|row| {
            row.iter().scan(-1, |word, label| {
                *word += i64::from(*label != IGNORED);
                Some(if *label == IGNORED { -1 } else { *word })
            })
        });
        let words = labels.chunks(length).map(|row| row.iter().filter(|label| **label != IGNORED).count());
        let gold_tags: Vec<Vec<String>> = words.map(|words| vec!["O".to_owned(); words]).collect();
        let mut set = EvaluationSet {
            word_index: word_index.collect(),
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
            labels,
            values: Vec::new(),
            input_ids: golden.i64("input_ids").unwrap().1,
            attention_mask: golden.i64("attention_mask").unwrap().1,
            token_type_ids: golden.i64("token_type_ids").unwrap().1,
            logits: golden.f32("logits", &[rows, length, 5]).unwrap(),
        };
        let crf = Checkpoint::open(&source).and_then(|checkpoint| Crf::of(&checkpoint)).unwrap();
        set.description.predicted_tags = tags(&set, &Decoder::new(crf, 5));
        set.description.gold_tags.clone_from(&set.description.predicted_tags);
        set.save(&folder.path().join("evaluation")).unwrap();
        Self { folder, set }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn convert(&self) -> Result<Report, Error> {
        // A tiny random model in int8 may well change an answer.
        let spec = ConvertSpec { max_f1_loss: 1.0, ..ConvertSpec::default() };
        let [checkpoint, evaluation, output] = ["checkpoint", "evaluation", "model"].map(|name| self.path(name));
        let mut request = Request::from_spec(&spec, checkpoint, evaluation, output)?;
        request.threads = 1;
        convert(&request, &mut Quiet)
    }
}

fn tags(set: &EvaluationSet, decoder: &Decoder) -> Vec<Vec<String>> {
    let width = set.description.length * 5;
    let rows = set.logits.chunks(width).enumerate();
    rows.map(|(row, logits)| set.predicted_tags(row, logits, decoder).unwrap()).collect()
}

#[test]
fn both_models_are_judged_by_their_best_sequences() {
    if !has_runtime() {
        return;
    }
    let case = Case::new(|_, _| true);
    // Neighbours matter: without them some words have other tags.
    assert_ne!(tags(&case.set, &Decoder::new(None, 5)), case.set.description.predicted_tags);
    let report = case.convert().unwrap();
    assert!(report.crf);
    let [fp32, int8] = report.models.as_slice() else { panic!("two models: {report:?}") };
    assert!(fp32.max_abs_logit_difference <= 1e-5, "{fp32:?}");
    assert_eq!((fp32.f1, fp32.tag_agreement), (Some(1.0), Some(1.0)));
    assert!(int8.tag_agreement.unwrap() > 0.5 && int8.f1.is_some(), "{int8:?}");
    let crf = Crf::of(&Checkpoint::open(&case.path("checkpoint")).unwrap()).unwrap().unwrap();
    for file in ["model.onnx", "model_int8.onnx"] {
        let model = Classifier::open(&case.path("model").join(file), Options { threads: 1 }).unwrap();
        assert_eq!(model.input_names(), ["input_ids", "attention_mask", "token_type_ids"]);
        let metadata = model.metadata().unwrap();
        assert_eq!(serde_json::from_str::<Crf>(&metadata["quintet.crf"]).unwrap(), crf, "{file}");
    }
    let config = fs::read_to_string(case.path("model/config.json")).unwrap();
    assert_eq!(serde_json::from_str::<Value>(&config).unwrap()["crf"], true);
}

#[test]
fn a_model_without_one_says_nothing_of_it() {
    if !has_runtime() {
        return;
    }
    let case = Case::new(|_, _| true);
    let path = case.path("checkpoint/config.json");
    let mut config: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    config["crf"] = json!(false);
    fs::write(&path, config.to_string()).unwrap();
    let report = case.convert().unwrap();
    assert!(!report.crf && report.models[0].tag_agreement.unwrap() < 1.0, "{report:?}");
    assert!(!fs::read_to_string(case.path("model/conversion.json")).unwrap().contains("\"crf\""));
    let model = Classifier::open(&case.path("model/model.onnx"), Options { threads: 1 }).unwrap();
    assert!(!model.metadata().unwrap().contains_key("quintet.crf"));
}

#[test]
fn scores_that_are_missing_or_no_numbers_are_named() {
    let missing = Case::new(|name, _| name != crf::END_TRANSITIONS);
    let spoilt = Case::new(|name, values| {
        if name == crf::TRANSITIONS {
            values[3] = f32::INFINITY;
        }
        true
    });
    for (case, tensor, problem) in [(missing, crf::END_TRANSITIONS, "missing"), (spoilt, crf::TRANSITIONS, "inf")] {
        let error = case.convert().unwrap_err();
        assert!(error.is_input_fault());
        let text = error.to_string();
        assert!(text.contains(tensor) && text.contains(problem), "{text}");
        assert!(!case.path("model").exists());
    }
}
