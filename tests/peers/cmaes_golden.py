"""Writes the states of the Python package `cmaes` through generations, for hpo-svc's unit tests to compare with.

    python tests/peers/cmaes_golden.py crates/hpo-svc/testdata

Needs cmaes 0.13.1, which Optuna's CmaEsSampler is made of. The output depends on the seeds below alone.
"""

import json
import sys
from pathlib import Path

import numpy as np
from cmaes import CMA, CMAwM, SepCMA, get_warm_start_mgd


def ellipsoid(x):
    return float(sum(10 ** (3 * i / max(len(x) - 1, 1)) * (v - 0.3) ** 2 for i, v in enumerate(x)))


def rosenbrock(x):
    x = 4 * np.asarray(x) - 2
    return float(sum(100 * (b - a * a) ** 2 + (1 - a) ** 2 for a, b in zip(x, x[1:])))


def flat(x):
    """Many ties, and a best point at the edge of a grid."""
    return float(np.round(4 * abs(1 - x[0])) + np.round(2 * np.sum(np.abs(np.asarray(x[1:]) - 0.4))))


def state(kind, optimizer):
    inner = optimizer._cma if kind == "margin" else optimizer
    document = {
        "mean": inner._mean.tolist(),
        "sigma": float(inner._sigma),
        "covariance": np.asarray(inner._C).tolist(),
        "p_sigma": inner._p_sigma.tolist(),
        "pc": inner._pc.tolist(),
    }
    if kind == "margin":
        document["stretches"] = optimizer._A.tolist()
    return document


def case(kind, function, mean, generations, seed, popsize=None, steps=None, adapt=False, sigma=1 / 6):
    n = len(mean)
    common = {"mean": np.array(mean), "sigma": sigma, "bounds": np.array([[0.0, 1.0]] * n), "seed": seed}
    common |= {"population_size": popsize, "n_max_resampling": 10 * n}
    if kind == "margin":
        optimizer = CMAwM(steps=np.array([step or 0.0 for step in steps]), **common)
    elif kind == "separable":
        optimizer = SepCMA(**common)
    else:
        optimizer = CMA(lr_adapt=adapt, **common)
    document = {"kind": kind, "mean": list(mean), "sigma": sigma, "steps": steps, "adapt": adapt}
    document |= {"population": optimizer.population_size, "generations": []}
    for number in range(generations):
        asked, solutions = [], []
        for _ in range(optimizer.population_size):
            encoded, x = optimizer.ask() if kind == "margin" else [optimizer.ask()] * 2
            asked.append(encoded.tolist())
            solutions.append((x, function(encoded)))
        generation = {"members": [[x.tolist(), value] for x, value in solutions]}
        optimizer.tell(list(solutions))
        if number < 2 or number % 6 == 5:
            generation |= {"encoded": asked} if kind == "margin" else {}
            generation["state"] = state(kind, optimizer)
        document["generations"].append(generation)
    return document


def warm_start(n, count, seed):
    """Solutions with ties, and the distribution that a search begins with after them."""
    rng = np.random.RandomState(seed)
    solutions = [(x, round(ellipsoid(x), 1)) for x in rng.rand(count, n)]
    mean, sigma, covariance = get_warm_start_mgd(solutions)
    document = {"solutions": [[x.tolist(), value] for x, value in solutions], "mean": mean.tolist()}
    return document | {"sigma": float(sigma), "covariance": covariance.tolist()}


def main():
    warm = [warm_start(1, 30, 1), warm_start(3, 10, 2), warm_start(4, 119, 3), warm_start(7, 60, 4)]
    (Path(sys.argv[1]) / "cmaes_warm.json").write_text(json.dumps({"cases": warm}, separators=(",", ":")) + "\n")
    cases = [
        case("full", ellipsoid, [0.5] * 4, 24, 1),
        case("full", rosenbrock, [0.5] * 3, 24, 2, popsize=9),
        case("full", flat, [0.9, 0.1], 12, 3, popsize=3, sigma=0.4),
        case("full", ellipsoid, [0.5], 8, 4),
        case("full", rosenbrock, [0.4] * 3, 24, 5, adapt=True),
        case("separable", ellipsoid, [0.5] * 5, 18, 6),
        case("separable", rosenbrock, [0.5] * 3, 12, 7, popsize=5),
        case("margin", flat, [0.5] * 4, 30, 8, steps=[0.1, 1.0, 1 / 3, None]),
        case("margin", rosenbrock, [0.5] * 3, 30, 9, steps=[0.05, None, 1 / 7]),
        case("margin", flat, [0.5] * 3, 30, 10, steps=[0.25, 1.0, 1 / 60], popsize=10),
    ]
    (Path(sys.argv[1]) / "cmaes.json").write_text(json.dumps({"cases": cases}, separators=(",", ":")) + "\n")


if __name__ == "__main__":
    main()
