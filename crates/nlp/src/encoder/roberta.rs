//! RoBERTa and XLM-RoBERTa: BERT with positions counted from the padding token's id, and another sequence head.
use super::{
    Architecture, Embedded, Head, Input,
    bert::{Bert, Embeddings, Layer},
    config::Base,
    fields::Visit,
    layout::Layout,
    ops::{Activation, Ops, Positions},
    post_norm::{self, PlainHead, Pooling},
};
use crate::Error;

/// What RoBERTa has in its configuration beside [`Base`].
#[derive(Debug, Clone, PartialEq)]
pub struct Roberta {
    /// Fields shared with BERT.
    pub bert: Bert,
    /// Whether it is XLM-RoBERTa: the same computation under another name.
    pub multilingual: bool,
}

/// Tensors of RoBERTa.
pub struct RobertaTensors {
    embeddings: Embeddings,
    layers: Vec<Layer>,
    head: PlainHead,
}

impl Architecture for Roberta {
    type Tensors = RobertaTensors;
    const MODEL_TYPES: &'static [&'static str] = &["roberta", "xlm-roberta"];
    const PREFIX: &'static str = "roberta.";

    fn defaults(model_type: &str) -> (Self, Base) {
        let multilingual = model_type == "xlm-roberta";
        let vocab_size = if multilingual { 30522 } else { 50265 };
        (Self { bert: Bert::default(), multilingual }, post_norm::defaults(vocab_size, 1))
    }

    fn model_type(&self) -> &'static str {
        if self.multilingual { "xlm-roberta" } else { "roberta" }
    }

    fn class(&self) -> &'static str {
        if self.multilingual { "XLMRoberta" } else { "Roberta" }
    }

    fn visit(&mut self, base: &mut Base, fields: &mut impl Visit) -> Result<(), Error> {
        self.bert.visit_fields(base, fields)
    }

    fn problem(&self, base: &Base) -> Option<(&'static str, String)> {
        let Some(padding) = base.pad_token_id else {
            return Some(("pad_token_id", "found null, expected a token: positions are counted from it".to_owned()));
        };
        let (found, least) = (base.max_position_embeddings, padding + 2);
        (found < least).then(|| {
            let problem = format!("found {found}, but positions begin at pad_token_id + 1: {least} or more are needed");
            ("max_position_embeddings", problem)
        })
    }

    fn max_length(&self, base: &Base) -> usize {
        base.max_position_embeddings - base.filler() - 1
    }

    fn set_dropout(&mut self, probability: f64) {
        self.bert.set_dropout(probability);
    }

    fn declare(&self, base: &Base, head: Head, layout: &mut Layout) -> RobertaTensors {
        let embeddings = self.bert.declare_embeddings(base, base.hidden_size, layout);
        let layers = self.bert.declare_layers(base, layout);
        RobertaTensors { embeddings, layers, head: projecting_head(base, head, layout) }
    }

    fn embed<O: Ops>(
        &self,
        base: &Base,
        tensors: &RobertaTensors,
        ops: &mut O,
    ) -> Result<Embedded<O::Value>, O::Error> {
        let positions = Positions::After(base.filler());
        let hidden = self.bert.embeddings(base, &tensors.embeddings, positions, ops)?;
        Ok(Embedded { hidden, shared: None })
    }

    fn layer<O: Ops>(
        &self,
        base: &Base,
        tensors: &RobertaTensors,
        index: usize,
        input: Input<'_, O::Value>,
        ops: &mut O,
    ) -> Result<O::Value, O::Error> {
        self.bert.block(base, &tensors.layers[index], input.hidden, ops)
    }

    fn head<O: Ops>(
        &self,
        base: &Base,
        tensors: &RobertaTensors,
        hidden: O::Value,
        ops: &mut O,
    ) -> Result<O::Value, O::Error> {
        let dropout = self.bert.head_dropout(base);
        let pooling = Pooling { first_dropout: dropout, activation: Activation::Tanh, last_dropout: dropout };
        tensors.head.forward(ops, hidden, dropout, &pooling)
    }
}

/// The head of RoBERTa, ELECTRA and MPNet: `classifier` for tokens, `classifier.dense` and `classifier.out_proj` for sequences.
pub(super) fn projecting_head(base: &Base, head: Head, layout: &mut Layout) -> PlainHead {
    let hidden = base.hidden_size;
    layout.head(base.num_hidden_layers);
    match head {
        Head::None => PlainHead::None,
        Head::Token { labels } => PlainHead::Token(layout.classifier("classifier", labels, hidden)),
        Head::Sequence { labels } => {
            let dense = layout.linear("classifier.dense", hidden, hidden);
            PlainHead::Sequence(dense, layout.classifier("classifier.out_proj", labels, hidden))
        }
    }
}
