"""Compares hpo-svc's samplers with Optuna's on several objectives: the hypervolume after a number of trials, paired by problem and seed.

    cargo build --release -p hpo-svc --example ask_tell
    python tests/bench/hpo/pareto.py target/release/examples/ask_tell [--seeds 10] [--trials 200] [--samplers nsga2,tpe]
        [--problems zdt1,zdt3] [--json FILE]

Needs optuna 5.0.0. A pair is the same sampler with its defaults, ours and Optuna's, on the same problem with the same seed; a win is
the larger hypervolume of the feasible trials below the problem's reference point, a tie counts half. The ratio is ours to Optuna's,
the mean of each problem's mean volumes. `tpe-joint` is TPE with all parameters modelled together, `random` is there for scale.
"""

import argparse
import json
import math
import subprocess
import time
import warnings

import numpy as np
import optuna
from optuna._hypervolume import compute_hypervolume
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution, distribution_to_json

N = 4


def zdt(p):
    x = [p[f"x{i}"] for i in range(N)]
    return x[0], 1 + 9 * sum(x[1:]) / (N - 1)


def zdt1(p):
    f, g = zdt(p)
    return [f, g * (1 - math.sqrt(f / g))], []


def zdt2(p):
    f, g = zdt(p)
    return [f, g * (1 - (f / g) ** 2)], []


def zdt3(p):
    f, g = zdt(p)
    return [f, g * (1 - math.sqrt(f / g) - f / g * math.sin(10 * math.pi * f))], []


def binh_korn(p):
    """Two objectives, two constraints of which one is active along a part of the front (Binh and Korn, 1997)."""
    x, y = p["x"], p["y"]
    constraints = [(x - 5) ** 2 + y * y - 25, 7.7 - (x - 8) ** 2 - (y + 3) ** 2]
    return [4 * x * x + 4 * y * y, (x - 5) ** 2 + (y - 5) ** 2], constraints


def srinivas(p):
    """Most of the box breaks one of the two constraints (Srinivas and Deb, 1994)."""
    x, y = p["x"], p["y"]
    constraints = [x * x + y * y - 225, x - 3 * y + 10]
    return [2 + (x - 2) ** 2 + (y - 1) ** 2, 9 * x - (y - 1) ** 2], constraints


def encoder(p):
    """Shaped like the tuning of an encoder: the loss against the cost, over the usual mixture of domains; a limit on memory."""
    loss = 0.6 * (math.log10(p["lr"]) + 4.3) ** 2 + 2 / (1 + p["layers"]) + 0.15 * (p["dropout"] - 0.15) ** 2
    loss += {"linear": 0.05, "cosine": 0.0, "constant": 0.2}[p["schedule"]] + 8 / p["width"]
    cost = p["layers"] * (p["width"] / 64) ** 1.5 * {"linear": 1.0, "cosine": 1.05, "constant": 1.0}[p["schedule"]]
    return [loss, cost], [p["layers"] * p["width"] * p["batch"] / 60000 - 1, 0.2 - p["batch"] / 64]


ZDT = {f"x{i}": FloatDistribution(0, 1) for i in range(N)}
PROBLEMS = {
    "zdt1": (zdt1, ZDT, [1.1, 6.0]),
    "zdt2": (zdt2, ZDT, [1.1, 6.0]),
    "zdt3": (zdt3, ZDT, [1.1, 6.0]),
    "binh-korn": (binh_korn, {"x": FloatDistribution(0, 5), "y": FloatDistribution(0, 3)}, [140.0, 50.0]),
    "srinivas": (srinivas, {"x": FloatDistribution(-20, 20), "y": FloatDistribution(-20, 20)}, [250.0, 0.0]),
    "encoder": (
        encoder,
        {
            "lr": FloatDistribution(1e-6, 1e-2, log=True),
            "layers": IntDistribution(1, 12),
            "width": IntDistribution(64, 768, step=64),
            "batch": CategoricalDistribution([8, 16, 32, 64]),
            "dropout": FloatDistribution(0.0, 0.5, step=0.05),
            "schedule": CategoricalDistribution(["linear", "cosine", "constant"]),
        },
        [3.0, 120.0],
    ),
}
SAMPLERS = {
    "nsga2": ("nsga2", {}, lambda seed: optuna.samplers.NSGAIISampler(seed=seed)),
    "nsga2-small": (
        "nsga2",
        {"population_size": 20},
        lambda seed: optuna.samplers.NSGAIISampler(seed=seed, population_size=20),
    ),
    "tpe": ("tpe", {}, lambda seed: optuna.samplers.TPESampler(seed=seed)),
    "tpe-joint": ("tpe", {"multivariate": True}, lambda seed: optuna.samplers.TPESampler(seed=seed, multivariate=True)),
    "random": ("random", {}, lambda seed: optuna.samplers.RandomSampler(seed=seed)),
}


def volume(results, reference):
    """Of the trials that break no constraint."""
    points = [v for v, c in results if all(x <= 0 for x in c) and all(a <= b for a, b in zip(v, reference))]
    return float(compute_hypervolume(np.array(points), np.array(reference))) if points else 0.0


class Ours:
    def __init__(self, program):
        self.process = subprocess.Popen([program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1)

    def send(self, message):
        self.process.stdin.write(json.dumps(message) + "\n")

    def run(self, problem, space, seed, trials, sampler, settings):
        texts = {name: distribution_to_json(d) for name, d in space.items()}
        new = {"space": texts, "seed": seed, "sampler": sampler, "settings": settings, "directions": ["minimize"] * 2}
        self.send({"new": new})
        results = []
        for _ in range(trials):
            self.send({"ask": True})
            results.append(problem(json.loads(self.process.stdout.readline())))
            self.send({"tell": results[-1][0], "constraints": results[-1][1]})
        return results


def optunas(problem, space, trials, sampler):
    study = optuna.create_study(directions=["minimize"] * 2, sampler=sampler)
    results = []
    for _ in range(trials):
        trial = study.ask(space)
        results.append(problem(trial.params))
        for index, value in enumerate(results[-1][1]):
            trial.set_constraint(str(index), value)
        study.tell(trial, results[-1][0])
    return results


def row(ours, name, key, arguments, seconds):
    """One problem with one sampler."""
    (problem, space, reference), (sampler, settings, theirs) = PROBLEMS[name], SAMPLERS[key]
    volumes = {"ours": [], "optuna": []}
    for seed in range(arguments.seeds):
        start = time.perf_counter()
        mine = ours.run(problem, space, seed, arguments.trials, sampler, settings)
        middle = time.perf_counter()
        other = optunas(problem, space, arguments.trials, theirs(seed))
        seconds["ours"] += middle - start
        seconds["optuna"] += time.perf_counter() - middle
        volumes["ours"].append(volume(mine, reference))
        volumes["optuna"].append(volume(other, reference))
    wins = sum((a > b) + (a == b) / 2 for a, b in zip(volumes["ours"], volumes["optuna"]))
    mean = {who: sum(found) / len(found) for who, found in volumes.items()}
    ratio = mean["ours"] / mean["optuna"] if mean["optuna"] > 0 else math.nan
    print(
        f"{key:12} {name:10} wins {wins:4.1f} of {arguments.seeds}; mean volume {mean['ours']:.5g} and"
        f" {mean['optuna']:.5g}, ratio {ratio:.4f}",
        flush=True,
    )
    return {"sampler": key, "problem": name, "wins": wins, "ratio": ratio, "volumes": volumes}


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("program")
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--trials", type=int, default=200)
    parser.add_argument("--samplers", default="nsga2,tpe")
    parser.add_argument("--problems", default=",".join(PROBLEMS))
    parser.add_argument("--json")
    arguments = parser.parse_args()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    warnings.simplefilter("ignore")
    ours = Ours(arguments.program)
    document = {"optuna": optuna.__version__, "trials": arguments.trials, "seeds": arguments.seeds, "rows": []}
    for key in arguments.samplers.split(","):
        seconds = {"ours": 0.0, "optuna": 0.0}
        rows = [row(ours, name, key, arguments, seconds) for name in arguments.problems.split(",")]
        pairs = arguments.seeds * len(rows)
        share, error = sum(r["wins"] for r in rows) / pairs, 0.5 / math.sqrt(pairs)
        ratio = sum(r["ratio"] for r in rows) / len(rows)
        print(f"{key:12} together   {share:.1%} of {pairs} pairs (50% is equal, standard error {error:.1%}),", end=" ")
        print(f"mean ratio {ratio:.4f}; seconds: ours {seconds['ours']:.1f}, Optuna {seconds['optuna']:.1f}")
        document["rows"] += rows
        document[key] = {"share": share, "ratio": ratio, "seconds": seconds}
    if arguments.json:
        with open(arguments.json, "w") as file:
            json.dump(document, file, indent=1)


if __name__ == "__main__":
    main()
