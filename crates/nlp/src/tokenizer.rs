//! Words and text to sub-tokens, by the `tokenizer.json` of a checkpoint.
use std::{ops::Range, path::Path};

use tokenizers::{Encoding, PostProcessor as _, Tokenizer, TruncationParams};

use crate::{Error, byte_level, files, places::spoken};

/// A tokenizer with the padding and truncation of its file switched off: some files carry both (all-MiniLM-L6-v2 pads
/// every row to 128), which is a setting of the sentence encoder they were published for, not of the vocabulary.
pub struct WordTokenizer {
    inner: Tokenizer,
    /// For words given apart, where that needs another one.
    apart: Option<Tokenizer>,
    specials: usize,
}

/// Sub-tokens of one input.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SubTokens {
    /// Vocabulary ids.
    pub ids: Vec<i64>,
    /// Token types: those of the tokenizer's template, 1 for the second text of a pair in most.
    pub type_ids: Vec<i64>,
    /// Word of each sub-token; none for special tokens.
    pub words: Vec<Option<usize>>,
    /// Whether it is the first one of its word.
    pub first: Vec<bool>,
    /// Words of a text that have no sub-token of their own, because that of an earlier word covers their first character; and that word.
    pub covered: Vec<(usize, usize)>,
    /// Start and end of each sub-token in characters of the text (of the word, when words were encoded).
    pub offsets: Vec<(usize, usize)>,
    /// Whether sub-tokens were cut off to keep to the length asked for.
    pub truncated: bool,
}

impl WordTokenizer {
    /// Loads a `tokenizer.json`.
    pub fn load(path: &Path) -> Result<Self, Error> {
        let content = files::read(path)?;
        let inner = parse(path, &content, None)?;
        let apart = parse_apart(path, &content, None)?;
        let specials = inner.get_post_processor().map_or(0, |processor| processor.added_tokens(false));
        Ok(Self { inner, apart, specials })
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
        let tokenizer = self.apart.as_ref().unwrap_or(&self.inner);
        let encoding = tokenizer.encode_char_offsets(words, true).map_err(|e| self.failed(&e))?;
        self.cut(&encoding, max_length)
    }

    /// Encodes a text of which these words, by their characters, are tagged; with special tokens, cut at the end to at most `max_length`
    /// sub-tokens. They are those of the text as prediction sees it, by the tokenizer that goes with a head that tags words.
    pub fn encode_tagged(&self, text: &str, words: &[Range<usize>], max_length: usize) -> Result<SubTokens, Error> {
        let tokenizer = self.apart.as_ref().unwrap_or(&self.inner);
        let encoding = tokenizer.encode_char_offsets(text, true).map_err(|e| self.failed(&e))?;
        let mut tokens = self.cut(&encoding, max_length)?;
        let characters: Vec<char> = text.chars().collect();
        let places = tokens.words.iter().zip(&tokens.offsets).map(|(word, offset)| word.map(|_| *offset));
        let spoken = spoken(&characters, words, places);
        (tokens.words, tokens.first, tokens.covered) = (spoken.words, spoken.first, spoken.covered);
        Ok(tokens)
    }

    /// Encodes a text, with special tokens, cut at the end to at most `max_length` sub-tokens. The words are those of the
    /// tokenizer's own splitting.
    pub fn encode_text(&self, text: &str, max_length: usize) -> Result<SubTokens, Error> {
        let encoding = self.inner.encode_char_offsets(text, true).map_err(|e| self.failed(&e))?;
        self.cut(&encoding, max_length)
    }

    /// Encodes a pair of texts by the tokenizer's template for pairs, cut to at most `max_length` sub-tokens from the end of the longer
    /// text first, as `truncation="longest_first"` of `transformers` does.
    pub fn encode_pair(&self, text: &str, pair: &str, max_length: usize) -> Result<SubTokens, Error> {
        let encoding = self.inner.encode_char_offsets((text, pair), true).map_err(|e| self.failed(&e))?;
        let sequences = encoding.get_sequence_ids();
        // Special tokens of the template belong to neither text.
        let count = |text: usize| sequences.iter().filter(|sequence| **sequence == Some(text)).count();
        let lengths = [count(0), count(1)];
        let specials = sequences.len() - lengths[0] - lengths[1];
        let Some(room) = max_length.checked_sub(specials).filter(|room| *room > 0) else {
            let problem = format!("found {max_length}, expected more than the {specials} special tokens of a pair");
            return Err(Error::argument("max_length", problem));
        };
        let kept = longest_first(lengths, room);
        let mut taken = [0, 0];
        let mut tokens = SubTokens { truncated: kept != lengths, ..SubTokens::default() };
        for (index, sequence) in sequences.iter().enumerate() {
            if let Some(text @ (0 | 1)) = *sequence {
                taken[text] += 1;
                if taken[text] > kept[text] {
                    continue;
                }
            }
            tokens.push(&encoding, index);
        }
        Ok(tokens)
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
        let mut tokens = SubTokens { truncated: length > max_length, ..SubTokens::default() };
        (0..length).filter(kept).for_each(|index| tokens.push(encoding, index));
        Ok(tokens)
    }
}

/// A tokenizer from the content of a `tokenizer.json`, with this truncation and no padding.
pub(crate) fn parse(path: &Path, content: &[u8], truncation: Option<&TruncationParams>) -> Result<Tokenizer, Error> {
    let wrong = |error: tokenizers::Error| Error::format(path, error.to_string());
    let mut tokenizer = Tokenizer::from_bytes(content).map_err(wrong)?;
    tokenizer.with_padding(None);
    tokenizer.with_truncation(truncation.cloned()).map_err(wrong)?;
    Ok(tokenizer)
}

/// The tokenizer for words given apart, where that is not the one of the file.
pub(crate) fn parse_apart(
    path: &Path,
    content: &[u8],
    truncation: Option<&TruncationParams>,
) -> Result<Option<Tokenizer>, Error> {
    let changed = byte_level::with_prefix_space(content).map_err(|e| Error::format(path, e.to_string()))?;
    changed.map(|file| parse(path, file.to_string().as_bytes(), truncation)).transpose()
}

impl SubTokens {
    fn push(&mut self, encoding: &Encoding, index: usize) {
        self.ids.push(i64::from(encoding.get_ids()[index]));
        self.type_ids.push(i64::from(encoding.get_type_ids()[index]));
        let word = encoding.get_word_ids()[index].map(|word| word as usize);
        self.first.push(word.is_some() && self.words.last().is_none_or(|before| *before != word));
        self.words.push(word);
        self.offsets.push(encoding.get_offsets()[index]);
    }
}

/// How much two texts of these lengths keep when they have `room` together: the longer one loses first, and when both are longer than half
/// of it, each keeps a half, the second one more if it does not come out even (the rule of Hugging Face's fast tokenizers, where the text that was
/// longer counts as the second).
fn longest_first(lengths: [usize; 2], room: usize) -> [usize; 2] {
    let [first, second] = lengths;
    if first + second <= room {
        return lengths;
    }
    let (short, swapped) = if first > second { (second, true) } else { (first, false) };
    let long = if short > room { short } else { short.max(room - short) };
    let (short, long) = if short + long > room { (room / 2, room / 2 + room % 2) } else { (short, long) };
    let [first, second] = if swapped { [long, short] } else { [short, long] };
    [first.min(lengths[0]), second.min(lengths[1])]
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
    fn byte_level_words_given_apart_are_those_of_a_text() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("tokenizer.json");
        let json = testing::byte_level_tokenizer_json().to_string();
        files::write_file(&path, json.as_bytes()).unwrap();
        let tokenizer = WordTokenizer::load(&path).unwrap();
        assert_eq!(tokenizer.encode_text("ab ab", 9).unwrap().ids, [0, 5, 6, 1]);
        let apart = tokenizer.encode_words(&words("ab ab"), 9).unwrap();
        assert_eq!(apart.ids, [0, 6, 6, 1]);
        assert_eq!((&apart.words[1..3], &apart.offsets[1..3]), (&[Some(0), Some(1)][..], &[(0, 2), (0, 2)][..]));
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
    fn pairs_are_cut_at_the_longer_text() {
        // The cases of the tokenizers library's own tests (lengths 0, 2, 3 and 6 within 7) and more.
        for (lengths, room, kept) in [
            ([0, 6], 7, [0, 6]),
            ([2, 3], 7, [2, 3]),
            ([2, 6], 7, [2, 5]),
            ([3, 6], 7, [3, 4]),
            ([6, 2], 7, [5, 2]),
            ([6, 3], 7, [4, 3]),
            ([6, 6], 7, [3, 4]),
            ([7, 6], 7, [4, 3]),
            ([9, 9], 8, [4, 4]),
            ([0, 9], 8, [0, 8]),
        ] {
            assert_eq!(longest_first(lengths, room), kept, "{lengths:?} in {room}");
        }
        let tokens = tokenizer().encode_pair("a b c d", "e", 6).unwrap();
        let whole = tokenizer().encode_pair("a b", "e", 9).unwrap();
        assert!(tokens.truncated && !whole.truncated);
        assert_eq!((&tokens.ids, &tokens.type_ids), (&whole.ids, &vec![0, 0, 0, 0, 1, 1]));
        assert!(matches!(tokenizer().encode_pair("a", "b", 3), Err(Error::Argument { field: "max_length", .. })));
    }

    #[test]
    fn pairs_equal_the_librarys_own_truncation() {
        let mut roberta = testing::tokenizer_json(&[]);
        roberta["post_processor"] = serde_json::json!({"type": "RobertaProcessing", "sep": ["[SEP]", 3], "cls": ["[CLS]", 2],
            "trim_offsets": true, "add_prefix_space": false});
        for json in [testing::tokenizer_json(&[]), roberta] {
            let dir = tempfile::tempdir().unwrap();
            let path = dir.path().join("tokenizer.json");
            files::write_file(&path, json.to_string().as_bytes()).unwrap();
            let ours = WordTokenizer::load(&path).unwrap();
            for (first, second, max_length) in
                (0..9).flat_map(|a| (0..9).flat_map(move |b| (5..16).map(move |m| (a, b, m))))
            {
                let [text, pair] = [first, second].map(|count| vec!["a"; count].join(" "));
                let mut theirs = ours.inner.clone();
                let longest_first = tokenizers::TruncationParams { max_length, ..Default::default() };
                theirs.with_truncation(Some(longest_first)).unwrap();
                let expected = theirs.encode((text.as_str(), pair.as_str()), true).unwrap();
                let found = ours.encode_pair(&text, &pair, max_length).unwrap();
                let same =
                    |found: &[i64], expected: &[u32]| found.iter().copied().eq(expected.iter().copied().map(i64::from));
                assert!(
                    same(&found.ids, expected.get_ids()),
                    "{first} {second} {max_length}: {:?} {:?}",
                    found.ids,
                    expected.get_ids()
                );
                assert!(same(&found.type_ids, expected.get_type_ids()));
            }
        }
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
