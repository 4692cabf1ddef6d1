//! The trials of a study as rows of short text, for a table in a terminal.

use crate::{
    pyjson::float_repr,
    space::ParamValue,
    study::{Direction, Trial},
};

/// Text cells under a header; every row is as long as the header.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Table {
    /// Names of the columns.
    pub header: Vec<String>,
    /// A row a trial, in the order given.
    pub rows: Vec<Vec<String>>,
}

/// Number, state, values, duration and parameters of the trials. `names` are those of the objectives, where they have any; parameters
/// come in the order in which the trials have them first, and cells without a value are empty.
pub fn table(trials: &[Trial], directions: &[Direction], names: &[String]) -> Table {
    let mut params: Vec<&str> = Vec::new();
    for param in trials.iter().flat_map(|trial| &trial.params) {
        if !params.contains(&param.name.as_str()) {
            params.push(&param.name);
        }
    }
    let mut header: Vec<String> = vec!["number".into(), "state".into()];
    header.extend((0..directions.len()).map(|objective| objective_name(objective, directions.len(), names)));
    header.push("duration".into());
    header.extend(params.iter().map(|name| (*name).to_owned()));
    let row = |trial: &Trial| {
        let mut row = vec![trial.number.to_string(), trial.state.to_string()];
        let value = |objective| trial.values.get(objective).map_or_else(String::new, |value| short(*value));
        row.extend((0..directions.len()).map(value));
        row.push(trial.seconds().map_or_else(String::new, duration));
        row.extend(params.iter().map(|name| match trial.param(name).map(|param| param.external()) {
            Some(ParamValue::Float(value)) => short(value),
            Some(value) => value.to_string(),
            None => String::new(),
        }));
        row
    };
    Table { rows: trials.iter().map(row).collect(), header }
}

/// What an objective is called: its name, or `value` with its index where there are several.
pub(super) fn objective_name(objective: usize, objectives: usize, names: &[String]) -> String {
    match names.get(objective) {
        Some(name) if !name.is_empty() => name.clone(),
        _ if objectives == 1 => "value".into(),
        _ => format!("value {objective}"),
    }
}

/// A number with six significant digits, without zeros at its end.
pub fn short(value: f64) -> String {
    let rounded: f64 = if value.is_finite() { format!("{value:.5e}").parse().unwrap_or(value) } else { value };
    let text = float_repr(rounded);
    text.strip_suffix(".0").map_or(text.clone(), str::to_owned)
}

/// A span of time as somebody says it: `12 ms`, `3.2 s`, `4 min 10 s`, `2 h 5 min`, `3 d 4 h`.
pub fn duration(seconds: f64) -> String {
    if !seconds.is_finite() {
        return String::new();
    }
    let sign = if seconds < 0.0 { "-" } else { "" };
    let seconds = seconds.abs();
    if seconds < 0.9995 {
        return format!("{sign}{:.0} ms", seconds * 1e3);
    }
    if seconds < 59.95 {
        return format!("{sign}{seconds:.1} s");
    }
    let whole = seconds.round();
    let parts = |unit: f64, name: &str, part: f64, part_name: &str| {
        format!("{sign}{} {name} {} {part_name}", (whole / unit).floor(), (whole % unit / part).floor())
    };
    match whole {
        _ if whole < 3600.0 => parts(60.0, "min", 1.0, "s"),
        _ if whole < 86_400.0 => parts(3600.0, "h", 60.0, "min"),
        _ => parts(86_400.0, "d", 3600.0, "h"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        space::Distribution,
        study::{Param, State, tests::trial},
    };

    #[test]
    fn rows_are_as_long_as_the_header() {
        let mut first = trial(0, State::Complete, Some(1.0 / 3.0));
        first.values.push(f64::NEG_INFINITY);
        (first.start, first.complete) =
            (Some("2026-01-01T00:00:00Z".parse().unwrap()), Some("2026-01-01T00:01:02.5Z".parse().unwrap()));
        let choice = Distribution::categorical(vec![ParamValue::Null, ParamValue::Bool(true)]).unwrap();
        first.params.push(Param { name: "flag".into(), value: 1.0, distribution: choice });
        let mut second = trial(1, State::Running, None);
        let float = Distribution::float(0.0, 1.0, false, None).unwrap();
        second.params.push(Param { name: "lr".into(), value: 1.0e-5 / 3.0, distribution: float });
        let found = table(&[first, second], &[Direction::Minimize; 2], &["loss".into()]);
        assert_eq!(found.header, ["number", "state", "loss", "value 1", "duration", "flag", "lr"]);
        assert_eq!(found.rows[0], ["0", "COMPLETE", "0.333333", "-Infinity", "1 min 3 s", "true", ""]);
        assert_eq!(found.rows[1], ["1", "RUNNING", "", "", "", "", "3.33333e-06"]);
        assert_eq!(table(&[], &[Direction::Minimize], &[]).header, ["number", "state", "value", "duration"]);
    }

    #[test]
    fn numbers_and_times_are_short() {
        for (value, text) in [
            (0.1 + 0.2, "0.3"),
            (1234567.0, "1234570"),
            (-0.0, "-0"),
            (1e22, "1e+22"),
            (f64::NAN, "NaN"),
            (f64::MAX, "1.79769e+308"),
        ] {
            assert_eq!(short(value), text);
        }
        for (seconds, text) in [
            (0.0, "0 ms"),
            (0.0124, "12 ms"),
            (0.9999, "1.0 s"),
            (59.96, "1 min 0 s"),
            (250.4, "4 min 10 s"),
            (7500.0, "2 h 5 min"),
            (273_600.0, "3 d 4 h"),
            (-2.0, "-2.0 s"),
        ] {
            assert_eq!(duration(seconds), text);
        }
    }
}
