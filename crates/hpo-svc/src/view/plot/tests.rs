//! All plots on all kinds of histories: they never panic, are well-formed, keep inside of the picture and say what they leave out.

use proptest::prelude::*;

use super::*;
use crate::{
    space::{Distribution, ParamValue, Space},
    study::{Param, tests::trial},
    view::importance::told,
};

/// Every tag is closed in order, and no number is NaN or infinite.
fn check(svg: &str) {
    let mut open: Vec<&str> = Vec::new();
    for tag in svg.split('<').skip(1) {
        let (tag, _) = tag.split_once('>').expect("a tag without end");
        match tag.strip_prefix('/') {
            Some(name) => assert_eq!(open.pop(), Some(name)),
            None if tag.ends_with('/') => {}
            None => open.push(tag.split(' ').next().unwrap()),
        }
        assert_eq!(tag.matches('"').count() % 2, 0, "{tag}");
        assert!(!tag.contains("NaN") && !tag.contains("inf"), "{tag}");
    }
    assert!(open.is_empty());
}

fn size(svg: &str) -> (f64, f64) {
    let number = |key: &str| svg.split_once(key).unwrap().1.split('"').next().unwrap().parse().unwrap();
    (number(" width=\""), number(" height=\""))
}

/// The places of texts, with their widths as they are estimated, lie inside of the picture.
fn texts_inside(svg: &str) {
    let (width, height) = size(svg);
    for text in svg.split("<text ").skip(1) {
        let attribute = |key: &str| text.split_once(key).unwrap().1.split('"').next().unwrap();
        let number = |key: &str| attribute(key).parse::<f64>().unwrap();
        let (x, y) = (number("x=\""), number(" y=\""));
        let words = text.split_once('>').unwrap().1.split('<').next().unwrap();
        let words = words.replace("&quot;", "\"").replace("&lt;", "<").replace("&gt;", ">").replace("&amp;", "&");
        let length = svg::text_width(&words, number("font-size=\""));
        let share_before = match attribute("text-anchor=\"") {
            "start" => 0.0,
            "middle" => 0.5,
            _ => 1.0,
        };
        // What is turned is read upwards, so that it begins at its lower end.
        let (begin, most) = if text.contains("rotate") {
            (y - length * (1.0 - share_before), height)
        } else {
            (x - length * share_before, width)
        };
        assert!(
            begin >= -2.0 && begin + length <= most + 2.0,
            "`{words}` from {begin} to {} of {most}",
            begin + length
        );
        assert!((0.0..=height).contains(&y), "`{words}` at {y} of {height}");
    }
}

fn space() -> Space {
    let choices = [ParamValue::Text("relu".into()), ParamValue::Null, ParamValue::Float(f64::NAN), ParamValue::Int(3)];
    Space::of([
        ("lr", Distribution::float(1e-5, 1e-1, true, None).unwrap()),
        (
            "model.encoder.layers.0.attention.dropout <probability>",
            Distribution::float(0.0, 0.5, false, Some(0.05)).unwrap(),
        ),
        ("batch", Distribution::int(8, 64, false, 8).unwrap()),
        ("act", Distribution::categorical(choices.to_vec()).unwrap()),
        ("flag", Distribution::categorical(vec![ParamValue::Bool(true), ParamValue::Bool(false)]).unwrap()),
        ("fixed", Distribution::int(1, 1, false, 1).unwrap()),
    ])
}

fn study(n: i64, objectives: usize, seed: u64) -> Vec<Trial> {
    use crate::sampler::{Random, Request, suggest};
    let (space, directions) = (space(), [Direction::Minimize]);
    let states = [State::Complete, State::Complete, State::Complete, State::Pruned, State::Fail, State::Running];
    let make = |number: i64| {
        let request = Request { space: &space, directions: &directions, trials: &[], number, seed };
        let mut made = trial(number, states[number as usize % 6], None);
        made.params = suggest(&Random, &request, &[]).params;
        let (a, b) = (made.params[0].value.ln(), made.params[1].value);
        if made.state == State::Complete {
            made.values =
                (0..objectives).map(|objective| a * (objective as f64 - 0.5) + b + number as f64 % 7.0).collect();
        }
        made.intermediate = (0..number % 9).map(|step| (step, a.abs() / (step as f64 + 1.0))).collect();
        if number % 10 == 7 {
            made.params.remove(2);
            made.system_attrs.insert("constraints".into(), "[1.0]".into());
        }
        made
    };
    (0..n).map(make).collect()
}

fn each(trials: &[Trial], directions: &[Direction], options: &Options, look: impl Fn(Kind, &str)) {
    for kind in Kind::ALL {
        let svg = draw(kind, trials, directions, options);
        check(&svg);
        texts_inside(&svg);
        look(kind, &svg);
    }
}

#[test]
fn kinds_have_words() {
    assert!(Kind::ALL.into_iter().all(|kind| Kind::parse(kind.as_str()) == Some(kind)));
    assert_eq!(Kind::parse("contour"), None);
}

#[test]
fn an_empty_study_says_so() {
    each(&[], &[Direction::Minimize], &Options::default(), |kind, svg| {
        assert!(svg.contains("yet.") || kind == Kind::Pareto, "{svg}");
    });
    each(&[], &[], &Options { objective: 3, ..Options::default() }, |_, _| {});
}

#[test]
fn one_trial_and_sixty_are_drawn() {
    for n in [1, 60] {
        for objectives in 1..5 {
            let directions = vec![Direction::Minimize; objectives];
            each(&study(n, objectives, 3), &directions, &Options::default(), |kind, svg| {
                let empty = match kind {
                    Kind::Pareto => objectives == 1,
                    Kind::Intermediate | Kind::Importances => n == 1,
                    Kind::History | Kind::Parallel | Kind::Slice => false,
                };
                assert_eq!(
                    svg.contains("yet.") || svg.contains("at least two"),
                    empty,
                    "{kind:?} {n} {objectives}: {svg}"
                );
            });
        }
    }
}

#[test]
fn thousands_of_trials_are_thinned_and_the_plot_says_so() {
    let trials = study(10_000, 2, 1);
    each(&trials, &[Direction::Minimize, Direction::Maximize], &Options::default(), |kind, svg| {
        assert!(svg.len() < 1_000_000, "{kind:?}: {}", svg.len());
        assert_eq!(svg.contains(" drawn"), kind != Kind::Importances, "{kind:?}");
    });
}

#[test]
fn names_are_kept_apart_from_markup_and_cut_to_their_room() {
    let mut trials = study(40, 1, 2);
    let long = "a \"very\" <long> & quoted parameter name ".repeat(8);
    for trial in &mut trials {
        trial.params[0].name = long.clone();
    }
    let options = Options {
        title: Some(format!("{long}{long}")),
        names: vec![long.clone()],
        width: 400.0,
        height: 300.0,
        ..Options::default()
    };
    each(&trials, &[Direction::Maximize], &options, |_, svg| assert!(!svg.contains("<long>")));
}

#[test]
fn values_without_a_place_are_counted() {
    let mut trials = study(12, 1, 4);
    trials[0].values = vec![f64::NAN];
    trials[1].values = vec![f64::INFINITY];
    let svg = history(&trials, &[Direction::Minimize], &Options::default());
    assert!(svg.contains("2 values have no place on the axes"), "{svg}");
    let logarithmic = Options { scaling: Scaling::Log, ..Options::default() };
    trials[2].values = vec![-1.0];
    check(&history(&trials, &[Direction::Minimize], &logarithmic));
}

/// The texts of a picture, as they are written.
fn texts(svg: &str) -> Vec<String> {
    let text = |text: &str| text.split_once('>').unwrap().1.split('<').next().unwrap().to_owned();
    svg.split("<text ").skip(1).map(text).collect()
}

#[test]
fn every_choice_of_a_dozen_can_be_read() {
    let words =
        ["adam", "adamw", "sgd", "rmsprop", "adagrad", "adadelta", "lamb", "lion", "lars", "nadam", "radam", "lbfgs"];
    let choices: Vec<ParamValue> = words.iter().map(|word| ParamValue::Text((*word).into())).collect();
    let choice = Distribution::categorical(choices).unwrap();
    let make = |number: i64| {
        let mut made = trial(number, State::Complete, Some(number as f64));
        let params = ["a", "b", "c", "d"].map(|name| Param {
            name: name.into(),
            value: (number % 12) as f64,
            distribution: choice.clone(),
        });
        made.params = params.to_vec();
        made
    };
    let trials: Vec<Trial> = (0..12).map(make).collect();
    for plot in [slice, parallel] {
        let svg = plot(&trials, &[Direction::Minimize], &Options::default());
        check(&svg);
        texts_inside(&svg);
        let drawn = texts(&svg);
        for word in words {
            assert_eq!(drawn.iter().filter(|text| *text == word).count(), 4, "{word}: {drawn:?}");
        }
    }
    let two = Distribution::categorical(vec![ParamValue::Bool(true), ParamValue::Bool(false)]).unwrap();
    let flag = |trial: &Trial| {
        let flag = Param { name: "flag".into(), value: (trial.number % 2) as f64, distribution: two.clone() };
        Trial { params: vec![flag], ..trial.clone() }
    };
    let flags: Vec<Trial> = trials.iter().map(flag).collect();
    let svg = slice(&flags, &[Direction::Minimize], &Options::default());
    assert_eq!(svg.matches("rotate").count(), 1, "labels that fit are not turned, only the name of the other axis is");
}

fn unit(name: &str, value: f64) -> Param {
    Param { name: name.into(), value, distribution: Distribution::float(0.0, 1.0, false, None).unwrap() }
}

/// Trials of two objectives, of which each depends on one of the parameters.
fn two_of_two() -> Vec<Trial> {
    let make = |number: i64| {
        let share = |factor: f64| (number as f64 * factor).fract();
        let (x, y) = (share(0.618_033_988_749_895), share(0.414_213_562_373_095));
        let mut made = trial(number, State::Complete, None);
        made.values = vec![x, -y];
        made.params = vec![unit("x", x), unit("y", y)];
        made
    };
    (0..40).map(make).collect()
}

#[test]
fn importances_are_those_of_the_table_for_each_objective() {
    let trials = two_of_two();
    let directions = [Direction::Minimize; 2];
    let options = Options { names: vec!["loss".into(), "delay".into()], ..Options::default() };
    let drawn = texts(&importances(&trials, &directions, &options));
    let mut expected = Vec::new();
    for (objective, name) in ["loss", "delay"].into_iter().enumerate() {
        expected.push(name.to_owned());
        for importance in told(&trials, &directions, objective).unwrap().importances {
            expected.extend([importance.name, format!("{:.1} %", importance.value * 100.0)]);
        }
    }
    let at = drawn.iter().position(|text| text == "loss").unwrap();
    assert_eq!(drawn[at..], expected);
    assert_eq!((&expected[1], &expected[6]), (&"x".to_owned(), &"y".to_owned()), "each has its own first parameter");
    assert!(drawn.iter().any(|text| text.contains("by fANOVA")), "{drawn:?}");
}

#[test]
fn short_names_of_parameters_stand_beside_their_bars() {
    let drawn = texts(&importances(&two_of_two(), &[Direction::Minimize], &Options::default()));
    assert!(["x", "y"].iter().all(|name| drawn.iter().any(|text| text == name)), "{drawn:?}");
    assert!(!drawn.iter().any(|text| text.contains('…')), "{drawn:?}");
}

#[test]
fn importances_say_what_they_leave_out_and_why_there_are_none() {
    let mut trials = two_of_two();
    trials[0].params.pop();
    let svg = importances(&trials, &[Direction::Minimize], &Options::default());
    assert!(svg.contains("without y: not every trial has that"), "{svg}");
    trials.iter_mut().for_each(|trial| trial.values = vec![1.0]);
    let svg = importances(&trials, &[Direction::Minimize], &Options::default());
    assert!(svg.contains("there is nothing to explain"), "{svg}");
}

fn wild() -> impl Strategy<Value = Vec<Trial>> {
    let number = prop_oneof![prop::num::f64::ANY, -10.0..10.0_f64];
    let one = (
        0..5_usize,
        prop::collection::vec(number.clone(), 0..4),
        prop::collection::vec((0..6_usize, number.clone()), 0..4),
        prop::collection::btree_map(any::<i64>(), number, 0..4),
    );
    prop::collection::vec(one, 0..12).prop_map(|trials| {
        let states = [State::Waiting, State::Running, State::Complete, State::Pruned, State::Fail];
        let make = |(index, (state, values, params, intermediate)): (usize, _)| {
            let mut made = trial(index as i64, states[state], None);
            (made.values, made.intermediate) = (values, intermediate);
            let params: Vec<(usize, f64)> = params;
            for (index, value) in params {
                let parameter = space().parameters()[index].clone();
                if made.param(&parameter.name).is_none() {
                    made.params.push(Param { name: parameter.name, value, distribution: parameter.distribution });
                }
            }
            made
        };
        trials.into_iter().enumerate().map(make).collect()
    })
}

proptest! {
    #[test]
    fn no_history_breaks_a_plot(trials in wild(), objectives in 0..4_usize, objective in 0..3_usize, log: bool) {
        let scaling = if log { Scaling::Log } else { Scaling::Auto };
        let options = Options { objective, scaling, ..Options::default() };
        let directions = vec![Direction::Maximize; objectives];
        for kind in Kind::ALL {
            check(&draw(kind, &trials, &directions, &options));
        }
    }
}
