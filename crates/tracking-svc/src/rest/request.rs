//! Requests of the REST API as MLflow's clients send them: JSON or a query string, names in either case, numbers as strings.

use std::sync::Arc;

use axum::{
    body::Bytes,
    extract::{FromRequest, Request},
};
use http::{Method, header::CONTENT_TYPE};
use serde_json::{Map, Value};

use crate::{
    error::Error,
    model::{Metric, Pair},
};

/// Largest body of a request that is not an artifact, in bytes.
const MAX_BODY: usize = 64 << 20;

/// The fields of a request, or of an object in one.
#[derive(Debug, Default)]
pub(super) struct Fields(Map<String, Value>);

impl<S: Send + Sync> FromRequest<S> for Fields {
    type Rejection = Error;

    async fn from_request(request: Request, _: &S) -> Result<Self, Error> {
        if request.method() == Method::GET {
            return Ok(Self::from_query(request.uri().query().unwrap_or_default()));
        }
        let json = request.headers().get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).is_some_and(|value| {
            value.split(';').next().unwrap_or_default().trim().eq_ignore_ascii_case("application/json")
        });
        if !json {
            let reason = "is missing or of another type; `application/json` is expected";
            return Err(Error::invalid("Content-Type", reason));
        }
        let body = axum::body::to_bytes(request.into_body(), MAX_BODY).await.map_err(|error| {
            let too_large =
                std::error::Error::source(&error).is_some_and(|cause| cause.is::<http_body_util::LengthLimitError>());
            if too_large {
                Error::TooLarge { what: "the request body".to_owned(), limit: MAX_BODY as u64 }
            } else {
                Error::Body(error.to_string())
            }
        })?;
        Self::from_json(&body)
    }
}

/// `experiment_id` -> `experimentId`.
fn camel(name: &str) -> String {
    let mut parts = name.split('_');
    let mut result = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let mut chars = part.chars();
        result.extend(chars.next().map(|c| c.to_ascii_uppercase()));
        result.push_str(chars.as_str());
    }
    result
}

fn describe(value: &Value) -> String {
    let mut text = value.to_string();
    if text.len() > 80 {
        let end = (0..=80).rev().find(|&end| text.is_char_boundary(end)).unwrap_or(0);
        text.truncate(end);
        text.push('…');
    }
    text
}

impl Fields {
    /// Reads a query string; a repeated field becomes a list.
    pub(super) fn from_query(query: &str) -> Self {
        let mut fields = Map::new();
        for (name, value) in url::form_urlencoded::parse(query.as_bytes()) {
            let value = Value::String(value.into_owned());
            match fields.get_mut(name.as_ref()) {
                None => {
                    fields.insert(name.into_owned(), value);
                }
                Some(Value::Array(list)) => list.push(value),
                Some(first) => *first = Value::Array(vec![first.take(), value]),
            }
        }
        Self(fields)
    }

    /// Reads a JSON object, also one that was encoded twice; an empty body has no fields.
    pub(super) fn from_json(body: &Bytes) -> Result<Self, Error> {
        let refuse = |reason: String| Error::invalid("body", reason);
        if body.trim_ascii().is_empty() {
            return Ok(Self::default());
        }
        let parse =
            |bytes: &[u8]| serde_json::from_slice(bytes).map_err(|error| refuse(format!("is not JSON: {error}")));
        let mut value: Value = parse(body)?;
        if let Value::String(inner) = &value {
            value = parse(inner.as_bytes())?;
        }
        match value {
            Value::Object(fields) => Ok(Self(fields)),
            other => Err(refuse(format!("is {}; an object is expected", describe(&other)))),
        }
    }

    fn take(&mut self, name: &'static str) -> Result<Option<Value>, Error> {
        let value = self.0.swap_remove(name);
        // Few names have two parts, so that most fields need no second look.
        let other = if name.contains('_') { self.0.swap_remove(&camel(name)) } else { None };
        let value = match (value, other) {
            (Some(_), Some(_)) => return Err(Error::invalid(name, "is given twice, in snake_case and in camelCase")),
            (value, other) => value.or(other),
        };
        Ok(value.filter(|value| !value.is_null()))
    }

    /// A text.
    pub(super) fn opt_text(&mut self, name: &'static str) -> Result<Option<String>, Error> {
        match self.take(name)? {
            None => Ok(None),
            Some(Value::String(text)) => Ok(Some(text)),
            Some(other) => Err(Error::invalid(name, format!("{} is not a string", describe(&other)))),
        }
    }

    /// A text that must be there and not be empty.
    pub(super) fn text(&mut self, name: &'static str) -> Result<String, Error> {
        let text = self.opt_text(name)?.filter(|text| !text.is_empty());
        text.ok_or_else(|| Error::invalid(name, "is missing; a string is required"))
    }

    /// An integer, also as a string.
    pub(super) fn opt_int(&mut self, name: &'static str) -> Result<Option<i64>, Error> {
        let Some(value) = self.take(name)? else { return Ok(None) };
        let number = match &value {
            Value::Number(number) => number.as_i64().or_else(|| number.as_f64().and_then(whole)),
            Value::String(text) => text.trim().parse().ok(),
            _ => None,
        };
        let reason = || format!("{} is not an integer of 64 bits", describe(&value));
        number.map(Some).ok_or_else(|| Error::invalid(name, reason()))
    }

    /// An integer that must be there.
    pub(super) fn int(&mut self, name: &'static str) -> Result<i64, Error> {
        self.opt_int(name)?.ok_or_else(|| Error::invalid(name, "is missing; an integer is required"))
    }

    /// A number that must be there; as a string it may be `NaN`, `Infinity` or `-Infinity`.
    pub(super) fn real(&mut self, name: &'static str) -> Result<f64, Error> {
        let value = self.take(name)?.ok_or_else(|| Error::invalid(name, "is missing; a number is required"))?;
        let number = match &value {
            Value::Number(number) => number.as_f64(),
            Value::String(text) => text.trim().parse().ok(),
            _ => None,
        };
        number.ok_or_else(|| Error::invalid(name, format!("{} is not a number", describe(&value))))
    }

    /// A truth value, also as a string.
    pub(super) fn opt_bool(&mut self, name: &'static str) -> Result<Option<bool>, Error> {
        match self.take(name)? {
            None => Ok(None),
            Some(Value::Bool(value)) => Ok(Some(value)),
            Some(Value::String(text)) if text == "true" => Ok(Some(true)),
            Some(Value::String(text)) if text == "false" => Ok(Some(false)),
            Some(other) => Err(Error::invalid(name, format!("{} is neither true nor false", describe(&other)))),
        }
    }

    fn list(&mut self, name: &'static str) -> Result<Vec<Value>, Error> {
        match self.take(name)? {
            None => Ok(Vec::new()),
            Some(Value::Array(list)) => Ok(list),
            // A field that is repeated once in a query string.
            Some(Value::String(text)) => Ok(vec![Value::String(text)]),
            Some(other) => Err(Error::invalid(name, format!("{} is not a list", describe(&other)))),
        }
    }

    /// A list of texts; empty when absent.
    pub(super) fn texts(&mut self, name: &'static str) -> Result<Vec<String>, Error> {
        let item = |value| match value {
            Value::String(text) => Ok(text),
            other => Err(Error::invalid(name, format!("{} is not a string", describe(&other)))),
        };
        self.list(name)?.into_iter().map(item).collect()
    }

    /// A list of objects; empty when absent.
    pub(super) fn objects(&mut self, name: &'static str) -> Result<Vec<Fields>, Error> {
        let item = |value| match value {
            Value::Object(fields) => Ok(Fields(fields)),
            other => Err(Error::invalid(name, format!("{} is not an object", describe(&other)))),
        };
        self.list(name)?.into_iter().map(item).collect()
    }

    /// A key with a value; an absent value is empty.
    pub(super) fn pair(&mut self) -> Result<Pair, Error> {
        Ok(Pair { key: self.text("key")?.into(), value: self.opt_text("value")?.unwrap_or_default() })
    }

    /// A list of keys with values.
    pub(super) fn pairs(&mut self, name: &'static str) -> Result<Vec<Pair>, Error> {
        self.objects(name)?.into_iter().map(|mut item| item.pair()).collect()
    }

    /// A point of a metric.
    pub(super) fn metric(&mut self) -> Result<Metric, Error> {
        let key: Arc<str> = self.text("key")?.into();
        let value = self.real("value")?;
        Ok(Metric { key, value, timestamp: self.int("timestamp")?, step: self.opt_int("step")?.unwrap_or(0) })
    }

    /// The run that the call is about; `run_uuid` is its old name.
    pub(super) fn run_id(&mut self) -> Result<String, Error> {
        let old = self.opt_text("run_uuid")?.filter(|id| !id.is_empty());
        let new = self.opt_text("run_id")?.filter(|id| !id.is_empty());
        new.or(old).ok_or_else(|| Error::invalid("run_id", "is missing; a string is required"))
    }
}

/// JSON writes some integers with a point.
fn whole(number: f64) -> Option<i64> {
    // Above 2^53 a double no longer says which integer was meant.
    (number.fract() == 0.0 && number.abs() <= 9_007_199_254_740_992.0).then_some(number as i64)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fields(json: &str) -> Fields {
        Fields::from_json(&Bytes::copy_from_slice(json.as_bytes())).unwrap()
    }

    #[test]
    fn both_cases_and_numbers_as_strings_are_read() {
        let mut read = fields(
            r#"{"experimentId": "7", "run_uuid": "r", "step": "-3", "max_results": 5.0, "value": "NaN", "unknown": {}}"#,
        );
        assert_eq!(read.text("experiment_id").unwrap(), "7");
        assert_eq!(read.run_id().unwrap(), "r");
        assert_eq!((read.int("step").unwrap(), read.opt_int("max_results").unwrap()), (-3, Some(5)));
        assert!(read.real("value").unwrap().is_nan());
        assert_eq!(read.opt_int("absent").unwrap(), None);
        let mut twice = fields(r#"{"run_id": "a", "runId": "b"}"#);
        assert!(twice.run_id().is_err());
        let mut nested = fields(r#""{\"run_id\": \"a\", \"tags\": [{\"key\": \"k\"}]}""#);
        assert_eq!(nested.run_id().unwrap(), "a");
        assert_eq!(nested.pairs("tags").unwrap(), [Pair::new("k", "")]);
        let mut query = Fields::from_query("id=1&order_by=a+b&order_by=c%2F&flag=true&one=x");
        assert_eq!(query.texts("order_by").unwrap(), ["a b", "c/"]);
        assert_eq!((query.opt_bool("flag").unwrap(), query.texts("one").unwrap()), (Some(true), vec!["x".to_owned()]));
    }

    #[test]
    fn wrong_values_are_named() {
        for body in ["[]", "1", "{", "nonsense", "\"{\""] {
            assert!(Fields::from_json(&Bytes::from(body)).is_err(), "{body}");
        }
        for value in ["9223372036854775808", "1.5", "\"x\"", "true", "{}", "1e300"] {
            let mut read = fields(&format!("{{\"step\": {value}}}"));
            assert!(matches!(read.opt_int("step"), Err(Error::Invalid { field, .. }) if field == "step"), "{value}");
        }
        assert!(fields(r#"{"value": true}"#).real("value").is_err());
        assert!(fields(r#"{"key": 5}"#).text("key").is_err());
        assert!(fields(r#"{"key": ""}"#).text("key").is_err());
        assert!(fields(r#"{"tags": [1]}"#).pairs("tags").is_err());
        assert!(fields(r#"{"tags": {}}"#).pairs("tags").is_err());
    }
}
