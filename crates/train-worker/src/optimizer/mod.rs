//! Optimizers over the flat weights: AdamW and Lion in one pass (`fused`), Adafactor by weight (`adafactor`). All clip by the global
//! norm first, as `clip_grad_norm_` does, and decay weights apart from the gradient.
mod adafactor;
mod fused;
mod pass;
#[cfg(test)]
mod tests;

use tch::{Device, Tensor};

use self::{adafactor::Adafactor, fused::Fused};
use crate::{
    Error, Hyper,
    hyper::Optim,
    parameters::{Leaf, Parameters},
};

/// Added to the norm before dividing, as in `clip_grad_norm_`.
const NORM_EPSILON: f64 = 1e-6;

/// Gradients of one step.
#[derive(Default)]
pub(crate) struct Gradients {
    /// One for each leaf; none for a leaf that is not trained, and for the word table when `words` holds its rows.
    pub(crate) leaves: Vec<Option<Tensor>>,
    /// Rows of the word table, ascending, and their gradients [rows, hidden].
    pub(crate) words: Option<(Vec<i64>, Tensor)>,
}

impl Gradients {
    /// Adds those of another batch, in fp32.
    pub(crate) fn add(&mut self, other: Self) -> Result<(), Error> {
        if self.leaves.is_empty() {
            *self = other;
            return Ok(());
        }
        for (sum, term) in self.leaves.iter_mut().zip(other.leaves) {
            if let (Some(sum), Some(term)) = (sum, term) {
                let wide = sum.f_to_kind(tch::Kind::Float)?;
                *sum = tch::no_grad(|| wide.f_add(&term))?;
            }
        }
        if let Some((ids, rows)) = other.words {
            self.words = Some(match self.words.take() {
                None => (ids, rows),
                Some(own) => join_rows(own, (ids, rows))?,
            });
        }
        Ok(())
    }
}

/// Sums rows of the same id.
fn join_rows(a: (Vec<i64>, Tensor), b: (Vec<i64>, Tensor)) -> Result<(Vec<i64>, Tensor), Error> {
    let mut ids: Vec<i64> = a.0.iter().chain(&b.0).copied().collect();
    ids.sort_unstable();
    ids.dedup();
    let device = a.1.device();
    let places = |own: &[i64]| -> Result<Tensor, Error> {
        let at: Vec<i64> = own.iter().map(|id| ids.binary_search(id).map_or(0, |place| place as i64)).collect();
        Ok(Tensor::f_from_slice(&at)?.f_to_device(device)?)
    };
    let hidden = a.1.size().last().copied().unwrap_or(0);
    let sum = Tensor::f_zeros([ids.len() as i64, hidden], (tch::Kind::Float, device))?;
    let sum = tch::no_grad(|| -> Result<Tensor, Error> {
        let sum = sum.f_index_add(0, &places(&a.0)?, &a.1.f_to_kind(tch::Kind::Float)?)?;
        Ok(sum.f_index_add(0, &places(&b.0)?, &b.1.f_to_kind(tch::Kind::Float)?)?)
    })?;
    Ok((ids, sum))
}

/// What an optimizer is told beside the gradient.
#[derive(Debug, Clone)]
pub(crate) struct Settings {
    pub(crate) optim: Optim,
    pub(crate) beta1: f64,
    pub(crate) beta2: f64,
    pub(crate) epsilon: f64,
    pub(crate) weight_decay: f64,
    /// 0 turns clipping off.
    pub(crate) max_norm: f64,
    /// Rate of each leaf over that of the schedule.
    pub(crate) scales: Vec<f64>,
}

impl Settings {
    /// The settings of a run; `scale` gives the rate of a leaf over that of the schedule.
    pub(crate) fn new(hyper: &Hyper, parameters: &Parameters, scale: impl Fn(&Leaf) -> f64) -> Self {
        Self {
            optim: hyper.optim,
            beta1: hyper.adam_beta1,
            beta2: hyper.adam_beta2,
            epsilon: hyper.adam_epsilon,
            weight_decay: hyper.weight_decay,
            max_norm: hyper.max_grad_norm,
            scales: parameters.leaves.iter().map(scale).collect(),
        }
    }
}

/// An optimizer and its state.
pub(crate) enum Optimizer {
    Fused(Fused),
    Adafactor(Adafactor),
}

/// The state of an optimizer, to be kept and taken up again: the same numbers follow.
pub(crate) struct OptimizerState {
    /// Flat f32 tensors by name.
    pub(crate) tensors: Vec<(String, Tensor)>,
    /// Rows of the word table that have had a gradient.
    pub(crate) touched: Vec<i64>,
    /// What the other rows' weights are still to be multiplied by.
    pub(crate) owed: f64,
}

impl Optimizer {
    pub(crate) fn new(parameters: &Parameters, settings: Settings) -> Result<Self, Error> {
        Ok(match settings.optim {
            Optim::AdamW | Optim::Lion => Self::Fused(Fused::new(parameters, settings)?),
            Optim::Adafactor => Self::Adafactor(Adafactor::new(parameters, settings)?),
        })
    }

    /// One step, counted from 1; gives the gradient's norm before clipping. One that is not finite leaves the weights as they are.
    /// None where reading it would stall the device: there the loss of the next step tells.
    pub(crate) fn step(
        &mut self,
        parameters: &mut Parameters,
        gradients: &Gradients,
        rate: f64,
        step: usize,
    ) -> Result<Option<f64>, Error> {
        let norm = match self {
            Self::Fused(fused) => fused.step(parameters, gradients, rate, step),
            Self::Adafactor(adafactor) => adafactor.step(parameters, gradients, rate, step),
        }?;
        refresh_fp16(parameters)?;
        Ok(norm)
    }

    /// Brings weights up to date that were left for later: before they are read by anything but the next step.
    pub(crate) fn settle(&mut self, parameters: &mut Parameters) -> Result<(), Error> {
        match self {
            Self::Fused(fused) => fused.settle(parameters)?,
            Self::Adafactor(_) => {}
        }
        refresh_fp16(parameters)
    }

    /// The state; its tensors share memory with the optimizer.
    pub(crate) fn state(&self) -> OptimizerState {
        match self {
            Self::Fused(fused) => fused.state(),
            Self::Adafactor(adafactor) => adafactor.state(),
        }
    }

    /// Takes up a state. A tensor that is missing or of another size is an error.
    pub(crate) fn resume(&mut self, state: &OptimizerState) -> Result<(), Error> {
        let own = self.state();
        for (name, tensor) in &own.tensors {
            let saved = state.tensors.iter().find(|(other, _)| other == name);
            let Some((_, saved)) = saved.filter(|(_, saved)| saved.numel() == tensor.numel()) else {
                return Err(Error::Internal("a saved state of another optimizer"));
            };
            tch::no_grad(|| tensor.shallow_clone().f_copy_(&saved.f_view_as(tensor)?))?;
        }
        if let Self::Fused(fused) = self {
            fused.resume(state);
        }
        Ok(())
    }
}

/// The factor that brings a norm down to `max_norm`.
fn clip_factor(norm: f64, max_norm: f64) -> f64 {
    if max_norm > 0.0 { (max_norm / (norm + NORM_EPSILON)).min(1.0) } else { 1.0 }
}

/// The gradient of the whole word table as a tensor of the leaf's shape.
fn dense_words(leaf: &Leaf, words: &(Vec<i64>, Tensor)) -> Result<Tensor, Error> {
    let (ids, rows) = words;
    let table = Tensor::f_zeros(leaf.tensor.size(), (tch::Kind::Float, rows.device()))?;
    let places = Tensor::f_from_slice(ids)?.f_to_device(rows.device())?;
    Ok(tch::no_grad(|| table.f_index_copy(0, &places, &rows.f_to_kind(tch::Kind::Float)?))?)
}

/// The passes on the processor write a copy of bf16 along with the weights; one of fp16 is written after them.
fn refresh_fp16(parameters: &mut Parameters) -> Result<(), Error> {
    let is_fp16 = parameters.copy.as_ref().is_some_and(|copy| copy.kind() == tch::Kind::Half);
    if is_fp16 && on_processor(parameters) { parameters.refresh() } else { Ok(()) }
}

fn on_processor(parameters: &Parameters) -> bool {
    parameters.flat.device() == Device::Cpu
}
