//! The BERT encoder with a token-classification head, post-norm, as `transformers.BertForTokenClassification`.
//!
//! Dropout stands where it stands there: on the embeddings, on attention probabilities, after the attention output and after
//! the feed-forward output (before each residual sum), and before the head.
use quintet_nlp::{
    batch::Batch,
    checkpoint::{Activation, EncoderConfig},
};
use tch::{Device, Kind, Tensor};

use crate::{
    Error,
    loss::Wanted,
    parameters::{EMBEDDING_LEAVES, LAYER_LEAVES, Parameters},
};

/// The computation over the leaves of [`Parameters`].
pub(crate) struct Model {
    word: Tensor,
    position: Tensor,
    token_type: Tensor,
    norm: Norm,
    layers: Vec<Layer>,
    head: Linear,
    config: EncoderConfig,
    device: Device,
}

struct Linear {
    weight: Tensor,
    bias: Tensor,
}

struct Norm {
    weight: Tensor,
    bias: Tensor,
    eps: f64,
}

struct Layer {
    query_key_value: Linear,
    attention_out: Linear,
    attention_norm: Norm,
    up: Linear,
    down: Linear,
    norm: Norm,
}

/// A batch on the device.
pub(crate) struct Input {
    /// [rows, length] indices into `words`.
    index: Tensor,
    /// [rows, 1, 1, length], true where there is a sub-token; none when no row is padded.
    mask: Option<Tensor>,
    /// What is right.
    pub(crate) wanted: Wanted,
    length: i64,
}

/// The rows of the word table that a batch uses: an own leaf, so that the gradient has these rows alone.
pub(crate) struct WordRows {
    /// Rows of the table, ascending.
    pub(crate) ids: Vec<i64>,
    /// [ids, hidden], a leaf.
    pub(crate) tensor: Tensor,
    /// Row of the padding token in `tensor`, -1 when it does not occur.
    padding: i64,
}

impl Model {
    /// Binds the leaves; `config` says dropout and sizes.
    pub(crate) fn new(parameters: &Parameters, config: &EncoderConfig, device: Device) -> Result<Self, Error> {
        let mut leaves = parameters.leaves.iter().map(|leaf| leaf.tensor.shallow_clone());
        let mut next = || leaves.next().ok_or(Error::Internal("fewer leaves than the model needs"));
        let eps = config.layer_norm_eps;
        const { assert!(EMBEDDING_LEAVES.len() == 5 && LAYER_LEAVES.len() == 12) };
        let (word, position, token_type) = (next()?, next()?, next()?);
        let norm = Norm { weight: next()?, bias: next()?, eps };
        let mut layers = Vec::with_capacity(config.num_hidden_layers);
        for _ in 0..config.num_hidden_layers {
            layers.push(Layer {
                query_key_value: Linear { weight: next()?, bias: next()? },
                attention_out: Linear { weight: next()?, bias: next()? },
                attention_norm: Norm { weight: next()?, bias: next()?, eps },
                up: Linear { weight: next()?, bias: next()? },
                down: Linear { weight: next()?, bias: next()? },
                norm: Norm { weight: next()?, bias: next()?, eps },
            });
        }
        let head = Linear { weight: next()?, bias: next()? };
        Ok(Self { word, position, token_type, norm, layers, head, config: config.clone(), device })
    }

    /// Moves a batch to the device, its indices into the whole word table.
    pub(crate) fn input(&self, batch: &Batch) -> Result<Input, Error> {
        self.input_of(batch, &batch.input_ids)
    }

    /// Moves a batch to the device, its indices into the rows of the word table that it uses.
    pub(crate) fn input_with_rows(&self, batch: &Batch) -> Result<(Input, WordRows), Error> {
        let mut ids = batch.input_ids.clone();
        ids.sort_unstable();
        ids.dedup();
        let index: Vec<i64> =
            batch.input_ids.iter().map(|id| ids.binary_search(id).map_or(0, |found| found as i64)).collect();
        let wanted = Tensor::f_from_slice(&ids)?.f_to_device(self.device)?;
        let tensor = tch::no_grad(|| self.word.f_index_select(0, &wanted))?.f_set_requires_grad(true)?;
        let padding = ids.binary_search(&(self.config.pad_token_id as i64)).map_or(-1, |found| found as i64);
        Ok((self.input_of(batch, &index)?, WordRows { ids, tensor, padding }))
    }

    fn input_of(&self, batch: &Batch, index: &[i64]) -> Result<Input, Error> {
        let (rows, length) = (batch.rows as i64, batch.length as i64);
        let grid = |values: &[i64]| Tensor::f_from_slice(values)?.f_view([rows, length])?.f_to_device(self.device);
        let mask = if batch.attention_mask.contains(&0) {
            Some(grid(&batch.attention_mask)?.f_to_kind(Kind::Bool)?.f_view([rows, 1, 1, length])?)
        } else {
            None
        };
        let wanted = Wanted::new(&batch.targets, batch.rows, self.device)?;
        Ok(Input { index: grid(index)?, mask, wanted, length })
    }

    /// Logits [rows, length, labels]; `words` as made with the input, or none for an input into the whole table.
    pub(crate) fn logits(&self, input: &Input, words: Option<&WordRows>, train: bool) -> Result<Tensor, Error> {
        let (table, padding) =
            words.map_or((&self.word, self.config.pad_token_id as i64), |words| (&words.tensor, words.padding));
        let hidden_dropout = self.config.hidden_dropout_prob;
        let drop = |tensor: Tensor, p: f64| if train && p > 0.0 { tensor.f_dropout(p, true) } else { Ok(tensor) };

        let words = Tensor::f_embedding(table, &input.index, padding, false, false)?;
        let places = self.position.f_narrow(0, 0, input.length)?.f_add(&self.token_type.f_narrow(0, 0, 1)?)?;
        let mut hidden = drop(self.norm.apply(&words.f_add(&places)?)?, hidden_dropout)?;
        for layer in &self.layers {
            let attended = layer.attention_out.apply(&self.attend(layer, &hidden, input, train)?)?;
            let middle = layer.attention_norm.apply(&drop(attended, hidden_dropout)?.f_add(&hidden)?)?;
            let raised = activate(layer.up.apply(&middle)?, self.config.hidden_act)?;
            let lowered = drop(layer.down.apply(&raised)?, hidden_dropout)?;
            hidden = layer.norm.apply(&lowered.f_add(&middle)?)?;
        }
        self.head.apply(&drop(hidden, self.config.head_dropout())?)
    }

    fn attend(&self, layer: &Layer, hidden: &Tensor, input: &Input, train: bool) -> Result<Tensor, Error> {
        let heads = self.config.num_attention_heads as i64;
        let head_size = self.config.head_size() as i64;
        let rows = hidden.size()[0];
        let parts = layer
            .query_key_value
            .apply(hidden)?
            .f_view([rows, input.length, 3, heads, head_size])?
            .f_permute([2, 0, 3, 1, 4])?
            .f_unbind(0)?;
        let [query, key, value] = parts.as_slice() else {
            return Err(Error::Internal("query, key and value are three"));
        };
        let p = if train { self.config.attention_probs_dropout_prob } else { 0.0 };
        let mask = input.mask.as_ref();
        let context = Tensor::f_scaled_dot_product_attention(query, key, value, mask, p, false, None, false)?;
        Ok(context.f_transpose(1, 2)?.f_reshape([rows, input.length, heads * head_size])?)
    }
}

impl Linear {
    fn apply(&self, input: &Tensor) -> Result<Tensor, Error> {
        Ok(input.f_linear(&self.weight, Some(&self.bias))?)
    }
}

impl Norm {
    fn apply(&self, input: &Tensor) -> Result<Tensor, Error> {
        Ok(input.f_layer_norm(self.weight.size(), Some(&self.weight), Some(&self.bias), self.eps, true)?)
    }
}

fn activate(input: Tensor, activation: Activation) -> Result<Tensor, tch::TchError> {
    match activation {
        Activation::Gelu => input.f_gelu("none"),
        Activation::GeluTanh => input.f_gelu("tanh"),
        Activation::Relu => input.f_relu(),
    }
}
