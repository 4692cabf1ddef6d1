//! `${{...}}` in a pipeline file: what is ours to fill in, and what a command job fills in itself.

use super::de::suggestion;

/// One `${{...}}` in a text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Found {
    /// Bytes of the text from `$` to the last brace.
    pub(crate) range: std::ops::Range<usize>,
    pub(crate) reference: Reference,
}

/// What a reference stands for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Reference {
    /// `params.NAME`: a value of `params:` or of `--set`.
    Param(String),
    /// `stages.STAGE.outputs.OUTPUT`: `jobs/{uid}/outputs/OUTPUT` of that stage's job.
    Output { stage: String, output: String },
    /// `inputs.x`, `outputs.x`, `search_space.x`: left for the command job.
    Command,
}

/// Finds every reference of a text, in order.
///
/// # Errors
/// What is wrong with the first bad one, for a person.
pub(crate) fn find(text: &str) -> Result<Vec<Found>, String> {
    let mut found = Vec::new();
    let mut at = 0;
    while let Some(start) = text.get(at..).and_then(|rest| rest.find("${{")).map(|offset| at + offset) {
        let inside = start + 3;
        let Some(length) = text.get(inside..).and_then(|rest| rest.find("}}")) else {
            return Err("`${{` is not closed by `}}`".into());
        };
        let end = inside + length + 2;
        let body = text.get(inside..inside + length).unwrap_or_default().trim();
        found.push(Found { range: start..end, reference: parse(body)? });
        at = end;
    }
    Ok(found)
}

fn parse(body: &str) -> Result<Reference, String> {
    let parts: Vec<&str> = body.split('.').collect();
    let named = |name: &str| !name.is_empty() && name.chars().all(|c| c.is_alphanumeric() || c == '_' || c == '-');
    match parts.as_slice() {
        ["params", name] if named(name) => Ok(Reference::Param((*name).to_owned())),
        ["stages", stage, "outputs", output] if named(stage) && named(output) => {
            Ok(Reference::Output { stage: (*stage).to_owned(), output: (*output).to_owned() })
        }
        ["stages", stage, "best"] if named(stage) => Err(format!(
            "`${{{{{body}}}}}` has no place inside a value; write `config_from: {stage}` in the stage, beside its kind"
        )),
        ["inputs" | "outputs" | "search_space", name] if named(name) => Ok(Reference::Command),
        [first, ..] => {
            let forms =
                ["params.NAME", "stages.STAGE.outputs.OUTPUT", "inputs.NAME", "outputs.NAME", "search_space.NAME"];
            let heads = forms.map(|form| form.split('.').next().unwrap_or_default());
            let near = heads.iter().position(|head| head == first).and_then(|index| forms.get(index));
            let told = match near {
                Some(form) => format!("the form is `${{{{{form}}}}}`"),
                None => format!("{} ({})", suggestion(first, &heads), forms.join(", ")),
            };
            Err(format!("`${{{{{body}}}}}` refers to nothing; {told}"))
        }
        [] => Err("`${{}}` is empty".into()),
    }
}

/// Puts something in place of the references for which `value` gives a text.
pub(crate) fn replace(text: &str, found: &[Found], value: impl Fn(&Reference) -> Option<String>) -> String {
    let mut result = String::with_capacity(text.len());
    let mut at = 0;
    for Found { range, reference } in found {
        if let Some(value) = value(reference) {
            result.push_str(text.get(at..range.start).unwrap_or_default());
            result.push_str(&value);
            at = range.end;
        }
    }
    result.push_str(text.get(at..).unwrap_or_default());
    result
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn references_are_found_and_filled_in() {
        let text = "a ${{params.lr}} ${{ stages.train-1.outputs.checkpoint }}/x ${{inputs.data}}";
        let found = find(text).unwrap();
        assert_eq!(found.len(), 3);
        assert_eq!(&text[found[1].range.clone()], "${{ stages.train-1.outputs.checkpoint }}");
        let filled = replace(text, &found, |reference| match reference {
            Reference::Param(name) => Some(format!("<{name}>")),
            Reference::Output { stage, output } => Some(format!("{stage}/{output}")),
            Reference::Command => None,
        });
        assert_eq!(filled, "a <lr> train-1/checkpoint/x ${{inputs.data}}");
        assert!(find("echo ${HOME} $((1+1)) {{x}}").unwrap().is_empty());
    }

    #[test]
    fn bad_references_say_what_is_meant() {
        for (text, part) in [
            ("${{params.x", "not closed"),
            ("${{stages.sweep.best}}", "`config_from: sweep`"),
            ("${{stages.sweep.output.x}}", "the form is `${{stages.STAGE.outputs.OUTPUT}}`"),
            ("${{param.x}}", "`${{param.x}}` refers to nothing; did you mean `params`? Allowed: params, stages"),
            ("${{params.}}", "the form is `${{params.NAME}}`"),
            ("${{}}", "refers to nothing"),
        ] {
            let error = find(text).unwrap_err();
            assert!(error.contains(part), "{error}");
        }
    }
}
