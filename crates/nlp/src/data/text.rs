//! Texts and pairs of texts with what is right for each, from the records of a file.
use std::{borrow::Cow, collections::BTreeSet, path::PathBuf};

use serde_json::{Map, Value};

use super::{
    classes::ClassSet,
    label_cells::LabelCells,
    record::{self, Features, Format, Record},
};
use crate::{Error, task::Task};

/// A text, or a pair of texts, and what is right for it.
#[derive(Debug, Clone, PartialEq)]
pub struct TextExample {
    /// The text.
    pub text: String,
    /// The second text of a pair.
    pub pair: Option<String>,
    /// What is right.
    pub answer: Answer,
    /// Line of the file where it begins, or number of its row, counted from 1.
    pub line: usize,
}

/// What is right for a text, labels by name.
#[derive(Debug, Clone, PartialEq)]
pub enum Answer {
    /// One label.
    Label(String),
    /// Any number of labels, each once, sorted.
    Labels(BTreeSet<String>),
    /// A number.
    Value(f32),
}

/// How to read data for sequence tasks.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct TextOptions {
    /// Absent: told by content and name of the file.
    pub format: Option<Format>,
    /// Separator of CSV; absent: told by the header.
    pub separator: Option<u8>,
    /// Column of the text; absent: the first of [`TEXT_COLUMNS`] that is there.
    pub text_column: Option<String>,
    /// Column of the second text of a pair; absent: none, but for [`PAIRS`].
    pub pair_column: Option<String>,
    /// Column of the answer; absent: the first of [`LABEL_COLUMNS`] that is there.
    pub label_column: Option<String>,
    /// Several columns, one a label, with 1 or true for texts that have it.
    pub label_columns: Vec<String>,
    /// Separates labels in one cell of text; absent: a comma.
    pub label_separator: Option<String>,
    /// File with the labels in the order of their ids.
    pub labels: Option<PathBuf>,
    /// A sequence task; absent: a list of labels means several labels, a number with a fraction a regression, anything else one label,
    /// by the first row.
    pub task: Option<Task>,
}

/// Usual columns of a text.
pub const TEXT_COLUMNS: [&str; 9] =
    ["text", "sentence", "sentence1", "premise", "question1", "question", "content", "utterance", "review"];

/// Usual columns of pairs (those of GLUE): the second is read when the first is the text's.
pub const PAIRS: [(&str, &str); 4] =
    [("sentence1", "sentence2"), ("premise", "hypothesis"), ("question1", "question2"), ("question", "sentence")];

/// Usual columns of an answer.
pub const LABEL_COLUMNS: [&str; 9] =
    ["label", "labels", "category", "class", "intent", "target", "score", "stars", "similarity_score"];

impl Answer {
    /// Its labels; none of a number.
    pub fn labels(&self) -> impl Iterator<Item = &str> {
        let (one, many) = match self {
            Self::Label(label) => (Some(label), None),
            Self::Labels(labels) => (None, Some(labels)),
            Self::Value(_) => (None, None),
        };
        one.into_iter().chain(many.into_iter().flatten()).map(String::as_str)
    }
}

impl TextExample {
    /// All of its text, for comparing it with others.
    pub fn key(&self) -> Cow<'_, str> {
        match &self.pair {
            None => Cow::Borrowed(&self.text),
            // A character that no text has: pairs that only look alike when joined differ.
            Some(pair) => Cow::Owned(format!("{}\u{1f}{pair}", self.text)),
        }
    }
}

impl TextOptions {
    /// Whether a column is asked for by this name.
    fn names_column(&self, name: &str) -> bool {
        let single = [&self.text_column, &self.pair_column, &self.label_column];
        single.into_iter().flatten().chain(&self.label_columns).any(|column| column == name)
    }
}

/// Which columns hold what.
#[derive(Debug, Clone, PartialEq)]
struct Columns {
    text: String,
    pair: Option<String>,
    label: Vec<String>,
}

/// Makes examples of records; what the options leave open it decides by the first record.
#[derive(Debug, Clone)]
pub struct TextReader<'a> {
    options: &'a TextOptions,
    labels: LabelCells,
    decided: Option<(Columns, Task)>,
    /// Rows that whoever annotated them did not accept.
    rejected: usize,
    /// Rows between tabs that go over several lines.
    broken: usize,
}

impl<'a> TextReader<'a> {
    /// `names` are those of the options' file of labels.
    pub fn new(options: &'a TextOptions, names: Option<Vec<String>>) -> Self {
        Self { options, labels: LabelCells::new(names), decided: None, rejected: 0, broken: 0 }
    }

    /// The task, once a record was read or when the options tell.
    pub fn task(&self) -> Option<Task> {
        self.decided.as_ref().map(|(_, task)| *task).or(self.options.task)
    }

    /// The labels in the order of their ids, when they are known beforehand.
    pub fn known_labels(&self) -> Result<Option<ClassSet>, Error> {
        match (self.labels.names(), self.options.label_columns.as_slice()) {
            (Some(names), _) => ClassSet::from_names(names.clone()).map(Some),
            (None, []) => Ok(None),
            (None, columns) => ClassSet::from_names(columns.to_vec()).map(Some),
        }
    }

    /// What was decided, for a person; none before the first record.
    pub fn decision(&self) -> Option<String> {
        let (columns, task) = self.decided.as_ref()?;
        let text = match &columns.pair {
            Some(pair) => format!("pairs of columns `{}` and `{pair}`", columns.text),
            None => format!("column `{}`", columns.text),
        };
        let task = match task {
            Task::MultiLabelClassification => "any number of labels",
            Task::Regression => "a number",
            Task::SequenceClassification | Task::TokenClassification => "one label",
        };
        Some(format!("texts from {text}, {task} from `{}`", columns.label.join("`, `")))
    }

    /// What was left out, or deserves a look, since the last call, a line each.
    pub fn notes(&mut self, split: &str) -> Vec<String> {
        let counted = [
            (std::mem::take(&mut self.rejected), record::REJECTED),
            (
                std::mem::take(&mut self.broken),
                "rows of a table with tabs go over several lines, as a stray quote at the beginning of a field makes them",
            ),
        ];
        let counted = counted.into_iter().filter(|(count, _)| *count > 0);
        counted.map(|(count, what)| format!("{split}: {count} {what}")).collect()
    }

    /// Tells of rows between tabs that go over several lines.
    pub(super) fn broken(&mut self, rows: usize) {
        self.broken += rows;
    }

    /// An example of a record, none of one that was not accepted; an error says what is wrong with it.
    pub fn read(&mut self, features: &Features, record: &Record) -> Result<Option<TextExample>, String> {
        let cells = record.value.as_object().ok_or_else(|| {
            format!("found {}, expected an object with the cells of a row", super::shown(&record.value))
        })?;
        if record::is_rejected(cells) && !self.options.names_column("answer") {
            self.rejected += 1;
            return Ok(None);
        }
        if self.decided.is_none() {
            let columns = self.columns(features, cells)?;
            if let [label] = columns.label.as_slice() {
                self.labels.learn(features.classes.get(label));
            }
            let task = self.options.task.unwrap_or_else(|| self.told_by(&columns, cells));
            self.decided = Some((columns, task));
        }
        let Self { options, labels, decided: Some((columns, task)), .. } = self else {
            return Err("no columns".to_owned());
        };
        let answer = match (columns.label.as_slice(), options.label_columns.is_empty()) {
            ([first, ..], false) => indicated(cells, &columns.label)
                .map_err(|problem| format!("{problem} (label_columns from `{first}`)"))?,
            (names, _) => {
                let column = names.first().map_or("", String::as_str);
                let cell = cells.get(column).unwrap_or(&Value::Null);
                let own = features.classes.get(column).map(Vec::as_slice);
                answer(labels, options, *task, cell, own).map_err(|problem| format!("column `{column}`: {problem}"))?
            }
        };
        Ok(Some(TextExample {
            text: text(cells, &columns.text)?,
            pair: columns.pair.as_ref().map(|pair| text(cells, pair)).transpose()?,
            answer,
            line: record.line,
        }))
    }

    fn columns(&self, features: &Features, cells: &Map<String, Value>) -> Result<Columns, String> {
        let present = |name: &str| cells.contains_key(name);
        let missing = |what: &str, name: &str| {
            let found: Vec<&str> = cells.keys().map(String::as_str).collect();
            let strange: String = features
                .unreadable
                .iter()
                .map(|(column, kind)| format!("; `{column}` is of type {kind}, which is not read"))
                .collect();
            format!("{what}: there is no column {name}; found {}{strange}", found.join(", "))
        };
        let choose = |what: &str, given: Option<&String>, usual: &[&str]| match given {
            Some(name) if present(name) => Ok(name.clone()),
            Some(name) => Err(missing(what, &format!("`{name}`"))),
            None => match usual.iter().find(|name| present(name)) {
                Some(name) => Ok((*name).to_owned()),
                None => Err(missing(what, &usual.join(", ")) + "; say which"),
            },
        };
        let text = choose("text_column", self.options.text_column.as_ref(), &TEXT_COLUMNS)?;
        let pair = match &self.options.pair_column {
            Some(_) => Some(choose("pair_column", self.options.pair_column.as_ref(), &[])?),
            None => PAIRS
                .iter()
                .find(|(first, second)| *first == text && present(second))
                .map(|(_, second)| (*second).to_owned()),
        };
        let label = match self.options.label_columns.as_slice() {
            [] => vec![choose("label_column", self.options.label_column.as_ref(), &LABEL_COLUMNS)?],
            columns => {
                if let Some(column) = columns.iter().find(|column| !present(column)) {
                    return Err(missing("label_columns", &format!("`{column}`")));
                }
                columns.to_vec()
            }
        };
        Ok(Columns { text, pair, label })
    }

    /// The task by the answer of the first row, as `run_classification` tells it by the type of the column.
    fn told_by(&self, columns: &Columns, cells: &Map<String, Value>) -> Task {
        match columns.label.as_slice() {
            [label] => match cells.get(label) {
                Some(Value::Array(_)) => Task::MultiLabelClassification,
                Some(Value::Number(number)) if number.is_f64() => Task::Regression,
                _ => Task::SequenceClassification,
            },
            _ => Task::MultiLabelClassification,
        }
    }
}

/// What a cell says; `own` are the names by id that its file has.
fn answer(
    labels: &mut LabelCells,
    options: &TextOptions,
    task: Task,
    cell: &Value,
    own: Option<&[String]>,
) -> Result<Answer, String> {
    let wrong = |expected: &str| format!("found {}, expected {expected}", super::shown(cell));
    match (task, cell) {
        (Task::Regression, Value::Number(number)) => {
            number.as_f64().map(|value| Answer::Value(value as f32)).ok_or_else(|| wrong("a number"))
        }
        (Task::Regression, Value::String(text)) => match text.trim().parse::<f32>() {
            Ok(value) if value.is_finite() => Ok(Answer::Value(value)),
            _ => Err(wrong("a number")),
        },
        (Task::Regression, _) => Err(wrong("a number")),
        (Task::MultiLabelClassification, Value::Array(items)) => labels.several(items, own).map(Answer::Labels),
        (Task::MultiLabelClassification, Value::String(text)) if text.trim_start().starts_with('[') => {
            // Python writes lists with single quotes into CSV.
            let parsed = serde_json::from_str(text).or_else(|_| serde_json::from_str(&text.replace('\'', "\"")));
            let items: Vec<Value> = parsed.map_err(|_| wrong("a list of labels"))?;
            labels.several(&items, own).map(Answer::Labels)
        }
        (Task::MultiLabelClassification, Value::String(text)) => {
            let separator = options.label_separator.as_deref().unwrap_or(",");
            let names = text.split(separator).map(str::trim).filter(|name| !name.is_empty());
            names.map(|name| labels.one(&Value::from(name), own)).collect::<Result<_, _>>().map(Answer::Labels)
        }
        (Task::MultiLabelClassification, _) => Err(wrong("a list of labels")),
        (Task::SequenceClassification | Task::TokenClassification, cell) => {
            // A list of one, as doccano has it.
            let only = cell.as_array().and_then(|items| items.first().filter(|_| items.len() == 1));
            labels.one(only.unwrap_or(cell), own).map(Answer::Label)
        }
    }
}

fn indicated(cells: &Map<String, Value>, columns: &[String]) -> Result<Answer, String> {
    let mut labels = BTreeSet::new();
    for column in columns {
        let cell = cells.get(column).unwrap_or(&Value::Null);
        let number = cell.as_f64().or_else(|| cell.as_bool().map(|on| f64::from(u8::from(on))));
        let text = cell.as_str().map(|text| text.trim().to_ascii_lowercase());
        match (number, text.as_deref()) {
            (Some(1.0), _) | (_, Some("1" | "1.0" | "true" | "yes")) => {
                labels.insert(column.clone());
            }
            (Some(0.0), _) | (_, Some("0" | "0.0" | "false" | "no")) => {}
            _ => return Err(format!("column `{column}`: found {}, expected 0 or 1", super::shown(cell))),
        }
    }
    Ok(Answer::Labels(labels))
}

fn text(cells: &Map<String, Value>, column: &str) -> Result<String, String> {
    match cells.get(column) {
        Some(Value::String(text)) => Ok(text.clone()),
        Some(value @ (Value::Number(_) | Value::Bool(_))) => Ok(value.to_string()),
        other => {
            Err(format!("column `{column}`: found {}, expected a text", super::shown(other.unwrap_or(&Value::Null))))
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn read(
        options: &TextOptions,
        names: Option<&[&str]>,
        features: &Features,
        value: Value,
    ) -> Result<TextExample, String> {
        let names = names.map(|names| names.iter().map(|name| (*name).to_owned()).collect());
        let found = TextReader::new(options, names).read(features, &Record { line: 7, value });
        found.map(Option::unwrap)
    }

    fn plain(value: Value) -> Result<TextExample, String> {
        read(&TextOptions::default(), None, &Features::default(), value)
    }

    fn labels(names: &[&str]) -> Answer {
        Answer::Labels(names.iter().map(|name| (*name).to_owned()).collect())
    }

    #[test]
    fn usual_columns_are_found_and_tell_the_task() {
        let example = plain(json!({"id": 1, "text": "a", "label": "x"})).unwrap();
        let expected = TextExample { text: "a".into(), pair: None, answer: Answer::Label("x".into()), line: 7 };
        assert_eq!(example, expected);
        let example = plain(json!({"premise": "a", "hypothesis": "b", "label": 2, "text_b": ""})).unwrap();
        assert_eq!((example.pair.as_deref(), example.answer), (Some("b"), Answer::Label("2".into())));
        assert_eq!(plain(json!({"sentence": "a", "score": 2.5})).unwrap().answer, Answer::Value(2.5));
        assert_eq!(plain(json!({"text": "a", "labels": ["y", "x", "y"]})).unwrap().answer, labels(&["x", "y"]));
    }

    #[test]
    fn classes_are_told_by_name_or_id() {
        let mut features = Features::default();
        features.classes.insert("label".into(), vec!["neg".into(), "pos".into()]);
        let answer = |label: Value| {
            read(&TextOptions::default(), None, &features, json!({"text": "a", "label": label})).map(|e| e.answer)
        };
        for label in [json!(1), json!("1"), json!("pos"), json!(1.0)] {
            let options = TextOptions { task: Some(Task::SequenceClassification), ..TextOptions::default() };
            let found = read(&options, None, &features, json!({"text": "a", "label": label})).unwrap().answer;
            assert_eq!(found, Answer::Label("pos".into()));
        }
        assert_eq!(answer(json!([1, 0])).unwrap(), labels(&["neg", "pos"]));
        assert!(answer(json!(-1)).unwrap_err().contains("without a label"));
        assert!(answer(json!(2)).unwrap_err().contains("out of range"));
        assert!(answer(json!("x")).unwrap_err().contains("neg, pos"));
        // Ids of the record's own file, whatever the names look like and whatever order others have.
        let mut numbers = Features::default();
        numbers.classes.insert("label".into(), ["0", "1", "10", "2"].map(str::to_owned).to_vec());
        let row = json!({"text": "a", "label": 2});
        assert_eq!(read(&TextOptions::default(), None, &numbers, row).unwrap().answer, Answer::Label("10".into()));
        let row = json!({"text": "a", "label": 0});
        assert_eq!(
            read(&TextOptions::default(), Some(&["pos", "neg"]), &features, row).unwrap().answer,
            Answer::Label("neg".into())
        );
        // Names that look like numbers are names.
        let read = |label| {
            read(&TextOptions::default(), Some(&["1", "2"]), &Features::default(), json!({"text": "a", "label": label}))
        };
        assert_eq!(read(1).unwrap().answer, Answer::Label("1".into()));
        assert!(read(0).unwrap_err().contains("unknown"));
    }

    #[test]
    fn several_labels_in_every_form() {
        let multi = TextOptions { task: Some(Task::MultiLabelClassification), ..TextOptions::default() };
        let answer = |options: &TextOptions, label: Value| {
            read(options, Some(&["a", "b c"]), &Features::default(), json!({"text": "t", "label": label}))
                .unwrap()
                .answer
        };
        for label in
            [json!("b c, a"), json!("['b c', 'a']"), json!("[\"a\",\"b c\"]"), json!([0, 1]), json!([1.0, 1.0])]
        {
            assert_eq!(answer(&multi, label.clone()), labels(&["a", "b c"]), "{label}");
        }
        assert_eq!(answer(&multi, json!("")), labels(&[]));
        assert_eq!(answer(&multi, json!([false, true])), labels(&["b c"]));
        let bars = TextOptions { label_separator: Some("|".into()), ..multi };
        assert_eq!(answer(&bars, json!("a|b c")), labels(&["a", "b c"]));

        let columns = TextOptions { label_columns: vec!["toxic".into(), "rude".into()], ..TextOptions::default() };
        let read = |rude: Value| {
            let mut reader = TextReader::new(&columns, None);
            let record = Record { line: 1, value: json!({"text": "t", "toxic": "1", "rude": rude}) };
            let answer = reader.read(&Features::default(), &record).map(|example| example.unwrap().answer);
            (answer, reader.known_labels().unwrap().unwrap().names().to_vec(), reader.task())
        };
        let (answer, names, task) = read(json!(false));
        assert_eq!(
            (answer.unwrap(), names.join(" "), task),
            (labels(&["toxic"]), "toxic rude".into(), Some(Task::MultiLabelClassification))
        );
        assert!(read(json!("2")).0.unwrap_err().contains("`rude`: found \"2\", expected 0 or 1"));
    }

    #[test]
    fn a_list_of_one_is_a_label_and_rejected_rows_are_left_out() {
        let single = TextOptions { task: Some(Task::SequenceClassification), ..TextOptions::default() };
        let answer = |value: Value| read(&single, None, &Features::default(), value).map(|example| example.answer);
        assert_eq!(answer(json!({"text": "a", "label": ["pos"]})).unwrap(), Answer::Label("pos".into()));
        for wrong in [json!([]), json!(["pos", "neg"])] {
            let problem = answer(json!({"text": "a", "label": wrong})).unwrap_err();
            assert!(problem.contains("expected a label"), "{problem}");
        }

        let kept = |options: &TextOptions| {
            let mut reader = TextReader::new(options, None);
            let rows = ["accept", "reject", "ignore", "yes"].map(|answer| {
                let value = json!({"text": "a", "label": "x", "answer": answer});
                reader.read(&Features::default(), &Record { line: 1, value }).unwrap().is_some()
            });
            (rows, reader.notes("train"), reader.notes("train"))
        };
        let (rows, notes, none) = kept(&TextOptions::default());
        assert_eq!((rows, none), ([true, false, false, true], vec![]));
        assert!(notes.len() == 1 && notes[0].starts_with("train: 2 rows"), "{notes:?}");
        // The column of a question's answer is no verdict.
        let asked = TextOptions { label_column: Some("answer".into()), ..TextOptions::default() };
        assert_eq!(kept(&asked), ([true; 4], vec![], vec![]));
    }

    #[test]
    fn wrong_rows_say_what_is_wrong() {
        let regression = TextOptions { task: Some(Task::Regression), ..TextOptions::default() };
        let text = TextOptions { text_column: Some("body".into()), ..TextOptions::default() };
        let cases = [
            (TextOptions::default(), json!([1]), "expected an object"),
            (TextOptions::default(), json!({"a": 1, "label": 1}), "text_column: there is no column text, sentence"),
            (TextOptions::default(), json!({"text": "a", "b": 1}), "label_column"),
            (text, json!({"text": "a", "label": 1}), "no column `body`; found text, label"),
            (TextOptions::default(), json!({"text": null, "label": 1}), "column `text`: found null, expected a text"),
            (TextOptions::default(), json!({"text": "a", "label": ""}), "is empty"),
            (TextOptions::default(), json!({"text": "a", "label": null}), "found null, expected a label"),
            (regression.clone(), json!({"text": "a", "label": "NaN"}), "expected a number"),
            (regression, json!({"text": "a", "label": "x"}), "expected a number"),
        ];
        for (options, value, part) in cases {
            let problem = read(&options, None, &Features::default(), value).unwrap_err();
            assert!(problem.contains(part), "{problem}");
        }
    }
}
