//! The space of a Gaussian process: every number scaled to [0, 1], choices by their index.
//!
//! Scales are those of Optuna's `_gp/search_space.py`: log where the domain is, half a step of margin at both ends of a grid.

use sobol_burley::{NUM_DIMENSIONS, sample};

use crate::{sampler::random::on_grid, space::Distribution};

/// One parameter.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Dimension {
    scale: Scale,
    low: f64,
    high: f64,
    /// 0 where the parameter is continuous.
    step: f64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Scale {
    Linear,
    Log,
    Choice,
}

impl Dimension {
    pub(super) fn new(distribution: &Distribution) -> Self {
        let scale = |log| if log { Scale::Log } else { Scale::Linear };
        match distribution {
            Distribution::Float { low, high, log, step } => {
                Self { scale: scale(*log), low: *low, high: *high, step: step.unwrap_or(0.0) }
            }
            Distribution::Int { low, high, log, step, .. } => {
                Self { scale: scale(*log), low: *low as f64, high: *high as f64, step: *step as f64 }
            }
            Distribution::Categorical { choices } => {
                Self { scale: Scale::Choice, low: 0.0, high: choices.len().saturating_sub(1) as f64, step: 1.0 }
            }
        }
    }

    /// Whether the values have no order.
    pub(super) fn is_choice(self) -> bool {
        self.scale == Scale::Choice
    }

    pub(super) fn is_continuous(self) -> bool {
        self.step == 0.0
    }

    /// The ends of the scaled domain, before scaling.
    fn ends(self) -> (f64, f64) {
        let (low, high) = (self.low - 0.5 * self.step, self.high + 0.5 * self.step);
        if self.scale == Scale::Log { (low.ln(), high.ln()) } else { (low, high) }
    }

    /// The scaled form of an internal value.
    pub(super) fn scaled(self, value: f64) -> f64 {
        if self.is_choice() {
            return value;
        }
        let (low, high) = self.ends();
        let value = if self.scale == Scale::Log { value.ln() } else { value };
        if high == low { 0.5 } else { (value - low) / (high - low) }
    }

    /// The internal value of a scaled one; it is in the domain.
    pub(super) fn internal(self, scaled: f64) -> f64 {
        if self.is_choice() {
            return scaled.round_ties_even().clamp(self.low, self.high);
        }
        let (low, high) = self.ends();
        let value = scaled * (high - low) + low;
        let value = if self.scale == Scale::Log { value.exp() } else { value };
        if self.step > 0.0 { on_grid(value, self.low, self.high, self.step) } else { value.clamp(self.low, self.high) }
    }

    /// The nearest scaled value of the domain.
    pub(super) fn inside(self, scaled: f64) -> f64 {
        if self.is_continuous() { scaled.clamp(0.0, 1.0) } else { self.at(self.nearest(scaled)) }
    }

    /// How many values there are; only of those that are not continuous.
    pub(super) fn count(self) -> u64 {
        ((self.high - self.low) / self.step).round_ties_even() as u64 + 1
    }

    /// The scaled value of that index on the grid.
    pub(super) fn at(self, index: u64) -> f64 {
        let value = (self.low + index as f64 * self.step).min(self.high);
        if self.is_choice() { value } else { self.scaled(value) }
    }

    /// The index of the first scaled value that is not below `x`; the count of values when all are below. By halving: a grid may
    /// be too long for a list.
    pub(super) fn first_from(self, x: f64) -> u64 {
        let (mut low, mut high) = (0, self.count());
        while low < high {
            let middle = low + (high - low) / 2;
            if self.at(middle) < x {
                low = middle + 1;
            } else {
                high = middle;
            }
        }
        low
    }

    /// The index of the nearest scaled value.
    pub(super) fn nearest(self, x: f64) -> u64 {
        let last = self.count() - 1;
        if last == 0 {
            return 0;
        }
        let right = self.first_from(x).clamp(1, last);
        if (x - self.at(right - 1)).abs() < (x - self.at(right)).abs() { right - 1 } else { right }
    }

    /// The scaled value at a share of the domain.
    fn at_share(self, share: f64) -> f64 {
        if self.is_choice() {
            (share * (self.high + 1.0)).floor().min(self.high)
        } else if self.is_continuous() {
            share
        } else {
            self.scaled(self.internal(share))
        }
    }
}

/// `n` points, at most 2^16, of a scrambled Sobol sequence over the space.
pub(super) fn quasi_random(space: &[Dimension], n: u32, seed: u32) -> Vec<Vec<f64>> {
    let share = |index: u32, dimension: usize| {
        // The table of the sequence ends; beyond it the first dimensions come again, scrambled in another way.
        let (round, column) = (dimension as u32 / NUM_DIMENSIONS, dimension as u32 % NUM_DIMENSIONS);
        f64::from(sample(index % (1 << 16), column, seed.wrapping_add(round)))
    };
    (0..n).map(|index| space.iter().enumerate().map(|(i, d)| d.at_share(share(index, i))).collect()).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::space::ParamValue;

    fn distributions() -> Vec<Distribution> {
        vec![
            Distribution::float(-1.0, 3.0, false, None).unwrap(),
            Distribution::float(1e-5, 1e-1, true, None).unwrap(),
            Distribution::float(0.0, 0.5, false, Some(0.05)).unwrap(),
            Distribution::int(8, 64, false, 8).unwrap(),
            Distribution::int(1, 1000, true, 1).unwrap(),
            Distribution::int(1, 1 << 50, true, 1).unwrap(),
            Distribution::categorical(vec![ParamValue::Null, ParamValue::Int(3), ParamValue::Int(4)]).unwrap(),
        ]
    }

    proptest! {
        #[test]
        fn points_lie_in_the_domain_and_scale_back(seed: u32) {
            let distributions = distributions();
            let space: Vec<_> = distributions.iter().map(Dimension::new).collect();
            for point in quasi_random(&space, 16, seed) {
                for ((distribution, dimension), x) in distributions.iter().zip(&space).zip(point) {
                    let value = dimension.internal(x);
                    prop_assert!(distribution.contains(value), "{distribution:?} {value}");
                    prop_assert!((dimension.scaled(value) - x).abs() < 1e-9, "{distribution:?} {x} {value}");
                    if !dimension.is_continuous() {
                        let nearest = dimension.nearest(x);
                        prop_assert_eq!(dimension.internal(dimension.at(nearest)), value);
                    }
                }
            }
        }
    }

    #[test]
    fn scales_are_optunas() {
        // _normalize_one_param of Optuna 5.0.0.
        let at = |index: usize, value: f64| Dimension::new(&distributions()[index]).scaled(value);
        assert_eq!(at(0, 0.0), 0.25);
        assert!((at(1, 1e-3) - 0.5).abs() < 1e-12);
        assert!((at(2, 0.0) - 0.5 / 11.0).abs() < 1e-12);
        assert!((at(3, 16.0) - 1.5 / 8.0).abs() < 1e-12);
        assert!((at(4, 1.0) - 2.0_f64.ln() / 2001.0_f64.ln()).abs() < 1e-12);
        assert_eq!(at(6, 2.0), 2.0);
        let int = Dimension::new(&distributions()[3]);
        assert_eq!(int.count(), 8);
        assert_eq!((int.first_from(0.0), int.first_from(0.5), int.first_from(0.99)), (0, 4, 8));
    }

    #[test]
    fn there_may_be_more_parameters_than_the_sequence_has_dimensions() {
        let space = vec![Dimension::new(&distributions()[0]); 300];
        let points = quasi_random(&space, 64, 5);
        let columns: std::collections::BTreeSet<Vec<u64>> =
            (0..300).map(|i| points.iter().map(|point| point[i].to_bits()).collect()).collect();
        assert_eq!(columns.len(), 300);
    }
}
