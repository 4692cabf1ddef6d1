//! The data of a training: the messages of a specification to the sources of a data set, every field checked.
use std::path::PathBuf;

use quintet_nlp::{
    data::{Fold, Form, Format, ReadOptions, Sources, TextOptions},
    task::Task,
};
use quintet_proto::v1::{self, DataFormat, TextClassificationData, TextTask, TokenClassificationData, TrainSpec};
use runtime_core::jobs::inputs::Location;

use crate::request::FieldError;

/// The most folds that anybody has asked for in earnest.
const MOST_FOLDS: i32 = 100;

/// `max_length` when the specification does not say it, see `Hyperparameters`.
const MAX_LENGTH: i32 = 128;

/// That every tokenizer for these encoders adds; the tokenizer itself is asked when rows are encoded.
const SPECIAL_TOKENS: i32 = 2;

/// The sources of a specification, whose paths are local already; `seed` chooses the rows that are held out.
pub(crate) fn sources(spec: &TrainSpec, seed: u64) -> Result<Sources, FieldError> {
    match (&spec.data, &spec.text_classification) {
        (Some(data), None) => {
            let given = spec.hyperparameters.as_ref().and_then(|hyper| hyper.max_length);
            words(data, seed, given.unwrap_or(MAX_LENGTH))
        }
        (None, Some(data)) => texts(data, seed),
        (None, None) => Err(FieldError::new("data", "missing; one of data and text_classification is needed")),
        (Some(_), Some(_)) => {
            Err(FieldError::new("text_classification", "found beside data, but only one of both is allowed"))
        }
    }
}

/// Whether rows of `train` are held out to validate on: there is no other validation split. None when `train` is not on this machine and
/// may have one.
pub(crate) fn holds_out(spec: &TrainSpec) -> Option<bool> {
    let mut sources = sources(spec, 0).ok()?;
    if sources.validation.is_some() || sources.fold.is_some() {
        return Some(sources.fold.is_some());
    }
    let Ok(Location::Local(train)) = Location::parse(sources.train.to_str()?) else { return None };
    sources.train = train;
    sources.holds_out().ok()
}

/// What both messages have.
struct Common<'a> {
    prefix: &'static str,
    train: &'a str,
    validation: &'a str,
    test: &'a str,
    validation_fraction: f64,
    fold: Option<&'a v1::Fold>,
    seed: u64,
}

impl Common<'_> {
    fn sources(&self, form: Form) -> Result<Sources, FieldError> {
        let wrong = |field: &str, problem: String| FieldError::new(format!("{}.{field}", self.prefix), problem);
        if self.train.is_empty() {
            return Err(wrong("train", "missing".to_owned()));
        }
        let fraction = if self.validation_fraction == 0.0 { 0.1 } else { self.validation_fraction };
        if !(fraction > 0.0 && fraction < 1.0) {
            return Err(wrong("validation_fraction", format!("found {fraction}, expected above 0 and below 1")));
        }
        Ok(Sources {
            train: PathBuf::from(self.train),
            validation: path(self.validation),
            test: path(self.test),
            form,
            validation_fraction: fraction,
            seed: self.seed,
            fold: self.fold.map(|given| self.fold(given)).transpose()?,
        })
    }

    fn fold(&self, given: &v1::Fold) -> Result<Fold, FieldError> {
        let wrong = |field: &str, problem: String| Err(FieldError::new(format!("{}.{field}", self.prefix), problem));
        if !self.validation.is_empty() {
            let problem = format!("found `{}`, but a fold of the training data is validated on", self.validation);
            return wrong("validation", problem);
        }
        if !(2..=MOST_FOLDS).contains(&given.n_splits) {
            return wrong("fold.n_splits", format!("found {}, expected 2 to {MOST_FOLDS}", given.n_splits));
        }
        if !(0..given.n_splits).contains(&given.index) {
            return wrong("fold.index", format!("found {}, expected 0 to {}", given.index, given.n_splits - 1));
        }
        let [n_splits, index] = [given.n_splits, given.index].map(|value| usize::try_from(value).unwrap_or_default());
        let (shuffle, stratified) = (given.shuffle.unwrap_or(true), given.stratified.unwrap_or(true));
        Ok(Fold { n_splits, index, shuffle, seed: given.seed.unwrap_or(42), stratified })
    }
}

fn path(text: &str) -> Option<PathBuf> {
    text_of(text).map(PathBuf::from)
}

fn text_of(text: &str) -> Option<String> {
    (!text.is_empty()).then(|| text.to_owned())
}

/// The format by its number; none when it is to be told by the content.
fn format(field: &str, number: i32) -> Result<Option<Format>, FieldError> {
    Ok(match DataFormat::try_from(number) {
        Ok(DataFormat::Unspecified) => None,
        Ok(DataFormat::Conll) => Some(Format::Conll),
        Ok(DataFormat::Jsonl) => Some(Format::Jsonl),
        Ok(DataFormat::Json) => Some(Format::Json),
        Ok(DataFormat::Csv) => Some(Format::Csv),
        Ok(DataFormat::Parquet) => Some(Format::Parquet),
        Ok(DataFormat::Arrow) => Some(Format::Arrow),
        Err(_) => {
            let problem = format!("found {number}, expected CONLL, JSONL, JSON, CSV, PARQUET or ARROW");
            return Err(FieldError::new(field, problem));
        }
    })
}

fn words(data: &TokenClassificationData, seed: u64, max_length: i32) -> Result<Sources, FieldError> {
    if let Some(stride) = data.stride
        // A `max_length` below that is wrong by itself.
        && max_length > SPECIAL_TOKENS
        && stride >= max_length - SPECIAL_TOKENS
    {
        let problem =
            format!("found {stride}, expected less than what max_length {max_length} leaves beside the special tokens");
        return Err(FieldError::new("data.stride", problem));
    }
    let column = |name: &str, value: i32| {
        usize::try_from(value).map_err(|_| FieldError::new(name, format!("found {value}, expected 0 or more")))
    };
    let options = ReadOptions {
        format: format("data.format", data.format)?,
        word_column: column("data.word_column", data.word_column)?,
        tag_column: data.tag_column.map(|value| column("data.tag_column", value)).transpose()?,
        stride: data.stride.map(|value| column("data.stride", value)).transpose()?,
    };
    let common = Common {
        prefix: "data",
        train: &data.train,
        validation: &data.validation,
        test: &data.test,
        validation_fraction: data.validation_fraction,
        fold: data.fold.as_ref(),
        seed,
    };
    common.sources(Form::Tokens(options))
}

fn texts(data: &TextClassificationData, seed: u64) -> Result<Sources, FieldError> {
    let wrong = |field: &str, problem: &str| Err(FieldError::new(format!("text_classification.{field}"), problem));
    let task = match TextTask::try_from(data.task) {
        Ok(TextTask::Unspecified) => None,
        Ok(TextTask::SingleLabel) => Some(Task::SequenceClassification),
        Ok(TextTask::MultiLabel) => Some(Task::MultiLabelClassification),
        Ok(TextTask::Regression) => Some(Task::Regression),
        Err(_) => {
            return wrong("task", &format!("found {}, expected SINGLE_LABEL, MULTI_LABEL or REGRESSION", data.task));
        }
    };
    let format = format("text_classification.format", data.format)?;
    if format == Some(Format::Conll) {
        return wrong("format", "found CONLL, which has words and tags; expected JSONL, JSON, CSV, PARQUET or ARROW");
    }
    let separator = match data.separator.as_bytes() {
        [] => None,
        [byte] => Some(*byte),
        _ => return wrong("separator", &format!("found {:?}, expected one ASCII character", data.separator)),
    };
    if !data.label_columns.is_empty() {
        if !data.label_column.is_empty() {
            return wrong("label_columns", "found beside label_column, but only one of both is allowed");
        }
        if !matches!(task, None | Some(Task::MultiLabelClassification)) {
            return wrong("label_columns", "found, but the task is not MULTI_LABEL");
        }
        if data.label_columns.len() == 1 {
            return wrong("label_columns", "found one column, expected one for each of several labels");
        }
    }
    let taken = |column: &String| *column == data.text_column || *column == data.pair_column;
    if let Some(column) = data.label_columns.iter().chain([&data.label_column]).find(|c| !c.is_empty() && taken(c)) {
        return wrong("label_column", &format!("found `{column}`, which is a column of text already"));
    }
    if !data.pair_column.is_empty() && data.pair_column == data.text_column {
        return wrong("pair_column", &format!("found `{}`, which is the text's column already", data.pair_column));
    }
    if task == Some(Task::Regression) && !data.labels.is_empty() {
        return wrong("labels", &format!("found `{}`, but a regression has no labels", data.labels));
    }
    let options = TextOptions {
        format,
        separator,
        text_column: text_of(&data.text_column),
        pair_column: text_of(&data.pair_column),
        label_column: text_of(&data.label_column),
        label_columns: data.label_columns.clone(),
        label_separator: text_of(&data.label_separator),
        labels: path(&data.labels),
        task,
    };
    let common = Common {
        prefix: "text_classification",
        train: &data.train,
        validation: &data.validation,
        test: &data.test,
        validation_fraction: data.validation_fraction,
        fold: data.fold.as_ref(),
        seed,
    };
    common.sources(Form::Text(options))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn failing_field(spec: &TrainSpec) -> String {
        match sources(spec, 1) {
            Err(FieldError { field, .. }) => field,
            Ok(found) => panic!("{found:?}"),
        }
    }

    #[test]
    fn data_of_words_is_checked() {
        let data = TokenClassificationData { train: "t".into(), ..Default::default() };
        let spec = |data| TrainSpec { data: Some(data), ..Default::default() };
        assert_eq!(sources(&spec(data.clone()), 1).unwrap().validation_fraction, 0.1);
        let with_fold = |n_splits, index, validation: &str| {
            let fold = Some(v1::Fold { n_splits, index, ..Default::default() });
            TokenClassificationData { fold, validation: validation.into(), ..data.clone() }
        };
        let expected = Fold { n_splits: 3, index: 2, shuffle: true, seed: 42, stratified: true };
        assert_eq!(sources(&spec(with_fold(3, 2, "")), 1).unwrap().fold, Some(expected));
        let d = || data.clone();
        for (data, expected) in [
            (TokenClassificationData::default(), "data.train"),
            (TokenClassificationData { word_column: -1, ..d() }, "data.word_column"),
            (TokenClassificationData { stride: Some(-1), ..d() }, "data.stride"),
            (TokenClassificationData { stride: Some(126), ..d() }, "data.stride"),
            (TokenClassificationData { validation_fraction: 1.0, ..d() }, "data.validation_fraction"),
            (with_fold(3, 3, ""), "data.fold.index"),
            (with_fold(1, 0, ""), "data.fold.n_splits"),
            (with_fold(3, 0, "dev"), "data.validation"),
            (TokenClassificationData { format: 9, ..d() }, "data.format"),
        ] {
            assert_eq!(failing_field(&spec(data)), expected);
        }
    }

    #[test]
    fn rows_are_held_out_when_there_is_no_other_split() {
        let dir = tempfile::tempdir().unwrap();
        let file = |name: &str| {
            let path = dir.path().join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(&path, "text,label\na,b\n").unwrap();
            path.display().to_string()
        };
        let (alone, folder) = (file("alone.csv"), dir.path().join("splits").display().to_string());
        let (_, validation) = (file("splits/train.csv"), file("splits/validation.csv"));
        let of = |train: &str, validation: &str, fold: bool| {
            let fold = fold.then_some(v1::Fold { n_splits: 3, ..Default::default() });
            let data = TextClassificationData {
                train: train.into(),
                validation: validation.into(),
                fold,
                ..Default::default()
            };
            holds_out(&TrainSpec { text_classification: Some(data), ..Default::default() })
        };
        assert_eq!(of(&alone, "", false), Some(true));
        assert_eq!(of(&alone, &validation, false), Some(false));
        assert_eq!((of(&folder, "", false), of(&folder, "", true)), (Some(false), Some(true)));
        assert_eq!(of(&format!("file://{folder}"), "", false), Some(false));
        assert_eq!(
            (of("s3://bucket/set", "", false), of("s3://bucket/set", "s3://bucket/dev", false)),
            (None, Some(false))
        );
    }

    #[test]
    fn data_of_texts_is_checked() {
        let data = TextClassificationData { train: "t".into(), ..Default::default() };
        let spec = |data| TrainSpec { text_classification: Some(data), ..Default::default() };
        let whole = TextClassificationData {
            label_column: "intent".into(),
            separator: ";".into(),
            task: TextTask::SingleLabel.into(),
            labels: "l.json".into(),
            ..data.clone()
        };
        let Form::Text(options) = sources(&spec(whole), 1).unwrap().form else { panic!("not of texts") };
        assert_eq!((options.label_column.as_deref(), options.separator), (Some("intent"), Some(b';')));
        assert_eq!((options.task, options.labels), (Some(Task::SequenceClassification), Some("l.json".into())));

        let d = || data.clone();
        let columns = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
        for (data, expected) in [
            (TextClassificationData::default(), "train"),
            (TextClassificationData { format: DataFormat::Conll.into(), ..d() }, "format"),
            (TextClassificationData { format: 9, ..d() }, "format"),
            (TextClassificationData { task: 9, ..d() }, "task"),
            (TextClassificationData { separator: "ab".into(), ..d() }, "separator"),
            (TextClassificationData { validation_fraction: -0.1, ..d() }, "validation_fraction"),
            (TextClassificationData { label_columns: columns(&["a"]), ..d() }, "label_columns"),
            (
                TextClassificationData { label_columns: columns(&["a", "b"]), label_column: "c".into(), ..d() },
                "label_columns",
            ),
            (
                TextClassificationData {
                    label_columns: columns(&["a", "b"]),
                    task: TextTask::Regression.into(),
                    ..d()
                },
                "label_columns",
            ),
            (TextClassificationData { text_column: "a".into(), label_column: "a".into(), ..d() }, "label_column"),
            (TextClassificationData { text_column: "a".into(), pair_column: "a".into(), ..d() }, "pair_column"),
            (TextClassificationData { task: TextTask::Regression.into(), labels: "l".into(), ..d() }, "labels"),
        ] {
            assert_eq!(failing_field(&spec(data)), format!("text_classification.{expected}"));
        }
        let both = TrainSpec { data: Some(TokenClassificationData::default()), ..spec(d()) };
        assert_eq!(failing_field(&both), "text_classification");
        assert_eq!(failing_field(&TrainSpec::default()), "data");
    }
}
