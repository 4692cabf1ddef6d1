//! A small writer of SVG: lines, rectangles, dots, crosses and text, in the part of SVG 1.1 that every renderer draws alike.
//!
//! Text is escaped, coordinates have two decimals, and what has no place, because a coordinate is not finite, is left out.

use std::fmt::Write as _;

/// Generic last, so that a machine without the first ones draws too.
const FONTS: &str = "Helvetica, Arial, 'DejaVu Sans', sans-serif";

/// A picture under way.
#[derive(Debug, Clone)]
pub(super) struct Svg {
    width: f64,
    height: f64,
    body: String,
}

/// A place in the picture; y grows downwards.
pub(super) type Place = (f64, f64);

/// How a line looks.
#[derive(Debug, Clone, Copy)]
pub(super) struct Stroke<'a> {
    pub(super) color: &'a str,
    pub(super) width: f64,
    pub(super) opacity: f64,
}

/// Which point of a text is at its place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Anchor {
    Start,
    Middle,
    End,
}

/// How a text looks.
#[derive(Debug, Clone, Copy)]
pub(super) struct Font<'a> {
    pub(super) size: f64,
    pub(super) color: &'a str,
    pub(super) anchor: Anchor,
    pub(super) bold: bool,
    /// Degrees clockwise around the place.
    pub(super) angle: f64,
}

/// A rectangle by its upper left corner.
#[derive(Debug, Clone, Copy)]
pub(super) struct Rect {
    pub(super) x: f64,
    pub(super) y: f64,
    pub(super) width: f64,
    pub(super) height: f64,
}

impl<'a> Stroke<'a> {
    pub(super) fn new(color: &'a str, width: f64) -> Self {
        Self { color, width, opacity: 1.0 }
    }

    pub(super) fn faint(self, opacity: f64) -> Self {
        Self { opacity, ..self }
    }
}

impl Svg {
    /// A white picture.
    pub(super) fn new(width: f64, height: f64) -> Self {
        Self { width, height, body: String::new() }
    }

    /// Changes the height, for a picture that shows only while it is drawn how much room it needs.
    pub(super) fn set_height(&mut self, height: f64) {
        self.height = height;
    }

    /// A line through the places; fewer than two draw nothing.
    pub(super) fn line(&mut self, places: &[Place], stroke: Stroke<'_>) {
        if places.len() < 2 || places.iter().any(|(x, y)| !x.is_finite() || !y.is_finite()) {
            return;
        }
        self.body.push_str("<polyline points=\"");
        for (index, (x, y)) in places.iter().enumerate() {
            let space = if index > 0 { " " } else { "" };
            let _ = write!(self.body, "{space}{},{}", coordinate(*x), coordinate(*y));
        }
        self.body.push_str("\" fill=\"none\" stroke-linejoin=\"round\"");
        self.stroke(stroke);
        self.body.push_str("/>\n");
    }

    /// A filled rectangle; the tip is what a browser shows over it.
    pub(super) fn rect(&mut self, rect: Rect, fill: &str, tip: &str) {
        let Rect { x, y, width, height } = rect;
        if ![x, y, width, height].iter().all(|number| number.is_finite()) {
            return;
        }
        let [x, y, width, height] = [x, y, width.max(0.0), height.max(0.0)].map(coordinate);
        let _ = write!(self.body, "<rect x=\"{x}\" y=\"{y}\" width=\"{width}\" height=\"{height}\" fill=\"{fill}\"");
        self.end("rect", tip);
    }

    /// Makes what is behind a text pale enough to read it.
    pub(super) fn halo(&mut self, rect: Rect) {
        let [x, y, width, height] = [rect.x, rect.y, rect.width, rect.height];
        if [x, y, width, height].iter().all(|number| number.is_finite()) {
            let [x, y, width, height] = [x, y, width, height].map(coordinate);
            let _ = writeln!(
                self.body,
                "<rect x=\"{x}\" y=\"{y}\" width=\"{width}\" height=\"{height}\" fill=\"#ffffff\" fill-opacity=\"0.8\"/>"
            );
        }
    }

    /// A filled circle.
    pub(super) fn dot(&mut self, (x, y): Place, radius: f64, fill: &str, opacity: f64, tip: &str) {
        if !x.is_finite() || !y.is_finite() {
            return;
        }
        let [x, y, r] = [x, y, radius].map(coordinate);
        let _ = write!(self.body, "<circle cx=\"{x}\" cy=\"{y}\" r=\"{r}\" fill=\"{fill}\"");
        if opacity < 1.0 {
            let _ = write!(self.body, " fill-opacity=\"{}\"", coordinate(opacity));
        }
        self.end("circle", tip);
    }

    /// A circle's line.
    pub(super) fn ring(&mut self, (x, y): Place, radius: f64, stroke: Stroke<'_>, tip: &str) {
        if !x.is_finite() || !y.is_finite() {
            return;
        }
        let [x, y, r] = [x, y, radius].map(coordinate);
        let _ = write!(self.body, "<circle cx=\"{x}\" cy=\"{y}\" r=\"{r}\" fill=\"#ffffff\" fill-opacity=\"0\"");
        self.stroke(stroke);
        self.end("circle", tip);
    }

    /// Two crossed lines.
    pub(super) fn cross(&mut self, (x, y): Place, radius: f64, stroke: Stroke<'_>, tip: &str) {
        if !x.is_finite() || !y.is_finite() {
            return;
        }
        let [left, right, top, bottom] = [x - radius, x + radius, y - radius, y + radius].map(coordinate);
        let _ =
            write!(self.body, "<path d=\"M{left} {top}L{right} {bottom}M{left} {bottom}L{right} {top}\" fill=\"none\"");
        self.stroke(stroke);
        self.end("path", tip);
    }

    /// Text with its baseline at the place.
    pub(super) fn text(&mut self, (x, y): Place, text: &str, font: Font<'_>, tip: &str) {
        if !x.is_finite() || !y.is_finite() {
            return;
        }
        let anchor = match font.anchor {
            Anchor::Start => "start",
            Anchor::Middle => "middle",
            Anchor::End => "end",
        };
        let [x, y, size] = [x, y, font.size].map(coordinate);
        let _ = write!(
            self.body,
            "<text x=\"{x}\" y=\"{y}\" font-size=\"{size}\" fill=\"{}\" text-anchor=\"{anchor}\"",
            font.color
        );
        if font.bold {
            self.body.push_str(" font-weight=\"bold\"");
        }
        if font.angle != 0.0 {
            let _ = write!(self.body, " transform=\"rotate({} {x} {y})\"", coordinate(font.angle));
        }
        self.body.push('>');
        self.body.push_str(&escape(text));
        self.tip(tip);
        self.body.push_str("</text>\n");
    }

    /// The document.
    pub(super) fn finish(self) -> String {
        let [width, height] = [self.width, self.height].map(coordinate);
        format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{width}\" height=\"{height}\" \
             viewBox=\"0 0 {width} {height}\" font-family=\"{FONTS}\">\n\
             <rect x=\"0\" y=\"0\" width=\"{width}\" height=\"{height}\" fill=\"#ffffff\"/>\n{}</svg>\n",
            self.body
        )
    }

    fn stroke(&mut self, stroke: Stroke<'_>) {
        let _ = write!(self.body, " stroke=\"{}\" stroke-width=\"{}\"", stroke.color, coordinate(stroke.width));
        if stroke.opacity < 1.0 {
            let _ = write!(self.body, " stroke-opacity=\"{}\"", coordinate(stroke.opacity));
        }
    }

    fn end(&mut self, name: &str, tip: &str) {
        if tip.is_empty() {
            self.body.push_str("/>\n");
            return;
        }
        self.body.push('>');
        self.tip(tip);
        let _ = writeln!(self.body, "</{name}>");
    }

    fn tip(&mut self, tip: &str) {
        if !tip.is_empty() {
            let _ = write!(self.body, "<title>{}</title>", escape(tip));
        }
    }
}

/// Two decimals at most.
fn coordinate(value: f64) -> String {
    let rounded = (value * 100.0).round() / 100.0;
    // Not `-0`.
    if rounded == 0.0 { "0".into() } else { rounded.to_string() }
}

/// Text as XML has it: its special characters escaped, characters that it forbids replaced.
pub(super) fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for ch in text.chars() {
        match ch {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\n' | '\r' | '\t' => out.push(' '),
            '\u{0}'..='\u{1f}' | '\u{fffe}' | '\u{ffff}' => out.push('\u{fffd}'),
            _ => out.push(ch),
        }
    }
    out
}

/// About how wide a text is drawn; rather too wide than too narrow.
pub(super) fn text_width(text: &str, size: f64) -> f64 {
    let em = |ch: char| match ch {
        'i' | 'j' | 'l' | 'I' | '|' | '!' | '\'' | '.' | ',' | ':' | ';' => 0.33,
        'f' | 't' | 'r' | '(' | ')' | '[' | ']' | '{' | '}' | '-' | '/' | '\\' | ' ' | '"' | '`' => 0.41,
        'm' | 'w' | 'M' | 'W' | '@' | '%' => 0.97,
        'A'..='Z' => 0.71,
        // Scripts of wide signs.
        '\u{1100}'.. => 1.0,
        _ => 0.62,
    };
    size * text.chars().map(em).sum::<f64>()
}

/// The text, or its beginning and end around an ellipsis so that it is no wider than `width`.
pub(super) fn fit(text: &str, size: f64, width: f64) -> String {
    // Sums and differences of doubles are off by a hair, and room that was made for a text shall hold it.
    let width = width + 1e-6;
    if text_width(text, size) <= width {
        return text.to_owned();
    }
    let chars: Vec<char> = text.chars().collect();
    let shortened = |kept: usize| -> String {
        let (head, tail) = (kept.div_ceil(2), kept / 2);
        chars[..head].iter().chain(&['…']).chain(&chars[chars.len() - tail..]).collect()
    };
    let (mut fits, mut too_long) = (0, chars.len());
    while fits + 1 < too_long {
        let middle = usize::midpoint(fits, too_long);
        if text_width(&shortened(middle), size) <= width { fits = middle } else { too_long = middle }
    }
    shortened(fits)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn elements_are_small_and_escaped() {
        let mut svg = Svg::new(100.0, 50.0);
        let stroke = Stroke::new("#123456", 1.5).faint(0.5);
        svg.line(&[(0.0, 1.0 / 3.0), (1.0, -0.001)], stroke);
        svg.line(&[(0.0, 0.0)], stroke);
        svg.line(&[(0.0, 0.0), (f64::NAN, 0.0)], stroke);
        svg.dot((f64::INFINITY, 0.0), 2.0, "#fff", 1.0, "");
        svg.dot((3.0, 4.0), 2.0, "#fff", 0.25, "a < b");
        svg.cross((3.0, f64::NAN), 2.0, stroke, "");
        let font = Font { size: 12.0, color: "#000", anchor: Anchor::End, bold: true, angle: -90.0 };
        svg.text((1.0, 2.0), "R&D \"<x>\"\n\u{1}", font, "");
        let text = svg.finish();
        assert!(text.starts_with("<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"100\" height=\"50\""));
        assert!(text.contains(
            "<polyline points=\"0,0.33 1,0\" fill=\"none\" stroke-linejoin=\"round\" \
             stroke=\"#123456\" stroke-width=\"1.5\" stroke-opacity=\"0.5\"/>"
        ));
        assert_eq!(text.matches("<polyline").count(), 1);
        let dot =
            "<circle cx=\"3\" cy=\"4\" r=\"2\" fill=\"#fff\" fill-opacity=\"0.25\"><title>a &lt; b</title></circle>";
        assert!(text.contains(dot), "{text}");
        assert!(text.contains("transform=\"rotate(-90 1 2)\">R&amp;D &quot;&lt;x&gt;&quot; \u{fffd}</text>"));
    }

    #[test]
    fn long_text_is_cut_in_its_middle() {
        assert_eq!(fit("short", 12.0, 100.0), "short");
        let room = 24.0 + text_width("x", 12.0) + 10.0 - 10.0 - 24.0;
        assert!(room < text_width("x", 12.0), "a hair too narrow, by rounding");
        assert_eq!(fit("x", 12.0, room), "x");
        let cut = fit("model.encoder.layers.0.attention.dropout", 12.0, 120.0);
        assert!(cut.starts_with("model.") && cut.ends_with("dropout") && cut.contains('…'), "{cut}");
        assert!(text_width(&cut, 12.0) <= 120.0);
        assert_eq!(fit("any", 12.0, 0.0), "…");
        assert_eq!(fit("", 12.0, 0.0), "");
        assert!(text_width("語", 10.0) > text_width("a", 10.0));
    }
}
