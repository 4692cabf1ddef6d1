//! One parameter's distribution: its domain, its values inside and outside of Optuna, and its JSON.

use std::sync::Arc;

use super::{ParamValue, decimal, value::MAX_INTEGER};
use crate::pyjson::{PyValue, float_repr};

/// Where a parameter's values come from. Built by the constructors only, so that the rules of Optuna hold.
#[derive(Debug, Clone)]
pub enum Distribution {
    /// `low <= x <= high`, in log space with `log`, on a grid with `step`.
    Float {
        /// Included.
        low: f64,
        /// Included; on the grid.
        high: f64,
        /// Uniform in log(x); never together with a step.
        log: bool,
        /// Grid from `low`.
        step: Option<f64>,
    },
    /// Integers `low <= x <= high` on a grid of `step`, in log space with `log`.
    Int {
        /// Included.
        low: i64,
        /// Included; on the grid.
        high: i64,
        /// Uniform in log(x); only with step 1.
        log: bool,
        /// At least 1.
        step: i64,
        /// Optuna's text of a domain that 64 bits do not hold, of which the other fields are as near as they come. Samplers never
        /// see one, since no search space has it.
        wide: Option<Arc<str>>,
    },
    /// One of the choices, unordered.
    Categorical {
        /// Not empty; shared by all clones.
        choices: Arc<[ParamValue]>,
    },
}

type Choices = Arc<[ParamValue]>;

/// Whether two lists have the same choices; as a rule they are the same list.
fn same(a: &Choices, b: &Choices, equal: impl Fn(&ParamValue, &ParamValue) -> bool) -> bool {
    Arc::ptr_eq(a, b) || (a.len() == b.len() && a.iter().zip(b.iter()).all(|(a, b)| equal(a, b)))
}

/// Whether Python finds both choices equal.
fn equal(a: &ParamValue, b: &ParamValue) -> bool {
    a.same_text(b) || a.to_py().equals(&b.to_py())
}

/// Doubles that are an `i64` when their fraction is cut off: from -2^63 to below 2^63.
const WITHIN_64_BITS: std::ops::Range<f64> = i64::MIN as f64..-(i64::MIN as f64);

/// How many steps above `low` a value is, unless it lies between two points of the grid.
pub(crate) fn grid_point(value: f64, low: f64, step: f64) -> Option<f64> {
    let steps = (value - low) / step;
    let nearest = steps.round_ties_even();
    ((steps - nearest).abs() < 1e-8).then_some(nearest)
}

/// Which rule a domain breaks: the field of the domain, and what is wrong with it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{field}: {problem}")]
pub struct DomainError {
    /// `low`, `high`, `step`, `log` or `choices`.
    pub field: &'static str,
    /// The value and what is allowed.
    pub problem: String,
}

fn refuse<T>(field: &'static str, problem: String) -> Result<T, DomainError> {
    Err(DomainError { field, problem })
}

/// As in Optuna: choices are equal when Python says so.
impl PartialEq for Distribution {
    fn eq(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Float { low, high, log, step }, Self::Float { low: low2, high: high2, log: log2, step: step2 }) => {
                low == low2 && high == high2 && log == log2 && step == step2
            }
            (
                Self::Int { low, high, log, step, wide },
                Self::Int { low: low2, high: high2, log: log2, step: step2, wide: wide2 },
            ) => low == low2 && high == high2 && log == log2 && step == step2 && wide == wide2,
            (Self::Categorical { choices }, Self::Categorical { choices: other }) => same(choices, other, equal),
            _ => false,
        }
    }
}

impl Distribution {
    /// A float domain. A `high` that is not on the grid moves down to its last point, as in Optuna.
    ///
    /// # Errors
    /// What is not finite, `low > high`, `log` with `low <= 0` or with a step, a step that is not above 0.
    pub fn float(low: f64, high: f64, log: bool, step: Option<f64>) -> Result<Self, DomainError> {
        for (field, value) in [("low", low), ("high", high)] {
            if !value.is_finite() {
                return refuse(field, format!("{value} is not a finite number"));
            }
        }
        let built = Self::any_float(low, high, log, step)?;
        if !(high - low).is_finite() {
            return refuse("high", format!("the range from {low} to {high} is too wide for a double"));
        }
        let Some(step) = step else { return Ok(built) };
        if !step.is_finite() {
            return refuse("step", format!("{step} is not a finite number"));
        }
        if decimal::last_on_grid(low, high, step).is_none() {
            return refuse("step", format!("{step} is too fine for the range from {low} to {high}"));
        }
        Ok(built)
    }

    /// [`Distribution::float`] by the rules of Optuna alone: a range may be infinite. A comparison with NaN breaks none.
    fn any_float(low: f64, high: f64, log: bool, step: Option<f64>) -> Result<Self, DomainError> {
        if low > high {
            return refuse("low", format!("{low} is above high ({high}); low <= high must hold"));
        }
        if log && low <= 0.0 {
            return refuse("low", format!("{low} has no logarithm; with log, low must be above 0"));
        }
        let Some(step) = step else { return Ok(Self::Float { low, high, log, step: None }) };
        if log {
            return refuse("step", format!("{step} was given together with log; only one of them is allowed"));
        }
        if step <= 0.0 {
            return refuse("step", format!("{step} is not above 0"));
        }
        let high = decimal::last_on_grid(low, high, step).unwrap_or(high);
        Ok(Self::Float { low, high, log, step: Some(step) })
    }

    /// An integer domain. A `high` that is not on the grid moves down to its last point, as in Optuna.
    ///
    /// # Errors
    /// `low > high`, `log` with `low < 1` or with a step above 1, a step below 1, numbers beyond 2^53.
    pub fn int(low: i64, high: i64, log: bool, step: i64) -> Result<Self, DomainError> {
        for (field, value) in [("low", low), ("high", high)] {
            if value.unsigned_abs() > MAX_INTEGER.unsigned_abs() {
                return refuse(field, format!("{value} is beyond +-2^53"));
            }
        }
        Self::any_int(low, high, log, step)
    }

    /// [`Distribution::int`] of any integers: a value of the domain as a double may not be exact.
    fn any_int(low: i64, high: i64, log: bool, step: i64) -> Result<Self, DomainError> {
        if low > high {
            return refuse("low", format!("{low} is above high ({high}); low <= high must hold"));
        }
        if step < 1 {
            return refuse("step", format!("{step} is below 1"));
        }
        if log && low < 1 {
            return refuse("low", format!("{low} is below 1; with log, low must be at least 1"));
        }
        if log && step != 1 {
            return refuse("step", format!("{step} was given together with log; only 1 is allowed then"));
        }
        let beyond = (i128::from(high) - i128::from(low)) % i128::from(step);
        let high = i64::try_from(i128::from(high) - beyond).unwrap_or(high);
        Ok(Self::Int { low, high, log, step, wide: None })
    }

    /// A domain that Optuna has, as one of a search space.
    ///
    /// # Errors
    /// Those of [`Distribution::float`], and integers beyond 64 bits.
    pub fn sampled(self) -> Result<Self, DomainError> {
        match self {
            Self::Float { low, high, log, step } => Self::float(low, high, log, step),
            Self::Int { wide: Some(text), .. } => refuse("high", format!("{text} has integers beyond 64 bits")),
            other => Ok(other),
        }
    }

    /// A choice among values.
    ///
    /// # Errors
    /// No choice, or the same choice twice.
    pub fn categorical(choices: Vec<ParamValue>) -> Result<Self, DomainError> {
        if choices.is_empty() {
            return refuse("choices", "there is none; at least one is needed".into());
        }
        for (index, choice) in choices.iter().enumerate() {
            if choices[..index].contains(choice) {
                return refuse("choices", format!("{choice} is there twice"));
            }
        }
        Ok(Self::Categorical { choices: choices.into() })
    }

    /// Whether there is only one value, which needs no sampling.
    pub fn single(&self) -> bool {
        match self {
            Self::Float { low, high, .. } => low == high,
            Self::Int { low, high, wide, .. } => low == high && wide.is_none(),
            Self::Categorical { choices } => choices.len() == 1,
        }
    }

    /// The internal value of a domain's first point.
    pub fn first(&self) -> f64 {
        match self {
            Self::Float { low, .. } => *low,
            Self::Int { low, .. } => *low as f64,
            Self::Categorical { .. } => 0.0,
        }
    }

    /// The user's value of an internal one: the number itself, or the choice of that index.
    pub fn external(&self, internal: f64) -> ParamValue {
        match self {
            Self::Float { .. } => ParamValue::Float(internal),
            Self::Int { .. } if internal.is_finite() && !WITHIN_64_BITS.contains(&internal) => {
                ParamValue::Other(PyValue::Big(format!("{internal:.0}")))
            }
            Self::Int { .. } => ParamValue::Int(internal as i64),
            Self::Categorical { choices } => {
                choices.get(internal.max(0.0) as usize).cloned().unwrap_or(ParamValue::Null)
            }
        }
    }

    /// The internal value of a user's one; `None` when it is of the wrong kind or not a choice.
    pub fn internal(&self, external: &ParamValue) -> Option<f64> {
        match self {
            Self::Float { .. } | Self::Int { .. } => external.number().filter(|value| !value.is_nan()),
            Self::Categorical { choices } => choices.iter().position(|choice| choice == external).map(|i| i as f64),
        }
    }

    /// Whether an internal value lies in the domain.
    pub fn contains(&self, internal: f64) -> bool {
        match self {
            Self::Float { low, high, step: None, .. } => (*low..=*high).contains(&internal),
            Self::Float { low, high, step: Some(step), .. } => {
                (*low..=*high).contains(&internal) && grid_point(internal, *low, *step).is_some()
            }
            Self::Int { low, high, step, .. } => {
                let (low, high, step) = (*low as f64, *high as f64, *step as f64);
                (low..=high).contains(&internal) && (internal - low) % step == 0.0
            }
            Self::Categorical { choices } => internal > -1.0 && internal < choices.len() as f64,
        }
    }

    /// Whether both internal values are the same one: a point of a grid, such as 0.3 in steps of 0.1, has other last digits when it is
    /// computed than when somebody writes it.
    pub fn same_value(&self, a: f64, b: f64) -> bool {
        let point = |value| match self {
            Self::Float { low, step: Some(step), .. } => grid_point(value, *low, *step),
            _ => None,
        };
        a == b || point(a).is_some_and(|a| point(b) == Some(a))
    }

    /// Whether Optuna lets both stand under one name in a study: same kind, same `log`, choices that are equal in Python.
    pub fn compatible(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Float { log, .. }, Self::Float { log: other, .. })
            | (Self::Int { log, .. }, Self::Int { log: other, .. }) => log == other,
            (Self::Categorical { choices }, Self::Categorical { choices: other }) => same(choices, other, equal),
            _ => false,
        }
    }

    /// Whether both have the same text: choices and zeros that are equal may be written differently.
    pub fn same_text(&self, other: &Self) -> bool {
        let same_bits = |pairs: [(f64, f64); 3]| pairs.iter().all(|(a, b)| a.to_bits() == b.to_bits());
        match (self, other) {
            (Self::Float { low, high, log, step }, Self::Float { low: low2, high: high2, log: log2, step: step2 }) => {
                // No step is 0.
                let steps = (step.unwrap_or_default(), step2.unwrap_or_default());
                log == log2 && same_bits([(*low, *low2), (*high, *high2), steps])
            }
            (Self::Categorical { choices }, Self::Categorical { choices: other }) => {
                same(choices, other, ParamValue::same_text)
            }
            _ => self == other,
        }
    }

    /// The text that Optuna stores beside every parameter.
    pub fn to_json(&self) -> String {
        let (name, attributes) = match self {
            Self::Float { low, high, log, step } => {
                let step = step.map_or_else(|| "null".into(), float_repr);
                let (low, high) = (float_repr(*low), float_repr(*high));
                ("FloatDistribution", format!(r#""step": {step}, "low": {low}, "high": {high}, "log": {log}"#))
            }
            Self::Int { wide: Some(text), .. } => return text.as_ref().to_owned(),
            Self::Int { low, high, log, step, wide: None } => {
                ("IntDistribution", format!(r#""log": {log}, "step": {step}, "low": {low}, "high": {high}"#))
            }
            Self::Categorical { choices } => {
                let choices = PyValue::List(choices.iter().map(ParamValue::to_py).collect()).dump();
                ("CategoricalDistribution", format!(r#""choices": {choices}"#))
            }
        };
        format!(r#"{{"name": "{name}", "attributes": {{{attributes}}}}}"#)
    }

    /// Reads Optuna's text, the five deprecated names and the abbreviated form with `type` included, under Optuna's rules: they
    /// are weaker than those of a search space, for which there is [`Distribution::sampled`].
    ///
    /// # Errors
    /// Says what the text lacks.
    pub fn from_json(text: &str) -> Result<Self, String> {
        let value = PyValue::parse(text).map_err(|error| error.to_string())?;
        let (kind, attributes) = match (value.get("name"), value.get("type")) {
            (Some(PyValue::Text(name)), _) => {
                (name.as_str(), value.get("attributes").ok_or_else(|| format!("{name} has no attributes"))?)
            }
            (None, Some(PyValue::Text(kind))) => (kind.as_str(), &value),
            _ => return Err("a distribution needs a name".into()),
        };
        let number = |key: &str| {
            attributes.get(key).and_then(PyValue::as_f64).ok_or_else(|| format!("{kind} needs the number `{key}`"))
        };
        let mut fits = true;
        let mut integer = |key: &str, default: Option<i64>| match (attributes.get(key), default) {
            // Every digit of a large one.
            (Some(PyValue::Int(value)), _) => Ok(*value),
            (None | Some(PyValue::Null), Some(default)) => Ok(default),
            _ => number(key).and_then(|value| {
                fits &= WITHIN_64_BITS.contains(&value);
                if value.is_finite() { Ok(value as i64) } else { Err(format!("`{key}` of {kind} is {value}")) }
            }),
        };
        let log = matches!(attributes.get("log"), Some(PyValue::Bool(true)));
        let step = attributes.get("step").and_then(PyValue::as_f64);
        let built = match kind {
            "FloatDistribution" | "float" => Self::any_float(number("low")?, number("high")?, log, step),
            "UniformDistribution" => Self::any_float(number("low")?, number("high")?, false, None),
            "LogUniformDistribution" => Self::any_float(number("low")?, number("high")?, true, None),
            "DiscreteUniformDistribution" => {
                Self::any_float(number("low")?, number("high")?, false, Some(number("q")?))
            }
            "IntDistribution" | "int" | "IntUniformDistribution" | "IntLogUniformDistribution" => {
                let log = match kind {
                    "IntUniformDistribution" => false,
                    "IntLogUniformDistribution" => true,
                    _ => log,
                };
                let [low, high, step] = [integer("low", None)?, integer("high", None)?, integer("step", Some(1))?];
                match Self::any_int(low, high, log, step) {
                    // What is kept of it is its text.
                    Ok(Self::Int { .. }) if !fits => Ok(Self::Int { low, high, log, step, wide: Some(text.into()) }),
                    built => built,
                }
            }
            "CategoricalDistribution" | "categorical" => {
                let Some(PyValue::List(items)) = attributes.get("choices") else {
                    return Err(format!("{kind} needs the list `choices`"));
                };
                let choices: Vec<ParamValue> = items.iter().map(ParamValue::choice).collect();
                // Not `categorical`: Optuna allows the same choice twice.
                if choices.is_empty() {
                    return Err("choices: there is none".into());
                }
                return Ok(Self::Categorical { choices: choices.into() });
            }
            other => return Err(format!("unknown distribution `{other}`")),
        };
        built.map_err(|error| error.to_string())
    }
}

#[cfg(test)]
mod tests;
