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
    },
    /// One of the choices, unordered.
    Categorical {
        /// Not empty; shared by all clones.
        choices: Arc<[ParamValue]>,
    },
}

/// Whether the choices are the same; as a rule they are the same list.
fn same(a: &Arc<[ParamValue]>, b: &Arc<[ParamValue]>) -> bool {
    Arc::ptr_eq(a, b) || a == b
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

impl PartialEq for Distribution {
    fn eq(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Float { low, high, log, step }, Self::Float { low: low2, high: high2, log: log2, step: step2 }) => {
                low == low2 && high == high2 && log == log2 && step == step2
            }
            (Self::Int { low, high, log, step }, Self::Int { low: low2, high: high2, log: log2, step: step2 }) => {
                low == low2 && high == high2 && log == log2 && step == step2
            }
            (Self::Categorical { choices }, Self::Categorical { choices: other }) => same(choices, other),
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
        if low > high {
            return refuse("low", format!("{low} is above high ({high}); low <= high must hold"));
        }
        if !(high - low).is_finite() {
            return refuse("high", format!("the range from {low} to {high} is too wide for a double"));
        }
        if log && low <= 0.0 {
            return refuse("low", format!("{low} has no logarithm; with log, low must be above 0"));
        }
        let Some(step) = step else { return Ok(Self::Float { low, high, log, step: None }) };
        if log {
            return refuse("step", format!("{step} was given together with log; only one of them is allowed"));
        }
        if !(step.is_finite() && step > 0.0) {
            return refuse("step", format!("{step} is not above 0"));
        }
        let Some(high) = decimal::last_on_grid(low, high, step) else {
            return refuse("step", format!("{step} is too fine for the range from {low} to {high}"));
        };
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
        Ok(Self::Int { low, high: i64::try_from(i128::from(high) - beyond).unwrap_or(high), log, step })
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
            Self::Int { low, high, .. } => low == high,
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
                let k = (internal - low) / step;
                (*low..=*high).contains(&internal) && (k - k.round_ties_even()).abs() < 1e-8
            }
            Self::Int { low, high, step, .. } => {
                let (low, high, step) = (*low as f64, *high as f64, *step as f64);
                (low..=high).contains(&internal) && (internal - low) % step == 0.0
            }
            Self::Categorical { choices } => internal > -1.0 && internal < choices.len() as f64,
        }
    }

    /// Whether Optuna lets both stand under one name in a study: same kind, same `log`, same choices.
    pub fn compatible(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Float { log, .. }, Self::Float { log: other, .. })
            | (Self::Int { log, .. }, Self::Int { log: other, .. }) => log == other,
            (Self::Categorical { choices }, Self::Categorical { choices: other }) => same(choices, other),
            _ => false,
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
            Self::Int { low, high, log, step } => {
                ("IntDistribution", format!(r#""log": {log}, "step": {step}, "low": {low}, "high": {high}"#))
            }
            Self::Categorical { choices } => {
                let choices = PyValue::List(choices.iter().map(ParamValue::to_py).collect()).dump();
                ("CategoricalDistribution", format!(r#""choices": {choices}"#))
            }
        };
        format!(r#"{{"name": "{name}", "attributes": {{{attributes}}}}}"#)
    }

    /// Reads Optuna's text, the five deprecated names and the abbreviated form with `type` included.
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
        let integer = |key: &str| match attributes.get(key) {
            // Every digit of a large one.
            Some(PyValue::Int(value)) => Ok(*value),
            _ => number(key).map(|value| value as i64),
        };
        let log = matches!(attributes.get("log"), Some(PyValue::Bool(true)));
        let step = attributes.get("step").and_then(PyValue::as_f64);
        let int_step = step.map_or(1, |step| step as i64);
        let built = match kind {
            "FloatDistribution" | "float" => Self::float(number("low")?, number("high")?, log, step),
            "UniformDistribution" => Self::float(number("low")?, number("high")?, false, None),
            "LogUniformDistribution" => Self::float(number("low")?, number("high")?, true, None),
            "DiscreteUniformDistribution" => Self::float(number("low")?, number("high")?, false, Some(number("q")?)),
            // Optuna has no bound for integers; what it stores may be above ours.
            "IntDistribution" | "int" => Self::any_int(integer("low")?, integer("high")?, log, int_step),
            "IntUniformDistribution" => Self::any_int(integer("low")?, integer("high")?, false, int_step),
            "IntLogUniformDistribution" => Self::any_int(integer("low")?, integer("high")?, true, int_step),
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
mod tests {
    use super::*;

    #[test]
    fn json_is_that_of_optuna() {
        // Written by Optuna 5.0.0's distribution_to_json.
        let cases = [
            (
                Distribution::float(1e-5, 1e-1, true, None).unwrap(),
                r#"{"name": "FloatDistribution", "attributes": {"step": null, "low": 1e-05, "high": 0.1, "log": true}}"#,
            ),
            (
                Distribution::float(0.0, 1.0, false, Some(0.3)).unwrap(),
                r#"{"name": "FloatDistribution", "attributes": {"step": 0.3, "low": 0.0, "high": 0.9, "log": false}}"#,
            ),
            (
                Distribution::int(8, 65, false, 8).unwrap(),
                r#"{"name": "IntDistribution", "attributes": {"log": false, "step": 8, "low": 8, "high": 64}}"#,
            ),
            (
                Distribution::categorical(vec![
                    ParamValue::Text("é".into()),
                    ParamValue::Int(16),
                    ParamValue::Float(0.5),
                    ParamValue::Bool(true),
                    ParamValue::Null,
                ])
                .unwrap(),
                r#"{"name": "CategoricalDistribution", "attributes": {"choices": ["\u00e9", 16, 0.5, true, null]}}"#,
            ),
        ];
        for (distribution, text) in cases {
            assert_eq!(distribution.to_json(), text);
            assert_eq!(Distribution::from_json(text).unwrap(), distribution);
        }
    }

    #[test]
    fn old_and_short_forms_are_read() {
        let cases = [
            (
                r#"{"name": "UniformDistribution", "attributes": {"low": 0, "high": 1}}"#,
                Distribution::float(0.0, 1.0, false, None),
            ),
            (
                r#"{"name": "DiscreteUniformDistribution", "attributes": {"low": 0, "high": 1, "q": 0.5}}"#,
                Distribution::float(0.0, 1.0, false, Some(0.5)),
            ),
            (
                r#"{"name": "IntLogUniformDistribution", "attributes": {"low": 1, "high": 9, "step": 1}}"#,
                Distribution::int(1, 9, true, 1),
            ),
            (r#"{"type": "int", "low": 1, "high": 9}"#, Distribution::int(1, 9, false, 1)),
            (
                r#"{"type": "categorical", "choices": [NaN]}"#,
                Distribution::categorical(vec![ParamValue::Float(f64::NAN)]),
            ),
        ];
        for (text, distribution) in cases {
            assert_eq!(Distribution::from_json(text), Ok(distribution.unwrap()), "{text}");
        }
        for text in ["", "{}", r#"{"name": "X", "attributes": {}}"#, r#"{"type": "float", "low": 1}"#] {
            assert!(Distribution::from_json(text).is_err(), "{text}");
        }
    }

    #[test]
    fn what_optuna_stores_beyond_our_own_rules_comes_back_as_it_was() {
        for text in [
            r#"{"name": "CategoricalDistribution", "attributes": {"choices": [[64, 64], [128], {"a": [null, NaN]}, "x"]}}"#,
            r#"{"name": "IntDistribution", "attributes": {"log": false, "step": 1, "low": -9223372036854775808, "high": 9223372036854775807}}"#,
            r#"{"name": "IntDistribution", "attributes": {"log": true, "step": 1, "low": 1, "high": 9007199254740993}}"#,
        ] {
            let read = Distribution::from_json(text).unwrap();
            assert_eq!(read.to_json(), text);
            assert!(read.compatible(&read.clone()) && read == Distribution::from_json(text).unwrap());
        }
        let lists = Distribution::from_json(r#"{"type": "categorical", "choices": [[1, 2], [1, 2.5]]}"#).unwrap();
        assert_eq!(lists.external(1.0).to_json(), serde_json::json!([1, 2.5]));
        assert_eq!(lists.internal(&lists.external(1.0)), Some(1.0));
        assert!(matches!(lists.external(0.0).to_proto().kind, Some(quintet_proto::types::value::Kind::ListValue(_))));
    }

    #[test]
    fn domains_that_optuna_refuses_are_refused() {
        let field = |result: Result<Distribution, DomainError>| result.unwrap_err().field;
        assert_eq!(field(Distribution::float(2.0, 1.0, false, None)), "low");
        assert_eq!(field(Distribution::float(0.0, 1.0, true, None)), "low");
        assert_eq!(field(Distribution::float(1.0, 2.0, true, Some(0.5))), "step");
        assert_eq!(field(Distribution::float(0.0, 1.0, false, Some(0.0))), "step");
        assert_eq!(field(Distribution::float(0.0, f64::INFINITY, false, None)), "high");
        assert_eq!(field(Distribution::float(f64::NAN, 1.0, false, None)), "low");
        assert_eq!(field(Distribution::int(3, 2, false, 1)), "low");
        assert_eq!(field(Distribution::int(0, 2, true, 1)), "low");
        assert_eq!(field(Distribution::int(1, 8, true, 2)), "step");
        assert_eq!(field(Distribution::int(1, 8, false, 0)), "step");
        assert_eq!(field(Distribution::int(i64::MIN, 8, false, 1)), "low");
        assert_eq!(field(Distribution::categorical(vec![])), "choices");
        assert_eq!(field(Distribution::categorical(vec![ParamValue::Int(1), ParamValue::Float(1.0)])), "choices");
    }

    #[test]
    fn values_go_inside_and_come_back() {
        let choices = Distribution::categorical(vec![ParamValue::Null, ParamValue::Bool(false), ParamValue::Int(0)]);
        let choices = choices.unwrap();
        for index in 0..3 {
            let internal = f64::from(index);
            assert!(choices.contains(internal));
            assert_eq!(choices.internal(&choices.external(internal)), Some(internal));
        }
        assert!(!choices.contains(3.0));
        assert_eq!(choices.internal(&ParamValue::Text("null".into())), None);
        let grid = Distribution::float(0.0, 1.0, false, Some(0.1)).unwrap();
        assert!(grid.contains(0.30000000000000004) && !grid.contains(0.35) && !grid.contains(1.1));
        let ints = Distribution::int(2, 10, false, 4).unwrap();
        assert!(ints.contains(6.0) && !ints.contains(8.0));
        assert!(ints.compatible(&Distribution::int(0, 5, false, 1).unwrap()));
        assert!(!ints.compatible(&grid));
    }
}
