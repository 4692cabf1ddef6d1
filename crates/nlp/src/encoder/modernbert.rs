//! ModernBERT (Warner et al. 2024): norms before the sublayers, rotary positions, gated feed-forward layers, and attention that looks
//! at everything in each nth layer and through a window in the others.
use super::{
    Architecture, Embedded, Head, Input,
    config::Base,
    fields::Visit,
    layout::{Layout, Leaf, Linear, Norm},
    ops::{Activation, Attention, Mask, Ops, Relative},
};
use crate::Error;

/// A layer that looks at everything, in `layer_types`.
const FULL: &str = "full_attention";
/// A layer with a window.
const SLIDING: &str = "sliding_attention";

/// How the sequence head makes one vector of a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ClassifierPooling {
    /// The first place.
    Cls,
    /// The mean over the tokens.
    Mean,
}

/// What ModernBERT has in its configuration beside [`Base`].
#[derive(Debug, Clone, PartialEq)]
pub struct ModernBert {
    /// New weights lie within so many deviations; absent means 3.
    pub initializer_cutoff_factor: Option<f64>,
    /// Whether norms have biases.
    pub norm_bias: bool,
    /// Base of rotary positions in layers that look at everything.
    pub global_rope_theta: f64,
    /// Base in the other layers; absent means the same.
    pub local_rope_theta: Option<f64>,
    /// Whether the attention's dense layers have biases.
    pub attention_bias: bool,
    /// Each nth layer looks at everything, the first included.
    pub global_attn_every_n_layers: usize,
    /// `full_attention` or `sliding_attention` for each layer; empty means by the field before.
    pub layer_types: Vec<String>,
    /// Width of the window of the others, both sides together.
    pub local_attention: usize,
    /// Dropout of the embeddings.
    pub embedding_dropout: f64,
    /// Whether the feed-forward layers have biases.
    pub mlp_bias: bool,
    /// Dropout inside the feed-forward layers.
    pub mlp_dropout: f64,
    /// How the sequence head pools.
    pub classifier_pooling: ClassifierPooling,
    /// Dropout before the last layer of a head.
    pub classifier_dropout: f64,
    /// Whether the head's first dense layer has a bias.
    pub classifier_bias: bool,
    /// Activation of the head.
    pub classifier_activation: Activation,
    /// `rope_type` of `rope_scaling`; only the plain one is computed.
    plain_rope: bool,
}

/// Tensors of ModernBERT.
pub struct ModernBertTensors {
    words: Leaf,
    norm: Norm,
    layers: Vec<Layer>,
    final_norm: Norm,
    head: Option<HeadTensors>,
}

struct Layer {
    attention_norm: Option<Norm>,
    query_key_value: Linear,
    out: Linear,
    norm: Norm,
    up: Linear,
    down: Linear,
}

struct HeadTensors {
    dense: Linear,
    norm: Norm,
    classifier: Linear,
    sequence: bool,
}

impl ModernBert {
    fn declare_layer(&self, base: &Base, index: usize, layout: &mut Layout) -> Layer {
        let (hidden, inner, eps) = (base.hidden_size, base.intermediate_size, base.layer_norm_eps);
        let full = |name: &str| format!("layers.{index}.{name}");
        let wide = base.initializer_range;
        let narrow = wide / (2.0 * base.num_hidden_layers as f64).sqrt();
        let cutoff = self.cutoff();
        layout.depth(index + 1);
        // The first layer's input is normed already.
        let attention_norm = (index > 0).then(|| layout.norm(&full("attn_norm"), hidden, eps, self.norm_bias));
        layout.deviation(wide, cutoff);
        let query_key_value = layout.linear_with(&full("attn.Wqkv"), 3 * hidden, hidden, self.attention_bias);
        layout.deviation(narrow, cutoff);
        let out = layout.linear_with(&full("attn.Wo"), hidden, hidden, self.attention_bias);
        let norm = layout.norm(&full("mlp_norm"), hidden, eps, self.norm_bias);
        layout.deviation(wide, cutoff);
        let up = layout.linear_with(&full("mlp.Wi"), 2 * inner, hidden, self.mlp_bias);
        layout.deviation(narrow, cutoff);
        let down = layout.linear_with(&full("mlp.Wo"), hidden, inner, self.mlp_bias);
        Layer { attention_norm, query_key_value, out, norm, up, down }
    }

    fn declare_head(&self, base: &Base, labels: usize, sequence: bool, layout: &mut Layout) -> HeadTensors {
        let hidden = base.hidden_size;
        let narrow = base.initializer_range / (2.0 * base.num_hidden_layers as f64).sqrt();
        layout.head(base.num_hidden_layers);
        layout.deviation(narrow, self.cutoff());
        let dense = layout.linear_with("head.dense", hidden, hidden, self.classifier_bias);
        let norm = layout.norm("head.norm", hidden, base.layer_norm_eps, self.norm_bias);
        layout.deviation(1.0 / (hidden as f64).sqrt(), self.cutoff());
        HeadTensors { dense, norm, classifier: layout.classifier("classifier", labels, hidden), sequence }
    }

    fn cutoff(&self) -> Option<f64> {
        Some(self.initializer_cutoff_factor.unwrap_or(3.0))
    }

    fn attention<'a, V>(&self, base: &Base, index: usize) -> Attention<'a, V> {
        let global = match self.layer_types.get(index) {
            Some(kind) => kind == FULL,
            None => index.is_multiple_of(self.global_attn_every_n_layers),
        };
        let local_theta = self.local_rope_theta.unwrap_or(self.global_rope_theta);
        Attention {
            heads: base.num_attention_heads,
            head_size: base.head_size(),
            scale: 1.0 / (base.head_size() as f64).sqrt(),
            dropout: base.attention_probs_dropout_prob,
            mask: if global { Mask::Keys } else { Mask::Window(self.local_attention / 2) },
            relative: Relative::None,
            rotary: Some(if global { self.global_rope_theta } else { local_theta }),
        }
    }

    fn block<O: Ops>(
        &self,
        base: &Base,
        index: usize,
        layer: &Layer,
        hidden: &O::Value,
        ops: &mut O,
    ) -> Result<O::Value, O::Error> {
        let joined = match &layer.attention_norm {
            Some(norm) => {
                let normed = ops.norm(hidden, norm)?;
                ops.linear(&normed, &layer.query_key_value)?
            }
            None => ops.linear(hidden, &layer.query_key_value)?,
        };
        let context = ops.attention(&joined, &self.attention(base, index))?;
        let attended = ops.linear(&context, &layer.out)?;
        let attended = ops.dropout(attended, base.attention_probs_dropout_prob)?;
        let middle = ops.add(hidden, &attended)?;
        let normed = ops.norm(&middle, &layer.norm)?;
        let raised = ops.linear(&normed, &layer.up)?;
        let (input, gate) = ops.halves(&raised)?;
        let input = ops.activate(input, base.hidden_act)?;
        let gated = ops.multiply(&input, &gate)?;
        let gated = ops.dropout(gated, self.mlp_dropout)?;
        let lowered = ops.linear(&gated, &layer.down)?;
        ops.add(&middle, &lowered)
    }
}

impl Architecture for ModernBert {
    type Tensors = ModernBertTensors;
    const MODEL_TYPES: &'static [&'static str] = &["modernbert"];
    const PREFIX: &'static str = "model.";

    fn defaults(_model_type: &str) -> (Self, Base) {
        let base = Base {
            vocab_size: 50368,
            hidden_size: 768,
            num_hidden_layers: 22,
            num_attention_heads: 12,
            intermediate_size: 1152,
            hidden_act: Activation::Gelu,
            max_position_embeddings: 8192,
            hidden_dropout_prob: 0.0,
            attention_probs_dropout_prob: 0.0,
            layer_norm_eps: 1e-5,
            initializer_range: 0.02,
            pad_token_id: Some(50283),
        };
        let family = Self {
            initializer_cutoff_factor: Some(2.0),
            norm_bias: false,
            global_rope_theta: 160_000.0,
            local_rope_theta: Some(10_000.0),
            attention_bias: false,
            global_attn_every_n_layers: 3,
            layer_types: Vec::new(),
            local_attention: 128,
            embedding_dropout: 0.0,
            mlp_bias: false,
            mlp_dropout: 0.0,
            classifier_pooling: ClassifierPooling::Cls,
            classifier_dropout: 0.0,
            classifier_bias: false,
            classifier_activation: Activation::Gelu,
            plain_rope: true,
        };
        (family, base)
    }

    fn model_type(&self) -> &'static str {
        "modernbert"
    }

    fn class(&self) -> &'static str {
        "ModernBert"
    }

    fn visit(&mut self, base: &mut Base, fields: &mut impl Visit) -> Result<(), Error> {
        fields.count("vocab_size", &mut base.vocab_size)?;
        fields.count("hidden_size", &mut base.hidden_size)?;
        fields.count("intermediate_size", &mut base.intermediate_size)?;
        fields.count("num_hidden_layers", &mut base.num_hidden_layers)?;
        fields.count("num_attention_heads", &mut base.num_attention_heads)?;
        fields.activation("hidden_activation", &mut base.hidden_act)?;
        fields.count("max_position_embeddings", &mut base.max_position_embeddings)?;
        fields.positive("initializer_range", &mut base.initializer_range)?;
        fields.optional_positive("initializer_cutoff_factor", &mut self.initializer_cutoff_factor)?;
        fields.positive("norm_eps", &mut base.layer_norm_eps)?;
        fields.flag("norm_bias", &mut self.norm_bias)?;
        fields.optional_integer("pad_token_id", &mut base.pad_token_id)?;
        fields.positive("global_rope_theta", &mut self.global_rope_theta)?;
        fields.optional_positive("local_rope_theta", &mut self.local_rope_theta)?;
        fields.flag("attention_bias", &mut self.attention_bias)?;
        fields.probability("attention_dropout", &mut base.attention_probs_dropout_prob)?;
        fields.count("global_attn_every_n_layers", &mut self.global_attn_every_n_layers)?;
        fields.count("local_attention", &mut self.local_attention)?;
        fields.probability("embedding_dropout", &mut self.embedding_dropout)?;
        fields.flag("mlp_bias", &mut self.mlp_bias)?;
        fields.probability("mlp_dropout", &mut self.mlp_dropout)?;
        let poolings = [("cls", ClassifierPooling::Cls), ("mean", ClassifierPooling::Mean)];
        fields.choice("classifier_pooling", &mut self.classifier_pooling, &poolings)?;
        fields.probability("classifier_dropout", &mut self.classifier_dropout)?;
        fields.flag("classifier_bias", &mut self.classifier_bias)?;
        fields.activation("classifier_activation", &mut self.classifier_activation)?;
        fields.plain_rope("rope_scaling", &mut self.plain_rope)?;
        fields.names("layer_types", &mut self.layer_types)?;
        fields.rope_parameters(FULL, &mut self.global_rope_theta, &mut self.plain_rope)?;
        let mut local = self.local_rope_theta.unwrap_or(self.global_rope_theta);
        fields.rope_parameters(SLIDING, &mut local, &mut self.plain_rope)?;
        self.local_rope_theta = Some(local);
        Ok(())
    }

    fn problem(&self, base: &Base) -> Option<(&'static str, String)> {
        if !self.plain_rope {
            return Some((
                "rope_scaling",
                "found scaled rotary positions, supported are those of the default".to_owned(),
            ));
        }
        if let Some(other) = self.layer_types.iter().find(|kind| *kind != FULL && *kind != SLIDING) {
            return Some(("layer_types", format!("found `{other}`, supported are {FULL} and {SLIDING}")));
        }
        if !self.layer_types.is_empty() && self.layer_types.len() != base.num_hidden_layers {
            let problem = format!("found {} kinds for {} layers", self.layer_types.len(), base.num_hidden_layers);
            return Some(("layer_types", problem));
        }
        (!base.head_size().is_multiple_of(2)).then(|| {
            let problem = format!("heads have {} numbers, rotary positions need an even count", base.head_size());
            ("num_attention_heads", problem)
        })
    }

    fn set_dropout(&mut self, probability: f64) {
        self.embedding_dropout = probability;
        self.mlp_dropout = probability;
        self.classifier_dropout = probability;
    }

    fn declare(&self, base: &Base, head: Head, layout: &mut Layout) -> ModernBertTensors {
        let (hidden, eps, count) = (base.hidden_size, base.layer_norm_eps, base.num_hidden_layers);
        layout.deviation(base.initializer_range, self.cutoff());
        let words = layout.table("embeddings.tok_embeddings", base.vocab_size, hidden);
        let norm = layout.norm("embeddings.norm", hidden, eps, self.norm_bias);
        let layers = (0..count).map(|index| self.declare_layer(base, index, layout)).collect();
        layout.depth(count + 1);
        let final_norm = layout.norm("final_norm", hidden, eps, self.norm_bias);
        let head = match head {
            Head::None => None,
            Head::Token { labels } => Some(self.declare_head(base, labels, false, layout)),
            Head::Sequence { labels } => Some(self.declare_head(base, labels, true, layout)),
        };
        ModernBertTensors { words, norm, layers, final_norm, head }
    }

    fn embed<O: Ops>(
        &self,
        base: &Base,
        tensors: &ModernBertTensors,
        ops: &mut O,
    ) -> Result<Embedded<O::Value>, O::Error> {
        let words = ops.words(tensors.words, base.pad_token_id)?;
        let normed = ops.norm(&words, &tensors.norm)?;
        Ok(Embedded { hidden: ops.dropout(normed, self.embedding_dropout)?, shared: None })
    }

    fn layer<O: Ops>(
        &self,
        base: &Base,
        tensors: &ModernBertTensors,
        index: usize,
        input: Input<'_, O::Value>,
        ops: &mut O,
    ) -> Result<O::Value, O::Error> {
        self.block(base, index, &tensors.layers[index], input.hidden, ops)
    }

    fn head<O: Ops>(
        &self,
        _base: &Base,
        tensors: &ModernBertTensors,
        hidden: O::Value,
        ops: &mut O,
    ) -> Result<O::Value, O::Error> {
        let hidden = ops.norm(&hidden, &tensors.final_norm)?;
        let Some(head) = &tensors.head else { return Ok(hidden) };
        let pooled = match (head.sequence, self.classifier_pooling) {
            (false, _) => hidden,
            (true, ClassifierPooling::Cls) => ops.first(&hidden)?,
            (true, ClassifierPooling::Mean) => ops.mean(&hidden)?,
        };
        let dense = ops.linear(&pooled, &head.dense)?;
        let dense = ops.activate(dense, self.classifier_activation)?;
        let normed = ops.norm(&dense, &head.norm)?;
        let normed = ops.dropout(normed, self.classifier_dropout)?;
        ops.linear(&normed, &head.classifier)
    }
}
