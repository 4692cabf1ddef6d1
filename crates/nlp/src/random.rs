//! Seeded random streams whose values depend on nothing but the seed and the purpose: ChaCha8 keyed by SHA-256.
use rand_chacha::{
    ChaCha8Rng,
    rand_core::{Rng as _, SeedableRng},
};
use sha2::{Digest, Sha256};

/// A stream of random values.
pub struct Stream(ChaCha8Rng);

impl Stream {
    /// The stream of `seed` for one purpose and one index of it (an epoch, say). Streams of different purposes are independent.
    pub fn new(seed: u64, purpose: &str, index: u64) -> Self {
        Self(ChaCha8Rng::from_seed(key(seed, purpose, index)))
    }

    /// A uniform integer in `0..bound`, without bias (Lemire 2019); 0 when `bound` is 0.
    pub fn below(&mut self, bound: usize) -> usize {
        let bound = bound as u64;
        if bound == 0 {
            return 0;
        }
        let mut product = u128::from(self.0.next_u64()) * u128::from(bound);
        let threshold = bound.wrapping_neg() % bound;
        while (product as u64) < threshold {
            product = u128::from(self.0.next_u64()) * u128::from(bound);
        }
        (product >> 64) as usize
    }

    /// A random order of `0..len` (Fisher-Yates).
    pub fn permutation(&mut self, len: usize) -> Vec<usize> {
        let mut order: Vec<usize> = (0..len).collect();
        for last in (1..len).rev() {
            order.swap(last, self.below(last + 1));
        }
        order
    }

    /// [`Stream::permutation`] in half the memory, for fewer than 2^32 elements.
    pub fn order(&mut self, len: usize) -> Vec<u32> {
        let mut order: Vec<u32> = (0..u32::try_from(len).unwrap_or(u32::MAX)).collect();
        for last in (1..order.len()).rev() {
            order.swap(last, self.below(last + 1));
        }
        order
    }

    /// A value of 2^24 spread evenly over (0, 1), alike on both sides of its middle.
    pub fn uniform(&mut self) -> f64 {
        const GRID: usize = 1 << 24;
        (self.below(GRID) as f64 + 0.5) / GRID as f64
    }

    /// A value of the standard normal distribution (Box-Muller).
    pub fn normal(&mut self) -> f64 {
        // In (0, 1], so that its logarithm is finite.
        let radius = ((self.0.next_u64() >> 11) + 1) as f64 / (1u64 << 53) as f64;
        let angle = (self.0.next_u64() >> 11) as f64 / (1u64 << 53) as f64;
        (-2.0 * radius.ln()).sqrt() * (std::f64::consts::TAU * angle).cos()
    }
}

/// A seed for another generator, made of a seed, a purpose and an index.
pub fn derive(seed: u64, purpose: &str, index: u64) -> u64 {
    key(seed, purpose, index)[..8].iter().fold(0, |value, byte| value << 8 | u64::from(*byte))
}

fn key(seed: u64, purpose: &str, index: u64) -> [u8; 32] {
    Sha256::digest(format!("{purpose}/{seed}/{index}")).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn streams_are_reproducible_and_apart() {
        let order = |seed, purpose, index| Stream::new(seed, purpose, index).permutation(100);
        assert_eq!(order(1, "a", 0), order(1, "a", 0));
        assert_ne!(order(1, "a", 0), order(2, "a", 0));
        assert_ne!(order(1, "a", 0), order(1, "b", 0));
        assert_ne!(order(1, "a", 0), order(1, "a", 1));
        let mut sorted = order(1, "a", 0);
        let narrow = Stream::new(1, "a", 0).order(100);
        assert!(narrow.iter().map(|row| *row as usize).eq(sorted.iter().copied()));
        sorted.sort_unstable();
        assert_eq!(sorted, (0..100).collect::<Vec<_>>());
    }

    #[test]
    fn normal_has_mean_zero_and_variance_one() {
        let mut stream = Stream::new(7, "normal", 0);
        let values: Vec<f64> = (0..20_000).map(|_| stream.normal()).collect();
        let mean = values.iter().sum::<f64>() / values.len() as f64;
        let variance = values.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / values.len() as f64;
        assert!(mean.abs() < 0.03 && (variance - 1.0).abs() < 0.05, "mean {mean}, variance {variance}");
    }

    #[test]
    fn below_stays_below() {
        let mut stream = Stream::new(7, "below", 0);
        let mut seen = [0; 5];
        for _ in 0..5000 {
            seen[stream.below(5)] += 1;
        }
        assert!(seen.iter().all(|n| (800..1200).contains(n)), "{seen:?}");
        assert_eq!(stream.below(0), 0);
    }
}
