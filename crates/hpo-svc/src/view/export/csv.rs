//! The table of trials as CSV (RFC 4180), with the columns of Optuna's `Study.trials_dataframe`.
//!
//! Cells are what pandas writes for that table, so that its reader gives the same one back, with four exceptions: integers stay
//! integers where a trial lacks the parameter, fractions of seconds are always there, NaN is told apart from what is missing, and
//! lists and objects are JSON. Times are UTC.

use jiff::Timestamp;

use crate::{
    pyjson::{PyValue, float_repr},
    space::ParamValue,
    study::{Direction, Trial},
};

/// All trials in the order given. `names` are Optuna's metric names; without them values are numbered.
pub fn csv(trials: &[Trial], directions: &[Direction], names: &[String]) -> String {
    let mut out = String::new();
    let params = keys(trials, |trial| trial.params.iter().map(|param| param.name.as_str()).collect());
    let user_attrs = keys(trials, |trial| trial.user_attrs.keys().map(String::as_str).collect());
    let system_attrs = keys(trials, |trial| trial.system_attrs.keys().map(String::as_str).collect());
    let mut header: Vec<String> = vec!["number".into()];
    header.extend((0..directions.len()).map(|objective| match (names.get(objective), directions.len()) {
        (Some(name), 1) => format!("value_{name}"),
        (Some(name), _) => format!("values_{name}"),
        (None, 1) => "value".into(),
        (None, _) => format!("values_{objective}"),
    }));
    header.extend(["datetime_start", "datetime_complete", "duration"].map(String::from));
    for (prefix, keys) in [("params", &params), ("user_attrs", &user_attrs), ("system_attrs", &system_attrs)] {
        header.extend(keys.iter().map(|key| format!("{prefix}_{key}")));
    }
    header.push("state".into());
    line(&mut out, header);
    for trial in trials {
        let mut row = vec![trial.number.to_string()];
        let value = |objective| trial.values.get(objective).map_or_else(String::new, |value| float(*value));
        row.extend((0..directions.len()).map(value));
        row.extend([trial.start, trial.complete].map(|at| at.map_or_else(String::new, moment)));
        row.push(span(trial).unwrap_or_default());
        row.extend(params.iter().map(|name| trial.param(name).map_or_else(String::new, |p| cell(&p.external()))));
        let attribute = |json: Option<&String>| json.map_or_else(String::new, |json| attribute(json));
        row.extend(user_attrs.iter().map(|key| attribute(trial.user_attrs.get(*key))));
        row.extend(system_attrs.iter().map(|key| attribute(trial.system_attrs.get(*key))));
        row.push(trial.state.to_string());
        line(&mut out, row);
    }
    out
}

/// The names that any trial has, sorted.
fn keys<'a>(trials: &'a [Trial], of: impl Fn(&'a Trial) -> Vec<&'a str>) -> Vec<&'a str> {
    let mut keys: Vec<&str> = trials.iter().flat_map(of).collect();
    keys.sort_unstable();
    keys.dedup();
    keys
}

fn line(out: &mut String, cells: Vec<String>) {
    for (index, cell) in cells.iter().enumerate() {
        if index > 0 {
            out.push(',');
        }
        if cell.contains(['"', ',', '\r', '\n']) {
            out.push('"');
            out.push_str(&cell.replace('"', "\"\""));
            out.push('"');
        } else {
            out.push_str(cell);
        }
    }
    out.push_str("\r\n");
}

fn float(value: f64) -> String {
    match value {
        f64::INFINITY => "inf".into(),
        f64::NEG_INFINITY => "-inf".into(),
        _ => float_repr(value),
    }
}

fn cell(value: &ParamValue) -> String {
    match value {
        ParamValue::Null => String::new(),
        ParamValue::Bool(true) => "True".into(),
        ParamValue::Bool(false) => "False".into(),
        ParamValue::Float(value) => float(*value),
        ParamValue::Int(_) | ParamValue::Text(_) | ParamValue::Other(_) => value.to_string(),
    }
}

fn attribute(json: &str) -> String {
    match PyValue::parse(json) {
        Ok(value) => ParamValue::from_py(&value).map_or_else(|| value.dump(), |scalar| cell(&scalar)),
        // Kept as it is: an export loses nothing.
        Err(_) => json.to_owned(),
    }
}

fn moment(at: Timestamp) -> String {
    at.strftime("%Y-%m-%d %H:%M:%S%.6f").to_string()
}

/// From start to end as pandas writes a span: days, and what is left of a day forwards.
fn span(trial: &Trial) -> Option<String> {
    let micros = trial.complete?.as_microsecond() - trial.start?.as_microsecond();
    let (days, rest) = (micros.div_euclid(86_400_000_000), micros.rem_euclid(86_400_000_000));
    let plus = if days < 0 { "+" } else { "" };
    let seconds = rest / 1_000_000;
    let (hours, minutes) = (seconds / 3600, seconds / 60 % 60);
    Some(format!("{days} days {plus}{hours:02}:{minutes:02}:{:02}.{:06}", seconds % 60, rest % 1_000_000))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        study::{State, tests::trial},
        view::golden,
    };

    /// Cells by row, as RFC 4180 says; written apart from the writer.
    fn parse(text: &str) -> Vec<Vec<String>> {
        let (mut rows, mut row, mut cell, mut quoted) = (Vec::new(), Vec::new(), String::new(), false);
        let mut chars = text.chars().peekable();
        while let Some(ch) = chars.next() {
            match ch {
                '"' if quoted && chars.peek() == Some(&'"') => cell.extend(chars.next()),
                '"' => quoted = !quoted,
                ',' if !quoted => row.push(std::mem::take(&mut cell)),
                '\r' if !quoted => {}
                '\n' if !quoted => {
                    row.push(std::mem::take(&mut cell));
                    rows.push(std::mem::take(&mut row));
                }
                ch => cell.push(ch),
            }
        }
        assert!(row.is_empty() && cell.is_empty() && !quoted);
        rows
    }

    #[test]
    fn the_table_is_that_of_optuna() {
        let golden = golden::load("dataframe.json");
        let distributions = golden::distributions(&golden);
        let mut compared = 0;
        for case in golden["cases"].as_array().unwrap() {
            let names: Vec<String> = serde_json::from_value(case["metric_names"].clone()).unwrap();
            let trials = golden::trials(case, &distributions);
            let ours = parse(&csv(&trials, &golden::directions(case), &names));
            let theirs = parse(case["csv"].as_str().unwrap());
            assert_eq!(ours[0], theirs[0]);
            assert_eq!(ours.len(), theirs.len());
            for (ours, theirs) in ours.iter().zip(&theirs).skip(1).flat_map(|(a, b)| a.iter().zip(b)) {
                let same_number = || Some(ours.parse::<f64>().ok()? == theirs.parse::<f64>().ok()?);
                assert!(ours == theirs || same_number() == Some(true), "{ours} and {theirs}");
                compared += 1;
            }
        }
        assert!(compared > 3 * 10 * 15);
    }

    #[test]
    fn cells_that_pandas_could_not_tell_apart() {
        let mut first = trial(0, State::Complete, Some(f64::NAN));
        (first.start, first.complete) =
            (Some("2026-01-02T00:00:01Z".parse().unwrap()), Some("2026-01-01T23:59:59.5Z".parse().unwrap()));
        for (key, json) in
            [("a,b", "[1, \"x\"]"), ("b", "NaN"), ("c", "-Infinity"), ("d", "no JSON"), ("e", "\"1\"\""), ("f", "null")]
        {
            first.user_attrs.insert(key.into(), json.into());
        }
        let rows = parse(&csv(&[first], &[Direction::Minimize], &["f1".into()]));
        assert_eq!(rows[0][1], "value_f1");
        assert_eq!(rows[0][5], "user_attrs_a,b");
        let cells: Vec<&str> = rows[1][1..].iter().map(String::as_str).collect();
        let (start, end) = ("2026-01-02 00:00:01.000000", "2026-01-01 23:59:59.500000");
        let span = "-1 days +23:59:58.500000";
        assert_eq!(cells, ["NaN", start, end, span, "[1, \"x\"]", "NaN", "-inf", "no JSON", "\"1\"\"", "", "COMPLETE"]);
        assert_eq!(
            csv(&[], &[Direction::Minimize], &[]),
            "number,value,datetime_start,datetime_complete,duration,state\r\n"
        );
    }
}
