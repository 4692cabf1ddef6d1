//! Conversions of models for whole texts, of every task, held to what `transformers` computed.
#![allow(clippy::unwrap_used)] // helpers of tests fail by panicking, like the tests

mod support;

use std::{
    fs,
    path::{Path, PathBuf},
};

use convert_svc::{Error, Request, convert, report::Report};
use quintet_nlp::{
    checkpoint::{Checkpoint, Weights},
    evaluation::{Description, EvaluationSet, argmax},
    task::Task,
    testing::tokenizer_json,
};
use quintet_onnx::{Classifier, Options};
use quintet_proto::v1::{ConvertSpec, Precision};
use serde_json::{Map, Value};
use support::{Quiet, has_runtime};

/// A temporary folder with a tiny checkpoint of `transformers` and the rows that a trainer would leave: what is right is what it said.
struct Case {
    folder: tempfile::TempDir,
    set: EvaluationSet,
}

impl Case {
    fn new(family: &str) -> Self {
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("../train-worker/testdata").join(family);
        let folder = tempfile::tempdir().unwrap();
        let checkpoint = folder.path().join("checkpoint");
        fs::create_dir(&checkpoint).unwrap();
        for file in ["config.json", "model.safetensors"] {
            fs::copy(source.join(file), checkpoint.join(file)).unwrap();
        }
        let config = Checkpoint::open(&source).unwrap().config;
        let mut tokenizer = tokenizer_json(&[]);
        let words: Map<String, Value> =
            tokenizer["model"]["vocab"].as_object().unwrap().clone().into_iter().take(config.vocab_size).collect();
        tokenizer["model"]["vocab"] = Value::Object(words);
        fs::write(checkpoint.join("tokenizer.json"), tokenizer.to_string()).unwrap();

        let golden = Weights::open_file(&source.join("golden.safetensors")).unwrap();
        let (shape, input_ids) = golden.i64("input_ids").unwrap();
        let (rows, length, labels) = (shape[0], shape[1], config.labels.len());
        let logits = golden.f32("logits", &[rows, labels]).unwrap();
        let types = match golden.contains("token_type_ids") {
            true => golden.i64("token_type_ids").unwrap().1,
            false => vec![0; rows * length],
        };
        let task = config.task.unwrap();
        let classes = logits.chunks_exact(labels).map(|row| argmax(row) as i64);
        let set = EvaluationSet {
            labels: if task == Task::SequenceClassification { classes.collect() } else { Vec::new() },
            values: match task {
                Task::MultiLabelClassification => logits.iter().map(|logit| f32::from(*logit >= 0.0)).collect(),
                Task::Regression => logits.clone(),
                _ => Vec::new(),
            },
            word_index: Vec::new(),
            description: Description {
                format: 2,
                task,
                split: "test".to_owned(),
                max_length: length,
                pad_token_id: config.filler(),
                labels: config.labels.clone(),
                rows,
                length,
                logit_rows: rows,
                gold_tags: Vec::new(),
                predicted_tags: Vec::new(),
                covered: Vec::new(),
            },
            input_ids,
            attention_mask: golden.i64("attention_mask").unwrap().1,
            token_type_ids: types,
            logits,
        };
        let case = Self { folder, set };
        case.save();
        case
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn save(&self) {
        let path = self.path("evaluation");
        if path.exists() {
            fs::remove_dir_all(&path).unwrap();
        }
        self.set.save(&path).unwrap();
    }

    fn convert(&self, precisions: &[Precision]) -> Result<Report, Error> {
        let precisions = precisions.iter().map(|precision| i32::from(*precision)).collect();
        // A tiny random model in int8 may well change an answer.
        let spec = ConvertSpec { precisions, max_f1_loss: 1.0, ..ConvertSpec::default() };
        let [checkpoint, evaluation, output] = ["checkpoint", "evaluation", "model"].map(|name| self.path(name));
        let mut request = Request::from_spec(&spec, checkpoint, evaluation, output)?;
        request.threads = 1;
        convert(&request, &mut Quiet)
    }
}

#[test]
fn every_task_of_texts_is_verified() {
    if !has_runtime() {
        return;
    }
    for (family, task, problem_type) in [
        ("electra", "sequence_classification", "single_label_classification"),
        ("distilbert", "multi_label_classification", "multi_label_classification"),
        ("roberta", "regression", "regression"),
    ] {
        let case = Case::new(family);
        let report = case.convert(&[]).unwrap();
        assert_eq!((report.evaluation.task.as_str(), report.evaluation.trainer_f1), (task, None));
        let [fp32, int8] = report.models.as_slice() else { panic!("two models: {report:?}") };
        assert!(fp32.max_abs_logit_difference <= 1e-5, "{family}: {fp32:?}");
        assert!(int8.max_abs_logit_difference > fp32.max_abs_logit_difference, "{family}: {int8:?}");
        assert_eq!((fp32.tag_agreement, int8.tag_agreement), (None, None));
        if task == "regression" {
            assert_eq!((fp32.f1, fp32.label_agreement), (None, None), "{fp32:?}");
            assert!(fp32.r2.unwrap() > 0.999 && int8.r2.unwrap() < fp32.r2.unwrap(), "{report:?}");
        } else {
            assert_eq!((fp32.label_agreement, fp32.r2), (Some(1.0), None), "{fp32:?}");
            assert!(fp32.f1.unwrap() > 0.0 && int8.label_agreement.is_some(), "{report:?}");
        }
        let model = Classifier::open(&case.path("model").join("model_int8.onnx"), Options { threads: 1 }).unwrap();
        let metadata = model.metadata().unwrap();
        assert_eq!(metadata["quintet.task"], "text-classification");
        assert_eq!(metadata["quintet.problem_type"], problem_type);
    }
}

#[test]
fn int8_alone_is_held_to_an_fp32_model_that_is_not_published() {
    if !has_runtime() {
        return;
    }
    let case = Case::new("electra");
    let report = case.convert(&[Precision::Int8]).unwrap();
    assert_eq!(report.models.iter().map(|model| model.file.as_str()).collect::<Vec<_>>(), ["model_int8.onnx"]);
    assert!(report.models[0].label_agreement.is_some());
    assert!(report.files.iter().all(|file| file.name != "model.onnx") && !case.path("model/model.onnx").exists());
}

#[test]
fn rows_of_another_model_or_task_publish_nothing() {
    if !has_runtime() {
        return;
    }
    let mut case = Case::new("electra");
    case.set.logits[1] += 0.5;
    case.save();
    for precisions in [&[][..], &[Precision::Int8]] {
        let error = case.convert(precisions).unwrap_err().to_string();
        assert!(error.contains("fp32: largest difference of a logit from the trainer's is 5.000e-1"), "{error}");
    }
    // Rows of the same size, but for any number of labels.
    let set = &mut case.set;
    set.description.task = Task::MultiLabelClassification;
    set.values = set.logits.iter().map(|logit| f32::from(*logit >= 0.0)).collect();
    case.set.labels.clear();
    case.save();
    let error = case.convert(&[]).unwrap_err().to_string();
    let expected = "problem_type says sequence_classification, but the evaluation rows are those of multi_label";
    assert!(error.contains(expected), "{error}");
    assert!(!case.path("model").exists());
}
