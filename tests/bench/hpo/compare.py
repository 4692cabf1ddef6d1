"""Compares hpo-svc's samplers with Optuna's: the best value after a number of trials, paired by function and seed.

    cargo build --release -p hpo-svc --example ask_tell
    python tests/bench/hpo/compare.py target/release/examples/ask_tell \\
        [--sampler tpe] [--functions branin,tuning] [--seeds 20] [--trials 80] [--json FILE]

Needs optuna 5.0.0; for --sampler cmaes and cmaes-margin also cmaes 0.13.1, for qmc also scipy, for gp also
torch and scipy.
Both get the same functions, which span floats, log floats, grids, integers and choices; smaller is better.
A win is a smaller best value; a tie counts half. A ratio is the geometric mean of our best values over theirs.
"""

import argparse
import json
import math
import subprocess
import time
import warnings

import optuna
from optuna.distributions import (
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
    distribution_to_json,
)


def floats(n, low, high):
    return {f"x{i}": FloatDistribution(low, high) for i in range(n)}


def branin(p):
    x, y = p["x"], p["y"]
    a = y - 5.1 / (4 * math.pi**2) * x * x + 5 / math.pi * x - 6
    return a * a + 10 * (1 - 1 / (8 * math.pi)) * math.cos(x) + 10


A = [[10, 3, 17, 3.5, 1.7, 8], [0.05, 10, 17, 0.1, 8, 14], [3, 3.5, 1.7, 10, 17, 8], [17, 8, 0.05, 10, 0.1, 14]]
P = [
    [0.1312, 0.1696, 0.5569, 0.0124, 0.8283, 0.5886],
    [0.2329, 0.4135, 0.8307, 0.3736, 0.1004, 0.9991],
    [0.2348, 0.1451, 0.3522, 0.2883, 0.3047, 0.6650],
    [0.4047, 0.8828, 0.8732, 0.5743, 0.1091, 0.0381],
]


def hartmann6(p):
    x = [p[f"x{i}"] for i in range(6)]
    terms = (sum(a * (v - q) ** 2 for a, v, q in zip(A[i], x, P[i])) for i in range(4))
    return -sum(c * math.exp(-t) for c, t in zip([1, 1.2, 3, 3.2], terms))


def rosenbrock(p):
    x = [p[f"x{i}"] for i in range(4)]
    return sum(100 * (x[i + 1] - x[i] ** 2) ** 2 + (1 - x[i]) ** 2 for i in range(3))


def ackley(p):
    x = [p[f"x{i}"] for i in range(5)]
    mean = sum(v * v for v in x) / 5
    return 20 + math.e - 20 * math.exp(-0.2 * math.sqrt(mean)) - math.exp(sum(math.cos(2 * math.pi * v) for v in x) / 5)


def tuning(p):
    """Shaped like the loss of a fine-tuning run over its usual parameters."""
    loss = 0.6 * (math.log10(p["lr"]) + 4.3) ** 2 + 0.1 * (math.log10(p["decay"]) + 2) ** 2
    loss += 0.2 * abs(math.log2(p["batch"]) - 5) + (p["dropout"] - 0.15) ** 2 * 4
    loss += {"linear": 0.1, "cosine": 0.0, "constant": 0.3}[p["schedule"]] + 0.05 * (p["epochs"] - 4) ** 2
    return loss + 0.3 * abs(math.log10(p["lr"]) + 4.3) * (p["batch"] == 64)


def ellipsoid(p):
    return sum(1000 ** (i / 5) * p[f"x{i}"] ** 2 for i in range(6))


def layers(p):
    """Integers and steps that depend on each other, with one continuous parameter."""
    loss = (p["width"] * p["depth"] - 24) ** 2 / 20 + abs(p["depth"] - 4) + (p["heads"] - p["width"]) ** 2 / 4
    return loss + 20 * (p["drop"] - 0.15) ** 2 + (math.log10(p["lr"]) + 3) ** 2


def kernel_machine(p):
    """A narrow valley over two parameters that span many orders of magnitude."""
    c, gamma = math.log10(p["c"]), math.log10(p["gamma"])
    return (c + gamma - 0.5) ** 2 + 0.05 * (c - gamma - 4) ** 2 + 0.3 * math.sin(3 * c)


FUNCTIONS = {
    "branin": (branin, {"x": FloatDistribution(-5, 10), "y": FloatDistribution(0, 15)}),
    "hartmann6": (hartmann6, floats(6, 0, 1)),
    "rosenbrock4": (rosenbrock, floats(4, -2, 2)),
    "ackley5": (ackley, floats(5, -10, 10)),
    "tuning": (
        tuning,
        {
            "lr": FloatDistribution(1e-6, 1e-2, log=True),
            "decay": FloatDistribution(1e-5, 1.0, log=True),
            "batch": CategoricalDistribution([8, 16, 32, 64]),
            "dropout": FloatDistribution(0.0, 0.5, step=0.05),
            "schedule": CategoricalDistribution(["linear", "cosine", "constant"]),
            "epochs": IntDistribution(1, 10),
        },
    ),
    "logs": (
        kernel_machine,
        {"c": FloatDistribution(1e-3, 1e5, log=True), "gamma": FloatDistribution(1e-6, 1e2, log=True)},
    ),
    "integers": (
        lambda p: sum((p[f"n{i}"] - 7 * i) ** 2 for i in range(4)) + abs(math.log(p["m"] / 37)),
        {**{f"n{i}": IntDistribution(-30, 30) for i in range(4)}, "m": IntDistribution(1, 1000, log=True)},
    ),
}


# What a model of numbers is made for; choices would be left to luck.
NUMERIC = {
    "sphere10": (lambda p: sum((v - 1) ** 2 for v in p.values()), floats(10, -5, 5)),
    "ellipsoid6": (ellipsoid, floats(6, -4, 5)),
    **{name: FUNCTIONS[name] for name in ("rosenbrock4", "ackley5", "hartmann6", "integers")},
    "layers": (
        layers,
        {
            "width": IntDistribution(1, 12),
            "depth": IntDistribution(1, 12),
            "heads": IntDistribution(1, 16),
            "drop": FloatDistribution(0.0, 0.5, step=0.05),
            "lr": FloatDistribution(1e-5, 1e-1, log=True),
        },
    ),
    "binary": (
        lambda p: sum(v for n, v in p.items() if n[0] == "b") + 4 * (p["x"] - 0.4) ** 2 + abs(p["n"] - 2) * p["b0"],
        {
            **{f"b{i}": IntDistribution(0, 1) for i in range(6)},
            "n": IntDistribution(0, 3),
            "x": FloatDistribution(0.0, 1.0),
        },
    ),
}

# By --sampler: Optuna's one for a seed, and the functions.
SAMPLERS = {
    "tpe": (lambda seed: optuna.samplers.TPESampler(seed=seed), FUNCTIONS),
    "cmaes": (lambda seed: optuna.samplers.CmaEsSampler(seed=seed), NUMERIC),
    "cmaes-margin": (lambda seed: optuna.samplers.CmaEsSampler(seed=seed, with_margin=True), NUMERIC),
    "gp": (lambda seed: optuna.samplers.GPSampler(seed=seed), FUNCTIONS),
    "qmc": (lambda seed: optuna.samplers.QMCSampler(seed=seed, scramble=True), FUNCTIONS),
}


class Ours:
    def __init__(self, program):
        self.process = subprocess.Popen([program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1)

    def send(self, message):
        self.process.stdin.write(json.dumps(message) + "\n")

    def best(self, function, space, seed, trials, sampler):
        texts = {name: distribution_to_json(d) for name, d in space.items()}
        # "cmaes-margin" is "cmaes" with that setting.
        sampler, *flags = sampler.split("-")
        settings = {f"with_{flag}": True for flag in flags}
        self.send({"new": {"space": texts, "seed": seed, "sampler": sampler, "settings": settings}})
        values = []
        for _ in range(trials):
            self.send({"ask": True})
            values.append(function(json.loads(self.process.stdout.readline())))
            self.send({"tell": values[-1]})
        return min(values)


def optunas(function, space, sampler, trials):
    study = optuna.create_study(sampler=sampler)
    for _ in range(trials):
        trial = study.ask(space)
        study.tell(trial, function(trial.params))
    return study.best_value


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("program")
    parser.add_argument("--sampler", choices=SAMPLERS, default="tpe")
    parser.add_argument("--functions", help="names with commas between them; default: all of the sampler")
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--trials", type=int, default=80)
    parser.add_argument("--json")
    arguments = parser.parse_args()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
    ours = Ours(arguments.program)
    rows, total, pairs = [], 0.0, 0
    seconds = {"ours": 0.0, "optuna": 0.0}
    sampler, functions = SAMPLERS[arguments.sampler]
    for name in (arguments.functions or ",".join(functions)).split(","):
        function, space = functions[name]
        wins, random_wins, best = 0.0, 0.0, {"ours": [], "optuna": []}
        for seed in range(arguments.seeds):
            start = time.perf_counter()
            mine = ours.best(function, space, seed, arguments.trials, arguments.sampler)
            middle = time.perf_counter()
            theirs = optunas(function, space, sampler(seed), arguments.trials)
            seconds["ours"] += middle - start
            seconds["optuna"] += time.perf_counter() - middle
            luck = ours.best(function, space, seed, arguments.trials, "random")
            wins += (mine < theirs) + (mine == theirs) / 2
            random_wins += (mine < luck) + (mine == luck) / 2
            best["ours"].append(mine)
            best["optuna"].append(theirs)
        median = {who: sorted(values)[len(values) // 2] for who, values in best.items()}
        # A floor, for what reaches zero.
        logs = [math.log(max(a, 1e-9) / max(b, 1e-9)) for a, b in zip(best["ours"], best["optuna"])]
        ratio = math.exp(sum(logs) / len(logs)) if min(best["ours"] + best["optuna"]) >= 0 else None
        rows.append(
            {
                "function": name,
                "wins_over_optuna": wins / arguments.seeds,
                "wins_over_random": random_wins / arguments.seeds,
                "median_ours": median["ours"],
                "median_optuna": median["optuna"],
                "ratio": ratio,
            }
        )
        total += wins
        pairs += arguments.seeds
        print(
            f"{name:12} wins over Optuna {wins:4.1f} of {arguments.seeds}, over random {random_wins:4.1f};"
            f" median best {median['ours']:.5g} and {median['optuna']:.5g}"
            + (f", ratio {ratio:.3g}" if ratio is not None else "")
        )
    share, error = total / pairs, 0.5 / math.sqrt(pairs)
    print(f"together     {share:.1%} of {pairs} pairs (50% is equal, standard error {error:.1%})")
    print(f"seconds      ours {seconds['ours']:.2f}, Optuna {seconds['optuna']:.2f}")
    document = {"optuna": optuna.__version__, "sampler": arguments.sampler, "trials": arguments.trials}
    document |= {"rows": rows, "share": share, "pairs": pairs}
    if arguments.json:
        with open(arguments.json, "w") as file:
            json.dump({**document, "seconds": seconds}, file, indent=1)


if __name__ == "__main__":
    main()
