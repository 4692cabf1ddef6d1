//! From the logits of a row's sub-tokens to the labels of its words: each by itself, or along the chain of a CRF.
use crate::{
    align::{Encoded, IGNORED},
    crf::Crf,
    evaluation::argmax,
    predict::softmax,
    task::Target,
};

/// How a head of tagged words is read. A CRF goes over the sub-tokens that carry a word's label, and says nothing of the others.
#[derive(Debug, Clone, PartialEq)]
pub enum Decoder {
    /// The largest logit of each of so many labels, probabilities by softmax.
    Each(usize),
    /// The best sequence, probabilities over all sequences.
    Chain(Crf),
}

impl Decoder {
    /// With a CRF, or without one, of so many labels.
    pub fn new(crf: Option<Crf>, labels: usize) -> Self {
        crf.map_or(Self::Each(labels.max(1)), Self::Chain)
    }

    /// Labels.
    pub fn labels(&self) -> usize {
        match self {
            Self::Each(labels) => *labels,
            Self::Chain(crf) => crf.labels(),
        }
    }

    /// Label ids of a row's sub-tokens, from their logits [length or more, labels]; those that carry no word's label are 0 with a CRF.
    pub fn decode(&self, row: &Encoded, logits: &[f32]) -> Vec<usize> {
        match self {
            Self::Each(labels) => logits.chunks_exact(*labels).take(row.length()).map(argmax).collect(),
            Self::Chain(crf) => {
                let (places, emissions) = emissions(crf, row, logits);
                let mut chosen = vec![0; row.length()];
                places.into_iter().zip(crf.decode(&emissions)).for_each(|(place, label)| chosen[place] = label);
                chosen
            }
        }
    }

    /// Probabilities [length, labels] of a row's sub-tokens, from their logits; those that carry no word's label are 0 with a CRF.
    pub fn probabilities(&self, row: &Encoded, logits: &[f32]) -> Vec<f32> {
        match self {
            Self::Each(labels) => logits.chunks_exact(*labels).take(row.length()).flat_map(softmax).collect(),
            Self::Chain(crf) => {
                let labels = crf.labels();
                let (places, emissions) = emissions(crf, row, logits);
                let mut shares = vec![0.0; row.length() * labels];
                for (place, word) in places.into_iter().zip(crf.marginals(&emissions).chunks_exact(labels)) {
                    shares[place * labels..(place + 1) * labels].copy_from_slice(word);
                }
                shares
            }
        }
    }
}

/// The sub-tokens of a row that carry a word's label, and their logits.
fn emissions(crf: &Crf, row: &Encoded, logits: &[f32]) -> (Vec<usize>, Vec<f32>) {
    let Target::Tokens(targets) = &row.target else { return (Vec::new(), Vec::new()) };
    let cells = targets.iter().zip(logits.chunks_exact(crf.labels())).enumerate();
    let (places, words): (Vec<usize>, Vec<&[f32]>) =
        cells.filter(|(_, (target, _))| **target != IGNORED).map(|(place, (_, word))| (place, word)).unzip();
    (places, words.concat())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::windows::word_labels;

    fn row() -> Encoded {
        Encoded {
            input_ids: vec![2, 5, 6, 7, 3],
            type_ids: vec![0; 5],
            target: Target::Tokens(vec![IGNORED, 1, IGNORED, 0, IGNORED]),
            words: vec![None, Some(0), Some(0), Some(1), None],
            word_count: 3,
            covered: Vec::new(),
        }
    }

    /// The first word leans to label 0, the second to label 1; sub-tokens between them and padding behind lean elsewhere.
    const LOGITS: [f32; 12] = [9.0, -9.0, 1.0, 0.0, -9.0, 9.0, 0.0, 0.5, 9.0, -9.0, -3.0, 3.0];

    #[test]
    fn each_sub_token_by_itself() {
        let decoder = Decoder::new(None, 2);
        let chosen = decoder.decode(&row(), &LOGITS);
        assert_eq!(chosen, [0, 0, 1, 1, 0]);
        let names = ["B-x", "I-x", "O"].map(str::to_owned);
        assert_eq!(word_labels([(&row(), chosen.as_slice())], &names), [0, 1, 2]);
        let shares = decoder.probabilities(&row(), &LOGITS);
        assert_eq!(shares.len(), 10);
        assert!((shares[2] - 0.731_058_6).abs() < 1e-6, "{shares:?}");
    }

    #[test]
    fn a_chain_goes_over_the_words_alone() {
        // Label 0 is never followed by 1.
        let crf = Crf::new(vec![0.0, -20.0, 0.0, 0.0], vec![0.0; 2], vec![0.0; 2]).unwrap();
        let decoder = Decoder::new(Some(crf.clone()), 2);
        assert_eq!((decoder.labels(), &decoder), (2, &Decoder::Chain(crf)));
        // 0 0: 1 + 0; 1 1: 0 + 0.5; 1 0: 0.
        assert_eq!(decoder.decode(&row(), &LOGITS), [0; 5]);
        let shares = decoder.probabilities(&row(), &LOGITS);
        let all = 1f32.exp() + 0.5f32.exp() + 1.0;
        let expected = [0.0, 0.0, 1f32.exp() / all, 0.0, 0.0, 0.0, 0.0, 0.5f32.exp() / all, 0.0, 0.0];
        for (place, expected) in [(2, expected[2]), (3, 1.0 - expected[2]), (6, 1.0 - expected[7]), (7, expected[7])] {
            assert!((shares[place] - expected).abs() < 1e-6, "{place}: {shares:?}");
        }
        assert!([0, 1, 4, 5, 8, 9].iter().all(|place| shares[*place] == 0.0), "{shares:?}");
        // A window without a word of its own.
        let empty = Encoded { target: Target::Tokens(vec![IGNORED; 5]), ..row() };
        assert_eq!(
            (decoder.decode(&empty, &LOGITS), decoder.probabilities(&empty, &LOGITS)),
            (vec![0; 5], vec![0.0; 10])
        );
    }
}
