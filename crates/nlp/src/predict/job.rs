//! Prediction over a whole file with any engine: texts read, encoded, scored in batches of like lengths, and written in their order.
use std::path::Path;

use serde::Serialize;
use serde_json::{Map, Value};

use super::{
    AggregationStrategy, EntityContext, FunctionToApply, InputItem, InputOptions, InputReader, InputText,
    PipelineTokenizer, PredictionRow, ResultWriter, ScoredRow, top_labels,
};
use crate::{Error, batch, crf::Crf, task::Task};

/// Batches whose texts are read, sorted by length and scored together.
const BATCHES_A_CHUNK: usize = 16;

/// Sub-tokens, padding included, in one batch: 32 rows of 512. What attention takes grows with the rows and with the square of their length, so that
/// long rows go fewer at a time.
const TOKENS: usize = 1 << 14;

/// An engine with a model.
pub trait Scorer {
    /// What can go wrong in it.
    type Error: From<Error>;

    /// The model's output (logits) for a batch: [rows, length, labels] for tagged words, else [rows, labels]; row-major.
    fn logits(&mut self, batch: &batch::Batch) -> Result<Vec<f32>, Self::Error>;
}

/// What to make of the model's output.
#[derive(Debug, Clone)]
pub struct PredictOptions {
    /// What the model says of a text.
    pub task: Task,
    /// Labels by id.
    pub labels: Vec<String>,
    /// Tagged words: that of the model's head, where it has one.
    pub crf: Option<Crf>,
    /// Fills up rows.
    pub pad_token_id: usize,
    /// Rows given to the model together at most; of rows longer than 512 sub-tokens fewer, so that no batch has more than 16384.
    pub batch_size: usize,
    /// Tagged words: how sub-tokens become entities.
    pub aggregation_strategy: AggregationStrategy,
    /// Tagged words: types to leave out.
    pub ignore_labels: Vec<String>,
    /// Texts: what makes scores of the output.
    pub function_to_apply: FunctionToApply,
    /// Texts: how many labels to give, the best first; 0 means all.
    pub top_k: usize,
    /// Entities and labels with a lower score are left out; not where the output is told as it is.
    pub threshold: f32,
}

/// What was done.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Summary {
    /// Texts with a result, those of earlier attempts included.
    pub texts: usize,
    /// Texts done by this attempt.
    pub predicted: usize,
    /// Rows given to the model by this attempt: more than texts when texts go in windows.
    pub rows: usize,
    /// Entities or labels written by this attempt.
    pub answers: usize,
    /// Whether it was told to stop before the end.
    pub stopped: bool,
}

/// Predicts.
pub struct Predictor {
    tokenizer: PipelineTokenizer,
    options: PredictOptions,
}

impl Predictor {
    /// Checks the options.
    pub fn new(tokenizer: PipelineTokenizer, options: PredictOptions) -> Result<Self, Error> {
        if options.batch_size == 0 {
            return Err(Error::argument("batch_size", "found 0, expected 1 or more"));
        }
        if !(0.0..=1.0).contains(&options.threshold) {
            return Err(Error::argument("threshold", format!("found {}, expected 0 to 1", options.threshold)));
        }
        if options.labels.is_empty() {
            return Err(Error::argument("labels", "the model has none"));
        }
        Ok(Self { tokenizer, options })
    }

    /// Predicts on every text of `input` that `writer` has no result for yet. The file is read once before, so that a malformed
    /// line is found before the model runs. `go_on` is told the texts done and those in all, and says whether to go on.
    pub fn run<S: Scorer>(
        &self,
        scorer: &mut S,
        input: &Path,
        options: &InputOptions,
        writer: &mut ResultWriter,
        go_on: &mut dyn FnMut(usize, usize) -> bool,
    ) -> Result<Summary, S::Error> {
        let total = self.check(input, options)?;
        let mut summary = Summary { texts: writer.rows(), ..Summary::default() };
        let mut items = InputReader::open(input, options)?.skip(writer.rows());
        loop {
            if !go_on(summary.texts, total) {
                summary.stopped = true;
                return Ok(summary);
            }
            let chunk: Vec<InputItem> =
                items.by_ref().take(self.options.batch_size * BATCHES_A_CHUNK).collect::<Result<_, Error>>()?;
            if chunk.is_empty() {
                return Ok(summary);
            }
            let inputs: Vec<&InputText> = chunk.iter().map(|item| &item.input).collect();
            let answers = self.predict(scorer, &inputs, &mut summary.rows)?;
            for (item, answer) in chunk.into_iter().zip(answers) {
                let mut fields = Map::new();
                fields.insert("line".to_owned(), item.line.into());
                fields.extend(item.id.map(|id| ("id".to_owned(), id)));
                summary.answers += answer.as_array().map_or(0, Vec::len);
                fields.insert(self.answer_key().to_owned(), answer);
                writer.push(fields)?;
                summary.texts += 1;
                summary.predicted += 1;
            }
            writer.flush()?;
        }
    }

    /// Reads the whole file and gives the number of its texts; an error for one that the model does not take.
    fn check(&self, input: &Path, options: &InputOptions) -> Result<usize, Error> {
        let mut count = 0;
        for item in InputReader::open(input, options)? {
            let item = item?;
            if matches!(item.input, InputText::Pair(..)) && !self.options.task.is_sequence() {
                let problem = format!("found `{}`, but a model that tags words takes one text", options.pair_column);
                return Err(Error::data(input, item.line, problem));
            }
            count += 1;
        }
        Ok(count)
    }

    fn answer_key(&self) -> &'static str {
        if self.options.task.is_sequence() { "labels" } else { "entities" }
    }

    /// The answers for some texts, as the pipelines write them; `rows` counts what the model was given.
    pub fn predict<S: Scorer>(
        &self,
        scorer: &mut S,
        inputs: &[&InputText],
        rows: &mut usize,
    ) -> Result<Vec<Value>, S::Error> {
        let cut: Vec<Vec<PredictionRow>> =
            inputs.iter().map(|input| self.tokenizer.rows(input)).collect::<Result<_, Error>>()?;
        let flat: Vec<&PredictionRow> = cut.iter().flatten().collect();
        let outputs = self.outputs(scorer, &flat)?;
        *rows += flat.len();
        let mut outputs = outputs.iter();
        let mut answers = Vec::with_capacity(inputs.len());
        for (input, cut) in inputs.iter().zip(&cut) {
            let outputs: Vec<&[f32]> = outputs.by_ref().take(cut.len()).map(Vec::as_slice).collect();
            answers.push(self.answer(input, cut, &outputs)?);
        }
        Ok(answers)
    }

    /// Outputs of the model by row, without those of padding.
    fn outputs<S: Scorer>(&self, scorer: &mut S, rows: &[&PredictionRow]) -> Result<Vec<Vec<f32>>, S::Error> {
        let lengths: Vec<usize> = rows.iter().map(|row| row.encoded.length()).collect();
        let width = self.options.labels.len();
        let sequence = self.options.task.is_sequence();
        let mut outputs = vec![Vec::new(); rows.len()];
        for members in batch::by_length_within(&lengths, self.options.batch_size, TOKENS) {
            let padded = batch::pad(members.iter().map(|row| &rows[*row].encoded), 0, self.options.pad_token_id);
            let logits = scorer.logits(&padded)?;
            let cells = if sequence { width } else { padded.length * width };
            if logits.len() != members.len() * cells {
                let problem = format!("the model gave {} values, expected {}", logits.len(), members.len() * cells);
                return Err(Error::argument("labels", problem).into());
            }
            for (row, values) in members.into_iter().zip(logits.chunks_exact(cells.max(1))) {
                let used = if sequence { width } else { lengths[row] * width };
                outputs[row] = values[..used].to_vec();
            }
        }
        Ok(outputs)
    }

    fn answer(&self, input: &InputText, cut: &[PredictionRow], outputs: &[&[f32]]) -> Result<Value, Error> {
        let options = &self.options;
        let json = |value: serde_json::Result<Value>| {
            value.map_err(|e| Error::argument("labels", format!("the answer cannot be written: {e}")))
        };
        if options.task.is_sequence() {
            let scores = options.function_to_apply.apply(outputs.first().copied().unwrap_or_default());
            let mut labels = top_labels(&options.labels, &scores, options.top_k)?;
            if options.function_to_apply != FunctionToApply::None {
                labels.retain(|label| label.score >= options.threshold);
            }
            return json(serde_json::to_value(labels));
        }
        let text: Vec<char> = input.text().chars().collect();
        let scored: Vec<ScoredRow<'_>> = cut.iter().zip(outputs).map(|(row, logits)| row.scored(logits)).collect();
        let context = EntityContext {
            text: &text,
            labels: &options.labels,
            tokenizer: &self.tokenizer,
            strategy: options.aggregation_strategy,
            crf: options.crf.as_ref(),
            ignore_labels: &options.ignore_labels,
        };
        let mut entities = context.entities(&scored)?;
        entities.retain(|entity| entity.score >= options.threshold);
        json(serde_json::to_value(entities))
    }
}

#[cfg(test)]
mod tests {
    use std::{fs, path::PathBuf};

    use super::*;
    use crate::{files, testing};

    /// A model by rule: a sub-token is a place when it is a `b` (7 of the tiny vocabulary); a text is long when it has over six sub-tokens.
    struct Rule {
        labels: usize,
        tokens: bool,
        batches: Vec<(usize, usize)>,
        fails_after: Option<usize>,
    }

    impl Scorer for Rule {
        type Error = Error;

        fn logits(&mut self, batch: &batch::Batch) -> Result<Vec<f32>, Error> {
            if self.fails_after == Some(self.batches.len()) {
                return Err(Error::argument("engine", "gone"));
            }
            self.batches.push((batch.rows, batch.length));
            let score = |yes: bool| (0..self.labels).map(move |label| if (label == 1) == yes { 3.0 } else { 0.0 });
            if self.tokens {
                return Ok(batch.input_ids.iter().flat_map(|id| score(*id == 7)).collect());
            }
            let lengths = batch.attention_mask.chunks(batch.length).map(|mask| mask.iter().sum::<i64>());
            Ok(lengths.flat_map(|length| score(length > 6)).collect())
        }
    }

    struct Files {
        dir: tempfile::TempDir,
        input: PathBuf,
    }

    impl Files {
        fn new(rows: usize) -> Self {
            let dir = tempfile::tempdir().unwrap();
            let path = dir.path().join("tokenizer.json");
            files::write_file(&path, testing::tokenizer_json(&["paris"]).to_string().as_bytes()).unwrap();
            let input = dir.path().join("texts.txt");
            let texts: Vec<String> = (0..rows).map(|row| format!("{}paris", "a b ".repeat(row % 7))).collect();
            fs::write(&input, texts.join("\n")).unwrap();
            Self { dir, input }
        }

        fn predictor(&self, task: Task, stride: Option<usize>) -> Predictor {
            self.predictor_of(task, 12, stride)
        }

        fn predictor_of(&self, task: Task, max_length: usize, stride: Option<usize>) -> Predictor {
            let path = self.dir.path().join("tokenizer.json");
            let tokenizer = PipelineTokenizer::load(&path, max_length, stride).unwrap();
            let labels = if task == Task::TokenClassification { ["O", "B-loc"] } else { ["short", "long"] };
            let options = PredictOptions {
                task,
                labels: labels.map(str::to_owned).to_vec(),
                pad_token_id: 0,
                batch_size: 4,
                aggregation_strategy: AggregationStrategy::Simple,
                crf: None,
                ignore_labels: vec!["O".to_owned()],
                function_to_apply: FunctionToApply::of(task, labels.len()),
                top_k: 1,
                threshold: 0.0,
            };
            Predictor::new(tokenizer, options).unwrap()
        }

        fn writer(&self) -> ResultWriter {
            ResultWriter::open(&self.dir.path().join("work"), "key").unwrap()
        }

        fn finish(&self, writer: ResultWriter) -> Vec<Value> {
            let target = self.dir.path().join("results.jsonl");
            writer.finish(&target).unwrap();
            fs::read_to_string(target).unwrap().lines().map(|line| serde_json::from_str(line).unwrap()).collect()
        }
    }

    fn rule(tokens: bool) -> Rule {
        Rule { labels: 2, tokens, batches: Vec::new(), fails_after: None }
    }

    #[test]
    fn results_keep_the_order_and_batches_the_lengths() {
        let files = Files::new(100);
        let predictor = files.predictor(Task::SequenceClassification, None);
        let (mut model, mut writer, mut seen) = (rule(false), files.writer(), Vec::new());
        let options = InputOptions::default();
        let mut go_on = |done, total| {
            seen.push((done, total));
            true
        };
        let summary = predictor.run(&mut model, &files.input, &options, &mut writer, &mut go_on).unwrap();
        assert_eq!((summary.texts, summary.predicted, summary.rows, summary.answers), (100, 100, 100, 100));
        assert_eq!(seen, [(0, 100), (64, 100), (100, 100)]);
        assert!(model.batches.iter().all(|(rows, length)| *rows <= 4 && *length <= 12));
        let results = files.finish(writer);
        for (row, result) in results.iter().enumerate() {
            let label = if 2 * (row % 7) + 3 > 6 { "long" } else { "short" };
            assert_eq!(
                (result["line"].as_u64(), result["labels"][0]["label"].as_str()),
                (Some(row as u64 + 1), Some(label))
            );
        }
    }

    #[test]
    fn a_broken_run_goes_on_where_it_stopped() {
        let files = Files::new(150);
        let predictor = files.predictor(Task::TokenClassification, None);
        let options = InputOptions::default();
        let mut whole = files.writer();
        predictor.run(&mut rule(true), &files.input, &options, &mut whole, &mut |_, _| true).unwrap();
        let expected = files.finish(whole);

        let mut writer = files.writer();
        let mut broken = Rule { fails_after: Some(20), ..rule(true) };
        predictor.run(&mut broken, &files.input, &options, &mut writer, &mut |_, _| true).unwrap_err();
        drop(writer);
        let mut writer = files.writer();
        assert_eq!(writer.rows(), 64);
        let mut stop_at_once = |done, _| done < 128;
        let summary = predictor.run(&mut rule(true), &files.input, &options, &mut writer, &mut stop_at_once).unwrap();
        assert!(summary.stopped && summary.texts == 128 && summary.predicted == 64);
        drop(writer);
        let mut writer = files.writer();
        predictor.run(&mut rule(true), &files.input, &options, &mut writer, &mut |_, _| true).unwrap();
        assert_eq!(files.finish(writer), expected);
    }

    #[test]
    fn windows_reach_the_end_of_long_texts() {
        let files = Files::new(7);
        let options = InputOptions::default();
        let ends = |stride| {
            let predictor = files.predictor(Task::TokenClassification, stride);
            let mut writer = files.writer();
            let summary =
                predictor.run(&mut rule(true), &files.input, &options, &mut writer, &mut |_, _| true).unwrap();
            let last = files.finish(writer).pop().unwrap();
            (summary.rows, last["entities"].as_array().unwrap().iter().filter_map(|e| e["end"].as_u64()).max())
        };
        // The last text has 13 sub-tokens, of which a row holds 10: cut after `b` of the fifth pair, or whole in two windows.
        let (cut, windows) = (ends(None), ends(Some(4)));
        assert_eq!((cut.0, windows.0), (7, 9));
        assert!(windows.1 > cut.1, "{cut:?} {windows:?}");
    }

    #[test]
    fn long_rows_go_fewer_at_a_time() {
        let files = Files::new(5);
        let predictor = files.predictor_of(Task::SequenceClassification, 8192, None);
        let long = InputText::Text("a ".repeat(8200));
        let short = InputText::Text("a".to_owned());
        let (mut model, mut rows) = (rule(false), 0);
        predictor.predict(&mut model, &[&long, &short, &long, &long, &short], &mut rows).unwrap();
        // Padded to the longest of the batch.
        assert_eq!((rows, model.batches.as_slice()), (5, &[(2, 8192), (2, 8192), (1, 3)][..]));
    }

    #[test]
    fn malformed_lines_stop_before_the_model_runs() {
        let files = Files::new(3);
        let path = files.dir.path().join("texts.jsonl");
        fs::write(&path, "{\"text\": \"a\"}\n{}\n").unwrap();
        let predictor = files.predictor(Task::TokenClassification, None);
        let (mut model, mut writer) = (rule(true), files.writer());
        let error =
            predictor.run(&mut model, &path, &InputOptions::default(), &mut writer, &mut |_, _| true).unwrap_err();
        assert!(matches!(error, Error::Data { line: 2, .. }) && model.batches.is_empty(), "{error}");
        fs::write(&path, "{\"text\": \"a\", \"text_pair\": \"b\"}\n").unwrap();
        let error =
            predictor.run(&mut model, &path, &InputOptions::default(), &mut writer, &mut |_, _| true).unwrap_err();
        assert!(matches!(error, Error::Data { line: 1, .. }) && error.to_string().contains("`text_pair`"), "{error}");
    }
}
