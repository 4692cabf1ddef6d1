//! The colours of all plots: few, told apart also by those who do not see red and green alike, on white.

/// Titles.
pub(super) const INK: &str = "#1f2933";
/// Labels and notes.
pub(super) const SOFT_INK: &str = "#52606d";
/// Lines of axes.
pub(super) const AXIS: &str = "#9aa5b1";
/// Lines behind the data.
pub(super) const GRID: &str = "#e8ecf0";
/// Trials that ended well.
pub(super) const VALUE: &str = "#3d78b4";
/// What is best.
pub(super) const BEST: &str = "#d9541e";
/// Pruned and dominated trials.
pub(super) const PRUNED: &str = "#8d99a6";
/// Trials that break a constraint.
pub(super) const INFEASIBLE: &str = "#a05195";
/// Trials under way.
pub(super) const RUNNING: &str = "#2a9d8f";

/// From pale to dark: the stops of [`shade`].
const SHADES: [[f64; 3]; 4] = [[208.0, 222.0, 236.0], [122.0, 174.0, 214.0], [45.0, 108.0, 168.0], [12.0, 44.0, 92.0]];

/// A blue, pale at 0 and dark at 1.
pub(super) fn shade(share: f64) -> String {
    let place = share.clamp(0.0, 1.0) * (SHADES.len() - 1) as f64;
    let place = if place.is_nan() { 0.0 } else { place };
    let below = (place as usize).min(SHADES.len() - 2);
    let part = place - below as f64;
    let mix = |channel: usize| {
        let (a, b) = (SHADES[below][channel], SHADES[below + 1][channel]);
        (a + (b - a) * part).round() as u8
    };
    format!("#{:02x}{:02x}{:02x}", mix(0), mix(1), mix(2))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shades_run_from_pale_to_dark() {
        assert_eq!(shade(-1.0), "#d0deec");
        assert_eq!(shade(2.0), "#0c2c5c");
        assert_eq!(shade(1.0 / 3.0), "#7aaed6");
        assert_eq!(shade(f64::NAN), shade(0.0));
    }
}
