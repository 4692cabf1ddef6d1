"""Optuna's side of studies as files: makes a study in a SQLite file, compares studies of two files, goes on with one.

    python tests/peers/optuna_files.py make FILE
    python tests/peers/optuna_files.py compare FILE NAME FILE NAME
    python tests/peers/optuna_files.py go-on FILE NAME TRIALS

Needs optuna 5.0.0.
"""

import sys

import optuna
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

optuna.logging.set_verbosity(optuna.logging.WARNING)


def storage(file):
    return f"sqlite:///{file}"


def objective(trial):
    x = trial.suggest_float("x", 1e-5, 1.0, log=True)
    n = trial.suggest_int("n", 0, 12, step=3)
    kind = trial.suggest_categorical("kind", ["ä", None, 0.5, True])
    if kind is None:
        trial.suggest_float("depends", -1.0, 1.0)
    trial.set_user_attr("note", {"of": [trial.number, float("nan")], "text": "NaN"})
    trial.set_user_attr("odd", [2**64 - 1, -(2**200), "\ud800", "\\json:1", {"\udc00": 1e400}])
    for step, value in enumerate([float("nan"), float("inf"), x]):
        trial.report(value, step)
    if trial.number % 5 == 3:
        raise optuna.TrialPruned
    return float("-inf") if trial.number == 7 else x + n


def make(file):
    study = optuna.create_study(
        storage=storage(file),
        study_name="theirs / ü",
        direction="maximize",
        sampler=optuna.samplers.TPESampler(seed=1),
        load_if_exists=True,
    )
    study.set_user_attr("about", ["a study", 1e300])
    study.set_metric_names(["f1"])
    study.optimize(objective, n_trials=14)
    wide = {
        "open": FloatDistribution(0.0, float("inf")),
        "wide": IntDistribution(0, 2**64),
        "seed": CategoricalDistribution([2**64 - 1, "\ud800", True]),
    }
    for seed in wide["seed"].choices:
        params = {"open": 1e300, "wide": 2**63, "seed": seed}
        failed = optuna.trial.TrialState.FAIL
        study.add_trial(optuna.trial.create_trial(state=failed, params=params, distributions=wide))
    study.ask()
    study.tell(study.ask(), state=optuna.trial.TrialState.FAIL)
    study.enqueue_trial({"x": 0.25}, user_attrs={"queued": True})


def comparable(study):
    trials = []
    for trial in study.trials:
        # Ids are the storage's own. NaN equals nothing: as text it does.
        fields = {key: value for key, value in vars(trial).items() if key != "_trial_id"}
        # The order of parameters is not that of the dictionary everywhere.
        fields["_params"] = sorted(trial.params.items())
        fields["_distributions"] = sorted(trial.distributions.items())
        trials.append(repr(fields))
    attributes = {key: value for key, value in study.user_attrs.items()}
    return trials, repr((study.directions, sorted(attributes.items()), study.metric_names))


def compare(file, name, other_file, other_name):
    one = optuna.load_study(study_name=name, storage=storage(file))
    other = optuna.load_study(study_name=other_name, storage=storage(other_file))
    (ours, attributes), (theirs, other_attributes) = comparable(one), comparable(other)
    assert attributes == other_attributes, f"{attributes}\n{other_attributes}"
    assert len(ours) == len(theirs), (len(ours), len(theirs))
    for mine, yours in zip(ours, theirs):
        assert mine == yours, f"{mine}\n{yours}"
    print(len(ours))


def go_on(file, name, trials):
    study = optuna.load_study(study_name=name, storage=storage(file))
    study.optimize(objective, n_trials=int(trials))
    print(len(study.trials))


if __name__ == "__main__":
    {"make": make, "compare": compare, "go-on": go_on}[sys.argv[1]](*sys.argv[2:])
