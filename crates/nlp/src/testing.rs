//! Tiny random checkpoints for tests: the files are real, only small.
use std::path::Path;

use serde_json::{Map, Value, json};

use crate::{
    Error,
    checkpoint::{NamedTensor, write_checkpoint},
    encoder::EncoderConfig,
    files,
    random::Stream,
    task::Task,
    tokenizer::WordTokenizer,
};

/// A WordPiece `tokenizer.json` over lower-case letters, digits, punctuation and the words given. Like that of
/// all-MiniLM-L6-v2 it has padding and truncation to 128 baked in, which a reader must switch off.
pub fn tokenizer_json(words: &[&str]) -> Value {
    let specials = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"];
    let letters: Vec<String> = ('a'..='z').chain('0'..='9').flat_map(|c| [c.to_string(), format!("##{c}")]).collect();
    let marks: Vec<String> = ('!'..='~').filter(char::is_ascii_punctuation).map(String::from).collect();
    let mut vocabulary = Map::new();
    let all =
        specials.iter().copied().chain(letters.iter().chain(&marks).map(String::as_str)).chain(words.iter().copied());
    for token in all {
        let id = vocabulary.len();
        vocabulary.entry(token).or_insert(json!(id));
    }
    let added: Vec<Value> = specials
        .iter()
        .enumerate()
        .map(|(id, content)| {
            json!({"id": id, "content": content, "single_word": false, "lstrip": false, "rstrip": false,
                "normalized": false, "special": true})
        })
        .collect();
    let special = |name: &str, kind: u32| json!({"SpecialToken": {"id": name, "type_id": kind}});
    let sequence = |name: &str, kind: u32| json!({"Sequence": {"id": name, "type_id": kind}});
    json!({
        "version": "1.0",
        "truncation": {"direction": "Right", "max_length": 128, "strategy": "LongestFirst", "stride": 0},
        "padding": {"strategy": {"Fixed": 128}, "direction": "Right", "pad_to_multiple_of": null, "pad_id": 0,
            "pad_type_id": 0, "pad_token": "[PAD]"},
        "added_tokens": added,
        "normalizer": {"type": "BertNormalizer", "clean_text": true, "handle_chinese_chars": true,
            "strip_accents": null, "lowercase": true},
        "pre_tokenizer": {"type": "BertPreTokenizer"},
        "post_processor": {"type": "TemplateProcessing",
            "single": [special("[CLS]", 0), sequence("A", 0), special("[SEP]", 0)],
            "pair": [special("[CLS]", 0), sequence("A", 0), special("[SEP]", 0), sequence("B", 1), special("[SEP]", 1)],
            "special_tokens": {
                "[CLS]": {"id": "[CLS]", "ids": [2], "tokens": ["[CLS]"]},
                "[SEP]": {"id": "[SEP]", "ids": [3], "tokens": ["[SEP]"]}}},
        "decoder": {"type": "WordPiece", "prefix": "##", "cleanup": true},
        "model": {"type": "WordPiece", "unk_token": "[UNK]", "continuing_subword_prefix": "##",
            "max_input_chars_per_word": 100, "vocab": vocabulary}
    })
}

/// A byte-level `tokenizer.json` as RoBERTa's is published, without the blank before the first word: the sub-tokens are `a`, `b`, `ab` and
/// those behind a blank.
pub fn byte_level_tokenizer_json() -> Value {
    json!({
        "version": "1.0", "truncation": null, "padding": null, "added_tokens": [], "normalizer": null,
        "pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": true},
        "post_processor": {"type": "RobertaProcessing", "sep": ["</s>", 1], "cls": ["<s>", 0], "trim_offsets": true,
            "add_prefix_space": false},
        "decoder": {"type": "ByteLevel", "add_prefix_space": true, "trim_offsets": true, "use_regex": true},
        "model": {"type": "BPE", "vocab": {"<s>": 0, "</s>": 1, "Ġ": 2, "a": 3, "b": 4, "ab": 5, "Ġab": 6},
            "merges": ["a b", "Ġ ab"]}
    })
}

/// Writes a `tokenizer.json` into `dir` and loads it.
///
/// # Panics
/// When the folder cannot be written: this is for tests.
pub fn tokenizer(dir: &Path, words: &[&str]) -> WordTokenizer {
    let path = dir.join("tokenizer.json");
    let written = files::write_file(&path, tokenizer_json(words).to_string().as_bytes());
    match written.and_then(|()| WordTokenizer::load(&path)) {
        Ok(tokenizer) => tokenizer,
        Err(error) => panic!("a tokenizer for tests: {error}"),
    }
}

/// What a tiny checkpoint looks like.
#[derive(Debug, Clone)]
pub struct TinyCheckpoint {
    /// `model_type` of its family.
    pub model_type: &'static str,
    /// Words of the vocabulary beside letters, digits and punctuation.
    pub words: Vec<String>,
    /// Width; 4 heads.
    pub hidden_size: usize,
    /// Layers.
    pub layers: usize,
    /// Labels of a token-classification head; none means a bare encoder.
    pub labels: Vec<String>,
    /// Whether the head has a CRF.
    pub crf: bool,
    /// Standard deviation of the weights.
    pub deviation: f64,
    /// Of weights.
    pub seed: u64,
}

impl Default for TinyCheckpoint {
    fn default() -> Self {
        let (words, labels) = (Vec::new(), Vec::new());
        Self { model_type: "bert", words, hidden_size: 32, layers: 2, labels, crf: false, deviation: 0.1, seed: 1 }
    }
}

impl TinyCheckpoint {
    /// Writes the checkpoint folder; `dir` must not exist or be empty.
    pub fn write(&self, dir: &Path) -> Result<(), Error> {
        let source = tempfile::tempdir().map_err(|e| Error::io(dir, e))?;
        let words: Vec<&str> = self.words.iter().map(String::as_str).collect();
        let tokenizer = tokenizer_json(&words);
        files::write_file(&source.path().join("tokenizer.json"), tokenizer.to_string().as_bytes())?;
        let settings = json!({"tokenizer_class": "BertTokenizerFast", "do_lower_case": true, "pad_token": "[PAD]",
            "unk_token": "[UNK]", "cls_token": "[CLS]", "sep_token": "[SEP]", "mask_token": "[MASK]"});
        files::write_file(&source.path().join("tokenizer_config.json"), settings.to_string().as_bytes())?;

        let vocabulary = tokenizer["model"]["vocab"].as_object().map_or(0, Map::len);
        let inner = 2 * self.hidden_size;
        // The names of most families and those of DistilBERT; each takes its own. The token for padding is the tokenizer's.
        let Value::Object(map) = json!({"model_type": self.model_type, "vocab_size": vocabulary, "pad_token_id": 0,
            "hidden_size": self.hidden_size, "dim": self.hidden_size, "num_hidden_layers": self.layers,
            "n_layers": self.layers, "num_attention_heads": 4, "n_heads": 4, "intermediate_size": inner,
            "hidden_dim": inner, "max_position_embeddings": 160})
        else {
            return Err(Error::format(dir, "not an object"));
        };
        let mut config = EncoderConfig::from_map(map, &dir.join("config.json"))?;
        config.labels = self.labels.clone();
        config.crf = self.crf;
        config.task = (!self.labels.is_empty()).then_some(Task::TokenClassification);
        let layout = config.layout();
        let specs: Vec<_> = layout.tensors().collect();
        let mut stream = Stream::new(self.seed, "tiny checkpoint", 0);
        let values: Vec<Vec<f32>> = specs
            .iter()
            .map(|spec| {
                let norm = spec.shape.len() == 1 && spec.name.ends_with(".weight");
                let centre = if norm { 1.0 } else { 0.0 };
                let count = spec.shape.iter().product();
                (0..count).map(|_| (centre + self.deviation * stream.normal()) as f32).collect()
            })
            .collect();
        let tensors: Vec<NamedTensor<'_>> = specs
            .into_iter()
            .zip(&values)
            .map(|(spec, values)| (spec.file_name.clone(), spec.shape.clone(), values.as_slice()))
            .collect();
        write_checkpoint(dir, &config, &tensors, source.path())
    }
}
