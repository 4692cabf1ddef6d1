//! The layer that most families share: attention and feed-forward layer, each followed by the residual sum and LayerNorm (Vaswani et
//! al. 2017), and what their heads have in common.
use super::{
    config::Base,
    fields::Visit,
    layout::{Layout, Linear, Norm},
    ops::{Activation, Attention, Ops},
};
use crate::Error;

/// Names of a layer's parts, behind the layer's own name.
pub(super) struct Names {
    /// Of a layer; `{}` stands for its index.
    pub(super) layer: &'static str,
    pub(super) query_key_value: [&'static str; 3],
    pub(super) out: &'static str,
    pub(super) attention_norm: &'static str,
    pub(super) up: &'static str,
    pub(super) down: &'static str,
    pub(super) norm: &'static str,
}

/// BERT's names, which RoBERTa and ELECTRA keep.
pub(super) const BERT_NAMES: Names = Names {
    layer: "encoder.layer.{}.",
    query_key_value: ["attention.self.query", "attention.self.key", "attention.self.value"],
    out: "attention.output.dense",
    attention_norm: "attention.output.LayerNorm",
    up: "intermediate.dense",
    down: "output.dense",
    norm: "output.LayerNorm",
};

/// A layer's tensors.
pub(super) struct Block {
    pub(super) query_key_value: Linear,
    out: Linear,
    attention_norm: Norm,
    up: Linear,
    down: Linear,
    norm: Norm,
}

/// Dropout after the attention's output and after the feed-forward layer.
#[derive(Clone, Copy)]
pub(super) struct Drops {
    pub(super) attention: f64,
    pub(super) feed_forward: f64,
}

impl Block {
    pub(super) fn declare(layout: &mut Layout, base: &Base, names: &Names, index: usize) -> Self {
        let (hidden, inner, eps) = (base.hidden_size, base.intermediate_size, base.layer_norm_eps);
        let layer = names.layer.replace("{}", &index.to_string());
        let full = |name: &str| format!("{layer}{name}");
        layout.depth(index + 1);
        Self {
            query_key_value: layout.joined(&names.query_key_value.map(full), hidden, hidden, true),
            out: layout.linear(&full(names.out), hidden, hidden),
            attention_norm: layout.norm(&full(names.attention_norm), hidden, eps, true),
            up: layout.linear(&full(names.up), inner, hidden),
            down: layout.linear(&full(names.down), hidden, inner),
            norm: layout.norm(&full(names.norm), hidden, eps, true),
        }
    }

    pub(super) fn forward<O: Ops>(
        &self,
        ops: &mut O,
        hidden: &O::Value,
        attention: &Attention<'_, O::Value>,
        activation: Activation,
        drops: Drops,
    ) -> Result<O::Value, O::Error> {
        let joined = ops.linear(hidden, &self.query_key_value)?;
        let context = ops.attention(&joined, attention)?;
        let attended = ops.linear(&context, &self.out)?;
        let attended = ops.dropout(attended, drops.attention)?;
        let sum = ops.add(&attended, hidden)?;
        let middle = ops.norm(&sum, &self.attention_norm)?;
        let raised = ops.linear(&middle, &self.up)?;
        let raised = ops.activate(raised, activation)?;
        let lowered = ops.linear(&raised, &self.down)?;
        let lowered = ops.dropout(lowered, drops.feed_forward)?;
        let sum = ops.add(&lowered, &middle)?;
        ops.norm(&sum, &self.norm)
    }
}

/// The head of most families.
pub(super) enum PlainHead {
    None,
    /// Dropout, dense.
    Token(Linear),
    /// First place, [dropout,] dense, activation, dropout, dense.
    Sequence(Linear, Linear),
}

/// How a sequence head computes.
pub(super) struct Pooling {
    /// Dropout before the first dense layer.
    pub(super) first_dropout: f64,
    pub(super) activation: Activation,
    /// Dropout before the last dense layer.
    pub(super) last_dropout: f64,
}

impl PlainHead {
    /// Logits of hidden states, or these themselves.
    pub(super) fn forward<O: Ops>(
        &self,
        ops: &mut O,
        hidden: O::Value,
        token_dropout: f64,
        pooling: &Pooling,
    ) -> Result<O::Value, O::Error> {
        match self {
            Self::None => Ok(hidden),
            Self::Token(classifier) => {
                let hidden = ops.dropout(hidden, token_dropout)?;
                ops.linear(&hidden, classifier)
            }
            Self::Sequence(dense, classifier) => {
                let first = ops.first(&hidden)?;
                let first = ops.dropout(first, pooling.first_dropout)?;
                let pooled = ops.linear(&first, dense)?;
                let pooled = ops.activate(pooled, pooling.activation)?;
                let pooled = ops.dropout(pooled, pooling.last_dropout)?;
                ops.linear(&pooled, classifier)
            }
        }
    }
}

/// Defaults that most families share; they set what differs.
pub(super) fn defaults(vocab_size: usize, pad_token_id: usize) -> Base {
    Base {
        vocab_size,
        hidden_size: 768,
        num_hidden_layers: 12,
        num_attention_heads: 12,
        intermediate_size: 3072,
        hidden_act: Activation::Gelu,
        max_position_embeddings: 512,
        hidden_dropout_prob: 0.1,
        attention_probs_dropout_prob: 0.1,
        layer_norm_eps: 1e-12,
        initializer_range: 0.02,
        pad_token_id: Some(pad_token_id),
    }
}

/// The fields of [`Base`] under the names of BERT.
pub(super) fn visit(base: &mut Base, fields: &mut impl Visit) -> Result<(), Error> {
    fields.count("vocab_size", &mut base.vocab_size)?;
    fields.count("hidden_size", &mut base.hidden_size)?;
    fields.count("num_hidden_layers", &mut base.num_hidden_layers)?;
    fields.count("num_attention_heads", &mut base.num_attention_heads)?;
    fields.count("intermediate_size", &mut base.intermediate_size)?;
    fields.activation("hidden_act", &mut base.hidden_act)?;
    fields.count("max_position_embeddings", &mut base.max_position_embeddings)?;
    fields.probability("hidden_dropout_prob", &mut base.hidden_dropout_prob)?;
    fields.probability("attention_probs_dropout_prob", &mut base.attention_probs_dropout_prob)?;
    fields.positive("layer_norm_eps", &mut base.layer_norm_eps)?;
    fields.positive("initializer_range", &mut base.initializer_range)?;
    fields.optional_integer("pad_token_id", &mut base.pad_token_id)
}
