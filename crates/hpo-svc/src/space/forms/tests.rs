//! What AzureML's forms mean, and that spaces come back from them.

use proptest::prelude::*;
use serde_json::json;

use super::*;

fn categorical(choices: &[&str]) -> Distribution {
    Distribution::categorical(choices.iter().map(|text| ParamValue::Text((*text).into())).collect()).unwrap()
}

fn float(low: f64, high: f64, log: bool, step: Option<f64>) -> Distribution {
    Distribution::float(low, high, log, step).unwrap()
}

fn int(low: i64, high: i64, log: bool, step: i64) -> Distribution {
    Distribution::int(low, high, log, step).unwrap()
}

#[test]
fn every_distribution_of_azureml_is_read_in_both_forms() {
    // As the official client sends them.
    let request = json!({
        "batch_size": ["choice", [[8, 16]]], "d_choice_text": ["choice", [["linear", "cosine"]]],
        "d_lognormal": ["lognormal", [-9.0, 0.5]], "d_normal": ["normal", [0.0, 1.0]],
        "d_qlognormal": ["qlognormal", [3.0, 0.5, 2]], "d_qloguniform": ["qloguniform", [0.0, 4.0, 1]],
        "d_qnormal": ["qnormal", [32.0, 8.0, 4]], "d_quniform": ["quniform", [1, 10, 1]],
        "d_randint": ["randint", [100]], "dropout": ["uniform", [0.1, 0.3]],
        "learning_rate": ["loguniform", [-11.512925464970229, -9.903487552536127]],
        "weight_decay": ["loguniform", [-6.907755278982137, -2.3025850929940455]],
    });
    let job = json!({
        "batch_size": {"type": "choice", "values": [8, 16]}, "d_choice_text": {"type": "choice", "values": ["linear", "cosine"]},
        "d_lognormal": {"type": "lognormal", "mu": -9.0, "sigma": 0.5}, "d_normal": {"type": "normal", "mu": 0.0, "sigma": 1.0},
        "d_qlognormal": {"type": "qlognormal", "mu": 3.0, "sigma": 0.5, "q": 2},
        "d_qloguniform": {"type": "qloguniform", "min_value": 0.0, "max_value": 4.0, "q": 1},
        "d_qnormal": {"type": "qnormal", "mu": 32.0, "sigma": 8.0, "q": 4},
        "d_quniform": {"type": "quniform", "min_value": 1, "max_value": 10, "q": 1},
        "d_randint": {"upper": 100, "type": "randint"}, "dropout": {"type": "uniform", "min_value": 0.1, "max_value": 0.3},
        "learning_rate": {"type": "loguniform", "min_value": -11.512925464970229, "max_value": -9.903487552536127},
        "weight_decay": {"type": "loguniform", "min_value": -6.907755278982137, "max_value": -2.3025850929940455},
    });
    let space = from_azureml(&request).unwrap();
    assert_eq!(space, from_azureml(&job).unwrap());
    let expected = [
        ("batch_size", Distribution::categorical(vec![ParamValue::Int(8), ParamValue::Int(16)]).unwrap()),
        ("d_choice_text", categorical(&["linear", "cosine"])),
        ("d_normal", float(-3.0, 3.0, false, None)),
        ("d_qlognormal", int(4, 90, false, 2)),
        ("d_qloguniform", int(1, 55, true, 1)),
        ("d_qnormal", int(8, 56, false, 4)),
        ("d_quniform", int(1, 10, false, 1)),
        ("d_randint", int(0, 99, false, 1)),
        ("dropout", float(0.1, 0.3, false, None)),
        ("learning_rate", float(1e-5, 5e-5, true, None)),
        ("weight_decay", float(0.001, 0.1, true, None)),
    ];
    for (name, distribution) in expected {
        assert_eq!(space.get(name), Some(&distribution), "{name}");
    }
    let Some(Distribution::Float { low, high, log: true, step: None }) = space.get("d_lognormal") else { panic!() };
    assert!((low.ln() + 10.5).abs() < 1e-12 && (high.ln() + 7.5).abs() < 1e-12);
    assert_eq!(
        space.notes(),
        [
            "`d_lognormal`: lognormal has no bounds; taken as uniform in its logarithm where 99.7 % of it lie",
            "`d_normal`: normal has no bounds; taken as uniform where 99.7 % of it lie",
            "`d_qlognormal`: the multiples of q are taken as equally likely; a logarithm goes together with no grid but that of 1",
            "`d_qlognormal`: qlognormal has no bounds; taken as uniform in its logarithm where 99.7 % of it lie",
            "`d_qnormal`: qnormal has no bounds; taken as uniform where 99.7 % of it lie",
        ]
    );
}

#[test]
fn bounds_that_look_like_values_are_told() {
    let space = from_azureml(&json!({"lr": ["loguniform", [1e-5, 5e-5]]})).unwrap();
    assert_eq!(
        space.notes(),
        [
            "`lr`: lies between 1.000010 and 1.000050; the bounds are logarithms: should they have been values, write their \
             logarithms instead"
        ]
    );
}

#[test]
fn objects_of_a_choice_become_parameters_with_a_condition() {
    let space = from_azureml(&json!({
        "lr": {"type": "uniform", "min_value": 0, "max_value": 1},
        "model": {"type": "choice", "values": [
            "linear",
            {"arch": "yolo", "lr": {"type": "uniform", "min_value": 0, "max_value": 2}, "depth": ["randint", [3]], "size": 640},
            {"arch": "r cnn", "depth": ["randint", [9]], "size": 640, "head": {"type": "choice", "values": [
                {"wide": true}, {"narrow": ["randint", [4]]},
            ]}},
        ]},
    }))
    .unwrap();
    let one = |value: ParamValue| Distribution::categorical(vec![value]).unwrap();
    let expected = [
        ("lr", float(0.0, 1.0, false, None), None),
        ("model", categorical(&["linear", "yolo", "r cnn"]), None),
        ("model_lr", float(0.0, 2.0, false, None), Some((1, vec![1.0]))),
        ("model_yolo_depth", int(0, 2, false, 1), Some((1, vec![1.0]))),
        ("model_r_cnn_depth", int(0, 8, false, 1), Some((1, vec![2.0]))),
        ("size", one(ParamValue::Int(640)), Some((1, vec![1.0, 2.0]))),
        ("head", categorical(&["0", "1"]), Some((1, vec![2.0]))),
        ("wide", one(ParamValue::Bool(true)), Some((6, vec![0.0]))),
        ("narrow", int(0, 3, false, 1), Some((6, vec![1.0]))),
    ];
    for (parameter, (name, distribution, condition)) in space.parameters().iter().zip(expected) {
        let condition = condition.map(|(parameter, values)| Condition { parameter, values });
        let expected = Parameter { name: name.into(), distribution, condition };
        assert_eq!(*parameter, expected);
    }
    assert_eq!(space.parameters().len(), 9);
    assert_eq!(space.notes()[0], "`model`: says by their `arch` which object is chosen");
    assert!(space.notes().contains(&"`model_lr`: is the `lr` of `model`".into()), "{:?}", space.notes());
    assert!(space.notes().contains(&"`head`: says by its position, from 0, which object is chosen".into()));
}

#[test]
fn faults_have_a_place_a_value_and_what_is_allowed() {
    let wrong = from_azureml(&json!({
        "a": {"type": "gamma"},
        "b": ["uniform", [0]],
        "c": {"type": "uniform", "min": 0, "max_value": 1},
        "d": {"type": "uniform", "min_value": 3, "max_value": "9"},
        "e": ["uniform", [3, 2]],
        "f": ["loguniform", [0, 800]],
        "g": ["qnormal", [0, 0, 1]],
        "h": ["quniform", [0, 1, 0]],
        "i": ["quniform", [0, 1e300, 1e-9]],
        "j": ["randint", [0.5]],
        "k": ["choice", [1, 2]],
        "l": ["choice", [[1, [2]]]],
        "m": ["choice", [[1, 1.0]]],
        "n": ["choice", [[{"n": 1, "x": {"y": 1}}]]],
        "o": 1,
        " p": ["randint", [1]],
    }))
    .unwrap_err();
    let told: Vec<String> = wrong.iter().map(|v| format!("{}: {}", v.field, v.description)).collect();
    let types = "its type has to be one of choice, randint, uniform, quniform, loguniform, qloguniform, normal, qnormal, lognormal, \
                 qlognormal";
    let expected = [
        format!("search_space.a: {{\"type\":\"gamma\"}} is no distribution; {types}"),
        "search_space.b: [0] has not the 2 arguments of uniform: min_value, max_value".into(),
        "search_space.c.min: is no field of uniform; it has min_value, max_value".into(),
        "search_space.c.min_value: is missing; uniform needs it".into(),
        "search_space.d.max_value: \"9\" is no number; a number is expected".into(),
        "search_space.e.min_value: 3 is above max_value (2); min_value <= max_value must hold".into(),
        "search_space.f.max_value: 800 is the logarithm of no double; -708 to 709 is allowed".into(),
        "search_space.g.sigma: 0 is not above 0".into(),
        "search_space.h.q: 0 is not above 0".into(),
        format!("search_space.i.q: 0.000000001 is too fine for the range from 0 to {}", 1e300),
        "search_space.j.upper: 0.5 is no integer above 0; values are below upper".into(),
        "search_space.k: [1,2] has not the 1 arguments of choice: values".into(),
        "search_space.l.values[1]: [2] is no value; text, a number, a boolean or null, or an object of such and of \
         distributions is allowed"
            .into(),
        "search_space.m.values: 1.0 is there twice".into(),
        "search_space.n.values[0].x: {\"y\":1} is no distribution, for it has no type, and no value".into(),
        format!("search_space.o: 1 is no distribution; {types}"),
        "search_space. p: ` p` must be a name without spaces around it".into(),
    ];
    assert_eq!(told, expected);
    // Both names that the second `x` could have are taken.
    let one = json!(["randint", [1]]);
    let wrong = from_azureml(&json!({"c": ["choice", [[{"x": one}]]], "x": one, "c_x": one})).unwrap_err();
    assert_eq!((wrong[0].field.as_str(), wrong.len()), ("search_space.c.values[0].x", 1));
    assert_eq!(wrong[0].description, "both `x` and `c_x` are taken");
}

#[test]
fn grids_are_written_so_that_each_value_is_equally_likely() {
    let space = Space::of([
        ("layers", int(1, 6, false, 1)),
        ("batch", int(8, 64, false, 8)),
        ("seed", int(0, 9, false, 1)),
        ("width", int(1, 512, true, 1)),
        ("drop", float(0.0, 0.5, false, Some(0.1))),
        ("odd", int(3, 11, false, 4)),
        ("long", int(1, 100_001, false, 4)),
        ("lr", float(1e-5, 1e-3, true, None)),
        ("one", float(2.0, 2.0, false, None)),
    ]);
    let form = to_azureml(&space, Style::Request);
    let expected = json!({
        "layers": ["quniform", [0.5, 6.5, 1]],
        "batch": ["quniform", [4.0, 68.0, 8]],
        "seed": ["randint", [10]],
        "width": ["qloguniform", [0.5_f64.ln(), 512.5_f64.ln(), 1]],
        "drop": ["quniform", [-0.05, 0.55, 0.1]],
        "odd": ["choice", [[3, 7, 11]]],
        "long": ["quniform", [1, 100_001, 1]],
        "lr": ["loguniform", [1e-5_f64.ln(), 1e-3_f64.ln()]],
        "one": ["choice", [[2.0]]],
    });
    assert_eq!(form.document, expected);
    assert_eq!(
        form.notes,
        ["`long`: also gets values beside its grid, which is none of multiples, and too long for a choice"]
    );
    let job = to_azureml(&space, Style::Job).document;
    assert_eq!(job["batch"], json!({"type": "quniform", "min_value": 4.0, "max_value": 68.0, "q": 8}));
    assert_eq!(job["odd"], json!({"type": "choice", "values": [3, 7, 11]}));
}

#[test]
fn conditions_are_written_as_objects_of_a_choice() {
    let mut space = Space::of([
        ("optimizer", categorical(&["adam", "sgd", "lion"])),
        ("momentum", float(0.0, 1.0, false, None)),
        ("x", float(0.0, 1.0, false, None)),
        ("y", int(0, 1, false, 1)),
    ]);
    space.set_condition(1, Condition { parameter: 0, values: vec![1.0, 2.0] });
    space.set_condition(2, Condition { parameter: 0, values: vec![2.0] });
    space.set_condition(3, Condition { parameter: 2, values: vec![0.5] });
    let form = to_azureml(&space, Style::Request);
    let momentum = json!(["uniform", [0.0, 1.0]]);
    let expected = json!({"optimizer": ["choice", [[
        "adam",
        {"optimizer": "sgd", "momentum": momentum},
        {"optimizer": "lion", "momentum": momentum, "x": ["uniform", [0.0, 1.0]], "y": ["randint", [2]]},
    ]]]});
    assert_eq!(form.document, expected);
    assert_eq!(form.notes, ["`y`: exists whatever `x` is, whose values are too many to be written out"]);
}

#[test]
fn conditions_upon_conditions_do_not_grow_without_end() {
    // Each depends on both values of the one before: written out, the last one would stand in 2^40 places.
    let both = || Distribution::categorical(vec![ParamValue::Bool(false), ParamValue::Bool(true)]).unwrap();
    let mut space = Space::of((0..40).map(|n| (format!("p{n}"), both())));
    (1..40).for_each(|n| space.set_condition(n, Condition { parameter: n - 1, values: vec![0.0, 1.0] }));
    let form = to_azureml(&space, Style::Job);
    assert!(form.document.to_string().len() < 10_000_000 && !form.notes.is_empty());
    assert_eq!(from_azureml(&form.document).unwrap().parameters().len(), 40);
}

fn distributions() -> impl Strategy<Value = Distribution> {
    let floats = (-1000i32..1000, 1i32..1000).prop_map(|(low, width)| {
        let low = f64::from(low) / 8.0;
        float(low, low + f64::from(width) / 100.0, false, None)
    });
    let log = (1e-6..10.0, 1.0..1000.0).prop_map(|(low, factor): (f64, f64)| float(low, low * factor, true, None));
    let grid = (-40i32..40, 0i32..60, 1i32..200).prop_map(|(first, count, hundredths)| {
        let step = f64::from(hundredths) / 100.0;
        float(
            scale::tidy(f64::from(first) * step),
            scale::tidy((f64::from(first + count) + 0.3) * step),
            false,
            Some(step),
        )
    });
    let ints = (-50i64..50, 0i64..200, 1i64..9).prop_map(|(low, width, step)| int(low, low + width, false, step));
    let log_ints = (1i64..50, 0i64..100_000).prop_map(|(low, width)| int(low, low + width, true, 1));
    let choices = (1usize..5).prop_map(|n| categorical(&["a", "b", "c d", ""][..n.min(4)]));
    prop_oneof![floats, log, grid, ints, log_ints, choices]
}

fn spaces() -> impl Strategy<Value = Space> {
    let parameter = (distributions(), proptest::option::of((0usize..8, 1u8..16)));
    proptest::collection::vec(parameter, 1..8).prop_map(|parameters| {
        let mut space = Space::of(parameters.iter().enumerate().map(|(n, (d, _))| (format!("p{n}"), d.clone())));
        for (index, (_, condition)) in parameters.iter().enumerate().skip(1) {
            let Some((other, mask)) = condition else { continue };
            let other = other % index;
            let count = match &parameters[other].0 {
                Distribution::Categorical { choices } => choices.len(),
                _ => continue,
            };
            let values: Vec<f64> = (0..count).filter(|n| mask >> n & 1 == 1).map(|n| n as f64).collect();
            if !values.is_empty() {
                space.set_condition(index, Condition { parameter: other, values });
            }
        }
        space
    })
}

/// Equal but for the last bits, and for what has few values and comes back as a choice of them.
fn same(ours: &Distribution, theirs: &Distribution) -> bool {
    let near = |a: f64, b: f64| (a - b).abs() <= 1e-13 * a.abs().max(b.abs());
    match (ours, theirs) {
        (Distribution::Float { low, high, log, step: s }, Distribution::Float { low: l, high: h, log: g, step: t }) => {
            let slack = s.map_or(0.0, |s| s * 1e-9);
            near(*low, *l) && (near(*high, *h) || (high - h).abs() <= slack) && log == g && s == t
        }
        (Distribution::Float { .. } | Distribution::Int { .. }, Distribution::Categorical { choices }) => {
            let numbers = choices.iter().map(|choice| theirs.internal(choice).and(ours.internal(choice)));
            numbers.clone().all(|number| number.is_some_and(|number| ours.contains(number)))
                && choices.len() <= 1000
                && numbers.count() == count(ours)
        }
        (ours, theirs) => ours == theirs,
    }
}

fn count(distribution: &Distribution) -> usize {
    match distribution {
        Distribution::Categorical { choices } => choices.len(),
        Distribution::Int { low, high, step, .. } => ((high - low) / step + 1) as usize,
        Distribution::Float { low, high, step, .. } => {
            step.map_or(1, |step| ((high - low) / step).round() as usize + 1)
        }
    }
}

proptest! {
    #[test]
    fn spaces_come_back_from_azureml(space in spaces(), request: bool) {
        let form = to_azureml(&space, if request { Style::Request } else { Style::Job });
        prop_assert_eq!(&form.notes, &Vec::<String>::new());
        // As text, which is how it travels.
        let document = serde_json::from_str(&form.document.to_string()).unwrap();
        let back = from_azureml(&document).map_err(|wrong| TestCaseError::fail(format!("{wrong:?}")))?;
        prop_assert_eq!(back.parameters().len(), space.parameters().len());
        for parameter in space.parameters() {
            let found = back.parameters().iter().find(|other| other.name == parameter.name);
            let found = found.ok_or_else(|| TestCaseError::fail(format!("{} is gone", parameter.name)))?;
            prop_assert!(same(&parameter.distribution, &found.distribution), "{:?} became {:?}", parameter, found);
            let on = |space: &Space, c: &Option<Condition>| c.as_ref().map(|c| (space.parameters()[c.parameter].name.clone(), c.values.clone()));
            prop_assert_eq!(on(&space, &parameter.condition), on(&back, &found.condition));
        }
    }

    #[test]
    fn distributions_come_back_from_optuna(space in spaces()) {
        let form = to_optuna(&space);
        let conditions = space.parameters().iter().filter(|parameter| parameter.condition.is_some()).count();
        prop_assert_eq!(form.notes.len(), conditions);
        let back = from_optuna(&form.document).map_err(|wrong| TestCaseError::fail(format!("{wrong:?}")))?;
        for (ours, theirs) in space.parameters().iter().zip(back.parameters()) {
            prop_assert_eq!((&ours.name, &ours.distribution, &None), (&theirs.name, &theirs.distribution, &theirs.condition));
        }
    }

    /// Whatever AzureML rounds to is a value of the domain that was read, but for 0, which has no logarithm.
    #[test]
    fn what_azureml_draws_is_in_the_domain(
        low in -20.0..20.0, width in 0.01..10.0, q in 1i32..400, whole: bool, log: bool, at in 0.001..0.999,
    ) {
        let q = if whole { json!(q / 50 + 1) } else { json!(f64::from(q) / 100.0) };
        let step = q.as_f64().unwrap();
        let (low, high) = if log { (low / 4.0, (low + width) / 4.0) } else { (low, low + width) };
        let name = if log { "qloguniform" } else { "quniform" };
        let space = from_azureml(&json!({"x": [name, [low, high, q]]})).unwrap();
        let drawn: f64 = low + (high - low) * at;
        let drawn = ((if log { drawn.exp() } else { drawn }) / step).round_ties_even() * step;
        let domain = space.get("x").unwrap();
        let left_out = log && drawn == 0.0 && step == 1.0;
        prop_assert!(domain.contains(drawn) || domain.contains(scale::tidy(drawn)) || left_out, "{} of {:?}", drawn, domain);
    }

    /// Any document is read or refused.
    #[test]
    fn no_document_breaks_the_readers(document in documents()) {
        for read in [from_azureml, from_optuna, from_plain] {
            let _ = read(&document).map(|space| (to_azureml(&space, Style::Request), to_optuna(&space)));
        }
    }
}

fn documents() -> impl Strategy<Value = Value> {
    let word = prop_oneof![
        Just("type"),
        Just("choice"),
        Just("values"),
        Just("uniform"),
        Just("min_value"),
        Just("max_value"),
        Just("q"),
        Just("x"),
        Just("qlognormal"),
        Just("sigma"),
        Just("mu"),
        Just("randint"),
        Just("upper"),
        Just("name"),
        Just("attributes"),
        Just("IntDistribution"),
        Just("low"),
        Just("high"),
        Just("min"),
        Just("max"),
        Just("log"),
        Just("step"),
        Just(""),
    ];
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        (-3i64..4).prop_map(Value::from),
        word.clone().prop_map(Value::from),
    ];
    leaf.prop_recursive(5, 40, 5, move |inner| {
        let named = proptest::collection::vec((word.clone(), inner.clone()), 0..5).prop_map(|entries| {
            entries.into_iter().map(|(key, value)| (key.to_owned(), value)).collect::<Map<_, _>>().into()
        });
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            (word.clone(), inner.clone()).prop_map(|(kind, rest)| json!([kind, rest])),
            named,
        ]
    })
}
