//! Activations as operators of an opset.
use quintet_nlp::encoder::Activation;

use super::builder::{Attribute, GraphBuilder};

/// Emits an activation; GELU is an operator from opset 20 on, and spelled out below as ONNX Runtime's fusions know it. The graph has a
/// scalar `one`.
pub(super) fn emit(graph: &mut GraphBuilder, scope: &str, x: &str, activation: Activation, opset: i32) -> String {
    let operator = opset >= 20;
    match activation {
        Activation::Linear => x.to_owned(),
        Activation::Relu => graph.node(scope, "Relu", &[x]),
        Activation::Tanh => graph.node(scope, "Tanh", &[x]),
        Activation::Sigmoid => graph.node(scope, "Sigmoid", &[x]),
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
        Activation::Mish => {
            let gate = graph.node(scope, "Softplus", &[x]);
            let gate = graph.node(scope, "Tanh", &[&gate]);
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
