//! Which rows are held out of training: a share of them or one fold of several, the same for the same rows and settings.
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
    /// Whether every fold gets its share of each kind of row: of those with the same set of entity types, or the same labels.
    pub stratified: bool,
}

/// How rows are chosen.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum HoldOut {
    /// A share of the rows, at least one.
    Share {
        /// Between 0 and 1.
        fraction: f64,
        /// Of the random choice.
        seed: u64,
        /// Whether each kind of row gives its share.
        stratified: bool,
    },
    /// One of several disjoint parts.
    Fold(Fold),
}

impl HoldOut {
    /// Whether the kinds of rows matter.
    pub fn is_stratified(&self) -> bool {
        match self {
            Self::Share { stratified, .. } => *stratified,
            Self::Fold(fold) => fold.stratified,
        }
    }

    /// Tells for each row whether it is held out. `kinds` has a number for each row; kinds are dealt out in the order of their numbers. It
    /// may be empty when the choice is not stratified.
    ///
    /// Rows are taken at equal distances, kind after kind, so that sizes differ by one at most and the rows of each kind too, however few
    /// there are of it.
    ///
    /// # Errors
    /// There are fewer rows than folds, no such fold, or nothing is left.
    pub fn choose(&self, rows: usize, kinds: &[u32]) -> Result<Vec<bool>, Error> {
        match self {
            Self::Share { fraction, seed, stratified } => {
                share(rows, *fraction, self.order(rows, *seed, "validation", kinds), *stratified)
            }
            Self::Fold(fold) => {
                if fold.n_splits < 2 || fold.index >= fold.n_splits {
                    let (index, n_splits) = (fold.index, fold.n_splits);
                    let problem = format!("found fold {index} of {n_splits}, expected one of 2 or more, from 0");
                    return Err(Error::argument("fold", problem));
                }
                if rows < fold.n_splits {
                    let problem = format!("{rows} rows cannot be split into {} folds", fold.n_splits);
                    return Err(Error::Split { split: "train", problem });
                }
                let order = if fold.shuffle {
                    self.order(rows, fold.seed, "folds", kinds)
                } else {
                    self.by_kind((0..rows as u32).collect(), kinds)
                };
                let mut ours = vec![false; rows];
                order.into_iter().skip(fold.index).step_by(fold.n_splits).for_each(|row| ours[row as usize] = true);
                Ok(ours)
            }
        }
    }

    fn order(&self, rows: usize, seed: u64, purpose: &str, kinds: &[u32]) -> Vec<u32> {
        self.by_kind(Stream::new(seed, purpose, 0).order(rows), kinds)
    }

    fn by_kind(&self, mut order: Vec<u32>, kinds: &[u32]) -> Vec<u32> {
        if self.is_stratified() {
            order.sort_by_key(|row| kinds.get(*row as usize));
        }
        order
    }
}

fn share(rows: usize, fraction: f64, order: Vec<u32>, stratified: bool) -> Result<Vec<bool>, Error> {
    if !(fraction > 0.0 && fraction < 1.0) {
        return Err(Error::argument("validation_fraction", format!("found {fraction}, expected above 0 and below 1")));
    }
    let count = ((rows as f64 * fraction).round() as usize).max(1);
    if count >= rows {
        let problem = format!("nothing is left of {rows} rows after holding out {count}");
        return Err(Error::Split { split: "train", problem });
    }
    let mut held = vec![false; rows];
    for (index, row) in order.into_iter().enumerate() {
        // Where kinds follow each other, row i is taken when i * count / rows reaches the next whole number: `count` rows at equal
        // distances.
        held[row as usize] = if stratified { (index + 1) * count / rows > index * count / rows } else { index < count };
    }
    Ok(held)
}

/// Splits rows by [`HoldOut::choose`]: those that stay and those held out, each in their old order.
pub fn partition<T>(rows: Vec<T>, held: &[bool]) -> (Vec<T>, Vec<T>) {
    let (mut kept, mut out) = (Vec::new(), Vec::new());
    for (row, held) in rows.into_iter().zip(held) {
        if *held { out.push(row) } else { kept.push(row) }
    }
    (kept, out)
}

/// Numbers of kinds by their order, one for each row.
pub fn kind_numbers<K: Ord>(kinds: &[K]) -> Vec<u32> {
    let mut unique: Vec<&K> = kinds.iter().collect();
    unique.sort_unstable();
    unique.dedup();
    kinds.iter().map(|kind| unique.binary_search(&kind).unwrap_or(0) as u32).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fold(index: usize) -> Fold {
        Fold { n_splits: 3, index, shuffle: true, seed: 1, stratified: true }
    }

    fn rows_of(held: &[bool]) -> Vec<usize> {
        (0..held.len()).filter(|row| held[*row]).collect()
    }

    /// Every tenth row is rare, the others are of two kinds.
    fn kinds() -> Vec<u32> {
        (0..40).map(|n| if n % 10 == 3 { 2 } else { n % 2 }).collect()
    }

    #[test]
    fn folds_are_disjoint_whole_and_alike() {
        let kinds = kinds();
        for (shuffle, stratified) in [(true, true), (false, true), (true, false), (false, false)] {
            let mut seen: Vec<usize> = Vec::new();
            for index in 0..3 {
                let one = HoldOut::Fold(Fold { shuffle, stratified, ..fold(index) });
                let held = rows_of(&one.choose(40, &kinds).unwrap());
                assert!((13..=14).contains(&held.len()));
                if stratified {
                    let count = |kind| held.iter().filter(|row| kinds[**row] == kind).count();
                    assert!((1..=2).contains(&count(2)) && (5..=6).contains(&count(1)), "{held:?}");
                }
                seen.extend(held);
            }
            seen.sort_unstable();
            assert_eq!(seen, (0..40).collect::<Vec<_>>());
        }
        let held = |fold: Fold| HoldOut::Fold(fold).choose(40, &kinds).unwrap();
        assert_eq!(held(fold(1)), held(fold(1)));
        assert_ne!(held(fold(1)), held(Fold { seed: 2, ..fold(1) }));
    }

    #[test]
    fn a_share_is_seeded_and_takes_from_each_kind() {
        let kinds = kinds();
        let held = |seed, stratified| {
            rows_of(&HoldOut::Share { fraction: 0.25, seed, stratified }.choose(40, &kinds).unwrap())
        };
        for seed in 0..20 {
            assert_eq!(held(seed, false).len(), 10);
            let stratified = held(seed, true);
            let count = |kind| stratified.iter().filter(|row| kinds[**row] == kind).count();
            assert_eq!((stratified.len(), count(2)), (10, 1), "seed {seed}");
            assert!((4..=5).contains(&count(0)) && (4..=5).contains(&count(1)));
        }
        assert_eq!(held(1, true), held(1, true));
        assert_ne!(held(1, true), held(2, true));
    }

    #[test]
    fn what_cannot_be_split_is_refused() {
        let error = HoldOut::Fold(fold(0)).choose(2, &[0, 1]).unwrap_err();
        assert!(matches!(&error, Error::Split { problem, .. } if problem.starts_with("2 rows")), "{error}");
        let five = |fold| HoldOut::Fold(fold).choose(5, &[0; 5]);
        assert!(matches!(five(fold(3)), Err(Error::Argument { field: "fold", .. })));
        assert!(matches!(five(Fold { n_splits: 1, ..fold(0) }), Err(Error::Argument { field: "fold", .. })));
        let share = |rows, fraction| HoldOut::Share { fraction, seed: 1, stratified: false }.choose(rows, &[]);
        assert!(matches!(share(1, 0.5), Err(Error::Split { split: "train", .. })));
        assert!(matches!(share(9, f64::NAN), Err(Error::Argument { field: "validation_fraction", .. })));
    }

    #[test]
    fn kinds_are_numbered_by_their_order() {
        assert_eq!(kind_numbers(&["b", "a", "c", "a"]), [1, 0, 2, 0]);
    }
}
