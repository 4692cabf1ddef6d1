//! What to convert, and how: the specification with its defaults, checked.

use std::path::PathBuf;

use quintet_proto::v1::{ConvertSpec, Precision};

use crate::{Error, graph};

/// A conversion with local inputs.
#[derive(Clone, Debug)]
pub struct Request {
    /// HF checkpoint folder.
    pub checkpoint: PathBuf,
    /// The trainer's `evaluation` folder.
    pub evaluation: PathBuf,
    /// Folder to write; must not exist or be empty.
    pub output: PathBuf,
    /// Version of the operators.
    pub opset: i32,
    /// Models to write.
    pub precisions: ResolvedPrecisions,
    /// Largest absolute difference of an fp32 logit from the trainer's.
    pub tolerance: f64,
    /// Most F1 (0 to 1) that int8 may lose against the trainer's own predictions, which are fp32's.
    pub max_f1_loss: f64,
    /// Whether the int8 model has its word table in int8 too, when it verifies so: less than half of the size.
    pub quantize_embeddings: bool,
    /// Threads of ONNX Runtime while verifying.
    pub threads: usize,
    /// More provenance for the model's metadata, such as (`job`, `jobs/...`); keys get the prefix `quintet.`.
    pub provenance: Vec<(String, String)>,
}

/// Which models to write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ResolvedPrecisions {
    /// `model.onnx`.
    pub fp32: bool,
    /// `model_int8.onnx`.
    pub int8: bool,
}

impl Request {
    /// Checks a specification and fills in the defaults of `conversion.proto`; the paths stand for its inputs.
    ///
    /// # Errors
    /// [`Error::Argument`] naming the field, the value and what is allowed.
    pub fn from_spec(
        spec: &ConvertSpec,
        checkpoint: PathBuf,
        evaluation: PathBuf,
        output: PathBuf,
    ) -> Result<Self, Error> {
        let opset = if spec.opset == 0 { graph::DEFAULT_OPSET } else { spec.opset };
        if !graph::OPSETS.contains(&opset) {
            let (least, most) = (graph::OPSETS.start(), graph::OPSETS.end());
            let problem = format!("{opset}; allowed is {least} to {most}, or 0 for {}", graph::DEFAULT_OPSET);
            return Err(Error::Argument { field: "opset", problem });
        }
        Ok(Self {
            checkpoint,
            evaluation,
            output,
            opset,
            precisions: precisions(&spec.precisions)?,
            tolerance: limit("tolerance", spec.tolerance, 1e-4, f64::MAX)?,
            max_f1_loss: limit("max_f1_loss", spec.max_f1_loss, 0.01, 1.0)?,
            quantize_embeddings: true,
            threads: std::thread::available_parallelism().map_or(1, usize::from),
            provenance: Vec::new(),
        })
    }
}

fn precisions(values: &[i32]) -> Result<ResolvedPrecisions, Error> {
    if values.is_empty() {
        return Ok(ResolvedPrecisions { fp32: true, int8: true });
    }
    let mut resolved = ResolvedPrecisions { fp32: false, int8: false };
    for value in values {
        match Precision::try_from(*value) {
            Ok(Precision::Fp32) => resolved.fp32 = true,
            Ok(Precision::Int8) => resolved.int8 = true,
            _ => {
                let problem = format!("{value}; allowed are FP32 and INT8");
                return Err(Error::Argument { field: "precisions", problem });
            }
        }
    }
    Ok(resolved)
}

fn limit(field: &'static str, value: f64, default: f64, most: f64) -> Result<f64, Error> {
    if value == 0.0 {
        Ok(default)
    } else if value > 0.0 && value <= most {
        Ok(value)
    } else {
        let upper = if most == f64::MAX { "any finite number".to_owned() } else { most.to_string() };
        Err(Error::Argument { field, problem: format!("{value}; allowed is above 0 to {upper}, or 0 for {default}") })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(spec: &ConvertSpec) -> Result<Request, Error> {
        Request::from_spec(spec, "checkpoint".into(), "evaluation".into(), "output".into())
    }

    #[test]
    fn defaults_are_the_documented_ones() {
        let request = request(&ConvertSpec::default()).unwrap();
        assert_eq!((request.opset, request.tolerance, request.max_f1_loss), (20, 1e-4, 0.01));
        assert_eq!(request.precisions, ResolvedPrecisions { fp32: true, int8: true });
    }

    #[test]
    fn values_out_of_range_are_refused_by_name() {
        let cases = [
            (ConvertSpec { opset: 16, ..Default::default() }, "opset: 16; allowed is 17 to 24, or 0 for 20"),
            (ConvertSpec { opset: 25, ..Default::default() }, "opset: 25; allowed is 17 to 24, or 0 for 20"),
            (ConvertSpec { precisions: vec![1, 9], ..Default::default() }, "precisions: 9; allowed are FP32 and INT8"),
            (ConvertSpec { precisions: vec![0], ..Default::default() }, "precisions: 0; allowed are FP32 and INT8"),
            (ConvertSpec { tolerance: f64::NAN, ..Default::default() }, "tolerance: NaN; allowed is above 0"),
            (ConvertSpec { max_f1_loss: 1.5, ..Default::default() }, "max_f1_loss: 1.5; allowed is above 0 to 1"),
        ];
        for (spec, expected) in cases {
            let error = request(&spec).unwrap_err().to_string();
            assert!(error.starts_with(expected), "{error}");
        }
    }
}
