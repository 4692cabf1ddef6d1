//! Examples of a split, one after the other, from its files of whatever format.
use std::{fs::File, io::BufReader, path::Path};

use super::{
    Format, ReadOptions, Sentence, TextExample, TextOptions, TextReader, conll,
    folder::SplitFiles,
    record::{self, Features, Record},
    spans::{self, Changes},
    survey::has_tags,
    tags::Tagging,
};
use crate::Error;

/// Where an example stands, and it.
type Sink<'s, T> = &'s mut dyn FnMut(&Path, T) -> Result<(), Error>;

/// The format of a file of tagged words. The cells of a table of texts cannot be lists of words, so that one whose lines end with tags has columns
/// of CoNLL, whatever its name.
pub(super) fn sentence_format(path: &Path, options: &ReadOptions) -> Result<Format, Error> {
    match options.format {
        Some(format) => Ok(format),
        None => Ok(match record::detect(path, Format::Conll)? {
            Format::Csv if has_tags(&record::beginning(path)?, options.tag_column) => Format::Conll,
            format => format,
        }),
    }
}

/// Reads sentences and remembers what it changed.
#[derive(Debug, Default)]
pub(crate) struct SentenceReader {
    tagging: Tagging,
    changes: Changes,
    /// Column of the words of CoNLL, where it is not the one asked for.
    word_column: Option<usize>,
    /// Names of the classes of the tags, when the data carries them.
    pub(crate) classes: Option<Vec<String>>,
}

impl SentenceReader {
    /// Calls `sink` with each sentence of a split.
    pub(crate) fn read(
        &mut self,
        split: &SplitFiles,
        options: &ReadOptions,
        sink: Sink<'_, Sentence>,
    ) -> Result<(), Error> {
        for path in &split.files {
            let format = sentence_format(path, options)?;
            if format == Format::Conll {
                self.conll(path, options, &mut |sentence| sink(path, sentence))?;
                continue;
            }
            record::read_records(path, format, None, &mut |features, record| match self.sentence(
                path,
                known(features, split),
                &record,
            )? {
                Some(sentence) => sink(path, sentence),
                None => Ok(()),
            })?;
        }
        Ok(())
    }

    /// Calls `sink` with each sentence of a file of columns.
    pub(super) fn conll(
        &mut self,
        path: &Path,
        options: &ReadOptions,
        sink: &mut dyn FnMut(Sentence) -> Result<(), Error>,
    ) -> Result<(), Error> {
        let file = File::open(path).map_err(|e| Error::io(path, e))?;
        let input = BufReader::with_capacity(1 << 16, file);
        let word = conll::read(input, path, options, &mut self.tagging, sink)?;
        self.word_column = self.word_column.or(word);
        Ok(())
    }

    /// The sentence of a record; none when it has nothing to tag.
    pub(super) fn sentence(
        &mut self,
        path: &Path,
        features: &Features,
        record: &Record,
    ) -> Result<Option<Sentence>, Error> {
        if self.classes.is_none() {
            self.classes = spans::classes(features, record).cloned();
        }
        let found = spans::sentence(features, record, &mut self.tagging, &mut self.changes);
        found.map_err(|problem| Error::data(path, record.line, problem))
    }

    /// What was changed since the last call, a line each.
    pub(crate) fn notes(&mut self, split: &str) -> Vec<String> {
        let (tagging, changes) = (std::mem::take(&mut self.tagging), std::mem::take(&mut self.changes));
        let counted = [
            (tagging.retagged, "tags that open an entity without saying so (I-TYPE) were read as B-TYPE"),
            (changes.cut_words, "words were cut where a span begins or ends inside them"),
            (changes.empty, "rows without a word were left out"),
            (changes.unannotated, "tasks without an annotation were left out"),
            (changes.rejected, record::REJECTED),
            (changes.several, "tasks have several annotations, of which the ground truth or else the first was read"),
            (changes.coerced, "texts were null, a list or an object and were made a text"),
        ];
        let counted =
            counted.into_iter().filter(|(count, _)| *count > 0).map(|(count, what)| format!("{count} {what}"));
        let scheme = tagging.scheme().map(|scheme| format!("tags are {scheme} and were read as IOB2"));
        let flat =
            changes.flat.then(|| "tags are types alone: neighbours of one type were read as one entity".to_owned());
        let word =
            self.word_column.take().map(|column| format!("words were read from column {column} (counted from 0)"));
        counted.chain(scheme).chain(flat).chain(word).map(|note| format!("{split}: {note}")).collect()
    }
}

/// What is known of the columns: by the file, else by its folder.
pub(super) fn known<'a>(features: &'a Features, split: &'a SplitFiles) -> &'a Features {
    let by_folder = features.classes.is_empty() && !split.features.classes.is_empty();
    if by_folder { &split.features } else { features }
}

/// Calls `sink` with each example of a split.
pub(crate) fn read_texts(
    split: &SplitFiles,
    options: &TextOptions,
    reader: &mut TextReader<'_>,
    sink: Sink<'_, TextExample>,
) -> Result<(), Error> {
    for path in &split.files {
        let format = match options.format {
            Some(format) => format,
            None => record::detect(path, Format::Csv)?,
        };
        let broken = record::read_records(path, format, options.separator, &mut |features, record| {
            let example = reader.read(known(features, split), &record);
            match example.map_err(|problem| Error::data(path, record.line, problem))? {
                Some(example) => sink(path, example),
                None => Ok(()),
            }
        })?;
        reader.broken(broken);
    }
    Ok(())
}
