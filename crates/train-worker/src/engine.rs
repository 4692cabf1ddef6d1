//! The operations of encoders on tensors: one forward pass of one batch.
use std::{cell::RefCell, collections::HashMap};

use quintet_nlp::encoder::{
    Activation, Attention, Buckets, Conv, LAPLACE_DEVIATION, LAPLACE_MEAN, Leaf, Linear, Mask, Norm, Ops, Positions,
    Relative,
};
use tch::{Device, Kind, Tensor};

use crate::{
    Error,
    dropout::Draws,
    lora::Adapters,
    model::{Input, WordRows},
};

/// What depends on the length alone, for the longest batch so far; shorter ones take a part of it.
#[derive(Default)]
pub(crate) struct Kept {
    /// Rows of tables by distance, [length, length].
    distances: RefCell<HashMap<Buckets, Tensor>>,
    /// Masks of dropout.
    pub(crate) draws: Draws,
    /// Cosines and sines of rotary positions, [length, head size], by base and head size.
    rotary: RefCell<HashMap<(u64, i64), [Tensor; 2]>>,
}

/// Rows of scores shorter than this are short to libtorch's softmax.
const SHORT: i64 = 64;
/// Beyond this length the memory of all scores outweighs the time of a slow kernel.
const LONG: i64 = 1024;

/// A forward pass.
pub(crate) struct Engine<'a> {
    leaves: &'a [Tensor],
    adapters: Option<&'a Adapters>,
    kept: &'a Kept,
    input: &'a Input,
    words: Option<&'a WordRows>,
    train: bool,
    /// What is added to scores, by kind of mask; none where nothing is left out.
    masks: HashMap<Mask, Option<Tensor>>,
    /// Rows of tables by distance, less the first row that this length needs.
    distances: HashMap<Buckets, Tensor>,
}

type Result<T> = std::result::Result<T, Error>;

impl<'a> Engine<'a> {
    pub(crate) fn new(
        leaves: &'a [Tensor],
        adapters: Option<&'a Adapters>,
        kept: &'a Kept,
        input: &'a Input,
        words: Option<&'a WordRows>,
        train: bool,
    ) -> Self {
        Self { leaves, adapters, kept, input, words, train, masks: HashMap::new(), distances: HashMap::new() }
    }

    fn leaf(&self, leaf: Leaf) -> Result<&'a Tensor> {
        self.leaves.get(leaf.0).ok_or(Error::Internal("fewer leaves than the encoder has"))
    }

    fn device(&self) -> Device {
        self.input.index.device()
    }

    /// Whether attention is computed product by product. On the processor libtorch has no fused kernel with dropout either, and the
    /// backward pass of the one in bf16 takes several times as long as products do.
    fn by_products(&self, kind: Kind, dropout: f64) -> bool {
        let slow = kind == Kind::BFloat16 && self.train && self.input.length <= LONG;
        self.device() == Device::Cpu && (dropout > 0.0 || slow)
    }

    /// What is added to the scores [rows, heads, length, length]: 0, or the smallest number where a score is left out. Not minus
    /// infinity, so that places without any key get equal shares instead of none, as in `transformers`.
    fn mask(&mut self, mask: Mask, kind: Kind) -> Result<Option<Tensor>> {
        if let Some(known) = self.masks.get(&mask) {
            return Ok(known.as_ref().map(Tensor::shallow_clone));
        }
        let length = self.input.length;
        let keys = self.input.mask.as_ref();
        let allowed = match mask {
            Mask::Keys => keys.map(Tensor::shallow_clone),
            Mask::Pairs => match keys {
                Some(keys) => Some(keys.f_logical_and(&keys.f_transpose(2, 3)?)?),
                None => None,
            },
            Mask::Window(reach) if reach as i64 >= length - 1 => keys.map(Tensor::shallow_clone),
            Mask::Window(reach) => {
                let places = Tensor::f_arange(length, (Kind::Int64, self.device()))?;
                let near = places.f_unsqueeze(1)?.f_sub(&places)?.f_abs()?.f_le(reach as i64)?;
                Some(match keys {
                    Some(keys) => keys.f_logical_and(&near)?,
                    None => near,
                })
            }
        };
        let added = match allowed {
            Some(allowed) => {
                let zeros = Tensor::f_zeros(allowed.size(), (kind, self.device()))?;
                Some(zeros.f_masked_fill(&allowed.f_logical_not()?, lowest(kind))?)
            }
            None => None,
        };
        self.masks.insert(mask, added.as_ref().map(Tensor::shallow_clone));
        Ok(added)
    }

    /// Row of a table for each query and key, [length, length].
    fn distance_index(&self, buckets: Buckets) -> Result<Tensor> {
        let length = self.input.length;
        let mut kept = self.kept.distances.borrow_mut();
        let known = kept.get(&buckets).filter(|index| index.size()[0] >= length);
        let index = match known {
            Some(index) => index.shallow_clone(),
            None => {
                let rows: Vec<i64> = (1 - length..length).map(|distance| buckets.row(distance) as i64).collect();
                let places = Tensor::f_arange(length, (Kind::Int64, Device::Cpu))?;
                let distance = places.f_unsqueeze(1)?.f_sub(&places)?.f_add_scalar(length - 1)?;
                let index = Tensor::f_from_slice(&rows)?.f_take(&distance)?.f_to_device(self.device())?;
                kept.insert(buckets, index.shallow_clone());
                index
            }
        };
        Ok(index.f_narrow(0, 0, length)?.f_narrow(1, 0, length)?)
    }

    /// The same, counted from the first row that [`Ops::distance_rows`] gives.
    fn distance_index_from_first(&mut self, buckets: Buckets) -> Result<Tensor> {
        if let Some(known) = self.distances.get(&buckets) {
            return Ok(known.shallow_clone());
        }
        let (first, _) = buckets.rows(usize::try_from(self.input.length).unwrap_or(0));
        let index = self.distance_index(buckets)?.f_sub_scalar(first as i64)?;
        self.distances.insert(buckets, index.shallow_clone());
        Ok(index)
    }

    /// Queries and keys [2, rows, heads, length, size] turned by their places: x * cos + (-second half, first half) * sin.
    fn rotate(&self, joined: &Tensor, theta: f64) -> Result<Tensor> {
        let size = joined.size()[4];
        let length = self.input.length;
        let mut kept = self.kept.rotary.borrow_mut();
        let key = (theta.to_bits(), size);
        let [cosines, sines] = match kept.get(&key).filter(|tables| tables[0].size()[0] >= length) {
            Some(tables) => tables.each_ref().map(Tensor::shallow_clone),
            None => {
                let tables = rotary_tables(theta, size, length, self.device())?;
                kept.insert(key, tables.each_ref().map(Tensor::shallow_clone));
                tables
            }
        };
        let cut = |table: &Tensor| table.f_narrow(0, 0, length)?.f_to_kind(joined.kind());
        let halves = joined.f_chunk(2, -1)?;
        let [first, second] = halves.as_slice() else { return Err(Error::Internal("a head has two halves")) };
        let turned = Tensor::f_cat(&[&second.f_neg()?, first], -1)?;
        Ok(joined.f_mul(&cut(&cosines)?)?.f_add(&turned.f_mul(&cut(&sines)?)?)?)
    }

    /// What distances add to scaled scores, [rows, heads, length, length].
    fn relative(&mut self, parts: &Parts, attention: &Attention<'_, Tensor>) -> Result<Option<Tensor>> {
        let added = match &attention.relative {
            Relative::None => return Ok(None),
            Relative::Bias(bias) => return Ok(Some(bias.shallow_clone())),
            Relative::Rows { table, buckets, keys } => {
                // [query, key, size]
                let rows = Tensor::f_embedding(self.leaf(*table)?, &self.distance_index(*buckets)?, -1, false, false)?;
                let by_query = by_place(&parts.query, &rows.f_transpose(1, 2)?)?;
                match keys {
                    true => by_query.f_add(&by_place(&parts.key, &rows.f_permute([1, 2, 0])?)?.f_transpose(2, 3)?)?,
                    false => by_query,
                }
            }
            Relative::Disentangled { keys, queries, buckets } => {
                let index = self.distance_index_from_first(*buckets)?;
                let to_keys = keys.map(|keys| by_row(&parts.query, keys, &index)).transpose()?;
                let from_keys = match queries {
                    Some(queries) => Some(by_row(&parts.key, queries, &index.f_transpose(0, 1)?)?.f_transpose(2, 3)?),
                    None => None,
                };
                match (to_keys, from_keys) {
                    (Some(a), Some(b)) => a.f_add(&b)?,
                    (Some(one), None) | (None, Some(one)) => one,
                    (None, None) => return Ok(None),
                }
            }
        };
        Ok(Some(added.f_mul_scalar(attention.scale)?))
    }
}

/// Queries, keys and values, [rows, heads, length, size].
struct Parts {
    query: Tensor,
    key: Tensor,
    value: Tensor,
}

/// For each place its own matrix: x [rows, heads, length, size] with matrices [length, size, others] to [rows, heads, length, others].
fn by_place(x: &Tensor, matrices: &Tensor) -> Result<Tensor> {
    let size = x.size();
    let [rows, heads, length, width] = size.as_slice() else { return Err(Error::Internal("heads have four axes")) };
    let others = matrices.size()[2];
    let x = x.f_permute([2, 0, 1, 3])?.f_reshape([*length, rows * heads, *width])?;
    Ok(x.f_bmm(matrices)?.f_view([*length, *rows, *heads, others])?.f_permute([1, 2, 0, 3])?)
}

/// x [rows, heads, length, size] with rows [count, heads * size] of a table, of which each place takes those of its index
/// [length, length]. The table's part is one product for each head, not for each row of the batch.
fn by_row(x: &Tensor, table: &Tensor, index: &Tensor) -> Result<Tensor> {
    let size = x.size();
    let [rows, heads, length, width] = size.as_slice() else { return Err(Error::Internal("heads have four axes")) };
    let count = table.size()[0];
    let table = table.f_view([count, *heads, *width])?.f_permute([1, 2, 0])?;
    let x = x.f_transpose(0, 1)?.f_reshape([*heads, rows * length, *width])?;
    let products = x.f_bmm(&table)?.f_view([*heads, *rows, *length, count])?;
    let index = index.f_expand([*heads, *rows, *length, *length], false)?;
    Ok(products.f_gather(-1, &index, false)?.f_transpose(0, 1)?)
}

/// In 32 bits and in the order of `transformers`: at far places another rounding of the frequencies would show.
fn rotary_tables(theta: f64, size: i64, length: i64, device: Device) -> Result<[Tensor; 2]> {
    let options = (Kind::Float, Device::Cpu);
    let exponents = Tensor::f_arange_start_step(0, size, 2, options)?.f_div_scalar(size)?;
    let frequencies = Tensor::f_pow_scalar(theta, &exponents)?.f_reciprocal()?;
    let places = Tensor::f_arange(length, options)?;
    let angles = places.f_unsqueeze(1)?.f_mul(&frequencies)?;
    let angles = Tensor::f_cat(&[&angles, &angles], -1)?;
    Ok([angles.f_cos()?.f_to_device(device)?, angles.f_sin()?.f_to_device(device)?])
}

/// The smallest finite number of a kind; of fp16 half of it, since a score is added, and there is none to spare.
fn lowest(kind: Kind) -> f64 {
    match kind {
        Kind::Half => -32752.0,
        Kind::BFloat16 => f64::from(f32::from_bits(0xff7f_0000)),
        Kind::Double => f64::MIN,
        _ => f64::from(f32::MIN),
    }
}

impl Ops for Engine<'_> {
    type Value = Tensor;
    type Error = Error;

    fn words(&mut self, table: Leaf, padding: Option<usize>) -> Result<Tensor> {
        let padding = padding.map(|padding| padding as i64);
        let (table, padding) = match self.words {
            None => (self.leaf(table)?, padding),
            Some(words) => {
                let found = padding.and_then(|padding| words.ids.binary_search(&padding).ok());
                (&words.tensor, found.map(|found| found as i64))
            }
        };
        Ok(Tensor::f_embedding(table, &self.input.index, padding.unwrap_or(-1), false, false)?)
    }

    fn positions(&mut self, table: Leaf, positions: Positions) -> Result<Tensor> {
        let table = self.leaf(table)?;
        let length = self.input.length;
        let first = match positions {
            Positions::Sequential => 0,
            Positions::After(padding) => {
                let padding = padding as i64;
                if self.input.ids.contains(&padding) {
                    let index = positions_after(&self.input.ids, length, padding);
                    let index = Tensor::f_from_slice(&index)?.f_view([-1, length])?.f_to_device(self.device())?;
                    return Ok(Tensor::f_embedding(table, &index, padding, false, false)?);
                }
                padding + 1
            }
        };
        Ok(table.f_narrow(0, first, length)?)
    }

    fn types(&mut self, table: Leaf) -> Result<Tensor> {
        let table = self.leaf(table)?;
        match &self.input.types {
            None => Ok(table.f_narrow(0, 0, 1)?),
            Some(types) => Ok(Tensor::f_embedding(table, types, -1, false, false)?),
        }
    }

    fn add(&mut self, a: &Tensor, b: &Tensor) -> Result<Tensor> {
        Ok(a.f_add(b)?)
    }

    fn multiply(&mut self, a: &Tensor, b: &Tensor) -> Result<Tensor> {
        Ok(a.f_mul(b)?)
    }

    fn linear(&mut self, x: &Tensor, layer: &Linear) -> Result<Tensor> {
        let (weight, bias) = (self.leaf(layer.weight)?, layer.bias.map(|bias| self.leaf(bias)).transpose()?);
        let out = match layer.rows {
            None => x.f_linear(weight, bias)?,
            Some((first, count)) => {
                let part = |leaf: &Tensor| leaf.f_narrow(0, first as i64, count as i64);
                x.f_linear(&part(weight)?, bias.map(part).transpose()?)?
            }
        };
        match self.adapters {
            None => Ok(out),
            Some(adapters) => adapters.add(layer.weight.0, x, out, layer.rows),
        }
    }

    fn norm(&mut self, x: &Tensor, norm: &Norm) -> Result<Tensor> {
        let (weight, bias) = (self.leaf(norm.weight)?, norm.bias.map(|bias| self.leaf(bias)).transpose()?);
        Ok(x.f_layer_norm(weight.size(), Some(weight), bias, norm.eps, true)?)
    }

    fn activate(&mut self, x: Tensor, activation: Activation) -> Result<Tensor> {
        Ok(match activation {
            Activation::Gelu => x.f_gelu("none")?,
            Activation::GeluTanh => x.f_gelu("tanh")?,
            Activation::QuickGelu => x.f_mul(&x.f_mul_scalar(1.702)?.f_sigmoid()?)?,
            Activation::Relu => x.f_relu()?,
            Activation::Silu => x.f_silu()?,
            Activation::Mish => x.f_mish()?,
            Activation::Tanh => x.f_tanh()?,
            Activation::Sigmoid => x.f_sigmoid()?,
            Activation::Linear => x,
            Activation::Relu2 => x.f_relu()?.f_square()?,
            Activation::Relu6 => x.f_relu6()?,
            Activation::LeakyRelu => x.f_leaky_relu()?,
            Activation::Gelu10 => x.f_gelu("none")?.f_clamp(-10.0, 10.0)?,
            Activation::Laplace => {
                let scaled =
                    x.f_sub_scalar(LAPLACE_MEAN)?.f_div_scalar(LAPLACE_DEVIATION * std::f64::consts::SQRT_2)?;
                scaled.f_erf()?.f_add_scalar(1.0)?.f_mul_scalar(0.5)?
            }
        })
    }

    fn dropout(&mut self, x: Tensor, probability: f64) -> Result<Tensor> {
        if !self.train || probability == 0.0 {
            return Ok(x);
        }
        if self.device() == Device::Cpu {
            Ok(x.f_mul(&self.kept.draws.mask(&x, probability)?)?)
        } else {
            Ok(x.f_dropout(probability, true)?)
        }
    }

    fn dropped(&mut self, x: &Tensor, probability: f64) -> Result<Tensor> {
        self.dropout(x.shallow_clone(), probability)
    }

    fn halves(&mut self, x: &Tensor) -> Result<(Tensor, Tensor)> {
        let half = x.size().last().copied().unwrap_or(0) / 2;
        Ok((x.f_narrow(-1, 0, half)?, x.f_narrow(-1, half, half)?))
    }

    fn attention(&mut self, joined: &Tensor, attention: &Attention<'_, Tensor>) -> Result<Tensor> {
        let (heads, size) = (attention.heads as i64, attention.head_size as i64);
        let (rows, length) = (joined.size()[0], self.input.length);
        let dropout = if self.train { attention.dropout } else { 0.0 };
        let by_products = self.by_products(joined.kind(), dropout);
        let joined = joined.f_view([rows, length, 3, heads, size])?.f_permute([2, 0, 3, 1, 4])?;
        // One copy for all products, forward and backward, instead of one of each operand.
        let joined = if by_products { joined.f_contiguous()? } else { joined };
        let parts = match attention.rotary {
            None => {
                let parts = joined.f_unbind(0)?;
                let Ok([query, key, value]) = <[Tensor; 3]>::try_from(parts) else {
                    return Err(Error::Internal("query, key and value are three"));
                };
                Parts { query, key, value }
            }
            Some(theta) => {
                let turned = self.rotate(&joined.f_narrow(0, 0, 2)?, theta)?;
                Parts { query: turned.f_select(0, 0)?, key: turned.f_select(0, 1)?, value: joined.f_select(0, 2)? }
            }
        };
        let added = self.relative(&parts, attention)?;
        let mask = self.mask(attention.mask, joined.kind())?;
        let added = match (added, mask) {
            (Some(added), Some(mask)) => Some(added.f_add(&mask)?),
            (added, mask) => added.or(mask),
        };
        let Parts { query, key, value } = &parts;
        let context = if by_products {
            let scores = query.f_mul_scalar(attention.scale)?.f_matmul(&key.f_transpose(-1, -2)?)?;
            let scores = if let Some(added) = &added { scores.f_add(added)? } else { scores };
            // libtorch's softmax of short bf16 rows takes four times as long as one in fp32.
            let kind = if length < SHORT { Kind::Float } else { scores.kind() };
            let shares = self.dropout(scores.f_softmax(-1, kind)?, dropout)?;
            shares.f_to_kind(value.kind())?.f_matmul(value)?
        } else {
            let (added, scale) = (added.as_ref(), Some(attention.scale));
            Tensor::f_scaled_dot_product_attention(query, key, value, added, dropout, false, scale, false)?
        };
        Ok(context.f_transpose(1, 2)?.f_reshape([rows, length, heads * size])?)
    }

    fn distance_bias(&mut self, table: Leaf, buckets: Buckets) -> Result<Tensor> {
        let index = self.distance_index(buckets)?;
        let values = Tensor::f_embedding(self.leaf(table)?, &index, -1, false, false)?;
        Ok(values.f_permute([2, 0, 1])?.f_unsqueeze(0)?)
    }

    fn distance_rows(&mut self, table: Leaf, buckets: Buckets) -> Result<Tensor> {
        let (first, count) = buckets.rows(usize::try_from(self.input.length).unwrap_or(0));
        Ok(self.leaf(table)?.f_narrow(0, first as i64, count as i64)?)
    }

    fn convolve(&mut self, x: &Tensor, conv: &Conv) -> Result<Tensor> {
        let (weight, bias) = (self.leaf(conv.weight)?, self.leaf(conv.bias)?);
        let padding = (conv.kernel as i64 - 1) / 2;
        let out = x.f_transpose(1, 2)?.f_conv1d(weight, Some(bias), 1, padding, 1, conv.groups as i64)?;
        Ok(out.f_transpose(1, 2)?)
    }

    fn keep_tokens(&mut self, x: Tensor) -> Result<Tensor> {
        match self.input.tokens(x.kind())? {
            Some(tokens) => Ok(x.f_mul(&tokens)?),
            None => Ok(x),
        }
    }

    fn first(&mut self, x: &Tensor) -> Result<Tensor> {
        Ok(x.f_select(1, 0)?)
    }

    fn mean(&mut self, x: &Tensor) -> Result<Tensor> {
        let dims: &[i64] = &[1];
        match self.input.tokens(x.kind())? {
            Some(tokens) => {
                let sum = x.f_mul(&tokens)?.f_sum_dim_intlist(dims, false, None::<Kind>)?;
                Ok(sum.f_div(&tokens.f_sum_dim_intlist(dims, false, None::<Kind>)?)?)
            }
            None => Ok(x.f_mean_dim(dims, false, None::<Kind>)?),
        }
    }
}

/// Positions of fairseq: tokens count from `padding` + 1 on, the padding token has its own id.
fn positions_after(ids: &[i64], length: i64, padding: i64) -> Vec<i64> {
    let mut positions = Vec::with_capacity(ids.len());
    for row in ids.chunks(usize::try_from(length).unwrap_or(1).max(1)) {
        let mut next = padding;
        positions.extend(row.iter().map(|id| {
            if *id == padding {
                return padding;
            }
            next += 1;
            next
        }));
    }
    positions
}
