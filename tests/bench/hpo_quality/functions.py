"""The functions of one objective: continuous, whole, mixed, conditional, noisy, and a table of measured accuracies."""

import functools
import itertools
import json
import math
import random
from pathlib import Path

from problems import Problem, choice, real, reals, whole

# Away from the middle of the domain, where every sampler's prior would find it.
AWAY = [0.31, -0.22, 0.17, -0.38, 0.26, -0.11, 0.4, -0.29]


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
    return sum(c * math.exp(-t) for c, t in zip([1, 1.2, 3, 3.2], terms))


def rosenbrock(p):
    x = [p[f"x{i}"] for i in range(4)]
    return sum(100 * (x[i + 1] - x[i] ** 2) ** 2 + (1 - x[i]) ** 2 for i in range(3))


def ackley(p):
    x = [p[f"x{i}"] - 10 * AWAY[i] for i in range(5)]
    mean = sum(v * v for v in x) / 5
    return 20 + math.e - 20 * math.exp(-0.2 * math.sqrt(mean)) - math.exp(sum(math.cos(2 * math.pi * v) for v in x) / 5)


def ellipsoid(p):
    return sum(1000 ** (i / 5) * (p[f"x{i}"] - 5 * AWAY[i]) ** 2 for i in range(6))


def styblinski_tang(p):
    return -sum(v**4 - 16 * v**2 + 5 * v for v in p.values()) / 2


def sphere(p):
    return sum((p[f"x{i}"] - 5 * AWAY[i]) ** 2 for i in range(len(p)))


def tuning(p):
    """Shaped like the score of a fine-tuning run over its usual parameters."""
    lr = math.log10(p["lr"]) + 4.3
    loss = 0.6 * lr**2 + 0.1 * (math.log10(p["decay"]) + 2) ** 2
    loss += 0.2 * abs(math.log2(p["batch"]) - 5) + (p["dropout"] - 0.15) ** 2 * 4
    loss += {"linear": 0.1, "cosine": 0.0, "constant": 0.3}[p["schedule"]] + 0.05 * (p["epochs"] - 4) ** 2
    return 1 - loss - 0.3 * abs(lr) * (p["batch"] == 64)


def kernel_machine(p):
    """A narrow valley over two parameters that span many orders of magnitude, with a wave along it."""
    c, gamma = math.log10(p["c"]), math.log10(p["gamma"])
    return (c + gamma - 0.5) ** 2 + 0.05 * (c - gamma - 4) ** 2 + 0.3 * (1 - math.cos(3 * (c - 2.25)))


def integers(p):
    return sum((p[f"n{i}"] - 7 * i) ** 2 for i in range(4)) + abs(math.log(p["m"] / 37))


def layers(p):
    """Whole numbers that depend on each other, a step and a logarithm."""
    loss = (p["width"] * p["depth"] - 24) ** 2 / 20 + abs(p["depth"] - 4) + (p["heads"] - p["width"]) ** 2 / 4
    return -loss - 20 * (p["drop"] - 0.15) ** 2 - (math.log10(p["lr"]) + 3) ** 2


@functools.cache
def pieces():
    """Worth of each of 4 choices of 8 parameters, and of each pair of choices of neighbours."""
    source = random.Random(8)
    alone = [[source.random() for _ in range(4)] for _ in range(8)]
    return alone, [[[source.random() for _ in range(4)] for _ in range(4)] for _ in range(7)]


def puzzle_worth(chosen):
    alone, pairs = pieces()
    worth = sum(alone[i][c] for i, c in enumerate(chosen))
    return worth + sum(pairs[i][a][b] for i, (a, b) in enumerate(zip(chosen, chosen[1:])))


def puzzle(p):
    """Choices alone, with neighbours that have to fit."""
    return puzzle_worth(["abcd".index(p[f"c{i}"]) for i in range(8)])


def optimizers(p):
    """A branch for each optimizer, the best learning rate of which is another one."""
    lr = math.log10(p["lr"])
    if p["optimizer"] == "sgd":
        return 0.10 + 0.2 * (lr + 1.5) ** 2 + 2 * (p["momentum"] - 0.85) ** 2 + (0.05 if p["nesterov"] else 0)
    if p["optimizer"] == "adam":
        return 0.2 * (lr + 3.2) ** 2 + 0.1 * (math.log10(p["one_minus_beta2"]) + 2.5) ** 2 + (p["beta1"] - 0.88) ** 2
    return 0.15 + 0.3 * (lr + 2.6) ** 2


def classifiers(p):
    """Three models, one of which has a further branch, and layers of which there are as many as another parameter says."""
    if p["model"] == "svm":
        loss = 0.05 * (math.log10(p["c"]) - 1.2) ** 2
        kernels = {"linear": 0.3, "rbf": 0.05, "poly": 0.2}
        return loss + kernels[p["kernel"]] + (0.04 * (math.log10(p["gamma"]) + 2) ** 2 if p["kernel"] == "rbf" else 0)
    if p["model"] == "forest":
        return 0.12 + 0.002 * (p["max_depth"] - 14) ** 2 + 0.05 * abs(math.log(p["n_estimators"] / 200))
    loss = 0.1 * abs(p["n_layers"] - 2) + 0.1 * (math.log10(p["mlp_lr"]) + 2.7) ** 2
    return loss + sum(0.03 * (math.log2(p[f"units{i}"]) - 7 + i) ** 2 for i in range(p["n_layers"]))


@functools.cache
def knn():
    """Hits of 178 by index; see tests/peers/knn_table.py."""
    return bytes.fromhex(json.loads((Path(__file__).parent / "knn_wine.json").read_text())["hits"])


SCALERS, METRICS = ["none", "standard", "minmax", "rank"], ["l1", "l2", "chebyshev", "cosine"]


def knn_wine(p):
    """Accuracy of nearest neighbours on a real data set."""
    place = SCALERS.index(p["scaler"]) * len(METRICS) + METRICS.index(p["metric"])
    place = ((place * 13 + p["components"] - 1) * 2 + (p["weights"] == "distance")) * 40 + p["k"] - 1
    return knn()[place] / 178


SGD, ADAM = ("optimizer", ("sgd",)), ("optimizer", ("adam",))
SVM, FOREST, MLP = (("model", (name,)) for name in ("svm", "forest", "mlp"))

FUNCTIONS = {
    "branin": lambda: Problem(branin, [real("x", -5, 10), real("y", 0, 15)], 0.39788735772973816),
    "hartmann6": lambda: Problem(hartmann6, reals(6, 0, 1), 3.322368011391339, maximize=True),
    "rosenbrock4": lambda: Problem(rosenbrock, reals(4, -2, 2), 0.0),
    "ackley5": lambda: Problem(ackley, reals(5, -10, 10), 0.0),
    "ellipsoid6": lambda: Problem(ellipsoid, reals(6, -5, 5), 0.0),
    "styblinski5": lambda: Problem(styblinski_tang, reals(5, -5, 5), 5 * 39.16616570377142, maximize=True),
    "noisy-sphere8": lambda: Problem(sphere, reals(8, -5, 5), 0.0, noise=3.0),
    "noisy-branin": lambda: Problem(branin, [real("x", -5, 10), real("y", 0, 15)], 0.39788735772973816, noise=5.0),
    "kernel-machine": lambda: Problem(
        kernel_machine, [real("c", 1e-3, 1e5, log=True), real("gamma", 1e-6, 1e2, log=True)], 0.0
    ),
    "integers": lambda: Problem(
        integers, [*(whole(f"n{i}", -30, 30) for i in range(4)), whole("m", 1, 1000, log=True)], 0.0
    ),
    "layers": lambda: Problem(
        layers,
        [
            whole("width", 1, 12),
            whole("depth", 1, 12),
            whole("heads", 1, 16),
            real("drop", 0.0, 0.5, step=0.05),
            real("lr", 1e-5, 1e-1, log=True),
        ],
        0.0,
        maximize=True,
    ),
    "tuning": lambda: Problem(
        tuning,
        [
            real("lr", 1e-6, 1e-2, log=True),
            real("decay", 1e-5, 1.0, log=True),
            choice("batch", [8, 16, 32, 64]),
            real("dropout", 0.0, 0.5, step=0.05),
            choice("schedule", ["linear", "cosine", "constant"]),
            whole("epochs", 1, 10),
        ],
        1.0,
        maximize=True,
    ),
    "noisy-tuning": lambda: Problem(
        tuning, FUNCTIONS["tuning"]().space, 1.0, maximize=True, noise=0.1
    ),
    "puzzle": lambda: Problem(
        puzzle,
        [choice(f"c{i}", list("abcd")) for i in range(8)],
        max(puzzle_worth(chosen) for chosen in itertools.product(range(4), repeat=8)),
        maximize=True,
    ),
    "optimizers": lambda: Problem(
        optimizers,
        [
            choice("optimizer", ["sgd", "adam", "rmsprop"]),
            real("lr", 1e-6, 1.0, log=True),
            real("momentum", 0.0, 1.0, SGD),
            choice("nesterov", [True, False], SGD),
            real("beta1", 0.5, 0.999, ADAM),
            real("one_minus_beta2", 1e-5, 1e-1, ADAM, log=True),
        ],
        0.0,
    ),
    "classifiers": lambda: Problem(
        lambda p: -classifiers(p),
        [
            choice("model", ["svm", "forest", "mlp"]),
            real("c", 1e-3, 1e3, SVM, log=True),
            choice("kernel", ["linear", "rbf", "poly"], SVM),
            real("gamma", 1e-6, 1.0, ("kernel", ("rbf",)), log=True),
            whole("max_depth", 1, 32, FOREST),
            whole("n_estimators", 10, 1000, FOREST, log=True),
            whole("n_layers", 1, 3, MLP),
            real("mlp_lr", 1e-5, 1e-1, MLP, log=True),
            *(whole(f"units{i}", 8, 512, ("n_layers", tuple(range(i + 1, 4))), log=True) for i in range(3)),
        ],
        0.0,
        maximize=True,
    ),
    "knn-wine": lambda: Problem(
        knn_wine,
        [
            choice("scaler", SCALERS),
            choice("metric", METRICS),
            whole("components", 1, 13),
            choice("weights", ["uniform", "distance"]),
            whole("k", 1, 40),
        ],
        max(knn()) / 178,
        maximize=True,
    ),
}
