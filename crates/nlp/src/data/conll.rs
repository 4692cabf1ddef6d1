//! CoNLL columns: one word a line, sentences separated by blank lines.
use std::{io::BufRead, path::Path};

use super::{
    ReadOptions, Sentence,
    survey::{Numbers, is_between, is_comment, is_separator, survey},
    tags::Tagging,
};
use crate::Error;

/// Columns of CoNLL-U (universaldependencies.org/format.html).
const CONLLU_COLUMNS: usize = 10;

/// Names under which the last column of CoNLL-U, or a column of CoNLL-U Plus, carries tags.
const TAG_NAMES: [&str; 4] = ["NER", "NE", "Entity", "UNER:NER"];

/// Calls `sink` with each sentence.
///
/// Columns are separated by tabs where a line has one, else by blanks; each line has as many as the first. A line of white space alone
/// separates sentences too (WNUT-17 has lone tabs), `-DOCSTART-` lines are skipped, and so are lines before a sentence that begin
/// with `#` and are no row. Ten columns of which the first is a number are CoNLL-U: the word is the second one and the tag is `NER=...` in the
/// last, or the last itself, unless other columns are asked for. Of fewer columns too the word is the second one where the first counts the words of
/// each sentence, which is told by the beginning of the input, as far as it is buffered.
///
/// Returns the column of the word when it is not the one asked for.
pub(super) fn read(
    mut input: impl BufRead,
    path: &Path,
    options: &ReadOptions,
    tagging: &mut Tagging,
    sink: &mut dyn FnMut(Sentence) -> Result<(), Error>,
) -> Result<Option<usize>, Error> {
    let numbers = survey(input.fill_buf().map_err(|e| Error::io(path, e))?);
    let guess = |fields: &[&str], named| guess(fields, options, named, numbers);
    let mut open = empty();
    let mut layout: Option<Layout> = None;
    let mut named: Option<(usize, usize)> = None;
    let mut buffer = Vec::new();
    for number in 1.. {
        buffer.clear();
        if input.read_until(b'\n', &mut buffer).map_err(|e| Error::io(path, e))? == 0 {
            break;
        }
        let line = std::str::from_utf8(&buffer).map_err(|_| Error::data(path, number, "not UTF-8"))?;
        let line = line.strip_prefix('\u{feff}').filter(|_| number == 1).unwrap_or(line).trim_end_matches(['\r', '\n']);
        if is_separator(line) {
            close(&mut open, tagging, path, sink)?;
            continue;
        }
        let fields = fields(line);
        if is_comment(line) && open.words.is_empty() {
            let fits = match &layout {
                Some(layout) => layout.row(&fields).is_ok(),
                // A sentence after `# text =` may end with what looks like a tag.
                None => {
                    !(line.starts_with("# ") && fields.len() > 2 && !line.contains('\t'))
                        && guess(&fields, named).row(&fields).is_ok()
                }
            };
            if let Some(names) = line.strip_prefix("# global.columns =") {
                named = plus(names);
            }
            if !fits {
                continue;
            }
        }
        let layout = layout.get_or_insert_with(|| guess(&fields, named));
        match layout.row(&fields).map_err(|problem| Error::data(path, number, problem))? {
            Row::Word(word, tag) => {
                if open.words.is_empty() {
                    open.line = number;
                }
                open.words.push(word.to_owned());
                open.tags.push(tag.to_owned());
            }
            Row::Nothing => {}
        }
    }
    close(&mut open, tagging, path, sink)?;
    Ok(layout.map(|layout| layout.word).filter(|word| *word != options.word_column))
}

pub(super) fn fields(line: &str) -> Vec<&str> {
    match line.contains('\t') {
        true => line.trim_end().split('\t').map(|field| field.trim_matches(' ')).collect(),
        false => line.split_ascii_whitespace().collect(),
    }
}

/// Columns of the word and of the tag by the names that CoNLL-U Plus gives them.
fn plus(names: &str) -> Option<(usize, usize)> {
    let mut names = names.split_ascii_whitespace();
    let word = names.clone().position(|name| name == "FORM")?;
    let tag = names.position(|name| TAG_NAMES.iter().any(|known| name.eq_ignore_ascii_case(known)))?;
    Some((word, tag))
}

#[derive(Debug)]
struct Layout {
    columns: usize,
    word: usize,
    tag: usize,
    /// The first column counts words, ranges of them (`1-2`) and empty nodes (`1.1`), of which only the words are read.
    numbered: bool,
    /// The tag is `NAME=TAG` among others, or stands alone.
    named_tag: bool,
}

enum Row<'a> {
    Word(&'a str, &'a str),
    Nothing,
}

fn guess(fields: &[&str], options: &ReadOptions, named: Option<(usize, usize)>, numbers: Numbers) -> Layout {
    let columns = fields.len();
    let numbered = numbers != Numbers::None;
    let free = options.word_column == 0 && options.tag_column.is_none();
    let last = columns.saturating_sub(1);
    // Beside the number and the tag there has to be a word.
    let counted = numbers == Numbers::Counts && options.word_column == 0 && options.tag_column.unwrap_or(last) > 1;
    match named {
        Some((word, tag)) if free => Layout { columns, word, tag, numbered, named_tag: false },
        _ if free && numbered && columns == CONLLU_COLUMNS => {
            Layout { columns, word: 1, tag: last, numbered, named_tag: true }
        }
        _ => Layout {
            columns,
            word: if counted { 1 } else { options.word_column },
            tag: options.tag_column.unwrap_or(last),
            numbered: numbered && (counted || options.word_column > 0),
            named_tag: false,
        },
    }
}

impl Layout {
    fn row<'a>(&self, fields: &[&'a str]) -> Result<Row<'a>, String> {
        let Self { columns, word, tag, .. } = *self;
        if word >= columns || tag >= columns || word == tag {
            return Err(format!(
                "found {columns} columns, but the word is in column {word} and the tag in column {tag} (counted from 0)"
            ));
        }
        if fields.len() != columns {
            return Err(format!("found {} columns, expected {columns} as in the first line", fields.len()));
        }
        if self.numbered && is_between(fields[0]) {
            return Ok(Row::Nothing);
        }
        if fields[word].is_empty() {
            return Err(format!("column {word}: the word is empty"));
        }
        let found = if self.named_tag {
            let pairs = fields[tag].split('|').filter_map(|pair| pair.split_once('='));
            let ours = pairs.into_iter().find(|(name, _)| TAG_NAMES.contains(name));
            let alone = || !fields[tag].contains('=') && super::tags::is_tag(fields[tag]);
            ours.map_or_else(|| if alone() { fields[tag] } else { "O" }, |(_, value)| value)
        } else {
            fields[tag]
        };
        // Universal Dependencies write `_` for nothing.
        let found = if self.numbered && found == "_" { "O" } else { found };
        if !super::tags::is_tag(found) {
            return Err(format!(
                "column {tag}: tag `{found}` is of no known scheme, allowed are O, B-TYPE and I-TYPE, and E-, S- (IOBES), L-, U- (BILOU), M- (BMES)"
            ));
        }
        Ok(Row::Word(fields[word], found))
    }
}

fn empty() -> Sentence {
    Sentence { words: Vec::new(), tags: Vec::new(), line: 0, text: None }
}

fn close(
    open: &mut Sentence,
    tagging: &mut Tagging,
    path: &Path,
    sink: &mut dyn FnMut(Sentence) -> Result<(), Error>,
) -> Result<(), Error> {
    if open.words.is_empty() {
        return Ok(());
    }
    let mut closed = std::mem::replace(open, empty());
    tagging.make_iob2(&mut closed.tags).map_err(|problem| Error::data(path, closed.line, problem))?;
    sink(closed)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str, options: &ReadOptions) -> Result<(Vec<Sentence>, Tagging), Error> {
        let (mut sentences, mut tagging) = (Vec::new(), Tagging::default());
        read(text.as_bytes(), Path::new("f.conll"), options, &mut tagging, &mut |sentence| {
            sentences.push(sentence);
            Ok(())
        })?;
        Ok((sentences, tagging))
    }

    fn shown(text: &str, options: &ReadOptions) -> Vec<String> {
        let (sentences, _) = parse(text, options).unwrap();
        let row = |s: &Sentence| format!("{} {} {}", s.line, s.words.join("|"), s.tags.join("|"));
        sentences.iter().map(row).collect()
    }

    fn failing_line(text: &str) -> usize {
        match parse(text, &ReadOptions::default()) {
            Err(Error::Data { line, .. }) => line,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn separators_of_real_files() {
        let text = "\u{feff}-DOCSTART- -X- O\n\nEmpire\tB-loc\r\nState\tI-loc\n\t\nNew York\tB-loc\n\n\n \n\u{a0}x\tO";
        let expected = ["3 Empire|State B-loc|I-loc", "6 New York B-loc", "10 \u{a0}x O"];
        assert_eq!(shown(text, &ReadOptions::default()), expected);
    }

    #[test]
    fn columns_can_be_chosen() {
        let options = ReadOptions { word_column: 1, tag_column: Some(3), ..ReadOptions::default() };
        assert_eq!(shown("1 EU NNP I-ORG _\n2 rejects VBZ _ _\n", &options), ["1 EU|rejects B-ORG|O"]);
        let (_, tagging) = parse("1 EU NNP I-ORG _\n", &options).unwrap();
        assert_eq!(tagging.retagged, 1);
    }

    #[test]
    fn hashes_are_comments_or_words() {
        let text = "# id = 1\n#rust\tB-x\nis\tO\n# a b\tO\n\n#\tO\n#x\tO\n\n# new\nb\tO\n";
        let expected = ["2 #rust|is|# a b B-x|O|O", "6 #|#x O|O", "10 b O"];
        assert_eq!(shown(text, &ReadOptions::default()), expected);
        assert_eq!(shown("#\tO\n", &ReadOptions::default()), ["1 # O"]);
        assert_eq!(failing_line("a\tO\n# b\n"), 2);
    }

    #[test]
    fn universal_dependencies_and_their_kin() {
        let row = |id: &str, word: &str, misc: &str| format!("{id}\t{word}\t_\t_\t_\t_\t_\t_\t_\t{misc}\n");
        let text = [
            "# sent_id = 1\n".to_owned(),
            row("1-2", "Zum", "_"),
            row("1", "Zu", "_"),
            row("2", "Bonn", "SpaceAfter=No|NER=S-LOC"),
            row("2.1", "x", "NER=B-LOC"),
        ];
        assert_eq!(shown(&text.concat(), &ReadOptions::default()), ["3 Zu|Bonn O|B-LOC"]);
        let plus = "# global.columns = ID NER FORM\n# x\n1\tB-LOC\tBonn\n2\t_\tis\n";
        assert_eq!(shown(plus, &ReadOptions::default()), ["3 Bonn|is B-LOC|O"]);
    }

    #[test]
    fn a_number_before_the_word_is_no_word() {
        // GermEval: number, word, tag, tag of a second layer.
        let germeval = "# x\n1\tSchartau\tB-PER\tO\n2\tsagte\tO\tO\n\n1\tJa\tO\tO\n";
        assert_eq!(shown(germeval, &ReadOptions::default()), ["2 Schartau|sagte O|O", "5 Ja O"]);
        let first = ReadOptions { tag_column: Some(2), ..ReadOptions::default() };
        assert_eq!(shown(germeval, &first)[0], "2 Schartau|sagte B-PER|O");
        let told = |text: &str, options: &ReadOptions| {
            read(text.as_bytes(), Path::new("f"), options, &mut Tagging::default(), &mut |_| Ok(())).unwrap()
        };
        assert_eq!((told(germeval, &first), told("a\tO\n", &ReadOptions::default())), (Some(1), None));
        // Numbers that count nothing, and numbers with nothing but a tag beside them, are words.
        assert_eq!(shown("1 CD O\n000 CD O\n\n7 CD B-x\n", &ReadOptions::default())[0], "1 1|000 O|O");
        assert_eq!(shown("1 O\n2 O\n", &ReadOptions::default()), ["1 1|2 O|O"]);
        // Ten columns with a tag in the last.
        let ten = |number: usize, word: &str, tag: &str| format!("{number}\t{word}{}\t{tag}\n", "\t_".repeat(7));
        let text = [ten(1, "in", "O"), ten(2, "Bonn", "B-LOC"), ten(3, "x", "SpaceAfter=No")].concat();
        assert_eq!(shown(&text, &ReadOptions::default()), ["1 in|Bonn|x O|B-LOC|O"]);
    }

    #[test]
    fn what_is_no_number_drops_no_row() {
        let second = ReadOptions { word_column: 1, ..ReadOptions::default() };
        for first in [["1-1", "1-2"], ["-", "-"], ["2020-01-02", "2020-01-03"], ["a.b", "c"]] {
            let text = format!("{}\tin\tO\n{}\tBonn\tB-LOC\n", first[0], first[1]);
            assert_eq!(shown(&text, &second), ["1 in|Bonn O|B-LOC"], "{first:?}");
        }
        assert_eq!(shown("1-2\tim\t_\n1\tin\t_\n2\tdem\t_\n", &second), ["2 in|dem O|O"]);
    }

    #[test]
    fn malformed_lines_are_named() {
        assert_eq!(failing_line("a\tO\nb\tx\tO\n"), 2);
        assert_eq!(failing_line("a O\n\nb\n"), 3);
        assert_eq!(failing_line("a\n"), 1);
        assert_eq!(failing_line("a O\n\tO\n"), 2);
        assert_eq!(failing_line("a O\nb X-loc\n"), 2);
        assert_eq!(failing_line("a O\n\nb S-x\nc U-x\n"), 3);
        let options = ReadOptions { tag_column: Some(5), ..ReadOptions::default() };
        assert!(matches!(parse("a O\n", &options), Err(Error::Data { line: 1, .. })));
        let bytes = b"a O\n\xff O\n";
        let found = read(&bytes[..], Path::new("f"), &ReadOptions::default(), &mut Tagging::default(), &mut |_| Ok(()));
        assert!(matches!(found, Err(Error::Data { line: 2, .. })));
    }
}
