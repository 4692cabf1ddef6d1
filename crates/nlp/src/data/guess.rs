//! What the examples of files are, where nobody says it.
use std::path::Path;

use super::{
    Form, Format, ReadOptions, TextOptions, folder,
    reader::{SentenceReader, sentence_format},
    record,
    split_checks::has_entity,
};
use crate::Error;

/// Rows looked at.
const ROWS: usize = 100;

/// Tells what the examples of a file or folder are: words with tags, or texts.
///
/// # Errors
/// It cannot be read.
pub fn guess_form(path: &Path) -> Result<Form, Error> {
    let splits = folder::splits(path)?;
    let Some(file) = splits.get("train").or_else(|| splits.values().next()).and_then(|split| split.files.first())
    else {
        return Err(Error::format(path, "no data file found"));
    };
    let options = ReadOptions::default();
    let format = sentence_format(file, &options)?;
    match format {
        Format::Conll => return Ok(Form::Tokens(options)),
        Format::Csv => return Ok(Form::Text(TextOptions::default())),
        _ => {}
    }
    // A row without labels looks alike in both.
    let (mut is_text, mut rows) = (false, 0);
    let found = record::read_records(file, format, None, &mut |features, record| {
        let found = SentenceReader::default().sentence(file, features, &record);
        is_text = found.is_err();
        rows += 1;
        let sure = found
            .map_or(true, |sentence| sentence.is_some_and(|sentence| sentence.text.is_none() || has_entity(&sentence)));
        if sure || rows == ROWS { Err(Error::Stopped) } else { Ok(()) }
    });
    match found {
        Ok(_) | Err(Error::Stopped) if is_text => Ok(Form::Text(TextOptions::default())),
        Ok(_) | Err(Error::Stopped) => Ok(Form::Tokens(options)),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_examples_are_is_told_by_the_first_rows_that_tell() {
        let dir = tempfile::tempdir().unwrap();
        let is_text = |name: &str, content: &str| {
            let path = dir.path().join(name);
            std::fs::write(&path, content).unwrap();
            matches!(guess_form(&path).unwrap(), Form::Text(_))
        };
        let empty = "{\"text\": \"a\", \"label\": []}\n";
        assert!(is_text("a.jsonl", &format!("{empty}{empty}{{\"text\": \"b\", \"label\": [\"pos\"]}}\n")));
        assert!(!is_text("b.jsonl", &format!("{empty}{{\"text\": \"b\", \"label\": [[0, 1, \"x\"]]}}\n")));
        assert!(!is_text("c.jsonl", &empty.repeat(3)));
        assert!(!is_text("d.jsonl", "{\"tokens\": [\"a\"], \"tags\": [\"O\"]}\n{\"text\": 1}\n"));
        // Words and tags under the name of a table.
        assert!(!is_text("e.tsv", "in\tO\nOslo\tB-x\n"));
        assert!(is_text("f.tsv", "text\tlabel\nin Oslo\tx\n"));
    }
}
