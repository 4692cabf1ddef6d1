//! The optimization history: each trial's value, and the best so far.

use super::{
    Options, counted,
    frame::{BELOW, Key, MARGIN, Mark, Panel, header, nothing, room_for_labels},
    left_out,
    palette::{BEST, INFEASIBLE, PRUNED, VALUE},
    scale::{Scale, plain},
    svg::Stroke,
    thinned,
};
use crate::{
    study::{Direction, Trial},
    view::course::{Outcome, Point, course, spread},
};

/// More points than that hide each other.
const MAX_POINTS: usize = 2000;
const TITLE: &str = "Optimization history";

/// Values by trial number with a line of the best so far; infeasible trials and the last reports of pruned ones are marked.
pub fn history(trials: &[Trial], directions: &[Direction], options: &Options) -> String {
    let title = options.title(TITLE);
    let points = course(trials, directions, options.objective);
    let values = points.iter().filter_map(|point| position(point).map(|(_, value)| value));
    let numbers = points.iter().filter(|point| position(point).is_some()).map(|point| point.number as f64);
    let scales = (Scale::whole(numbers), Scale::around(values, options.scaling));
    let (Some(x), Some(y)) = scales else { return nothing(options, title, "No trial has a finite value yet.") };
    let placed = |point: &&Point| position(point).is_some_and(|(_, value)| y.place(value).is_some());
    let all: Vec<&Point> = points.iter().filter(placed).collect();
    let drawn = thin(&all);
    let without = points.iter().filter(|point| position(point).is_some() && !placed(point)).count();
    let notes = [
        counted(trials.len(), "trial", "trials"),
        best_note(&points, directions, options),
        thinned(drawn.len(), all.len(), "points"),
        left_out(without),
    ];
    let (width, height) = options.size();
    let (mut svg, top) = header(width, height, title, &notes, &legend(&points));
    let bottom = height - BELOW;
    let left = MARGIN + room_for_labels(&y, bottom - top, true);
    let panel = Panel { left, top, right: width - MARGIN, bottom };
    panel.y_axis(&mut svg, &y, &options.name(options.objective, directions.len()), true);
    panel.x_axis(&mut svg, &x, "Trial");
    for point in &drawn {
        let Some((mark, value)) = position(point) else { continue };
        let (Some(across), Some(up)) = (x.place(point.number as f64), y.place(value)) else { continue };
        let (place, tip) = (panel.at(across, up), format!("Trial {}: {}", point.number, plain(value)));
        match mark {
            Mark::Cross => svg.cross(place, 2.8, Stroke::new(PRUNED, 1.3), &tip),
            Mark::Ring => svg.ring(place, 3.0, Stroke::new(INFEASIBLE, 1.3), &tip),
            Mark::Dot | Mark::Line => svg.dot(place, 3.2, VALUE, 0.65, &tip),
        }
    }
    // A step at each improvement, and on to the last trial.
    let mut steps: Vec<(f64, f64)> = Vec::new();
    for point in points.iter().filter(|point| point.improves) {
        let place = (x.place(point.number as f64), point.best.and_then(|best| y.place(best)));
        let (Some(across), Some(up)) = place else { continue };
        let to = panel.at(across, up);
        steps.extend(steps.last().map(|(_, before)| (to.0, *before)));
        steps.push(to);
    }
    let end = points.last().and_then(|point| x.place(point.number as f64));
    if let (Some(end), Some((_, last))) = (end, steps.last().copied()) {
        steps.push((panel.at(end, 0.0).0, last));
    }
    svg.line(&steps, Stroke::new(BEST, 2.0));
    svg.finish()
}

/// The mark and value of a point; `None` for trials without a value.
fn position(point: &Point) -> Option<(Mark, f64)> {
    match point.outcome {
        Outcome::Feasible(value) => Some((Mark::Dot, value)),
        Outcome::Infeasible(value) => Some((Mark::Ring, value)),
        Outcome::Pruned(value) => Some((Mark::Cross, value)),
        Outcome::Nothing => None,
    }
}

/// Not more points than can be told apart, all improvements among them.
fn thin<'a>(points: &[&'a Point]) -> Vec<&'a Point> {
    if points.len() <= MAX_POINTS {
        return points.to_vec();
    }
    let others: Vec<&Point> = points.iter().copied().filter(|point| !point.improves).collect();
    let improving = points.len() - others.len();
    let chosen = spread(others.len(), MAX_POINTS.saturating_sub(improving));
    let mut kept: Vec<&Point> = chosen.into_iter().map(|index| others[index]).collect();
    kept.extend(points.iter().copied().filter(|point| point.improves));
    kept.sort_by_key(|point| point.number);
    kept
}

fn best_note(points: &[Point], directions: &[Direction], options: &Options) -> String {
    let word = match directions.get(options.objective) {
        Some(Direction::Maximize) => "maximized",
        _ => "minimized",
    };
    let found = points.iter().rev().find(|point| point.improves);
    found
        .and_then(|point| Some(format!("best {} at trial {} ({word})", plain(point.best?), point.number)))
        .unwrap_or_default()
}

fn legend(points: &[Point]) -> Vec<Key> {
    let keys = [
        (Mark::Dot, VALUE, "Trial"),
        (Mark::Ring, INFEASIBLE, "Breaks a constraint"),
        (Mark::Cross, PRUNED, "Pruned, last report"),
    ];
    let seen = |mark: Mark| points.iter().any(|point| position(point).is_some_and(|(other, _)| other == mark));
    let mut legend: Vec<Key> = Vec::new();
    legend.extend(keys.into_iter().filter(|key| seen(key.0)).map(|(mark, color, label)| Key { mark, color, label }));
    legend.push(Key { mark: Mark::Line, color: BEST, label: "Best so far" });
    legend
}
