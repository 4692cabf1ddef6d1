//! Refers to variables in a shell command so that each value arrives as it is, wherever its place is: between words, in either kind of
//! quotes, in a here-document (POSIX.1-2024, Shell Command Language, 2.2 Quoting, 2.6 Word Expansions and 2.7.4 Here-Document).
//!
//! Values stand in variables of the environment, so that the shell never reads one as code. Where a command is nested more deeply than
//! what is followed here (`case` within `$(...)`), the words of a value may be split, and no more.

/// What the shell makes of the text at hand.
#[derive(Debug, PartialEq, Eq)]
enum Context {
    /// Words of the command itself or of a subshell.
    Words,
    /// `$(...)`
    Substitution,
    Backticks,
    /// `$((...))`, and parentheses in it.
    Arithmetic,
    /// `${...}`, in double quotes or not.
    Braces {
        quoted: bool,
    },
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
#[derive(Debug, Default)]
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
    /// The last character, unless it was quoted or is done with.
    last: Option<char>,
    /// `$(` has just begun: another parenthesis makes it arithmetic.
    begun: bool,
    /// In the middle of a word, where `#` begins no comment.
    in_word: bool,
    delimiter: Option<Delimiter>,
    /// Here-documents that begin with the next line, the first one last.
    waiting: Vec<Here>,
}

impl Shell {
    pub(super) fn new() -> Self {
        Self {
            contexts: vec![Context::Words],
            escaped: false,
            last: None,
            begun: false,
            in_word: false,
            delimiter: None,
            waiting: Vec::new(),
        }
    }

    /// Reads a piece of the command.
    pub(super) fn read(&mut self, text: &str) {
        text.chars().for_each(|c| self.step(c));
    }

    /// What stands here for the value of a variable; `None` in a here-document in which the shell fills nothing in.
    pub(super) fn refer(&mut self, variable: &str) -> Option<String> {
        use Context::{Arithmetic, Backticks, Braces, Comment, Double, Here, Single, Substitution, Words};
        let bare = format!("${{{variable}}}");
        let reference = match self.contexts.last() {
            Some(Here(here)) if here.raw => return None,
            Some(Single) => format!("'\"{bare}\"'"),
            Some(Double | Comment | Here(_) | Arithmetic | Braces { quoted: true }) => bare,
            Some(Words | Substitution | Backticks | Braces { quoted: false }) | None => format!("\"{bare}\""),
        };
        (self.escaped, self.last, self.begun, self.in_word) = (false, None, false, true);
        Some(reference)
    }

    fn step(&mut self, c: char) {
        if std::mem::take(&mut self.escaped) {
            // A line that goes on is no character.
            self.in_word |= c != '\n';
            self.last = None;
            return;
        }
        if self.delimiter.is_some() && self.step_delimiter(c) {
            return;
        }
        let (last, begun) = (self.last.replace(c), std::mem::take(&mut self.begun));
        match self.contexts.last_mut() {
            Some(Context::Single) => {
                if c == '\'' {
                    self.close();
                }
            }
            Some(Context::Comment) => match (c, &self.contexts[..]) {
                ('\n', _) => {
                    self.close();
                    self.end_line();
                }
                ('`', [.., Context::Backticks, _]) => {
                    self.close();
                    self.close();
                }
                _ => {}
            },
            Some(Context::Here(here)) => match c {
                '\n' if here.line == here.delimiter => {
                    self.close();
                    self.end_line();
                }
                '\n' => here.line.clear(),
                '\t' if here.tabs && here.line.is_empty() => {}
                c => here.line.push(c),
            },
            Some(Context::Arithmetic) => match c {
                '(' => self.open(Context::Arithmetic),
                ')' => self.close(),
                _ => {}
            },
            Some(Context::Double) if c == '"' => self.close(),
            Some(Context::Backticks) if c == '`' => self.close(),
            Some(Context::Braces { .. }) if c == '}' => self.close(),
            Some(Context::Double | Context::Braces { quoted: true }) => self.step_expansion(c, last, true),
            Some(Context::Braces { quoted: false }) => match c {
                '\'' => self.open(Context::Single),
                _ => self.step_expansion(c, last, false),
            },
            Some(Context::Substitution) if c == '(' && begun => {
                self.contexts.pop();
                self.contexts.extend([Context::Arithmetic, Context::Arithmetic]);
            }
            Some(Context::Words | Context::Substitution | Context::Backticks) | None => self.step_words(c, last),
        }
    }

    /// A step where words are divided.
    fn step_words(&mut self, c: char, last: Option<char>) {
        match c {
            '\'' => self.open(Context::Single),
            '#' if !self.in_word => self.open(Context::Comment),
            '(' if last != Some('$') => self.open(Context::Words),
            ')' if self.contexts.len() > 1 => self.close(),
            '<' if last == Some('<') => self.delimiter = Some(Delimiter::default()),
            '\n' => self.end_line(),
            _ => self.step_expansion(c, last, false),
        }
        // What a backslash does to the word its next character tells, and what a parenthesis that closes, it itself.
        if !matches!(c, '\\' | ')') {
            self.in_word = !(c.is_ascii_whitespace() || ";|&<>(".contains(c));
        }
    }

    /// A step where a backslash, `$`, backticks and double quotes are special.
    fn step_expansion(&mut self, c: char, last: Option<char>, quoted: bool) {
        match c {
            '\\' => self.escaped = true,
            '"' => self.open(Context::Double),
            '`' => self.open(Context::Backticks),
            // The number of the process.
            '$' if last == Some('$') => self.last = None,
            '(' if last == Some('$') => {
                self.open(Context::Substitution);
                self.begun = true;
            }
            '{' if last == Some('$') => self.open(Context::Braces { quoted }),
            _ => {}
        }
    }

    fn open(&mut self, context: Context) {
        self.contexts.push(context);
        self.in_word = false;
    }

    /// What ends is a part of a word, but for a subshell.
    fn close(&mut self) {
        let closed = self.contexts.pop();
        self.in_word = !matches!(closed, Some(Context::Words | Context::Comment | Context::Here(_)));
    }

    fn end_line(&mut self) {
        self.in_word = false;
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
        self.last = None;
        true
    }
}

/// Whether a value has nothing in it that means something to a shell, wherever it stands.
pub(super) fn is_plain(value: &str) -> bool {
    !value.is_empty() && value.chars().all(|c| c.is_ascii_alphanumeric() || "_-./:=@%+,".contains(c))
}

/// A value as one word, for a person to read and to type.
pub(super) fn quote(value: &str) -> String {
    if is_plain(value) { value.to_owned() } else { format!("'{}'", value.replace('\'', r"'\''")) }
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use proptest::prelude::*;

    use super::*;

    /// What `/bin/sh` makes of a command with a reference to a value at each `@`.
    fn output(command: &str, value: &str) -> String {
        let mut shell = Shell::new();
        let mut text = String::new();
        for (index, piece) in command.split('@').enumerate() {
            if index > 0 {
                text.push_str(&shell.refer("V").unwrap());
            }
            shell.read(piece);
            text.push_str(piece);
        }
        let output = Command::new("/bin/sh").arg("-c").arg(&text).env("V", value).output().unwrap();
        assert!(output.status.success(), "{text}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    }

    /// Commands, and what they print with `V` for the value.
    const PLACES: [(&str, &str); 28] = [
        ("printf %s @", "V"),
        ("printf %s a@b", "aVb"),
        ("printf %s \"@\"", "V"),
        ("printf %s 'a @ b'", "a V b"),
        (r#"printf %s "a \" @""#, "a \" V"),
        (r"printf %s it\'s@", "it'sV"),
        ("printf %s \"$(printf %s @)\"", "V"),
        ("printf %s \"$(printf %s '@'; (printf x))\" @", "VxV"),
        ("printf %s \"`printf %s @`\"", "V"),
        ("printf %s \"`printf %s '@'`\"@", "VV"),
        ("true # it's \"@\nprintf %s @", "V"),
        ("true \\\n# it's\nprintf %s @", "V"),
        ("printf %s a#\"@\"", "a#V"),
        ("printf %s $(printf a)#'@'", "a#V"),
        ("printf %s $((5>3))#@", "1#V"),
        ("printf %s `printf a # it's`'@'", "aV"),
        ("printf %s ${x:-a #b} @", "a#bV"),
        ("printf %s \"${x:-@}\" ${x:-'@'}", "VV"),
        ("x=$((1<<4)) y=$(((2) << 1))\nprintf %s$x$y '@'", "V164"),
        ("x=$((1 + (2))); printf %s$x '@'", "V3"),
        ("cat <<E\na 'b@\nE\nprintf %s '@'", "a 'bV\nV"),
        ("cat <<E\n@\nE\nprintf %s @", "V\nV"),
        ("cat <<'E O'; cat <<-F\n\"x\nE O\n\tit's@\n\tF\nprintf %s @", "\"x\nit'sV\nV"),
        ("cat <<\\E | cat; printf %s '@'\n$x 'y\nE\nprintf %s \"@\"", "$x 'y\nVV"),
        ("cat <<E\n$(printf %s \"x\")@\nE\nprintf %s '@'", "xV\nV"),
        ("case a in (a) printf %s '@';; esac; case b in b) printf %s \"@\";; esac", "VV"),
        ("(cd /; printf %s @); { printf %s '@'; }", "VV"),
        ("f() { printf %s \"$1\"; }; f @; f '@'", "VV"),
    ];

    #[test]
    fn a_value_arrives_wherever_it_stands() {
        let values =
            ["0.5", "it's", "a\"b", "$HOME", "`id`", r"back\slash\", "a;id", "", "a b", "*", "#", "ü", "}", "E\nid"];
        for value in values {
            for (command, printed) in PLACES {
                assert_eq!(output(command, value), printed.replace('V', value), "{command} with {value:?}");
            }
        }
    }

    proptest! {
        #[test]
        fn any_value_arrives(value in "[^\0]{0,40}", place in 0..16_usize) {
            // What `$(...)` prints loses the newlines at its end.
            prop_assume!(!value.ends_with('\n'));
            let (command, printed) = PLACES[place];
            prop_assert_eq!(output(command, &value), printed.replace('V', &value));
        }

        /// Also where the place is misunderstood nothing is run.
        #[test]
        fn no_value_is_code(before in "[ab$(){}<>'\"`#\\\\\n;| ]{0,12}", value in "[ab$(){}<>'\"`#\\\\\n;| ]{0,4}") {
            let folder = tempfile::tempdir().unwrap();
            let value = format!("{value}$(touch pwned)`touch pwned`;touch pwned;'\";touch pwned\nE\ntouch pwned\n");
            let mut shell = Shell::new();
            shell.read(&before);
            let Some(reference) = shell.refer("V") else { return Ok(()) };
            let text = format!("{before}{reference}");
            let mut command = Command::new("/bin/sh");
            let run = command.arg("-c").arg(&text).env("V", &value).current_dir(folder.path());
            run.stdin(std::process::Stdio::null()).output().unwrap();
            prop_assert!(!folder.path().join("pwned").exists(), "{:?}", text);
        }
    }

    #[test]
    fn where_the_shell_fills_nothing_in_there_is_no_reference() {
        for command in ["cat <<'E'\na", "cat <<\\E\n", "cat <<\"E\" | sort\nx\n"] {
            let mut shell = Shell::new();
            shell.read(command);
            assert_eq!(shell.refer("V"), None, "{command}");
        }
    }
}
