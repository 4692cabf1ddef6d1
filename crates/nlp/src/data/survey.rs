//! What the beginning of a file of CoNLL columns tells: whether its first column counts, and whether it is such a file at all.
use super::{conll::fields, tags::is_tag};

/// What stands in the first column.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Numbers {
    /// Something else than numbers.
    None,
    /// Numbers of words, and of what stands between them in CoNLL-U.
    Some,
    /// The same, and they count the words of each sentence from 1.
    Counts,
}

/// Lines by which a table is told from columns.
const LINES: usize = 20;

/// Whether a line separates sentences.
pub(super) fn is_separator(line: &str) -> bool {
    line.trim().is_empty() || line.trim_start().starts_with("-DOCSTART-")
}

/// Whether a line before a sentence may be a comment.
pub(super) fn is_comment(line: &str) -> bool {
    line.starts_with('#')
}

/// The number of a range of words (`1-2`) or of an empty node (`1.1`) of CoNLL-U.
pub(super) fn is_between(field: &str) -> bool {
    field.split_once(['-', '.']).is_some_and(|(before, after)| is_number(before) && is_number(after))
}

fn is_number(field: &str) -> bool {
    !field.is_empty() && field.bytes().all(|byte| byte.is_ascii_digit())
}

/// The lines of the beginning of a file, without the last one, which may not be whole, unless it is the only one.
fn lines(beginning: &[u8]) -> impl Iterator<Item = &str> {
    let whole = beginning.iter().rposition(|byte| *byte == b'\n').map_or(beginning, |end| &beginning[..end]);
    let text = match std::str::from_utf8(whole) {
        Ok(text) => text,
        // Whoever reads the file refuses the rest.
        Err(error) => std::str::from_utf8(&whole[..error.valid_up_to()]).unwrap_or_default(),
    };
    text.strip_prefix('\u{feff}').unwrap_or(text).lines()
}

/// What the first column holds, by the beginning of a file.
pub(super) fn survey(beginning: &[u8]) -> Numbers {
    let (mut counts, mut found, mut count, mut longest) = (true, false, 0, 0);
    for line in lines(beginning) {
        if is_separator(line) {
            count = 0;
            continue;
        }
        if count == 0 && is_comment(line) {
            continue;
        }
        let first = fields(line).first().copied().unwrap_or_default();
        if is_number(first) {
            (found, count) = (true, count + 1);
            longest = longest.max(count);
            counts &= first == count.to_string();
        } else if !is_between(first) {
            return Numbers::None;
        }
    }
    // Sentences of one word each would count from 1 if their words were all `1`.
    match (found, counts && longest > 1) {
        (false, _) => Numbers::None,
        (true, false) => Numbers::Some,
        (true, true) => Numbers::Counts,
    }
}

/// Whether the beginning of a file looks like columns with tags, the last or this one: nearly every line has one. The first may be a heading.
pub(super) fn has_tags(beginning: &[u8], tag_column: Option<usize>) -> bool {
    let rows = lines(beginning).filter(|line| !is_separator(line) && !is_comment(line)).take(LINES);
    let tagged: Vec<bool> = rows
        .map(|line| {
            let fields = fields(line);
            let tag = match tag_column {
                Some(column) => fields.get(column),
                None => fields.last(),
            };
            fields.len() > 1 && tag.is_some_and(|tag| is_tag(tag))
        })
        .collect();
    match tagged.as_slice() {
        [only] => *only,
        [_, further @ ..] => further.iter().all(|tagged| *tagged),
        [] => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_told_by_all_sentences() {
        for (text, expected) in [
            ("1 a\n2 b\n\n1 c\n", Numbers::Counts),
            ("# c\n1-2\tim\n1\tin\n2\tdem\n2.1\tx\n\n\n1\ty\n", Numbers::Counts),
            ("1 a\n\n1 b\n", Numbers::Some),
            ("1 a\n2 b\n\n3 c\n", Numbers::Some),
            ("1 a\n2 b\n\nc 3\n", Numbers::None),
            ("1-1 a\n1-2 b\n", Numbers::None),
            // Neither the last line nor a character need be whole.
            ("1 a\n2 b\nx", Numbers::Counts),
            ("", Numbers::None),
        ] {
            assert_eq!(survey(text.as_bytes()), expected, "{text}");
        }
        assert_eq!(survey(b"1 a\n2 \xc3"), Numbers::Some);
        assert_eq!(survey(b"\xff\n1 a"), Numbers::None);
    }

    #[test]
    fn tables_are_told_from_columns() {
        for (text, expected) in [
            ("Identification\tO\nof\tO\nAPC2\tB-Gene\n\na\tO\n", true),
            ("word\ttag\nof\tO\nAPC2\tB-Gene\n", true),
            ("a O\n", true),
            ("text\tlabel\nO what a day\tgood\n", false),
            ("text,label\na,O\nb,O\n", false),
            ("a\tO\nb\tO\nc\n", false),
            ("O\nO\n", false),
            ("", false),
        ] {
            assert_eq!(has_tags(text.as_bytes(), None), expected, "{text}");
        }
        assert!(has_tags(b"a\tB-x\t1\nb\tO\t2\n", Some(1)));
    }
}
