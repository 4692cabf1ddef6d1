//! fANOVA: how much of the variance of a random forest each parameter explains by itself.
//!
//! Hutter, Hoos, Leyton-Brown, "An efficient approach for assessing hyperparameter importance" (2014); settings and the encoding are
//! those of Optuna's `FanovaImportanceEvaluator`. A tree cuts the space into boxes of constant prediction, so its variance and the
//! variance of its marginals are exact sums over the boxes.

use std::collections::BTreeMap;

use super::{
    Error, Importance,
    forest::{Growth, Node, grow},
};
use crate::{
    space::Distribution,
    study::{State, Trial},
    view::course::spread,
};

/// The evaluator's settings; the defaults are Optuna's, and the seed is fixed.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Fanova {
    /// Trees in the forest.
    pub n_trees: usize,
    /// No tree is deeper.
    pub max_depth: usize,
    /// Measure logarithmic parameters by their logarithm. Optuna does not: to it, most of such a range are the largest values.
    pub transform_log: bool,
    /// Grow the forest from so many trials at most, evenly spread over the study; Optuna takes all.
    pub max_trials: Option<usize>,
    /// Of the forest's randomness.
    pub seed: u64,
}

impl Default for Fanova {
    fn default() -> Self {
        Self { n_trees: 64, max_depth: 64, transform_log: false, max_trials: None, seed: 0 }
    }
}

impl Fanova {
    /// Importances before they are made shares of 1.
    pub(super) fn evaluate(&self, trials: &[Trial], objective: usize) -> Result<Vec<Importance>, Error> {
        let complete: Vec<&Trial> = trials.iter().filter(|trial| trial.state == State::Complete).collect();
        let some = spread(complete.len(), self.max_trials.unwrap_or(usize::MAX));
        let complete: Vec<&Trial> = some.into_iter().map(|index| complete[index]).collect();
        let space = intersection(&complete);
        let encoding = Encoding::new(&space, self.transform_log);
        let target = |trial: &Trial| trial.values.get(objective).copied().filter(|value| value.is_finite());
        let rows = complete.iter().filter_map(|trial| Some((encoding.row(&space, trial)?, target(trial)?)));
        let (rows, targets): (Vec<Vec<f64>>, Vec<f64>) = rows.unzip();
        let targets = standardized(&targets);
        let mut shares = vec![Vec::new(); encoding.groups.len()];
        if rows.len() > 1 && encoding.width > 0 {
            let columns: Vec<Vec<f64>> =
                (0..encoding.width).map(|column| rows.iter().map(|row| row[column]).collect()).collect();
            let growth = Growth { n_trees: self.n_trees, max_depth: self.max_depth, seed: self.seed };
            for nodes in grow(&columns, &targets, growth) {
                let boxes = Boxes::new(&nodes, encoding.width);
                if boxes.variance > 0.0 {
                    for (share, group) in shares.iter_mut().zip(&encoding.groups) {
                        share.push(boxes.marginal_variance(group) / boxes.variance);
                    }
                }
            }
        }
        // Optuna fails when all trees are flat.
        if shares.first().is_some_and(Vec::is_empty) {
            return Err(Error::NothingDiffers);
        }
        let mean = |shares: &Vec<f64>| shares.iter().sum::<f64>() / shares.len() as f64;
        let named = space.iter().zip(&shares);
        Ok(named.map(|((name, _), share)| Importance { name: (*name).to_owned(), value: mean(share) }).collect())
    }
}

/// The parameters, by name, that all of the trials have with the same distribution.
fn intersection<'a>(trials: &[&'a Trial]) -> Vec<(&'a str, &'a Distribution)> {
    let Some((first, others)) = trials.split_first() else { return Vec::new() };
    let mut space: Vec<(&str, &Distribution)> =
        first.params.iter().map(|param| (param.name.as_str(), &param.distribution)).collect();
    for trial in others {
        space
            .retain(|(name, distribution)| trial.param(name).is_some_and(|param| param.distribution == **distribution));
    }
    space.sort_by_key(|(name, _)| *name);
    space
}

/// Mean 0 and variance 1: shares do not change, and neither huge nor tiny objectives spoil the sums.
fn standardized(values: &[f64]) -> Vec<f64> {
    let n = values.len() as f64;
    let largest = values.iter().fold(0.0_f64, |largest, value| largest.max(value.abs()));
    let scale = if largest > 0.0 { largest } else { 1.0 };
    let mean = values.iter().map(|value| value / scale / n).sum::<f64>();
    let centred: Vec<f64> = values.iter().map(|value| value / scale - mean).collect();
    let deviation = (centred.iter().map(|value| value * value).sum::<f64>() / n).sqrt();
    // Less than that is rounding.
    if deviation > 1e-15 { centred.iter().map(|value| value / deviation).collect() } else { vec![0.0; values.len()] }
}

/// Parameters as columns between 0 and 1: numbers by their place in the domain, choices one-hot.
struct Encoding {
    width: usize,
    /// Columns of each parameter of the space.
    groups: Vec<Group>,
    transform_log: bool,
}

/// The columns of a parameter; numbers have one, and a parameter of one value has none.
struct Group {
    start: usize,
    columns: usize,
}

impl Encoding {
    fn new(space: &[(&str, &Distribution)], transform_log: bool) -> Self {
        let mut groups = Vec::new();
        let mut width = 0;
        for (_, distribution) in space {
            let columns = match distribution {
                single if single.single() => 0,
                Distribution::Categorical { choices } => choices.len(),
                Distribution::Float { .. } | Distribution::Int { .. } => 1,
            };
            groups.push(Group { start: width, columns });
            width += columns;
        }
        Self { width, groups, transform_log }
    }

    /// The trial's columns; `None` when it lacks a parameter of the space, or has one that is no number.
    fn row(&self, space: &[(&str, &Distribution)], trial: &Trial) -> Option<Vec<f64>> {
        let mut row = vec![0.0; self.width];
        for ((name, distribution), group) in space.iter().zip(&self.groups) {
            let value = Some(trial.param(name)?.value).filter(|value| value.is_finite())?;
            let (low, high, log) = match distribution {
                _ if group.columns == 0 => continue,
                Distribution::Categorical { choices } => {
                    let choice = (value.max(0.0) as usize).min(choices.len() - 1);
                    row[group.start + choice] = 1.0;
                    continue;
                }
                Distribution::Float { low, high, log, .. } => (*low, *high, *log),
                Distribution::Int { low, high, log, .. } => (*low as f64, *high as f64, *log),
            };
            let place = if log && self.transform_log {
                (value.max(low) / low).ln() / (high / low).ln()
            } else {
                (value - low) / (high - low)
            };
            // Optuna has ranges without an end, in which nothing has a place.
            row[group.start] = if place.is_nan() { 0.0 } else { place.clamp(0.0, 1.0) };
        }
        Some(row)
    }
}

/// The boxes into which a tree cuts the unit cube.
struct Boxes {
    boxes: Vec<Leaf>,
    /// Over the cube, uniformly.
    variance: f64,
}

struct Leaf {
    /// Less the mean over the cube.
    value: f64,
    volume: f64,
    bounds: Vec<(f64, f64)>,
}

impl Boxes {
    fn new(nodes: &[Node], width: usize) -> Self {
        let mut boxes = Vec::new();
        let mut open = vec![(0, vec![(0.0, 1.0); width])];
        while let Some((node, bounds)) = open.pop() {
            match nodes[node] {
                Node::Leaf(value) => {
                    let volume = bounds.iter().map(|(low, high)| high - low).product();
                    boxes.push(Leaf { value, volume, bounds });
                }
                Node::Split { feature, threshold, left, right } => {
                    let (mut below, mut above) = (bounds.clone(), bounds);
                    below[feature].1 = threshold;
                    above[feature].0 = threshold;
                    open.extend([(left, below), (right, above)]);
                }
            }
        }
        let total: f64 = boxes.iter().map(|leaf| leaf.volume).sum();
        let mean = boxes.iter().map(|leaf| leaf.volume * leaf.value).sum::<f64>() / total;
        boxes.iter_mut().for_each(|leaf| leaf.value -= mean);
        let variance = boxes.iter().map(|leaf| leaf.volume * leaf.value * leaf.value).sum();
        Self { boxes, variance }
    }

    /// The variance of the prediction as a function of the group's columns alone, averaged over all others.
    fn marginal_variance(&self, group: &Group) -> f64 {
        let variance = match group.columns {
            0 => 0.0,
            1 => self.number_variance(group.start),
            _ => self.choice_variance(group),
        };
        variance.max(0.0)
    }

    /// The marginal is a step function: each box raises it between its bounds.
    fn number_variance(&self, column: usize) -> f64 {
        let mut steps: Vec<(f64, f64)> = Vec::with_capacity(2 * self.boxes.len());
        for leaf in &self.boxes {
            let (low, high) = leaf.bounds[column];
            let height = leaf.value * leaf.volume / (high - low);
            if height.is_finite() {
                steps.extend([(low, height), (high, -height)]);
            }
        }
        steps.sort_by(|a, b| a.0.total_cmp(&b.0));
        let (mut at, mut height, mut variance) = (0.0, 0.0, 0.0);
        for (place, change) in steps {
            variance += (place - at) * height * height;
            at = place;
            height += change;
        }
        variance
    }

    /// One-hot columns are cut at one half only: which halves a box lies in is a pair of bit sets. The mean of the squared marginal
    /// is a sum over pairs of boxes, each with the volume of their overlap; boxes of the same halves are put together first.
    fn choice_variance(&self, group: &Group) -> f64 {
        let words = group.columns.div_ceil(64);
        let mut heights: BTreeMap<Vec<(u64, u64)>, f64> = BTreeMap::new();
        for leaf in &self.boxes {
            let mut halves = vec![(0, 0); words];
            let mut size = 1.0;
            for (column, (low, high)) in leaf.bounds[group.start..group.start + group.columns].iter().enumerate() {
                let bit = 1_u64 << (column % 64);
                let (lower, upper) = &mut halves[column / 64];
                if *high < 1.0 {
                    *lower |= bit;
                } else if *low > 0.0 {
                    *upper |= bit;
                }
                size *= high - low;
            }
            *heights.entry(halves).or_default() += leaf.value * leaf.volume / size;
        }
        let heights: Vec<(Vec<(u64, u64)>, f64)> = heights.into_iter().collect();
        let mut variance = 0.0;
        for (index, (halves, height)) in heights.iter().enumerate() {
            for (offset, (others, other)) in heights[index..].iter().enumerate() {
                let twice = if offset == 0 { 1.0 } else { 2.0 };
                variance += twice * height * other * overlap(halves, others);
            }
        }
        variance
    }
}

/// The share of the cube that lies in the halves of both.
fn overlap(a: &[(u64, u64)], b: &[(u64, u64)]) -> f64 {
    let mut cuts = 0;
    for ((lower_a, upper_a), (lower_b, upper_b)) in a.iter().zip(b) {
        if lower_a & upper_b != 0 || upper_a & lower_b != 0 {
            return 0.0;
        }
        cuts += (lower_a | upper_a | lower_b | upper_b).count_ones();
    }
    0.5_f64.powi(cuts as i32)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// f = 0 where x <= 0.25; else 4 where y <= 0.5, 8 above it.
    fn steps() -> Vec<Node> {
        vec![
            Node::Split { feature: 0, threshold: 0.25, left: 1, right: 2 },
            Node::Leaf(0.0),
            Node::Split { feature: 1, threshold: 0.5, left: 3, right: 4 },
            Node::Leaf(4.0),
            Node::Leaf(8.0),
        ]
    }

    #[test]
    fn marginals_of_a_tree_are_exact() {
        let boxes = Boxes::new(&steps(), 2);
        // Mean 4.5; along x: 0 for a quarter, 6 for the rest; along y: 3 and 6.
        assert!((boxes.variance - (0.25 * 20.25 + 0.375 * 0.25 + 0.375 * 12.25)).abs() < 1e-12);
        assert!((boxes.marginal_variance(&Group { start: 0, columns: 1 }) - 6.75).abs() < 1e-12);
        assert!((boxes.marginal_variance(&Group { start: 1, columns: 1 }) - 2.25).abs() < 1e-12);
        assert_eq!(boxes.marginal_variance(&Group { start: 2, columns: 0 }), 0.0);
    }

    #[test]
    fn choices_are_cut_in_halves() {
        let nodes = vec![
            Node::Split { feature: 1, threshold: 0.5, left: 1, right: 2 },
            Node::Split { feature: 0, threshold: 0.5, left: 3, right: 4 },
            Node::Leaf(8.0),
            Node::Leaf(0.0),
            Node::Leaf(4.0),
        ];
        let boxes = Boxes::new(&nodes, 2);
        // All of the variance is that of the two columns: 0 and 4 in a quarter each, 8 in a half; mean 5.
        let variance = boxes.marginal_variance(&Group { start: 0, columns: 2 });
        assert!((variance - (0.25 * 25.0 + 0.25 + 0.5 * 9.0)).abs() < 1e-12, "{variance}");
        assert!((variance - boxes.variance).abs() < 1e-12);
    }

    #[test]
    fn targets_of_any_size_are_standardized() {
        for values in [vec![1e300, -1e300, 5e299], vec![1e-300, 3e-300], vec![1e9, 1e9 + 1.0]] {
            let scaled = standardized(&values);
            let n = scaled.len() as f64;
            assert!((scaled.iter().map(|v| v * v).sum::<f64>() / n - 1.0).abs() < 1e-6, "{scaled:?}");
        }
        assert_eq!(standardized(&[0.1; 3]), [0.0; 3]);
        assert_eq!(standardized(&[]), Vec::<f64>::new());
    }
}
