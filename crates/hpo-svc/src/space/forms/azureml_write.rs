//! Writing a search space as AzureML's sweep jobs have it.
//!
//! A grid begins half a step below its first value and ends half a step above its last one: `round(x / q) * q` makes each of its
//! values equally likely that way, and that of an integer with `log` as likely as Optuna makes it. A parameter with a condition
//! stands in the objects of the `choice` that it depends on, beside a member of the choice's own name that holds the value.

use serde_json::{Map, Value, json};

use super::{
    Form,
    azureml::KINDS,
    scale::{multiples, tidy, value_of_log},
};
use crate::space::{Condition, Distribution, Space};

/// The two ways in which AzureML writes an expression.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Style {
    /// `{"type": "uniform", "min_value": 0, "max_value": 1}`, as in a job's YAML.
    Job,
    /// `["uniform", [0, 1]]`, as in a request's body.
    Request,
}

/// The longest list of values that a grid becomes when no distribution of AzureML has it.
const MOST_VALUES: usize = 1000;
/// The most expressions that one parameter may become with those that depend on it, each of which is written out once in every
/// object that has it.
const MOST_EXPRESSIONS: usize = 10_000;

/// Writes a search space. What AzureML cannot say is approximated, by more values rather than by less, and noted.
pub fn to_azureml(space: &Space, style: Style) -> Form {
    let mut writer = Writer { space, style, conditions: Vec::new(), notes: Vec::new() };
    writer.attach();
    let top = (0..space.parameters().len()).filter(|index| writer.conditions[*index].is_none());
    let mut document = Map::new();
    for index in top.collect::<Vec<_>>() {
        let expression = writer.expression(index);
        document.insert(space.parameters()[index].name.clone(), expression);
    }
    // One that stands in several objects has told the same in each.
    let mut told = std::collections::BTreeSet::new();
    let notes = writer.notes.into_iter().filter(|note| told.insert(note.clone())).collect();
    Form { document: Value::Object(document), notes }
}

struct Writer<'a> {
    space: &'a Space,
    style: Style,
    /// What each parameter hangs on.
    conditions: Vec<Option<Condition>>,
    notes: Vec<String>,
}

/// A range with a grid: the kind's name, its arguments, and whether exactly the wanted values come out of it.
struct Grid {
    kind: &'static str,
    arguments: Vec<Value>,
    exact: bool,
}

impl Writer<'_> {
    fn note(&mut self, index: usize, note: &str) {
        self.notes.push(format!("`{}`: {note}", self.space.parameters()[index].name));
    }

    /// Decides what each parameter hangs on: its condition, if that can be written out, or else what the other parameter hangs on.
    fn attach(&mut self) {
        let parameters = self.space.parameters();
        let conditions = parameters.iter().map(|parameter| parameter.condition.clone());
        self.conditions = (0..).zip(conditions).map(|(index, c)| c.filter(|c| c.parameter < index)).collect();
        let mut sizes = vec![1_usize; parameters.len()];
        for index in (0..parameters.len()).rev() {
            let children = self.children(index);
            if children.is_empty() {
                continue;
            }
            let points = points(&parameters[index].distribution);
            let size = points.map(|points| {
                let present = |child: &usize| points.iter().filter(|point| self.exists(*child, **point)).count();
                1 + children.iter().map(|child| present(child) * sizes[*child]).sum::<usize>()
            });
            match size.filter(|size| *size <= MOST_EXPRESSIONS) {
                Some(size) => sizes[index] = size,
                None => {
                    for child in children {
                        let name = &parameters[index].name;
                        self.note(
                            child,
                            &format!("exists whatever `{name}` is, whose values are too many to be written out"),
                        );
                        self.conditions[child] = self.conditions[index].clone();
                    }
                }
            }
        }
    }

    fn children(&self, index: usize) -> Vec<usize> {
        let hangs = |child: &usize| self.conditions[*child].as_ref().is_some_and(|c| c.parameter == index);
        (index + 1..self.conditions.len()).filter(hangs).collect()
    }

    /// Whether a parameter exists when the one it hangs on has that value. On a grid of doubles nearly that.
    fn exists(&self, index: usize, point: f64) -> bool {
        let near = |value: &f64| (value - point).abs() <= 1e-9 * point.abs().max(f64::MIN_POSITIVE);
        self.conditions[index].as_ref().is_some_and(|condition| condition.values.iter().any(near))
    }

    /// The expression of a parameter, with those that hang on it inside.
    fn expression(&mut self, index: usize) -> Value {
        let parameter = &self.space.parameters()[index];
        let children = self.children(index);
        let values = points(&parameter.distribution);
        let Some(points) = values.filter(|_| !children.is_empty()) else { return self.leaf(index) };
        if !matches!(parameter.distribution, Distribution::Categorical { .. }) {
            self.note(index, "is a choice of its values, since others depend on them");
        }
        let mut choices = Vec::with_capacity(points.len());
        for point in points {
            let value = self.value(index, point);
            let present: Vec<usize> = children.iter().copied().filter(|child| self.exists(*child, point)).collect();
            if present.is_empty() {
                choices.push(value);
                continue;
            }
            let mut object = Map::from_iter([(parameter.name.clone(), value)]);
            for child in present {
                let expression = self.expression(child);
                object.insert(self.space.parameters()[child].name.clone(), expression);
            }
            choices.push(Value::Object(object));
        }
        self.express("choice", vec![Value::Array(choices)])
    }

    /// A value in JSON.
    fn value(&mut self, index: usize, internal: f64) -> Value {
        let external = self.space.parameters()[index].distribution.external(internal);
        if matches!(external, crate::space::ParamValue::Float(value) if !value.is_finite()) {
            self.note(index, "a choice that is not a finite number becomes text");
        }
        external.to_json()
    }

    fn express(&self, name: &str, arguments: Vec<Value>) -> Value {
        if self.style == Style::Request {
            return json!([name, arguments]);
        }
        let fields = KINDS.iter().find(|kind| kind.name == name).map_or(&[][..], |kind| kind.fields);
        let fields = fields.iter().map(|field| (*field).to_owned()).zip(arguments);
        Value::Object(std::iter::once(("type".to_owned(), json!(name))).chain(fields).collect())
    }

    /// The expression of a parameter that nothing hangs on.
    fn leaf(&mut self, index: usize) -> Value {
        let distribution = &self.space.parameters()[index].distribution;
        let grid = match distribution {
            Distribution::Float { low, high, log, step: None } if low < high => {
                let bound = |value: f64| json!(if *log { value.ln() } else { value });
                let name = if *log { "loguniform" } else { "uniform" };
                return self.express(name, vec![bound(*low), bound(*high)]);
            }
            Distribution::Float { low, high, step: Some(step), .. } if low < high => {
                Some(float_grid(*low, *high, *step))
            }
            Distribution::Int { low, high, log, step, .. } if low < high => Some(int_grid(*low, *high, *log, *step)),
            Distribution::Float { .. } | Distribution::Int { .. } | Distribution::Categorical { .. } => None,
        };
        if let Some(grid) = grid.as_ref().filter(|grid| grid.exact) {
            return self.express(grid.kind, grid.arguments.clone());
        }
        match (points(distribution), grid) {
            (Some(points), _) => {
                let values = points.into_iter().map(|point| self.value(index, point)).collect();
                self.express("choice", vec![Value::Array(values)])
            }
            (None, Some(grid)) => {
                self.note(
                    index,
                    "also gets values beside its grid, which is none of multiples, and too long for a choice",
                );
                self.express(grid.kind, grid.arguments)
            }
            (None, None) => Value::Null,
        }
    }
}

/// The internal values of a domain, unless they are too many; those of a choice never are.
pub(super) fn points(distribution: &Distribution) -> Option<Vec<f64>> {
    match distribution {
        Distribution::Categorical { choices } => Some((0..choices.len()).map(|index| index as f64).collect()),
        Distribution::Int { low, high, step, .. } => {
            let step = usize::try_from(*step).ok()?;
            let count = high.abs_diff(*low) / step as u64;
            (count < MOST_VALUES as u64).then(|| (*low..=*high).step_by(step).map(|value| value as f64).collect())
        }
        Distribution::Float { low, high, .. } if low == high => Some(vec![*low]),
        Distribution::Float { low, high, step, .. } => {
            let (step, last) = ((*step)?, ((high - low) / (*step)?).round());
            (last < MOST_VALUES as f64).then(|| (0..=last as i32).map(|k| grid_point(*low, step, k)).collect())
        }
    }
}

fn grid_point(low: f64, step: f64, k: i32) -> f64 {
    let point = tidy(low + f64::from(k) * step);
    // What is left of zero when steps are added up.
    if point.abs() < step * 1e-9 { 0.0 } else { point }
}

fn int_grid(low: i64, high: i64, log: bool, step: i64) -> Grid {
    if low == 0 && step == 1 && !log {
        return Grid { kind: "randint", arguments: vec![json!(high + 1)], exact: true };
    }
    let half = step as f64 / 2.0;
    let ends = [low as f64 - half, high as f64 + half];
    if !log {
        let exact = low % step == 0 && multiples(ends[0], ends[1], step as f64) == Some((low / step, high / step));
        let arguments = if exact {
            vec![json!(ends[0]), json!(ends[1]), json!(step)]
        } else {
            vec![json!(low), json!(high), json!(1)]
        };
        return Grid { kind: "quniform", arguments, exact };
    }
    let logs = ends.map(f64::ln);
    let [first, last] = logs.map(value_of_log);
    let exact = first.zip(last).is_some_and(|(first, last)| multiples(first, last, 1.0) == Some((low, high)));
    Grid { kind: "qloguniform", arguments: vec![json!(logs[0]), json!(logs[1]), json!(1)], exact }
}

fn float_grid(low: f64, high: f64, step: f64) -> Grid {
    let ends = [low - step / 2.0, high + step / 2.0].map(tidy);
    let units = [low, high].map(|end| end / step);
    let whole = units.iter().all(|units| (units - units.round()).abs() <= 1e-9 && units.abs() < 1e9);
    let exact = whole && multiples(ends[0], ends[1], step) == Some((units[0].round() as i64, units[1].round() as i64));
    if exact {
        return Grid {
            kind: "quniform",
            arguments: ends.into_iter().chain([step]).map(|number| json!(number)).collect(),
            exact,
        };
    }
    Grid { kind: "uniform", arguments: vec![json!(low), json!(high)], exact }
}
