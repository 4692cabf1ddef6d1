//! What a study looks like in a terminal: its trials, the best ones, the course of the search and which parameters mattered.

use hpo_svc::{
    pareto,
    select::{broken, objective_names},
    study::{Direction, State, Study, Trial, best},
    sweep::{ATTR_ERROR, ATTR_JOB, Control, EndedEarly, ended_early},
    view::{
        importance::{Error, Told, told},
        sparkline::{Glyphs, history},
    },
};
use serde_json::{Map, Value};

use super::{brief::brief, lines};
use crate::report::table;

/// Characters of the sparkline.
const WIDTH: usize = 64;
/// Characters between two columns.
const GAP: usize = 2;
/// A note has as many characters as a terminal has left, these at least;
const LEAST_NOTE: usize = 80;
/// in a file or a pipe it has so many at most.
const LONGEST_NOTE: usize = 400;

/// The whole text.
pub(super) fn text(study: &Study, trials: &[Trial], storage: &str) -> String {
    let terminal = comfy_table::Table::new().width();
    let mut text = lines(&trial_table(trials, terminal.map(usize::from))) + &sweeps(study, trials);
    text += &match &study.directions[..] {
        [direction] => best_trial(*direction, trials),
        directions => front(directions, trials),
    };
    let names = objective_names(study);
    for (objective, name) in names.iter().enumerate() {
        text += &course(name, trials, &study.directions, objective);
    }
    for (objective, name) in names.iter().enumerate() {
        let of = if names.len() > 1 { format!(" for {name}") } else { String::new() };
        text += &mattered(&of, told(trials, &study.directions, objective));
    }
    if !storage.is_empty() {
        text += &format!("\noptuna.load_study(study_name={:?}, storage={storage:?})\n", study.name);
    }
    text
}

/// A row a trial; `terminal` is how wide that is, where there is one.
fn trial_table(trials: &[Trial], terminal: Option<usize>) -> comfy_table::Table {
    const HEADER: [&str; 6] = ["TRIAL", "STATE", "VALUE", "PARAMETERS", "JOB", "NOTE"];
    let row = |trial: &Trial| {
        let job = trial.user_text(ATTR_JOB).unwrap_or_default();
        [
            trial.number.to_string(),
            trial.state.to_string(),
            values(trial),
            table::parameters(&parameters(trial)),
            job.trim_start_matches("jobs/").chars().take(8).collect(),
        ]
    };
    let rows: Vec<[String; 5]> = trials.iter().map(row).collect();
    let width = |column: usize| {
        let cells = rows.iter().map(|row| row[column].as_str()).chain([HEADER[column]]);
        cells.map(|cell| cell.chars().count()).max().unwrap_or_default() + GAP
    };
    let mut table = table::plain(HEADER);
    let left = |terminal: usize| terminal.saturating_sub((0..5).map(width).sum()).max(LEAST_NOTE);
    let room = terminal.map_or(LONGEST_NOTE, left);
    for (trial, row) in trials.iter().zip(rows) {
        table.add_row(row.into_iter().chain([note(trial, room)]));
    }
    table
}

/// What is to be said of a trial: why it failed, or which constraints it breaks.
fn note(trial: &Trial, room: usize) -> String {
    let broken = if trial.state == State::Complete { broken(trial) } else { Vec::new() };
    match trial.user_text(ATTR_ERROR) {
        None if broken.is_empty() => String::new(),
        None => brief(&format!("breaks {}", broken.join(", ")), room),
        Some(error) => brief(&error, room),
    }
}

/// What became of the study's sweeps, where the trials do not tell.
fn sweeps(study: &Study, trials: &[Trial]) -> String {
    let mut text = String::new();
    if let Some(EndedEarly { sweep, why }) = ended_early(study, trials) {
        let why = brief(&why, LONGEST_NOTE);
        text += &format!("\nthe sweep {} has ended: {why}\n", sweep.chars().take(8).collect::<String>());
    }
    if Control::of(study).paused() {
        text += &format!("\nthe study's sweeps are paused: `quintet hpo resume {}` lets them go on\n", study.name);
    }
    text
}

fn values(trial: &Trial) -> String {
    trial.values.iter().map(|value| table::number(*value)).collect::<Vec<_>>().join(", ")
}

fn parameters(trial: &Trial) -> Map<String, Value> {
    trial.params.iter().map(|param| (param.name.clone(), param.external().to_json())).collect()
}

fn best_trial(direction: Direction, trials: &[Trial]) -> String {
    let Some(best) = best(trials, direction) else { return none_is_best(trials) };
    format!("\nbest: trial {}, {}\n  {}\n", best.number, values(best), table::parameters(&parameters(best)))
}

/// Why there is no best trial, and which one came closest to the bounds.
fn none_is_best(trials: &[Trial]) -> String {
    let complete = || trials.iter().filter(|trial| trial.state == State::Complete);
    let broken = complete().filter_map(|trial| Some((trial.violation().filter(|by| *by > 0.0)?, trial.number)));
    let least = broken.min_by(|a, b| a.0.total_cmp(&b.0)).map(|(by, number)| {
        let by = table::number(by);
        format!("the least violation is that of trial {number}: {by}\n")
    });
    format!("\n{}\n{}", table::none_is_best(complete().count()), least.unwrap_or_default())
}

/// The history of an objective.
fn course(name: &str, trials: &[Trial], directions: &[Direction], objective: usize) -> String {
    let Some(course) = history(trials, directions, objective, WIDTH, Glyphs::default()) else { return String::new() };
    let (low, high) = (table::number(course.low), table::number(course.high));
    let scale = if course.log { ", logarithmic" } else { "" };
    let head = format!("\n{name} by trial ({low} to {high}{scale}), and the best so far\n");
    head + &format!("  {}\n  {}\n", course.values, course.best)
}

/// Which parameters mattered for an objective, as bars.
fn mattered(of: &str, told: Result<Told, Error>) -> String {
    let told = match told {
        Ok(told) => told,
        Err(problem) => return format!("\nimportance of the parameters{of} (fANOVA)\n  {problem}\n"),
    };
    let found = &told.importances;
    let width = found.iter().map(|importance| importance.name.chars().count()).max().unwrap_or_default();
    let mut text = String::new();
    for importance in found {
        let bar = "#".repeat((importance.value * 40.0).round() as usize);
        text += &format!("  {:width$}  {:>4.0} %  {bar}\n", importance.name, importance.value * 100.0);
    }
    if let Some(left_out) = told.left_out() {
        text += &format!("  {left_out}\n");
    }
    let sample = told.sample().map(|sample| format!(" of {sample}")).unwrap_or_default();
    if text.is_empty() { text } else { format!("\nimportance of the parameters{of} (fANOVA{sample})\n{text}") }
}

/// The trials of which no other is better in everything.
fn front(directions: &[Direction], trials: &[Trial]) -> String {
    let front = pareto::best_trials(trials, directions);
    if front.is_empty() {
        return none_is_best(trials);
    }
    let rows = front.iter().map(|trial| {
        format!("  trial {}: {}  {}\n", trial.number, values(trial), table::parameters(&parameters(trial)))
    });
    format!("\nPareto front ({} of {} trials)\n{}", front.len(), trials.len(), rows.collect::<String>())
}

#[cfg(test)]
mod tests {
    use hpo_svc::{
        space::{Distribution, ParamValue},
        study::Param,
        sweep::{ATTR_ENDED, ATTR_PAUSES},
        view::importance::Importance,
    };
    use serde_json::json;

    use super::*;

    fn study(directions: &[Direction]) -> Study {
        let document = json!({"format": 1, "id": 1, "name": "s", "directions": [], "user_attrs": {}, "system_attrs": {}, "trials": []});
        let (study, _) = hpo_svc::view::export::read_json(&document).unwrap();
        Study { directions: directions.to_vec(), ..study }
    }

    fn trials(n: i64, objectives: usize) -> Vec<Trial> {
        let x = Distribution::float(0.0, 1.0, false, None).unwrap();
        let kind = Distribution::categorical(["a", "b"].map(|name| ParamValue::Text(name.into())).to_vec()).unwrap();
        let trial = |number: i64| Trial {
            id: number + 1,
            number,
            state: State::Complete,
            values: [0.5 - number as f64 / 100.0, number as f64][..objectives].to_vec(),
            params: vec![
                Param { name: "x".into(), value: 0.5 - number as f64 / 100.0, distribution: x.clone() },
                Param { name: "kind".into(), value: (number % 2) as f64, distribution: kind.clone() },
            ],
            intermediate: [].into(),
            user_attrs: [(ATTR_JOB.to_owned(), "\"jobs/0123456789abcdef0123456789abcdef\"".to_owned())].into(),
            system_attrs: [].into(),
            start: None,
            complete: None,
        };
        (0..n).map(trial).collect()
    }

    #[test]
    fn a_study_is_shown_with_its_best_its_course_and_what_mattered() {
        let text = text(&study(&[Direction::Minimize]), &trials(20, 1), "sqlite:////d");
        assert!(
            text.contains("COMPLETE") && text.contains("x = 0.5000, kind = a") && text.contains("01234567"),
            "{text}"
        );
        assert!(text.contains("best: trial 19, 0.3100"), "{text}");
        assert!(text.contains("value by trial (0.3100 to 0.5000), and the best so far\n  █"), "{text}");
        let bars: Vec<&str> = text.lines().filter(|line| line.contains(" %  ")).collect();
        assert!(bars.len() == 2 && bars[0].starts_with("  x   "), "{text}");
        assert!(text.ends_with("optuna.load_study(study_name=\"s\", storage=\"sqlite:////d\")\n"), "{text}");
    }

    #[test]
    fn trials_tell_what_is_wrong_with_them() {
        let mut noted = trials(3, 1);
        noted[0].system_attrs.insert("constraints:size".into(), "2.5".into());
        noted[0].system_attrs.insert("constraints:speed".into(), "-1.0".into());
        noted[1].state = State::Fail;
        let error = format!(
            "BAD_INPUT: metrics file /srv/quintet/jobs/{}/run/m.json: \"f1\" is \"abc\", not a number",
            "0".repeat(32)
        );
        noted[1].user_attrs.insert(ATTR_ERROR.into(), format!("{error:?}"));
        let short = "BAD_INPUT: metrics file …/m.json: \"f1\" is \"abc\", not a number";
        for (terminal, told) in [(None, error.as_str()), (Some(60), short), (Some(300), error.as_str())] {
            let text = lines(&trial_table(&noted, terminal));
            let ends: Vec<&str> = text.lines().skip(1).collect();
            assert!(ends[0].ends_with("  breaks the constraint size by 2.5"), "{text}");
            assert!(ends[1].ends_with(&format!("  {told}")) && ends[2].ends_with("  01234567"), "{text}");
        }
    }

    #[test]
    fn a_sweep_that_rests_or_has_ended_early_says_so() {
        let mut steered = study(&[Direction::Minimize]);
        let (trials, now) = (trials(2, 1), "2026-01-01T00:00:00Z");
        assert_eq!(sweeps(&steered, &trials), "");
        let end = format!(r#"{{"sweep": "0123456789abcdef", "why": "the time is over", "at": "{now}"}}"#);
        steered.user_attrs.insert(ATTR_ENDED.into(), end);
        assert_eq!(sweeps(&steered, &trials), "\nthe sweep 01234567 has ended: the time is over\n");
        steered.user_attrs.insert(ATTR_PAUSES.into(), format!(r#"[["{now}", null]]"#));
        let text = text(&steered, &trials, "");
        assert!(text.contains("\nthe study's sweeps are paused: `quintet hpo resume s` lets them go on\n"), "{text}");
    }

    #[test]
    fn of_very_many_trials_the_importances_are_those_of_a_sample() {
        let importances = vec![Importance { name: "x".into(), value: 1.0 }];
        let text = mattered("", Ok(Told { importances, complete: 30, grown_from: 20, ..Told::default() }));
        assert!(text.contains("(fANOVA of 20 of 30 trials)\n  x "), "{text}");
    }

    #[test]
    fn what_the_importances_do_not_tell_is_said() {
        let mattered = |trials: &[Trial]| super::mattered("", told(trials, &[Direction::Minimize], 0));
        let mut same = trials(10, 1);
        same.iter_mut().for_each(|trial| trial.values = vec![0.5]);
        let text = mattered(&same);
        assert!(text.contains("(fANOVA)\n  there is nothing to explain: the values") && !text.contains('%'), "{text}");
        let mut conditional = trials(10, 1);
        conditional.iter_mut().step_by(2).for_each(|trial| drop(trial.params.pop()));
        let text = mattered(&conditional);
        assert!(
            text.contains("  x   100 %  ###")
                && text.ends_with("  without kind: not every trial has that, or not with the same domain\n"),
            "{text}"
        );
        conditional.iter_mut().skip(1).step_by(2).for_each(|trial| drop(trial.params.remove(0)));
        let text = mattered(&conditional);
        assert!(text.contains("(fANOVA)\n  without kind, x: not every"), "{text}");
        assert_eq!(mattered(&conditional[..1]), "", "one trial tells nothing");
    }

    #[test]
    fn several_objectives_show_their_front_and_an_empty_study_says_so() {
        let directions = [Direction::Minimize, Direction::Minimize];
        let front = text(&study(&directions), &trials(3, 2), "");
        assert!(front.contains("Pareto front (3 of 3 trials)\n  trial 0: 0.5000, 0"), "{front}");
        let front = text(&study(&directions), &trials(20, 2), "");
        for name in ["values_0", "values_1"] {
            assert!(front.contains(&format!("\n{name} by trial (")), "{front}");
            assert!(front.contains(&format!("\nimportance of the parameters for {name} (fANOVA)\n  x ")), "{front}");
        }
        assert!(text(&study(&directions), &[], "").contains("no trial has completed"));
        let mut broken = trials(3, 2);
        for (trial, by) in broken.iter_mut().zip(["0.5", "0.25", "0.75"]) {
            trial.system_attrs.insert("constraints:latency".into(), by.into());
        }
        let one_by_one: Vec<Trial> = broken.iter().map(|t| Trial { values: vec![1.0], ..t.clone() }).collect();
        for (directions, trials) in [(&directions[..], &broken), (&directions[..1], &one_by_one)] {
            let told = text(&study(directions), trials, "");
            let expected = "\n3 trials have completed; each breaks a constraint or has no value\n\
                            the least violation is that of trial 1: 0.2500\n";
            assert!(told.contains(expected), "{told}");
        }
        let nan = Trial { values: vec![f64::NAN], ..trials(1, 1).remove(0) };
        let told = text(&study(&directions[..1]), &[nan], "");
        assert!(told.contains("\n1 trial has completed; it breaks a constraint or has no value\n"), "{told}");
        assert!(text(&study(&directions[..1]), &[], "").contains("no trial has completed"));
    }
}
