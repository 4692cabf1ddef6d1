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

/// The x with `log_ndtr(x) == y`: Wichura, "Algorithm AS 241: the percentage points of the normal distribution" (1988), which is
/// accurate to 1e-16 and makes no use of the probability itself in the tails; Newton's method beyond what it covers.
pub(super) fn ndtri_exp(y: f64) -> f64 {
    let p = y.exp();
    let centred = p - 0.5;
    if centred.abs() <= 0.425 {
        let r = 0.180625 - centred * centred;
        return centred * ratio(r, &CENTRE);
    }
    // Of the smaller tail.
    let log_tail = if centred < 0.0 { y } else { (-y.exp_m1()).ln() };
    let r = (-log_tail).sqrt();
    let x = if r <= 5.0 {
        ratio(r - 1.6, &TAIL)
    } else if r <= 27.0 {
        ratio(r - 5.0, &FAR_TAIL)
    } else {
        return ndtri_exp_by_newton(y);
    };
    if centred < 0.0 { -x } else { x }
}

/// Coefficients of a numerator and of a denominator, that of the highest power first.
type Ratio = [[f64; 8]; 2];

fn ratio(r: f64, of: &Ratio) -> f64 {
    let [numerator, denominator] = of.map(|coefficients| coefficients.iter().fold(0.0, |sum, next| sum * r + next));
    numerator / denominator
}

const CENTRE: Ratio = [
    [
        2_509.080_928_730_122_7,
        33_430.575_583_588_13,
        67_265.770_927_008_7,
        45_921.953_931_549_87,
        13_731.693_765_509_46,
        1_971.590_950_306_551_3,
        133.141_667_891_784_38,
        3.387_132_872_796_366_5,
    ],
    [
        5_226.495_278_852_854,
        28_729.085_735_721_943,
        39_307.895_800_092_71,
        21_213.794_301_586_597,
        5_394.196_021_424_751,
        687.187_007_492_057_9,
        42.313_330_701_600_91,
        1.0,
    ],
];

const TAIL: Ratio = [
    [
        7.745_450_142_783_414e-4,
        0.022_723_844_989_269_184,
        0.241_780_725_177_450_6,
        1.270_458_252_452_368_4,
        3.647_848_324_763_204_5,
        5.769_497_221_460_691,
        4.630_337_846_156_546,
        1.423_437_110_749_683_5,
    ],
    [
        1.050_750_071_644_416_9e-9,
        5.475_938_084_995_345e-4,
        0.015_198_666_563_616_457,
        0.148_103_976_427_480_08,
        0.689_767_334_985_1,
        1.676_384_830_183_803_8,
        2.053_191_626_637_759,
        1.0,
    ],
];

const FAR_TAIL: Ratio = [
    [
        2.010_334_399_292_288_1e-7,
        2.711_555_568_743_487_6e-5,
        0.001_242_660_947_388_078_4,
        0.026_532_189_526_576_124,
        0.296_560_571_828_504_87,
        1.784_826_539_917_291_3,
        5.463_784_911_164_114,
        6.657_904_643_501_103,
    ],
    [
        2.044_263_103_389_939_8e-15,
        1.421_511_758_316_446e-7,
        1.846_318_317_510_054_8e-5,
        7.868_691_311_456_133e-4,
        0.014_875_361_290_850_615,
        0.136_929_880_922_735_8,
        0.599_832_206_555_887_9,
        1.0,
    ],
];

/// Newton's method from asymptotic guesses.
fn ndtri_exp_by_newton(y: f64) -> f64 {
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
        fn the_inverse_is_that_of_newtons_method(y in prop_oneof![
            -1e-12..-1e-14f64, -0.1..-1e-9f64, -3.0..-1e-3f64, -60.0..-0.5f64, -2000.0..-20.0f64
        ]) {
            let (ours, newton) = (ndtri_exp(y), ndtri_exp_by_newton(y));
            prop_assert!((ours - newton).abs() <= 1e-11 * newton.abs().max(1e-3), "{} {} {}", y, ours, newton);
        }

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
