//! Any encoder with its head, in standard operators: the description of `quintet_nlp::encoder` written as a graph.
//!
//! Keys are masked by the smallest float, one packed MatMul gives queries, keys and values, and what does not depend on the input (the
//! positions of DeBERTa) is computed at conversion.
use quintet_nlp::{
    checkpoint::Weights,
    encoder::{
        Activation, Attention, Buckets, Conv, Encoder, EncoderConfig, Layout, Leaf, Linear, Norm, Ops, Positions,
    },
    task::Task,
};

use super::{
    activation,
    builder::{Attribute, Axis, GraphBuilder},
    constant::Constant,
    linear,
    scores::{self, Places},
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

/// Builds the model: inputs `input_ids`, `attention_mask` and, where the encoder has several token types, `token_type_ids` (int64
/// `[batch, sequence]`), output `logits` (float `[batch, sequence, labels]`, or `[batch, labels]` of a sequence head), batch and
/// sequence dynamic.
///
/// # Errors
/// Those of [`Weights::f32`], and [`Error::NotFinite`]; both name the tensor.
pub fn build(
    weights: &Weights,
    config: &EncoderConfig,
    scheme: Scheme,
    opset: i32,
    metadata: &[(String, String)],
) -> Result<ModelProto, Error> {
    let (encoder, layout) = Encoder::new(config);
    let mut emitter = Emitter {
        graph: GraphBuilder::new(&config.architecture()),
        linear: linear::Linear::new(scheme != Scheme::Fp32),
        places: Places::default(),
        weights,
        layout,
        longest: config.max_length(),
        scheme,
        opset,
        constants: 0,
        scope: String::new(),
        has_types: false,
    };
    for name in ["input_ids", "attention_mask"] {
        emitter.graph.input(name, DataType::Int64, &ROWS);
    }
    scores::constants(&mut emitter.graph);
    let logits = encoder.forward(&mut emitter)?;
    let logits = emitter.name(&logits);
    emitter.graph.output_node("logits", "Identity", &[&logits]);
    let labels = Axis::Fixed(config.labels.len());
    let [batch, sequence] = ROWS;
    match config.task.is_some_and(Task::is_sequence) {
        true => emitter.graph.output("logits", DataType::Float, &[batch, labels]),
        false => emitter.graph.output("logits", DataType::Float, &[batch, sequence, labels]),
    }
    Ok(emitter.graph.build(opset.into(), metadata))
}

const ROWS: [Axis; 2] = [Axis::Dynamic("batch"), Axis::Dynamic("sequence")];

pub(super) struct Emitter<'a> {
    pub(super) graph: GraphBuilder,
    linear: linear::Linear,
    pub(super) places: Places,
    weights: &'a Weights,
    layout: Layout,
    pub(super) longest: usize,
    scheme: Scheme,
    opset: i32,
    constants: usize,
    /// Name of the last dense layer or norm, under which operations without weights stand.
    pub(super) scope: String,
    has_types: bool,
}

/// A value of the forward pass.
#[derive(Debug, Clone)]
pub(super) enum Value {
    /// Its name in the graph, and its last axis.
    Graph { name: String, width: usize },
    /// It is known.
    Known(Constant),
}

impl Emitter<'_> {
    /// The elements of a leaf in 32 bits; values that are not finite are refused.
    fn leaf(&self, leaf: Leaf) -> Result<Vec<f32>, Error> {
        let mut joined = Vec::new();
        for part in self.layout.leaves.get(leaf.0).map(|leaf| leaf.parts.as_slice()).unwrap_or_default() {
            let values = self.weights.f32(&part.name, &part.shape)?;
            if let Some(index) = values.iter().position(|value| !value.is_finite()) {
                return Err(Error::NotFinite { tensor: part.name.clone(), index, value: values[index] });
            }
            joined.extend(values);
        }
        Ok(joined)
    }

    fn shape(&self, leaf: Leaf) -> &[usize] {
        self.layout.leaves.get(leaf.0).map(|leaf| leaf.shape.as_slice()).unwrap_or_default()
    }

    /// The layer's name: that of its tensor, or of the joined ones.
    fn layer_name(&self, leaf: Leaf) -> String {
        let parts = self.layout.leaves.get(leaf.0).map(|leaf| leaf.parts.as_slice()).unwrap_or_default();
        let name = parts.first().map_or("", |part| part.name.as_str());
        let name = name.rsplit_once('.').map_or(name, |(layer, _)| layer);
        match parts {
            [_] | [] => name.to_owned(),
            _ => format!("{}.qkv", name.rsplit_once('.').map_or(name, |(parent, _)| parent)),
        }
    }

    pub(super) fn table(&mut self, leaf: Leaf, scope: &str) -> Result<(String, usize), Error> {
        let (values, shape) = (self.leaf(leaf)?, self.shape(leaf).to_vec());
        Ok((self.graph.floats(&format!("{scope}/table"), &shape, &values), shape.last().copied().unwrap_or(0)))
    }

    pub(super) fn name(&mut self, value: &Value) -> String {
        match value {
            Value::Graph { name, .. } => name.clone(),
            Value::Known(constant) => {
                self.constants += 1;
                let dims = [constant.rows(), constant.width];
                self.graph.floats(&format!("constant_{}", self.constants), &dims, &constant.values)
            }
        }
    }

    fn binary(&mut self, operator: &str, a: &Value, b: &Value) -> Value {
        let width = width(a);
        let (a, b) = (self.name(a), self.name(b));
        let scope = self.scope.clone();
        Value::Graph { name: self.graph.node(&scope, operator, &[&a, &b]), width }
    }

    /// 1 for a token, 0 for padding, float [batch, sequence, 1].
    fn tokens(&mut self) -> String {
        let to = [("to", Attribute::Int(DataType::Float as i64))];
        let axis = self.graph.ints(&format!("{}/last_axis", self.scope), &[-1]);
        let mask = self.graph.node_with(&self.scope, "Cast", &["attention_mask"], &to);
        self.graph.node(&self.scope, "Unsqueeze", &[&mask, &axis])
    }
}

fn width(value: &Value) -> usize {
    match value {
        Value::Graph { width, .. } | Value::Known(Constant { width, .. }) => *width,
    }
}

impl Ops for Emitter<'_> {
    type Value = Value;
    type Error = Error;

    fn words(&mut self, table: Leaf, _padding: Option<usize>) -> Result<Value, Error> {
        self.scope = "embeddings".to_owned();
        if self.scheme != (Scheme::Int8 { embeddings: true }) {
            let (table, width) = self.table(table, "words")?;
            return Ok(Value::Graph { name: self.graph.node("words", "Gather", &[&table, "input_ids"]), width });
        }
        let (values, shape) = (self.leaf(table)?, self.shape(table).to_vec());
        let quantized = quantize::per_tensor(&values);
        let graph = &mut self.graph;
        let table = graph.bytes("words/table_quantized", &shape, &quantized.values);
        let scale = graph.floats("words/table_scale", &[], &quantized.scales);
        let zero = graph.bytes("words/table_zero_point", &[], &[0]);
        let rows = graph.node("words", "Gather", &[&table, "input_ids"]);
        let name = graph.node("words", "DequantizeLinear", &[&rows, &scale, &zero]);
        Ok(Value::Graph { name, width: shape.last().copied().unwrap_or(0) })
    }

    fn positions(&mut self, table: Leaf, positions: Positions) -> Result<Value, Error> {
        let (table, width) = self.table(table, "positions")?;
        let graph = &mut self.graph;
        let name = match positions {
            Positions::Sequential => {
                let start = graph.ints("positions/start", &[0]);
                let length = self.places.length(graph);
                // The slice's axis is the start's value too.
                graph.node("positions", "Slice", &[&table, &start, &length, &start])
            }
            Positions::After(padding) => {
                let padding = graph.int("positions/padding", padding as i64);
                let axis = graph.int("positions/axis", 1);
                let used = graph.node("positions", "Equal", &["input_ids", &padding]);
                let used = graph.node("positions", "Not", &[&used]);
                let to = [("to", Attribute::Int(DataType::Int64 as i64))];
                let used = graph.node_with("positions", "Cast", &[&used], &to);
                let count = graph.node("positions", "CumSum", &[&used, &axis]);
                let count = graph.node("positions", "Mul", &[&count, &used]);
                let index = graph.node("positions", "Add", &[&count, &padding]);
                graph.node("positions", "Gather", &[&table, &index])
            }
        };
        Ok(Value::Graph { name, width })
    }

    fn types(&mut self, table: Leaf) -> Result<Value, Error> {
        if let [1, width] = *self.shape(table) {
            return Ok(Value::Known(Constant { values: self.leaf(table)?, width }));
        }
        if !self.has_types {
            self.graph.input("token_type_ids", DataType::Int64, &ROWS);
            self.has_types = true;
        }
        let (table, width) = self.table(table, "types")?;
        Ok(Value::Graph { name: self.graph.node("types", "Gather", &[&table, "token_type_ids"]), width })
    }

    fn add(&mut self, a: &Value, b: &Value) -> Result<Value, Error> {
        Ok(self.binary("Add", a, b))
    }

    fn multiply(&mut self, a: &Value, b: &Value) -> Result<Value, Error> {
        Ok(self.binary("Mul", a, b))
    }

    fn linear(&mut self, x: &Value, layer: &Linear) -> Result<Value, Error> {
        let mut weight = self.leaf(layer.weight)?;
        let mut bias = layer.bias.map(|bias| self.leaf(bias)).transpose()?;
        let inputs = self.shape(layer.weight).last().copied().unwrap_or(1);
        if let Some((first, count)) = layer.rows {
            weight = weight[first * inputs..(first + count) * inputs].to_vec();
            bias = bias.map(|bias| bias[first..first + count].to_vec());
        }
        let (name, width) = match x {
            Value::Known(constant) => return Ok(Value::Known(constant.linear(&weight, bias.as_deref()))),
            Value::Graph { name, .. } => (name, weight.len() / inputs.max(1)),
        };
        self.scope = self.layer_name(layer.weight);
        let weight = transposed(&weight, width, inputs);
        let scope = self.scope.clone();
        let name = self.linear.emit(&mut self.graph, &scope, name, &weight, width, bias.as_deref());
        Ok(Value::Graph { name, width })
    }

    fn norm(&mut self, x: &Value, norm: &Norm) -> Result<Value, Error> {
        let weight = self.leaf(norm.weight)?;
        let bias = norm.bias.map(|bias| self.leaf(bias)).transpose()?;
        let x = match x {
            Value::Known(constant) => return Ok(Value::Known(constant.norm(&weight, bias.as_deref(), norm.eps))),
            Value::Graph { name, .. } => name,
        };
        self.scope = self.layer_name(norm.weight);
        let (graph, name) = (&mut self.graph, &self.scope);
        let size = [weight.len()];
        let mut inputs = vec![x.clone(), graph.floats(&format!("{name}/weight"), &size, &weight)];
        if let Some(bias) = &bias {
            inputs.push(graph.floats(&format!("{name}/bias"), &size, bias));
        }
        let inputs: Vec<&str> = inputs.iter().map(String::as_str).collect();
        let attributes = [("axis", Attribute::Int(-1)), ("epsilon", Attribute::Float(norm.eps as f32))];
        let name = graph.node_with(name, "LayerNormalization", &inputs, &attributes);
        Ok(Value::Graph { name, width: size[0] })
    }

    fn activate(&mut self, x: Value, activation: Activation) -> Result<Value, Error> {
        let width = width(&x);
        let x = self.name(&x);
        let name = activation::emit(&mut self.graph, &self.scope, &x, activation, self.opset);
        Ok(Value::Graph { name, width })
    }

    fn dropout(&mut self, x: Value, _probability: f64) -> Result<Value, Error> {
        Ok(x)
    }

    fn dropped(&mut self, x: &Value, _probability: f64) -> Result<Value, Error> {
        Ok(x.clone())
    }

    fn halves(&mut self, x: &Value) -> Result<(Value, Value), Error> {
        let width = width(x) / 2;
        let x = self.name(x);
        let sizes = self.graph.ints(&format!("{}/halves", self.scope), &[width as i64; 2]);
        let last = [("axis", Attribute::Int(-1))];
        let halves = self.graph.node_outputs(&self.scope, "Split", &[&x, &sizes], &last, &["first", "second"]);
        let half = |at: usize| Value::Graph { name: halves[at].clone(), width };
        Ok((half(0), half(1)))
    }

    fn attention(&mut self, joined: &Value, attention: &Attention<'_, Value>) -> Result<Value, Error> {
        self.attend(joined, attention)
    }

    fn distance_bias(&mut self, table: Leaf, buckets: Buckets) -> Result<Value, Error> {
        let rows = self.places.rows(&mut self.graph, buckets, self.longest);
        let (table, width) = self.table(table, "distance_bias")?;
        let graph = &mut self.graph;
        let bias = graph.node("distance_bias", "Gather", &[&table, &rows]);
        let order = [("perm", Attribute::Ints(vec![2, 0, 1]))];
        // [heads, sequence, sequence]: the batch is added by broadcasting.
        Ok(Value::Graph { name: graph.node_with("distance_bias", "Transpose", &[&bias], &order), width })
    }

    fn distance_rows(&mut self, table: Leaf, _buckets: Buckets) -> Result<Value, Error> {
        let width = self.shape(table).last().copied().unwrap_or(0);
        Ok(Value::Known(Constant { values: self.leaf(table)?, width }))
    }

    fn convolve(&mut self, x: &Value, conv: &Conv) -> Result<Value, Error> {
        let width = width(x);
        let x = self.name(x);
        self.scope = self.layer_name(conv.weight);
        let (weight, bias) = (self.leaf(conv.weight)?, self.leaf(conv.bias)?);
        let shape = self.shape(conv.weight).to_vec();
        let (graph, scope) = (&mut self.graph, &self.scope);
        let weight = graph.floats(&format!("{scope}/weight"), &shape, &weight);
        let bias = graph.floats(&format!("{scope}/bias"), &[bias.len()], &bias);
        let swap = [("perm", Attribute::Ints(vec![0, 2, 1]))];
        let padding = (conv.kernel as i64 - 1) / 2;
        let attributes = [
            ("kernel_shape", Attribute::Ints(vec![conv.kernel as i64])),
            ("pads", Attribute::Ints(vec![padding; 2])),
            ("group", Attribute::Int(conv.groups as i64)),
        ];
        let x = graph.node_with(scope, "Transpose", &[&x], &swap);
        let out = graph.node_with(scope, "Conv", &[&x, &weight, &bias], &attributes);
        Ok(Value::Graph { name: graph.node_with(scope, "Transpose", &[&out], &swap), width })
    }

    fn keep_tokens(&mut self, x: Value) -> Result<Value, Error> {
        let width = width(&x);
        let x = self.name(&x);
        let tokens = self.tokens();
        Ok(Value::Graph { name: self.graph.node(&self.scope, "Mul", &[&x, &tokens]), width })
    }

    fn first(&mut self, x: &Value) -> Result<Value, Error> {
        let width = width(x);
        let x = self.name(x);
        let first = self.graph.int("pooling/first", 0);
        let axis = [("axis", Attribute::Int(1))];
        Ok(Value::Graph { name: self.graph.node_with("pooling", "Gather", &[&x, &first], &axis), width })
    }

    fn mean(&mut self, x: &Value) -> Result<Value, Error> {
        let width = width(x);
        let x = self.name(x);
        let tokens = self.tokens();
        let graph = &mut self.graph;
        let axis = graph.ints("pooling/axis", &[1]);
        let flat = [("keepdims", Attribute::Int(0))];
        let kept = graph.node("pooling", "Mul", &[&x, &tokens]);
        let sum = graph.node_with("pooling", "ReduceSum", &[&kept, &axis], &flat);
        let count = graph.node_with("pooling", "ReduceSum", &[&tokens, &axis], &flat);
        Ok(Value::Graph { name: graph.node("pooling", "Div", &[&sum, &count]), width })
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

#[cfg(test)]
mod tests {
    #[test]
    fn transposes() {
        assert_eq!(super::transposed(&[1.0, 2.0, 3.0, 4.0, 5.0, 6.0], 2, 3), [1.0, 4.0, 2.0, 5.0, 3.0, 6.0]);
    }
}
