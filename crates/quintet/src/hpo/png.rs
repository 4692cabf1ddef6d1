//! A plot as PNG: our SVG, drawn with a font that comes along, so that it looks the same on every machine.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use resvg::{
    tiny_skia::{Pixmap, Transform},
    usvg::{FontResolver, Options, Tree, fontdb},
};

/// DejaVu Sans, see `fonts/README.md`; the widths of texts in plots are estimated for it.
const FONTS: [&[u8]; 2] =
    [include_bytes!("../../fonts/DejaVuSans.ttf"), include_bytes!("../../fonts/DejaVuSans-Bold.ttf")];
const FAMILY: &str = "DejaVu Sans";
/// Pixels of a point of the SVG, for screens that have two and for print.
const SCALE: f32 = 2.0;

/// Draws an SVG. What the font has no sign for, such as Chinese, is drawn with a font of the system that has one, if there is any.
///
/// # Errors
/// What is no SVG, or too large to be drawn.
pub(super) fn png(svg: &str) -> Result<Vec<u8>, String> {
    let mut fonts = fontdb::Database::new();
    FONTS.into_iter().for_each(|font| fonts.load_font_data(font.to_vec()));
    let options = Options { fontdb: Arc::new(fonts), font_resolver: resolver(), ..Options::default() };
    let tree = Tree::from_str(svg, &options).map_err(|error| error.to_string())?;
    let size = tree.size().to_int_size().scale_by(SCALE).ok_or("the picture has no size")?;
    let mut pixels = Pixmap::new(size.width(), size.height()).ok_or("the picture is too large")?;
    resvg::render(&tree, Transform::from_scale(SCALE, SCALE), &mut pixels.as_mut());
    pixels.encode_png().map_err(|error| error.to_string())
}

fn resolver() -> FontResolver<'static> {
    let system = AtomicBool::new(false);
    let search = FontResolver::default_fallback_selector();
    FontResolver {
        select_font: Box::new(|font, fonts| {
            let weight = fontdb::Weight(font.weight());
            let families = &[fontdb::Family::Name(FAMILY)];
            fonts.query(&fontdb::Query { families, weight, ..fontdb::Query::default() })
        }),
        select_fallback: Box::new(move |sign, tried, fonts| {
            // Reading them takes a while, which most plots need not.
            if !system.swap(true, Ordering::Relaxed) {
                Arc::make_mut(fonts).load_system_fonts();
            }
            search(sign, tried, fonts)
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn drawn(text: &str) -> Pixmap {
        let svg = format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"100\" height=\"30\" font-family=\"Helvetica, sans-serif\">\
             <rect width=\"100\" height=\"30\" fill=\"#ffffff\"/><text x=\"5\" y=\"20\" font-size=\"14\">{text}</text></svg>"
        );
        Pixmap::decode_png(&png(&svg).unwrap()).unwrap()
    }

    #[test]
    fn text_is_drawn_with_the_font_that_comes_along() {
        let blank = drawn("");
        assert_eq!((blank.width(), blank.height()), (200, 60));
        assert!(blank.pixels().iter().all(|pixel| pixel.red() == 255));
        let dark = |pixels: &Pixmap| pixels.pixels().iter().filter(|pixel| pixel.red() < 128).count();
        let word = drawn("Größe µ");
        assert!(dark(&word) > 200, "{}", dark(&word));
        // An i is as narrow as the font has it, whatever font the system has under that name.
        let width = |pixels: &Pixmap| {
            let column = |x: &u32| (0..60).any(|y| pixels.pixel(*x, y).is_some_and(|pixel| pixel.red() < 128));
            let columns: Vec<u32> = (0..200).filter(column).collect();
            columns[columns.len() - 1] - columns[0]
        };
        assert!((70..=86).contains(&width(&drawn("mmm"))), "{}", width(&drawn("mmm")));
        assert!(png("no picture").is_err());
    }
}
