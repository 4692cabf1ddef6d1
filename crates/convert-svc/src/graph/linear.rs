//! A dense layer, in 32 bits or with dynamic int8 arithmetic in standard operators.

use std::collections::BTreeMap;

use super::builder::{Attribute, GraphBuilder};
use crate::{onnx::tensor_proto::DataType, quantize};

/// Emits dense layers; keeps the quantized form of each value, so that layers with the same input share it.
#[derive(Debug, Default)]
pub(crate) struct Linear {
    int8: bool,
    quantized: BTreeMap<String, [String; 3]>,
}

impl Linear {
    pub(crate) fn new(int8: bool) -> Self {
        Self { int8, quantized: BTreeMap::new() }
    }

    /// `input * weight + bias`, or without bias; weight is `[inputs, outputs]`.
    pub(crate) fn emit(
        &mut self,
        graph: &mut GraphBuilder,
        scope: &str,
        input: &str,
        weight: &[f32],
        outputs: usize,
        bias: Option<&[f32]>,
    ) -> String {
        let dims = [weight.len() / outputs.max(1), outputs];
        let product = if self.int8 {
            self.integer_product(graph, scope, input, weight, dims)
        } else {
            let weight = graph.floats(&format!("{scope}/weight"), &dims, weight);
            graph.node(scope, "MatMul", &[input, &weight])
        };
        let Some(bias) = bias else { return product };
        let bias = graph.floats(&format!("{scope}/bias"), &[outputs], bias);
        graph.node(scope, "Add", &[&product, &bias])
    }

    /// The form that ONNX Runtime's quantizer writes and its optimizer folds: MatMulInteger, Cast, Mul by both scales.
    fn integer_product(
        &mut self,
        graph: &mut GraphBuilder,
        scope: &str,
        input: &str,
        weight: &[f32],
        dims: [usize; 2],
    ) -> String {
        let [value, value_scale, value_zero] = self
            .quantized
            .entry(input.to_owned())
            .or_insert_with(|| {
                let outputs = graph.node_outputs(
                    input,
                    "DynamicQuantizeLinear",
                    &[input],
                    &[],
                    &["quantized", "scale", "zero_point"],
                );
                <[String; 3]>::try_from(outputs).unwrap_or_default()
            })
            .clone();
        let quantized = quantize::per_column(weight, dims[1]);
        let weight = graph.bytes(&format!("{scope}/weight_quantized"), &dims, &quantized.values);
        let scale = graph.floats(&format!("{scope}/weight_scale"), &[dims[1]], &quantized.scales);
        let zero = graph.bytes(&format!("{scope}/weight_zero_point"), &[dims[1]], &vec![0; dims[1]]);
        let sums = graph.node(scope, "MatMulInteger", &[&value, &weight, &value_zero, &zero]);
        let sums = graph.node_with(scope, "Cast", &[&sums], &[("to", Attribute::Int(DataType::Float as i64))]);
        let scales = graph.node(scope, "Mul", &[&value_scale, &scale]);
        graph.node(scope, "Mul", &[&sums, &scales])
    }
}
