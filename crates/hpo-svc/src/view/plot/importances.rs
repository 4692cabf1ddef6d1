//! Parameter importances as horizontal bars.

use super::{
    Options, counted,
    frame::{MARGIN, SMALL, header, label, nothing},
    palette::{INK, VALUE},
    svg::{Anchor, Font, Rect, fit, text_width},
    thinned,
};
use crate::view::importance::Importance;

/// More bars than that are no picture any more.
const MAX_BARS: usize = 40;
const BAR: f64 = 20.0;
const GAP: f64 = 10.0;

/// A bar for each parameter, in the order given, with its share in words; `evaluator` is what they were found by. As high as its bars
/// need.
pub fn importances(importances: &[Importance], evaluator: &str, options: &Options) -> String {
    let title = options.title("Parameter importances");
    let all: Vec<&Importance> = importances.iter().filter(|importance| importance.value.is_finite()).collect();
    if all.is_empty() {
        return nothing(options, title, "There are no parameters to compare yet.");
    }
    let bars = &all[..all.len().min(MAX_BARS)];
    let notes = [
        counted(all.len(), "parameter", "parameters"),
        format!("shares of 100 % by {evaluator}"),
        thinned(bars.len(), all.len(), "parameters"),
    ];
    let width = options.size().0;
    let height = (100.0 + (BAR + GAP) * bars.len() as f64).max(160.0);
    let (mut svg, top) = header(width, height, title, &notes, &[]);
    let widest = bars.iter().map(|bar| text_width(&bar.name, SMALL)).fold(0.0, f64::max);
    let left = MARGIN + widest.min(width * 0.35) + 10.0;
    // Room for `100.0 %` after the longest bar.
    let room = width - MARGIN - 60.0 - left;
    let largest = bars.iter().map(|bar| bar.value).fold(f64::MIN_POSITIVE, f64::max);
    for (index, bar) in bars.iter().enumerate() {
        let y = top + 8.0 + (BAR + GAP) * index as f64;
        let length = (room * bar.value / largest).max(1.0);
        let share = format!("{:.1} %", bar.value * 100.0);
        let tip = format!("{}: {share}", bar.name);
        svg.rect(Rect { x: left, y, width: length, height: BAR }, VALUE, &tip);
        let font = Font { color: INK, ..label(Anchor::End) };
        svg.text((left - 10.0, y + BAR * 0.7), &fit(&bar.name, SMALL, left - 10.0 - MARGIN), font, &bar.name);
        svg.text((left + length + 6.0, y + BAR * 0.7), &share, label(Anchor::Start), "");
    }
    svg.finish()
}
