//! Texts to rows for a model as the pipelines of `transformers` cut them, and sub-tokens back to text.
use std::path::Path;

use serde::Deserialize;
use tokenizers::{
    Decoder as _, EncodeInput, Encoding, InputSequence, PostProcessor as _, Tokenizer, TruncationDirection,
    TruncationParams, TruncationStrategy,
};

use super::ScoredRow;
use crate::{
    Error,
    align::{Encoded, IGNORED},
    data::words::split,
    files,
    places::spoken,
    task::Target,
    tokenizer::{parse, parse_apart},
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
    /// The row; its target is empty. The words are those given, else those of the text by the rule that data with character spans is read by.
    pub encoded: Encoded,
    /// Whether each sub-token is the first one of its word.
    pub first: Vec<bool>,
    /// Whether each sub-token is a special one.
    pub special: Vec<bool>,
    /// Characters of the text that each sub-token covers.
    pub offsets: Vec<(usize, usize)>,
}

impl PredictionRow {
    /// With the model's output for it, [sub-tokens, labels].
    pub fn scored<'a>(&'a self, logits: &'a [f32]) -> ScoredRow<'a> {
        let Self { encoded, first, special, offsets } = self;
        ScoredRow { ids: &encoded.input_ids, special, offsets, words: &encoded.words, first, logits }
    }
}

/// A tokenizer for prediction.
pub struct PipelineTokenizer {
    inner: Tokenizer,
    /// For words given apart, where that needs another one.
    apart: Option<Tokenizer>,
    windows: bool,
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
        let content = files::read(path)?;
        let mut inner = parse(path, &content, None)?;
        let File { model } = serde_json::from_slice(&content).map_err(|e| Error::format(path, e.to_string()))?;
        let added = |pair| inner.get_post_processor().map_or(0, |processor| processor.added_tokens(pair));
        let specials = added(true);
        if max_length <= specials {
            let problem = format!("found {max_length}, expected more than the {specials} special tokens");
            return Err(Error::argument("max_length", problem));
        }
        let room = max_length - added(false);
        if let Some(stride) = stride.filter(|stride| *stride >= room) {
            return Err(Error::argument(
                "stride",
                format!("found {stride}, expected less than the {room} of a window"),
            ));
        }
        let truncation = TruncationParams {
            max_length,
            stride: stride.unwrap_or(0),
            strategy: TruncationStrategy::LongestFirst,
            direction: TruncationDirection::Right,
        };
        let apart = parse_apart(path, &content, Some(&truncation))?;
        inner.with_truncation(Some(truncation)).map_err(|e| Error::format(path, e.to_string()))?;
        let unknown = model.unk_id.or_else(|| inner.token_to_id(&model.unk_token?));
        let word_aware = model.continuing_subword_prefix.is_some_and(|prefix| !prefix.is_empty());
        Ok(Self { inner, apart, windows: stride.is_some(), unknown, word_aware })
    }

    /// The rows of an input, at least one; several only for windows.
    ///
    /// # Errors
    /// A pair cannot go in windows.
    pub fn rows(&self, input: &InputText) -> Result<Vec<PredictionRow>, Error> {
        if self.windows && matches!(input, InputText::Pair(..)) {
            return Err(Error::argument("stride", "found a pair of texts, only single texts go in windows"));
        }
        let (tokenizer, encode_input): (_, EncodeInput<'_>) = match input {
            InputText::Text(text) => (&self.inner, text.as_str().into()),
            InputText::Pair(text, pair) => (&self.inner, (text.as_str(), pair.as_str()).into()),
            InputText::Words(words) => {
                let words = EncodeInput::Single(InputSequence::from(words.as_slice()));
                (self.apart.as_ref().unwrap_or(&self.inner), words)
            }
        };
        let encoding = tokenizer
            .encode_char_offsets(encode_input, true)
            .map_err(|e| Error::argument("text", format!("the tokenizer refused it: {e}")))?;
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
        let text: Vec<char> = match input {
            InputText::Text(text) => text.chars().collect(),
            _ => Vec::new(),
        };
        let words = split(&text);
        let further = if self.windows { encoding.get_overflowing().as_slice() } else { &[] };
        let placed = |encoding: &Encoding| {
            let mut row = row(encoding, &starts);
            if matches!(input, InputText::Text(_)) {
                let places = row.special.iter().zip(&row.offsets).map(|(special, place)| (!special).then_some(*place));
                let spoken = spoken(&text, &words, places);
                (row.encoded.words, row.first, row.encoded.covered) = (spoken.words, spoken.first, spoken.covered);
                row.encoded.word_count = words.len();
            }
            row
        };
        Ok(std::iter::once(&encoding).chain(further).map(placed).collect())
    }

    /// The sub-token of an id; empty for an id that the vocabulary does not have.
    pub(super) fn token(&self, id: i64) -> String {
        u32::try_from(id).ok().and_then(|id| self.inner.id_to_token(id)).unwrap_or_default()
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
        match self.inner.get_decoder() {
            Some(decoder) => decoder
                .decode(tokens)
                .map_err(|e| Error::argument("tokens", format!("the tokenizer's decoder refused them: {e}"))),
            None => Ok(tokens.join(" ")),
        }
    }
}

fn row(encoding: &Encoding, starts: &[usize]) -> PredictionRow {
    let words: Vec<Option<usize>> = encoding.get_word_ids().iter().map(|word| word.map(|word| word as usize)).collect();
    let offset = |(word, (start, end)): (&Option<usize>, &(usize, usize))| {
        let base = word.and_then(|word| starts.get(word)).copied().unwrap_or(0);
        (start + base, end + base)
    };
    let first = (0..words.len()).map(|at| words[at].is_some() && (at == 0 || words[at - 1] != words[at])).collect();
    PredictionRow {
        special: encoding.get_special_tokens_mask().iter().map(|flag| *flag == 1).collect(),
        offsets: words.iter().zip(encoding.get_offsets()).map(offset).collect(),
        encoded: Encoded {
            input_ids: encoding.get_ids().iter().map(|id| i64::from(*id)).collect(),
            type_ids: encoding.get_type_ids().iter().map(|id| i64::from(*id)).collect(),
            target: Target::Tokens(vec![IGNORED; encoding.len()]),
            word_count: words.iter().flatten().max().map_or(0, |last| last + 1),
            words,
            covered: Vec::new(),
        },
        first,
    }
}
