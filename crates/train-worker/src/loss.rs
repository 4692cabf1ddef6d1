//! Losses by kind of target, as the heads of `transformers` compute them: cross-entropy for one label of several, binary
//! cross-entropy for any number of labels, squared error for a number; with weights of labels, label smoothing and the focal factor. Of a
//! head with a CRF the negative log-likelihood, which those three exclude.
use std::{collections::BTreeMap, sync::Arc};

use quintet_nlp::{
    align::IGNORED,
    rows::Rows,
    task::{Target, Targets},
};
use tch::{Device, Kind, Reduction, Tensor};

use crate::{
    Error, Hyper,
    crf::{Chains, Crf},
};

/// The least that focal loss takes 1 - probability for.
const DOUBT: f64 = 1e-12;

/// The targets of a batch on the device.
pub(crate) enum Wanted {
    /// Label ids [rows * length]; [`IGNORED`] where the loss looks away.
    Tokens(Tensor),
    /// Label ids of the words of each row, with the scores of the CRF that joins them.
    Chains(Chains),
    /// Label ids [rows].
    Class(Tensor),
    /// 0 and 1, [rows, labels].
    Classes(Tensor),
    /// [rows].
    Value(Tensor),
}

impl Wanted {
    /// Moves targets of `rows` rows to the device; `crf` is that of the model's head.
    pub(crate) fn new(targets: &Targets, rows: usize, crf: Option<&Crf>, device: Device) -> Result<Self, Error> {
        let integers = |values: &[i64]| Tensor::f_from_slice(values)?.f_to_device(device);
        let numbers = |values: &[f32]| Tensor::f_from_slice(values)?.f_to_device(device);
        Ok(match (targets, crf) {
            (Targets::Tokens(labels), Some(crf)) => Self::Chains(Chains::new(crf, labels, rows, device)?),
            (Targets::Tokens(labels), None) => Self::Tokens(integers(labels)?),
            (Targets::Class(labels), _) => Self::Class(integers(labels)?),
            (Targets::Classes(labels), _) => Self::Classes(numbers(labels)?.f_view([rows as i64, -1])?),
            (Targets::Value(values), _) => Self::Value(numbers(values)?),
        })
    }
}

/// A loss: what is summed up, and what the sum is divided by.
#[derive(Debug, Default)]
pub(crate) struct Loss {
    /// Weights by label id, here and on the device; none: all 1.
    weights: Option<(Vec<f32>, Tensor)>,
    smoothing: f64,
    gamma: f64,
}

impl Loss {
    /// The loss of a run; `rows` are the training rows, for balanced weights.
    pub(crate) fn new(hyper: &Hyper, labels: &[String], rows: &Arc<dyn Rows>, device: Device) -> Result<Self, Error> {
        let weights = if hyper.balanced_class_weights {
            Some(balanced(rows.as_ref(), labels.len())?)
        } else if hyper.class_weights.is_empty() {
            None
        } else {
            Some(named(&hyper.class_weights, labels)?)
        };
        let weights = match weights {
            Some(weights) => {
                let tensor = Tensor::f_from_slice(&weights)?.f_to_device(device)?;
                Some((weights, tensor))
            }
            None => None,
        };
        Ok(Self { weights, smoothing: hyper.label_smoothing_factor, gamma: hyper.focal_gamma })
    }

    /// The sum over what counts: tokens with a label, rows, or rows and labels. Logits are [rows, length, labels] for tokens,
    /// [rows, labels] else; computed in fp32.
    pub(crate) fn sum(&self, logits: &Tensor, wanted: &Wanted) -> Result<Tensor, Error> {
        let logits = logits.f_to_kind(Kind::Float)?;
        let labels = logits.size().last().copied().unwrap_or(1);
        let weights = self.weights.as_ref().map(|(_, tensor)| tensor);
        Ok(match wanted {
            Wanted::Tokens(wanted) | Wanted::Class(wanted) => {
                let logits = logits.f_reshape([-1, labels])?;
                if self.gamma > 0.0 {
                    self.focal(&logits, wanted)?
                } else {
                    logits.f_cross_entropy_loss(wanted, weights, Reduction::Sum, IGNORED, self.smoothing)?
                }
            }
            Wanted::Chains(chains) => chains.loss(&logits)?,
            Wanted::Classes(wanted) => {
                let smooth = wanted.f_mul_scalar(1.0 - self.smoothing)?.f_add_scalar(0.5 * self.smoothing)?;
                if self.gamma > 0.0 {
                    let terms = logits.f_binary_cross_entropy_with_logits::<&Tensor>(
                        &smooth,
                        None,
                        weights,
                        Reduction::None,
                    )?;
                    // Probability of what is right, label by label.
                    let right = logits.f_sigmoid()?.f_sub(&wanted.f_neg()?.f_add_scalar(1.0)?)?.f_abs()?;
                    terms.f_mul(&self.focus(&right)?)?.f_sum(Kind::Float)?
                } else {
                    logits.f_binary_cross_entropy_with_logits::<&Tensor>(&smooth, None, weights, Reduction::Sum)?
                }
            }
            Wanted::Value(wanted) => logits.f_reshape([-1])?.f_mse_loss(wanted, Reduction::Sum)?,
        })
    }

    /// Cross-entropy times (1 - probability of the right label) ^ gamma (Lin et al. 2017), of logits [n, labels].
    fn focal(&self, logits: &Tensor, wanted: &Tensor) -> Result<Tensor, Error> {
        let weights = self.weights.as_ref().map(|(_, tensor)| tensor);
        let terms = logits.f_cross_entropy_loss(wanted, weights, Reduction::None, IGNORED, self.smoothing)?;
        // Without weights and smoothing, cross-entropy is minus the logarithm of that probability.
        let surprise = logits.f_cross_entropy_loss::<Tensor>(wanted, None, Reduction::None, IGNORED, 0.0)?;
        Ok(terms.f_mul(&self.focus(&surprise.f_neg()?.f_exp()?)?)?.f_sum(Kind::Float)?)
    }

    /// (1 - probability) ^ gamma. What is certain keeps a trace of doubt: the slope of a power below 1 has no end at 0.
    fn focus(&self, right: &Tensor) -> Result<Tensor, Error> {
        let doubt = right.f_neg()?.f_add_scalar(1.0)?.f_clamp_min(DOUBT)?;
        Ok(doubt.f_pow_tensor_scalar(self.gamma)?)
    }

    /// What a row adds to that by which the sum is divided for the mean: the number of its terms, or the weights of its right labels, as
    /// `cross_entropy` of PyTorch.
    pub(crate) fn terms(&self, target: &Target) -> f64 {
        let weight = |label: &i64| match &self.weights {
            Some((weights, _)) => {
                usize::try_from(*label).ok().and_then(|label| weights.get(label)).map_or(0.0, |w| f64::from(*w))
            }
            None => f64::from(*label != IGNORED),
        };
        match target {
            Target::Tokens(labels) => labels.iter().map(weight).sum(),
            Target::Class(label) => weight(label),
            Target::Classes(labels) => labels.len() as f64,
            Target::Value(_) => 1.0,
        }
    }
}

/// rows / (labels * rows of the label), as scikit-learn's `balanced`; 0 for a label without rows.
fn balanced(rows: &dyn Rows, labels: usize) -> Result<Vec<f32>, Error> {
    let mut counts = vec![0f64; labels];
    let mut add = |label: i64| {
        if let Some(count) = usize::try_from(label).ok().and_then(|label| counts.get_mut(label)) {
            *count += 1.0;
        }
    };
    for row in 0..rows.len() {
        match &rows.get(row)?.target {
            Target::Tokens(row) => row.iter().for_each(|label| add(*label)),
            Target::Class(label) => add(*label),
            Target::Classes(row) => (0..).zip(row).filter(|(_, has)| **has > 0.5).for_each(|(label, _)| add(label)),
            Target::Value(_) => {}
        }
    }
    let total: f64 = counts.iter().sum();
    let known = counts.iter().filter(|count| **count > 0.0).count();
    Ok(counts.iter().map(|count| if *count > 0.0 { (total / (known as f64 * count)) as f32 } else { 0.0 }).collect())
}

fn named(weights: &BTreeMap<String, f64>, labels: &[String]) -> Result<Vec<f32>, Error> {
    if let Some(unknown) = weights.keys().find(|name| !labels.contains(name)) {
        let problem = format!("there is no such label; the training split has {}", labels.join(", "));
        return Err(Error::field(format!("hyperparameters.class_weights.{unknown}"), problem));
    }
    Ok(labels.iter().map(|label| weights.get(label).copied().unwrap_or(1.0) as f32).collect())
}

#[cfg(test)]
mod tests {
    use quintet_nlp::{align::Encoded, data::Sentence, packed::RowWriter, rows::Example};
    use quintet_proto::v1::Hyperparameters;

    use super::*;

    fn labels() -> Vec<String> {
        ["O", "B-x", "I-x"].map(str::to_owned).to_vec()
    }

    fn loss(given: Hyperparameters, targets: &[Target]) -> Result<Loss, Error> {
        let mut rows = RowWriter::new(None, 1 << 20);
        for target in targets {
            let row = Encoded {
                input_ids: vec![0],
                type_ids: vec![0],
                target: target.clone(),
                words: vec![None],
                word_count: 0,
                covered: Vec::new(),
            };
            let sentence = Sentence { words: Vec::new(), tags: Vec::new(), line: 1, text: None };
            rows.push(&Example::Sentence(sentence), [&row])?;
        }
        let rows: Arc<dyn Rows> = Arc::new(rows.finish()?);
        Loss::new(&Hyper::from_proto(&given).unwrap(), &labels(), &rows, Device::Cpu)
    }

    fn logits() -> Tensor {
        Tensor::from_slice(&[0.2f32, -0.3, 1.0, 0.5, 0.1, -0.7]).view([2, 3])
    }

    /// The mean, by its definition in f64.
    fn expected(wanted: [usize; 2], weights: [f64; 3], smoothing: f64, gamma: f64) -> f64 {
        let rows = [[0.2f64, -0.3, 1.0], [0.5, 0.1, -0.7]];
        let (mut sum, mut divisor) = (0.0, 0.0);
        for (row, right) in rows.iter().zip(wanted) {
            let normal = row.iter().map(|x| x.exp()).sum::<f64>().ln();
            let logs: Vec<f64> = row.iter().map(|x| x - normal).collect();
            let smooth: f64 = logs.iter().zip(weights).map(|(log, weight)| -log * weight / 3.0).sum();
            let term = (1.0 - smoothing) * -logs[right] * weights[right] + smoothing * smooth;
            sum += term * (1.0 - logs[right].exp()).powf(gamma);
            divisor += weights[right];
        }
        sum / divisor
    }

    #[test]
    fn weights_smoothing_and_focus_are_those_of_their_definitions() {
        let weights = || [("B-x".to_owned(), 2.0), ("O".to_owned(), 0.5)].into();
        let h = Hyperparameters::default;
        let cases = [
            (h(), [1.0; 3], 0.0, 0.0),
            (Hyperparameters { class_weights: weights(), ..h() }, [0.5, 2.0, 1.0], 0.0, 0.0),
            (Hyperparameters { label_smoothing_factor: Some(0.1), ..h() }, [1.0; 3], 0.1, 0.0),
            (Hyperparameters { focal_gamma: Some(2.0), ..h() }, [1.0; 3], 0.0, 2.0),
            (
                Hyperparameters {
                    focal_gamma: Some(1.5),
                    class_weights: weights(),
                    label_smoothing_factor: Some(0.2),
                    ..h()
                },
                [0.5, 2.0, 1.0],
                0.2,
                1.5,
            ),
        ];
        for (given, weights, smoothing, gamma) in cases {
            let loss = loss(given.clone(), &[]).unwrap();
            for (targets, wanted) in [(Targets::Class(vec![2, 1]), [2, 1]), (Targets::Tokens(vec![0, 1]), [0, 1])] {
                let on_device = Wanted::new(&targets, 2, None, Device::Cpu).unwrap();
                let sum = loss.sum(&logits(), &on_device).unwrap().double_value(&[]);
                let terms = match &targets {
                    Targets::Class(labels) => labels.iter().map(|label| loss.terms(&Target::Class(*label))).sum(),
                    _ => loss.terms(&Target::Tokens(wanted.map(|label| label as i64).to_vec())),
                };
                let mean: f64 = sum / terms;
                let expected = expected(wanted, weights, smoothing, gamma);
                assert!((mean - expected).abs() < 1e-6, "{given:?}: {mean}, expected {expected}");
            }
        }
    }

    #[test]
    fn what_has_no_label_does_not_count() {
        let loss = loss(Hyperparameters { focal_gamma: Some(2.0), ..Default::default() }, &[]).unwrap();
        let sum = |labels: Vec<i64>| {
            let targets = Targets::Tokens(labels.clone());
            let sum = loss.sum(&logits(), &Wanted::new(&targets, 2, None, Device::Cpu).unwrap()).unwrap();
            (sum.double_value(&[]), loss.terms(&Target::Tokens(labels)))
        };
        let (one, count) = sum(vec![1, IGNORED]);
        assert_eq!(count, 1.0);
        assert!(one > 0.0 && one < sum(vec![1, 1]).0);
    }

    #[test]
    fn what_is_certain_has_a_gradient_whatever_the_focus() {
        let loss = loss(Hyperparameters { focal_gamma: Some(0.5), ..Default::default() }, &[]).unwrap();
        let certain = || Tensor::from_slice(&[40f32, 0.0, 1.0]).view([1, 3]).set_requires_grad(true);
        for targets in [Targets::Class(vec![0]), Targets::Classes(vec![1.0, 0.0, 0.0])] {
            let logits = certain();
            let sum = loss.sum(&logits, &Wanted::new(&targets, 1, None, Device::Cpu).unwrap()).unwrap();
            sum.backward();
            let gradient = Vec::<f32>::try_from(logits.grad().view([-1])).unwrap();
            assert!(gradient.iter().all(|value| value.is_finite()), "{targets:?}: {gradient:?}");
        }
    }

    #[test]
    fn several_labels_and_numbers() {
        let plain = loss(Hyperparameters::default(), &[]).unwrap();
        let several = Targets::Classes(vec![1.0, 0.0, 1.0, 0.0, 0.0, 1.0]);
        let wanted = Wanted::new(&several, 2, None, Device::Cpu).unwrap();
        let by_hand: f64 = [(0.2, 1.0), (-0.3, 0.0), (1.0, 1.0), (0.5, 0.0), (0.1, 0.0), (-0.7, 1.0)]
            .iter()
            .map(|(x, y): &(f64, f64)| (1.0 + x.exp()).ln() - x * y)
            .sum();
        assert!((plain.sum(&logits(), &wanted).unwrap().double_value(&[]) - by_hand).abs() < 1e-5);
        assert_eq!(plain.terms(&Target::Classes(vec![1.0, 0.0, 1.0])), 3.0);
        // With a power of 0 the focal factor is 1; a power near it changes little.
        let focal = loss(Hyperparameters { focal_gamma: Some(1e-9), ..Default::default() }, &[]).unwrap();
        assert!((focal.sum(&logits(), &wanted).unwrap().double_value(&[]) - by_hand).abs() < 1e-5);

        let numbers = Targets::Value(vec![1.0, -1.0]);
        let wanted = Wanted::new(&numbers, 2, None, Device::Cpu).unwrap();
        let logits = Tensor::from_slice(&[1.5f32, 0.0]).view([2, 1]);
        assert!((plain.sum(&logits, &wanted).unwrap().double_value(&[]) - 1.25).abs() < 1e-6);
    }

    #[test]
    fn balanced_weights_are_by_rows_and_unknown_labels_are_refused() {
        let rows = [Target::Tokens(vec![0, 0, 0, IGNORED, 1]), Target::Class(0), Target::Class(1)];
        let weighed =
            loss(Hyperparameters { balanced_class_weights: Some(true), ..Default::default() }, &rows).unwrap();
        assert_eq!(weighed.weights.unwrap().0, [0.75, 1.5, 0.0]);
        let unknown = Hyperparameters { class_weights: [("B-y".to_owned(), 2.0)].into(), ..Default::default() };
        match loss(unknown, &[]) {
            Err(Error::Fields(errors)) => {
                assert_eq!(errors.names(), ["hyperparameters.class_weights.B-y"]);
                assert!(errors.to_string().contains("O, B-x, I-x"));
            }
            other => panic!("{other:?}"),
        }
    }
}
