//! The widths of TPE's kernels: how far an observation is from its neighbours.

/// Above this number of observations the least width no longer shrinks, and what lies closer together need not be sorted.
const MANY: usize = 200;

/// Observations in the kernels' scale and the width of each one's kernel, kept up while observations come and go.
#[derive(Debug)]
pub(super) struct Widths {
    /// The ends of the domain.
    low: f64,
    high: f64,
    /// The observations.
    mu: Vec<f64>,
    sigma: Vec<f64>,
    /// Indices of the observations in order of their values, equal ones in that of their indices; empty until something changes.
    order: Vec<u32>,
}

/// Which kernels have another width than before.
#[derive(Debug, Default)]
pub(super) struct Changed {
    /// All of them.
    pub(super) all: bool,
    /// By their indices; some of them twice.
    pub(super) kernels: Vec<usize>,
}

impl Widths {
    /// Of observations within `low` and `high`.
    pub(super) fn new(mu: Vec<f64>, low: f64, high: f64) -> Self {
        let sigma = sigmas(&mu, low, high);
        Self { low, high, mu, sigma, order: Vec::new() }
    }

    /// The observations, which are the means of their kernels.
    pub(super) fn mu(&self) -> &[f64] {
        &self.mu
    }

    /// The widths.
    pub(super) fn sigma(&self) -> &[f64] {
        &self.sigma
    }

    /// Puts an observation at that index; those from there on move up.
    pub(super) fn insert(&mut self, index: usize, mu: f64, changed: &mut Changed) {
        self.mu.insert(index, mu);
        self.sigma.insert(index, 0.0);
        if self.order.len() + 1 != self.mu.len() || self.least_differs_from(self.mu.len() - 1) {
            return self.anew(changed);
        }
        if index + 1 < self.mu.len() {
            self.order.iter_mut().filter(|other| **other as usize >= index).for_each(|other| *other += 1);
        }
        let rank = self.rank(index);
        self.order.insert(rank, index as u32);
        self.renew(rank.saturating_sub(1)..(rank + 2).min(self.order.len()), changed);
    }

    /// Takes the observation at that index away; those behind it move down.
    pub(super) fn remove(&mut self, index: usize, changed: &mut Changed) {
        if self.order.len() != self.mu.len() || self.least_differs_from(self.mu.len() - 1) {
            self.mu.remove(index);
            self.sigma.remove(index);
            return self.anew(changed);
        }
        let rank = self.rank(index);
        self.order.remove(rank);
        self.mu.remove(index);
        self.sigma.remove(index);
        if index < self.mu.len() {
            self.order.iter_mut().filter(|other| **other as usize > index).for_each(|other| *other -= 1);
        }
        self.renew(rank.saturating_sub(1)..(rank + 1).min(self.order.len()), changed);
    }

    fn anew(&mut self, changed: &mut Changed) {
        self.sigma = sigmas(&self.mu, self.low, self.high);
        self.order = by_sorting(&self.mu).into_iter().map(|(index, _)| index as u32).collect();
        changed.all = true;
    }

    fn least_differs_from(&self, n: usize) -> bool {
        least(self.mu.len(), self.low, self.high) != least(n, self.low, self.high)
    }

    /// Where the observation stands in the order, or belongs.
    fn rank(&self, index: usize) -> usize {
        let here = (self.mu[index], index);
        self.order.partition_point(|other| {
            let other = *other as usize;
            self.mu[other].total_cmp(&here.0).then(other.cmp(&here.1)).is_lt()
        })
    }

    fn renew(&mut self, ranks: std::ops::Range<usize>, changed: &mut Changed) {
        let n = self.order.len();
        let least = least(n, self.low, self.high);
        let at = |rank: usize| self.mu[self.order[rank] as usize];
        for rank in ranks {
            let left = if rank == 0 { self.low } else { at(rank - 1) };
            let right = if rank + 1 == n { self.high } else { at(rank + 1) };
            let index = self.order[rank] as usize;
            self.sigma[index] = wide(rank, n, [left, at(rank), right]).clamp(least, self.high - self.low);
            changed.kernels.push(index);
        }
    }
}

/// The least width among `n` kernels: a part of the domain that shrinks with their number up to 98.
fn least(n: usize, low: f64, high: f64) -> f64 {
    (high - low) / 100.0_f64.min(n as f64 + 2.0)
}

/// The larger distance to the neighbours of the observation of that rank, the ends of the domain counting for a single one only.
fn wide(rank: usize, n: usize, [left, here, right]: [f64; 3]) -> f64 {
    if n >= 2 && rank == 0 {
        right - here
    } else if n >= 2 && rank + 1 == n {
        here - left
    } else {
        (here - left).max(right - here)
    }
}

/// The width of each kernel: the distance to its neighbours, but never below [`least`].
fn sigmas(mu: &[f64], low: f64, high: f64) -> Vec<f64> {
    let least = least(mu.len(), low, high);
    let mut sigma = vec![least; mu.len()];
    // Another domain that the parameter had before may have been wider: no buckets for that.
    let inside = || mu.iter().all(|mu| (low..=high).contains(mu));
    // A bucket is half the least width: neighbours of one bucket are too close to matter.
    let neighbours = if mu.len() > MANY && inside() { by_buckets(mu, low, least / 2.0) } else { by_sorting(mu) };
    let n = neighbours.len();
    for (rank, (index, here)) in neighbours.iter().enumerate() {
        let left = if rank == 0 { low } else { neighbours[rank - 1].1 };
        let right = if rank + 1 == n { high } else { neighbours[rank + 1].1 };
        sigma[*index] = wide(rank, n, [left, *here, right]).clamp(least, high - low);
    }
    sigma
}

/// Index and value of all observations in order; equal ones in that of their indices.
fn by_sorting(mu: &[f64]) -> Vec<(usize, f64)> {
    let mut order: Vec<(usize, f64)> = mu.iter().copied().enumerate().collect();
    order.sort_by(|a, b| a.1.total_cmp(&b.1));
    order
}

/// Like [`by_sorting`] of observations from `low` on, but of each bucket only the first and the last: the others' neighbours are
/// within their bucket.
fn by_buckets(mu: &[f64], low: f64, width: f64) -> Vec<(usize, f64)> {
    type Ends = [(usize, f64); 2];
    let mut buckets: Vec<Option<Ends>> = Vec::new();
    for (index, value) in mu.iter().copied().enumerate() {
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

    #[test]
    fn what_lies_far_outside_of_the_domain_takes_no_room() {
        let far = [1e6, -1e18, f64::MAX, f64::INFINITY];
        let mu: Vec<f64> = (0..300).map(|i| f64::from(i % 4)).chain(far).collect();
        let (ours, defined) = (sigmas(&mu, 0.0, 3.0), by_definition(&mu, 0.0, 3.0));
        assert_eq!(ours, defined);
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
        /// Few and many, so that the least width changes too.
        #[test]
        fn widths_that_were_kept_are_those_of_what_is_there(
            start in proptest::collection::vec(0.0..1.0f64, 0..130),
            changes in proptest::collection::vec((any::<bool>(), any::<proptest::sample::Index>(), prop_oneof![
                0.0..=1.0f64, 0.4..0.41f64, (0..=8i32).prop_map(|i| f64::from(i) / 8.0)
            ]), 1..60),
        ) {
            let mut widths = Widths::new(start.clone(), 0.0, 1.0);
            let (mut mu, mut seen) = (start, widths.sigma().to_vec());
            for (adds, place, value) in changes {
                let mut changed = Changed::default();
                if adds || mu.is_empty() {
                    let place = place.index(mu.len() + 1);
                    mu.insert(place, value);
                    seen.insert(place, f64::NAN);
                    widths.insert(place, value, &mut changed);
                } else {
                    let place = place.index(mu.len());
                    mu.remove(place);
                    seen.remove(place);
                    widths.remove(place, &mut changed);
                }
                let expected = sigmas(&mu, 0.0, 1.0);
                prop_assert_eq!(widths.mu(), &mu[..]);
                prop_assert_eq!(widths.sigma(), &expected[..]);
                // Whoever follows what has changed knows all of it.
                for index in changed.kernels {
                    seen[index] = widths.sigma()[index];
                }
                if changed.all {
                    seen = widths.sigma().to_vec();
                }
                prop_assert_eq!(&seen, &expected);
            }
        }

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
