//! How an objective went from trial to trial: what the sparkline and the plot of the history draw.

use crate::study::{Direction, State, Trial};

/// A trial's part in the history.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Point {
    /// Number of the trial.
    pub(super) number: i64,
    /// What became of it.
    pub(super) outcome: Outcome,
    /// The best value of the trials up to this one; `None` before the first.
    pub(super) best: Option<f64>,
    /// Whether it is better than all before.
    pub(super) improves: bool,
}

/// A trial's state with its value, which may be infinite or NaN.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Outcome {
    /// COMPLETE, breaking no constraint.
    Feasible(f64),
    /// COMPLETE, breaking one.
    Infeasible(f64),
    /// PRUNED with a last report.
    Pruned(f64),
    /// No value.
    Nothing,
}

impl Point {
    /// The value of a COMPLETE trial.
    pub(super) fn complete(&self) -> Option<f64> {
        match self.outcome {
            Outcome::Feasible(value) | Outcome::Infeasible(value) => Some(value),
            Outcome::Pruned(_) | Outcome::Nothing => None,
        }
    }
}

/// The history of an objective in the order of the trials' numbers.
pub(super) fn course(trials: &[Trial], directions: &[Direction], objective: usize) -> Vec<Point> {
    let direction = directions.get(objective).copied().unwrap_or(Direction::Minimize);
    let mut sorted: Vec<&Trial> = trials.iter().collect();
    sorted.sort_by_key(|trial| trial.number);
    let mut best: Option<f64> = None;
    let point = |trial: &Trial| {
        let value = trial.values.get(objective).copied();
        let outcome = match (trial.state, value) {
            (State::Complete, Some(value)) if trial.feasible() => Outcome::Feasible(value),
            (State::Complete, Some(value)) => Outcome::Infeasible(value),
            // Pruning knows one objective only.
            (State::Pruned, _) if directions.len() == 1 => {
                trial.pruned_value().map_or(Outcome::Nothing, Outcome::Pruned)
            }
            _ => Outcome::Nothing,
        };
        let mut improves = false;
        if let Outcome::Feasible(value) = outcome {
            improves = !value.is_nan() && best.is_none_or(|best| direction.better(value, best));
            if improves {
                best = Some(value);
            }
        }
        Point { number: trial.number, outcome, best, improves }
    };
    sorted.into_iter().map(point).collect()
}

/// Whether values in that range are better shown by their logarithm: all positive, and two orders of magnitude apart.
pub(super) fn spans_decades(low: f64, high: f64) -> bool {
    low > 0.0 && high / low >= 100.0
}

/// Evenly spread indices of at most `limit` of `len` things, the first and the last among them. Within each stretch the place changes:
/// a fixed stride could hit only one kind of things that take turns.
pub(super) fn spread(len: usize, limit: usize) -> Vec<usize> {
    match (len, limit) {
        (_, 0) => Vec::new(),
        (len, limit) if len <= limit => (0..len).collect(),
        (len, 1) => vec![len - 1],
        (len, limit) => (0..limit)
            .map(|cell| {
                let edge = |cell: usize| (cell as u128 * len as u128 / limit as u128) as usize;
                let (start, end) = (edge(cell), edge(cell + 1));
                let share = match cell {
                    0 => 0.0,
                    cell if cell + 1 == limit => 1.0,
                    // Multiples of the golden ratio fall evenly.
                    cell => (cell as f64 * 0.618_033_988_749_895).fract(),
                };
                (start + ((end - start) as f64 * share) as usize).min(end - 1)
            })
            .collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::study::tests::trial;

    #[test]
    fn only_feasible_complete_trials_are_best() {
        let mut pruned = trial(1, State::Pruned, None);
        pruned.intermediate.insert(3, -5.0);
        let mut infeasible = trial(2, State::Complete, Some(-9.0));
        infeasible.system_attrs.insert("constraints".into(), "[2.0]".into());
        let trials = [
            trial(4, State::Complete, Some(0.5)),
            trial(0, State::Complete, Some(1.0)),
            pruned,
            infeasible,
            trial(3, State::Complete, Some(f64::NAN)),
        ];
        let points = course(&trials, &[Direction::Minimize], 0);
        assert_eq!(points.iter().map(|point| point.number).collect::<Vec<_>>(), [0, 1, 2, 3, 4]);
        assert_eq!(points.iter().map(|point| point.best).collect::<Vec<_>>(), [1.0, 1.0, 1.0, 1.0, 0.5].map(Some));
        assert_eq!(points.iter().map(|point| point.improves).collect::<Vec<_>>(), [true, false, false, false, true]);
        assert_eq!(points[1].outcome, Outcome::Pruned(-5.0));
        assert_eq!(points[2].outcome, Outcome::Infeasible(-9.0));
    }

    #[test]
    fn spreads_keep_both_ends() {
        assert_eq!(spread(5, 9), [0, 1, 2, 3, 4]);
        let some = spread(1000, 100);
        assert_eq!((some.len(), some[0], some[99]), (100, 0, 999));
        assert!(some.windows(2).all(|pair| pair[0] < pair[1] && pair[1] - pair[0] < 20), "{some:?}");
        assert!((0..10).all(|turn| some.iter().any(|index| index % 10 == turn)));
        assert_eq!(spread(10, 1), [9]);
        assert_eq!(spread(10, 0), Vec::<usize>::new());
        assert_eq!(spread(0, 3), Vec::<usize>::new());
    }
}
