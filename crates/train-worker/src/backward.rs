//! Loss and gradients of a batch.
use quintet_nlp::batch::Batch;
use tch::{Device, Tensor};

use crate::{
    Error,
    loss::Wanted,
    model::Model,
    optimizer::Gradients,
    parameters::{Leaf, Parameters},
};

impl Parameters {
    /// Loss, as `loss` computes it of the logits, and the gradients of the leaves that are trained; with dropout in
    /// `train`ing. On the processor the word table's
    /// gradient comes by the rows that the batch uses: a dense one is nearly all zeros.
    pub(crate) fn gradients(
        &self,
        model: &Model,
        batch: &Batch,
        train: bool,
        loss: impl FnOnce(&Tensor, &Wanted) -> Result<Tensor, Error>,
    ) -> Result<(Tensor, Gradients), Error> {
        let trains_words = self.leaves.first().is_some_and(|leaf| leaf.tensor.requires_grad());
        if self.flat.device() == Device::Cpu && trains_words {
            let (input, words) = model.input_with_rows(batch)?;
            let loss = loss(&model.logits(&input, Some(&words), train)?, &input.wanted)?;
            let leaves: Vec<&Tensor> = std::iter::once(&words.tensor).chain(self.trained().skip(1)).collect();
            let mut found = Tensor::f_run_backward(&[&loss], &leaves, false, false)?.into_iter();
            let rows = found.next().ok_or(Error::Internal("no gradient of the word table"))?;
            Ok((loss, Gradients { leaves: self.by_leaf(found, true), words: Some((words.ids, rows)) }))
        } else {
            let input = model.input(batch)?;
            let loss = loss(&model.logits(&input, None, train)?, &input.wanted)?;
            let leaves: Vec<&Tensor> = self.trained().collect();
            let found = Tensor::f_run_backward(&[&loss], &leaves, false, false)?;
            Ok((loss, Gradients { leaves: self.by_leaf(found, false), words: None }))
        }
    }

    fn trained(&self) -> impl Iterator<Item = &Tensor> {
        self.leaves.iter().map(|leaf| &leaf.tensor).filter(|tensor| tensor.requires_grad())
    }

    /// Gradients by leaf, `found` those of the trained ones; the word table's is left out when it comes `apart`.
    fn by_leaf(&self, found: impl IntoIterator<Item = Tensor>, apart: bool) -> Vec<Option<Tensor>> {
        let mut found = found.into_iter();
        let has_one = |(index, leaf): (usize, &Leaf)| leaf.tensor.requires_grad() && !(apart && index == 0);
        self.leaves.iter().enumerate().map(|leaf| has_one(leaf).then(|| found.next()).flatten()).collect()
    }
}
