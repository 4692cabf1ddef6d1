//! A numeric domain as the real line between two bounds, on which parents are combined: Optuna's `_SearchSpaceTransform`.

use super::super::random::on_grid;
use crate::space::Distribution;

/// A numeric domain; log ones in log space, grids widened by half a step.
#[derive(Debug)]
pub(super) struct Axis<'a> {
    distribution: &'a Distribution,
    bounds: (f64, f64),
}

impl<'a> Axis<'a> {
    /// `None` for choices, which have no order.
    pub(super) fn new(distribution: &'a Distribution) -> Option<Self> {
        let bounds = match distribution {
            Distribution::Categorical { .. } => return None,
            Distribution::Float { low, high, log: true, .. } => (low.ln(), high.ln()),
            Distribution::Float { low, high, step, .. } => {
                let margin = step.unwrap_or(0.0) / 2.0;
                (low - margin, high + margin)
            }
            Distribution::Int { low, high, log: true, .. } => ((*low as f64 - 0.5).ln(), (*high as f64 + 0.5).ln()),
            Distribution::Int { low, high, step, .. } => {
                let margin = *step as f64 / 2.0;
                (*low as f64 - margin, *high as f64 + margin)
            }
        };
        Some(Self { distribution, bounds })
    }

    pub(super) fn bounds(&self) -> (f64, f64) {
        self.bounds
    }

    fn log(&self) -> bool {
        matches!(self.distribution, Distribution::Float { log: true, .. } | Distribution::Int { log: true, .. })
    }

    /// The place of an internal value.
    pub(super) fn scaled(&self, value: f64) -> f64 {
        if self.log() { value.ln() } else { value }
    }

    /// The internal value of a place. Only a continuous domain without log lets one below its lower end through, as Optuna does, for
    /// the caller to see.
    pub(super) fn value(&self, scaled: f64) -> f64 {
        match self.distribution {
            Distribution::Float { low, high, log: true, .. } => scaled.exp().clamp(*low, high.next_down().max(*low)),
            Distribution::Float { low, high, step: Some(step), .. } => on_grid(scaled, *low, *high, *step),
            Distribution::Float { high, .. } => scaled.min(high.next_down()),
            Distribution::Int { low, high, log: true, .. } => {
                scaled.exp().round_ties_even().clamp(*low as f64, *high as f64)
            }
            Distribution::Int { low, high, step, .. } => {
                let (low, high, step) = (*low as f64, *high as f64, *step as f64);
                (((scaled - low) / step + 0.5).floor() * step + low).clamp(low, high)
            }
            Distribution::Categorical { .. } => scaled,
        }
    }

    /// The nearest value of the domain; its first one for NaN.
    pub(super) fn clamped(&self, value: f64) -> f64 {
        let first = self.distribution.first();
        // `max` of NaN and a number is the number.
        if self.distribution.contains(value) { value } else { self.value(self.scaled(value.max(first))).max(first) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_go_to_the_line_and_back() {
        let cases = [
            (Distribution::float(1e-5, 1e-1, true, None), vec![1e-5, 3e-3]),
            (Distribution::float(0.0, 1.0, false, Some(0.3)), vec![0.0, 0.3, 0.9]),
            (Distribution::float(-1.0, 2.0, false, None), vec![-1.0, 0.5]),
            (Distribution::int(-3, 9, false, 4), vec![-3.0, 1.0, 9.0]),
            (Distribution::int(1, 1000, true, 1), vec![1.0, 999.0, 1000.0]),
        ];
        for (distribution, values) in cases {
            let distribution = distribution.unwrap();
            let axis = Axis::new(&distribution).unwrap();
            for value in values {
                assert!((axis.value(axis.scaled(value)) - value).abs() <= 1e-12 * value.abs(), "{value}");
            }
            let (low, high) = axis.bounds();
            for scaled in [low, high, low - 9.0, high + 9.0, f64::NAN, f64::INFINITY, f64::NEG_INFINITY] {
                let value = axis.clamped(axis.value(scaled));
                assert!(distribution.contains(value), "{value} of {scaled} in {distribution:?}");
            }
        }
    }
}
