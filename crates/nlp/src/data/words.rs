//! Words of a text, and texts with character spans to words with tags.
use std::ops::Range;

use unicode_properties::{GeneralCategoryGroup, UnicodeGeneralCategory as _};

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

/// Checks the spans of a text, sorts them and tags its words; also returns how many words a span's border cut. Words are those of [`split`];
/// one is cut where a span begins or ends inside it, so that no span is lost or widened.
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
    let (mut sentence, cut) = tag_words(&characters, &spans, line);
    sentence.text = Some(text.to_owned());
    Ok((sentence, cut))
}

/// The words of a text by their characters: runs of letters and digits with the marks that combine with them, and single other
/// characters. Ideographs, which no white space separates, stand alone, as BERT's tokenizer has them.
pub(crate) fn split(text: &[char]) -> Vec<Range<usize>> {
    let mut words = Vec::new();
    let mut start = 0;
    while start < text.len() {
        if text[start].is_whitespace() {
            start += 1;
            continue;
        }
        let end = end_of_word(text, start);
        words.push(start..end);
        start = end;
    }
    words
}

/// Where words that are all there is between the white space of a text stand in it, by characters.
pub(super) fn places(text: &str, words: &[String]) -> Vec<Range<usize>> {
    let mut places = Vec::with_capacity(words.len());
    let mut rest = text.chars().enumerate().peekable();
    for word in words {
        while rest.next_if(|(_, character)| character.is_whitespace()).is_some() {}
        let start = rest.peek().map_or(0, |(at, _)| *at);
        let count = word.chars().count();
        if count > 0 {
            rest.nth(count - 1);
        }
        places.push(start..start + count);
    }
    places
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
    let mut sentence = Sentence { words: Vec::new(), tags: Vec::new(), line, text: None };
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
        let mut end = end_of_word(characters, start);
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

/// The character after the last of the word that begins at `start`.
fn end_of_word(text: &[char], start: usize) -> usize {
    let mut end = start + 1;
    while end < text.len() && continues_word(text[end - 1], text[end]) {
        end += 1;
    }
    end
}

fn continues_word(before: char, next: char) -> bool {
    let joins = |c: char| (c.is_alphanumeric() || is_mark(c)) && !is_ideograph(c);
    joins(before) && joins(next) || is_mark(next)
}

/// What belongs to the character before: signs of vowels and tones, viramas, accents, variation selectors, and the joiners.
fn is_mark(c: char) -> bool {
    matches!(c, '\u{200c}' | '\u{200d}') || c.general_category_group() == GeneralCategoryGroup::Mark
}

/// The blocks of ideographs, those of BERT's `_is_chinese_char` and what Unicode has added since.
fn is_ideograph(c: char) -> bool {
    matches!(c, '\u{3400}'..='\u{4dbf}' | '\u{4e00}'..='\u{9fff}' | '\u{f900}'..='\u{faff}' | '\u{20000}'..='\u{3ffff}')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(text: &str, spans: &[(usize, usize, &str)]) -> Result<(String, String, usize), String> {
        let spans =
            spans.iter().map(|(start, end, label)| Span { start: *start, end: *end, label: (*label).to_owned() });
        let (sentence, cut) = tag_text(text, spans.collect(), 1)?;
        assert_eq!(sentence.text.as_deref(), Some(text));
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
        // Ideographs stand alone, kana and hangul do not.
        assert_eq!(row("東京タワーx", &[(0, 2, "loc")]).unwrap(), ("東|京|タワーx".into(), "B-loc I-loc O".into(), 0));
        // Blanks at the borders.
        assert_eq!(row("a bc d", &[(1, 5, "x")]).unwrap().1, "O B-x O");
    }

    #[test]
    fn words_of_every_script_stay_whole() {
        let words = |text: &str| row(text, &[]).unwrap().0;
        // Virama and signs of vowels; vowels and tones of Thai; points of Hebrew; an accent apart; joiners and selectors.
        for text in ["क्षत्रिय", "நன்றி", "เชียงใหม่", "น้ำ", "שָׁלוֹם", "Cafe\u{301}s", "می\u{200c}خواهم", "❤\u{fe0f}", "မြန်မာ"]
        {
            assert_eq!(words(text), text);
        }
        assert_eq!(words("हिन्दी, मराठी।"), "हिन्दी|,|मराठी|।");
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
                for (word, place) in sentence.words.iter().zip(places(&text, &sentence.words)) {
                    proptest::prop_assert_eq!(&characters[place].iter().collect::<String>(), word);
                }
                let whole: Vec<String> = split(&characters).into_iter().map(|word| characters[word].iter().collect()).collect();
                proptest::prop_assert_eq!(whole, tag_words(&characters, &[], 1).0.words);
                let all: String = characters.iter().filter(|c| !c.is_whitespace()).collect();
                proptest::prop_assert_eq!(sentence.words.concat(), all);
                let tagged = sentence.words.iter().zip(&sentence.tags).filter(|(_, tag)| *tag != "O");
                proptest::prop_assert_eq!(tagged.map(|(word, _)| word.as_str()).collect::<String>(), inside);
                proptest::prop_assert_eq!(sentence.tags.iter().filter(|tag| tag.starts_with("B-")).count(), 1);
            }
        }
    }
}
