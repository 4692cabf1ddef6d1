//! What a split of a data set has to hold, and the kinds of its examples that folds and shares are dealt out by.
use std::{collections::BTreeSet, path::Path};

use super::{Answer, ClassSet, LabelSet, Sentence, TextExample, listed, parse_tag};
use crate::{Error, task::Task};

/// A split to train on or to select by needs an entity.
pub(crate) fn some_entity(split: &'static str, found: bool, path: &Path) -> Result<(), Error> {
    if found {
        return Ok(());
    }
    Err(Error::Split { split, problem: format!("`{}` has no entity: every tag is O", path.display()) })
}

/// The same of both parts of a split of which rows are held out; `entities` says of each row whether it has one.
pub(crate) fn some_entity_each(held: &[bool], entities: &[bool], path: &Path) -> Result<(), Error> {
    for (split, out, what) in [("train", false, "left"), ("validation", true, "held out")] {
        let ours = held.iter().zip(entities).filter(|(held, _)| **held == out);
        let (rows, found) = ours.fold((0, false), |(rows, found), (_, entity)| (rows + 1, found || *entity));
        if !found {
            let problem = format!(
                "the {rows} rows {what} of `{}` have no entity: every tag is O; hold out another share or other folds, or name a \
                 validation split",
                path.display()
            );
            return Err(Error::Split { split, problem });
        }
    }
    Ok(())
}

/// Whether any word of a sentence is tagged.
pub(crate) fn has_entity(sentence: &Sentence) -> bool {
    sentence.tags.iter().any(|tag| tag != "O")
}

/// Whether the labels of the training split cover a sentence of another.
pub(crate) fn known_tags(row: &Sentence, labels: &LabelSet, path: &Path) -> Result<(), Error> {
    match row.tags.iter().find(|tag| labels.id(tag).is_none()) {
        Some(tag) => {
            let problem = format!("label `{tag}` is unknown: the training split has {}", labels.types().join(", "));
            Err(Error::data(path, row.line, problem))
        }
        None => Ok(()),
    }
}

/// Whether the labels of the training split cover a text of another.
pub(crate) fn known_labels(row: &TextExample, labels: &ClassSet, path: &Path) -> Result<(), Error> {
    match row.answer.labels().find(|label| labels.id(label).is_none()) {
        Some(label) => {
            let known = listed(labels.names());
            // The cells of a table of texts do not say that they are numbers.
            let numbers = labels.names().iter().all(|name| name.parse::<f32>().is_ok()) && label.parse::<f32>().is_ok();
            let advice = if numbers { ", and numbers are learnt as numbers by task REGRESSION" } else { "" };
            let problem = format!(
                "label `{label}` is unknown: the training split has {known}; a file of labels may name more{advice}"
            );
            Err(Error::data(path, row.line, problem))
        }
        None => Ok(()),
    }
}

/// What kind of row a sentence is when rows are split: the types of its entities, sorted.
pub(crate) fn sentence_kind(sentence: &Sentence) -> String {
    let types: BTreeSet<&str> = sentence.tags.iter().filter_map(|tag| parse_tag(tag)?.kind()).collect();
    joined(types)
}

/// What kind of row a text is when rows are split: its labels.
pub(crate) fn answer_kind(answer: &Answer) -> String {
    joined(answer.labels())
}

/// Joined by a character below all that names have, so that kinds sort as lists of names do.
fn joined<'a>(names: impl IntoIterator<Item = &'a str>) -> String {
    names.into_iter().collect::<Vec<_>>().join("\u{1f}")
}

/// Whether the answers of a split differ, by the kinds of them that were found, of which two are enough: a split that has the same answer
/// everywhere teaches nothing, and nothing can be selected by it.
pub(crate) fn several_kinds(
    split: &'static str,
    rows: usize,
    kinds: &BTreeSet<String>,
    task: Task,
) -> Result<(), Error> {
    match kinds.first() {
        Some(kind) if kinds.len() == 1 && task != Task::Regression => {
            let labels = kind.replace('\u{1f}', ", ");
            let what = if labels.is_empty() { "no label".to_owned() } else { format!("label `{labels}`") };
            let problem = format!("all {rows} rows have {what}: there is nothing to tell apart");
            Err(Error::Split { split, problem })
        }
        _ => Ok(()),
    }
}
