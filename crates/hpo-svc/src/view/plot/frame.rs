//! What surrounds the data: title, notes, legend, panels with their axes, and the bar that explains a shade.

use super::{
    Options,
    palette::{AXIS, GRID, INK, SOFT_INK, shade},
    scale::{Scale, Tick},
    svg::{Anchor, Font, Place, Rect, Stroke, Svg, fit, text_width},
};

/// Distance of everything from the edge of the picture.
pub(super) const MARGIN: f64 = 24.0;
/// Size of labels and notes.
pub(super) const SMALL: f64 = 12.0;

/// What an entry of the legend shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Mark {
    Dot,
    Ring,
    Cross,
    Line,
}

/// An entry of the legend.
#[derive(Debug, Clone, Copy)]
pub(super) struct Key {
    pub(super) mark: Mark,
    pub(super) color: &'static str,
    pub(super) label: &'static str,
}

/// Text of labels.
pub(super) fn label(anchor: Anchor) -> Font<'static> {
    Font { size: SMALL, color: SOFT_INK, anchor, bold: false, angle: 0.0 }
}

/// A picture with title, notes and legend; the second value is where the space below them begins.
pub(super) fn header(width: f64, height: f64, title: &str, notes: &[String], legend: &[Key]) -> (Svg, f64) {
    let mut svg = Svg::new(width, height);
    let room = width - 2.0 * MARGIN;
    let font = Font { size: 18.0, color: INK, anchor: Anchor::Start, bold: true, angle: 0.0 };
    svg.text((MARGIN, 34.0), &fit(title, 18.0 * 1.08, room), font, "");
    let mut y = 34.0;
    // Notes share lines as long as they fit.
    let mut line = String::new();
    for note in notes.iter().filter(|note| !note.is_empty()) {
        let longer = if line.is_empty() { note.clone() } else { format!("{line}; {note}") };
        if text_width(&longer, SMALL) > room && !line.is_empty() {
            y += 18.0;
            svg.text((MARGIN, y), &line, label(Anchor::Start), "");
            line = note.clone();
        } else {
            line = longer;
        }
    }
    if !line.is_empty() {
        y += 18.0;
        svg.text((MARGIN, y), &fit(&line, SMALL, room), label(Anchor::Start), "");
    }
    if !legend.is_empty() {
        y += 22.0;
        let mut x = MARGIN;
        for key in legend {
            let length = 20.0 + text_width(key.label, SMALL);
            if x > MARGIN && x + length > width - MARGIN {
                x = MARGIN;
                y += 18.0;
            }
            mark(&mut svg, key, (x + 7.0, y - 4.0));
            svg.text((x + 20.0, y), key.label, label(Anchor::Start), "");
            x += length + 18.0;
        }
    }
    (svg, y + 16.0)
}

fn mark(svg: &mut Svg, key: &Key, (x, y): Place) {
    let stroke = Stroke::new(key.color, 1.5);
    match key.mark {
        Mark::Dot => svg.dot((x, y), 4.0, key.color, 1.0, ""),
        Mark::Ring => svg.ring((x, y), 3.5, stroke, ""),
        Mark::Cross => svg.cross((x, y), 3.5, stroke, ""),
        Mark::Line => svg.line(&[(x - 7.0, y), (x + 7.0, y)], Stroke::new(key.color, 2.5)),
    }
}

/// A picture that says why there is nothing in it.
pub(super) fn nothing(options: &Options, title: &str, why: &str) -> String {
    let (width, height) = options.size();
    let (mut svg, top) = header(width, height, title, &[], &[]);
    let rect = Rect { x: MARGIN, y: top, width: width - 2.0 * MARGIN, height: height - top - MARGIN };
    svg.rect(rect, "#f6f8fa", "");
    let font = Font { size: 14.0, ..label(Anchor::Middle) };
    svg.text((width / 2.0, top + rect.height / 2.0), &fit(why, 14.0, rect.width), font, "");
    svg.finish()
}

/// The area of one diagram.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Panel {
    pub(super) left: f64,
    pub(super) top: f64,
    pub(super) right: f64,
    pub(super) bottom: f64,
}

/// Room below a panel for the labels of its x axis and the axis' name, unless the labels are turned: see [`room_below`].
pub(super) const BELOW: f64 = 46.0;
/// Below the name of an x axis.
const UNDER_NAME: f64 = 9.0;
/// Labels that are turned are no longer than that,
const TURNED_LENGTH: f64 = 120.0;
/// and each takes so much of the axis.
const TURNED_PITCH: f64 = 11.5;

/// Whether the labels of choices have to be turned for each of them to have room below a panel of that width.
fn turned(scale: &Scale, width: f64) -> bool {
    let Scale::Category(labels) = scale else { return false };
    let room = width / labels.len().max(1) as f64 - 4.0;
    room < TURNED_LENGTH && labels.iter().any(|label| text_width(label, SMALL) > room)
}

/// Room below a panel of that width for the labels of its x axis and the axis' name.
pub(super) fn room_below(scale: &Scale, width: f64) -> f64 {
    match scale {
        Scale::Category(labels) if turned(scale, width) => {
            let longest = labels.iter().map(|label| text_width(label, SMALL)).fold(0.0, f64::max);
            (6.0 + longest.min(TURNED_LENGTH) + 20.0 + UNDER_NAME).max(BELOW)
        }
        _ => BELOW,
    }
}

/// Room to the left of a panel for the labels of a y axis, and for its name where it has one.
pub(super) fn room_for_labels(scale: &Scale, height: f64, named: bool) -> f64 {
    let ticks = scale.ticks(vertical_ticks(height));
    let widest = ticks.iter().map(|tick| text_width(&tick.label, SMALL)).fold(0.0, f64::max);
    widest.min(140.0) + 10.0 + if named { 24.0 } else { 0.0 }
}

fn vertical_ticks(height: f64) -> usize {
    (height / 48.0) as usize
}

impl Panel {
    /// The place of shares of both axes.
    pub(super) fn at(&self, x: f64, y: f64) -> Place {
        (self.left + x * (self.right - self.left), self.bottom - y * (self.bottom - self.top))
    }

    /// The horizontal axis with grid lines.
    pub(super) fn x_axis(&self, svg: &mut Svg, scale: &Scale, name: &str) {
        let width = self.right - self.left;
        let ticks = horizontal_ticks(scale, width);
        let slot = width / ticks.len().max(1) as f64;
        let (room, down, font) = if turned(scale, width) {
            (TURNED_LENGTH, 6.0, Font { angle: -90.0, ..label(Anchor::End) })
        } else {
            (slot.max(30.0) - 4.0, 17.0, label(Anchor::Middle))
        };
        for tick in &ticks {
            let (x, _) = self.at(tick.place, 0.0);
            svg.line(&[(x, self.top), (x, self.bottom)], Stroke::new(GRID, 1.0));
            let text = fit(&tick.label, SMALL, room);
            let tip = if text == tick.label { "" } else { &tick.label };
            // The middle of a turned line is a little to the left of its baseline.
            let beside = if font.angle == 0.0 { 0.0 } else { 4.0 };
            svg.text((x + beside, self.bottom + down), &text, font, tip);
        }
        svg.line(&[(self.left, self.bottom), (self.right, self.bottom)], Stroke::new(AXIS, 1.0));
        let font = Font { color: INK, ..label(Anchor::Middle) };
        let text = fit(name, SMALL, width);
        let tip = if text == name { "" } else { name };
        let down = room_below(scale, width) - UNDER_NAME;
        svg.text((f64::midpoint(self.left, self.right), self.bottom + down), &text, font, tip);
    }

    /// The vertical axis with grid lines; without labels where a neighbour has them.
    pub(super) fn y_axis(&self, svg: &mut Svg, scale: &Scale, name: &str, labelled: bool) {
        let height = self.bottom - self.top;
        for tick in scale.ticks(vertical_ticks(height)) {
            let (_, y) = self.at(0.0, tick.place);
            svg.line(&[(self.left, y), (self.right, y)], Stroke::new(GRID, 1.0));
            if labelled {
                let text = fit(&tick.label, SMALL, 140.0);
                svg.text((self.left - 8.0, y + 4.0), &text, label(Anchor::End), "");
            }
        }
        svg.line(&[(self.left, self.top), (self.left, self.bottom)], Stroke::new(AXIS, 1.0));
        if !name.is_empty() {
            let x = self.left - room_for_labels(scale, height, true) + 10.0;
            let font = Font { color: INK, angle: -90.0, ..label(Anchor::Middle) };
            let text = fit(name, SMALL, height);
            svg.text((x, f64::midpoint(self.top, self.bottom)), &text, font, "");
        }
    }
}

/// As many ticks as have room for their labels.
fn horizontal_ticks(scale: &Scale, width: f64) -> Vec<Tick> {
    if let Scale::Category(labels) = scale {
        return scale.ticks(if turned(scale, width) { (width / TURNED_PITCH) as usize } else { labels.len() });
    }
    let most = ((width / 40.0) as usize).clamp(2, 12);
    let fits = |ticks: &Vec<Tick>| {
        let half = |tick: &Tick| text_width(&tick.label, SMALL) / 2.0 + 5.0;
        ticks.windows(2).all(|pair| (pair[1].place - pair[0].place) * width >= half(&pair[0]) + half(&pair[1]))
    };
    let found = (2..=most).rev().map(|count| scale.ticks(count)).find(fits);
    found.unwrap_or_else(|| scale.ticks(2).into_iter().take(1).collect())
}

/// A bar from pale to dark beside a plot, with a word at each end.
pub(super) fn shade_bar(svg: &mut Svg, area: Rect, dark: &str, pale: &str) {
    const STEPS: u32 = 48;
    let height = area.height / f64::from(STEPS);
    for step in 0..STEPS {
        let y = area.y + f64::from(step) * height;
        // Down to the end, under the next ones: edges that only touch let the white behind shine through.
        let part = Rect { x: area.x, y, width: area.width, height: area.y + area.height - y };
        svg.rect(part, &shade(1.0 - f64::from(step) / f64::from(STEPS - 1)), "");
    }
    let x = area.x + area.width + 6.0;
    svg.text((x, area.y + 10.0), dark, label(Anchor::Start), "");
    svg.text((x, area.y + area.height), pale, label(Anchor::Start), "");
}
