//! Against `get_warm_start_mgd` of the Python package `cmaes` 0.13.1 (`tests/peers/cmaes_golden.py`).

use super::*;
use crate::{
    sampler::{CmaEs, suggest},
    space::{Condition, ParamValue},
    study::{Param, tests::trial},
};

fn numbers(value: &Value) -> Vec<f64> {
    value.as_array().unwrap().iter().flat_map(|v| v.as_f64().map_or_else(|| numbers(v), |v| vec![v])).collect()
}

fn close(ours: &[f64], theirs: &[f64]) {
    assert_eq!(ours.len(), theirs.len());
    assert!(ours.iter().zip(theirs).all(|(a, b)| (a - b).abs() <= 1e-9 * b.abs().max(1e-3)), "{ours:?}\n{theirs:?}");
}

#[test]
fn the_distribution_is_that_of_the_python_package() {
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("testdata/cmaes_warm.json");
    let golden: Value = serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
    for case in golden["cases"].as_array().unwrap() {
        let n = case["mean"].as_array().unwrap().len();
        let solutions = case["solutions"].as_array().unwrap().iter();
        let solutions = solutions.map(|s| (numbers(&s[0]), s[1].as_f64().unwrap())).collect();
        let (mean, covariance) = distribution(vec![solutions], n).unwrap();
        let parameters: Vec<String> = (0..n).map(|index| format!("x{index}")).collect();
        let names: Vec<&str> = parameters.iter().map(String::as_str).collect();
        let all = Promising { parameters: parameters.clone(), mean, covariance };
        let (mean, sigma, covariance) = all.start(&names).unwrap();
        close(&mean, &numbers(&case["mean"]));
        close(&[sigma], &[case["sigma"].as_f64().unwrap()]);
        close(covariance.as_slice(), &numbers(&case["covariance"]));
    }
}

fn space() -> Space {
    let words = ["a", "b"].map(|text| ParamValue::Text(text.into())).to_vec();
    let mut space = Space::of([
        ("kind", Distribution::categorical(words).unwrap()),
        ("z", Distribution::float(0.0, 10.0, false, None).unwrap()),
        ("lr", Distribution::float(1e-6, 1e-2, true, None).unwrap()),
        ("under", Distribution::float(0.0, 1.0, false, None).unwrap()),
    ]);
    space.set_condition(3, Condition { parameter: 0, values: vec![1.0] });
    space
}

fn tried(number: i64, value: f64, z: f64, lr: f64) -> Trial {
    let mut tried = trial(number, State::Complete, Some(value));
    let wide = Distribution::float(-100.0, 100.0, false, None).unwrap();
    let param = |name: &str, value| Param { name: name.into(), value, distribution: wide.clone() };
    tried.params = vec![param("z", z), param("lr", lr)];
    tried
}

#[test]
fn a_search_begins_where_the_best_trials_of_each_study_were() {
    let space = space();
    // The first one is maximized; its best are at 2 and 1e-5, those of the other at 4 and 1e-3. Values do not compare.
    let mut one: Vec<Trial> = (0..20).map(|n| tried(n, 0.0, 9.0, 1e-2)).collect();
    one[3] = tried(3, 5.0, 2.0, 1e-5);
    one[7] = tried(7, 4.0, 2.0, 1e-5);
    // Outside of the domain, and broken.
    one[8] = tried(8, 90.0, 50.0, 1e-5);
    one[9] = tried(9, 80.0, 9.0, 1e-5);
    one[9].system_attrs.insert("constraints:c".into(), "1.0".into());
    let mut other: Vec<Trial> = (0..22).map(|n| tried(n, 1000.0, 9.0, 1e-2)).collect();
    other[1] = tried(1, 990.0, 4.0, 1e-3);
    other[2] = tried(2, 990.0, 4.0, 1e-3);
    // 18 and 22 count: one and two of them.
    let sources = [(Direction::Maximize, one.iter().collect()), (Direction::Minimize, other.iter().collect())];
    let text = promising(&space, &sources, false).unwrap();
    let found = Promising::parse(&text).unwrap();
    assert_eq!(found.parameters, ["z", "lr"]);
    // By name, in whatever order: z at 2, 4, 4 of 10; lr at 1/4, 3/4, 3/4 of its decades.
    let (mean, sigma, covariance) = found.start(&["lr", "z"]).unwrap();
    close(&mean, &[1.75 / 3.0, 1.0 / 3.0]);
    assert!((covariance.determinant() - 1.0).abs() < 1e-9 && sigma > 0.1 && covariance[(0, 1)] > 0.0);
    assert_eq!(found.start(&["z", "other"]), None);
    assert_eq!(promising(&space, &[(Direction::Minimize, vec![])], false), None);

    let first = |attribute: Option<&str>, sampler: &CmaEs| {
        let mut trials: Vec<Trial> = vec![tried(0, 1.0, 9.0, 1e-2)];
        for (param, parameter) in trials[0].params.iter_mut().zip(&space.parameters()[1..3]) {
            param.distribution = parameter.distribution.clone();
        }
        trials[0].system_attrs.extend(attribute.map(|text| (ATTR_PROMISING.to_owned(), text.to_owned())));
        let value = |number| {
            let directions = &[Direction::Minimize];
            let request = Request { space: &space, directions, trials: &trials, number, seed: 1 };
            suggest(sampler, &request, &[]).params.iter().find(|param| param.name == "z").unwrap().value
        };
        (1..200).map(value).sum::<f64>() / 199.0
    };
    let (plain, warm) = (CmaEs::default(), first(Some(&text), &CmaEs::default()));
    assert!((warm - 10.0 / 3.0).abs() < 0.3, "{warm}");
    let from_the_middle = first(None, &plain);
    assert!((from_the_middle - 5.0).abs() < 0.4, "{from_the_middle}");
    // What is given goes first, and what is broken is no start.
    let given = CmaEs { x0: [("z".to_owned(), 8.0)].into(), ..CmaEs::default() };
    assert!(first(Some(&text), &given) > 7.0);
    for broken in ["{}", "no json", r#"{"parameters": ["z", "lr"], "mean": [0, 0], "covariance": [[0, 0], [0, 0]]}"#] {
        assert_eq!(first(Some(broken), &plain), from_the_middle, "{broken}");
    }
}
