//! Distributions against texts and values of Optuna 5.0.0.

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
        (r#"{"type": "categorical", "choices": [NaN]}"#, Distribution::categorical(vec![ParamValue::Float(f64::NAN)])),
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

fn read(text: &str) -> Distribution {
    Distribution::from_json(text).unwrap_or_else(|problem| panic!("{text}: {problem}"))
}

#[test]
fn what_optuna_takes_is_read_and_no_search_space() {
    // Optuna 5.0.0 makes each of these.
    for attributes in [
        r#""step": null, "low": 0.0, "high": Infinity, "log": false"#,
        r#""step": null, "low": -Infinity, "high": Infinity, "log": false"#,
        r#""step": null, "low": 1.0, "high": Infinity, "log": true"#,
        r#""step": null, "low": NaN, "high": 1.0, "log": false"#,
        r#""step": null, "low": -1.7e+308, "high": 1.7e+308, "log": false"#,
        r#""step": 0.1, "low": 1e-300, "high": 1.0, "log": false"#,
    ] {
        let text = format!(r#"{{"name": "FloatDistribution", "attributes": {{{attributes}}}}}"#);
        let wide = read(&text);
        assert_eq!(wide.to_json(), text);
        assert!(!wide.single() && wide.compatible(&wide) && wide.sampled().is_err(), "{text}");
    }
    for attributes in [
        r#""log": false, "step": 1, "low": 0, "high": 18446744073709551616"#,
        r#""log": true, "step": 1, "low": 1, "high": 1267650600228229401496703205376"#,
        r#""log": false, "step": 2, "low": -36893488147419103232, "high": 0"#,
        r#""log": false, "step": 1, "low": 36893488147419103232, "high": 73786976294838206464"#,
    ] {
        let text = format!(r#"{{"name": "IntDistribution", "attributes": {{{attributes}}}}}"#);
        let wide = read(&text);
        assert_eq!(wide.to_json(), text);
        assert!(!wide.single() && wide == read(&text) && wide.sampled().is_err(), "{text}");
    }
    let unlike = read(r#"{"type": "int", "low": 0, "high": 1267650600228229401496703205376}"#);
    let wide = read(r#"{"type": "int", "low": 0, "high": 18446744073709551616}"#);
    assert!(wide != unlike && wide.compatible(&unlike));
    let digits = |value: f64| wide.external(value).to_string();
    assert_eq!(
        [digits(1.0), digits(1e19), digits(-1e30)],
        ["1", "10000000000000000000", "-1000000000000000019884624838656"]
    );
    for text in [
        r#"{"type": "float", "low": 2, "high": 1}"#,
        r#"{"type": "float", "low": Infinity, "high": 1}"#,
        r#"{"type": "float", "low": 0, "high": Infinity, "log": true}"#,
        r#"{"type": "float", "low": 0, "high": 1, "step": 0}"#,
        r#"{"type": "int", "low": 0, "high": Infinity}"#,
        r#"{"type": "int", "low": 100000000000000000000, "high": 1}"#,
    ] {
        assert!(Distribution::from_json(text).is_err(), "{text}");
    }
}

#[test]
fn choices_are_compatible_when_python_says_that_they_are_equal() {
    let of = |choices: &str| read(&format!(r#"{{"type": "categorical", "choices": {choices}}}"#));
    for (a, b) in [
        ("[true, false]", "[1, 0]"),
        ("[1, 2]", "[1.0, 2.0]"),
        ("[NaN, null]", "[NaN, null]"),
        ("[[1, true]]", "[[1.0, 1]]"),
        ("[18446744073709551616]", "[1.8446744073709552e+19]"),
    ] {
        assert!(of(a).compatible(&of(b)) && of(b).compatible(&of(a)) && of(a) == of(b), "{a} {b}");
        assert!(of(a).same_text(&of(b)) == (a == b), "{a} {b}");
    }
    for (a, b) in [
        ("[true, false]", "[0, 1]"),
        ("[1, 2]", "[1, 2, 3]"),
        ("[1]", "[\"1\"]"),
        ("[null]", "[false]"),
        ("[18446744073709551615]", "[1.8446744073709552e+19]"),
    ] {
        assert!(!of(a).compatible(&of(b)) && of(a) != of(b), "{a} {b}");
    }
    let from = |low: f64| Distribution::float(low, 1.0, false, None).unwrap();
    assert!(from(-0.0) == from(0.0) && !from(-0.0).same_text(&from(0.0)) && from(0.5).same_text(&from(0.5)));
    let seed = of("[18446744073709551615, 1]");
    assert_eq!(
        seed.to_json(),
        r#"{"name": "CategoricalDistribution", "attributes": {"choices": [18446744073709551615, 1]}}"#
    );
    assert_eq!(seed.external(0.0).to_string(), "18446744073709551615");
    assert_eq!(seed.internal(&seed.external(0.0)), Some(0.0));
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
