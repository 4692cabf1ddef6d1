//! One pass over weights, moments and gradients on the processor, cut into pieces that threads take.
use half::bf16;

use crate::Error;

/// Elements that one thread takes at a time.
pub(super) const PIECE: usize = 1 << 16;

/// Numbers that a gradient comes in.
#[derive(Clone, Copy)]
pub(super) enum Values<'a> {
    Fp32(&'a [f32]),
    Bf16(&'a [bf16]),
}

/// The rule of an optimizer with the factors of one step.
#[derive(Debug, Clone, Copy)]
pub(super) enum Rule {
    AdamW {
        beta1: f32,
        beta2: f32,
        epsilon: f32,
        /// First bias correction.
        correction: f32,
        /// Square root of the second bias correction.
        root: f32,
    },
    Lion {
        beta1: f32,
        beta2: f32,
    },
}

/// What happens to a piece.
#[derive(Clone, Copy)]
pub(super) enum Change<'a> {
    /// A gradient came.
    Gradient(Values<'a>),
    /// The gradient is zero, moments fade.
    Fade,
}

/// A part of the flat buffers that one thread changes.
pub(super) struct Piece<'a> {
    pub(super) weights: &'a mut [f32],
    /// The weights in the numbers of the computation, when those are others; else empty.
    pub(super) copy: &'a mut [bf16],
    pub(super) first: &'a mut [f32],
    /// Empty when the rule has none.
    pub(super) second: &'a mut [f32],
    pub(super) change: Change<'a>,
    /// Learning rate.
    pub(super) rate: f32,
    /// Weights are multiplied by this first: decay.
    pub(super) keep: f32,
}

trait Number: Copy {
    fn wide(self) -> f32;
}

impl Number for f32 {
    fn wide(self) -> f32 {
        self
    }
}

impl Number for bf16 {
    fn wide(self) -> f32 {
        f32::from_bits(u32::from(self.to_bits()) << 16)
    }
}

/// Rounds to nearest, ties to even; the numbers are finite.
pub(super) fn narrow(value: f32) -> bf16 {
    let bits = value.to_bits();
    bf16::from_bits((bits.wrapping_add(0x7fff + ((bits >> 16) & 1)) >> 16) as u16)
}

impl<'a> Values<'a> {
    pub(super) fn chunks(self, size: usize) -> Vec<Self> {
        match self {
            Self::Fp32(values) => values.chunks(size).map(Self::Fp32).collect(),
            Self::Bf16(values) => values.chunks(size).map(Self::Bf16).collect(),
        }
    }

    pub(super) fn len(&self) -> usize {
        match self {
            Self::Fp32(values) => values.len(),
            Self::Bf16(values) => values.len(),
        }
    }

    fn squares(&self) -> f64 {
        match self {
            Self::Fp32(values) => squares(values),
            Self::Bf16(values) => squares(values),
        }
    }
}

/// Gives every thread about as many elements.
fn shares<T>(items: Vec<T>, threads: usize, size: impl Fn(&T) -> usize) -> Vec<Vec<T>> {
    let total: usize = items.iter().map(&size).sum();
    let mut shares: Vec<Vec<T>> = (0..threads).map(|_| Vec::new()).collect();
    let mut done = 0;
    for item in items {
        let share = (done * threads / total.max(1)).min(threads - 1);
        done += size(&item);
        shares[share].push(item);
    }
    shares
}

/// Changes all pieces; `clip` multiplies gradients.
pub(super) fn update_all(pieces: Vec<Piece<'_>>, threads: usize, rule: Rule, clip: f32) -> Result<(), Error> {
    let mut shares = shares(pieces, threads, |piece| piece.weights.len());
    let own = shares.pop().unwrap_or_default();
    std::thread::scope(|scope| {
        let others: Vec<_> = shares
            .into_iter()
            .map(|share| scope.spawn(move || share.into_iter().for_each(|piece| update(piece, rule, clip))))
            .collect();
        own.into_iter().for_each(|piece| update(piece, rule, clip));
        let ended = others.into_iter().map(|thread| thread.join()).fold(Ok(()), Result::and);
        ended.map_err(|_| Error::Internal("a thread of the optimizer died"))
    })
}

/// Sum of the squares of all elements.
pub(super) fn square_sum(pieces: Vec<Values<'_>>, threads: usize) -> Result<f64, Error> {
    let mut shares = shares(pieces, threads, Values::len);
    let own = shares.pop().unwrap_or_default();
    let sum = |share: Vec<Values<'_>>| share.iter().map(Values::squares).sum::<f64>();
    std::thread::scope(|scope| {
        let others: Vec<_> = shares.into_iter().map(|share| scope.spawn(move || sum(share))).collect();
        let mut total = sum(own);
        for thread in others {
            total += thread.join().map_err(|_| Error::Internal("a thread of the optimizer died"))?;
        }
        Ok(total)
    })
}

fn squares<N: Number>(values: &[N]) -> f64 {
    // Eight sums side by side: the compiler makes vector instructions of them.
    let (chunks, rest) = values.as_chunks::<8>();
    let mut sums = [0f64; 8];
    for chunk in chunks {
        for (sum, value) in sums.iter_mut().zip(chunk) {
            *sum += f64::from(value.wide()) * f64::from(value.wide());
        }
    }
    sums.iter().sum::<f64>() + rest.iter().map(|value| f64::from(value.wide()).powi(2)).sum::<f64>()
}

fn update(piece: Piece<'_>, rule: Rule, clip: f32) {
    let Piece { weights, copy, first, second, change, rate, keep } = piece;
    let moments = (first, second);
    match change {
        Change::Gradient(Values::Fp32(gradient)) => {
            apply(weights, moments, gradient.iter().copied(), rule, clip, (rate, keep))
        }
        Change::Gradient(Values::Bf16(gradient)) => {
            apply(weights, moments, gradient.iter().copied(), rule, clip, (rate, keep))
        }
        Change::Fade => apply(weights, moments, std::iter::repeat(0f32), rule, clip, (rate, keep)),
    }
    for (copy, weight) in copy.iter_mut().zip(weights) {
        *copy = narrow(*weight);
    }
}

fn apply<N: Number>(
    weights: &mut [f32],
    (first, second): (&mut [f32], &mut [f32]),
    gradient: impl Iterator<Item = N>,
    rule: Rule,
    clip: f32,
    (rate, keep): (f32, f32),
) {
    match rule {
        Rule::AdamW { beta1, beta2, epsilon, correction, root } => {
            let (fresh1, fresh2, rate) = (1.0 - beta1, 1.0 - beta2, rate / correction);
            for (((weight, first), second), gradient) in weights.iter_mut().zip(first).zip(second).zip(gradient) {
                let gradient = gradient.wide() * clip;
                *first += fresh1 * (gradient - *first);
                *second = beta2 * *second + fresh2 * gradient * gradient;
                *weight = *weight * keep - rate * *first / (second.sqrt() / root + epsilon);
            }
        }
        Rule::Lion { beta1, beta2 } => {
            for ((weight, first), gradient) in weights.iter_mut().zip(first).zip(gradient) {
                let gradient = gradient.wide() * clip;
                let direction = beta1 * *first + (1.0 - beta1) * gradient;
                // The sign of zero is zero.
                let sign = if direction == 0.0 { 0.0 } else { direction.signum() };
                *weight = *weight * keep - rate * sign;
                *first = beta2 * *first + (1.0 - beta2) * gradient;
            }
        }
    }
}
