//! IOB tags of words.

/// A parsed tag.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tag<'a> {
    /// `O`: outside of any entity.
    Outside,
    /// `B-TYPE`: first word of an entity.
    Begin(&'a str),
    /// `I-TYPE`: a further word of an entity.
    Inside(&'a str),
}

/// Parses `O`, `B-TYPE` or `I-TYPE`; none for anything else.
pub fn parse_tag(tag: &str) -> Option<Tag<'_>> {
    if tag == "O" {
        return Some(Tag::Outside);
    }
    let named = |name: &'static str| tag.strip_prefix(name).filter(|kind| !kind.is_empty());
    named("B-").map(Tag::Begin).or_else(|| named("I-").map(Tag::Inside))
}

/// Makes tags IOB2: an `I-TYPE` that does not go on an entity of its type opens one. That is how IOB1 marks all entities
/// but those that touch the one before, and what lenient readers make of a stray `I-TYPE`. Returns the tags changed.
pub(super) fn make_iob2(tags: &mut [String]) -> usize {
    let mut changed = 0;
    let mut open: Option<String> = None;
    for tag in tags {
        let (kind, opens) = match parse_tag(tag) {
            Some(Tag::Begin(kind)) => (Some(kind.to_owned()), false),
            Some(Tag::Inside(kind)) => (Some(kind.to_owned()), open.as_deref() != Some(kind)),
            _ => (None, false),
        };
        if let (true, Some(kind)) = (opens, &kind) {
            *tag = format!("B-{kind}");
            changed += 1;
        }
        open = kind;
    }
    changed
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
    }

    #[test]
    fn iob1_becomes_iob2() {
        let mut tags: Vec<String> = "I-a I-a B-a I-b O I-b B-b I-b".split(' ').map(str::to_owned).collect();
        assert_eq!(make_iob2(&mut tags), 3);
        assert_eq!(tags.join(" "), "B-a I-a B-a B-b O B-b B-b I-b");
        assert_eq!(make_iob2(&mut tags), 0);
    }
}
