//! Examples from MLflow's grammar and properties of the parser.

use proptest::prelude::*;

use super::*;
use crate::error::Error;

fn clauses(text: &str) -> Vec<Clause> {
    parse_filter(text, Scope::Runs).unwrap_or_else(|e| panic!("{text}: {e}"))
}

fn attribute_named(scope: Scope, name: &str) -> Subject {
    Subject::Attribute(scope.attributes().iter().find(|a| a.names.contains(&name)).unwrap())
}

#[test]
fn every_form_of_a_comparison_is_read() {
    let metric =
        |key: &str, compare, value| Clause { subject: Subject::Metric(key.into()), test: Test::Number(compare, value) };
    assert_eq!(clauses(""), []);
    assert_eq!(clauses("  and "), []);
    assert_eq!(
        clauses("metrics.loss < 0.5 AND metric.`val loss`>=-.5 and metrics.\"a.b/c\" != 1e-3 AND"),
        [
            metric("loss", Compare::Less, 0.5),
            metric("val loss", Compare::GreaterEqual, -0.5),
            metric("a.b/c", Compare::NotEqual, 1e-3)
        ]
    );
    let text = |subject, equal, value: &str| Clause { subject, test: Test::Text { equal, value: value.into() } };
    assert_eq!(
        clauses("params.model.name = 'bert' AND tags.mlflow.user != \"it's\" AND status = 'FINISHED'"),
        [
            text(Subject::Param("model.name".into()), true, "bert"),
            text(Subject::Tag("mlflow.user".into()), false, "it's"),
            text(attribute_named(Scope::Runs, "status"), true, "FINISHED"),
        ]
    );
    assert_eq!(clauses("tag.a = 'it''s'"), [text(Subject::Tag("a".into()), true, "it''s")]);
    assert_eq!(
        clauses(
            "tags.a LIKE 'x%' AND params.b ilike '_y' AND run_id NOT IN ('a', \"b\") AND tags.c IS NULL AND tags.d is not null"
        ),
        [
            Clause { subject: Subject::Tag("a".into()), test: Test::Like { ignore_case: false, pattern: "x%".into() } },
            Clause {
                subject: Subject::Param("b".into()),
                test: Test::Like { ignore_case: true, pattern: "_y".into() }
            },
            Clause {
                subject: attribute_named(Scope::Runs, "run_id"),
                test: Test::OneOf { values: vec!["a".into(), "b".into()], negated: true }
            },
            Clause { subject: Subject::Tag("c".into()), test: Test::Null { negated: false } },
            Clause { subject: Subject::Tag("d".into()), test: Test::Null { negated: true } },
        ]
    );
    assert_eq!(
        clauses("attributes.`Run name` = 'a' AND \"run name\" = 'a' AND run.run_name = 'a' AND attr.Created > 5").len(),
        4
    );
    let ids =
        parse_filter("experiment_id IN (1, '2') AND name LIKE 'a%' AND tags.x = 'y'", Scope::Experiments).unwrap();
    assert_eq!(ids[0].test, Test::Ids { values: vec![1, 2], negated: false });
    assert_eq!(parse_filter("name = 'm' AND params.x = '1'", Scope::Models).unwrap().len(), 2);
}

#[test]
fn what_mlflow_refuses_is_refused() {
    for bad in [
        "metrics.a > 1 OR metrics.b > 1",
        "NOT metrics.a > 1",
        "(metrics.a > 1)",
        "metrics.a > 1; metrics.b > 1",
        "metrics.a > 1, metrics.b > 1",
        "metrics.a == 1",
        "metrics.a <> 1",
        "metrics.a > +1",
        "metrics.a > 0x1",
        "metrics.a > nan",
        "metrics.a > inf",
        "metrics.a > '1'",
        "metrics.a > 1 1",
        "metrics.a > -",
        "metrics.a > 1e",
        "metrics.a LIKE 'x'",
        "metrics.a IS NULL",
        "metrics. > 1",
        "metrics.a",
        "> 1",
        "params.a = 1",
        "params.a = 'x",
        "params.a > 'x'",
        "params.`a = 'x'",
        "tags.a NOT LIKE 'x'",
        "tags.a BETWEEN 'x' AND 'y'",
        "tags.a IN ('x')",
        "run_id IN 'a'",
        "run_id IN ('a'",
        "run_id IN ()",
        "status IN ('a')",
        "experiment_id = '1'",
        "lifecycle_stage = 'active'",
        "duration > 1",
        "METRICS.a > 1",
        "foo.bar = 'x'",
        "dataset.size = 'x'",
        "metrics.a > 1 -- comment",
        "tags.a = 'x\0'",
    ] {
        let result = parse_filter(bad, Scope::Runs);
        assert!(matches!(result, Err(Error::Invalid { ref field, .. }) if field == "filter"), "{bad}: {result:?}");
    }
    assert!(parse_filter("metrics.a > 1", Scope::Experiments).is_err());
    assert!(parse_filter("name IN ('a')", Scope::Experiments).is_err());
    assert!(parse_filter("experiment_id LIKE '1'", Scope::Experiments).is_err());
    assert!(parse_filter(&"metrics.a > 1 AND ".repeat(101), Scope::Runs).is_err());
}

#[test]
fn orders_have_a_direction_and_no_key_twice() {
    let parse = |items: &[&str]| parse_order(&items.iter().map(|i| (*i).to_owned()).collect::<Vec<_>>(), Scope::Runs);
    let orders =
        parse(&["metrics.`val loss` DESC", "params.a", "tags.\"x y\" asc", "start_time desc", "attributes.end_time"])
            .unwrap();
    assert_eq!(orders.iter().map(|o| o.descending).collect::<Vec<_>>(), [true, false, false, true, false]);
    assert_eq!(orders[0].subject, Subject::Metric("val loss".into()));
    for bad in [
        &["metrics.a", "metrics.`a` DESC"][..],
        &["dataset.name"],
        &["nothing"],
        &["metrics.a DOWN"],
        &["metrics.a DESC ASC"],
        &[""],
        &["created", "start_time"],
    ] {
        assert!(matches!(parse(bad), Err(Error::Invalid { ref field, .. }) if field == "order_by"), "{bad:?}");
    }
    assert!(parse_order(&["tags.a".into()], Scope::Experiments).is_err());
}

fn write_clause(clause: &Clause) -> String {
    let subject = match &clause.subject {
        Subject::Metric(key) => format!("metrics.`{key}`"),
        Subject::Param(key) => format!("params.\"{key}\""),
        Subject::Tag(key) => format!("tags.`{key}`"),
        Subject::Attribute(attribute) => attribute.name().to_owned(),
        Subject::Dataset => "dataset.name".to_owned(),
    };
    let test = match &clause.test {
        Test::Number(compare, value) => {
            let symbol = match compare {
                Compare::Equal => "=",
                Compare::NotEqual => "!=",
                Compare::Greater => ">",
                Compare::GreaterEqual => ">=",
                Compare::Less => "<",
                Compare::LessEqual => "<=",
            };
            format!("{symbol} {value:e}")
        }
        Test::Text { equal, value } => format!("{} '{value}'", if *equal { "=" } else { "!=" }),
        Test::Like { ignore_case, pattern } => format!("{} '{pattern}'", if *ignore_case { "ILIKE" } else { "like" }),
        Test::Null { negated } => if *negated { "IS NOT NULL" } else { "IS NULL" }.to_owned(),
        Test::OneOf { values, negated } => {
            format!("{} ('{}')", if *negated { "NOT IN" } else { "in" }, values.join("', '"))
        }
        Test::Ids { .. } => unreachable!("runs have no such attribute"),
    };
    format!("{subject} {test}")
}

fn any_clause() -> impl Strategy<Value = Clause> {
    let compare = prop_oneof![
        Just(Compare::Equal),
        Just(Compare::NotEqual),
        Just(Compare::Greater),
        Just(Compare::GreaterEqual),
        Just(Compare::Less),
        Just(Compare::LessEqual)
    ];
    let key = "[a-zA-Zä0-9_./: -]{1,12}";
    let value = "[^'\0]{0,12}";
    let number = (key, compare, prop::num::f64::NORMAL | prop::num::f64::ZERO)
        .prop_map(|(key, compare, value)| Clause { subject: Subject::Metric(key), test: Test::Number(compare, value) });
    let text = (any::<bool>(), key, value, 0..4).prop_map(|(tag, key, value, form)| Clause {
        subject: if tag { Subject::Tag(key) } else { Subject::Param(key) },
        test: match form {
            0 => Test::Text { equal: tag, value },
            1 => Test::Like { ignore_case: tag, pattern: value },
            2 => Test::Null { negated: tag },
            _ => Test::Text { equal: !tag, value },
        },
    });
    let ids = (prop::collection::vec(value, 1..4), any::<bool>()).prop_map(|(values, negated)| Clause {
        subject: attribute_named(Scope::Runs, "run_id"),
        test: Test::OneOf { values, negated },
    });
    prop_oneof![number, text, ids]
}

proptest! {
    #[test]
    fn what_is_written_is_read_back(expected in prop::collection::vec(any_clause(), 0..6)) {
        let text = expected.iter().map(write_clause).collect::<Vec<_>>().join(" AND ");
        prop_assert_eq!(parse_filter(&text, Scope::Runs).unwrap(), expected);
    }

    #[test]
    fn no_text_breaks_the_parser(text in "\\PC{0,60}", scope in 0..3) {
        let scope = [Scope::Runs, Scope::Experiments, Scope::Models][scope as usize];
        let _ = parse_filter(&text, scope);
        let _ = parse_order(&[text], scope);
    }

    #[test]
    fn near_misses_do_not_break_the_parser(text in "(metrics|params|tags|run|dataset)?[.]?[`\"'a. ]{0,4}(=|!=|<|LIKE| IN | IS | NOT )[('\"a1,). ]{0,8}(AND|OR|;)?") {
        let _ = parse_filter(&text, Scope::Runs);
    }

    #[test]
    fn values_never_reach_the_statement(clauses in prop::collection::vec(any_clause(), 1..4)) {
        for dialect in [runtime_core::db::Dialect::Sqlite, runtime_core::db::Dialect::Postgres] {
            let mut builder = sql::Builder::new(dialect, Scope::Runs);
            builder.filter(&clauses);
            builder.order.push("r.uid".into());
            let (text, parameters) = builder.finish("SELECT 1 FROM runs r", 10, 0);
            prop_assert!(!text.contains(['"', '`', ';']), "{}", text);
            for number in 1..=parameters.len() {
                let placeholder = format!("${number}");
                prop_assert!(text.contains(&placeholder));
            }
        }
    }
}
