//! A BERT encoder with a token-classification head, in standard operators.
//!
//! Arithmetic as in `transformers` 4.57 (`modeling_bert.py`, SDPA and eager agree): post-norm layers, keys masked by the
//! smallest float, word + type + position embeddings. One packed MatMul gives queries, keys and values.

use quintet_nlp::{
    checkpoint::{Activation, EncoderConfig, Weights},
    encoder::{Base, Bert, Family, PositionEmbedding},
};

use super::{
    builder::{Attribute, Axis, GraphBuilder},
    linear::Linear,
};
use crate::{
    Error,
    onnx::{ModelProto, tensor_proto::DataType},
    quantize,
};

/// Arithmetic of the graph.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scheme {
    /// Everything in 32 bits.
    Fp32,
    /// Dense layers with int8 weights and activations quantized at run time.
    Int8 {
        /// The word table in int8 too: a quarter of its size.
        embeddings: bool,
    },
}

impl Scheme {
    /// What the model's metadata say.
    pub fn name(self) -> &'static str {
        match self {
            Self::Fp32 => "none",
            Self::Int8 { embeddings: false } => "dynamic int8: MatMul weights per column",
            Self::Int8 { embeddings: true } => "dynamic int8: MatMul weights per column, word embeddings per table",
        }
    }
}

/// Builds the model: inputs `input_ids`, `attention_mask`, `token_type_ids` (int64 `[batch, sequence]`), output `logits`
/// (float `[batch, sequence, labels]`), both axes dynamic.
///
/// # Errors
/// [`Error::Family`] for a family that has no graph yet; those of [`Weights::f32`], and [`Error::NotFinite`]; both name the tensor.
pub fn build(
    weights: &Weights,
    encoder: &EncoderConfig,
    scheme: Scheme,
    opset: i32,
    metadata: &[(String, String)],
) -> Result<ModelProto, Error> {
    let Family::Bert(bert) = &encoder.family else {
        return Err(Error::Family { found: encoder.family.model_type() });
    };
    if bert.position_embedding_type != PositionEmbedding::Absolute {
        return Err(Error::Family { found: "bert with relative positions" });
    }
    let mut emitter = Emitter {
        bert,
        graph: GraphBuilder::new("bert_for_token_classification"),
        linear: Linear::new(scheme != Scheme::Fp32),
        weights,
        encoder,
        scheme,
        opset,
    };
    let rows = [Axis::Dynamic("batch"), Axis::Dynamic("sequence")];
    for name in ["input_ids", "attention_mask", "token_type_ids"] {
        emitter.graph.input(name, DataType::Int64, &rows);
    }
    emitter.constants();
    let mut hidden = emitter.embeddings()?;
    for layer in 0..encoder.num_hidden_layers {
        hidden = emitter.layer(layer, &hidden)?;
    }
    let logits = emitter.dense("classifier", &hidden, encoder.hidden_size, encoder.labels.len())?;
    emitter.graph.output_node("logits", "Identity", &[&logits]);
    let [batch, sequence] = rows;
    emitter.graph.output("logits", DataType::Float, &[batch, sequence, Axis::Fixed(encoder.labels.len())]);
    Ok(emitter.graph.build(opset.into(), metadata))
}

struct Emitter<'a> {
    bert: &'a Bert,
    graph: GraphBuilder,
    linear: Linear,
    weights: &'a Weights,
    encoder: &'a EncoderConfig,
    scheme: Scheme,
    opset: i32,
}

impl Emitter<'_> {
    /// Constants that all layers share, and the mask to add to scores: 0 for a token, the smallest float for padding.
    fn constants(&mut self) {
        let (hidden_size, heads, head) =
            (self.encoder.hidden_size, self.encoder.num_attention_heads, self.encoder.head_size());
        let graph = &mut self.graph;
        graph.ints("shape_of_heads", &[0, 0, heads as i64, head as i64]);
        graph.ints("shape_of_hidden", &[0, 0, hidden_size as i64]);
        graph.ints("sizes_of_qkv", &[hidden_size as i64; 3]);
        graph.floats("attention_scale", &[], &[1.0 / (head as f32).sqrt()]);
        graph.floats("one", &[], &[1.0]);
        graph.floats("lowest", &[], &[f32::MIN]);
        graph.ints("axes_of_mask", &[1, 2]);
        let mask =
            graph.node_with("mask", "Cast", &["attention_mask"], &[("to", Attribute::Int(DataType::Float as i64))]);
        let mask = graph.node("mask", "Sub", &["one", &mask]);
        let mask = graph.node("mask", "Mul", &[&mask, "lowest"]);
        let mask = graph.node("mask", "Unsqueeze", &[&mask, "axes_of_mask"]);
        debug_assert_eq!(mask, MASK);
    }

    fn embeddings(&mut self) -> Result<String, Error> {
        let &Base { vocab_size, hidden_size, max_position_embeddings: max_positions, .. } = &self.encoder.base;
        let type_vocab_size = self.bert.type_vocab_size;
        let table = self.tensor("embeddings.word_embeddings.weight", &[vocab_size, hidden_size])?;
        let words = if self.scheme == (Scheme::Int8 { embeddings: true }) {
            let quantized = quantize::per_tensor(&table);
            let table = self.graph.bytes("words/table_quantized", &[vocab_size, hidden_size], &quantized.values);
            let scale = self.graph.floats("words/table_scale", &[], &quantized.scales);
            let zero = self.graph.bytes("words/table_zero_point", &[], &[0]);
            let rows = self.graph.node("words", "Gather", &[&table, "input_ids"]);
            self.graph.node("words", "DequantizeLinear", &[&rows, &scale, &zero])
        } else {
            let table = self.graph.floats("words/table", &[vocab_size, hidden_size], &table);
            self.graph.node("words", "Gather", &[&table, "input_ids"])
        };
        let table = self.tensor("embeddings.token_type_embeddings.weight", &[type_vocab_size, hidden_size])?;
        let table = self.graph.floats("types/table", &[type_vocab_size, hidden_size], &table);
        let types = self.graph.node("types", "Gather", &[&table, "token_type_ids"]);

        let table = self.tensor("embeddings.position_embeddings.weight", &[max_positions, hidden_size])?;
        let table = self.graph.floats("positions/table", &[max_positions, hidden_size], &table);
        let start = self.graph.ints("positions/start", &[0]);
        let length = self.graph.node_with(
            "positions",
            "Shape",
            &["input_ids"],
            &[("start", Attribute::Int(1)), ("end", Attribute::Int(2))],
        );
        // The slice's axis is the start's value too.
        let positions = self.graph.node("positions", "Slice", &[&table, &start, &length, &start]);

        let sum = self.graph.node("embeddings", "Add", &[&words, &types]);
        let sum = self.graph.node("embeddings", "Add", &[&sum, &positions]);
        self.layer_norm("embeddings.LayerNorm", &sum)
    }

    fn layer(&mut self, index: usize, hidden: &str) -> Result<String, Error> {
        let &Base { hidden_size, intermediate_size, .. } = &self.encoder.base;
        let scope = format!("encoder.layer.{index}");
        let context = self.attention(&scope, hidden)?;
        let out = self.dense(&format!("{scope}.attention.output.dense"), &context, hidden_size, hidden_size)?;
        let sum = self.graph.node(&format!("{scope}.attention.output"), "Add", &[&out, hidden]);
        let attended = self.layer_norm(&format!("{scope}.attention.output.LayerNorm"), &sum)?;
        let inner = self.dense(&format!("{scope}.intermediate.dense"), &attended, hidden_size, intermediate_size)?;
        let inner = self.activation(&format!("{scope}.intermediate"), &inner);
        let out = self.dense(&format!("{scope}.output.dense"), &inner, intermediate_size, hidden_size)?;
        let sum = self.graph.node(&format!("{scope}.output"), "Add", &[&out, &attended]);
        self.layer_norm(&format!("{scope}.output.LayerNorm"), &sum)
    }

    /// Attention without its output matrix; gives `[batch, sequence, hidden]`.
    fn attention(&mut self, scope: &str, hidden: &str) -> Result<String, Error> {
        let size = self.encoder.hidden_size;
        let (mut columns, mut bias) = (Vec::with_capacity(3), Vec::with_capacity(3 * size));
        for part in ["query", "key", "value"] {
            let name = format!("{scope}.attention.self.{part}");
            columns.push(transposed(&self.tensor(&format!("{name}.weight"), &[size, size])?, size, size));
            bias.extend_from_slice(&self.tensor(&format!("{name}.bias"), &[size])?);
        }
        let mut packed = Vec::with_capacity(3 * size * size);
        for row in 0..size {
            for matrix in &columns {
                packed.extend_from_slice(&matrix[row * size..(row + 1) * size]);
            }
        }
        let scope = format!("{scope}.attention.self");
        let qkv = self.linear.emit(&mut self.graph, &format!("{scope}.qkv"), hidden, &packed, &bias);
        let graph = &mut self.graph;
        let last = [("axis", Attribute::Int(-1))];
        let parts = graph.node_outputs(&scope, "Split", &[&qkv, "sizes_of_qkv"], &last, &["query", "key", "value"]);
        let mut heads = |part: usize, order: [i64; 4]| {
            let reshaped = graph.node(&scope, "Reshape", &[&parts[part], "shape_of_heads"]);
            graph.node_with(&scope, "Transpose", &[&reshaped], &[("perm", Attribute::Ints(order.to_vec()))])
        };
        let query = heads(0, [0, 2, 1, 3]);
        let key = heads(1, [0, 2, 3, 1]);
        let value = heads(2, [0, 2, 1, 3]);
        let scores = graph.node(&scope, "MatMul", &[&query, &key]);
        let scores = graph.node(&scope, "Mul", &[&scores, "attention_scale"]);
        let scores = graph.node(&scope, "Add", &[&scores, MASK]);
        let shares = graph.node_with(&scope, "Softmax", &[&scores], &last);
        let context = graph.node(&scope, "MatMul", &[&shares, &value]);
        let order = [("perm", Attribute::Ints(vec![0, 2, 1, 3]))];
        let context = graph.node_with(&scope, "Transpose", &[&context], &order);
        Ok(graph.node(&scope, "Reshape", &[&context, "shape_of_hidden"]))
    }

    fn dense(&mut self, name: &str, input: &str, inputs: usize, outputs: usize) -> Result<String, Error> {
        let weight = self.tensor(&format!("{name}.weight"), &[outputs, inputs])?;
        let bias = self.tensor(&format!("{name}.bias"), &[outputs])?;
        let weight = transposed(&weight, outputs, inputs);
        Ok(self.linear.emit(&mut self.graph, name, input, &weight, &bias))
    }

    /// A tensor in 32 bits; values that are not finite are refused.
    fn tensor(&self, name: &str, shape: &[usize]) -> Result<Vec<f32>, Error> {
        let values = self.weights.f32(name, shape)?;
        match values.iter().position(|value| !value.is_finite()) {
            None => Ok(values),
            Some(index) => Err(Error::NotFinite { tensor: name.to_owned(), index, value: values[index] }),
        }
    }

    fn layer_norm(&mut self, name: &str, input: &str) -> Result<String, Error> {
        let size = [self.encoder.hidden_size];
        let weight = self.tensor(&format!("{name}.weight"), &size)?;
        let bias = self.tensor(&format!("{name}.bias"), &size)?;
        let weight = self.graph.floats(&format!("{name}/weight"), &size, &weight);
        let bias = self.graph.floats(&format!("{name}/bias"), &size, &bias);
        let attributes =
            [("axis", Attribute::Int(-1)), ("epsilon", Attribute::Float(self.encoder.layer_norm_eps as f32))];
        Ok(self.graph.node_with(name, "LayerNormalization", &[input, &weight, &bias], &attributes))
    }

    /// The activation; GELU is an operator from opset 20 on, and spelled out below as ONNX Runtime's fusions know it.
    fn activation(&mut self, scope: &str, x: &str) -> String {
        let operator = self.opset >= 20;
        let graph = &mut self.graph;
        match self.encoder.hidden_act {
            Activation::Relu => graph.node(scope, "Relu", &[x]),
            Activation::Tanh => graph.node(scope, "Tanh", &[x]),
            Activation::Sigmoid => graph.node(scope, "Sigmoid", &[x]),
            Activation::Mish => graph.node(scope, "Mish", &[x]),
            Activation::Linear => x.to_owned(),
            Activation::Silu => {
                let gate = graph.node(scope, "Sigmoid", &[x]);
                graph.node(scope, "Mul", &[x, &gate])
            }
            Activation::QuickGelu => {
                let factor = graph.floats(&format!("{scope}/factor"), &[], &[1.702]);
                let gate = graph.node(scope, "Mul", &[x, &factor]);
                let gate = graph.node(scope, "Sigmoid", &[&gate]);
                graph.node(scope, "Mul", &[x, &gate])
            }
            Activation::Gelu if operator => graph.node(scope, "Gelu", &[x]),
            Activation::GeluTanh if operator => {
                graph.node_with(scope, "Gelu", &[x], &[("approximate", Attribute::Text("tanh"))])
            }
            Activation::Gelu => {
                let root = graph.floats(&format!("{scope}/sqrt_2"), &[], &[std::f32::consts::SQRT_2]);
                let half = graph.floats(&format!("{scope}/half"), &[], &[0.5]);
                let erf = graph.node(scope, "Div", &[x, &root]);
                let erf = graph.node(scope, "Erf", &[&erf]);
                let sum = graph.node(scope, "Add", &[&erf, "one"]);
                let product = graph.node(scope, "Mul", &[x, &sum]);
                graph.node(scope, "Mul", &[&product, &half])
            }
            Activation::GeluTanh => {
                let cubic = graph.floats(&format!("{scope}/cubic"), &[], &[0.044_715]);
                let root = graph.floats(&format!("{scope}/sqrt_2_pi"), &[], &[std::f32::consts::FRAC_2_PI.sqrt()]);
                let half = graph.floats(&format!("{scope}/half"), &[], &[0.5]);
                let square = graph.node(scope, "Mul", &[x, x]);
                let cube = graph.node(scope, "Mul", &[&square, x]);
                let term = graph.node(scope, "Mul", &[&cube, &cubic]);
                let sum = graph.node(scope, "Add", &[x, &term]);
                let inner = graph.node(scope, "Mul", &[&sum, &root]);
                let tanh = graph.node(scope, "Tanh", &[&inner]);
                let sum = graph.node(scope, "Add", &[&tanh, "one"]);
                let product = graph.node(scope, "Mul", &[x, &sum]);
                graph.node(scope, "Mul", &[&product, &half])
            }
        }
    }
}

/// A Linear's weight `[out, in]` as a matrix `[in, out]`, which MatMul multiplies from the right.
fn transposed(values: &[f32], outputs: usize, inputs: usize) -> Vec<f32> {
    let mut result = vec![0f32; values.len()];
    for (output, row) in values.chunks_exact(inputs).enumerate() {
        for (input, value) in row.iter().enumerate() {
            result[input * outputs + output] = *value;
        }
    }
    result
}

/// Name of the value that [`Emitter::constants`] makes of the mask: `[batch, 1, 1, sequence]`.
const MASK: &str = "mask/Unsqueeze";

#[cfg(test)]
mod tests {
    #[test]
    fn transposes() {
        assert_eq!(super::transposed(&[1.0, 2.0, 3.0, 4.0, 5.0, 6.0], 2, 3), [1.0, 4.0, 2.0, 5.0, 3.0, 6.0]);
    }
}
