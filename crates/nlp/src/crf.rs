//! A linear-chain conditional random field (Lafferty et al. 2001) over the words of a row: the best sequence of labels (Viterbi 1967), and the
//! probability of each label of each word (the forward-backward algorithm).
//!
//! The logits of a word are its emissions; the tensors and their names are those of the Python package `pytorch-crf`.
use serde::{Deserialize, Serialize};

use crate::{Error, checkpoint::Checkpoint};

/// Tensor [labels, labels]: the score of a label (row) before another (column).
pub const TRANSITIONS: &str = "crf.transitions";
/// Tensor [labels]: the score of a label on the first word.
pub const START_TRANSITIONS: &str = "crf.start_transitions";
/// Tensor [labels]: the score of a label on the last word.
pub const END_TRANSITIONS: &str = "crf.end_transitions";

/// Scores of labels by their neighbours.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "Rows", into = "Rows")]
pub struct Crf {
    /// [from, to], row-major.
    transitions: Vec<f32>,
    start: Vec<f32>,
    end: Vec<f32>,
}

/// A [`Crf`] as JSON: the tensors by the names that they have in `pytorch-crf`, the matrix as a list of its rows.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Rows {
    transitions: Vec<Vec<f32>>,
    start_transitions: Vec<f32>,
    end_transitions: Vec<f32>,
}

impl TryFrom<Rows> for Crf {
    type Error = Error;

    fn try_from(rows: Rows) -> Result<Self, Error> {
        let labels = rows.start_transitions.len();
        if let Some(row) = rows.transitions.iter().find(|row| row.len() != labels) {
            let problem = format!("a row has {} scores, expected one for each of {labels} labels", row.len());
            return Err(Error::argument(TRANSITIONS, problem));
        }
        Self::new(rows.transitions.concat(), rows.start_transitions, rows.end_transitions)
    }
}

impl From<Crf> for Rows {
    fn from(crf: Crf) -> Self {
        let rows = crf.transitions.chunks(crf.labels().max(1));
        Self {
            transitions: rows.map(<[f32]>::to_vec).collect(),
            start_transitions: crf.start,
            end_transitions: crf.end,
        }
    }
}

impl Crf {
    /// The scores of transitions [from, to], of starts and of ends.
    ///
    /// # Errors
    /// The sizes do not fit together, or a score is not finite; names the tensor.
    pub fn new(transitions: Vec<f32>, start: Vec<f32>, end: Vec<f32>) -> Result<Self, Error> {
        let labels = start.len();
        for (tensor, scores, expected) in [
            (TRANSITIONS, &transitions, labels * labels),
            (START_TRANSITIONS, &start, labels),
            (END_TRANSITIONS, &end, labels),
        ] {
            if labels == 0 || scores.len() != expected {
                let problem = format!("found {} scores, expected {expected} of {labels} labels", scores.len());
                return Err(Error::argument(tensor, problem));
            }
            if let Some(score) = scores.iter().find(|score| !score.is_finite()) {
                return Err(Error::argument(tensor, format!("found {score}, expected finite scores")));
            }
        }
        Ok(Self { transitions, start, end })
    }

    /// That of a checkpoint whose head has one.
    ///
    /// # Errors
    /// Those of [`Weights::f32`](crate::checkpoint::Weights::f32) and of [`Crf::new`].
    pub fn of(checkpoint: &Checkpoint) -> Result<Option<Self>, Error> {
        if !checkpoint.config.has_crf() {
            return Ok(None);
        }
        let labels = checkpoint.config.labels.len();
        let scores = |name: &str, shape: &[usize]| checkpoint.weights.f32(name, shape);
        let transitions = scores(TRANSITIONS, &[labels, labels])?;
        Self::new(transitions, scores(START_TRANSITIONS, &[labels])?, scores(END_TRANSITIONS, &[labels])?).map(Some)
    }

    /// Labels.
    pub fn labels(&self) -> usize {
        self.start.len()
    }

    /// The scores of the label after each label.
    fn after(&self) -> impl Iterator<Item = &[f32]> + Clone {
        self.transitions.chunks_exact(self.labels())
    }

    /// The label of each word in the best sequence of all, given the words' `emissions` [words, labels]; the smaller id of equals.
    pub fn decode(&self, emissions: &[f32]) -> Vec<usize> {
        let labels = self.labels();
        let mut words = emissions.chunks_exact(labels);
        let Some(first) = words.next() else { return Vec::new() };
        let mut scores: Vec<f64> = add(&self.start, first).collect();
        let mut before: Vec<Vec<usize>> = Vec::new();
        for word in words {
            let mut best = vec![(f64::NEG_INFINITY, 0); labels];
            for (from, (score, next)) in scores.iter().zip(self.after()).enumerate() {
                for (best, transition) in best.iter_mut().zip(next) {
                    let through = score + f64::from(*transition);
                    if through > best.0 {
                        *best = (through, from);
                    }
                }
            }
            scores = best.iter().zip(word).map(|((score, _), emission)| score + f64::from(*emission)).collect();
            before.push(best.into_iter().map(|(_, from)| from).collect());
        }
        let ends = scores.iter().zip(&self.end).map(|(score, end)| score + f64::from(*end));
        let last = ends.enumerate().fold(
            (f64::NEG_INFINITY, 0),
            |best, (label, score)| {
                if score > best.0 { (score, label) } else { best }
            },
        );
        let mut chosen = vec![last.1];
        for from in before.iter().rev() {
            chosen.extend(chosen.last().and_then(|label| from.get(*label)).copied());
        }
        chosen.reverse();
        chosen
    }

    /// The probability of each label of each word, over all sequences, given the words' `emissions`; both [words, labels].
    pub fn marginals(&self, emissions: &[f32]) -> Vec<f32> {
        let labels = self.labels();
        let words: Vec<&[f32]> = emissions.chunks_exact(labels).collect();
        let (Some(first), Some(last)) = (words.first(), words.last()) else { return Vec::new() };
        // What leads to each label, its own emission included.
        let mut forward: Vec<Vec<f64>> = vec![add(&self.start, first).collect()];
        for word in words.iter().skip(1) {
            let scores = forward.last().map(Vec::as_slice).unwrap_or_default();
            let into = |to: usize| {
                let column = self.after().map(|next| f64::from(next[to]));
                log_sum_exp(scores.iter().zip(column).map(|(score, transition)| score + transition))
            };
            let reached = word.iter().enumerate().map(|(to, emission)| into(to) + f64::from(*emission)).collect();
            forward.push(reached);
        }
        // What follows each label, its own emission included.
        let mut backward: Vec<Vec<f64>> = vec![add(&self.end, last).collect()];
        for word in words.iter().rev().skip(1) {
            let scores = backward.last().map(Vec::as_slice).unwrap_or_default();
            let out_of = |next: &[f32]| log_sum_exp(add(next, scores));
            let left = self.after().zip(*word).map(|(next, emission)| out_of(next) + f64::from(*emission)).collect();
            backward.push(left);
        }
        let mut shares = Vec::with_capacity(emissions.len());
        for ((word, forward), backward) in words.iter().zip(&forward).zip(backward.iter().rev()) {
            // The emission is in both.
            let scores = || forward.iter().zip(backward).zip(*word).map(|((a, b), own)| a + b - f64::from(*own));
            let all = log_sum_exp(scores());
            shares.extend(scores().map(|score| (score - all).exp() as f32));
        }
        shares
    }
}

/// Sums side by side.
fn add<T: Copy + Into<f64>>(scores: &[f32], others: &[T]) -> impl Iterator<Item = f64> + Clone {
    scores.iter().zip(others).map(|(score, other)| f64::from(*score) + (*other).into())
}

/// The logarithm of the sum of exponentials.
fn log_sum_exp(scores: impl Iterator<Item = f64> + Clone) -> f64 {
    let largest = scores.clone().fold(f64::NEG_INFINITY, f64::max);
    largest + scores.map(|score| (score - largest).exp()).sum::<f64>().ln()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::Value;

    use super::*;

    /// Made by `tests/peers/crf_golden.py` with pytorch-crf 0.7.2.
    const GOLDEN: &str = include_str!("../testdata/crf.json");

    /// The score of a sequence by its definition.
    fn score(crf: &Crf, emissions: &[f32], sequence: &[usize]) -> f64 {
        let n = crf.labels();
        let mut score = f64::from(crf.start[sequence[0]]) + f64::from(crf.end[sequence[sequence.len() - 1]]);
        score += sequence.iter().enumerate().map(|(word, label)| f64::from(emissions[word * n + label])).sum::<f64>();
        score + sequence.windows(2).map(|pair| f64::from(crf.transitions[pair[0] * n + pair[1]])).sum::<f64>()
    }

    /// Every sequence of so many words.
    fn sequences(labels: usize, words: usize) -> Vec<Vec<usize>> {
        (0..labels.pow(words as u32))
            .map(|number| (0..words).map(|word| number / labels.pow(word as u32) % labels).collect())
            .collect()
    }

    fn chains() -> impl Strategy<Value = (Crf, Vec<f32>)> {
        (1usize..5, 1usize..6).prop_flat_map(|(labels, words)| {
            let scores = |count| prop::collection::vec(-6f32..6.0, count);
            (scores(labels * labels), scores(labels), scores(labels), scores(labels * words)).prop_map(
                |(transitions, start, end, emissions)| (Crf::new(transitions, start, end).unwrap(), emissions),
            )
        })
    }

    proptest! {
        #[test]
        fn small_chains_are_as_by_brute_force((crf, emissions) in chains()) {
            let labels = crf.labels();
            let words = emissions.len() / labels;
            let all: Vec<(Vec<usize>, f64)> =
                sequences(labels, words).into_iter().map(|s| { let x = score(&crf, &emissions, &s); (s, x) }).collect();
            let best = all.iter().map(|(_, score)| *score).fold(f64::NEG_INFINITY, f64::max);
            let decoded = crf.decode(&emissions);
            prop_assert_eq!(decoded.len(), words);
            prop_assert!((score(&crf, &emissions, &decoded) - best).abs() < 1e-9);

            let total: f64 = all.iter().map(|(_, score)| (score - best).exp()).sum();
            let shares = crf.marginals(&emissions);
            for (place, share) in shares.iter().enumerate() {
                let (word, label) = (place / labels, place % labels);
                let through = all.iter().filter(|(sequence, _)| sequence[word] == label);
                let expected = through.map(|(_, score)| (score - best).exp()).sum::<f64>() / total;
                prop_assert!((f64::from(*share) - expected).abs() < 1e-6, "{} instead of {}", share, expected);
            }
        }

        #[test]
        fn without_scores_of_neighbours_each_word_stands_alone(emissions in prop::collection::vec(-9f32..9.0, 12)) {
            let crf = Crf::new(vec![0.0; 9], vec![0.0; 3], vec![0.0; 3]).unwrap();
            let words = || emissions.chunks(3);
            let alone: Vec<usize> = words().map(crate::evaluation::argmax).collect();
            prop_assert_eq!(crf.decode(&emissions), alone);
            let shares: Vec<f32> = words().flat_map(crate::predict::softmax).collect();
            for (share, alone) in crf.marginals(&emissions).iter().zip(shares) {
                prop_assert!((share - alone).abs() < 1e-6);
            }
        }

        #[test]
        fn json_keeps_every_bit((crf, _) in chains()) {
            let json = serde_json::to_string(&crf).unwrap();
            prop_assert_eq!(serde_json::from_str::<Crf>(&json).unwrap(), crf);
        }
    }

    fn floats(value: &Value) -> Vec<f32> {
        let numbers = |list: &Vec<Value>| list.iter().flat_map(floats).collect();
        value.as_array().map_or_else(|| vec![value.as_f64().unwrap() as f32], numbers)
    }

    #[test]
    fn sequences_and_probabilities_equal_pytorch_crf() {
        let golden: Value = serde_json::from_str(GOLDEN).unwrap();
        assert_eq!(golden["pytorch-crf"], "0.7.2");
        let mut words = 0;
        for case in golden["cases"].as_array().unwrap() {
            let crf: Crf = serde_json::from_value(case["crf"].clone()).unwrap();
            for chain in case["chains"].as_array().unwrap() {
                let emissions = floats(&chain["emissions"]);
                let tags: Vec<usize> = serde_json::from_value(chain["tags"].clone()).unwrap();
                assert_eq!(crf.decode(&emissions), tags);
                for (ours, theirs) in crf.marginals(&emissions).iter().zip(floats(&chain["marginals"])) {
                    assert!((ours - theirs).abs() < 1e-6, "{ours} instead of {theirs}");
                }
                words += tags.len();
            }
        }
        assert!(words > 500, "{words}");
    }

    #[test]
    fn long_chains_and_far_scores_stay_finite() {
        let crf = Crf::new(vec![80.0, -90.0, -90.0, 80.0], vec![0.0, -1e4], vec![0.0; 2]).unwrap();
        let emissions: Vec<f32> = (0..2 * 3000).map(|place| if place % 7 == 0 { 300.0 } else { -200.0 }).collect();
        let shares = crf.marginals(&emissions);
        for word in shares.chunks(2) {
            assert!((word[0] + word[1] - 1.0).abs() < 1e-6, "{word:?}");
        }
        assert_eq!(crf.decode(&emissions).len(), 3000);
        assert!(crf.decode(&[]).is_empty() && crf.marginals(&[]).is_empty());
        // Logits that are no numbers give a sequence all the same.
        assert_eq!(crf.decode(&[f32::NAN; 6]), [0; 3]);
    }

    #[test]
    fn scores_that_do_not_fit_are_refused() {
        let tensor = |crf: Result<Crf, Error>| match crf {
            Err(Error::Argument { field, .. }) => field,
            other => panic!("{other:?}"),
        };
        assert_eq!(tensor(Crf::new(vec![0.0; 3], vec![0.0; 2], vec![0.0; 2])), TRANSITIONS);
        assert_eq!(tensor(Crf::new(vec![0.0; 4], vec![0.0, f32::NAN], vec![0.0; 2])), START_TRANSITIONS);
        assert_eq!(tensor(Crf::new(vec![0.0; 4], vec![0.0; 2], vec![0.0; 3])), END_TRANSITIONS);
        assert!(Crf::new(Vec::new(), Vec::new(), Vec::new()).is_err());
        let json = r#"{"transitions": [[0, 1], [2]], "start_transitions": [0, 0], "end_transitions": [0, 0]}"#;
        assert!(serde_json::from_str::<Crf>(json).unwrap_err().to_string().contains("a row has 1 scores"));
    }
}
