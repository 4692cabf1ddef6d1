"""Writes what Optuna itself computes, for hpo-svc's unit tests to compare with: TPE's split and densities, pruning decisions.

    python tests/peers/optuna_golden.py crates/hpo-svc/testdata

Needs optuna 5.0.0. The output depends on the seeds below alone.
"""

import json
import math
import random
import sys
from pathlib import Path

import numpy as np
import optuna
from optuna.distributions import (
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
    distribution_to_json,
)
from optuna.samplers._tpe.sampler import _split_trials
from optuna.trial import TrialState, create_trial

optuna.logging.set_verbosity(optuna.logging.ERROR)
# Which of several equal observations gets which kernel width is left to numpy's unstable sort; fix it.
unstable_argsort = np.argsort
np.argsort = lambda a, **keywords: unstable_argsort(a, **{"kind": "stable", **keywords})

SPACE = {
    "act": CategoricalDistribution(["relu", None, 3]),
    "batch": IntDistribution(8, 64, step=8),
    "depth": IntDistribution(1, 100, log=True),
    "drop": FloatDistribution(0.0, 0.5, step=0.05),
    "lr": FloatDistribution(1e-5, 1e-1, log=True),
    "mom": FloatDistribution(-1.0, 2.0),
}


def number(value):
    """A JSON number, or the word for what is not finite."""
    if value is None or math.isfinite(value):
        return value
    return "nan" if math.isnan(value) else ("inf" if value > 0 else "-inf")


def trial_json(trial):
    return {
        "number": trial.number,
        "state": trial.state.name,
        "value": number(trial.value) if trial.state == TrialState.COMPLETE else None,
        "params": {name: SPACE[name].to_internal_repr(value) for name, value in trial.params.items()},
        "intermediate": [[step, number(value)] for step, value in sorted(trial.intermediate_values.items())],
    }


def random_params(rng):
    transform = {}
    for name, d in SPACE.items():
        if isinstance(d, CategoricalDistribution):
            transform[name] = rng.choice(d.choices)
        elif isinstance(d, IntDistribution):
            transform[name] = rng.randrange(d.low, d.high + 1, d.step)
        elif d.step is not None:
            transform[name] = round(rng.randrange(0, 11) * d.step, 10)
        elif d.log:
            transform[name] = math.exp(rng.uniform(math.log(d.low), math.log(d.high)))
        else:
            transform[name] = rng.uniform(d.low, d.high)
    return transform


def make_study(rng, direction, n):
    study = optuna.create_study(direction=direction, sampler=optuna.samplers.TPESampler(seed=0))
    for _ in range(n):
        params = random_params(rng)
        state = rng.choices(
            [TrialState.COMPLETE, TrialState.PRUNED, TrialState.RUNNING, TrialState.FAIL], [10, 4, 1, 1]
        )[0]
        reports = {}
        if state != TrialState.FAIL:
            for step in range(rng.randrange(0, 5)):
                reports[step * 3] = rng.choice([rng.gauss(0, 1), rng.gauss(0, 1), math.nan, math.inf])
        value = rng.choice([rng.gauss(0, 1), round(rng.gauss(0, 1)), math.inf]) if state == TrialState.COMPLETE else None
        study.add_trial(
            create_trial(
                state=state, value=value, params=params, distributions=SPACE, intermediate_values=reports
            )
        )
    return study


def tpe_case(seed, direction, n):
    rng = random.Random(seed)
    study = make_study(rng, direction, n)
    sampler = study.sampler
    trials = [t for t in study.get_trials() if t.state != TrialState.FAIL]
    ended = sum(t.state != TrialState.RUNNING for t in trials)
    below, above = _split_trials(study, trials, min(math.ceil(0.1 * ended), 25))
    good = sampler._build_parzen_estimator(study, SPACE, below, handle_below=True)
    bad = sampler._build_parzen_estimator(study, SPACE, above, handle_below=False)
    points = [random_params(rng) for _ in range(12)]
    samples = {
        name: np.array([d.to_internal_repr(p[name]) for p in points], dtype=float) for name, d in SPACE.items()
    }
    return {
        "direction": direction,
        "trials": [trial_json(t) for t in study.get_trials()],
        "below": [t.number for t in below],
        "above": [t.number for t in above],
        "points": [[float(samples[name][i]) for name in SPACE] for i in range(len(points))],
        "log_below": [number(v) for v in good.log_pdf(samples).tolist()],
        "log_above": [number(v) for v in bad.log_pdf(samples).tolist()],
    }


def pruner_case(seed):
    rng = random.Random(seed)
    direction = rng.choice(["minimize", "maximize"])
    settings = {
        "percentile": rng.choice([50.0, 25.0, 90.0]),
        "n_startup_trials": rng.choice([0, 1, 3]),
        "n_warmup_steps": rng.choice([0, 0, 3]),
        "interval_steps": rng.choice([1, 3]),
        "n_min_trials": rng.choice([1, 3]),
    }
    pruner = optuna.pruners.PercentilePruner(**settings)
    study = optuna.create_study(direction=direction, pruner=pruner)
    value = lambda: rng.choices([rng.gauss(0, 1), math.nan, math.inf, -math.inf], [30, 2, 1, 1])[0]
    for _ in range(rng.randrange(0, 13)):
        reports = {step: value() for step in range(rng.randrange(0, 9)) if rng.random() < 0.8}
        state = rng.choice([TrialState.COMPLETE, TrialState.COMPLETE, TrialState.PRUNED])
        study.add_trial(create_trial(state=state, value=0.0 if state == TrialState.COMPLETE else None,
                                     intermediate_values=reports))
    decisions = []
    live = study.ask()
    for step in sorted(rng.sample(range(10), rng.randrange(1, 8))):
        reported = value()
        live.report(reported, step)
        decisions.append([step, number(reported), bool(live.should_prune())])
    return {
        "direction": direction,
        **settings,
        "trials": [trial_json(t) for t in study.get_trials()[:-1]],
        "reports": decisions,
    }


def other_pruner_case(seed):
    """A threshold, or patience around nothing or around a median."""
    rng = random.Random(seed)
    direction = rng.choice(["minimize", "maximize"])
    value = lambda: rng.choices([rng.gauss(0, 1), math.nan, math.inf], [30, 2, 1])[0]
    if rng.random() < 0.5:
        settings = {
            "lower": rng.choice([-1.0, -0.5]),
            "upper": rng.choice([1.0, 1.5]),
            "n_warmup_steps": rng.choice([0, 3]),
            "interval_steps": rng.choice([1, 3]),
        }
        kind, pruner = "threshold", optuna.pruners.ThresholdPruner(**settings)
    else:
        settings = {
            "patience": rng.choice([0, 1, 3]),
            "min_delta": rng.choice([0.0, 0.5]),
            "median": rng.random() < 0.5,
        }
        wrapped = optuna.pruners.MedianPruner(n_startup_trials=0) if settings["median"] else None
        kind = "patient"
        pruner = optuna.pruners.PatientPruner(wrapped, settings["patience"], settings["min_delta"])
    study = optuna.create_study(direction=direction, pruner=pruner)
    for _ in range(4):
        reports = {step: value() for step in range(10)}
        study.add_trial(create_trial(state=TrialState.COMPLETE, value=0.0, intermediate_values=reports))
    decisions = []
    live = study.ask()
    for step in sorted(rng.sample(range(12), 8)):
        reported = value()
        live.report(reported, step)
        decisions.append([step, number(reported), bool(live.should_prune())])
    return {
        "kind": kind,
        "direction": direction,
        **settings,
        "trials": [trial_json(t) for t in study.get_trials()[:-1]],
        "reports": decisions,
    }


def main():
    folder = Path(sys.argv[1])
    folder.mkdir(parents=True, exist_ok=True)
    cases = [
        tpe_case(seed, direction, n)
        for seed, (direction, n) in enumerate(
            (d, n) for d in ("minimize", "maximize") for n in (1, 4, 30, 90)
        )
    ]
    space = [[name, distribution_to_json(d)] for name, d in SPACE.items()]
    write(folder / "tpe.json", {"optuna": optuna.__version__, "space": space, "cases": cases})
    others = [other_pruner_case(seed) for seed in range(60)]
    write(folder / "pruners.json", {"optuna": optuna.__version__, "cases": others})
    write(folder / "percentile.json", {"optuna": optuna.__version__, "cases": [pruner_case(s) for s in range(80)]})


def write(path, document):
    path.write_text(json.dumps(document, separators=(",", ":"), allow_nan=False) + "\n")


if __name__ == "__main__":
    import warnings

    warnings.simplefilter("ignore")
    main()
