//! Which tensors an encoder has: their names in a checkpoint, shapes, what is joined for one product, and what training treats alike.
use crate::crf;

/// A tensor of a checkpoint.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TensorSpec {
    /// Name without the family's prefix, such as `encoder.layer.0.attention.self.query.weight`.
    pub name: String,
    /// Name in a written file; `classifier.weight` and the like carry no prefix.
    pub file_name: String,
    /// Linear weights are [out, in].
    pub shape: Vec<usize>,
}

/// How a tensor begins that no checkpoint gives.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Init {
    /// N(0, deviation²), drawn again beyond `cutoff` deviations where there is one.
    Normal {
        /// Standard deviation.
        deviation: f64,
        /// In deviations.
        cutoff: Option<f64>,
    },
    /// Anywhere within ±bound alike.
    Uniform {
        /// Above 0.
        bound: f64,
    },
    /// 0: biases.
    Zeros,
    /// 1: weights of norms.
    Ones,
}

/// A tensor of the computation: one tensor of the checkpoint, or several that lie side by side along their first axis.
#[derive(Debug, Clone, PartialEq)]
pub struct LeafSpec {
    /// Tensors of the checkpoint, in order.
    pub parts: Vec<TensorSpec>,
    /// Shape of the parts together.
    pub shape: Vec<usize>,
    /// Whether weight decay applies: not to biases and norms, as `transformers.Trainer` groups them.
    pub decays: bool,
    /// 0 for embeddings, i + 1 for layer i, one more for what follows the layers.
    pub depth: usize,
    /// Whether it lies outside the base model: what `transformers` makes anew for a task.
    pub head: bool,
    /// Whether a checkpoint of a bare encoder may lack it: heads and poolers.
    pub optional: bool,
    /// Whether its first axis counts the labels.
    pub labels: bool,
    /// Whether training leaves it as it is.
    pub frozen: bool,
    /// Whether it is computed with in 32 bits, whatever the numbers of the computation.
    pub full_precision: bool,
    /// Whether it is the weight of a dense layer within the encoder's layers, which LoRA changes.
    pub projection: bool,
    /// Its values when no checkpoint gives them.
    pub init: Init,
}

/// A leaf by its place in [`Layout::leaves`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Leaf(pub usize);

/// A dense layer: weight [out, in] and bias [out].
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Linear {
    /// Weight.
    pub weight: Leaf,
    /// Bias, where it has one.
    pub bias: Option<Leaf>,
    /// First row and number of rows that are used; none means all.
    pub rows: Option<(usize, usize)>,
}

impl Linear {
    /// The layer of `count` rows from `first` on: a part of a joined one.
    pub fn part(self, first: usize, count: usize) -> Self {
        Self { rows: Some((first, count)), ..self }
    }
}

/// A LayerNorm over the last axis.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Norm {
    /// Weight.
    pub weight: Leaf,
    /// Bias, where it has one.
    pub bias: Option<Leaf>,
    /// Added to the variance.
    pub eps: f64,
}

/// A convolution along the sequence whose output is as long as its input.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Conv {
    /// [out, in / groups, kernel].
    pub weight: Leaf,
    /// [out].
    pub bias: Leaf,
    /// Width of the kernel, odd.
    pub kernel: usize,
    /// Groups of channels.
    pub groups: usize,
}

/// The scores of a CRF over words.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CrfLeaves {
    /// [from, to].
    pub transitions: Leaf,
    /// Of the first word's label.
    pub start: Leaf,
    /// Of the last word's label.
    pub end: Leaf,
}

/// All tensors of an encoder and its head, in the order of the computation; the word table comes first.
#[derive(Debug, Clone, PartialEq)]
pub struct Layout {
    /// Tensors of the computation.
    pub leaves: Vec<LeafSpec>,
    /// Tensors that belong to the checkpoint and take no part in the computation: they are kept as they are.
    pub unused: Vec<TensorSpec>,
    prefix: &'static str,
    deviation: f64,
    cutoff: Option<f64>,
    depth: usize,
    place: Place,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    Encoder,
    /// In the base model, but not needed by every head.
    Pooler,
    Head,
}

impl Layout {
    /// An empty layout; new dense weights are drawn from N(0, deviation²).
    pub(super) fn new(prefix: &'static str, deviation: f64) -> Self {
        Self {
            leaves: Vec::new(),
            unused: Vec::new(),
            prefix,
            deviation,
            cutoff: None,
            depth: 0,
            place: Place::Encoder,
        }
    }

    /// What follows belongs to this depth of the encoder.
    pub(super) fn depth(&mut self, depth: usize) {
        self.depth = depth;
    }

    /// What follows belongs to the base model after its layers, and a checkpoint may lack it.
    pub(super) fn pooler(&mut self, layers: usize) {
        (self.depth, self.place) = (layers + 1, Place::Pooler);
    }

    /// What follows belongs to the head after `layers` layers.
    pub(super) fn head(&mut self, layers: usize) {
        (self.depth, self.place) = (layers + 1, Place::Head);
    }

    /// What follows is drawn with another deviation.
    pub(super) fn deviation(&mut self, deviation: f64, cutoff: Option<f64>) {
        (self.deviation, self.cutoff) = (deviation, cutoff);
    }

    /// A table of embeddings [rows, width].
    pub(super) fn table(&mut self, name: &str, rows: usize, width: usize) -> Leaf {
        let init = self.normal();
        self.leaf(vec![self.spec(&format!("{name}.weight"), &[rows, width])], init, false)
    }

    /// A table that training leaves as it is.
    pub(super) fn frozen_table(&mut self, name: &str, rows: usize, width: usize) -> Leaf {
        let table = self.table(name, rows, width);
        self.leaves[table.0].frozen = true;
        table
    }

    /// A dense layer with a bias.
    pub(super) fn linear(&mut self, name: &str, outputs: usize, inputs: usize) -> Linear {
        self.joined(&[name], outputs, inputs, true)
    }

    /// A dense layer that has a bias or not.
    pub(super) fn linear_with(&mut self, name: &str, outputs: usize, inputs: usize, bias: bool) -> Linear {
        self.joined(&[name], outputs, inputs, bias)
    }

    /// Dense layers of the same input, each with `outputs` outputs, joined for one product.
    pub(super) fn joined<S: AsRef<str>>(&mut self, names: &[S], outputs: usize, inputs: usize, bias: bool) -> Linear {
        let parts = |layout: &Self, kind: &str, shape: &[usize]| -> Vec<TensorSpec> {
            names.iter().map(|name| layout.spec(&format!("{}.{kind}", name.as_ref()), shape)).collect()
        };
        let (weights, init) = (parts(self, "weight", &[outputs, inputs]), self.normal());
        let weight = self.leaf(weights, init, false);
        self.leaves[weight.0].projection = self.place == Place::Encoder && self.depth > 0;
        let bias = bias.then(|| {
            let biases = parts(self, "bias", &[outputs]);
            self.leaf(biases, Init::Zeros, false)
        });
        Linear { weight, bias, rows: None }
    }

    /// The last dense layer of a head: an output for each label.
    pub(super) fn classifier(&mut self, name: &str, labels: usize, inputs: usize) -> Linear {
        let first = self.leaves.len();
        let linear = self.linear(name, labels, inputs);
        self.leaves[first..].iter_mut().for_each(|leaf| leaf.labels = true);
        linear
    }

    /// A CRF over so many labels, its scores drawn as `pytorch-crf` draws them. They decay like other weights, as with the Trainer of
    /// `transformers`.
    pub(super) fn crf(&mut self, labels: usize) -> CrfLeaves {
        let mut scores = |name: &str, shape: &[usize]| {
            let leaf = self.leaf(vec![self.spec(name, shape)], Init::Uniform { bound: 0.1 }, false);
            let spec = &mut self.leaves[leaf.0];
            (spec.labels, spec.full_precision) = (true, true);
            leaf
        };
        CrfLeaves {
            start: scores(crf::START_TRANSITIONS, &[labels]),
            end: scores(crf::END_TRANSITIONS, &[labels]),
            transitions: scores(crf::TRANSITIONS, &[labels, labels]),
        }
    }

    /// A LayerNorm.
    pub(super) fn norm(&mut self, name: &str, size: usize, eps: f64, bias: bool) -> Norm {
        let weight = self.leaf(vec![self.spec(&format!("{name}.weight"), &[size])], Init::Ones, true);
        let bias = bias.then(|| self.leaf(vec![self.spec(&format!("{name}.bias"), &[size])], Init::Zeros, true));
        Norm { weight, bias, eps }
    }

    /// A convolution of as many outputs as inputs.
    pub(super) fn conv(&mut self, name: &str, channels: usize, kernel: usize, groups: usize) -> Conv {
        let shape = [channels, channels / groups, kernel];
        let init = self.normal();
        let weight = self.leaf(vec![self.spec(&format!("{name}.weight"), &shape)], init, false);
        let bias = self.leaf(vec![self.spec(&format!("{name}.bias"), &[channels])], Init::Zeros, false);
        Conv { weight, bias, kernel, groups }
    }

    /// A tensor that is only kept.
    pub(super) fn unused(&mut self, name: &str, shape: &[usize]) {
        let spec = self.spec(name, shape);
        self.unused.push(spec);
    }

    /// Every tensor of the checkpoint.
    pub fn tensors(&self) -> impl Iterator<Item = &TensorSpec> {
        self.leaves.iter().flat_map(|leaf| &leaf.parts).chain(&self.unused)
    }

    /// Those without which there is no encoder.
    pub fn required(&self) -> impl Iterator<Item = &TensorSpec> {
        self.leaves.iter().filter(|leaf| !leaf.optional).flat_map(|leaf| &leaf.parts).chain(&self.unused)
    }

    fn normal(&self) -> Init {
        Init::Normal { deviation: self.deviation, cutoff: self.cutoff }
    }

    fn spec(&self, name: &str, shape: &[usize]) -> TensorSpec {
        let prefix = if self.place == Place::Head { "" } else { self.prefix };
        TensorSpec { name: name.to_owned(), file_name: format!("{prefix}{name}"), shape: shape.to_vec() }
    }

    fn leaf(&mut self, parts: Vec<TensorSpec>, init: Init, norm: bool) -> Leaf {
        let mut shape = parts.first().map(|part| part.shape.clone()).unwrap_or_default();
        if let Some(first) = shape.first_mut() {
            *first = parts.iter().filter_map(|part| part.shape.first()).sum();
        }
        let decays = !norm && !parts.iter().any(|part| part.name.contains("bias"));
        let place = self.place;
        self.leaves.push(LeafSpec {
            parts,
            shape,
            decays,
            depth: self.depth,
            head: place == Place::Head,
            optional: place != Place::Encoder,
            labels: false,
            frozen: false,
            full_precision: false,
            projection: false,
            init,
        });
        Leaf(self.leaves.len() - 1)
    }
}
