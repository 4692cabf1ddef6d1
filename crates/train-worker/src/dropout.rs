//! Masks of dropout on the processor, from a counter: cheaper than libtorch's generator, and the same however threads share the work.
use std::cell::Cell;

use half::bf16;
use tch::{Kind, Tensor};

use crate::{
    Error,
    vectors::{Work, widest},
};

/// Steps of the counter, and the mixing of SplitMix64 (Steele, Lea and Flood 2014).
const STEP: u64 = 0x9e37_79b9_7f4a_7c15;
/// Elements by step of the counter, 16 bits each.
const LANES: usize = 4;
/// Steps of the counter taken side by side.
const BLOCK: usize = 16;

/// A stream of masks.
#[derive(Debug, Default)]
pub(crate) struct Draws(Cell<u64>);

impl Draws {
    /// Begins anew: the same masks follow the same seed.
    pub(crate) fn seed(&self, seed: u64) {
        self.0.set(seed);
    }

    /// Where the stream stands: the seed that the next masks follow.
    pub(crate) fn place(&self) -> u64 {
        self.0.get()
    }

    /// A mask for `x`, in its numbers: 0 with the probability (to 1/65536), else what keeps the mean.
    pub(crate) fn mask(&self, x: &Tensor, probability: f64) -> Result<Tensor, Error> {
        let (size, kind, count) = (x.size(), x.kind(), x.numel());
        let kind = if kind == Kind::BFloat16 { kind } else { Kind::Float };
        let mask = Tensor::f_empty(size, (kind, x.device()))?;
        let below = (probability * 65536.0).round().min(65535.0) as u16;
        let kept = (65536.0 / (65536.0 - f64::from(below))) as f32;
        if count == 0 {
            return Ok(mask.f_to_kind(x.kind())?);
        }
        if kind == Kind::BFloat16 {
            // SAFETY: a new contiguous tensor of this type on the processor; every element is written before anything reads it.
            let cells = unsafe { std::slice::from_raw_parts_mut(mask.data_ptr().cast::<bf16>(), count) };
            self.fill(cells, below, (bf16::ZERO, bf16::from_f32(kept)));
        } else {
            // SAFETY: as above.
            let cells = unsafe { std::slice::from_raw_parts_mut(mask.data_ptr().cast::<f32>(), count) };
            self.fill(cells, below, (0.0, kept));
        }
        // Of other numbers, fp16, a copy.
        Ok(mask.f_to_kind(x.kind())?)
    }

    fn fill<T: Copy>(&self, cells: &mut [T], below: u16, values: (T, T)) {
        let counter = self.0.get();
        self.0.set(counter.wrapping_add(STEP.wrapping_mul(cells.len().div_ceil(LANES) as u64)));
        widest(Fill { cells, counter, below, values });
    }
}

/// Fills cells with the first of two values where 16 bits are less than `below`, else with the second.
struct Fill<'a, T> {
    cells: &'a mut [T],
    counter: u64,
    below: u16,
    values: (T, T),
}

impl<T: Copy> Work for Fill<'_, T> {
    type Output = ();

    #[inline(always)]
    fn run(self) {
        let Self { cells, mut counter, below, values: (dropped, kept) } = self;
        for block in cells.chunks_mut(BLOCK * LANES) {
            let mut bits = [[0u16; LANES]; BLOCK];
            for lanes in &mut bits {
                counter = counter.wrapping_add(STEP);
                let mixed = mix(counter);
                *lanes = [mixed as u16, (mixed >> 16) as u16, (mixed >> 32) as u16, (mixed >> 48) as u16];
            }
            for (cell, bits) in block.iter_mut().zip(bits.as_flattened()) {
                *cell = if *bits < below { dropped } else { kept };
            }
        }
    }
}

#[inline(always)]
fn mix(counter: u64) -> u64 {
    let z = (counter ^ (counter >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use tch::Device;

    use super::*;

    #[test]
    fn masks_have_their_rate_and_follow_the_seed() {
        let x = Tensor::zeros([1000, 301], (Kind::Float, Device::Cpu));
        let draws = Draws::default();
        for probability in [0.1, 0.5, 0.9] {
            draws.seed(7);
            let mask = draws.mask(&x, probability).unwrap();
            let zeros = mask.eq(0.0).sum(Kind::Double).double_value(&[]) / 301_000.0;
            assert!((zeros - probability).abs() < 0.005, "{probability}: {zeros}");
            assert!((mask.mean(Kind::Double).double_value(&[]) - 1.0).abs() < 0.02);
            // Neighbours along both axes are independent.
            let columns = (mask.narrow(1, 0, 300).eq(0.0) * mask.narrow(1, 1, 300).eq(0.0)).sum(Kind::Double);
            assert!((columns.double_value(&[]) / 300_000.0 - probability * probability).abs() < 0.005);
            assert_ne!(mask, draws.mask(&x, probability).unwrap());
            draws.seed(7);
            assert_eq!(mask, draws.mask(&x, probability).unwrap());
        }
        let narrow = draws.mask(&x.to_kind(Kind::BFloat16), 0.5).unwrap();
        assert_eq!((narrow.kind(), narrow.max().double_value(&[])), (Kind::BFloat16, 2.0));
    }
}
