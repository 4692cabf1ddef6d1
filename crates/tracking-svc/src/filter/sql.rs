//! Compiles conditions and orders to SQL with parameters, for both databases.

use runtime_core::db::{Dialect, Value};

use super::{Clause, Compare, Order, Scope, Subject, Test};

/// A statement under construction.
#[derive(Debug)]
pub(crate) struct Builder {
    dialect: Dialect,
    scope: Scope,
    pub(crate) joins: String,
    pub(crate) conditions: Vec<String>,
    pub(crate) order: Vec<String>,
    pub(crate) parameters: Vec<Value>,
}

impl Scope {
    /// The expression of a row's own id.
    fn id(self) -> &'static str {
        match self {
            Self::Runs => "r.id",
            Self::Experiments => "e.id",
            Self::Models => "m.id",
        }
    }

    /// Where named values of a row are, and the column that leads to the row.
    fn table(self, subject: &Subject) -> Option<(&'static str, &'static str, &str)> {
        match (self, subject) {
            (Self::Runs, Subject::Metric(key)) => Some(("latest", "run", key)),
            (Self::Runs, Subject::Param(key)) => Some(("params", "run", key)),
            (Self::Runs, Subject::Tag(key)) => Some(("tags", "run", key)),
            (Self::Experiments, Subject::Tag(key)) => Some(("experiment_tags", "experiment", key)),
            (Self::Models, Subject::Param(key)) => Some(("model_params", "model", key)),
            (Self::Models, Subject::Tag(key)) => Some(("model_tags", "model", key)),
            _ => None,
        }
    }
}

fn symbol(compare: Compare) -> &'static str {
    match compare {
        Compare::Equal => "=",
        Compare::NotEqual => "<>",
        Compare::Greater => ">",
        Compare::GreaterEqual => ">=",
        Compare::Less => "<",
        Compare::LessEqual => "<=",
    }
}

/// SQLite's LIKE ignores case; its GLOB does not, and has other wildcards.
fn glob(pattern: &str) -> String {
    let mut result = String::with_capacity(pattern.len());
    for c in pattern.chars() {
        match c {
            '%' => result.push('*'),
            '_' => result.push('?'),
            '*' | '?' | '[' => result.extend(['[', c, ']']),
            other => result.push(other),
        }
    }
    result
}

impl Builder {
    pub(crate) fn new(dialect: Dialect, scope: Scope) -> Self {
        let (joins, conditions, order, parameters) = Default::default();
        Self { dialect, scope, joins, conditions, order, parameters }
    }

    /// Adds a parameter and gives its placeholder.
    pub(crate) fn bind(&mut self, value: impl Into<Value>) -> String {
        self.parameters.push(value.into());
        format!("${}", self.parameters.len())
    }

    fn key(&mut self, name: &str) -> String {
        format!("(SELECT id FROM keys WHERE name = {})", self.bind(name))
    }

    /// Adds the conditions of a filter.
    pub(crate) fn filter(&mut self, clauses: &[Clause]) {
        for clause in clauses {
            let condition = self.clause(clause);
            self.conditions.push(condition);
        }
    }

    fn clause(&mut self, clause: &Clause) -> String {
        if let Subject::Attribute(attribute) = clause.subject {
            return self.test(attribute.column, "", &clause.test);
        }
        let Some((table, owner, key)) = self.scope.table(&clause.subject) else {
            // Data sets are not kept, so no row has one.
            return "1 = 0".to_owned();
        };
        let (id, key) = (self.scope.id(), self.key(key));
        let row = format!("SELECT 1 FROM {table} x WHERE x.{owner} = {id} AND x.key = {key}");
        match &clause.test {
            Test::Null { negated } => format!("{}EXISTS ({row})", if *negated { "" } else { "NOT " }),
            test => {
                let nan = if matches!(clause.subject, Subject::Metric(_)) { "x.nan" } else { "" };
                let test = self.test("x.value", nan, test);
                format!("EXISTS ({row} AND {test})")
            }
        }
    }

    /// `nan` names the column that says that a metric's value is NaN; empty when there is none.
    fn test(&mut self, column: &str, nan: &str, test: &Test) -> String {
        match test {
            Test::Number(compare, value) => {
                let comparison =
                    format!("{column} {} CAST({} AS DOUBLE PRECISION)", symbol(*compare), self.bind(*value));
                match (nan, compare) {
                    ("", _) => comparison,
                    // NaN differs from every number and compares with none.
                    (nan, Compare::NotEqual) => format!("({nan} = 1 OR {comparison})"),
                    (nan, _) => format!("({nan} = 0 AND {comparison})"),
                }
            }
            Test::Text { equal, value } => {
                let symbol = if *equal { "=" } else { "<>" };
                format!("{column} {symbol} {}", self.bind(value.as_str()))
            }
            Test::Like { ignore_case, pattern } => match (self.dialect, ignore_case) {
                (Dialect::Sqlite, false) => format!("{column} GLOB {}", self.bind(glob(pattern))),
                (Dialect::Sqlite, true) => format!("{column} LIKE {}", self.bind(pattern.as_str())),
                (Dialect::Postgres, false) => format!("{column} LIKE {} ESCAPE ''", self.bind(pattern.as_str())),
                (Dialect::Postgres, true) => format!("{column} ILIKE {} ESCAPE ''", self.bind(pattern.as_str())),
            },
            Test::OneOf { values, negated } => {
                let list: Vec<String> = values.iter().map(|value| self.bind(value.as_str())).collect();
                format!("{column} {}IN ({})", if *negated { "NOT " } else { "" }, list.join(", "))
            }
            Test::Ids { values, negated } => {
                let list: Vec<String> = values.iter().map(|value| self.bind(*value)).collect();
                format!("{column} {}IN ({})", if *negated { "NOT " } else { "" }, list.join(", "))
            }
            Test::Null { negated } => format!("{column} IS {}NULL", if *negated { "NOT " } else { "" }),
        }
    }

    /// Adds the keys of an order. Missing values come last in both directions, and NaN just before them.
    pub(crate) fn order_by(&mut self, orders: &[Order]) {
        let text = match self.dialect {
            Dialect::Sqlite => "",
            Dialect::Postgres => " COLLATE \"C\"",
        };
        for (number, order) in orders.iter().enumerate() {
            let direction = if order.descending { "DESC" } else { "ASC" };
            if let Subject::Attribute(attribute) = order.subject {
                if attribute.nullable {
                    self.order.push(format!("CASE WHEN {} IS NULL THEN 1 ELSE 0 END", attribute.column));
                }
                let numeric = matches!(attribute.kind, super::Kind::Number | super::Kind::Id);
                let collation = if numeric { "" } else { text };
                self.order.push(format!("{}{collation} {direction}", attribute.column));
                continue;
            }
            let Some((table, owner, key)) = self.scope.table(&order.subject) else { continue };
            let (id, key, alias) = (self.scope.id(), self.key(key), format!("o{number}"));
            self.joins
                .push_str(&format!(" LEFT JOIN {table} {alias} ON {alias}.{owner} = {id} AND {alias}.key = {key}"));
            let metric = matches!(order.subject, Subject::Metric(_));
            let missing = if metric { format!("{alias}.nan") } else { "0".to_owned() };
            self.order.push(format!("CASE WHEN {alias}.{owner} IS NULL THEN 2 ELSE {missing} END"));
            self.order.push(format!("{alias}.value{} {direction}", if metric { "" } else { text }));
        }
    }

    /// The end of the statement: conditions, order, and one row more than the page so that the next is known of.
    pub(crate) fn finish(mut self, select: &str, limit: i64, offset: i64) -> (String, Vec<Value>) {
        let (limit, offset) = (self.bind(limit + 1), self.bind(offset));
        let conditions = if self.conditions.is_empty() { "1 = 1".to_owned() } else { self.conditions.join(" AND ") };
        let sql = format!(
            "{select}{} WHERE {conditions} ORDER BY {} LIMIT {limit} OFFSET {offset}",
            self.joins,
            self.order.join(", ")
        );
        (sql, self.parameters)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn glob_keeps_like_semantics() {
        assert_eq!(glob("a%b_c*?[x]"), "a*b?c[*][?][[]x]");
    }
}
