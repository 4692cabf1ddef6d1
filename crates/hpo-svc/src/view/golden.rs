//! Studies out of the files that `tests/peers/view_golden.py` writes with Optuna 5.0.0.

use serde_json::Value;

use crate::{
    space::Distribution,
    study::{Direction, Param, State, Trial, tests::trial},
};

pub(super) fn load(name: &str) -> Value {
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("testdata").join(name);
    serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
}

pub(super) fn number(value: &Value) -> f64 {
    match value.as_str() {
        Some("nan") => f64::NAN,
        Some("inf") => f64::INFINITY,
        Some("-inf") => f64::NEG_INFINITY,
        _ => value.as_f64().unwrap(),
    }
}

pub(super) fn distributions(golden: &Value) -> Vec<Distribution> {
    let texts = golden["distributions"].as_array().unwrap();
    texts.iter().map(|text| Distribution::from_json(text.as_str().unwrap()).unwrap()).collect()
}

pub(super) fn directions(case: &Value) -> Vec<Direction> {
    let directions = case["directions"].as_array().unwrap().iter();
    directions.map(|word| if word == "minimize" { Direction::Minimize } else { Direction::Maximize }).collect()
}

pub(super) fn trials(case: &Value, distributions: &[Distribution]) -> Vec<Trial> {
    let read = |value: &Value| {
        let state = State::parse(value["state"].as_str().unwrap()).unwrap();
        let mut trial = trial(value["number"].as_i64().unwrap(), state, None);
        trial.values = value["values"].as_array().unwrap().iter().map(number).collect();
        for (name, param) in value["params"].as_object().unwrap() {
            let distribution = distributions[param[1].as_u64().unwrap() as usize].clone();
            trial.params.push(Param { name: name.clone(), value: number(&param[0]), distribution });
        }
        let moment = |key: &str| value[key].as_str().map(|text| text.parse().unwrap());
        (trial.start, trial.complete) = (moment("start"), moment("complete"));
        for (key, attrs) in [("user_attrs", &mut trial.user_attrs), ("system_attrs", &mut trial.system_attrs)] {
            let entries = value[key].as_object().into_iter().flatten();
            attrs.extend(entries.map(|(key, text)| (key.clone(), text.as_str().unwrap().to_owned())));
        }
        trial
    };
    case["trials"].as_array().unwrap().iter().map(read).collect()
}
