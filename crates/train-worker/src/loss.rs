//! Losses by kind of target, as the heads of `transformers` compute them: cross-entropy for one label of several, binary
//! cross-entropy for any number of labels, squared error for a number.
use quintet_nlp::{align::IGNORED, task::Targets};
use tch::{Device, Reduction, Tensor};

use crate::Error;

/// The targets of a batch on the device.
pub(crate) enum Wanted {
    /// Label ids [rows * length]; [`IGNORED`] where the loss looks away.
    Tokens(Tensor),
    /// Label ids [rows].
    Class(Tensor),
    /// 0 and 1, [rows, labels].
    Classes(Tensor),
    /// [rows].
    Value(Tensor),
}

impl Wanted {
    /// Moves targets of `rows` rows to the device.
    pub(crate) fn new(targets: &Targets, rows: usize, device: Device) -> Result<Self, Error> {
        let integers = |values: &[i64]| Tensor::f_from_slice(values)?.f_to_device(device);
        let numbers = |values: &[f32]| Tensor::f_from_slice(values)?.f_to_device(device);
        Ok(match targets {
            Targets::Tokens(labels) => Self::Tokens(integers(labels)?),
            Targets::Class(labels) => Self::Class(integers(labels)?),
            Targets::Classes(labels) => Self::Classes(numbers(labels)?.f_view([rows as i64, -1])?),
            Targets::Value(values) => Self::Value(numbers(values)?),
        })
    }

    /// The loss of logits [rows, length, labels] for tokens, [rows, labels] else: the mean or the sum over what counts (tokens with
    /// a label, rows, or rows and labels).
    pub(crate) fn loss(&self, logits: &Tensor, reduction: Reduction) -> Result<Tensor, Error> {
        let labels = logits.size().last().copied().unwrap_or(1);
        Ok(match self {
            Self::Tokens(wanted) | Self::Class(wanted) => {
                let logits = logits.f_reshape([-1, labels])?;
                logits.f_cross_entropy_loss::<Tensor>(wanted, None, reduction, IGNORED, 0.0)?
            }
            Self::Classes(wanted) => {
                logits.f_binary_cross_entropy_with_logits::<Tensor>(wanted, None, None, reduction)?
            }
            Self::Value(wanted) => logits.f_reshape([-1])?.f_mse_loss(wanted, reduction)?,
        })
    }
}
