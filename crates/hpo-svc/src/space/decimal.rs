//! Decimal arithmetic on the shortest digits of doubles, as Optuna does it for grids: 0.3 is a multiple of 0.1 here.

/// `mantissa * 10^exponent`.
#[derive(Debug, Clone, Copy)]
struct Decimal {
    mantissa: i128,
    exponent: i32,
}

impl Decimal {
    fn of(value: f64) -> Option<Self> {
        let text = format!("{value:e}");
        let (digits, exponent) = text.split_once('e')?;
        let fraction = digits.split_once('.').map_or(0, |(_, fraction)| fraction.len());
        Some(Self {
            mantissa: digits.replace('.', "").parse().ok()?,
            exponent: exponent.parse::<i32>().ok()? - i32::try_from(fraction).ok()?,
        })
    }

    /// The mantissa at a smaller exponent; `None` when it does not fit.
    fn at(self, exponent: i32) -> Option<i128> {
        let power = u32::try_from(self.exponent - exponent).ok()?;
        if self.mantissa == 0 {
            return Some(0);
        }
        self.mantissa.checked_mul(10_i128.checked_pow(power)?)
    }
}

/// The largest `low + k * step` that is not above `high`, for finite `low <= high` and `step > 0`.
///
/// `None` when the numbers differ so much in size that 38 digits cannot hold them.
pub(super) fn last_on_grid(low: f64, high: f64, step: f64) -> Option<f64> {
    let numbers = [Decimal::of(low)?, Decimal::of(high)?, Decimal::of(step)?];
    let exponent = numbers.iter().map(|n| n.exponent).min()?;
    let [low_m, high_m, step_m] = [numbers[0].at(exponent)?, numbers[1].at(exponent)?, numbers[2].at(exponent)?];
    let range = high_m.checked_sub(low_m)?;
    if range % step_m == 0 {
        return Some(high);
    }
    format!("{}e{exponent}", range / step_m * step_m + low_m).parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn grids_end_where_optuna_ends_them() {
        // (low, high, step) and the high of Optuna 5.0.0's FloatDistribution.
        let cases = [
            (0.0, 1.0, 0.1, 1.0),
            (0.0, 0.3, 0.1, 0.3),
            (0.0, 1.0, 0.3, 0.9),
            (-1.0, 1.0, 0.7, 0.4),
            (1e-5, 1e-4, 1e-5, 1e-4),
            (0.5, 10.0, 4.0, 8.5),
            (0.1, 0.1, 5.0, 0.1),
        ];
        for (low, high, step, last) in cases {
            assert_eq!(last_on_grid(low, high, step), Some(last), "{low} {high} {step}");
        }
        assert_eq!(last_on_grid(0.0, 1e30, 1e-30), None);
    }
}
