//! `config.json` of the BERT family: typed where the arithmetic needs it, everything else kept for writing back.
use std::{collections::BTreeMap, path::Path};

use serde_json::{Map, Value, json};

use crate::{Error, files};

/// Activation of the feed-forward layer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Activation {
    /// `gelu`: x/2 * (1 + erf(x / sqrt 2)).
    Gelu,
    /// `gelu_new`, `gelu_pytorch_tanh`: the approximation by tanh.
    GeluTanh,
    /// `relu`.
    Relu,
}

/// Configuration of a BERT encoder; defaults are those of `transformers.BertConfig`.
#[derive(Debug, Clone, PartialEq)]
pub struct EncoderConfig {
    /// Rows of the word table.
    pub vocab_size: usize,
    /// Width of the hidden states.
    pub hidden_size: usize,
    /// Layers.
    pub num_hidden_layers: usize,
    /// Heads; divides `hidden_size`.
    pub num_attention_heads: usize,
    /// Width of the feed-forward layer.
    pub intermediate_size: usize,
    /// Activation of the feed-forward layer.
    pub hidden_act: Activation,
    /// Rows of the position table: the longest input in sub-tokens.
    pub max_position_embeddings: usize,
    /// Rows of the token-type table.
    pub type_vocab_size: usize,
    /// Dropout of embeddings and of sublayer outputs.
    pub hidden_dropout_prob: f64,
    /// Dropout of attention probabilities.
    pub attention_probs_dropout_prob: f64,
    /// Dropout before the head; absent means `hidden_dropout_prob`.
    pub classifier_dropout: Option<f64>,
    /// Added to the variance in LayerNorm.
    pub layer_norm_eps: f64,
    /// Standard deviation of new weights.
    pub initializer_range: f64,
    /// Token that fills up rows.
    pub pad_token_id: usize,
    /// Labels by id; empty for an encoder without a head.
    pub labels: Vec<String>,
    raw: Map<String, Value>,
}

impl EncoderConfig {
    /// Reads and checks a `config.json`.
    pub fn read(path: &Path) -> Result<Self, Error> {
        let content = files::read(path)?;
        let value: Value = serde_json::from_slice(&content).map_err(|e| Error::format(path, e.to_string()))?;
        let Value::Object(raw) = value else { return Err(Error::format(path, "not a JSON object")) };
        Self::from_map(raw, path)
    }

    /// Checks a configuration; `path` is named in errors.
    pub fn from_map(raw: Map<String, Value>, path: &Path) -> Result<Self, Error> {
        let fields = Fields { raw: &raw, path };
        fields.model_type()?;
        let config = Self {
            vocab_size: fields.count("vocab_size", 30522)?,
            hidden_size: fields.count("hidden_size", 768)?,
            num_hidden_layers: fields.count("num_hidden_layers", 12)?,
            num_attention_heads: fields.count("num_attention_heads", 12)?,
            intermediate_size: fields.count("intermediate_size", 3072)?,
            hidden_act: fields.activation()?,
            max_position_embeddings: fields.count("max_position_embeddings", 512)?,
            type_vocab_size: fields.count("type_vocab_size", 2)?,
            hidden_dropout_prob: fields.probability("hidden_dropout_prob")?.unwrap_or(0.1),
            attention_probs_dropout_prob: fields.probability("attention_probs_dropout_prob")?.unwrap_or(0.1),
            classifier_dropout: fields.probability("classifier_dropout")?,
            layer_norm_eps: fields.positive("layer_norm_eps", 1e-12)?,
            initializer_range: fields.positive("initializer_range", 0.02)?,
            pad_token_id: fields.integer("pad_token_id")?.unwrap_or(0),
            labels: fields.labels()?,
            raw: Map::new(),
        };
        if !config.hidden_size.is_multiple_of(config.num_attention_heads) {
            let problem = format!("{} does not divide hidden_size {}", config.num_attention_heads, config.hidden_size);
            return Err(fields.error("num_attention_heads", problem));
        }
        if config.pad_token_id >= config.vocab_size {
            let problem = format!("{} is not below vocab_size {}", config.pad_token_id, config.vocab_size);
            return Err(fields.error("pad_token_id", problem));
        }
        Ok(Self { raw, ..config })
    }

    /// Size of one attention head.
    pub fn head_size(&self) -> usize {
        self.hidden_size / self.num_attention_heads
    }

    /// Dropout before the head.
    pub fn head_dropout(&self) -> f64 {
        self.classifier_dropout.unwrap_or(self.hidden_dropout_prob)
    }

    /// The configuration as `transformers` reads it for `architecture`: all keys of the source, those of the head replaced.
    pub fn to_json(&self, architecture: &str) -> Value {
        let mut map = self.raw.clone();
        // Derived by transformers from id2label, or about another head.
        for stale in ["num_labels", "problem_type", "finetuning_task", "id2label", "label2id", "_name_or_path"] {
            map.shift_remove(stale);
        }
        let mut set = |key: &str, value: Value| map.insert(key.to_owned(), value);
        set("architectures", json!([architecture]));
        set("model_type", json!("bert"));
        set("vocab_size", json!(self.vocab_size));
        set("hidden_size", json!(self.hidden_size));
        set("num_hidden_layers", json!(self.num_hidden_layers));
        set("num_attention_heads", json!(self.num_attention_heads));
        set("intermediate_size", json!(self.intermediate_size));
        if !self.raw.contains_key("hidden_act") {
            set("hidden_act", json!(self.hidden_act.name()));
        }
        set("max_position_embeddings", json!(self.max_position_embeddings));
        set("type_vocab_size", json!(self.type_vocab_size));
        set("hidden_dropout_prob", json!(self.hidden_dropout_prob));
        set("attention_probs_dropout_prob", json!(self.attention_probs_dropout_prob));
        set("classifier_dropout", json!(self.classifier_dropout));
        set("layer_norm_eps", json!(self.layer_norm_eps));
        set("initializer_range", json!(self.initializer_range));
        set("pad_token_id", json!(self.pad_token_id));
        set("torch_dtype", json!("float32"));
        if self.raw.contains_key("dtype") {
            set("dtype", json!("float32"));
        }
        if !self.labels.is_empty() {
            let names = self.labels.iter().enumerate().map(|(id, name)| (id.to_string(), json!(name)));
            set("id2label", Value::Object(names.collect()));
            let ids = self.labels.iter().enumerate().map(|(id, name)| (name.clone(), json!(id)));
            set("label2id", Value::Object(ids.collect()));
        }
        Value::Object(map)
    }
}

impl Activation {
    /// The name in `config.json`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Gelu => "gelu",
            Self::GeluTanh => "gelu_new",
            Self::Relu => "relu",
        }
    }
}

/// Typed access to the keys; a null counts as absent, as in `transformers`.
struct Fields<'a> {
    raw: &'a Map<String, Value>,
    path: &'a Path,
}

impl Fields<'_> {
    fn error(&self, field: &str, problem: impl Into<String>) -> Error {
        Error::Config { path: self.path.to_owned(), field: field.to_owned(), problem: problem.into() }
    }

    fn get(&self, key: &str) -> Option<&Value> {
        self.raw.get(key).filter(|value| !value.is_null())
    }

    fn model_type(&self) -> Result<(), Error> {
        match self.get("model_type").and_then(Value::as_str) {
            Some("bert") => {}
            Some(other) => return Err(self.error("model_type", format!("found `{other}`, supported is `bert`"))),
            None => return Err(self.error("model_type", "missing or no string, supported is `bert`")),
        }
        match self.get("position_embedding_type") {
            None => Ok(()),
            Some(value) if value == "absolute" => Ok(()),
            Some(value) => {
                Err(self.error("position_embedding_type", format!("found {value}, supported is \"absolute\"")))
            }
        }
    }

    fn integer(&self, key: &str) -> Result<Option<usize>, Error> {
        let Some(value) = self.get(key) else { return Ok(None) };
        let number = value.as_u64().and_then(|n| usize::try_from(n).ok()).filter(|n| *n <= 1 << 31);
        number.map(Some).ok_or_else(|| self.error(key, format!("found {value}, expected an integer of 0 or more")))
    }

    fn count(&self, key: &str, default: usize) -> Result<usize, Error> {
        match self.integer(key)?.unwrap_or(default) {
            0 => Err(self.error(key, "found 0, expected 1 or more")),
            count => Ok(count),
        }
    }

    fn number(&self, key: &str) -> Result<Option<f64>, Error> {
        let Some(value) = self.get(key) else { return Ok(None) };
        value.as_f64().map(Some).ok_or_else(|| self.error(key, format!("found {value}, expected a number")))
    }

    fn probability(&self, key: &str) -> Result<Option<f64>, Error> {
        let number = self.number(key)?;
        match number {
            Some(p) if !(0.0..1.0).contains(&p) => {
                Err(self.error(key, format!("found {p}, expected a number from 0 to below 1")))
            }
            _ => Ok(number),
        }
    }

    fn positive(&self, key: &str, default: f64) -> Result<f64, Error> {
        let number = self.number(key)?.unwrap_or(default);
        if number > 0.0 {
            Ok(number)
        } else {
            Err(self.error(key, format!("found {number}, expected a number above 0")))
        }
    }

    fn activation(&self) -> Result<Activation, Error> {
        let Some(value) = self.get("hidden_act") else { return Ok(Activation::Gelu) };
        match value.as_str() {
            Some("gelu" | "gelu_python") => Ok(Activation::Gelu),
            Some("gelu_new" | "gelu_pytorch_tanh") => Ok(Activation::GeluTanh),
            Some("relu") => Ok(Activation::Relu),
            _ => Err(self.error(
                "hidden_act",
                format!("found {value}, supported are gelu, gelu_new, gelu_pytorch_tanh and relu"),
            )),
        }
    }

    fn labels(&self) -> Result<Vec<String>, Error> {
        let Some(value) = self.get("id2label") else { return Ok(Vec::new()) };
        let wrong =
            || self.error("id2label", format!("found {value}, expected an object of \"0\", \"1\", ... to names"));
        let mut labels = BTreeMap::new();
        for (key, name) in value.as_object().ok_or_else(wrong)? {
            let id: usize = key.parse().map_err(|_| wrong())?;
            labels.insert(id, name.as_str().ok_or_else(wrong)?.to_owned());
        }
        if labels.keys().copied().ne(0..labels.len()) {
            return Err(wrong());
        }
        Ok(labels.into_values().collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(value: Value) -> Result<EncoderConfig, Error> {
        let Value::Object(map) = value else { panic!("an object") };
        EncoderConfig::from_map(map, Path::new("config.json"))
    }

    #[test]
    fn defaults_are_those_of_transformers() {
        let config = parse(json!({"model_type": "bert"})).unwrap();
        assert_eq!((config.vocab_size, config.hidden_size, config.num_hidden_layers), (30522, 768, 12));
        assert_eq!((config.intermediate_size, config.head_size(), config.type_vocab_size), (3072, 64, 2));
        assert_eq!(config.hidden_act, Activation::Gelu);
        assert_eq!((config.hidden_dropout_prob, config.head_dropout(), config.layer_norm_eps), (0.1, 0.1, 1e-12));
        assert!(config.labels.is_empty());
    }

    #[test]
    fn unknown_keys_are_kept_and_the_head_is_replaced() {
        let source = json!({"model_type": "bert", "gradient_checkpointing": false, "num_labels": 7, "hidden_act": "gelu_python",
            "id2label": {"1": "B", "0": "A"}, "label2id": {"A": 0, "B": 1}, "classifier_dropout": null});
        let mut config = parse(source).unwrap();
        assert_eq!(config.labels, ["A", "B"]);
        config.labels = vec!["O".into(), "B-x".into(), "I-x".into()];
        let json = config.to_json("BertForTokenClassification");
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
            (json!({"model_type": "bert", "hidden_act": "silu"}), "hidden_act"),
            (json!({"model_type": "bert", "hidden_dropout_prob": 1.0}), "hidden_dropout_prob"),
            (json!({"model_type": "bert", "layer_norm_eps": 0}), "layer_norm_eps"),
            (json!({"model_type": "bert", "id2label": {"0": "A", "2": "B"}}), "id2label"),
            (json!({"model_type": "bert", "position_embedding_type": "relative_key"}), "position_embedding_type"),
            (json!({"model_type": "bert", "pad_token_id": 30522}), "pad_token_id"),
        ];
        for (source, expected) in cases {
            match parse(source.clone()) {
                Err(Error::Config { field, .. }) => assert_eq!(field, expected, "{source}"),
                other => panic!("{source}: {other:?}"),
            }
        }
    }
}
