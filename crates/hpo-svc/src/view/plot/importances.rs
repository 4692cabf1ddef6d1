//! Parameter importances as horizontal bars: the figures of the table, for each objective.

use super::{
    Options, counted,
    frame::{MARGIN, SMALL, header, label, nothing},
    palette::{INK, VALUE},
    svg::{Anchor, Font, Place, Rect, Svg, fit, text_width},
    thinned,
};
use crate::{
    study::{Direction, Trial},
    view::importance::{Importance, told},
};

/// More bars of a group than that are no picture any more.
const MAX_BARS: usize = 40;
const BAR: f64 = 20.0;
const GAP: f64 = 10.0;
/// Height of a line of text above bars.
const LINE: f64 = 20.0;
/// Between bars and their names.
const BESIDE: f64 = 10.0;
/// After the longest bar, for `100.0 %`.
const SHARE: f64 = 60.0;

/// A bar for each parameter, the longest first, with its share in words; with several objectives a group of bars for each. As high as
/// the bars need.
pub fn importances(trials: &[Trial], directions: &[Direction], options: &Options) -> String {
    let title = options.title("Parameter importances");
    let groups: Vec<Group> =
        (0..directions.len()).map(|objective| Group::of(trials, directions, objective, options)).collect();
    if groups.iter().all(|group| group.bars.is_empty()) {
        let why = groups.into_iter().map(|group| group.remarks).find(|remarks| !remarks.is_empty());
        return nothing(options, title, &why.unwrap_or_else(|| "There are no parameters to compare yet.".into()));
    }
    let alone = groups.len() == 1;
    let parameters = groups.iter().map(|group| group.parameters).max().unwrap_or_default();
    let notes = [
        counted(parameters, "parameter", "parameters"),
        "shares of 100 % by fANOVA".to_owned(),
        if alone { groups[0].remarks.clone() } else { String::new() },
    ];
    let (width, _) = options.size();
    let (mut svg, top) = header(width, 0.0, title, &notes, &[]);
    let bars = || groups.iter().flat_map(|group| &group.bars);
    let widest = bars().map(|bar| text_width(&bar.name, SMALL)).fold(0.0, f64::max);
    let names = widest.min(width * 0.35);
    let layout = Layout { left: MARGIN + names + BESIDE, names, room: width - 2.0 * MARGIN - names - BESIDE - SHARE };
    let mut y = top;
    for group in &groups {
        if !alone {
            y = group.head(&mut svg, y, width - 2.0 * MARGIN);
        }
        y += 8.0;
        let largest = group.bars.iter().map(|bar| bar.value).fold(f64::MIN_POSITIVE, f64::max);
        for bar in &group.bars {
            layout.bar(&mut svg, y, bar, largest);
            y += BAR + GAP;
        }
    }
    svg.set_height((y + MARGIN - GAP).max(160.0));
    svg.finish()
}

/// The bars of an objective.
struct Group {
    heading: String,
    bars: Vec<Importance>,
    /// Also those without a bar.
    parameters: usize,
    /// What else is to be said, or why there are no bars.
    remarks: String,
}

impl Group {
    fn of(trials: &[Trial], directions: &[Direction], objective: usize, options: &Options) -> Self {
        let heading = options.name(objective, directions.len());
        let told = match told(trials, directions, objective) {
            Ok(told) => told,
            Err(problem) => return Self { heading, bars: Vec::new(), parameters: 0, remarks: problem.to_string() },
        };
        let (sample, left_out) = (told.sample().map(|sample| format!("from {sample}")), told.left_out());
        let all = told.importances.into_iter().filter(|importance| importance.value.is_finite());
        let mut bars: Vec<Importance> = all.collect();
        let parameters = bars.len();
        bars.truncate(MAX_BARS);
        let thinned = Some(thinned(bars.len(), parameters, "parameters")).filter(|text| !text.is_empty());
        let remarks = [sample, thinned, left_out].into_iter().flatten().collect::<Vec<_>>().join("; ");
        Self { heading, bars, parameters, remarks }
    }

    /// Writes the objective's name and the remarks; where the bars begin.
    fn head(&self, svg: &mut Svg, y: f64, room: f64) -> f64 {
        let mut line = |y: f64, text: &str, font: Font<'_>| {
            let cut = fit(text, SMALL * 1.08, room);
            svg.text((MARGIN, y), &cut, font, if cut == text { "" } else { text });
            y + LINE
        };
        let heading = Font { color: INK, bold: true, ..label(Anchor::Start) };
        let below = line(y + 14.0, &self.heading, heading);
        let below = if self.remarks.is_empty() { below } else { line(below, &self.remarks, label(Anchor::Start)) };
        below - LINE
    }
}

/// Where bars begin and how long they may be.
struct Layout {
    left: f64,
    /// Room for the names.
    names: f64,
    /// Length of the longest bar.
    room: f64,
}

impl Layout {
    fn bar(&self, svg: &mut Svg, y: f64, bar: &Importance, largest: f64) {
        let length = (self.room * bar.value / largest).max(1.0);
        let share = format!("{:.1} %", bar.value * 100.0);
        svg.rect(Rect { x: self.left, y, width: length, height: BAR }, VALUE, &format!("{}: {share}", bar.name));
        let base: Place = (self.left - BESIDE, y + BAR * 0.7);
        let font = Font { color: INK, ..label(Anchor::End) };
        svg.text(base, &fit(&bar.name, SMALL, self.names), font, &bar.name);
        svg.text((self.left + length + 6.0, base.1), &share, label(Anchor::Start), "");
    }
}
