//! A data set as preparing it leaves it: the splits, as the examples that their rows were made of.
use quintet_nlp::{
    Error,
    data::{Sentence, Sources, TextExample},
    prepare::{Options, Part, prepare},
    rows::Example,
    task::Task,
    testing,
};

/// All splits of a data set.
#[derive(Debug)]
pub(crate) struct Set {
    pub(crate) task: Task,
    pub(crate) labels: Vec<String>,
    pub(crate) train: Vec<Example>,
    pub(crate) validation: Vec<Example>,
    pub(crate) test: Option<Vec<Example>>,
    pub(crate) notes: Vec<String>,
}

/// Prepares a data set for a tokenizer that knows every letter.
pub(crate) fn load(sources: &Sources) -> Result<Set, Error> {
    let dir = tempfile::tempdir().unwrap();
    let tokenizer = testing::tokenizer(dir.path(), &[]);
    let options = Options { max_length: 64, threads: 1, ..Options::default() };
    let prepared = prepare(sources, &tokenizer, &options)?;
    let examples = |part: &Part| {
        let documents = 0..part.rows.documents();
        documents.map(|document| part.rows.example(document)).collect::<Result<Vec<_>, _>>()
    };
    Ok(Set {
        task: prepared.task,
        labels: prepared.labels,
        train: examples(&prepared.train)?,
        validation: examples(&prepared.validation)?,
        test: prepared.test.as_ref().map(examples).transpose()?,
        notes: prepared.notes,
    })
}

pub(crate) fn text(example: &Example) -> &TextExample {
    match example {
        Example::Text(text) => text,
        Example::Sentence(sentence) => panic!("{sentence:?}"),
    }
}

pub(crate) fn sentence(example: &Example) -> &Sentence {
    match example {
        Example::Sentence(sentence) => sentence,
        Example::Text(text) => panic!("{text:?}"),
    }
}
