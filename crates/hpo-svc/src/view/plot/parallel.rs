//! Parallel coordinates: each trial a line through its parameters and its value.

use super::{
    Options, counted,
    frame::{MARGIN, SMALL, header, label, nothing, shade_bar},
    left_out,
    palette::{AXIS, INK, shade},
    scale::Scale,
    slice::{Axis, parameters},
    svg::{Anchor, Font, Place, Rect, Stroke, Svg, fit},
    thinned, value,
};
use crate::{
    study::{Direction, Trial},
    view::course::spread,
};

/// More lines than that are a mat.
const MAX_LINES: usize = 300;
/// Of these, the best trials.
const BEST_LINES: usize = 100;
/// Axes of a picture.
const MAX_AXES: usize = 30;
/// Between two axes at least.
const MIN_GAP: f64 = 90.0;
/// To the right of the last axis, for half of its name.
const LAST: f64 = 44.0;

/// An axis for the objective and one for each parameter of the COMPLETE trials. The better a trial the darker its line, by rank; a
/// trial without a parameter passes below the axis.
pub fn parallel(trials: &[Trial], directions: &[Direction], options: &Options) -> String {
    let title = options.title("Parallel coordinates");
    let complete: Vec<(&Trial, f64)> =
        trials.iter().filter_map(|trial| Some((trial, value(trial, options)?))).collect();
    let Some(objective) = Scale::around(complete.iter().map(|(_, value)| *value), options.scaling) else {
        return nothing(options, title, "No complete trial has a finite value yet.");
    };
    let mut placed: Vec<(&Trial, f64)> =
        complete.iter().copied().filter(|(_, value)| objective.place(*value).is_some()).collect();
    let maximize = directions.get(options.objective) == Some(&Direction::Maximize);
    // The best last: they are drawn above the others.
    placed.sort_by(|a, b| if maximize { a.1.total_cmp(&b.1) } else { b.1.total_cmp(&a.1) });
    let (others, best) = placed.split_at(placed.len().saturating_sub(BEST_LINES));
    let lines: Vec<(usize, &Trial, f64)> = spread(others.len(), MAX_LINES - BEST_LINES)
        .into_iter()
        .chain(others.len()..others.len() + best.len())
        .map(|rank| (rank, placed[rank].0, placed[rank].1))
        .collect();
    let names = parameters(lines.iter().map(|(_, trial, _)| *trial));
    let axes: Vec<(&str, Axis)> = names
        .iter()
        .filter_map(|name| Some((*name, Axis::of(name, lines.iter().map(|(_, trial, _)| *trial))?)))
        .take(MAX_AXES - 1)
        .collect();
    let notes = [
        counted(complete.len(), "complete trial", "complete trials"),
        thinned(lines.len(), placed.len(), "trials"),
        thinned(axes.len(), names.len(), "parameters"),
        left_out(complete.len() - placed.len()),
    ];
    let (width, height) = options.size();
    let (inset, bar) = (MARGIN + 46.0, 84.0);
    let width = width.max(inset + bar + LAST + MIN_GAP * axes.len() as f64);
    let (mut svg, top) = header(width, height, title, &notes, &[]);
    let lacking = |axis: &Axis| lines.iter().any(|(_, trial, _)| axis.place(trial).is_none());
    let lacks = axes.iter().any(|(_, axis)| lacking(axis));
    let frame = Frame {
        left: inset,
        gap: (width - inset - bar - LAST) / axes.len().max(1) as f64,
        top: top + 26.0,
        bottom: height - MARGIN - if lacks { 36.0 } else { 8.0 },
    };
    for (rank, trial, value) in &lines {
        let places = std::iter::once(objective.place(*value)).chain(axes.iter().map(|(_, axis)| axis.place(trial)));
        let places: Vec<Place> = places.enumerate().map(|(index, place)| frame.at(index, place)).collect();
        // Rank 0 is the worst.
        let share = if placed.len() > 1 { *rank as f64 / (placed.len() - 1) as f64 } else { 1.0 };
        let opacity = if lines.len() > 80 { 0.45 } else { 0.7 };
        svg.line(&places, Stroke::new(&shade(share), 1.4).faint(opacity));
    }
    let objective_name = options.name(options.objective, directions.len());
    frame.axis(&mut svg, 0, &objective, &objective_name);
    for (index, (name, axis)) in axes.iter().enumerate() {
        frame.axis(&mut svg, index + 1, &axis.scale, name);
        if lacking(axis) {
            let (x, y) = frame.at(index + 1, None);
            svg.text((x, y + 16.0), "none", label(Anchor::Middle), "");
        }
    }
    if lines.len() > 1 {
        let area =
            Rect { x: width - bar + 24.0, y: frame.top, width: 12.0, height: (frame.bottom - frame.top).min(160.0) };
        shade_bar(&mut svg, area, "best", "worst");
    }
    svg.finish()
}

struct Frame {
    left: f64,
    gap: f64,
    top: f64,
    bottom: f64,
}

impl Frame {
    /// The place on the axis of that index; below it for what is not there.
    fn at(&self, index: usize, place: Option<f64>) -> Place {
        let y = place.map_or(self.bottom + 18.0, |share| self.bottom - share * (self.bottom - self.top));
        (self.left + self.gap * index as f64, y)
    }

    fn axis(&self, svg: &mut Svg, index: usize, scale: &Scale, name: &str) {
        let (x, _) = self.at(index, None);
        svg.line(&[(x, self.top), (x, self.bottom)], Stroke::new(AXIS, 1.4));
        // Numbers can be thought between their marks, choices cannot.
        let pitch = if matches!(scale, Scale::Category(_)) { 16.0 } else { 44.0 };
        for tick in scale.ticks(((self.bottom - self.top) / pitch) as usize) {
            let (_, y) = self.at(index, Some(tick.place));
            svg.line(&[(x - 3.0, y), (x + 3.0, y)], Stroke::new(AXIS, 1.2));
            let text = fit(&tick.label, SMALL, self.gap.clamp(46.0, 110.0) - 14.0);
            // White behind the text: lines cross it.
            let width = super::svg::text_width(&text, SMALL) + 4.0;
            svg.halo(Rect { x: x - 9.0 - width, y: y - 8.0, width: width + 2.0, height: 16.0 });
            svg.text((x - 8.0, y + 4.0), &text, label(Anchor::End), &tick.label);
        }
        let font = Font { color: INK, bold: true, ..label(Anchor::Middle) };
        // Half of the first and of the last name hang over.
        let room = if index == 0 { 2.0 * (self.left - 6.0) } else { self.gap.min(220.0) };
        svg.text((x, self.top - 12.0), &fit(name, SMALL * 1.08, room.min(self.gap) - 8.0), font, name);
    }
}
