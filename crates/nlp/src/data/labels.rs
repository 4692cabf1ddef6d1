//! The set of labels of a token classifier.
use std::collections::{BTreeSet, HashMap};

use super::{Sentence, Tag, parse_tag};
use crate::Error;

/// Labels with their ids.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LabelSet {
    names: Vec<String>,
    ids: HashMap<String, usize>,
}

impl LabelSet {
    /// `O` first, then `B-TYPE` and `I-TYPE` of every type found, types sorted. Both are there even when one does not occur:
    /// a model may need it on other text.
    pub fn of(sentences: &[Sentence]) -> Self {
        Self::of_tags(sentences.iter().flat_map(|sentence| &sentence.tags).map(String::as_str), None)
    }

    /// The classes that the data carries in the order of its ids, when they are IOB2 and all tags are among them; else as
    /// [`LabelSet::of`].
    pub fn of_tags<'a>(tags: impl Iterator<Item = &'a str>, classes: Option<Vec<String>>) -> Self {
        let tags: BTreeSet<&str> = tags.collect();
        let given = classes.and_then(|names| Self::from_names(names).ok());
        let fits = |labels: &Self| {
            labels.names.iter().all(|name| parse_tag(name).is_some()) && tags.iter().all(|tag| labels.id(tag).is_some())
        };
        given.filter(fits).unwrap_or_else(|| {
            let types: BTreeSet<&str> = tags.iter().filter_map(|tag| parse_tag(tag)?.kind()).collect();
            let pairs = types.into_iter().flat_map(|kind| [format!("B-{kind}"), format!("I-{kind}")]);
            Self::new(std::iter::once("O".to_owned()).chain(pairs).collect())
        })
    }

    /// The labels of a checkpoint, in the order of their ids; duplicates and a missing `O` are errors.
    pub fn from_names(names: Vec<String>) -> Result<Self, Error> {
        let labels = Self::new(names);
        if labels.ids.len() != labels.names.len() {
            return Err(Error::argument("labels", format!("not unique: {}", labels.names.join(", "))));
        }
        if labels.id("O").is_none() {
            return Err(Error::argument("labels", format!("`O` is not among {}", labels.names.join(", "))));
        }
        Ok(labels)
    }

    fn new(names: Vec<String>) -> Self {
        let ids = names.iter().enumerate().map(|(id, name)| (name.clone(), id)).collect();
        Self { names, ids }
    }

    /// Names in the order of their ids.
    pub fn names(&self) -> &[String] {
        &self.names
    }

    /// How many there are; at least `O`.
    #[allow(clippy::len_without_is_empty)] // never empty: `O` is always there
    pub fn len(&self) -> usize {
        self.names.len()
    }

    /// The id of a label.
    pub fn id(&self, name: &str) -> Option<usize> {
        self.ids.get(name).copied()
    }

    /// The id of `O`.
    pub fn outside(&self) -> usize {
        self.id("O").unwrap_or(0)
    }

    /// Entity types, sorted.
    pub fn types(&self) -> Vec<&str> {
        let kinds = self.names.iter().filter_map(|name| match parse_tag(name) {
            Some(Tag::Begin(kind) | Tag::Inside(kind)) => Some(kind),
            _ => None,
        });
        kinds.collect::<BTreeSet<_>>().into_iter().collect()
    }
}
