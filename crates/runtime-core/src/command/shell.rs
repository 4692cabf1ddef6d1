//! Writes values into a shell command so that the shell reads each as it is, wherever it stands: between words, in either kind of quotes,
//! in a here-document (POSIX.1-2024, Shell Command Language, 2.2 Quoting and 2.7.4 Here-Document).

/// What the shell makes of the text at hand.
#[derive(Debug, PartialEq, Eq)]
enum Context {
    /// Words: of the command, of `$(...)` or of a subshell.
    Plain,
    /// Words between backticks, where a backslash takes effect before everything else.
    Backticks,
    Single,
    Double,
    /// Up to the end of the line.
    Comment,
    Here(Here),
}

/// A here-document.
#[derive(Debug, Default, PartialEq, Eq)]
struct Here {
    /// The line that ends it.
    delimiter: String,
    /// Its delimiter was quoted: nothing in it is special.
    raw: bool,
    /// `<<-`: lines lose their tabs.
    tabs: bool,
    /// Of the line at hand: all of it so far.
    line: String,
}

/// How far the delimiter of a here-document is read.
#[derive(Debug)]
struct Delimiter {
    here: Here,
    /// Its first character was there.
    begun: bool,
    /// The quote that is open.
    quote: Option<char>,
}

/// Follows a command from its beginning.
#[derive(Debug)]
pub(super) struct Shell {
    /// From the outermost to that at hand; never empty.
    contexts: Vec<Context>,
    /// A backslash stands before the next character.
    escaped: bool,
    /// The last character that was not quoted.
    last: char,
    /// In the middle of a word, where `#` begins no comment.
    in_word: bool,
    delimiter: Option<Delimiter>,
    /// Here-documents that begin with the next line, the first one last.
    waiting: Vec<Here>,
}

impl Shell {
    pub(super) fn new() -> Self {
        let contexts = vec![Context::Plain];
        Self { contexts, escaped: false, last: '\n', in_word: false, delimiter: None, waiting: Vec::new() }
    }

    /// Reads a piece of the command's own text.
    pub(super) fn read(&mut self, text: &str) {
        text.chars().for_each(|c| self.step(c));
    }

    /// The text that stands for a value here.
    pub(super) fn write(&mut self, value: &str) -> String {
        let written = match self.contexts.last_mut() {
            Some(Context::Single) => value.replace('\'', r"'\''"),
            Some(Context::Double) => escape(value, r#"\$`""#),
            Some(Context::Backticks) => escape(&quote(value), r"\$`"),
            Some(Context::Comment) => value.replace('\n', " "),
            Some(Context::Here(here)) => {
                let lines: Vec<&str> = value.split('\n').collect();
                match &lines[..] {
                    [one] => here.line.push_str(one),
                    [.., last] => here.line = (*last).to_owned(),
                    [] => {}
                }
                if here.raw { value.to_owned() } else { escape(value, r"\$`") }
            }
            Some(Context::Plain) | None => quote(value),
        };
        (self.escaped, self.last, self.in_word) = (false, '\0', true);
        written
    }

    fn step(&mut self, c: char) {
        if std::mem::take(&mut self.escaped) {
            (self.last, self.in_word) = ('\0', true);
            return;
        }
        if self.delimiter.is_some() && self.step_delimiter(c) {
            return;
        }
        let nested = self.contexts.len() > 1;
        match self.contexts.last_mut() {
            Some(Context::Single) => {
                if c == '\'' {
                    self.contexts.pop();
                }
            }
            Some(Context::Double) => match c {
                '\\' => self.escaped = true,
                '"' => drop(self.contexts.pop()),
                '`' => self.open(Context::Backticks),
                '(' if self.last == '$' => self.open(Context::Plain),
                _ => {}
            },
            Some(Context::Comment) => {
                if c == '\n' {
                    self.contexts.pop();
                    self.end_line();
                }
            }
            Some(Context::Here(here)) => match c {
                '\n' if here.line == here.delimiter => {
                    self.contexts.pop();
                    self.end_line();
                }
                '\n' => here.line.clear(),
                '\t' if here.tabs && here.line.is_empty() => {}
                c => here.line.push(c),
            },
            Some(Context::Backticks) if c == '`' => drop(self.contexts.pop()),
            Some(Context::Plain | Context::Backticks) | None => match c {
                '\\' => self.escaped = true,
                '\'' => self.open(Context::Single),
                '"' => self.open(Context::Double),
                '`' => self.open(Context::Backticks),
                '(' => self.open(Context::Plain),
                ')' if nested => drop(self.contexts.pop()),
                '#' if !self.in_word => self.open(Context::Comment),
                '<' if self.last == '<' => {
                    self.delimiter = Some(Delimiter { here: Here::default(), begun: false, quote: None });
                }
                '\n' => self.end_line(),
                _ => {}
            },
        }
        self.last = c;
        self.in_word = !(c.is_ascii_whitespace() || ";|&<>()".contains(c));
    }

    fn open(&mut self, context: Context) {
        self.contexts.push(context);
    }

    fn end_line(&mut self) {
        if let Some(here) = self.waiting.pop() {
            self.open(Context::Here(here));
        }
    }

    /// Reads on in a delimiter; false when the character stands behind it.
    fn step_delimiter(&mut self, c: char) -> bool {
        let Some(Delimiter { here, begun, quote }) = &mut self.delimiter else { return false };
        match (c, *quote) {
            (c, Some(open)) if c == open => *quote = None,
            (c, Some(_)) => here.delimiter.push(c),
            // `<<<` is no here-document.
            ('<', None) if !*begun => self.delimiter = None,
            ('-', None) if !*begun && !here.tabs => here.tabs = true,
            (' ' | '\t', None) if !*begun => {}
            ('\'' | '"' | '\\', None) => {
                (*begun, here.raw) = (true, true);
                *quote = (c != '\\').then_some(c);
            }
            (c, None) if c.is_ascii_whitespace() || ";|&<>()".contains(c) => {
                let here = std::mem::take(here);
                self.delimiter = None;
                self.waiting.insert(0, here);
                return false;
            }
            (c, None) => {
                *begun = true;
                here.delimiter.push(c);
            }
        }
        self.last = '\0';
        true
    }
}

/// A value as one word.
fn quote(value: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "_-./:=@%+,".contains(c);
    if !value.is_empty() && value.chars().all(plain) {
        value.to_owned()
    } else {
        format!("'{}'", value.replace('\'', r"'\''"))
    }
}

fn escape(value: &str, special: &str) -> String {
    value.chars().flat_map(|c| special.contains(c).then_some('\\').into_iter().chain([c])).collect()
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use proptest::prelude::*;

    use super::*;

    /// What `/bin/sh` makes of a command with a value at each `@`.
    fn output(command: &str, value: &str) -> String {
        let mut shell = Shell::new();
        let mut text = String::new();
        for (index, piece) in command.split('@').enumerate() {
            if index > 0 {
                text.push_str(&shell.write(value));
            }
            shell.read(piece);
            text.push_str(piece);
        }
        let output = Command::new("/bin/sh").arg("-c").arg(&text).output().unwrap();
        assert!(output.status.success(), "{text}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    }

    /// Commands, and what they print with `V` for the value.
    const PLACES: [(&str, &str); 16] = [
        ("printf %s @", "V"),
        ("printf %s a@b", "aVb"),
        ("printf %s \"@\"", "V"),
        ("printf %s 'a @ b'", "a V b"),
        (r#"printf %s "a \" @""#, "a \" V"),
        (r"printf %s it\'s@", "it'sV"),
        ("printf %s \"$(printf %s @)\"", "V"),
        ("printf %s \"$(printf %s '@'; (printf x))\" @", "VxV"),
        ("printf %s \"`printf %s @`\"", "V"),
        ("true # it's \"@\nprintf %s @", "V"),
        ("printf %s a#\"@\"", "a#V"),
        ("cat <<E\na 'b@\nE\nprintf %s '@'", "a 'bV\nV"),
        ("cat <<'E O'; cat <<-F\n\"@\nE O\n\tit's@\n\tF\nprintf %s @", "\"V\nit'sV\nV"),
        ("cat <<\\E | cat; printf %s '@'\n$x '@\nE\nprintf %s \"@\"", "$x 'V\nVV"),
        ("x=$((1 + (2))); printf %s$x '@'", "V3"),
        ("case a in (a) printf %s '@';; esac; case b in b) printf %s \"@\";; esac", "VV"),
    ];

    #[test]
    fn a_value_arrives_wherever_it_stands() {
        for value in ["0.5", "it's", "a\"b", "$HOME", "`id`", r"back\slash\", "sgd;rm -rf x", "", "a b", "-1", "#", "ü"]
        {
            for (command, printed) in PLACES {
                assert_eq!(output(command, value), printed.replace('V', value), "{command} with {value:?}");
            }
        }
    }

    proptest! {
        #[test]
        fn any_value_arrives(value in "[^\0]{0,40}", place in 0..9_usize) {
            // What `$(...)` prints loses the newlines at its end.
            prop_assume!(!value.ends_with('\n'));
            let (command, printed) = PLACES[place];
            prop_assert_eq!(output(command, &value), printed.replace('V', &value));
        }
    }

    #[test]
    fn a_value_of_several_lines_ends_no_document() {
        assert_eq!(output("cat <<E\n@\nE\nprintf %s '@'", "a\nb c"), "a\nb c\na\nb c");
    }
}
