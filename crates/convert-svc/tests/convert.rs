//! Whole conversions: what is published, and that nothing is when something is wrong.
#![allow(clippy::unwrap_used)] // helpers of tests fail by panicking, like the tests

mod support;

use std::{collections::BTreeSet, fs};

use convert_svc::{
    Error, Observer, convert,
    graph::{self, Scheme},
    report::Report,
};
use prost::Message as _;
use quintet_nlp::{checkpoint::Checkpoint, decoder::Decoder, evaluation::EvaluationSet, files};
use quintet_onnx::{Batch, Classifier, Options};
use quintet_proto::v1::{ConvertSpec, ErrorClass};
use runtime_core::{status::ErrorReason, worker::Failure};
use serde_json::json;
use support::{Case, Quiet, evaluation, has_runtime};

fn unchanged(_: &str, _: &mut Vec<f32>) {}

/// A tiny random model in int8 may well change a tag; how many is not the point of most tests.
fn lenient() -> ConvertSpec {
    ConvertSpec { max_f1_loss: 1.0, ..ConvertSpec::default() }
}

#[test]
fn a_conversion_leaves_verified_models_with_their_provenance() {
    if !has_runtime() {
        return;
    }
    let case = Case::new(unchanged);
    let mut request = case.request(&lenient());
    request.provenance = vec![("job".to_owned(), "jobs/0123".to_owned())];
    let report = convert(&request, &mut Quiet).unwrap();

    let [fp32, int8] = report.models.as_slice() else { panic!("two models: {report:?}") };
    assert!(fp32.max_abs_logit_difference <= 1e-5, "{fp32:?}");
    assert_eq!((fp32.f1, fp32.tag_agreement), (Some(1.0), Some(1.0)), "the gold tags are the golden logits' own");
    assert!(int8.max_abs_logit_difference > 1e-4, "{int8:?}");
    assert!(int8.size_bytes < fp32.size_bytes);
    assert!(int8.tag_agreement.unwrap() > 0.5 && int8.label_agreement.is_none());
    assert_eq!((report.evaluation.rows, report.evaluation.words), (4, 19));

    let written: Report = serde_json::from_slice(&fs::read(case.output().join("conversion.json")).unwrap()).unwrap();
    assert_eq!(written, report);
    let listed: BTreeSet<String> = report.files.iter().map(|file| file.name.clone()).collect();
    let expected = ["config.json", "model.onnx", "model_int8.onnx", "tokenizer.json"];
    assert_eq!(listed, expected.map(str::to_owned).into());
    for file in &report.files {
        let path = case.output().join(&file.name);
        assert_eq!(fs::metadata(&path).unwrap().len(), file.size_bytes);
        assert_eq!(files::digest(&path).unwrap(), file.sha256);
    }

    let classifier = Classifier::open(&case.output().join("model_int8.onnx"), Options { threads: 1 }).unwrap();
    let metadata = classifier.metadata().unwrap();
    let value = |key: &str| metadata.get(key).map(String::as_str).unwrap_or_default();
    assert_eq!(value("quintet.task"), "token-classification");
    assert_eq!(value("quintet.model_type"), "bert");
    assert_eq!(value("quintet.job"), "jobs/0123");
    assert_eq!(value("quintet.opset"), "20");
    assert_eq!(value("quintet.max_length"), "24");
    assert_eq!(value("quintet.vocab_size"), "60");
    assert_eq!(value("quintet.checkpoint_digest"), report.checkpoint_digest);
    assert_eq!(value("quintet.tokenizer_digest"), files::digest(&case.checkpoint().join("tokenizer.json")).unwrap());
    assert!(value("quintet.quantization").starts_with("dynamic int8"));
    let labels: serde_json::Value = serde_json::from_str(value("quintet.id2label")).unwrap();
    assert_eq!(labels, json!({"0": "O", "1": "B-Street", "2": "I-Street", "3": "B-Place", "4": "I-Place"}));
}

#[test]
fn the_same_inputs_give_the_same_bytes() {
    if !has_runtime() {
        return;
    }
    let digests = || {
        let case = Case::new(unchanged);
        let report = convert(&case.request(&lenient()), &mut Quiet).unwrap();
        report.files.into_iter().map(|file| file.sha256).collect::<Vec<_>>()
    };
    assert_eq!(digests(), digests());
}

#[test]
fn only_the_precisions_asked_for_are_published() {
    if !has_runtime() {
        return;
    }
    for (precision, file) in [(1, "model.onnx"), (2, "model_int8.onnx")] {
        let case = Case::new(unchanged);
        let report =
            convert(&case.request(&ConvertSpec { precisions: vec![precision], ..lenient() }), &mut Quiet).unwrap();
        assert_eq!(report.models.iter().map(|model| model.file.as_str()).collect::<Vec<_>>(), [file]);
        let models = fs::read_dir(case.output())
            .unwrap()
            .filter(|entry| entry.as_ref().unwrap().path().extension().is_some_and(|extension| extension == "onnx"));
        assert_eq!(models.count(), 1);
    }
}

#[test]
fn logits_that_are_not_the_trainers_publish_nothing() {
    if !has_runtime() {
        return;
    }
    let case = Case::new(unchanged);
    let mut set = evaluation();
    set.logits[7] += 0.25;
    fs::remove_dir_all(case.evaluation()).unwrap();
    set.save(&case.evaluation()).unwrap();
    let error = convert(&case.request(&lenient()), &mut Quiet).unwrap_err();
    let text = error.to_string();
    assert!(text.contains("nothing was published") && text.contains("2.500e-1") && text.contains("1.000e-4"), "{text}");
    let failure = Failure::from(error);
    assert_eq!((failure.reason, failure.class), (ErrorReason::ParityFailed, ErrorClass::User));
    assert!(!case.left_something());
}

#[test]
fn a_word_table_that_int8_spoils_stays_in_32_bits() {
    if !has_runtime() {
        return;
    }
    // One huge value in the row of a token that no text has: fp32 does not see it, the table's one scale does.
    let case = Case::new(|name, values| {
        if name.ends_with("word_embeddings.weight") {
            values[0] = 1e4;
        }
    });
    let mut set = evaluation();
    // Token 0 fills up rows; those positions are masked, but give them another token so that it is not even looked up.
    set.input_ids.iter_mut().filter(|id| **id == 0).for_each(|id| *id = 1);
    set.description.pad_token_id = 1;
    fs::remove_dir_all(case.evaluation()).unwrap();
    set.save(&case.evaluation()).unwrap();
    let report = convert(&case.request(&ConvertSpec::default()), &mut Quiet).unwrap();
    assert_eq!(report.models[1].quantization, "dynamic int8: MatMul weights per column");
    assert!(report.models[1].f1.unwrap() > 0.99, "{report:?}");
}

#[test]
fn int8_that_loses_too_much_publishes_nothing() {
    if !has_runtime() {
        return;
    }
    // Every column of every matrix gets one huge weight in a row whose input another bias keeps at zero: fp32 does not see
    // it, the columns' scales do. The classifier reads LayerNorm's output, whose first value is zero by weight and bias.
    let case = Case::new(|name, values| match name {
        "bert.encoder.layer.1.output.LayerNorm.weight" | "bert.encoder.layer.1.output.LayerNorm.bias" => {
            values[0] = 0.0
        }
        "classifier.weight" => values.chunks_exact_mut(32).for_each(|row| row[0] = 1e5),
        _ => {}
    });
    // The trainer of this checkpoint is its own fp32 model.
    let mut set = evaluation();
    let model = graph::build(
        &Checkpoint::open(&case.checkpoint()).unwrap().weights,
        &Checkpoint::open(&case.checkpoint()).unwrap().config,
        Scheme::Fp32,
        20,
        &[],
    )
    .unwrap();
    let path = case.folder.path().join("trainer.onnx");
    fs::write(&path, model.encode_to_vec()).unwrap();
    let (rows, length) = (set.description.rows, set.description.length);
    set.logits = Classifier::open(&path, Options { threads: 1 })
        .unwrap()
        .run(&Batch {
            rows,
            length,
            input_ids: &set.input_ids,
            attention_mask: &set.attention_mask,
            token_type_ids: &set.token_type_ids,
        })
        .unwrap()
        .values;
    for row in 0..rows {
        let logits = set.logits[row * length * 5..(row + 1) * length * 5].to_vec();
        let tags = set.predicted_tags(row, &logits, &Decoder::new(None, 5)).unwrap();
        set.description.gold_tags[row].clone_from(&tags);
        set.description.predicted_tags[row] = tags;
    }
    fs::remove_dir_all(case.evaluation()).unwrap();
    set.save(&case.evaluation()).unwrap();
    let error = convert(&case.request(&ConvertSpec::default()), &mut Quiet).unwrap_err();
    let Error::Verification { problems } = &error else { panic!("{error}") };
    assert_eq!(problems.len(), 2, "with and without an int8 word table: {problems:?}");
    assert!(problems[0].contains("F1 is 0.") && problems[0].contains("below the trainer's 1.0000"), "{problems:?}");
    assert!(!case.left_something());
}

#[test]
fn bad_inputs_are_named_and_leave_nothing() {
    type Edit = Box<dyn Fn(&Case)>;
    let config = |edit: fn(&mut serde_json::Value)| -> Edit { Box::new(move |case| case.edit_config(edit)) };
    let set = |edit: fn(&mut EvaluationSet)| -> Edit {
        Box::new(move |case| {
            let mut set = evaluation();
            edit(&mut set);
            fs::remove_dir_all(case.evaluation()).unwrap();
            set.save(&case.evaluation()).unwrap();
        })
    };
    let cases: Vec<(Edit, &[&str])> = vec![
        (Box::new(|case| fs::remove_dir_all(case.checkpoint()).unwrap()), &["checkpoint", "no such checkpoint folder"]),
        (
            Box::new(|case| {
                let path = case.checkpoint().join("model.safetensors");
                let bytes = fs::read(&path).unwrap();
                fs::write(&path, &bytes[..bytes.len() / 2]).unwrap();
            }),
            &["model.safetensors", "truncated"],
        ),
        (
            config(|config| config["intermediate_size"] = json!(40)),
            &["intermediate.dense.weight", "[48, 32]", "[40, 32]"],
        ),
        (config(|config| config["model_type"] = json!("gpt2")), &["gpt2", "supported are bert, "]),
        (
            config(|config| config["architectures"] = json!(["BertForSequenceClassification"])),
            &["architectures is BertForSequenceClassification", "BertForTokenClassification"],
        ),
        (
            config(|config| {
                config.as_object_mut().unwrap().remove("id2label");
            }),
            // Two labels, as transformers takes it.
            &["classifier.weight", "[5, 32]", "[2, 32]"],
        ),
        (Box::new(|case| fs::remove_dir_all(case.evaluation()).unwrap()), &["rows.json"]),
        (set(|set| set.description.labels.swap(0, 1)), &["evaluation: its labels", "config.json"]),
        (set(|set| set.input_ids[0] = 60), &["token id 60", "60 tokens"]),
        (
            Box::new(|case| {
                fs::create_dir_all(case.output()).unwrap();
                fs::write(case.output().join("mine"), "x").unwrap();
            }),
            &["out/model"],
        ),
    ];
    for (edit, expected) in cases {
        let case = Case::new(unchanged);
        edit(&case);
        let occupied = case.left_something();
        if occupied && !has_runtime() {
            continue;
        }
        let error = convert(&case.request(&lenient()), &mut Quiet).unwrap_err();
        let text = error.to_string();
        for part in expected {
            assert!(text.contains(part), "`{part}` is not in: {text}");
        }
        assert_eq!(case.left_something(), occupied, "{text}");
        assert!(occupied || error.is_input_fault(), "{text}");
    }
}

#[test]
fn weights_that_are_no_numbers_are_named() {
    if !has_runtime() {
        return;
    }
    let case = Case::new(|name, values| {
        if name.ends_with("layer.1.output.dense.bias") {
            values[3] = f32::NAN;
        }
    });
    let error = convert(&case.request(&lenient()), &mut Quiet).unwrap_err().to_string();
    assert!(error.contains("`encoder.layer.1.output.dense.bias` holds NaN at index 3"), "{error}");
    assert!(!case.left_something());
}

#[test]
fn a_request_to_stop_is_obeyed() {
    struct Stop(u32);
    impl Observer for Stop {
        fn progress(&mut self, _: &str, _: u64, _: u64) {}
        fn log(&mut self, _: &str) {}
        fn stop_requested(&mut self) -> bool {
            self.0 += 1;
            self.0 > 2
        }
    }
    if !has_runtime() {
        return;
    }
    let case = Case::new(unchanged);
    assert!(matches!(convert(&case.request(&lenient()), &mut Stop(0)), Err(Error::Cancelled)));
    assert!(!case.left_something());
}
