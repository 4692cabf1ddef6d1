//! Activations as operators of an opset.
use quintet_nlp::encoder::{Activation, LAPLACE_DEVIATION, LAPLACE_MEAN};

use super::builder::{Attribute, GraphBuilder};

/// Emits an activation; GELU is an operator from opset 20 on, and spelled out below as ONNX Runtime's fusions know it. The graph has a
/// scalar `one`.
pub(super) fn emit(graph: &mut GraphBuilder, scope: &str, x: &str, activation: Activation, opset: i32) -> String {
    let operator = opset >= 20;
    match activation {
        Activation::Linear => x.to_owned(),
        Activation::Relu => graph.node(scope, "Relu", &[x]),
        Activation::Relu2 => {
            let kept = graph.node(scope, "Relu", &[x]);
            graph.node(scope, "Mul", &[&kept, &kept])
        }
        Activation::Relu6 => {
            let [least, most] = bounds(graph, scope, [0.0, 6.0]);
            graph.node(scope, "Clip", &[x, &least, &most])
        }
        Activation::LeakyRelu => graph.node_with(scope, "LeakyRelu", &[x], &[("alpha", Attribute::Float(0.01))]),
        Activation::Gelu10 => {
            let gelu = emit(graph, scope, x, Activation::Gelu, opset);
            let [least, most] = bounds(graph, scope, [-10.0, 10.0]);
            graph.node(scope, "Clip", &[&gelu, &least, &most])
        }
        Activation::Laplace => {
            let spread = LAPLACE_DEVIATION * std::f64::consts::SQRT_2;
            let constants = [("mean", LAPLACE_MEAN as f32), ("spread", spread as f32), ("half", 0.5)];
            let [mean, spread, half] =
                constants.map(|(name, value)| graph.floats(&format!("{scope}/{name}"), &[], &[value]));
            let centred = graph.node(scope, "Sub", &[x, &mean]);
            let scaled = graph.node(scope, "Div", &[&centred, &spread]);
            let erf = graph.node(scope, "Erf", &[&scaled]);
            let sum = graph.node(scope, "Add", &[&erf, "one"]);
            graph.node(scope, "Mul", &[&sum, &half])
        }
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

/// Constants for the least and the most.
fn bounds(graph: &mut GraphBuilder, scope: &str, values: [f32; 2]) -> [String; 2] {
    let [least, most] = values;
    [("least", least), ("most", most)].map(|(name, value)| graph.floats(&format!("{scope}/{name}"), &[], &[value]))
}
