//! Quasi-random sampling: the points of a low-discrepancy sequence, which cover the space more evenly than random ones do.
//!
//! What Optuna's `QMCSampler` does, with two differences that a known space allows: the first trial belongs to the sequence as
//! well, and parameters with a condition have a coordinate of their own whether they exist or not.

use rand::{RngExt as _, SeedableRng as _};
use sobol_burley::{
    NUM_DIMENSIONS,
    parts::{owen_scramble_rev, sobol_rev},
};

use super::{Generator, Joint, Request, Sampler, cube::Axis};

/// Which sequence.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum QmcType {
    /// Sobol (1967) with the direction numbers of Joe and Kuo (2008); best after a power of two of trials.
    #[default]
    Sobol,
    /// Halton (1960): the digits of the number in the base of a prime number for each dimension.
    Halton,
}

/// The sampler's settings.
///
/// A trial gets the point of its number. Numbers are unique in a study and known before a trial is stored, so that parallel trials
/// never share a point, whatever each of them knew of the history; and they are dense, so that only those trials leave a gap
/// whose parameters were given (a queue) and the discrepancy stays that of the sequence.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Qmc {
    /// Which sequence.
    pub qmc_type: QmcType,
    /// Randomize the sequence by the seed of the study: Sobol after Owen (1995), Halton by permuted digits. The balance of the points
    /// stays, the corner of zeros and patterns between dimensions go. Optuna's default is false; there its workers may have
    /// different seeds, here they share that of the study.
    pub scramble: bool,
}

impl Default for Qmc {
    fn default() -> Self {
        Self { qmc_type: QmcType::Sobol, scramble: true }
    }
}

/// Points of one Sobol sequence: the direction numbers go so far. After them the sequence begins again, with another scrambling.
const SOBOL_POINTS: u64 = 1 << 16;

impl Sampler for Qmc {
    fn joint(&self, request: &Request<'_>, _: &mut Generator) -> Joint {
        let mut dimension = 0;
        let value = |parameter: &crate::space::Parameter| {
            // A dimension is too good for what has one value; those beyond the sequence are left to uniform sampling.
            if parameter.distribution.single() || dimension >= NUM_DIMENSIONS {
                return None;
            }
            let coordinate = self.coordinate(request.number.unsigned_abs(), dimension, request.seed);
            dimension += 1;
            Some(Axis::new(&parameter.distribution).at(coordinate))
        };
        Joint { values: request.space.parameters().iter().map(value).collect(), ..Joint::default() }
    }
}

impl Qmc {
    /// One coordinate of a point, in `[0, 1)`; `dimension` is below [`NUM_DIMENSIONS`].
    fn coordinate(&self, index: u64, dimension: u32, seed: u64) -> f64 {
        match self.qmc_type {
            QmcType::Sobol => sobol(index, dimension, self.scramble.then_some(seed)),
            QmcType::Halton => halton(index, dimension, self.scramble.then_some(seed)),
        }
    }
}

/// 64 well-mixed bits of a number (the finalizer of SplitMix64: Steele, Lea and Flood, 2014).
pub(super) fn mix(number: u64) -> u64 {
    let mut z = number.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// A coordinate of the Sobol sequence.
fn sobol(index: u64, dimension: u32, seed: Option<u64>) -> f64 {
    let (round, index) = (index / SOBOL_POINTS, (index % SOBOL_POINTS) as u32);
    // The order of Gray's code, in which SciPy and Optuna go through the points; blocks of powers of two are the same.
    let index = index ^ (index >> 1);
    let reversed = sobol_rev(index.reverse_bits(), dimension);
    let bits = match seed {
        None if round == 0 => reversed,
        _ => {
            let key = mix(mix(seed.unwrap_or(0) ^ mix(round)) ^ u64::from(dimension));
            // Hash-based scrambling: Burley, "Practical hash-based Owen scrambling" (2020).
            owen_scramble_rev(reversed, (key >> 32) as u32)
        }
    };
    f64::from(bits.reverse_bits()) / (u64::from(u32::MAX) + 1) as f64
}

/// A coordinate of the Halton sequence: the digits of the index in a prime base, mirrored at the point.
///
/// Scrambled, each digit goes through a permutation of its place (Owen, "A randomized Halton algorithm in R", 2017).
fn halton(index: u64, dimension: u32, seed: Option<u64>) -> f64 {
    let base = prime(dimension);
    // Zeros are permuted too, so places go on as far as a double does.
    let places = (54.0 / f64::from(base).log2()).ceil() as u64;
    let (mut rest, mut weight, mut coordinate) = (index, 1.0 / f64::from(base), 0.0);
    for place in 0..if seed.is_some() { places } else { u64::from(u64::BITS) } {
        if rest == 0 && seed.is_none() {
            break;
        }
        let digit = (rest % u64::from(base)) as u32;
        let digit = seed.map_or(digit, |seed| permuted(digit, base, mix(mix(seed ^ u64::from(dimension)) ^ place)));
        coordinate += f64::from(digit) * weight;
        weight /= f64::from(base);
        rest /= u64::from(base);
    }
    // All digits may be the largest one.
    coordinate.min(1.0 - f64::EPSILON / 2.0)
}

/// What a random permutation of the digits of a base makes of one of them.
fn permuted(digit: u32, base: u32, key: u64) -> u32 {
    let mut generator = Generator::seed_from_u64(key);
    // Shuffled from the end, as Fisher and Yates do; followed for one digit alone there is no list to fill.
    let mut at = digit;
    for last in (1..base).rev() {
        let other = generator.random_range(0..=last);
        if at == last {
            at = other;
        } else if at == other {
            at = last;
        }
    }
    at
}

/// The prime number of that index: 2, 3, 5...
fn prime(index: u32) -> u32 {
    let composite = |number: u32| (2..number).take_while(|d| d * d <= number).any(|d| number.is_multiple_of(d));
    (2..).filter(|number| !composite(*number)).nth(index as usize).unwrap_or(2)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        sampler::{Random, suggest},
        space::{Condition, Distribution, ParamValue, Space},
        study::Direction,
    };

    const KINDS: [Qmc; 4] = [
        Qmc { qmc_type: QmcType::Sobol, scramble: true },
        Qmc { qmc_type: QmcType::Sobol, scramble: false },
        Qmc { qmc_type: QmcType::Halton, scramble: true },
        Qmc { qmc_type: QmcType::Halton, scramble: false },
    ];

    fn points(sampler: &dyn Sampler, dimensions: usize, numbers: std::ops::Range<i64>, seed: u64) -> Vec<Vec<f64>> {
        let unit = Distribution::float(0.0, 1.0, false, None).unwrap();
        let space = Space::of((0..dimensions).map(|i| (format!("x{i}"), unit.clone())));
        let directions = &[Direction::Minimize];
        let sample = |number| {
            let request = Request { space: &space, directions, trials: &[], number, seed };
            suggest(sampler, &request, &[]).params.iter().map(|param| param.value).collect()
        };
        numbers.map(sample).collect()
    }

    /// The squared L2 star discrepancy: Warnock's formula (1972).
    fn discrepancy(points: &[Vec<f64>]) -> f64 {
        let (n, d) = (points.len() as f64, points[0].len() as i32);
        let single: f64 = points.iter().map(|x| x.iter().map(|v| (1.0 - v * v) / 2.0).product::<f64>()).sum();
        let pair = |x: &[f64], y: &[f64]| x.iter().zip(y).map(|(a, b)| 1.0 - a.max(*b)).product::<f64>();
        let pairs: f64 = points.iter().map(|x| points.iter().map(|y| pair(x, y)).sum::<f64>()).sum();
        3_f64.powi(-d) - 2.0 / n * single + pairs / (n * n)
    }

    #[test]
    fn the_discrepancy_is_far_below_that_of_random_points() {
        // How many times smaller it is at least, by kind; the known weakness of the plain sequences are many dimensions.
        for (dimensions, count, factors) in
            [(2, 256, [40.0, 25.0, 20.0, 10.0]), (5, 128, [2.5, 2.0, 2.0, 1.0]), (8, 256, [1.5, 0.7, 1.3, 0.3])]
        {
            let of = |sampler: &dyn Sampler, seed| discrepancy(&points(sampler, dimensions, 0..count, seed));
            let random = (0..4).map(|seed| of(&Random, seed)).sum::<f64>() / 4.0;
            for (qmc, factor) in KINDS.iter().zip(factors) {
                let ours = (0..4).map(|seed| of(qmc, seed)).sum::<f64>() / 4.0;
                assert!(ours * factor < random, "{qmc:?} in {dimensions}: {}", random / ours);
            }
        }
    }

    #[test]
    fn every_block_of_a_power_of_two_is_balanced() {
        for scramble in [true, false] {
            let sampler = Qmc { scramble, ..Qmc::default() };
            for block in 0..6 {
                let points = points(&sampler, 40, block * 64..(block + 1) * 64, 3);
                for dimension in 0..40 {
                    let mut cells: Vec<_> = points.iter().map(|p| (p[dimension] * 64.0) as i64).collect();
                    cells.sort_unstable();
                    assert_eq!(cells, (0..64).collect::<Vec<_>>(), "dimension {dimension}");
                }
                // The first two dimensions fill every box of area 1/64 with exactly one point.
                for split in 0..=6 {
                    let (across, up) = (f64::from(1 << split), f64::from(64 >> split));
                    let cell = |p: &Vec<f64>| ((p[0] * across) as i64, (p[1] * up) as i64);
                    let filled: std::collections::BTreeSet<_> = points.iter().map(cell).collect();
                    assert_eq!(filled.len(), 64, "boxes of 1/{across} by 1/{up}");
                }
            }
        }
        let halton = points(&KINDS[2], 3, 250..375, 1);
        let fifths: std::collections::BTreeSet<_> = halton.iter().map(|p| (p[2] * 125.0) as i64).collect();
        assert_eq!(fifths.len(), 125);
    }

    #[test]
    fn plain_sequences_are_those_of_optuna() {
        // scipy.stats.qmc 1.17.1, which Optuna samples from: Sobol(5, scramble=False) and Halton(5, scramble=False) after
        // fast_forward(37) and fast_forward(1000).
        let sobol = [
            (37, [[0.921875, 0.640625, 0.578125, 0.921875, 0.765625]]),
            (1000, [[0.2197265625, 0.0966796875, 0.5185546875, 0.6767578125, 0.2802734375]]),
        ];
        let halton = [
            (37, [[0.640625, 0.38271604938271603, 0.48800000000000004, 0.3877551020408163, 0.38842975206611574]]),
            (1000, [[0.0927734375, 0.3475080018289895, 0.00512, 0.9162848812994586, 0.9316303531179565]]),
        ];
        for (kind, cases) in [(KINDS[1], sobol), (KINDS[3], halton)] {
            for (number, [expected]) in cases {
                let point = points(&kind, 5, number..number + 1, 9).remove(0);
                for (ours, theirs) in point.iter().zip(expected) {
                    assert!((ours - theirs).abs() < 1e-15, "{kind:?} {number}: {point:?}");
                }
            }
        }
    }

    #[test]
    fn numbers_never_share_a_point_and_seeds_no_sequence() {
        for kind in KINDS {
            let mut all = points(&kind, 3, 0..2000, 1);
            all.sort_by(|a, b| a.partial_cmp(b).unwrap());
            all.dedup();
            assert_eq!(all.len(), 2000, "{kind:?}");
            let same = points(&kind, 3, 5..6, 1) == points(&kind, 3, 5..6, 2);
            assert_eq!(same, !kind.scramble);
            // Beyond the end of the direction numbers, and of all numbers.
            let far = points(&kind, 3, 65_535..65_538, 1);
            assert!(far[1] != points(&kind, 3, 0..1, 1)[0] && far[1] != far[2]);
            assert!(points(&kind, 1, i64::MAX - 1..i64::MAX, 1)[0][0] < 1.0);
        }
    }

    #[test]
    fn domains_get_equal_shares_and_dimensions_beyond_the_limit_are_random() {
        let choices = ["a", "b", "c", "d"].map(|text| ParamValue::Text(text.into())).to_vec();
        let mut space = Space::of([
            ("one", Distribution::int(3, 3, false, 1).unwrap()),
            ("choice", Distribution::categorical(choices).unwrap()),
            ("grid", Distribution::float(0.0, 0.75, false, Some(0.25)).unwrap()),
            ("log", Distribution::float(1e-4, 1.0, true, None).unwrap()),
        ]);
        space.set_condition(2, Condition { parameter: 1, values: vec![0.0, 1.0] });
        let request =
            |number| Request { space: &space, directions: &[Direction::Minimize], trials: &[], number, seed: 7 };
        let trials: Vec<_> = (0..64).map(|number| suggest(&Qmc::default(), &request(number), &[]).params).collect();
        let count = |name: &str, value: f64| {
            trials.iter().flatten().filter(|param| param.name == name && param.value == value).count()
        };
        assert_eq!([0.0, 1.0, 2.0, 3.0].map(|choice| count("choice", choice)), [16; 4]);
        assert_eq!([0.0, 0.25, 0.5, 0.75].map(|point| count("grid", point)), [8; 4]);
        let decade = |low: f64| trials.iter().flatten().filter(|p| p.name == "log" && p.value < low).count();
        assert_eq!([1e-3, 1e-2, 1e-1].map(decade), [16, 32, 48]);

        let wide = points(&Qmc::default(), NUM_DIMENSIONS as usize + 2, 0..64, 1);
        let filled = |dimension: usize| {
            wide.iter().map(|p| (p[dimension] * 64.0) as i64).collect::<std::collections::BTreeSet<_>>().len()
        };
        assert_eq!(filled(NUM_DIMENSIONS as usize - 1), 64);
        assert!(filled(NUM_DIMENSIONS as usize) < 60);
    }
}
