//! DeBERTa-v2 and v3 (He et al. 2021): BERT's layers with disentangled attention over distances, and a convolution beside the first
//! layer in the large ones.
use super::{
    Architecture, Embedded, Head, Input,
    config::Base,
    distance::Buckets,
    fields::Visit,
    layout::{Conv, Layout, Leaf, Linear, Norm},
    ops::{Activation, Attention, Mask, Ops, Positions, Relative},
    post_norm::{self, Block, Drops, Names, PlainHead, Pooling},
};
use crate::Error;

const NAMES: Names = Names {
    layer: "encoder.layer.{}.",
    query_key_value: ["attention.self.query_proj", "attention.self.key_proj", "attention.self.value_proj"],
    out: "attention.output.dense",
    attention_norm: "attention.output.LayerNorm",
    up: "intermediate.dense",
    down: "output.dense",
    norm: "output.LayerNorm",
};

/// What DeBERTa-v2 has in its configuration beside [`Base`].
#[derive(Debug, Clone, PartialEq)]
pub struct Deberta {
    /// Rows of the token-type table; 0 means none.
    pub type_vocab_size: usize,
    /// Width of the embeddings; absent means `hidden_size`.
    pub embedding_size: usize,
    /// Whether positions are added to the words.
    pub position_biased_input: bool,
    /// Whether distances count in the attention.
    pub relative_attention: bool,
    /// Largest distance; below 1 means `max_position_embeddings`.
    pub max_relative_positions: i64,
    /// Buckets of distances; below 1 means one for each distance.
    pub position_buckets: i64,
    /// `c2p`: queries meet the keys of positions; `p2c`: keys meet the queries of positions.
    pub pos_att_type: Vec<String>,
    /// Whether positions go through the projections of words.
    pub share_att_key: bool,
    /// `layer_norm`: the table of distances is normalized.
    pub norm_rel_ebd: Vec<String>,
    /// Width of the convolution's kernel; 0 means none.
    pub conv_kernel_size: usize,
    /// Groups of the convolution.
    pub conv_groups: usize,
    /// Activation of the convolution.
    pub conv_act: Activation,
    /// Dropout before the pooler.
    pub pooler_dropout: f64,
    /// Activation of the pooler.
    pub pooler_hidden_act: Activation,
    /// Width of the pooler; absent means `hidden_size`.
    pub pooler_hidden_size: usize,
    /// Width of a head; absent means `hidden_size / num_attention_heads`.
    pub attention_head_size: usize,
    /// Dropout before the last layer of the sequence head; absent means `hidden_dropout_prob`.
    pub cls_dropout: Option<f64>,
}

/// Tensors of DeBERTa.
pub struct DebertaTensors {
    words: Leaf,
    positions: Option<Leaf>,
    types: Option<Leaf>,
    project: Option<Linear>,
    norm: Norm,
    distances: Option<(Leaf, Option<Norm>)>,
    layers: Vec<Layer>,
    conv: Option<(Conv, Norm)>,
    head: PlainHead,
}

struct Layer {
    block: Block,
    position_keys: Option<Linear>,
    position_queries: Option<Linear>,
}

impl Deberta {
    fn has(&self, term: &str) -> bool {
        self.pos_att_type.iter().any(|name| name == term)
    }

    fn buckets(&self, base: &Base) -> Buckets {
        let largest = usize::try_from(self.max_relative_positions).ok().filter(|largest| *largest > 0);
        let largest = largest.unwrap_or(base.max_position_embeddings);
        match usize::try_from(self.position_buckets) {
            Ok(buckets) if buckets > 0 => Buckets::Spanned { span: buckets, log: Some((buckets, largest)) },
            _ => Buckets::Spanned { span: largest, log: None },
        }
    }

    fn rows(&self, base: &Base) -> usize {
        match self.buckets(base) {
            Buckets::Spanned { span, .. } => 2 * span,
            _ => 0,
        }
    }

    fn declare_layer(&self, base: &Base, index: usize, layout: &mut Layout) -> Layer {
        let hidden = base.hidden_size;
        let block = Block::declare(layout, base, &NAMES, index);
        // The joined rows are those of queries, keys and values.
        let mut own = |term: &str, name: &str, first: usize| {
            (self.relative_attention && self.has(term)).then(|| {
                if self.share_att_key {
                    block.query_key_value.part(first, hidden)
                } else {
                    layout.linear(&format!("encoder.layer.{index}.attention.self.{name}"), hidden, hidden)
                }
            })
        };
        let position_keys = own("c2p", "pos_key_proj", hidden);
        let position_queries = own("p2c", "pos_query_proj", 0);
        Layer { block, position_keys, position_queries }
    }

    fn declare_distances(&self, base: &Base, layout: &mut Layout) -> Option<(Leaf, Option<Norm>)> {
        let hidden = base.hidden_size;
        let normed = self.norm_rel_ebd.iter().any(|name| name == "layer_norm");
        if self.relative_attention && (self.has("c2p") || self.has("p2c")) {
            let table = layout.table("encoder.rel_embeddings", self.rows(base), hidden);
            let norm = normed.then(|| layout.norm("encoder.LayerNorm", hidden, base.layer_norm_eps, true));
            return Some((table, norm));
        }
        if self.relative_attention {
            layout.unused("encoder.rel_embeddings.weight", &[self.rows(base), hidden]);
        }
        if normed {
            layout.unused("encoder.LayerNorm.weight", &[hidden]);
            layout.unused("encoder.LayerNorm.bias", &[hidden]);
        }
        None
    }

    fn embeddings<O: Ops>(&self, base: &Base, tensors: &DebertaTensors, ops: &mut O) -> Result<O::Value, O::Error> {
        let mut sum = ops.words(tensors.words, base.pad_token_id)?;
        if let Some(table) = tensors.positions {
            let positions = ops.positions(table, Positions::Sequential)?;
            sum = ops.add(&sum, &positions)?;
        }
        if let Some(table) = tensors.types {
            let types = ops.types(table)?;
            sum = ops.add(&sum, &types)?;
        }
        if let Some(project) = &tensors.project {
            sum = ops.linear(&sum, project)?;
        }
        let normed = ops.norm(&sum, &tensors.norm)?;
        let kept = ops.keep_tokens(normed)?;
        ops.dropout(kept, base.hidden_dropout_prob)
    }

    fn block<O: Ops>(
        &self,
        base: &Base,
        layer: &Layer,
        distances: Option<&O::Value>,
        hidden: &O::Value,
        ops: &mut O,
    ) -> Result<O::Value, O::Error> {
        let dropout = base.hidden_dropout_prob;
        let (mut keys, mut queries) = (None, None);
        if let Some(rows) = distances {
            let rows = ops.dropped(rows, dropout)?;
            keys = layer.position_keys.map(|linear| ops.linear(&rows, &linear)).transpose()?;
            queries = layer.position_queries.map(|linear| ops.linear(&rows, &linear)).transpose()?;
        }
        // Scores have a term for words and one for each of the others, which are counted even when they are switched off.
        let terms = 1 + usize::from(self.has("c2p")) + usize::from(self.has("p2c"));
        let relative = match distances {
            None => Relative::None,
            Some(_) => {
                Relative::Disentangled { keys: keys.as_ref(), queries: queries.as_ref(), buckets: self.buckets(base) }
            }
        };
        let attention = Attention {
            heads: base.num_attention_heads,
            head_size: base.head_size(),
            scale: 1.0 / ((base.head_size() * terms) as f64).sqrt(),
            dropout: base.attention_probs_dropout_prob,
            mask: Mask::Pairs,
            relative,
            rotary: None,
        };
        let drops = Drops { attention: dropout, feed_forward: dropout };
        layer.block.forward(ops, hidden, &attention, base.hidden_act, drops)
    }

    /// LayerNorm(layer + activation(dropout(convolution of the embeddings))), tokens only.
    fn convolve<O: Ops>(
        &self,
        base: &Base,
        (conv, norm): &(Conv, Norm),
        embedded: &O::Value,
        hidden: &O::Value,
        ops: &mut O,
    ) -> Result<O::Value, O::Error> {
        let out = ops.convolve(embedded, conv)?;
        let out = ops.keep_tokens(out)?;
        let out = ops.dropout(out, base.hidden_dropout_prob)?;
        let out = ops.activate(out, self.conv_act)?;
        let sum = ops.add(hidden, &out)?;
        let normed = ops.norm(&sum, norm)?;
        ops.keep_tokens(normed)
    }
}

impl Architecture for Deberta {
    type Tensors = DebertaTensors;
    const MODEL_TYPES: &'static [&'static str] = &["deberta-v2"];
    const PREFIX: &'static str = "deberta.";

    fn defaults(_model_type: &str) -> (Self, Base) {
        let base = Base {
            hidden_size: 1536,
            num_hidden_layers: 24,
            num_attention_heads: 24,
            intermediate_size: 6144,
            layer_norm_eps: 1e-7,
            ..post_norm::defaults(128_100, 0)
        };
        let family = Self {
            type_vocab_size: 0,
            // 0 stands for absent until the fields are read.
            embedding_size: 0,
            position_biased_input: true,
            relative_attention: false,
            max_relative_positions: -1,
            position_buckets: -1,
            pos_att_type: Vec::new(),
            share_att_key: false,
            norm_rel_ebd: Vec::new(),
            conv_kernel_size: 0,
            conv_groups: 1,
            conv_act: Activation::Tanh,
            pooler_dropout: 0.0,
            pooler_hidden_act: Activation::Gelu,
            pooler_hidden_size: 0,
            attention_head_size: 0,
            cls_dropout: None,
        };
        (family, base)
    }

    fn model_type(&self) -> &'static str {
        "deberta-v2"
    }

    fn class(&self) -> &'static str {
        "DebertaV2"
    }

    fn visit(&mut self, base: &mut Base, fields: &mut impl Visit) -> Result<(), Error> {
        post_norm::visit(base, fields)?;
        let or_else = |value: &mut usize, default: usize| {
            if *value == 0 {
                *value = default;
            }
        };
        fields.integer("type_vocab_size", &mut self.type_vocab_size)?;
        or_else(&mut self.embedding_size, base.hidden_size);
        fields.count("embedding_size", &mut self.embedding_size)?;
        fields.flag("position_biased_input", &mut self.position_biased_input)?;
        fields.flag("relative_attention", &mut self.relative_attention)?;
        fields.signed("max_relative_positions", &mut self.max_relative_positions)?;
        fields.signed("position_buckets", &mut self.position_buckets)?;
        fields.names("pos_att_type", &mut self.pos_att_type)?;
        fields.flag("share_att_key", &mut self.share_att_key)?;
        fields.names("norm_rel_ebd", &mut self.norm_rel_ebd)?;
        fields.integer("conv_kernel_size", &mut self.conv_kernel_size)?;
        fields.count("conv_groups", &mut self.conv_groups)?;
        fields.activation("conv_act", &mut self.conv_act)?;
        fields.probability("pooler_dropout", &mut self.pooler_dropout)?;
        fields.activation("pooler_hidden_act", &mut self.pooler_hidden_act)?;
        or_else(&mut self.pooler_hidden_size, base.hidden_size);
        fields.count("pooler_hidden_size", &mut self.pooler_hidden_size)?;
        or_else(&mut self.attention_head_size, base.hidden_size / base.num_attention_heads);
        fields.count("attention_head_size", &mut self.attention_head_size)?;
        fields.optional_probability("cls_dropout", &mut self.cls_dropout)
    }

    fn problem(&self, base: &Base) -> Option<(&'static str, String)> {
        let hidden = base.hidden_size;
        if self.attention_head_size != base.head_size() {
            let problem = format!("found {}, supported is {}", self.attention_head_size, base.head_size());
            return Some(("attention_head_size", problem));
        }
        if self.relative_attention && self.position_buckets == 1 {
            return Some(("position_buckets", "found 1, expected 2 or more, or none".to_owned()));
        }
        if self.relative_attention
            && let Buckets::Spanned { log: Some((buckets, largest)), .. } = self.buckets(base)
            && largest - 1 == buckets / 2
            && base.max_position_embeddings > largest
        {
            let problem =
                format!("found {largest}, with {buckets} position_buckets there are none for larger distances");
            return Some(("max_relative_positions", problem));
        }
        if self.conv_kernel_size > 0 && self.conv_kernel_size.is_multiple_of(2) {
            return Some(("conv_kernel_size", format!("found {}, expected an odd number", self.conv_kernel_size)));
        }
        (self.conv_kernel_size > 0 && !hidden.is_multiple_of(self.conv_groups))
            .then(|| ("conv_groups", format!("{} does not divide hidden_size {hidden}", self.conv_groups)))
    }

    fn sequence_problem(&self, base: &Base) -> Option<(&'static str, String)> {
        let (found, hidden) = (self.pooler_hidden_size, base.hidden_size);
        (found != hidden).then(|| {
            ("pooler_hidden_size", format!("found {found}, supported for a sequence head is hidden_size {hidden}"))
        })
    }

    fn set_dropout(&mut self, probability: f64) {
        self.cls_dropout = self.cls_dropout.map(|_| probability);
    }

    fn declare(&self, base: &Base, head: Head, layout: &mut Layout) -> DebertaTensors {
        let (hidden, width, count) = (base.hidden_size, self.embedding_size, base.num_hidden_layers);
        let words = layout.table("embeddings.word_embeddings", base.vocab_size, width);
        let positions = (self.position_biased_input)
            .then(|| layout.table("embeddings.position_embeddings", base.max_position_embeddings, width));
        let types = (self.type_vocab_size > 0)
            .then(|| layout.table("embeddings.token_type_embeddings", self.type_vocab_size, width));
        let project = (width != hidden).then(|| layout.linear_with("embeddings.embed_proj", hidden, width, false));
        let norm = layout.norm("embeddings.LayerNorm", hidden, base.layer_norm_eps, true);
        let distances = self.declare_distances(base, layout);
        let layers = (0..count).map(|index| self.declare_layer(base, index, layout)).collect();
        layout.depth(1);
        let conv = (self.conv_kernel_size > 0).then(|| {
            let conv = layout.conv("encoder.conv.conv", hidden, self.conv_kernel_size, self.conv_groups);
            (conv, layout.norm("encoder.conv.LayerNorm", hidden, base.layer_norm_eps, true))
        });
        layout.head(count);
        let head = match head {
            Head::None => PlainHead::None,
            Head::Token { labels } => PlainHead::Token(layout.classifier("classifier", labels, hidden)),
            Head::Sequence { labels } => {
                let pooler = layout.linear("pooler.dense", hidden, hidden);
                PlainHead::Sequence(pooler, layout.classifier("classifier", labels, hidden))
            }
        };
        DebertaTensors { words, positions, types, project, norm, distances, layers, conv, head }
    }

    fn embed<O: Ops>(
        &self,
        base: &Base,
        tensors: &DebertaTensors,
        ops: &mut O,
    ) -> Result<Embedded<O::Value>, O::Error> {
        let hidden = self.embeddings(base, tensors, ops)?;
        let Some((table, norm)) = &tensors.distances else { return Ok(Embedded { hidden, shared: None }) };
        let rows = ops.distance_rows(*table, self.buckets(base))?;
        let rows = match norm {
            Some(norm) => ops.norm(&rows, norm)?,
            None => rows,
        };
        Ok(Embedded { hidden, shared: Some(rows) })
    }

    fn layer<O: Ops>(
        &self,
        base: &Base,
        tensors: &DebertaTensors,
        index: usize,
        input: Input<'_, O::Value>,
        ops: &mut O,
    ) -> Result<O::Value, O::Error> {
        let out = self.block(base, &tensors.layers[index], input.shared, input.hidden, ops)?;
        match &tensors.conv {
            // The first layer's input are the embeddings.
            Some(conv) if index == 0 => self.convolve(base, conv, input.hidden, &out, ops),
            _ => Ok(out),
        }
    }

    fn head<O: Ops>(
        &self,
        base: &Base,
        tensors: &DebertaTensors,
        hidden: O::Value,
        ops: &mut O,
    ) -> Result<O::Value, O::Error> {
        let dropout = base.hidden_dropout_prob;
        let pooling = Pooling {
            first_dropout: self.pooler_dropout,
            activation: self.pooler_hidden_act,
            last_dropout: self.cls_dropout.unwrap_or(dropout),
        };
        tensors.head.forward(ops, hidden, dropout, &pooling)
    }
}
