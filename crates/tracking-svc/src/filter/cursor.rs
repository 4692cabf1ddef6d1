//! Reads words, quoted texts and symbols of a filter from left to right.

/// A position in a text.
pub(super) struct Cursor<'a> {
    rest: &'a str,
}

/// A character that ends a bare word.
fn ends_word(c: char) -> bool {
    c.is_whitespace() || matches!(c, '=' | '<' | '>' | '!' | '(' | ')' | ',' | ';' | '\'' | '"' | '`')
}

impl<'a> Cursor<'a> {
    pub(super) fn new(text: &'a str) -> Self {
        Self { rest: text }
    }

    pub(super) fn skip_space(&mut self) {
        self.rest = self.rest.trim_start();
    }

    pub(super) fn at_end(&self) -> bool {
        self.rest.is_empty()
    }

    pub(super) fn peek(&self) -> Option<char> {
        self.rest.chars().next()
    }

    /// What is left, shortened for a message.
    pub(super) fn here(&self) -> String {
        let mut text: String = self.rest.chars().take(30).collect();
        if text.len() < self.rest.len() {
            text.push('…');
        }
        text
    }

    fn take(&mut self, length: usize) -> &'a str {
        let (taken, rest) = self.rest.split_at(length);
        self.rest = rest;
        taken
    }

    /// The characters up to the first that `stop` is true for.
    pub(super) fn take_until(&mut self, stop: impl Fn(char) -> bool) -> &'a str {
        let length = self.rest.find(stop).unwrap_or(self.rest.len());
        self.take(length)
    }

    /// A bare word; empty when there is none.
    pub(super) fn word(&mut self) -> &'a str {
        self.take_until(ends_word)
    }

    /// A bare word up to its first dot.
    pub(super) fn head(&mut self) -> &'a str {
        self.take_until(|c| ends_word(c) || c == '.')
    }

    /// Takes a character if it is next.
    pub(super) fn eat(&mut self, c: char) -> bool {
        match self.rest.strip_prefix(c) {
            Some(rest) => {
                self.rest = rest;
                true
            }
            None => false,
        }
    }

    /// Takes a word, whatever its case, if it is next.
    pub(super) fn eat_word(&mut self, word: &str) -> bool {
        let before = self.rest;
        if self.word().eq_ignore_ascii_case(word) {
            return true;
        }
        self.rest = before;
        false
    }

    /// A text in one of these quotes. A doubled quote belongs to the text, as it is; there are no escapes.
    ///
    /// `None` when no quote is next, `Some(None)` when it does not end.
    pub(super) fn quoted(&mut self, quotes: &[char]) -> Option<Option<&'a str>> {
        let quote = self.peek().filter(|c| quotes.contains(c))?;
        let body = &self.rest[1..];
        let mut from = 0;
        loop {
            let Some(found) = body[from..].find(quote) else { return Some(None) };
            let end = from + found;
            if body[end + 1..].starts_with(quote) {
                from = end + 2;
                continue;
            }
            self.take(end + 2);
            return Some(Some(&body[..end]));
        }
    }
}
