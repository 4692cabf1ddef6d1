//! Scales: where a value lies along an axis, and which values are written beside it.

use crate::view::course::spans_decades;

/// Whether the objective's axis is logarithmic.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Scaling {
    /// Logarithmic when all values are positive and the largest is at least a hundred times the smallest.
    #[default]
    Auto,
    /// Never.
    Linear,
    /// Always; values that are not positive are left out.
    Log,
}

/// Maps values to shares of an axis, 0 at its beginning and 1 at its end.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Scale {
    Linear {
        low: f64,
        high: f64,
    },
    /// Linear, and there is nothing between whole numbers.
    Whole {
        low: f64,
        high: f64,
    },
    /// Bounds are logarithms to the base 10.
    Log {
        low: f64,
        high: f64,
    },
    /// By the index of the label.
    Category(Vec<String>),
}

/// A mark along an axis.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Tick {
    /// Share of the axis.
    pub(super) place: f64,
    pub(super) label: String,
}

impl Scale {
    /// Holds all finite values, with some air at both ends. `None` when there are none.
    pub(super) fn around(values: impl Iterator<Item = f64> + Clone, scaling: Scaling) -> Option<Self> {
        let (low, high) = range(values.clone())?;
        let log = match scaling {
            Scaling::Auto => spans_decades(low, high),
            Scaling::Linear => false,
            Scaling::Log => true,
        };
        if log {
            let (low, high) = range(values.filter(|value| *value > 0.0))?;
            let (low, high) = (low.log10(), high.log10());
            let air = if high > low { 0.04 * (high - low) } else { 0.5 };
            return Some(Self::Log { low: low - air, high: high + air });
        }
        let air = match high - low {
            range if range == 0.0 && low == 0.0 => 1.0,
            // Too narrow for doubles to divide.
            range if range <= (low.abs() * 1e-12).max(1e-290) => (low.abs() * 0.1).max(1e-280),
            range => range * 0.04,
        };
        let bounded = |value: f64| value.clamp(-f64::MAX, f64::MAX);
        Some(Self::Linear { low: bounded(low - air), high: bounded(high + air) })
    }

    /// Like a linear scale around the values, for whole numbers.
    pub(super) fn whole(values: impl Iterator<Item = f64>) -> Option<Self> {
        let (low, high) = range(values)?;
        let air = (high * 0.04 - low * 0.04).max(0.4).max(low.abs() * 1e-12);
        Some(Self::Whole { low: (low - air).max(-f64::MAX), high: (high + air).min(f64::MAX) })
    }

    /// The share of the axis at which the value lies; `None` when it has no place.
    pub(super) fn place(&self, value: f64) -> Option<f64> {
        let share = match self {
            // Halves, since the range of two large numbers may be no number.
            Self::Linear { low, high } | Self::Whole { low, high } => {
                (value / 2.0 - low / 2.0) / (high / 2.0 - low / 2.0)
            }
            Self::Log { low, high } => (value.log10() - low) / (high - low),
            Self::Category(labels) => (value.floor() + 0.5) / labels.len() as f64,
        };
        // Conditions of drawing, not of data: what is far outside of the axis is not drawn.
        share.is_finite().then_some(share).filter(|share| (-0.01..=1.01).contains(share))
    }

    /// About `count` round values inside of the axis; all labels of a category axis that there is room for.
    pub(super) fn ticks(&self, count: usize) -> Vec<Tick> {
        let count = count.max(2);
        match self {
            Self::Linear { low, high } => self.placed(round_values(*low, *high, count, false)),
            Self::Whole { low, high } => self.placed(round_values(*low, *high, count, true)),
            Self::Log { low, high } => self.placed(log_values(*low, *high, count)),
            Self::Category(labels) => {
                let stride = labels.len().div_ceil(count);
                let tick = |(index, label): (usize, &String)| Tick {
                    place: (index as f64 + 0.5) / labels.len() as f64,
                    label: label.clone(),
                };
                labels.iter().enumerate().step_by(stride.max(1)).map(tick).collect()
            }
        }
    }

    fn placed(&self, values: Vec<(f64, String)>) -> Vec<Tick> {
        // A hair of tolerance: a bound that is round shall have its tick.
        let inside = |place: &f64| (-1e-9..=1.0 + 1e-9).contains(place);
        let tick = |(value, label)| Some(Tick { place: self.place(value).filter(inside)?, label });
        values.into_iter().filter_map(tick).collect()
    }
}

/// The smallest and the largest finite value.
fn range(values: impl Iterator<Item = f64>) -> Option<(f64, f64)> {
    values.filter(|value| value.is_finite()).fold(None, |range: Option<(f64, f64)>, value| {
        Some(range.map_or((value, value), |(low, high)| (low.min(value), high.max(value))))
    })
}

/// Multiples of 1, 2, 2.5 or 5 times a power of ten, with labels of equal precision.
fn round_values(low: f64, high: f64, count: usize, whole: bool) -> Vec<(f64, String)> {
    let range = (high / count as f64 - low / count as f64).max(if whole { 1.0 } else { 0.0 });
    if !range.is_finite() || range <= 0.0 {
        return vec![(low, plain(low))];
    }
    let magnitude = 10.0_f64.powi(range.log10().floor() as i32);
    let factor = [1.0, 2.0, 2.5, 5.0, 10.0].into_iter().find(|factor| {
        let step = factor * magnitude;
        step >= range * (1.0 - 1e-9) && (!whole || step.fract() == 0.0)
    });
    let step = factor.unwrap_or(10.0) * magnitude;
    if !(step.is_normal() && (high / step).abs().max((low / step).abs()) < 1e15) {
        return vec![(low, plain(low)), (high, plain(high))];
    }
    let first = (low / step - 1e-9).ceil() as i64;
    let last = (high / step + 1e-9).floor() as i64;
    let largest = low.abs().max(high.abs());
    // 2.5 needs one digit more than its magnitude.
    let finest = step.log10().floor() as i32 - i32::from(factor == Some(2.5));
    let label = |value: f64| {
        if value == 0.0 {
            return "0".to_owned();
        }
        if largest >= 1e6 || finest < -5 {
            let digits = (value.abs().log10().floor() as i32 - finest).clamp(0, 15) as usize;
            return scientific(value, digits);
        }
        format!("{value:.*}", (-finest).max(0) as usize)
    };
    (first..=last.min(first.saturating_add(100))).map(|k| (k as f64 * step, label(k as f64 * step))).collect()
}

/// Powers of ten; between few of them also 2 and 5 times as much, or else round values.
fn log_values(low: f64, high: f64, count: usize) -> Vec<(f64, String)> {
    let (first, last) = (low.ceil() as i32, high.floor() as i32);
    let decades = (last - first + 1).max(0) as usize;
    if decades > count.max(3) / 2 {
        let stride = decades.div_ceil(count);
        return (first..=last).step_by(stride.max(1)).map(|power| (10.0_f64.powi(power), power_label(power))).collect();
    }
    let with_parts: Vec<(f64, String)> = (first - 1..=last)
        .flat_map(|power| [1.0, 2.0, 5.0].map(|part| part * 10.0_f64.powi(power)))
        .filter(|value| (low..=high).contains(&value.log10()))
        .map(|value| (value, plain(value)))
        .collect();
    if with_parts.len() < 2 { round_values(10.0_f64.powf(low), 10.0_f64.powf(high), count, false) } else { with_parts }
}

fn power_label(power: i32) -> String {
    if (-4..=5).contains(&power) { plain(10.0_f64.powi(power)) } else { format!("1e{power}") }
}

/// Digits after the point, without zeros at the end.
fn scientific(value: f64, digits: usize) -> String {
    let text = format!("{value:.digits$e}");
    let (mantissa, exponent) = text.split_once('e').unwrap_or((&text, "0"));
    let mantissa = if mantissa.contains('.') { mantissa.trim_end_matches('0').trim_end_matches('.') } else { mantissa };
    format!("{mantissa}e{exponent}")
}

/// A number with at most four significant digits.
pub(super) fn plain(value: f64) -> String {
    let text = crate::view::table::short(format!("{value:.3e}").parse().unwrap_or(value));
    text.replace("e+0", "e").replace("e-0", "e-").replace("e+", "e")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn labels(scale: &Scale, count: usize) -> Vec<String> {
        scale.ticks(count).into_iter().map(|tick| tick.label).collect()
    }

    #[test]
    fn ticks_are_round() {
        let linear = |low, high| Scale::Linear { low, high };
        assert_eq!(labels(&linear(0.0, 10.0), 5), ["0", "2", "4", "6", "8", "10"]);
        assert_eq!(labels(&linear(-0.11, 0.93), 4), ["0", "0.5"]);
        assert_eq!(labels(&linear(0.0, 1.0), 4), ["0", "0.25", "0.50", "0.75", "1.00"]);
        assert_eq!(labels(&linear(0.0, 3e-7), 3), ["0", "1e-7", "2e-7", "3e-7"]);
        assert_eq!(labels(&linear(-2.5e6, 2.5e6), 5), ["-2e6", "-1e6", "0", "1e6", "2e6"]);
        let whole = |values: &[f64]| Scale::whole(values.iter().copied()).unwrap();
        assert_eq!(labels(&whole(&[0.0]), 8), ["0"]);
        assert_eq!(labels(&whole(&[3.0, 1.0]), 8), ["1", "2", "3"]);
        assert_eq!(labels(&whole(&[0.0, 9.0]), 4), ["0", "5"]);
        assert_eq!(labels(&whole(&[0.0, 99.0]), 5), ["0", "25", "50", "75", "100"]);
        assert!(whole(&[i64::MAX as f64, i64::MIN as f64]).place(0.0).is_some());
        assert!(whole(&[i64::MAX as f64]).place(i64::MAX as f64).is_some());
        let log = |low: f64, high: f64| Scale::Log { low: low.log10(), high: high.log10() };
        assert_eq!(labels(&log(1e-6, 1e-1), 8), ["1e-6", "1e-5", "0.0001", "0.001", "0.01", "0.1"]);
        assert_eq!(labels(&log(1.0, 60.0), 6), ["1", "2", "5", "10", "20", "50"]);
        assert_eq!(labels(&log(11.0, 14.0), 4), ["11", "12", "13", "14"]);
        assert_eq!(labels(&log(1e-300, 1e300), 4).len(), 4);
    }

    #[test]
    fn categories_have_slots_and_ticks_are_thinned() {
        let scale = Scale::Category((0..10).map(|i| format!("c{i}")).collect());
        assert_eq!(scale.place(0.0), Some(0.05));
        assert_eq!(scale.place(9.0), Some(0.95));
        assert_eq!(scale.place(12.0), None);
        assert_eq!(labels(&scale, 4), ["c0", "c3", "c6", "c9"]);
        assert!(Scale::Category(vec![]).ticks(4).is_empty());
    }

    #[test]
    fn scales_follow_the_values() {
        let around = |values: &[f64], scaling| Scale::around(values.iter().copied(), scaling);
        assert_eq!(around(&[f64::NAN, f64::INFINITY], Scaling::Auto), None);
        assert_eq!(around(&[-1.0, 0.0], Scaling::Log), None);
        assert!(matches!(around(&[1.0, 100.0], Scaling::Auto), Some(Scale::Log { .. })));
        assert!(matches!(around(&[1.0, 100.0], Scaling::Linear), Some(Scale::Linear { .. })));
        assert!(matches!(around(&[-1.0, 1e9], Scaling::Auto), Some(Scale::Linear { .. })));
        assert_eq!(around(&[0.0], Scaling::Auto), Some(Scale::Linear { low: -1.0, high: 1.0 }));
        assert_eq!(around(&[0.0, -1.0, 5.0], Scaling::Log).unwrap().place(0.0), None);
    }

    proptest! {
        #[test]
        fn any_values_have_places_and_some_ticks(values in prop::collection::vec(prop::num::f64::ANY, 1..9), log: bool) {
            let scaling = if log { Scaling::Log } else { Scaling::Auto };
            if let Some(scale) = Scale::around(values.iter().copied(), scaling) {
                for value in values.iter().filter(|value| value.is_finite() && (!log || **value > 0.0)) {
                    prop_assert!(scale.place(*value).is_some_and(|place| (0.0..=1.0).contains(&place)), "{scale:?} {value}");
                }
                let ticks = scale.ticks(6);
                prop_assert!(ticks.len() <= 20, "{ticks:?}");
                prop_assert!(ticks.windows(2).all(|pair| pair[0].place < pair[1].place), "{ticks:?}");
            }
        }
    }
}
