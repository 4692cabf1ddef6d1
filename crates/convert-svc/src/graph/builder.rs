//! Builds an ONNX graph node by node; every value is a name, and every method that adds a node gives the name of its output.

use std::collections::BTreeMap;

use crate::onnx::{
    AttributeProto, GraphProto, ModelProto, NodeProto, OperatorSetIdProto, StringStringEntryProto, TensorProto,
    TensorShapeProto, TypeProto, ValueInfoProto, attribute_proto::AttributeType, tensor_proto::DataType,
    tensor_shape_proto::Dimension, tensor_shape_proto::dimension, type_proto,
};

/// One axis of an input or output.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Axis {
    /// Any size, by this name.
    Dynamic(&'static str),
    /// This size.
    Fixed(usize),
}

/// An attribute of a node.
#[derive(Clone, Debug)]
pub(crate) enum Attribute {
    Int(i64),
    Float(f32),
    Ints(Vec<i64>),
    Text(&'static str),
}

/// A graph under construction.
#[derive(Debug, Default)]
pub(crate) struct GraphBuilder {
    graph: GraphProto,
    counts: BTreeMap<String, usize>,
}

impl GraphBuilder {
    pub(crate) fn new(name: &str) -> Self {
        Self { graph: GraphProto { name: Some(name.to_owned()), ..GraphProto::default() }, counts: BTreeMap::new() }
    }

    /// Declares an input of the graph.
    pub(crate) fn input(&mut self, name: &str, kind: DataType, axes: &[Axis]) {
        self.graph.input.push(value_info(name, kind, axes));
    }

    /// Declares an output of the graph; a node must have that name as its output.
    pub(crate) fn output(&mut self, name: &str, kind: DataType, axes: &[Axis]) {
        self.graph.output.push(value_info(name, kind, axes));
    }

    /// Adds a node `scope/operator` with one output of the same name.
    pub(crate) fn node(&mut self, scope: &str, operator: &str, inputs: &[&str]) -> String {
        self.node_with(scope, operator, inputs, &[])
    }

    /// Like [`Self::node`], with attributes.
    pub(crate) fn node_with(
        &mut self,
        scope: &str,
        operator: &str,
        inputs: &[&str],
        attributes: &[(&'static str, Attribute)],
    ) -> String {
        let output = self.unique(scope, operator);
        self.push(&output, operator, inputs, vec![output.clone()], attributes);
        output
    }

    /// Adds a node with `count` outputs.
    pub(crate) fn node_outputs(
        &mut self,
        scope: &str,
        operator: &str,
        inputs: &[&str],
        attributes: &[(&'static str, Attribute)],
        outputs: &[&str],
    ) -> Vec<String> {
        let name = self.unique(scope, operator);
        let outputs: Vec<String> = outputs.iter().map(|output| format!("{name}/{output}")).collect();
        self.push(&name, operator, inputs, outputs.clone(), attributes);
        outputs
    }

    /// Adds a node whose output is this output of the graph.
    pub(crate) fn output_node(&mut self, output: &str, operator: &str, inputs: &[&str]) {
        let name = self.unique(output, operator);
        self.push(&name, operator, inputs, vec![output.to_owned()], &[]);
    }

    /// Adds float constants; `dims` empty for a scalar.
    pub(crate) fn floats(&mut self, name: &str, dims: &[usize], values: &[f32]) -> String {
        let raw = values.iter().flat_map(|value| value.to_le_bytes()).collect();
        self.initializer(name, DataType::Float, dims, raw)
    }

    /// Adds int64 constants in one axis.
    pub(crate) fn ints(&mut self, name: &str, values: &[i64]) -> String {
        let raw = values.iter().flat_map(|value| value.to_le_bytes()).collect();
        self.initializer(name, DataType::Int64, &[values.len()], raw)
    }

    /// Adds an int64 scalar.
    pub(crate) fn int(&mut self, name: &str, value: i64) -> String {
        self.initializer(name, DataType::Int64, &[], value.to_le_bytes().to_vec())
    }

    /// Adds int8 constants.
    pub(crate) fn bytes(&mut self, name: &str, dims: &[usize], values: &[i8]) -> String {
        let raw = values.iter().map(|value| value.cast_unsigned()).collect();
        self.initializer(name, DataType::Int8, dims, raw)
    }

    /// Ends the graph and wraps it into a model.
    pub(crate) fn build(self, opset: i64, metadata: &[(String, String)]) -> ModelProto {
        ModelProto {
            ir_version: Some(ir_version(opset)),
            opset_import: vec![OperatorSetIdProto { domain: Some(String::new()), version: Some(opset) }],
            producer_name: Some("quintet".to_owned()),
            producer_version: Some(env!("CARGO_PKG_VERSION").to_owned()),
            graph: Some(self.graph),
            metadata_props: metadata
                .iter()
                .map(|(key, value)| StringStringEntryProto { key: Some(key.clone()), value: Some(value.clone()) })
                .collect(),
            ..ModelProto::default()
        }
    }

    fn unique(&mut self, scope: &str, operator: &str) -> String {
        let base = format!("{scope}/{operator}");
        let count = self.counts.entry(base.clone()).or_default();
        *count += 1;
        if *count == 1 { base } else { format!("{base}_{count}") }
    }

    fn initializer(&mut self, name: &str, kind: DataType, dims: &[usize], raw: Vec<u8>) -> String {
        self.graph.initializer.push(TensorProto {
            name: Some(name.to_owned()),
            data_type: Some(kind.into()),
            dims: dims.iter().map(|size| *size as i64).collect(),
            raw_data: Some(raw),
            ..TensorProto::default()
        });
        name.to_owned()
    }

    fn push(
        &mut self,
        name: &str,
        operator: &str,
        inputs: &[&str],
        output: Vec<String>,
        attributes: &[(&'static str, Attribute)],
    ) {
        self.graph.node.push(NodeProto {
            name: Some(name.to_owned()),
            op_type: Some(operator.to_owned()),
            input: inputs.iter().map(|input| (*input).to_owned()).collect(),
            output,
            attribute: attributes.iter().map(|(name, value)| attribute(name, value)).collect(),
            ..NodeProto::default()
        });
    }
}

/// The IR version that came with an opset: a reader of that opset can read the file.
pub(crate) fn ir_version(opset: i64) -> i64 {
    match opset {
        ..=18 => 8,
        19..=20 => 9,
        21..=22 => 10,
        23 => 11,
        _ => 12,
    }
}

fn attribute(name: &str, value: &Attribute) -> AttributeProto {
    let mut attribute = AttributeProto { name: Some(name.to_owned()), ..AttributeProto::default() };
    let kind = match value {
        Attribute::Int(int) => {
            attribute.i = Some(*int);
            AttributeType::Int
        }
        Attribute::Float(float) => {
            attribute.f = Some(*float);
            AttributeType::Float
        }
        Attribute::Ints(ints) => {
            attribute.ints.clone_from(ints);
            AttributeType::Ints
        }
        Attribute::Text(text) => {
            attribute.s = Some(text.as_bytes().to_vec());
            AttributeType::String
        }
    };
    attribute.r#type = Some(kind.into());
    attribute
}

fn value_info(name: &str, kind: DataType, axes: &[Axis]) -> ValueInfoProto {
    let dim = axes
        .iter()
        .map(|axis| Dimension {
            value: Some(match axis {
                Axis::Dynamic(name) => dimension::Value::DimParam((*name).to_owned()),
                Axis::Fixed(size) => dimension::Value::DimValue(*size as i64),
            }),
            denotation: None,
        })
        .collect();
    let tensor = type_proto::Tensor { elem_type: Some(kind.into()), shape: Some(TensorShapeProto { dim }) };
    ValueInfoProto {
        name: Some(name.to_owned()),
        r#type: Some(TypeProto { value: Some(type_proto::Value::TensorType(tensor)), denotation: None }),
        ..ValueInfoProto::default()
    }
}
