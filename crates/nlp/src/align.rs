//! Labels of words to labels of sub-tokens, and predictions of sub-tokens back to words.
use serde::{Deserialize, Serialize};

use crate::{
    Error,
    data::{Answer, ClassSet, LabelSet, Sentence, TextExample},
    task::Target,
    tokenizer::{SubTokens, WordTokenizer},
    windows,
};

/// The label that the loss ignores.
pub const IGNORED: i64 = -100;

/// A row for the encoder.
#[derive(Debug, Clone, PartialEq)]
pub struct Encoded {
    /// Sub-tokens with the special ones.
    pub input_ids: Vec<i64>,
    /// Token types, one for each sub-token: 1 for the second text of a pair, else 0.
    pub type_ids: Vec<i64>,
    /// What is right.
    pub target: Target,
    /// Word of each sub-token; none for special tokens.
    pub words: Vec<Option<usize>>,
    /// Words of the sentence, those cut off included.
    pub word_count: usize,
    /// Words without a sub-token of their own, because that of an earlier word covers their first character; and that word, with which they go
    /// on: `B-TYPE` and `I-TYPE` make them `I-TYPE`. Only words of a text can be such.
    pub covered: Vec<(usize, usize)>,
}

/// What alignment did to a split.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Alignment {
    /// Rows.
    pub rows: usize,
    /// Rows longer than `max_length`.
    pub truncated_rows: usize,
    /// Words without a sub-token: cut off, or without any character the tokenizer keeps. The model cannot see them; in
    /// evaluation they count as predicted `O`, so that scores are not flattered by leaving them out.
    pub unseen_words: usize,
}

/// The rows of one document.
#[derive(Debug, Clone, PartialEq)]
pub struct Document {
    /// One, or several windows.
    pub rows: Vec<Encoded>,
    /// Whether something was cut off.
    pub truncated: bool,
    /// Words without a sub-token.
    pub unseen_words: usize,
}

impl Alignment {
    /// Counts a document.
    pub fn add(&mut self, document: &Document) {
        self.rows += document.rows.len();
        self.truncated_rows += usize::from(document.truncated);
        self.unseen_words += document.unseen_words;
    }
}

/// Encodes sentences whose tags are all in `labels`, one row each, cut off at `max_length`.
pub fn encode(
    sentences: &[Sentence],
    tokenizer: &WordTokenizer,
    labels: &LabelSet,
    max_length: usize,
) -> Result<(Vec<Encoded>, Alignment), Error> {
    gather(sentences.iter().map(|sentence| encode_sentence(sentence, tokenizer, labels, max_length, None)))
}

/// Encodes texts and pairs of texts whose labels are all in `labels`; such rows have no words.
pub fn encode_texts(
    examples: &[TextExample],
    tokenizer: &WordTokenizer,
    labels: &ClassSet,
    max_length: usize,
) -> Result<(Vec<Encoded>, Alignment), Error> {
    gather(examples.iter().map(|example| encode_text(example, tokenizer, labels, max_length)))
}

fn gather(documents: impl Iterator<Item = Result<Document, Error>>) -> Result<(Vec<Encoded>, Alignment), Error> {
    let (mut rows, mut alignment) = (Vec::new(), Alignment::default());
    for document in documents {
        let document = document?;
        alignment.add(&document);
        rows.extend(document.rows);
    }
    Ok((rows, alignment))
}

/// Encodes a sentence whose tags are all in `labels`. What is longer than `max_length` is cut into windows with `stride` sub-tokens in common,
/// or cut off when there is no stride.
pub fn encode_sentence(
    sentence: &Sentence,
    tokenizer: &WordTokenizer,
    labels: &LabelSet,
    max_length: usize,
    stride: Option<usize>,
) -> Result<Document, Error> {
    let longest = if stride.is_some() { usize::MAX } else { max_length };
    let tokens = sub_tokens(sentence, tokenizer, longest)?;
    let mut target = Vec::with_capacity(tokens.words.len());
    let mut seen = tokens.covered.len();
    for (word, first) in tokens.words.iter().zip(&tokens.first) {
        let first = word.filter(|_| *first);
        target.push(match first.and_then(|word| sentence.tags.get(word)) {
            Some(tag) => label_id(labels, tag)?,
            None => IGNORED,
        });
        seen += usize::from(first.is_some());
    }
    let word_count = sentence.words.len();
    let row = Encoded {
        type_ids: tokens.type_ids,
        input_ids: tokens.ids,
        target: Target::Tokens(target),
        words: tokens.words,
        word_count,
        covered: tokens.covered,
    };
    let rows = match stride {
        Some(stride) => windows::cut(row, max_length, stride)?.into_iter().map(|window| window.row).collect(),
        None => vec![row],
    };
    Ok(Document { rows, truncated: tokens.truncated, unseen_words: word_count - seen.min(word_count) })
}

/// The sub-tokens of a sentence: those of its text where it has one, so that they are the ones that prediction will see, else those of its words
/// one by one.
pub(crate) fn sub_tokens(
    sentence: &Sentence,
    tokenizer: &WordTokenizer,
    max_length: usize,
) -> Result<SubTokens, Error> {
    match sentence.places() {
        Some((text, places)) => tokenizer.encode_tagged(text, &places, max_length),
        None => tokenizer.encode_words(&sentence.words, max_length),
    }
}

/// Encodes a text or a pair of texts whose labels are all in `labels`, cut off at `max_length`.
pub fn encode_text(
    example: &TextExample,
    tokenizer: &WordTokenizer,
    labels: &ClassSet,
    max_length: usize,
) -> Result<Document, Error> {
    let tokens = match &example.pair {
        Some(pair) => tokenizer.encode_pair(&example.text, pair, max_length)?,
        None => tokenizer.encode_text(&example.text, max_length)?,
    };
    let row = Encoded {
        type_ids: tokens.type_ids,
        words: vec![None; tokens.ids.len()],
        input_ids: tokens.ids,
        target: text_target(&example.answer, labels)?,
        word_count: 0,
        covered: Vec::new(),
    };
    Ok(Document { rows: vec![row], truncated: tokens.truncated, unseen_words: 0 })
}

/// The target of a text.
pub fn text_target(answer: &Answer, labels: &ClassSet) -> Result<Target, Error> {
    let id = |name: &String| {
        labels
            .id(name)
            .ok_or_else(|| Error::argument("labels", format!("`{name}` is not among {}", labels.names().join(", "))))
    };
    Ok(match answer {
        Answer::Value(value) => Target::Value(*value),
        Answer::Label(name) => Target::Class(id(name)? as i64),
        Answer::Labels(names) => {
            let mut flags = vec![0.0; labels.names().len()];
            for name in names {
                flags[id(name)?] = 1.0;
            }
            Target::Classes(flags)
        }
    })
}

fn label_id(labels: &LabelSet, tag: &str) -> Result<i64, Error> {
    match labels.id(tag) {
        Some(id) => Ok(id as i64),
        None => Err(Error::argument("labels", format!("`{tag}` is not among {}", labels.names().join(", ")))),
    }
}

impl Encoded {
    /// Sub-tokens, the special ones included.
    pub fn length(&self) -> usize {
        self.input_ids.len()
    }

    /// Whether the loss looks at anything of the row.
    pub fn counts(&self) -> bool {
        match &self.target {
            Target::Tokens(labels) => labels.iter().any(|label| *label != IGNORED),
            Target::Class(_) | Target::Classes(_) | Target::Value(_) => true,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing;

    fn sentence(words: &str, tags: &str) -> Sentence {
        let split = |text: &str| text.split(' ').map(str::to_owned).collect();
        Sentence { words: split(words), tags: split(tags), line: 1, text: None }
    }

    #[test]
    fn texts_carry_their_answer() {
        let dir = tempfile::tempdir().unwrap();
        let tokenizer = testing::tokenizer(dir.path(), &[]);
        let example = |pair: Option<&str>, answer| TextExample {
            text: "a b c".into(),
            pair: pair.map(str::to_owned),
            answer,
            line: 1,
        };
        let labels = ClassSet::of(["x", "y", "z"]);
        let several = Answer::Labels(["z".to_owned(), "x".to_owned()].into());
        let examples =
            [example(None, Answer::Label("y".into())), example(Some("d"), several), example(None, Answer::Value(0.5))];
        let (rows, alignment) = encode_texts(&examples, &tokenizer, &labels, 6).unwrap();
        assert_eq!((rows[0].length(), &rows[0].target), (5, &Target::Class(1)));
        assert_eq!(
            (rows[1].type_ids.as_slice(), &rows[1].target),
            (&[0, 0, 0, 0, 1, 1][..], &Target::Classes(vec![1.0, 0.0, 1.0]))
        );
        assert_eq!((rows[2].words.as_slice(), &rows[2].target), (&[None; 5][..], &Target::Value(0.5)));
        assert_eq!(alignment, Alignment { rows: 3, truncated_rows: 1, unseen_words: 0 });
        let error = text_target(&Answer::Label("w".into()), &labels).unwrap_err();
        assert!(error.to_string().contains("`w` is not among x, y, z"), "{error}");
    }

    #[test]
    fn first_sub_tokens_carry_the_tag() {
        let dir = tempfile::tempdir().unwrap();
        let tokenizer = testing::tokenizer(dir.path(), &["new", "##port"]);
        let sentences = [sentence("in newport \u{200b} x", "O B-loc O O"), sentence("newport", "B-loc")];
        let labels = LabelSet::of(&sentences);
        let (rows, alignment) = encode(&sentences, &tokenizer, &labels, 5).unwrap();
        // [CLS] i ##n new [SEP]: two words are cut, one is invisible to the tokenizer.
        assert_eq!(rows[0].words, [None, Some(0), Some(0), Some(1), None]);
        assert_eq!(rows[0].target, Target::Tokens(vec![IGNORED, 0, IGNORED, 1, IGNORED]));
        assert_eq!(rows[1].target, Target::Tokens(vec![IGNORED, 1, IGNORED, IGNORED]));
        assert_eq!(alignment, Alignment { rows: 2, truncated_rows: 1, unseen_words: 2 });
        let names = labels.names();
        assert_eq!(windows::word_labels([(&rows[0], &[9, 2, 9, 1, 9][..])], names), [2, 1, 0, 0]);
    }

    /// A sentence of a text.
    fn of_text(text: &str, words: &str, tags: &str) -> Sentence {
        Sentence { text: Some(text.to_owned()), ..sentence(words, tags) }
    }

    #[test]
    fn a_text_is_encoded_as_prediction_encodes_it() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("tokenizer.json");
        let json = testing::byte_level_tokenizer_json().to_string();
        std::fs::write(&path, &json).unwrap();
        let (tokenizer, labels) = (WordTokenizer::load(&path).unwrap(), names(&["O", "B-x", "I-x"]));
        let example = of_text("ab-ab  ab ", "ab - ab ab", "B-x O O I-x");
        let encoded = |sentence: &Sentence, length, stride| {
            encode_sentence(sentence, &tokenizer, &labels, length, stride).unwrap()
        };
        let document = encoded(&example, 20, None);
        let row = &document.rows[0];
        // <s> Ġab - ab Ġ Ġab Ġ </s>, where - is no entry and so three bytes have nothing: the second `ab` has no blank before it.
        let trained = dir.path().join("trained.json");
        let with_blank = crate::byte_level::with_prefix_space(json.as_bytes()).unwrap().unwrap();
        std::fs::write(&trained, with_blank.to_string()).unwrap();
        let predicted = crate::predict::PipelineTokenizer::load(&trained, 20, None).unwrap();
        let predicted = predicted.rows(&crate::predict::InputText::Text("ab-ab  ab ".to_owned())).unwrap();
        assert_eq!(row.input_ids, predicted[0].encoded.input_ids);
        assert_eq!(row.words, predicted[0].encoded.words);
        let labelled: Vec<(i64, i64)> = match &row.target {
            Target::Tokens(target) => {
                let pairs = row.input_ids.iter().copied().zip(target.iter().copied());
                pairs.filter(|(_, label)| *label != IGNORED).collect()
            }
            other => panic!("{other:?}"),
        };
        // Ġab and ab: the words apart would all have the blank.
        assert_eq!(labelled, [(6, 1), (5, 0), (6, 2)]);
        assert_eq!((row.covered.as_slice(), document.unseen_words), (&[][..], 1));
        let apart = encoded(&Sentence { text: None, ..example.clone() }, 20, None);
        assert_ne!(apart.rows[0].input_ids, row.input_ids);
        // Windows have each word once, wherever blanks stand.
        let windows = encoded(&example, 5, Some(1)).rows;
        assert!(windows.len() > 1 && windows.iter().all(|row| row.length() <= 5 && row.input_ids[0] == 0));
        let counted = |row: &Encoded| match &row.target {
            Target::Tokens(target) => target.iter().filter(|label| **label != IGNORED).count(),
            _ => 0,
        };
        assert_eq!(windows.iter().map(counted).sum::<usize>(), 3);
    }

    #[test]
    fn a_word_inside_the_sub_token_of_another_goes_on_with_it() {
        let dir = tempfile::tempdir().unwrap();
        // Words as SentencePiece has them: up to the next blank.
        let mut json = testing::tokenizer_json(&["oslo,", "(rome)"]);
        json["pre_tokenizer"] = serde_json::json!({"type": "WhitespaceSplit"});
        let path = dir.path().join("tokenizer.json");
        std::fs::write(&path, json.to_string()).unwrap();
        let tokenizer = WordTokenizer::load(&path).unwrap();
        let labels = names(&["O", "B-x", "I-x"]);
        let example = of_text("Oslo, (Rome) a", "Oslo , ( Rome ) a", "B-x O O B-x O O");
        let document = encode_sentence(&example, &tokenizer, &labels, 20, None).unwrap();
        let row = &document.rows[0];
        assert_eq!(row.words, [None, Some(0), Some(2), Some(5), None]);
        assert_eq!(row.target, Target::Tokens(vec![IGNORED, 1, 0, 0, IGNORED]));
        assert_eq!((row.covered.as_slice(), document.unseen_words), (&[(1, 0), (3, 2), (4, 2)][..], 0));
        // What is told of entities is what prediction finds: all of `Oslo,`.
        let found = windows::word_labels([(row, &[0, 1, 2, 0, 0][..])], labels.names());
        assert_eq!(found, [1, 2, 2, 2, 2, 0]);
        // Cut off: neither `(` nor what is covered by its sub-token is seen.
        let cut = encode_sentence(&example, &tokenizer, &labels, 3, None).unwrap();
        assert_eq!((cut.rows[0].covered.as_slice(), cut.unseen_words), (&[(1, 0)][..], 4));
        // Each window answers for the covered words of the words that count in it.
        let windows = encode_sentence(&example, &tokenizer, &labels, 4, Some(1)).unwrap().rows;
        let covered: Vec<&[(usize, usize)]> = windows.iter().map(|row| row.covered.as_slice()).collect();
        assert_eq!(covered.concat(), [(1, 0), (3, 2), (4, 2)]);
        let chosen = [vec![1; 4], vec![0; 4]];
        let pairs = windows.iter().zip(&chosen).map(|(row, chosen)| (row, chosen.as_slice()));
        let found = windows::word_labels(pairs, labels.names());
        assert_eq!(found[..2], [1, 2]);
    }

    fn names(names: &[&str]) -> LabelSet {
        LabelSet::from_names(names.iter().map(|name| (*name).to_owned()).collect()).unwrap()
    }
}
