//! Encoders: for each family one description of its configuration, its tensors and its arithmetic.
//!
//! A family is a file with a type that is an [`Architecture`], and a line in the list below. Training and conversion both take what
//! they know of an encoder from here: [`EncoderConfig`] reads and writes `config.json`, [`Encoder::new`] lists the tensors, and
//! [`Encoder::forward`] is the forward pass over the operations of [`Ops`], which can also be computed piece by piece.
//!
//! Arithmetic, places of dropout and defaults are those of `transformers` 4.57 (`modeling_*.py`, `configuration_*.py`).
mod bert;
mod config;
mod deberta;
mod distance;
mod distilbert;
mod electra;
mod fields;
mod layout;
mod modernbert;
mod mpnet;
mod ops;
mod post_norm;
mod roberta;
#[cfg(test)]
mod tests;

pub use bert::{Bert, PositionEmbedding};
pub use config::{Base, EncoderConfig};
pub use deberta::Deberta;
pub use distance::Buckets;
pub use distilbert::DistilBert;
pub use electra::Electra;
pub use fields::Visit;
pub use layout::{Conv, CrfLeaves, Init, Layout, Leaf, LeafSpec, Linear, Norm, TensorSpec};
pub use modernbert::ModernBert;
pub use mpnet::MpNet;
pub use ops::{Activation, Attention, LAPLACE_DEVIATION, LAPLACE_MEAN, Mask, Ops, Positions, Relative};
pub use roberta::Roberta;

use crate::{Error, task::Task};

/// The head to describe.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Head {
    /// None: the encoder's hidden states.
    None,
    /// Logits [rows, length, labels].
    Token {
        /// Labels.
        labels: usize,
    },
    /// Logits [rows, labels].
    Sequence {
        /// Labels.
        labels: usize,
    },
}

/// A family of encoders.
pub trait Architecture: Clone + Sized {
    /// Handles of the tensors.
    type Tensors;
    /// Values of `model_type`.
    const MODEL_TYPES: &'static [&'static str];
    /// What the names of the base model's tensors begin with in a file that has a head.
    const PREFIX: &'static str;

    /// The configuration with the defaults of `transformers` for one of [`Self::MODEL_TYPES`].
    fn defaults(model_type: &str) -> (Self, Base);
    /// Its `model_type`.
    fn model_type(&self) -> &'static str;
    /// What the classes of `transformers` are called, such as `Bert` in `BertModel`.
    fn class(&self) -> &'static str;
    /// Goes through its fields and those of `base` under the names that `config.json` has for them.
    fn visit(&mut self, base: &mut Base, fields: &mut impl Visit) -> Result<(), Error>;
    /// The first field whose value cannot be computed, and what is wrong with it.
    fn problem(&self, base: &Base) -> Option<(&'static str, String)>;
    /// The same, of fields that a sequence head alone needs.
    fn sequence_problem(&self, _base: &Base) -> Option<(&'static str, String)> {
        None
    }
    /// Its name for a field of [`Base`].
    fn key(field: &'static str) -> &'static str {
        field
    }
    /// The longest input in sub-tokens.
    fn max_length(&self, base: &Base) -> usize {
        base.max_position_embeddings
    }
    /// Sets its own dropout of embeddings, sublayer outputs and the head.
    fn set_dropout(&mut self, probability: f64);
    /// Declares its tensors, the word table first.
    fn declare(&self, base: &Base, head: Head, layout: &mut Layout) -> Self::Tensors;
    /// The embeddings.
    fn embed<O: Ops>(&self, base: &Base, tensors: &Self::Tensors, ops: &mut O) -> Result<Embedded<O::Value>, O::Error>;
    /// The output of a layer, counted from 0.
    fn layer<O: Ops>(
        &self,
        base: &Base,
        tensors: &Self::Tensors,
        index: usize,
        input: Input<'_, O::Value>,
        ops: &mut O,
    ) -> Result<O::Value, O::Error>;
    /// What follows the layers: logits, or hidden states without a head.
    fn head<O: Ops>(
        &self,
        base: &Base,
        tensors: &Self::Tensors,
        hidden: O::Value,
        ops: &mut O,
    ) -> Result<O::Value, O::Error>;
}

/// What the layers begin with.
#[derive(Debug)]
pub struct Embedded<V> {
    /// Input of the first layer.
    pub hidden: V,
    /// What every layer uses beside its input: what distances add, or the rows that say it.
    pub shared: Option<V>,
}

/// What a layer computes with.
#[derive(Debug)]
pub struct Input<'a, V> {
    /// Output of the layer below, or the embeddings.
    pub hidden: &'a V,
    /// See [`Embedded::shared`].
    pub shared: Option<&'a V>,
}

macro_rules! families {
    ($($(#[$doc:meta])* $name:ident),* $(,)?) => {
        /// The families, each with what it alone has in its configuration.
        #[derive(Debug, Clone, PartialEq)]
        pub enum Family {
            $($(#[$doc])* $name($name),)*
        }

        /// A family with the handles of its tensors.
        enum Bound {
            $($name($name, <$name as Architecture>::Tensors),)*
        }

        impl Bound {
            fn embed<O: Ops>(&self, base: &Base, ops: &mut O) -> Result<Embedded<O::Value>, O::Error> {
                match self { $(Self::$name(family, tensors) => family.embed(base, tensors, ops),)* }
            }

            fn layer<O: Ops>(
                &self,
                base: &Base,
                index: usize,
                input: Input<'_, O::Value>,
                ops: &mut O,
            ) -> Result<O::Value, O::Error> {
                match self { $(Self::$name(family, tensors) => family.layer(base, tensors, index, input, ops),)* }
            }

            fn head<O: Ops>(&self, base: &Base, hidden: O::Value, ops: &mut O) -> Result<O::Value, O::Error> {
                match self { $(Self::$name(family, tensors) => family.head(base, tensors, hidden, ops),)* }
            }
        }

        impl Family {
            /// Every value of `model_type` that is known.
            pub fn model_types() -> Vec<&'static str> {
                [$(<$name as Architecture>::MODEL_TYPES),*].concat()
            }

            /// The defaults for a `model_type`.
            fn named(model_type: &str) -> Option<(Self, Base)> {
                $(if <$name as Architecture>::MODEL_TYPES.contains(&model_type) {
                    let (family, base) = <$name as Architecture>::defaults(model_type);
                    return Some((Self::$name(family), base));
                })*
                None
            }

            /// Its `model_type`.
            pub fn model_type(&self) -> &'static str {
                match self { $(Self::$name(family) => family.model_type(),)* }
            }

            /// What the names of the base model's tensors begin with in a file that has a head.
            pub fn prefix(&self) -> &'static str {
                match self { $(Self::$name(_) => <$name as Architecture>::PREFIX,)* }
            }

            fn class(&self) -> &'static str {
                match self { $(Self::$name(family) => family.class(),)* }
            }

            fn visit(&mut self, base: &mut Base, fields: &mut impl Visit) -> Result<(), Error> {
                match self { $(Self::$name(family) => family.visit(base, fields),)* }
            }

            fn problem(&self, base: &Base) -> Option<(&'static str, String)> {
                match self { $(Self::$name(family) => family.problem(base),)* }
            }

            fn sequence_problem(&self, base: &Base) -> Option<(&'static str, String)> {
                match self { $(Self::$name(family) => family.sequence_problem(base),)* }
            }

            fn key(&self, field: &'static str) -> &'static str {
                match self { $(Self::$name(_) => <$name as Architecture>::key(field),)* }
            }

            fn max_length(&self, base: &Base) -> usize {
                match self { $(Self::$name(family) => family.max_length(base),)* }
            }

            fn set_dropout(&mut self, probability: f64) {
                match self { $(Self::$name(family) => family.set_dropout(probability),)* }
            }

            fn declare(&self, base: &Base, head: Head, layout: &mut Layout) -> Bound {
                match self {
                    $(Self::$name(family) => Bound::$name(family.clone(), family.declare(base, head, layout)),)*
                }
            }
        }
    };
}

families! {
    /// BERT (Devlin et al. 2019).
    Bert,
    /// RoBERTa (Liu et al. 2019) and XLM-RoBERTa (Conneau et al. 2020).
    Roberta,
    /// DistilBERT (Sanh et al. 2019).
    DistilBert,
    /// ELECTRA (Clark et al. 2020), the discriminator.
    Electra,
    /// DeBERTa-v2 and v3 (He et al. 2021).
    Deberta,
    /// MPNet (Song et al. 2020).
    MpNet,
    /// ModernBERT (Warner et al. 2024).
    ModernBert,
}

/// An encoder with the head that its configuration asks for.
pub struct Encoder {
    base: Base,
    bound: Bound,
    crf: Option<CrfLeaves>,
}

impl Encoder {
    /// The computation and its tensors.
    pub fn new(config: &EncoderConfig) -> (Self, Layout) {
        let labels = config.labels.len();
        let head = match config.task {
            None => Head::None,
            Some(Task::TokenClassification) => Head::Token { labels },
            Some(_) => Head::Sequence { labels },
        };
        let mut layout = Layout::new(config.family.prefix(), config.base.initializer_range);
        let bound = config.family.declare(&config.base, head, &mut layout);
        // Behind the head, in its place.
        let crf = config.has_crf().then(|| layout.crf(labels));
        (Self { base: config.base.clone(), bound, crf }, layout)
    }

    /// The scores of the head's CRF, where it has one. The forward pass gives the emissions alone.
    pub fn crf(&self) -> Option<CrfLeaves> {
        self.crf
    }

    /// The forward pass: logits, or hidden states without a head. It is [`Self::embed`], every [`Self::layer`] and [`Self::head`].
    pub fn forward<O: Ops>(&self, ops: &mut O) -> Result<O::Value, O::Error> {
        let Embedded { mut hidden, shared } = self.embed(ops)?;
        for index in 0..self.layers() {
            hidden = self.layer(index, Input { hidden: &hidden, shared: shared.as_ref() }, ops)?;
        }
        self.head(hidden, ops)
    }

    /// Number of layers.
    pub fn layers(&self) -> usize {
        self.base.num_hidden_layers
    }

    /// The embeddings.
    pub fn embed<O: Ops>(&self, ops: &mut O) -> Result<Embedded<O::Value>, O::Error> {
        self.bound.embed(&self.base, ops)
    }

    /// A layer, counted from 0 and below [`Self::layers`].
    pub fn layer<O: Ops>(&self, index: usize, input: Input<'_, O::Value>, ops: &mut O) -> Result<O::Value, O::Error> {
        self.bound.layer(&self.base, index, input, ops)
    }

    /// What follows the layers: logits, or hidden states without a head.
    pub fn head<O: Ops>(&self, hidden: O::Value, ops: &mut O) -> Result<O::Value, O::Error> {
        self.bound.head(&self.base, hidden, ops)
    }
}

impl EncoderConfig {
    /// All tensors of the encoder and of the head that the configuration asks for.
    pub fn layout(&self) -> Layout {
        Encoder::new(self).1
    }
}
