//! The worst rows of a split, for a person to read: what was expected, what was predicted, how sure the model was, and where to
//! find the row in the data file.
use std::{fmt::Write as _, path::Path};

use serde::{Deserialize, Serialize};

use super::{TokenPredictions, calibration::negative_log, pair};
use crate::{
    Error, files,
    seqeval::{Entity, Mode, entities},
};

/// Characters shown of a word or a text.
const LONGEST_WORD: usize = 60;

/// Characters shown of a text.
pub(super) const LONGEST_TEXT: usize = 600;

/// By what rows are put in order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Order {
    /// Highest loss first; by errors where there is none.
    #[default]
    Loss,
    /// Most errors first, of equals the higher loss.
    Errors,
}

/// How much is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Limits {
    /// Rows.
    pub examples: usize,
    /// Words of a row, around its first error.
    pub words: usize,
    /// By what rows are chosen.
    pub order: Order,
}

impl Default for Limits {
    fn default() -> Self {
        Self { examples: 50, words: 80, order: Order::Loss }
    }
}

/// What is wrong with an entity.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Mistake {
    /// Not predicted.
    Missed,
    /// Not there.
    Spurious,
    /// Right words, wrong type.
    Type,
    /// Right type, wrong words.
    Boundary,
    /// Some of the words, wrong type.
    TypeAndBoundary,
}

/// An entity of an example; words are counted in the whole row.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Span {
    /// Type.
    pub label: String,
    /// First word.
    pub start: usize,
    /// Word after the last.
    pub end: usize,
    /// Mean probability of its tags; of predicted entities only.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub score: Option<f64>,
    /// None: right.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mistake: Option<Mistake>,
}

/// A row of tagged words.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct WorstSentence {
    /// Line of the data file where the row begins, counted from 1.
    pub line: usize,
    /// Wrong entities: pairs count once.
    pub errors: usize,
    /// Mean negative logarithm of the right tags' probabilities, over the words that the model saw.
    pub loss: Option<f64>,
    /// Words of the whole row.
    pub word_count: usize,
    /// First word shown.
    pub first_word: usize,
    /// The words shown, long ones shortened.
    pub words: Vec<String>,
    /// Expected.
    pub gold: Vec<Span>,
    /// Predicted.
    pub predicted: Vec<Span>,
}

/// The rows with errors, the worst first. `words` and `lines` are by sentence, as the predictions, which must have passed
/// [`super::evaluate_tokens`].
pub fn worst_sentences(
    predictions: &TokenPredictions<'_>,
    words: &[&[String]],
    lines: &[usize],
    limits: &Limits,
) -> Vec<WorstSentence> {
    let mut ranked: Vec<(usize, usize, Option<f64>)> = (0..predictions.gold.len().min(words.len()))
        .map(|sentence| (sentence, mistakes(predictions, sentence), loss(predictions, sentence)))
        .filter(|(_, errors, _)| *errors > 0)
        .collect();
    let by_loss = limits.order == Order::Loss && predictions.probabilities.is_some();
    ranked.sort_by(|one, other| {
        let loss = || other.2.unwrap_or(0.0).total_cmp(&one.2.unwrap_or(0.0));
        let errors = || other.1.cmp(&one.1);
        if by_loss { loss().then_with(errors) } else { errors().then_with(loss) }
    });
    let example = |(sentence, errors, loss): (usize, usize, Option<f64>)| {
        let line = lines.get(sentence).copied().unwrap_or(0);
        example(predictions, sentence, words[sentence], limits).with(line, errors, loss)
    };
    ranked.into_iter().take(limits.examples).map(example).collect()
}

impl WorstSentence {
    fn with(self, line: usize, errors: usize, loss: Option<f64>) -> Self {
        Self { line, errors, loss, ..self }
    }
}

fn mistakes(predictions: &TokenPredictions<'_>, sentence: usize) -> usize {
    let gold = entities(&predictions.gold[sentence], Mode::Default);
    let predicted = entities(&predictions.predicted[sentence], Mode::Default);
    pair(&gold, &predicted).iter().filter(|pair| pair.gold != pair.predicted).count()
}

fn label_id(predictions: &TokenPredictions<'_>, tag: &str) -> Option<usize> {
    predictions.labels.iter().position(|label| label == tag)
}

/// The probabilities of a word; none when the model did not see it.
fn word<'a>(predictions: &TokenPredictions<'a>, sentence: usize, word: usize) -> Option<&'a [f32]> {
    let width = predictions.labels.len();
    let row = predictions.probabilities?.get(sentence)?.get(word * width..(word + 1) * width)?;
    row.iter().any(|p| *p > 0.0).then_some(row)
}

fn loss(predictions: &TokenPredictions<'_>, sentence: usize) -> Option<f64> {
    let tags = predictions.gold[sentence].iter().enumerate();
    let losses: Vec<f64> = tags
        .filter_map(|(index, tag)| {
            let probability = *word(predictions, sentence, index)?.get(label_id(predictions, tag)?)?;
            Some(negative_log(f64::from(probability)))
        })
        .collect();
    (!losses.is_empty()).then(|| losses.iter().sum::<f64>() / losses.len() as f64)
}

fn score(predictions: &TokenPredictions<'_>, sentence: usize, entity: &Entity<'_>) -> Option<f64> {
    let of_word = |index: usize| -> Option<f64> {
        let id = label_id(predictions, predictions.predicted[sentence].get(index)?)?;
        Some(f64::from(*word(predictions, sentence, index)?.get(id)?))
    };
    let scores: Vec<f64> = (entity.start..entity.end).filter_map(of_word).collect();
    (!scores.is_empty()).then(|| scores.iter().sum::<f64>() / scores.len() as f64)
}

fn example(predictions: &TokenPredictions<'_>, sentence: usize, words: &[String], limits: &Limits) -> WorstSentence {
    let gold = entities(&predictions.gold[sentence], Mode::Default);
    let predicted = entities(&predictions.predicted[sentence], Mode::Default);
    let (mut gold_spans, mut predicted_spans) = (Vec::new(), Vec::new());
    let mut first_error = usize::MAX;
    for pair in pair(&gold, &predicted) {
        let mistake = match (pair.gold, pair.predicted) {
            (Some(gold), Some(found)) => {
                let same_words = (gold.start, gold.end) == (found.start, found.end);
                match (same_words, gold.label == found.label) {
                    (true, true) => None,
                    (true, false) => Some(Mistake::Type),
                    (false, true) => Some(Mistake::Boundary),
                    (false, false) => Some(Mistake::TypeAndBoundary),
                }
            }
            (Some(_), None) => Some(Mistake::Missed),
            (None, _) => Some(Mistake::Spurious),
        };
        let span = |entity: Entity<'_>, score| Span {
            label: entity.label.to_owned(),
            start: entity.start,
            end: entity.end,
            score,
            mistake,
        };
        if mistake.is_some() {
            let starts = [pair.gold, pair.predicted].into_iter().flatten().map(|entity| entity.start);
            first_error = starts.fold(first_error, usize::min);
        }
        gold_spans.extend(pair.gold.map(|entity| span(entity, None)));
        predicted_spans.extend(pair.predicted.map(|entity| span(entity, score(predictions, sentence, &entity))));
    }
    // A quarter of what is shown stands before the first error.
    let latest = words.len().saturating_sub(limits.words);
    let first_word = first_error.saturating_sub(limits.words / 4).min(latest);
    gold_spans.sort_by_key(|span| span.start);
    predicted_spans.sort_by_key(|span| span.start);
    WorstSentence {
        line: 0,
        errors: 0,
        loss: None,
        word_count: words.len(),
        first_word,
        words: words.iter().skip(first_word).take(limits.words).map(|word| shortened(word, LONGEST_WORD)).collect(),
        gold: gold_spans,
        predicted: predicted_spans,
    }
}

/// A text on one line, cut after so many characters.
pub(super) fn shortened(text: &str, longest: usize) -> String {
    let mut shown: String = text.chars().take(longest).map(|c| if c.is_control() { ' ' } else { c }).collect();
    if text.chars().nth(longest).is_some() {
        shown.push('…');
    }
    shown
}

/// Examples of either kind that can be shown.
pub trait Example: Serialize {
    /// Heading and lines, for a fenced block.
    fn shown(&self) -> (String, Vec<String>);
}

impl Example for WorstSentence {
    fn shown(&self) -> (String, Vec<String>) {
        let loss = self.loss.map_or_else(String::new, |loss| format!(", loss {loss:.3}"));
        let plural = if self.errors == 1 { "" } else { "s" };
        let heading = format!("line {}: {} error{plural}{loss}", self.line, self.errors);
        let sides = [("gold     ", &self.gold), ("predicted", &self.predicted)];
        (heading, sides.into_iter().map(|(name, spans)| format!("{name}  {}", self.marked(spans))).collect())
    }
}

impl WorstSentence {
    /// The words shown with their entities in brackets, and `!` before those that are wrong.
    fn marked(&self, spans: &[Span]) -> String {
        let last = self.first_word + self.words.len();
        let mut text = if self.first_word > 0 { "… ".to_owned() } else { String::new() };
        for (index, word) in (self.first_word..).zip(&self.words) {
            let inside = spans.iter().find(|span| span.start <= index && index < span.end);
            if let Some(span) = inside.filter(|span| span.start == index || index == self.first_word) {
                text.push_str(if span.mistake.is_some() { "![" } else { "[" });
            }
            text.push_str(word);
            if let Some(span) = inside.filter(|span| span.end == index + 1 || index + 1 == last) {
                let score = span.score.map_or_else(String::new, |score| format!(" {score:.2}"));
                // Writing to a string cannot fail.
                let _ = write!(text, "]({}{score})", span.label);
            }
            text.push(' ');
        }
        if last < self.word_count {
            text.push('…');
        }
        text.trim_end().to_owned()
    }
}

/// The examples in Markdown under a title.
pub fn markdown<E: Example>(title: &str, examples: &[E]) -> String {
    let mut text = format!("# {}\n", shortened(title, 200));
    if examples.is_empty() {
        text.push_str("\nNothing is wrong.\n");
    }
    for (number, example) in (1..).zip(examples) {
        let (heading, lines) = example.shown();
        let body = lines.join("\n");
        // Longer than any row of backticks inside, so that nothing inside ends the block.
        let longest = body.split(|c| c != '`').map(str::len).max().unwrap_or(0);
        let fence = "`".repeat(longest.max(2) + 1);
        let _ = write!(text, "\n## {number}. {}\n{fence}text\n{body}\n{fence}\n", heading.replace(['`', '<'], " "));
    }
    text
}

/// Writes `worst.md` for people and `worst.jsonl`, an example a line, for programs; each replaces its target in one step.
pub fn write_worst<E: Example>(folder: &Path, title: &str, examples: &[E]) -> Result<(), Error> {
    files::write_file(&folder.join("worst.md"), markdown(title, examples).as_bytes())?;
    let path = folder.join("worst.jsonl");
    let mut lines = Vec::new();
    for example in examples {
        serde_json::to_writer(&mut lines, example).map_err(|e| Error::format(&path, e.to_string()))?;
        lines.push(b'\n');
    }
    files::write_file(&path, &lines)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn split(lines: &[&str]) -> Vec<Vec<String>> {
        lines.iter().map(|line| line.split(' ').map(str::to_owned).collect()).collect()
    }

    struct Case {
        labels: Vec<String>,
        gold: Vec<Vec<String>>,
        predicted: Vec<Vec<String>>,
        probabilities: Vec<Vec<f32>>,
        words: Vec<Vec<String>>,
    }

    impl Case {
        fn new(gold: &[&str], predicted: &[&str], words: &[&str], sure: &[f32]) -> Self {
            let labels: Vec<String> = ["O", "B-a", "I-a", "B-b"].map(str::to_owned).to_vec();
            let predicted = split(predicted);
            let row = |tag: &String, sure: f32| -> Vec<f32> {
                labels.iter().map(|label| if label == tag { sure } else { (1.0 - sure) / 3.0 }).collect()
            };
            let probabilities = predicted
                .iter()
                .zip(sure)
                .map(|(tags, sure)| tags.iter().flat_map(|tag| row(tag, *sure)).collect())
                .collect();
            Self { gold: split(gold), predicted, words: split(words), probabilities, labels }
        }

        fn worst(&self, limits: &Limits) -> Vec<WorstSentence> {
            let predictions = TokenPredictions {
                labels: &self.labels,
                gold: &self.gold,
                predicted: &self.predicted,
                probabilities: Some(&self.probabilities),
            };
            let words: Vec<&[String]> = self.words.iter().map(Vec::as_slice).collect();
            let lines: Vec<usize> = (1..=words.len()).map(|line| 10 * line).collect();
            worst_sentences(&predictions, &words, &lines, limits)
        }
    }

    #[test]
    fn rows_come_by_loss_or_by_errors_and_right_ones_never() {
        let case = Case::new(
            &["B-a O", "B-a O B-b", "B-a I-a O"],
            &["B-a O", "O B-a B-a", "B-a O O"],
            &["x y", "one `two` three", "Empire State building"],
            &[0.4, 0.6, 0.999],
        );
        let lines =
            |order| case.worst(&Limits { order, ..Limits::default() }).iter().map(|e| e.line).collect::<Vec<_>>();
        assert_eq!(lines(Order::Loss), [30, 20]);
        assert_eq!(lines(Order::Errors), [20, 30]);
        assert_eq!(case.worst(&Limits { examples: 1, ..Limits::default() }).len(), 1);
        let text = markdown("Worst rows", &case.worst(&Limits { order: Order::Errors, ..Limits::default() }));
        for part in [
            "## 1. line 20: 3 errors, loss",
            "gold       ![one](a) `two` ![three](b)\npredicted  one ![`two`](a 0.60) ![three](a 0.60)",
            "gold       ![Empire State](a) building\npredicted  ![Empire](a 1.00) State building",
        ] {
            assert!(text.contains(part), "{part} in\n{text}");
        }
    }

    #[test]
    fn long_rows_are_shown_around_their_first_error() {
        let long = |tag: &str| format!("{}{tag}{}", "O ".repeat(300), " O".repeat(300));
        let words = vec!["w"; 601].join(" ");
        let case = Case::new(&[&long("B-a")], &[&long("B-b")], &[&words], &[0.9]);
        let example = &case.worst(&Limits { words: 20, ..Limits::default() })[0];
        assert_eq!((example.first_word, example.words.len(), example.word_count), (295, 20, 601));
        assert_eq!(example.predicted[0].mistake, Some(Mistake::Type));
        let shown = example.shown().1;
        assert!(shown[0].contains("… w w w w w ![w](a) w") && shown[0].ends_with('…'), "{shown:?}");
    }

    #[test]
    fn both_files_are_written() {
        let dir = tempfile::tempdir().unwrap();
        let case = Case::new(&["B-a"], &["O"], &["``` <b>"], &[0.9]);
        let case = Case { words: vec![vec!["```\n<b>".to_owned()]], ..case };
        write_worst(dir.path(), "Worst", &case.worst(&Limits::default())).unwrap();
        let text = std::fs::read_to_string(dir.path().join("worst.md")).unwrap();
        assert!(text.contains("````text\ngold       ![``` <b>](a)\npredicted  ``` <b>\n````\n"), "{text}");
        let line = std::fs::read_to_string(dir.path().join("worst.jsonl")).unwrap();
        let back: WorstSentence = serde_json::from_str(line.trim()).unwrap();
        assert_eq!((back.gold[0].mistake, back.line), (Some(Mistake::Missed), 10));
        assert!(markdown::<WorstSentence>("t", &[]).contains("Nothing is wrong"));
    }
}
