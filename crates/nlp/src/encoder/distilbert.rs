//! DistilBERT: BERT's layers under other names, without token types, pooler and dropout after the attention's output.
use super::{
    Architecture, Embedded, Head, Input,
    bert::plain_attention,
    config::Base,
    fields::Visit,
    layout::{Layout, Leaf, Norm},
    ops::{Activation, Ops, Positions},
    post_norm::{self, Block, Drops, Names, PlainHead, Pooling},
};
use crate::Error;

const NAMES: Names = Names {
    layer: "transformer.layer.{}.",
    query_key_value: ["attention.q_lin", "attention.k_lin", "attention.v_lin"],
    out: "attention.out_lin",
    attention_norm: "sa_layer_norm",
    up: "ffn.lin1",
    down: "ffn.lin2",
    norm: "output_layer_norm",
};

/// What DistilBERT has in its configuration beside [`Base`].
#[derive(Debug, Clone, PartialEq)]
pub struct DistilBert {
    /// Dropout before the last layer of the sequence head.
    pub seq_classif_dropout: f64,
    /// Whether positions are sines and cosines that are not trained.
    pub sinusoidal_pos_embds: bool,
}

/// Tensors of DistilBERT.
pub struct DistilBertTensors {
    words: Leaf,
    positions: Leaf,
    norm: Norm,
    layers: Vec<Block>,
    head: PlainHead,
}

impl Architecture for DistilBert {
    type Tensors = DistilBertTensors;
    const MODEL_TYPES: &'static [&'static str] = &["distilbert"];
    const PREFIX: &'static str = "distilbert.";

    fn defaults(_model_type: &str) -> (Self, Base) {
        // The LayerNorm's epsilon is no field: it is always 1e-12.
        let base = Base { num_hidden_layers: 6, ..post_norm::defaults(30522, 0) };
        (Self { seq_classif_dropout: 0.2, sinusoidal_pos_embds: false }, base)
    }

    fn model_type(&self) -> &'static str {
        "distilbert"
    }

    fn class(&self) -> &'static str {
        "DistilBert"
    }

    fn visit(&mut self, base: &mut Base, fields: &mut impl Visit) -> Result<(), Error> {
        fields.count("vocab_size", &mut base.vocab_size)?;
        fields.count("max_position_embeddings", &mut base.max_position_embeddings)?;
        fields.flag("sinusoidal_pos_embds", &mut self.sinusoidal_pos_embds)?;
        fields.renamed_count("n_layers", "num_hidden_layers", &mut base.num_hidden_layers)?;
        fields.renamed_count("n_heads", "num_attention_heads", &mut base.num_attention_heads)?;
        fields.renamed_count("dim", "hidden_size", &mut base.hidden_size)?;
        fields.count("hidden_dim", &mut base.intermediate_size)?;
        fields.probability("dropout", &mut base.hidden_dropout_prob)?;
        fields.probability("attention_dropout", &mut base.attention_probs_dropout_prob)?;
        fields.activation("activation", &mut base.hidden_act)?;
        fields.positive("initializer_range", &mut base.initializer_range)?;
        fields.probability("seq_classif_dropout", &mut self.seq_classif_dropout)?;
        fields.optional_integer("pad_token_id", &mut base.pad_token_id)
    }

    fn problem(&self, _base: &Base) -> Option<(&'static str, String)> {
        None
    }

    fn key(field: &'static str) -> &'static str {
        match field {
            "num_attention_heads" => "n_heads",
            other => other,
        }
    }

    fn set_dropout(&mut self, probability: f64) {
        self.seq_classif_dropout = probability;
    }

    fn declare(&self, base: &Base, head: Head, layout: &mut Layout) -> DistilBertTensors {
        let (hidden, count) = (base.hidden_size, base.num_hidden_layers);
        let words = layout.table("embeddings.word_embeddings", base.vocab_size, hidden);
        let (name, rows) = ("embeddings.position_embeddings", base.max_position_embeddings);
        let positions = match self.sinusoidal_pos_embds {
            true => layout.frozen_table(name, rows, hidden),
            false => layout.table(name, rows, hidden),
        };
        let norm = layout.norm("embeddings.LayerNorm", hidden, base.layer_norm_eps, true);
        let layers = (0..count).map(|index| Block::declare(layout, base, &NAMES, index)).collect();
        layout.head(count);
        let head = match head {
            Head::None => PlainHead::None,
            Head::Token { labels } => PlainHead::Token(layout.classifier("classifier", labels, hidden)),
            Head::Sequence { labels } => {
                let dense = layout.linear("pre_classifier", hidden, hidden);
                PlainHead::Sequence(dense, layout.classifier("classifier", labels, hidden))
            }
        };
        DistilBertTensors { words, positions, norm, layers, head }
    }

    fn embed<O: Ops>(
        &self,
        base: &Base,
        tensors: &DistilBertTensors,
        ops: &mut O,
    ) -> Result<Embedded<O::Value>, O::Error> {
        let words = ops.words(tensors.words, base.pad_token_id)?;
        let positions = ops.positions(tensors.positions, Positions::Sequential)?;
        let sum = ops.add(&words, &positions)?;
        let normed = ops.norm(&sum, &tensors.norm)?;
        Ok(Embedded { hidden: ops.dropout(normed, base.hidden_dropout_prob)?, shared: None })
    }

    fn layer<O: Ops>(
        &self,
        base: &Base,
        tensors: &DistilBertTensors,
        index: usize,
        input: Input<'_, O::Value>,
        ops: &mut O,
    ) -> Result<O::Value, O::Error> {
        let drops = Drops { attention: 0.0, feed_forward: base.hidden_dropout_prob };
        tensors.layers[index].forward(ops, input.hidden, &plain_attention(base), base.hidden_act, drops)
    }

    fn head<O: Ops>(
        &self,
        base: &Base,
        tensors: &DistilBertTensors,
        hidden: O::Value,
        ops: &mut O,
    ) -> Result<O::Value, O::Error> {
        let pooling =
            Pooling { first_dropout: 0.0, activation: Activation::Relu, last_dropout: self.seq_classif_dropout };
        tensors.head.forward(ops, hidden, base.hidden_dropout_prob, &pooling)
    }
}
