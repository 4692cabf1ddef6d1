//! AzureML's placeholders in a command: `${{inputs.x}}`, `${{outputs.x}}`, `${{search_space.x}}`.

use std::fmt;

use super::shell::Shell;

/// What a placeholder refers to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// A declared input: the local path, or the literal.
    Inputs,
    /// A declared output: the path of its folder.
    Outputs,
    /// A parameter that the sweep chose.
    SearchSpace,
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Inputs => "inputs",
            Self::Outputs => "outputs",
            Self::SearchSpace => "search_space",
        })
    }
}

/// One reference in a command.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Placeholder {
    /// What it refers to.
    pub kind: Kind,
    /// The name after the point.
    pub name: String,
}

impl fmt::Display for Placeholder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "${{{{{}.{}}}}}", self.kind, self.name)
    }
}

/// Why a command cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// `${{` without its end.
    #[error("`${{{{` at byte {0} has no `}}}}`")]
    Unclosed(usize),
    /// Not of the form `kind.name`.
    #[error("`${{{{{0}}}}}` is none of ${{{{inputs.NAME}}}}, ${{{{outputs.NAME}}}}, ${{{{search_space.NAME}}}}")]
    Unknown(String),
    /// A reference that has no value.
    #[error("{0} is not declared")]
    Undeclared(Placeholder),
}

enum Part<'a> {
    Text(&'a str),
    Reference(Placeholder),
}

fn parts(command: &str) -> Result<Vec<Part<'_>>, Error> {
    let mut parts = Vec::new();
    let mut rest = command;
    while let Some(start) = rest.find("${{") {
        parts.push(Part::Text(&rest[..start]));
        let body = &rest[start + 3..];
        let end = body.find("}}").ok_or(Error::Unclosed(command.len() - rest.len() + start))?;
        let text = body[..end].trim();
        let (kind, name) = text.split_once('.').ok_or_else(|| Error::Unknown(text.into()))?;
        let kind = match kind {
            "inputs" => Kind::Inputs,
            "outputs" => Kind::Outputs,
            "search_space" => Kind::SearchSpace,
            _ => return Err(Error::Unknown(text.into())),
        };
        if !is_name(name) {
            return Err(Error::Unknown(text.into()));
        }
        parts.push(Part::Reference(Placeholder { kind, name: name.into() }));
        rest = &body[end + 2..];
    }
    parts.push(Part::Text(rest));
    Ok(parts)
}

/// Names that inputs, outputs and parameters may have.
pub(super) fn is_name(name: &str) -> bool {
    !name.is_empty() && name.len() <= 200 && name.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '-'))
}

/// Every reference of a command, in order.
///
/// # Errors
/// A placeholder that cannot be read.
pub fn placeholders(command: &str) -> Result<Vec<Placeholder>, Error> {
    let references = parts(command)?.into_iter().filter_map(|part| match part {
        Part::Text(_) => None,
        Part::Reference(placeholder) => Some(placeholder),
    });
    Ok(references.collect())
}

/// Puts values in the place of references, each as the shell reads it where it stands: outside of quotes as one word.
///
/// # Errors
/// A placeholder that cannot be read, or one for which `value` has none.
pub fn substitute(command: &str, mut value: impl FnMut(&Placeholder) -> Option<String>) -> Result<String, Error> {
    let mut text = String::new();
    let mut shell = Shell::new();
    for part in parts(command)? {
        match part {
            Part::Text(piece) => {
                shell.read(piece);
                text.push_str(piece);
            }
            Part::Reference(placeholder) => {
                let value = value(&placeholder).ok_or(Error::Undeclared(placeholder))?;
                text.push_str(&shell.write(&value));
            }
        }
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_and_fills_in() {
        let command = "train --lr ${{search_space.lr}} --data ${{ inputs.data }} --out ${{outputs.checkpoint}}";
        let found = placeholders(command).unwrap();
        assert_eq!(
            found.iter().map(ToString::to_string).collect::<Vec<_>>(),
            ["${{search_space.lr}}", "${{inputs.data}}", "${{outputs.checkpoint}}"]
        );
        let in_quotes = substitute("echo \"${{inputs.x}}\" ${{inputs.x}}", |_| Some("it's".into()));
        assert_eq!(in_quotes.unwrap(), r#"echo "it's" 'it'\''s'"#);
        let filled = substitute(command, |p| Some(format!("{}/{} x", p.kind, p.name)));
        assert_eq!(
            filled.unwrap(),
            "train --lr 'search_space/lr x' --data 'inputs/data x' --out 'outputs/checkpoint x'"
        );
    }

    #[test]
    fn refuses_what_it_does_not_know() {
        assert_eq!(placeholders("a ${{inputs.x"), Err(Error::Unclosed(2)));
        assert_eq!(placeholders("${{input.x}}"), Err(Error::Unknown("input.x".into())));
        assert_eq!(placeholders("${{inputs.}}"), Err(Error::Unknown("inputs.".into())));
        let missing = substitute("${{inputs.x}}", |_| None).unwrap_err();
        assert_eq!(missing.to_string(), "${{inputs.x}} is not declared");
        assert_eq!(placeholders("echo ${HOME} $((1+1))"), Ok(vec![]));
    }
}
