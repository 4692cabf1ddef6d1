//! Tags of words: IOB2, and the other schemes that are made IOB2 when they are read.

/// A parsed IOB tag.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tag<'a> {
    /// `O`: outside of any entity.
    Outside,
    /// `B-TYPE`: first word of an entity.
    Begin(&'a str),
    /// `I-TYPE`: a further word of an entity.
    Inside(&'a str),
}

impl<'a> Tag<'a> {
    /// Its type.
    pub fn kind(self) -> Option<&'a str> {
        match self {
            Self::Outside => None,
            Self::Begin(kind) | Self::Inside(kind) => Some(kind),
        }
    }
}

/// Parses `O`, `B-TYPE` or `I-TYPE`; none for anything else.
pub fn parse_tag(tag: &str) -> Option<Tag<'_>> {
    if tag == "O" {
        return Some(Tag::Outside);
    }
    let named = |name: &'static str| tag.strip_prefix(name).filter(|kind| !kind.is_empty());
    named("B-").map(Tag::Begin).or_else(|| named("I-").map(Tag::Inside))
}

/// Where a word stands in its entity, in any scheme.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    Begin,
    Inside,
    Last,
    Single,
}

/// Letters of all schemes: I and M for words inside, E and L for the last one, S and U for the only one.
const LETTERS: [(char, Place); 7] = [
    ('B', Place::Begin),
    ('I', Place::Inside),
    ('M', Place::Inside),
    ('E', Place::Last),
    ('L', Place::Last),
    ('S', Place::Single),
    ('U', Place::Single),
];

/// The letter, place and type of a tag of any scheme; none for `O` and for what is no tag.
fn parse_any(tag: &str) -> Option<(char, Place, &str)> {
    let (letter, kind) = tag.split_once('-').filter(|(_, kind)| !kind.is_empty())?;
    let (found, place) = LETTERS.into_iter().find(|(known, _)| letter.len() == 1 && letter.starts_with(*known))?;
    Some((found, place, kind))
}

/// Whether a text is a tag of any scheme.
pub(super) fn is_tag(tag: &str) -> bool {
    tag == "O" || parse_any(tag).is_some()
}

/// Makes tags IOB2 and remembers what it changed. `I-TYPE` (or a last word) that does not go on an entity of its type opens one: that is
/// how IOB1 marks all entities but those that touch the one before, and what lenient readers make of a stray `I-TYPE`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Tagging {
    /// Tags that were made `B-TYPE` because they open an entity.
    pub(super) retagged: usize,
    /// Letters seen beside B and I.
    letters: Vec<char>,
    inside: bool,
}

impl Tagging {
    /// Makes the tags of one sentence IOB2.
    ///
    /// # Errors
    /// The letters seen so far belong to no one scheme.
    pub(super) fn make_iob2(&mut self, tags: &mut [String]) -> Result<(), String> {
        let mut open: Option<String> = None;
        for tag in tags {
            let Some((letter, place, kind)) = parse_any(tag) else {
                open = None;
                continue;
            };
            self.see(letter)?;
            let kind = kind.to_owned();
            let goes_on = open.as_ref() == Some(&kind);
            let begins = match place {
                Place::Begin | Place::Single => true,
                Place::Inside | Place::Last => !goes_on,
            };
            self.retagged += usize::from(begins && matches!(place, Place::Inside | Place::Last));
            *tag = format!("{}-{kind}", if begins { 'B' } else { 'I' });
            open = Some(kind).filter(|_| matches!(place, Place::Begin | Place::Inside));
        }
        Ok(())
    }

    fn see(&mut self, letter: char) -> Result<(), String> {
        match letter {
            'B' => return Ok(()),
            'I' => self.inside = true,
            _ if self.letters.contains(&letter) => return Ok(()),
            _ => self.letters.push(letter),
        }
        let has = |letter: char| self.letters.contains(&letter);
        let mixed = [('E', 'L'), ('S', 'U'), ('E', 'U'), ('L', 'S'), ('M', 'L'), ('M', 'U')];
        match mixed.into_iter().find(|(one, other)| has(*one) && has(*other)) {
            Some((one, other)) => Err(format!("tags {one}- and {other}- belong to different schemes")),
            None if self.inside && has('M') => Err("tags I- and M- belong to different schemes".to_owned()),
            None => Ok(()),
        }
    }

    /// The scheme, when it is another than IOB.
    pub(super) fn scheme(&self) -> Option<&'static str> {
        let has = |letters: &str| self.letters.iter().any(|letter| letters.contains(*letter));
        match () {
            () if has("LU") => Some("BILOU"),
            () if has("M") => Some("BMES"),
            () if has("ES") => Some("IOBES"),
            () => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tags_are_parsed_or_refused() {
        assert_eq!(parse_tag("O"), Some(Tag::Outside));
        assert_eq!(parse_tag("B-a-b"), Some(Tag::Begin("a-b")));
        assert_eq!(parse_tag("I-x"), Some(Tag::Inside("x")));
        for wrong in ["", "o", "B", "B-", "X-a", "E-a", "a"] {
            assert_eq!(parse_tag(wrong), None, "{wrong}");
        }
        for wrong in ["", "o", "B", "E-", "X-a", "BE-a", "-a", "a"] {
            assert!(!is_tag(wrong), "{wrong}");
        }
    }

    fn iob2(text: &str) -> Result<(String, Tagging), String> {
        let mut tags: Vec<String> = text.split(' ').map(str::to_owned).collect();
        let mut tagging = Tagging::default();
        tagging.make_iob2(&mut tags)?;
        Ok((tags.join(" "), tagging))
    }

    #[test]
    fn every_scheme_becomes_iob2() {
        let cases = [
            ("I-a I-a B-a I-b O I-b B-b I-b", "B-a I-a B-a B-b O B-b B-b I-b", 3, None),
            ("B-a I-a E-a S-a B-b E-b O S-b", "B-a I-a I-a B-a B-b I-b O B-b", 0, Some("IOBES")),
            ("B-a I-a L-a U-a B-b L-b O U-b", "B-a I-a I-a B-a B-b I-b O B-b", 0, Some("BILOU")),
            ("B-a M-a E-a S-a B-b E-b O S-b", "B-a I-a I-a B-a B-b I-b O B-b", 0, Some("BMES")),
            // An entity that has ended does not go on.
            ("B-a E-a I-a S-a E-a", "B-a I-a B-a B-a B-a", 2, Some("IOBES")),
        ];
        for (text, expected, retagged, scheme) in cases {
            let (tags, tagging) = iob2(text).unwrap();
            assert_eq!((tags.as_str(), tagging.retagged, tagging.scheme()), (expected, retagged, scheme));
            assert_eq!(iob2(&tags).unwrap().0, tags);
        }
        for mixed in ["B-a E-a B-a L-a", "S-a U-a", "B-a I-a O M-a", "M-a O I-a"] {
            assert!(iob2(mixed).is_err(), "{mixed}");
        }
    }
}
