//! MPNet (Song et al. 2020): BERT's layers under other names, positions as in RoBERTa, and a bias by distance that all layers share.
use super::{
    Architecture, Embedded, Head, Input,
    bert::plain_attention,
    config::Base,
    distance::Buckets,
    fields::Visit,
    layout::{Layout, Leaf, Norm},
    ops::{Activation, Attention, Ops, Positions, Relative},
    post_norm::{self, Block, Drops, Names, PlainHead, Pooling},
    roberta::projecting_head,
};
use crate::Error;

const NAMES: Names = Names {
    layer: "encoder.layer.{}.",
    query_key_value: ["attention.attn.q", "attention.attn.k", "attention.attn.v"],
    out: "attention.attn.o",
    attention_norm: "attention.LayerNorm",
    up: "intermediate.dense",
    down: "output.dense",
    norm: "output.LayerNorm",
};

/// The padding token of words and positions, whatever `pad_token_id` says.
const PADDING: usize = 1;
/// Buckets that are computed, whatever `relative_attention_num_buckets` says.
const BUCKETS: usize = 32;

/// What MPNet has in its configuration beside [`Base`].
#[derive(Debug, Clone, PartialEq)]
pub struct MpNet {
    /// Rows of the table of distances.
    pub relative_attention_num_buckets: usize,
}

/// Tensors of MPNet.
pub struct MpNetTensors {
    words: Leaf,
    positions: Leaf,
    norm: Norm,
    distances: Leaf,
    layers: Vec<Block>,
    head: PlainHead,
}

impl Architecture for MpNet {
    type Tensors = MpNetTensors;
    const MODEL_TYPES: &'static [&'static str] = &["mpnet"];
    const PREFIX: &'static str = "mpnet.";

    fn defaults(_model_type: &str) -> (Self, Base) {
        (Self { relative_attention_num_buckets: BUCKETS }, post_norm::defaults(30527, 1))
    }

    fn model_type(&self) -> &'static str {
        "mpnet"
    }

    fn class(&self) -> &'static str {
        "MPNet"
    }

    fn visit(&mut self, base: &mut Base, fields: &mut impl Visit) -> Result<(), Error> {
        post_norm::visit(base, fields)?;
        fields.count("relative_attention_num_buckets", &mut self.relative_attention_num_buckets)
    }

    fn problem(&self, base: &Base) -> Option<(&'static str, String)> {
        let (found, positions) = (self.relative_attention_num_buckets, base.max_position_embeddings);
        if found < BUCKETS {
            let problem = format!("found {found}, but distances have {BUCKETS} buckets");
            return Some(("relative_attention_num_buckets", problem));
        }
        (positions < PADDING + 2).then(|| {
            let problem = format!("found {positions}, but positions begin at 2: 3 or more are needed");
            ("max_position_embeddings", problem)
        })
    }

    fn max_length(&self, base: &Base) -> usize {
        base.max_position_embeddings - PADDING - 1
    }

    fn set_dropout(&mut self, _probability: f64) {}

    fn declare(&self, base: &Base, head: Head, layout: &mut Layout) -> MpNetTensors {
        let hidden = base.hidden_size;
        let rows = self.relative_attention_num_buckets;
        MpNetTensors {
            words: layout.table("embeddings.word_embeddings", base.vocab_size, hidden),
            positions: layout.table("embeddings.position_embeddings", base.max_position_embeddings, hidden),
            norm: layout.norm("embeddings.LayerNorm", hidden, base.layer_norm_eps, true),
            distances: layout.table("encoder.relative_attention_bias", rows, base.num_attention_heads),
            layers: (0..base.num_hidden_layers).map(|index| Block::declare(layout, base, &NAMES, index)).collect(),
            head: projecting_head(base, head, layout),
        }
    }

    fn embed<O: Ops>(&self, base: &Base, tensors: &MpNetTensors, ops: &mut O) -> Result<Embedded<O::Value>, O::Error> {
        let words = ops.words(tensors.words, Some(PADDING))?;
        let positions = ops.positions(tensors.positions, Positions::After(PADDING))?;
        let sum = ops.add(&words, &positions)?;
        let normed = ops.norm(&sum, &tensors.norm)?;
        let hidden = ops.dropout(normed, base.hidden_dropout_prob)?;
        Ok(Embedded { hidden, shared: Some(ops.distance_bias(tensors.distances, Buckets::T5)?) })
    }

    fn layer<O: Ops>(
        &self,
        base: &Base,
        tensors: &MpNetTensors,
        index: usize,
        input: Input<'_, O::Value>,
        ops: &mut O,
    ) -> Result<O::Value, O::Error> {
        let relative = input.shared.map_or(Relative::None, Relative::Bias);
        let attention = Attention { relative, ..plain_attention(base) };
        let drops = Drops { attention: base.hidden_dropout_prob, feed_forward: base.hidden_dropout_prob };
        tensors.layers[index].forward(ops, input.hidden, &attention, base.hidden_act, drops)
    }

    fn head<O: Ops>(
        &self,
        base: &Base,
        tensors: &MpNetTensors,
        hidden: O::Value,
        ops: &mut O,
    ) -> Result<O::Value, O::Error> {
        let dropout = base.hidden_dropout_prob;
        let pooling = Pooling { first_dropout: dropout, activation: Activation::Tanh, last_dropout: dropout };
        tensors.head.forward(ops, hidden, dropout, &pooling)
    }
}
