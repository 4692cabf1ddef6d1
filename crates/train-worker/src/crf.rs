//! The loss of a linear-chain CRF (Lafferty et al. 2001): the negative log-likelihood of the labels of words, each row a chain of its own. The
//! sum over all sequences goes word by word, over all chains at once and under autograd; decoding is that of `quintet_nlp::crf`.
use quintet_nlp::{align::IGNORED, crf};
use tch::{Device, Kind, Tensor};

use crate::{Error, parameters::elements};

/// Scores of labels by their neighbours: leaves of the model.
pub(crate) struct Crf {
    /// [from, to].
    pub(crate) transitions: Tensor,
    /// [labels], of the first word.
    pub(crate) start: Tensor,
    /// [labels], of the last word.
    pub(crate) end: Tensor,
}

impl Crf {
    /// The same leaves.
    pub(crate) fn shallow_clone(&self) -> Self {
        let Self { transitions, start, end } = self;
        Self { transitions: transitions.shallow_clone(), start: start.shallow_clone(), end: end.shallow_clone() }
    }

    /// The present scores, to decode with.
    pub(crate) fn values(&self) -> Result<crf::Crf, Error> {
        Ok(crf::Crf::new(elements(&self.transitions)?, elements(&self.start)?, elements(&self.end)?)?)
    }
}

/// The chains of a batch: the labelled sub-tokens of each row that has any.
pub(crate) struct Chains {
    crf: Crf,
    /// Places of words in [rows * length]: the first words of all chains, then the second ones, and so on; longer chains come first.
    places: Tensor,
    /// Label ids of those words, [words, 1].
    tags: Tensor,
    /// Chains that have a first word, a second one, and so on; falling.
    alive: Vec<i64>,
    /// How often labels follow one another [from, to], and stand first and last [labels].
    pairs: Tensor,
    firsts: Tensor,
    lasts: Tensor,
}

impl Chains {
    /// The chains in label ids [rows * length], [`IGNORED`] where there is no word's label.
    pub(crate) fn new(crf: &Crf, targets: &[i64], rows: usize, device: Device) -> Result<Self, Error> {
        let labels = crf.start.numel();
        let length = (targets.len() / rows.max(1)).max(1);
        let words = |(row, targets): (usize, &[i64])| -> Vec<(i64, i64)> {
            let placed = targets.iter().enumerate().map(|(at, tag)| ((row * length + at) as i64, *tag));
            placed.filter(|(_, tag)| *tag != IGNORED).collect()
        };
        let mut chains: Vec<Vec<(i64, i64)>> = targets.chunks(length).enumerate().map(words).collect();
        chains.retain(|chain| !chain.is_empty());
        chains.sort_by_key(|chain| std::cmp::Reverse(chain.len()));
        let longest = chains.first().map_or(0, Vec::len);
        let (mut places, mut tags, mut alive) = (Vec::new(), Vec::new(), Vec::with_capacity(longest));
        for word in 0..longest {
            let found = chains.iter().map_while(|chain| chain.get(word));
            let before = places.len();
            found.for_each(|(place, tag)| {
                places.push(*place);
                tags.push(*tag);
            });
            alive.push((places.len() - before) as i64);
        }
        let known = |tag: i64| usize::try_from(tag).ok().filter(|tag| *tag < labels);
        let (mut pairs, mut firsts, mut lasts) = (vec![0f32; labels * labels], vec![0f32; labels], vec![0f32; labels]);
        for chain in &chains {
            let ids = chain.iter().map(|(_, tag)| known(*tag).ok_or(Error::Internal("a label that the CRF lacks")));
            let ids = ids.collect::<Result<Vec<_>, _>>()?;
            ids.windows(2).for_each(|pair| pairs[pair[0] * labels + pair[1]] += 1.0);
            ids.first().iter().for_each(|id| firsts[**id] += 1.0);
            ids.last().iter().for_each(|id| lasts[**id] += 1.0);
        }
        let numbers = |values: &[f32]| Tensor::f_from_slice(values)?.f_to_device(device);
        let ids = |values: &[i64]| Tensor::f_from_slice(values)?.f_to_device(device);
        Ok(Self {
            crf: crf.shallow_clone(),
            places: ids(&places)?,
            tags: ids(&tags)?.f_unsqueeze(-1)?,
            alive,
            pairs: numbers(&pairs)?.f_view_as(&crf.transitions)?,
            firsts: numbers(&firsts)?,
            lasts: numbers(&lasts)?,
        })
    }

    /// The sum over the chains of their labels' negative log-likelihood, of logits [rows, length, labels] in 32 bits.
    pub(crate) fn loss(&self, logits: &Tensor) -> Result<Tensor, Error> {
        let Crf { transitions, start, end } = &self.crf;
        if self.alive.is_empty() {
            // Not without a gradient: it is 0.
            return Ok(logits.f_sum(Kind::Float)?.f_mul_scalar(0.0)?);
        }
        let words = logits.f_reshape([-1, start.numel() as i64])?.f_index_select(0, &self.places)?;
        let mut steps = words.f_split_with_sizes(self.alive.as_slice(), 0)?.into_iter();
        // For each chain and label the logarithm of the weight of all sequences that end in it.
        let mut reached = steps.next().ok_or(Error::Internal("chains without a word"))?.f_add(start)?;
        let mut ended = Vec::new();
        for step in steps {
            let (chains, before) = (step.size()[0], reached.size()[0]);
            if chains < before {
                ended.push(reached.f_narrow(0, chains, before - chains)?);
                reached = reached.f_narrow(0, 0, chains)?;
            }
            reached =
                reached.f_unsqueeze(-1)?.f_add(transitions)?.f_logsumexp([1i64].as_slice(), false)?.f_add(&step)?;
        }
        ended.push(reached);
        let all = Tensor::f_cat(&ended, 0)?.f_add(end)?.f_logsumexp([1i64].as_slice(), false)?.f_sum(Kind::Float)?;
        let mut right = words.f_gather(1, &self.tags, false)?.f_sum(Kind::Float)?;
        for (scores, counts) in [(transitions, &self.pairs), (start, &self.firsts), (end, &self.lasts)] {
            right = right.f_add(&scores.f_mul(counts)?.f_sum(Kind::Float)?)?;
        }
        Ok(all.f_sub(&right)?)
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use quintet_nlp::{
        checkpoint::{self, Checkpoint},
        decoder::Decoder,
    };

    use super::*;
    use crate::{
        model::Model,
        optimizer::Optimizer,
        parameters::Parameters,
        probe::{Steps, backward, read_batch},
    };

    const LABELS: usize = 3;

    fn crf() -> Crf {
        let leaf = |values: &[f32]| Tensor::from_slice(values).set_requires_grad(true);
        Crf {
            transitions: leaf(&[0.3, -1.0, 0.5, 2.0, 0.1, -0.4, 0.0, 0.7, -2.0]).view([3, 3]),
            start: leaf(&[0.5, -0.5, 1.0]),
            end: leaf(&[-1.0, 0.2, 0.4]),
        }
    }

    fn logits(rows: i64, length: i64) -> Tensor {
        (Tensor::arange(rows * length * 3, (Kind::Float, Device::Cpu)) * 0.7).sin().view([rows, length, 3])
    }

    /// By its definition, of one chain at a time.
    fn by_definition(crf: &crf::Crf, chain: &[(Vec<f32>, usize)], scores: [&[f32]; 3]) -> f64 {
        let n = crf.labels();
        let [transitions, start, end] = scores.map(|scores| scores.iter().map(|x| f64::from(*x)).collect::<Vec<_>>());
        let total = |sequence: &[usize]| {
            let mut sum = start[sequence[0]] + end[sequence[sequence.len() - 1]];
            sum += sequence.iter().zip(chain).map(|(label, (word, _))| f64::from(word[*label])).sum::<f64>();
            sum + sequence.windows(2).map(|pair| transitions[pair[0] * n + pair[1]]).sum::<f64>()
        };
        let count = n.pow(chain.len() as u32);
        let sequence =
            |number: usize| -> Vec<usize> { (0..chain.len()).map(|at| number / n.pow(at as u32) % n).collect() };
        let all: f64 = (0..count).map(|number| total(&sequence(number)).exp()).sum();
        all.ln() - total(&chain.iter().map(|(_, tag)| *tag).collect::<Vec<_>>())
    }

    #[test]
    fn chains_of_any_length_count_as_by_definition() {
        let crf = crf();
        let i = IGNORED;
        // Rows of three words, none, one, and four; labels at any place.
        let targets = [i, 1, i, 0, 2, i, i, i, i, i, i, i, i, i, 2, i, i, i, 0, 0, 1, i, 2, i];
        let logits = logits(4, 6);
        let found = Chains::new(&crf, &targets, 4, Device::Cpu).unwrap().loss(&logits).unwrap().double_value(&[]);
        let (values, cells) = (crf.values().unwrap(), elements(&logits).unwrap());
        let scores = [&crf.transitions, &crf.start, &crf.end].map(|tensor| elements(tensor).unwrap());
        let words = targets.iter().zip(cells.chunks(LABELS)).collect::<Vec<_>>();
        let expected: f64 = words
            .chunks(6)
            .map(|row| {
                row.iter().filter(|(tag, _)| **tag != i).map(|(tag, word)| (word.to_vec(), **tag as usize)).collect()
            })
            .filter(|chain: &Vec<_>| !chain.is_empty())
            .map(|chain| by_definition(&values, &chain, scores.each_ref().map(Vec::as_slice)))
            .sum();
        assert!((found - expected).abs() < 1e-5, "{found} instead of {expected}");
    }

    #[test]
    fn gradients_are_expected_minus_seen() {
        let crf = crf();
        let logits = logits(1, 4).set_requires_grad(true);
        let loss = Chains::new(&crf, &[IGNORED, 2, 0, 1], 1, Device::Cpu).unwrap().loss(&logits).unwrap();
        let found = Tensor::run_backward(&[&loss], &[&logits, &crf.start, &crf.end, &crf.transitions], false, false);
        let shares = crf.values().unwrap().marginals(&elements(&logits).unwrap()[LABELS..]);
        let mut expected = vec![0f32; LABELS];
        expected.extend(shares);
        for (word, tag) in [(1, 2), (2, 0), (3, 1)] {
            expected[word * LABELS + tag] -= 1.0;
        }
        let close = |found: &Tensor, expected: &[f32]| {
            let found = elements(found).unwrap();
            assert!(found.iter().zip(expected).all(|(a, b)| (a - b).abs() < 1e-6), "{found:?} instead of {expected:?}");
        };
        close(&found[0], &expected);
        close(&found[1], &expected[LABELS..2 * LABELS]);
        close(&found[2], &expected[3 * LABELS..]);
        // Two pairs are seen, and as many expected.
        assert!(elements(&found[3]).unwrap().iter().sum::<f32>().abs() < 1e-6);
    }

    #[test]
    fn a_batch_without_words_has_no_loss() {
        let crf = crf();
        let logits = logits(2, 2).set_requires_grad(true);
        let loss = Chains::new(&crf, &[IGNORED; 4], 2, Device::Cpu).unwrap().loss(&logits).unwrap();
        assert_eq!(loss.double_value(&[]), 0.0);
        let found = Tensor::run_backward(&[&loss], &[&logits], false, false);
        assert!(elements(&found[0]).unwrap().iter().all(|gradient| *gradient == 0.0));
        assert!(Chains::new(&crf, &[3], 1, Device::Cpu).is_err());
    }

    #[test]
    fn scores_are_exact_beside_a_model_in_fewer_bits() {
        tch::set_num_threads(1);
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("testdata/bert-crf");
        let checkpoint = Checkpoint::open(&folder).unwrap();
        let config = checkpoint.config.clone();
        let batch = read_batch(&folder.join("golden.safetensors"), config.task).unwrap();
        let mut parameters = Parameters::load(&checkpoint, &config, 1, Device::Cpu, Kind::BFloat16).unwrap();
        let model = Model::new(&parameters, &config, Device::Cpu).unwrap();
        let scores = || match model.decoder(5).unwrap() {
            Decoder::Chain(crf) => crf,
            Decoder::Each(_) => panic!("no CRF"),
        };
        let before = scores();
        assert_eq!(Some(&before), crf::Crf::of(&checkpoint).unwrap().as_ref());
        let (logits, loss, gradients) = backward(&model, &parameters, &batch).unwrap();
        assert_eq!((logits.kind(), loss.kind()), (Kind::BFloat16, Kind::Float));
        let golden = checkpoint::Weights::open_file(&folder.join("golden.safetensors")).unwrap();
        let expected = f64::from(golden.f32("loss", &[1]).unwrap()[0]);
        assert!((loss.double_value(&[]) / expected - 1.0).abs() < 0.02, "{loss:?} instead of {expected}");
        let kinds = parameters.leaves.iter().zip(&gradients.leaves).filter_map(|(leaf, gradient)| {
            let name = leaf.names.first().filter(|name| name.starts_with("crf."))?;
            Some((name.as_str(), leaf.tensor.kind(), gradient.as_ref()?.kind()))
        });
        let float = |name| (name, Kind::Float, Kind::Float);
        let expected = [crf::START_TRANSITIONS, crf::END_TRANSITIONS, crf::TRANSITIONS].map(float);
        assert_eq!(kinds.collect::<Vec<_>>(), expected);
        // What a step changes is what is decoded with.
        let steps = Steps { count: 1, learning_rate: 1e-4, weight_decay: 0.0, max_grad_norm: 0.0 };
        let mut optimizer = Optimizer::new(&parameters, steps.settings(&parameters).unwrap()).unwrap();
        optimizer.step(&mut parameters, &gradients, steps.learning_rate, 1).unwrap();
        let after = scores();
        assert_ne!(after, before);
    }
}
