//! Values and rows as both databases exchange them.

use super::Error;

/// A parameter of a statement or a column of a row.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// SQL NULL.
    Null,
    /// Any integer column; booleans are 0 and 1.
    Int(i64),
    /// A double.
    Real(f64),
    /// Text.
    Text(String),
    /// Bytes.
    Blob(Vec<u8>),
}

impl Value {
    /// The parameter for [`super::Dialect::id_set`].
    pub fn id_list(ids: impl IntoIterator<Item = i64>) -> Self {
        let ids: Vec<String> = ids.into_iter().map(|id| id.to_string()).collect();
        Self::Text(format!("[{}]", ids.join(",")))
    }

    fn kind(&self) -> &'static str {
        match self {
            Self::Null => "null",
            Self::Int(_) => "an integer",
            Self::Real(_) => "a real number",
            Self::Text(_) => "text",
            Self::Blob(_) => "bytes",
        }
    }
}

impl From<i64> for Value {
    fn from(value: i64) -> Self {
        Self::Int(value)
    }
}

impl From<i32> for Value {
    fn from(value: i32) -> Self {
        Self::Int(value.into())
    }
}

impl From<bool> for Value {
    fn from(value: bool) -> Self {
        Self::Int(value.into())
    }
}

impl From<f64> for Value {
    fn from(value: f64) -> Self {
        Self::Real(value)
    }
}

impl From<&str> for Value {
    fn from(value: &str) -> Self {
        Self::Text(value.to_owned())
    }
}

impl From<String> for Value {
    fn from(value: String) -> Self {
        Self::Text(value)
    }
}

impl From<&String> for Value {
    fn from(value: &String) -> Self {
        Self::Text(value.clone())
    }
}

impl From<Vec<u8>> for Value {
    fn from(value: Vec<u8>) -> Self {
        Self::Blob(value)
    }
}

impl<T: Into<Value>> From<Option<T>> for Value {
    fn from(value: Option<T>) -> Self {
        value.map_or(Self::Null, Into::into)
    }
}

/// One row of a query's answer; columns count from 0.
#[derive(Clone, Debug, PartialEq)]
pub struct Row(pub(super) Vec<Value>);

impl Row {
    fn get(&self, index: usize, expected: &'static str) -> Result<&Value, Error> {
        self.0.get(index).ok_or(Error::Column { index, expected, found: "absent" })
    }

    fn wrong(&self, index: usize, expected: &'static str) -> Error {
        Error::Column { index, expected, found: self.0.get(index).map_or("absent", Value::kind) }
    }

    /// The value itself.
    ///
    /// # Errors
    /// There is no such column.
    pub fn value(&self, index: usize) -> Result<&Value, Error> {
        self.get(index, "a value")
    }

    /// An integer.
    ///
    /// # Errors
    /// The column is absent or of another type.
    pub fn int(&self, index: usize) -> Result<i64, Error> {
        self.opt_int(index)?.ok_or_else(|| self.wrong(index, "an integer"))
    }

    /// A real number; an integer is converted.
    ///
    /// # Errors
    /// The column is absent or of another type.
    pub fn real(&self, index: usize) -> Result<f64, Error> {
        self.opt_real(index)?.ok_or_else(|| self.wrong(index, "a real number"))
    }

    /// Text.
    ///
    /// # Errors
    /// The column is absent or of another type.
    pub fn text(&self, index: usize) -> Result<&str, Error> {
        self.opt_text(index)?.ok_or_else(|| self.wrong(index, "text"))
    }

    /// Bytes.
    ///
    /// # Errors
    /// The column is absent or of another type.
    pub fn blob(&self, index: usize) -> Result<&[u8], Error> {
        self.opt_blob(index)?.ok_or_else(|| self.wrong(index, "bytes"))
    }

    /// An integer or NULL.
    ///
    /// # Errors
    /// The column is absent or of another type.
    pub fn opt_int(&self, index: usize) -> Result<Option<i64>, Error> {
        match self.get(index, "an integer")? {
            Value::Null => Ok(None),
            Value::Int(value) => Ok(Some(*value)),
            _ => Err(self.wrong(index, "an integer")),
        }
    }

    /// A real number or NULL; an integer is converted.
    ///
    /// # Errors
    /// The column is absent or of another type.
    pub fn opt_real(&self, index: usize) -> Result<Option<f64>, Error> {
        match self.get(index, "a real number")? {
            Value::Null => Ok(None),
            Value::Real(value) => Ok(Some(*value)),
            Value::Int(value) => Ok(Some(*value as f64)),
            _ => Err(self.wrong(index, "a real number")),
        }
    }

    /// Text or NULL.
    ///
    /// # Errors
    /// The column is absent or of another type.
    pub fn opt_text(&self, index: usize) -> Result<Option<&str>, Error> {
        match self.get(index, "text")? {
            Value::Null => Ok(None),
            Value::Text(value) => Ok(Some(value)),
            _ => Err(self.wrong(index, "text")),
        }
    }

    /// Bytes or NULL.
    ///
    /// # Errors
    /// The column is absent or of another type.
    pub fn opt_blob(&self, index: usize) -> Result<Option<&[u8]>, Error> {
        match self.get(index, "bytes")? {
            Value::Null => Ok(None),
            Value::Blob(value) => Ok(Some(value)),
            _ => Err(self.wrong(index, "bytes")),
        }
    }
}
