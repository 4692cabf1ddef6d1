//! AzureML's placeholders in a command: `${{inputs.x}}`, `${{outputs.x}}`, `${{search_space.x}}`.

use std::fmt;

use super::shell::{self, Shell};

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
    /// A reference where the shell reads every character as it is, with a value that has more than plain ones.
    #[error(
        "{0} stands in a here-document whose delimiter is quoted, where only values of letters, digits and _-./:=@%+, can be filled in: \
         leave the quotes away, or read it from an argument or a variable"
    )]
    Verbatim(Placeholder),
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

/// A command with its values.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Filled {
    /// For the shell: a value that means something to it stands in a variable, to which the text refers.
    pub command: String,
    /// The variables that the command needs, with their values.
    pub variables: Vec<(String, String)>,
    /// For a person: each value as one word.
    pub shown: String,
}

/// Puts values in the place of references, each as the shell reads it where it stands: outside of quotes as one word.
///
/// # Errors
/// A placeholder that cannot be read, one for which `value` has none, or one in a here-document with a quoted delimiter whose value
/// means something to the shell.
pub fn substitute(command: &str, mut value: impl FnMut(&Placeholder) -> Option<String>) -> Result<Filled, Error> {
    let mut filled = Filled::default();
    let mut shell = Shell::new();
    for part in parts(command)? {
        match part {
            Part::Text(piece) => {
                shell.read(piece);
                filled.command.push_str(piece);
                filled.shown.push_str(piece);
            }
            Part::Reference(placeholder) => {
                let value = value(&placeholder).ok_or_else(|| Error::Undeclared(placeholder.clone()))?;
                filled.shown.push_str(&shell::quote(&value));
                if shell::is_plain(&value) {
                    shell.read(&value);
                    filled.command.push_str(&value);
                } else {
                    let variable = format!("QUINTET_VALUE_{}", filled.variables.len() + 1);
                    let reference = shell.refer(&variable).ok_or(Error::Verbatim(placeholder))?;
                    filled.command.push_str(&reference);
                    filled.variables.push((variable, value));
                }
            }
        }
    }
    Ok(filled)
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
        let filled = substitute(command, |p| Some(format!("{}/{}", p.kind, p.name))).unwrap();
        assert_eq!(filled.command, "train --lr search_space/lr --data inputs/data --out outputs/checkpoint");
        assert_eq!((filled.shown, filled.variables), (filled.command, Vec::new()));
    }

    #[test]
    fn what_means_something_to_a_shell_goes_into_variables() {
        let filled = substitute("echo \"${{inputs.x}}\" ${{inputs.y}} ${{inputs.x}}", |p| {
            Some(if p.name == "x" { "it's".into() } else { "1".into() })
        });
        let Filled { command, variables, shown } = filled.unwrap();
        assert_eq!(command, r#"echo "${QUINTET_VALUE_1}" 1 "${QUINTET_VALUE_2}""#);
        assert_eq!(shown, r#"echo "'it'\''s'" 1 'it'\''s'"#);
        assert_eq!(variables, [1, 2].map(|n| (format!("QUINTET_VALUE_{n}"), "it's".to_owned())));
        let verbatim = "python - <<'E'\nx = ${{inputs.x}}\nE\n";
        assert_eq!(substitute(verbatim, |_| Some("1e-3".into())).unwrap().command, "python - <<'E'\nx = 1e-3\nE\n");
        let refused = substitute(verbatim, |_| Some("a b".into())).unwrap_err();
        assert!(refused.to_string().starts_with("${{inputs.x}} stands in a here-document"), "{refused}");
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
