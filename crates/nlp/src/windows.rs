//! Documents longer than the model: windows that overlap, and their predictions brought together.
//!
//! Windows are those of `transformers` (`return_overflowing_tokens` with a `stride`): each holds as much as fits, and has `stride` sub-tokens in
//! common with the next. Each sub-token counts once, in training and in evaluation: in the window where it has the most context, that is
//! where the nearer end is farthest away (the rule of BERT's SQuAD script, Devlin et al. 2019), an end of the document itself being no loss.
use std::ops::Range;

use crate::{
    Error,
    align::{Encoded, IGNORED},
    task::Target,
};

/// A part of a row that is too long.
#[derive(Debug, Clone, PartialEq)]
pub struct Window {
    /// The part with the row's special tokens around it; targets are [`IGNORED`] where another window counts.
    pub row: Encoded,
    /// Where its sub-tokens stand in the whole row.
    pub place: Range<usize>,
    /// Sub-tokens of this window that count, as positions in `row`.
    pub scored: Range<usize>,
}

/// Cuts a row into windows of at most `max_length` sub-tokens; one that is not longer stays whole.
///
/// # Errors
/// The windows would not get on: `stride` is not below what fits beside the special tokens.
pub fn cut(row: Encoded, max_length: usize, stride: usize) -> Result<Vec<Window>, Error> {
    let length = row.length();
    let (leading, trailing) = specials(&row.words);
    let content = leading..length - trailing;
    if length <= max_length {
        return Ok(vec![Window { row, place: content.clone(), scored: content }]);
    }
    let room = max_length.saturating_sub(leading + trailing);
    if stride >= room {
        let problem =
            format!("found {stride}, expected less than the {room} sub-tokens that fit beside the special ones");
        return Err(Error::argument("stride", problem));
    }
    let mut places = Vec::new();
    let mut start = content.start;
    loop {
        let end = (start + room).min(content.end);
        places.push(start..end);
        if end == content.end {
            break;
        }
        start += room - stride;
    }
    let owners = owners(&places, &content);
    let mut windows = Vec::with_capacity(places.len());
    for (index, place) in places.iter().enumerate() {
        let kept: Vec<usize> = (0..leading).chain(place.clone()).chain(length - trailing..length).collect();
        let ours = |at: &usize| owners.get(at.wrapping_sub(content.start)) == Some(&index);
        let first = kept.iter().position(ours).unwrap_or(leading);
        let scored = first..first + kept.iter().filter(|at| ours(at)).count();
        let target = match &row.target {
            Target::Tokens(labels) => {
                Target::Tokens(kept.iter().map(|at| if ours(at) { labels[*at] } else { IGNORED }).collect())
            }
            other => other.clone(),
        };
        // A covered word counts where the word does that it goes on with.
        let counts = |word: usize| match &row.target {
            Target::Tokens(labels) => {
                kept.iter().any(|at| ours(at) && labels[*at] != IGNORED && row.words[*at] == Some(word))
            }
            _ => false,
        };
        windows.push(Window {
            row: Encoded {
                input_ids: kept.iter().map(|at| row.input_ids[*at]).collect(),
                type_ids: kept.iter().map(|at| row.type_ids[*at]).collect(),
                target,
                words: kept.iter().map(|at| row.words[*at]).collect(),
                word_count: row.word_count,
                covered: row.covered.iter().copied().filter(|(_, earlier)| counts(*earlier)).collect(),
            },
            place: place.clone(),
            scored,
        });
    }
    Ok(windows)
}

/// Special tokens at both ends.
fn specials(words: &[Option<usize>]) -> (usize, usize) {
    let leading = words.iter().take_while(|word| word.is_none()).count();
    if leading == words.len() {
        return (leading, 0);
    }
    (leading, words.iter().rev().take_while(|word| word.is_none()).count())
}

/// The window that counts for each sub-token of the content.
fn owners(places: &[Range<usize>], content: &Range<usize>) -> Vec<usize> {
    let context = |place: &Range<usize>, at: usize| {
        let left = if place.start == content.start { usize::MAX } else { at - place.start };
        let right = if place.end == content.end { usize::MAX } else { place.end - 1 - at };
        left.min(right)
    };
    let mut first = 0;
    let owner = |at: usize| {
        while places[first].end <= at {
            first += 1;
        }
        let covering = (first..places.len()).take_while(|index| places[*index].start <= at);
        // The first one of equals.
        covering.rev_max(|index| context(&places[index], at))
    };
    content.clone().map(owner).collect()
}

trait RevMax: Iterator<Item = usize> + Sized {
    /// The first of the elements with the largest key; 0 of none.
    fn rev_max(self, key: impl Fn(usize) -> usize) -> usize {
        let best = self.fold(None, |best: Option<(usize, usize)>, index| match best {
            Some((_, most)) if most >= key(index) => best,
            _ => Some((index, key(index))),
        });
        best.map_or(0, |(index, _)| index)
    }
}

impl<I: Iterator<Item = usize>> RevMax for I {}

/// Label ids by word of a document from label ids by sub-token of its windows (or of its only row): each word has that of its first
/// sub-token in the window where it counts. One that is [covered](Encoded::covered) goes on with the entity of the earlier word, as prediction finds
/// it; one that the model does not see is `O`. `names` are the labels by id.
pub fn word_labels<'a>(windows: impl IntoIterator<Item = (&'a Encoded, &'a [usize])>, names: &[String]) -> Vec<usize> {
    let id = |name: &str| names.iter().position(|other| other == name);
    let outside = id("O").unwrap_or(0);
    let (mut labels, mut covered) = (Vec::new(), Vec::new());
    for (row, predicted) in windows {
        covered.extend(row.covered.iter().copied());
        labels.resize(row.word_count.max(labels.len()), outside);
        let Target::Tokens(targets) = &row.target else { continue };
        for ((word, target), label) in row.words.iter().zip(targets).zip(predicted) {
            if let Some(slot) = word.filter(|_| *target != IGNORED).and_then(|word| labels.get_mut(word)) {
                *slot = *label;
            }
        }
    }
    let inside = |label: usize| {
        let kind = names.get(label).and_then(|name| name.strip_prefix("B-"));
        kind.and_then(|kind| id(&format!("I-{kind}"))).unwrap_or(label)
    };
    for (word, earlier) in covered {
        if let Some(label) = labels.get(earlier).copied()
            && let Some(slot) = labels.get_mut(word)
        {
            *slot = inside(label);
        }
    }
    labels
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A row of `words` words of `pieces` sub-tokens each, between two special tokens; word w has label w + 1.
    fn row(words: usize, pieces: usize) -> Encoded {
        let mut row = Encoded {
            input_ids: vec![2],
            type_ids: Vec::new(),
            target: Target::Tokens(Vec::new()),
            words: vec![None],
            word_count: words,
            covered: Vec::new(),
        };
        let mut labels = vec![IGNORED];
        for word in 0..words {
            for piece in 0..pieces {
                row.input_ids.push((10 + word * pieces + piece) as i64);
                row.words.push(Some(word));
                labels.push(if piece == 0 { word as i64 + 1 } else { IGNORED });
            }
        }
        row.input_ids.push(3);
        row.words.push(None);
        labels.push(IGNORED);
        row.type_ids = vec![0; row.input_ids.len()];
        row.target = Target::Tokens(labels);
        row
    }

    #[test]
    fn windows_are_those_of_transformers() {
        // tokenizer(..., max_length=6, stride=2, return_overflowing_tokens=True) of ten sub-tokens.
        let windows = cut(row(10, 1), 6, 2).unwrap();
        let ids: Vec<&[i64]> = windows.iter().map(|window| window.row.input_ids.as_slice()).collect();
        let expected: [&[i64]; 4] =
            [&[2, 10, 11, 12, 13, 3], &[2, 12, 13, 14, 15, 3], &[2, 14, 15, 16, 17, 3], &[2, 16, 17, 18, 19, 3]];
        assert_eq!(ids, expected);
        let scored: Vec<Range<usize>> = windows.iter().map(|window| window.scored.clone()).collect();
        assert_eq!(scored, [1..4, 2..4, 2..4, 2..5]);
        let whole = cut(row(3, 1), 5, 2).unwrap();
        assert_eq!((whole.len(), &whole[0].row), (1, &row(3, 1)));
        assert!(matches!(cut(row(9, 1), 6, 4), Err(Error::Argument { field: "stride", .. })));
    }

    #[test]
    fn words_that_a_window_cuts_count_once() {
        let windows = cut(row(4, 3), 8, 2).unwrap();
        let Target::Tokens(labels) = &windows[1].row.target else { panic!("not of words") };
        // The window begins inside a word, whose rest answers for nothing.
        assert_eq!((windows[1].row.words[1], labels[1]), (Some(1), IGNORED));
        let counted: usize = windows
            .iter()
            .map(|window| {
                let Target::Tokens(labels) = &window.row.target else { return 0 };
                labels.iter().filter(|label| **label != IGNORED).count()
            })
            .sum();
        assert_eq!(counted, 4);
    }

    proptest::proptest! {
        #[test]
        fn each_sub_token_counts_once_where_it_has_most_context(
            words in 1usize..40, pieces in 1usize..4, max_length in 4usize..20, stride in 0usize..12,
        ) {
            proptest::prop_assume!(stride < max_length - 2);
            let whole = row(words, pieces);
            let windows = cut(whole.clone(), max_length, stride).unwrap();
            let mut owner = vec![None; whole.length()];
            for (index, window) in windows.iter().enumerate() {
                proptest::prop_assert!(window.row.length() <= max_length);
                for at in window.scored.clone() {
                    let place = window.place.start + at - 1;
                    proptest::prop_assert_eq!(window.row.input_ids[at], whole.input_ids[place]);
                    proptest::prop_assert!(owner[place].replace(index).is_none());
                }
            }
            proptest::prop_assert_eq!(owner.iter().filter(|owner| owner.is_some()).count(), words * pieces);
            // By brute force.
            let (first, last) = (1, whole.length() - 1);
            for (place, owner) in owner.iter().enumerate() {
                let Some(owner) = *owner else { continue };
                let context = |window: &Window| {
                    let left = if window.place.start == first { usize::MAX } else { place - window.place.start };
                    let right = if window.place.end == last { usize::MAX } else { window.place.end - 1 - place };
                    left.min(right)
                };
                let most = windows.iter().filter(|window| window.place.contains(&place)).map(context).max();
                proptest::prop_assert_eq!(Some(context(&windows[owner])), most);
            }
            // Predictions that equal the labels come back as they are.
            let predicted: Vec<Vec<usize>> = windows.iter().map(|window| match &window.row.target {
                Target::Tokens(labels) => labels.iter().map(|label| usize::try_from(*label).unwrap_or(99)).collect(),
                _ => Vec::new(),
            }).collect();
            let pairs = windows.iter().zip(&predicted).map(|(window, predicted)| (&window.row, predicted.as_slice()));
            proptest::prop_assert_eq!(word_labels(pairs, &[]), (1..=words).collect::<Vec<_>>());
        }
    }
}
