//! A moving average of the weights, which is evaluated and kept in their place when it is asked for.
use tch::Tensor;

use super::Run;
use crate::Error;

impl Run<'_> {
    /// Takes the weights of the step just done into the average.
    pub(super) fn take_into_average(&mut self) -> Result<(), Error> {
        let decay = self.request.hyper.ema_decay;
        if decay == 0.0 {
            return Ok(());
        }
        self.optimizer.settle(&mut self.parameters)?;
        match &mut self.average {
            // The operation changes its receiver; the tensor it gives back is the same one.
            Some(average) => {
                let weights = self.parameters.changing()?;
                tch::no_grad(|| average.f_lerp_(&weights, 1.0 - decay)).map(|_| ())?;
            }
            None => self.average = Some(self.parameters.copy()?),
        }
        Ok(())
    }

    /// Puts the average in the place of the weights; gives the weights to be put back.
    pub(super) fn use_average(&mut self) -> Result<Option<Tensor>, Error> {
        let Some(average) = &self.average else { return Ok(None) };
        let own = self.parameters.copy()?;
        let average = average.shallow_clone();
        self.parameters.set(&average)?;
        Ok(Some(own))
    }
}
