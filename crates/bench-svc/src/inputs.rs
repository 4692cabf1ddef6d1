//! Inputs of a run: seeded token ids, no padding, one segment.

use quintet_onnx::Batch;
use rand::{RngExt as _, SeedableRng as _};
use rand_chacha::ChaCha8Rng;

/// Owned values of one batch.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Inputs {
    rows: usize,
    length: usize,
    ids: Vec<i64>,
    mask: Vec<i64>,
    types: Vec<i64>,
}

/// Said in the report.
pub(crate) const DESCRIPTION: &str = "token ids uniform below the vocabulary size, from ChaCha8 of the seed and the shape; \
     attention mask all ones; token types all zeros";

impl Inputs {
    /// Full rows of random tokens; the same seed and shape give the same rows.
    pub(crate) fn new(seed: u64, rows: usize, length: usize, vocabulary: i64) -> Self {
        let shape = ((rows as u64) << 32) | length as u64;
        let mut random = ChaCha8Rng::seed_from_u64(seed ^ shape.wrapping_mul(0x9E37_79B9_7F4A_7C15));
        let count = rows * length;
        let ids = (0..count).map(|_| random.random_range(0..vocabulary.max(1))).collect();
        Self { rows, length, ids, mask: vec![1; count], types: vec![0; count] }
    }

    pub(crate) fn batch(&self) -> Batch<'_> {
        Batch {
            rows: self.rows,
            length: self.length,
            input_ids: &self.ids,
            attention_mask: &self.mask,
            token_type_ids: &self.types,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_gives_the_same_rows_below_the_vocabulary() {
        let inputs = Inputs::new(42, 3, 5, 7);
        assert_eq!(inputs, Inputs::new(42, 3, 5, 7));
        assert_ne!(inputs, Inputs::new(43, 3, 5, 7));
        assert_eq!(inputs.ids.len(), 15);
        assert!(inputs.ids.iter().all(|id| (0..7).contains(id)));
    }
}
