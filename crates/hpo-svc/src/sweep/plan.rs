//! The planner of a sweep: a pure function from what the study says to what happens next.

use std::{borrow::Cow, collections::BTreeMap, time::Duration};

use super::{ATTR_ERROR, ATTR_SWEEP, Goals, Limits, retry};
use crate::{
    pruner::{Judged, Pruner},
    study::{State, Trial},
};

/// What the planner sees.
#[derive(Debug, Clone, Copy)]
pub struct View<'a> {
    /// Name of the study.
    pub study: &'a str,
    /// The sweep's limits.
    pub limits: &'a Limits,
    /// What is searched for.
    pub goals: &'a Goals,
    /// All trials of the study, in order of number.
    pub trials: &'a [Trial],
    /// Uid of the sweep; trials that carry it are its own.
    pub sweep: &'a str,
    /// Time since the sweep's first start, without pauses.
    pub elapsed: Duration,
    /// Somebody has asked for no new trials for the time being.
    pub paused: bool,
    /// How many more trials are of any use to the sampler; `None` when there is no end.
    pub remaining: Option<usize>,
    /// Steps that own trials have reported since the last plan, by trial number.
    pub fresh: &'a BTreeMap<i64, Vec<i64>>,
}

/// Why a sweep ends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum End {
    /// All trials have ended.
    MaxTrials,
    /// The time is over.
    Timeout,
    /// The money is spent, or what else trials cost.
    Cost,
    /// Too many trials in a row brought nothing new.
    NoProgress,
    /// The sampler has nothing new to try.
    Exhausted,
    /// Too many trials failed, or none completed; says what to look at.
    Failed(String),
}

/// What happens next.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Decision {
    /// Number of trials to start now.
    pub start: usize,
    /// Numbers of trials to stop early.
    pub prune: Vec<i64>,
    /// Numbers of failed trials to queue again, before anything else is planned.
    pub retry: Vec<i64>,
    /// What the pruner wants to find again, by trial number: system attributes, key to JSON text. They are to be stored before the
    /// next plan.
    pub system_attrs: BTreeMap<i64, BTreeMap<String, String>>,
    /// The sweep is over; with [`End::Failed`] trials may still run and are to be cancelled.
    pub end: Option<End>,
}

/// Decides. Calling it again with the same view gives the same decision.
pub fn plan(view: &View<'_>, pruner: &dyn Pruner) -> Decision {
    let own = |trial: &Trial| trial.user_text(ATTR_SWEEP).as_deref() == Some(view.sweep);
    let retry = retry::due(view.trials, view.limits.max_retries, own);
    if !retry.is_empty() {
        return Decision { retry, ..judge(view, pruner) };
    }
    if let Some(problem) = too_many_failed(view) {
        return Decision { end: Some(End::Failed(problem)), ..Decision::default() };
    }
    let running = view.trials.iter().filter(|trial| own(trial) && !trial.state.finished()).count();
    let finished = view.trials.iter().filter(|trial| trial.state.finished()).count();
    // Those of other sweeps too: they come to an end, as a trial of whoever else works on the study may not.
    let of_others =
        |trial: &&Trial| trial.state == State::Running && trial.user_attrs.contains_key(ATTR_SWEEP) && !own(trial);
    let elsewhere = view.trials.iter().filter(of_others).count();
    let left = view.limits.max_trials.saturating_sub(retry::counted(view.trials) + running + elsewhere);
    let waiting = view.trials.iter().filter(|trial| trial.state == State::Waiting).count();
    // Queued trials are to be tried whatever the sampler has left.
    let new = view.remaining.map_or(left, |remaining| left.min(remaining.max(waiting)));
    let over = over(view);
    let end = match (running, left, &over) {
        // What others run may come to nothing, or to the best.
        (0, 0, _) if elsewhere == 0 => Some(End::MaxTrials),
        (0, _, Some(_)) => over.clone(),
        _ if view.paused => None,
        (0, 1.., _) if new == 0 => Some(End::Exhausted),
        _ => None,
    };
    let end = end.map(|end| {
        let none = !view.trials.iter().any(|trial| trial.state == State::Complete);
        if none { End::Failed(format!("no trial of the study has completed ({finished} have ended)")) } else { end }
    });
    let free = view.limits.max_parallel.saturating_sub(running);
    let start = if view.paused || over.is_some() { 0 } else { free.min(new) };
    Decision { start, end, ..judge(view, pruner) }
}

/// Why no further trial is started although some are left.
fn over(view: &View<'_>) -> Option<End> {
    if view.limits.timeout.is_some_and(|timeout| view.elapsed >= timeout) {
        return Some(End::Timeout);
    }
    if view.limits.max_cost.as_ref().is_some_and(|cost| cost.spent(view.trials) >= cost.max) {
        return Some(End::Cost);
    }
    let stuck = view.limits.no_progress.as_ref();
    stuck.filter(|rule| rule.stagnation(view.trials, view.goals) >= rule.max_stagnation_trials).map(|_| End::NoProgress)
}

/// Judges own trials at their fresh reports, in order of step as if each had just come, until one stops a trial.
fn judge(view: &View<'_>, pruner: &dyn Pruner) -> Decision {
    let mut decision = Decision::default();
    let [objective] = &view.goals.objectives[..] else { return decision };
    // What is found out about one trial counts for the next.
    let mut trials = Cow::Borrowed(view.trials);
    for (index, trial) in view.trials.iter().enumerate().filter(|(_, trial)| trial.state == State::Running) {
        let Some(steps) = view.fresh.get(&trial.number) else { continue };
        let mut steps = steps.clone();
        steps.sort_unstable();
        steps.dedup();
        for step in steps {
            let mut then = trials[index].clone();
            then.intermediate.retain(|other, _| *other <= step);
            let judged = Judged { study: view.study, direction: objective.direction, trials: &trials, trial: &then };
            let judgement = pruner.judge(&judged);
            if !judgement.system_attrs.is_empty() {
                trials.to_mut()[index].system_attrs.extend(judgement.system_attrs.clone());
                decision.system_attrs.entry(trial.number).or_default().extend(judgement.system_attrs);
            }
            if judgement.prune {
                decision.prune.push(trial.number);
                break;
            }
        }
    }
    decision
}

/// The reason why the sweep's failures are too many.
fn too_many_failed(view: &View<'_>) -> Option<String> {
    let own = |trial: &&Trial| trial.user_text(ATTR_SWEEP).as_deref() == Some(view.sweep);
    let mut ended: Vec<&Trial> = retry::counting(view.trials).filter(own).collect();
    let failed: Vec<&&Trial> = ended.iter().filter(|trial| trial.state == State::Fail).collect();
    let last = failed.iter().max_by_key(|trial| trial.complete)?;
    let error = last.user_text(ATTR_ERROR).unwrap_or_else(|| "no error was recorded".into());
    let last = format!("the last one, trial {}: {error}", last.number);
    let count = failed.len();
    if let Some(most) = view.limits.max_failed {
        return (count >= most).then(|| format!("{count} trials failed, max_failed_trials is {most}; {last}"));
    }
    // First, so that the answer does not depend on how many have failed by the time it is asked.
    ended.sort_by_key(|trial| (trial.complete, trial.number));
    if ended.get(..3).is_some_and(|first| first.iter().all(|trial| trial.state == State::Fail)) {
        return Some(format!("the first 3 trials failed; {last}"));
    }
    let many = count >= view.limits.max_trials.div_ceil(2);
    many.then(|| format!("{count} of at most {} trials failed; {last}", view.limits.max_trials))
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;
    use proptest::prelude::*;

    use super::*;
    use crate::{
        objective::Objective,
        pruner::{Nop, Percentile, SuccessiveHalving},
        study::{Direction, tests::trial},
        sweep::{Cost, NoProgress},
    };

    fn goals() -> Goals {
        let objectives = vec![Objective { metric: "f1".into(), direction: Direction::Maximize }];
        Goals { objectives, constraints: Vec::new(), cost_metric: None }
    }

    fn limits(max_trials: usize, max_parallel: usize) -> Limits {
        Limits {
            max_trials,
            max_parallel,
            timeout: None,
            max_cost: None,
            no_progress: None,
            max_failed: None,
            max_retries: 0,
        }
    }

    fn own(number: i64, state: State) -> Trial {
        let mut trial = trial(number, state, (state == State::Complete).then_some(0.5));
        trial.user_attrs.insert(ATTR_SWEEP.into(), "\"me\"".into());
        trial.complete = state.finished().then(|| Timestamp::from_second(number).unwrap());
        trial
    }

    fn decide(limits: &Limits, trials: &[Trial], elapsed: u64) -> Decision {
        let view = View {
            study: "s",
            limits,
            goals: &goals(),
            trials,
            sweep: "me",
            elapsed: Duration::from_secs(elapsed),
            paused: false,
            remaining: None,
            fresh: &BTreeMap::new(),
        };
        plan(&view, &Nop)
    }

    #[test]
    fn time_stops_new_trials_and_lets_the_others_end() {
        let limits = Limits { timeout: Some(Duration::from_secs(10)), ..limits(9, 3) };
        let mut trials = vec![own(0, State::Complete), own(1, State::Running)];
        assert_eq!(decide(&limits, &trials, 9).start, 2);
        assert_eq!(decide(&limits, &trials, 10), Decision::default());
        trials[1] = own(1, State::Pruned);
        assert_eq!(decide(&limits, &trials, 10).end, Some(End::Timeout));
        assert!(matches!(decide(&limits, &trials[1..], 10).end, Some(End::Failed(_))), "nothing completed");
    }

    #[test]
    fn trials_that_other_sweeps_run_count_in_all_and_those_of_clients_when_they_end() {
        let running = |number, whose: Option<&str>| {
            let mut trial = trial(number, State::Running, None);
            trial.user_attrs.extend(whose.map(|whose| (ATTR_SWEEP.to_owned(), whose.to_owned())));
            trial
        };
        let mut trials = vec![own(0, State::Complete), own(1, State::Running), running(2, Some("\"other\""))];
        assert_eq!(decide(&limits(5, 4), &trials, 0).start, 2);
        trials.push(running(3, None));
        assert_eq!(decide(&limits(5, 4), &trials, 0).start, 2);
        trials[1] = own(1, State::Complete);
        assert_eq!(decide(&limits(3, 4), &trials, 0), Decision::default(), "the other sweep may give up");
        trials[2] = running(2, None);
        assert_eq!(decide(&limits(2, 4), &trials, 0).end, Some(End::MaxTrials));
        // Before anything has completed the others are waited for as well.
        assert_eq!(decide(&limits(1, 4), &[running(0, Some("\"other\""))], 0), Decision::default());
    }

    #[test]
    fn a_sweep_ends_when_nothing_new_is_left_and_tries_what_is_queued_first() {
        let limits = limits(9, 3);
        let decide = |trials: &[Trial], remaining| {
            let view = View {
                study: "s",
                limits: &limits,
                goals: &goals(),
                trials,
                sweep: "me",
                elapsed: Duration::ZERO,
                paused: false,
                remaining: Some(remaining),
                fresh: &BTreeMap::new(),
            };
            plan(&view, &Nop)
        };
        let mut trials = vec![own(0, State::Complete), own(1, State::Running)];
        assert_eq!(decide(&trials, 1).start, 1);
        assert_eq!(decide(&trials, 0), Decision::default());
        trials[1] = own(1, State::Complete);
        assert_eq!(decide(&trials, 0).end, Some(End::Exhausted));
        trials.push(trial(2, State::Waiting, None));
        assert_eq!((decide(&trials, 0).start, decide(&trials, 0).end), (1, None));
    }

    #[test]
    fn what_is_spent_and_what_leads_nowhere_starts_no_more_trials() {
        let mut trials: Vec<Trial> = (0..3).map(|n| own(n, State::Complete)).collect();
        let stuck = NoProgress { max_stagnation_trials: 2, min_delta: 0.0, since: None };
        let limits = Limits { no_progress: Some(stuck), ..limits(9, 3) };
        assert_eq!(decide(&limits, &trials[..2], 0).start, 3);
        assert_eq!(decide(&limits, &trials, 0).end, Some(End::NoProgress));
        trials.push(own(3, State::Running));
        assert_eq!(decide(&limits, &trials, 0), Decision::default(), "what runs may still be better");
        trials[3] = own(3, State::Complete);
        trials[3].values = vec![0.6];
        assert_eq!(decide(&limits, &trials, 0).start, 3);

        let limits = Limits { max_cost: Some(Cost { metric: None, max: 5.0 }), ..super::tests::limits(9, 3) };
        for trial in &mut trials {
            trial.start = trial.complete.map(|at| at - jiff::SignedDuration::from_secs(2));
        }
        assert_eq!(decide(&limits, &trials[..2], 0).start, 3);
        assert_eq!(decide(&limits, &trials[..3], 0).end, Some(End::Cost));
    }

    #[test]
    fn a_pause_starts_nothing_and_ends_nothing() {
        let (limits, goals, fresh) = (limits(3, 2), goals(), BTreeMap::new());
        let trials: Vec<Trial> = (0..3).map(|n| own(n, State::Complete)).collect();
        let decide = |trials: &[Trial]| {
            let (elapsed, remaining) = (Duration::ZERO, None);
            let view = View {
                study: "s",
                limits: &limits,
                goals: &goals,
                trials,
                sweep: "me",
                elapsed,
                paused: true,
                remaining,
                fresh: &fresh,
            };
            plan(&view, &Nop)
        };
        assert_eq!(decide(&trials[..2]), Decision::default());
        assert_eq!(decide(&trials).end, Some(End::MaxTrials), "nothing is left to wait for");
    }

    #[test]
    fn a_trial_that_is_repeated_does_not_count() {
        let limits = Limits { max_retries: 1, max_failed: Some(2), ..limits(2, 2) };
        let mut trials = vec![own(0, State::Complete), own(1, State::Fail)];
        assert_eq!(decide(&limits, &trials, 0), Decision { retry: vec![1], ..Decision::default() });
        let mut again = own(2, State::Waiting);
        again.user_attrs.clear();
        again.system_attrs.extend(retry::repeat(&trials[1]).system_attrs);
        trials.push(again);
        assert_eq!(decide(&limits, &trials, 0).start, 1);
        trials[2].state = State::Complete;
        assert_eq!(decide(&limits, &trials, 0).end, Some(End::MaxTrials));
    }

    #[test]
    fn failures_end_a_sweep_by_its_limit() {
        let states = |states: &[State]| -> Vec<Trial> { (0..).zip(states).map(|(n, s)| own(n, *s)).collect() };
        let failed = |limits: &Limits, trials: &[Trial]| matches!(decide(limits, trials, 0).end, Some(End::Failed(_)));
        use State::{Complete, Fail, Running};
        assert!(failed(&limits(20, 1), &states(&[Fail, Fail, Fail])));
        assert!(!failed(&limits(20, 1), &states(&[Fail, Fail, Running])));
        assert!(!failed(&limits(20, 1), &states(&[Complete, Fail, Fail, Fail])));
        assert!(failed(&limits(4, 1), &states(&[Complete, Fail, Fail])));
        let most = Limits { max_failed: Some(4), ..limits(20, 1) };
        assert!(!failed(&most, &states(&[Fail, Fail, Fail])));
        assert!(failed(&most, &states(&[Fail, Fail, Fail, Fail])));
        // Failures of earlier sweeps of the study count as trials, not as failures.
        let mut earlier = states(&[Fail, Fail, Fail]);
        earlier.iter_mut().for_each(|trial| trial.user_attrs.clear());
        assert_eq!(decide(&limits(20, 1), &earlier, 0).start, 1);
    }

    #[test]
    fn each_fresh_step_is_judged_as_if_it_had_just_come() {
        let mut trials: Vec<Trial> = (0..5).map(|n| own(n, State::Complete)).collect();
        trials.iter_mut().for_each(|trial| trial.intermediate.extend([(1, 0.5), (2, 0.5)]));
        let mut bad = own(5, State::Running);
        bad.intermediate.extend([(1, 0.1), (2, 0.9)]);
        trials.push(bad);
        let decide = |steps: Vec<i64>| {
            let limits = limits(9, 1);
            let fresh = BTreeMap::from([(5, steps)]);
            let view = View {
                study: "s",
                limits: &limits,
                goals: &goals(),
                trials: &trials,
                sweep: "me",
                elapsed: Duration::ZERO,
                paused: false,
                remaining: None,
                fresh: &fresh,
            };
            plan(&view, &Percentile::median()).prune
        };
        assert_eq!(decide(vec![2, 1]), [5]);
        assert_eq!(decide(vec![2]), Vec::<i64>::new());
    }

    #[test]
    fn what_the_pruner_keeps_counts_for_the_next_trial_of_the_same_plan() {
        let mut trials: Vec<Trial> = (0..3).map(|n| own(n, State::Running)).collect();
        for (trial, value) in trials.iter_mut().zip([0.5, 0.9, 0.4]) {
            trial.intermediate.extend([(1, value), (2, value), (4, value)]);
        }
        let limits = limits(9, 3);
        let fresh = (0..3).map(|number| (number, vec![4, 2, 1])).collect();
        let view = View {
            study: "s",
            limits: &limits,
            goals: &goals(),
            trials: &trials,
            sweep: "me",
            elapsed: Duration::ZERO,
            paused: false,
            remaining: None,
            fresh: &fresh,
        };
        let decision = plan(&view, &SuccessiveHalving { min_resource: Some(1), ..SuccessiveHalving::default() });
        assert_eq!(decision.prune, [2]);
        let kept: Vec<usize> = decision.system_attrs.values().map(BTreeMap::len).collect();
        assert_eq!(kept, [2, 2, 2], "a trial that stops is judged no further");
        assert_eq!(decision.system_attrs[&2]["quintet:stopped_at"], "1");
        assert_eq!(decision.system_attrs[&1]["completed_rung_1"], "0.9");
    }

    proptest! {
        /// Whatever the trials do: never too many at once or in all, and the sweep comes to an end.
        #[test]
        fn a_sweep_keeps_its_limits_and_ends(
            max_trials in 1usize..30,
            max_parallel in 1usize..8,
            outcomes in proptest::collection::vec((0usize..8, 0u8..10), 1..200),
        ) {
            let limits = limits(max_trials, max_parallel);
            let mut trials: Vec<Trial> = Vec::new();
            let mut outcomes = outcomes.into_iter().cycle();
            let mut ended = None;
            for _ in 0..1000 {
                let decision = decide(&limits, &trials, 0);
                prop_assert_eq!(&decision, &decide(&limits, &trials, 0));
                if let Some(end) = decision.end {
                    ended = Some(end);
                    break;
                }
                for _ in 0..decision.start {
                    trials.push(own(trials.len() as i64, State::Running));
                }
                let running: Vec<usize> =
                    (0..trials.len()).filter(|index| trials[*index].state == State::Running).collect();
                prop_assert!(!running.is_empty() && running.len() <= max_parallel && trials.len() <= max_trials);
                let (which, how) = outcomes.next().unwrap();
                let state = match how { 0..=5 => State::Complete, 6..=7 => State::Pruned, _ => State::Fail };
                let index = running[which % running.len()];
                trials[index] = own(index as i64, state);
            }
            match ended {
                Some(End::MaxTrials) => prop_assert_eq!(trials.len(), max_trials),
                Some(End::Failed(_)) => {
                    let complete = trials.iter().filter(|trial| trial.state == State::Complete).count();
                    let failed = trials.iter().filter(|trial| trial.state == State::Fail).count();
                    prop_assert!(complete == 0 || failed >= max_trials.div_ceil(2) || failed >= 3);
                }
                other => prop_assert!(false, "ended with {:?}", other),
            }
        }
    }
}
