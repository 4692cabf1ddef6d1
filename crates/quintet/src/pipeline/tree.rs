//! YAML as a tree whose every node knows its line and column, so that each error can name its place.

use std::{collections::HashMap, fmt};

use saphyr_parser::{Event, Marker, Parser, ScalarStyle, Span};

/// Nodes of a document at most: aliases may repeat a part, but not without bound.
const MAX_NODES: usize = 100_000;
/// Nesting at most.
const MAX_DEPTH: usize = 64;

/// Line and column, counted from 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Place {
    pub(crate) line: usize,
    pub(crate) column: usize,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.line, self.column)
    }
}

impl From<&Marker> for Place {
    fn from(marker: &Marker) -> Self {
        Self { line: marker.line().max(1), column: marker.col() + 1 }
    }
}

/// What is wrong with a pipeline file, where, and at which key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Problem {
    pub(crate) place: Option<Place>,
    /// Such as `stages.sweep.sweep.search_space[0]`; empty at the top.
    pub(crate) path: String,
    pub(crate) message: String,
}

impl Problem {
    pub(crate) fn new(place: Place, path: impl Into<String>, message: impl Into<String>) -> Self {
        Self { place: Some(place), path: path.into(), message: message.into() }
    }

    /// Puts a key or `[index]` in front of the path.
    pub(crate) fn under(mut self, segment: &str) -> Self {
        self.path = join(segment, &self.path);
        self
    }

    /// `file:line:column: path: message`, as compilers write it and editors read it.
    pub(crate) fn text(&self, file: &str) -> String {
        let place = self.place.map(|place| format!("{place}: ")).unwrap_or_default();
        let path = if self.path.is_empty() { String::new() } else { format!("{}: ", self.path) };
        format!("{file}:{place}{path}{}", self.message)
    }
}

/// Two parts of a path, with a dot between where one belongs.
pub(crate) fn join(first: &str, rest: &str) -> String {
    match (first.is_empty(), rest.is_empty()) {
        (true, _) => rest.to_owned(),
        (_, true) => first.to_owned(),
        _ if rest.starts_with('[') => format!("{first}{rest}"),
        _ => format!("{first}.{rest}"),
    }
}

/// A value and where it begins.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Node {
    pub(crate) place: Place,
    pub(crate) value: Yaml,
}

/// The three forms of a value.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Yaml {
    Scalar { text: String, plain: bool },
    List(Vec<Node>),
    Map(Vec<(Key, Node)>),
}

/// A key of a mapping.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Key {
    pub(crate) text: String,
    pub(crate) place: Place,
}

/// What a scalar stands for under YAML's core schema.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Scalar<'a> {
    Null,
    Bool(bool),
    Int(i64),
    /// Above the range of `Int`.
    Uint(u64),
    Float(f64),
    Text(&'a str),
}

impl Node {
    /// The scalar's meaning; none for lists and mappings.
    pub(crate) fn scalar(&self) -> Option<Scalar<'_>> {
        match &self.value {
            Yaml::Scalar { text, plain: true } => Some(resolve(text)),
            Yaml::Scalar { text, plain: false } => Some(Scalar::Text(text)),
            _ => None,
        }
    }

    /// The text of a scalar as it was written.
    pub(crate) fn text(&self) -> Option<&str> {
        match &self.value {
            Yaml::Scalar { text, .. } => Some(text),
            _ => None,
        }
    }

    /// The entries of a mapping; an empty value counts as an empty mapping.
    pub(crate) fn entries(&self, path: &str) -> Result<&[(Key, Node)], Problem> {
        match &self.value {
            Yaml::Map(entries) => Ok(entries),
            Yaml::Scalar { .. } if self.scalar() == Some(Scalar::Null) => Ok(&[]),
            other => Err(Problem::new(self.place, path, format!("is {}; a mapping is expected", other.form()))),
        }
    }

    /// The value of a key.
    pub(crate) fn get(&self, key: &str) -> Option<&Node> {
        match &self.value {
            Yaml::Map(entries) => entries.iter().find(|(k, _)| k.text == key).map(|(_, node)| node),
            _ => None,
        }
    }

    /// The value of a key, to change it.
    pub(crate) fn get_mut(&mut self, key: &str) -> Option<&mut Node> {
        match &mut self.value {
            Yaml::Map(entries) => entries.iter_mut().find(|(k, _)| k.text == key).map(|(_, node)| node),
            _ => None,
        }
    }

    /// The place of `a.b[2].c`, or of the deepest part of it that is there.
    pub(crate) fn place_of(&self, path: &str) -> Place {
        let mut node = self;
        for segment in path.split('.').flat_map(|part| part.split('[')) {
            let next = match segment.strip_suffix(']') {
                Some(index) => match &node.value {
                    Yaml::List(items) => index.parse::<usize>().ok().and_then(|index| items.get(index)),
                    _ => None,
                },
                None => node.get(segment),
            };
            match next {
                Some(next) => node = next,
                None => break,
            }
        }
        node.place
    }

    /// Calls `f` on every scalar with its path, to read or change it.
    pub(crate) fn each_scalar<E>(
        &mut self,
        path: &str,
        f: &mut impl FnMut(&str, &mut Node) -> Result<(), E>,
    ) -> Result<(), E> {
        match &mut self.value {
            Yaml::Scalar { .. } => f(path, self),
            Yaml::List(items) => items
                .iter_mut()
                .enumerate()
                .try_for_each(|(index, item)| item.each_scalar(&join(path, &format!("[{index}]")), f)),
            Yaml::Map(entries) => {
                entries.iter_mut().try_for_each(|(key, value)| value.each_scalar(&join(path, &key.text), f))
            }
        }
    }
}

impl Yaml {
    /// Names the form for a person.
    pub(crate) fn form(&self) -> String {
        match self {
            Yaml::Scalar { text, plain: true } if resolve(text) == Scalar::Null => "empty".into(),
            Yaml::Scalar { text, .. } => format!("{text:?}"),
            Yaml::List(_) => "a list".into(),
            Yaml::Map(_) => "a mapping".into(),
        }
    }
}

/// The core schema of YAML 1.2.
pub(crate) fn resolve(text: &str) -> Scalar<'_> {
    match text {
        "" | "~" | "null" | "Null" | "NULL" => return Scalar::Null,
        "true" | "True" | "TRUE" => return Scalar::Bool(true),
        "false" | "False" | "FALSE" => return Scalar::Bool(false),
        _ => {}
    }
    let body = text.strip_prefix(['+', '-']).unwrap_or(text);
    let digits = |rest: &str, radix| i64::from_str_radix(rest, radix).map_or(Scalar::Text(text), Scalar::Int);
    if let Some(hexadecimal) = text.strip_prefix("0x") {
        return digits(hexadecimal, 16);
    }
    if let Some(octal) = text.strip_prefix("0o") {
        return digits(octal, 8);
    }
    match body {
        ".inf" | ".Inf" | ".INF" if text.starts_with('-') => return Scalar::Float(f64::NEG_INFINITY),
        ".inf" | ".Inf" | ".INF" => return Scalar::Float(f64::INFINITY),
        ".nan" | ".NaN" | ".NAN" => return Scalar::Float(f64::NAN),
        _ => {}
    }
    if !body.starts_with(|c: char| c.is_ascii_digit() || c == '.') || !body.contains(|c: char| c.is_ascii_digit()) {
        return Scalar::Text(text);
    }
    if let Ok(number) = text.parse::<i64>() {
        return Scalar::Int(number);
    }
    if let Ok(number) = text.parse::<u64>() {
        return Scalar::Uint(number);
    }
    match text.parse::<f64>() {
        Ok(number) => Scalar::Float(number),
        Err(_) => Scalar::Text(text),
    }
}

/// Reads one YAML document.
pub(crate) fn parse(text: &str) -> Result<Node, Problem> {
    let mut builder = Builder { events: Parser::new_from_str(text), anchors: HashMap::new(), nodes: 0 };
    loop {
        let (event, span) = builder.next()?;
        match event {
            Event::StreamStart | Event::DocumentStart(_) | Event::Nothing => {}
            Event::StreamEnd => return Err(Problem::new((&span.start).into(), "", "the file is empty")),
            event => {
                let node = builder.node(event, span, 0)?;
                builder.end()?;
                return Ok(node);
            }
        }
    }
}

struct Builder<'a> {
    events: Parser<'a, saphyr_parser::StrInput<'a>>,
    anchors: HashMap<usize, Node>,
    nodes: usize,
}

impl<'a> Builder<'a> {
    fn next(&mut self) -> Result<(Event<'a>, Span), Problem> {
        match self.events.next_event() {
            Some(Ok(next)) => Ok(next),
            Some(Err(error)) => {
                Err(Problem::new(error.marker().into(), "", format!("not valid YAML: {}", error.info())))
            }
            None => Ok((Event::StreamEnd, Span::default())),
        }
    }

    fn end(&mut self) -> Result<(), Problem> {
        loop {
            match self.next()? {
                (Event::StreamEnd, _) => return Ok(()),
                (Event::DocumentStart(_), span) => {
                    return Err(Problem::new(
                        (&span.start).into(),
                        "",
                        "a second document begins here; one is allowed",
                    ));
                }
                _ => {}
            }
        }
    }

    fn node(&mut self, event: Event<'a>, span: Span, depth: usize) -> Result<Node, Problem> {
        let place = Place::from(&span.start);
        self.count(1, place)?;
        if depth > MAX_DEPTH {
            return Err(Problem::new(place, "", format!("is nested deeper than {MAX_DEPTH} levels")));
        }
        let tag_refused = |tag: bool| match tag {
            true => Err(Problem::new(place, "", "YAML tags (`!name`) are not supported")),
            false => Ok(()),
        };
        let (anchor, value) = match event {
            Event::Scalar(text, style, anchor, tag) => {
                tag_refused(tag.is_some())?;
                (anchor, Yaml::Scalar { text: text.into_owned(), plain: style == ScalarStyle::Plain })
            }
            Event::SequenceStart(anchor, tag) => {
                tag_refused(tag.is_some())?;
                (anchor, self.list(depth)?)
            }
            Event::MappingStart(anchor, tag) => {
                tag_refused(tag.is_some())?;
                (anchor, self.map(depth)?)
            }
            Event::Alias(id) => {
                let mut node = self
                    .anchors
                    .get(&id)
                    .cloned()
                    .ok_or_else(|| Problem::new(place, "", "an alias to something that is not complete yet"))?;
                self.count(size(&node), place)?;
                node.place = place;
                return Ok(node);
            }
            _ => return Err(Problem::new(place, "", "not valid YAML: a value is expected here")),
        };
        let node = Node { place, value };
        if anchor > 0 {
            self.anchors.insert(anchor, node.clone());
        }
        Ok(node)
    }

    fn count(&mut self, nodes: usize, place: Place) -> Result<(), Problem> {
        self.nodes += nodes;
        if self.nodes > MAX_NODES {
            return Err(Problem::new(place, "", format!("the document has more than {MAX_NODES} values")));
        }
        Ok(())
    }

    fn list(&mut self, depth: usize) -> Result<Yaml, Problem> {
        let mut items = Vec::new();
        loop {
            match self.next()? {
                (Event::SequenceEnd | Event::StreamEnd, _) => return Ok(Yaml::List(items)),
                (event, span) => {
                    let index = format!("[{}]", items.len());
                    items.push(self.node(event, span, depth + 1).map_err(|problem| problem.under(&index))?);
                }
            }
        }
    }

    fn map(&mut self, depth: usize) -> Result<Yaml, Problem> {
        let mut entries: Vec<(Key, Node)> = Vec::new();
        loop {
            let (event, span) = self.next()?;
            if matches!(event, Event::MappingEnd | Event::StreamEnd) {
                return Ok(Yaml::Map(entries));
            }
            let key = self.node(event, span, depth + 1)?;
            let Yaml::Scalar { text, .. } = key.value else {
                return Err(Problem::new(
                    key.place,
                    "",
                    format!("the key is {}; a name is expected", key.value.form()),
                ));
            };
            if let Some((first, _)) = entries.iter().find(|(k, _)| k.text == text) {
                let message =
                    format!("key `{text}` stands here a second time; the first is at line {}", first.place.line);
                return Err(Problem::new(key.place, "", message));
            }
            let (event, span) = self.next()?;
            let value = self.node(event, span, depth + 1).map_err(|problem| problem.under(&text))?;
            entries.push((Key { text, place: key.place }, value));
        }
    }
}

fn size(node: &Node) -> usize {
    1 + match &node.value {
        Yaml::Scalar { .. } => 0,
        Yaml::List(items) => items.iter().map(size).sum(),
        Yaml::Map(entries) => entries.iter().map(|(_, value)| 1 + size(value)).sum(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scalars(text: &str) -> Vec<(String, String, Place)> {
        let mut found = Vec::new();
        let mut tree = parse(text).unwrap();
        tree.each_scalar("", &mut |path, node| {
            found.push((path.to_owned(), format!("{:?}", node.scalar().unwrap()), node.place));
            Ok::<_, ()>(())
        })
        .unwrap();
        found
    }

    #[test]
    fn values_have_types_paths_and_places() {
        let found =
            scalars("a: 1e-5\nb:\n  - {c: '7', d: yes}\n  - 0x10\ne:\nf: &x [true, -3, 18446744073709551615]\ng: *x\n");
        let got: Vec<(&str, &str, String)> =
            found.iter().map(|(p, v, at)| (p.as_str(), v.as_str(), at.to_string())).collect();
        assert_eq!(
            got[..8],
            [
                ("a", "Float(1e-5)", "1:4".into()),
                ("b[0].c", "Text(\"7\")", "3:9".into()),
                ("b[0].d", "Text(\"yes\")", "3:17".into()),
                ("b[1]", "Int(16)", "4:5".into()),
                ("e", "Null", got[4].2.clone()),
                ("f[0]", "Bool(true)", "6:8".into()),
                ("f[1]", "Int(-3)", "6:14".into()),
                ("f[2]", "Uint(18446744073709551615)", "6:18".into()),
            ]
        );
        assert_eq!(got.len(), 11, "the alias repeats the list");
        for text in ["-", ".", "e5", "1.2.3", "1 2", "infinity", "NaN", "0xg", "+-1"] {
            assert_eq!(resolve(text), Scalar::Text(text), "{text}");
        }
    }

    #[test]
    fn bad_documents_name_the_place() {
        for (text, expected) in [
            ("", "f:1:1: the file is empty"),
            ("a: [1, 2\nb: 3\n", "f:2:"),
            ("a: 1\nb: 2\na: 3\n", "f:3:1: key `a` stands here a second time; the first is at line 1"),
            ("x:\n  y: !secret z\n", "f:2:6: x.y: YAML tags (`!name`) are not supported"),
            ("a: 1\n---\nb: 2\n", "f:2:1: a second document begins here; one is allowed"),
            ("{[1]: 2}", "f:1:2: the key is a list; a name is expected"),
        ] {
            let text = parse(text).unwrap_err().text("f");
            assert!(text.starts_with(expected), "{text} instead of {expected}");
        }
        let bomb: String = (1..12).fold("a0: &a0 [1,1,1,1,1,1,1,1,1]\n".into(), |text, level| {
            let last = level - 1;
            text + &format!(
                "a{level}: &a{level} [*a{last},*a{last},*a{last},*a{last},*a{last},*a{last},*a{last},*a{last}]\n"
            )
        });
        assert!(parse(&bomb).unwrap_err().message.contains("more than 100000 values"));
        assert!(parse(&"[".repeat(100)).unwrap_err().message.contains("nested deeper"));
    }

    #[test]
    fn a_field_path_finds_its_place_or_the_nearest_above() {
        let tree = parse("sweep:\n  search_space:\n    - name: lr\n      float: {low: 3}\n").unwrap();
        assert_eq!(tree.place_of("sweep.search_space[0].float.low").to_string(), "4:20");
        assert_eq!(tree.place_of("sweep.search_space[0].float.high"), tree.place_of("sweep.search_space[0].float"));
        assert_eq!(tree.place_of("nothing").line, 1);
    }
}
