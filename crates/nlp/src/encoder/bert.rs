//! BERT, and what RoBERTa and ELECTRA take over from it: the three position variants and the stack of layers.
use super::{
    Architecture, Embedded, Head, Input,
    config::Base,
    distance::Buckets,
    fields::Visit,
    layout::{Layout, Leaf, Norm},
    ops::{Activation, Attention, Mask, Ops, Positions, Relative},
    post_norm::{self, BERT_NAMES, Block, Drops, PlainHead, Pooling},
};
use crate::Error;

/// What positions are to the attention.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum PositionEmbedding {
    /// A table whose rows are added to the words.
    #[default]
    Absolute,
    /// Distances add to the scores of queries.
    RelativeKey,
    /// Distances add to the scores of queries and of keys.
    RelativeKeyQuery,
}

/// What BERT, RoBERTa and ELECTRA have in their configurations beside [`Base`].
#[derive(Debug, Clone, PartialEq)]
pub struct Bert {
    /// Rows of the token-type table.
    pub type_vocab_size: usize,
    /// Kind of positions.
    pub position_embedding_type: PositionEmbedding,
    /// Dropout before the head; absent means `hidden_dropout_prob`.
    pub classifier_dropout: Option<f64>,
}

impl Default for Bert {
    fn default() -> Self {
        Self { type_vocab_size: 2, position_embedding_type: PositionEmbedding::Absolute, classifier_dropout: None }
    }
}

/// Tensors of BERT.
pub struct BertTensors {
    embeddings: Embeddings,
    layers: Vec<Layer>,
    head: PlainHead,
}

pub(super) struct Embeddings {
    words: Leaf,
    positions: Option<Leaf>,
    types: Leaf,
    norm: Norm,
}

pub(super) struct Layer {
    block: Block,
    distances: Option<Leaf>,
}

impl Bert {
    /// Dropout before the head.
    pub(super) fn head_dropout(&self, base: &Base) -> f64 {
        self.classifier_dropout.unwrap_or(base.hidden_dropout_prob)
    }

    pub(super) fn visit_fields(&mut self, base: &mut Base, fields: &mut impl Visit) -> Result<(), Error> {
        post_norm::visit(base, fields)?;
        fields.count("type_vocab_size", &mut self.type_vocab_size)?;
        let kinds = [
            ("absolute", PositionEmbedding::Absolute),
            ("relative_key", PositionEmbedding::RelativeKey),
            ("relative_key_query", PositionEmbedding::RelativeKeyQuery),
        ];
        fields.choice("position_embedding_type", &mut self.position_embedding_type, &kinds)?;
        fields.optional_probability("classifier_dropout", &mut self.classifier_dropout)
    }

    pub(super) fn declare_embeddings(&self, base: &Base, width: usize, layout: &mut Layout) -> Embeddings {
        let words = layout.table("embeddings.word_embeddings", base.vocab_size, width);
        let (name, rows) = ("embeddings.position_embeddings", base.max_position_embeddings);
        let positions = if self.position_embedding_type == PositionEmbedding::Absolute {
            Some(layout.table(name, rows, width))
        } else {
            // The module is made all the same.
            layout.unused(&format!("{name}.weight"), &[rows, width]);
            None
        };
        Embeddings {
            words,
            positions,
            types: layout.table("embeddings.token_type_embeddings", self.type_vocab_size, width),
            norm: layout.norm("embeddings.LayerNorm", width, base.layer_norm_eps, true),
        }
    }

    pub(super) fn declare_layers(&self, base: &Base, layout: &mut Layout) -> Vec<Layer> {
        let layer = |index| {
            let block = Block::declare(layout, base, &BERT_NAMES, index);
            let distances = (self.position_embedding_type != PositionEmbedding::Absolute).then(|| {
                let name = format!("encoder.layer.{index}.attention.self.distance_embedding");
                layout.table(&name, 2 * base.max_position_embeddings - 1, base.head_size())
            });
            Layer { block, distances }
        };
        (0..base.num_hidden_layers).map(layer).collect()
    }

    /// Word + token type + position, LayerNorm, dropout.
    pub(super) fn embeddings<O: Ops>(
        &self,
        base: &Base,
        embeddings: &Embeddings,
        positions: Positions,
        ops: &mut O,
    ) -> Result<O::Value, O::Error> {
        let words = ops.words(embeddings.words, base.pad_token_id)?;
        let mut places = ops.types(embeddings.types)?;
        if let Some(table) = embeddings.positions {
            let positions = ops.positions(table, positions)?;
            places = ops.add(&positions, &places)?;
        }
        let sum = ops.add(&words, &places)?;
        let normed = ops.norm(&sum, &embeddings.norm)?;
        ops.dropout(normed, base.hidden_dropout_prob)
    }

    /// A layer of BERT, and of RoBERTa and ELECTRA.
    pub(super) fn block<O: Ops>(
        &self,
        base: &Base,
        layer: &Layer,
        hidden: &O::Value,
        ops: &mut O,
    ) -> Result<O::Value, O::Error> {
        let drops = Drops { attention: base.hidden_dropout_prob, feed_forward: base.hidden_dropout_prob };
        let relative = layer.distances.map_or(Relative::None, |table| Relative::Rows {
            table,
            buckets: Buckets::Plain { middle: base.max_position_embeddings - 1 },
            keys: self.position_embedding_type == PositionEmbedding::RelativeKeyQuery,
        });
        let attention = Attention { relative, ..plain_attention(base) };
        layer.block.forward(ops, hidden, &attention, base.hidden_act, drops)
    }
}

/// Scaled dot products over all tokens.
pub(super) fn plain_attention<'a, V>(base: &Base) -> Attention<'a, V> {
    Attention {
        heads: base.num_attention_heads,
        head_size: base.head_size(),
        scale: 1.0 / (base.head_size() as f64).sqrt(),
        dropout: base.attention_probs_dropout_prob,
        mask: Mask::Keys,
        relative: Relative::None,
        rotary: None,
    }
}

impl Architecture for Bert {
    type Tensors = BertTensors;
    const MODEL_TYPES: &'static [&'static str] = &["bert"];
    const PREFIX: &'static str = "bert.";

    fn defaults(_model_type: &str) -> (Self, Base) {
        (Self::default(), post_norm::defaults(30522, 0))
    }

    fn model_type(&self) -> &'static str {
        "bert"
    }

    fn class(&self) -> &'static str {
        "Bert"
    }

    fn visit(&mut self, base: &mut Base, fields: &mut impl Visit) -> Result<(), Error> {
        self.visit_fields(base, fields)
    }

    fn problem(&self, _base: &Base) -> Option<(&'static str, String)> {
        None
    }

    fn set_dropout(&mut self, probability: f64) {
        self.classifier_dropout = self.classifier_dropout.map(|_| probability);
    }

    fn declare(&self, base: &Base, head: Head, layout: &mut Layout) -> BertTensors {
        let embeddings = self.declare_embeddings(base, base.hidden_size, layout);
        let layers = self.declare_layers(base, layout);
        let (hidden, count) = (base.hidden_size, base.num_hidden_layers);
        let head = match head {
            Head::None => PlainHead::None,
            Head::Token { labels } => {
                layout.head(count);
                PlainHead::Token(layout.classifier("classifier", labels, hidden))
            }
            Head::Sequence { labels } => {
                layout.pooler(count);
                let pooler = layout.linear("pooler.dense", hidden, hidden);
                layout.head(count);
                PlainHead::Sequence(pooler, layout.classifier("classifier", labels, hidden))
            }
        };
        BertTensors { embeddings, layers, head }
    }

    fn embed<O: Ops>(&self, base: &Base, tensors: &BertTensors, ops: &mut O) -> Result<Embedded<O::Value>, O::Error> {
        let hidden = self.embeddings(base, &tensors.embeddings, Positions::Sequential, ops)?;
        Ok(Embedded { hidden, shared: None })
    }

    fn layer<O: Ops>(
        &self,
        base: &Base,
        tensors: &BertTensors,
        index: usize,
        input: Input<'_, O::Value>,
        ops: &mut O,
    ) -> Result<O::Value, O::Error> {
        self.block(base, &tensors.layers[index], input.hidden, ops)
    }

    fn head<O: Ops>(
        &self,
        base: &Base,
        tensors: &BertTensors,
        hidden: O::Value,
        ops: &mut O,
    ) -> Result<O::Value, O::Error> {
        let dropout = self.head_dropout(base);
        let pooling = Pooling { first_dropout: 0.0, activation: Activation::Tanh, last_dropout: dropout };
        tensors.head.forward(ops, hidden, dropout, &pooling)
    }
}
