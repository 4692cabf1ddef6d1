//! Search spaces in the words of other systems: a mapping in place of our list becomes the list, before the message is read.

use hpo_svc::space::{Distribution, ParamValue, Space, forms};
use serde_json::Value;

use super::tree::{Key, Node, Place, Problem, Scalar, Yaml, join};

/// The key of a sweep, in the two spellings that messages have.
const KEYS: [&str; 2] = ["search_space", "searchSpace"];

/// Turns the search space of a sweep into the list of our messages when it is a mapping of another form; the places stay. Returns what
/// the user should know of how it was understood.
///
/// # Errors
/// The first fault, with its place.
pub(super) fn translate(sweep: &mut Node) -> Result<Vec<Problem>, Problem> {
    let Some(key) = KEYS.into_iter().find(|key| sweep.get(key).is_some()) else { return Ok(Vec::new()) };
    let Some(node) = sweep.get_mut(key) else { return Ok(Vec::new()) };
    if !matches!(node.value, Yaml::Map(_)) {
        return Ok(Vec::new());
    }
    let located = |node: &Node, path: &str, message: String| {
        // The reader's root is this node, whichever way it is spelled.
        let below = path.strip_prefix(KEYS[0]).unwrap_or(path).trim_start_matches('.');
        let place = if below.is_empty() { node.place } else { node.place_of(below) };
        Problem::new(place, join(key, below), message)
    };
    let read = forms::read_any(&json(node));
    let space = match read {
        Ok((_, space)) => space,
        Err(mut faults) => {
            let (path, mut message) = match faults.is_empty() {
                true => (String::new(), "cannot be read".to_owned()),
                false => {
                    let first = faults.swap_remove(0);
                    (first.field, first.description)
                }
            };
            if own(node) {
                message += "; Quintet's own form is a list: `- {name: x, float: {low: 0.0, high: 1.0}}`";
            }
            return Err(located(node, &path, message));
        }
    };
    for parameter in space.parameters() {
        if let Distribution::Categorical { choices } = &parameter.distribution
            && let Some(choice) = choices.iter().find(|c| matches!(c, ParamValue::Float(value) if !value.is_finite()))
        {
            let message = format!("has the choice {choice}, which is not a finite number");
            return Err(located(node, &parameter.name, message));
        }
    }
    let notes = space.notes().iter().map(|note| {
        let name = note.strip_prefix('`').and_then(|rest| rest.split_once("`: "));
        let (name, text) = name.unwrap_or(("", note));
        located(node, name, text.to_owned())
    });
    let notes = notes.collect();
    let messages = messages(&space).map_err(|error| located(node, "", error.to_string()))?;
    let items = messages.into_iter().map(|(name, message)| of_json(&message, node.place_of(&name)));
    node.value = Yaml::List(items.collect());
    Ok(notes)
}

/// Each parameter's name, and its message in JSON.
fn messages(space: &Space) -> Result<Vec<(String, Value)>, serde_json::Error> {
    let messages = space.to_proto().into_iter();
    messages.map(|message| Ok((message.name.clone(), serde_json::to_value(&message)?))).collect()
}

/// Whether a parameter is written as in our list.
fn own(node: &Node) -> bool {
    let Yaml::Map(entries) = &node.value else { return false };
    entries.iter().any(|(_, node)| ["float", "int", "categorical"].iter().any(|key| node.get(key).is_some()))
}

/// What is no number of JSON's stays as it was written.
fn json(node: &Node) -> Value {
    match &node.value {
        Yaml::List(items) => items.iter().map(json).collect(),
        Yaml::Map(entries) => Value::Object(entries.iter().map(|(key, node)| (key.text.clone(), json(node))).collect()),
        Yaml::Scalar { text, .. } => match node.scalar().unwrap_or(Scalar::Null) {
            Scalar::Null => Value::Null,
            Scalar::Bool(value) => value.into(),
            Scalar::Int(value) => value.into(),
            Scalar::Uint(value) => value.into(),
            Scalar::Float(value) if value.is_finite() => value.into(),
            Scalar::Float(_) | Scalar::Text(_) => text.as_str().into(),
        },
    }
}

fn of_json(value: &Value, place: Place) -> Node {
    let value = match value {
        Value::Array(items) => Yaml::List(items.iter().map(|item| of_json(item, place)).collect()),
        Value::Object(entries) => {
            let entry = |(key, value): (&String, &Value)| (Key { text: key.clone(), place }, of_json(value, place));
            Yaml::Map(entries.iter().map(entry).collect())
        }
        Value::String(text) => Yaml::Scalar { text: text.clone(), plain: false },
        other => Yaml::Scalar { text: other.to_string(), plain: true },
    };
    Node { place, value }
}

#[cfg(test)]
mod tests {
    use quintet_proto::v1::SweepSpec;

    use super::{super::de::read, *};
    use crate::pipeline::tree;

    fn sweep(text: &str) -> Result<(SweepSpec, Vec<String>), String> {
        let mut node = tree::parse(text).unwrap();
        let notes = translate(&mut node).map_err(|problem| problem.text("f"))?;
        let notes = notes.iter().map(|note| note.text("f")).collect();
        read(&node).map(|sweep| (sweep, notes)).map_err(|problem| problem.text("f"))
    }

    fn list(text: &str) -> Vec<quintet_proto::v1::Parameter> {
        sweep(text).unwrap().0.search_space
    }

    #[test]
    fn the_forms_of_other_systems_become_our_messages() {
        let ours = list(
            "search_space:
  - {name: lr, float: {low: 1e-5, high: 5e-5, log: true}}
  - {name: batch, categorical: {choices: [8, 16, true, null, 'x', 'true']}}
",
        );
        let plain = list(
            "search_space:
  lr: {type: loguniform, min: 1e-5, max: 5e-5}
  batch: {type: choice, values: [8, 16, true, null, x, 'true']}
",
        );
        assert_eq!(plain, ours);
        let azureml = list(
            "searchSpace:
  lr:
    type: loguniform
    min_value: -11.512925464970229
    max_value: -9.903487552536127
  batch: {type: choice, values: [8, 16, true, null, x, 'true']}
",
        );
        assert_eq!(azureml, ours);
        let optuna = list(
            r#"{"search_space": {
  "lr": {"name": "FloatDistribution", "attributes": {"step": null, "low": 1e-05, "high": 5e-05, "log": true}},
  "batch": {"name": "CategoricalDistribution", "attributes": {"choices": [8, 16, true, null, "x", "true"]}}
}}"#,
        );
        assert_eq!(optuna, ours);
    }

    #[test]
    fn conditions_of_a_nested_choice_and_steps_are_kept() {
        let (sweep, notes) = sweep(
            "search_space:
  model:
    type: choice
    values:
      - {model: small, depth: {type: quniform, min_value: 1, max_value: 9, q: 2}}
      - {model: large}
  width: {type: randint, upper: 5}
",
        )
        .unwrap();
        let names: Vec<&str> = sweep.search_space.iter().map(|parameter| parameter.name.as_str()).collect();
        assert_eq!(names, ["model", "depth", "width"]);
        assert_eq!(sweep.search_space[1].condition.as_ref().unwrap().values, ["small".into()]);
        assert!(hpo_svc::space::Space::from_proto(&sweep.search_space).is_ok());
        assert!(notes.is_empty(), "{notes:?}");
    }

    #[test]
    fn notes_and_faults_have_their_place() {
        let (_, notes) = sweep("search_space:\n  lr: {type: loguniform, min: 1e-5, max: 5e-5}\n").unwrap();
        assert_eq!(
            notes,
            [
                "f:2:7: search_space.lr: lies between 1e-05 and 5e-05; read as the plain form, where the bounds are values and no logarithms"
            ]
        );
        for (text, expected) in [
            (
                "search_space:\n  a: {type: uniform, min_value: 3, max_value: x}\n",
                "f:2:47: search_space.a.max_value: \"x\" is no number; a number is expected (read as AzureML's form)",
            ),
            (
                "search_space:\n  a: {type: uniform, min: .inf, max: 1}\n",
                "f:2:27: search_space.a.min: \".inf\" is no number; a number is expected (read as the plain form)",
            ),
            (
                "search_space:\n  a: {type: uniform, min: 0, max: 1}\n  b: {type: uniform, min_value: 0, max_value: 1}\n",
                "f:3:6: search_space.b: has `min_value` and so is in AzureML's form, while `a` has `min`",
            ),
            (
                "search_space:\n  a:\n    float: {low: 0, high: 1}\n",
                "f:3:5: search_space.a: {\"float\":{\"low\":0,\"high\":1}} is no distribution",
            ),
            ("search_space: {}\n", "f:1:15: search_space: is empty; at least one parameter is needed"),
            (
                "search_space:\n  a: '{\"name\": \"CategoricalDistribution\", \"attributes\": {\"choices\": [NaN]}}'\n",
                "f:2:6: search_space.a: has the choice NaN, which is not a finite number",
            ),
        ] {
            let told = sweep(text).unwrap_err();
            assert!(told.starts_with(expected), "{told}\ninstead of\n{expected}");
        }
        assert!(sweep("search_space: {a: {float: {low: 0}}}\n").unwrap_err().contains("Quintet's own form is a list"));
        assert!(sweep("search_space: 3\n").unwrap_err().starts_with("f:1:15: search_space: is"));
    }
}
