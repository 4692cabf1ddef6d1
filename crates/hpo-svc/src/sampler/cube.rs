//! Domains as axes of a unit cube, for samplers that think in coordinates: what Optuna's `_SearchSpaceTransform` does.
//!
//! Log domains are cut in log space. Integers and grids get half a step beyond both ends, so that every point has an equal share;
//! a choice is one axis of equal shares.

use super::random::on_grid;
use crate::space::Distribution;

/// One domain as the interval from 0 to 1.
#[derive(Debug, Clone, Copy)]
pub(super) struct Axis<'a> {
    distribution: &'a Distribution,
    /// What 0 stands for, in log space for log domains.
    low: f64,
    /// What 1 stands for.
    high: f64,
}

impl<'a> Axis<'a> {
    /// The axis of a domain.
    pub(super) fn new(distribution: &'a Distribution) -> Self {
        let (low, high) = match distribution {
            Distribution::Float { low, high, log: true, .. } => (low.ln(), high.ln()),
            Distribution::Float { low, high, step, .. } => {
                let half = step.unwrap_or(0.0) / 2.0;
                (low - half, high + half)
            }
            Distribution::Int { low, high, log: true, .. } => ((*low as f64 - 0.5).ln(), (*high as f64 + 0.5).ln()),
            Distribution::Int { low, high, step, .. } => {
                let half = *step as f64 / 2.0;
                (*low as f64 - half, *high as f64 + half)
            }
            Distribution::Categorical { choices } => (0.0, choices.len() as f64),
        };
        Self { distribution, low, high }
    }

    /// The axis whose ends are the first and the last point of a grid, for a model that gives both their share itself. For domains
    /// without a grid, and for log domains, it is that of [`Axis::new`].
    pub(super) fn of_points(distribution: &'a Distribution) -> Self {
        let axis = Self::new(distribution);
        match distribution {
            Distribution::Float { low, high, step: Some(_), .. } => Self { low: *low, high: *high, ..axis },
            Distribution::Int { low, high, log: false, .. } => Self { low: *low as f64, high: *high as f64, ..axis },
            _ => axis,
        }
    }

    /// The distance of two points of the grid as a share of the axis; `None` without a grid and for log domains.
    pub(super) fn step(&self) -> Option<f64> {
        let step = match self.distribution {
            Distribution::Float { step, .. } => (*step)?,
            Distribution::Int { step, log: false, .. } => *step as f64,
            _ => return None,
        };
        let share = step / (self.high - self.low);
        (share.is_finite() && share > 0.0).then_some(share)
    }

    /// The internal value at a coordinate, always inside of the domain.
    pub(super) fn at(&self, coordinate: f64) -> f64 {
        let point = self.low + coordinate * (self.high - self.low);
        if !point.is_finite() {
            return self.distribution.first();
        }
        match self.distribution {
            Distribution::Float { low, high, log: true, .. } => point.exp().clamp(*low, *high),
            Distribution::Float { low, high, step: Some(step), .. } => on_grid(point, *low, *high, *step),
            Distribution::Float { low, high, .. } => point.clamp(*low, *high),
            Distribution::Int { low, high, log: true, .. } => {
                point.exp().round_ties_even().clamp(*low as f64, *high as f64)
            }
            Distribution::Int { low, high, step, .. } => {
                let (low, high, step) = (*low as f64, *high as f64, *step as f64);
                // Halves go up, unlike those of float grids.
                (((point - low) / step + 0.5).floor() * step + low).clamp(low, high)
            }
            Distribution::Categorical { choices } => point.floor().clamp(0.0, choices.len() as f64 - 1.0),
        }
    }

    /// The coordinate of an internal value; `None` for one that has none, such as a negative number in a log domain.
    pub(super) fn coordinate(&self, internal: f64) -> Option<f64> {
        let point = match self.distribution {
            Distribution::Float { log: true, .. } | Distribution::Int { log: true, .. } => internal.ln(),
            Distribution::Categorical { .. } => internal.floor() + 0.5,
            _ => internal,
        };
        let coordinate = (point - self.low) / (self.high - self.low);
        coordinate.is_finite().then_some(coordinate)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::space::ParamValue;

    fn domains() -> Vec<Distribution> {
        vec![
            Distribution::float(-2.0, 6.0, false, None).unwrap(),
            Distribution::float(1e-5, 1e-1, true, None).unwrap(),
            Distribution::float(0.0, 1.0, false, Some(0.3)).unwrap(),
            Distribution::int(-3, 9, false, 4).unwrap(),
            Distribution::int(1, 1000, true, 1).unwrap(),
            Distribution::categorical(["a", "b", "c"].map(|text| ParamValue::Text(text.into())).to_vec()).unwrap(),
            Distribution::float(-8e307, 8e307, false, Some(1e307)).unwrap(),
        ]
    }

    proptest! {
        #[test]
        fn coordinates_are_values_of_the_domain_and_come_back(coordinate in -0.2f64..1.2) {
            for domain in &domains() {
                for axis in [Axis::new(domain), Axis::of_points(domain)] {
                    let value = axis.at(coordinate);
                    prop_assert!(domain.contains(value), "{domain:?} {value}");
                    let back = axis.at(axis.coordinate(value).unwrap());
                    prop_assert!((back - value).abs() <= 1e-9 * value.abs(), "{domain:?} {value} {back}");
                }
            }
        }
    }

    #[test]
    fn points_of_a_grid_have_equal_shares_or_the_ends() {
        let domain = Distribution::int(-3, 9, false, 4).unwrap();
        let (wide, points) = (Axis::new(&domain), Axis::of_points(&domain));
        assert_eq!([0.0, 0.24, 0.26, 0.74, 0.76, 1.0].map(|c| wide.at(c)), [-3.0, -3.0, 1.0, 5.0, 9.0, 9.0]);
        assert_eq!([-3.0, 1.0, 9.0].map(|v| points.coordinate(v).unwrap()), [0.0, 1.0 / 3.0, 1.0]);
        assert_eq!((wide.step(), points.step()), (Some(0.25), Some(1.0 / 3.0)));
        let log = Distribution::int(1, 1000, true, 1).unwrap();
        assert_eq!((Axis::of_points(&log).step(), Axis::new(&log).coordinate(-1.0)), (None, None));
    }
}
