//! The kernels that matter to a point: those that are far away in one dimension need not be looked at in the others.

use std::ops::Range;

use super::dimension::{At, Dimension, Terms};

/// Kernels of a block: what the dimensions of them take stays in the nearest cache.
pub(super) const BLOCK: usize = 256;

/// The kernels of a block that may still matter to a point.
pub(super) struct Near {
    len: usize,
    /// Their indices in the block; meaningless while all are there.
    indices: [u16; BLOCK],
    /// Their log densities as far as they are known, but for weights; every further dimension makes them smaller.
    logs: [f64; BLOCK],
    all: bool,
}

impl Default for Near {
    fn default() -> Self {
        Self { len: 0, indices: [0; BLOCK], logs: [0.0; BLOCK], all: true }
    }
}

impl Near {
    pub(super) fn begin(&mut self, shared: &[f64]) {
        self.len = shared.len();
        self.logs[..self.len].copy_from_slice(shared);
        self.all = true;
    }

    /// Adds a dimension's log densities and drops what is then below the floor.
    pub(super) fn add(&mut self, dimension: &Dimension, at: &At, block: Range<usize>, floor: f64) {
        match dimension.terms(at, block) {
            Terms::Squares { x, mu, scales } => {
                if self.all {
                    for ((log, mu), scale) in self.logs.iter_mut().zip(mu).zip(scales) {
                        let z = (x - mu) * scale;
                        *log -= z * z;
                    }
                    self.keep(floor);
                } else {
                    self.keep_each(floor, |index| {
                        let z = (x - mu[index]) * scales[index];
                        -(z * z)
                    });
                }
            }
            Terms::Masses { of, kernels } => {
                if self.all {
                    self.logs.iter_mut().zip(kernels).for_each(|(log, kernel)| *log += of[*kernel as usize]);
                    self.keep(floor);
                } else {
                    self.keep_each(floor, |index| of[kernels[index] as usize]);
                }
            }
            Terms::None => self.len = 0,
        }
    }

    /// Keeps of all those above the floor.
    fn keep(&mut self, floor: f64) {
        let mut kept = 0;
        for index in 0..self.len {
            let log = self.logs[index];
            self.indices[kept] = index as u16;
            self.logs[kept] = log;
            kept += usize::from(log > floor);
        }
        (self.len, self.all) = (kept, false);
    }

    /// Adds to each of those that are left, and keeps those above the floor.
    fn keep_each(&mut self, floor: f64, more: impl Fn(usize) -> f64) {
        let mut kept = 0;
        for place in 0..self.len {
            let index = self.indices[place];
            let log = self.logs[place] + more(index as usize);
            self.indices[kept] = index;
            self.logs[kept] = log;
            kept += usize::from(log > floor);
        }
        self.len = kept;
    }

    /// Index in the block and log density of what is left.
    pub(super) fn left(&self) -> impl Iterator<Item = (usize, f64)> {
        let indices = self.indices[..self.len].iter().enumerate();
        indices.map(|(place, index)| (if self.all { place } else { usize::from(*index) }, self.logs[place]))
    }
}
