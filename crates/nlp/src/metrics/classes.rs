//! Classes of words or texts: the confusion matrix, and precision, recall and F1 averaged as scikit-learn does.
use serde::{Deserialize, Serialize};

use crate::seqeval::{Counts, Scores, average, ratio};

/// How often each class was taken for each other.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Confusion {
    /// Names of the classes.
    pub labels: Vec<String>,
    /// Items by gold class (outer) and predicted class (inner), both in the order of `labels`.
    pub counts: Vec<Vec<usize>>,
}

/// Scores of one class.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ClassScores {
    /// The class.
    pub label: String,
    /// Its scores.
    #[serde(flatten)]
    pub scores: Scores,
}

/// Scores of several classes, as scikit-learn's `classification_report` has them (0 where nothing was there to divide by).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ClassReport {
    /// A row for each class found in gold labels or predictions, in the order of the labels.
    pub classes: Vec<ClassScores>,
    /// All items of these classes pooled.
    pub micro: Scores,
    /// Mean over the rows.
    pub macro_average: Scores,
    /// Mean over the rows weighted by support.
    pub weighted_average: Scores,
}

impl Confusion {
    /// An empty matrix.
    pub fn new(labels: Vec<String>) -> Self {
        let counts = vec![vec![0; labels.len()]; labels.len()];
        Self { labels, counts }
    }

    /// Counts a pair of names in a matrix whose classes are those found, sorted: a new name becomes a class.
    pub fn add_named(&mut self, gold: &str, predicted: &str) {
        self.class(gold);
        let predicted = self.class(predicted);
        // Looked up again: the other name may have come before it.
        let gold = self.class(gold);
        self.add(gold, predicted);
    }

    fn class(&mut self, name: &str) -> usize {
        self.labels.binary_search_by(|label| label.as_str().cmp(name)).unwrap_or_else(|place| {
            self.labels.insert(place, name.to_owned());
            self.counts.iter_mut().for_each(|row| row.insert(place, 0));
            self.counts.insert(place, vec![0; self.labels.len()]);
            place
        })
    }

    /// Counts one item; classes that do not exist are left out.
    pub fn add(&mut self, gold: usize, predicted: usize) {
        if let Some(cell) = self.counts.get_mut(gold).and_then(|row| row.get_mut(predicted)) {
            *cell += 1;
        }
    }

    /// Items of all classes.
    pub fn total(&self) -> usize {
        self.counts.iter().flatten().sum()
    }

    /// Share of the items on the diagonal.
    pub fn accuracy(&self) -> f64 {
        ratio((0..self.labels.len()).map(|class| self.counts[class][class]).sum(), self.total())
    }

    fn class_counts(&self, class: usize) -> Counts {
        Counts {
            right: self.counts[class][class],
            predicted: self.counts.iter().map(|row| row[class]).sum(),
            gold: self.counts[class].iter().sum(),
        }
    }

    /// Scores of the classes that `keep` names, those that occur nowhere left out.
    pub fn report(&self, keep: impl Fn(&str) -> bool) -> ClassReport {
        let kept = (0..self.labels.len()).filter(|class| keep(&self.labels[*class]));
        let counted = kept.map(|class| (self.labels[class].clone(), self.class_counts(class)));
        ClassReport::of(counted.filter(|(_, counts)| counts.predicted + counts.gold > 0))
    }

    /// Mean F1 over the classes that have gold items: the `macro-f1` of the system before this one, and scikit-learn's macro F1
    /// with `labels` set to those of the gold side.
    pub fn macro_f1_of_gold(&self) -> f64 {
        let rows = self.report(|_| true).classes;
        average(rows.iter().map(|row| &row.scores).filter(|scores| scores.support > 0), |_| 1.0).f1
    }

    /// Mean recall over the classes that have gold items (scikit-learn's `balanced_accuracy_score`).
    pub fn balanced_accuracy(&self) -> f64 {
        let rows = self.report(|_| true).classes;
        average(rows.iter().map(|row| &row.scores).filter(|scores| scores.support > 0), |_| 1.0).recall
    }

    /// Matthews' correlation coefficient for several classes (Gorodkin 2004); 0 when one side has a single class.
    pub fn matthews_correlation(&self) -> f64 {
        let total = self.total() as f64;
        let (mut right, mut crossed, mut gold_squares, mut predicted_squares) = (0.0, 0.0, 0.0, 0.0);
        for class in 0..self.labels.len() {
            let counts = self.class_counts(class);
            let (gold, predicted) = (counts.gold as f64, counts.predicted as f64);
            right += counts.right as f64;
            crossed += gold * predicted;
            gold_squares += gold * gold;
            predicted_squares += predicted * predicted;
        }
        let square = (total * total - gold_squares) * (total * total - predicted_squares);
        if square > 0.0 { (right * total - crossed) / square.sqrt() } else { 0.0 }
    }
}

impl ClassReport {
    /// The report of named counts.
    pub(crate) fn of(counted: impl Iterator<Item = (String, Counts)>) -> Self {
        let (mut classes, mut all) = (Vec::new(), Vec::new());
        for (label, counts) in counted {
            classes.push(ClassScores { label, scores: counts.scores() });
            all.push(counts);
        }
        let rows = || classes.iter().map(|row| &row.scores);
        Self {
            micro: all.into_iter().sum::<Counts>().scores(),
            macro_average: average(rows(), |_| 1.0),
            weighted_average: average(rows(), |scores| scores.support as f64),
            classes,
        }
    }
}
