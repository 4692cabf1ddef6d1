"""Measures ask, seven suggestions and tell of Optuna and Rustuna in memory by the protocol of `speed.rs`, and prints JSON.

    python tests/bench/hpo/speed_peers.py 100 1000 5000 20000 [--rounds 30]

TPE with default settings, 5 floats and 2 categoricals, studies filled with random finished trials. For each length of the
history the median time of a trial in milliseconds. Needs optuna 5.0.0; Rustuna (0.2.0) is left out when it is not installed.
"""

import argparse
import json
import random
import statistics
import time

import optuna

CHOICES = ["a", "b", "c"]


def suggest(trial):
    x = [trial.suggest_float(f"x{i}", 0.0, 1.0) for i in range(5)]
    kinds = [trial.suggest_categorical(f"c{i}", CHOICES) for i in range(2)]
    return sum((value - 0.3) ** 2 for value in x) + 0.1 * kinds.count("a")


def random_params(generator):
    params = {f"x{i}": generator.random() for i in range(5)}
    params.update({f"c{i}": generator.choice(CHOICES) for i in range(2)})
    return params


def value_of(params):
    return sum((params[f"x{i}"] - 0.3) ** 2 for i in range(5)) + 0.1 * [params[f"c{i}"] for i in range(2)].count("a")


def median_ms(study, rounds):
    times = []
    for _ in range(rounds + 3):
        start = time.perf_counter()
        trial = study.ask()
        value = suggest(trial)
        # Rustuna takes the number, Optuna either.
        study.tell(trial.number, value)
        times.append(time.perf_counter() - start)
    return statistics.median(times[3:]) * 1e3


def of_optuna(count, rounds):
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    from optuna.distributions import CategoricalDistribution, FloatDistribution

    space = {f"x{i}": FloatDistribution(0.0, 1.0) for i in range(5)}
    space.update({f"c{i}": CategoricalDistribution(CHOICES) for i in range(2)})
    study, generator = optuna.create_study(sampler=optuna.samplers.TPESampler(seed=1)), random.Random(count)
    for _ in range(count):
        params = random_params(generator)
        study.add_trial(optuna.create_trial(params=params, distributions=space, value=value_of(params)))
    return median_ms(study, rounds)


def of_rustuna(count, rounds):
    import rustuna

    # The history is made by the random sampler: its trials are what the benchmark's are.
    study = rustuna.create_study(sampler=rustuna.samplers.RandomSampler(seed=count))
    study.optimize(suggest, n_trials=count)
    study = rustuna.load_study(
        study_name=study.study_name, storage=study._storage, sampler=rustuna.samplers.TPESampler(seed=1)
    )
    return median_ms(study, rounds)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("counts", type=int, nargs="+")
    parser.add_argument("--rounds", type=int, default=30)
    arguments = parser.parse_args()
    results = {"optuna": {}, "rustuna": {}}
    for count in arguments.counts:
        results["optuna"][count] = of_optuna(count, arguments.rounds)
        try:
            results["rustuna"][count] = of_rustuna(count, arguments.rounds)
        except ImportError:
            pass
    print(json.dumps(results))


if __name__ == "__main__":
    main()
