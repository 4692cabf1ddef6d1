//! Names and shapes of a BERT encoder's tensors, without the family's prefix (`bert.`), in the order of the computation.
use super::EncoderConfig;

/// A tensor that the architecture needs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TensorSpec {
    /// Name without the family's prefix, such as `encoder.layer.0.attention.self.query.weight`.
    pub name: String,
    /// Linear weights are [out, in].
    pub shape: Vec<usize>,
}

/// Tensors of the encoder (without pooler).
pub fn encoder_tensors(config: &EncoderConfig) -> Vec<TensorSpec> {
    let hidden = config.hidden_size;
    let mut specs = Vec::new();
    let mut add = |name: String, shape: &[usize]| specs.push(TensorSpec { name, shape: shape.to_vec() });
    add("embeddings.word_embeddings.weight".to_owned(), &[config.vocab_size, hidden]);
    add("embeddings.position_embeddings.weight".to_owned(), &[config.max_position_embeddings, hidden]);
    add("embeddings.token_type_embeddings.weight".to_owned(), &[config.type_vocab_size, hidden]);
    add("embeddings.LayerNorm.weight".to_owned(), &[hidden]);
    add("embeddings.LayerNorm.bias".to_owned(), &[hidden]);
    for layer in 0..config.num_hidden_layers {
        let linears = [
            ("attention.self.query", hidden, hidden),
            ("attention.self.key", hidden, hidden),
            ("attention.self.value", hidden, hidden),
            ("attention.output.dense", hidden, hidden),
            ("intermediate.dense", config.intermediate_size, hidden),
            ("output.dense", hidden, config.intermediate_size),
        ];
        for (name, rows, columns) in linears {
            add(format!("encoder.layer.{layer}.{name}.weight"), &[rows, columns]);
            add(format!("encoder.layer.{layer}.{name}.bias"), &[rows]);
        }
        for name in ["attention.output.LayerNorm", "output.LayerNorm"] {
            add(format!("encoder.layer.{layer}.{name}.weight"), &[hidden]);
            add(format!("encoder.layer.{layer}.{name}.bias"), &[hidden]);
        }
    }
    specs
}

/// Tensors of the token-classification head for the labels of `config`.
pub fn head_tensors(config: &EncoderConfig) -> Vec<TensorSpec> {
    let labels = config.labels.len();
    vec![
        TensorSpec { name: "classifier.weight".to_owned(), shape: vec![labels, config.hidden_size] },
        TensorSpec { name: "classifier.bias".to_owned(), shape: vec![labels] },
    ]
}

/// The name in a written file: encoder tensors carry the prefix, the head does not.
pub fn file_name(name: &str) -> String {
    if name.starts_with("classifier.") { name.to_owned() } else { format!("bert.{name}") }
}

/// The name without prefix of a tensor in a file, old LayerNorm names (`gamma`, `beta`) made new.
pub(super) fn canonical_name(file_name: &str) -> String {
    let name = file_name.strip_prefix("bert.").unwrap_or(file_name);
    if let Some(stem) = name.strip_suffix(".gamma") {
        format!("{stem}.weight")
    } else if let Some(stem) = name.strip_suffix(".beta") {
        format!("{stem}.bias")
    } else {
        name.to_owned()
    }
}
