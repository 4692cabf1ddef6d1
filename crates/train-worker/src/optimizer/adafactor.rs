//! Adafactor (Shazeer and Stern 2018): second moments of a matrix, or of each of a stack, kept as the means of its rows and columns, updates clipped by their
//! root mean square; with a given rate and without momentum, as the Trainer of `transformers` sets it up.
use tch::{Kind, Tensor};

use super::{Gradients, OptimizerState, Settings, clip_factor, dense_words};
use crate::{
    Error,
    parameters::{Parameters, Slot},
};

/// Added to squared gradients.
const EPSILON: f64 = 1e-30;
/// Root mean square that an update is clipped to.
const CLIP: f64 = 1.0;
/// Exponent of the decay of second moments by step.
const DECAY: f64 = -0.8;

/// Second moments of a weight.
enum Second {
    /// Means over the columns [..., rows] and over the rows [..., columns].
    Factored {
        rows: Tensor,
        columns: Tensor,
    },
    Full(Tensor),
}

/// The optimizer and its state, by the weights of the checkpoint: a joined leaf holds several.
pub(crate) struct Adafactor {
    settings: Settings,
    second: Vec<Second>,
    /// Leaf of each weight.
    leaf: Vec<usize>,
    slots: Vec<Slot>,
}

impl Adafactor {
    pub(super) fn new(parameters: &Parameters, settings: Settings) -> Result<Self, Error> {
        let options = (Kind::Float, parameters.flat.device());
        // What is frozen has no moments.
        let trained = |leaf: usize| parameters.leaves.get(leaf).is_some_and(|leaf| leaf.tensor.requires_grad());
        let weights = parameters.weights().into_iter().filter(|(leaf, _)| trained(*leaf));
        let (leaf, slots): (Vec<usize>, Vec<Slot>) = weights.unzip();
        let mut second = Vec::with_capacity(slots.len());
        for slot in &slots {
            let shape: Vec<i64> = slot.shape.iter().map(|size| *size as i64).collect();
            let zeros = |shape: &[i64]| Tensor::f_zeros(shape, options);
            second.push(match shape.as_slice() {
                [stack @ .., rows, columns] => Second::Factored {
                    rows: zeros(&[stack, &[*rows]].concat())?,
                    columns: zeros(&[stack, &[*columns]].concat())?,
                },
                shape => Second::Full(zeros(shape)?),
            });
        }
        Ok(Self { settings, second, leaf, slots })
    }

    pub(super) fn step(
        &mut self,
        parameters: &mut Parameters,
        gradients: &Gradients,
        rate: f64,
        step: usize,
    ) -> Result<Option<f64>, Error> {
        let dense: Vec<Option<Tensor>> = parameters
            .leaves
            .iter()
            .zip(&gradients.leaves)
            .enumerate()
            .map(|(index, (leaf, gradient))| match (gradient, &gradients.words) {
                (Some(gradient), _) => Ok(Some(gradient.f_to_kind(Kind::Float)?.f_reshape([-1])?)),
                (None, Some(words)) if index == 0 => Ok(Some(dense_words(leaf, words)?.f_reshape([-1])?)),
                (None, _) => Ok(None),
            })
            .collect::<Result<_, Error>>()?;
        let mut squares = 0.0;
        for gradient in dense.iter().flatten() {
            squares += gradient.f_square()?.f_sum(Kind::Double)?.f_double_value(&[])?;
        }
        let norm = squares.sqrt();
        if !norm.is_finite() {
            return Ok(Some(norm));
        }
        let clip = clip_factor(norm, self.settings.max_norm);
        let beta = 1.0 - (step as f64).powf(DECAY);
        tch::no_grad(|| -> Result<(), Error> {
            for ((slot, leaf), second) in self.slots.iter().zip(&self.leaf).zip(&mut self.second) {
                let Some(gradient) = dense.get(*leaf).and_then(Option::as_ref) else { continue };
                let Some(owner) = parameters.leaves.get(*leaf) else { continue };
                let shape: Vec<i64> = slot.shape.iter().map(|size| *size as i64).collect();
                let count: i64 = shape.iter().product();
                let start = (slot.offset - owner.offset) as i64;
                let gradient = gradient.f_narrow(0, start, count)?.f_view(shape.as_slice())?.f_mul_scalar(clip)?;
                let update = second.update(&gradient, beta)?;
                let size = update.f_square()?.f_mean(Kind::Float)?.f_sqrt()?;
                let rate = rate * self.settings.scales.get(*leaf).copied().unwrap_or(1.0);
                let update = update.f_div(&size.f_div_scalar(CLIP)?.f_clamp_min(1.0)?)?.f_mul_scalar(rate)?;
                let mut weights = parameters.flat.f_narrow(0, slot.offset as i64, count)?;
                if owner.decays && self.settings.weight_decay > 0.0 {
                    let _ = weights.f_mul_scalar_(1.0 - rate * self.settings.weight_decay)?;
                }
                let _ = weights.f_sub_(&update.f_reshape([-1])?)?;
            }
            Ok(())
        })?;
        parameters.refresh()?;
        Ok(Some(norm))
    }

    pub(super) fn state(&self) -> OptimizerState {
        let mut tensors = Vec::new();
        for (slot, second) in self.slots.iter().zip(&self.second) {
            match second {
                Second::Factored { rows, columns } => {
                    tensors.push((format!("second_moment.rows.{}", slot.file_name), rows.shallow_clone()));
                    tensors.push((format!("second_moment.columns.{}", slot.file_name), columns.shallow_clone()));
                }
                Second::Full(full) => tensors.push((format!("second_moment.{}", slot.file_name), full.shallow_clone())),
            }
        }
        OptimizerState { tensors, touched: Vec::new(), owed: 1.0 }
    }
}

impl Second {
    /// Takes a gradient in and gives it divided by the root of the second moments.
    fn update(&mut self, gradient: &Tensor, beta: f64) -> Result<Tensor, Error> {
        let square = gradient.f_square()?.f_add_scalar(EPSILON)?;
        let dims = |dim: i64| [dim];
        Ok(match self {
            Self::Factored { rows, columns } => {
                let _ = rows.f_mul_scalar_(beta)?;
                let fresh = square.f_mean_dim(dims(-1).as_slice(), false, Kind::Float)?;
                let _ = rows.f_add_(&fresh.f_mul_scalar(1.0 - beta)?)?;
                let _ = columns.f_mul_scalar_(beta)?;
                let fresh = square.f_mean_dim(dims(-2).as_slice(), false, Kind::Float)?;
                let _ = columns.f_add_(&fresh.f_mul_scalar(1.0 - beta)?)?;
                let row_factor = rows
                    .f_div(&rows.f_mean_dim(dims(-1).as_slice(), true, Kind::Float)?)?
                    .f_rsqrt()?
                    .f_unsqueeze(-1)?;
                gradient.f_mul(&row_factor)?.f_mul(&columns.f_rsqrt()?.f_unsqueeze(-2)?)?
            }
            Self::Full(full) => {
                let _ = full.f_mul_scalar_(beta)?;
                let _ = full.f_add_(&square.f_mul_scalar(1.0 - beta)?)?;
                gradient.f_mul(&full.f_rsqrt()?)?
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use tch::Device;

    use super::*;

    #[test]
    fn a_stack_is_as_its_matrices() {
        let zeros = |shape: &[i64]| Tensor::zeros(shape, (Kind::Float, Device::Cpu));
        let factored = |stack: &[i64]| Second::Factored {
            rows: zeros(&[stack, &[3]].concat()),
            columns: zeros(&[stack, &[4]].concat()),
        };
        let (mut whole, mut parts) = (factored(&[2]), [factored(&[]), factored(&[])]);
        for step in 1..3 {
            let gradient =
                (Tensor::arange(24, (Kind::Float, Device::Cpu)) * 0.7 + f64::from(step)).sin().view([2, 3, 4]);
            let update = whole.update(&gradient, 0.5).unwrap();
            for (index, part) in (0..).zip(&mut parts) {
                let expected = part.update(&gradient.get(index), 0.5).unwrap();
                let off = f64::try_from((update.get(index) - expected).abs().max()).unwrap();
                assert!(off < 1e-6, "step {step}, matrix {index}: {off}");
            }
        }
    }
}
