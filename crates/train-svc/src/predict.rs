//! What to predict, checked before any work starts.
use std::path::{Path, PathBuf};

use quintet_nlp::{
    predict::{AggregationStrategy, FunctionToApply, InputFormat, InputOptions},
    task::Task,
};
use quintet_proto::v1::{PredictSpec, PredictionFormat};

use crate::request::{DeviceChoice, FieldError, FieldErrors};

/// A name of the file in the output.
pub const PREDICTIONS: &str = "predictions.jsonl";

/// Rows given to the model together when the specification does not say.
const BATCH_SIZE: usize = 32;

/// A prediction over a file.
#[derive(Debug, Clone)]
pub struct PredictRequest {
    /// Checkpoint folder of a trained model.
    pub checkpoint: PathBuf,
    /// File of texts.
    pub input: PathBuf,
    /// Where the texts stand in it.
    pub options: InputOptions,
    /// Tagged words: how sub-tokens become entities.
    pub aggregation_strategy: AggregationStrategy,
    /// Tagged words: types to leave out.
    pub ignore_labels: Vec<String>,
    /// Tagged words: sub-tokens that neighbouring windows share; none: long texts are cut.
    pub stride: Option<usize>,
    /// Sub-tokens of a row; none: as many as the encoder has positions.
    pub max_length: Option<usize>,
    /// Rows given to the model together.
    pub batch_size: usize,
    /// Texts: what makes scores of outputs; none: that of the task.
    pub function_to_apply: Option<FunctionToApply>,
    /// Texts: labels to give, 0 for all; none: [`PredictRequest::top_k`].
    top_k: Option<usize>,
    /// Lowest score; none: [`PredictRequest::threshold`].
    threshold: Option<f64>,
    /// The results are written into this folder; must not exist or be empty.
    pub out: PathBuf,
    /// Keeps results while the work goes on.
    pub resume_dir: PathBuf,
    /// Threads for the processor; 0 means all cores.
    pub threads: usize,
    /// Where tensors live.
    pub device: DeviceChoice,
}

impl PredictRequest {
    /// A request from a specification whose inputs are local paths already.
    ///
    /// # Errors
    /// Every field that is wrong.
    pub fn from_spec(spec: &PredictSpec, out: &Path, resume: &Path, threads: usize) -> Result<Self, FieldErrors> {
        let mut fields = Fields(Vec::new());
        for (field, value) in [("checkpoint", &spec.checkpoint), ("input", &spec.input)] {
            if value.is_empty() {
                fields.wrong(FieldError::new(field, "missing"));
            }
        }
        let strategy = fields.named(AggregationStrategy::parse(&spec.aggregation_strategy));
        let stride = spec.stride.map(|stride| fields.count("stride", stride));
        if stride.is_some() && strategy == Some(AggregationStrategy::None) {
            let problem = "found a stride with aggregation_strategy `none`: sub-tokens of windows cannot be merged";
            fields.wrong(FieldError::new("stride", problem));
        }
        if let Some(threshold) = spec.threshold.filter(|threshold| !(0.0..=1.0).contains(threshold)) {
            fields.wrong(FieldError::new("threshold", format!("found {threshold}, expected 0 to 1")));
        }
        let ignore_labels =
            if spec.ignore_labels.is_empty() { vec!["O".to_owned()] } else { spec.ignore_labels.clone() };
        let batch_size = fields.count("batch_size", spec.batch_size);
        let max_length = fields.count("max_length", spec.max_length);
        let top_k = spec.top_k.map(|top_k| fields.count("top_k", top_k));
        let function_to_apply = fields.named(FunctionToApply::parse(&spec.function_to_apply));
        let options = fields.of(options(spec));
        match (strategy, function_to_apply, options) {
            (Some(aggregation_strategy), Some(function_to_apply), Some(options)) if fields.0.is_empty() => Ok(Self {
                checkpoint: PathBuf::from(&spec.checkpoint),
                input: PathBuf::from(&spec.input),
                options,
                aggregation_strategy,
                ignore_labels,
                stride,
                max_length: (max_length > 0).then_some(max_length),
                batch_size: if batch_size > 0 { batch_size } else { BATCH_SIZE },
                function_to_apply,
                top_k,
                threshold: spec.threshold,
                out: out.to_owned(),
                resume_dir: resume.to_owned(),
                threads,
                device: DeviceChoice::Auto,
            }),
            _ => Err(FieldErrors(fields.0)),
        }
    }

    /// Labels to give of a text, 0 for all.
    pub fn top_k(&self, task: Task) -> usize {
        self.top_k.unwrap_or(usize::from(task != Task::MultiLabelClassification))
    }

    /// Lowest score of an answer.
    pub fn threshold(&self, task: Task) -> f64 {
        self.threshold.unwrap_or(if task == Task::MultiLabelClassification { 0.5 } else { 0.0 })
    }
}

/// Takes values and notes what is wrong with them.
struct Fields(Vec<FieldError>);

impl Fields {
    fn wrong(&mut self, error: FieldError) {
        self.0.push(error);
    }

    fn of<T>(&mut self, value: Result<T, FieldError>) -> Option<T> {
        value.map_err(|error| self.wrong(error)).ok()
    }

    /// A value that is chosen by its name.
    fn named<T>(&mut self, value: Result<T, quintet_nlp::Error>) -> Option<T> {
        self.of(value.map_err(|error| match error {
            quintet_nlp::Error::Argument { field, problem } => FieldError::new(field, problem),
            other => FieldError::new("spec", other.to_string()),
        }))
    }

    fn count(&mut self, field: &str, value: i32) -> usize {
        usize::try_from(value).unwrap_or_else(|_| {
            self.wrong(FieldError::new(field, format!("found {value}, expected 0 or more")));
            0
        })
    }
}

fn options(spec: &PredictSpec) -> Result<InputOptions, FieldError> {
    let format = match PredictionFormat::try_from(spec.format) {
        Ok(PredictionFormat::Unspecified) => None,
        Ok(PredictionFormat::TextLines) => Some(InputFormat::Text),
        Ok(PredictionFormat::JsonLines) => Some(InputFormat::Jsonl),
        Ok(PredictionFormat::CsvTable) => Some(InputFormat::Csv),
        Ok(PredictionFormat::TsvTable) => Some(InputFormat::Tsv),
        Err(_) => {
            let problem = format!("found {}, expected TEXT_LINES, JSON_LINES, CSV_TABLE or TSV_TABLE", spec.format);
            return Err(FieldError::new("format", problem));
        }
    };
    let defaults = InputOptions::default();
    let named = |given: &String, default: String| if given.is_empty() { default } else { given.clone() };
    Ok(InputOptions {
        format,
        text_column: named(&spec.text_column, defaults.text_column),
        pair_column: named(&spec.text_pair_column, defaults.pair_column),
        tokens_column: named(&spec.tokens_column, defaults.tokens_column),
        id_column: named(&spec.id_column, defaults.id_column),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(spec: &PredictSpec) -> Result<PredictRequest, FieldErrors> {
        PredictRequest::from_spec(spec, Path::new("out"), Path::new("resume"), 1)
    }

    fn good() -> PredictSpec {
        PredictSpec { checkpoint: "c".into(), input: "i".into(), ..Default::default() }
    }

    #[test]
    fn absent_fields_take_their_defaults() {
        let request = read(&good()).unwrap();
        assert_eq!(request.aggregation_strategy, AggregationStrategy::Simple);
        assert_eq!((request.ignore_labels.as_slice(), request.batch_size), (&["O".to_owned()][..], 32));
        assert_eq!((request.max_length, request.stride, &request.options), (None, None, &InputOptions::default()));
        let of = |task| (request.top_k(task), request.threshold(task));
        assert_eq!(of(Task::SequenceClassification), (1, 0.0));
        assert_eq!(of(Task::MultiLabelClassification), (0, 0.5));
        let spec = PredictSpec { top_k: Some(0), threshold: Some(0.25), ..good() };
        let request = read(&spec).unwrap();
        assert_eq!((request.top_k(Task::SequenceClassification), request.threshold(Task::Regression)), (0, 0.25));
    }

    #[test]
    fn wrong_fields_are_named() {
        let spec = good;
        for (spec, field) in [
            (PredictSpec { checkpoint: String::new(), ..spec() }, "checkpoint"),
            (PredictSpec { input: String::new(), ..spec() }, "input"),
            (PredictSpec { aggregation_strategy: "mean".into(), ..spec() }, "aggregation_strategy"),
            (PredictSpec { function_to_apply: "exp".into(), ..spec() }, "function_to_apply"),
            (PredictSpec { format: 9, ..spec() }, "format"),
            (PredictSpec { batch_size: -1, ..spec() }, "batch_size"),
            (PredictSpec { max_length: -1, ..spec() }, "max_length"),
            (PredictSpec { top_k: Some(-1), ..spec() }, "top_k"),
            (PredictSpec { threshold: Some(f64::NAN), ..spec() }, "threshold"),
            (PredictSpec { stride: Some(4), aggregation_strategy: "none".into(), ..spec() }, "stride"),
        ] {
            assert_eq!(read(&spec).unwrap_err().names(), [field]);
        }
        let all = PredictSpec { input: "i".into(), top_k: Some(-1), format: 9, ..Default::default() };
        assert_eq!(read(&all).unwrap_err().names(), ["checkpoint", "top_k", "format"]);
    }
}
