//! Texts with character spans to words with tags.
use super::Sentence;

/// A span of a text that is an entity.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Span {
    /// First character, counted from 0.
    pub(super) start: usize,
    /// The character after the last.
    pub(super) end: usize,
    /// Its type.
    pub(super) label: String,
}

/// Checks the spans of a text, sorts them and tags its words; also returns how many words a span's border cut. Words are runs of
/// letters and digits, and single other characters; a word is cut where a span begins or ends inside it, so that no span is lost or widened.
///
/// # Errors
/// A span lies outside, is empty or overlaps another.
pub(super) fn tag_text(text: &str, mut spans: Vec<Span>, line: usize) -> Result<(Sentence, usize), String> {
    let characters: Vec<char> = text.chars().collect();
    for (index, span) in spans.iter().enumerate() {
        check_span(span, &characters).map_err(|problem| format!("span {index}: {problem}"))?;
    }
    spans.sort_by(|one, other| (one.start, one.end, &one.label).cmp(&(other.start, other.end, &other.label)));
    spans.dedup();
    if let Some(pair) = spans.windows(2).find(|pair| pair[1].start < pair[0].end) {
        let name = |span: &Span| format!("{}..{} ({})", span.start, span.end, span.label);
        return Err(format!("spans {} and {} overlap", name(&pair[0]), name(&pair[1])));
    }
    Ok(tag_words(&characters, &spans, line))
}

fn check_span(span: &Span, characters: &[char]) -> Result<(), String> {
    let Span { start, end, label } = span;
    if label.trim() != label || label.is_empty() || label.contains(char::is_control) {
        return Err(format!("label {label:?} is empty, or has control characters or white space at its ends"));
    }
    if start >= end {
        return Err(format!("span {start}..{end} is empty"));
    }
    if *end > characters.len() {
        return Err(format!("span {start}..{end} lies outside its text of {} characters", characters.len()));
    }
    if characters[*start..*end].iter().all(|c| c.is_whitespace()) {
        return Err(format!("span {start}..{end} holds white space alone"));
    }
    Ok(())
}

/// Splits a text into words and tags them; also returns how many words a span's border cut.
fn tag_words(characters: &[char], spans: &[Span], line: usize) -> (Sentence, usize) {
    let mut sentence = Sentence { words: Vec::new(), tags: Vec::new(), line };
    let mut cut = 0;
    let mut spans = spans.iter().peekable();
    let mut opened = false;
    let mut start = 0;
    while start < characters.len() {
        if characters[start].is_whitespace() {
            start += 1;
            continue;
        }
        while spans.next_if(|span| span.end <= start).is_some() {
            opened = false;
        }
        let mut end = start + 1;
        while end < characters.len() && continues_word(characters[end - 1], characters[end]) {
            end += 1;
        }
        let current = spans.peek();
        let border = current.and_then(|span| [span.start, span.end].into_iter().find(|b| start < *b && *b < end));
        if let Some(border) = border {
            end = border;
            cut += 1;
        }
        let tag = match current.filter(|span| span.start <= start) {
            Some(span) if opened => format!("I-{}", span.label),
            Some(span) => {
                opened = true;
                format!("B-{}", span.label)
            }
            None => "O".to_owned(),
        };
        sentence.words.push(characters[start..end].iter().collect());
        sentence.tags.push(tag);
        start = end;
    }
    (sentence, cut)
}

/// Letters, digits and the marks that combine with them stay together; every other character is a word of its own.
fn continues_word(before: char, next: char) -> bool {
    let joins = |c: char| c.is_alphanumeric() || is_mark(c);
    joins(before) && joins(next) || is_mark(next)
}

fn is_mark(c: char) -> bool {
    // Combining diacritical marks, variation selectors, joiners: they belong to the character before.
    matches!(c, '\u{300}'..='\u{36f}' | '\u{1ab0}'..='\u{1aff}' | '\u{1dc0}'..='\u{1dff}' | '\u{20d0}'..='\u{20ff}'
        | '\u{fe00}'..='\u{fe0f}' | '\u{200c}' | '\u{200d}')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(text: &str, spans: &[(usize, usize, &str)]) -> Result<(String, String, usize), String> {
        let spans =
            spans.iter().map(|(start, end, label)| Span { start: *start, end: *end, label: (*label).to_owned() });
        let (sentence, cut) = tag_text(text, spans.collect(), 1)?;
        Ok((sentence.words.join("|"), sentence.tags.join(" "), cut))
    }

    #[test]
    fn spans_become_tags() {
        let (words, tags, cut) = row("Ana Ruiz, Zürich!", &[(10, 16, "loc"), (0, 8, "per"), (0, 8, "per")]).unwrap();
        assert_eq!(words, "Ana|Ruiz|,|Zürich|!");
        assert_eq!((tags.as_str(), cut), ("B-per I-per O B-loc O", 0));
        let (words, tags, cut) = row("12kmh x", &[(0, 2, "num"), (2, 5, "unit")]).unwrap();
        assert_eq!((words.as_str(), tags.as_str(), cut), ("12|kmh|x", "B-num B-unit O", 1));
        let (words, tags, cut) = row("prefixed", &[(3, 6, "x y")]).unwrap();
        assert_eq!((words.as_str(), tags.as_str(), cut), ("pre|fix|ed", "O B-x y O", 2));
        assert_eq!(row("a b", &[]).unwrap().1, "O O");
        // Blanks at the borders.
        assert_eq!(row("a bc d", &[(1, 5, "x")]).unwrap().1, "O B-x O");
    }

    #[test]
    fn wrong_spans_are_refused() {
        let cases = [
            ("ab", &[(0, 3, "x")][..], "outside its text of 2"),
            ("ab", &[(1, 1, "x")], "is empty"),
            ("a  b", &[(1, 3, "x")], "white space alone"),
            ("a", &[(0, 1, "")], "label"),
            ("a", &[(0, 1, "x ")], "label"),
            ("abcd", &[(0, 3, "x"), (2, 4, "y")], "0..3 (x) and 2..4 (y) overlap"),
            ("abcd", &[(0, 4, "x"), (1, 2, "y")], "overlap"),
            ("abcd", &[(0, 4, "x"), (0, 4, "y")], "overlap"),
        ];
        for (text, spans, expected) in cases {
            let problem = row(text, spans).unwrap_err();
            assert!(problem.contains(expected), "{text}: {problem}");
        }
    }

    proptest::proptest! {
        #[test]
        fn words_cover_the_text_and_spans_survive(text in "[a-c ,é\u{301}]{1,30}", start in 0usize..30, len in 1usize..10) {
            let characters: Vec<char> = text.chars().collect();
            let span = Span { start, end: start + len, label: "x".into() };
            if check_span(&span, &characters).is_ok() {
                let inside: String = characters[start..start + len].iter().filter(|c| !c.is_whitespace()).collect();
                let (sentence, _) = tag_words(&characters, &[span], 1);
                let all: String = characters.iter().filter(|c| !c.is_whitespace()).collect();
                proptest::prop_assert_eq!(sentence.words.concat(), all);
                let tagged = sentence.words.iter().zip(&sentence.tags).filter(|(_, tag)| *tag != "O");
                proptest::prop_assert_eq!(tagged.map(|(word, _)| word.as_str()).collect::<String>(), inside);
                proptest::prop_assert_eq!(sentence.tags.iter().filter(|tag| tag.starts_with("B-")).count(), 1);
            }
        }
    }
}
