//! The model on further devices (data parallel training): each computes a share of a step's pieces on a thread of its own. Gradients are
//! summed up on the first device, piece by piece and device by device, where the optimizer changes the weights; the others get copies.
use tch::{Device, Kind, Tensor};

use super::steps::Piece;
use crate::{Error, backward::Pass, device, loss::Loss, model::Model, optimizer::Gradients, parameters::Parameters};

/// The model on a device beside the first.
pub(super) struct Replica {
    device: Device,
    parameters: Parameters,
    model: Model,
    loss: Loss,
}

/// The model on one device.
pub(super) struct Worker<'a> {
    pub(super) parameters: &'a Parameters,
    pub(super) model: &'a Model,
    pub(super) loss: &'a Loss,
    pub(super) common: &'a Common,
}

/// What the pieces of a step have in common.
#[derive(Debug, Clone, Copy)]
pub(super) struct Common {
    pub(super) pass: Pass,
    pub(super) pad_token_id: usize,
    /// What the loss is multiplied by before gradients are taken.
    pub(super) scale: f64,
}

/// Loss and gradients of some pieces; none of no piece.
type Found = Option<(Tensor, Gradients)>;

impl Worker<'_> {
    /// Loss, without the scale, and gradients, with it, of pieces one after the other.
    fn compute<'p>(&self, pieces: impl IntoIterator<Item = &'p Piece<'p>>) -> Result<Found, Error> {
        let Common { pass, pad_token_id, scale } = *self.common;
        let mut sum: Found = None;
        for piece in pieces {
            self.model.seed_dropout(piece.seed);
            let padded = quintet_nlp::batch::pad(piece.rows, 0, pad_token_id);
            let (loss, gradients) = self.parameters.gradients(self.model, &padded, pass, |logits, wanted| {
                Ok(self.loss.sum(logits, wanted)?.f_div_scalar(piece.divisor / scale)?)
            })?;
            add(&mut sum, (loss.f_detach()?.f_div_scalar(scale)?, gradients))?;
        }
        Ok(sum)
    }
}

fn add(sum: &mut Found, (loss, gradients): (Tensor, Gradients)) -> Result<(), Error> {
    match sum {
        None => *sum = Some((loss, gradients)),
        Some((total, all)) => {
            *total = total.f_add(&loss)?;
            all.add(gradients)?;
        }
    }
    Ok(())
}

impl Replica {
    /// The same weights on another device as those that `parameters` were loaded from; they are brought up to date before each step.
    pub(super) fn new(device: Device, mut parameters: Parameters, model: Model, loss: Loss) -> Result<Self, Error> {
        if parameters.copy.is_some() {
            // Only the copy is computed with. A tensor that is not in it keeps what it needs of these.
            parameters.flat = Tensor::f_empty([0], (Kind::Float, device))?;
        }
        Ok(Self { device, parameters, model, loss })
    }

    pub(super) fn device(&self) -> Device {
        self.device
    }

    /// Takes over the weights of the first device.
    fn take_over(&mut self, first: &Parameters) -> Result<(), Error> {
        let leaves = self.parameters.leaves.iter_mut().zip(&first.leaves);
        tch::no_grad(|| {
            for (own, first) in leaves.filter(|(own, _)| own.tensor.requires_grad()) {
                own.tensor.f_copy_(&first.tensor)?;
            }
            Ok(())
        })
    }

    fn compute(&mut self, common: &Common, pieces: &[&Piece<'_>]) -> Result<Found, Error> {
        device::enter(self.device)?;
        let Self { parameters, model, loss, .. } = &*self;
        Worker { parameters, model, loss, common }.compute(pieces.iter().copied())
    }
}

/// Loss and gradients of all pieces, on the first device. `shares` says which pieces each device has, the first device first.
pub(super) fn compute(
    first: &Worker<'_>,
    replicas: &mut [Replica],
    pieces: &[Piece<'_>],
    shares: &[Vec<usize>],
) -> Result<(Tensor, Gradients), Error> {
    for replica in replicas.iter_mut() {
        replica.take_over(first.parameters)?;
    }
    let mut shares = shares.iter().map(|share| share.iter().filter_map(|piece| pieces.get(*piece)).collect::<Vec<_>>());
    let own = shares.next().unwrap_or_default();
    let common = first.common;
    let found = std::thread::scope(|scope| {
        let started = replicas.iter_mut().zip(shares);
        let others: Vec<_> =
            started.map(|(replica, share)| scope.spawn(move || replica.compute(common, &share))).collect();
        let mut found = vec![first.compute(own)];
        for thread in others {
            found.push(thread.join().unwrap_or(Err(Error::Internal("a thread of the training died"))));
        }
        found
    });
    let mut sum = None;
    let target = first.parameters.flat.device();
    for found in found {
        if let Some((loss, gradients)) = found? {
            add(&mut sum, (loss.f_to_device(target)?, gradients.to_device(target)?))?;
        }
    }
    sum.ok_or(Error::Internal("a step without a batch"))
}
