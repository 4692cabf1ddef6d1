"""Opens a study with Optuna itself and prints it as JSON; `--continue N` first runs N more trials of a toy objective in it.

    python tests/peers/optuna_study.py STORAGE_URL STUDY_NAME [--continue N]

Needs optuna 5.0.0 (and psycopg for PostgreSQL). Non-finite numbers are printed as the words nan, inf and -inf.
"""

import argparse
import json
import math
from datetime import timezone

import optuna
from optuna.distributions import CategoricalDistribution, distribution_to_json


def number(value):
    if value is None or math.isfinite(value):
        return value
    return "nan" if math.isnan(value) else ("inf" if value > 0 else "-inf")


def when(moment):
    """Microseconds since the epoch; Optuna gives naive local time."""
    return None if moment is None else round(moment.astimezone(timezone.utc).timestamp() * 1_000_000)


def suggest(trial, name, distribution):
    if isinstance(distribution, CategoricalDistribution):
        return trial.suggest_categorical(name, distribution.choices)
    if isinstance(distribution, optuna.distributions.IntDistribution):
        return trial.suggest_int(
            name, distribution.low, distribution.high, step=distribution.step, log=distribution.log
        )
    return trial.suggest_float(
        name, distribution.low, distribution.high, step=distribution.step, log=distribution.log
    )


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("storage")
    parser.add_argument("study")
    parser.add_argument("--continue", type=int, default=0, dest="more")
    arguments = parser.parse_args()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    study = optuna.load_study(
        study_name=arguments.study, storage=arguments.storage, sampler=optuna.samplers.TPESampler(seed=1)
    )
    if arguments.more:
        space = next(t.distributions for t in study.get_trials() if t.distributions)

        def objective(trial):
            values = [suggest(trial, name, distribution) for name, distribution in space.items()]
            trial.report(0.5, step=1)
            return sum(v for v in values if isinstance(v, (int, float)))

        study.optimize(objective, n_trials=arguments.more)
    trials = [
        {
            "number": trial.number,
            "state": trial.state.name,
            "values": None if trial.values is None else [number(v) for v in trial.values],
            "params": {k: number(v) if isinstance(v, float) else v for k, v in trial.params.items()},
            "distributions": {k: distribution_to_json(d) for k, d in trial.distributions.items()},
            "intermediate_values": {str(s): number(v) for s, v in trial.intermediate_values.items()},
            "user_attrs": trial.user_attrs,
            "start": when(trial.datetime_start),
            "complete": when(trial.datetime_complete),
        }
        for trial in study.get_trials()
    ]
    complete = [t for t in study.get_trials() if t.state == optuna.trial.TrialState.COMPLETE]
    print(
        json.dumps(
            {
                "optuna": optuna.__version__,
                "name": study.study_name,
                "direction": study.direction.name,
                "metric_names": study.metric_names,
                "user_attrs": study.user_attrs,
                "best": study.best_trial.number if complete else None,
                "trials": trials,
            },
            allow_nan=False,
        )
    )


if __name__ == "__main__":
    main()
