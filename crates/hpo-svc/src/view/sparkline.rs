//! The course of a study in one line of a terminal: bars of eighths of a line, or plain ASCII where the terminal has no more.

use std::cmp::Ordering;

use crate::{
    study::{Direction, Trial},
    view::course::{self, Point},
};

/// What the line is made of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Glyphs {
    /// `▁▂▃▄▅▆▇█`
    #[default]
    Unicode,
    /// From a low `_` to a high `#`.
    Ascii,
}

impl Glyphs {
    fn levels(self) -> &'static [char] {
        match self {
            Self::Unicode => &['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'],
            Self::Ascii => &['_', '.', '-', '~', '=', '+', '*', '#'],
        }
    }
}

/// The history of an objective as two lines of the same scale, a character for each trial or for some that follow each other.
#[derive(Debug, Clone, PartialEq)]
pub struct History {
    /// The values; the median of those that share a character, a space where no trial has a value.
    pub values: String,
    /// The best value so far.
    pub best: String,
    /// The smallest finite value: the lowest bar.
    pub low: f64,
    /// The largest finite value: the highest bar.
    pub high: f64,
    /// The bars show the logarithm: the values are positive and differ by two orders of magnitude.
    pub log: bool,
}

/// The history of an objective in at most `width` characters; `None` while no COMPLETE trial has a finite value.
pub fn history(
    trials: &[Trial],
    directions: &[Direction],
    objective: usize,
    width: usize,
    glyphs: Glyphs,
) -> Option<History> {
    let points = course::course(trials, directions, objective);
    let value = |point: &Point| point.complete().filter(|value| !value.is_nan());
    let values: Vec<Option<f64>> = points.iter().map(value).collect();
    let best: Vec<Option<f64>> = points.iter().map(|point| point.best).collect();
    let finite = || values.iter().flatten().copied().filter(|value| value.is_finite());
    let (low, high) = finite().fold(None, |range: Option<(f64, f64)>, value| {
        Some(range.map_or((value, value), |(low, high)| (low.min(value), high.max(value))))
    })?;
    let log = course::spans_decades(low, high);
    let scale = move |value: f64| if log { value.max(f64::MIN_POSITIVE).ln() } else { value };
    let draw = |values: Vec<Option<f64>>| {
        let scaled: Vec<Option<f64>> = values.into_iter().map(|value| value.map(scale)).collect();
        bars(&scaled, (scale(low), scale(high)), glyphs)
    };
    Some(History {
        values: draw(shorten(&values, width, median)),
        best: draw(shorten(&best, width, |chunk| chunk.last().copied())),
        low,
        high,
        log,
    })
}

/// Values as a line of at most `width` characters, the smallest finite one lowest. Infinite values are as low or as high as can be;
/// where there is no value, or NaN, is a space.
pub fn sparkline(values: &[Option<f64>], width: usize, glyphs: Glyphs) -> String {
    let values: Vec<Option<f64>> = values.iter().map(|value| value.filter(|value| !value.is_nan())).collect();
    let finite = values.iter().flatten().copied().filter(|value| value.is_finite());
    let range = finite.fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), v| (low.min(v), high.max(v)));
    bars(&shorten(&values, width, median), range, glyphs)
}

/// One value for each of at most `width` runs of nearly equal length.
fn shorten(values: &[Option<f64>], width: usize, reduce: impl Fn(&mut [f64]) -> Option<f64>) -> Vec<Option<f64>> {
    let cells = values.len().min(width);
    let edge = |cell: usize| (cell as u128 * values.len() as u128 / cells.max(1) as u128) as usize;
    (0..cells)
        .map(|cell| reduce(&mut values[edge(cell)..edge(cell + 1)].iter().flatten().copied().collect::<Vec<f64>>()))
        .collect()
}

/// The middle value; of an even number the lower one of the two in the middle, so that it is a value that was seen.
fn median(values: &mut [f64]) -> Option<f64> {
    values.sort_by(f64::total_cmp);
    values.get(values.len().saturating_sub(1) / 2).copied()
}

fn bars(values: &[Option<f64>], (low, high): (f64, f64), glyphs: Glyphs) -> String {
    let levels = glyphs.levels();
    let bar = |value: f64| {
        // Halves, since the range of two large numbers may be no number.
        let share = (value / 2.0 - low / 2.0) / (high / 2.0 - low / 2.0);
        let level = match value.partial_cmp(&low) {
            _ if value == f64::INFINITY => levels.len() - 1,
            _ if value == f64::NEG_INFINITY => 0,
            // All are equal: neither low nor high.
            _ if low == high => levels.len() / 2 - 1,
            Some(Ordering::Greater) => (share * levels.len() as f64) as usize,
            _ => 0,
        };
        levels[level.min(levels.len() - 1)]
    };
    values.iter().map(|value| value.map_or(' ', bar)).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::study::{State, tests::trial};

    #[test]
    fn bars_rise_with_the_values() {
        let values: Vec<Option<f64>> = (0..8).map(|i| Some(f64::from(i))).collect();
        assert_eq!(sparkline(&values, 80, Glyphs::Unicode), "▁▂▃▄▅▆▇█");
        assert_eq!(sparkline(&values, 80, Glyphs::Ascii), "_.-~=+*#");
        assert_eq!(sparkline(&values, 4, Glyphs::Ascii), "_-=*");
        assert_eq!(sparkline(&[Some(3.0); 3], 80, Glyphs::Ascii), "~~~");
        let gaps = [Some(0.0), None, Some(f64::NAN), Some(f64::INFINITY), Some(f64::NEG_INFINITY), Some(1.0)];
        assert_eq!(sparkline(&gaps, 80, Glyphs::Ascii), "_  #_#");
        assert_eq!(sparkline(&[Some(-1e308), Some(1e308)], 80, Glyphs::Ascii), "_#");
        assert_eq!(sparkline(&values, 0, Glyphs::Ascii), "");
    }

    #[test]
    fn a_history_has_values_and_the_best_so_far() {
        let mut trials: Vec<Trial> = [5.0, 9.0, f64::NAN, 1.0, 4.0]
            .into_iter()
            .enumerate()
            .map(|(number, value)| trial(number as i64, State::Complete, Some(value)))
            .collect();
        trials.insert(2, trial(9, State::Fail, None));
        let found = history(&trials, &[Direction::Minimize], 0, 80, Glyphs::Ascii).unwrap();
        assert_eq!((found.values.as_str(), found.best.as_str()), ("=# _~ ", "===___"));
        assert_eq!((found.low, found.high, found.log), (1.0, 9.0, false));
        let found = history(&trials, &[Direction::Maximize], 0, 3, Glyphs::Ascii).unwrap();
        assert_eq!((found.values.chars().count(), found.best.as_str()), (3, "###"));
        assert!(history(&trials[2..4], &[Direction::Maximize], 0, 80, Glyphs::Ascii).is_none());
        assert!(history(&trials, &[Direction::Maximize], 1, 80, Glyphs::Ascii).is_none());
        let wide = [trial(0, State::Complete, Some(1e-4)), trial(1, State::Complete, Some(1.0))];
        assert!(history(&wide, &[Direction::Minimize], 0, 80, Glyphs::Ascii).unwrap().log);
    }

    proptest! {
        #[test]
        fn no_line_is_longer_than_asked(
            values in prop::collection::vec(prop::option::of(prop::num::f64::ANY), 0..300),
            width in 0..100_usize,
        ) {
            let line = sparkline(&values, width, Glyphs::Unicode);
            prop_assert_eq!(line.chars().count(), values.len().min(width));
        }
    }
}
