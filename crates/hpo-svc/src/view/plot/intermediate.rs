//! The values that trials reported on their way, a curve each.

use super::{
    Options, counted,
    frame::{BELOW, Key, MARGIN, Mark, Panel, header, nothing, room_for_labels},
    left_out,
    palette::{BEST, INFEASIBLE, PRUNED, RUNNING, VALUE},
    scale::Scale,
    svg::{Place, Stroke, Svg},
    thinned,
};
use crate::{
    study::{Direction, State, Trial, best},
    view::course::spread,
};

/// More curves than that are a tangle.
const MAX_CURVES: usize = 100;
/// More points of a curve than that are closer than pixels.
const MAX_POINTS: usize = 600;

/// The reports of each trial by step: complete, pruned with a cross at the end, and running ones; the best trial stands out.
pub fn intermediate(trials: &[Trial], directions: &[Direction], options: &Options) -> String {
    let title = options.title("Intermediate values");
    let mut all: Vec<&Trial> = trials.iter().filter(|t| t.intermediate.values().any(|v| v.is_finite())).collect();
    all.sort_by_key(|trial| trial.number);
    let best = directions.first().and_then(|direction| best(trials, *direction)).map(|trial| trial.number);
    let curves = thin(&all, best);
    let reports = || curves.iter().flat_map(|trial| &trial.intermediate).filter(|(_, value)| value.is_finite());
    let x = Scale::whole(reports().map(|(step, _)| *step as f64));
    let y = Scale::around(reports().map(|(_, value)| *value), options.scaling);
    let (Some(x), Some(y)) = (x, y) else {
        return nothing(options, title, "No trial has reported a finite value yet.");
    };
    let without =
        curves.iter().flat_map(|trial| trial.intermediate.values()).filter(|v| y.place(**v).is_none()).count();
    let notes = [counted(all.len(), "trial", "trials"), thinned(curves.len(), all.len(), "curves"), left_out(without)];
    let (width, height) = options.size();
    let (mut svg, top) = header(width, height, title, &notes, &legend(&curves, best));
    let bottom = height - BELOW;
    let left = MARGIN + room_for_labels(&y, bottom - top, true);
    let panel = Panel { left, top, right: width - MARGIN, bottom };
    panel.y_axis(&mut svg, &y, "Reported value", true);
    panel.x_axis(&mut svg, &x, "Step");
    let mut others: Vec<&Trial> = curves.iter().copied().filter(|trial| Some(trial.number) != best).collect();
    // Most trials are complete: what is rarer goes above them.
    others.sort_by_key(|trial| (trial.state != State::Complete, trial.state == State::Running));
    let opacity = if others.len() > 40 { 0.4 } else { 0.65 };
    for trial in others {
        let opacity = if trial.state == State::Complete { opacity } else { 0.8 };
        curve(&mut svg, &panel, (&x, &y), trial, Stroke::new(style(trial).1, 1.3).faint(opacity));
    }
    // Above all others.
    for trial in curves.iter().filter(|trial| Some(trial.number) == best) {
        curve(&mut svg, &panel, (&x, &y), trial, Stroke::new(BEST, 2.4));
    }
    svg.finish()
}

fn style(trial: &Trial) -> (Mark, &'static str, &'static str) {
    match trial.state {
        State::Complete => (Mark::Line, VALUE, "Complete"),
        State::Running | State::Waiting => (Mark::Line, RUNNING, "Running"),
        State::Pruned => (Mark::Cross, PRUNED, "Pruned"),
        State::Fail => (Mark::Cross, INFEASIBLE, "Failed"),
    }
}

fn curve(svg: &mut Svg, panel: &Panel, (x, y): (&Scale, &Scale), trial: &Trial, stroke: Stroke<'_>) {
    let steps: Vec<(&i64, &f64)> = trial.intermediate.iter().collect();
    let chosen = spread(steps.len(), MAX_POINTS).into_iter().map(|index| steps[index]);
    let places = chosen.map(|(step, value)| Some(panel.at(x.place(*step as f64)?, y.place(*value)?)));
    let places: Vec<Option<Place>> = places.collect();
    // A curve breaks where a value has no place.
    for run in places.split(Option::is_none) {
        let run: Vec<Place> = run.iter().copied().flatten().collect();
        svg.line(&run, stroke);
        if let [alone] = run[..] {
            svg.dot(alone, 1.8, stroke.color, stroke.opacity, "");
        }
    }
    let tip = format!("Trial {}: {}", trial.number, trial.state);
    match (style(trial).0, places.iter().rev().copied().flatten().next()) {
        (Mark::Cross, Some(end)) => svg.cross(end, 3.2, Stroke::new(stroke.color, 1.6), &tip),
        (_, Some(end)) => svg.dot(end, 2.4, stroke.color, 1.0, &tip),
        (_, None) => {}
    }
}

/// The best trial, and others spread over the study.
fn thin<'a>(trials: &[&'a Trial], best: Option<i64>) -> Vec<&'a Trial> {
    let others: Vec<&Trial> = trials.iter().copied().filter(|trial| Some(trial.number) != best).collect();
    let room = MAX_CURVES - usize::from(others.len() < trials.len());
    let mut kept: Vec<&Trial> = spread(others.len(), room).into_iter().map(|index| others[index]).collect();
    kept.extend(trials.iter().copied().filter(|trial| Some(trial.number) == best));
    kept
}

fn legend(curves: &[&Trial], best: Option<i64>) -> Vec<Key> {
    let mut legend: Vec<Key> = Vec::new();
    for trial in curves {
        let (mark, color, label) = style(trial);
        if legend.iter().all(|key| key.label != label) {
            legend.push(Key { mark, color, label });
        }
    }
    legend.sort_by_key(|key| key.label);
    if curves.iter().any(|trial| Some(trial.number) == best) {
        legend.push(Key { mark: Mark::Line, color: BEST, label: "Best trial" });
    }
    legend
}
