//! A parameter's value as the user sees it, in every form in which it travels.

use std::fmt;

use quintet_proto::types;
use serde_json::json;

use crate::pyjson::{PyValue, float_repr};

/// The largest integer up to which every integer is a double: internal values are doubles.
pub(super) const MAX_INTEGER: i64 = 1 << 53;

/// A parameter's value as the user sees it.
#[derive(Debug, Clone)]
pub enum ParamValue {
    /// `null`
    Null,
    /// A boolean choice.
    Bool(bool),
    /// A value of an integer domain, or an integral choice.
    Int(i64),
    /// A value of a float domain, or a fractional choice.
    Float(f64),
    /// A text choice.
    Text(String),
    /// What the other kinds cannot hold: an integer beyond 64 bits, a text with a lone surrogate, and a list or an object, which
    /// Optuna takes for a choice with a warning.
    Other(PyValue),
}

impl PartialEq for ParamValue {
    fn eq(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Null, Self::Null) => true,
            (Self::Bool(a), Self::Bool(b)) => a == b,
            (Self::Text(a), Self::Text(b)) => a == b,
            // As text, in which NaN equals itself.
            (Self::Other(a), Self::Other(b)) => a.dump() == b.dump(),
            (Self::Int(a), Self::Int(b)) => a == b,
            // Numbers are equal across their types, and NaN equals itself, as in Optuna.
            (a, b) => match (a.number(), b.number()) {
                (Some(a), Some(b)) => a == b || (a.is_nan() && b.is_nan()),
                _ => false,
            },
        }
    }
}

impl ParamValue {
    pub(super) fn number(&self) -> Option<f64> {
        match self {
            Self::Int(value) => Some(*value as f64),
            Self::Float(value) => Some(*value),
            Self::Other(value) => value.as_f64(),
            _ => None,
        }
    }

    /// Whether both have the same text in a distribution's JSON.
    pub(super) fn same_text(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Float(a), Self::Float(b)) => a.to_bits() == b.to_bits() || (a.is_nan() && b.is_nan()),
            (a, b) => std::mem::discriminant(a) == std::mem::discriminant(b) && a == b,
        }
    }

    /// A choice of the contract; an integral number becomes an integer, since JSON knows no difference.
    /// `None` for lists and objects.
    pub fn from_proto(value: &types::Value) -> Option<Self> {
        use types::value::Kind;
        // A null that was JSON on its way has lost its kind.
        let Some(kind) = &value.kind else { return Some(Self::Null) };
        Some(match kind {
            Kind::NullValue(_) => Self::Null,
            Kind::BoolValue(value) => Self::Bool(*value),
            Kind::NumberValue(value) if value.fract() == 0.0 && value.abs() <= MAX_INTEGER as f64 => {
                Self::Int(*value as i64)
            }
            Kind::NumberValue(value) => Self::Float(*value),
            Kind::StringValue(value) => Self::Text(value.clone()),
            Kind::ListValue(_) | Kind::StructValue(_) => return None,
        })
    }

    /// The value as `google.protobuf.Value`.
    pub fn to_proto(&self) -> types::Value {
        to_proto(&self.to_py())
    }

    /// The value as strict JSON; what is not finite becomes its word as text, an integer beyond 64 bits its digits.
    pub fn to_json(&self) -> serde_json::Value {
        match self {
            Self::Null => serde_json::Value::Null,
            Self::Bool(value) => json!(value),
            Self::Int(value) => json!(value),
            Self::Float(value) if value.is_finite() => json!(value),
            Self::Float(value) => json!(float_repr(*value)),
            Self::Text(value) => json!(value),
            Self::Other(PyValue::List(items)) => items.iter().map(|item| Self::choice(item).to_json()).collect(),
            Self::Other(PyValue::Object(entries)) => {
                entries.iter().map(|(key, value)| (key.clone(), Self::choice(value).to_json())).collect()
            }
            Self::Other(PyValue::Big(digits)) => {
                digits.parse::<u64>().map_or_else(|_| json!(digits), |value| json!(value))
            }
            Self::Other(PyValue::Units(units)) => json!(String::from_utf16_lossy(units)),
            Self::Other(scalar) => Self::choice(scalar).to_json(),
        }
    }

    /// The value as Python's JSON has it.
    pub fn to_py(&self) -> PyValue {
        match self {
            Self::Null => PyValue::Null,
            Self::Bool(value) => PyValue::Bool(*value),
            Self::Int(value) => PyValue::Int(*value),
            Self::Float(value) => PyValue::Float(*value),
            Self::Text(value) => PyValue::Text(value.clone()),
            Self::Other(value) => value.clone(),
        }
    }

    /// A choice out of a distribution's JSON.
    pub fn choice(value: &PyValue) -> Self {
        Self::from_py(value).unwrap_or_else(|| Self::Other(value.clone()))
    }

    /// A parameter out of a JSON object; `None` for lists and objects.
    pub fn from_py(value: &PyValue) -> Option<Self> {
        Some(match value {
            PyValue::Null => Self::Null,
            PyValue::Bool(value) => Self::Bool(*value),
            PyValue::Int(value) => Self::Int(*value),
            PyValue::Float(value) => Self::Float(*value),
            PyValue::Text(value) => Self::Text(value.clone()),
            PyValue::Big(_) | PyValue::Units(_) => Self::Other(value.clone()),
            PyValue::List(_) | PyValue::Object(_) => return None,
        })
    }
}

/// As a command gets it: text as it is, floats with the shortest digits, `null`, `true`, `false`.
impl fmt::Display for ParamValue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Null => f.write_str("null"),
            Self::Bool(value) => write!(f, "{value}"),
            Self::Int(value) => write!(f, "{value}"),
            Self::Float(value) => f.write_str(&float_repr(*value)),
            Self::Text(value) => f.write_str(value),
            Self::Other(value) => f.write_str(&value.dump()),
        }
    }
}

fn to_proto(value: &PyValue) -> types::Value {
    use types::value::Kind;
    let kind = match value {
        PyValue::Null => Kind::NullValue(0),
        PyValue::Bool(value) => Kind::BoolValue(*value),
        PyValue::Int(value) => Kind::NumberValue(*value as f64),
        PyValue::Big(_) | PyValue::Float(_) => Kind::NumberValue(value.as_f64().unwrap_or(f64::NAN)),
        PyValue::Text(value) => Kind::StringValue(value.clone()),
        PyValue::Units(units) => Kind::StringValue(String::from_utf16_lossy(units)),
        PyValue::List(items) => Kind::ListValue(types::ListValue { values: items.iter().map(to_proto).collect() }),
        PyValue::Object(entries) => Kind::StructValue(types::Struct {
            fields: entries.iter().map(|(key, value)| (key.clone(), to_proto(value))).collect(),
        }),
    };
    types::Value { kind: Some(kind) }
}
