"""Writes what Optuna itself computes about finished studies, for hpo-svc's unit tests to compare with: parameter importances, and
the table of trials as pandas writes it.

    python tests/peers/view_golden.py crates/hpo-svc/testdata

Needs optuna 5.0.0, scikit-learn and pandas. The output depends on the seeds below alone.
"""

import datetime
import json
import math
import random
import sys
from pathlib import Path

import numpy as np
import optuna
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution, distribution_to_json
from optuna.importance import FanovaImportanceEvaluator
from optuna.importance._fanova import _evaluator as fanova
from optuna.trial import FrozenTrial, TrialState, create_trial

optuna.logging.set_verbosity(optuna.logging.ERROR)

# Forests of as many seeds say how far one forest may be from another.
FOREST_SEEDS = 12


def number(value):
    """A JSON number, or the word for what is not finite."""
    if value is None or math.isfinite(value):
        return value
    return "nan" if math.isnan(value) else ("inf" if value > 0 else "-inf")


def sample(rng, distribution):
    d = distribution
    if isinstance(d, CategoricalDistribution):
        return rng.choice(d.choices)
    if d.log:
        value = math.exp(rng.uniform(math.log(d.low), math.log(d.high)))
        return min(d.high, round(value)) if isinstance(d, IntDistribution) else value
    if d.step is not None:
        steps = round((d.high - d.low) / d.step)
        value = d.low + d.step * rng.randint(0, steps)
        return value if isinstance(d, IntDistribution) else round(value, 10)
    return rng.uniform(d.low, d.high)


QUADRATIC = {name: FloatDistribution(-3.0, 3.0) for name in "abc"}
MIXED = {
    "act": CategoricalDistribution(["relu", "gelu", None, 3]),
    "batch": IntDistribution(8, 64, step=8),
    "depth": IntDistribution(1, 100, log=True),
    "drop": FloatDistribution(0.0, 0.5, step=0.05),
    "fixed": FloatDistribution(1.0, 1.0),
    "flag": CategoricalDistribution([True, False]),
    "lr": FloatDistribution(1e-5, 1e-1, log=True),
}


def quadratic(p):
    return 4.0 * p["a"] ** 2 + p["b"] + 0.1 * p["c"] ** 2


def mixed(p):
    act = {"relu": 0.0, "gelu": 1.0, None: 2.0, 3: 0.5}[p["act"]]
    return act + 20.0 * p["lr"] + 0.02 * p["batch"] + 0.3 * p["flag"] + (p["drop"] - 0.2) ** 2 + 0.001 * p["depth"]


def conditional(rng):
    space = {"kind": CategoricalDistribution(["sgd", "adam"]), "wd": FloatDistribution(1e-6, 1e-2, log=True)}
    params = {name: sample(rng, d) for name, d in space.items()}
    if params["kind"] == "sgd":
        space["momentum"] = FloatDistribution(0.0, 1.0) if rng.random() < 0.7 else FloatDistribution(0.5, 1.0)
        params["momentum"] = sample(rng, space["momentum"])
        value = (params["momentum"] - 0.8) ** 2
    else:
        value = 0.2 + rng.gauss(0, 0.05)
    return space, params, [value + 0.02 * abs(math.log(params["wd"] / 1e-4))]


def uniform(space, objective):
    def make(rng):
        params = {name: sample(rng, d) for name, d in space.items()}
        values = objective(params)
        return space, params, list(values) if isinstance(values, tuple) else [values]

    return make


def two(p):
    return p["a"] ** 2 + 0.05 * p["c"], (p["a"] - 2.0) ** 2 + p["b"] ** 2


def three(p):
    return round(p["a"], 1), round(-p["a"] + p["b"] ** 2, 1), p["c"] ** 2


CASES = [
    ("quadratic", ["minimize"], 100, uniform(QUADRATIC, quadratic)),
    ("quadratic, maximised", ["maximize"], 60, uniform(QUADRATIC, quadratic)),
    ("mixed", ["minimize"], 150, uniform(MIXED, mixed)),
    ("conditional", ["minimize"], 120, conditional),
    ("two objectives", ["minimize", "minimize"], 120, uniform(QUADRATIC, two)),
    ("three objectives", ["minimize", "maximize", "minimize"], 90, uniform(QUADRATIC, three)),
]


def importances(study, evaluator, target=None):
    return optuna.importance.get_param_importances(study, evaluator=evaluator, target=target)


def forests(study, target):
    runs = [importances(study, FanovaImportanceEvaluator(seed=seed), target) for seed in range(FOREST_SEEDS)]
    return {
        name: {"mean": float(np.mean([run[name] for run in runs])), "std": float(np.std([run[name] for run in runs]))}
        for name in sorted(runs[0])
    }


def importance_case(seed, name, directions, n, make):
    rng = random.Random(seed)
    study = optuna.create_study(directions=directions)
    for _ in range(n):
        space, params, values = make(rng)
        state = rng.choices([TrialState.COMPLETE, TrialState.FAIL, TrialState.RUNNING], [20, 1, 1])[0]
        if rng.random() < 0.02:
            values = [math.inf, *values[1:]]
        complete = state == TrialState.COMPLETE
        trial = create_trial(state=state, values=values if complete else None, params=params, distributions=space)
        study.add_trial(trial)
    target = None if len(directions) == 1 else (lambda trial: trial.values[1])
    case = {
        "name": name,
        "directions": directions,
        "trials": [trial_json(trial) for trial in study.get_trials()],
        "fanova": forests(study, target),
    }
    plain = fanova._SearchSpaceTransform
    fanova._SearchSpaceTransform = lambda space, **options: plain(space, **{**options, "transform_log": True})
    case["fanova_log"] = forests(study, target)
    fanova._SearchSpaceTransform = plain
    return case


DISTRIBUTIONS = []


def reference(distribution):
    """The distribution's place in the document's list: the same few texts would fill most of the file."""
    text = distribution_to_json(distribution)
    if text not in DISTRIBUTIONS:
        DISTRIBUTIONS.append(text)
    return DISTRIBUTIONS.index(text)


def trial_json(trial):
    return {
        "number": trial.number,
        "state": trial.state.name,
        "values": [number(value) for value in trial.values or []],
        "params": {
            name: [number(d.to_internal_repr(trial.params[name])), reference(d)]
            for name, d in trial.distributions.items()
        },
    }


def table_study(directions, metric_names):
    study = optuna.create_study(directions=directions)
    if metric_names:
        study.set_metric_names(metric_names)
    rng = random.Random(7)
    start = datetime.datetime(2026, 1, 2, 3, 4, 5)
    states = [TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAIL, TrialState.RUNNING, TrialState.WAITING]
    for index in range(10):
        state = states[index % 5] if index else TrialState.COMPLETE
        space = {k: d for k, d in MIXED.items() if not (k == "drop" and index % 3 == 1)}
        params = {} if state == TrialState.WAITING else {k: sample(rng, d) for k, d in space.items()}
        space = {k: d for k, d in space.items() if k in params}
        values = [math.inf if index == 5 else rng.gauss(0, 1e-5) for _ in directions]
        begun = start + datetime.timedelta(hours=30 * index, microseconds=1234 * index)
        ended = begun + datetime.timedelta(seconds=rng.uniform(0.1, 1e5))
        study.add_trial(
            FrozenTrial(
                number=index, trial_id=index, state=state, value=None,
                values=values if state == TrialState.COMPLETE else None,
                datetime_start=None if state == TrialState.WAITING else begun,
                datetime_complete=ended if state.is_finished() else None,
                params=params, distributions=space, intermediate_values={},
                user_attrs={"note": 'a "quoted", text\nof two lines', "ok": index % 4 == 1} if index % 2 else {"score": 1.5},
                system_attrs={"retry": index} if index == 3 else {},
            )
        )
    return study


def table_case(directions, metric_names):
    study = table_study(directions, metric_names)
    instant = lambda moment: None if moment is None else moment.isoformat() + "Z"
    rows = []
    for trial in study.get_trials():
        attributes = lambda attrs: {key: json.dumps(value) for key, value in attrs.items()}
        rows.append(
            {
                **trial_json(trial),
                "start": instant(trial.datetime_start),
                "complete": instant(trial.datetime_complete),
                "user_attrs": attributes(trial.user_attrs),
                "system_attrs": attributes(trial.system_attrs),
            }
        )
    return {
        "directions": directions,
        "metric_names": metric_names,
        "trials": rows,
        "csv": study.trials_dataframe().to_csv(index=False, lineterminator="\r\n"),
    }


def main():
    folder = Path(sys.argv[1])
    cases = [importance_case(seed, *case) for seed, case in enumerate(CASES)]
    write(folder / "importances.json", {"optuna": optuna.__version__, "cases": cases})
    tables = [(["minimize"], []), (["minimize", "maximize"], []), (["minimize", "maximize"], ["loss", "f1"])]
    write(folder / "dataframe.json", {"optuna": optuna.__version__, "cases": [table_case(*t) for t in tables]})


def write(path, document):
    document = {**document, "distributions": DISTRIBUTIONS}
    path.write_text(json.dumps(document, separators=(",", ":"), allow_nan=False) + "\n")


if __name__ == "__main__":
    import warnings

    warnings.simplefilter("ignore")
    main()
