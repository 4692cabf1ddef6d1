//! MLflow's search language: filters joined by AND and orders, parsed into conditions that [`sql`] compiles.
//!
//! ```text
//! filter     = comparison { AND comparison }
//! comparison = subject operator value
//! subject    = [entity "."] key       entity: metrics, params, tags, attributes (and their short forms), datasets
//! order      = subject [ASC | DESC]
//! ```
//! There is no OR, NOT, parenthesis or escape in a string; keys may be quoted with `` ` ``, `"` or `'`.

mod cursor;
mod parse;
pub(crate) mod sql;
#[cfg(test)]
mod tests;

pub(crate) use parse::{parse_filter, parse_order};

/// What is searched; it decides which attributes there are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Scope {
    Runs,
    Experiments,
    Models,
}

/// The left side of a comparison or what is ordered by.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Subject {
    Metric(String),
    Param(String),
    Tag(String),
    Attribute(&'static Attribute),
    Dataset,
}

/// A column that can be searched.
#[derive(Debug, PartialEq, Eq, Hash)]
pub(crate) struct Attribute {
    /// The names under which a filter may speak of it; the first is the canonical one.
    pub(crate) names: &'static [&'static str],
    /// Its SQL expression.
    pub(crate) column: &'static str,
    pub(crate) kind: Kind,
    /// It can be NULL.
    pub(crate) nullable: bool,
}

impl Attribute {
    pub(crate) fn name(&self) -> &'static str {
        self.names.first().copied().unwrap_or_default()
    }
}

/// The type of an attribute, and so the operators that it has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Kind {
    /// `= != > >= < <=` with a bare number.
    Number,
    /// `= != LIKE ILIKE` with a string.
    Text,
    /// As `Text`, and `IN`, `NOT IN`.
    Key,
    /// `= != IN`, `NOT IN` with integers, quoted or bare.
    Id,
}

/// How numbers compare, and for texts the first two.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Compare {
    Equal,
    NotEqual,
    Greater,
    GreaterEqual,
    Less,
    LessEqual,
}

/// What has to hold of the subject.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Test {
    Number(Compare, f64),
    Text { equal: bool, value: String },
    Like { ignore_case: bool, pattern: String },
    OneOf { values: Vec<String>, negated: bool },
    Ids { values: Vec<i64>, negated: bool },
    Null { negated: bool },
}

/// One comparison.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Clause {
    pub(crate) subject: Subject,
    pub(crate) test: Test,
}

/// One key of an order.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Order {
    pub(crate) subject: Subject,
    pub(crate) descending: bool,
}

const fn attribute(names: &'static [&'static str], column: &'static str, kind: Kind) -> Attribute {
    Attribute { names, column, kind, nullable: false }
}

static RUN_ATTRIBUTES: &[Attribute] = &[
    attribute(&["run_id"], "r.uid", Kind::Key),
    attribute(&["run_name", "run name", "Run name", "Run Name"], "r.name", Kind::Text),
    attribute(&["user_id"], "r.user_id", Kind::Text),
    attribute(&["status"], "r.status", Kind::Text),
    attribute(&["artifact_uri"], "r.artifact_uri", Kind::Text),
    attribute(&["start_time", "created", "Created"], "r.start_time", Kind::Number),
    Attribute { names: &["end_time"], column: "r.end_time", kind: Kind::Number, nullable: true },
];

static EXPERIMENT_ATTRIBUTES: &[Attribute] = &[
    attribute(&["name"], "e.name", Kind::Text),
    attribute(&["experiment_id"], "e.id", Kind::Id),
    attribute(&["creation_time"], "e.created", Kind::Number),
    attribute(&["last_update_time"], "e.updated", Kind::Number),
];

static MODEL_ATTRIBUTES: &[Attribute] = &[
    attribute(&["name"], "m.name", Kind::Key),
    attribute(&["model_id"], "m.uid", Kind::Key),
    attribute(&["model_type"], "m.model_type", Kind::Text),
    attribute(&["source_run_id"], "m.source_run", Kind::Key),
    attribute(&["status"], "m.status", Kind::Text),
    attribute(&["creation_time", "creation_timestamp", "creation_timestamp_ms"], "m.created", Kind::Number),
    attribute(&["last_updated_time", "last_updated_timestamp", "last_updated_timestamp_ms"], "m.updated", Kind::Number),
];

impl Scope {
    pub(crate) fn attributes(self) -> &'static [Attribute] {
        match self {
            Self::Runs => RUN_ATTRIBUTES,
            Self::Experiments => EXPERIMENT_ATTRIBUTES,
            Self::Models => MODEL_ATTRIBUTES,
        }
    }
}
