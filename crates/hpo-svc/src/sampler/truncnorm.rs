//! The truncated normal distribution in log space, accurate in the tails.
//!
//! The formulas are SciPy's, as Optuna uses them: symmetry keeps every computation in the left tail.

use std::f64::consts::{PI, SQRT_2};

/// log(sqrt(2 pi))
pub(super) const LOG_NORMALIZER: f64 = 0.918_938_533_204_672_8;

/// log of the standard normal's distribution function.
pub(super) fn log_ndtr(a: f64) -> f64 {
    if a > 6.0 {
        return -0.5 * libm::erfc(a / SQRT_2);
    }
    if a > -20.0 {
        return (0.5 * libm::erfc(-a / SQRT_2)).ln();
    }
    // Asymptotic series of the tail.
    let left = -0.5 * a * a - (-a).ln() - LOG_NORMALIZER;
    let (mut last, mut right, mut numerator, mut denominator) = (0.0_f64, 1.0_f64, 1.0, 1.0);
    let (inverse_square, mut sign) = (1.0 / (a * a), 1.0);
    let mut i = 0.0;
    while (last - right).abs() > f64::EPSILON {
        i += 1.0;
        last = right;
        sign = -sign;
        denominator *= inverse_square;
        numerator *= 2.0 * i - 1.0;
        right += sign * numerator * denominator;
    }
    left + right.ln()
}

/// log(exp(p) - exp(q)) for p >= q.
fn log_diff(p: f64, q: f64) -> f64 {
    p + (-(q - p).exp()).ln_1p()
}

fn log_sum(p: f64, q: f64) -> f64 {
    let high = p.max(q);
    if high == f64::NEG_INFINITY { high } else { high + (-(p - q).abs()).exp().ln_1p() }
}

/// Beyond this distance from 0 the standard normal has no mass that a double could tell from none beside 1.
const EVERYTHING: f64 = 8.5;

/// log of the standard normal's mass between `a` and `b`.
pub(super) fn log_mass(a: f64, b: f64) -> f64 {
    if a < -EVERYTHING && b > EVERYTHING {
        return 0.0;
    }
    if b <= 0.0 {
        log_diff(log_ndtr(b), log_ndtr(a))
    } else if a > 0.0 {
        log_diff(log_ndtr(-a), log_ndtr(-b))
    } else {
        (-0.5 * libm::erfc(-a / SQRT_2) - 0.5 * libm::erfc(b / SQRT_2)).ln_1p()
    }
}

/// The x with `log_ndtr(x) == y`, by Newton's method from asymptotic guesses.
pub(super) fn ndtri_exp(y: f64) -> f64 {
    // Close to 0 the mirrored equation is the stable one.
    let flipped = y > -1e-2;
    let z = if flipped { (-y.exp_m1()).ln() } else { y };
    let mut x =
        if z < -5.0 { -(-2.0 * (z + LOG_NORMALIZER)).sqrt() } else { -(3.0_f64.sqrt() / PI) * (-z).exp_m1().ln() };
    for _ in 0..100 {
        let log_cdf = log_ndtr(x);
        let log_pdf = -0.5 * x * x - LOG_NORMALIZER;
        let dx = (log_cdf - z) * (log_cdf - log_pdf).exp();
        x -= dx;
        if dx.abs() < 1e-8 * x.abs() || !x.is_finite() {
            break;
        }
    }
    if flipped { -x } else { x }
}

/// The quantile `q` of the standard normal cut to `[a, b]`, inside of it.
pub(super) fn quantile(q: f64, a: f64, b: f64) -> f64 {
    if q <= 0.0 || a >= b {
        return a;
    }
    if q >= 1.0 {
        return b;
    }
    let mass = log_mass(a, b);
    let x = if a < 0.0 {
        ndtri_exp(log_sum(log_ndtr(a), q.ln() + mass))
    } else {
        -ndtri_exp(log_sum(log_ndtr(-b), (-q).ln_1p() + mass))
    };
    if x.is_nan() { a + q * (b - a) } else { x.clamp(a, b) }
}

/// log of a sum of exponentials, which may come in parts.
#[derive(Debug, Clone, Copy)]
pub(super) struct LogSum {
    max: f64,
    /// Of the exponentials, each divided by that of `max`.
    sum: f64,
}

impl Default for LogSum {
    fn default() -> Self {
        Self { max: f64::NEG_INFINITY, sum: 0.0 }
    }
}

impl LogSum {
    /// What is smaller than the largest by this factor in logs is lost in rounding, however many there are.
    const NEGLIGIBLE: f64 = -60.0;

    /// Adds the exponentials of these logs.
    pub(super) fn add(&mut self, logs: &[f64]) {
        let max = logs.iter().copied().fold(self.max, f64::max);
        if max == f64::NEG_INFINITY {
            return;
        }
        if max > self.max {
            self.sum *= (self.max - max).exp();
            self.max = max;
        }
        let terms = logs.iter().map(|log| log - max).filter(|below| *below > Self::NEGLIGIBLE);
        self.sum += terms.map(f64::exp).sum::<f64>();
    }

    /// What lies below this log need not be added.
    pub(super) fn floor(&self) -> f64 {
        self.max + Self::NEGLIGIBLE
    }

    /// Adds the exponential of a log, so many times.
    pub(super) fn add_times(&mut self, log: f64, times: f64) {
        if log > self.max {
            self.sum *= (self.max - log).exp();
            self.max = log;
        }
        if log > self.floor() {
            self.sum += times * (log - self.max).exp();
        }
    }

    /// The log of the sum; minus infinity for none.
    pub(super) fn log(self) -> f64 {
        self.sum.ln() + self.max
    }
}

/// log of the sum of the exponentials; minus infinity for none.
pub(super) fn log_sum_exp(logs: &[f64]) -> f64 {
    let mut sum = LogSum::default();
    sum.add(logs);
    sum.log()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn close(a: f64, b: f64) -> bool {
        (a - b).abs() <= 1e-9 * b.abs().max(1e-9)
    }

    #[test]
    fn known_values() {
        // scipy.special.log_ndtr 1.16
        for (x, expected) in [
            (-40.0, -804.6084420137538),
            (-20.0, -203.91715537109727),
            (-5.0, -15.064998393988725),
            (0.0, -std::f64::consts::LN_2),
            (3.0, -0.0013508099647481923),
            (8.0, -6.22096057427178e-16),
        ] {
            assert!(close(log_ndtr(x), expected), "{x}: {}", log_ndtr(x));
        }
        assert!(close(log_mass(-1.0, 1.0).exp(), 0.682_689_492_137_085_9));
        assert!(close(log_mass(30.0, 31.0), log_mass(-31.0, -30.0)));
    }

    proptest! {
        #[test]
        fn quantiles_invert_the_mass(q in 1e-6f64..0.999_999, a in -30.0f64..30.0, width in 1e-3f64..20.0) {
            let b = a + width;
            let x = quantile(q, a, b);
            prop_assert!((a..=b).contains(&x));
            if x > a && x < b {
                let back = (log_mass(a, x) - log_mass(a, b)).exp();
                prop_assert!((back - q).abs() < 1e-5, "q {} back {}", q, back);
            }
        }
    }
}
