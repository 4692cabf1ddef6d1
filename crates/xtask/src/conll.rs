//! The demo's data set: labelled addresses in XML become CoNLL files with IOB2 tags, split in three.

use std::collections::{BTreeSet, HashSet};
use std::fmt::Write;

use anyhow::{Context, Result, bail, ensure};
use quick_xml::Reader;
use quick_xml::events::Event;
use sha2::{Digest, Sha256};

/// One address: words with their IOB2 tags.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Sentence {
    pub(crate) words: Vec<String>,
    pub(crate) tags: Vec<String>,
}

/// The three parts of a data set. Every tag of `dev` and `test` is one of `train`.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Split {
    pub(crate) train: Vec<Sentence>,
    pub(crate) dev: Vec<Sentence>,
    pub(crate) test: Vec<Sentence>,
}

/// Reads `<AddressString><Label>word</Label> ...</AddressString>` elements below one root.
///
/// Neighbouring words of one label are one entity: its first word gets `B-Label`, the others `I-Label`. White space
/// inside a word is dropped, words without text too. An address that comes again is left out, so that none is both
/// learned and tested.
pub(crate) fn parse(xml: &str) -> Result<Vec<Sentence>> {
    let mut reader = Reader::from_str(xml);
    let mut path: Vec<String> = Vec::new();
    let mut labelled: Vec<(String, String)> = Vec::new();
    let mut text = String::new();
    let mut sentences = Vec::new();
    let mut seen = HashSet::new();
    loop {
        let position = reader.buffer_position();
        let place = || format!("at byte {position} of the XML");
        match reader.read_event().with_context(place)? {
            Event::Start(start) => {
                path.push(start.name().as_ref().to_owned());
                ensure!(path.len() <= 3, "an element inside the word <{}> {}", path[2], place());
                text.clear();
            }
            Event::Text(part) if path.len() == 3 => text.push_str(&part.xml10_content()),
            Event::GeneralRef(reference) if path.len() == 3 => {
                let name: &str = &reference;
                match reference.resolve_char_ref().with_context(place)? {
                    Some(character) => text.push(character),
                    None => text.push_str(
                        quick_xml::escape::resolve_predefined_entity(name)
                            .with_context(|| format!("unknown entity &{name}; {}", place()))?,
                    ),
                }
            }
            Event::End(_) => {
                let label = path.pop().with_context(place)?;
                match path.len() {
                    2 => {
                        let word: String = text.split_whitespace().collect();
                        if !word.is_empty() {
                            labelled.push((word, label));
                        }
                    }
                    1 => {
                        let sentence = iob2(&std::mem::take(&mut labelled));
                        if !sentence.words.is_empty() && seen.insert(sentence.words.clone()) {
                            sentences.push(sentence);
                        }
                    }
                    _ => {}
                }
            }
            Event::Eof => break,
            _ => {}
        }
    }
    if !path.is_empty() {
        bail!("the XML ends inside <{}>", path.join("><"));
    }
    ensure!(!sentences.is_empty(), "the XML holds no labelled address");
    Ok(sentences)
}

/// Words with one label each as words with IOB2 tags.
fn iob2(labelled: &[(String, String)]) -> Sentence {
    let mut previous: Option<&str> = None;
    let mut sentence = Sentence { words: Vec::new(), tags: Vec::new() };
    for (word, label) in labelled {
        let prefix = if previous == Some(label) { "I" } else { "B" };
        sentence.words.push(word.clone());
        sentence.tags.push(format!("{prefix}-{label}"));
        previous = Some(label);
    }
    sentence
}

/// Splits into train, dev and test, a tenth each for the latter two.
///
/// The order is that of SHA-256 of the address: as good as random, and the same everywhere and for ever. A sentence with
/// a tag that `train` lacks goes there, since nobody can learn what they never saw.
pub(crate) fn split(mut sentences: Vec<Sentence>) -> Split {
    sentences.sort_by_cached_key(|sentence| Sha256::digest(sentence.words.join(" ").as_bytes()).to_vec());
    let part = sentences.len() / 10;
    let mut train = sentences.split_off(2 * part);
    let mut known = tags(&train);
    let mut keep = |candidates: Vec<Sentence>, train: &mut Vec<Sentence>| {
        let mut kept = Vec::new();
        for sentence in candidates {
            if sentence.tags.iter().all(|tag| known.contains(tag)) {
                kept.push(sentence);
            } else {
                known.extend(sentence.tags.iter().cloned());
                train.push(sentence);
            }
        }
        kept
    };
    let test = sentences.split_off(part);
    let dev = keep(sentences, &mut train);
    let test = keep(test, &mut train);
    Split { train, dev, test }
}

/// The first sentences of each part, as many as asked for; of `dev` and `test` only those whose tags the small `train` knows.
pub(crate) fn shorten(split: &Split, train: usize, others: usize) -> Split {
    let train: Vec<Sentence> = split.train.iter().take(train).cloned().collect();
    let known = tags(&train);
    let fits = |sentence: &&Sentence| sentence.tags.iter().all(|tag| known.contains(tag));
    let dev = split.dev.iter().filter(fits).take(others).cloned().collect();
    let test = split.test.iter().filter(fits).take(others).cloned().collect();
    Split { train, dev, test }
}

/// CoNLL: a word, a tab and its tag in each line, an empty line after each sentence.
pub(crate) fn to_conll(sentences: &[Sentence]) -> String {
    let mut text = String::new();
    for sentence in sentences {
        for (word, tag) in sentence.words.iter().zip(&sentence.tags) {
            // Writing to a string cannot fail.
            let _ = writeln!(text, "{word}\t{tag}");
        }
        text.push('\n');
    }
    text
}

fn tags(sentences: &[Sentence]) -> BTreeSet<String> {
    sentences.iter().flat_map(|sentence| sentence.tags.iter().cloned()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const XML: &str = "<AddressCollection>
  <AddressString><AddressNumber>514</AddressNumber> <StreetName>PEACE</StreetName> <StreetName>&amp;</StreetName>
    <StreetName>PLENTY
</StreetName> <StreetNamePostType>LANE</StreetNamePostType></AddressString>
  <AddressString><USPSBoxType>P. O.</USPSBoxType> <USPSBoxID>&#35;</USPSBoxID> <USPSBoxID>7</USPSBoxID> <ZipCode/></AddressString>
  <AddressString><USPSBoxType>P.O.</USPSBoxType> <USPSBoxID>#</USPSBoxID> <USPSBoxID>7</USPSBoxID></AddressString>
</AddressCollection>";

    #[test]
    fn neighbouring_words_of_a_label_are_one_entity() {
        let sentences = parse(XML).unwrap();
        assert_eq!(sentences.len(), 2, "the third address is the second again");
        assert_eq!(sentences[0].words, ["514", "PEACE", "&", "PLENTY", "LANE"]);
        let tags = ["B-AddressNumber", "B-StreetName", "I-StreetName", "I-StreetName", "B-StreetNamePostType"];
        assert_eq!(sentences[0].tags, tags);
        assert_eq!(sentences[1].words, ["P.O.", "#", "7"]);
        assert_eq!(sentences[1].tags, ["B-USPSBoxType", "B-USPSBoxID", "I-USPSBoxID"]);
        assert_eq!(to_conll(&sentences[1..]), "P.O.\tB-USPSBoxType\n#\tB-USPSBoxID\n7\tI-USPSBoxID\n\n");
    }

    #[test]
    fn an_entity_begins_anew_after_another_label() {
        let labelled = [("1", "A"), ("2", "B"), ("3", "A")].map(|(word, label)| (word.to_owned(), label.to_owned()));
        assert_eq!(iob2(&labelled).tags, ["B-A", "B-B", "B-A"]);
    }

    #[test]
    fn broken_xml_is_refused_with_its_place() {
        for (xml, message) in [
            ("<A><B><C>1</C>", "the XML ends inside <A><B>"),
            ("<A></A>", "the XML holds no labelled address"),
            ("<A><B><C>&nonsense;</C></B></A>", "unknown entity &nonsense; at byte 9 of the XML"),
            ("<A><B><C><D>1</D></C></B></A>", "an element inside the word <C> at byte 9 of the XML"),
        ] {
            assert_eq!(parse(xml).unwrap_err().to_string(), message);
        }
        assert_eq!(parse("<A><B></C></A>").unwrap_err().to_string(), "at byte 6 of the XML");
    }

    fn sentence(word: usize, tag: &str) -> Sentence {
        Sentence { words: vec![word.to_string()], tags: vec![tag.to_owned()] }
    }

    #[test]
    fn the_split_keeps_every_sentence_once_and_ignores_the_order_of_the_source() {
        let mut sentences: Vec<Sentence> = (0..100).map(|word| sentence(word, "B-x")).collect();
        let parts = split(sentences.clone());
        assert_eq!((parts.train.len(), parts.dev.len(), parts.test.len()), (80, 10, 10));
        let all = parts.train.iter().chain(&parts.dev).chain(&parts.test);
        assert_eq!(all.map(|sentence| &sentence.words).collect::<HashSet<_>>().len(), 100);
        sentences.reverse();
        assert_eq!(split(sentences), parts);
    }

    #[test]
    fn rare_tags_are_always_known_to_train() {
        // One tag a sentence: nothing may be left in dev or test.
        let parts = split((0..50).map(|word| sentence(word, &format!("B-{word}"))).collect());
        assert_eq!((parts.train.len(), parts.dev.len(), parts.test.len()), (50, 0, 0));
        // One tag twice: wherever its sentences fall, at most one of them is outside of train.
        let parts = split((0..50).map(|word| sentence(word, &format!("B-{}", word % 25))).collect());
        let known = tags(&parts.train);
        assert!(parts.dev.iter().chain(&parts.test).all(|sentence| known.contains(&sentence.tags[0])));
    }

    #[test]
    fn a_short_set_knows_its_tags_too() {
        let parts = split((0..200).map(|word| sentence(word, &format!("B-{}", word % 8))).collect());
        let short = shorten(&parts, 4, 6);
        assert_eq!(short.train, parts.train[..4]);
        assert!(short.dev.len() <= 6 && short.test.len() <= 6 && !short.test.is_empty());
        let known = tags(&short.train);
        assert!(short.dev.iter().chain(&short.test).all(|sentence| known.contains(&sentence.tags[0])));
    }
}
