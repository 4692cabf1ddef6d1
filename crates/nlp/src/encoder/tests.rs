//! Configurations as `transformers` writes them, and the tensors that follow from them.
use std::path::Path;

use serde_json::{Value, json};

use super::{Activation, EncoderConfig};
use crate::{Error, task::Task};
fn parse(value: Value) -> Result<EncoderConfig, Error> {
    let Value::Object(map) = value else { panic!("an object") };
    EncoderConfig::from_map(map, Path::new("config.json"))
}

#[test]
fn defaults_are_those_of_transformers() {
    let config = parse(json!({"model_type": "bert"})).unwrap();
    assert_eq!((config.vocab_size, config.hidden_size, config.num_hidden_layers), (30522, 768, 12));
    assert_eq!((config.intermediate_size, config.head_size(), config.max_length()), (3072, 64, 512));
    assert_eq!(config.hidden_act, Activation::Gelu);
    assert_eq!((config.hidden_dropout_prob, config.layer_norm_eps), (0.1, 1e-12));
    assert!(config.labels.is_empty());
}

#[test]
fn unknown_keys_are_kept_and_the_head_is_replaced() {
    let source = json!({"model_type": "bert", "gradient_checkpointing": false, "num_labels": 7, "hidden_act": "gelu_python",
        "id2label": {"1": "B", "0": "A"}, "label2id": {"A": 0, "B": 1}, "classifier_dropout": null});
    let mut config = parse(source).unwrap();
    assert_eq!(config.labels, ["A", "B"]);
    config.labels = vec!["O".into(), "B-x".into(), "I-x".into()];
    config.task = Some(Task::TokenClassification);
    let json = config.to_json();
    assert_eq!(json["gradient_checkpointing"], json!(false));
    assert_eq!(json["hidden_act"], json!("gelu_python"));
    assert_eq!(json["architectures"], json!(["BertForTokenClassification"]));
    assert_eq!(json["id2label"], json!({"0": "O", "1": "B-x", "2": "I-x"}));
    assert_eq!(json["label2id"], json!({"O": 0, "B-x": 1, "I-x": 2}));
    assert!(json.get("num_labels").is_none());
    let again = parse(json).unwrap();
    assert_eq!(again.labels, config.labels);
}

#[test]
fn errors_name_the_field() {
    let cases = [
        (json!({"model_type": "gpt2"}), "model_type"),
        (json!({}), "model_type"),
        (json!({"model_type": "bert", "hidden_size": "384"}), "hidden_size"),
        (json!({"model_type": "bert", "hidden_size": 0}), "hidden_size"),
        (json!({"model_type": "bert", "num_attention_heads": 7}), "num_attention_heads"),
        (json!({"model_type": "bert", "hidden_act": "xielu"}), "hidden_act"),
        (json!({"model_type": "bert", "hidden_dropout_prob": 1.0}), "hidden_dropout_prob"),
        (json!({"model_type": "bert", "layer_norm_eps": 0}), "layer_norm_eps"),
        (json!({"model_type": "bert", "id2label": {"0": "A", "2": "B"}}), "id2label"),
        (json!({"model_type": "bert", "position_embedding_type": "rotary"}), "position_embedding_type"),
        (json!({"model_type": "bert", "position_embedding_type": null}), "position_embedding_type"),
        (json!({"model_type": "bert", "pad_token_id": 30522}), "pad_token_id"),
        (json!({"model_type": "roberta", "pad_token_id": null}), "pad_token_id"),
        (json!({"model_type": "modernbert", "rope_scaling": {"rope_type": "yarn", "factor": 2.0}}), "rope_scaling"),
        (
            json!({"model_type": "deberta-v2", "relative_attention": true, "position_buckets": 8,
                "max_relative_positions": 5}),
            "max_relative_positions",
        ),
    ];
    for (source, expected) in cases {
        match parse(source.clone()) {
            Err(Error::Config { field, .. }) => assert_eq!(field, expected, "{source}"),
            other => panic!("{source}: {other:?}"),
        }
    }
}

fn full(value: &Value) -> EncoderConfig {
    parse(value.clone()).unwrap_or_else(|error| panic!("{value}: {error}"))
}

#[test]
fn every_family_reads_back_what_it_writes() {
    for model_type in super::Family::model_types() {
        let mut config = full(&json!({"model_type": model_type}));
        assert_eq!(config.family.model_type(), model_type);
        config.labels = vec!["no".into(), "yes".into()];
        for task in [Task::TokenClassification, Task::SequenceClassification, Task::MultiLabelClassification] {
            config.task = Some(task);
            let again = full(&config.to_json());
            assert_eq!((&again.base, &again.family, again.task), (&config.base, &config.family, config.task));
            assert_eq!(again.labels, config.labels);
            assert_eq!(again.layout(), config.layout());
        }
    }
}

#[test]
fn tensors_lie_once_in_a_layout_with_the_word_table_first() {
    for model_type in super::Family::model_types() {
        for task in [None, Some(Task::TokenClassification), Some(Task::Regression)] {
            let mut config = full(&json!({"model_type": model_type}));
            (config.task, config.labels) = (task, vec!["LABEL_0".into()]);
            let layout = config.layout();
            assert_eq!(layout.leaves[0].shape[0], config.vocab_size);
            let mut names: Vec<&str> = layout.tensors().map(|spec| spec.file_name.as_str()).collect();
            let count = names.len();
            names.sort_unstable();
            names.dedup();
            assert_eq!(names.len(), count);
            assert_eq!(layout.leaves.iter().any(|leaf| leaf.head), task.is_some());
            let depths: Vec<usize> = layout.leaves.iter().map(|leaf| leaf.depth).collect();
            // ModernBERT has a norm after its layers.
            let beyond = usize::from(task.is_some() || model_type == "modernbert");
            assert_eq!(depths.iter().max(), Some(&(config.num_hidden_layers + beyond)));
            for leaf in &layout.leaves {
                let name = leaf.parts[0].name.to_lowercase();
                assert_eq!(leaf.decays, !name.contains("norm") && !name.contains("bias"), "{name}");
            }
        }
    }
}

#[test]
fn a_head_is_known_by_its_class_and_labels_without_names_are_numbered() {
    let of = |class: &str, more: Value| {
        let mut map = json!({"model_type": "roberta", "architectures": [class]});
        for (key, value) in more.as_object().unwrap() {
            map[key] = value.clone();
        }
        full(&map)
    };
    let config = of("RobertaForTokenClassification", json!({}));
    assert_eq!((config.task, config.labels.join(" ")), (Some(Task::TokenClassification), "LABEL_0 LABEL_1".into()));
    assert_eq!(of("RobertaForMaskedLM", json!({})).task, None);
    let sequence = "RobertaForSequenceClassification";
    assert_eq!(of(sequence, json!({"id2label": {"0": "x"}})).task, Some(Task::Regression));
    assert_eq!(of(sequence, json!({"num_labels": 1})).task, Some(Task::Regression));
    assert_eq!(of(sequence, json!({"num_labels": 3})).task, Some(Task::SequenceClassification));
    let multi = of(sequence, json!({"problem_type": "multi_label_classification"}));
    assert_eq!(multi.task, Some(Task::MultiLabelClassification));
    assert_eq!(multi.to_json()["problem_type"], "multi_label_classification");
}

#[test]
fn a_null_is_what_transformers_makes_of_it() {
    for model_type in ["bert", "electra", "distilbert", "deberta-v2", "modernbert"] {
        let config = full(&json!({"model_type": model_type, "pad_token_id": null}));
        assert_eq!((config.pad_token_id, config.filler()), (None, 0));
        assert_eq!(config.to_json()["pad_token_id"], Value::Null);
        let narrow = full(&json!({"model_type": model_type, "pad_token_id": null, "vocab_size": 9}));
        assert_eq!(narrow.vocab_size, 9);
    }
    let biased = |value: Value| {
        full(&json!({"model_type": "deberta-v2", "position_biased_input": value})).to_json()["position_biased_input"]
            .clone()
    };
    assert_eq!((biased(json!(null)), biased(json!(true))), (json!(false), json!(true)));
    let plain = json!({"model_type": "modernbert", "rope_scaling": {"type": "default"}});
    assert_eq!(full(&plain).to_json()["rope_scaling"], plain["rope_scaling"]);
}

#[test]
fn distilbert_takes_the_usual_names_too() {
    let source = json!({"model_type": "distilbert", "dim": 768, "hidden_size": 32, "num_attention_heads": 4,
        "n_layers": 6, "num_hidden_layers": 2});
    let config = full(&source);
    assert_eq!((config.hidden_size, config.num_attention_heads, config.num_hidden_layers), (32, 4, 2));
    let json = config.to_json();
    assert_eq!((&json["dim"], &json["n_heads"], &json["n_layers"]), (&json!(32), &json!(4), &json!(2)));
    assert!(["hidden_size", "num_attention_heads", "num_hidden_layers"].iter().all(|key| json.get(*key).is_none()));
}

#[test]
fn deberta_needs_its_pooler_for_texts_alone() {
    let of = |class: &str| {
        parse(
            json!({"model_type": "deberta-v2", "architectures": [class], "hidden_size": 24, "pooler_hidden_size": 768,
            "num_attention_heads": 4, "conv_groups": 5}),
        )
    };
    assert!(of("DebertaV2ForTokenClassification").unwrap().sequence_problem().is_some());
    assert!(
        matches!(of("DebertaV2ForSequenceClassification"), Err(Error::Config { field, .. }) if field == "pooler_hidden_size")
    );
}

#[test]
fn the_longest_input_leaves_room_for_the_first_position() {
    assert_eq!(full(&json!({"model_type": "roberta", "max_position_embeddings": 514})).max_length(), 512);
    assert_eq!(full(&json!({"model_type": "mpnet", "max_position_embeddings": 514})).max_length(), 512);
    assert_eq!(full(&json!({"model_type": "modernbert"})).max_length(), 8192);
}

#[test]
fn modernbert_of_transformers_5_says_its_layers_and_thetas_in_other_fields() {
    let rope = |theta: f64| json!({"rope_type": "default", "rope_theta": theta});
    let config = full(&json!({"model_type": "modernbert", "num_hidden_layers": 2,
        "layer_types": ["sliding_attention", "full_attention"],
        "rope_parameters": {"full_attention": rope(5e4), "sliding_attention": rope(1e3)}}));
    let super::Family::ModernBert(family) = &config.family else { panic!("ModernBERT") };
    assert_eq!((family.global_rope_theta, family.local_rope_theta), (5e4, Some(1e3)));
    assert_eq!(family.layer_types.len(), 2);
    // What is not told keeps the defaults, and a null means the other one.
    let config = full(&json!({"model_type": "modernbert", "local_rope_theta": null}));
    let super::Family::ModernBert(family) = &config.family else { panic!("ModernBERT") };
    assert_eq!(family.local_rope_theta, Some(160_000.0));
}

#[test]
fn fields_of_the_other_families_are_checked() {
    let cases = [
        (json!({"model_type": "distilbert", "n_heads": 7}), "n_heads"),
        (json!({"model_type": "mpnet", "relative_attention_num_buckets": 16}), "relative_attention_num_buckets"),
        (json!({"model_type": "modernbert", "classifier_pooling": "max"}), "classifier_pooling"),
        (json!({"model_type": "modernbert", "rope_scaling": {"rope_type": "yarn"}}), "rope_scaling"),
        (json!({"model_type": "modernbert", "layer_types": ["full_attention"]}), "layer_types"),
        (json!({"model_type": "deberta-v2", "conv_kernel_size": 4}), "conv_kernel_size"),
        (json!({"model_type": "deberta-v2", "pos_att_type": 3}), "pos_att_type"),
        (json!({"model_type": "roberta", "max_position_embeddings": 2}), "max_position_embeddings"),
        (json!({"model_type": "bert", "is_decoder": true}), "is_decoder"),
        (json!({"model_type": "bert", "pruned_heads": {"0": [1]}}), "pruned_heads"),
    ];
    for (source, expected) in cases {
        match parse(source.clone()) {
            Err(Error::Config { field, .. }) => assert_eq!(field, expected, "{source}"),
            other => panic!("{source}: {other:?}"),
        }
    }
}
