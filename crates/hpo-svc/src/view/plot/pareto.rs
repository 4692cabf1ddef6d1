//! The Pareto front: trials of several objectives by two of them each.

use std::collections::BTreeSet;

use super::{
    Options, counted,
    frame::{BELOW, Key, MARGIN, Mark, Panel, header, nothing, room_for_labels},
    left_out,
    palette::{BEST, INFEASIBLE, PRUNED},
    scale::{Scale, plain},
    svg::{Place, Stroke},
    thinned,
};
use crate::{
    pareto::best_trials,
    study::{Direction, State, Trial},
    view::course::spread,
};

/// More points than that hide each other.
const MAX_POINTS: usize = 2000;
/// Pairs of objectives with a panel.
const MAX_PANELS: usize = 6;

/// A panel for each pair of objectives: the front among all COMPLETE trials, and with two objectives a line along it.
pub fn pareto(trials: &[Trial], directions: &[Direction], options: &Options) -> String {
    let title = options.title("Pareto front");
    let objectives = directions.len();
    if objectives < 2 {
        return nothing(options, title, "A Pareto front needs at least two objectives.");
    }
    let on_front: BTreeSet<i64> = best_trials(trials, directions).iter().map(|trial| trial.number).collect();
    let complete = |trial: &&Trial| trial.state == State::Complete && trial.values.len() == objectives;
    let complete: Vec<&Trial> = trials.iter().filter(complete).collect();
    let finite = |trial: &Trial| trial.values.iter().all(|value| value.is_finite());
    let scale = |objective: usize| {
        let values = complete.iter().filter(|trial| finite(trial)).map(|trial| trial.values[objective]);
        Scale::around(values, options.scaling)
    };
    let Some(scales) = (0..objectives).map(scale).collect::<Option<Vec<Scale>>>() else {
        return nothing(options, title, "No trial has finite values of all objectives yet.");
    };
    let (front, behind): (Vec<&Trial>, Vec<&Trial>) =
        complete.iter().copied().filter(|trial| finite(trial)).partition(|trial| on_front.contains(&trial.number));
    let all = front.len() + behind.len();
    let kept = |trials: &[&'_ Trial], limit: usize| -> Vec<Trial> {
        spread(trials.len(), limit).into_iter().map(|index| trials[index].clone()).collect()
    };
    let front = kept(&front, MAX_POINTS);
    let behind = kept(&behind, MAX_POINTS - front.len());
    let pairs: Vec<(usize, usize)> =
        (0..objectives).flat_map(|a| (a + 1..objectives).map(move |b| (a, b))).take(MAX_PANELS).collect();
    let all_pairs = objectives * (objectives - 1) / 2;
    let notes = [
        counted(complete.len(), "complete trial", "complete trials"),
        format!("{} on the front", on_front.len()),
        thinned(front.len() + behind.len(), all, "points"),
        thinned(pairs.len(), all_pairs, "pairs"),
        left_out(complete.len() - all),
    ];
    let mut legend = vec![Key { mark: Mark::Dot, color: BEST, label: "On the front" }];
    legend.push(Key { mark: Mark::Dot, color: PRUNED, label: "Dominated" });
    if behind.iter().any(|trial| !trial.feasible()) {
        legend.push(Key { mark: Mark::Ring, color: INFEASIBLE, label: "Breaks a constraint" });
    }
    let columns = pairs.len().min(3);
    let rows = pairs.len().div_ceil(3);
    let (width, single) = options.size();
    // Panels of a row of three are small: the picture need not be as high as one of a single panel.
    let row_height = if columns == 1 { single - 80.0 } else { (width / columns as f64).clamp(200.0, 340.0) };
    let height = if columns == 1 { single } else { 90.0 + row_height * rows as f64 };
    let (mut svg, top) = header(width, height, title, &notes, &legend);
    let slot = (width - MARGIN) / columns as f64;
    for (index, (a, b)) in pairs.into_iter().enumerate() {
        let (x, y) = (&scales[a], &scales[b]);
        let row_top = top + (height - top) / rows as f64 * (index / columns) as f64;
        let bottom = row_top + (height - top) / rows as f64 - BELOW;
        let slot_left = slot * (index % columns) as f64;
        let left = slot_left + MARGIN + room_for_labels(y, bottom - row_top, true);
        let panel = Panel { left, top: row_top, right: slot_left + slot, bottom };
        let name = |objective: usize| {
            let word = if directions[objective] == Direction::Minimize { "minimized" } else { "maximized" };
            format!("{} ({word})", options.name(objective, objectives))
        };
        panel.y_axis(&mut svg, y, &name(b), true);
        panel.x_axis(&mut svg, x, &name(a));
        let place = |trial: &Trial| Some(panel.at(x.place(trial.values[a])?, y.place(trial.values[b])?));
        let tip =
            |trial: &Trial| format!("Trial {}: {}, {}", trial.number, plain(trial.values[a]), plain(trial.values[b]));
        for trial in &behind {
            let Some(place) = place(trial) else { continue };
            if trial.feasible() {
                svg.dot(place, 3.0, PRUNED, 0.6, &tip(trial));
            } else {
                svg.ring(place, 3.0, Stroke::new(INFEASIBLE, 1.3), &tip(trial));
            }
        }
        if objectives == 2 {
            let mut places: Vec<Place> = front.iter().filter_map(place).collect();
            places.sort_by(|a, b| a.0.total_cmp(&b.0));
            svg.line(&stairs(&places, directions), Stroke::new(BEST, 1.4).faint(0.6));
        }
        for trial in &front {
            if let Some(place) = place(trial) {
                svg.dot(place, 4.0, BEST, 0.9, &tip(trial));
            }
        }
    }
    svg.finish()
}

/// The border of what the front dominates, from left to right: a step lies on the side that is worse in both objectives.
fn stairs(places: &[Place], directions: &[Direction]) -> Vec<Place> {
    let mut stairs: Vec<Place> = Vec::new();
    for (x, y) in places {
        if let Some((before_x, before_y)) = stairs.last().copied() {
            // Going right is worse when the first objective is minimized: then the second gets better only at the next point.
            let corner = if directions[0] == Direction::Minimize { (*x, before_y) } else { (before_x, *y) };
            stairs.push(corner);
        }
        stairs.push((*x, *y));
    }
    stairs
}
