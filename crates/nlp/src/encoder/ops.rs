//! The operations that encoders are made of. A family's forward pass is written once over this trait; the training engine computes
//! it with tensors, the converter writes it as a graph.
use super::{
    distance::Buckets,
    layout::{Conv, Leaf, Linear, Norm},
};

/// Activation functions, under the names of `transformers`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Activation {
    /// `gelu`: x/2 * (1 + erf(x / sqrt 2)).
    #[default]
    Gelu,
    /// `gelu_new`, `gelu_pytorch_tanh`, `gelu_fast`, `gelu_accurate`: the approximation by tanh.
    GeluTanh,
    /// `quick_gelu`: x * sigmoid(1.702 x).
    QuickGelu,
    /// `relu`.
    Relu,
    /// `silu`, `swish`: x * sigmoid(x).
    Silu,
    /// `mish`: x * tanh(ln(1 + exp x)).
    Mish,
    /// `tanh`.
    Tanh,
    /// `sigmoid`.
    Sigmoid,
    /// `linear`: x.
    Linear,
    /// `relu2`: relu(x)².
    Relu2,
    /// `relu6`: relu(x), 6 at most.
    Relu6,
    /// `leaky_relu`: x, a hundredth of it below 0.
    LeakyRelu,
    /// `gelu_10`: gelu(x) between -10 and 10.
    Gelu10,
    /// `laplace`: (1 + erf((x - [`LAPLACE_MEAN`]) / ([`LAPLACE_DEVIATION`] sqrt 2))) / 2 (Ma et al. 2022).
    Laplace,
}

/// Where [`Activation::Laplace`] is a half: sqrt(1/2), as `transformers` rounds it.
#[expect(clippy::approx_constant, reason = "six digits, as there")]
pub const LAPLACE_MEAN: f64 = 0.707_107;
/// How slowly [`Activation::Laplace`] rises: sqrt(1 / (4 pi)), as `transformers` rounds it.
pub const LAPLACE_DEVIATION: f64 = 0.282_095;

/// Names in `config.json`; the first of each activation is the one written.
pub(super) const ACTIVATIONS: [(&str, Activation); 21] = [
    ("gelu", Activation::Gelu),
    ("gelu_python", Activation::Gelu),
    ("gelu_new", Activation::GeluTanh),
    ("gelu_pytorch_tanh", Activation::GeluTanh),
    ("gelu_python_tanh", Activation::GeluTanh),
    ("gelu_fast", Activation::GeluTanh),
    ("gelu_accurate", Activation::GeluTanh),
    ("quick_gelu", Activation::QuickGelu),
    ("relu", Activation::Relu),
    ("silu", Activation::Silu),
    ("swish", Activation::Silu),
    ("mish", Activation::Mish),
    ("tanh", Activation::Tanh),
    ("sigmoid", Activation::Sigmoid),
    ("linear", Activation::Linear),
    ("identity", Activation::Linear),
    ("relu2", Activation::Relu2),
    ("relu6", Activation::Relu6),
    ("leaky_relu", Activation::LeakyRelu),
    ("gelu_10", Activation::Gelu10),
    ("laplace", Activation::Laplace),
];

/// Rows of a position table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Positions {
    /// 0, 1, 2, ...
    Sequential,
    /// Tokens other than this one count from it on; the token itself has its own id as position (as in fairseq). The row of this
    /// id gets no gradient.
    After(usize),
}

/// Which scores of query i and key j are left out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Mask {
    /// Those of padded keys.
    Keys,
    /// Those of padded keys and those of padded queries, whose shares are then all alike.
    Pairs,
    /// Those of padded keys, and of keys farther away than this.
    Window(usize),
}

/// What the distance of query and key adds to their score.
#[derive(Debug)]
pub enum Relative<'a, V> {
    /// Nothing.
    None,
    /// A number by head, [1, heads, length, length], after scaling.
    Bias(&'a V),
    /// Query · row of the distance's bucket, and key · row too with `keys` (Shaw et al. 2018, Huang et al. 2020), scaled like query · key.
    Rows {
        /// [buckets, head size].
        table: Leaf,
        /// Bucket of a distance.
        buckets: Buckets,
        /// Whether keys count too.
        keys: bool,
    },
    /// Disentangled attention (He et al. 2021): query · position key, and key · position query, scaled like query · key.
    Disentangled {
        /// Position keys [rows, heads * head size] of the rows of [`Ops::distance_rows`].
        keys: Option<&'a V>,
        /// Position queries likewise.
        queries: Option<&'a V>,
        /// Bucket of a distance.
        buckets: Buckets,
    },
}

/// Self-attention over joined queries, keys and values.
#[derive(Debug)]
pub struct Attention<'a, V> {
    /// Heads.
    pub heads: usize,
    /// Width of a head.
    pub head_size: usize,
    /// Scores are multiplied by this.
    pub scale: f64,
    /// Dropout of the shares.
    pub dropout: f64,
    /// What is left out.
    pub mask: Mask,
    /// What distances add.
    pub relative: Relative<'a, V>,
    /// Base of rotary positions (Su et al. 2021) of queries and keys, halves rotated.
    pub rotary: Option<f64>,
}

/// The computation of one batch. Values are [rows, length, width] unless said otherwise; operations know the batch's ids, mask and
/// token types, and the weights by their leaves.
pub trait Ops {
    /// A tensor, or the name of one.
    type Value;
    /// What can fail.
    type Error;

    /// Rows of the word table by the token ids; the row of `padding`, where there is one, gets no gradient.
    fn words(&mut self, table: Leaf, padding: Option<usize>) -> Result<Self::Value, Self::Error>;
    /// Rows of a position table, [length, width] or [rows, length, width].
    fn positions(&mut self, table: Leaf, positions: Positions) -> Result<Self::Value, Self::Error>;
    /// Rows of a table by the token types, [1, width] or [rows, length, width].
    fn types(&mut self, table: Leaf) -> Result<Self::Value, Self::Error>;
    /// Elementwise sum.
    fn add(&mut self, a: &Self::Value, b: &Self::Value) -> Result<Self::Value, Self::Error>;
    /// Elementwise product.
    fn multiply(&mut self, a: &Self::Value, b: &Self::Value) -> Result<Self::Value, Self::Error>;
    /// x · weightᵀ + bias.
    fn linear(&mut self, x: &Self::Value, layer: &Linear) -> Result<Self::Value, Self::Error>;
    /// LayerNorm over the last axis.
    fn norm(&mut self, x: &Self::Value, norm: &Norm) -> Result<Self::Value, Self::Error>;
    /// An activation.
    fn activate(&mut self, x: Self::Value, activation: Activation) -> Result<Self::Value, Self::Error>;
    /// Dropout with this probability, in training.
    fn dropout(&mut self, x: Self::Value, probability: f64) -> Result<Self::Value, Self::Error>;
    /// Dropout of a value that is used again.
    fn dropped(&mut self, x: &Self::Value, probability: f64) -> Result<Self::Value, Self::Error>;
    /// The two halves along the last axis.
    fn halves(&mut self, x: &Self::Value) -> Result<(Self::Value, Self::Value), Self::Error>;
    /// Self-attention: [rows, length, 3 * heads * head size] (queries, keys, values) to [rows, length, heads * head size].
    fn attention(
        &mut self,
        joined: &Self::Value,
        attention: &Attention<'_, Self::Value>,
    ) -> Result<Self::Value, Self::Error>;
    /// A number by head for each distance, [1, heads, length, length], of a table [buckets, heads].
    fn distance_bias(&mut self, table: Leaf, buckets: Buckets) -> Result<Self::Value, Self::Error>;
    /// The rows [rows, width] of a table that the distances of this batch need, in the order of the buckets.
    fn distance_rows(&mut self, table: Leaf, buckets: Buckets) -> Result<Self::Value, Self::Error>;
    /// A convolution along the sequence.
    fn convolve(&mut self, x: &Self::Value, conv: &Conv) -> Result<Self::Value, Self::Error>;
    /// 0 at padded places.
    fn keep_tokens(&mut self, x: Self::Value) -> Result<Self::Value, Self::Error>;
    /// The first place of each row, [rows, width].
    fn first(&mut self, x: &Self::Value) -> Result<Self::Value, Self::Error>;
    /// The mean over the tokens of each row, [rows, width].
    fn mean(&mut self, x: &Self::Value) -> Result<Self::Value, Self::Error>;
}
