//! CoNLL columns: one word a line, sentences separated by blank lines.
use std::path::Path;

use super::{FileContent, ReadOptions, Sentence, parse_tag, tags::make_iob2};
use crate::Error;

/// Parses a file. Columns are separated by tabs where a line has one, else by blanks; each line has as many as the first.
/// A line of white space alone separates sentences too (WNUT-17 has lone tabs), `-DOCSTART-` lines are skipped.
pub(super) fn parse(text: &str, path: &Path, options: &ReadOptions) -> Result<FileContent, Error> {
    let mut content = FileContent::default();
    let mut open = Sentence { words: Vec::new(), tags: Vec::new(), line: 0 };
    let mut columns = None;
    for (number, line) in (1..).zip(text.lines()) {
        if line.trim().is_empty() || line.trim_start().starts_with("-DOCSTART-") {
            close(&mut open, &mut content);
            continue;
        }
        let fields: Vec<&str> = if line.contains('\t') {
            line.trim_end().split('\t').map(|field| field.trim_matches(' ')).collect()
        } else {
            line.split_ascii_whitespace().collect()
        };
        let expected = *columns.get_or_insert(fields.len());
        let tag_column = options.tag_column.unwrap_or(expected.saturating_sub(1));
        if number_of_columns_is_wrong(expected, options.word_column, tag_column) {
            let problem = format!(
                "found {expected} columns, but the word is in column {} and the tag in column {tag_column} (counted from 0)",
                options.word_column
            );
            return Err(Error::data(path, number, problem));
        }
        if fields.len() != expected {
            let problem = format!("found {} columns, expected {expected} as in the first line", fields.len());
            return Err(Error::data(path, number, problem));
        }
        let (word, tag) = (fields[options.word_column], fields[tag_column]);
        if word.is_empty() {
            return Err(Error::data(path, number, format!("column {}: the word is empty", options.word_column)));
        }
        if parse_tag(tag).is_none() {
            let problem = format!("column {tag_column}: tag `{tag}` is not IOB, allowed are O, B-TYPE and I-TYPE");
            return Err(Error::data(path, number, problem));
        }
        if open.words.is_empty() {
            open.line = number;
        }
        open.words.push(word.to_owned());
        open.tags.push(tag.to_owned());
    }
    close(&mut open, &mut content);
    Ok(content)
}

fn number_of_columns_is_wrong(columns: usize, word: usize, tag: usize) -> bool {
    word >= columns || tag >= columns || word == tag
}

fn close(open: &mut Sentence, content: &mut FileContent) {
    if !open.words.is_empty() {
        content.retagged += make_iob2(&mut open.tags);
        let closed = std::mem::replace(open, Sentence { words: Vec::new(), tags: Vec::new(), line: 0 });
        content.sentences.push(closed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse_text(text: &str, options: &ReadOptions) -> Result<FileContent, Error> {
        parse(text, Path::new("f.conll"), options)
    }

    fn failing_line(text: &str) -> usize {
        match parse_text(text, &ReadOptions::default()) {
            Err(Error::Data { line, .. }) => line,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn separators_of_real_files() {
        let text = "-DOCSTART- -X- O\n\nEmpire\tB-loc\r\nState\tI-loc\n\t\nNew York\tB-loc\n\n\n \n\u{a0}x\tO";
        let content = parse_text(text, &ReadOptions::default()).unwrap();
        let words: Vec<_> = content.sentences.iter().map(|s| s.words.join("|")).collect();
        assert_eq!(words, ["Empire|State", "New York", "\u{a0}x"]);
        assert_eq!(content.sentences.iter().map(|s| s.line).collect::<Vec<_>>(), [3, 6, 10]);
        assert_eq!(content.sentences[0].tags, ["B-loc", "I-loc"]);
    }

    #[test]
    fn columns_can_be_chosen() {
        let options = ReadOptions { word_column: 1, tag_column: Some(3), ..ReadOptions::default() };
        let content = parse_text("1 EU NNP I-ORG _\n2 rejects VBZ O _\n", &options).unwrap();
        assert_eq!(content.sentences[0].words, ["EU", "rejects"]);
        assert_eq!(content.sentences[0].tags, ["B-ORG", "O"]);
        assert_eq!(content.retagged, 1);
    }

    #[test]
    fn malformed_lines_are_named() {
        assert_eq!(failing_line("a\tO\nb\tx\tO\n"), 2);
        assert_eq!(failing_line("a O\n\nb\n"), 3);
        assert_eq!(failing_line("a\n"), 1);
        assert_eq!(failing_line("a O\n\tO\n"), 2);
        assert_eq!(failing_line("a O\nb X-loc\n"), 2);
        let options = ReadOptions { tag_column: Some(5), ..ReadOptions::default() };
        assert!(matches!(parse_text("a O\n", &options), Err(Error::Data { line: 1, .. })));
    }
}
