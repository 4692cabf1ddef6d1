//! A classifier in an ONNX file: opened with stated threads, asked about its inputs and metadata, run on batches.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use ort::{
    session::{Session, SessionInputValue, builder::GraphOptimizationLevel},
    value::{TensorElementType, TensorRef},
};

use crate::{Error, library::environment};

/// How a model is opened.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// Threads inside one operator; they sleep when idle, so that others on the machine are not disturbed.
    pub threads: usize,
}

/// Rows of equal length, one after the other: `rows * length` values each.
#[derive(Clone, Copy, Debug)]
pub struct Batch<'a> {
    /// Number of rows.
    pub rows: usize,
    /// Sub-tokens of each row, padding included.
    pub length: usize,
    /// Token ids.
    pub input_ids: &'a [i64],
    /// 1 for a token, 0 for padding.
    pub attention_mask: &'a [i64],
    /// Segment of each token; 0 for a single text.
    pub token_type_ids: &'a [i64],
}

/// What the model answered.
#[derive(Clone, Debug, PartialEq)]
pub struct Logits {
    /// `[rows, length, labels]` for token classification, `[rows, labels]` for sequence classification.
    pub shape: Vec<usize>,
    /// Values in row-major order.
    pub values: Vec<f32>,
}

#[derive(Clone, Copy, Debug)]
enum Input {
    Ids,
    Mask,
    Types,
}

/// An open model. Running takes `&mut self`, as in `ort`: one session answers one call at a time.
#[derive(Debug)]
pub struct Classifier {
    path: PathBuf,
    session: Session,
    inputs: Vec<Input>,
}

impl Classifier {
    /// Opens a model with all of ONNX Runtime's graph optimizations, on the CPU.
    ///
    /// # Errors
    /// The library is missing, the file is not an ONNX model, or its inputs or outputs are not those of a classifier.
    pub fn open(path: &Path, options: Options) -> Result<Self, Error> {
        let model = |reason: String| Error::Model { path: path.to_path_buf(), reason };
        let environment = environment()?;
        let session = Session::builder(environment)
            .map_err(|error| model(error.to_string()))?
            .with_optimization_level(GraphOptimizationLevel::All)
            .map_err(|error| model(error.to_string()))?
            .with_intra_threads(options.threads)
            .map_err(|error| model(error.to_string()))?
            .with_intra_op_spinning(false)
            .map_err(|error| model(error.to_string()))?
            .commit_from_file(path)
            .map_err(|error| model(error.to_string()))?;
        let inputs = session.inputs().iter().map(|input| known(path, input)).collect::<Result<_, _>>()?;
        let output = session.outputs().iter().find(|output| output.name() == "logits");
        if output.is_none_or(|output| output.dtype().tensor_type() != Some(TensorElementType::Float32)) {
            let found: Vec<_> = session.outputs().iter().map(|o| format!("`{}` ({})", o.name(), o.dtype())).collect();
            return Err(Error::Output { path: path.to_path_buf(), found: found.join(", ") });
        }
        Ok(Self { path: path.to_path_buf(), session, inputs })
    }

    /// Names of the inputs, in the model's order.
    pub fn input_names(&self) -> Vec<&str> {
        self.session.inputs().iter().map(|input| input.name()).collect()
    }

    /// The model's free metadata: keys and values.
    ///
    /// # Errors
    /// [`Error::Model`] when ONNX Runtime cannot read them.
    pub fn metadata(&self) -> Result<BTreeMap<String, String>, Error> {
        let model = |error: ort::Error| Error::Model { path: self.path.clone(), reason: error.to_string() };
        let metadata = self.session.metadata().map_err(model)?;
        let keys = metadata.custom_keys().map_err(model)?;
        Ok(keys.into_iter().filter_map(|key| metadata.custom(&key).map(|value| (key, value))).collect())
    }

    /// Runs one batch.
    ///
    /// # Errors
    /// [`Error::Batch`] for parts of the wrong size, [`Error::Run`] when ONNX Runtime fails.
    pub fn run(&mut self, batch: &Batch<'_>) -> Result<Logits, Error> {
        let Batch { rows, length, .. } = *batch;
        let path = &self.path;
        let run = |error: ort::Error| Error::Run { path: path.clone(), rows, length, reason: error.to_string() };
        let mut values: Vec<SessionInputValue<'_>> = Vec::with_capacity(self.inputs.len());
        for input in &self.inputs {
            let (name, data) = match input {
                Input::Ids => ("input_ids", batch.input_ids),
                Input::Mask => ("attention_mask", batch.attention_mask),
                Input::Types => ("token_type_ids", batch.token_type_ids),
            };
            if data.len() != rows * length {
                return Err(Error::Batch { rows, length, name, found: data.len() });
            }
            values.push(TensorRef::from_array_view(([rows, length], data)).map_err(run)?.into());
        }
        let outputs = self.session.run(values.as_slice()).map_err(run)?;
        let logits = outputs
            .get("logits")
            .ok_or_else(|| Error::Output { path: path.clone(), found: "without `logits`".to_owned() })?;
        let (shape, values) = logits.try_extract_tensor::<f32>().map_err(run)?;
        let shape = shape.iter().map(|size| usize::try_from(*size).unwrap_or(0)).collect();
        Ok(Logits { shape, values: values.to_vec() })
    }
}

fn known(path: &Path, input: &ort::value::Outlet) -> Result<Input, Error> {
    let wrong =
        || Error::Input { path: path.to_path_buf(), name: input.name().to_owned(), found: input.dtype().to_string() };
    if input.dtype().tensor_type() != Some(TensorElementType::Int64) {
        return Err(wrong());
    }
    match input.name() {
        "input_ids" => Ok(Input::Ids),
        "attention_mask" => Ok(Input::Mask),
        "token_type_ids" => Ok(Input::Types),
        _ => Err(wrong()),
    }
}
