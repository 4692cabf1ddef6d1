//! A small random forest for regression: bootstrapped trees, split where the variance shrinks most, grown until the leaves are pure.
//!
//! Breiman, "Random forests" (2001), with the settings of scikit-learn's `RandomForestRegressor` that Optuna's fANOVA relies on: every
//! feature is tried at each node in random order, thresholds lie midway between neighbours, `x <= threshold` goes left.

use rand::{RngExt as _, SeedableRng as _};
use rand_chacha::ChaCha12Rng;

/// A node of a tree; children come after their parent.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Node {
    /// Predicts its value.
    Leaf(f64),
    /// `x[feature] <= threshold` goes left.
    Split { feature: usize, threshold: f64, left: usize, right: usize },
}

/// How to grow trees.
#[derive(Debug, Clone, Copy)]
pub(super) struct Growth {
    pub(super) n_trees: usize,
    pub(super) max_depth: usize,
    pub(super) seed: u64,
}

/// Grows the trees on feature columns, one value an observation, and targets. Everything must be finite. Each tree is a list of nodes
/// that begins with the root.
pub(super) fn grow(columns: &[Vec<f64>], targets: &[f64], growth: Growth) -> impl Iterator<Item = Vec<Node>> {
    // Sorting once for all nodes of all trees; a node's samples stay in order when they are divided among its children.
    let order = |column: &Vec<f64>| {
        let mut order: Vec<usize> = (0..targets.len()).collect();
        order.sort_by(|a, b| column[*a].total_cmp(&column[*b]));
        order
    };
    let orders: Vec<Vec<usize>> = columns.iter().map(order).collect();
    (0..growth.n_trees).map(move |tree| {
        // A stream of its own for each tree: the same trees however many there are.
        let mut generator = ChaCha12Rng::seed_from_u64(growth.seed);
        generator.set_stream(tree as u64);
        let mut weights = vec![0.0; targets.len()];
        for _ in 0..targets.len() {
            weights[generator.random_range(0..targets.len())] += 1.0;
        }
        let drawn = |order: &Vec<usize>| order.iter().copied().filter(|sample| weights[*sample] > 0.0).collect();
        let orders: Vec<Vec<usize>> = orders.iter().map(drawn).collect();
        Grower { columns, targets, weights: &weights, orders, generator, goes_left: vec![false; targets.len()] }
            .tree(growth.max_depth)
    })
}

struct Grower<'a> {
    columns: &'a [Vec<f64>],
    targets: &'a [f64],
    /// How often each observation was drawn.
    weights: &'a [f64],
    /// The drawn observations by each feature; a node owns the same range of all of them.
    orders: Vec<Vec<usize>>,
    generator: ChaCha12Rng,
    /// Side of the observations of the node that is being divided.
    goes_left: Vec<bool>,
}

/// A node that is not decided yet.
struct Open {
    node: usize,
    range: std::ops::Range<usize>,
    depth: usize,
}

/// The best division of a node.
struct Best {
    feature: usize,
    threshold: f64,
    gain: f64,
    /// Samples that go left.
    left: usize,
}

impl Grower<'_> {
    fn tree(mut self, max_depth: usize) -> Vec<Node> {
        let drawn = self.orders.first().map_or(0, Vec::len);
        let mut nodes = vec![Node::Leaf(0.0)];
        let mut open = vec![Open { node: 0, range: 0..drawn, depth: 0 }];
        while let Some(Open { node, range, depth }) = open.pop() {
            let (weight, sum, square) = self.sums(&range);
            if weight == 0.0 {
                continue;
            }
            let mean = sum / weight;
            nodes[node] = Node::Leaf(mean);
            let pure = square / weight - mean * mean <= f64::EPSILON;
            if depth >= max_depth || range.len() < 2 || pure {
                continue;
            }
            let Some(best) = self.best(&range, weight, sum) else { continue };
            let (left, right) = (nodes.len(), nodes.len() + 1);
            nodes.extend([Node::Leaf(mean); 2]);
            nodes[node] = Node::Split { feature: best.feature, threshold: best.threshold, left, right };
            self.divide(&range, &best);
            let middle = range.start + best.left;
            open.push(Open { node: left, range: range.start..middle, depth: depth + 1 });
            open.push(Open { node: right, range: middle..range.end, depth: depth + 1 });
        }
        nodes
    }

    /// Weight, weighted sum and weighted sum of squares of a node's targets.
    fn sums(&self, range: &std::ops::Range<usize>) -> (f64, f64, f64) {
        let samples = self.orders.first().map_or(&[][..], |order| &order[range.clone()]);
        samples.iter().fold((0.0, 0.0, 0.0), |(weight, sum, square), sample| {
            let (w, y) = (self.weights[*sample], self.targets[*sample]);
            (weight + w, sum + w * y, square + w * y * y)
        })
    }

    fn best(&mut self, range: &std::ops::Range<usize>, weight: f64, sum: f64) -> Option<Best> {
        let mut features: Vec<usize> = (0..self.columns.len()).collect();
        for last in (1..features.len()).rev() {
            features.swap(last, self.generator.random_range(0..=last));
        }
        let mut best: Option<Best> = None;
        for feature in features {
            let (column, samples) = (&self.columns[feature], &self.orders[feature][range.clone()]);
            let (mut left_weight, mut left_sum) = (0.0, 0.0);
            for (position, pair) in samples.windows(2).enumerate() {
                let (w, y) = (self.weights[pair[0]], self.targets[pair[0]]);
                left_weight += w;
                left_sum += w * y;
                let (here, next) = (column[pair[0]], column[pair[1]]);
                if next <= here {
                    continue;
                }
                // The variance of the children is smallest where this is largest.
                let right_sum = sum - left_sum;
                let gain = left_sum * left_sum / left_weight + right_sum * right_sum / (weight - left_weight);
                if best.as_ref().is_none_or(|best| gain > best.gain) {
                    let middle = here + (next - here) / 2.0;
                    // Between neighbouring doubles there is nothing: the threshold must not take the right one along.
                    let threshold = if middle < next { middle } else { here };
                    best = Some(Best { feature, threshold, gain, left: position + 1 });
                }
            }
        }
        best
    }

    /// Moves the samples of a node into the ranges of its children, keeping their order.
    fn divide(&mut self, range: &std::ops::Range<usize>, best: &Best) {
        let column = &self.columns[best.feature];
        for sample in &self.orders[best.feature][range.clone()] {
            self.goes_left[*sample] = column[*sample] <= best.threshold;
        }
        let mut right = Vec::with_capacity(range.len());
        for order in &mut self.orders {
            right.clear();
            let mut at = range.start;
            for position in range.clone() {
                let sample = order[position];
                if self.goes_left[sample] {
                    order[at] = sample;
                    at += 1;
                } else {
                    right.push(sample);
                }
            }
            order[at..range.end].copy_from_slice(&right);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn predict(nodes: &[Node], point: &[f64]) -> f64 {
        let mut at = 0;
        loop {
            match nodes[at] {
                Node::Leaf(value) => return value,
                Node::Split { feature, threshold, left, right } => {
                    at = if point[feature] <= threshold { left } else { right };
                }
            }
        }
    }

    const GROWTH: Growth = Growth { n_trees: 40, max_depth: 64, seed: 3 };

    #[test]
    fn a_forest_learns_a_function_and_is_the_same_each_time() {
        let mut generator = ChaCha12Rng::seed_from_u64(1);
        let points: Vec<[f64; 2]> = (0..400).map(|_| [generator.random(), generator.random()]).collect();
        let target = |p: &[f64; 2]| (6.0 * p[0]).sin() + 2.0 * p[1];
        let columns = [0, 1].map(|i| points.iter().map(|p| p[i]).collect::<Vec<f64>>());
        let targets: Vec<f64> = points.iter().map(target).collect();
        let forest: Vec<_> = grow(&columns, &targets, GROWTH).collect();
        assert_eq!(forest, grow(&columns, &targets, GROWTH).collect::<Vec<_>>());
        assert_ne!(forest[0], forest[1]);
        let (mut error, mut variance) = (0.0, 0.0);
        for _ in 0..200 {
            let point: [f64; 2] = [generator.random(), generator.random()];
            let mean = forest.iter().map(|nodes| predict(nodes, &point)).sum::<f64>() / 40.0;
            error += (mean - target(&point)).powi(2);
            variance += (target(&point) - 1.0).powi(2);
        }
        assert!(error < 0.03 * variance, "{error} of {variance}");
    }

    #[test]
    fn depth_duplicates_and_nothing_at_all_end_a_tree() {
        let columns = [vec![0.0, 0.0, 1.0, 1.0]];
        let shallow = Growth { max_depth: 0, ..GROWTH };
        assert!(grow(&columns, &[1.0, 2.0, 3.0, 4.0], shallow).all(|nodes| nodes.len() == 1));
        assert!(grow(&columns, &[1.0, 2.0, 3.0, 4.0], GROWTH).all(|nodes| nodes.len() <= 3));
        assert!(grow(&columns, &[7.0; 4], GROWTH).all(|nodes| nodes == [Node::Leaf(7.0)]));
        assert!(grow(&[vec![]], &[], GROWTH).all(|nodes| nodes == [Node::Leaf(0.0)]));
        let close = [vec![1.0, 1.0_f64.next_up(), 2.0]];
        assert!(grow(&close, &[0.0, 5.0, 9.0], GROWTH).all(|nodes| nodes.len() <= 5));
    }
}
