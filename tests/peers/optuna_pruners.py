"""Writes what Optuna's pruners of rungs and ranks decide, for hpo-svc's unit tests to compare with.

    python tests/peers/optuna_pruners.py crates/hpo-svc/testdata

rungs.json: studies under SuccessiveHalvingPruner and HyperbandPruner, event by event, with every decision and every attribute
that the pruner leaves at a trial; brackets of Hyperband by its settings. wilcoxon.json: decisions of WilcoxonPruner, and p-values
of scipy. Needs optuna 5.0.0 and scipy 1.17. The output depends on the seeds below alone.
"""

import math
import random
import sys
from pathlib import Path

import numpy as np
import optuna
import scipy
from optuna.trial import TrialState, create_trial
from optuna_golden import number, trial_json, write


def any_value(rng, odd=0.06):
    """Mostly a number; one decimal now and then, so that there are equals."""
    if rng.random() < odd:
        return rng.choice([math.nan, math.inf, -math.inf])
    value = round(rng.gauss(0, 1), 3)
    return round(value, 1) if rng.random() < 0.3 else value


def halving_settings(rng):
    auto = rng.random() < 0.4
    return {
        "min_resource": "auto" if auto else rng.choice([1, 1, 2, 5]),
        "reduction_factor": rng.choice([2, 3, 4]),
        "min_early_stopping_rate": rng.choice([0, 0, 1]),
        "bootstrap_count": 0 if auto else rng.choice([0, 0, 2]),
    }


def hyperband_settings(rng):
    auto = rng.random() < 0.4
    return {
        "min_resource": rng.choice([1, 1, 2]),
        "max_resource": "auto" if auto else rng.choice([1, 9, 30, 81]),
        "reduction_factor": rng.choice([2, 3, 4]),
        "bootstrap_count": 0 if auto else rng.choice([0, 0, 2]),
    }


def rung_case(seed):
    """A study with up to four trials at a time. Some go on although they were told to stop, some report steps out of order."""
    rng = random.Random(seed)
    kind = rng.choice(["halving", "hyperband"])
    settings = halving_settings(rng) if kind == "halving" else hyperband_settings(rng)
    pruner = (optuna.pruners.SuccessiveHalvingPruner if kind == "halving" else optuna.pruners.HyperbandPruner)(**settings)
    direction = rng.choice(["minimize", "maximize"])
    study = optuna.create_study(study_name=f"études {seed}", direction=direction, pruner=pruner)
    stride = rng.choice([1, 1, 3, 7, 40])
    length = rng.choice([4, 10, 25])
    obeys = rng.choice([1.0, 0.5])
    events, running, started = [], {}, 0
    while (started < 24 or running) and len(events) < 260:
        if started < 24 and (not running or (len(running) < 4 and rng.random() < 0.4)):
            trial = study.ask()
            running[trial.number] = (trial, [])
            started += 1
            events.append(["start", trial.number])
            continue
        key = rng.choice(sorted(running))
        trial, steps = running[key]
        if len(steps) >= length or rng.random() < 0.03:
            state = rng.choices([TrialState.COMPLETE, TrialState.FAIL], [9, 1])[0]
            study.tell(trial, any_value(rng, 0.0) if state == TrialState.COMPLETE else None, state=state)
            events.append(["end", key, state.name])
            del running[key]
            continue
        step = max(steps, default=-1) + rng.randint(1, 2 * stride - 1)
        if steps and rng.random() < 0.05:
            step = rng.randrange(0, max(steps) + 1)
        if step in steps:
            continue
        value = any_value(rng)
        trial.report(value, step)
        steps.append(step)
        before = set(study.get_trials(deepcopy=False)[key].system_attrs)
        prune = bool(trial.should_prune())
        after = study.get_trials(deepcopy=False)[key].system_attrs
        rungs = {name: number(v) for name, v in after.items() if name not in before}
        events.append(["report", key, step, number(value), prune, rungs])
        if prune and rng.random() < obeys:
            study.tell(trial, state=TrialState.PRUNED)
            events.append(["end", key, "PRUNED"])
            del running[key]
    return {"kind": kind, "direction": direction, "study": study.study_name, **settings, "events": events}


def bracket_case(seed):
    """Which brackets the trials of a study fall into."""
    rng = random.Random(seed)
    settings = {
        "min_resource": rng.choice([1, 2, 3, 10]),
        "max_resource": rng.choice([1, 2, 5, 27, 64, 81, 125, 243, 1000, 10**6]),
        "reduction_factor": rng.choice([2, 3, 4, 5, 10]),
    }
    pruner = optuna.pruners.HyperbandPruner(**settings)
    study = optuna.create_study(study_name=f"b-{seed}", pruner=pruner)
    pruner._try_initialization(study)
    trials = [create_trial(state=TrialState.RUNNING) for _ in range(20)]
    for n, trial in enumerate(trials):
        trial.number = n * n * 37
    brackets = [[t.number, pruner._get_bracket_id(study, t) if pruner._pruners else None] for t in trials]
    return {**settings, "study": study.study_name, "budgets": pruner._trial_allocation_budgets, "brackets": brackets}


def wilcoxon_case(seed):
    rng = random.Random(seed)
    direction = rng.choice(["minimize", "maximize"])
    settings = {"p_threshold": rng.choice([0.1, 0.05, 0.3]), "n_startup_steps": rng.choice([0, 2, 5])}
    pruner = optuna.pruners.WilcoxonPruner(**settings)
    study = optuna.create_study(direction=direction, pruner=pruner)
    n = rng.choice([5, 12, 20, 70])
    hard = [rng.gauss(0, 3) for _ in range(n)]
    coarse = rng.random() < 0.4
    odd = rng.choice([0.0, 0.0, 0.02])

    def instance(step, offset):
        value = hard[step] + offset + rng.gauss(0, 0.5)
        return rng.choice([math.nan, math.inf]) if rng.random() < odd else (float(round(value)) if coarse else value)

    for _ in range(rng.choice([0, 1, 4])):
        offset = rng.gauss(0, 0.5)
        reports = {step: instance(step, offset) for step in range(n) if rng.random() < 0.95}
        state = rng.choice([TrialState.COMPLETE, TrialState.COMPLETE, TrialState.PRUNED])
        finite = [v for v in reports.values() if math.isfinite(v)]
        value = sum(finite) / len(finite) if state == TrialState.COMPLETE and finite else None
        if value is not None or state == TrialState.PRUNED:
            study.add_trial(create_trial(state=state, value=value, intermediate_values=reports))
    live = study.ask()
    offset = rng.gauss(0, 0.7)
    decisions = []
    for step in rng.sample(range(n), n):
        value = instance(step, offset)
        live.report(value, step)
        decisions.append([step, number(value), bool(live.should_prune())])
    trials = [trial_json(t) for t in study.get_trials()[:-1]]
    return {"direction": direction, **settings, "trials": trials, "reports": decisions}


def signed_rank_case(seed):
    rng = random.Random(seed)
    n = rng.choice([2, 3, 5, 9, 13, 14, 20, 49, 50, 51, 90])
    coarse = rng.choice([None, 1, 0])
    d = [rng.gauss(0.2, 1) for _ in range(n)]
    d = d if coarse is None else [round(x, coarse) + 0.0 for x in d]
    p = [float(scipy.stats.wilcoxon(np.array(d), alternative=a, zero_method="zsplit").pvalue) for a in ("less", "greater")]
    return {"d": d, "less": p[0], "greater": p[1]}


def main():
    folder = Path(sys.argv[1])
    versions = {"optuna": optuna.__version__, "scipy": scipy.__version__}
    rungs = {"cases": [rung_case(s) for s in range(60)], "brackets": [bracket_case(s) for s in range(60)]}
    write(folder / "rungs.json", {**versions, **rungs})
    ranks = {"cases": [wilcoxon_case(s) for s in range(40)], "signed_rank": [signed_rank_case(s) for s in range(80)]}
    write(folder / "wilcoxon.json", {**versions, **ranks})


if __name__ == "__main__":
    import warnings

    warnings.simplefilter("ignore")
    main()
