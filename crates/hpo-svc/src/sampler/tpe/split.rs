//! Which trials TPE takes for good and which for bad: Optuna's `_split_trials`, with constraints and several objectives.

use crate::{
    pareto,
    study::{Direction, State, Trial},
};

/// Divides trials into good and bad ones, each by number. The best tenth of those that ended is good; of a single objective 25 at
/// most.
///
/// COMPLETE ones come first: by value, or with several objectives by rank of non-domination and, where a rank has too many, by the
/// hypervolume that they dominate together. PRUNED ones follow by how far they came and their value there, and then, of either
/// state, those that break a constraint, by how much. RUNNING ones are bad.
pub(crate) fn split<'a>(
    trials: impl Iterator<Item = &'a Trial>,
    directions: &[Direction],
) -> (Vec<&'a Trial>, Vec<&'a Trial>) {
    let (mut complete, mut pruned, mut infeasible, mut above) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    for trial in trials {
        if !matches!(trial.state, State::Complete | State::Pruned) {
            above.push(trial);
        } else if let Some(violation) = trial.violation().filter(|violation| *violation > 0.0) {
            infeasible.push((violation, trial));
        } else if trial.state == State::Complete {
            complete.push(trial);
        } else {
            pruned.push(trial);
        }
    }
    let ended = complete.len() + pruned.len() + infeasible.len();
    let n_below = if directions.len() > 1 { ended.div_ceil(10) } else { ended.div_ceil(10).min(25) };
    let direction = directions.first().copied().unwrap_or(Direction::Minimize);
    let complete = if directions.len() > 1 {
        dominant_first(complete, directions, n_below)
    } else {
        best_first(complete, direction, n_below)
    };
    pruned.sort_by(|a, b| {
        let (a, b) = (progress(a, direction), progress(b, direction));
        order(a.0, b.0).then(order(a.1, b.1))
    });
    infeasible.sort_by(|a, b| order(a.0, b.0));
    let mut below = complete;
    below.append(&mut pruned);
    below.extend(infeasible.into_iter().map(|(_, trial)| trial));
    above.extend(below.drain(n_below..));
    below.sort_by_key(|trial| trial.number);
    above.sort_by_key(|trial| trial.number);
    (below, above)
}

/// The trials with the best `n_below` of them in front, both parts as they came: there may be many, of which few are good.
fn best_first(trials: Vec<&Trial>, direction: Direction, n_below: usize) -> Vec<&Trial> {
    let losses = trials.iter().enumerate().map(|(place, trial)| (loss(trial.value(), direction), place));
    let mut losses: Vec<(f64, usize)> = losses.collect();
    if n_below >= losses.len() {
        return trials;
    }
    let (_, cut, _) = losses.select_nth_unstable_by(n_below, by_loss);
    let cut = *cut;
    let good = |(place, trial): &(usize, &Trial)| by_loss(&(loss(trial.value(), direction), *place), &cut).is_lt();
    let (first, rest): (Vec<_>, Vec<_>) = trials.into_iter().enumerate().partition(good);
    first.into_iter().chain(rest).map(|(_, trial)| trial).collect()
}

/// The trials with the best `n_below` of them in front.
fn dominant_first<'a>(trials: Vec<&'a Trial>, directions: &[Direction], n_below: usize) -> Vec<&'a Trial> {
    if n_below == 0 || n_below >= trials.len() {
        return trials;
    }
    let worst = || vec![f64::INFINITY; directions.len()];
    let points: Vec<Vec<f64>> =
        trials.iter().map(|trial| pareto::losses(trial, directions).unwrap_or_else(worst)).collect();
    let good = pareto::leading(&points, n_below);
    let (mut first, rest): (Vec<_>, Vec<_>) = trials.into_iter().zip(good).partition(|(_, good)| *good);
    first.extend(rest);
    first.into_iter().map(|(trial, _)| trial).collect()
}

/// The order of losses with their places: zeros of both signs are equal, of equal ones the earlier come first.
fn by_loss(a: &(f64, usize), b: &(f64, usize)) -> std::cmp::Ordering {
    order(a.0, b.0).then(a.1.cmp(&b.1))
}

/// Whether the trial of the first loss and place goes before the other.
pub(in crate::sampler) fn better(a: (f64, usize), b: (f64, usize)) -> bool {
    by_loss(&a, &b).is_lt()
}

/// Smaller is better; what is missing or NaN is the worst.
pub(in crate::sampler) fn loss(value: Option<f64>, direction: Direction) -> f64 {
    match value {
        Some(value) if !value.is_nan() && direction == Direction::Minimize => value,
        Some(value) if !value.is_nan() => -value,
        _ => f64::INFINITY,
    }
}

/// How far a pruned trial came, the farther the smaller, and how good it was there; behind all those without any report.
fn progress(trial: &Trial, direction: Direction) -> (f64, f64) {
    match trial.last_report() {
        // As doubles: steps may be any integer.
        Some((step, value)) => (-(step as f64), loss(Some(value), direction)),
        None => (1.0, 0.0),
    }
}

/// The order of numbers that are not NaN; equal ones, zeros of both signs among them, stay in the order of their trials.
fn order(a: f64, b: f64) -> std::cmp::Ordering {
    a.partial_cmp(&b).unwrap_or(std::cmp::Ordering::Equal)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::study::tests::trial;

    #[test]
    fn what_is_infeasible_is_good_only_for_want_of_others() {
        let mut trials: Vec<Trial> =
            (0..20).map(|number| trial(number, State::Complete, Some(number as f64))).collect();
        let mut breaks = |number: usize, by: &str| {
            trials[number].system_attrs.insert("constraints:c".into(), by.into());
        };
        (0..19).for_each(|number| breaks(number, "5.0"));
        breaks(3, "0.5");
        let (below, above) = split(trials.iter(), &[Direction::Minimize]);
        assert_eq!(below.iter().map(|trial| trial.number).collect::<Vec<_>>(), [3, 19]);
        assert_eq!(above.len(), 18);
    }

    #[test]
    fn odd_values_of_several_objectives_are_survived() {
        let both = [Direction::Minimize, Direction::Maximize];
        let odd = [0.0, 1.0, f64::NAN, f64::INFINITY, f64::NEG_INFINITY, -0.0];
        let mut trials = Vec::new();
        for (number, (a, b)) in odd.iter().flat_map(|a| odd.iter().map(move |b| (*a, *b))).enumerate() {
            let mut trial = trial(number as i64, State::Complete, Some(a));
            if number % 7 > 0 {
                trial.values.push(b);
            }
            trials.push(trial);
        }
        for n in 0..trials.len() {
            for directions in [&both[..], &both[..1], &[]] {
                let (below, above) = split(trials[..n].iter(), directions);
                assert_eq!((below.len(), above.len()), (n.div_ceil(10), n - n.div_ceil(10)));
            }
        }
    }
}
