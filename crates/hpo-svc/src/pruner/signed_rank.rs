//! Wilcoxon's signed-rank test: whether differences of pairs lie on one side of zero.
//!
//! Computed as `scipy.stats.wilcoxon(d, zero_method="zsplit", alternative=...)` of SciPy 1.17 computes it, by whose rules the null
//! distribution is exact or approximated: more than 50 pairs, or more than 13 with a tie or a zero among them, are compared with a
//! normal distribution with a correction for ties; of the others all assignments of signs are counted.

/// On which side of zero the alternative hypothesis sees the differences.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Alternative {
    /// Below.
    Less,
    /// Above.
    Greater,
}

/// The most pairs whose signs are counted out: without ties, and with.
const MOST_EXACT: usize = 50;
const MOST_EXACT_TIED: usize = 13;

/// The probability of differences that lie so far on that side, when the sign of each is a coin's. The differences are no NaN; of
/// none it is 1.
pub(super) fn p_value(differences: &[f64], alternative: Alternative) -> f64 {
    if differences.is_empty() {
        return 1.0;
    }
    let ranked = ranks(differences);
    let n = differences.len();
    let tied = ranked.groups.iter().any(|size| *size > 1) || ranked.zeros > 0;
    if n > MOST_EXACT || (tied && n > MOST_EXACT_TIED) {
        return approximate(&ranked, n, alternative);
    }
    exact(&ranked, alternative)
}

/// The pairs by the absolute value of their difference. Ranks are doubled, so that those of equals are integers too.
struct Ranked {
    /// Of each difference that is not zero: its rank, and whether it is above zero.
    signed: Vec<(usize, bool)>,
    /// Sizes of the groups of equals, zeros included.
    groups: Vec<usize>,
    /// Differences that are zero; they are the smallest.
    zeros: usize,
}

impl Ranked {
    /// Twice the sum of the ranks of what is above zero.
    fn above(&self) -> usize {
        self.signed.iter().filter(|(_, above)| *above).map(|(rank, _)| rank).sum()
    }

    /// Twice the sum of the ranks of the zeros.
    fn zero(&self) -> usize {
        self.zeros * (self.zeros + 1)
    }
}

fn ranks(differences: &[f64]) -> Ranked {
    let mut sorted = differences.to_vec();
    sorted.sort_by(|a, b| a.abs().total_cmp(&b.abs()));
    let mut ranked = Ranked { signed: Vec::new(), groups: Vec::new(), zeros: 0 };
    let mut before = 0;
    for group in sorted.chunk_by(|a, b| a.abs() == b.abs()) {
        // The mean of before + 1 ..= before + group.len(), doubled.
        let rank = 2 * before + group.len() + 1;
        before += group.len();
        ranked.groups.push(group.len());
        for difference in group {
            if *difference == 0.0 {
                ranked.zeros += 1;
            } else {
                ranked.signed.push((rank, *difference > 0.0));
            }
        }
    }
    ranked
}

/// Counts the assignments of signs. The zeros lend half of their ranks to either side whatever the signs are, and cancel out.
fn exact(ranked: &Ranked, alternative: Alternative) -> f64 {
    let total: usize = ranked.signed.iter().map(|(rank, _)| rank).sum();
    // At most 2^50 assignments, which doubles count exactly.
    let mut ways = vec![0.0; total + 1];
    ways[0] = 1.0;
    let mut reach = 0;
    for (rank, _) in &ranked.signed {
        reach += rank;
        for sum in (*rank..=reach).rev() {
            ways[sum] += ways[sum - rank];
        }
    }
    let observed = ranked.above();
    let as_extreme = match alternative {
        Alternative::Less => &ways[..=observed],
        Alternative::Greater => &ways[observed..],
    };
    as_extreme.iter().sum::<f64>() / ways.iter().sum::<f64>()
}

/// The normal approximation, without a correction for continuity.
fn approximate(ranked: &Ranked, n: usize, alternative: Alternative) -> f64 {
    let n = n as f64;
    let above = (ranked.above() as f64 + ranked.zero() as f64 / 2.0) / 2.0;
    let mean = n * (n + 1.0) * 0.25;
    let ties: f64 = ranked.groups.iter().map(|size| *size as f64).map(|size| size * size * size - size).sum();
    let deviation = ((n * (n + 1.0) * (2.0 * n + 1.0) - ties / 2.0) / 24.0).sqrt();
    let z = (above - mean) / deviation;
    let upwards = match alternative {
        Alternative::Less => -z,
        Alternative::Greater => z,
    };
    libm::erfc(upwards / std::f64::consts::SQRT_2) / 2.0
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn small_samples_are_counted_out() {
        // All above: one of 2^n assignments.
        assert_eq!(p_value(&[1.0, 2.0, 3.0], Alternative::Greater), 0.125);
        assert_eq!(p_value(&[1.0, 2.0, 3.0], Alternative::Less), 1.0);
        // Equals, and a zero that says nothing.
        assert_eq!(p_value(&[1.0, 1.0, 0.0, 1.0], Alternative::Greater), 0.125);
        assert_eq!(p_value(&[0.0, 0.0], Alternative::Greater), 1.0);
        assert_eq!(p_value(&[], Alternative::Less), 1.0);
        assert_eq!(p_value(&[f64::INFINITY, f64::NEG_INFINITY], Alternative::Less), 0.75);
        assert_eq!(p_value(&[0.0; 60], Alternative::Less), 0.5);
    }

    proptest! {
        /// It is a probability, turns around with the signs, and grows no smaller when differences move against the alternative.
        #[test]
        fn it_is_a_probability_and_monotonous(
            differences in proptest::collection::vec((-4i32..5).prop_map(|d| f64::from(d) / 2.0), 0..70),
            worse in 0usize..70,
        ) {
            let up = p_value(&differences, Alternative::Greater);
            let mirrored: Vec<f64> = differences.iter().map(|d| -d).collect();
            prop_assert!((0.0..=1.0).contains(&up));
            prop_assert_eq!(up, p_value(&mirrored, Alternative::Less));
            prop_assert!(up + p_value(&differences, Alternative::Less) >= 1.0 - 1e-12);
            let mut lower = differences.clone();
            if let Some(difference) = lower.get_mut(worse) {
                *difference = -difference.abs();
                prop_assert!(p_value(&lower, Alternative::Greater) >= up - 1e-12);
            }
        }
    }
}
