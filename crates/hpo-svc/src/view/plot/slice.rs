//! Slices: the objective by each parameter alone.

use super::{
    Options, counted,
    frame::{BELOW, MARGIN, Panel, header, nothing, room_below, room_for_labels, shade_bar},
    left_out,
    palette::shade,
    scale::{Scale, Scaling, plain},
    svg::Rect,
    thinned, value,
};
use crate::{
    space::Distribution,
    study::{Direction, Trial},
    view::course::spread,
};

/// More points of a panel than that hide each other.
const MAX_POINTS: usize = 1000;
/// More panels than that are no picture any more.
const MAX_PANELS: usize = 24;
/// Between two panels.
const BETWEEN: f64 = 26.0;

/// A panel for each parameter of the COMPLETE trials, in the order in which they have them first; later trials are darker.
pub fn slice(trials: &[Trial], directions: &[Direction], options: &Options) -> String {
    let title = options.title("Slices by parameter");
    let mut complete: Vec<(&Trial, f64)> =
        trials.iter().filter_map(|trial| Some((trial, value(trial, options)?))).collect();
    complete.sort_by_key(|(trial, _)| trial.number);
    let names = parameters(complete.iter().map(|(trial, _)| *trial));
    let y = Scale::around(complete.iter().map(|(_, value)| *value), options.scaling);
    let Some(y) = y.filter(|_| !names.is_empty()) else {
        return nothing(options, title, "No complete trial has parameters and a finite value yet.");
    };
    let placed: Vec<(&Trial, f64)> = complete.iter().copied().filter(|(_, value)| y.place(*value).is_some()).collect();
    let drawn: Vec<(&Trial, f64)> = spread(placed.len(), MAX_POINTS).into_iter().map(|index| placed[index]).collect();
    let shown = &names[..names.len().min(MAX_PANELS)];
    let notes = [
        counted(complete.len(), "complete trial", "complete trials"),
        thinned(drawn.len(), placed.len(), "trials"),
        thinned(shown.len(), names.len(), "parameters"),
        left_out(complete.len() - placed.len()),
    ];
    let (width, single) = options.size();
    // Panels below 200 pixels are too narrow for their labels.
    let columns = shown.len().min(4).min((width / 200.0) as usize).max(1);
    let rows = shown.len().div_ceil(columns);
    let row_height = if rows == 1 { single - 60.0 } else { 250.0 };
    let height = 60.0 + row_height * rows as f64;
    let (mut svg, top) = header(width, height, title, &notes, &[]);
    let panel_height = (height - top) / rows as f64 - BELOW;
    let labels = room_for_labels(&y, panel_height - 10.0, true);
    let bar = 70.0;
    let slot = (width - MARGIN - labels - bar) / columns as f64;
    let axes: Vec<Option<Axis>> =
        shown.iter().map(|name| Axis::of(name, drawn.iter().map(|(trial, _)| *trial))).collect();
    // Choices whose labels are turned make the picture higher, not the panels smaller.
    let rooms = axes.iter().flatten().map(|axis| room_below(&axis.scale, slot - BETWEEN));
    let row_height = panel_height + rooms.fold(BELOW, f64::max);
    svg.set_height(top + row_height * rows as f64);
    let range = (drawn.first().map_or(0, |(t, _)| t.number) as f64, drawn.last().map_or(0, |(t, _)| t.number) as f64);
    for (index, (name, axis)) in shown.iter().zip(&axes).enumerate() {
        let Some(x) = axis else { continue };
        let (row, column) = (index / columns, index % columns);
        let (left, row_top) = (MARGIN + labels + slot * column as f64, top + row_height * row as f64);
        let panel = Panel { left, top: row_top, right: left + slot - BETWEEN, bottom: row_top + panel_height };
        let objective = if column == 0 { options.name(options.objective, directions.len()) } else { String::new() };
        panel.y_axis(&mut svg, &y, &objective, column == 0);
        panel.x_axis(&mut svg, &x.scale, name);
        for (trial, value) in &drawn {
            let (Some(across), Some(up)) = (x.place(trial), y.place(*value)) else { continue };
            let share = if range.1 > range.0 { (trial.number as f64 - range.0) / (range.1 - range.0) } else { 1.0 };
            let tip = format!("Trial {}: {}", trial.number, plain(*value));
            svg.dot(panel.at(across, up), 3.4, &shade(share), 0.85, &tip);
        }
    }
    if range.1 > range.0 {
        let area = Rect { x: width - bar + 4.0, y: top, width: 12.0, height: panel_height.min(160.0) };
        shade_bar(&mut svg, area, &format!("#{}", range.1), &format!("#{}", range.0));
    }
    svg.finish()
}

/// Names of the trials' parameters in the order in which they come first; those of one value everywhere tell nothing and are left out.
pub(super) fn parameters<'a>(trials: impl Iterator<Item = &'a Trial>) -> Vec<&'a str> {
    let mut names: Vec<(&str, bool)> = Vec::new();
    for param in trials.flat_map(|trial| &trial.params) {
        let tells = !param.distribution.single();
        match names.iter_mut().find(|(name, _)| *name == param.name) {
            Some(entry) => entry.1 |= tells,
            None => names.push((&param.name, tells)),
        }
    }
    names.into_iter().filter_map(|(name, tells)| tells.then_some(name)).collect()
}

/// A parameter's axis.
pub(super) struct Axis {
    name: String,
    pub(super) scale: Scale,
}

impl Axis {
    /// Choices by their text, whichever lists they come from; numbers by their values, logarithmic where the distribution is.
    pub(super) fn of<'a>(name: &str, trials: impl Iterator<Item = &'a Trial> + Clone) -> Option<Self> {
        let params = trials.filter_map(|trial| trial.param(name));
        let mut labels: Vec<String> = Vec::new();
        for param in params.clone() {
            if let Distribution::Categorical { choices } = &param.distribution {
                for label in choices.iter().map(ToString::to_string) {
                    if !labels.contains(&label) {
                        labels.push(label);
                    }
                }
            }
        }
        let log = |distribution: &Distribution| {
            matches!(distribution, Distribution::Float { log: true, .. } | Distribution::Int { log: true, .. })
        };
        let whole = |distribution: &Distribution| matches!(distribution, Distribution::Int { .. });
        let all = |is: &dyn Fn(&Distribution) -> bool| params.clone().all(|param| is(&param.distribution));
        let values = params.clone().map(|param| param.value);
        let scale = if !labels.is_empty() {
            Scale::Category(labels)
        } else if all(&log) {
            Scale::around(values, Scaling::Log)?
        } else if all(&whole) {
            Scale::whole(values)?
        } else {
            Scale::around(values, Scaling::Linear)?
        };
        Some(Self { name: name.to_owned(), scale })
    }

    /// Where the trial lies on the axis; choices a little beside their middle, or all of a choice would be one dot.
    pub(super) fn place(&self, trial: &Trial) -> Option<f64> {
        let param = trial.param(&self.name)?;
        let Scale::Category(labels) = &self.scale else { return self.scale.place(param.value) };
        let text = param.external().to_string();
        let index = labels.iter().position(|label| *label == text)?;
        // Multiples of the golden ratio fall evenly, and the same for each drawing.
        let beside = (trial.number.unsigned_abs() as f64 * 0.618_033_988_749_895).fract() - 0.5;
        Some(self.scale.place(index as f64)? + 0.5 * beside / labels.len() as f64)
    }
}
