//! Numbers between scales: logarithms and the values that they are of, and the grids that rounding makes.

/// The value whose natural logarithm this is; the shortest decimal of those that cannot be told apart, since bounds are made from
/// such. `None` when it is too large or too small for a double of full precision.
pub(super) fn value_of_log(log: f64) -> Option<f64> {
    let value = log.exp();
    if !value.is_normal() {
        return None;
    }
    let tolerance = f64::EPSILON * log.abs().max(1.0);
    let decimals = (0..17).filter_map(|digits| format!("{value:.digits$e}").parse::<f64>().ok());
    Some(decimals.into_iter().find(|decimal| (decimal.ln() - log).abs() <= tolerance).unwrap_or(value))
}

/// The shortest decimal that is the same number but for the last bits: 0.3 for three times 0.1.
pub(super) fn tidy(value: f64) -> f64 {
    format!("{value:.14e}").parse().unwrap_or(value)
}

/// The first and the last multiple of `q`, in units of `q`, that the rounding of numbers between `low` and `high` gives. What only
/// the bound itself would give does not count: it never comes.
///
/// `None` when the multiples are too many to be told apart.
pub(super) fn multiples(low: f64, high: f64, q: f64) -> Option<(i64, i64)> {
    let units = |bound: f64| {
        let units = bound / q;
        (units.abs() < 2f64.powi(53)).then_some(units)
    };
    let (low, high) = (units(low)?, units(high)?);
    // A bound that is halfway between two multiples but for the last bits is halfway.
    let slack = |units: f64| (units.abs() * 1e-14).max(1e-9);
    let first = (low + 0.5 + slack(low)).floor();
    let last = (high - 0.5 - slack(high)).ceil();
    Some((first as i64, last.max(first) as i64))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn bounds_come_back_from_their_logarithms() {
        for value in [1e-5_f64, 5e-5, 0.1, 1.0, 3.0, 1e-300, 123_456.789] {
            assert_eq!(value_of_log(value.ln()), Some(value));
        }
        // As another library rounds the logarithm of 1e-5.
        assert_eq!(value_of_log(-11.512_925_464_970_227), Some(1e-5));
        assert_eq!([710.0, -800.0, f64::NAN, f64::INFINITY].map(value_of_log), [None; 4]);
    }

    #[test]
    fn rounding_reaches_what_lies_within_half_a_step() {
        assert_eq!(multiples(1.0, 10.0, 1.0), Some((1, 10)));
        assert_eq!(multiples(0.5, 10.5, 1.0), Some((1, 10)), "the halves themselves never come");
        assert_eq!(multiples(1.0, 9.0, 4.0), Some((0, 2)));
        assert_eq!(multiples(0.15, 0.35, 0.1), Some((2, 3)));
        assert_eq!(multiples(-7.0, 7.0, 5.0), Some((-1, 1)));
        assert_eq!(multiples(3.0, 3.0, 4.0), Some((1, 1)));
        assert_eq!(multiples(0.0, 1e30, 1e-30), None);
        assert_eq!(multiples(f64::NAN, 1.0, 1.0), None);
    }

    proptest! {
        #[test]
        fn every_number_rounds_to_one_of_the_multiples(low in -50.0..50.0, width in 0.0..80.0, q in 0.01..9.0, at in 0.0..1.0) {
            let (first, last) = multiples(low, low + width, q).unwrap();
            let drawn: f64 = low + width * at;
            let rounded = (drawn / q).round() as i64;
            prop_assert!((first..=last).contains(&rounded) || at == 0.0, "{} not in {}..={}", rounded, first, last);
        }
    }
}
