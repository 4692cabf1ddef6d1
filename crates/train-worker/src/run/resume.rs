//! Keeping and taking up the state of a run.
use std::path::Path;

use quintet_nlp::checkpoint::Checkpoint;

use super::{Run, report_epoch};
use crate::{
    Error, Observer, TrainRequest,
    state::{self, Saver, Tensors},
};

impl Run<'_> {
    /// Takes up the newest state of this run.
    pub(super) fn resume(&mut self, dir: &Path, observer: &mut dyn Observer) -> Result<(), Error> {
        let count = self.parameters.changing()?.numel();
        let optimizer = &mut self.optimizer;
        let accept = |_: &_, tensors: &Tensors| {
            let others = [&tensors.average, &tensors.best].into_iter().flatten();
            if std::iter::once(&tensors.weights).chain(others).any(|tensor| tensor.numel() != count) {
                return Err(Error::Internal("a saved state of another model"));
            }
            optimizer.resume(&tensors.optimizer)
        };
        let found = state::load(dir, &self.position.fingerprint, accept, |line| observer.log(line));
        let Some((position, tensors)) = found else { return Ok(()) };
        self.parameters.set(&tensors.weights)?;
        let to_device = |tensor: tch::Tensor| tensor.f_to_device(self.device);
        self.average = tensors.average.map(to_device).transpose()?;
        self.best = match tensors.best {
            Some(best) => Some(best.f_to_device(self.device)?),
            None if self.request.hyper.load_best_model => position.best.map(|_| self.parameters.copy()).transpose()?,
            None => None,
        };
        observer.log(&format!("resuming after epoch {}, step {}", position.epochs.len(), position.steps));
        for epoch in &position.epochs {
            report_epoch(epoch, observer);
        }
        self.position = position;
        Ok(())
    }

    /// Begins to write the present state. One that could not be written is a line in the log: training goes on, and the state before it
    /// is still there.
    pub(super) fn save(&mut self, saver: &mut Saver, observer: &mut dyn Observer) {
        let between_epochs = self.position.steps_of_epoch == 0;
        let present_is_best =
            between_epochs && self.average.is_none() && self.position.best == Some(self.position.epochs.len());
        let optimizer = self.optimizer.state();
        self.position.owed = optimizer.owed;
        let weights = match self.parameters.changing() {
            Ok(weights) => weights,
            Err(error) => return observer.log(&format!("a state was not kept: {error}")),
        };
        let tensors = Tensors {
            weights,
            optimizer,
            average: self.average.as_ref().map(tch::Tensor::shallow_clone),
            best: self.best.as_ref().filter(|_| !present_is_best).map(tch::Tensor::shallow_clone),
        };
        if let Err(error) = saver.save(&self.position, &tensors) {
            observer.log(&format!("a state was not kept: {error}"));
        }
    }
}

/// Identifies a run by everything that its result depends on.
pub(super) fn fingerprint(request: &TrainRequest, checkpoint: &Checkpoint) -> Result<String, Error> {
    let parts = [checkpoint.digest()?, format!("{:?}", request.hyper), request.sources.digest()?];
    Ok(parts.join("\n"))
}
