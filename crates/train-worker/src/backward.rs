//! Loss and gradients of a batch.
use quintet_nlp::batch::Batch;
use tch::{Device, Tensor};

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
