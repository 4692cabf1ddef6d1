//! What is counted of a split, and how what was counted is distributed.
use std::collections::{BTreeMap, BTreeSet};

use super::{Distribution, SplitSummary};
use crate::tokenizer::SubTokens;

/// One more of a value.
pub(super) fn count(histogram: &mut BTreeMap<usize, usize>, value: usize) {
    *histogram.entry(value).or_default() += 1;
}

/// What is counted of a split.
#[derive(Default)]
pub(super) struct Counts {
    pub(super) name: &'static str,
    pub(super) rows: usize,
    pub(super) empty: usize,
    pub(super) repeated: usize,
    pub(super) labels: BTreeMap<String, usize>,
    pub(super) unlabelled: usize,
    pub(super) values: Vec<f32>,
    pub(super) words: BTreeMap<usize, usize>,
    pub(super) sub_tokens: BTreeMap<usize, usize>,
    pub(super) long_rows: usize,
    pub(super) cut_entities: usize,
    pub(super) lost_entities: usize,
    /// Different answers, of which two are enough.
    pub(super) kinds: BTreeSet<String>,
}

impl Counts {
    /// Nothing yet.
    pub(super) fn new(name: &'static str) -> Self {
        Self { name, ..Self::default() }
    }

    /// Counts the sub-tokens of a row; whether there are too many.
    pub(super) fn tokens(&mut self, tokens: &SubTokens, max_length: usize) -> bool {
        count(&mut self.sub_tokens, tokens.ids.len());
        let long = tokens.ids.len() > max_length;
        self.long_rows += usize::from(long);
        long
    }

    /// The summary.
    pub(super) fn finish(mut self) -> SplitSummary {
        self.values.sort_by(f32::total_cmp);
        let values = self.values.iter().map(|value| (f64::from(*value), 1)).collect::<Vec<_>>();
        let lengths = |histogram: &BTreeMap<usize, usize>| {
            distribution(&histogram.iter().map(|(value, count)| (*value as f64, *count)).collect::<Vec<_>>())
        };
        SplitSummary {
            name: self.name.to_owned(),
            rows: self.rows,
            empty_rows: self.empty,
            repeated_rows: self.repeated,
            labels: self.labels,
            unlabelled_rows: self.unlabelled,
            values: distribution(&values),
            words: lengths(&self.words).unwrap_or_default(),
            sub_tokens: lengths(&self.sub_tokens),
            long_rows: self.long_rows,
            cut_entities: self.cut_entities,
            lost_entities: self.lost_entities,
        }
    }
}

/// Of values in ascending order with their counts; none of nothing.
fn distribution(values: &[(f64, usize)]) -> Option<Distribution> {
    let total: usize = values.iter().map(|(_, count)| count).sum();
    let (first, last) = (values.first()?, values.last()?);
    let rank = |share: f64| {
        let wanted = (share * total as f64).ceil().max(1.0) as usize;
        let mut passed = 0;
        let found = values.iter().find(|(_, count)| {
            passed += count;
            passed >= wanted
        });
        found.map_or(last.0, |(value, _)| *value)
    };
    let sum: f64 = values.iter().map(|(value, count)| value * *count as f64).sum();
    Some(Distribution {
        min: first.0,
        p50: rank(0.5),
        p90: rank(0.9),
        p99: rank(0.99),
        max: last.0,
        mean: sum / total as f64,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_by_the_nearest_rank() {
        let values: Vec<(f64, usize)> = (1..=100).map(|n| (f64::from(n), 1)).collect();
        let found = distribution(&values).unwrap();
        assert_eq!((found.p50, found.p90, found.p99, found.mean), (50.0, 90.0, 99.0, 50.5));
        assert_eq!(distribution(&[]), None);
    }
}
