//! Folds for cross-validation: disjoint parts of a data set, the same for the same rows and settings.

use std::collections::{BTreeMap, BTreeSet};

use super::{Sentence, Tag, parse_tag};
use crate::{Error, random::Stream};

/// One fold of several.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fold {
    /// How many there are, 2 or more.
    pub n_splits: usize,
    /// The one to validate on, from 0.
    pub index: usize,
    /// Whether rows are dealt out in random order.
    pub shuffle: bool,
    /// Of the random order.
    pub seed: u64,
    /// Whether every fold gets its share of each kind of row, a kind being a set of entity types.
    pub stratified: bool,
}

impl Fold {
    /// Moves the rows of this fold out of `train`; the order of both parts is that of the file.
    ///
    /// Rows are dealt out to the folds in turn, kind after kind, so that sizes differ by one at most and the rows of each kind too,
    /// however few there are of it.
    ///
    /// # Errors
    /// There are fewer rows than folds, or no such fold.
    pub(super) fn take(&self, train: &mut Vec<Sentence>) -> Result<Vec<Sentence>, Error> {
        if self.n_splits < 2 || self.index >= self.n_splits {
            let problem = format!("found fold {} of {}, expected one of 2 or more, from 0", self.index, self.n_splits);
            return Err(Error::argument("fold", problem));
        }
        if train.len() < self.n_splits {
            let problem = format!("{} sentences cannot be split into {} folds", train.len(), self.n_splits);
            return Err(Error::Split { split: "train", problem });
        }
        let mut order: Vec<usize> = (0..train.len()).collect();
        if self.shuffle {
            order = Stream::new(self.seed, "folds", 0).permutation(train.len());
        }
        if self.stratified {
            let kinds: Vec<BTreeSet<String>> = train.iter().map(kind).collect();
            let mut by_kind: BTreeMap<&BTreeSet<String>, Vec<usize>> = BTreeMap::new();
            for row in order {
                by_kind.entry(&kinds[row]).or_default().push(row);
            }
            order = by_kind.into_values().flatten().collect();
        }
        let mut ours = vec![false; train.len()];
        order.into_iter().skip(self.index).step_by(self.n_splits).for_each(|row| ours[row] = true);
        let (mut kept, mut held) = (Vec::new(), Vec::new());
        for (sentence, ours) in train.drain(..).zip(ours) {
            if ours { held.push(sentence) } else { kept.push(sentence) }
        }
        *train = kept;
        Ok(held)
    }
}

/// The entity types of a row.
fn kind(sentence: &Sentence) -> BTreeSet<String> {
    let types = sentence.tags.iter().filter_map(|tag| match parse_tag(tag)? {
        Tag::Outside => None,
        Tag::Begin(label) | Tag::Inside(label) => Some(label.to_owned()),
    });
    types.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rows(tags: impl IntoIterator<Item = &'static str>) -> Vec<Sentence> {
        let row = |(line, tag): (usize, &str)| Sentence { words: vec!["w".into()], tags: vec![tag.into()], line };
        tags.into_iter().enumerate().map(row).collect()
    }

    fn fold(index: usize) -> Fold {
        Fold { n_splits: 3, index, shuffle: true, seed: 1, stratified: true }
    }

    #[test]
    fn folds_are_disjoint_whole_and_alike() {
        let all = rows((0..40).map(|n| {
            if n % 10 == 3 {
                "B-rare"
            } else if n % 2 == 0 {
                "O"
            } else {
                "B-often"
            }
        }));
        for (shuffle, stratified) in [(true, true), (false, true), (true, false), (false, false)] {
            let mut seen: Vec<usize> = Vec::new();
            for index in 0..3 {
                let one = Fold { shuffle, stratified, ..fold(index) };
                let mut train = all.clone();
                let held = one.take(&mut train).unwrap();
                assert!((13..=14).contains(&held.len()) && held.len() + train.len() == 40);
                assert!(held.iter().all(|row| !train.contains(row)));
                if stratified {
                    let count = |tag: &str| held.iter().filter(|row| row.tags[0] == tag).count();
                    assert!((1..=2).contains(&count("B-rare")) && (5..=6).contains(&count("B-often")), "{held:?}");
                }
                assert!(held.is_sorted_by_key(|row| row.line) && train.is_sorted_by_key(|row| row.line));
                seen.extend(held.iter().map(|row| row.line));
            }
            seen.sort_unstable();
            assert_eq!(seen, (0..40).collect::<Vec<_>>());
        }
        let held = |fold: Fold| fold.take(&mut all.clone()).unwrap();
        assert_eq!(held(fold(1)), held(fold(1)));
        assert_ne!(held(fold(1)), held(Fold { seed: 2, ..fold(1) }));
    }

    #[test]
    fn what_cannot_be_split_is_refused() {
        let error = fold(0).take(&mut rows(["O", "B-x"])).unwrap_err();
        assert!(matches!(&error, Error::Split { problem, .. } if problem.starts_with("2 sentences")), "{error}");
        assert!(matches!(fold(3).take(&mut rows(["O"; 5])), Err(Error::Argument { field: "fold", .. })));
        let one = Fold { n_splits: 1, ..fold(0) };
        assert!(matches!(one.take(&mut rows(["O"; 5])), Err(Error::Argument { field: "fold", .. })));
    }
}
