//! ELECTRA: BERT with embeddings that may be narrower than the layers, and another sequence head.
use super::{
    Architecture, Embedded, Head, Input,
    bert::{Bert, Embeddings, Layer},
    config::Base,
    fields::Visit,
    layout::{Layout, Linear},
    ops::{Activation, Ops, Positions},
    post_norm::{self, PlainHead, Pooling},
    roberta::projecting_head,
};
use crate::Error;

/// What ELECTRA has in its configuration beside [`Base`].
#[derive(Debug, Clone, PartialEq)]
pub struct Electra {
    /// Fields shared with BERT.
    pub bert: Bert,
    /// Width of the embeddings.
    pub embedding_size: usize,
}

/// Tensors of ELECTRA.
pub struct ElectraTensors {
    embeddings: Embeddings,
    project: Option<Linear>,
    layers: Vec<Layer>,
    head: PlainHead,
}

impl Architecture for Electra {
    type Tensors = ElectraTensors;
    const MODEL_TYPES: &'static [&'static str] = &["electra"];
    const PREFIX: &'static str = "electra.";

    fn defaults(_model_type: &str) -> (Self, Base) {
        let base =
            Base { hidden_size: 256, num_attention_heads: 4, intermediate_size: 1024, ..post_norm::defaults(30522, 0) };
        (Self { bert: Bert::default(), embedding_size: 128 }, base)
    }

    fn model_type(&self) -> &'static str {
        "electra"
    }

    fn class(&self) -> &'static str {
        "Electra"
    }

    fn visit(&mut self, base: &mut Base, fields: &mut impl Visit) -> Result<(), Error> {
        self.bert.visit_fields(base, fields)?;
        fields.count("embedding_size", &mut self.embedding_size)
    }

    fn problem(&self, _base: &Base) -> Option<(&'static str, String)> {
        None
    }

    fn set_dropout(&mut self, probability: f64) {
        self.bert.set_dropout(probability);
    }

    fn declare(&self, base: &Base, head: Head, layout: &mut Layout) -> ElectraTensors {
        let (width, hidden) = (self.embedding_size, base.hidden_size);
        let embeddings = self.bert.declare_embeddings(base, width, layout);
        let project = (width != hidden).then(|| layout.linear("embeddings_project", hidden, width));
        let layers = self.bert.declare_layers(base, layout);
        ElectraTensors { embeddings, project, layers, head: projecting_head(base, head, layout) }
    }

    fn embed<O: Ops>(
        &self,
        base: &Base,
        tensors: &ElectraTensors,
        ops: &mut O,
    ) -> Result<Embedded<O::Value>, O::Error> {
        let mut hidden = self.bert.embeddings(base, &tensors.embeddings, Positions::Sequential, ops)?;
        if let Some(project) = &tensors.project {
            hidden = ops.linear(&hidden, project)?;
        }
        Ok(Embedded { hidden, shared: None })
    }

    fn layer<O: Ops>(
        &self,
        base: &Base,
        tensors: &ElectraTensors,
        index: usize,
        input: Input<'_, O::Value>,
        ops: &mut O,
    ) -> Result<O::Value, O::Error> {
        self.bert.block(base, &tensors.layers[index], input.hidden, ops)
    }

    fn head<O: Ops>(
        &self,
        base: &Base,
        tensors: &ElectraTensors,
        hidden: O::Value,
        ops: &mut O,
    ) -> Result<O::Value, O::Error> {
        let dropout = self.bert.head_dropout(base);
        let pooling = Pooling { first_dropout: dropout, activation: Activation::Gelu, last_dropout: dropout };
        tensors.head.forward(ops, hidden, dropout, &pooling)
    }
}
