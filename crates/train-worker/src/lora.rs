//! LoRA (Hu et al. 2022): each projection W [out, in] of the layers computes as W + alpha / r · B A, and A [r, in] and B [out, r] are
//! trained in W's place, which has neither gradient nor moments. Parts of a joined leaf have a pair each. In the end the changes are merged
//! into the weights, in fp32.
//!
//! The start is that of `peft` (`LoraLayer.reset_lora_parameters`): A by `kaiming_uniform_` with a = √5, which is uniform within
//! ±1 / √in, and B zero, so that the first step computes with the weights of the checkpoint.
use std::collections::BTreeMap;

use quintet_nlp::{
    encoder::{Layout, LeafSpec},
    random::Stream,
};
use tch::Tensor;

use crate::{
    Error,
    hyper::Lora,
    parameters::{ALIGNMENT, Leaf, Parameters},
};

/// A matrix in the flat buffer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Matrix {
    offset: usize,
    rows: usize,
    columns: usize,
}

impl Matrix {
    fn length(&self) -> usize {
        self.rows * self.columns
    }

    fn end(&self) -> usize {
        self.offset + self.length()
    }

    /// [rows, columns] of a flat buffer.
    fn view(&self, flat: &Tensor) -> Result<Tensor, Error> {
        let part = flat.f_narrow(0, self.offset as i64, self.length() as i64)?;
        Ok(part.f_view([self.rows as i64, self.columns as i64])?)
    }
}

/// Where the factors of one change lie.
#[derive(Debug, Clone)]
struct Pair {
    /// The weight that is changed.
    weight: Matrix,
    /// Name in a written checkpoint of that weight's layer.
    name: String,
    depth: usize,
    a: Matrix,
    b: Matrix,
}

/// Where all factors lie: behind the weights of the checkpoint.
pub(crate) struct Plan {
    /// By leaf that is changed: its place among the tensors, and a pair for each of its parts.
    changed: Vec<(usize, Vec<Pair>)>,
    scale: f64,
    /// Elements of the flat buffer, factors included.
    pub(crate) total: usize,
}

impl Plan {
    /// `offsets` are those of the layout's leaves; the factors begin behind `end` elements.
    pub(crate) fn new(layout: &Layout, offsets: &[usize], end: usize, lora: Lora) -> Self {
        let mut total = end;
        let mut place = |rows: usize, columns: usize| {
            let matrix = Matrix { offset: total.next_multiple_of(ALIGNMENT), rows, columns };
            total = matrix.end();
            matrix
        };
        let mut changed = Vec::new();
        for (index, (leaf, offset)) in layout.leaves.iter().zip(offsets).enumerate() {
            if leaf.projection {
                changed.push((index, pairs(leaf, *offset, lora.r, &mut place)));
            }
        }
        Self { changed, scale: lora.alpha / lora.r as f64, total }
    }

    fn pairs(&self) -> impl Iterator<Item = &Pair> {
        self.changed.iter().flat_map(|(_, pairs)| pairs)
    }

    /// Draws every A; every B is zero already.
    pub(crate) fn draw(&self, seed: u64, elements: &mut [f32]) {
        let mut stream = Stream::new(seed, "lora", 0);
        for Pair { a, .. } in self.pairs() {
            let bound = 1.0 / (a.columns as f64).sqrt();
            elements[a.offset..a.end()].fill_with(|| (bound * (2.0 * stream.uniform() - 1.0)) as f32);
        }
    }

    /// Makes the factors leaves, views of the numbers of the computation.
    pub(crate) fn bind(self, numbers: &Tensor, leaves: &mut Vec<Leaf>) -> Result<Adapters, Error> {
        let mut factor = |matrix: Matrix, pair: &Pair, kind: &str| -> Result<Tensor, Error> {
            let tensor = matrix.view(numbers)?.f_detach()?.f_set_requires_grad(true)?;
            leaves.push(Leaf {
                tensor: tensor.shallow_clone(),
                offset: matrix.offset,
                length: matrix.length(),
                names: vec![format!("{}.lora_{kind}.weight", pair.name)],
                decays: true,
                depth: pair.depth,
                head: false,
                fresh: false,
            });
            Ok(tensor)
        };
        let mut changes = BTreeMap::new();
        for (tensor, pairs) in self.changed {
            let parts = pairs
                .into_iter()
                .map(|pair| Ok(Part { a: factor(pair.a, &pair, "A")?, b: factor(pair.b, &pair, "B")?, pair }));
            changes.insert(tensor, parts.collect::<Result<_, Error>>()?);
        }
        Ok(Adapters { changes, scale: self.scale })
    }
}

fn pairs(leaf: &LeafSpec, mut offset: usize, r: usize, place: &mut impl FnMut(usize, usize) -> Matrix) -> Vec<Pair> {
    let mut pairs = Vec::with_capacity(leaf.parts.len());
    for part in &leaf.parts {
        // Weights of dense layers are [out, in].
        let [rows, columns] = *part.shape.as_slice() else { continue };
        let weight = Matrix { offset, rows, columns };
        offset = weight.end();
        let name = part.file_name.strip_suffix(".weight").unwrap_or(&part.file_name).to_owned();
        pairs.push(Pair { weight, name, depth: leaf.depth, a: place(r, columns), b: place(rows, r) });
    }
    pairs
}

/// A weight that a joined leaf holds, and its change.
struct Part {
    pair: Pair,
    a: Tensor,
    b: Tensor,
}

/// The low-rank changes of all projections.
pub(crate) struct Adapters {
    /// By the place of the projection's weight among the tensors of the computation.
    changes: BTreeMap<usize, Vec<Part>>,
    scale: f64,
}

impl Adapters {
    /// The same tensors again.
    pub(crate) fn shallow_clone(&self) -> Self {
        let part = |part: &Part| Part { pair: part.pair.clone(), a: part.a.shallow_clone(), b: part.b.shallow_clone() };
        let change = |(tensor, parts): (&usize, &Vec<Part>)| (*tensor, parts.iter().map(part).collect());
        Self { changes: self.changes.iter().map(change).collect(), scale: self.scale }
    }

    /// What a projection gives with its change: x [.., in] to y + alpha / r · (x Aᵀ) Bᵀ [.., out], where `y` is what the weight alone
    /// gives and `rows` (first, count) are those of the weight that were asked for. The weight itself needs no gradient so, and no changed
    /// copy of it is made.
    pub(crate) fn add(
        &self,
        tensor: usize,
        x: &Tensor,
        y: Tensor,
        rows: Option<(usize, usize)>,
    ) -> Result<Tensor, Error> {
        let Some(parts) = self.changes.get(&tensor) else { return Ok(y) };
        let (size, x_size) = (y.size(), x.size());
        let width = |size: &[i64]| size.last().copied().unwrap_or(1);
        let (x, y) = (x.f_reshape([-1, width(&x_size)])?, y.f_reshape([-1, width(&size)])?);
        let (first, end) = rows.map_or((0, usize::MAX), |(first, count)| (first, first + count));
        let mut sums = Vec::with_capacity(parts.len());
        let mut start = 0;
        for Part { pair, a, b } in parts {
            let own = start.max(first)..(start + pair.weight.rows).min(end);
            if own.start < own.end {
                let count = (own.end - own.start) as i64;
                let b = b.f_narrow(0, (own.start - start) as i64, count)?;
                let low = x.f_matmul(&a.f_transpose(0, 1)?)?.f_mul_scalar(self.scale)?;
                let y = y.f_narrow(1, (own.start - first) as i64, count)?;
                sums.push(y.f_addmm(&low, &b.f_transpose(0, 1)?)?);
            }
            start += pair.weight.rows;
        }
        let sum = match sums.as_slice() {
            [one] => one.shallow_clone(),
            several => Tensor::f_cat(several, 1)?,
        };
        Ok(sum.f_view(size.as_slice())?)
    }
}

impl Parameters {
    /// Adds the low-rank changes to the weights, in fp32, and makes them zero; without any it does nothing.
    pub(crate) fn merge(&mut self) -> Result<(), Error> {
        let Some(adapters) = &self.adapters else { return Ok(()) };
        tch::no_grad(|| -> Result<(), Error> {
            for Pair { weight, a, b, .. } in adapters.changes.values().flatten().map(|part| &part.pair) {
                let mut b = b.view(&self.flat)?;
                let change = b.f_matmul(&a.view(&self.flat)?)?.f_mul_scalar(adapters.scale)?;
                // The operations change their receiver; the tensor they give back is the same one.
                let _ = weight.view(&self.flat)?.f_add_(&change)?;
                let _ = b.f_zero_()?;
            }
            Ok(())
        })?;
        self.refresh()
    }
}

#[cfg(test)]
mod tests;
