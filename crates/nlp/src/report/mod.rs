//! What a data set holds and what is wrong with it, told before training: labels, lengths, rows that are cut, texts that two splits share and
//! texts with different answers. The files are read row by row; a text that was seen is remembered by 16 bytes.
mod counts;
mod show;

use std::collections::{BTreeMap, HashMap};

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use self::counts::{Counts, count};
use crate::{
    Error,
    align::sub_tokens,
    data::{
        Answer, Form, ReadOptions, Sentence, Sources, Tag, TextExample, TextOptions, TextReader,
        folder::SplitFiles,
        parse_tag, read_label_names,
        reader::{SentenceReader, read_texts},
        split_checks::answer_kind,
    },
    task::Task,
    tokenizer::WordTokenizer,
};

/// Cases shown of each kind of trouble.
const SHOWN: usize = 5;

/// The model that will read the data.
#[derive(Clone, Copy)]
pub struct Limits<'a> {
    /// Its tokenizer.
    pub tokenizer: &'a WordTokenizer,
    /// Longest row in sub-tokens, the special ones included.
    pub max_length: usize,
}

/// What a data set holds.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct DataReport {
    /// What a model can be trained to say with it.
    pub task: Task,
    /// `train`, then `validation` and `test` when they are there.
    pub splits: Vec<SplitSummary>,
    /// Texts that are in two splits.
    pub overlaps: Vec<Overlap>,
    /// Rows whose text occurs elsewhere with another answer.
    pub conflicting_rows: usize,
    /// The first of them.
    pub conflicts: Vec<Conflict>,
    /// What was changed or decided while reading, and what deserves a look.
    pub notes: Vec<String>,
}

/// One split.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SplitSummary {
    /// `train`, `validation` or `test`.
    pub name: String,
    /// Sentences or texts.
    pub rows: usize,
    /// Rows of white space alone.
    pub empty_rows: usize,
    /// Rows whose text came before in the same split.
    pub repeated_rows: usize,
    /// Entities by type, or rows by label.
    pub labels: BTreeMap<String, usize>,
    /// Rows without an entity, or without a label.
    pub unlabelled_rows: usize,
    /// The numbers of a regression.
    pub values: Option<Distribution>,
    /// Words a row.
    pub words: Distribution,
    /// Sub-tokens a row, the special ones included; needs a tokenizer.
    pub sub_tokens: Option<Distribution>,
    /// Rows longer than `max_length`.
    pub long_rows: usize,
    /// Entities that truncation cuts in two.
    pub cut_entities: usize,
    /// Entities that truncation takes away.
    pub lost_entities: usize,
}

/// How numbers are distributed; percentiles by the nearest rank.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct Distribution {
    /// Smallest.
    pub min: f64,
    /// Median.
    pub p50: f64,
    /// 90 % are not above it.
    pub p90: f64,
    /// 99 % are not above it.
    pub p99: f64,
    /// Largest.
    pub max: f64,
    /// Mean.
    pub mean: f64,
}

/// Texts that a split has in common with an earlier one.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Overlap {
    /// The split.
    pub split: String,
    /// The earlier one.
    pub with: String,
    /// Rows of `split` whose text is in `with`.
    pub rows: usize,
    /// The first of them: line in `split`, line in `with`.
    pub lines: Vec<(usize, usize)>,
}

/// A text with two answers.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Conflict {
    /// The text, cut when it is long.
    pub text: String,
    /// Split and line where it stands first.
    pub first: (String, usize),
    /// Split and line where it has another answer.
    pub second: (String, usize),
}

/// Reads a data set and reports on it.
///
/// # Errors
/// A file that cannot be read or is malformed; an empty split or unknown labels are told in the notes.
pub fn report(sources: &Sources, limits: Option<Limits<'_>>) -> Result<DataReport, Error> {
    let resolved = sources.resolve()?;
    let mut scan = Scan { limits, ..Scan::default() };
    let mut notes = resolved.notes.clone();
    let splits: Vec<(&'static str, &SplitFiles)> = [
        Some(("train", &resolved.train)),
        resolved.validation.as_ref().map(|files| ("validation", files)),
        resolved.test.as_ref().map(|files| ("test", files)),
    ]
    .into_iter()
    .flatten()
    .collect();
    let task = match &sources.form {
        Form::Tokens(read) => scan.sentences(&splits, read, &mut notes)?,
        Form::Text(read) => scan.texts(&splits, read, &mut notes)?,
    };
    let (splits, overlaps) = (std::mem::take(&mut scan.splits), std::mem::take(&mut scan.overlaps));
    let refused = refusals(task, &splits);
    let splits: Vec<SplitSummary> = splits.into_iter().map(Counts::finish).collect();
    notes.extend(remarks(task, &splits, resolved.validation.is_none().then_some(sources)));
    notes.extend(refused);
    Ok(DataReport {
        task,
        splits,
        overlaps: overlaps.into_values().collect(),
        conflicting_rows: scan.conflicting_rows,
        conflicts: scan.conflicts,
        notes,
    })
}

/// What training will refuse, as [`prepare`](crate::prepare::prepare) does: a split without a row, and one to train on or to select by that teaches
/// nothing.
fn refusals(task: Task, splits: &[Counts]) -> Vec<String> {
    let reason = |split: &Counts| match task {
        _ if split.rows == 0 => Some("has no row"),
        _ if split.name == "test" => None,
        Task::TokenClassification => split.labels.is_empty().then_some("has no entity"),
        Task::SequenceClassification => (split.kinds.len() < 2).then_some("has one label alone"),
        Task::MultiLabelClassification => (split.kinds.len() < 2).then_some("has the same labels in every row"),
        Task::Regression => None,
    };
    let told = |split: &Counts| Some(format!("{}: {}; training will refuse it", split.name, reason(split)?));
    splits.iter().filter_map(told).collect()
}

/// What deserves a look.
fn remarks(task: Task, splits: &[SplitSummary], held_out: Option<&Sources>) -> Vec<String> {
    let mut notes = Vec::new();
    if let Some(sources) = held_out {
        notes.push(match sources.fold {
            Some(fold) => format!("validation: fold {} of {} of train", fold.index, fold.n_splits),
            None => format!("validation: {} of train will be held out", sources.validation_fraction),
        });
    }
    let (train, others) = match splits {
        [train, others @ ..] => (train, others),
        [] => return notes,
    };
    if task != Task::Regression {
        for other in others {
            let unknown: Vec<&str> =
                other.labels.keys().filter(|label| !train.labels.contains_key(*label)).map(String::as_str).collect();
            if !unknown.is_empty() {
                notes.push(format!("{}: labels that train does not have: {}", other.name, unknown.join(", ")));
            }
        }
        let rare: Vec<&str> =
            train.labels.iter().filter(|(_, count)| **count == 1).map(|(label, _)| label.as_str()).collect();
        if !rare.is_empty() {
            let shown = rare.iter().take(SHOWN).copied().collect::<Vec<_>>().join(", ");
            notes.push(format!("train: {} labels occur once: {shown}", rare.len()));
        }
    }
    notes
}

/// First place of a text.
struct Seen {
    split: u8,
    line: u32,
    answer: u64,
}

#[derive(Default)]
struct Scan<'a> {
    limits: Option<Limits<'a>>,
    splits: Vec<Counts>,
    seen: HashMap<u128, Seen>,
    overlaps: BTreeMap<(usize, usize), Overlap>,
    conflicting_rows: usize,
    conflicts: Vec<Conflict>,
}

impl Scan<'_> {
    fn sentences(
        &mut self,
        splits: &[(&'static str, &SplitFiles)],
        read: &ReadOptions,
        notes: &mut Vec<String>,
    ) -> Result<Task, Error> {
        let mut reader = SentenceReader::default();
        for (name, files) in splits {
            self.splits.push(Counts::new(name));
            reader.read(files, read, &mut |_, sentence| self.sentence(&sentence, read.stride.is_some()))?;
            notes.extend(reader.notes(name));
        }
        Ok(Task::TokenClassification)
    }

    fn sentence(&mut self, sentence: &Sentence, windows: bool) -> Result<(), Error> {
        self.text(&sentence.words.join(" "), &sentence.tags.join(" "), sentence.line);
        let Some(counts) = self.splits.last_mut() else { return Ok(()) };
        counts.rows += 1;
        count(&mut counts.words, sentence.words.len());
        let entities = entities(&sentence.tags);
        for (kind, _) in &entities {
            *counts.labels.entry((*kind).to_owned()).or_default() += 1;
        }
        counts.unlabelled += usize::from(entities.is_empty());
        if let Some(limits) = self.limits {
            let tokens = sub_tokens(sentence, limits.tokenizer, usize::MAX)?;
            let cut = counts.tokens(&tokens, limits.max_length) && !windows;
            if cut {
                let closing = tokens.words.iter().rev().take_while(|word| word.is_none()).count();
                let room = limits.max_length.saturating_sub(closing);
                // The first word that loses something, and whether it keeps something.
                let first = tokens.words.get(room).copied().flatten().unwrap_or(sentence.words.len());
                let partly = room > 0 && tokens.words.get(room - 1) == Some(&Some(first));
                for (_, words) in &entities {
                    let lost = words.start > first || words.start == first && !partly;
                    counts.lost_entities += usize::from(lost);
                    counts.cut_entities += usize::from(!lost && words.end > first);
                }
            }
        }
        Ok(())
    }

    fn texts(
        &mut self,
        splits: &[(&'static str, &SplitFiles)],
        read: &TextOptions,
        notes: &mut Vec<String>,
    ) -> Result<Task, Error> {
        let names = read.labels.as_deref().map(read_label_names).transpose()?;
        let mut reader = TextReader::new(read, names);
        for (name, files) in splits {
            self.splits.push(Counts::new(name));
            read_texts(files, read, &mut reader, &mut |_, example| self.example(&example))?;
            notes.extend(reader.notes(name));
        }
        notes.extend(reader.decision());
        Ok(reader.task().unwrap_or(Task::SequenceClassification))
    }

    fn example(&mut self, example: &TextExample) -> Result<(), Error> {
        let labels: Vec<&str> = example.answer.labels().collect();
        let answer = match &example.answer {
            Answer::Value(value) => value.to_string(),
            _ => labels.join("\u{1f}"),
        };
        self.text(&example.key(), &answer, example.line);
        let Some(counts) = self.splits.last_mut() else { return Ok(()) };
        counts.rows += 1;
        if counts.kinds.len() < 2 {
            counts.kinds.insert(answer_kind(&example.answer));
        }
        let words = |text: &str| text.split_whitespace().count();
        let length = words(&example.text) + example.pair.as_deref().map_or(0, words);
        counts.empty += usize::from(length == 0);
        count(&mut counts.words, length);
        match &example.answer {
            Answer::Value(value) => counts.values.push(*value),
            _ => {
                counts.unlabelled += usize::from(labels.is_empty());
                labels.iter().for_each(|label| *counts.labels.entry((*label).to_owned()).or_default() += 1);
            }
        }
        if let Some(limits) = self.limits {
            let tokens = match &example.pair {
                Some(pair) => limits.tokenizer.encode_pair(&example.text, pair, usize::MAX)?,
                None => limits.tokenizer.encode_text(&example.text, usize::MAX)?,
            };
            counts.tokens(&tokens, limits.max_length);
        }
        Ok(())
    }

    /// Compares a text with those before.
    fn text(&mut self, text: &str, answer: &str, line: usize) {
        let split = self.splits.len() - 1;
        let hash = |text: &str| -> [u8; 32] { Sha256::digest(text).into() };
        let key = hash(text)[..16].iter().fold(0, |key, byte| key << 8 | u128::from(*byte));
        let answer = hash(answer)[..8].iter().fold(0, |key, byte| key << 8 | u64::from(*byte));
        let Some(seen) = self.seen.get(&key) else {
            let seen = Seen { split: split as u8, line: u32::try_from(line).unwrap_or(u32::MAX), answer };
            self.seen.insert(key, seen);
            return;
        };
        let (before, at) = (usize::from(seen.split), seen.line as usize);
        if before == split {
            self.splits[split].repeated += 1;
        } else {
            let overlap = self.overlaps.entry((split, before)).or_insert_with(|| Overlap {
                split: self.splits[split].name.to_owned(),
                with: self.splits[before].name.to_owned(),
                rows: 0,
                lines: Vec::new(),
            });
            overlap.rows += 1;
            if overlap.lines.len() < SHOWN {
                overlap.lines.push((line, at));
            }
        }
        if seen.answer != answer {
            self.conflicting_rows += 1;
            if self.conflicts.len() < SHOWN {
                let text = text.replace('\u{1f}', " | ");
                let cut = text.char_indices().nth(100).map_or(text.as_str(), |(end, _)| &text[..end]);
                self.conflicts.push(Conflict {
                    text: cut.to_owned(),
                    first: (self.splits[before].name.to_owned(), at),
                    second: (self.splits[split].name.to_owned(), line),
                });
            }
        }
    }
}

/// The entities of IOB2 tags: type and words.
fn entities(tags: &[String]) -> Vec<(&str, std::ops::Range<usize>)> {
    let mut found: Vec<(&str, std::ops::Range<usize>)> = Vec::new();
    for (index, tag) in tags.iter().enumerate() {
        match parse_tag(tag) {
            Some(Tag::Begin(kind)) => found.push((kind, index..index + 1)),
            Some(Tag::Inside(_)) => found.last_mut().into_iter().for_each(|(_, words)| words.end = index + 1),
            Some(Tag::Outside) | None => {}
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing;

    fn sources(dir: &std::path::Path, form: Form, splits: [&str; 2]) -> Sources {
        let paths = ["train", "test"].map(|name| dir.join(name));
        paths.iter().zip(splits).for_each(|(path, content)| std::fs::write(path, content).unwrap());
        let [train, test] = paths;
        Sources { train, validation: None, test: Some(test), form, validation_fraction: 0.1, seed: 1, fold: None }
    }

    #[test]
    fn texts_are_counted_and_compared() {
        let dir = tempfile::tempdir().unwrap();
        let form = Form::Text(TextOptions::default());
        let train = "text,label\na b,x\nc,y\na b,x\nc,x\n\" \",y\n";
        let found = report(&sources(dir.path(), form, [train, "text,label\na b,z\nd,x\n"]), None).unwrap();
        let [train, test] = found.splits.as_slice() else { panic!("{found:?}") };
        assert_eq!((train.rows, train.empty_rows, train.repeated_rows), (5, 1, 2));
        assert_eq!(train.labels, BTreeMap::from([("x".to_owned(), 3), ("y".to_owned(), 2)]));
        assert_eq!((train.words.min, train.words.p50, train.words.max, train.words.mean), (0.0, 1.0, 2.0, 1.2));
        assert_eq!((test.rows, found.overlaps.len(), &found.overlaps[0].lines), (2, 1, &vec![(2, 2)]));
        assert_eq!(found.conflicting_rows, 2);
        let places: Vec<_> = found.conflicts.iter().map(|c| (c.first.1, c.second.0.as_str(), c.second.1)).collect();
        assert_eq!(places, [(3, "train", 5), (2, "test", 2)]);
        let text = found.to_string();
        for part in [
            "train: 5 texts",
            "test: 1 rows have a text that is in train too (lines 2 = 2)",
            "test: labels that train does not have: z",
            "0.1 of train will be held out",
        ] {
            assert!(text.contains(part), "{part} is not in:\n{text}");
        }
        let json = serde_json::to_string(&found).unwrap();
        assert_eq!(serde_json::from_str::<DataReport>(&json).unwrap(), found);
    }

    #[test]
    fn what_training_will_refuse_is_told() {
        let dir = tempfile::tempdir().unwrap();
        let notes = |form: &Form, splits| {
            let mut notes = report(&sources(dir.path(), form.clone(), splits), None).unwrap().notes;
            notes.retain(|note| note.ends_with("training will refuse it"));
            notes.join(", ")
        };
        let tokens = Form::Tokens(ReadOptions::default());
        assert_eq!(notes(&tokens, ["a O\n", "a O\n"]), "train: has no entity; training will refuse it");
        assert_eq!(notes(&tokens, ["a B-x\n", ""]), "test: has no row; training will refuse it");
        let single = Form::Text(TextOptions::default());
        let (same, other) = ("text,label\na,x\nb,x\n", "text,label\na,x\nb,y\n");
        assert_eq!(notes(&single, [same, same]), "train: has one label alone; training will refuse it");
        assert_eq!(notes(&single, [other, same]), "");
        let several = Form::Text(TextOptions { task: Some(Task::MultiLabelClassification), ..TextOptions::default() });
        let both = "text,label\na,\"x,y\"\nb,\"y,x\"\n";
        assert_eq!(notes(&several, [both, both]), "train: has the same labels in every row; training will refuse it");
        assert_eq!(notes(&several, ["text,label\na,x\nb,\n", both]), "");
        let validation =
            Sources { validation: Some(dir.path().join("test")), ..sources(dir.path(), tokens, ["a B-x\n", "a O\n"]) };
        let found = report(&validation, None).unwrap().notes;
        assert!(found.contains(&"validation: has no entity; training will refuse it".to_owned()), "{found:?}");
    }

    #[test]
    fn entities_that_truncation_cuts_are_told() {
        let dir = tempfile::tempdir().unwrap();
        let tokenizer = testing::tokenizer(dir.path(), &[]);
        // [CLS] a b c [SEP] fit in 5.
        let train = "a O\nb B-x\nc I-x\nd I-x\ne B-y\n\na B-y\n";
        let read = |stride| {
            let form = Form::Tokens(ReadOptions { stride, ..ReadOptions::default() });
            let limits = Limits { tokenizer: &tokenizer, max_length: 5 };
            let found = report(&sources(dir.path(), form, [train, "a O\n"]), Some(limits)).unwrap();
            let train = found.splits[0].clone();
            (train.long_rows, train.cut_entities, train.lost_entities, train.sub_tokens.unwrap().max)
        };
        assert_eq!(read(None), (1, 1, 1, 7.0));
        assert_eq!(read(Some(1)), (1, 0, 0, 7.0));
    }
}
