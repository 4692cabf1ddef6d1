//! Encoder checkpoints as ONNX graphs.

mod activation;
mod attention;
mod builder;
mod constant;
mod encoder;
mod linear;
mod scores;

pub use encoder::{Scheme, build};

/// Opsets that can be written.
pub const OPSETS: std::ops::RangeInclusive<i32> = 17..=24;
/// The widest supported one that has every operator as such.
pub const DEFAULT_OPSET: i32 = 20;
