//! The parser of filters and orders.

use super::{Attribute, Clause, Compare, Kind, Order, Scope, Subject, Test, cursor::Cursor};
use crate::error::Error;

/// Comparisons of one filter at most: SQLite bounds the depth of an expression.
const MAX_CLAUSES: usize = 100;
/// Keys of one order at most: SQLite joins at most 64 tables.
const MAX_ORDERS: usize = 30;
/// Longest pattern of a LIKE in bytes, below SQLite's own limit.
const MAX_PATTERN: usize = 10_000;

fn bad_filter(reason: impl Into<String>) -> Error {
    Error::invalid("filter", reason)
}

/// Parses a filter; an empty one has no clauses.
///
/// # Errors
/// Names the place and says what is allowed.
pub(crate) fn parse_filter(text: &str, scope: Scope) -> Result<Vec<Clause>, Error> {
    if text.contains('\0') {
        return Err(bad_filter("holds a NUL character"));
    }
    let mut cursor = Cursor::new(text);
    let mut clauses = Vec::new();
    // A dangling AND at either end is tolerated, as by MLflow.
    cursor.skip_space();
    cursor.eat_word("AND");
    loop {
        cursor.skip_space();
        if cursor.at_end() {
            return Ok(clauses);
        }
        if clauses.len() == MAX_CLAUSES {
            return Err(bad_filter(format!("has more than {MAX_CLAUSES} comparisons")));
        }
        let subject = subject(&mut cursor, scope, "filter")?;
        let test = test(&mut cursor, scope, &subject)?;
        clauses.push(Clause { subject, test });
        cursor.skip_space();
        if !cursor.at_end() && !cursor.eat_word("AND") {
            let reason = format!("expected AND or the end at `{}`; comparisons are joined by AND alone", cursor.here());
            return Err(bad_filter(reason));
        }
    }
}

/// Parses the keys of an order.
///
/// # Errors
/// Names the key and says what is allowed; the same key twice.
pub(crate) fn parse_order(items: &[String], scope: Scope) -> Result<Vec<Order>, Error> {
    if items.len() > MAX_ORDERS {
        return Err(Error::invalid("order_by", format!("has {} keys; at most {MAX_ORDERS} are allowed", items.len())));
    }
    let mut orders: Vec<Order> = Vec::new();
    for item in items {
        if item.contains('\0') {
            return Err(Error::invalid("order_by", "holds a NUL character"));
        }
        let mut cursor = Cursor::new(item);
        cursor.skip_space();
        let subject = subject(&mut cursor, scope, "order_by")?;
        let sortable = match subject {
            Subject::Dataset => false,
            Subject::Metric(_) | Subject::Param(_) | Subject::Tag(_) => scope == Scope::Runs,
            Subject::Attribute(_) => true,
        };
        if !sortable {
            return Err(Error::invalid("order_by", format!("`{item}` cannot be ordered by")));
        }
        cursor.skip_space();
        let descending = cursor.eat_word("DESC");
        if !descending {
            cursor.eat_word("ASC");
        }
        cursor.skip_space();
        if !cursor.at_end() {
            let reason = format!("`{item}`: expected ASC, DESC or the end at `{}`", cursor.here());
            return Err(Error::invalid("order_by", reason));
        }
        if orders.iter().any(|order| order.subject == subject) {
            return Err(Error::invalid("order_by", format!("`{item}` is named twice")));
        }
        orders.push(Order { subject, descending });
    }
    Ok(orders)
}

fn find_attribute(name: &str, scope: Scope, field: &'static str) -> Result<&'static Attribute, Error> {
    let attributes = scope.attributes();
    attributes.iter().find(|attribute| attribute.names.contains(&name)).ok_or_else(|| {
        let names: Vec<&str> = attributes.iter().map(Attribute::name).collect();
        Error::invalid(field, format!("`{name}` is not an attribute; there are {}", names.join(", ")))
    })
}

fn subject(cursor: &mut Cursor<'_>, scope: Scope, field: &'static str) -> Result<Subject, Error> {
    let unended = || Error::invalid(field, "a quoted key does not end");
    let place = cursor.here();
    if let Some(quoted) = cursor.quoted(&['"', '`']) {
        return find_attribute(quoted.ok_or_else(unended)?, scope, field).map(Subject::Attribute);
    }
    let head = cursor.head();
    if !cursor.eat('.') {
        if head.is_empty() {
            return Err(Error::invalid(field, format!("expected a key such as metrics.loss at `{place}`")));
        }
        return find_attribute(head, scope, field).map(Subject::Attribute);
    }
    let key = match cursor.quoted(&['"', '`', '\'']) {
        Some(quoted) => quoted.ok_or_else(unended)?,
        None => cursor.word(),
    };
    if key.is_empty() {
        return Err(Error::invalid(field, format!("expected a key after `{head}.` at `{place}`")));
    }
    let subject = match head {
        "metric" | "metrics" if scope == Scope::Runs => Subject::Metric(key.to_owned()),
        "param" | "params" | "parameter" | "parameters" if scope != Scope::Experiments => {
            Subject::Param(key.to_owned())
        }
        "tag" | "tags" => Subject::Tag(key.to_owned()),
        "attribute" | "attributes" | "attr" | "run" => Subject::Attribute(find_attribute(key, scope, field)?),
        "dataset" | "datasets" if scope == Scope::Runs => match key {
            "name" | "digest" | "context" => Subject::Dataset,
            other => {
                let reason = format!("`{other}` is not a field of a dataset; there are name, digest, context");
                return Err(Error::invalid(field, reason));
            }
        },
        other => {
            let known = match scope {
                Scope::Runs => "metrics, params, tags, attributes, datasets",
                Scope::Experiments => "tags, attributes",
                Scope::Models => "params, tags, attributes",
            };
            return Err(Error::invalid(field, format!("`{other}` is not an entity; there are {known}")));
        }
    };
    Ok(subject)
}

/// An operator as it is written.
#[derive(Clone, Copy, PartialEq)]
enum Operator {
    Compare(Compare),
    Like,
    ILike,
    In,
    NotIn,
    IsNull,
    IsNotNull,
}

fn operator(cursor: &mut Cursor<'_>) -> Result<Operator, Error> {
    let place = cursor.here();
    let symbol = cursor.take_until(|c| !matches!(c, '=' | '<' | '>' | '!'));
    let compare = match symbol {
        "=" => Some(Compare::Equal),
        "!=" => Some(Compare::NotEqual),
        ">" => Some(Compare::Greater),
        ">=" => Some(Compare::GreaterEqual),
        "<" => Some(Compare::Less),
        "<=" => Some(Compare::LessEqual),
        _ => None,
    };
    if let Some(compare) = compare {
        return Ok(Operator::Compare(compare));
    }
    let mut next = |word: &str| {
        cursor.skip_space();
        cursor.eat_word(word)
    };
    let word = match symbol {
        "" if next("LIKE") => Some(Operator::Like),
        "" if next("ILIKE") => Some(Operator::ILike),
        "" if next("IN") => Some(Operator::In),
        "" if next("NOT") => next("IN").then_some(Operator::NotIn),
        "" if next("IS") => match next("NOT") {
            true => next("NULL").then_some(Operator::IsNotNull),
            false => next("NULL").then_some(Operator::IsNull),
        },
        _ => None,
    };
    word.ok_or_else(|| {
        bad_filter(format!(
            "expected an operator (= != > >= < <= LIKE ILIKE IN NOT IN IS NULL IS NOT NULL) at `{place}`"
        ))
    })
}

/// How values of a subject are compared.
fn kind(subject: &Subject) -> Kind {
    match subject {
        Subject::Metric(_) => Kind::Number,
        Subject::Param(_) | Subject::Tag(_) => Kind::Text,
        Subject::Dataset => Kind::Key,
        Subject::Attribute(attribute) => attribute.kind,
    }
}

fn test(cursor: &mut Cursor<'_>, scope: Scope, subject: &Subject) -> Result<Test, Error> {
    cursor.skip_space();
    let place = cursor.here();
    let operator = operator(cursor)?;
    let nullable = matches!(subject, Subject::Param(_) | Subject::Tag(_));
    let refused = |allowed: &str| {
        let scope = match scope {
            Scope::Runs => "runs",
            Scope::Experiments => "experiments",
            Scope::Models => "logged models",
        };
        Err(bad_filter(format!("the operator at `{place}` is not for this key of {scope}; allowed are {allowed}")))
    };
    match (operator, kind(subject)) {
        (Operator::IsNull | Operator::IsNotNull, _) if nullable => {
            Ok(Test::Null { negated: operator == Operator::IsNotNull })
        }
        (Operator::Compare(compare), Kind::Number) => number(cursor).map(|value| Test::Number(compare, value)),
        (_, Kind::Number) => refused("= != > >= < <="),
        (Operator::Compare(compare @ (Compare::Equal | Compare::NotEqual)), Kind::Id) => {
            Ok(Test::Ids { values: vec![id(cursor)?], negated: compare == Compare::NotEqual })
        }
        (Operator::In | Operator::NotIn, Kind::Id) => {
            Ok(Test::Ids { values: list(cursor, id)?, negated: operator == Operator::NotIn })
        }
        (_, Kind::Id) => refused("= != IN, NOT IN"),
        (Operator::Compare(compare @ (Compare::Equal | Compare::NotEqual)), _) => {
            Ok(Test::Text { equal: compare == Compare::Equal, value: string(cursor)? })
        }
        (Operator::Like | Operator::ILike, _) => {
            let pattern = string(cursor)?;
            if pattern.len() > MAX_PATTERN {
                return Err(bad_filter(format!(
                    "a pattern has {} bytes; at most {MAX_PATTERN} are allowed",
                    pattern.len()
                )));
            }
            Ok(Test::Like { ignore_case: operator == Operator::ILike, pattern })
        }
        (Operator::In | Operator::NotIn, Kind::Key) => {
            Ok(Test::OneOf { values: list(cursor, string)?, negated: operator == Operator::NotIn })
        }
        (_, Kind::Key) => refused("= != LIKE ILIKE IN, NOT IN"),
        (_, Kind::Text) if nullable => refused("= != LIKE ILIKE, IS NULL, IS NOT NULL"),
        (_, Kind::Text) => refused("= != LIKE ILIKE"),
    }
}

/// A number: digits with at most one point, a minus before and an exponent behind; no plus, no hexadecimal, no NaN.
fn number(cursor: &mut Cursor<'_>) -> Result<f64, Error> {
    cursor.skip_space();
    let place = cursor.here();
    let word = cursor.word();
    let starts = word.strip_prefix('-').unwrap_or(word).starts_with(|c: char| c.is_ascii_digit() || c == '.');
    let plain = word.bytes().all(|b| b.is_ascii_digit() || matches!(b, b'-' | b'+' | b'.' | b'e' | b'E'));
    let value = if starts && plain { word.parse::<f64>().ok() } else { None };
    value
        .map(|value| value.clamp(f64::MIN, f64::MAX))
        .ok_or_else(|| bad_filter(format!("expected a number such as 0.5 (without quotes) at `{place}`")))
}

fn string(cursor: &mut Cursor<'_>) -> Result<String, Error> {
    cursor.skip_space();
    let place = cursor.here();
    match cursor.quoted(&['\'', '"']) {
        Some(Some(text)) => Ok(text.to_owned()),
        Some(None) => Err(bad_filter(format!("the string at `{place}` does not end"))),
        None => Err(bad_filter(format!("expected a string in quotes at `{place}`"))),
    }
}

fn id(cursor: &mut Cursor<'_>) -> Result<i64, Error> {
    cursor.skip_space();
    let place = cursor.here();
    let text = match cursor.quoted(&['\'', '"']) {
        Some(quoted) => quoted.unwrap_or_default(),
        None => cursor.word(),
    };
    text.parse().map_err(|_| bad_filter(format!("expected an integer at `{place}`")))
}

fn list<T>(cursor: &mut Cursor<'_>, item: impl Fn(&mut Cursor<'_>) -> Result<T, Error>) -> Result<Vec<T>, Error> {
    cursor.skip_space();
    let place = cursor.here();
    let shape = || bad_filter(format!("expected a list such as ('a', 'b') at `{place}`"));
    if !cursor.eat('(') {
        return Err(shape());
    }
    let mut items = Vec::new();
    loop {
        items.push(item(cursor)?);
        cursor.skip_space();
        if cursor.eat(')') {
            return Ok(items);
        }
        if !cursor.eat(',') {
            return Err(shape());
        }
    }
}
