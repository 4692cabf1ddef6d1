//! Running out of memory, as libtorch tells it.
use crate::Error;

/// What libtorch says when memory is refused, on the processor and on a GPU.
const SIGNS: [&str; 4] = ["out of memory", "can't allocate memory", "not enough memory", "Cannot allocate memory"];

/// Whether an error is the refusal of memory.
pub(crate) fn is_exhausted(error: &Error) -> bool {
    matches!(error, Error::Engine(error) if SIGNS.iter().any(|sign| error.to_string().contains(sign)))
}

/// Says with how many rows, the longest of `length` sub-tokens, memory was refused; any other error stays as it is.
pub(crate) fn told(error: Error, rows: usize, length: usize) -> Error {
    if is_exhausted(&error) { Error::OutOfMemory { rows, length, detail: size(&error) } } else { error }
}

/// The first line of the refusal, which says how much was asked for.
pub(crate) fn size(error: &Error) -> String {
    let text = error.to_string();
    let line = text.lines().find(|line| SIGNS.iter().any(|sign| line.contains(sign)));
    line.unwrap_or(text.lines().next().unwrap_or_default()).trim().to_owned()
}

#[cfg(test)]
mod tests {
    use tch::{Device, Kind, Tensor};

    use super::*;

    #[test]
    fn a_refusal_is_told_from_other_errors() {
        let refused = Error::from(Tensor::f_empty([1 << 55], (Kind::Float, Device::Cpu)).unwrap_err());
        assert!(is_exhausted(&refused), "{refused}");
        assert!(size(&refused).contains("144115188075855872"), "{}", size(&refused));
        let other = Error::from(Tensor::from_slice(&[1f32]).f_view([2]).unwrap_err());
        assert!(!is_exhausted(&other), "{other}");
        assert!(matches!(told(other, 3, 9), Error::Engine(_)));
        assert!(matches!(told(refused, 3, 9), Error::OutOfMemory { rows: 3, length: 9, .. }));
    }
}
