//! Rows and examples as bytes: little-endian, read by this program alone.
use std::collections::BTreeSet;

use crate::{
    align::Encoded,
    data::{Answer, Sentence, TextExample},
    rows::Example,
    task::Target,
};

/// Kinds of examples: words given apart, words of a text, a text.
const OF_WORDS: u8 = 0;
const TEXT: u8 = 1;
const OF_TEXT: u8 = 2;

/// Stands for no word, and for the label that the loss ignores.
const NONE: u32 = u32::MAX;

pub(crate) fn encode_row(row: &Encoded, out: &mut Vec<u8>) {
    number(out, row.length());
    number(out, row.word_count);
    row.input_ids.iter().for_each(|id| narrow(out, *id));
    // Most rows have one type and texts have no words: nothing is written for them.
    let typed = row.type_ids.iter().any(|kind| *kind != 0);
    let worded = row.words.iter().any(Option::is_some);
    out.extend([u8::from(typed), u8::from(worded)]);
    if typed {
        row.type_ids.iter().for_each(|kind| narrow(out, *kind));
    }
    if worded {
        row.words.iter().for_each(|word| number(out, word.unwrap_or(NONE as usize)));
        number(out, row.covered.len());
        row.covered.iter().for_each(|(word, earlier)| {
            number(out, *word);
            number(out, *earlier);
        });
    }
    match &row.target {
        Target::Tokens(labels) => {
            out.push(0);
            labels.iter().for_each(|label| narrow(out, *label));
        }
        Target::Class(label) => {
            out.push(1);
            narrow(out, *label);
        }
        Target::Classes(flags) => {
            out.push(2);
            number(out, flags.len());
            flags.iter().for_each(|flag| out.extend(flag.to_le_bytes()));
        }
        Target::Value(value) => {
            out.push(3);
            out.extend(value.to_le_bytes());
        }
    }
}

pub(crate) fn decode_row(bytes: &[u8]) -> Option<Encoded> {
    let mut input = Input(bytes);
    let (length, word_count) = (input.number()?, input.number()?);
    let input_ids = input.many(length, Input::wide)?;
    let (typed, worded) = (input.byte()? == 1, input.byte()? == 1);
    let type_ids = if typed { input.many(length, Input::wide)? } else { vec![0; length] };
    let word = |input: &mut Input<'_>| input.number().map(|word| (word != NONE as usize).then_some(word));
    let (words, covered) = if worded {
        let words = input.many(length, word)?;
        let count = input.number()?;
        (words, input.many(count, |input| Some((input.number()?, input.number()?)))?)
    } else {
        (vec![None; length], Vec::new())
    };
    let target = match input.byte()? {
        0 => Target::Tokens(input.many(length, Input::wide)?),
        1 => Target::Class(input.wide()?),
        2 => {
            let count = input.number()?;
            Target::Classes(input.many(count, Input::float)?)
        }
        _ => Target::Value(input.float()?),
    };
    Some(Encoded { input_ids, type_ids, target, words, word_count, covered })
}

/// An example; its first four bytes are its length in bytes.
pub(crate) fn encode_example(example: &Example, out: &mut Vec<u8>) {
    let start = out.len();
    number(out, 0);
    number(out, example.line());
    match example {
        Example::Sentence(Sentence { words, tags, text: whole, .. }) => {
            out.push(if whole.is_some() { OF_TEXT } else { OF_WORDS });
            whole.iter().for_each(|whole| text(out, whole));
            number(out, words.len());
            for (word, tag) in words.iter().zip(tags) {
                // The text has the words; where each ends is enough.
                if whole.is_some() {
                    number(out, word.len())
                } else {
                    text(out, word)
                }
                text(out, tag);
            }
        }
        Example::Text(example) => {
            out.push(TEXT);
            text(out, &example.text);
            out.push(u8::from(example.pair.is_some()));
            example.pair.iter().for_each(|pair| text(out, pair));
            match &example.answer {
                Answer::Label(label) => {
                    out.push(0);
                    text(out, label);
                }
                Answer::Labels(labels) => {
                    out.push(1);
                    number(out, labels.len());
                    labels.iter().for_each(|label| text(out, label));
                }
                Answer::Value(value) => {
                    out.push(2);
                    out.extend(value.to_le_bytes());
                }
            }
        }
    }
    let length = (out.len() - start) as u32;
    out[start..start + 4].copy_from_slice(&length.to_le_bytes());
}

pub(crate) fn decode_example(bytes: &[u8]) -> Option<Example> {
    let mut input = Input(bytes);
    let (_, line) = (input.number()?, input.number()?);
    let kind = input.byte()?;
    if kind != TEXT {
        let text = if kind == OF_TEXT { Some(input.text()?) } else { None };
        let count = input.number()?;
        let (mut words, mut tags) = (Vec::with_capacity(count), Vec::with_capacity(count));
        let mut rest = text.as_deref();
        for _ in 0..count {
            words.push(match &mut rest {
                None => input.text()?,
                Some(rest) => {
                    let (word, behind) = rest.trim_start().split_at_checked(input.number()?)?;
                    *rest = behind;
                    word.to_owned()
                }
            });
            tags.push(input.text()?);
        }
        return Some(Example::Sentence(Sentence { words, tags, line, text }));
    }
    let text = input.text()?;
    let pair = if input.byte()? == 1 { Some(input.text()?) } else { None };
    let answer = match input.byte()? {
        0 => Answer::Label(input.text()?),
        1 => {
            let count = input.number()?;
            Answer::Labels(input.many(count, Input::text)?.into_iter().collect::<BTreeSet<_>>())
        }
        _ => Answer::Value(input.float()?),
    };
    Some(Example::Text(TextExample { text, pair, answer, line }))
}

/// Sizes and ids all fit: no row has 2^32 sub-tokens, no vocabulary 2^31 entries.
fn number(out: &mut Vec<u8>, value: usize) {
    out.extend(u32::try_from(value).unwrap_or(NONE).to_le_bytes());
}

/// An id, or the label -100.
fn narrow(out: &mut Vec<u8>, value: i64) {
    out.extend(i32::try_from(value).unwrap_or(i32::MAX).to_le_bytes());
}

fn text(out: &mut Vec<u8>, text: &str) {
    number(out, text.len());
    out.extend(text.as_bytes());
}

struct Input<'a>(&'a [u8]);

impl Input<'_> {
    fn take<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (found, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(*found)
    }

    fn byte(&mut self) -> Option<u8> {
        self.take::<1>().map(|[byte]| byte)
    }

    fn number(&mut self) -> Option<usize> {
        self.take().map(|bytes| u32::from_le_bytes(bytes) as usize)
    }

    fn wide(&mut self) -> Option<i64> {
        self.take().map(|bytes| i64::from(i32::from_le_bytes(bytes)))
    }

    fn float(&mut self) -> Option<f32> {
        self.take().map(f32::from_le_bytes)
    }

    fn text(&mut self) -> Option<String> {
        let length = self.number()?;
        let (found, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        String::from_utf8(found.to_vec()).ok()
    }

    fn many<T>(&mut self, count: usize, read: impl Fn(&mut Self) -> Option<T>) -> Option<Vec<T>> {
        (0..count).map(|_| read(self)).collect()
    }
}
