//! The widths of TPE's kernels: how far an observation is from its neighbours.

/// Above this number of observations the least width no longer shrinks, and what lies closer together need not be sorted.
const MANY: usize = 200;

/// The width of each kernel: the larger distance to its neighbours, the ends of the domain counting for a single observation
/// only; never below a part of the domain that shrinks with the number of observations up to 98.
pub(super) fn sigmas(mu: &[f64], low: f64, high: f64) -> Vec<f64> {
    let least = (high - low) / 100.0_f64.min(mu.len() as f64 + 2.0);
    let mut sigma = vec![least; mu.len()];
    // A bucket is half the least width: neighbours of one bucket are too close to matter.
    let neighbours = if mu.len() > MANY { by_buckets(mu, low, least / 2.0) } else { by_sorting(mu) };
    let n = neighbours.len();
    for (rank, (index, here)) in neighbours.iter().enumerate() {
        let left = if rank == 0 { low } else { neighbours[rank - 1].1 };
        let right = if rank + 1 == n { high } else { neighbours[rank + 1].1 };
        let wide = if mu.len() >= 2 && rank == 0 {
            right - here
        } else if mu.len() >= 2 && rank + 1 == n {
            here - left
        } else {
            (here - left).max(right - here)
        };
        sigma[*index] = wide.clamp(least, high - low);
    }
    sigma
}

/// Index and value of all observations in order; equal ones in that of their indices.
fn by_sorting(mu: &[f64]) -> Vec<(usize, f64)> {
    let mut order: Vec<(usize, f64)> = mu.iter().copied().enumerate().collect();
    order.sort_by(|a, b| a.1.total_cmp(&b.1));
    order
}

/// Like [`by_sorting`], but of each bucket only the first and the last: the others' neighbours are within their bucket.
fn by_buckets(mu: &[f64], low: f64, width: f64) -> Vec<(usize, f64)> {
    type Ends = [(usize, f64); 2];
    let mut buckets: Vec<Option<Ends>> = Vec::new();
    for (index, value) in mu.iter().copied().enumerate() {
        // What rounding puts below the domain is in the first.
        let place = ((value - low) / width) as usize;
        if place >= buckets.len() {
            buckets.resize(place + 1, None);
        }
        match &mut buckets[place] {
            empty @ None => *empty = Some([(index, value); 2]),
            Some([first, last]) => {
                if value < first.1 {
                    *first = (index, value);
                }
                if value >= last.1 {
                    *last = (index, value);
                }
            }
        }
    }
    let mut ends = Vec::with_capacity(2 * buckets.len());
    for [first, last] in buckets.into_iter().flatten() {
        ends.push(first);
        if last.0 != first.0 {
            ends.push(last);
        }
    }
    ends
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn duplicates_keep_the_smallest_width() {
        assert_eq!(sigmas(&[0.5, 0.5, 0.5], 0.0, 1.0), [0.2, 0.2, 0.2]);
        assert_eq!(sigmas(&[0.2], 0.0, 1.0), [0.8]);
        assert_eq!(sigmas(&[0.9, 0.1], 0.0, 1.0), [0.8, 0.8]);
    }

    /// The rule by its definition.
    fn by_definition(mu: &[f64], low: f64, high: f64) -> Vec<f64> {
        let order = by_sorting(mu);
        let least = (high - low) / 100.0_f64.min(mu.len() as f64 + 2.0);
        let mut sigma = vec![0.0; mu.len()];
        for (rank, (index, here)) in order.iter().enumerate() {
            let left = (rank > 0).then(|| here - order[rank - 1].1);
            let right = (rank + 1 < order.len()).then(|| order[rank + 1].1 - here);
            let wide = left.into_iter().chain(right).fold(0.0, f64::max);
            sigma[*index] = wide.clamp(least, high - low);
        }
        sigma
    }

    proptest! {
        /// Many close together, some far away, duplicates, the ends of the domain.
        #[test]
        fn many_observations_have_the_same_widths_as_if_they_were_sorted(
            values in proptest::collection::vec(prop_oneof![
                0.0..=1.0f64, 0.4..0.41f64, (0..=20i32).prop_map(|i| f64::from(i) / 20.0)
            ], 201..600),
            centre in 0.0..1.0f64,
            spread in 0.001..1.0f64,
        ) {
            let mu: Vec<f64> = values.iter().map(|x| (centre + (x - 0.5) * spread).clamp(0.0, 1.0)).collect();
            let (ours, defined) = (sigmas(&mu, 0.0, 1.0), by_definition(&mu, 0.0, 1.0));
            for (a, b) in ours.iter().zip(&defined) {
                prop_assert!((a - b).abs() < 1e-12, "{} {}", a, b);
            }
        }
    }
}
