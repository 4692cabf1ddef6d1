//! The part of the space of objectives that no score dominates, as disjoint cells.
//!
//! Lacour, Klamroth and Fonseca, "A box decomposition algorithm to compute the hypervolume indicator" (2017), applied twice as in
//! Daulton et al. (2020): upper bounds of what is dominated, then the cells above those. Scores are to be large.

/// Lower end and width of each objective; a width may be infinite.
pub(super) type Cell = Vec<(f64, f64)>;

/// Widths are not below this, so that slopes stay finite.
const LEAST: f64 = 1e-12;

/// Indices of the rows that no other dominates; of equal ones all.
pub(super) fn front(scores: &[Vec<f64>]) -> Vec<usize> {
    let dominates = |a: &[f64], b: &[f64]| a.iter().zip(b).all(|(a, b)| a >= b) && a != b;
    (0..scores.len()).filter(|i| !scores.iter().any(|other| dominates(other, &scores[*i]))).collect()
}

/// What every score is compared with: worse than the worst in each objective. Optuna's rule.
pub(super) fn reference(scores: &[Vec<f64>]) -> Vec<f64> {
    let objectives = scores.first().map_or(0, Vec::len);
    let worst = |i: usize| scores.iter().map(|row| row[i]).fold(f64::INFINITY, f64::min);
    (0..objectives).map(|i| (1.1 * worst(i)).min(0.9 * worst(i)).next_down()).collect()
}

/// The cells above the reference that no score dominates; their parts below a new score add up to what it gains.
pub(super) fn undominated(scores: &[Vec<f64>], reference: &[f64]) -> Vec<Cell> {
    // Losses from here on: smaller is better.
    let negated = |row: &[f64]| row.iter().map(|score| -score).collect::<Vec<f64>>();
    let losses = scores.iter().map(|row| negated(row));
    let limit = negated(reference);
    let losses = losses.filter(|loss| loss.iter().zip(&limit).all(|(loss, limit)| loss < limit));
    let upper = bounds(sorted_front(losses.collect()), &limit);
    let mirrored = upper.into_iter().map(|bound| negated(&bound.at)).collect();
    let infinite = vec![f64::INFINITY; reference.len()];
    bounds(sorted_front(mirrored), &infinite).iter().filter_map(|bound| cell(bound, &infinite)).collect()
}

/// A corner of what is not dominated, with the points that define each of its coordinates.
#[derive(Debug, Clone)]
struct Bound {
    at: Vec<f64>,
    defined_by: Vec<Vec<f64>>,
}

/// The rows that no other dominates, smaller being better, in lexical order, each once.
fn sorted_front(mut losses: Vec<Vec<f64>>) -> Vec<Vec<f64>> {
    let order = |a: &Vec<f64>, b: &Vec<f64>| a.iter().zip(b).map(|(a, b)| a.total_cmp(b)).find(|o| o.is_ne());
    losses.sort_by(|a, b| order(a, b).unwrap_or(std::cmp::Ordering::Equal));
    losses.dedup();
    let mut kept: Vec<Vec<f64>> = Vec::new();
    for loss in losses {
        // Only what is before it in the order can dominate it.
        if !kept.iter().any(|other| other.iter().zip(&loss).all(|(a, b)| a <= b)) {
            kept.push(loss);
        }
    }
    kept
}

/// Algorithm 2 of Lacour et al.: the upper bounds of the region that the points, sorted by the first objective, do not dominate.
fn bounds(points: Vec<Vec<f64>>, reference: &[f64]) -> Vec<Bound> {
    let n = reference.len();
    let dummy = |j: usize| (0..n).map(|i| if i == j { reference[i] } else { f64::NEG_INFINITY }).collect();
    let mut all = vec![Bound { at: reference.to_vec(), defined_by: (0..n).map(dummy).collect() }];
    for point in points {
        let (beaten, mut kept): (Vec<Bound>, Vec<Bound>) =
            all.into_iter().partition(|bound| point.iter().zip(&bound.at).all(|(point, bound)| point < bound));
        for bound in beaten {
            for j in 0..n {
                // The first coordinate is sorted, so that the points before are below it.
                let others = (0..n).filter(|k| *k != j && j != 0).map(|k| bound.defined_by[k][j]);
                if point[j] >= others.fold(f64::NEG_INFINITY, f64::max) {
                    let mut new = bound.clone();
                    new.at[j] = point[j];
                    new.defined_by[j].clone_from(&point);
                    kept.push(new);
                }
            }
        }
        all = kept;
    }
    all
}

/// The cell of a bound, in scores; `None` when it is empty. Equation 2 of Lacour et al.
fn cell(bound: &Bound, reference: &[f64]) -> Option<Cell> {
    let mut cell = Vec::with_capacity(reference.len());
    for j in 0..reference.len() {
        let (low, high) = if j == 0 {
            (bound.defined_by[0][0], reference[0])
        } else {
            let before = bound.defined_by[..j].iter().map(|point| point[j]);
            (before.fold(f64::NEG_INFINITY, f64::max), bound.at[j])
        };
        if high <= low {
            return None;
        }
        // The first decomposition was mirrored, so that these are scores again.
        cell.push((low, (high - low).max(LEAST)));
    }
    Some(cell)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The volume that the scores dominate above the reference, by counting the cells of the grid that their coordinates span.
    fn volume(scores: &[Vec<f64>], reference: &[f64]) -> f64 {
        let n = reference.len();
        let cuts: Vec<Vec<f64>> = (0..n)
            .map(|i| {
                let mut cuts: Vec<f64> = scores.iter().map(|row| row[i]).chain([reference[i]]).collect();
                cuts.retain(|cut| *cut >= reference[i]);
                cuts.sort_by(f64::total_cmp);
                cuts
            })
            .collect();
        let mut total = 0.0;
        let mut index = vec![0; n];
        'cells: loop {
            if (0..n).all(|i| index[i] + 1 < cuts[i].len()) {
                let top: Vec<f64> = (0..n).map(|i| cuts[i][index[i] + 1]).collect();
                if scores.iter().any(|row| row.iter().zip(&top).all(|(row, top)| row >= top)) {
                    total += (0..n).map(|i| top[i] - cuts[i][index[i]]).product::<f64>();
                }
            }
            for i in 0..n {
                index[i] += 1;
                if index[i] < cuts[i].len() {
                    continue 'cells;
                }
                index[i] = 0;
            }
            return total;
        }
    }

    fn gain(cells: &[Cell], score: &[f64]) -> f64 {
        let part = |cell: &Cell| -> f64 {
            cell.iter().zip(score).map(|((low, width), score)| (score - low).max(0.0).min(*width)).product()
        };
        cells.iter().map(part).sum()
    }

    proptest! {
        #[test]
        fn cells_add_up_to_the_volume_that_a_score_gains(
            scores in prop::collection::vec(prop::collection::vec(-5i8..5, 3), 1..9),
            next in prop::collection::vec(-6i8..7, 3),
            objectives in 2usize..4,
        ) {
            let rows = |rows: &[Vec<i8>]| -> Vec<Vec<f64>> {
                rows.iter().map(|row| row[..objectives].iter().map(|x| f64::from(*x)).collect()).collect()
            };
            let (scores, next) = (rows(&scores), rows(&[next]).remove(0));
            let reference = reference(&scores);
            let cells = undominated(&scores, &reference);
            let mut all = scores.clone();
            all.push(next.clone());
            let gained = volume(&all, &reference) - volume(&scores, &reference);
            prop_assert!((gain(&cells, &next) - gained).abs() < 1e-9, "{} {gained} {cells:?}", gain(&cells, &next));
            for row in &scores {
                prop_assert_eq!(gain(&cells, row), 0.0);
            }
        }
    }

    #[test]
    fn the_front_keeps_equals_and_drops_what_is_beaten() {
        let scores = [[1.0, 2.0], [2.0, 1.0], [1.0, 1.0], [1.0, 2.0]].map(|row| row.to_vec());
        assert_eq!(front(&scores), [0, 1, 3]);
    }
}
