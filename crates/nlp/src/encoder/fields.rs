//! `config.json` field by field: a family lists its fields once, and the list serves reading and writing.
use std::path::Path;

use serde_json::{Map, Value, json};

use super::ops::{ACTIVATIONS, Activation};
use crate::Error;

/// Goes through the fields of a configuration. A field that is absent keeps the value it has. A null is what `transformers` makes of it:
/// none where there may be none, false for a flag, an error for a name, and as if absent for what has to be a number.
pub trait Visit {
    /// An integer of 1 or more.
    fn count(&mut self, key: &str, value: &mut usize) -> Result<(), Error>;
    /// An integer of 0 or more.
    fn integer(&mut self, key: &str, value: &mut usize) -> Result<(), Error>;
    /// An integer of 0 or more, or null.
    fn optional_integer(&mut self, key: &str, value: &mut Option<usize>) -> Result<(), Error>;
    /// An integer.
    fn signed(&mut self, key: &str, value: &mut i64) -> Result<(), Error>;
    /// A number from 0 to below 1.
    fn probability(&mut self, key: &str, value: &mut f64) -> Result<(), Error>;
    /// A number from 0 to below 1, or null.
    fn optional_probability(&mut self, key: &str, value: &mut Option<f64>) -> Result<(), Error>;
    /// A number above 0.
    fn positive(&mut self, key: &str, value: &mut f64) -> Result<(), Error>;
    /// A number above 0, or null.
    fn optional_positive(&mut self, key: &str, value: &mut Option<f64>) -> Result<(), Error>;
    /// true or false.
    fn flag(&mut self, key: &str, value: &mut bool) -> Result<(), Error>;
    /// One of several names.
    fn choice<T: Copy + PartialEq>(
        &mut self,
        key: &str,
        value: &mut T,
        options: &[(&'static str, T)],
    ) -> Result<(), Error>;
    /// Names, as a list or joined by `|`.
    fn names(&mut self, key: &str, value: &mut Vec<String>) -> Result<(), Error>;
    /// An integer of 1 or more under a name of this family; the one of most families, where it stands too, wins.
    fn renamed_count(&mut self, key: &str, usual: &str, value: &mut usize) -> Result<(), Error>;
    /// `plain` becomes false where rotary positions are scaled. Nothing is written.
    fn plain_rope(&mut self, key: &str, plain: &mut bool) -> Result<(), Error>;
    /// The base of rotary positions in `rope_parameters` of transformers 5, by kind of layer; `plain` becomes false where they are
    /// scaled. Nothing is written.
    fn rope_parameters(&mut self, layers: &str, theta: &mut f64, plain: &mut bool) -> Result<(), Error>;
    /// The name of an activation.
    fn activation(&mut self, key: &str, value: &mut Activation) -> Result<(), Error> {
        self.choice(key, value, &ACTIVATIONS)
    }
}

/// Typed access to the keys.
pub(super) struct Reader<'a> {
    pub(super) raw: &'a Map<String, Value>,
    pub(super) path: &'a Path,
}

impl Reader<'_> {
    pub(super) fn error(&self, field: &str, problem: impl Into<String>) -> Error {
        Error::Config { path: self.path.to_owned(), field: field.to_owned(), problem: problem.into() }
    }

    pub(super) fn get(&self, key: &str) -> Option<&Value> {
        self.raw.get(key).filter(|value| !value.is_null())
    }

    /// A field that may be none, which null makes it; `start` is overwritten by `read`.
    fn optional<T>(
        &mut self,
        key: &str,
        value: &mut Option<T>,
        mut start: T,
        read: fn(&mut Self, &str, &mut T) -> Result<(), Error>,
    ) -> Result<(), Error> {
        *value = match self.raw.get(key) {
            None => return Ok(()),
            Some(Value::Null) => None,
            Some(_) => {
                read(self, key, &mut start)?;
                Some(start)
            }
        };
        Ok(())
    }

    fn number(&self, key: &str) -> Result<Option<f64>, Error> {
        let Some(value) = self.get(key) else { return Ok(None) };
        value.as_f64().map(Some).ok_or_else(|| self.error(key, format!("found {value}, expected a number")))
    }
}

impl Visit for Reader<'_> {
    fn count(&mut self, key: &str, value: &mut usize) -> Result<(), Error> {
        self.integer(key, value)?;
        match *value {
            0 => Err(self.error(key, "found 0, expected 1 or more")),
            _ => Ok(()),
        }
    }

    fn integer(&mut self, key: &str, value: &mut usize) -> Result<(), Error> {
        let Some(found) = self.get(key) else { return Ok(()) };
        let number = found.as_u64().and_then(|n| usize::try_from(n).ok()).filter(|n| *n <= 1 << 31);
        *value = number.ok_or_else(|| self.error(key, format!("found {found}, expected an integer of 0 or more")))?;
        Ok(())
    }

    fn optional_integer(&mut self, key: &str, value: &mut Option<usize>) -> Result<(), Error> {
        self.optional(key, value, 0, Self::integer)
    }

    fn signed(&mut self, key: &str, value: &mut i64) -> Result<(), Error> {
        let Some(found) = self.get(key) else { return Ok(()) };
        let number = found.as_i64().filter(|n| n.abs() <= 1 << 31);
        *value = number.ok_or_else(|| self.error(key, format!("found {found}, expected an integer")))?;
        Ok(())
    }

    fn probability(&mut self, key: &str, value: &mut f64) -> Result<(), Error> {
        match self.number(key)? {
            Some(p) if !(0.0..1.0).contains(&p) => {
                Err(self.error(key, format!("found {p}, expected a number from 0 to below 1")))
            }
            found => {
                *value = found.unwrap_or(*value);
                Ok(())
            }
        }
    }

    fn optional_probability(&mut self, key: &str, value: &mut Option<f64>) -> Result<(), Error> {
        self.optional(key, value, 0.0, Self::probability)
    }

    fn positive(&mut self, key: &str, value: &mut f64) -> Result<(), Error> {
        match self.number(key)? {
            Some(number) if number <= 0.0 => Err(self.error(key, format!("found {number}, expected a number above 0"))),
            found => {
                *value = found.unwrap_or(*value);
                Ok(())
            }
        }
    }

    fn optional_positive(&mut self, key: &str, value: &mut Option<f64>) -> Result<(), Error> {
        self.optional(key, value, 1.0, Self::positive)
    }

    fn flag(&mut self, key: &str, value: &mut bool) -> Result<(), Error> {
        let Some(found) = self.raw.get(key) else { return Ok(()) };
        *value = match found {
            Value::Bool(flag) => *flag,
            Value::Null => false,
            _ => return Err(self.error(key, format!("found {found}, expected true or false"))),
        };
        Ok(())
    }

    fn choice<T: Copy + PartialEq>(
        &mut self,
        key: &str,
        value: &mut T,
        options: &[(&'static str, T)],
    ) -> Result<(), Error> {
        let Some(found) = self.raw.get(key) else { return Ok(()) };
        match options.iter().find(|(name, _)| found == name) {
            Some((_, option)) => *value = *option,
            None => {
                let names: Vec<&str> = options.iter().map(|(name, _)| *name).collect();
                return Err(self.error(key, format!("found {found}, supported are {}", names.join(", "))));
            }
        }
        Ok(())
    }

    fn names(&mut self, key: &str, value: &mut Vec<String>) -> Result<(), Error> {
        let Some(found) = self.get(key) else { return Ok(()) };
        let names: Option<Vec<String>> = match found {
            Value::String(joined) => {
                Some(joined.to_lowercase().split('|').map(|name| name.trim().to_owned()).collect())
            }
            Value::Array(names) => names.iter().map(|name| name.as_str().map(str::to_owned)).collect(),
            _ => None,
        };
        *value = names.ok_or_else(|| self.error(key, format!("found {found}, expected names")))?;
        Ok(())
    }

    fn renamed_count(&mut self, key: &str, usual: &str, value: &mut usize) -> Result<(), Error> {
        self.count(key, value)?;
        self.count(usual, value)
    }

    fn plain_rope(&mut self, key: &str, plain: &mut bool) -> Result<(), Error> {
        *plain &= match self.get(key) {
            None => true,
            Some(Value::Object(scaling)) => is_plain(scaling),
            Some(_) => false,
        };
        Ok(())
    }

    fn rope_parameters(&mut self, layers: &str, theta: &mut f64, plain: &mut bool) -> Result<(), Error> {
        let Some(Value::Object(map)) = self.get("rope_parameters").and_then(|found| found.get(layers)) else {
            return Ok(());
        };
        *plain &= is_plain(map);
        Reader { raw: map, path: self.path }.positive("rope_theta", theta)
    }
}

/// Whether rotary positions are not scaled; `type` is the older name.
fn is_plain(scaling: &Map<String, Value>) -> bool {
    let kind = ["rope_type", "type"].into_iter().find_map(|key| scaling.get(key).filter(|kind| !kind.is_null()));
    kind.is_none_or(|kind| kind == "default")
}

/// Sets the keys, and leaves those alone that say the same already (`gelu_python` stays).
pub(super) struct Writer<'a> {
    pub(super) map: &'a mut Map<String, Value>,
}

impl Writer<'_> {
    fn set(&mut self, key: &str, value: Value) -> Result<(), Error> {
        self.map.insert(key.to_owned(), value);
        Ok(())
    }
}

impl Visit for Writer<'_> {
    fn count(&mut self, key: &str, value: &mut usize) -> Result<(), Error> {
        self.set(key, json!(value))
    }

    fn integer(&mut self, key: &str, value: &mut usize) -> Result<(), Error> {
        self.set(key, json!(value))
    }

    fn optional_integer(&mut self, key: &str, value: &mut Option<usize>) -> Result<(), Error> {
        self.set(key, json!(value))
    }

    fn signed(&mut self, key: &str, value: &mut i64) -> Result<(), Error> {
        self.set(key, json!(value))
    }

    fn probability(&mut self, key: &str, value: &mut f64) -> Result<(), Error> {
        self.set(key, json!(value))
    }

    fn optional_probability(&mut self, key: &str, value: &mut Option<f64>) -> Result<(), Error> {
        self.set(key, json!(value))
    }

    fn positive(&mut self, key: &str, value: &mut f64) -> Result<(), Error> {
        self.set(key, json!(value))
    }

    fn optional_positive(&mut self, key: &str, value: &mut Option<f64>) -> Result<(), Error> {
        self.set(key, json!(value))
    }

    fn flag(&mut self, key: &str, value: &mut bool) -> Result<(), Error> {
        self.set(key, json!(value))
    }

    fn choice<T: Copy + PartialEq>(
        &mut self,
        key: &str,
        value: &mut T,
        options: &[(&'static str, T)],
    ) -> Result<(), Error> {
        let written = self.map.get(key).and_then(|name| options.iter().find(|(option, _)| name == option));
        if written.is_some_and(|(_, same)| same == value) {
            return Ok(());
        }
        match options.iter().find(|(_, option)| option == value) {
            Some((name, _)) => self.set(key, json!(name)),
            None => Ok(()),
        }
    }

    fn names(&mut self, key: &str, value: &mut Vec<String>) -> Result<(), Error> {
        if self.map.contains_key(key) || value.is_empty() { Ok(()) } else { self.set(key, json!(value)) }
    }

    fn renamed_count(&mut self, key: &str, usual: &str, value: &mut usize) -> Result<(), Error> {
        self.map.shift_remove(usual);
        self.set(key, json!(value))
    }

    fn plain_rope(&mut self, _key: &str, _plain: &mut bool) -> Result<(), Error> {
        Ok(())
    }

    fn rope_parameters(&mut self, _layers: &str, _theta: &mut f64, _plain: &mut bool) -> Result<(), Error> {
        Ok(())
    }
}
