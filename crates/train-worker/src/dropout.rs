//! Masks of dropout on the processor, from a counter: cheaper than libtorch's generator, and the same however threads share the work.
use std::cell::Cell;

use tch::{Kind, Tensor};

use crate::Error;

/// Steps of the counter, and the mixing of SplitMix64 (Steele, Lea and Flood 2014).
const STEP: u64 = 0x9e37_79b9_7f4a_7c15;

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

    /// A mask for `x`: 0 with the probability (to 1/65536), else what keeps the mean.
    pub(crate) fn mask(&self, x: &Tensor, probability: f64) -> Result<Tensor, Error> {
        let mask = Tensor::f_empty(x.size(), (Kind::Float, x.device()))?;
        let count = mask.numel();
        if count > 0 {
            // SAFETY: a new contiguous f32 tensor on the processor; every element is written before anything reads it.
            let cells = unsafe { std::slice::from_raw_parts_mut(mask.data_ptr().cast::<f32>(), count) };
            self.fill(cells, probability);
        }
        if x.kind() == Kind::Float { Ok(mask) } else { Ok(mask.f_to_kind(x.kind())?) }
    }

    fn fill(&self, cells: &mut [f32], probability: f64) {
        let below = ((probability * 65536.0).round() as u64).min(65535);
        let kept = (65536.0 / (65536 - below) as f64) as f32;
        let mut counter = self.0.get();
        for four in cells.chunks_mut(4) {
            counter = counter.wrapping_add(STEP);
            let mut bits = mix(counter);
            for cell in four {
                *cell = if (bits & 0xffff) < below { 0.0 } else { kept };
                bits >>= 16;
            }
        }
        self.0.set(counter);
    }
}

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
