//! Words and text to sub-tokens, by the `tokenizer.json` of a checkpoint.
use std::path::Path;

use tokenizers::{Encoding, PostProcessor as _, Tokenizer};

use crate::{Error, files};

/// A tokenizer with the padding and truncation of its file switched off: some files carry both (all-MiniLM-L6-v2 pads
/// every row to 128), which is a setting of the sentence encoder they were published for, not of the vocabulary.
pub struct WordTokenizer {
    inner: Tokenizer,
    specials: usize,
}

/// Sub-tokens of one input.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SubTokens {
    /// Vocabulary ids.
    pub ids: Vec<i64>,
    /// Word of each sub-token; none for special tokens.
    pub words: Vec<Option<usize>>,
    /// Start and end of each sub-token in characters of the text (of the word, when words were encoded).
    pub offsets: Vec<(usize, usize)>,
    /// Whether sub-tokens were cut off to keep to the length asked for.
    pub truncated: bool,
}

impl WordTokenizer {
    /// Loads a `tokenizer.json`.
    pub fn load(path: &Path) -> Result<Self, Error> {
        let content = files::read(path)?;
        let mut inner = Tokenizer::from_bytes(&content).map_err(|e| Error::format(path, e.to_string()))?;
        inner.with_padding(None);
        inner.with_truncation(None).map_err(|e| Error::format(path, e.to_string()))?;
        let specials = inner.get_post_processor().map_or(0, |processor| processor.added_tokens(false));
        Ok(Self { inner, specials })
    }

    /// Entries, added tokens included.
    pub fn vocabulary_size(&self) -> usize {
        self.inner.get_vocab_size(true)
    }

    /// Special tokens that a row gets (`[CLS]` and `[SEP]`: 2).
    pub fn special_tokens(&self) -> usize {
        self.specials
    }

    /// Encodes words split beforehand, with special tokens, cut at the end to at most `max_length` sub-tokens.
    pub fn encode_words(&self, words: &[String], max_length: usize) -> Result<SubTokens, Error> {
        let encoding = self.inner.encode_char_offsets(words, true).map_err(|e| self.failed(&e))?;
        self.cut(&encoding, max_length)
    }

    /// Encodes a text, with special tokens, cut at the end to at most `max_length` sub-tokens. The words are those of the
    /// tokenizer's own splitting.
    pub fn encode_text(&self, text: &str, max_length: usize) -> Result<SubTokens, Error> {
        let encoding = self.inner.encode_char_offsets(text, true).map_err(|e| self.failed(&e))?;
        self.cut(&encoding, max_length)
    }

    fn failed(&self, error: &tokenizers::Error) -> Error {
        Error::argument("text", format!("the tokenizer refused it: {error}"))
    }

    /// Cuts sub-tokens before the closing special tokens, as `truncation=True` of `transformers` does.
    fn cut(&self, encoding: &Encoding, max_length: usize) -> Result<SubTokens, Error> {
        let length = encoding.len();
        if max_length <= self.specials {
            let problem = format!("found {max_length}, expected more than the {} special tokens", self.specials);
            return Err(Error::argument("max_length", problem));
        }
        let trailing = encoding.get_special_tokens_mask().iter().rev().take_while(|mask| **mask == 1).count();
        let trailing = trailing.min(self.specials);
        let kept =
            |index: &usize| length <= max_length || *index < max_length - trailing || *index >= length - trailing;
        let rows = (0..length).filter(kept);
        let mut tokens =
            SubTokens { ids: Vec::new(), words: Vec::new(), offsets: Vec::new(), truncated: length > max_length };
        for index in rows {
            tokens.ids.push(i64::from(encoding.get_ids()[index]));
            tokens.words.push(encoding.get_word_ids()[index].map(|word| word as usize));
            tokens.offsets.push(encoding.get_offsets()[index]);
        }
        Ok(tokens)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing;

    fn tokenizer() -> WordTokenizer {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("tokenizer.json");
        files::write_file(&path, testing::tokenizer_json(&["paris", "new", "##port"]).to_string().as_bytes()).unwrap();
        WordTokenizer::load(&path).unwrap()
    }

    fn words(text: &str) -> Vec<String> {
        text.split(' ').map(str::to_owned).collect()
    }

    #[test]
    fn padding_and_truncation_of_the_file_are_off() {
        let tokenizer = tokenizer();
        let tokens = tokenizer.encode_words(&words("Newport Paris a"), 512).unwrap();
        assert_eq!(tokens.words, [None, Some(0), Some(0), Some(1), Some(2), None]);
        assert_eq!(tokens.offsets[1..3], [(0, 3), (3, 7)]);
        let long = vec!["a".to_owned(); 300];
        assert_eq!(tokenizer.encode_words(&long, 512).unwrap().ids.len(), 302);
    }

    #[test]
    fn cutting_keeps_the_closing_token() {
        let tokenizer = tokenizer();
        let whole = tokenizer.encode_words(&words("a b c d"), 6).unwrap();
        assert!(!whole.truncated);
        let cut = tokenizer.encode_words(&words("a b c d"), 5).unwrap();
        assert!(cut.truncated);
        assert_eq!(cut.ids[..4], whole.ids[..4]);
        assert_eq!(cut.ids[4], whole.ids[5]);
        assert_eq!(cut.words, [None, Some(0), Some(1), Some(2), None]);
        assert!(matches!(tokenizer.encode_words(&words("a"), 2), Err(Error::Argument { field: "max_length", .. })));
    }

    #[test]
    fn text_gets_offsets_in_characters() {
        let tokens = tokenizer().encode_text("é paris", 10).unwrap();
        assert_eq!(tokens.offsets[1..3], [(0, 1), (2, 7)]);
        assert_eq!(tokenizer().encode_words(&[], 10).unwrap().words, [None, None]);
    }

    #[test]
    fn a_broken_file_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("tokenizer.json");
        assert!(matches!(WordTokenizer::load(&path), Err(Error::Io { .. })));
        files::write_file(&path, b"{\"version\":").unwrap();
        assert!(matches!(WordTokenizer::load(&path), Err(Error::Format { .. })));
    }
}
