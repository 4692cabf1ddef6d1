//! The words of a text and the sub-tokens that speak for them, by the places of both in the text.
use std::ops::Range;

/// Which sub-tokens speak for which words.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Spoken {
    /// Word of each sub-token: the one in which it begins, white space at its beginning left aside. White space alone counts to the word before
    /// it. None for special tokens.
    pub(crate) words: Vec<Option<usize>>,
    /// Whether it is the first sub-token that begins in its word.
    pub(crate) first: Vec<bool>,
    /// Words in which no sub-token begins, because one that begins in an earlier word covers their first character; and that word.
    pub(crate) covered: Vec<(usize, usize)>,
}

/// Matches the words of a text with its sub-tokens, whose `offsets` count characters as the words do; those of special tokens are none.
/// A word that neither a sub-token begins in nor one covers is not seen.
pub(crate) fn spoken(
    text: &[char],
    words: &[Range<usize>],
    offsets: impl IntoIterator<Item = Option<(usize, usize)>>,
) -> Spoken {
    let mut found = Spoken::default();
    let mut heard = vec![false; words.len()];
    // Where each sub-token that begins in a word ends.
    let mut ends = Vec::new();
    let mut before = 0;
    for offset in offsets {
        let place = offset.map(|(start, end)| start.min(text.len())..end.min(text.len()));
        let begins = place.clone().and_then(|mut place| place.find(|at| !text[*at].is_whitespace()));
        let word = begins.and_then(|at| {
            let index = words.partition_point(|word| word.end <= at);
            words.get(index).filter(|word| word.start <= at).map(|_| index)
        });
        found.first.push(word.is_some_and(|word| !std::mem::replace(&mut heard[word], true)));
        before = word.unwrap_or(before);
        found.words.push(offset.filter(|_| !words.is_empty()).map(|_| before));
        ends.extend(word.zip(place.map(|place| place.end)));
    }
    for (word, end) in ends {
        let further = words.iter().enumerate().skip(word + 1).take_while(|(_, other)| other.start < end);
        for (other, _) in further {
            if !std::mem::replace(&mut heard[other], true) {
                found.covered.push((other, word));
            }
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::words::split;

    fn of(text: &str, offsets: &[Option<(usize, usize)>]) -> Spoken {
        let characters: Vec<char> = text.chars().collect();
        spoken(&characters, &split(&characters), offsets.iter().copied())
    }

    #[test]
    fn words_are_spoken_for_by_what_begins_in_them() {
        // <s> Ġa . ' bc Ġ </s> with blanks at the beginning of sub-tokens and alone.
        let found = of("a.'bc ", &[None, Some((0, 1)), Some((1, 2)), Some((2, 3)), Some((3, 5)), Some((5, 6)), None]);
        assert_eq!(found.words, [None, Some(0), Some(1), Some(2), Some(3), Some(3), None]);
        assert_eq!(found.first, [false, true, true, true, true, false, false]);
        assert!(found.covered.is_empty());
        // Blanks first: alone, of no extent, and together with the word.
        let found = of("  ab c", &[Some((0, 1)), Some((1, 1)), Some((1, 3)), Some((3, 4)), Some((4, 6))]);
        assert_eq!(found.words, [Some(0), Some(0), Some(0), Some(0), Some(1)]);
        assert_eq!(found.first, [false, false, true, false, true]);
        assert_eq!(of(" ", &[None, Some((0, 1))]).words, [None, None]);
    }

    #[test]
    fn words_within_a_sub_token_go_with_the_one_where_it_begins() {
        // ▁3.5% d: `.` and `%` have none; `5` has a sub-token of its own, though `3.` ends before it.
        let found = of("3.5% d", &[Some((0, 2)), Some((2, 4)), Some((4, 6))]);
        assert_eq!(found.words, [Some(0), Some(2), Some(4)]);
        assert_eq!((found.first, found.covered), (vec![true; 3], vec![(1, 0), (3, 2)]));
        // The sub-token that covers a word may be a later one of the earlier word; a word may begin inside it and yet have its own.
        let found = of("newport, 3.50", &[Some((0, 3)), Some((3, 8)), Some((9, 12)), Some((12, 13))]);
        assert_eq!(found.words, [Some(0), Some(0), Some(2), Some(4)]);
        assert_eq!((found.first, found.covered), (vec![true, false, true, true], vec![(1, 0), (3, 2)]));
        // What no sub-token covers is not seen: cut off, or dropped by the tokenizer.
        assert_eq!(of("a b c", &[Some((0, 1)), Some((4, 5))]).covered, []);
        assert_eq!(of("a b c", &[Some((0, 1))]).words, [Some(0)]);
    }
}
