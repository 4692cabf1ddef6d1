//! Whether a sweep has given what later steps rely on: enough completed trials, their metrics, a best one within its space.

use std::{collections::BTreeMap, sync::Arc};

use quintet_proto::v1::{Job, JobState, ValidateSweepResponse, job_spec::Kind};

use crate::{
    pareto,
    select::{Measure, objective_names, short},
    space::Space,
    study::{State, Study, Trial, best},
    sweep::ATTR_SPACE,
};

/// What is asked of a sweep.
#[derive(Debug, Clone, Default)]
pub(crate) struct Wanted {
    /// The least number of completed trials.
    pub min_completed_trials: usize,
    /// A metric that every completed trial must have, beside the objectives.
    pub metric: Option<String>,
}

/// Numbers of trials that a problem names at most.
const NAMED: usize = 10;

/// Checks a study, and the job of its sweep when there is one.
pub(crate) fn validate(
    study: &Study,
    trials: &[Arc<Trial>],
    wanted: &Wanted,
    job: Option<&Job>,
) -> ValidateSweepResponse {
    let mut trials_by_state: BTreeMap<String, i32> = BTreeMap::new();
    for trial in trials {
        *trials_by_state.entry(trial.state.as_str().to_owned()).or_default() += 1;
    }
    let mut findings = Findings::default();
    if let Some(job) = job {
        check_job(study, job, &mut findings);
    }
    check_trials(study, trials, wanted, &mut findings);
    let best = best_trials(study, trials);
    let completed = trials.iter().any(|trial| trial.state == State::Complete);
    if best.is_empty() && completed {
        findings.problem("no completed trial can be the best: each breaks a constraint or has no value");
    }
    check_space(study, &best, &mut findings);
    let Findings { problems, notes } = findings;
    ValidateSweepResponse {
        valid: problems.is_empty(),
        problems,
        trials_by_state,
        notes,
        best_trials: best.iter().map(|trial| format!("studies/{}/trials/{}", study.name, trial.number)).collect(),
    }
}

#[derive(Default)]
struct Findings {
    problems: Vec<String>,
    notes: Vec<String>,
}

impl Findings {
    fn problem(&mut self, text: impl Into<String>) {
        self.problems.push(text.into());
    }
}

fn check_job(study: &Study, job: &Job, findings: &mut Findings) {
    let name = &job.name;
    if !matches!(job.spec.as_ref().and_then(|spec| spec.kind.as_ref()), Some(Kind::Sweep(_))) {
        findings.problem(format!("{name} is no sweep"));
        return;
    }
    if job.state() != JobState::Succeeded {
        let error = job.error.as_ref().filter(|error| !error.message.is_empty());
        let error = error.map(|error| format!(": {}", error.message)).unwrap_or_default();
        findings.problem(format!("{name} is {}, not SUCCEEDED{error}", job.state().as_str_name()));
        return;
    }
    let report = job.outputs.as_ref().and_then(|outputs| outputs.report.as_ref());
    let reported =
        report.and_then(|report| serde_json::to_value(report).ok()?.get("study")?.as_str().map(str::to_owned));
    match reported {
        Some(reported) if reported != study.name => {
            findings.problem(format!("{name} worked on study `{reported}`, not on `{}`", study.name));
        }
        Some(_) => {}
        None => findings.problem(format!("{name} has left no report that names its study")),
    }
}

/// Numbers of trials as text.
fn numbers<'a>(trials: impl Iterator<Item = &'a Trial>) -> Option<String> {
    let all: Vec<String> = trials.map(|trial| trial.number.to_string()).collect();
    let shown = all.get(..NAMED).unwrap_or(&all).join(", ");
    let noun = if all.len() == 1 { "trial" } else { "trials" };
    match all.len() {
        0 => None,
        count if count > NAMED => Some(format!("{count} trials ({shown}, ...)")),
        _ => Some(format!("{noun} {shown}")),
    }
}

fn check_trials(study: &Study, trials: &[Arc<Trial>], wanted: &Wanted, findings: &mut Findings) {
    let of = |state: State| trials.iter().map(|trial| &**trial).filter(move |trial| trial.state == state);
    let (completed, least) = (of(State::Complete).count(), wanted.min_completed_trials);
    if completed < least {
        let (failed, pruned) = (of(State::Fail).count(), of(State::Pruned).count());
        findings.problem(format!(
            "{completed} trials have completed ({failed} failed, {pruned} were pruned); at least {least} are wanted"
        ));
    }
    if let Some(running) = numbers(of(State::Running)) {
        findings.problem(format!("{running} still RUNNING"));
    }
    if let Some(waiting) = numbers(of(State::Waiting)) {
        findings.notes.push(format!("{waiting} WAITING, never started"));
    }
    let mut measures: Vec<(String, Measure)> =
        objective_names(study).into_iter().enumerate().map(|(index, name)| (name, Measure::Objective(index))).collect();
    if let Some(name) = &wanted.metric {
        let measure = Measure::of(study, name);
        if !measures.iter().any(|(_, known)| *known == measure) {
            measures.push((name.clone(), measure));
        }
    }
    for (name, measure) in measures {
        if let Some(missing) = numbers(of(State::Complete).filter(|trial| measure.value(trial).is_none())) {
            findings.problem(format!("{name} is missing in {missing}"));
        }
        let infinite = |trial: &&Trial| measure.value(trial).is_some_and(|value| !value.is_finite());
        if let Some(infinite) = numbers(of(State::Complete).filter(infinite)) {
            findings.problem(format!("{name} is not a finite number in {infinite}"));
        }
    }
}

/// The best trial, or the Pareto front.
fn best_trials<'a>(study: &Study, trials: &'a [Arc<Trial>]) -> Vec<&'a Trial> {
    match study.directions[..] {
        [direction] => best(trials, direction).into_iter().collect(),
        _ => pareto::best_trials(trials, &study.directions),
    }
}

fn check_space(study: &Study, best: &[&Trial], findings: &mut Findings) {
    let space = match study.user_attrs.get(ATTR_SPACE).map(|json| Space::from_json(json)) {
        Some(Ok(space)) => space,
        Some(Err(problem)) => {
            findings.problem(format!("the search space that the study keeps cannot be read: {problem}"));
            return;
        }
        None => {
            let note = "the study keeps no search space, so whether the best trial is within it is unknown";
            findings.notes.push(note.into());
            return;
        }
    };
    for trial in best {
        let differences = differences(&space, trial);
        if !differences.is_empty() {
            let text = differences.join("; ");
            findings.problem(format!("the best trial, {}, is outside of the search space: {text}", trial.number));
        }
    }
}

/// How the parameters of a trial are not those of a space.
fn differences(space: &Space, trial: &Trial) -> Vec<String> {
    let mut found = Vec::new();
    let mut before: Vec<Option<f64>> = Vec::with_capacity(space.parameters().len());
    for (index, parameter) in space.parameters().iter().enumerate() {
        let name = &parameter.name;
        let active = space.active(index, &before);
        let value = match (trial.param(name), active) {
            (None, true) => {
                found.push(format!("`{name}` is missing"));
                None
            }
            (None, false) => None,
            (Some(_), false) => {
                found.push(format!("`{name}` is there, though its condition does not hold"));
                None
            }
            (Some(param), true) => {
                // The study may have been continued with narrower bounds: what counts is the value.
                let internal = parameter.distribution.internal(&param.external());
                if !internal.is_some_and(|internal| parameter.distribution.contains(internal)) {
                    let (value, domain) = (shown(param), parameter.distribution.to_json());
                    found.push(format!("`{name}` = {value} is outside of {domain}"));
                }
                internal
            }
        };
        before.push(value);
    }
    let extra = trial.params.iter().filter(|param| space.get(&param.name).is_none());
    found.extend(extra.map(|param| format!("`{}` is no parameter of it", param.name)));
    found
}

fn shown(param: &crate::study::Param) -> String {
    match param.external() {
        crate::space::ParamValue::Float(value) => short(value),
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use quintet_proto::v1::{JobError, JobSpec, Outputs, SweepSpec};

    use super::*;
    use crate::{
        space::{Condition, Distribution, ParamValue},
        study::{Direction, Param, tests::trial},
    };

    fn space() -> Space {
        let kinds = Distribution::categorical(["a", "b"].map(|kind| ParamValue::Text(kind.into())).to_vec()).unwrap();
        let mut space = Space::of([
            ("x", Distribution::float(0.0, 1.0, false, None).unwrap()),
            ("kind", kinds),
            ("n", Distribution::int(1, 9, false, 2).unwrap()),
        ]);
        space.set_condition(2, Condition { parameter: 1, values: vec![1.0] });
        space
    }

    fn study() -> Study {
        let mut study = crate::select::tests::study("s", &[("f1", Direction::Maximize)]);
        study.user_attrs.insert(ATTR_SPACE.into(), space().to_json());
        study
    }

    fn with(mut trial: Trial, params: &[(&str, f64)]) -> Arc<Trial> {
        let one = Distribution::float(-100.0, 100.0, false, None).unwrap();
        let param = |(name, value): &(&str, f64)| Param {
            name: (*name).into(),
            value: *value,
            distribution: space().get(name).cloned().unwrap_or_else(|| one.clone()),
        };
        trial.params = params.iter().map(param).collect();
        Arc::new(trial)
    }

    fn good(number: i64, value: f64) -> Arc<Trial> {
        with(trial(number, State::Complete, Some(value)), &[("x", 0.5), ("kind", 0.0)])
    }

    fn problems(trials: &[Arc<Trial>], wanted: &Wanted) -> Vec<String> {
        validate(&study(), trials, wanted, None).problems
    }

    #[test]
    fn a_good_sweep_is_valid() {
        let trials = [good(0, 0.5), good(1, 0.75), Arc::new(trial(2, State::Fail, None))];
        let answer = validate(&study(), &trials, &Wanted { min_completed_trials: 2, metric: Some("f1".into()) }, None);
        assert!(answer.valid && answer.problems.is_empty() && answer.notes.is_empty(), "{answer:?}");
        assert_eq!(answer.best_trials, ["studies/s/trials/1"]);
        assert_eq!(answer.trials_by_state, [("COMPLETE".to_owned(), 2), ("FAIL".to_owned(), 1)].into());
    }

    #[test]
    fn each_problem_is_told() {
        let wanted = Wanted { min_completed_trials: 4, metric: Some("latency".into()) };
        let mut measured = Trial::clone(&good(0, 0.5));
        measured.user_attrs.insert("latency".into(), "Infinity".into());
        let trials = [
            Arc::new(measured),
            good(1, f64::NAN),
            Arc::new(trial(2, State::Running, None)),
            Arc::new(trial(3, State::Waiting, None)),
            Arc::new(trial(4, State::Complete, None)),
        ];
        assert_eq!(
            problems(&trials, &wanted),
            [
                "3 trials have completed (0 failed, 0 were pruned); at least 4 are wanted",
                "trial 2 still RUNNING",
                "f1 is missing in trial 4",
                "f1 is not a finite number in trial 1",
                "latency is missing in trials 1, 4",
                "latency is not a finite number in trial 0",
            ]
        );
        assert_eq!(
            problems(&[], &Wanted { min_completed_trials: 1, metric: None }),
            ["0 trials have completed (0 failed, 0 were pruned); at least 1 are wanted"]
        );
        let mut broken = Trial::clone(&good(0, 0.5));
        broken.system_attrs.insert("constraints:size".into(), "1.0".into());
        assert!(problems(&[Arc::new(broken)], &Wanted::default())[0].starts_with("no completed trial can be the best"));
    }

    #[test]
    fn the_best_is_within_its_space() {
        for (params, problem) in [
            (&[("x", 0.5), ("kind", 1.0)][..], "`n` is missing"),
            (&[("x", 0.5), ("kind", 0.0), ("n", 1.0)], "`n` is there, though its condition does not hold"),
            (&[("kind", 0.0)], "`x` is missing"),
            (&[("x", 1.5), ("kind", 1.0), ("n", 3.0), ("y", 0.0)], "`x` = 1.5 is outside of {\"name\""),
            (&[("x", 1.0), ("kind", 1.0), ("n", 3.0), ("y", 0.0)], "`y` is no parameter of it"),
        ] {
            let best = with(trial(7, State::Complete, Some(1.0)), params);
            let found = problems(&[best, good(8, 0.5)], &Wanted::default());
            assert!(
                found.len() == 1 && found[0].contains(problem) && found[0].contains("the best trial, 7,"),
                "{found:?}"
            );
        }
        let fits = with(trial(7, State::Complete, Some(1.0)), &[("x", 1.0), ("kind", 1.0), ("n", 3.0)]);
        assert_eq!(problems(&[fits], &Wanted::default()), Vec::<String>::new());
        let mut foreign = study();
        foreign.user_attrs.clear();
        let answer = validate(&foreign, &[good(0, 1.0)], &Wanted::default(), None);
        assert!(answer.valid && answer.notes[0].contains("keeps no search space"), "{answer:?}");
    }

    #[test]
    fn of_several_objectives_the_whole_front_is_looked_at() {
        let mut two = crate::select::tests::study("s", &[("f1", Direction::Maximize), ("ms", Direction::Minimize)]);
        two.user_attrs.insert(ATTR_SPACE.into(), space().to_json());
        let of = |number: i64, values: [f64; 2], x: f64| {
            let mut trial = trial(number, State::Complete, None);
            trial.values = values.to_vec();
            with(trial, &[("x", x), ("kind", 0.0)])
        };
        let trials = [of(0, [0.9, 9.0], 0.5), of(1, [0.8, 5.0], 2.0), of(2, [0.7, 6.0], 3.0)];
        let answer = validate(&two, &trials, &Wanted::default(), None);
        assert_eq!(answer.best_trials, ["studies/s/trials/0", "studies/s/trials/1"]);
        assert!(answer.problems.len() == 1 && answer.problems[0].contains("trial, 1,"), "{answer:?}");
    }

    #[test]
    fn the_job_has_to_be_a_sweep_of_the_study_that_succeeded() {
        let report = |study: &str| {
            Some(Outputs {
                report: Some(serde_json::from_value(serde_json::json!({"study": study})).unwrap()),
                ..Default::default()
            })
        };
        let job = Job {
            name: "jobs/1".into(),
            spec: Some(JobSpec { kind: Some(Kind::Sweep(SweepSpec::default())) }),
            state: JobState::Succeeded.into(),
            outputs: report("s"),
            ..Job::default()
        };
        let problems = |job: &Job| validate(&study(), &[good(0, 1.0)], &Wanted::default(), Some(job)).problems;
        assert_eq!(problems(&job), Vec::<String>::new());
        let error = Some(JobError { message: "boom".into(), ..Default::default() });
        let failed = Job { state: JobState::Failed.into(), error, ..job.clone() };
        assert_eq!(problems(&failed), ["jobs/1 is FAILED, not SUCCEEDED: boom"]);
        let other = Job { outputs: report("t"), ..job.clone() };
        assert_eq!(problems(&other), ["jobs/1 worked on study `t`, not on `s`"]);
        assert_eq!(problems(&Job { spec: None, ..job }), ["jobs/1 is no sweep"]);
    }
}
