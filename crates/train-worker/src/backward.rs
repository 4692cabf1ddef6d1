//! Loss and gradients of a batch.
use quintet_nlp::batch::Batch;
use tch::{Device, Kind, Tensor};

use crate::{
    Error,
    loss::Wanted,
    model::Model,
    optimizer::Gradients,
    parameters::{Leaf, Parameters},
    recompute,
};

/// How a batch goes through the model.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Pass {
    /// With dropout.
    pub(crate) train: bool,
    /// Compute each layer again in the backward pass, instead of keeping what it computed.
    pub(crate) recompute: bool,
}

impl Parameters {
    /// Loss, as `loss` computes it of the logits, and the gradients of the leaves that are trained. On the processor the word table's
    /// gradient comes by the rows that the batch uses: a dense one is nearly all zeros.
    pub(crate) fn gradients(
        &self,
        model: &Model,
        batch: &Batch,
        pass: Pass,
        loss: impl FnOnce(&Tensor, &Wanted) -> Result<Tensor, Error>,
    ) -> Result<(Tensor, Gradients), Error> {
        let trains_words = self.leaves.first().is_some_and(|leaf| leaf.tensor.requires_grad());
        let (input, words) = if self.flat.device() == Device::Cpu && trains_words {
            let (input, words) = model.input_with_rows(batch)?;
            (input, Some(words))
        } else {
            (model.input(batch)?, None)
        };
        let by_rows = words.iter().map(|words| &words.tensor);
        let leaves: Vec<&Tensor> = by_rows.chain(self.trained().skip(usize::from(words.is_some()))).collect();
        let (loss, found) = if pass.recompute {
            let lowest = self.lowest_trained();
            recompute::backward(model, &input, words.as_ref(), pass.train, lowest, &leaves, loss)?
        } else {
            let loss = loss(&model.logits(&input, words.as_ref(), pass.train)?, &input.wanted)?;
            let found = Tensor::f_run_backward(&[&loss], &leaves, false, false)?;
            (loss, found)
        };
        let mut found = found.into_iter();
        let words = match words {
            Some(words) => {
                let rows = found.next().ok_or(Error::Internal("no gradient of the word table"))?;
                Some((words.ids, rows))
            }
            None => None,
        };
        Ok((loss, Gradients { leaves: self.by_leaf(found, words.is_some()), words }))
    }

    fn trained(&self) -> impl Iterator<Item = &Tensor> {
        self.leaves.iter().map(|leaf| &leaf.tensor).filter(|tensor| tensor.requires_grad())
    }

    /// Depth of the lowest leaf that is trained.
    fn lowest_trained(&self) -> usize {
        let trained = self.leaves.iter().filter(|leaf| leaf.tensor.requires_grad());
        trained.map(|leaf| leaf.depth).min().unwrap_or(0)
    }

    /// Gradients by leaf, `found` those of the trained ones; the word table's is left out when it comes `apart`.
    fn by_leaf(&self, found: impl IntoIterator<Item = Tensor>, apart: bool) -> Vec<Option<Tensor>> {
        let mut found = found.into_iter();
        let has_one = |(index, leaf): (usize, &Leaf)| leaf.tensor.requires_grad() && !(apart && index == 0);
        self.leaves.iter().enumerate().map(|leaf| has_one(leaf).then(|| found.next()).flatten()).collect()
    }
}

impl Gradients {
    /// The same on another device, or as they are when they are there already.
    pub(crate) fn to_device(&self, device: Device) -> Result<Self, Error> {
        let moved = |gradient: &Option<Tensor>| gradient.as_ref().map(|one| one.f_to_device(device)).transpose();
        let leaves = self.leaves.iter().map(moved).collect::<Result<_, _>>()?;
        let words = match &self.words {
            Some((ids, rows)) => Some((ids.clone(), rows.f_to_device(device)?)),
            None => None,
        };
        Ok(Self { leaves, words })
    }

    /// Divides all by the scale of the loss, in fp32; gives whether all are finite.
    pub(crate) fn unscale(&mut self, scale: f64) -> Result<bool, Error> {
        let words = self.words.as_mut().map(|(_, rows)| rows);
        let mut all: Vec<&mut Tensor> = self.leaves.iter_mut().flatten().chain(words).collect();
        let Some(device) = all.first().map(|gradient| gradient.device()) else { return Ok(true) };
        let inverse = Tensor::f_full([1], scale.recip(), (Kind::Float, device))?;
        let mut overflowed = Tensor::f_zeros([1], (Kind::Float, device))?;
        tch::no_grad(|| -> Result<(), Error> {
            for gradient in &mut all {
                let mut wide = Tensor::f_empty(gradient.size(), (Kind::Float, device))?;
                wide.f_copy_(gradient)?;
                **gradient = wide;
                gradient.f_internal_amp_non_finite_check_and_unscale(&mut overflowed, &inverse)?;
            }
            Ok(())
        })?;
        Ok(overflowed.f_double_value(&[0])? == 0.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gradients_are_unscaled_in_fp32_and_an_overflow_is_found() {
        let half = |values: &[f32]| Tensor::from_slice(values).to_kind(Kind::Half);
        let rows = half(&[1.0, 65504.0]).view([1, 2]);
        let mut gradients = Gradients {
            leaves: vec![None, Some(half(&[3.0, -0.5])), Some(Tensor::from_slice(&[1e6f32]))],
            words: Some((vec![7], rows)),
        };
        assert!(gradients.unscale(65536.0).unwrap());
        let scaled = gradients.leaves[1].as_ref().unwrap();
        assert_eq!((scaled.kind(), scaled.double_value(&[0])), (Kind::Float, 3.0 / 65536.0));
        assert_eq!(gradients.words.as_ref().unwrap().1.double_value(&[0, 1]), 65504.0 / 65536.0);
        for wrong in [f32::INFINITY, f32::NAN, 1e6] {
            // 1e6 is beyond the range of fp16.
            gradients.words = Some((vec![7], half(&[1.0, wrong]).view([1, 2])));
            assert!(!gradients.unscale(2.0).unwrap(), "{wrong}");
        }
    }
}
