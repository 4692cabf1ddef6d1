//! Texts to rows for a model as the pipelines of `transformers` cut them, and sub-tokens back to text.
use std::path::Path;

use serde::Deserialize;
use tokenizers::Decoder as _;

use crate::{
    Error,
    align::{Encoded, IGNORED},
    files,
    task::Target,
    tokenizer::{SubTokens, WordTokenizer},
    windows,
};

/// What a model is asked about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum InputText {
    /// A text.
    Text(String),
    /// Two texts that belong together.
    Pair(String, String),
    /// Words split beforehand; as text they are joined by blanks.
    Words(Vec<String>),
}

impl InputText {
    /// The text that offsets of entities refer to; that of a pair is its first.
    pub fn text(&self) -> String {
        match self {
            Self::Text(text) | Self::Pair(text, _) => text.clone(),
            Self::Words(words) => words.join(" "),
        }
    }
}

/// A row for the model, and where its sub-tokens stand.
#[derive(Debug, Clone, PartialEq)]
pub struct PredictionRow {
    /// The row; its target is empty.
    pub encoded: Encoded,
    /// Whether each sub-token is a special one.
    pub special: Vec<bool>,
    /// Characters of the text that each sub-token covers.
    pub offsets: Vec<(usize, usize)>,
}

/// A tokenizer for prediction.
pub struct PipelineTokenizer {
    inner: WordTokenizer,
    max_length: usize,
    stride: Option<usize>,
    unknown: Option<u32>,
    word_aware: bool,
}

/// The part of `tokenizer.json` that the tokenizer itself does not tell.
#[derive(Deserialize)]
struct File {
    model: Model,
}

#[derive(Deserialize)]
struct Model {
    unk_token: Option<String>,
    unk_id: Option<u32>,
    continuing_subword_prefix: Option<String>,
}

impl PipelineTokenizer {
    /// Loads a `tokenizer.json`, its padding switched off. Rows have `max_length` sub-tokens at most, special ones included: with a
    /// stride, longer texts go in windows that share so many sub-tokens with the one before; without, they are cut.
    pub fn load(path: &Path, max_length: usize, stride: Option<usize>) -> Result<Self, Error> {
        let inner = WordTokenizer::load(path)?;
        let File { model } =
            serde_json::from_slice(&files::read(path)?).map_err(|e| Error::format(path, e.to_string()))?;
        let specials = inner.special_tokens_of_pair().max(inner.special_tokens());
        if max_length <= specials {
            let problem = format!("found {max_length}, expected more than the {specials} special tokens");
            return Err(Error::argument("max_length", problem));
        }
        let room = max_length - inner.special_tokens();
        if let Some(stride) = stride.filter(|stride| *stride >= room) {
            return Err(Error::argument(
                "stride",
                format!("found {stride}, expected less than the {room} of a window"),
            ));
        }
        let unknown = model.unk_id.or_else(|| inner.library().token_to_id(&model.unk_token?));
        let word_aware = model.continuing_subword_prefix.is_some_and(|prefix| !prefix.is_empty());
        Ok(Self { inner, max_length, stride, unknown, word_aware })
    }

    /// The rows of an input, at least one; several only for windows.
    ///
    /// # Errors
    /// A pair cannot go in windows.
    pub fn rows(&self, input: &InputText) -> Result<Vec<PredictionRow>, Error> {
        // What goes in windows is encoded whole.
        let longest = if self.stride.is_some() { usize::MAX } else { self.max_length };
        let tokens = match input {
            InputText::Text(text) => self.inner.encode_text(text, longest)?,
            InputText::Pair(..) if self.stride.is_some() => {
                return Err(Error::argument("stride", "found a pair of texts, only single texts go in windows"));
            }
            InputText::Pair(text, pair) => self.inner.encode_pair(text, pair, longest)?,
            InputText::Words(words) => self.inner.encode_words(words, longest)?,
        };
        let whole = row(tokens, input);
        let Some(stride) = self.stride else { return Ok(vec![whole]) };
        let PredictionRow { encoded, special, offsets } = whole;
        let windows = windows::cut(encoded, self.max_length, stride)?.into_iter().map(|window| PredictionRow {
            special: window.positions.iter().map(|at| special[*at]).collect(),
            offsets: window.positions.iter().map(|at| offsets[*at]).collect(),
            encoded: window.row,
        });
        Ok(windows.collect())
    }

    /// The sub-token of an id; empty for an id that the vocabulary does not have.
    pub(super) fn token(&self, id: i64) -> String {
        u32::try_from(id).ok().and_then(|id| self.inner.library().id_to_token(id)).unwrap_or_default()
    }

    /// Whether an id stands for what the vocabulary does not have.
    pub(super) fn is_unknown(&self, id: i64) -> bool {
        self.unknown.is_some_and(|unknown| i64::from(unknown) == id)
    }

    /// Whether sub-tokens carry a mark when they continue a word (`##` of WordPiece).
    pub(super) fn is_word_aware(&self) -> bool {
        self.word_aware
    }

    /// Sub-tokens joined to text by the tokenizer's decoder, else with blanks between them.
    pub(super) fn join(&self, tokens: Vec<String>) -> Result<String, Error> {
        match self.inner.library().get_decoder() {
            Some(decoder) => decoder
                .decode(tokens)
                .map_err(|e| Error::argument("tokens", format!("the tokenizer's decoder refused them: {e}"))),
            None => Ok(tokens.join(" ")),
        }
    }
}

fn row(tokens: SubTokens, input: &InputText) -> PredictionRow {
    // Where each word begins in the text that the words make.
    let starts: Vec<usize> = match input {
        InputText::Words(words) => words
            .iter()
            .scan(0, |next, word| {
                let start = *next;
                *next += word.chars().count() + 1;
                Some(start)
            })
            .collect(),
        _ => Vec::new(),
    };
    let SubTokens { ids, type_ids, words, offsets, special, .. } = tokens;
    let offset = |(word, (start, end)): (&Option<usize>, (usize, usize))| {
        let base = word.and_then(|word| starts.get(word)).copied().unwrap_or(0);
        (start + base, end + base)
    };
    PredictionRow {
        special,
        offsets: words.iter().zip(offsets).map(offset).collect(),
        encoded: Encoded {
            target: Target::Tokens(vec![IGNORED; ids.len()]),
            input_ids: ids,
            type_ids,
            word_count: words.iter().flatten().max().map_or(0, |last| last + 1),
            words,
        },
    }
}
